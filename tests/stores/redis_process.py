"""What the tests of the Redis stores run in processes of their own:  redis_process.py JOB URL NUMBER."""

import json
import sys
import time

import anyio

from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.redis import RedisCounters, RedisPermits
from apim_middleware.testing import FakeClock

DAY = 86_400.0
LIMITS = [
    Limit(1_000, float("inf"), "fixed"),
    Limit(1_000, 1_000 * DAY, "sliding"),
    Limit(1_000, 1_000 * DAY, "log"),
    Limit(1_000, 1_000 * DAY, "bucket"),
    Limit(1_000, 365 * DAY, "calendar", calendar="year UTC"),
]
"""One of each algorithm, of which nothing comes back while a test runs."""


def say(what: object) -> None:
    """A line, at once."""
    print(json.dumps(what), flush=True)


async def passed(url: str, requests: int) -> list[int]:
    """Of so many concurrent requests, how many pass by each limit."""
    counters = RedisCounters(url, timeout=20.0)
    counts = [0] * len(LIMITS)

    async def request() -> None:
        for number, limit in enumerate(LIMITS):
            [tally] = await counters.hit([Hit("a", limit)])
            counts[number] += tally.allowed

    async with anyio.create_task_group() as group:
        for _ in range(requests):
            group.start_soon(request)
    await counters.aclose()
    return counts


def race(url: str, requests: int) -> None:
    """Wait for the signal, and let requests in."""
    sys.stdin.read(1)
    say(anyio.run(passed, url, requests))


async def inside(url: str, holders: int) -> int:
    """Of so many holders at one door, how many get in; they stay until told."""
    permits = RedisPermits(url, timeout=20.0)
    count = 0

    async def enter(number: int) -> None:
        nonlocal count
        entered, _ = await permits.acquire("door", 100, f"{time.monotonic_ns()}-{number}-{id(permits)}")
        count += entered

    async with anyio.create_task_group() as group:
        for number in range(holders):
            group.start_soon(enter, number)
    say(count)
    await anyio.to_thread.run_sync(sys.stdin.read, 1)
    await permits.aclose()
    return count


def crowd(url: str, holders: int) -> None:
    """Wait for the signal, and send holders to the door."""
    sys.stdin.read(1)
    anyio.run(inside, url, holders)


async def held(url: str, number: int) -> None:
    """Hold so many permits until killed."""
    permits = RedisPermits(url, clock=FakeClock(), lease=15.0)
    for each in range(number):
        say(await permits.acquire("door", number, f"holder-{each}"))
    await anyio.sleep_forever()


def hold(url: str, number: int) -> None:
    """Hold so many permits until killed."""
    anyio.run(held, url, number)


if __name__ == "__main__":
    {"race": race, "crowd": crowd, "hold": hold}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
