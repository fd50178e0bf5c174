"""Counters in this process: exact, bounded, and as fast with a million keys as with a hundred.

A key's hash picks one of about two thousand shards, and in the shard the limit has a page: a dict from key to units
used. No dict here ever holds much more than five hundred entries, so growing one, dropping one when its window is
over, and making room in one are short, and each is done by the hit that meets the need.
"""

import math
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import floor
from typing import NamedTuple

from apim_middleware.errors import ConfigError
from apim_middleware.protocols import Clock, Hit, Limit, Tally

_SHARD = 500
"""About how many entries a shard holds: few enough that touching each of them is no stall."""

_GRAIN = 1e-6
"""Windows turn this many seconds early: waiting for exactly the time given is enough in spite of rounded floats."""

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes."""


class MemoryCounters:
    """Counts in the memory of this process; what was counted is gone when it ends.

    Meant for one event loop: nothing awaits between reading and writing a count, so hits cannot come between.

    *Fixed* windows are aligned to the clock: a window of 3,600 seconds begins with the hour (UTC). They are measured in
    time that never goes back. When the wall clock was set back meanwhile, the next window is prolonged to its next
    boundary (less than twice as long, once), so that no window is handed out twice; when it was set forward, the next
    window ends with the clock's.

    *Sliding* windows count the last ``window`` seconds as if the units used in one window of time had been used evenly
    from the first of them to the last. This is exact when they were, or were used all at once, as by most callers who
    come near a limit. At the worst ``quota + (quota - 1) * f`` units pass in ``f`` windows of time (``f`` up to 1).

    At most ``max_keys`` entries are kept, one for each key in each window that still counts. When there is no room
    for a new key, entries that no longer count make room, then those that used the smallest part of their quota, the
    newest first; keys that used all of theirs come last. ``evicted`` says how many entries were lost that way.
    """

    def __init__(self, clock: Clock | None = None, *, max_keys: int = 1_000_000) -> None:
        """Begin with nothing counted; without a clock, take the machine's."""
        if max_keys < 1:
            raise ConfigError("MemoryCounters", "max_keys", f"{max_keys} is not at least 1", "Give a positive number")
        self._monotonic: Callable[[], float] = clock.monotonic if clock else time.monotonic
        wall: Callable[[], float] = clock.now if clock else time.time
        # An odd number of shards: keys in one shard then differ in the low bits of their hash, which dicts go by.
        self._number = max(max_keys // _SHARD, 1) - 1 | 1
        self._shards = [_Shard(max_keys // self._number, wall) for _ in range(self._number)]

    def __len__(self) -> int:
        """How many entries are kept."""
        return sum(shard.size for shard in self._shards)

    @property
    def evicted(self) -> int:
        """How many entries that still counted had to make room for others."""
        return sum(shard.evicted for shard in self._shards)

    def hit_now(self, hits: Sequence[tuple[str, Limit, int]]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order."""
        now = self._monotonic()
        if len(hits) == 1:  # the hot path: _page, written out
            key, limit, cost = hits[0]
            shard = self._shards[hash(key) % self._number]
            page = shard.get(limit)
            if page is None or now >= page.due:
                page = shard.open(limit, now)
            return [page.take(key, cost, now)]
        found: list[int | None] = []
        tallies: list[Tally] = []
        for key, limit, cost in hits:
            page = self._page(key, limit, now)
            found.append(page.counts.get(key))
            tallies.append(page.take(key, cost, now))
        for tally in tallies:
            if not tally[0]:
                return self._taken_back(hits, found, tallies, now)
        return tallies

    def peek_now(self, hits: Sequence[tuple[str, Limit, int]]) -> list[Tally]:
        """What each hit alone would be told, counting nothing."""
        now = self._monotonic()
        return [self._page(key, limit, now).look(key, cost, now) for key, limit, cost in hits]

    def reset_now(self, hits: Sequence[tuple[str, Limit, int]]) -> None:
        """Forget what was counted under these keys and limits."""
        now = self._monotonic()
        for key, limit, _ in hits:
            self._page(key, limit, now).forget(key)

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order."""
        return self.hit_now(hits)

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        """What each hit alone would be told, counting nothing."""
        return self.peek_now(hits)

    async def reset(self, hits: Sequence[Hit]) -> None:
        """Forget what was counted under these keys and limits."""
        self.reset_now(hits)

    def _page(self, key: str, limit: Limit, now: float) -> "_Page":
        return self._shards[hash(key) % self._number].open(limit, now)

    def _taken_back(
        self, hits: Sequence[tuple[str, Limit, int]], found: list[int | None], tallies: list[Tally], now: float
    ) -> list[Tally]:
        """One refused, so none counts: put back what was found, the last first, and tell the others so."""
        for (key, limit, _), count in zip(reversed(hits), reversed(found), strict=True):
            self._page(key, limit, now).put_back(key, count)
        return [
            self._page(key, limit, now).look(key, cost, now) if tally.allowed else tally
            for (key, limit, cost), tally in zip(hits, tallies, strict=True)
        ]


# The rule of sliding windows. A mark is units, first moment, last moment; moments are fractions of the window.

_FIRST, _UNITS = 20, 40  # how far first moment and units are shifted to the left: most marks then fit 60 bits
_MOMENTS = (1 << _FIRST) - 1
_FIRST_MOMENT = _MOMENTS << _FIRST


def still_counting(mark: int, moment: int) -> int:
    """Units of the window before that still count here, as if used evenly from its first moment to its last."""
    last = mark & _MOMENTS
    if moment >= last:
        return 0
    units, first = mark >> _UNITS, mark >> _FIRST & _MOMENTS
    if moment < first:
        return units
    units -= 1  # the first is gone
    return units - units * (moment - first) // (last - first)


def moment_of(mark: int, left: int) -> int:
    """The first moment where no more than ``left`` units of the window before still count."""
    units, first, last = mark >> _UNITS, mark >> _FIRST & _MOMENTS, mark & _MOMENTS
    if left >= units:
        return 0
    if left >= units - 1:
        return first
    return first - (units - 1 - left) * (first - last) // (units - 1)


# Pages


class _Part(NamedTuple):
    """Counts of one window, what they are counts of, how much of them still counts, and how to read them."""

    counts: dict[str, int]
    quota: int
    fading: float = 1.0
    shift: int = 0


class _Page(ABC):
    """What one limit counted in one shard."""

    __slots__ = ("counts", "due", "end", "quota", "shard", "window")

    def __init__(self, limit: Limit, shard: "_Shard", now: float) -> None:
        self.quota, self.window = limit.quota, limit.window
        self.shard = shard
        self.counts: dict[str, int] = {}
        self.end = self.due = -math.inf
        self.turn(now)

    @abstractmethod
    def turn(self, now: float) -> None:
        """Begin the window that runs now."""

    @abstractmethod
    def take(self, key: str, cost: int, now: float) -> Tally:
        """Count the hit if there is room for it."""

    @abstractmethod
    def look(self, key: str, cost: int, now: float) -> Tally:
        """What ``take`` would say, counting nothing."""

    def put_back(self, key: str, count: int | None) -> None:
        """Count what was counted before a hit that was not to be."""
        if count is None:
            self._drop(self.counts, key)
        elif key in self.counts:  # else it had to make room meanwhile
            self.counts[key] = count

    def forget(self, key: str) -> None:
        """Uncount everything."""
        self._drop(self.counts, key)

    def over(self, now: float) -> bool:
        """Whether nothing here counts any more."""
        return now >= self.due

    def parts(self, now: float) -> list[_Part]:
        """Everything counted here, newest first."""
        return [_Part(self.counts, self.quota)]

    def __len__(self) -> int:
        return len(self.counts)

    def _drop(self, counts: dict[str, int], key: str) -> None:
        if counts.pop(key, None) is not None:
            self.shard.size -= 1


class _Fixed(_Page):
    __slots__ = ("number",)

    def __init__(self, limit: Limit, shard: "_Shard", now: float) -> None:
        self.number = -math.inf
        super().__init__(limit, shard, now)

    def turn(self, now: float) -> None:
        self.shard.size -= len(self.counts)
        self.counts = {}
        number, into = divmod(self.shard.wall(), self.window)
        left = self.window - into
        # Run on to the next boundary when this one is upon us, and when the clock went back: windows never come twice.
        if left <= _GRAIN or number <= self.number:
            number += 1
            left += self.window
        self.number, self.end, self.due = number, now + left, now + left - _GRAIN

    def take(self, key: str, cost: int, now: float) -> Tally:
        counts = self.counts
        used = counts.get(key, 0) + cost
        remaining = self.quota - used
        if remaining < 0 or not cost:
            return self._tally(used - cost, cost, now, allowed=remaining >= 0)
        if used == cost:
            self.shard.admit(self, now)
        counts[key] = used
        if remaining < cost:
            return self._tally(used, cost, now, allowed=True)
        return _new(Tally, (True, remaining, self.end - now, 0.0))

    def look(self, key: str, cost: int, now: float) -> Tally:
        used = self.counts.get(key, 0)
        return self._tally(used, cost, now, allowed=used + cost <= self.quota)

    def _tally(self, used: int, cost: int, now: float, *, allowed: bool) -> Tally:
        left = self.end - now
        wait = 0.0 if used + cost <= self.quota else left if cost <= self.quota else math.inf
        return Tally(allowed, self.quota - used, left if used else 0.0, wait)


class _Sliding(_Page):
    """Keeps one mark for each key in each window: the units, and where in it the first and the last were used."""

    __slots__ = ("before", "began", "scale")

    def __init__(self, limit: Limit, shard: "_Shard", now: float) -> None:
        self.before: dict[str, int] = {}
        self.scale = _MOMENTS / limit.window
        super().__init__(limit, shard, now)

    def turn(self, now: float) -> None:
        self.shard.size -= len(self.before)
        if now < self.due + self.window:
            self.before, self.end = self.counts, self.end + self.window
        else:
            self.shard.size -= len(self.counts)
            self.before, self.end = {}, now + self.window
        self.counts, self.due = {}, self.end - _GRAIN
        self.began = self.due - self.window

    def take(self, key: str, cost: int, now: float) -> Tally:
        moment = floor((now - self.began) * self.scale)  # _moment, written out
        if moment < 0:
            moment = 0
        counts = self.counts
        mark, before = counts.get(key), self.before.get(key)
        used = cost if mark is None else (mark >> _UNITS) + cost
        remaining = self.quota - used
        if before is not None:
            remaining -= still_counting(before, moment + 1)
        if remaining < 0 or not cost:
            return self._tally(mark or 0, before or 0, cost, now, allowed=remaining >= 0)
        if mark is None:
            self.shard.admit(self, now)
            mark = moment << _FIRST
        counts[key] = mark = (used << _UNITS) | (mark & _FIRST_MOMENT) | moment
        if remaining < cost:
            return self._tally(mark, before or 0, cost, now, allowed=True)
        return _new(Tally, (True, remaining, self.window, 0.0))

    def look(self, key: str, cost: int, now: float) -> Tally:
        mark, before = self.counts.get(key, 0), self.before.get(key, 0)
        left = self.quota - (mark >> _UNITS) - self._still(before, now)
        return self._tally(mark, before, cost, now, allowed=left >= cost)

    def forget(self, key: str) -> None:
        super().forget(key)
        self._drop(self.before, key)

    def over(self, now: float) -> bool:
        return now >= self.due + self.window

    def parts(self, now: float) -> list[_Part]:
        fading = max((self.due - now) / self.window, 0.0)
        return [_Part(self.counts, self.quota, 1.0, _UNITS), _Part(self.before, self.quota, fading, _UNITS)]

    def __len__(self) -> int:
        return len(self.counts) + len(self.before)

    def _moment(self, now: float) -> int:
        moment = floor((now - self.began) * self.scale)
        return moment if moment > 0 else 0

    def _still(self, before: int, now: float) -> int:
        return still_counting(before, self._moment(now) + 1)

    def _tally(self, mark: int, before: int, cost: int, now: float, *, allowed: bool) -> Tally:
        used, still = mark >> _UNITS, self._still(before, now)
        left = self.quota - used - still
        reset = self._until(mark, 0, now) if used else self._until(before, 0, now) - self.window if still else 0.0
        wait = 0.0 if left >= cost else self._wait(mark, before, cost, now)
        return Tally(allowed, max(left, 0), reset, wait)

    def _wait(self, mark: int, before: int, cost: int, now: float) -> float:
        room = self.quota - (mark >> _UNITS) - cost
        if room >= 0:
            return self._until(before, room, now) - self.window
        spare = self.quota - cost
        return self._until(mark, spare, now) if spare >= 0 else math.inf

    def _until(self, mark: int, units: int, now: float) -> float:
        """Seconds until the next window is where, of this one, no more than so many units count."""
        return self.end - now + max(moment_of(mark, units) - 1, 0) / self.scale


class _Shard(dict[Limit, _Page]):
    """The pages of the keys with one remainder of their hash."""

    __slots__ = ("evicted", "room", "size", "wall")

    def __init__(self, room: int, wall: Callable[[], float]) -> None:
        super().__init__()
        self.room, self.wall = room, wall
        self.size = self.evicted = 0

    def open(self, limit: Limit, now: float) -> _Page:
        """The page of a limit, open at the window that runs now."""
        page = self.get(limit)
        if page is None:
            if len(self) >= self.room:
                self._make_room(None, now)
            page = self[limit] = _ALGORITHMS[limit.algorithm](limit, self, now)
        elif now >= page.due:
            page.turn(now)
        return page

    def admit(self, page: _Page, now: float) -> None:
        """Say that an entry is added to this page; it takes the room of others if there is none."""
        if self.size >= self.room:
            self._make_room(page, now)
        self.size += 1

    def _make_room(self, page: _Page | None, now: float) -> None:
        self._drop_pages(page, now)
        if self.size >= self.room:
            self._evict(now)
            self._drop_pages(page, now)

    def _drop_pages(self, keep: _Page | None, now: float) -> None:
        for limit, page in list(self.items()):
            if page is not keep and (page.over(now) or not len(page)):
                self.size -= len(page)
                del self[limit]

    def _evict(self, now: float) -> None:
        """Drop the eighth that used least of its quota, but nobody's who used it all while others are there.

        Lists of floats and of keys that exist anyway: a thousand new objects could set off the garbage collector.
        """
        parts = [part for page in reversed(self.values()) for part in page.parts(now)]
        shares = sorted(
            [(used >> shift) * fading / quota for counts, quota, fading, shift in parts for used in counts.values()]
        )
        number = min(max(self.size // 8, 1), bisect_left(shares, 1.0) or len(shares))
        least = shares[number - 1]
        ties = number - bisect_left(shares, least)
        for counts, quota, fading, shift in parts:
            doomed = []
            for key, used in reversed(counts.items()):
                share = (used >> shift) * fading / quota
                if share < least or (share == least and ties):
                    ties -= share == least
                    doomed.append(key)
            for key in doomed:
                del counts[key]
        self.size -= number
        self.evicted += number


_ALGORITHMS: dict[str, type[_Page]] = {"fixed": _Fixed, "sliding": _Sliding}
