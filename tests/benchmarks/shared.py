"""Table 6: hits counted in a Redis server that others could share: how many in a second, and what each costs here."""

import asyncio
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

from harness import Effort, fast_loop, table

from apim_middleware.protocols import Limit
from apim_middleware.stores.redis import RedisCounters

sys.path.append(str(Path(__file__).parents[2]))
from tests.servers import redis_server

Decide = Callable[[str], Awaitable[Any]]
"""One decision over all limits, for a key."""

MANY = 1_000_000
WINDOWS = (60, 3_600, 86_400)
CALLERS = (64, 1)


class Sample(NamedTuple):
    """Decisions in a second, and microseconds of CPU each took in this process."""

    rate: float
    cost: float


@asynccontextmanager
async def ours(url: str, windows: tuple[int, ...], algorithm: Any) -> AsyncIterator[Decide]:
    """Our counters: all limits in one step of one script."""
    counters = RedisCounters(url, timeout=20.0)
    limits = [Limit(MANY, float(window), algorithm, "here") for window in windows]
    yield lambda key: counters.hit([(key, limit, 1) for limit in limits])  # type: ignore[misc]
    await counters.aclose()


@asynccontextmanager
async def limits_aio(url: str, windows: tuple[int, ...], strategy: str) -> AsyncIterator[Decide]:
    """The package limits on redis-py: one limit after the other."""
    from limits import RateLimitItemPerSecond
    from limits.aio import storage, strategies

    kept = storage.RedisStorage(f"async+{url}", implementation="redispy")
    limiter = getattr(strategies, strategy)(kept)
    items = [RateLimitItemPerSecond(MANY, window, strategy) for window in windows]

    async def decide(key: str) -> bool:
        for item in items:
            if not await limiter.hit(item, key):
                return False
        return True

    yield decide
    await kept.bridge.storage.aclose()


@asynccontextmanager
async def throttled(url: str, windows: tuple[int, ...], algorithm: str) -> AsyncIterator[Decide]:
    """throttled-py on redis-py: one limit after the other."""
    from datetime import timedelta

    from throttled.asyncio import RedisStore, Throttled, per_duration

    store = RedisStore(server=url)
    quotas = [per_duration(timedelta(seconds=window), limit=MANY) for window in windows]
    limiters = [Throttled(using=algorithm, quota=quota, store=store) for quota in quotas]

    async def decide(key: str) -> bool:
        for number, limiter in enumerate(limiters):
            if (await limiter.limit(f"{key}/{number}")).limited:
                return False
        return True

    yield decide
    await store._backend.get_client().aclose()


WAYS: dict[str, tuple[Any, str]] = {
    "RedisCounters, fixed": (ours, "fixed"),
    "RedisCounters, sliding": (ours, "sliding"),
    "RedisCounters, bucket": (ours, "bucket"),
    "RedisCounters, log": (ours, "log"),
    "limits.aio FixedWindow": (limits_aio, "FixedWindowRateLimiter"),
    "limits.aio SlidingWindowCounter": (limits_aio, "SlidingWindowCounterRateLimiter"),
    "limits.aio MovingWindow": (limits_aio, "MovingWindowRateLimiter"),
    "throttled-py gcra": (throttled, "gcra"),
    "throttled-py sliding_window": (throttled, "sliding_window"),
}


def run(effort: Effort) -> None:
    """Measure and print: one limit and three, many callers at once and one."""
    if not shutil.which("redis-server"):
        print("The table of Redis is left out: there is no redis-server here. See .ci/servers.")
        return
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        for count in (1, len(WINDOWS)):
            with asyncio.Runner(loop_factory=fast_loop()) as runner:
                found = runner.run(measured(server.url, WINDOWS[:count], effort))
            show(count, found)
    print("\nGoals: 64 at once, 8 x the decisions of limits.aio in a second, and <= 10 us of CPU for each.")


async def measured(url: str, windows: tuple[int, ...], effort: Effort) -> dict[tuple[str, int], list[Sample]]:
    """All ways in turn, in a new order each round."""
    found: dict[tuple[str, int], list[Sample]] = {}
    order, size = random.Random(1), 200 if effort.rounds < 10 else 4_000
    async with AsyncExitStack() as stack:
        ways: dict[str, Decide] = {}
        for name, (make, how) in WAYS.items():
            try:
                ways[name] = await stack.enter_async_context(make(url, windows, how))
            except ImportError:
                print(f"{name} is left out: it is not installed here. See tests/benchmarks/install.")
        for _ in range(effort.served_rounds):
            for name in order.sample(list(ways), len(ways)):
                for callers in CALLERS:
                    times = size * (4 if "Redis" in name and callers > 1 else 1)
                    found.setdefault((name, callers), []).append(await driven(ways[name], callers, times))
    return found


async def driven(decide: Decide, callers: int, times: int) -> Sample:
    """So many decisions for so many callers, each of whom waits for one before asking for the next."""

    async def caller(number: int) -> None:
        key = f"client-{number}"
        for _ in range(times // callers):
            await decide(key)

    await asyncio.gather(*[decide(f"client-{number}") for number in range(callers)])
    wall, cpu = perf_counter(), process_time()
    await asyncio.gather(*[caller(number) for number in range(callers)])
    wall, cpu = perf_counter() - wall, process_time() - cpu
    made = times // callers * callers
    return Sample(made / wall, 1e6 * cpu / made)


def show(count: int, found: dict[tuple[str, int], list[Sample]]) -> None:
    """Print medians, and how many times those of limits.aio FixedWindow they are."""
    head = [f"{count} limit{'s' * (count > 1)}"]
    for callers in CALLERS:
        head += [f"{callers} at once: /s", "times", "us CPU"]
    rows = []
    for name in [each for each in WAYS if (each, 1) in found]:
        row = [name]
        for callers in CALLERS:
            samples, peers = found[name, callers], found.get(("limits.aio FixedWindow", callers), [])
            times = [each.rate / peer.rate for each, peer in zip(samples, peers, strict=False)]
            row += [f"{statistics.median(each.rate for each in samples):,.0f}"]
            row += [
                f"{statistics.median(times):.1f}" if times else "",
                f"{statistics.median(s.cost for s in samples):.1f}",
            ]
        rows.append(row)
    table("Decisions in a Redis server on this machine: in a second, against limits, and CPU of the client", head, rows)
