"""Counters in a SQLite file: the promises of every store, what outlives a process, and what is kept when full."""

import contextlib
import gc
import math
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from apim_middleware.errors import ConfigError
from apim_middleware.protocols import Change, Hit, Limit
from apim_middleware.stores.sqlite import SQLiteCounters
from apim_middleware.testing import FakeClock

from .conformance import BUCKET, CALENDAR, FIXED, LIFETIME, LOG, SLIDING, ClockJumps, CountersConformance, each_of

EVERY = each_of(FIXED, SLIDING, LOG, BUCKET, CALENDAR, LIFETIME)


class TestSQLiteCounters(CountersConformance, ClockJumps):
    @pytest.fixture
    def counters(self, clock: FakeClock, path: Path) -> SQLiteCounters:
        return SQLiteCounters(path, clock=clock)


class TestSQLiteCountersThatWaitForTheDisk(CountersConformance, ClockJumps):
    """And where each call is made by another object, as by another process: nothing is remembered outside the file."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def counters(self, clock: FakeClock, path: Path) -> "Alternating":
        return Alternating([SQLiteCounters(path, clock=clock, synchronous="full") for _ in range(2)])


class Alternating:
    """Gives each call to another of the stores."""

    def __init__(self, stores: list[SQLiteCounters]) -> None:
        self.stores = stores

    def __getattr__(self, name: str) -> Any:
        self.stores.append(self.stores.pop(0))
        return getattr(self.stores[0], name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "counts.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@contextlib.asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SQLiteCounters]:
    counters = SQLiteCounters(path, **options)
    yield counters
    await counters.aclose()


async def remaining(counters: SQLiteCounters, *hits: Hit) -> list[int]:
    return [tally.remaining for tally in await counters.peek(hits)]


def rows(path: Path, select: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        return file.execute(select).fetchall()


def rows_there_are(path: Path) -> int:
    tables = ("windows", "counters", "moments")
    return sum(rows(path, f"SELECT count(*) FROM {table}")[0][0] for table in tables)


# What outlives


@EVERY
@pytest.mark.anyio
async def test_what_was_counted_is_there_after_a_restart(path: Path, clock: FakeClock, limit: Limit) -> None:
    for left in (7, 4, 1):
        async with opened(path, clock=clock) as counters:
            assert (await counters.hit([Hit("a", limit, 3)]))[0][:2] == (True, left)
    async with opened(path, clock=clock) as counters:
        assert not (await counters.hit([Hit("a", limit, 3)]))[0].allowed


@EVERY
@pytest.mark.anyio
async def test_what_was_counted_can_be_corrected_after_a_restart(path: Path, clock: FakeClock, limit: Limit) -> None:
    async with opened(path, clock=clock) as counters:
        [tally] = await counters.hit([Hit("a", limit, 8)])
    async with opened(path, clock=clock) as counters:
        await counters.settle([Change("a", limit, -3, tally.counted)])
        assert await remaining(counters, Hit("a", limit)) == [5]


@pytest.mark.anyio
async def test_a_wall_clock_that_is_set_before_anything_was_counted_changes_nothing(
    path: Path, clock: FakeClock
) -> None:
    async with opened(path, clock=clock) as counters:
        [before] = await counters.peek([Hit("a", LOG)])
    clock.jump(86_400)
    async with opened(path, clock=clock) as counters:
        await counters.settle([Change("a", LOG, 3, before.counted)])
        assert await remaining(counters, Hit("a", LOG)) == [LOG.quota - 3]


@each_of(SLIDING, LOG, BUCKET)
@pytest.mark.anyio
async def test_a_restart_of_the_machine_goes_on_with_the_wall_clock(path: Path, clock: FakeClock, limit: Limit) -> None:
    async with opened(path, clock=clock) as counters:
        await counters.hit([Hit("a", limit, 10)])
    machine_restarts(path)
    after = FakeClock(5.0)
    after.jump(clock.now() + 59 - 5.0)
    async with opened(path, clock=after) as counters:
        [tally] = await counters.peek([Hit("a", limit, 10)])
        assert (tally.allowed, tally.reset) == (False, pytest.approx(1, abs=1e-3))
        after.advance(1)
        assert await remaining(counters, Hit("a", limit)) == [10]


@EVERY
@pytest.mark.anyio
async def test_a_machine_that_has_forgotten_the_time_gives_nothing_back(
    path: Path, clock: FakeClock, limit: Limit
) -> None:
    async with opened(path, clock=clock) as counters:
        await counters.hit([Hit("a", limit, 10)])
    machine_restarts(path)
    async with opened(path, clock=FakeClock(5.0)) as counters:
        assert await remaining(counters, Hit("a", limit)) == [0]


def machine_restarts(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("UPDATE store SET boot = 'another run of the machine'")


@pytest.mark.anyio
async def test_a_limit_written_with_other_types_of_number_is_the_same(path: Path) -> None:
    async with opened(path) as counters:
        await counters.hit([Hit("a", Limit(10, 60.0, "sliding", start=0.0), 4)])
    async with opened(path) as counters:
        assert await remaining(counters, Hit("a", Limit(10, 60, "sliding", start=0))) == [6]


@pytest.mark.anyio
async def test_keys_and_places_are_not_readable_in_the_file(path: Path) -> None:
    async with opened(path) as counters:
        for limit in (FIXED, LOG):
            await counters.hit([Hit("alice@example.org", limit._replace(place="secret-place"))])
    kept = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert b"alice" not in kept
    assert b"secret-place" not in kept


# Numbers of any size


@EVERY
@pytest.mark.anyio
async def test_quotas_as_large_as_fields_can_say_are_counted(path: Path, limit: Limit) -> None:
    limit = limit._replace(quota=999_999_999_999_999, window=limit.window * 1e9)
    async with opened(path, clock=FakeClock()) as counters:
        assert (await counters.hit([Hit("a", limit, 999_999_999_999_998)]))[0][:2] == (True, 1)
        assert [tally.allowed for tally in await counters.hit([Hit("a", limit, 2)])] == [False]


@EVERY
@pytest.mark.anyio
async def test_more_units_than_the_file_can_keep_are_as_many_as_it_can(path: Path, limit: Limit) -> None:
    async with opened(path, clock=FakeClock()) as counters:
        [tally] = await counters.hit([Hit("a", limit)])
        for _ in range(3):
            await counters.settle([Change("a", limit, 2**63, tally.counted)])
        await counters.assign([Hit("b", limit, 2**80)])
        assert await remaining(counters, Hit("a", limit), Hit("b", limit)) == [0, 0]


# Room


@pytest.mark.parametrize("max_keys", [1, 2, 10, 500])
@EVERY
@pytest.mark.anyio
async def test_invented_keys_never_take_more_room_than_allowed(
    path: Path, clock: FakeClock, limit: Limit, max_keys: int
) -> None:
    async with opened(path, clock=clock, max_keys=max_keys) as counters:
        for number in range(60):
            clock.advance(0.5)
            several = [Hit(f"invented-{number}-{each}", limit) for each in range(20)]
            assert all(tally.allowed for tally in await counters.hit(several))
        usage = await counters.usage()
    assert usage.rows == rows_there_are(path) <= max(max_keys, 41)  # what one call counts is not evicted by it
    assert usage.evicted > 0


@pytest.mark.anyio
async def test_invented_limits_take_no_more_room_either(path: Path, clock: FakeClock) -> None:
    async with opened(path, clock=clock, max_keys=20) as counters:
        for number in range(200):
            await counters.hit([Hit("a", Limit(5, 60.0, "fixed", f"place-{number}"))])
            await counters.peek([Hit("a", Limit(5, 60.0, "sliding", f"place-{number}"))])
        assert (await counters.usage()).rows == 20
    assert rows_there_are(path) == 20


@EVERY
@pytest.mark.anyio
async def test_invented_keys_do_not_free_blocked_ones(path: Path, clock: FakeClock, limit: Limit) -> None:
    blocked = [Hit(f"blocked-{number}", limit, 10) for number in range(50)]
    async with opened(path, clock=clock, max_keys=300) as counters:
        await counters.hit(blocked)
        for number in range(40):
            await counters.hit([Hit(f"invented-{number}-{each}", limit) for each in range(50)])
        assert (await counters.usage()).evicted > 1_000
        assert sum(await remaining(counters, *blocked)) == 0


@EVERY
@pytest.mark.anyio
async def test_who_used_the_smallest_part_of_a_quota_makes_room_first(
    path: Path, clock: FakeClock, limit: Limit
) -> None:
    wide = limit._replace(quota=100)
    async with opened(path, clock=clock, max_keys=40) as counters:
        busy = [Hit(f"busy-{number}", limit, 5) for number in range(10)]
        await counters.hit(busy)
        for number in range(60):
            await counters.hit([Hit(f"invented-{number}", wide, 10)])
        assert (await counters.usage()).evicted > 20
        assert await remaining(counters, *busy) == [5] * 10


@each_of(FIXED, SLIDING, LOG, BUCKET, CALENDAR)
@pytest.mark.anyio
async def test_what_counts_no_more_is_deleted_by_later_hits(path: Path, clock: FakeClock, limit: Limit) -> None:
    async with opened(path, clock=clock) as counters:
        for turn in range(12):
            await counters.hit([Hit(f"key-{turn}-{number}", limit) for number in range(100)])
            clock.advance(limit.window)
        usage = await counters.usage()
    assert usage.rows == rows_there_are(path) < 1_000
    assert usage.evicted == 0


@pytest.mark.anyio
async def test_a_log_keeps_the_moments_that_count_and_no_others(path: Path, clock: FakeClock) -> None:
    async with opened(path, clock=clock) as counters:
        for _ in range(300):
            await counters.hit([Hit("a", LOG)])
            clock.advance(5)
        assert (await counters.usage()).rows == 11
        await counters.reset([Hit("a", LOG)])
        assert (await counters.usage()).rows == 0


@EVERY
@pytest.mark.anyio
async def test_what_is_refused_looked_at_or_costs_nothing_leaves_no_key_behind(
    path: Path, clock: FakeClock, limit: Limit
) -> None:
    full = Limit(1, 60.0, "log", "full")
    async with opened(path, clock=clock) as counters:
        await counters.hit([Hit("a", full)])
        before = rows_there_are(path)
        for number in range(20):
            await counters.hit([Hit(f"invented-{number}", limit), Hit("a", full)])
            await counters.hit([Hit(f"invented-{number}", limit, 11)])
            await counters.hit([Hit(f"invented-{number}", limit, 0)])
            await counters.peek([Hit(f"invented-{number}", limit)])
            await counters.assign([Hit(f"invented-{number}", limit, 0)])
        assert (await counters.usage()).rows == rows_there_are(path) <= before + 1  # the limit's window


@EVERY
@pytest.mark.anyio
async def test_a_flood_of_refused_hits_writes_nothing(path: Path, clock: FakeClock, limit: Limit) -> None:
    async with opened(path, clock=clock) as counters:
        await counters.hit([Hit("a", limit, 10)])
        await counters.hit([Hit("a", limit)])
        before = log_size(path)
        for _ in range(50):
            await counters.hit([Hit("b", SLIDING._replace(place="other"), 11), Hit("a", limit)])
            await counters.hit([Hit("a", limit)])
        assert log_size(path) - before <= 6 * PAGE  # the window of the other limit


# Threads and event loops


@pytest.mark.anyio
async def test_hits_that_wait_at_the_same_time_are_one_transaction(path: Path) -> None:
    async with opened(path) as counters:
        await counters.hit([Hit("a", FIXED)])
        before = log_size(path)
        async with anyio.create_task_group() as group:
            with locked(path) as lock:
                for number in range(100):
                    group.start_soon(counters.hit, [Hit(f"key-{number}", FIXED)])
                await anyio.wait_all_tasks_blocked()
                lock.execute("ROLLBACK")
        assert log_size(path) - before < 20 * PAGE


PAGE = 4_096 + 24


def log_size(path: Path) -> int:
    """Bytes of the write-ahead log, which only grows in a test so short."""
    return path.with_name(f"{path.name}-wal").stat().st_size


def test_a_store_serves_several_event_loops_at_once(path: Path) -> None:
    counters = SQLiteCounters(path)
    passed: list[bool] = []

    async def many() -> None:
        async def one() -> None:
            passed.append((await counters.hit([Hit("a", LIFETIME._replace(quota=150))]))[0].allowed)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(one)

    threads = [
        threading.Thread(target=anyio.run, args=(many,), kwargs={"backend": each}) for each in ("asyncio", "trio")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(passed), sum(passed)) == (200, 150)
    anyio.run(counters.aclose)


def test_a_store_can_be_used_by_one_event_loop_after_another(path: Path) -> None:
    counters = SQLiteCounters(path)
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(counters.hit, [Hit("a", LIFETIME, 3)], backend=backend)[0].allowed
    assert not anyio.run(counters.hit, [Hit("a", LIFETIME, 3)])[0].allowed


def test_a_store_that_is_dropped_ends_its_thread(path: Path) -> None:
    before = set(threading.enumerate())
    counters = SQLiteCounters(path)
    anyio.run(counters.hit, [Hit("a", FIXED)])
    [thread] = set(threading.enumerate()) - before
    del counters
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


def test_making_a_store_starts_no_thread_and_no_file(path: Path) -> None:
    before = {*threading.enumerate()}
    SQLiteCounters(path)
    assert {*threading.enumerate()} <= before
    assert not path.exists()


@pytest.mark.anyio
async def test_who_gave_up_before_its_turn_is_not_counted(path: Path, clock: FakeClock) -> None:
    async with opened(path, clock=clock) as counters:
        await counters.hit([Hit("a", FIXED)])
        with locked(path) as lock:
            async with anyio.create_task_group() as group:
                group.start_soon(counters.hit, [Hit("a", FIXED)])
                await taken(counters)
                async with anyio.create_task_group() as impatient:
                    impatient.start_soon(counters.hit, [Hit("a", FIXED, 5)])
                    await anyio.wait_all_tasks_blocked()
                    impatient.cancel_scope.cancel()
                lock.execute("ROLLBACK")
        assert await remaining(counters, Hit("a", FIXED)) == [8]


async def taken(counters: SQLiteCounters) -> None:
    """Everything that was asked before is in the hands of the thread."""
    await anyio.wait_all_tasks_blocked()
    while counters._clerk._inbox.qsize():  # noqa: ASYNC110 - a thread has no events
        await anyio.sleep(0.001)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        yield file


# Mistakes


@pytest.mark.parametrize(
    ("field", "value"),
    [("synchronous", "off"), ("patience", -1.0), ("patience", math.inf), ("patience", math.nan),
     ("max_keys", 0), ("max_waiting", 0)],
)  # fmt: skip
def test_a_mistake_is_told_while_building(path: Path, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"SQLiteCounters.{field}"):
        SQLiteCounters(path, **{field: value})
