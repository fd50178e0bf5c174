"""The tables that counters in memory keep their marks in: what a dict would do, in whatever order, and no growing."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apim_middleware.stores.counts import table as tables
from apim_middleware.stores.counts.log import Logs
from apim_middleware.stores.counts.sliding import Pairs
from apim_middleware.stores.counts.table import FREE, LARGEST, Table, digest

BOTH = pytest.mark.parametrize("kind", [Table, Pairs])
KEYS = st.sampled_from([f"key-{number}" for number in range(40)])
MARKS = st.integers(0, 5) | st.integers(0, 2**210) | st.sampled_from([LARGEST, LARGEST + 1, 1 << 104, LARGEST << 104])


def crowded(key: str) -> int:
    """A fingerprint of its own for each key, but all of them begin at the first slot or at the last."""
    number = int(key.rpartition("-")[2])
    return (7 * number - 100) << 20 | (0xFFFFF if number % 2 else 0)


class Against(RuleBasedStateMachine):
    """A shard beside the dict that it stands for; the newest key is the last of the dict."""

    kind: Any = Table
    marks = MARKS
    shard: Any
    known: dict[str, Any]

    @initialize()
    def begin(self) -> None:
        self.shard, self.known = self.kind(), {}

    @rule(key=KEYS, data=st.data())
    def put(self, key: str, data: st.DataObject) -> None:
        self.known[key] = mark = data.draw(self.marks)
        self.shard.put(key, mark)

    @rule(key=KEYS)
    def pull(self, key: str) -> None:
        assert self.shard.pull(key) == self.known.pop(key, None)

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        newest = [*reversed(self.known)]
        places = data.draw(st.lists(st.integers(0, len(newest) - 1), unique=True)) if newest else []
        self.shard.drop(places)
        for place in places:
            del self.known[newest[place]]

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.shard.get(key) == self.known.get(key)

    @invariant()
    def is_the_same(self) -> None:
        assert self.shard.marks() == [*reversed(self.known.values())]
        assert self.shard.held == len(self.known)

    @invariant()
    def has_a_free_slot_to_end_at(self) -> None:
        if isinstance(self.shard, Table):
            slots = len(self.shard) // self.shard.WIDTH
            taken = len(self.shard.order) // 2
            assert 3 * taken <= 2 * slots + 3
            assert list(self.shard[:: self.shard.WIDTH]).count(FREE) >= max(slots - taken, 1)


def of(shard: Any, kept: Any) -> Any:
    """The machine for this kind of shard."""
    machine = type(f"Against{shard.__name__}", (Against,), {"kind": shard, "marks": kept})
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=80, deadline=None)
    return machine.TestCase


TestTables = of(Table, MARKS)
TestPairs = of(Pairs, MARKS)
TestLogs = of(Logs, st.binary(min_size=1, max_size=3))


class TestTablesInACrowd(of(Table, MARKS)):  # type: ignore[misc]
    """The same, where every fingerprint wants the first slot or the last."""

    @pytest.fixture(autouse=True)
    def crowd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "fingerprint", crowded)


class TestPairsInACrowd(of(Pairs, MARKS)):  # type: ignore[misc]
    """The same, where every fingerprint wants the first slot or the last."""

    @pytest.fixture(autouse=True)
    def crowd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "fingerprint", crowded)


@BOTH
def test_a_key_that_comes_and_goes_takes_no_more_slots(kind: type[Table]) -> None:
    table = kind()
    for number in range(1_000):
        table.put("a", number)
        table.put(f"b-{number}", 2**200)
        assert (table.pull("a"), table.pull(f"b-{number}")) == (number, 2**200)
    assert (len(table) // kind.WIDTH <= 8, len(table.order) <= 16, table.wide) == (True, True, {})


@BOTH
def test_five_hundred_keys_take_at_most_a_hundred_bytes_each(kind: type[Table]) -> None:
    table = kind()
    for number in range(500):
        table.put(f"key-{number}", number)
        if number >= 350:  # the size of a shard of a full house, and of one that has just grown
            assert (8 * len(table) + len(table.order)) / (number + 1) <= 100


def test_fingerprints_of_narrow_hashes_have_64_bits_of_their_own() -> None:
    found = {digest(f"key-{number}") for number in range(10_000)}
    assert len(found) == 10_000
    assert FREE not in found
    assert all(-(2**63) <= each < 2**63 for each in found)
    assert {each >> 62 for each in found} == {-2, -1, 0, 1}
    assert len({digest("\ud800"), digest("\\ud800"), digest("None"), digest(None)}) == 4  # type: ignore[arg-type]


@BOTH
def test_what_is_no_whole_number_is_not_kept(kind: type[Table]) -> None:
    table = kind()
    with pytest.raises(TypeError):
        table.put("a", 1.5)  # type: ignore[arg-type]
    assert (table.held, table.get("a"), table.marks()) == (0, None, [])
