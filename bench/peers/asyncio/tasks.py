"""CPython's asyncio, and uvloop when the first argument is "uvloop": what their users write, coroutines and gather."""
import asyncio
import gc
import os
import statistics
import sys
import time


async def short(i):
    return i


async def yields_once(i):
    await asyncio.sleep(0)
    return i


async def sleeps(i, seconds):
    await asyncio.sleep(seconds)
    return i


async def report(count, work, clock=time.process_time):
    """A warm-up, then the median of a few runs; a number that work returns is the part of its time that counts."""
    await work()
    times = []
    for _ in range(runs):
        started = clock()
        counted = await work()
        times.append(clock() - started if counted is None else counted)
    print(f"nanoseconds_per_unit {statistics.median(times) / count * 1e9:.2f}")


async def spawn(count):
    async def work():
        results = await asyncio.gather(*[short(i) for i in range(count)])
        assert results[-1] == count - 1

    await report(count, work)


async def yield_(count):
    async def work():
        results = await asyncio.gather(*[yields_once(i) for i in range(count)])
        assert results[-1] == count - 1

    await report(count, work)


async def sleep(count):
    async def work():
        results = await asyncio.gather(*[sleeps(i, 0.01) for i in range(count)])
        assert results[-1] == count - 1

    await report(count, work, time.monotonic)


async def switch(count):
    async def turns():
        for _ in range(count // 100):
            await asyncio.sleep(0)

    async def work():
        await asyncio.gather(*[turns() for _ in range(100)])

    await report(count, work)


async def alone(count):
    async def work():
        for _ in range(count):
            await asyncio.sleep(0)

    await report(count, work)


async def cancel(count):
    async def work():
        tasks = [asyncio.create_task(sleeps(i, 3600)) for i in range(count)]
        await asyncio.sleep(0)
        started = time.process_time()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        counted = time.process_time() - started
        assert tasks[-1].cancelled()
        return counted

    await report(count, work)


async def queue(count):
    async def produce(items):
        for i in range(count):
            await items.put(i)

    async def work():
        items = asyncio.Queue(100)
        producer = asyncio.create_task(produce(items))
        for _ in range(count):
            last = await items.get()
        await producer
        assert last == count - 1

    await report(count, work)


async def lock(count):
    async def work():
        shared = asyncio.Lock()

        async def job():
            for _ in range(count // 100):
                async with shared:
                    await asyncio.sleep(0)

        await asyncio.gather(*[job() for _ in range(100)])

    await report(count, work)


async def chain(count):
    async def level(depth):
        if depth == 0:
            return 0
        return 1 + await asyncio.create_task(level(depth - 1))

    async def work():
        assert await level(count) == count

    await report(count, work)


def resident():
    gc.collect()
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024


async def memory(count):
    await memory_of(count, lambda i: asyncio.sleep(3600))


async def memory_function(count):
    await memory_of(count, lambda i: sleeps(i, 3600))


async def memory_of(count, job):
    await asyncio.gather(*[yields_once(i) for i in range(1000)])
    before = resident()
    tasks = [asyncio.create_task(job(i)) for i in range(count)]
    await asyncio.sleep(0)
    print(f"bytes_per_task {(resident() - before) / len(tasks):.1f}", flush=True)
    os._exit(0)


async def million(count):
    results = await asyncio.gather(*[asyncio.sleep(1, i) for i in range(count)])
    assert results[-1] == count - 1


async def million_functions(count):
    results = await asyncio.gather(*[sleeps(i, 1) for i in range(count)])
    assert results[-1] == count - 1


WORKS = {
    "spawn": spawn, "yield": yield_, "sleep": sleep, "switch": switch, "alone": alone, "cancel": cancel,
    "queue": queue, "lock": lock, "chain": chain, "memory": memory, "million": million,
    "memory_function": memory_function, "million_functions": million_functions,
}

if __name__ == "__main__":
    loop, work, size, runs = *sys.argv[1:4], int(sys.argv[4])
    if work not in WORKS:
        print("none")
        sys.exit()
    if loop == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(WORKS[work](int(size)))
