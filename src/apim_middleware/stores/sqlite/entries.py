"""Entries in a SQLite file: embedded, durable, shared by all processes of one machine."""

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from apim_middleware._config import check_count
from apim_middleware.errors import StoreError
from apim_middleware.protocols import Clock
from apim_middleware.stores.sqlite.file import SQLiteFile
from apim_middleware.stores.sqlite.ledger import Ledger, make_tables, name_of
from apim_middleware.stores.sqlite.thread import Clerk, Work
from apim_middleware.stores.sqlite.times import Times
from apim_middleware.stores.tags import checked

_Job: TypeAlias = Callable[[Ledger], object]

_USES = 512
"""So many entries may have been read before that is written down for its own sake."""


class Holding(NamedTuple):
    """How full a store of entries is."""

    held: int
    """Bytes, by the account that ``max_bytes`` bounds."""

    evicted: int
    """How many entries had to make room for others, since the file was made."""


class SQLiteEntries:
    """Entries in a file: they outlive the process, and all processes of the machine have the same.

    At most ``max_bytes`` are held, values and what it takes to keep them, beside the last 10,000 purges. When there is
    no room, what came first goes first, but for what was read since: that comes round again. What is past its time is
    deleted by later calls.

    What was kept is there when the process is killed; when the power fails, what was kept last may be gone. A value
    that is damaged is none. When the file is deleted, a new one is made. Keys are kept as hashes, values as they are.

    Calls that wait at the same time are one transaction of a thread of the store's own; the event loop never waits for
    the disk. The file may be that of counters and permits, but those then wait for what large values take.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 1 << 30,
        patience: float = 5.0,
        max_waiting: int = 1_000,
        clock: Clock | None = None,
    ) -> None:
        """Keep entries in the file at ``path``, which is made with the first call.

        ``max_bytes``: default 1 GiB. ``patience``: seconds to wait for other processes, after which calls fail.
        ``max_waiting``: calls that may wait at once; more fail at once. ``clock`` is for tests. ConfigError when no
        file can be there.
        """
        check_count("SQLiteEntries", "max_bytes", max_bytes)
        check_count("SQLiteEntries", "max_waiting", max_waiting)
        file = SQLiteFile.at(path, "SQLiteEntries", synchronous="normal", patience=patience, prepare=make_tables)
        self._clerk: Clerk[_Job] = Clerk(partial(_Keeping, file, Times.of(clock), max_bytes), room=max_waiting)
        self._path = os.fspath(path)

    def __repr__(self) -> str:
        """Where they are."""
        return f"<SQLiteEntries: {self._path}>"

    async def get(self, key: bytes) -> bytes | None:
        """The bytes, unless unknown, expired, purged, damaged or evicted. Raises StoreError."""
        [value] = await self.get_many([key])
        return value

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What ``get`` gives for each of the keys. Raises StoreError."""
        names = [name_of(key) for key in keys]
        values: list[bytes | None] = await self._clerk.ask(lambda ledger: [ledger.get(name) for name in names])
        return values

    async def look(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        """What ``get_many`` gives, and after which purge. Raises StoreError."""
        names = [name_of(key) for key in keys]
        found: tuple[list[bytes | None], bytes] = await self._clerk.ask(
            lambda ledger: ([ledger.get(name) for name in names], ledger.after)
        )
        return found

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        """Keep the bytes for ``ttl`` seconds, or less when room is needed or a tag is purged. Raises StoreError.

        With ``since``, only if none of the tags was purged since, in one transaction; False when that is why not.
        """
        name, tags = name_of(key), checked(tags)
        kept: bool = await self._clerk.ask(lambda ledger: ledger.set_since(name, value, ttl, tags, since))
        return kept

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        """Keep the bytes if the key has none; whether that was so. Raises StoreError."""
        name = name_of(key)
        added: bool = await self._clerk.ask(lambda ledger: ledger.add(name, value, ttl))
        return added

    async def delete(self, key: bytes, *, value: bytes | None = None) -> None:
        """Forget the key; with ``value``, only if it has that. Raises StoreError."""
        name = name_of(key)
        await self._clerk.ask(lambda ledger: ledger.delete(name, value))

    async def purge(self, tag: bytes) -> None:
        """Forget all entries that were set with this tag, however many they are at once. Raises StoreError."""
        await self._clerk.ask(lambda ledger: ledger.purge(tag))

    async def holding(self) -> Holding:
        """How full the file is. Raises StoreError."""
        holding: Holding = await self._clerk.ask(lambda ledger: Holding(ledger.held, ledger.evicted))
        return holding

    async def aclose(self) -> None:
        """Finish what is waiting and close the file; calls fail afterwards."""
        await self._clerk.aclose()


# What is done in the thread


class _Keeping(Work[_Job]):
    def __init__(self, file: Callable[[], SQLiteFile], times: Times, max_bytes: int) -> None:
        self._make, self._times, self._max = file, times, max_bytes
        self._file = file()
        self._used: set[int] = set()

    def do(self, jobs: Sequence[_Job]) -> list[object]:
        try:
            return self._done(jobs)
        except StoreError as error:
            self._used.clear()
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
        self.close()  # the file was deleted or replaced: nothing in it was promised to last
        self._file = self._make()
        return self._done(jobs)

    def _done(self, jobs: Sequence[_Job]) -> list[object]:
        with self._file.transaction() as connection:
            ledger = Ledger(connection, self._times, self._max, self._used)
            answers = [job(ledger) for job in jobs]
            ledger.save(uses=len(self._used) >= _USES)
        return answers

    def close(self) -> None:
        self._file.close()
