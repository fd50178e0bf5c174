"""Fixed windows: so many units in each window of the clock, or in each period of the calendar."""

import math
from collections.abc import Iterable
from math import ceil, floor

from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.calendars import period_of
from apim_middleware.stores.counts.book import GRAIN, Again, Book, new
from apim_middleware.stores.counts.room import Part, Room
from apim_middleware.stores.counts.table import FREE, LARGEST, fingerprint


class Fixed(Book[int]):
    """Keeps the units that each key used in the window that runs."""

    __slots__ = ("begin", "end", "longest", "since", "start")

    def __init__(self, limit: Limit, room: Room) -> None:
        """Open the book."""
        super().__init__(limit, room)
        self.begin, self.longest = -math.inf, limit.window
        self.start = limit.start % limit.window if limit.start else 0.0  # small, for the sake of the last digits

    def turn(self, now: float) -> None:
        """Begin the window that runs now."""
        self.discard(self.counts)
        self.counts = self.fresh()
        wall = self.room.wall()
        begin, end = self.around(wall)
        # Run on to the next boundary when this one is upon us, and when the clock went back: windows never come twice.
        if end - wall <= GRAIN or begin <= self.begin:
            begin, end = self.around(end + GRAIN)
        self.since, self.begin, self.end = now, begin, now + end - wall
        self.due = self.end - GRAIN
        self.again = self.short_way()

    def around(self, wall: float) -> tuple[float, float]:
        """When the window begins and ends that is the clock's at this time."""
        number = floor((wall - self.start) / self.window)
        return self.start + number * self.window, self.start + (number + 1) * self.window

    def short_way(self) -> Again:
        """Add one to what a key has used."""
        clock, due, end, longest, quota = self.clock, self.due, self.end, self.longest, self.quota
        counts, shards, most = self.counts, self.shards, min(quota - 1, LARGEST)

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
            used = table[at + 1]
            if not 0 <= used < most:
                return None
            table[at + 1] = used = used + 1
            left = end - now
            return quota - used, ceil(left if left < longest else longest)

        return again

    def take(self, key: str, cost: int, now: float) -> Tally:
        """Count the hit if there is room for it."""
        whose = fingerprint(key)
        table = self.counts[whose % self.shards]
        at = table.find(whose)
        self.found = found = table.read(at) if at else None
        used = (found or 0) + cost
        remaining = self.quota - used
        if remaining < 0 or not cost:
            return self._tally(used - cost, cost, now, allowed=remaining >= 0)
        if at:
            table.write(at, used)
        else:
            self.admit(key, now).put(key, used)
        if remaining < cost:
            return self._tally(used, cost, now, allowed=True)
        return new(Tally, (True, remaining, self.end - now, 0.0, now))

    def look(self, key: str, cost: int, now: float) -> Tally:
        """What ``take`` would say, counting nothing."""
        used = self.mark(key, now) or 0
        return self._tally(used, cost, now, allowed=used + cost <= self.quota)

    def settle(self, key: str, units: int, counted: float, now: float) -> None:
        """Correct what was counted in the window that runs."""
        if counted >= self.since:
            self.assign(key, max((self.mark(key, now) or 0) + units, 0), now)

    def assign(self, key: str, units: int, now: float) -> None:
        """Count so many units."""
        if units:
            self.put(key, units, now)
        else:
            self.forget(key)

    def over(self, now: float) -> bool:
        """Whether nothing here counts any more."""
        return now >= self.due

    def parts(self, shard: int, now: float) -> Iterable[Part]:
        """Everything counted in a shard."""
        table, quota = self.counts[shard], self.quota
        return ((table, [used / quota for used in table.marks()]),)

    def _tally(self, used: int, cost: int, now: float, *, allowed: bool) -> Tally:
        left = self.end - now
        remaining = self.quota - used
        wait = 0.0 if cost <= remaining else left if cost <= self.quota else math.inf
        return Tally(allowed, max(remaining, 0), left if used else 0.0, wait, now)


class Calendar(Fixed):
    """Keeps the units that each key used in the period of a calendar that runs."""

    __slots__ = ("calendar",)

    def __init__(self, limit: Limit, room: Room) -> None:
        """Open the book. Raises ValueError for a calendar that nobody knows."""
        super().__init__(limit, room)
        self.calendar, self.longest = limit.calendar, math.inf

    def around(self, wall: float) -> tuple[float, float]:
        """When the period begins and ends that is the calendar's at this time."""
        return period_of(self.calendar, wall)


class Lifetime(Fixed):
    """One window without beginning and end. When there is no room it goes last: what is lost here never comes back."""

    __slots__ = ()

    def turn(self, now: float) -> None:
        """Begin for good."""
        self.since, self.end, self.due = -math.inf, math.inf, math.inf
        self.again = self.short_way()

    def short_way(self) -> Again:
        """None: there is no time to tell."""
        return lambda key: None

    def parts(self, shard: int, now: float) -> Iterable[Part]:
        """Everything counted in a shard, as if all of the quota had been used, and then what was."""
        return ((table, [1.0 + share for share in shares]) for table, shares in super().parts(shard, now))
