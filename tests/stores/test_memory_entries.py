"""Entries in memory: what every store of entries promises, and the budget."""

import gc
import tracemalloc

import pytest

from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.testing import FakeClock

from .entries_conformance import EntriesConformance

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestMemoryEntries(EntriesConformance):
    @pytest.fixture
    def entries(self, clock: FakeClock) -> MemoryEntries:
        return MemoryEntries(clock=clock)


async def test_what_is_asked_for_again_stays_when_others_make_room(clock: FakeClock) -> None:
    entries = MemoryEntries(max_bytes=20_000, clock=clock)
    for number in range(100):
        await entries.set(b"%d" % number, b"x" * 1000, 60)
        await entries.set(b"wanted", b"x" * 1000, 60) if number == 0 else await entries.get(b"wanted")
    assert await entries.get(b"wanted") is not None
    assert entries.evicted == 101 - len(entries)


async def test_what_is_larger_than_everything_is_not_kept_and_pushes_nothing_out(clock: FakeClock) -> None:
    entries = MemoryEntries(max_bytes=4000, clock=clock)
    await entries.set(b"a", b"x" * 1000, 60)
    await entries.set(b"b", b"x" * 5000, 60)
    assert (await entries.get(b"a"), await entries.get(b"b")) == (b"x" * 1000, None)
    assert entries.evicted == 0


async def test_what_replaces_an_entry_and_is_too_large_leaves_none(clock: FakeClock) -> None:
    entries = MemoryEntries(max_bytes=4000, clock=clock)
    await entries.set(b"a", b"old", 60)
    await entries.set(b"a", b"x" * 5000, 60)
    assert await entries.get(b"a") is None


async def test_a_million_keys_take_no_more_than_the_budget(clock: FakeClock) -> None:
    entries = MemoryEntries(max_bytes=100_000, clock=clock)
    for number in range(5_000):
        await entries.set(b"%d" % number, b"value", 60)
    assert entries.held <= 100_000
    assert 100 < len(entries) < 5_000


@pytest.mark.parametrize("max_bytes", [1 << 30, 500_000])
@pytest.mark.parametrize("tags", [0, 1, 20])
async def test_the_account_is_honest(clock: FakeClock, max_bytes: int, tags: int) -> None:
    entries = MemoryEntries(max_bytes=max_bytes, clock=clock)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(3_000):
        own = [b"tag %d of %d" % (tag, number) for tag in range(tags)]
        await entries.set(b"key %d" % number, b"%d" % number * 100, 60, tags=own)
    gc.collect()  # Python keeps some tuples for the next who needs one
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.9 * taken <= entries.held <= 1.25 * taken
