"""Table 4: what it costs to count a hit in a file, by the time of day: a disk is waited for, not worked on."""

import asyncio
import random
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

from harness import Effort, fast_loop, table

from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.sqlite import SQLiteCounters

Count = Callable[[str], Awaitable[Any]]
"""Counts one hit of a key."""

ALGORITHMS = ("fixed", "sliding", "log", "bucket", "calendar")
AT_ONCE = (1, 64)
LIVE = 1_000
"""How many keys take turns."""


class Cost(NamedTuple):
    """Seconds by the clock and of the processor, for one hit."""

    took: float
    worked: float


def ours(path: Path, algorithm: Any, synchronous: Any = "normal", limits: int = 1) -> Count:
    """Our counters in a file, with so many limits in each hit."""
    counters = SQLiteCounters(path, synchronous=synchronous)
    calendar = "day UTC" if algorithm == "calendar" else ""
    several = [Limit(10**9, 86_400.0, algorithm, f"{number}", calendar=calendar) for number in range(limits)]
    return lambda key: counters.hit([Hit(key, limit) for limit in several])


def bare(path: Path, synchronous: str) -> Count:
    """One statement, committed at once, in the way of the event loop: what SQLite takes."""
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("PRAGMA journal_mode=WAL")
    file.execute(f"PRAGMA synchronous={synchronous}")
    file.execute("CREATE TABLE counts (key TEXT PRIMARY KEY, units INTEGER) WITHOUT ROWID")

    async def hit(key: str) -> None:
        file.execute("INSERT INTO counts VALUES (?, 1) ON CONFLICT DO UPDATE SET units = units + 1", (key,))

    return hit


def pyrate(path: Path) -> Count:
    """pyrate-limiter's SQLite bucket, which counts one key; another takes another table."""
    from pyrate_limiter import Limiter, Rate, SQLiteBucket

    limiter = Limiter(SQLiteBucket.init_from_file([Rate(10**9, 86_400_000)], db_path=str(path)))

    async def hit(key: str) -> None:
        limiter.try_acquire(key, blocking=False)

    return hit


CASES: dict[str, Callable[[Path], Count]] = {
    **{f"SQLiteCounters, {each}": lambda path, each=each: ours(path, each) for each in ALGORITHMS},
    "SQLiteCounters, sliding, three limits": lambda path: ours(path, "sliding", limits=3),
    "SQLiteCounters, fixed, synchronous=full": lambda path: ours(path, "fixed", "full"),
    "SQLiteCounters, sliding, synchronous=full": lambda path: ours(path, "sliding", "full"),
    "a bare upsert, synchronous=normal": lambda path: bare(path, "normal"),
    "a bare upsert, synchronous=full": lambda path: bare(path, "full"),
    "pyrate-limiter SQLiteBucket, one key": pyrate,
}


def run(effort: Effort) -> None:
    """Measure and print everything."""
    hits, rounds = (128, 1) if effort.rounds < 10 else (1_024, 9)
    with asyncio.Runner(loop_factory=fast_loop()) as runner, tempfile.TemporaryDirectory() as folder:
        found = runner.run(measured(Path(folder), hits, rounds))
    head = ["counted in a file", *(f"{each} at once: hits/s" for each in AT_ONCE)]
    head += ["1: us a hit", "64: CPU us a hit"]
    rows = []
    for name, costs in found.items():
        rates = [f"{1 / median(cost.took for cost in costs[each]):,.0f}" for each in AT_ONCE]
        latency = f"{1e6 * median(cost.took for cost in costs[1]):.0f}"
        rows.append([name, *rates, latency, f"{1e6 * median(cost.worked for cost in costs[64]):.0f}"])
    table(f"Counting in SQLite ({LIVE:,} keys in turn; CPU of all threads)", head, rows)


async def measured(folder: Path, hits: int, rounds: int) -> dict[str, dict[int, list[Cost]]]:
    """Every case in a new order each round."""
    order = random.Random(1)
    counting: dict[str, Count] = {}
    for number, (name, make) in enumerate(CASES.items()):
        try:
            counting[name] = make(folder / f"{number}.db")
        except ImportError:
            print(f"{name} is left out: it is not installed here. See tests/benchmarks/install.")
    keys = (f"198.51.100.{number % LIVE}" for number in count())
    found: dict[str, dict[int, list[Cost]]] = {name: {each: [] for each in AT_ONCE} for name in counting}
    for name in counting:
        await cost_of(counting[name], keys, 64, 64)
    for _ in range(rounds):
        for name in order.sample(list(counting), len(counting)):
            for at_once in AT_ONCE:
                share = hits if at_once > 1 else hits // 4
                found[name][at_once].append(await cost_of(counting[name], keys, at_once, share))
    return found


async def cost_of(hit: Count, keys: Iterator[str], at_once: int, hits: int) -> Cost:
    """What a hit costs when so many callers wait for one each, again and again."""

    async def caller() -> None:
        for _ in range(hits // at_once):
            await hit(next(keys))

    began, worked = perf_counter(), process_time()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    number = hits // at_once * at_once
    return Cost((perf_counter() - began) / number, (process_time() - worked) / number)
