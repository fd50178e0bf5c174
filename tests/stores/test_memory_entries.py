"""Entries in memory: what every store of entries promises, and the budget."""

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apim_middleware.protocols import Entries
from apim_middleware.stores.entries import MemoryEntries, Shelf, _Entry
from apim_middleware.testing import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def entries(clock: FakeClock) -> Entries:
    return MemoryEntries(clock=clock)


# What every store of entries promises


async def test_what_is_set_comes_back(entries: Entries) -> None:
    await entries.set(b"key", b"\x00value\xff", 60)
    assert await entries.get(b"key") == b"\x00value\xff"


async def test_an_unknown_key_has_nothing(entries: Entries) -> None:
    assert await entries.get(b"key") is None


async def test_an_empty_value_is_a_value(entries: Entries) -> None:
    await entries.set(b"key", b"", 60)
    assert await entries.get(b"key") == b""


async def test_setting_again_replaces(entries: Entries) -> None:
    await entries.set(b"key", b"old", 60)
    await entries.set(b"key", b"new", 60)
    assert await entries.get(b"key") == b"new"


async def test_what_is_deleted_is_gone(entries: Entries) -> None:
    await entries.set(b"key", b"value", 60)
    await entries.delete(b"key")
    assert await entries.get(b"key") is None


async def test_deleting_an_unknown_key_does_nothing(entries: Entries) -> None:
    await entries.delete(b"key")


@pytest.mark.parametrize(("passed", "value"), [(0, b"value"), (59.9, b"value"), (60, None), (61, None)])
async def test_an_entry_lives_as_long_as_it_was_given(
    entries: Entries, clock: FakeClock, passed: float, value: bytes | None
) -> None:
    await entries.set(b"key", b"value", 60)
    clock.advance(passed)
    assert await entries.get(b"key") == value


async def test_a_clock_set_back_or_forth_changes_nothing(entries: Entries, clock: FakeClock) -> None:
    await entries.set(b"key", b"value", 60)
    clock.jump(-86_400)
    clock.advance(61)
    assert await entries.get(b"key") is None


@pytest.mark.parametrize("ttl", [0, -1])
async def test_no_time_to_live_is_no_entry(entries: Entries, ttl: float) -> None:
    await entries.set(b"key", b"old", 60)
    await entries.set(b"key", b"value", ttl)
    assert await entries.get(b"key") is None


async def test_keys_are_told_apart_byte_by_byte(entries: Entries) -> None:
    await entries.set(b"a", b"1", 60)
    await entries.set(b"a\x00", b"2", 60)
    await entries.set(b"A", b"3", 60)
    assert [await entries.get(key) for key in (b"a", b"a\x00", b"A")] == [b"1", b"2", b"3"]


# The budget


async def test_the_least_recently_used_make_room(clock: FakeClock) -> None:
    entries = MemoryEntries(max_bytes=4000, clock=clock)
    await entries.set(b"a", b"x" * 1000, 60)
    await entries.set(b"b", b"x" * 1000, 60)
    await entries.set(b"c", b"x" * 1000, 60)
    await entries.get(b"a")
    await entries.set(b"d", b"x" * 1000, 60)
    assert [await entries.get(key) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


async def test_what_is_larger_than_everything_is_not_kept_and_pushes_nothing_out(clock: FakeClock) -> None:
    entries = MemoryEntries(max_bytes=4000, clock=clock)
    await entries.set(b"a", b"x" * 1000, 60)
    await entries.set(b"b", b"x" * 5000, 60)
    assert (await entries.get(b"a"), await entries.get(b"b")) == (b"x" * 1000, None)


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


async def test_the_account_is_honest(clock: FakeClock) -> None:
    entries = MemoryEntries(clock=clock)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2_000):
        await entries.set(b"key %d" % number, b"%d" % number * 100, 60)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.9 * taken <= entries.held <= 1.3 * taken


def test_things_past_their_time_leave_as_others_come() -> None:
    shelf: Shelf[int, _Entry] = Shelf(1 << 20)
    for number in range(100):
        shelf.keep(number, _Entry(b"", until=10.0, size=100), now=0.0)
    for number in range(100, 150):
        shelf.keep(number, _Entry(b"", until=100.0, size=100), now=50.0)
    assert len(shelf) == 50


def test_things_past_their_time_can_be_found_in_their_afterlife() -> None:
    shelf: Shelf[str, _Entry] = Shelf(1 << 20, afterlife=60.0)
    shelf.keep("key", _Entry(b"", until=10.0, size=100), now=0.0)
    assert [shelf.find("key", now) is None for now in (9.0, 69.0, 70.0)] == [False, False, True]
    assert shelf.held == 0


class Budget(RuleBasedStateMachine):
    """Whatever is kept, found and dropped: the account adds up and stays within the budget."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf: Shelf[int, _Entry] = Shelf(1000)
        self.now = 0.0

    @rule(key=st.integers(0, 9), size=st.integers(0, 1500), ttl=st.floats(0, 20))
    def keep(self, key: int, size: int, ttl: float) -> None:
        kept = self.shelf.keep(key, _Entry(b"", self.now + ttl, size), self.now)
        assert kept is (size <= 1000)

    @rule(key=st.integers(0, 9))
    def find(self, key: int) -> None:
        found = self.shelf.find(key, self.now)
        assert found is None or found.until > self.now

    @rule(key=st.integers(0, 9))
    def drop(self, key: int) -> None:
        self.shelf.drop(key)
        assert self.shelf.find(key, self.now) is None

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def adds_up(self) -> None:
        assert self.shelf.held == sum(thing.size for thing in self.shelf._things.values()) <= 1000


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=50, deadline=None)
