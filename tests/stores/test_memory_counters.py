"""Counters in memory: the promises of every store, a slow and obvious model, and what is kept when there is no room."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apim_middleware.errors import ConfigError
from apim_middleware.protocols import Hit, Limit, Tally
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import FakeClock

from .conformance import CountersConformance


class TestMemoryCounters(CountersConformance):
    @pytest.fixture
    def counters(self, clock: FakeClock) -> MemoryCounters:
        return MemoryCounters(clock)


class TestVerySmallMemoryCounters(CountersConformance):
    """Everything in one shard."""

    @pytest.fixture
    def counters(self, clock: FakeClock) -> MemoryCounters:
        return MemoryCounters(clock, max_keys=50)


# Against a model that keeps every hit for ever and adds them up anew


class Counted(NamedTuple):
    window: int
    key: str
    cost: int
    time: float


class Windows:
    """The windows of one limit, numbered as they come, and every hit counted in them."""

    def __init__(self, limit: Limit, clock: FakeClock) -> None:
        self.limit, self.clock = limit, clock
        self.number, self.end = 0, float("-inf")
        self.boundary = float("-inf")  # the clock's, at which a fixed window ends
        self.log: list[Counted] = []

    def turn(self) -> None:
        now, length = self.clock.monotonic(), self.limit.window
        if now < self.end - 1e-6:
            return
        if self.limit.algorithm == "fixed":
            wall = self.clock.now()
            boundary = wall - wall % length + length
            if boundary <= max(self.boundary, wall) + 1e-6:  # is upon us, or has been, as the clock went back
                boundary += length
            self.boundary = boundary
            self.number, self.end = self.number + 1, now + boundary - wall
        elif now < self.end + length - 1e-6:
            self.number, self.end = self.number + 1, self.end + length
        else:
            self.number, self.end = self.number + 2, now + length

    def free(self, key: str) -> tuple[int, int]:
        """Units left: at least, and at most, for times are rounded."""
        self.turn()
        now, length = self.clock.monotonic(), self.limit.window
        used = sum(each.cost for each in self.of(key, self.number))
        moments = (now - EDGE * length - 2e-6, now, now + EDGE * length + 2e-6)
        fading = [self.fading(key, moment - length) for moment in moments]
        return self.limit.quota - used - max(fading), self.limit.quota - used - min(fading)

    def fading(self, key: str, moment: float) -> int:
        before = self.of(key, self.number - 1) if self.limit.algorithm == "sliding" else []
        if not before or moment >= before[-1].time:
            return 0
        units, first, last = sum(each.cost for each in before), before[0].time, before[-1].time
        return units if moment < first else units - 1 - int((units - 1) * (moment - first) / (last - first))

    def of(self, key: str, window: int) -> list[Counted]:
        return [each for each in self.log if (each.window, each.key) == (window, key)]

    def count(self, key: str, cost: int) -> None:
        if cost:
            self.log.append(Counted(self.number, key, cost, self.clock.monotonic()))

    def forget(self, key: str) -> None:
        self.turn()
        self.log = [each for each in self.log if each.key != key]


KEYS = ["a", "b", "c"]
LIMITS = [
    Limit(5, 10.0, "fixed"),
    Limit(3, 1.0, "fixed"),
    Limit(20, 86_400.0, "fixed"),
    Limit(1, 0.3, "fixed"),
    Limit(5, 10.0, "sliding"),
    Limit(3, 1.0, "sliding"),
    Limit(20, 86_400.0, "sliding"),
    Limit(7, 0.7, "sliding"),
]
EDGE = 3e-6
"""Nearer than this part of a window, moments cannot be told apart."""

hits = st.lists(
    st.builds(Hit, st.sampled_from(KEYS), st.sampled_from(LIMITS), st.integers(0, 6)),
    min_size=1,
    max_size=3,
    unique_by=lambda each: each[:2],
)
durations = st.one_of(
    st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0, 5.0, 10.0, 20.0, 86_400.0]),
    st.floats(0, 30),
    st.floats(0, 200_000),
)
jumps = st.one_of(st.floats(-100, 100), st.sampled_from([-86_400.0, 86_400.0, -1e9, 1e9]))


class CountersAgainstModel(RuleBasedStateMachine):
    """One shard, so that the model need not know of shards; never so many keys that one is evicted."""

    @initialize(start=st.floats(0, 2e9), offset=st.floats(-1e9, 1e9))
    def begin(self, start: float, offset: float) -> None:
        self.clock = FakeClock(start)
        self.clock.jump(offset)
        self.counters = MemoryCounters(self.clock, max_keys=999)
        self.model = {limit: Windows(limit, self.clock) for limit in LIMITS}

    def free(self, hit: Hit) -> tuple[int, int]:
        return self.model[hit.limit].free(hit.key)

    def check(self, hit: Hit, tally: Tally, free: tuple[int, int]) -> None:
        if free[0] >= hit.cost:
            assert tally.allowed
        if free[1] < hit.cost:
            assert not tally.allowed

    @rule(hits=hits)
    def hit(self, hits: list[Hit]) -> None:
        free = [self.free(hit) for hit in hits]
        told = self.counters.hit_now(hits)
        counted = all(each.allowed for each in told)
        for hit, tally, (least, most) in zip(hits, told, free, strict=True):
            self.check(hit, tally, (least, most))
            used = hit.cost if counted else 0
            assert max(least - used, 0) <= tally.remaining <= most - used
            if counted:
                self.model[hit.limit].count(hit.key, hit.cost)

    @rule(hits=hits)
    def peek(self, hits: list[Hit]) -> None:
        for hit, tally in zip(hits, self.counters.peek_now(hits), strict=True):
            self.check(hit, tally, self.free(hit))
            assert tally.retry_after == 0 if tally.allowed else tally.retry_after > 0

    @rule(hits=hits)
    def reset(self, hits: list[Hit]) -> None:
        self.counters.reset_now(hits)
        for hit in hits:
            self.model[hit.limit].forget(hit.key)
            assert self.counters.peek_now([hit])[0].remaining == hit.limit.quota

    @rule(seconds=durations)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=jumps)
    def jump(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @rule(hit=hits.map(lambda several: several[0]), early=st.booleans())
    def wait_as_told(self, hit: Hit, early: bool) -> None:
        self.free(hit)
        [tally] = self.counters.peek_now([hit])
        if tally.retry_after <= 0 or hit.cost > hit.limit.quota:
            return
        assert tally.retry_after <= 2 * hit.limit.window + 1e-5
        early = early and tally.retry_after > 0.01
        self.clock.advance(tally.retry_after - 0.005 if early else tally.retry_after)
        told = self.counters.hit_now([hit])
        assert told[0].allowed != early
        self.free(hit)
        if not early:
            self.model[hit.limit].count(hit.key, hit.cost)

    @invariant()
    def books_are_right(self) -> None:
        if hasattr(self, "counters"):
            assert_books_are_right(self.counters)


TestCountersAgainstModel = CountersAgainstModel.TestCase
TestCountersAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def assert_books_are_right(counters: MemoryCounters) -> None:
    for shard in counters._shards:
        assert shard.size == sum(len(page) for page in shard.values()) <= shard.room
        assert len(shard) <= shard.room


# What passes in any stretch of time, by brute force


def passed(clock: FakeClock, limit: Limit, steps: list[float], costs: Iterator[int]) -> list[tuple[float, int]]:
    counters, log = MemoryCounters(clock), []
    for step in steps:
        clock.advance(step)
        cost = next(costs)
        if counters.hit_now([Hit("a", limit, cost)])[0].allowed:
            log.append((clock.monotonic(), cost))
    return log


schedules = st.lists(st.one_of(st.just(0.0), st.floats(0, 0.5), st.floats(0, 20)), max_size=150)


@given(schedules, st.randoms(use_true_random=False), st.integers(1, 12))
def test_in_any_stretch_a_sliding_window_lets_pass_no_more_than_documented(
    steps: list[float], chance: random.Random, quota: int
) -> None:
    limit = Limit(quota, 10.0, "sliding")
    costs = iter(lambda: chance.randint(1, max(quota // 3, 1)), None)
    log = passed(FakeClock(), limit, steps, costs)
    for first, (start, _) in enumerate(log):
        used = 0
        for time, cost in log[first:]:
            used += cost
            if time - start <= limit.window:
                assert used <= quota + (quota - 1) * ((time - start) / limit.window + EDGE)


@given(schedules, st.randoms(use_true_random=False), st.integers(1, 12))
def test_a_fixed_window_lets_pass_its_quota_and_wastes_none(
    steps: list[float], chance: random.Random, quota: int
) -> None:
    limit = Limit(quota, 10.0, "fixed")
    log = passed(FakeClock(), limit, steps, iter(lambda: 1, None))
    windows: dict[float, int] = {}
    tried: dict[float, int] = {}
    clock = FakeClock()
    for step in steps:
        clock.advance(step)
        window = (clock.now() + 1e-6) // 10
        tried[window] = tried.get(window, 0) + 1
    for time, _ in log:
        window = (time + 1e-6) // 10
        windows[window] = windows.get(window, 0) + 1
    assert windows == {window: min(number, quota) for window, number in tried.items()}


# When there is no room


@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
@pytest.mark.parametrize("max_keys", [1, 2, 3, 10, 999, 5_000])
def test_invented_keys_never_take_more_room_than_allowed(algorithm: Any, max_keys: int) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock, max_keys=max_keys)
    limit = Limit(5, 60.0, algorithm)
    for number in range(20_000):
        assert counters.hit_now([Hit(f"invented-{number}", limit)])[0].allowed
        if number % 1_000 == 0:
            clock.advance(7)
            assert len(counters) <= max_keys
    assert_books_are_right(counters)


@pytest.mark.parametrize("max_keys", [1, 10, 2_000])
def test_invented_limits_take_no_more_room_either(max_keys: int) -> None:
    counters = MemoryCounters(FakeClock(), max_keys=max_keys)
    for number in range(3_000):
        limit = Limit(5, 60.0, "fixed", f"place-{number}")
        counters.hit_now([Hit("a", limit, number % 7)])
    assert_books_are_right(counters)
    for number in range(3_000):
        counters.peek_now([Hit("b", Limit(5, 60.0, "fixed", f"elsewhere-{number}"))])
    assert_books_are_right(counters)


@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
@pytest.mark.parametrize("quota", [1, 2, 100])
def test_invented_keys_do_not_free_blocked_ones(algorithm: Any, quota: int) -> None:
    counters = MemoryCounters(FakeClock(), max_keys=5_000)
    limit = Limit(quota, 3_600.0, algorithm)
    blocked = [f"blocked-{number}" for number in range(500)]
    for key in blocked:
        counters.hit_now([Hit(key, limit, quota)])
    for number in range(50_000):
        counters.hit_now([Hit(f"invented-{number}", limit)])
    assert counters.evicted > 40_000
    assert not any(counters.hit_now([Hit(key, limit)])[0].allowed for key in blocked)


def test_blocked_keys_stay_blocked_while_there_is_anything_else_to_forget() -> None:
    counters = MemoryCounters(FakeClock(), max_keys=100)
    strict, wide = Limit(1, 3_600.0, "fixed", "strict"), Limit(100, 3_600.0, "fixed", "wide")
    blocked = [Hit(f"blocked-{number}", strict) for number in range(95)]
    for hit in blocked:
        counters.hit_now([hit])
    for number in range(1_000):
        counters.hit_now([Hit(f"invented-{number}", wide)])
    assert not any(tally.allowed for tally in counters.peek_now(blocked))


def test_invented_keys_of_one_limit_do_not_reset_what_another_counted() -> None:
    counters = MemoryCounters(FakeClock(), max_keys=5_000)
    by_subscription, by_header = Limit(10, 3_600.0, "fixed", "a"), Limit(100, 3_600.0, "fixed", "b")
    for number in range(500):
        counters.hit_now([Hit(f"subscription-{number}", by_subscription, 4)])
    for number in range(50_000):
        counters.hit_now([Hit(f"invented-{number}", by_header)])
    left = counters.peek_now([Hit(f"subscription-{number}", by_subscription) for number in range(500)])
    assert {tally.remaining for tally in left} == {6}


@pytest.mark.parametrize(("algorithm", "windows"), [("fixed", 1), ("sliding", 2)])
def test_what_counts_no_more_makes_room_first(algorithm: Any, windows: int) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock, max_keys=1_000)
    old, new = Limit(1, 60.0, algorithm, "old"), Limit(1, 60.0, algorithm, "new")
    for number in range(1_000):
        counters.hit_now([Hit(f"old-{number}", old)])
    clock.advance(60 * windows)
    for number in range(1_000):
        counters.hit_now([Hit(f"new-{number}", new)])
    assert (len(counters), counters.evicted) == (1_000, 0)


def test_what_has_nearly_faded_makes_room_before_what_was_used_just_now() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock, max_keys=100)
    limit = Limit(10, 60.0, "sliding")
    for step in (0, 59):
        clock.advance(step)
        for number in range(50):
            counters.hit_now([Hit(f"old-{number}", limit, 2)])
    clock.advance(54)
    now = [Hit(f"now-{number}", limit) for number in range(50)]
    for hit in now:
        counters.hit_now([hit])
    for number in range(20):
        counters.hit_now([Hit(f"invented-{number}", limit)])
    assert {tally.remaining for tally in counters.peek_now(now)} == {9}


def test_a_window_that_is_over_gives_its_room_back() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock, max_keys=1_000)
    limit = Limit(1, 60.0, "fixed")
    for _ in range(5):
        for number in range(1_000):
            assert counters.hit_now([Hit(f"key-{number}", limit)])[0].allowed
        clock.advance(60)
    assert (len(counters), counters.evicted) == (1_000, 0)


def test_an_attempt_that_was_refused_leaves_nothing_behind() -> None:
    counters = MemoryCounters(FakeClock())
    full, wide = Limit(1, 60.0, "fixed", "full"), Limit(100, 60.0, "fixed", "wide")
    counters.hit_now([Hit("a", full)])
    for number in range(100):
        counters.hit_now([Hit(f"invented-{number}", wide), Hit("a", full)])
        counters.hit_now([Hit(f"invented-{number}", full, 2)])
    assert len(counters) == 1


@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
def test_what_costs_nothing_takes_no_room(algorithm: Any) -> None:
    counters = MemoryCounters(FakeClock())
    limit = Limit(5, 60.0, algorithm)
    for number in range(100):
        assert counters.hit_now([Hit(f"invented-{number}", limit, 0)])[0].allowed
    assert len(counters) == 0


@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
@pytest.mark.parametrize("max_keys", [1, 2, 3])
def test_a_refused_call_that_made_others_make_room_leaves_the_books_right(algorithm: Any, max_keys: int) -> None:
    counters = MemoryCounters(FakeClock(), max_keys=max_keys)
    limit = Limit(5, 60.0, algorithm)
    for key in "abcd":
        counters.hit_now([Hit(key, limit)])
        counters.hit_now([Hit(key, limit), Hit("e", limit), Hit("f", limit), Hit("g", limit, 6)])
        assert_books_are_right(counters)
    assert counters.peek_now([Hit("e", limit)])[0].remaining == 5


@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
def test_a_monotonic_clock_that_breaks_its_word_hands_out_nothing(algorithm: Any) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock, max_keys=100)
    limit = Limit(5, 60.0, algorithm)
    clock.advance(30)
    for key, cost in (("a", 5), ("b", 3)):
        counters.hit_now([Hit(key, limit, cost)])
    for back in (20, 20, 1_000):
        clock.advance(-back)
        assert [tally.remaining for tally in counters.peek_now([Hit("a", limit), Hit("b", limit)])] == [0, 2]
        assert [counters.hit_now([Hit(f"c-{back}", limit)])[0].remaining for _ in range(6)][-2:] == [0, 0]


def test_no_dict_is_ever_large_enough_for_growing_or_dropping_it_to_be_a_stall() -> None:
    counters = MemoryCounters(FakeClock())
    limit = Limit(1, 60.0, "fixed")
    for number in range(150_000):
        counters.hit_now([Hit(f"key-{number}", limit)])
    assert len(counters) == 150_000
    assert max(shard.size for shard in counters._shards) < 300  # 150 on average: hashes spread evenly
    assert max(shard.room for shard in counters._shards) < 1_100


def test_keys_of_one_shard_do_not_collide_in_its_dict() -> None:
    counters = MemoryCounters(FakeClock(), max_keys=512_000)
    assert len(counters._shards) % 2 == 1


def test_room_for_nothing_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="max_keys"):
        MemoryCounters(max_keys=0)


def test_without_a_clock_the_machine_has_one() -> None:
    counters = MemoryCounters()
    limit = Limit(1, 3_600.0, "sliding")
    assert [counters.hit_now([Hit("a", limit)])[0].allowed for _ in range(2)] == [True, False]
