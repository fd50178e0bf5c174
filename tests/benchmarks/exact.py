"""Table 5: how many units pass that should not, and how few that could: with many processes at once, and over time.

Run as a program, it is one of the processes.
"""

import asyncio
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness import Effort, table

from apim_middleware import MemoryCounters
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.sqlite import SQLiteCounters
from apim_middleware.testing import FakeClock

Take = Callable[[int], Awaitable[bool]]
"""Tries to use so many units of one counter, and says whether that passed."""

Way = tuple[Take, object]
"""That, and what is to be closed afterwards."""

ALGORITHMS = ("fixed", "sliding", "log", "bucket", "calendar")
STRATEGIES = ("FixedWindow", "SlidingWindowCounter", "MovingWindow")
PROCESSES, REQUESTS, QUOTA = 8, 250, 1_000


def run(effort: Effort) -> None:
    """Measure and print everything."""
    small = effort.rounds < 10
    with tempfile.TemporaryDirectory() as folder, redis(Path(folder)) as url:
        at_once(specs(Path(folder), url, small=small), 2 if small else PROCESSES)
        over_time(Path(folder), url, 3 if small else 30)


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis server of our own, or nothing where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        print("Redis is left out: there is no redis-server here.")
        yield ""
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            await_listener(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()


def await_listener(port: int) -> None:
    """Return once somebody answers there."""
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.01)


# Many processes at once


def at_once(ways: Iterator[tuple[str, str]], processes: int) -> None:
    """So many requests wait in each process; they cost one to five units."""
    rows = []
    for name, spec in ways:
        passed = passed_together(spec, processes)
        rows.append([name, f"{passed:,}", f"{passed - QUOTA:+,}", f"{100 * (passed - QUOTA) / QUOTA:+.1f} %"])
    asked = f"{processes} processes, {REQUESTS} requests at once in each, 1 to 5 units a request"
    table(f"{QUOTA:,} units may pass: {asked}", ["counted by", "units that passed", "error", ""], rows)


def specs(folder: Path, url: str, *, small: bool) -> Iterator[tuple[str, str]]:
    """Each way to count, by name, and how a process is told of it."""
    some, strategies = (ALGORITHMS[:1], STRATEGIES[:1]) if small else (ALGORITHMS, STRATEGIES)
    yield "MemoryCounters, fixed", "memory fixed x"
    for algorithm in some:
        yield f"SQLiteCounters, {algorithm}", f"sqlite {algorithm} {folder}/exact.db"
    for algorithm in some if url else ():
        yield f"RedisCounters, {algorithm}", f"redis {algorithm} {url}/0"
    for algorithm in some if url else ():
        if algorithm != "bucket":
            yield f"LimitsCounters on Redis, {algorithm}", f"limits {algorithm} {url}/1"
    for strategy in strategies if url else ():
        yield f"limits {strategy} on Redis", f"theirs {strategy} {url}/2"
    try:
        import pyrate_limiter  # noqa: F401
    except ImportError:
        print("pyrate-limiter is left out: it is not installed here. See tests/benchmarks/install.")
    else:
        yield "pyrate-limiter SQLiteBucket", f"pyrate log {folder}/pyrate.db"


def passed_together(spec: str, processes: int) -> int:
    """Start the processes, let them wait for each other, and add up what passed."""
    with ExitStack() as stack:
        command = [sys.executable, __file__, *spec.split()]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        running = [
            stack.enter_context(subprocess.Popen([*command, str(number)], **pipes)) for number in range(processes)
        ]
        for process in running:
            process.stdout.readline()
        for process in running:
            process.stdin.write(b"go\n")
            process.stdin.flush()
        return sum(json.loads(process.stdout.readline()) for process in running)


def main(kind: str, algorithm: str, where: str, number: str) -> None:
    """One of the processes."""
    costs = random.Random(number).choices(range(1, 6), k=REQUESTS)
    print(asyncio.run(passed_here(kind, algorithm, where, costs)), flush=True)


async def passed_here(kind: str, algorithm: str, where: str, costs: list[int]) -> int:
    """Units that passed, of requests that wait at the same time."""
    take = taking(kind, algorithm, where)
    await take(0)
    print("ready", flush=True)
    sys.stdin.readline()
    told = await asyncio.gather(*(take(cost) for cost in costs))
    return sum(cost for cost, passed in zip(costs, told, strict=True) if passed)


def taking(kind: str, algorithm: Any, where: str) -> Take:
    """How units are taken from one counter."""
    if kind == "theirs":
        return theirs(algorithm, where)
    if kind == "pyrate":
        return pyrate(where)
    limit = Limit(QUOTA, 28 * 86_400.0, algorithm, calendar="month UTC" if algorithm == "calendar" else "")
    return ours(counters_of(kind, where), limit)[0]


def ours(counters: Any, limit: Limit) -> Way:
    """Through the protocol of every store."""

    async def take(cost: int) -> bool:
        [tally] = await counters.hit([Hit("a", limit, cost)])
        return bool(tally.allowed)

    return take, counters


def counters_of(kind: str, where: str) -> Any:
    """The store of a process."""
    if kind == "memory":
        return MemoryCounters()
    if kind == "sqlite":
        return SQLiteCounters(where, patience=60.0)
    if kind == "redis":
        from apim_middleware.stores.redis import RedisCounters

        return RedisCounters(where, timeout=60.0)
    from apim_middleware.stores.limits import LimitsCounters

    return LimitsCounters(where)


def theirs(strategy: str, where: str) -> Take:
    """A strategy of limits as its documentation has it, in threads."""
    from limits import RateLimitItemPerDay, storage, strategies

    limiter = getattr(strategies, f"{strategy}RateLimiter")(storage.storage_from_string(where))
    item = RateLimitItemPerDay(QUOTA, 28)

    async def take(cost: int) -> bool:
        return bool(await asyncio.to_thread(limiter.hit, item, strategy, cost=cost)) if cost else True

    return take


def pyrate(where: str) -> Take:
    """pyrate-limiter on one file."""
    from pyrate_limiter import Limiter, Rate, SQLiteBucket

    limiter = Limiter(SQLiteBucket.init_from_file([Rate(QUOTA, 86_400_000)], db_path=where))

    async def take(cost: int) -> bool:
        try:
            return bool(limiter.try_acquire("a", cost, blocking=False)) if cost else True
        except Exception:  # "database is locked"
            return False

    return take


# Over time

WINDOW, UNITS = 60.0, 100
CALLERS = ("in bursts", "evenly", "at random", "one early, the rest late")


def over_time(folder: Path, url: str, windows: int) -> None:
    """What passes in the busiest stretch of one window's time, and on the whole, when callers ask for more."""
    rows = []
    for name, make in timed_ways(folder, url):
        found = [asyncio.run(stretched(make, caller, windows)) for caller in CALLERS]
        worst = [f"{busiest / UNITS:.2f}" for busiest, _ in found]
        rows.append([name, *worst, f"{found[1][1] / (windows * UNITS):.2f}"])
    head = ["counted by", *CALLERS, "of the quota, evenly"]
    title = f"The busiest stretch of one window's time, in quotas, over {windows} windows of {UNITS} units"
    table(title, head, rows)


def timed_ways(folder: Path, url: str) -> Iterator[tuple[str, Callable[[FakeClock], Way]]]:
    """Each way to count whose time can be given."""
    numbers = iter(range(10**6))
    for algorithm in ("fixed", "sliding", "log", "bucket"):
        limit: Any = Limit(UNITS, WINDOW, algorithm)  # type: ignore[arg-type]
        yield f"MemoryCounters, {algorithm}", lambda clock, limit=limit: ours(MemoryCounters(clock=clock), limit)
        yield (
            f"SQLiteCounters, {algorithm}",
            lambda clock, limit=limit: ours(SQLiteCounters(folder / f"{next(numbers)}.db", clock=clock), limit),
        )
        if url:
            yield f"RedisCounters, {algorithm}", lambda clock, limit=limit: on_redis(url, clock, limit, next(numbers))
    for strategy in STRATEGIES:
        yield f"limits {strategy} in memory", lambda clock, strategy=strategy: theirs_by_clock(strategy, clock)


def on_redis(url: str, clock: FakeClock, limit: Limit, number: int) -> Way:
    """By a clock that stands in for the server's."""
    from apim_middleware.stores.redis import RedisCounters

    return ours(RedisCounters(f"{url}/3", clock=clock, timeout=60.0), limit._replace(place=f"{number}"))


def theirs_by_clock(strategy: str, clock: FakeClock) -> Way:
    """A strategy of limits in memory, whose time is the clock's."""
    import limits.storage.memory
    from limits import RateLimitItemPerMinute, strategies

    limits.storage.memory.time = SimpleNamespace(time=clock.now)  # type: ignore[assignment]
    limiter = getattr(strategies, f"{strategy}RateLimiter")(limits.storage.memory.MemoryStorage())
    item = RateLimitItemPerMinute(UNITS)

    async def take(cost: int) -> bool:
        return bool(limiter.hit(item, "a", cost=cost))

    return take, limiter


async def stretched(make: Callable[[FakeClock], Way], caller: str, windows: int) -> tuple[int, int]:
    """Units in the busiest stretch as long as a window, and in all."""
    clock = FakeClock()
    (take, counters), start = make(clock), clock.now()
    passed: list[float] = []
    for moment in moments(caller, windows):
        clock.advance(start + moment - clock.now())
        if await take(1):
            passed.append(moment)
    if hasattr(counters, "aclose"):
        await counters.aclose()
    busiest, first = 0, 0
    for last, moment in enumerate(passed):
        while passed[first] <= moment - WINDOW + 1e-3:
            first += 1
        busiest = max(busiest, last - first + 1)
    return busiest, len(passed)


def moments(caller: str, windows: int) -> list[float]:
    """When a caller tries to use one unit: two to four times as often as allowed."""
    chance = random.Random(1)
    if caller == "in bursts":
        return sorted(17.0 * burst for burst in range(int(windows * WINDOW / 17)) for _ in range(UNITS))
    if caller == "evenly":
        return [number * WINDOW / UNITS / 2 for number in range(2 * UNITS * windows)]
    if caller == "at random":
        return sorted(chance.uniform(0, windows * WINDOW) for _ in range(3 * UNITS * windows))
    early = [window * 2 * WINDOW + 0.01 for window in range(windows // 2)]
    late = [moment + 0.98 * WINDOW for moment in early for _ in range(UNITS - 1)]
    after = [moment + (0.99 + step / 300) * WINDOW for moment in early for step in range(300)]
    return sorted([*early, *late, *after])


if __name__ == "__main__":
    main(*sys.argv[1:])
