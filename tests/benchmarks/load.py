"""A small load generator for machines without wrk:  python load.py CONNECTIONS SECONDS URL "name: value" ...

It speaks just enough HTTP/1.1 for answers with a Content-Length, and prints what wrk would.
"""

import asyncio
import re
import sys
from time import perf_counter
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.I)


async def visit(host: str, port: int, request: bytes, until: float) -> tuple[int, int]:
    """Ask again and again over one connection; how many answers came, and how many were no 2xx."""
    reader, writer = await asyncio.open_connection(host, port)
    answers = failures = 0
    while perf_counter() < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        await reader.readexactly(int(length[1]) if length else 0)
        answers += 1
        failures += not head.startswith(b"HTTP/1.1 2")
    writer.close()
    await writer.wait_closed()
    return answers, failures


async def main(connections: int, seconds: float, url: str, lines: list[str]) -> None:
    """Keep all connections busy and print the rate."""
    there = urlsplit(url)
    request = "\r\n".join([f"GET {there.path} HTTP/1.1", f"Host: {there.netloc}", *lines, "", ""]).encode()
    start = perf_counter()
    visits = [visit(there.hostname, there.port, request, start + seconds) for _ in range(connections)]
    counts = await asyncio.gather(*visits)
    rate = sum(answers for answers, _ in counts) / (perf_counter() - start)
    if failures := sum(failed for _, failed in counts):
        print(f"Non-2xx or 3xx responses: {failures}")
    print(f"Requests/sec: {rate:.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
