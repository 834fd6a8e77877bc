"""asyncio and uvloop. net.py LOOP PROTOCOL: streams, a coroutine per connection, which is what tasks are for.
net.py uvloop-protocol PROTOCOL: callbacks without tasks, uvloop's fastest way. HTTP is the least that answers: the head
is read up to the empty line, and not looked at."""
import asyncio
import sys

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def http(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(RESPONSE)
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Http(Echo):
    head = b""

    def data_received(self, data):
        *heads, self.head = (self.head + data).split(b"\r\n\r\n")
        for _ in heads:
            self.transport.write(RESPONSE)


async def main(kind, protocol):
    if kind == "uvloop-protocol":
        factory = {"echo": Echo, "http": Http}[protocol]
        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    else:
        server = await asyncio.start_server({"echo": echo, "http": http}[protocol], "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] != "asyncio":
        import uvloop

        uvloop.install()
    asyncio.run(main(*sys.argv[1:3]))
