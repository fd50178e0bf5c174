"""Table 7: how much the S3-FIFO cache finds, and what that costs, beside the least recently used order and SIEVE.

Traffic is Zipf's: the second most wanted thing is asked for half as often as the first, and so on, or more or less than
that. Scans are what a crawler does: many things in a row that nobody asks for again. Things differ in size.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, count, islice
from time import process_time
from typing import NamedTuple, Protocol

from harness import Effort, table, timed

from apim_middleware.stores.s3_fifo import S3Fifo

KEYS, ASKED = 50_000, 400_000
FIRST_SCANNED = 10**9
SCAN_EVERY = 20_000


class Thing(NamedTuple):
    """What is kept."""

    size: int
    until: float = 1e18


class Cache(Protocol):
    """What is compared."""

    def find(self, key: int, now: float) -> Thing | None:
        """The thing, and count the use."""
        ...

    def keep(self, key: int, thing: Thing, now: float) -> object:
        """Keep the thing, and make room."""
        ...


class Recent:
    """The least recently used make room: an ordered dict."""

    def __init__(self, max_bytes: int) -> None:
        self._things: OrderedDict[int, Thing] = OrderedDict()
        self._most, self._held = max_bytes, 0

    def find(self, key: int, now: float) -> Thing | None:
        """Look the thing up, and move it to the end."""
        thing = self._things.get(key)
        if thing is None or thing.until <= now:
            return None
        self._things.move_to_end(key)
        return thing

    def keep(self, key: int, thing: Thing, now: float) -> None:
        """Put the thing at the end, and take away from the beginning."""
        self._things[key] = thing
        self._held += thing.size
        while self._held > self._most:
            self._held -= self._things.popitem(last=False)[1].size


class Sieve:
    """A hand goes from old to new and takes what was not used since it passed (Zhang et al., NSDI 2024)."""

    def __init__(self, max_bytes: int) -> None:
        self._things: dict[int, tuple[Thing, list[bool]]] = {}
        self._newer: dict[int, int] = {}
        self._most, self._held = max_bytes, 0
        self._oldest = self._newest = self._at = -1

    def find(self, key: int, now: float) -> Thing | None:
        """Look the thing up, and mark it."""
        found = self._things.get(key)
        if found is None or found[0].until <= now:
            return None
        found[1][0] = True
        return found[0]

    def keep(self, key: int, thing: Thing, now: float) -> None:
        """Put the thing at the new end, and let the hand take others."""
        self._things[key] = thing, [False]
        self._held += thing.size
        if self._newest >= 0:
            self._newer[self._newest] = key
        else:
            self._oldest = key
        self._newest = key
        while self._held > self._most:
            self._take()

    def _take(self) -> None:
        before, at = self._before_hand()
        while self._things[at][1][0]:
            self._things[at][1][0] = False
            before, at = (at, self._newer[at]) if at in self._newer else (-1, self._oldest)
        after = self._newer.pop(at, -1)
        self._held -= self._things.pop(at)[0].size
        if before < 0:
            self._oldest = after
        elif after < 0:
            del self._newer[before]
            self._newest = before
        else:
            self._newer[before] = after
        self._at = before

    def _before_hand(self) -> tuple[int, int]:
        """What the hand passed last, if that is still there, and where it is."""
        if self._at in self._newer:
            return self._at, self._newer[self._at]
        return -1, self._oldest


CACHES: dict[str, Callable[[int], Cache]] = {
    "S3-FIFO": S3Fifo, "SIEVE": Sieve, "least recently used": Recent,
}  # fmt: skip


def run(effort: Effort) -> None:
    """Measure and print everything."""
    small = effort.rounds < 10
    ratios(KEYS // 20 if small else KEYS, ASKED // 40 if small else ASKED)
    costs(effort)


def ratios(keys: int, asked: int) -> None:
    """How much of what is asked for again is found."""
    for share in (0.01, 0.1):
        rows = []
        for name, make in CACHES.items():
            cells = [
                f"{100 * found(make(int(share * keys * 1_000)), traffic(exponent, keys, asked, scans)):.1f} %"
                for exponent in (0.7, 0.9, 1.1)
                for scans in (False, True)
            ]
            rows.append([name, *cells])
        head = [f"{exponent}{scans}" for exponent in ("0.7", "0.9", "1.1") for scans in ("", ", scans")]
        table(f"Hit ratio on Zipf traffic, room for {share:.0%} of {keys:,} things", ["", *head], rows)


def traffic(exponent: float, keys: int, asked: int, scans: bool) -> Iterator[int]:
    """Keys that are asked for; with scans, as many things as fit ten times are read in between."""
    chance, new = random.Random(1), count(FIRST_SCANNED)
    weights = list(accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    every = min(SCAN_EVERY, asked // 5)
    for _ in range(asked // every):
        yield from chance.choices(range(keys), cum_weights=weights, k=every)
        if scans:
            yield from islice(new, every // 2)


def found(cache: Cache, keys: Iterable[int]) -> float:
    """The share of those asked for that are found; who scans finds nothing and does not count."""
    asked = hits = 0
    for key in keys:
        hit = cache.find(key, 0.0)
        if hit is None:
            cache.keep(key, Thing(size_of(key)), 0.0)
        if key < FIRST_SCANNED:
            asked += 1
            hits += hit is not None
    return hits / asked


def size_of(key: int) -> int:
    """From 200 to 1,800 bytes, always the same for one key, 1,000 in the mean."""
    return 200 + key * 2_654_435_761 % 1_601


def costs(effort: Effort) -> None:
    """What a hit takes, and a miss that puts a new thing in the place of others."""
    hits = timed({name: partial(_hit, _full(make)) for name, make in CACHES.items()}, effort)
    misses = timed({name: partial(_miss, _full(make), count(FIRST_SCANNED)) for name, make in CACHES.items()}, effort)
    rows = [[name, f"{hits[name]:.2f}", f"{misses[name]:.2f}"] for name in CACHES]
    table("Microseconds of CPU", ["", "a hit", "a miss that makes room"], rows)


HELD: Sequence[int] = range(1_000)


def _full(make: Callable[[int], Cache]) -> Cache:
    cache = make(1_000 * 1_000)
    for key in HELD:
        cache.keep(key, Thing(1_000), 0.0)
    return cache


async def _hit(cache: Cache, times: int) -> float:
    find = cache.find
    keys = [key for key in HELD if find(key, 0.0)][:200]
    rounds = -(-times // len(keys))
    start = process_time()
    for _ in range(rounds):
        for key in keys:
            find(key, 0.0)
    return (process_time() - start) * times / (rounds * len(keys))


async def _miss(cache: Cache, new: Iterator[int], times: int) -> float:
    things = [(key, Thing(1_000)) for key in islice(new, times)]
    start = process_time()
    for key, thing in things:
        cache.find(key, 0.0)
        cache.keep(key, thing, 0.0)
    return process_time() - start
