"""Entries in a SQLite file: the promises of every store, durability, room, and what becomes of trouble."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.sqlite import SQLiteCounters, SQLiteEntries
from apim_middleware.testing import FakeClock

from .entries_conformance import EntriesConformance


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
async def entries(path: Path, clock: FakeClock) -> AsyncIterator[SQLiteEntries]:
    store = SQLiteEntries(path, clock=clock)
    yield store
    await store.aclose()


class TestSQLiteEntries(EntriesConformance):
    @pytest.fixture
    def entries(self, entries: SQLiteEntries) -> SQLiteEntries:
        return entries


# Durable and shared


@pytest.mark.anyio
async def test_entries_and_tags_outlive_the_store(path: Path, clock: FakeClock) -> None:
    before = SQLiteEntries(path, clock=clock)
    await before.set(b"key", b"value", 60, tags=[b"tag"])
    await before.aclose()
    after = SQLiteEntries(path, clock=clock)
    assert await after.get(b"key") == b"value"
    await after.purge(b"tag")
    assert await after.get(b"key") is None
    await after.aclose()


@pytest.mark.anyio
async def test_stores_on_one_file_are_one(path: Path, clock: FakeClock) -> None:
    one, other = SQLiteEntries(path, clock=clock), SQLiteEntries(path, clock=clock)
    assert await one.add(b"lock", b"one", 60)
    assert not await other.add(b"lock", b"other", 60)
    await one.set(b"key", b"value", 60, tags=[b"tag"])
    assert await other.get(b"key") == b"value"
    await other.purge(b"tag")
    assert await one.get(b"key") is None
    await one.aclose()
    await other.aclose()


@pytest.mark.anyio
async def test_a_file_can_hold_counters_too(path: Path) -> None:
    counters, entries = SQLiteCounters(path), SQLiteEntries(path)
    limit = Limit(10, 3600.0)
    await counters.hit([Hit("a", limit)])
    await entries.set(b"key", b"value", 60)
    assert (await counters.hit([Hit("a", limit)]))[0].remaining == 8
    assert await entries.get(b"key") == b"value"
    await counters.aclose()
    await entries.aclose()


# Room


@pytest.mark.parametrize("size", [0, 500, 5_000, 100_000])
@pytest.mark.anyio
async def test_the_file_stays_about_as_large_as_it_may(path: Path, size: int) -> None:
    entries = SQLiteEntries(path, max_bytes=1 << 20)
    async with anyio.create_task_group() as group:
        for number in range(1_000 if size > 500 else 5_000):
            if number % 200 == 199:
                await entries.get(b"")
            group.start_soon(entries.set, b"%d" % number, b"x" * size, 60)
    holding = await entries.holding()
    await entries.aclose()
    assert 0.8 * (1 << 20) < holding.held <= 1 << 20
    assert sizes_in(path.parent) == {path.name: pytest.approx(1 << 20, rel=0.9)}
    assert holding.evicted > 0


@pytest.mark.anyio
async def test_what_is_asked_for_again_stays_when_others_make_room(path: Path) -> None:
    entries = SQLiteEntries(path, max_bytes=100_000)
    await entries.set(b"wanted", b"x" * 1000, 60)
    for number in range(300):
        await entries.set(b"%d" % number, b"x" * 1000, 60)
        assert await entries.get(b"wanted")
    assert await entries.get(b"0") is None
    await entries.aclose()


@pytest.mark.anyio
async def test_what_was_read_a_moment_ago_is_not_the_next_to_go(path: Path) -> None:
    entries = SQLiteEntries(path, max_bytes=10_000)
    for number in range(8):
        await entries.set(b"%d" % number, b"x" * 1000, 60)
    await entries.get(b"0")
    await entries.set(b"8", b"x" * 1000, 60)
    assert [number for number in range(9) if await entries.get(b"%d" % number) is None] == [1]
    await entries.aclose()


@pytest.mark.anyio
async def test_the_account_adds_up(path: Path, clock: FakeClock) -> None:
    entries = SQLiteEntries(path, clock=clock)
    for number in range(50):
        tags = [b"%d" % (number % 7), b"all"]
        await entries.set(b"%d" % (number % 20), b"x" * number * 100, 10 + number, tags=tags)
        if number % 5 == 0:
            await entries.delete(b"%d" % (number % 9))
            await entries.purge(b"%d" % (number % 6))
    clock.advance(1_000)
    await entries.get_many([b"%d" % number for number in range(50)])
    assert await entries.holding() == (0, 0)
    await entries.aclose()
    with contextlib.closing(sqlite3.connect(path)) as file:
        for table in ("entries", "bodies", "tags"):
            assert file.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


@pytest.mark.anyio
async def test_what_is_over_leaves_as_others_come(path: Path, entries: SQLiteEntries, clock: FakeClock) -> None:
    for number in range(100):
        await entries.set(b"old %d" % number, b"value", 10, tags=[b"tag"])
    full = await entries.holding()
    clock.advance(10)
    for number in range(50):
        await entries.set(b"new %d" % number, b"value", 60)
    assert (await entries.holding()).held < 0.6 * full.held


@pytest.mark.anyio
async def test_what_is_larger_than_everything_is_not_kept(path: Path) -> None:
    entries = SQLiteEntries(path, max_bytes=10_000)
    await entries.set(b"a", b"value", 60)
    await entries.set(b"b", b"old", 60)
    await entries.set(b"b", b"x" * 20_000, 60)
    assert await entries.get_many([b"a", b"b"]) == [b"value", None]
    await entries.aclose()


@pytest.mark.anyio
async def test_reading_alone_is_written_down_now_and_then_only(path: Path, entries: SQLiteEntries) -> None:
    for number in range(600):
        await entries.set(b"%d" % number, b"", 60)
    await entries.get_many([b"%d" % number for number in range(500)])
    assert used(path) == 0
    await entries.get_many([b"%d" % number for number in range(500, 520)])
    assert used(path) == 520


def used(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as file:
        [(number,)] = file.execute("SELECT total(used) FROM entries")
        return int(number)


# Trouble


async def every_call_fails(entries: SQLiteEntries, match: str = ".") -> None:
    for call in (
        lambda: entries.get(b"key"), lambda: entries.get_many([b"key"]), lambda: entries.delete(b"key"),
        lambda: entries.set(b"key", b"value", 60, tags=[b"tag"]), lambda: entries.add(b"key", b"value", 60),
        lambda: entries.delete(b"key", value=b"value"), lambda: entries.purge(b"tag"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=match):
            await call()


def sizes_in(folder: Path) -> dict[str, int]:
    return {each.name: each.stat().st_size for each in folder.iterdir()}


def delete(path: Path) -> None:
    """The file, and what belongs to it."""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def damage(path: Path, begin: int, size: int = 1 << 30) -> None:
    good = path.read_bytes()
    end = min(begin + size, len(good))
    path.write_bytes(good[:begin] + b"\xa5" * (end - begin) + good[end:])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.anyio
async def test_a_file_that_others_hold_is_an_error_until_they_let_go(path: Path) -> None:
    entries = SQLiteEntries(path, patience=0.0)
    await entries.set(b"key", b"value", 60)
    with locked(path):
        await every_call_fails(entries, "locked")
    assert await entries.get(b"key") == b"value"
    await entries.aclose()


@pytest.mark.parametrize(
    "spoil",
    ["UPDATE bodies SET value = x'0102'", "UPDATE bodies SET value = 'text'", "UPDATE entries SET tags = x'01'",
     "UPDATE entries SET tags = 'text'", "UPDATE entries SET tags = x''", "DELETE FROM bodies", "DELETE FROM tags",
     "UPDATE bodies SET checksum = 'text'", "UPDATE tags SET id = id + 7"],
)  # fmt: skip
@pytest.mark.anyio
async def test_what_is_damaged_is_unknown_and_can_be_kept_again(path: Path, entries: SQLiteEntries, spoil: str) -> None:
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    await entries.set(b"whole", b"value", 60)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(f"{spoil}{' WHERE id = 1' if spoil.startswith(('UPDATE', 'DELETE FROM bodies')) else ''}")
        file.commit()
    assert await entries.get_many([b"key", b"whole"]) == [None, b"value"]
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    assert await entries.get(b"key") == b"value"


@pytest.mark.parametrize("begin", [0, 100, 4_096])
@pytest.mark.anyio
async def test_a_file_that_was_corrupted_is_an_error(path: Path, begin: int) -> None:
    before = SQLiteEntries(path)
    for number in range(50):
        await before.set(b"%d" % number, b"value", 60)
    entries = SQLiteEntries(path)
    await before.aclose()
    damage(path, begin)
    with pytest.raises(StoreError):
        await entries.get(b"1")
    with pytest.raises(StoreError):
        await entries.set(b"1", b"value", 60)
    await entries.aclose()


@pytest.mark.anyio
async def test_values_are_whole_or_unknown_wherever_the_file_is_damaged(path: Path) -> None:
    before = SQLiteEntries(path)
    values = [b"%d" % number * 2_000 for number in range(20)]
    for number, value in enumerate(values):
        await before.set(b"%d" % number, value, 60)
    await before.aclose()
    good = path.with_name("good.db")
    shutil.move(path, good)
    for begin in range(5_000, sizes_in(path.parent)["good.db"] - 64, 7_001):
        shutil.copy(good, path)
        damage(path, begin, 64)
        entries = SQLiteEntries(path)
        for number, value in enumerate(values):
            with contextlib.suppress(StoreError):
                assert await entries.get(b"%d" % number) in (None, value)
        await entries.aclose()
        delete(path)


@pytest.mark.anyio
async def test_a_file_that_was_deleted_is_made_anew(path: Path, entries: SQLiteEntries) -> None:
    await entries.set(b"key", b"value", 60)
    delete(path)
    assert await entries.get(b"key") is None
    await entries.set(b"key", b"value", 60)
    assert await entries.get(b"key") == b"value"
    assert path.name in sizes_in(path.parent)


@pytest.mark.anyio
async def test_a_folder_that_is_gone_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    entries = SQLiteEntries(folder / "cache.db")
    await entries.set(b"key", b"value", 60)
    shutil.move(folder, tmp_path / "elsewhere")
    await every_call_fails(entries)
    folder.mkdir()
    assert await entries.get(b"key") is None
    await entries.aclose()


@pytest.mark.anyio
async def test_a_file_of_another_program_is_an_error_and_left_as_it_is(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE entries (x)")
    entries = SQLiteEntries(path)
    await every_call_fails(entries, "not of this package")
    await entries.aclose()
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT name FROM sqlite_master").fetchall() == [("entries",)]


@pytest.mark.anyio
async def test_a_call_that_fails_leaves_nothing_half_done(
    path: Path, entries: SQLiteEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TRIGGER no BEFORE INSERT ON bodies BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(StoreError):
            await entries.set(b"key", b"new", 60, tags=[b"other"])
        file.execute("DROP TRIGGER no")
    assert await entries.get(b"key") == b"value"
    await entries.purge(b"tag")
    assert await entries.get(b"key") is None


@pytest.mark.anyio
async def test_a_closed_store_is_an_error(entries: SQLiteEntries) -> None:
    await entries.get(b"key")
    await entries.aclose()
    await every_call_fails(entries, "closed")


@pytest.mark.parametrize("more", [{"max_bytes": 0}, {"max_waiting": 0}, {"patience": -1}])
def test_what_cannot_work_is_a_mistake(path: Path, more: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"SQLiteEntries\.{next(iter(more))}"):
        SQLiteEntries(path, **more)  # type: ignore[arg-type]


def test_a_path_where_no_file_can_be_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SQLiteEntries\.path"):
        SQLiteEntries(tmp_path / "missing" / "cache.db")


# Processes

FILLS = """
import anyio, os, sys
from apim_middleware.stores.sqlite import SQLiteEntries

async def fill():
    entries, number = SQLiteEntries(sys.argv[1]), 0
    while True:
        await entries.set(b"%d" % number, b"value %d" % number * 1000, 600, tags=[b"tag"])
        os.write(1, b"%d\\n" % number)
        number += 1

anyio.run(fill)
"""

ADDS = """
import anyio, os, sys
from apim_middleware.stores.sqlite import SQLiteEntries

async def add():
    entries = SQLiteEntries(sys.argv[1], patience=60.0)
    sys.stdin.read(1)
    won = [await entries.add(b"%d" % number, b"%d" % os.getpid(), 600) for number in range(100)]
    print(sum(won))

anyio.run(add)
"""


def program(code: str, path: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.anyio
async def test_what_was_kept_is_there_after_the_process_was_killed(path: Path) -> None:
    with program(FILLS, path) as process:
        assert process.stdout is not None
        kept = [int(process.stdout.readline()) for _ in range(50)]
        process.kill()
    entries = SQLiteEntries(path)
    assert await entries.get_many([b"%d" % number for number in kept]) == [b"value %d" % n * 1000 for n in kept]
    await entries.aclose()


def test_of_several_processes_that_add_one_does(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(program(ADDS, path)) for _ in range(3)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b".")
            process.stdin.flush()
        told = [process.communicate()[0] for process in processes]
    assert sum(map(int, told)) == 100
