"""Counters in memory when there is no room: who goes first, and that the bound holds."""

import math
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.protocols import Change, Hit, Limit
from apim_middleware.stores.counts import room
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import FakeClock

ALGORITHMS = {
    "fixed": Limit(5, 3_600.0, "fixed"),
    "lifetime": Limit(5, math.inf, "fixed"),
    "sliding": Limit(5, 3_600.0, "sliding"),
    "log": Limit(5, 3_600.0, "log"),
    "bucket": Limit(5, 3_600.0, "bucket"),
    "calendar": Limit(5, 86_400.0, "calendar", calendar="day UTC"),
}
ALL = pytest.mark.parametrize("limit", ALGORITHMS.values(), ids=ALGORITHMS)
EACH = pytest.mark.parametrize("limit", [ALGORITHMS[name] for name in ALGORITHMS if name != "lifetime"])


def assert_books_are_right(counters: MemoryCounters) -> None:
    kept = counters._room
    for shard in range(kept.shards):
        assert kept.held(shard) <= kept._admitted[shard] <= kept._size
    assert len(kept.books) <= kept._most_books
    assert {*kept.books.values()} == {*chain(kept._wide, *kept._narrow.values())}
    assert not any(book.EMPTY.held for book in kept.books.values())


@ALL
@pytest.mark.parametrize("max_keys", [1, 2, 3, 10, 999, 5_000])
def test_invented_keys_never_take_more_room_than_allowed(limit: Limit, max_keys: int) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock, max_keys=max_keys)
    for number in range(8_000):
        assert counters.hit_now([Hit(f"invented-{number}", limit)])[0].allowed
        if number % 1_000 == 0:
            clock.advance(7)
            assert len(counters) <= max_keys
    assert_books_are_right(counters)


@pytest.mark.parametrize("max_keys", [1, 10, 2_000])
def test_invented_limits_take_no_more_room_either(max_keys: int) -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=max_keys)
    for number in range(3_000):
        limit = Limit(5, 60.0, "fixed", f"place-{number}")
        counters.hit_now([Hit("a", limit, number % 7)])
    assert_books_are_right(counters)
    for number in range(3_000):
        counters.peek_now([Hit("b", Limit(5, 60.0, "fixed", f"elsewhere-{number}"))])
    assert_books_are_right(counters)


@ALL
@pytest.mark.parametrize("quota", [1, 2, 100])
def test_invented_keys_do_not_free_blocked_ones(limit: Limit, quota: int) -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=2_000)
    limit = limit._replace(quota=quota)
    blocked = [f"blocked-{number}" for number in range(200)]
    for key in blocked:
        counters.hit_now([Hit(key, limit, quota)])
    for number in range(12_000):
        counters.hit_now([Hit(f"invented-{number}", limit)])
    assert counters.evicted > 10_000
    assert not any(counters.hit_now([Hit(key, limit)])[0].allowed for key in blocked)


def test_blocked_keys_stay_blocked_while_there_is_anything_else_to_forget() -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=100)
    strict, wide = Limit(1, 3_600.0, "fixed", "strict"), Limit(100, 3_600.0, "fixed", "wide")
    blocked = [Hit(f"blocked-{number}", strict) for number in range(95)]
    for hit in blocked:
        counters.hit_now([hit])
    for number in range(1_000):
        counters.hit_now([Hit(f"invented-{number}", wide)])
    assert not any(tally.allowed for tally in counters.peek_now(blocked))


@pytest.mark.parametrize("name", ["fixed", "sliding", "log", "bucket", "calendar"])
def test_who_used_all_of_a_small_quota_goes_after_who_used_some_of_a_large_one(name: str) -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=100)
    strict, wide = (ALGORITHMS[name]._replace(quota=quota, place=str(quota)) for quota in (1, 100))
    blocked = [Hit(f"blocked-{number}", strict) for number in range(80)]
    for hit in blocked:
        counters.hit_now([hit])
    for number in range(500):
        counters.hit_now([Hit(f"invented-{number}", wide, 2)])
    assert counters.evicted > 400
    assert not any(tally.allowed for tally in counters.peek_now(blocked))


def test_invented_keys_of_one_limit_do_not_reset_what_another_counted() -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=5_000)
    by_subscription, by_header = Limit(10, 3_600.0, "fixed", "a"), Limit(100, 3_600.0, "fixed", "b")
    for number in range(500):
        counters.hit_now([Hit(f"subscription-{number}", by_subscription, 4)])
    for number in range(50_000):
        counters.hit_now([Hit(f"invented-{number}", by_header)])
    left = counters.peek_now([Hit(f"subscription-{number}", by_subscription) for number in range(500)])
    assert {tally.remaining for tally in left} == {6}


@EACH
def test_what_counts_no_more_makes_room_first(limit: Limit) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock, max_keys=1_000)
    old, new = limit._replace(place="old"), limit._replace(place="new")
    for number in range(1_000):
        counters.hit_now([Hit(f"old-{number}", old)])
    clock.advance(2 * limit.window + 1)
    for number in range(1_000):
        counters.hit_now([Hit(f"new-{number}", new)])
    assert (len(counters), counters.evicted) == (1_000, 0)


def test_what_has_nearly_faded_makes_room_before_what_was_used_just_now() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock, max_keys=100)
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
    counters = MemoryCounters(clock=clock, max_keys=1_000)
    limit = Limit(1, 60.0, "fixed")
    for _ in range(5):
        for number in range(1_000):
            assert counters.hit_now([Hit(f"key-{number}", limit)])[0].allowed
        clock.advance(60)
    assert (len(counters), counters.evicted) == (1_000, 0)


# Many limits


def of_many(limit: Limit, number: int) -> list[Hit]:
    """Hits of as many limits, each of one key."""
    return [Hit(f"key-{each}", limit._replace(place=f"place-{each}")) for each in range(number)]


@ALL
def test_ten_thousand_limits_of_a_key_each_are_nothing_special(limit: Limit) -> None:
    """Found by an audit: with rates of their own for as many keys, all but the latest 5,000 counted from nothing."""
    counters = MemoryCounters(clock=FakeClock())
    for _ in range(2):
        for hit in of_many(limit, 10_001):
            counters.hit_now([hit])
    assert {tally.remaining for tally in counters.peek_now(of_many(limit, 10_001))} == {3}
    assert counters.evicted == 0
    assert_books_are_right(counters)


@EACH
def test_of_too_many_limits_those_go_first_that_are_over(limit: Limit, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock, max_keys=1_000)
    for hit in of_many(limit._replace(window=60.0, calendar="hour UTC"), 300):
        counters.hit_now([hit])
    clock.advance(7_200)
    now = of_many(limit, 600)
    for hit in now:
        counters.hit_now([hit])
    assert {tally.remaining for tally in counters.peek_now(now[:400])} == {4}
    assert (counters.evicted, caplog.text) == (0, "")


@ALL
def test_of_too_many_limits_those_go_first_under_which_nothing_was_counted(limit: Limit) -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=20)
    counted = of_many(limit, 10)
    for hit in counted:
        counters.hit_now([hit])
    counters.peek_now([Hit("a", limit._replace(place=f"looked-at-{number}")) for number in range(20)])
    assert {tally.remaining for tally in counters.peek_now(counted)} == {4}
    assert counters.evicted == 0


def test_of_too_many_limits_those_go_last_that_are_used_up(caplog: pytest.LogCaptureFixture) -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=1_000)
    strict = of_many(Limit(1, 3_600.0, "fixed", "strict"), 40)
    for hit in strict:
        counters.hit_now([hit])
    for hit in of_many(Limit(100, 3_600.0, "fixed"), 2_000):
        counters.hit_now([hit])
    assert not any(tally.allowed for tally in counters.peek_now(strict))
    assert counters.evicted > 1_000
    assert caplog.text.count("counts are forgotten") == 1


def test_of_many_limits_with_a_few_keys_each_those_keys_go_that_used_least() -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=2_000)
    busy, idle = of_many(Limit(10, 3_600.0, "fixed"), 300), of_many(Limit(20, 3_600.0, "fixed"), 300)
    for hit in [*busy, *idle]:
        counters.hit_now([hit._replace(key=f"{hit.key}-{each}", cost=5) for each in range(4)])
    assert (counters._room.shards, counters.evicted > 300) == (3, True)
    left = [tally.remaining for hit in busy for tally in counters.peek_now([hit._replace(key=f"{hit.key}-0")])]
    assert set(left) == {5}
    assert_books_are_right(counters)


KEYS = st.integers(0, 40).map(str)


@pytest.mark.parametrize("limit", ALGORITHMS.values(), ids=ALGORITHMS)
@given(steps=st.lists(st.tuples(KEYS, st.integers(-3, 3), st.sampled_from([0.0, 1.0, 700.0, 4_000.0])), max_size=80))
def test_nobody_can_tell_when_a_limit_has_more_than_a_few_keys(
    limit: Limit, steps: list[tuple[str, int, float]]
) -> None:
    """Its entries are moved then: whatever was counted, in this window or the one before, stays as it is."""
    limit, told = limit._replace(quota=9), []
    for few in (0, 7, 1_000):
        clock, seen = FakeClock(), list[object]()
        counters = MemoryCounters(clock=clock)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "_FEW", few)
            _, again = counters.hit_one("0", limit, 1)
            for key, units, seconds in steps:
                clock.advance(seconds)
                if units < 0:
                    [tally] = counters.peek_now([Hit(key, limit)])
                    counters.settle_now([Change(key, limit, units, tally.counted)])
                elif units == 1 and (short := again(key)) is not None:
                    seen.append(short[0])
                elif units == 1:
                    tally, again = counters.hit_one(key, limit, 1)
                    seen.append(tally.remaining)
                else:
                    seen += counters.hit_now([Hit(key, limit, units), Hit("0", limit)])
            seen += counters.peek_now([Hit(str(key), limit) for key in range(41)])
            assert_books_are_right(counters)
        told.append(seen)
    assert told[0] == told[1] == told[2]


def test_an_attempt_that_was_refused_leaves_nothing_behind() -> None:
    counters = MemoryCounters(clock=FakeClock())
    full, wide = Limit(1, 60.0, "fixed", "full"), Limit(100, 60.0, "fixed", "wide")
    counters.hit_now([Hit("a", full)])
    for number in range(100):
        counters.hit_now([Hit(f"invented-{number}", wide), Hit("a", full)])
        counters.hit_now([Hit(f"invented-{number}", full, 2)])
    assert len(counters) == 1


@ALL
def test_what_costs_nothing_takes_no_room(limit: Limit) -> None:
    counters = MemoryCounters(clock=FakeClock())
    for number in range(100):
        assert counters.hit_now([Hit(f"invented-{number}", limit, 0)])[0].allowed
    assert len(counters) == 0


@ALL
@pytest.mark.parametrize("max_keys", [1, 2, 3])
def test_a_refused_call_that_made_others_make_room_leaves_the_books_right(limit: Limit, max_keys: int) -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=max_keys)
    for key in "abcd":
        counters.hit_now([Hit(key, limit)])
        counters.hit_now([Hit(key, limit), Hit("e", limit), Hit("f", limit), Hit("g", limit, 6)])
        assert_books_are_right(counters)
    assert counters.peek_now([Hit("e", limit)])[0].remaining == 5


@ALL
def test_a_monotonic_clock_that_breaks_its_word_hands_out_nothing(limit: Limit) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock, max_keys=100)
    clock.advance(30)
    for key, cost in (("a", 5), ("b", 3)):
        counters.hit_now([Hit(key, limit, cost)])
    for back in (20, 20, 1_000):
        clock.advance(-back)
        left = [tally.remaining for tally in counters.peek_now([Hit("a", limit), Hit("b", limit)])]
        assert left <= [0, 2]
        assert [counters.hit_now([Hit(f"c-{back}", limit)])[0].remaining for _ in range(6)][-2:] == [0, 0]


def test_no_shard_is_ever_large_enough_for_growing_or_dropping_it_to_be_a_stall() -> None:
    counters = MemoryCounters(clock=FakeClock())
    limit = Limit(1, 60.0, "fixed")
    for number in range(150_000):
        counters.hit_now([Hit(f"key-{number}", limit)])
    assert len(counters) == 150_000
    held = [counters._room.held(shard) for shard in range(counters._room.shards)]
    assert max(held) < 300  # 150 on average: hashes spread evenly
    assert counters._room._size < 2_100


def test_keys_of_one_shard_do_not_collide_in_it() -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=512_000)
    assert counters._room.shards % 2 == 1


def test_a_quota_for_a_lifetime_goes_after_everything_that_comes_back() -> None:
    counters = MemoryCounters(clock=FakeClock(), max_keys=100)
    for number in range(50):
        counters.hit_now([Hit(f"subscription-{number}", ALGORITHMS["lifetime"])])
    for number in range(1_000):
        counters.hit_now([Hit(f"invented-{number}", ALGORITHMS["fixed"], 5)])
    left = counters.peek_now([Hit(f"subscription-{number}", ALGORITHMS["lifetime"]) for number in range(50)])
    assert {tally.remaining for tally in left} == {4}


@pytest.mark.parametrize("name", ["log", "bucket", "sliding"])
def test_a_key_that_is_idle_for_long_is_forgotten(name: str) -> None:
    clock, limit = FakeClock(), ALGORITHMS[name]
    counters = MemoryCounters(clock=clock)
    for number in range(1_000):
        counters.hit_now([Hit(f"idle-{number}", limit)])
    for _ in range(3):
        clock.advance(limit.window + 1)
        counters.hit_now([Hit("busy", limit)])
    assert len(counters) <= 2


@pytest.mark.parametrize("name", ["log", "bucket"])
def test_a_key_that_is_not_idle_is_kept_once(name: str) -> None:
    clock, limit = FakeClock(), ALGORITHMS[name]
    counters = MemoryCounters(clock=clock)
    for _ in range(30):
        clock.advance(limit.window / 4)
        assert counters.hit_now([Hit("busy", limit)])[0].allowed
        assert len(counters) == 1


@EACH
def test_what_is_over_is_freed_little_by_little(limit: Limit) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock)
    for number in range(4_000):
        counters.hit_now([Hit(f"old-{number}", limit)])
    clock.advance(2 * limit.window + 3)
    counters.hit_now([Hit("new", limit)])
    assert len(counters) == 1
    left = [waste(counters)]
    for number in range(3_000):
        counters.hit_now([Hit(f"new-{number}", limit)])
        left.append(waste(counters))
    assert all(before > after for before, after in pairwise(left) if before[0])
    assert all(before[0] - after[0] <= 1 for before, after in pairwise(left))
    if limit.algorithm == "log":  # of which each is an object of its own
        assert all(before[1] - after[1] <= 32 for before, after in pairwise(left))
    assert left[-1] == (0, 0)


@EACH
def test_what_is_over_is_not_freed_by_the_hit_that_drops_it(limit: Limit) -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock)
    for number in range(4_000):
        counters.hit_now([Hit(f"old-{number}", limit)])
    clock.advance(2 * limit.window + 3)
    counters.hit_now([Hit("new", limit)])
    assert 3_900 < waste(counters)[1] <= 4_000


def waste(counters: MemoryCounters) -> tuple[int, int]:
    """Shards that are still to be freed, and entries in them."""
    return len(counters._room._waste), sum(shard.held for shard in counters._room._waste)


def test_a_long_log_takes_the_room_of_several_keys() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock=clock, max_keys=1_000)
    many, few = Limit(500, 3_600.0, "log"), Limit(1, 3_600.0, "log")
    for _ in range(500):
        clock.advance(1)
        counters.hit_now([Hit("busy", many)])
    for number in range(1_000):
        counters.hit_now([Hit(f"key-{number}", few)])
        assert_books_are_right(counters)
    assert 900 <= len(counters) + 500 * 16 // 256 <= 1_000
