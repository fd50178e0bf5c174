"""A load that does not wait for the server:  python pace.py RATE CONNECTIONS SECONDS URL "name: value" ...

Requests are due at fixed times, and a late answer is as late as it is after that time, so that a server that stalls
cannot hide the requests it kept waiting. Prints how many answers came a second, and the milliseconds of 50 and 99 %.
"""

import asyncio
import re
import sys
from functools import partial
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.I)


class Visitor(asyncio.Protocol):
    """One connection, which asks again whenever a request is due and the last was answered."""

    def __init__(self, request: bytes, every: float, first: float, until: float, late: list[float]) -> None:
        self.request, self.every, self.due, self.until, self.late = request, every, first, until, late
        self.loop = asyncio.get_running_loop()
        self.done = self.loop.create_future()
        self.heard, self.size = b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self.transport = cast("asyncio.Transport", transport)
        self.loop.call_later(max(0.0, self.due - perf_counter()), self.ask)

    def ask(self) -> None:
        """Send a request."""
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """More of an answer; when it is whole, the next request waits until it is due."""
        self.heard += data
        if not self.size:
            end = self.heard.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.heard.startswith(b"HTTP/1.1 2"):
                self.fail(f"no 2xx: {self.heard[:80]!r}")
                return
            length = _LENGTH.search(self.heard)
            self.size = end + 4 + (int(length[1]) if length else 0)
        if len(self.heard) < self.size:
            return
        now, self.heard, self.size = perf_counter(), b"", 0
        self.late.append(now - self.due)
        self.due += self.every
        if self.due >= self.until:
            self.transport.close()
        elif self.due <= now:
            self.ask()
        else:
            self.loop.call_later(self.due - now, self.ask)

    def fail(self, why: str) -> None:
        """Nothing that was measured counts."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))
        self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """All is asked, or the server has hung up."""
        if self.due < self.until:
            self.fail("the server hung up")
        elif not self.done.done():
            self.done.set_result(None)


async def main(rate: float, connections: int, seconds: float, url: str, lines: list[str]) -> None:
    """Ask at this rate over all connections, their turns spread evenly, and print what came of it."""
    there, late = urlsplit(url), list[float]()
    request = "\r\n".join([f"GET {there.path} HTTP/1.1", f"Host: {there.netloc}", *lines, "", ""]).encode()
    start, every = perf_counter() + 0.1, connections / rate
    loop, visitors = asyncio.get_running_loop(), list[Visitor]()
    for each in range(connections):
        first = start + every * each / connections
        make = partial(Visitor, request, every, first, start + seconds, late)
        visitors.append((await loop.create_connection(make, there.hostname or "", there.port or 80))[1])
    await asyncio.gather(*(each.done for each in visitors))
    late.sort()
    print(f"Requests/sec: {len(late) / max(seconds, perf_counter() - start):.2f}")
    print(f"50%: {1000 * late[len(late) // 2]:.2f} 99%: {1000 * late[int(len(late) * 0.99)]:.2f}")


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        pass
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5:]))
