"""The file of the SQLite stores: opened by processes that race, in WAL mode, with the tables of this version."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from apim_middleware._config import check
from apim_middleware.errors import ConfigError, NotDone

Connection: TypeAlias = sqlite3.Connection
Synchronous: TypeAlias = Literal["full", "normal"]

_APPLICATION = 0x4150494D
"""What ``PRAGMA application_id`` says of our files."""

_VERSION = 1
_MAGIC = b"SQLite format 3\0"
_PATIENCE = 2_000_000.0
"""Seconds that SQLite cannot wait: it counts milliseconds in 31 bits."""

_WAL_KEPT = 16 * 1024 * 1024
"""Bytes to which the write-ahead log is cut after it has grown."""

_TABLES = (
    "CREATE TABLE store (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL, ahead REAL NOT NULL,"
    " latest REAL NOT NULL, size INTEGER NOT NULL, evicted INTEGER NOT NULL)",
    "INSERT INTO store VALUES (1, '', 0, -9e999, 0, 0)",
    "CREATE TABLE windows (name BLOB PRIMARY KEY, serial INTEGER NOT NULL, starts REAL NOT NULL, began REAL NOT NULL,"
    " ends REAL NOT NULL, over REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX windows_by_over ON windows (over)",
    "CREATE TABLE counters (name BLOB PRIMARY KEY, due REAL NOT NULL, share REAL NOT NULL, state BLOB NOT NULL)"
    " WITHOUT ROWID",
    "CREATE INDEX counters_by_due ON counters (due)",
    "CREATE TABLE moments (name BLOB NOT NULL, moment REAL NOT NULL, units INTEGER NOT NULL,"
    " PRIMARY KEY (name, moment)) WITHOUT ROWID",
    "CREATE TABLE permits (door BLOB NOT NULL, holder BLOB NOT NULL, until REAL NOT NULL, PRIMARY KEY (door, holder))"
    " WITHOUT ROWID",
    "CREATE INDEX permits_by_until ON permits (until)",
)


class SQLiteFile:
    """One connection to the file, for the one thread that uses it; opened when first needed, and again after trouble.

    The file is created once. When it is gone later, that is an error until there is one again: counts that are lost
    must not look like counts that were never made. When another stands in its place, that is an error once.
    """

    @classmethod
    def at(
        cls,
        path: str | os.PathLike[str],
        owner: str,
        *,
        synchronous: Synchronous,
        patience: float,
        prepare: Callable[[Connection], object] | None = None,
    ) -> "Callable[[], SQLiteFile]":
        """What makes one for each process that uses it. ConfigError of the owner when it cannot be one.

        ``prepare`` makes the owner's own tables, if it has some and they are not there, in a transaction.
        """
        if synchronous not in get_args(Synchronous):
            raise ConfigError(
                owner, "synchronous", f"{synchronous!r} is not one of its values", 'Give "full" or "normal"'
            )
        check(owner, "patience", patience, float)
        if not 0 <= patience < _PATIENCE:
            raise ConfigError(owner, "patience", f"{patience!r} is no time to wait", "Give seconds, 0 or more")
        return partial(cls, checked_path(owner, path), synchronous, patience, prepare)

    def __init__(
        self, path: Path, synchronous: Synchronous, patience: float, prepare: Callable[[Connection], object] | None
    ) -> None:
        """Remember where it is; nothing is opened yet."""
        self.path = path
        self._prepare_more = prepare
        self._synchronous = synchronous
        self._patience = patience
        self._connection: Connection | None = None
        self._identity: tuple[int, int] | None = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Do all of the block or nothing of it, alone in the file. Raises StoreError."""
        try:
            connection = self._ready()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            if not _only_busy(error):
                self.close()
            raise NotDone(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _ready(self) -> Connection:
        if self._connection is None:
            self._connection = self._opened()
        elif self._identity != self._found():
            raise FileNotFoundError("another file stands in its place; from now on it counts")
        return self._connection

    def _found(self) -> tuple[int, int]:
        found = os.stat(self.path)  # noqa: PTH116 - twice as fast as Path.stat, and done for each transaction
        return found.st_dev, found.st_ino

    def _opened(self) -> Connection:
        mode = "rwc" if self._identity is None else "rw"
        uri = f"{self.path.as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, timeout=self._patience, isolation_level=None, uri=True)
        try:
            self._prepare(connection)
            self._identity = self._found()
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection) -> None:
        self._log_ahead(connection)
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute(f"PRAGMA journal_size_limit={_WAL_KEPT}")
        if self._prepare_more is not None or _version(connection) != _VERSION:
            connection.execute("BEGIN IMMEDIATE")  # of processes that race, the first makes the tables
            _make_tables(connection)
            if self._prepare_more is not None:
                self._prepare_more(connection)
            connection.execute("COMMIT")

    def _log_ahead(self, connection: Connection) -> None:
        """Change to WAL mode, which SQLite refuses at once, without patience, while another process does it."""
        give_up = time.monotonic() + self._patience
        while True:
            try:
                [(mode,)] = connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if not _only_busy(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise sqlite3.NotSupportedError(f"no write-ahead log is possible here (journal mode {mode})")
            return


def checked_path(owner: str, path: str | os.PathLike[str]) -> Path:
    """The absolute path of a file that is a SQLite database or can become one; else a ConfigError that says why not."""
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, str) or not given or given == ":memory:" or "\0" in given:
        raise ConfigError(owner, "path", f"{given!r} names no file", "Give a path; to count in memory, leave it out")
    absolute = Path(given).absolute()
    problem = _problem(absolute)
    if problem:
        raise ConfigError(owner, "path", f"{given!r} {problem}", "Give a path where this process may write a file")
    return absolute


def _problem(path: Path) -> str | None:
    try:
        if not path.parent.is_dir():
            return "is in no folder that exists"
        if not path.exists():
            return None if os.access(path.parent, os.W_OK) else "cannot be made, for its folder cannot be written"
        if not path.is_file():
            return "is no file"
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not os.access(path, os.W_OK):
        return "cannot be written"
    return None if head in (b"", _MAGIC) else "is no SQLite database"


def _version(connection: Connection) -> int:
    [(version,)] = connection.execute("PRAGMA user_version")
    return int(version)


def _make_tables(connection: Connection) -> None:
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_master")
    version = _version(connection)
    if version == _VERSION:
        return
    if version or tables:
        raise sqlite3.NotSupportedError(f"has version {version} and {tables} tables, so it is not of this package")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={_APPLICATION}")
    connection.execute(f"PRAGMA user_version={_VERSION}")


def _only_busy(error: Exception) -> bool:
    """Whether another process had the file, and nothing is wrong with it."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )
