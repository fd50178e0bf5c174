"""Logs: so many units in the last ``window`` seconds, exactly.

A log is bytes: records of a moment and of all units used until then, oldest first. The first record is the last one
that no longer counts; units are what the totals since then add up to. Totals may pass 2**64: only differences matter.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil
from struct import Struct

from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.counts.aging import Aging
from apim_middleware.stores.counts.book import GRAIN, Again, new
from apim_middleware.stores.counts.room import Room
from apim_middleware.stores.counts.table import fingerprint

_RECORD = Struct("=dQ")
_SIZE, _record, _record_at = _RECORD.size, _RECORD.pack, _RECORD.unpack_from
_moment_at, _total_at = Struct("=d").unpack_from, Struct("=Q").unpack_from
_TOTALS = 2**64 - 1
_MOST = 2**62
"""Units a log can hold, whatever it is told."""

_EXACT = 1_000
"""So many records are kept exactly. From there on, hits that are nearer than this part of a window share the later
moment, so that there are never more than three times as many."""

_CROWDED = _SIZE * _EXACT
"""Bytes of the longest log in which hits share nothing yet."""

_ENTRY = 256
"""Bytes of a log that take as much room as one entry."""

_SHED = 32
"""How many logs are freed at a time."""

EMPTY = _record(-math.inf, 0)


def still_counting(log: bytes, until: float) -> bytes:
    """The log without the records of moments up to ``until``."""
    if len(log) == _SIZE or _moment_at(log, _SIZE)[0] > until:
        return log
    if len(log) == 2 * _SIZE or _moment_at(log, 2 * _SIZE)[0] > until:
        return log[_SIZE:]
    return log[_SIZE * bisect_right(_moments(log), until) :]


def units_of(log: bytes) -> int:
    """How many units a log holds."""
    last: int = _total_at(log, len(log) - 8)[0]
    return last - _total_at(log, 8)[0] & _TOTALS  # type: ignore[no-any-return]


def with_units(log: bytes, units: int, now: float, nearest: float) -> bytes:
    """The log with units used now; they join the last record if that is of the same moment, or one in a crowd."""
    last, total = _record_at(log, len(log) - _SIZE)
    moment = max(now, last)
    crowd = len(log) > _CROWDED and moment - _moment_at(log, len(log) - 2 * _SIZE)[0] < nearest
    if crowd or (moment == last and len(log) > _SIZE):
        log = log[:-_SIZE]
    return log + _record(moment, total + units & _TOTALS)


def corrected(log: bytes, units: int, counted: float, nearest: float) -> bytes:
    """The log with more units, or (below 0) fewer, used at a moment; never fewer than none.

    What was used in a crowd is found with the moment it joined, which is less than ``nearest`` later.
    """
    moments = _moments(log)
    position = bisect_left(moments, counted)
    if position == len(moments):  # nothing was used then or since
        return with_units(log, min(units, _MOST - units_of(log)), counted, nearest) if units > 0 else log
    later = moments[position] - counted
    if later and (later >= nearest or (units > 0 and len(log) <= _CROWDED)):
        if units <= 0:
            return log
        here = _SIZE * (position + 1)
        log = log[:here] + _record(counted, _total_at(log, here - 8)[0]) + log[here:]
    records = array("Q", log)
    here = records[2 * position + 3] - records[2 * position + 1] & _TOTALS
    units = min(max(units, -here), _MOST - units_of(log))
    for each in range(2 * position + 3, len(records), 2):
        records[each] = records[each] + units & _TOTALS
    if here + units == 0:
        del records[2 * position + 2 : 2 * position + 4]
    return records.tobytes()


def back_at(log: bytes, units: int) -> float:
    """The moment of the record with which so many units have come back, counted from the oldest."""
    begin = _total_at(log, 8)[0]
    totals = memoryview(log).cast("Q")[3::2]
    position = bisect_left(totals, units, key=lambda total: total - begin & _TOTALS)
    moment: float = _moment_at(log, _SIZE * (position + 1))[0]
    return moment


def _moments(log: bytes) -> "memoryview[float]":
    return memoryview(log).cast("d")[2::2]


class Logs(dict[str, bytes]):
    """Logs, each under a key."""

    __slots__ = ()

    put = dict.__setitem__

    @property
    def held(self) -> int:
        """How many there are."""
        return len(self)

    def pull(self, key: str) -> bytes | None:
        """The log of a key, taken out."""
        return self.pop(key, None)

    def marks(self) -> list[bytes]:
        """Every log, that of the newest key first."""
        return list(reversed(self.values()))

    def drop(self, places: Sequence[int]) -> None:
        """Take out the logs at these places of ``marks``."""
        newest = list(reversed(self))
        for place in places:
            del self[newest[place]]

    def spread(self, shards: int) -> dict[int, "Logs"]:
        """These logs spread over so many shards, by number; only shards that are needed are made."""
        found = defaultdict[int, Logs](Logs)
        for key, log in self.items():
            found[fingerprint(key) % shards][key] = log
        return found

    def shed(self) -> bool:
        """Free some: with the last of a million go all pages of memory they were on, which takes its time too."""
        for _ in range(min(len(self), _SHED)):
            self.popitem()
        return not self


class Log(Aging[bytes]):
    """Keeps a log for each key."""

    __slots__ = ("nearest", "seconds")

    SHARD, EMPTY = Logs, Logs()

    def __init__(self, limit: Limit, room: Room) -> None:
        """Open the book."""
        super().__init__(limit, room, limit.window)
        self.nearest, self.seconds = limit.window / _EXACT, ceil(limit.window)

    def short_way(self) -> Again:
        """Write one unit more into a log."""
        clock, due, counts, shards, quota = self.clock, self.due, self.counts, self.shards, self.quota
        window, nearest, seconds, longer = self.window, self.nearest, self.seconds, self._longer

        def again(key: str) -> tuple[int, int] | None:
            now = clock()
            if now >= due:
                return None
            logs = counts[fingerprint(key) % shards]
            log = logs.get(key)
            if log is None:
                return None
            log = still_counting(log, now - window + GRAIN)
            size = len(log)
            last, total = _record_at(log, size - _SIZE)
            remaining = quota - 1 - (total - _total_at(log, 8)[0] & _TOTALS)
            if remaining < 1:
                return None
            if now > last and size <= _CROWDED:
                log += _record(now, total + 1 & _TOTALS)
            else:
                log = with_units(log, 1, now, nearest)
            logs[key] = log
            if not len(log) % _ENTRY:
                longer(key, now)
            return remaining, seconds

        return again

    def take(self, key: str, cost: int, now: float) -> Tally:
        """Count the hit if there is room for it."""
        self.found = self.mark(key, now)
        log = self._still_counting(self.found, now)
        remaining = self.quota - units_of(log) - cost
        if remaining < 0 or not cost:
            return self._tally(log, cost, now, allowed=remaining >= 0)
        log = with_units(log, cost, now, self.nearest)
        self.put(key, log, now)
        if remaining < cost:
            return self._tally(log, cost, now, allowed=True)
        return new(Tally, (True, remaining, self.window, 0.0, now))

    def look(self, key: str, cost: int, now: float) -> Tally:
        """What ``take`` would say, counting nothing."""
        log = self._log(key, now)
        return self._tally(log, cost, now, allowed=units_of(log) + cost <= self.quota)

    def settle(self, key: str, units: int, counted: float, now: float) -> None:
        """Correct what was counted at a moment that still counts."""
        if counted > now - self.window + GRAIN:
            self._keep(key, corrected(self._log(key, now), units, min(counted, now), self.nearest), now)

    def assign(self, key: str, units: int, now: float) -> None:
        """Count so many units used now, and nothing else."""
        self._keep(key, with_units(EMPTY, min(units, _MOST), now, 0.0) if units else EMPTY, now)

    def put(self, key: str, mark: bytes, now: float) -> None:
        """Keep a log; a long one takes the room of several entries."""
        super().put(key, mark, now)
        if not len(mark) % _ENTRY:
            self._longer(key, now)

    def _longer(self, key: str, now: float) -> None:
        self.room.admit(self.home + fingerprint(key) % self.shards, now)

    def held(self, shard: int) -> int:
        """How much room a shard takes, in entries."""
        return sum(1 + len(log) // _ENTRY for counts in self.all() for log in counts[shard].marks())

    def shares(self, marks: Iterable[bytes], now: float) -> list[float]:
        """The share of the quota that each log holds, as far as it was looked at."""
        return [units_of(log) / self.quota for log in marks]

    def _log(self, key: str, now: float) -> bytes:
        return self._still_counting(self.mark(key, now), now)

    def _still_counting(self, log: bytes | None, now: float) -> bytes:
        return still_counting(log or EMPTY, now - self.window + GRAIN)

    def _keep(self, key: str, log: bytes, now: float) -> None:
        if len(log) > _SIZE:
            self.put(key, log, now)
        else:
            self.forget(key)

    def _tally(self, log: bytes, cost: int, now: float, *, allowed: bool) -> Tally:
        used = units_of(log)
        left = self.quota - used
        reset = self._until(_moment_at(log, len(log) - _SIZE)[0], now) if used else 0.0
        wait = 0.0 if cost <= left else math.inf
        if left < cost <= self.quota:
            wait = self._until(back_at(log, cost - left), now)
        return Tally(allowed, max(left, 0), reset, wait, now)

    def _until(self, moment: float, now: float) -> float:
        return moment + self.window - now
