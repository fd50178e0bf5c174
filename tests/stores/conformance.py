"""What every version of ``Counters`` must do, whatever it keeps its counts in.

A store's test module subclasses ``CountersConformance`` and says in ``counters`` how one is made with ``clock``.
"""

import math
from collections.abc import Sequence

import anyio
import pytest

from apim_middleware.protocols import Counters, Hit, Limit, Tally
from apim_middleware.testing import FakeClock

FIXED = Limit(10, 60.0, "fixed", "here/fixed")
SLIDING = Limit(10, 60.0, "sliding", "here/sliding")
BOTH = pytest.mark.parametrize("limit", [FIXED, SLIDING], ids=["fixed", "sliding"])
HOSTILE = ["", " ", "a|b", "a\x00b", "a\nb", "{a}", "é", "e\u0301", "\U0001f600", "k" * 4096, "%s", "a:b", "a/b"]


async def hit(counters: Counters, key: str, limit: Limit, cost: int = 1) -> Tally:
    [tally] = await counters.hit([Hit(key, limit, cost)])
    return tally


async def allowed(counters: Counters, hits: Sequence[Hit]) -> list[bool]:
    return [tally.allowed for tally in await counters.hit(hits)]


class CountersConformance:
    """The promises of the protocol; times are those of ``clock``, which begins at a boundary of every window here."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The clock that ``counters`` goes by."""
        return FakeClock()

    @pytest.fixture
    def counters(self, clock: FakeClock) -> Counters:
        """The store under test."""
        raise NotImplementedError

    # One limit

    @BOTH
    @pytest.mark.anyio
    async def test_as_many_as_the_quota_pass_and_no_more(self, counters: Counters, limit: Limit) -> None:
        told = [await hit(counters, "a", limit) for _ in range(12)]
        assert [tally.allowed for tally in told] == [True] * 10 + [False] * 2
        assert [tally.remaining for tally in told] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]

    @BOTH
    @pytest.mark.anyio
    async def test_a_refused_hit_counts_nothing(self, counters: Counters, limit: Limit) -> None:
        await hit(counters, "a", limit, 8)
        assert not (await hit(counters, "a", limit, 3)).allowed
        assert (await hit(counters, "a", limit, 2)).allowed

    @BOTH
    @pytest.mark.anyio
    async def test_a_hit_that_costs_more_than_the_quota_can_never_pass(self, counters: Counters, limit: Limit) -> None:
        tally = await hit(counters, "a", limit, 11)
        assert tally == Tally(allowed=False, remaining=10, reset=0.0, retry_after=math.inf)

    @BOTH
    @pytest.mark.anyio
    async def test_a_hit_that_costs_nothing_always_passes(self, counters: Counters, limit: Limit) -> None:
        await hit(counters, "a", limit, 10)
        assert (await hit(counters, "a", limit, 0))[:2] == (True, 0)

    @BOTH
    @pytest.mark.anyio
    async def test_waiting_as_long_as_told_is_enough_and_less_is_not(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        for step in (7.3, 0.1, 33.3, 41.0, 59.999):
            clock.advance(step)
            while (tally := await hit(counters, "a", limit, 3)).allowed:
                pass
            assert 0 < tally.retry_after <= 2 * limit.window
            clock.advance(tally.retry_after - 0.001)
            assert not (await counters.peek([Hit("a", limit, 3)]))[0].allowed
            clock.advance(0.001)
            assert (await counters.peek([Hit("a", limit, 3)]))[0].allowed
            assert (await hit(counters, "a", limit, 3)).allowed

    @BOTH
    @pytest.mark.anyio
    async def test_the_time_told_is_as_good_when_windows_are_long(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        limit = limit._replace(window=30 * 86_400.0)
        for step in (0.0, 7_300.0, 600_000.0):
            clock.advance(step)
            await hit(counters, "a", limit, 3)
        tally = await hit(counters, "a", limit, 4)
        clock.advance(tally.retry_after - 0.002)
        assert not (await counters.peek([Hit("a", limit, 4)]))[0].allowed
        clock.advance(0.002)
        assert (await counters.peek([Hit("a", limit, 4)]))[0].allowed

    @BOTH
    @pytest.mark.anyio
    async def test_an_allowed_hit_is_told_when_the_next_can_pass(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        assert (await hit(counters, "a", limit, 5)).retry_after == 0
        tally = await hit(counters, "a", limit, 5)
        assert tally.retry_after > 0
        clock.advance(tally.retry_after)
        assert (await hit(counters, "a", limit, 5)).allowed

    @BOTH
    @pytest.mark.anyio
    async def test_after_the_reset_the_whole_quota_is_there(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        clock.advance(12.5)
        await hit(counters, "a", limit, 3)
        tally = await hit(counters, "a", limit, 7)
        clock.advance(tally.reset)
        assert await counters.peek([Hit("a", limit, 10)]) == [Tally(True, 10, 0.0, 0.0)]
        assert (await hit(counters, "a", limit, 10)).allowed

    @pytest.mark.anyio
    async def test_the_reset_of_what_is_fading_is_known_too(self, clock: FakeClock, counters: Counters) -> None:
        for step in (1, 40, 45):
            await hit(counters, "a", SLIDING, 3)
            clock.advance(step)
        [tally] = await counters.peek([Hit("a", SLIDING)])
        assert tally.remaining == 7
        clock.advance(tally.reset - 0.001)
        assert (await counters.peek([Hit("a", SLIDING)]))[0].remaining < 10
        clock.advance(0.001)
        assert (await counters.peek([Hit("a", SLIDING)]))[0].remaining == 10

    @BOTH
    @pytest.mark.anyio
    async def test_peeking_counts_nothing(self, counters: Counters, limit: Limit) -> None:
        await hit(counters, "a", limit, 4)
        for cost, passes in ((6, True), (7, False)):
            [tally] = await counters.peek([Hit("a", limit, cost)])
            assert (tally.allowed, tally.remaining) == (passes, 6)
        assert (await hit(counters, "a", limit, 6)).allowed

    @BOTH
    @pytest.mark.anyio
    async def test_a_reset_forgets_this_key_under_this_limit_only(self, counters: Counters, limit: Limit) -> None:
        other = limit._replace(place="there")
        for key, each in (("a", limit), ("b", limit), ("a", other)):
            await hit(counters, key, each, 10)
        await counters.reset([Hit("a", limit)])
        hits = [Hit("a", limit), Hit("b", limit), Hit("a", other)]
        assert [tally.remaining for tally in await counters.peek(hits)] == [10, 0, 0]

    @pytest.mark.anyio
    async def test_a_reset_forgets_what_is_fading_too(self, clock: FakeClock, counters: Counters) -> None:
        await hit(counters, "a", SLIDING, 1)
        clock.advance(30)
        await hit(counters, "a", SLIDING, 9)
        clock.advance(35)
        assert not (await hit(counters, "a", SLIDING, 10)).allowed
        await counters.reset([Hit("a", SLIDING)])
        assert (await hit(counters, "a", SLIDING, 10)).allowed

    @pytest.mark.anyio
    async def test_a_hit_at_the_very_boundary_is_counted_in_a_whole_window(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        clock.advance(60 - 2.5e-7)
        assert [(await hit(counters, "a", FIXED, 10)).allowed for _ in range(2)] == [True, False]

    # Fixed windows

    @pytest.mark.anyio
    async def test_a_fixed_window_is_one_of_the_clock(self, clock: FakeClock, counters: Counters) -> None:
        clock.advance(50)
        tally = await hit(counters, "a", FIXED, 10)
        assert (tally.remaining, tally.reset) == (0, pytest.approx(10, abs=1e-5))
        clock.advance(9.999)
        assert not (await hit(counters, "a", FIXED)).allowed
        clock.advance(0.001)
        assert (await hit(counters, "a", FIXED, 10)).allowed

    @pytest.mark.anyio
    async def test_a_window_of_less_than_a_second_is_kept_as_exactly(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        limit = Limit(2, 0.25, "fixed")
        passed = []
        for _ in range(40):
            passed.append((await hit(counters, "a", limit)).allowed)
            clock.advance(0.0625)
        assert passed == [True, True, False, False] * 10

    @pytest.mark.parametrize("back", [0.0, 0.5, 1.0, 30.0, 59.0, 60.0, 61.0, 3_600.0, 1e9])
    @pytest.mark.anyio
    async def test_a_clock_set_back_hands_no_fixed_window_out_twice(
        self, clock: FakeClock, counters: Counters, back: float
    ) -> None:
        passed = 0
        for quarter in range(4 * 300):
            passed += (await hit(counters, "a", FIXED)).allowed
            assert passed <= 10 * (1 + quarter // 240)
            if quarter in (119, 480, 700):
                clock.jump(-back)
            clock.advance(0.25)
        assert passed >= 30

    @pytest.mark.anyio
    async def test_a_clock_set_back_blocks_for_two_windows_at_most(self, clock: FakeClock, counters: Counters) -> None:
        await hit(counters, "a", FIXED, 10)
        clock.jump(-1_000_000_007)
        for _ in range(20):
            tally = await hit(counters, "a", FIXED, 10)
            if not tally.allowed:
                assert 0 < tally.retry_after <= 120
                clock.advance(tally.retry_after)
                assert (await hit(counters, "a", FIXED, 10)).allowed

    # Sliding windows

    @pytest.mark.anyio
    async def test_what_was_used_at_once_comes_back_at_once_a_window_later(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        await hit(counters, "b", SLIDING)  # so that no window begins with what is looked at
        clock.advance(41)
        for _ in range(3):
            tally = await hit(counters, "a", SLIDING, 10)
            assert tally == (True, 0, pytest.approx(60, abs=1e-3), pytest.approx(60, abs=1e-3))
            clock.advance(59.99)
            assert not (await hit(counters, "a", SLIDING)).allowed
            clock.advance(0.01)

    @pytest.mark.parametrize("quota", [1, 2, 3, 7, 10, 100])
    @pytest.mark.anyio
    async def test_of_evenly_spread_hits_the_whole_quota_passes_and_nothing_between(
        self, clock: FakeClock, counters: Counters, quota: int
    ) -> None:
        limit = SLIDING._replace(quota=quota)
        step = 60.001 / quota  # adding up floats is no even spread
        await hit(counters, "b", limit)
        clock.advance(17.3)
        for number in range(3 * quota):
            assert (await hit(counters, "a", limit)).allowed
            if number >= quota:
                clock.advance(step / 2)
                assert not (await hit(counters, "a", limit)).allowed
                clock.advance(step / 2)
            else:
                clock.advance(step)

    @pytest.mark.anyio
    async def test_no_stretch_of_time_lets_more_pass_than_documented(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        """The worst case: one at the beginning of a window, the rest at its end, then whatever passes in the next."""
        await hit(counters, "a", SLIDING)
        clock.advance(59.9)
        assert (await hit(counters, "a", SLIDING, 9)).allowed
        passed = 9
        for step in range(1, 240):
            clock.advance(0.25)
            passed += (await hit(counters, "a", SLIDING)).allowed
            assert passed <= 10 + 9 * step * 0.25 / 60

    @pytest.mark.anyio
    async def test_a_sliding_window_does_not_look_at_the_wall_clock(self, clock: FakeClock, counters: Counters) -> None:
        await hit(counters, "a", SLIDING, 10)
        for jump in (3_600, -7_200, 1_000_000_000, -2_000_000_000):
            clock.jump(jump)
            assert not (await hit(counters, "a", SLIDING)).allowed
        clock.advance(120)
        assert (await hit(counters, "a", SLIDING, 10)).allowed

    # Several limits, several keys

    @pytest.mark.anyio
    async def test_several_limits_all_count_or_none_does(self, counters: Counters) -> None:
        small = SLIDING._replace(quota=2)
        both = [Hit("a", FIXED, 1), Hit("a", small, 1)]
        assert [await allowed(counters, both) for _ in range(4)] == [[True, True]] * 2 + [[True, False]] * 2
        assert [tally.remaining for tally in await counters.peek(both)] == [8, 0]

    @pytest.mark.anyio
    async def test_of_several_the_refusing_one_is_named_and_the_others_say_where_they_stand(
        self, counters: Counters
    ) -> None:
        small = FIXED._replace(quota=1)
        hits = [Hit("a", FIXED), Hit("a", small), Hit("a", SLIDING)]
        await counters.hit(hits)
        assert [tally[:2] for tally in await counters.hit(hits)] == [(True, 9), (False, 0), (True, 9)]

    @pytest.mark.anyio
    async def test_the_same_counter_twice_in_one_call_counts_twice(self, counters: Counters) -> None:
        assert await allowed(counters, [Hit("a", FIXED, 5), Hit("a", FIXED, 5)]) == [True, True]
        assert await allowed(counters, [Hit("b", FIXED, 5), Hit("b", FIXED, 6)]) == [True, False]
        assert (await counters.peek([Hit("b", FIXED)]))[0].remaining == 10
        for limit in (FIXED, SLIDING):
            await hit(counters, "c", limit, 2)
            assert await allowed(counters, [Hit("c", limit, 3), Hit("c", limit, 3), Hit("c", limit, 3)]) != [True] * 3
            assert (await counters.peek([Hit("c", limit)]))[0].remaining == 8

    @pytest.mark.anyio
    async def test_nothing_to_count_is_nothing_to_say(self, counters: Counters) -> None:
        assert await counters.hit([]) == await counters.peek([]) == []

    @pytest.mark.anyio
    async def test_no_two_keys_share_a_count(self, counters: Counters) -> None:
        limit = FIXED._replace(quota=1)
        for _ in range(2):
            told = [(await hit(counters, key, limit)).allowed for key in HOSTILE]
            assert told in ([True] * len(HOSTILE), [False] * len(HOSTILE))

    @pytest.mark.anyio
    async def test_no_two_limits_share_a_count(self, counters: Counters) -> None:
        limits = [
            Limit(1, 60.0, "fixed", "p"), Limit(1, 60.0, "sliding", "p"), Limit(1, 3600.0, "fixed", "p"),
            Limit(1, 60.0, "fixed", "q"), Limit(1, 60.0, "fixed", "p/q"), Limit(1, 60.0, "fixed", ""),
        ]  # fmt: skip
        assert [(await hit(counters, "a", limit)).allowed for limit in limits] == [True] * len(limits)

    @BOTH
    @pytest.mark.anyio
    async def test_of_a_thousand_at_once_exactly_the_quota_passes(self, counters: Counters, limit: Limit) -> None:
        limit = limit._replace(quota=100)
        passed = 0

        async def one() -> None:
            nonlocal passed
            passed += (await hit(counters, "a", limit)).allowed

        async with anyio.create_task_group() as group:
            for _ in range(1_000):
                group.start_soon(one)
        assert passed == 100
