"""Clients on asyncio: client.py aiohttp|httpx URL COUNT LIMIT. One client, so many requests under way, bodies read as
text."""
import asyncio
import sys
import time


async def run(fetch, number, limit):
    started = 0

    async def worker():
        nonlocal started
        while started < number:
            started += 1
            if not await fetch():
                raise RuntimeError("wrong response")

    await asyncio.gather(*(worker() for _ in range(limit)))


async def measure(fetch, count, limit):
    await run(fetch, count // 10, limit)
    used, started = time.process_time(), time.perf_counter()
    await run(fetch, count, limit)
    print(f"requests_per_cpu_second {count / (time.process_time() - used):.1f}")
    print(f"requests_per_second {count / (time.perf_counter() - started):.1f}")


async def with_aiohttp(url, count, limit):
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)) as session:

        async def fetch():
            async with session.get(url) as response:
                response.raise_for_status()
                return await response.text()

        await measure(fetch, count, limit)


async def with_httpx(url, count, limit):
    import httpx

    limits = httpx.Limits(max_connections=limit, max_keepalive_connections=limit)
    async with httpx.AsyncClient(limits=limits) as client:

        async def fetch():
            response = await client.get(url)
            response.raise_for_status()
            return response.text

        await measure(fetch, count, limit)


if __name__ == "__main__":
    clients = {"aiohttp": with_aiohttp, "httpx": with_httpx}
    asyncio.run(clients[sys.argv[1]](sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
