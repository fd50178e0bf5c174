"""S3-FIFO: the budget, what makes room for what, things past their time, and tags."""

import random
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apim_middleware.stores.s3_fifo import S3Fifo


class Thing(NamedTuple):
    size: int
    until: float = 100.0


def filled(cache: S3Fifo[int, Thing], numbers: range) -> None:
    for number in numbers:
        cache.keep(number, Thing(10), 0.0)


# What makes room


def test_what_was_asked_for_outlasts_any_number_that_is_not() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1_000)
    filled(cache, range(50))
    for number in range(50):
        cache.find(number, 0.0)
    filled(cache, range(100, 10_000))
    assert [cache.find(number, 0.0) is not None for number in range(50)] == [True] * 50


def test_what_left_early_and_comes_back_is_kept_for_longer() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1_000)
    filled(cache, range(111))
    early = next(number for number in reversed(range(111)) if cache.find(number, 0.0) is None)
    cache.keep(early, Thing(10), 0.0)
    filled(cache, range(1_000, 1_050))
    assert cache.find(early, 0.0) is not None


def test_what_is_asked_for_no_more_leaves_in_the_end() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1_000)
    filled(cache, range(50))
    for number in range(50):
        cache.find(number, 0.0)
    for begin in range(1_000, 3_000, 10):
        for number in [*range(begin, begin + 10)] * 2:
            if cache.find(number, 0.0) is None:
                cache.keep(number, Thing(10), 0.0)
    assert sum(cache.find(number, 0.0) is not None for number in range(50)) == 0


def test_what_was_just_kept_is_there_however_large() -> None:
    cache: S3Fifo[str, Thing] = S3Fifo(1_000)
    for _ in range(3):
        for key, size in (("small", 10), ("huge", 1_000), ("large", 950), ("medium", 80)):
            assert cache.keep(key, Thing(size), 0.0)
            assert cache.find(key, 0.0) == Thing(size)


def test_nothing_is_pushed_out_while_all_fits() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1_000)
    filled(cache, range(100))
    assert (len(cache), cache.held, cache.evicted) == (100, 1_000, 0)


def test_what_had_to_make_room_is_counted() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1_000)
    filled(cache, range(300))
    assert cache.evicted == 300 - len(cache) == 200


class Recent:
    """The least recently used make room: what to be better than."""

    def __init__(self, max_bytes: int) -> None:
        self._things: OrderedDict[int, Thing] = OrderedDict()
        self._most = max_bytes // 10

    def find(self, key: int, now: float) -> Thing | None:
        thing = self._things.get(key)
        if thing is not None:
            self._things.move_to_end(key)
        return thing

    def keep(self, key: int, thing: Thing, now: float) -> None:
        self._things[key] = thing
        if len(self._things) > self._most:
            self._things.popitem(last=False)


def traffic(exponent: float, scans: bool) -> Iterator[int]:
    """Keys asked for as Zipf has it; with scans, now and then many that are asked for once."""
    chance, new = random.Random(1), 1_000_000
    weights = list(accumulate(1 / rank**exponent for rank in range(1, 5_001)))
    for _ in range(10):
        yield from chance.choices(range(5_000), cum_weights=weights, k=2_000)
        if scans:
            yield from range(new, new + 500)
            new += 500


def hits(cache: "S3Fifo[int, Thing] | Recent", exponent: float, scans: bool) -> int:
    found = 0
    for key in traffic(exponent, scans):
        if cache.find(key, 0.0):
            found += 1
        else:
            cache.keep(key, Thing(10), 0.0)
    return found


@pytest.mark.parametrize("scans", [False, True])
@pytest.mark.parametrize("exponent", [0.7, 0.9, 1.1])
def test_it_finds_more_than_the_least_recently_used_order(exponent: float, scans: bool) -> None:
    assert hits(S3Fifo(3_000), exponent, scans) > 1.02 * hits(Recent(3_000), exponent, scans)


# Time


def test_things_past_their_time_leave_as_others_come() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1 << 20)
    for number in range(100):
        cache.keep(number, Thing(100, until=10.0), 0.0)
    for number in range(100, 200):
        cache.keep(number, Thing(100), now=50.0)
    assert len(cache) == 100


def test_things_past_their_time_make_room_before_those_that_are_not() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1_000)
    for number in range(100):
        cache.keep(number, Thing(10, until=10.0 if number % 2 else 100.0), 0.0)
    for number in range(100, 140):
        cache.keep(number, Thing(10), now=50.0)
    assert cache.evicted < 20


def test_what_was_asked_for_need_not_prove_itself_again_when_it_is_renewed() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1_000)
    filled(cache, range(100))
    cache.keep(1_000, Thing(10, until=10.0), 0.0)
    cache.find(1_000, 0.0)
    assert cache.find(1_000, 20.0) is None
    cache.keep(1_000, Thing(10), 20.0)
    filled(cache, range(2_000, 2_050))
    assert cache.find(1_000, 20.0) is not None


# Tags


def test_what_purged_things_hold_comes_back_as_others_come() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1 << 20)
    for number in range(100):
        cache.keep(number, Thing(100), 0.0, ["tag"])
    cache.purge("tag")
    assert [cache.find(number, 0.0) for number in range(3)] == [None] * 3
    for number in range(1_000, 1_100):
        cache.keep(number, Thing(10), 0.0)
    assert (len(cache), cache.held) == (100, 1_000)


def test_no_tag_is_known_that_nothing_has() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(20_000)
    for number in range(1_000):
        cache.keep(number, Thing(10), 0.0, [f"tag {number}", "all"])
    assert 0 < len(cache._tags) == len(cache) + 1
    for number in range(1_000):
        cache.drop(number)
    assert (cache._tags, cache.held) == ({}, 0)


def test_tags_that_do_not_fit_keep_their_thing_out() -> None:
    cache: S3Fifo[str, Thing] = S3Fifo(1_000)
    assert not cache.keep("key", Thing(10), 0.0, [f"tag {number}" for number in range(10)])
    assert (cache.find("key", 0.0), cache._tags, cache.held) == (None, {}, 0)


def test_purging_takes_one_step_however_much_has_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1 << 20)
    for number in range(1_000):
        cache.keep(number, Thing(10), 0.0, ["tag"])
    monkeypatch.delattr(S3Fifo, "_forget")
    cache.purge("tag")


# All at once


def test_keys_can_be_told_to_go() -> None:
    cache: S3Fifo[str, Thing] = S3Fifo(1_000)
    for key in ("/a/1", "/a/2", "/b/1"):
        cache.keep(key, Thing(10), 0.0)
    cache.drop_if(lambda key: key.startswith("/a/"))
    assert [cache.find(key, 0.0) is None for key in ("/a/1", "/a/2", "/b/1")] == [True, True, False]


def test_things_are_found_in_two_steps_as_in_one() -> None:
    cache: S3Fifo[str, Thing] = S3Fifo(1_000)
    cache.clear()
    cache.keep("key", Thing(10), 0.0)
    slot = cache.slot_of("key")
    assert slot is not None
    assert [cache.use(slot, now) for now in (99.0, 100.0)] == [Thing(10), None]
    assert (cache.slot_of("key"), len(cache)) == (None, 0)


def test_cleared_it_is_as_new() -> None:
    cache: S3Fifo[int, Thing] = S3Fifo(1_000)
    filled(cache, range(300))
    cache.clear()
    assert (len(cache), cache.held) == (0, 0)
    filled(cache, range(100))
    assert len(cache) == 100


class Budget(RuleBasedStateMachine):
    """Whatever is kept, found, dropped and purged: the account adds up, and what is found is what was kept."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: S3Fifo[int, Thing] = S3Fifo(1_000)
        self.kept: dict[int, tuple[Thing, frozenset[str]]] = {}
        self.now = 0.0

    @rule(key=st.integers(0, 9), size=st.integers(0, 1_500), ttl=st.floats(1, 20), tags=st.sets(st.sampled_from("abc")))
    def keep(self, key: int, size: int, ttl: float, tags: set[str]) -> None:
        thing = Thing(size, self.now + ttl)
        kept = self.cache.keep(key, thing, self.now, tags)
        assert kept is (size + self.spent_on(tags) <= 1_000)
        self.kept.pop(key, None)
        if kept:
            self.kept[key] = thing, frozenset(tags)
            assert self.cache._slots[key].thing is thing

    def spent_on(self, tags: set[str]) -> int:
        probe: S3Fifo[int, Thing] = S3Fifo(10_000)
        probe.keep(0, Thing(0), 0.0, tags)
        return probe.held

    @rule(key=st.integers(0, 9))
    def find(self, key: int) -> None:
        found = self.cache.find(key, self.now)
        if found is not None:
            assert self.kept[key][0] is found
            assert found.until > self.now

    @rule(key=st.integers(0, 9))
    def drop(self, key: int) -> None:
        self.cache.drop(key)
        self.kept.pop(key, None)

    @rule(tag=st.sampled_from("abc"))
    def purge(self, tag: str) -> None:
        self.cache.purge(tag)
        self.kept = {key: kept for key, kept in self.kept.items() if tag not in kept[1]}

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def adds_up(self) -> None:
        slots = self.cache._slots.values()
        tags = {tag for slot in slots for tag in slot.tags if tag.current}
        assert self.cache.held == sum(slot.size for slot in slots) + sum(tag.size for tag in tags) <= 1_000
        assert tags == set(self.cache._tags.values())
        for queue in (self.cache._new, self.cache._main):
            assert queue.held == sum(slot.size for slot in slots if slot.queue is queue)

    @invariant()
    def the_ring_is_whole(self) -> None:
        seen, link = 0, self.cache._new.after
        while link is not self.cache._new:
            assert link.after.before is link
            seen += link is not self.cache._main
            link = link.after
        assert seen == len(self.cache)
        assert len(self.cache._left) <= 10


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=100, deadline=None)
