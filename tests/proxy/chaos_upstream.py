"""An upstream in a process of its own, for tests that do it harm: ``python chaos_upstream.py PORT JOURNAL``.

It echoes what identifies a request, so that a wrong response is found out. Each request it executes is a line in its
journal, and so is a client that has left before its time. The path says how it answers: at once (``/ok``), slowly
(``/slow``), with half of a body and then a reset (``/reset``) or a close (``/half``), by closing its sending side
before it answers (``/close``), with 503 (``/sorry``), never (``/left``), or without an end (``/endless``).
"""

import asyncio
import socket
import sys
from pathlib import Path


class Upstream:
    def __init__(self, journal: str) -> None:
        self.journal = Path(journal).open("ab", buffering=0)  # noqa: SIM115 - as long as the process lives

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        method, target, _ = head[0].split(b" ")
        lines = dict(line.lower().split(b": ", 1) for line in head[1:] if line)
        try:
            body = await reader.readexactly(int(lines.get(b"content-length", 0)))
        except asyncio.IncompleteReadError:
            self.journal.write(b"left\n")
            raise
        path, _, number = target.partition(b"?")
        self.journal.write(b"%b %b %b\n" % (method, path, number))
        echo = b"%b %b %b" % (method, number, body)
        return bool(await getattr(self, path[1:].decode())(reader, writer, echo))

    async def ok(self, reader, writer, echo):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(echo), echo))
        await writer.drain()
        return True

    async def slow(self, reader, writer, echo):
        await asyncio.sleep(0.05)
        return await self.ok(reader, writer, echo)

    async def sorry(self, reader, writer, echo):
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        return True

    async def reset(self, reader, writer, echo):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + echo)
        await writer.drain()
        linger = b"\1\0\0\0\0\0\0\0"  # on, and for no time: a reset in the place of a close
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def half(self, reader, writer, echo):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + echo)

    async def close(self, reader, writer, echo):
        writer.write_eof()
        await reader.read()

    async def left(self, reader, writer, echo):
        await reader.read()
        self.journal.write(b"left\n")

    async def endless(self, reader, writer, echo):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while not reader.at_eof():
                writer.write(b"4\r\nmore\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            self.journal.write(b"left\n")


async def main(port: int, journal: str) -> None:
    server = await asyncio.start_server(Upstream(journal).serve, "127.0.0.1", port, reuse_address=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
