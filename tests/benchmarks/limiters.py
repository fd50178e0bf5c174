"""Table 3: what it costs to count a hit in memory, with few callers and with a million, and how long one can take."""

import asyncio
import gc
import random
import tracemalloc
from array import array
from collections.abc import Awaitable, Callable
from functools import partial
from time import process_time, thread_time
from typing import Any, NamedTuple

from harness import Drive, Effort, table, timed

from apim_middleware import MemoryCounters
from apim_middleware.protocols import Limit
from apim_middleware.testing import FakeClock

Hit = Callable[[str], Any]
"""Counts one hit of a key: a plain function, or an async one."""

SIZES = (100, 10_000, 1_000_000)
SMALL = (10, 100, 1_000)
ROOM = SIZES[-1] * 5 // 4
"""For how many keys ours has room: what it costs when there is none left is the second table."""

OURS = "MemoryCounters, "
DICT = "a bare dict: get, add, set"


class Limiter(NamedTuple):
    """How one is made, how many keys it bears, whether its hits are awaited, and whether it has a short way.

    One that has makes two: what counts any hit, and what counts one of a key that was counted before.
    """

    make: Callable[[], Any]
    most: int = SIZES[-1]
    awaited: bool = False
    shortly: bool = False

    def made(self) -> tuple[Hit, Callable[[], Hit]]:
        """What counts the first hit of a key, and what gives that which then counts the others."""
        made = self.make()
        return made if self.shortly else (made, lambda: made)


def bare() -> Hit:
    """Nothing but a dictionary: what the memory of this machine takes."""
    counts: dict[str, int] = {}

    def hit(key: str) -> None:
        counts[key] = counts.get(key, 0) + 1

    return hit


def ours(algorithm: Any) -> tuple[Hit, Callable[[], Hit]]:
    """Our counters in memory, as a rate limit asks them: the short way, and at length for the first hit of a key."""
    limit, hit_one = Limit(1_000_000, 36_000.0, algorithm, "here"), MemoryCounters(max_keys=ROOM).hit_one
    return lambda key: hit_one(key, limit, 1), lambda: hit_one("nobody", limit, 0)[1]


def ours_together(algorithm: Any) -> Hit:
    """The same, as several limits at once ask them."""
    limit, hit_now = Limit(1_000_000, 36_000.0, algorithm, "here"), MemoryCounters(max_keys=ROOM).hit_now
    return lambda key: hit_now([(key, limit, 1)])


def ours_awaited() -> Hit:
    """The same through the protocol of every store."""
    limit, hit = Limit(1_000_000, 36_000.0, "fixed", "here"), MemoryCounters(max_keys=ROOM).hit
    return lambda key: hit([(key, limit, 1)])  # type: ignore[list-item]


def limits(strategy: str) -> Hit:
    """The package limits, storage in memory."""
    from limits import RateLimitItemPerHour, storage, strategies

    item = RateLimitItemPerHour(1_000_000)
    return partial(getattr(strategies, strategy)(storage.MemoryStorage()).hit, item)


def limits_awaited(strategy: str) -> Hit:
    """Its async half."""
    from limits import RateLimitItemPerHour
    from limits.aio import storage, strategies

    item = RateLimitItemPerHour(1_000_000)
    return partial(getattr(strategies, strategy)(storage.MemoryStorage()).hit, item)


def throttled(algorithm: str) -> Hit:
    """throttled-py, with room for all keys (it has room for 1,024 unless told)."""
    from throttled import MemoryStore, Throttled, per_hour

    store = MemoryStore(options={"MAX_SIZE": SIZES[-1]})
    return Throttled(using=algorithm, quota=per_hour(1_000_000), store=store).limit


def pyrate() -> Hit:
    """pyrate-limiter, a bucket for each key, as its documentation has it."""
    from pyrate_limiter import BucketFactory, InMemoryBucket, Limiter, MonotonicClock, Rate, RateItem

    class Buckets(BucketFactory):
        def __init__(self) -> None:
            self.clock, self.buckets = MonotonicClock(), dict[str, Any]()

        def wrap_item(self, name: str, weight: int = 1) -> Any:
            return RateItem(name, self.clock.now(), weight=weight)

        def get(self, item: Any) -> Any:
            bucket = self.buckets.get(item.name)
            if bucket is None:
                bucket = self.buckets[item.name] = self.create(InMemoryBucket, [Rate(1_000_000, 3_600_000)])
            return bucket

    limiter = Limiter(Buckets())
    return lambda key: limiter.try_acquire(key, blocking=False)


LIMITERS: dict[str, Limiter] = {
    DICT: Limiter(bare),
    OURS + "fixed": Limiter(partial(ours, "fixed"), shortly=True),
    OURS + "sliding": Limiter(partial(ours, "sliding"), shortly=True),
    OURS + "bucket": Limiter(partial(ours, "bucket"), shortly=True),
    OURS + "log": Limiter(partial(ours, "log"), shortly=True),
    OURS + "sliding, in a list": Limiter(partial(ours_together, "sliding")),
    OURS + "fixed, awaited": Limiter(ours_awaited, awaited=True),
    "limits FixedWindow": Limiter(partial(limits, "FixedWindowRateLimiter"), 10_000),
    "limits SlidingWindowCounter": Limiter(partial(limits, "SlidingWindowCounterRateLimiter"), 10_000),
    "limits MovingWindow": Limiter(partial(limits, "MovingWindowRateLimiter"), 10_000),
    "limits.aio FixedWindow": Limiter(partial(limits_awaited, "FixedWindowRateLimiter"), 10_000, awaited=True),
    "throttled-py fixed_window": Limiter(partial(throttled, "fixed_window")),
    "throttled-py gcra": Limiter(partial(throttled, "gcra")),
    "pyrate-limiter": Limiter(pyrate, 10_000),
}


def run(effort: Effort) -> None:
    """Measure and print everything."""
    sizes = SMALL if effort.rounds < 10 else SIZES
    usable = {name: each for name, each in LIMITERS.items() if installed(each)}
    for name in LIMITERS.keys() - usable.keys():
        print(f"{name} is left out: it is not installed here. See tests/benchmarks/install.")
    speed(usable, sizes, effort)
    stalls(sizes[-1])
    print("\nGoals: <= 1 us a hit, growing by no more than a bare dict's; <= 100 bytes a key; no hit takes 1 ms.")


def installed(limiter: Limiter) -> bool:
    """Whether the library can be imported."""
    try:
        limiter.make()
    except ImportError:
        return False
    return True


def speed(limiters: dict[str, Limiter], sizes: tuple[int, ...], effort: Effort) -> None:
    """Microseconds a hit, when so many keys are live and each hit is one of them at random, its string made anew."""
    found: dict[tuple[str, int], float] = {}
    room: dict[str, str] = {}
    for size in sizes:
        drives = {name: filled(each, size) for name, each in limiters.items() if bears(each, size, sizes)}
        found |= {(name, size): time for name, time in timed(drives, effort).items()}
    for name, each in limiters.items():
        most = max(size for size in sizes if bears(each, size, sizes))
        room[name] = f"{bytes_for_each(each, min(most, 100_000)):.0f}"
    rows = []
    for name in limiters:
        times = [found.get((name, size)) for size in sizes]
        growth = f"{times[-1] / times[0]:.1f} x" if times[-1] and times[0] else "-"
        rows.append([name, *("-" if each is None else f"{each:.2f}" for each in times), growth, room[name]])
    head = ["live keys", *(f"{size:,}" for size in sizes), "growth", "bytes a key"]
    table("A limit hit in memory: microseconds for each, with so many live keys", head, rows)


def bears(limiter: Limiter, size: int, sizes: tuple[int, ...]) -> bool:
    """Whether it can be filled with so many keys in a minute."""
    return size <= limiter.most or size == sizes[0]


def filled(limiter: Limiter, size: int) -> Drive:
    """A limiter with so many live keys, and the driver that hits one of them so many times."""
    first, then = limiter.made()
    order = random.Random(size)
    numbers = list(range(size))
    order.shuffle(numbers)
    drive = _drive_awaited if limiter.awaited else _drive
    asyncio.run(drive(first, list(map(key_of, numbers))))  # type: ignore[arg-type]
    hit = then()

    async def driven(times: int) -> float:
        took = await drive(hit, [key_of(order.randrange(size)) for _ in range(times)])
        if limiter.shortly and hit(key_of(0)) is None:
            raise AssertionError("a new window has begun meanwhile: run it again")
        return took

    return driven


def key_of(number: int) -> str:
    """A caller's key: a new string, as every request brings one."""
    return f"client-{number:08d}"


async def _drive(hit: Hit, keys: list[str]) -> float:
    start = process_time()
    for key in keys:
        hit(key)
    return process_time() - start


async def _drive_awaited(hit: Callable[[str], Awaitable[Any]], keys: list[str]) -> float:
    """Each hit in a tick of its own, for what it leaves to the loop counts too."""
    start = process_time()
    for key in keys:
        await hit(key)
        await asyncio.sleep(0)
    return process_time() - start


def bytes_for_each(limiter: Limiter, size: int) -> float:
    """What a live key takes on the heap, its string not counted."""
    keys = list(map(key_of, range(size)))
    gc.collect()
    tracemalloc.start()
    first, _ = limiter.made()
    asyncio.run((_drive_awaited if limiter.awaited else _drive)(first, keys))
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken / size


# Stalls

RUNS = 2
"""How often the same is done: what takes long each time is ours, what does so once is the machine's."""


def stalls(size: int) -> None:
    """The longest that a single hit of ours takes the processor, when there is most to do."""
    rows = []
    for algorithm in ("fixed", "sliding", "bucket"):
        runs = [phases(algorithm, size) for _ in range(RUNS)]
        longest = [max(map(min, zip(*phase, strict=True))) for phase in zip(*runs, strict=True)]
        rows.append([OURS + algorithm, *(f"{1e6 * each:.0f}" for each in longest)])
    head = [f"{size:,} new keys", "while empty", "when full", "in the next window"]
    table("The longest hit: microseconds of processor time", head, rows)


def phases(algorithm: Any, size: int) -> "list[array[float]]":
    """What each of so many hits takes while dicts grow, while others make room, and while an old window is freed."""
    clock = FakeClock()
    counters = MemoryCounters(clock=clock, max_keys=size)
    limit = Limit(10, 3_600.0, algorithm, "here")
    found = []
    for number in range(3):
        if number == 2:
            clock.advance(7_300)
        found.append(times_of(counters, limit, list(map(key_of, range(number * size, (number + 1) * size)))))
        if len(counters) > size:
            raise AssertionError(f"{len(counters)} entries where there is room for {size}")
    return found


def times_of(counters: MemoryCounters, limit: Limit, keys: list[str]) -> "array[float]":
    """Seconds for each hit; the list of keys is none of the garbage collector's business."""
    times = array("d")
    gc.collect()
    gc.freeze()
    for key in keys:
        start = thread_time()
        counters.hit_now([(key, limit, 1)])
        times.append(thread_time() - start)
    gc.unfreeze()
    return times
