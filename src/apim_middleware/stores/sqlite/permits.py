"""Permits in a SQLite file: who is in, over all processes of one machine."""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from apim_middleware._config import check, check_count
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.protocols import Clock
from apim_middleware.stores.sqlite.books import Name, name_of
from apim_middleware.stores.sqlite.file import Connection, SQLiteFile
from apim_middleware.stores.sqlite.thread import Clerk, Work
from apim_middleware.stores.sqlite.times import Times
from apim_middleware.stores.sqlite.windows import GRAIN

_Place: TypeAlias = tuple[Name, Name]
"""A key and a holder."""

_SWEPT = 8
"""How many permits of the dead are taken away when one is lent."""


class _Job(NamedTuple):
    place: _Place
    at_once: int | None
    """None to leave."""


class SQLitePermits:
    """Counts who is in, in a file that all processes of the machine share.

    A permit is lent for ``lease`` seconds and renewed by a thread of the store's own, three times in that, as long as
    it is held; a process that is killed gives back what it held within ``lease`` seconds. A process that was stopped
    for longer than that takes its permits again when it goes on, whoever came in meanwhile.

    The file may be that of ``SQLiteCounters``. Keys and holders are kept as hashes. When a release cannot be written,
    the permit is renewed no more, and comes back when its time is over.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lease: float = 15.0,
        patience: float = 5.0,
        max_waiting: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        """Lend permits in the file at ``path``, which is made with the first.

        ``patience``: seconds to wait for other processes, after which calls fail. ``max_waiting``: calls that may wait
        at once; more fail at once. ``clock`` is for tests. ConfigError when no file can be there.
        """
        check("SQLitePermits", "lease", lease, float)
        if not 0.1 <= lease <= 86_400.0:
            raise ConfigError(
                "SQLitePermits", "lease", f"{lease} is no time to lend", "Give a tenth of a second to a day"
            )
        check_count("SQLitePermits", "max_waiting", max_waiting)
        file = SQLiteFile.at(path, "SQLitePermits", synchronous="normal", patience=patience)
        self._clerk: Clerk[_Job] = Clerk(partial(_Lending, file, Times.of(clock), lease), room=max_waiting)
        self._path = os.fspath(path)

    def __repr__(self) -> str:
        """Where they are."""
        return f"<SQLitePermits: {self._path}>"

    async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        """Let this holder in if fewer than ``at_once`` are in, or it is in; whether it is, and how many are.

        Raises StoreError. Who stops waiting for the answer is not in.
        """
        place = name_of(key), name_of(holder)
        try:
            told: tuple[bool, int] = await self._clerk.ask(_Job(place, at_once))
        except BaseException as error:
            if not isinstance(error, StoreError):  # nobody waits any more who could let the holder out
                self._clerk.leave(_Job(place, None))
            raise
        return told

    async def release(self, key: str, holder: str) -> None:
        """Let this holder out; nothing happens when it is not in. Raises StoreError."""
        await self._clerk.ask(_Job((name_of(key), name_of(holder)), None))

    async def aclose(self) -> None:
        """Let everybody out who came in through this object, and close the file; calls fail afterwards."""
        await self._clerk.aclose()


class _Lending(Work[_Job]):
    def __init__(self, file: Callable[[], SQLiteFile], times: Times, lease: float) -> None:
        self.file, self.times, self.lease = file(), times, lease
        self.held: set[_Place] = set()
        self.renewal = 0.0

    def do(self, jobs: Sequence[_Job]) -> Sequence[object]:
        # What is left is held no more even if that cannot be written: what is not renewed comes back.
        self.held -= {place for place, at_once in jobs if at_once is None}
        with self.file.transaction() as connection:
            holders = _Holders(connection, self.times.read(connection), self.lease, set(self.held))
            if self._due():
                holders.renew()
            answers = [holders.do(job) for job in jobs]
            if holders.changed:
                self.times.write(connection, holders.now)
        self.held = holders.held
        return answers

    def _due(self) -> bool:
        """Whether it is time to renew what is held; the next time is soon, in case this one fails."""
        now = self.times.steady()
        if now < self.renewal:
            return False
        self.renewal = now + self.lease / 3
        return bool(self.held)

    def rest(self) -> float | None:
        return max(self.renewal - self.times.steady(), 0.0) if self.held else None

    def close(self) -> None:
        if self.held:
            with contextlib.suppress(StoreError), self.file.transaction() as connection:
                connection.executemany("DELETE FROM permits WHERE door = ? AND holder = ?", self.held)
        self.held.clear()
        self.file.close()


class _Holders:
    """Who is in while one transaction lasts, and which of them came in through this process."""

    def __init__(self, file: Connection, now: float, lease: float, held: set[_Place]) -> None:
        self.file, self.now, self.until = file, now, now + lease
        self.held = held
        self.changed = False

    def do(self, job: _Job) -> tuple[bool, int] | None:
        if job.at_once is not None:
            return self.enter(job.place, job.at_once)
        self.leave(job.place)
        return None

    def enter(self, place: _Place, at_once: int) -> tuple[bool, int]:
        select = "SELECT count(*), total(holder = ?) FROM permits WHERE door = ? AND until > ?"
        [(inside, already)] = self.file.execute(select, (place[1], place[0], self.now + GRAIN))
        if already or inside < at_once:
            self._write([place])
            self.held.add(place)
            inside += not already
            self._sweep()
        return place in self.held, inside

    def leave(self, place: _Place) -> None:
        self.held.discard(place)
        gone = self.file.execute("DELETE FROM permits WHERE door = ? AND holder = ?", place).rowcount
        self.changed = self.changed or gone > 0

    def renew(self) -> None:
        self._write(self.held)

    def _write(self, places: Iterable[_Place]) -> None:
        rows = [(*place, self.until) for place in places]
        self.file.executemany("INSERT OR REPLACE INTO permits VALUES (?, ?, ?)", rows)
        self.changed = True

    def _sweep(self) -> None:
        sweep = (
            "DELETE FROM permits WHERE (door, holder) IN (SELECT door, holder FROM permits WHERE until <= ? LIMIT ?)"
        )
        self.file.execute(sweep, (self.now, _SWEPT))
