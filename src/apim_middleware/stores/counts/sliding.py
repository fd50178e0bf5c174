"""Sliding windows: so many units in the last ``window`` seconds, as if those of one window had been used evenly."""

import math
from collections.abc import Iterable
from math import floor

from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.counts.book import GRAIN, Book, new
from apim_middleware.stores.counts.room import Counts, Part, Room
from apim_middleware.stores.fading import (
    FIRST,
    FIRST_MOMENT,
    MOMENTS,
    UNITS,
    corrected,
    mark_of,
    moment_of,
    still_counting,
)


class Sliding(Book[int]):
    """Keeps one mark for each key in each window: the units, and where in it the first and the last were used."""

    __slots__ = ("before", "began", "end", "scale")

    def __init__(self, limit: Limit, room: Room) -> None:
        """Open the book."""
        super().__init__(limit, room)
        self.before: Counts = room.fresh()
        self.scale = MOMENTS / limit.window
        self.end = self.due = -math.inf

    def turn(self, now: float) -> None:
        """Begin the window that runs now: the next one, or one of its own when that is over too."""
        self.room.discard(self.before)
        if now < self.due + self.window:
            self.before, self.end = self.counts, self.end + self.window
        else:
            self.room.discard(self.counts)
            self.before, self.end = self.room.fresh(), now + self.window
        self.counts, self.due = self.room.fresh(), self.end - GRAIN
        self.began = self.due - self.window

    def take(self, key: str, cost: int, now: float) -> Tally:
        """Count the hit if there is room for it."""
        moment = floor((now - self.began) * self.scale)  # _moment, written out
        if moment < 0:
            moment = 0
        shard = hash(key) % self.shards
        counts = self.counts[shard]
        mark, before = counts.get(key), self.before[shard].get(key)
        used = cost if mark is None else (mark >> UNITS) + cost
        remaining = self.quota - used
        if before is not None:
            remaining -= still_counting(before, moment + 1)
        if remaining < 0 or not cost:
            return self._tally(mark or 0, before or 0, cost, now, allowed=remaining >= 0)
        if mark is None:
            counts = self.admit(key, now)
            mark = moment << FIRST
        counts[key] = mark = (used << UNITS) | (mark & FIRST_MOMENT) | moment
        if remaining < cost:
            return self._tally(mark, before or 0, cost, now, allowed=True)
        return new(Tally, (True, remaining, self.window, 0.0, now))

    def look(self, key: str, cost: int, now: float) -> Tally:
        """What ``take`` would say, counting nothing."""
        shard = hash(key) % self.shards
        mark, before = self.counts[shard].get(key, 0), self.before[shard].get(key, 0)
        left = self.quota - (mark >> UNITS) - self._still(before, now)
        return self._tally(mark, before, cost, now, allowed=left >= cost)

    def settle(self, key: str, units: int, counted: float, now: float) -> None:
        """Correct what was counted in the window that runs, or in the one before."""
        shard = hash(key) % self.shards
        if counted >= self.began:
            self._correct(self.counts, key, units, self._moment(counted), now)
        elif counted >= self.began - self.window and key in self.before[shard]:
            self._correct(self.before, key, units, 0, now)

    def assign(self, key: str, units: int, now: float) -> None:
        """Count so many units used now, and nothing else."""
        self.forget(key)
        if units:
            self.put(key, mark_of(units, self._moment(now)), now)

    def over(self, now: float) -> bool:
        """Whether nothing here counts any more."""
        return now >= self.due + self.window

    def all(self) -> Iterable[Counts]:
        """Everything counted, newest first."""
        return (self.counts, self.before)

    def parts(self, shard: int, now: float) -> Iterable[Part]:
        """Everything counted in a shard, newest first."""
        counts, before, quota = self.counts[shard], self.before[shard], self.quota
        fading = max((self.due - now) / self.window, 0.0) / quota
        return (
            (counts, [(mark >> UNITS) / quota for mark in counts.values()]),
            (before, [(mark >> UNITS) * fading for mark in before.values()]),
        )

    def _correct(self, window: Counts, key: str, units: int, moment: int, now: float) -> None:
        counts = window[hash(key) % self.shards]
        mark = counts.get(key)
        mark = corrected(mark, units) if mark is not None else mark_of(max(units, 0), moment)
        if mark >> UNITS == 0:
            self._drop(counts, key)
        elif key in counts:
            counts[key] = mark
        else:
            self.put(key, mark, now)

    def _moment(self, now: float) -> int:
        moment = floor((now - self.began) * self.scale)
        return moment if moment > 0 else 0

    def _still(self, before: int, now: float) -> int:
        return still_counting(before, self._moment(now) + 1)

    def _tally(self, mark: int, before: int, cost: int, now: float, *, allowed: bool) -> Tally:
        used, still = mark >> UNITS, self._still(before, now)
        left = self.quota - used - still
        reset = self._until(mark, 0, now) if used else self._until(before, 0, now) - self.window if still else 0.0
        wait = 0.0 if left >= cost else self._wait(mark, before, cost, now)
        return Tally(allowed, max(left, 0), reset, wait, now)

    def _wait(self, mark: int, before: int, cost: int, now: float) -> float:
        room = self.quota - (mark >> UNITS) - cost
        if room >= 0:
            return self._until(before, room, now) - self.window
        spare = self.quota - cost
        return self._until(mark, spare, now) if spare >= 0 else math.inf

    def _until(self, mark: int, units: int, now: float) -> float:
        """Seconds until the next window is where, of this one, no more than so many units count."""
        return self.end - now + max(moment_of(mark, units) - 1, 0) / self.scale
