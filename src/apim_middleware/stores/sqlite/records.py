"""Records in a SQLite file: durable, and seen by all processes of one machine."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from apim_middleware._config import check_count
from apim_middleware.errors import FeedLost, VersionConflict
from apim_middleware.protocols import Clock, Record
from apim_middleware.stores.records import checked, checked_page, first_version, read, written
from apim_middleware.stores.sqlite.file import Connection, SQLiteFile
from apim_middleware.stores.sqlite.thread import Clerk, Work
from apim_middleware.stores.sqlite.times import Times

_Job: TypeAlias = Callable[[Connection], object]
"""Does one thing in a transaction."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS records (kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, document BLOB,"
    " PRIMARY KEY (kind, id)) WITHOUT ROWID",
    "CREATE UNIQUE INDEX IF NOT EXISTS records_by_version ON records (version)",
    "CREATE INDEX IF NOT EXISTS records_deleted ON records (version) WHERE document IS NULL",
    "CREATE TABLE IF NOT EXISTS feed (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL,"
    " floor INTEGER NOT NULL)",
)


class SQLiteRecords:
    """Records in a file that all processes of the machine share; what was written outlives them, and a power cut.

    The file may be that of ``SQLiteCounters``. The last ``max_deleted`` deletions are told to those who follow the
    changes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_deleted: int = 10_000,
        patience: float = 5.0,
        max_waiting: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        """Keep records in the file at ``path``, which is made with the first.

        ``patience``: seconds to wait for other processes, after which calls fail. ``max_waiting``: calls that may wait
        at once; more fail at once. ``clock`` is for tests. ConfigError when no file can be there.
        """
        check_count("SQLiteRecords", "max_deleted", max_deleted)
        check_count("SQLiteRecords", "max_waiting", max_waiting)
        self._max_deleted = max_deleted
        prepare = partial(_make_tables, Times.of(clock))
        file = SQLiteFile.at(path, "SQLiteRecords", synchronous="full", patience=patience, prepare=prepare)
        self._clerk: Clerk[_Job] = Clerk(partial(_Archive, file), room=max_waiting)
        self._path = os.fspath(path)

    def __repr__(self) -> str:
        """Where they are."""
        return f"<SQLiteRecords: {self._path}>"

    async def get(self, kind: str, record_id: str) -> Record | None:
        """The record, unless there is none. Raises StoreError."""
        checked(kind, record_id)
        query = "SELECT kind, id, version, document FROM records WHERE kind = ? AND id = ? AND document IS NOT NULL"
        found = await self._select(query, kind, record_id)
        return found[0] if found else None

    async def page(self, kind: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        """The records of a kind by id. Raises StoreError."""
        checked_page(after, limit)
        query = (
            "SELECT kind, id, version, document FROM records WHERE kind = ? AND id > ? AND document IS NOT NULL"
            " ORDER BY id LIMIT ?"
        )
        return await self._select(query, kind, after, limit)

    async def put(
        self,
        kind: str,
        record_id: str,
        document: Mapping[str, Any],
        *,
        if_match: int | None = None,
    ) -> Record:
        """Write a record, whole. Raises VersionConflict and StoreError."""
        checked(kind, record_id, if_match)
        text = written(document)
        version = await self._change(kind, record_id, text, if_match)
        return Record(kind, record_id, version, read(text))

    async def delete(self, kind: str, record_id: str, *, if_match: int | None = None) -> None:
        """Delete a record. Raises VersionConflict and StoreError."""
        checked(kind, record_id, if_match)
        await self._change(kind, record_id, None, if_match)

    async def version(self) -> int:
        """The version of the latest change. Raises StoreError."""
        [(version,)] = await self._clerk.ask(lambda file: file.execute("SELECT version FROM feed").fetchall())
        return int(version)

    async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
        """What was changed behind a version. Raises FeedLost and StoreError."""
        checked_page(after, limit)
        told = await self._clerk.ask(lambda file: _changes(file, after, limit))
        if isinstance(told, FeedLost):
            raise told
        return [_record(*row) for row in told]

    async def aclose(self) -> None:
        """Finish what is waiting and close the file; calls fail afterwards."""
        await self._clerk.aclose()

    async def _select(self, query: str, *values: object) -> list[Record]:
        rows = await self._clerk.ask(lambda file: file.execute(query, values).fetchall())
        return [_record(*row) for row in rows]

    async def _change(self, kind: str, record_id: str, text: bytes | None, if_match: int | None) -> int:
        def job(file: Connection) -> int | VersionConflict:
            return _changed(file, kind, record_id, text, if_match, self._max_deleted)

        told: int | VersionConflict = await self._clerk.ask(job)
        if isinstance(told, VersionConflict):
            raise told
        return told


def _record(kind: str, record_id: str, version: int, text: bytes | None) -> Record:
    return Record(kind, record_id, version, None if text is None else read(text))


# In the thread


class _Archive(Work[_Job]):
    def __init__(self, file: Callable[[], SQLiteFile]) -> None:
        self.file = file()

    def do(self, jobs: Sequence[_Job]) -> Sequence[object]:
        with self.file.transaction() as connection:
            return [job(connection) for job in jobs]

    def close(self) -> None:
        self.file.close()


def _make_tables(times: Times, file: Connection) -> None:
    for statement in _TABLES:
        file.execute(statement)
    version = first_version(times.read(file))
    file.execute("INSERT OR IGNORE INTO feed VALUES (1, ?, ?)", (version, version))


def _changes(file: Connection, after: int, limit: int) -> list[tuple[str, str, int, bytes | None]] | FeedLost:
    [(version, floor)] = file.execute("SELECT version, floor FROM feed")
    if after and not floor <= after <= version:
        return FeedLost(f"changes are known from version {floor} to {version}")
    known = "" if after else "AND document IS NOT NULL"
    query = f"SELECT kind, id, version, document FROM records WHERE version > ? {known} ORDER BY version LIMIT ?"  # noqa: S608
    return file.execute(query, (after, limit if after else -1)).fetchall()


def _changed(
    file: Connection, kind: str, record_id: str, text: bytes | None, if_match: int | None, deleted: int
) -> int | VersionConflict:
    query = "SELECT version FROM records WHERE kind = ? AND id = ? AND document IS NOT NULL"
    found = file.execute(query, (kind, record_id)).fetchone()
    held = 0 if found is None else int(found[0])
    if if_match is not None and if_match != held:
        return VersionConflict(held)
    if text is None and not held:
        return 0
    [(version,)] = file.execute("UPDATE feed SET version = version + 1 RETURNING version").fetchall()
    file.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", (kind, record_id, version, text))
    if text is None:
        _forget_deletions(file, deleted)
    return int(version)


def _forget_deletions(file: Connection, most: int) -> None:
    """Those that are too many, the oldest first; whoever follows from before them reads everything again."""
    query = "SELECT version FROM records WHERE document IS NULL ORDER BY version DESC LIMIT 1 OFFSET ?"
    found = file.execute(query, (most,)).fetchone()
    if found is not None:
        file.execute("DELETE FROM records WHERE document IS NULL AND version <= ?", found)
        file.execute("UPDATE feed SET floor = ?", found)
