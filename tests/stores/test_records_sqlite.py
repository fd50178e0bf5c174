"""Records in a SQLite file: the promises of every store, and that they outlive the process."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.stores.records_conformance import RecordsConformance

from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.sqlite import SQLiteCounters
from apim_middleware.stores.sqlite.records import SQLiteRecords


@contextlib.asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SQLiteRecords]:
    records = SQLiteRecords(path, **options)
    yield records
    await records.aclose()


@pytest.fixture
async def store(tmp_path: Path, anyio_backend: str) -> AsyncIterator[SQLiteRecords]:
    async with opened(tmp_path / "records.db", max_deleted=3) as records:
        yield records


class TestSQLiteRecords(RecordsConformance):
    @pytest.fixture
    def records(self, store: SQLiteRecords) -> SQLiteRecords:
        return store


@pytest.mark.anyio
async def test_what_was_written_is_there_for_others_and_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    async with opened(path) as one, opened(path) as two:
        first = await one.put("api", "a", {"n": 1})
        assert await two.get("api", "a") == first
        second = await two.put("api", "a", {"n": 2}, if_match=first.version)
        assert await one.changes(first.version) == [second]
    async with opened(path) as again:
        assert await again.get("api", "a") == second


@pytest.mark.anyio
async def test_the_file_may_be_that_of_the_counters(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    counters = SQLiteCounters(path)
    limit = Limit(1, 60.0, "fixed", "here")
    assert [tally.allowed for tally in await counters.hit([Hit("a", limit)])] == [True]
    async with opened(path) as records:
        await records.put("api", "a", {})
    assert [tally.allowed for tally in await counters.hit([Hit("a", limit)])] == [False]
    await counters.aclose()


@pytest.mark.anyio
async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "records.db") as records:
        pass
    with pytest.raises(StoreError):
        await records.get("api", "a")


@pytest.mark.anyio
async def test_a_file_that_goes_is_an_error_until_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    async with opened(path) as records:
        await records.put("api", "a", {})
        path.unlink()
        with pytest.raises(StoreError):
            await records.get("api", "a")


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SQLiteRecords\.path"):
        SQLiteRecords(tmp_path / "nowhere" / "records.db")
    with pytest.raises(ConfigError, match=r"SQLiteRecords\.max_waiting"):
        SQLiteRecords(tmp_path / "records.db", max_waiting=0)
