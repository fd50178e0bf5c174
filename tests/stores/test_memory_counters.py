"""Counters in memory: the promises of every store, a slow and obvious model, and what passes in any stretch of time."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from apim_middleware.errors import ConfigError
from apim_middleware.protocols import Change, Hit, Limit
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import FakeClock

from .conformance import ClockJumps, CountersConformance
from .model import EDGE, GRAIN, CountersMachine
from .test_memory_room import ALL, assert_books_are_right


class TestMemoryCounters(CountersConformance, ClockJumps):
    @pytest.fixture
    def counters(self, clock: FakeClock) -> MemoryCounters:
        return MemoryCounters(clock=clock)


class TestVerySmallMemoryCounters(CountersConformance, ClockJumps):
    """Everything in one shard."""

    @pytest.fixture
    def counters(self, clock: FakeClock) -> MemoryCounters:
        return MemoryCounters(clock=clock, max_keys=50)


class MemoryMachine(CountersMachine):
    """One shard, and never so many keys that one is evicted."""

    async def open(self) -> MemoryCounters:
        return MemoryCounters(clock=self.clock, max_keys=999)

    @invariant()
    def books_are_right(self) -> None:
        if hasattr(self, "counters"):
            assert isinstance(self.counters, MemoryCounters)
            assert_books_are_right(self.counters)


TestMemoryAgainstModel = MemoryMachine.TestCase
TestMemoryAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# What passes in any stretch of time, by brute force


def passed(clock: FakeClock, limit: Limit, steps: list[float], costs: Iterator[int]) -> list[tuple[float, int]]:
    counters, log = MemoryCounters(clock=clock), []
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
            if time - start < limit.window - GRAIN:
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


@given(schedules, st.randoms(use_true_random=False), st.integers(1, 12), st.integers(1, 12))
def test_in_any_stretch_a_bucket_lets_pass_its_burst_and_what_came_back_in_it(
    steps: list[float], chance: random.Random, quota: int, burst: int
) -> None:
    limit = Limit(quota, 10.0, "bucket", burst=burst)
    log = passed(FakeClock(), limit, steps, iter(lambda: chance.randint(1, burst), None))
    for first, (start, _) in enumerate(log):
        used = 0
        for time, cost in log[first:]:
            used += cost
            assert used <= burst + quota * ((time - start) / limit.window + EDGE)


@given(schedules, st.randoms(use_true_random=False), st.integers(1, 12))
def test_in_any_window_a_log_lets_pass_its_quota(steps: list[float], chance: random.Random, quota: int) -> None:
    limit = Limit(quota, 10.0, "log")
    log = passed(FakeClock(), limit, steps, iter(lambda: chance.randint(1, quota), None))
    for first, (start, _) in enumerate(log):
        assert sum(cost for time, cost in log[first:] if time - start < limit.window - GRAIN) <= quota


@pytest.mark.parametrize("algorithm", ["fixed", "sliding", "log", "bucket"])
def test_waiting_as_long_as_told_is_enough_whatever_the_limit(algorithm: Any) -> None:
    """Floats of every kind: hypothesis prefers simple ones, which are not rounded."""
    chance = random.Random(1)
    for _ in range(400):
        clock = FakeClock(chance.uniform(1e9, 2e9))
        limit = Limit(chance.randint(1, 50), chance.choice([1.0, 7.0, 86_400.0, chance.uniform(0.001, 1e7)]), algorithm)
        counters = MemoryCounters(clock=clock, max_keys=100)
        for _ in range(chance.randint(1, 6)):
            clock.advance(chance.uniform(0, 0.3) * limit.window)
            counters.hit_now([Hit("a", limit, limit.quota // 5 + 1)])
        for told in ("retry_after", "reset"):
            [tally] = counters.peek_now([Hit("a", limit, limit.quota)])
            clock.advance(getattr(tally, told))
            assert counters.peek_now([Hit("a", limit, limit.quota)])[0][:2] == (True, limit.quota)
            counters.hit_now([Hit("a", limit)])


# At the seams


def length_of_its_log(counters: MemoryCounters, limit: Limit) -> int:
    """In bytes, of the only key of a limit."""
    [log] = [log for logs in counters._room.books[limit].counts for log in logs.values()]
    return len(log)


@pytest.mark.parametrize("cost", [1, 7])
def test_a_long_log_is_bounded_and_gives_back_no_more_than_a_thousandth_of_the_window_late(cost: int) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock)
    limit = Limit(5_000 * cost, 1.0, "log")
    for number in range(5_000):
        assert counters.hit_now([Hit("a", limit, cost)])[0].remaining == (4_999 - number) * cost
        clock.advance(0.0001)
    assert length_of_its_log(counters, limit) < 16 * 3_001
    clock.advance(0.5)
    for number in range(500):
        [tally] = counters.peek_now([Hit("a", limit)])
        assert number - 11 <= tally.remaining / cost <= number + 1
        clock.advance(0.0001)


def test_a_log_is_bounded_too_when_all_is_counted_later() -> None:
    """Each at a moment of its own, as at the end of requests; all can be given back."""
    clock = FakeClock()
    counters = MemoryCounters(clock=clock)
    limit, moments = Limit(10_000, 1.0, "log"), []
    for _ in range(5_000):
        [looked] = counters.peek_now([Hit("a", limit, 0)])
        moments.append(looked.counted)
        counters.settle_now([Change("a", limit, 1, looked.counted)])
        clock.advance(0.0001)
    assert length_of_its_log(counters, limit) < 16 * 3_001
    counters.settle_now([Change("a", limit, 1, moment) for moment in moments])
    assert length_of_its_log(counters, limit) < 16 * 3_001
    assert counters.peek_now([Hit("a", limit)])[0].remaining == 0
    counters.settle_now([Change("a", limit, -2, moment) for moment in moments])
    assert counters.peek_now([Hit("a", limit)])[0].remaining == 10_000


def test_units_that_were_given_back_leave_nothing_in_a_log() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock)
    limit = Limit(5, 60.0, "log")
    [first] = counters.hit_now([Hit("a", limit, 2)])
    clock.advance(10)
    [second] = counters.hit_now([Hit("a", limit, 3)])
    counters.settle_now([Change("a", limit, -3, second.counted)])
    assert counters.peek_now([Hit("a", limit)])[0].reset == pytest.approx(50)
    counters.settle_now([Change("a", limit, -2, first.counted)])
    assert len(counters) == 0


@ALL
@pytest.mark.parametrize("units", [10**30, 2**62, 2**63, 2**64 - 1, 2**64])
def test_no_correction_is_too_large(limit: Limit, units: int) -> None:
    counters = MemoryCounters(clock=FakeClock())
    [tally] = counters.hit_now([Hit("a", limit)])
    for _ in range(3):
        counters.settle_now([Change("a", limit, units, tally.counted)])
        assert counters.peek_now([Hit("a", limit)])[0][:2] == (False, 0)
    counters.assign_now([Hit("a", limit, units)])
    assert counters.peek_now([Hit("a", limit)])[0][:2] == (False, 0)


@ALL
def test_more_units_of_a_hit_that_was_forgotten_are_counted_all_the_same(limit: Limit) -> None:
    counters = MemoryCounters(clock=FakeClock())
    [tally] = counters.hit_now([Hit("a", limit)])
    counters.reset_now([Hit("a", limit)])
    counters.settle_now([Change("a", limit, 3, tally.counted)])
    assert counters.peek_now([Hit("a", limit)])[0].remaining == 2


def test_a_bucket_that_owes_more_than_it_holds_owes_it_until_it_is_worked_off() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock)
    limit = Limit(5, 60.0, "bucket")
    counters.assign_now([Hit("a", limit, 100)])
    for _ in range(19):
        assert counters.hit_now([Hit("b", limit, 5)])[0].allowed
        clock.advance(60)
    assert counters.peek_now([Hit("a", limit)])[0].retry_after == pytest.approx(12)
    clock.advance(12)
    assert [counters.hit_now([Hit("a", limit)])[0].allowed for _ in range(2)] == [True, False]


def test_room_for_nothing_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="max_keys"):
        MemoryCounters(max_keys=0)


@pytest.mark.parametrize("fields", [{"max_keys": "x"}, {"max_keys": 1.5}, {"clock": 5}])
def test_what_is_no_number_and_no_clock_is_a_mistake(fields: Any) -> None:
    with pytest.raises(ConfigError, match=rf"MemoryCounters\.{next(iter(fields))}: "):
        MemoryCounters(**fields)


def test_without_a_clock_the_machine_has_one() -> None:
    counters = MemoryCounters()
    limit = Limit(1, 3_600.0, "sliding")
    assert [counters.hit_now([Hit("a", limit)])[0].allowed for _ in range(2)] == [True, False]
