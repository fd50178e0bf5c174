"""What one transaction reads from the SQLite file and writes back: counters, windows, and room for more."""

import logging
import math
import secrets
import struct
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

from apim_middleware.protocols import Limit
from apim_middleware.stores.calendars import period_of
from apim_middleware.stores.sqlite.counter import Counter
from apim_middleware.stores.sqlite.counting import counter_of
from apim_middleware.stores.sqlite.file import Connection
from apim_middleware.stores.sqlite.times import Times
from apim_middleware.stores.sqlite.windows import Window, running

Name: TypeAlias = bytes
"""What a counter or a limit is called in the file: equally long for every key, and not telling it."""

log = logging.getLogger("apim_middleware")

_NONSENSE = struct.error, TypeError, ValueError, OverflowError
"""What becomes of numbers that are none."""

_SIZE = 16
_SAMPLE, _GOES, _TRIES = 64, 8, 8
"""When there is no room: of so many counters so many go, and how often others are looked at when all are used up."""


@lru_cache(maxsize=4096)
def name_of_limit(limit: Limit) -> Name:
    """The name of a limit. Raises ValueError for a calendar that nobody knows."""
    if limit.algorithm == "calendar":
        period_of(limit.calendar, 0.0)
    told = limit._replace(quota=int(limit.quota), window=float(limit.window), start=float(limit.start))
    return name_of(repr(tuple(told)))


def name_of(text: str, limit: Limit | None = None) -> Name:
    """A name that no other text has; of a key, none that it has under other limits."""
    space = name_of_limit(limit) if limit else b""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_SIZE, key=space).digest()


class Books:
    """The state of the store while one transaction lasts; ``save`` writes what changed."""

    def __init__(self, file: Connection, times: Times, room: int) -> None:
        """Read the time."""
        self.file = file
        self.now, self._wall = times.read(file), times.wall
        self._times, self._room = times, room
        [(self.size, self.evicted)] = file.execute("SELECT size, evicted FROM store")
        self._before = self.size, self.evicted
        self._counters: dict[Name, Counter] = {}
        self._windows: dict[Name, Window] = {}
        self._turned: dict[Name, Limit] = {}
        self._kept: set[Name] = set()  # names of counters and windows that have a row

    def counter(self, name: Name, limit: Limit) -> Counter:
        """The counter of this name."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = self._read(name, limit, self._window(limit))
        return counter

    def _read(self, name: Name, limit: Limit, window: Window | None) -> Counter:
        row = self.file.execute("SELECT state, due FROM counters WHERE name = ?", (name,)).fetchone()
        state, due = row or (None, math.inf)
        try:
            if due <= self.now and limit.algorithm != "log":  # whose moments may be there all the same
                state = None
            counter = counter_of(limit, self.now, window, _Moments(self, name), state)
            counter.free()
        except _NONSENSE:  # SQLite sees damage to its pages, but not in what is on them
            log.error("a counter of %s is damaged, and begins anew", limit.place or "a limit")
            self._forget([name])
            return counter_of(limit, self.now, window, _Moments(self, name), None)
        if row:
            self._kept.add(name)
        return counter

    def _window(self, limit: Limit) -> Window | None:
        if limit.algorithm in ("log", "bucket"):
            return None
        name = name_of_limit(limit)
        window = self._windows.get(name)
        if window is None:
            last = self._last_window(name)
            window = self._windows[name] = running(limit, last, self.now, self._wall())
            if window is not last:
                self._turned[name] = limit
        return window

    def _last_window(self, name: Name) -> Window | None:
        select = "SELECT serial, starts, began, ends FROM windows WHERE name = ?"
        row = self.file.execute(select, (name,)).fetchone()
        if row is None:
            return None
        self._kept.add(name)
        return Window(*row)

    def save(self) -> None:
        """Write what changed, and make room for what is new."""
        self._save_windows()
        self._save_counters()
        if new := max(self.size - self._before[0], 0):
            self._forget(self._over(2 * new))
        if self.size > self._room:
            self._make_room()
        if self._turned or self._before != (self.size, self.evicted) or any(c.changed for c in self._counters.values()):
            self.file.execute("UPDATE store SET size = ?, evicted = ?", (self.size, self.evicted))
            self._times.write(self.file, self.now)

    def _save_windows(self) -> None:
        rows = []
        for name, limit in self._turned.items():
            window = self._windows[name]
            rows.append((name, *window, window.ends + (limit.window if limit.algorithm == "sliding" else 0.0)))
        self.file.executemany("INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?)", rows)
        self.size += len(self._turned.keys() - self._kept)

    def _save_counters(self) -> None:
        rows, empty = [], []
        for name, counter in self._counters.items():
            if counter.changed and (state := counter.packed()) is not None:
                rows.append((name, counter.due(), counter.share(), state))
            elif counter.changed and name in self._kept:
                empty.append(name)
        self.file.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?)", rows)
        self.size += len({name for name, *_ in rows} - self._kept)
        self._forget(empty)

    def _over(self, number: int) -> list[Name]:
        """Counters of which nothing counts any more: a few more than are new, so that they never gather."""
        found = self.file.execute("SELECT name FROM counters WHERE due <= ? LIMIT ?", (self.now, number))
        return [name for (name,) in found]

    def _forget(self, names: Iterable[Name]) -> None:
        rows = [(name,) for name in names]
        for table in ("counters", "moments"):
            self.size -= self.file.executemany(f"DELETE FROM {table} WHERE name = ?", rows).rowcount if rows else 0  # noqa: S608

    def _make_room(self) -> None:
        """Drop what is over, then what used the smallest part of its quota, as far as a few samples tell."""
        self._drop_windows(self.now)
        tries = 0
        while self.size > self._room and (sample := self._sample()):
            free = [name for share, name in sample if share < 1.0 and name not in self._counters]
            tries += not free
            if free or tries > _TRIES:
                doomed = (free or [name for _, name in sample])[:_GOES]
                self._forget(doomed)
                self.evicted += len(doomed)
        if self.size > self._room:
            self._drop_windows(math.inf)

    def _sample(self) -> list[tuple[float, Name]]:
        """Some counters, those with the smallest share first; which, is left to chance."""
        begin = secrets.token_bytes(_SIZE)
        rows: list[tuple[float, Name]] = []
        for where in (">=", "<"):
            select = f"SELECT share, name FROM counters WHERE name {where} ? LIMIT ?"  # noqa: S608
            rows += self.file.execute(select, (begin, _SAMPLE - len(rows)))
        return sorted(rows)

    def _drop_windows(self, moment: float) -> None:
        drop = "DELETE FROM windows WHERE name IN (SELECT name FROM windows WHERE over <= ? ORDER BY over LIMIT ?)"
        self.size -= self.file.execute(drop, (moment, self.size - self._room)).rowcount


class _Moments:
    """The moments of one log in the file."""

    def __init__(self, books: Books, name: Name) -> None:
        self.books, self.name = books, name
        self.execute = books.file.execute

    def forget_until(self, moment: float) -> int:
        where = "FROM moments WHERE name = ? AND moment <= ?"
        [(rows, units)] = self.execute(f"SELECT count(*), total(units) {where}", (self.name, moment))
        if rows:
            self.execute(f"DELETE {where}", (self.name, moment))
            self.books.size -= rows
        return int(units)

    def oldest(self, units: int) -> float:
        for moment, used in self.execute(
            "SELECT moment, units FROM moments WHERE name = ? ORDER BY moment", (self.name,)
        ):
            units -= used
            if units <= 0:
                return float(moment)
        return math.inf

    def newest(self) -> float:
        [(moment,)] = self.execute("SELECT max(moment) FROM moments WHERE name = ?", (self.name,))
        return -math.inf if moment is None else float(moment)

    def at(self, moment: float) -> int:
        row = self.execute("SELECT units FROM moments WHERE name = ? AND moment = ?", (self.name, moment)).fetchone()
        return int(row[0]) if row else 0

    def add(self, moment: float, units: int) -> None:
        here = (self.name, moment)
        known = self.execute(
            "UPDATE moments SET units = units + ? WHERE name = ? AND moment = ?", (units, *here)
        ).rowcount
        if not known:
            self.execute("INSERT INTO moments VALUES (?, ?, ?)", (*here, units))
            self.books.size += 1
        elif units < 0:
            gone = self.execute("DELETE FROM moments WHERE name = ? AND moment = ? AND units <= 0", here).rowcount
            self.books.size -= gone
