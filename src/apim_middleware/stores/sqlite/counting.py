"""How the counters of the SQLite store count, by each algorithm, and what is kept of them: a few bytes."""

import math
import struct
from math import floor

from apim_middleware.protocols import Limit
from apim_middleware.stores.sliding_marks import (
    FIRST,
    MOMENTS,
    MOST,
    UNITS,
    corrected,
    mark_of,
    moment_of,
    still_counting,
)
from apim_middleware.stores.sqlite.counter import Counter, Moments
from apim_middleware.stores.sqlite.windows import GRAIN, Window

_FIXED, _SLIDING, _LOG, _BUCKET = (struct.Struct(form) for form in ("<qq", "<qqQqQ", "<q", "<dd"))


def counter_of(limit: Limit, now: float, window: Window | None, moments: Moments, kept: bytes | None) -> Counter:
    """The counter of which this was kept; ``moments`` are those of a log, where nothing else counts."""
    if limit.algorithm == "log":
        return _Log(limit, now, moments, kept)
    if window is None:
        return _Bucket(limit, now, kept)
    return (_Sliding if limit.algorithm == "sliding" else _Fixed)(limit, now, window, kept)


class _Fixed(Counter):
    """Units used in the window that runs: one of the clock, or of the calendar."""

    __slots__ = ("units", "window")

    def __init__(self, limit: Limit, now: float, window: Window, kept: bytes | None) -> None:
        super().__init__(limit, now)
        self.window = window
        serial, units = _FIXED.unpack(kept) if kept else (0, 0)
        self.units = units if serial == window.serial else 0

    def free(self) -> int:
        return self.limit.quota - self.units

    def reset(self) -> float:
        return self.window.ends - self.now if self.units else 0.0

    def wait(self, cost: int) -> float:
        return self.window.ends - self.now

    def add(self, cost: int) -> None:
        self.put(self.units + cost)

    def change(self, units: int, counted: float) -> None:
        if counted >= self.window.began:
            self.put(self.units + units)

    def put(self, units: int) -> None:
        self.units = min(max(units, 0), MOST)
        self.changed = True

    def saved(self) -> int:
        return self.units

    def restore(self, saved: float) -> None:
        self.units = int(saved)

    def packed(self) -> bytes | None:
        return _FIXED.pack(self.window.serial, self.units) if self.units else None

    def due(self) -> float:
        return self.window.due

    def share(self) -> float:
        return self.units / self.limit.quota


_BOTH_MOMENTS = (1 << UNITS) - 1


class _Sliding(Counter):
    """The marks of the window that runs and of the one before, as the store in memory makes and reads them."""

    __slots__ = ("before", "mark", "moment", "window")

    def __init__(self, limit: Limit, now: float, window: Window, kept: bytes | None) -> None:
        super().__init__(limit, now)
        self.window = window
        self.moment = self._moment(now)
        self.mark = self.before = 0
        if kept:
            serial, units, moments, units_before, moments_before = _SLIDING.unpack(kept)
            if serial == window.serial:
                self.mark, self.before = units << UNITS | moments, units_before << UNITS | moments_before
            elif serial == window.serial - 1:
                self.before = units << UNITS | moments

    def _moment(self, at: float) -> int:
        return max(floor((at - self.window.due + self.limit.window) * MOMENTS / self.limit.window), 0)

    def free(self) -> int:
        return self.limit.quota - (self.mark >> UNITS) - self._still()

    def _still(self) -> int:
        return still_counting(self.before, self.moment + 1)

    def reset(self) -> float:
        if self.mark >> UNITS:
            return self._until(self.mark, 0)
        return self._until(self.before, 0) - self.limit.window if self._still() else 0.0

    def wait(self, cost: int) -> float:
        room = self.limit.quota - (self.mark >> UNITS) - cost
        if room >= 0:
            return self._until(self.before, room) - self.limit.window
        return self._until(self.mark, self.limit.quota - cost)

    def _until(self, mark: int, units: int) -> float:
        """Seconds until the next window is where, of this one, no more than so many units count."""
        later = max(moment_of(mark, units) - 1, 0) * self.limit.window / MOMENTS
        return self.window.ends - self.now + later

    def add(self, cost: int) -> None:
        first = self.mark >> FIRST & MOMENTS if self.mark >> UNITS else self.moment
        self.mark = (self.mark >> UNITS) + cost << UNITS | first << FIRST | self.moment
        self.changed = True

    def change(self, units: int, counted: float) -> None:
        began, counted = self.window.due - self.limit.window, min(counted, self.now)
        if counted >= began:
            self.mark = corrected(self.mark, units, self._moment(counted))
        elif counted >= began - self.limit.window:
            before = self.before if self._still() else 0
            self.before = corrected(before, units, self._moment(counted + self.limit.window))
        self.changed = True

    def put(self, units: int) -> None:
        self.before = 0
        self.mark = mark_of(min(units, MOST), self.moment)
        self.changed = True

    def saved(self) -> int:
        return self.mark

    def restore(self, saved: float) -> None:
        self.mark = int(saved)

    def packed(self) -> bytes | None:
        units, before = self.mark >> UNITS, self.before >> UNITS
        if not units and not self._still():
            return None
        marks = units, self.mark & _BOTH_MOMENTS, before, self.before & _BOTH_MOMENTS
        return _SLIDING.pack(self.window.serial, *marks)

    def due(self) -> float:
        return self.window.due + (self.limit.window if self.mark >> UNITS else 0.0)

    def share(self) -> float:
        return ((self.mark >> UNITS) + self._still()) / self.limit.quota


class _Log(Counter):
    """How many units were used in the last ``window`` seconds; when, is written down at once in ``moments``."""

    __slots__ = ("moments", "units")

    def __init__(self, limit: Limit, now: float, moments: Moments, kept: bytes | None) -> None:
        super().__init__(limit, now)
        self.moments = moments
        self.units = 0
        if kept:
            over = moments.forget_until(now - limit.window + GRAIN)
            self.units = int(_LOG.unpack(kept)[0]) - over
            self.changed = over > 0

    def free(self) -> int:
        return self.limit.quota - self.units

    def reset(self) -> float:
        return self.moments.newest() + self.limit.window - self.now if self.units else 0.0

    def wait(self, cost: int) -> float:
        return self.moments.oldest(cost - self.free()) + self.limit.window - self.now

    def add(self, cost: int) -> None:
        self._note(self.now, cost)

    def _note(self, moment: float, units: int) -> None:
        if units:
            self.moments.add(moment, units)
        self.units += units
        self.changed = True

    def change(self, units: int, counted: float) -> None:
        if counted > self.now - self.limit.window + GRAIN:
            counted = min(counted, self.now)
            there = self.moments.at(counted)
            self._note(counted, min(max(units, -there), MOST - self.units))

    def put(self, units: int) -> None:
        self.moments.forget_until(math.inf)
        self.units = 0
        self._note(self.now, min(units, MOST))

    def saved(self) -> int:
        return self.units

    def restore(self, saved: float) -> None:
        self._note(self.now, int(saved) - self.units)

    def packed(self) -> bytes | None:
        return _LOG.pack(self.units) if self.units else None

    def due(self) -> float:
        return _late(self.now + self.limit.window, self.limit.window)

    def share(self) -> float:
        return self.units / self.limit.quota


class _Bucket(Counter):
    """How much was taken out of the bucket, and when that was: it has been filling up since (GCRA)."""

    __slots__ = ("level", "rate")

    def __init__(self, limit: Limit, now: float, kept: bytes | None) -> None:
        super().__init__(limit, now)
        self.most = limit.burst or limit.quota
        self.rate = limit.quota / limit.window
        level, then = _BUCKET.unpack(kept) if kept else (0.0, now)
        level -= (now - then) * self.rate
        self.level: float = 0.0 if level < 0 else level  # one that is no number stays none, and is seen
        """Units that are missing now."""

    def free(self) -> int:
        return floor(self.most - self._soon())

    def _soon(self) -> float:
        return max(self.level - GRAIN * self.rate, 0.0)

    def reset(self) -> float:
        return self.level / self.rate if self._soon() else 0.0

    def wait(self, cost: int) -> float:
        return (self.level + cost - self.most) / self.rate

    def add(self, cost: int) -> None:
        self.level += cost
        self.changed = True

    def change(self, units: int, counted: float) -> None:
        full = self.limit.window * self.most / self.limit.quota
        reach = full if units > 0 else min(full, self.limit.window)  # later it has come back by itself, or may have
        if counted > self.now - reach:
            self.level = min(max(self.level + units, 0.0), float(MOST))
            self.changed = True

    def put(self, units: int) -> None:
        self.level = min(float(units), float(MOST))
        self.changed = True

    def saved(self) -> float:
        return self.level

    def restore(self, saved: float) -> None:
        self.level = saved

    def packed(self) -> bytes | None:
        return _BUCKET.pack(self.level, self.now) if self._soon() else None

    def due(self) -> float:
        return _late(self.now + self.level / self.rate, self.most / self.rate)

    def share(self) -> float:
        return self.level / self.most


def _late(moment: float, step: float) -> float:
    """A moment that seldom changes, up to two steps after this one: changing it costs the file another page."""
    return (moment // step + 2) * step
