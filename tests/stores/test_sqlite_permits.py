"""Permits in a SQLite file: the promises of every store, and what becomes of those whose process is gone."""

import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.protocols import Hit
from apim_middleware.stores.sqlite import SQLiteCounters, SQLitePermits
from apim_middleware.testing import FakeClock

from .conformance import FIXED, PermitsConformance
from .test_sqlite_processes import running


class TestSQLitePermits(PermitsConformance):
    @pytest.fixture
    def permits(self, path: Path) -> SQLitePermits:
        return SQLitePermits(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "permits.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@contextlib.asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SQLitePermits]:
    permits = SQLitePermits(path, **options)
    yield permits
    await permits.aclose()


def rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as file:
        [(number,)] = file.execute("SELECT count(*) FROM permits")
        return int(number)


@pytest.mark.anyio
async def test_two_processes_share_one_house(path: Path) -> None:
    async with opened(path) as one, opened(path) as other:
        assert await one.acquire("a", 2, "x") == (True, 1)
        assert await other.acquire("a", 2, "y") == (True, 2)
        assert await one.acquire("a", 2, "z") == (False, 2)
        await other.release("a", "y")
        assert await one.acquire("a", 2, "z") == (True, 2)


@pytest.mark.anyio
async def test_what_a_killed_process_held_comes_back_and_not_before(path: Path) -> None:
    with running("hold", path, 3) as process:
        assert json.loads(process.stdout.readline()) == "holding"
        async with opened(path) as permits:
            assert await permits.acquire("a", 3, "x") == (False, 3)
            process.kill()
            process.wait()
            killed = time.monotonic()
            while not (await permits.acquire("a", 1, "x"))[0]:
                assert time.monotonic() < killed + 20


@pytest.mark.anyio
async def test_a_permit_is_renewed_as_long_as_it_is_held(path: Path, clock: FakeClock) -> None:
    async with opened(path, clock=clock, lease=10) as holding, opened(path, clock=clock, lease=10) as other:
        await holding.acquire("a", 1, "x")
        for _ in range(20):
            clock.advance(4)
            await holding.release("b", "nobody")  # any transaction renews what is due
            assert await other.acquire("a", 1, "y") == (False, 1)
        await holding.release("a", "x")
        assert await other.acquire("a", 1, "y") == (True, 1)


@pytest.mark.anyio
async def test_a_store_renews_what_is_held_by_itself(path: Path) -> None:
    async with opened(path, lease=0.1) as holding, opened(path) as other:
        await holding.acquire("a", 1, "x")
        until = {latest(path)}
        while len(until) < 8:  # more than twice the time it was lent for
            assert await other.acquire("a", 1, "y") == (False, 1)
            until.add(latest(path))


def latest(path: Path) -> float:
    with contextlib.closing(sqlite3.connect(path)) as file:
        [(until,)] = file.execute("SELECT max(until) FROM permits")
        return float(until)


@pytest.mark.anyio
async def test_what_nobody_renews_comes_back_when_its_time_is_over(path: Path, clock: FakeClock) -> None:
    dead = SQLitePermits(path, clock=FakeClock(), lease=10)  # whose clock stands still, so that it renews nothing
    await dead.acquire("a", 1, "x")
    async with opened(path, clock=clock) as permits:
        clock.advance(9.9)
        assert await permits.acquire("a", 1, "y") == (False, 1)
        clock.advance(0.1)
        assert await permits.acquire("a", 1, "y") == (True, 1)


@pytest.mark.anyio
async def test_who_was_stopped_for_too_long_takes_its_permits_again(path: Path, clock: FakeClock) -> None:
    late = FakeClock()
    async with opened(path, clock=late, lease=10) as stopped, opened(path, clock=clock, lease=10) as other:
        await stopped.acquire("a", 1, "x")
        clock.advance(60)
        assert await other.acquire("a", 1, "y") == (True, 1)
        late.advance(60)
        await stopped.release("b", "nobody")
        assert await other.acquire("a", 2, "z") == (False, 2)


@pytest.mark.anyio
async def test_a_clock_that_is_set_neither_ends_a_permit_nor_keeps_it(path: Path, clock: FakeClock) -> None:
    dead = SQLitePermits(path, clock=FakeClock(), lease=10)
    await dead.acquire("a", 1, "x")
    async with opened(path, clock=clock) as permits:
        clock.jump(86_400)
        assert await permits.acquire("a", 1, "y") == (False, 1)
        clock.jump(-10 * 86_400)
        clock.advance(10)
        assert await permits.acquire("a", 1, "y") == (True, 1)


@pytest.mark.anyio
async def test_closing_lets_everybody_out_who_came_in_there(path: Path) -> None:
    async with opened(path) as other:
        await other.acquire("a", 3, "x")
        async with opened(path) as permits:
            for holder in "yz":
                await permits.acquire("a", 3, holder)
        assert rows(path) == 1
        assert await other.acquire("a", 1, "w") == (False, 1)


@pytest.mark.anyio
async def test_who_gives_up_waiting_is_not_in(path: Path) -> None:
    async with opened(path) as permits:
        await permits.acquire("b", 1, "x")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as group:
                for holder in "yz":
                    group.start_soon(permits.acquire, "a", 1, holder)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            lock.execute("ROLLBACK")
        assert await permits.acquire("a", 1, "w") == (True, 1)


@pytest.mark.anyio
async def test_a_release_that_cannot_be_written_lets_the_permit_come_back_by_itself(
    path: Path, clock: FakeClock
) -> None:
    async with opened(path, clock=clock, lease=10, patience=0.02) as permits:
        await permits.acquire("a", 1, "x")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await permits.release("a", "x")
            lock.execute("ROLLBACK")
        clock.advance(9)
        assert await permits.acquire("a", 1, "y") == (False, 1)
        clock.advance(1)
        assert await permits.acquire("a", 1, "y") == (True, 1)


@pytest.mark.anyio
async def test_permits_of_the_dead_do_not_gather(path: Path, clock: FakeClock) -> None:
    for turn in range(50):
        dead = SQLitePermits(path, clock=FakeClock(clock.now()), lease=10)
        for number in range(4):
            await dead.acquire(f"door-{turn}-{number}", 1, "x")
        clock.advance(11)
    assert rows(path) <= 8


@pytest.mark.anyio
async def test_permits_and_counters_can_live_in_one_file(path: Path) -> None:
    async with opened(path) as permits:
        counters = SQLiteCounters(path)
        assert await permits.acquire("a", 1, "x") == (True, 1)
        assert (await counters.hit([Hit("a", FIXED, 4)]))[0].remaining == 6
        await counters.aclose()
        assert await permits.acquire("a", 1, "y") == (False, 1)


@pytest.mark.anyio
async def test_a_closed_store_is_an_error(path: Path) -> None:
    async with opened(path) as permits:
        await permits.acquire("a", 1, "x")
    with pytest.raises(StoreError, match="closed"):
        await permits.release("a", "x")


@pytest.mark.parametrize(("field", "value"), [("lease", 0.01), ("lease", 1e6), ("patience", -1), ("max_waiting", 0)])
def test_a_mistake_is_told_while_building(path: Path, field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"SQLitePermits.{field}"):
        SQLitePermits(path, **{field: value})  # type: ignore[arg-type]
