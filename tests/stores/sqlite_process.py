"""What the tests of the SQLite store run in processes of their own:  sqlite_process.py JOB PATH [NUMBER]."""

import json
import os
import resource
import sys
import threading
from collections.abc import Callable

import anyio

from apim_middleware.errors import StoreError
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.sqlite import SQLiteCounters, SQLitePermits

DAY, MOST = 86_400.0, 10**9
LIMITS = [
    Limit(1_000, float("inf"), "fixed"),
    Limit(1_000, 1_000 * DAY, "sliding"),
    Limit(1_000, 1_000 * DAY, "log"),
    Limit(1_000, 1_000 * DAY, "bucket"),
    Limit(1_000, 365 * DAY, "calendar", calendar="year UTC"),
]
"""One of each algorithm, of which nothing comes back while a test runs."""

TRAFFIC = [limit._replace(quota=MOST, place="traffic") for limit in LIMITS if limit.algorithm != "bucket"]
AT_ONCE = 20


def say(what: object) -> None:
    """Write a line at once, so that those of several processes do not mix."""
    os.write(1, f"{json.dumps(what)}\n".encode())


async def passed(counters: SQLiteCounters, requests: int) -> list[int]:
    """Of so many concurrent requests, how many pass by each limit."""
    counts = [0] * len(LIMITS)

    async def request() -> None:
        for number, limit in enumerate(LIMITS):
            [tally] = await counters.hit([Hit("a", limit)])
            counts[number] += tally.allowed

    async with anyio.create_task_group() as group:
        for _ in range(requests):
            group.start_soon(request)
    return counts


def race(path: str, requests: int) -> None:
    """Wait for the signal, and let requests in."""
    sys.stdin.read(1)
    say(anyio.run(passed, SQLiteCounters(path), requests))


def family(path: str, requests: int) -> None:
    """Use a store, fork twice, and go on using it in all three."""
    counters = SQLiteCounters(path)
    anyio.run(passed, counters, 1)
    for _ in range(2):
        if os.fork() == 0:
            say(anyio.run(passed, counters, requests))
            os._exit(0)
    say(anyio.run(passed, counters, requests))
    for _ in range(2):
        os.wait()
    say(anyio.run(passed, counters, 1))


def busy_family(path: str, forks: int) -> None:
    """Fork again and again while a thread counts, and count in each process."""
    counters = SQLiteCounters(path)
    anyio.run(passed, counters, 1)  # nothing is imported, and so Python's own locks held, while it forks
    threading.Thread(target=anyio.run, args=(for_ever, counters, lambda: None), daemon=True).start()
    for _ in range(forks):
        if os.fork() == 0:
            say(anyio.run(passed, counters, 3))
            os._exit(0)
        os.wait()
    os._exit(0)


async def for_ever(counters: SQLiteCounters, answered: Callable[[], object]) -> None:
    """Hit all limits of the traffic together, in several tasks."""

    async def request() -> None:
        while True:
            await counters.hit([Hit("a", limit) for limit in TRAFFIC])
            answered()

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(request)


def traffic(path: str, _: int) -> None:
    """Count for ever, and write a byte for each hit that was answered."""
    anyio.run(for_ever, SQLiteCounters(path), lambda: os.write(1, b"."))


def small_disk(path: str, size: int) -> None:
    """Count keys until files may not grow, and then one that is there and one more that is not."""
    counters = SQLiteCounters(path)

    async def fill() -> None:
        await counters.hit([Hit("first", LIMITS[0])])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        number = 0
        try:
            while True:
                number += 1
                await counters.hit([Hit(f"{number}-{each}", LIMITS[0]) for each in range(100)])
        except StoreError as error:
            say([number, type(error.__cause__).__name__])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        tallies = await counters.peek([Hit(f"{which}-99", LIMITS[0]) for which in (number - 1, number)])
        say([tally.remaining for tally in tallies])

    anyio.run(fill)


def hit_once(path: str, _: int) -> None:
    """Try one hit as somebody who may not do everything, and say what became of it."""
    anyio.run(anyio.sleep, 0)  # import what is needed, as long as it may be read
    if os.geteuid() == 0:
        os.setuid(65_534)
    try:
        counters = SQLiteCounters(path)
        anyio.run(counters.hit, [Hit("a", LIMITS[0])])
    except Exception as error:
        say([type(error).__name__, type(error.__cause__).__name__, str(error)])
    else:
        say(["counted"])


def hold(path: str, at_once: int) -> None:
    """Take permits and hold them until killed."""
    permits = SQLitePermits(path, lease=0.3)

    async def take() -> None:
        for number in range(at_once):
            await permits.acquire("a", at_once, f"{os.getpid()}-{number}")
        say("holding")
        await anyio.sleep_forever()

    anyio.run(take)


if __name__ == "__main__":
    job, path, *number = sys.argv[1:]
    globals()[job](path, int(*number) if number else 0)
