"""Buckets: ``burst`` units at once, coming back evenly (the generic cell rate algorithm of ATM, ITU-T I.371)."""

import math
from collections.abc import Iterable
from math import ceil, floor

from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.counts.aging import Aging
from apim_middleware.stores.counts.book import GRAIN, Again, new
from apim_middleware.stores.counts.room import Room
from apim_middleware.stores.counts.table import FREE, fingerprint

_TICK = 1e-7
"""Seconds: no tick is longer."""


class Bucket(Aging[int]):
    """Keeps for each key when its bucket will be full again, in ticks: whole numbers, so that no unit is rounded away.

    A unit comes back every ``unit`` ticks. The bucket lacks what comes back from now until it is full; a few ticks
    are forgiven, so that times told need not be too long for the sake of rounded floats.
    """

    __slots__ = ("burst", "capacity", "forgiven", "origin", "rate", "unit")

    def __init__(self, limit: Limit, room: Room) -> None:
        """Open the book."""
        self.burst = limit.burst or limit.quota
        super().__init__(limit, room, limit.window / limit.quota * self.burst)
        self.unit = max(ceil(limit.window / limit.quota / _TICK), 1)
        self.rate = self.unit * limit.quota / limit.window
        self.forgiven = min(ceil(GRAIN * self.rate), self.unit - 1)
        self.capacity = self.burst * self.unit + self.forgiven
        self.origin = math.nan

    def turn(self, now: float) -> None:
        """Begin a generation; ticks are counted from the first."""
        if math.isnan(self.origin):
            self.origin = now
        super().turn(now)

    def short_way(self) -> Again:
        """Take one unit more out of a bucket."""
        clock, due, window, counts, shards = self.clock, self.due, self.window, self.counts, self.shards
        origin, rate, unit, capacity, spared = self.origin, self.rate, self.unit, self.capacity, self.forgiven / 2

        def again(key: str) -> tuple[int, int] | None:
            now = clock()
            if now >= due:
                return None
            whose = fingerprint(key)
            table = counts[whose % shards]
            at = whose & len(table) - 2
            while table[at] != whose:
                if table[at] == FREE:
                    return None
                at = at + 2 & len(table) - 2
            full = table[at + 1]
            if full < 0:
                return None
            tick = floor((now - origin) * rate)
            lacking = full - tick + unit if full > tick else unit
            remaining = (capacity - lacking) // unit
            if remaining < 1:
                return None
            try:
                table[at + 1] = tick + lacking
            except OverflowError:  # `take` keeps it elsewhere
                return None
            seconds = (lacking - spared) / rate
            return remaining, ceil(seconds if seconds < window else window)

        return again

    def take(self, key: str, cost: int, now: float) -> Tally:
        """Count the hit if there is room for it."""
        whose = fingerprint(key)
        table = self.counts[whose % self.shards]
        at = table.find(whose)
        self.found = full = table.read(at) if at else self.recall(key, now)
        tick = floor((now - self.origin) * self.rate)
        lacking = cost * self.unit
        if full is not None and full > tick:
            lacking += full - tick
        free = self.capacity - lacking
        if free < 0 or not cost:
            return self._tally(lacking - cost * self.unit, cost, now, allowed=free >= 0)
        if full is None:
            self.admit(key, now)
        if at:
            table.write(at, tick + lacking)
        else:
            self.counts[whose % self.shards].put(key, tick + lacking)
        remaining = free // self.unit
        if remaining < cost:
            return self._tally(lacking, cost, now, allowed=True)
        return new(Tally, (True, remaining, self._seconds(lacking), 0.0, now))

    def look(self, key: str, cost: int, now: float) -> Tally:
        """What ``take`` would say, counting nothing."""
        lacking = self._lacking(key, now)
        return self._tally(lacking, cost, now, allowed=lacking + cost * self.unit <= self.capacity)

    def settle(self, key: str, units: int, counted: float, now: float) -> None:
        """Take so many units more out, or put them back; what came back by itself meanwhile is over.

        That is certain once an empty bucket would be full, and assumed after a window: no unit may come back twice.
        """
        full = self.window * self.burst / self.quota
        if counted > now - (full if units > 0 else min(full, self.window)):
            self._lack(key, self._lacking(key, now) + units * self.unit, now)

    def assign(self, key: str, units: int, now: float) -> None:
        """Take so many units out of a full bucket."""
        self._lack(key, units * self.unit, now)

    def put(self, key: str, mark: int, now: float) -> None:
        """Keep a mark; a bucket that lacks more than it can hold keeps its generation for as long as that takes."""
        super().put(key, mark, now)
        self.until = max(self.until, self.origin + mark / self.rate + GRAIN)

    def shares(self, marks: Iterable[int], now: float) -> list[float]:
        """What each bucket lacks."""
        tick, capacity = floor((now - self.origin) * self.rate), self.burst * self.unit
        return [max(full - tick, 0) / capacity for full in marks]

    def _lacking(self, key: str, now: float) -> int:
        full = self.mark(key, now)
        return 0 if full is None else max(full - floor((now - self.origin) * self.rate), 0)

    def _lack(self, key: str, lacking: int, now: float) -> None:
        if lacking > 0:
            self.put(key, floor((now - self.origin) * self.rate) + lacking, now)
        else:
            self.forget(key)

    def _tally(self, lacking: int, cost: int, now: float, *, allowed: bool) -> Tally:
        free = self.capacity - lacking
        missing = cost * self.unit - free
        wait = 0.0 if missing <= 0 else self._seconds(missing + self.forgiven) if cost <= self.burst else math.inf
        reset = self._seconds(lacking) if lacking > self.forgiven else 0.0
        return Tally(allowed, max(free // self.unit, 0), reset, wait, now)

    def _seconds(self, ticks: int) -> float:
        """How long so many ticks take, but for half of those that are forgiven."""
        return (ticks - self.forgiven / 2) / self.rate
