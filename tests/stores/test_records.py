"""Records in memory: the promises of every store, and a model of them at random."""

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stores.records_conformance import RecordsConformance

from apim_middleware.errors import ConfigError, FeedLost
from apim_middleware.stores.records import MemoryRecords
from apim_middleware.testing import FakeClock


class TestMemoryRecords(RecordsConformance):
    @pytest.fixture
    def records(self) -> MemoryRecords:
        return MemoryRecords(max_deleted=3)


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"MemoryRecords\.max_deleted: 0 is not at least 1"):
        MemoryRecords(max_deleted=0)


def test_a_store_begun_anew_has_other_versions() -> None:
    clock = FakeClock()

    async def one() -> int:
        return (await MemoryRecords(clock=clock).put("api", "a", {})).version

    before = anyio.run(one)
    clock.advance(1)
    assert anyio.run(one) > before


steps = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40)


@given(steps, st.integers(1, 3))
def test_who_follows_the_changes_knows_what_there_is(taken: list[tuple[str, bool]], limit: int) -> None:
    """Whenever a follower asks, and however far behind: what they then know is what is there."""

    async def follow() -> None:
        records = MemoryRecords(max_deleted=2)
        model: dict[str, Any] = {}
        known: dict[str, Any] = {}
        version = 0
        for number, (name, deleted) in enumerate(taken):
            if deleted:
                await records.delete("api", name)
                model.pop(name, None)
            else:
                await records.put("api", name, {"n": number})
                model[name] = {"n": number}
            if number % 3 == 0:
                version = await caught_up(records, known, version, limit)
                assert known == model
        assert len(records) == len(model)

    anyio.run(follow)


async def caught_up(records: MemoryRecords, known: dict[str, Any], version: int, limit: int) -> int:
    while True:
        latest = await records.version() if not version else 0
        try:
            page = await records.changes(version, limit=limit)
        except FeedLost:
            known.clear()
            version = 0
            continue
        for each in page:
            known.pop(each.id, None)
            if each.document is not None:
                known[each.id] = each.document
        if not page and version:
            return version
        version = max(latest, page[-1].version if page else 0)
