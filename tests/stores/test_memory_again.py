"""The short way to count in memory: it counts what the long way counts, tells the same, and leaves the rest to it."""

import random
from collections.abc import Callable

import pytest

from apim_middleware._http.rate_limit_fields import effective_window, told_window
from apim_middleware.protocols import Change, Hit, Limit
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import FakeClock

from .test_memory_room import ALGORITHMS, ALL, EACH, assert_books_are_right

Told = tuple[int, int]


class Caller:
    """Counts as rate limits do: the short way, and at length what has none."""

    def __init__(self, clock: FakeClock, limit: Limit, max_keys: int = 1_000) -> None:
        self.counters, self.limit = MemoryCounters(clock=clock, max_keys=max_keys), limit
        self.again: Callable[[str], Told | None] = lambda key: None
        self.shortly = 0

    def hit(self, key: str) -> Told:
        told = self.again(key)
        if told is not None:
            self.shortly += 1
            return told
        return self.hit_at_length(key)

    def hit_at_length(self, key: str) -> Told:
        tally, self.again = self.counters.hit_one(key, self.limit, 1)
        return (tally.remaining if tally.allowed else -1), effective_window(tally, told_window(self.limit))


LIMITS = [
    Limit(9, 10.0, "fixed"),
    Limit(9, 10.0, "sliding"),
    Limit(4, 0.7, "sliding"),
    Limit(2**60, 10.0, "sliding"),
    Limit(9, 10.0, "bucket", burst=30),
    Limit(1_000, 10.0, "bucket"),
    Limit(9, 10.0, "log"),
    Limit(9, 100.0, "calendar", calendar="hour UTC"),
]
WEIGHTS = {"hit again": 90, "advance": 60, "pause": 3, "go back": 3, "jump": 1, "settle": 9, "assign": 3}
"""What happens between two hits, and how often."""


@pytest.mark.parametrize("max_keys", [1, 2, 1_000])
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_short_way_counts_and_tells_what_the_long_way_does(limit: Limit, max_keys: int) -> None:
    chance, clock = random.Random(max_keys), FakeClock()
    one, other = Caller(clock, limit, max_keys), Caller(clock, limit, max_keys)
    for _ in range(4_000):
        key, seconds = chance.choice("aaabc"), chance.uniform(0, 0.3 * limit.window)
        assert one.hit(key) == other.hit_at_length(key)
        match chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]:
            case "advance":
                clock.advance(seconds)
            case "pause":
                clock.advance(9 * seconds)
            case "go back":
                clock.advance(-seconds)
            case "jump":
                clock.jump(chance.uniform(-50, 50))
            case "settle":
                change = Change(key, limit, chance.choice([-4, -1, 0, 1, 4, 2**70]), clock.monotonic() - 3 * seconds)
                one.counters.settle_now([change])
                other.counters.settle_now([change])
            case "assign":
                hit = Hit(key, limit, chance.choice([0, 2, limit.quota // 2, 2**70]))
                one.counters.assign_now([hit])
                other.counters.assign_now([hit])
    assert_books_are_right(one.counters)
    assert one.shortly > 50


@EACH
def test_a_key_that_has_more_left_goes_the_short_way(limit: Limit) -> None:
    clock = FakeClock()
    caller = Caller(clock, limit._replace(quota=100))
    clock.advance(1)
    for _ in range(50):
        caller.hit("a")
    assert caller.shortly == 49


def test_a_key_that_counted_in_the_window_before_goes_the_short_way_too() -> None:
    clock = FakeClock()
    caller = Caller(clock, Limit(1_000, 60.0, "sliding"))
    for _ in range(100):
        caller.hit("a")
        clock.advance(1)
    assert caller.shortly == 98


def test_a_crowded_log_goes_the_short_way_as_it_goes_the_long_one() -> None:
    clock, limit = FakeClock(), Limit(5_000, 10.0, "log")
    one, other = Caller(clock, limit), Caller(clock, limit)
    for _ in range(4_000):
        assert one.hit("a") == other.hit_at_length("a")
        clock.advance(0.004)
    assert one.shortly > 3_500
    assert_books_are_right(one.counters)


@ALL
def test_a_key_that_is_new_has_no_short_way(limit: Limit) -> None:
    counters = MemoryCounters(clock=FakeClock())
    _, again = counters.hit_one("a", limit, 0)
    assert again("a") is None
    assert len(counters) == 0


@ALL
def test_the_last_unit_is_not_to_be_had_the_short_way(limit: Limit) -> None:
    counters = MemoryCounters(clock=FakeClock())
    _, again = counters.hit_one("a", limit, 4)
    assert again("a") is None
    assert counters.hit_one("a", limit, 1)[0][:2] == (True, 0)


def test_what_gave_way_to_other_limits_counts_nothing_any_more() -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=1)
    limit = ALGORITHMS["sliding"]
    _, before = counters.hit_one("a", limit, 1)
    assert before("a") == (3, 3_600)
    counters.hit_one("b", limit._replace(place="elsewhere"), 1)
    _, again = counters.hit_one("a", limit, 1)
    assert before("a") is None
    assert again("a") == (3, 3_600)


def test_what_was_used_in_two_windows_takes_the_room_of_one_entry() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock)
    for _ in range(2):
        for number in range(100):
            counters.hit_one(f"key-{number}", ALGORITHMS["sliding"], 1)
        clock.advance(3_600)
    assert len(counters) == 100


def test_a_request_that_was_refused_keeps_what_counted_in_the_window_before() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock)
    limit, full = Limit(10, 60.0, "sliding"), Limit(1, 600.0, "sliding", "full")
    counters.peek_now([Hit("a", limit)])
    clock.advance(30)
    counters.hit_now([Hit("a", limit, 4), Hit("a", full)])
    clock.advance(45)
    assert not counters.hit_now([Hit("a", limit), Hit("a", full)])[1].allowed
    assert counters.peek_now([Hit("a", limit)])[0].remaining == 6


@pytest.mark.parametrize(
    ("limit", "units"), [(Limit(2**60, 10.0, "sliding"), 2**23 - 3), (Limit(6, 2e12, "bucket"), 0)]
)
def test_the_short_way_leaves_what_has_become_too_large_for_a_word(limit: Limit, units: int) -> None:
    one, other = (Caller(FakeClock(), limit) for _ in range(2))
    for caller in (one, other):
        caller.counters.assign_now([Hit("a", limit, units)])
    assert [one.hit("a") for _ in range(5)] == [other.hit_at_length("a") for _ in range(5)]
