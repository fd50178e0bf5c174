"""A SQLite file in trouble: locked, full, corrupt, gone, replaced, somebody else's; and a store that is closed."""

import contextlib
import itertools
import math
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from apim_middleware.errors import ConfigError, NotDone, StoreError
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.sqlite import SQLiteCounters, SQLiteEntries, SQLitePermits
from apim_middleware.stores.sqlite.file import Connection, SQLiteFile
from apim_middleware.stores.sqlite.records import SQLiteRecords

LIMIT = Limit(10, float("inf"), "fixed")
MAGIC = b"SQLite format 3\0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "counts.db"


@pytest.fixture
def counters(path: Path) -> SQLiteCounters:
    return SQLiteCounters(path, patience=0.02)


async def remaining_after(counters: SQLiteCounters, cost: int = 1) -> int:
    [tally] = await counters.hit([Hit("a", LIMIT, cost)])
    return tally.remaining


async def trouble(counters: SQLiteCounters, cause: type[Exception]) -> str:
    """What a hit says that fails for this cause."""
    with pytest.raises(NotDone) as caught:
        await counters.hit([Hit("a", LIMIT)])
    assert isinstance(caught.value.__cause__, cause)
    return str(caught.value)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody has the file for longer than anybody waits."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        yield


# Passing trouble


@pytest.mark.anyio
async def test_a_file_that_is_locked_for_too_long_is_an_error_until_it_is_free(
    path: Path, counters: SQLiteCounters
) -> None:
    await remaining_after(counters, 3)
    with locked(path):
        assert "locked" in await trouble(counters, sqlite3.OperationalError)
    assert await remaining_after(counters) == 6


@pytest.mark.anyio
async def test_a_file_that_is_locked_while_it_is_made_is_an_error_until_it_is_free(
    path: Path, counters: SQLiteCounters
) -> None:
    with locked(path):
        assert "locked" in await trouble(counters, sqlite3.OperationalError)
    assert await remaining_after(counters) == 9


@pytest.mark.anyio
async def test_who_waits_together_fails_together_each_with_an_error_of_its_own(
    path: Path, counters: SQLiteCounters
) -> None:
    await remaining_after(counters)
    errors = []

    async def one() -> None:
        try:
            await counters.hit([Hit("a", LIMIT)])
        except StoreError as error:
            errors.append(error)

    with locked(path):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
    assert len({id(error) for error in errors}) == 20
    assert await remaining_after(counters) == 8


@pytest.mark.anyio
async def test_no_more_wait_than_there_is_room_for(path: Path) -> None:
    counters = SQLiteCounters(path, patience=0.1, max_waiting=5)
    await remaining_after(counters)
    errors = []

    async def one() -> None:
        try:
            await counters.hit([Hit("a", LIMIT)])
        except StoreError as error:
            errors.append(str(error))

    with locked(path):
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(one)
    assert len(errors) == 50
    assert errors.count("5 others wait for the store already") >= 40


@pytest.mark.anyio
async def test_a_database_that_is_full_is_an_error_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch, counters: SQLiteCounters
) -> None:
    prepare, most = SQLiteFile._prepare, 30

    def prepare_small(self: SQLiteFile, connection: Connection) -> None:
        prepare(self, connection)
        connection.execute(f"PRAGMA max_page_count={most}")

    monkeypatch.setattr(SQLiteFile, "_prepare", prepare_small)
    await remaining_after(counters, 4)
    with pytest.raises(StoreError, match="full") as caught:
        await fill(counters)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    most = 100_000
    assert await remaining_after(counters) == 5


async def fill(counters: SQLiteCounters) -> None:
    for number in range(100):
        await counters.hit([Hit(f"{number}-{each}", LIMIT) for each in range(100)])


# Lasting trouble


@pytest.mark.anyio
async def test_a_file_that_is_gone_is_an_error_until_it_is_back(path: Path, counters: SQLiteCounters) -> None:
    await remaining_after(counters, 3)
    for _ in range(2):
        with moved_away(path):
            await trouble(counters, FileNotFoundError)
            await trouble(counters, sqlite3.OperationalError)
            assert made_in(path.parent) == []
        assert await remaining_after(counters) in (6, 5)


def made_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if each.is_file()]


@contextlib.contextmanager
def moved_away(path: Path) -> Iterator[None]:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    for each in path.parent.glob(f"{path.name}*"):
        each.rename(elsewhere / each.name)
    yield
    for each in elsewhere.iterdir():
        each.rename(path.parent / each.name)


@pytest.mark.anyio
async def test_a_file_that_was_replaced_is_an_error_once(path: Path, counters: SQLiteCounters) -> None:
    other = SQLiteCounters(path.with_name("other.db"))
    await remaining_after(other, 8)
    await other.aclose()
    await remaining_after(counters)
    for each in path.parent.glob(f"{path.name}?*"):
        each.unlink()
    path.with_name("other.db").rename(path)
    assert "another file" in await trouble(counters, FileNotFoundError)
    assert await remaining_after(counters) == 1


@pytest.mark.parametrize("begin", [0, 100, 4_096])
@pytest.mark.anyio
async def test_a_file_that_was_corrupted_is_an_error(path: Path, begin: int) -> None:
    before = SQLiteCounters(path)
    await before.hit([Hit(f"key-{number}", LIMIT) for number in range(500)])
    counters = SQLiteCounters(path)
    await before.aclose()
    corrupt(path, begin)
    for _ in range(2):
        await trouble(counters, sqlite3.DatabaseError)


def corrupt(path: Path, begin: int) -> None:
    good = path.read_bytes()
    path.write_bytes(good[:begin] + b"\xa5" * len(good[begin:]))


@pytest.mark.parametrize("version", [2, 99])
@pytest.mark.anyio
async def test_a_file_of_another_version_is_an_error(path: Path, version: int) -> None:
    counters = SQLiteCounters(path)
    await remaining_after(counters)
    await counters.aclose()
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA user_version={version}")
    assert f"version {version}" in await trouble(SQLiteCounters(path), sqlite3.NotSupportedError)


@pytest.mark.anyio
async def test_a_file_of_another_program_is_an_error_and_left_as_it_is(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE theirs (x)")
    assert "not of this package" in await trouble(SQLiteCounters(path), sqlite3.NotSupportedError)
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


NAN = struct.pack("<dd", math.nan, math.nan).hex()


@pytest.mark.parametrize(
    ("algorithm", "damage"),
    [
        *itertools.product(
            ("fixed", "sliding", "log", "bucket"),
            ("state = x'00'", "state = 'text'", "state = zeroblob(500)", "due = 'late'"),
        ),
        ("bucket", f"state = x'{NAN}'"),
    ],
)
@pytest.mark.anyio
async def test_a_counter_that_is_damaged_begins_anew_and_no_other_does(
    path: Path, counters: SQLiteCounters, algorithm: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit(10, 3_600.0, algorithm)
    await counters.hit([Hit("bad", limit, 4)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(f"UPDATE counters SET {damage}")
    await counters.hit([Hit("good", limit, 3)])
    remaining = [
        [tally.remaining for tally in await counters.hit([Hit("bad", limit), Hit("good", limit)])] for _ in "12"
    ]
    usage = await counters.usage()
    await counters.aclose()
    assert remaining == [[9, 6], [8, 5]]
    assert caplog.text.count("is damaged") == 1
    with contextlib.closing(sqlite3.connect(path)) as file:
        tables = ("counters", "windows", "moments")
        assert usage.rows == sum(file.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)


@pytest.mark.anyio
async def test_an_empty_file_is_made_a_database(path: Path) -> None:
    open(path, "wb").close()  # noqa: PTH123, ASYNC230
    assert await remaining_after(SQLiteCounters(path)) == 9


# Closed


@pytest.mark.anyio
async def test_a_closed_store_is_an_error_and_can_be_closed_again(path: Path, counters: SQLiteCounters) -> None:
    await remaining_after(counters)
    for _ in range(2):
        await counters.aclose()
        with pytest.raises(StoreError, match="closed"):
            await counters.hit([Hit("a", LIMIT)])
    assert made_in(path.parent) == ["counts.db"]  # the log is in it


@pytest.mark.anyio
async def test_closing_finishes_what_is_waiting(path: Path, counters: SQLiteCounters) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(counters.hit, [Hit("a", LIMIT)])
        await anyio.wait_all_tasks_blocked()
        await counters.aclose()
    assert await remaining_after(SQLiteCounters(path)) == 4


# What is known while building


@pytest.mark.parametrize("store", [SQLiteCounters, SQLitePermits])
@pytest.mark.parametrize(
    ("given", "problem"),
    [("", "names no file"), (":memory:", "names no file"), ("a\0b", "names no file"), (b"bytes", "names no file"),
     (5, "names no file"),
     ("{folder}", "is no file"), ("{folder}/missing/counts.db", "in no folder"),
     ("{folder}/text", "no SQLite database"), ("{folder}/text/counts.db", "in no folder"),
     ("{folder}/" + "n" * 300, "cannot be read")],
)  # fmt: skip
def test_a_path_where_no_file_can_be_is_a_mistake(
    tmp_path: Path, store: type[SQLiteCounters] | type[SQLitePermits], given: str | bytes, problem: str
) -> None:
    (tmp_path / "text").write_text("This is no database.")
    path = given.format(folder=tmp_path) if isinstance(given, str) else given
    with pytest.raises(ConfigError, match=rf"{store.__name__}\.path: .*{problem}"):
        store(path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("store", "fields"),
    [
        (SQLiteCounters, ("patience", "max_keys", "max_waiting")),
        (SQLitePermits, ("patience", "lease", "max_waiting")),
        (SQLiteEntries, ("patience", "max_bytes", "max_waiting")),
        (SQLiteRecords, ("patience", "max_deleted", "max_waiting")),
    ],
)
def test_what_is_no_number_is_a_mistake(tmp_path: Path, store: Any, fields: tuple[str, ...]) -> None:
    for field in fields:
        with pytest.raises(ConfigError, match=rf"{store.__name__}\.{field}: 'x' is not"):
            store(tmp_path / "counts.db", **{field: "x"})
