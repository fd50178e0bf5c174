"""Sliding windows: so many units in the last ``window`` seconds, as if those of one window had been used evenly."""

import math
from collections.abc import Iterable
from math import ceil, floor

from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.counts.book import GRAIN, Again, Book, new
from apim_middleware.stores.counts.room import Counts, Part, Room
from apim_middleware.stores.counts.table import FREE, LARGEST, Table, fingerprint
from apim_middleware.stores.sliding_marks import MOMENTS, MOST, UNITS, corrected, mark_of, moment_of, still_counting

_BEFORE, _UNITS_BEFORE = 104, 104 + UNITS
"""How far the mark of the window before, and its units, are shifted to the left: above that of the window that runs."""

_THIS = (1 << _BEFORE) - 1
"""Where the mark of the window that runs stands."""

_ONE, _COUNT = 1 << UNITS, _THIS >> UNITS
"""One unit in a mark, and where its units stand once they are shifted to the right."""

_ALL_BUT_LAST = ~MOMENTS
"""What stays of a mark when units are used once more: all but the last moment."""

UNUSED = mark_of(0, MOMENTS)
"""The mark of a window in which nothing was used so far."""


def _used(marks: int, units: int, moment: int) -> int:
    """The marks with so many units more, used in this window at a moment."""
    if not marks >> UNITS & _COUNT:
        marks += mark_of(0, moment) - UNUSED
    return (marks & _ALL_BUT_LAST) + (units << UNITS) + moment


class Pairs(Table):
    """Two marks for each key, as one number: that of the window that runs, and above it that of the window before.

    Each has a word of its own; a slot has one more, for the number of its words is a power of two.
    """

    __slots__ = ()

    WIDTH = 4

    def read(self, at: int) -> int:
        """The mark that stands there."""
        mark, before = self[at], self[at + 1]
        return before << _BEFORE | mark if mark >= 0 else self.wide_at(at)

    def write(self, at: int, mark: int) -> None:
        """Keep a mark in the place of the one that stands there."""
        this, before = mark & _THIS, mark >> _BEFORE
        if this <= LARGEST and before <= LARGEST:
            self[at], self[at + 1] = this, before
        else:
            self.widen(at, mark)


class Sliding(Book[int]):
    """Keeps two marks for each key, so that one look finds both: of this window and of the one before.

    A key that is asked for in a new window moves there. What nobody asks for is dropped with its window, as it is.
    """

    __slots__ = ("before", "began", "end", "scale", "seconds")

    SHARD, EMPTY = Pairs, Pairs(slots=1)

    def __init__(self, limit: Limit, room: Room) -> None:
        """Open the book."""
        super().__init__(limit, room)
        self.quota = min(limit.quota, MOST)
        self.before: Counts = self.fresh()
        self.scale, self.seconds = MOMENTS / limit.window, ceil(limit.window)
        self.end = self.due = -math.inf

    def turn(self, now: float) -> None:
        """Begin the window that runs now: the next one, or one of its own when that is over too."""
        self.discard(self.before)
        if now < self.due + self.window:
            self.before, self.end = self.withdrawn(), self.end + self.window
        else:
            self.discard(self.counts)
            self.before, self.end = self.fresh(), now + self.window
        self.counts, self.due = self.fresh(), self.end - GRAIN
        self.began = self.due - self.window
        self.again = self.short_way()

    def short_way(self) -> Again:
        """Use one unit more in the window that runs."""
        clock, due, began, scale, seconds = self.clock, self.due, self.began, self.scale, self.seconds
        counts, shards, quota = self.counts, self.shards, self.quota

        def again(key: str) -> tuple[int, int] | None:
            now = clock()
            if now >= due:
                return None
            whose = fingerprint(key)
            table = counts[whose % shards]
            at = whose & len(table) - 4
            while table[at] != whose:
                if table[at] == FREE:
                    return None
                at = at + 4 & len(table) - 4
            mark = table[at + 1]
            moment = floor((now - began) * scale)
            last = mark & MOMENTS  # which is later than any while nothing was used
            if mark < 0 or moment < last:
                return None
            mark += _ONE + moment - last
            remaining = quota - (mark >> UNITS)
            if before := table[at + 2]:
                remaining -= still_counting(before, moment + 1)
            if remaining < 1:
                return None
            try:
                table[at + 1] = mark
            except OverflowError:  # `take` keeps it elsewhere
                return None
            return remaining, seconds

        return again

    def take(self, key: str, cost: int, now: float) -> Tally:
        """Count the hit if there is room for it."""
        moment = floor((now - self.began) * self.scale)  # _moment, written out
        if moment < 0:
            moment = 0
        whose = fingerprint(key)
        table = self.counts[whose % self.shards]
        at = table.find(whose)
        self.found = marks = table.read(at) if at else self.recall(key, now)
        remaining = self.quota - cost
        if marks is not None:
            remaining -= marks >> UNITS & _COUNT
            if marks > _THIS:
                remaining -= still_counting(marks >> _BEFORE, moment + 1)
        if remaining < 0 or not cost:
            return self._tally(marks or UNUSED, cost, now, allowed=remaining >= 0)
        if marks is None:
            self.admit(key, now)
        marks = _used(marks or UNUSED, cost, moment)
        if at:
            table.write(at, marks)
        else:
            self.counts[whose % self.shards].put(key, marks)
        if remaining < cost:
            return self._tally(marks, cost, now, allowed=True)
        return new(Tally, (True, remaining, self.window, 0.0, now))

    def look(self, key: str, cost: int, now: float) -> Tally:
        """What ``take`` would say, counting nothing."""
        marks = self.mark(key, now) or UNUSED
        left = self.quota - (marks >> UNITS & _COUNT) - self._still(marks >> _BEFORE, now)
        return self._tally(marks, cost, now, allowed=left >= cost)

    def settle(self, key: str, units: int, counted: float, now: float) -> None:
        """Correct what was counted in the window that runs, or in the one before."""
        marks, counted = self.mark(key, now) or UNUSED, min(counted, now)
        mark, before = marks & _THIS, marks >> _BEFORE
        if counted >= self.began:
            mark = corrected(mark, units, self._moment(counted)) or UNUSED
        elif counted >= self.began - self.window:
            before = before if self._still(before, now) else 0
            before = corrected(before, units, self._moment(counted + self.window))
        if before or mark != UNUSED:
            self.put(key, before << _BEFORE | mark, now)
        else:
            self.forget(key)

    def assign(self, key: str, units: int, now: float) -> None:
        """Count so many units used now, and nothing else."""
        self.forget(key)
        if units:
            self.put(key, mark_of(min(units, MOST), self._moment(now)), now)

    def mark(self, key: str, now: float) -> int | None:
        """What was kept of a key, in the window that runs from now on."""
        marks: int | None = self.counts[fingerprint(key) % self.shards].get(key)
        return marks if marks is not None else self.recall(key, now)

    def recall(self, key: str, now: float) -> int | None:
        """What a key used in the window before, moved to the one that runs."""
        shard = fingerprint(key) % self.shards
        found = self.before[shard].pull(key)
        if found is None:
            return None
        self.room.leave(self.home + shard)
        if not found >> UNITS & _COUNT:
            return None
        marks: int = (found & _THIS) << _BEFORE | UNUSED
        self.put(key, marks, now)
        return marks

    def over(self, now: float) -> bool:
        """Whether nothing here counts any more."""
        return now >= self.due + self.window

    def all(self) -> Iterable[Counts]:
        """Everything counted, newest first."""
        return (self.counts, self.before)

    def parts(self, shard: int, now: float) -> Iterable[Part]:
        """Everything counted in a shard, newest first."""
        table, before, quota = self.counts[shard], self.before[shard], self.quota
        fading = max((self.due - now) / self.window, 0.0)
        used = [((each >> UNITS & _COUNT) + (each >> _UNITS_BEFORE) * fading) / quota for each in table.marks()]
        return (table, used), (before, [(each >> UNITS & _COUNT) * fading / quota for each in before.marks()])

    def _moment(self, now: float) -> int:
        moment = floor((now - self.began) * self.scale)
        return moment if moment > 0 else 0

    def _still(self, before: int, now: float) -> int:
        return still_counting(before, self._moment(now) + 1)

    def _tally(self, marks: int, cost: int, now: float, *, allowed: bool) -> Tally:
        mark, before = marks & _THIS, marks >> _BEFORE
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
