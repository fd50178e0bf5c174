"""What every version of ``Counters`` and of ``Permits`` must do, whatever it keeps them in.

A store's test module subclasses ``CountersConformance`` and says in ``counters`` how one is made with ``clock``; one
that goes by a wall clock and a steady one subclasses ``ClockJumps`` too. ``PermitsConformance`` wants ``permits``.
"""

import math
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from apim_middleware import Env, RateLimit, Stack, Standings
from apim_middleware.protocols import Change, Counters, Hit, Limit, Permits, Tally
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import Receive, Scope, Send

FIXED = Limit(10, 60.0, "fixed", "here/fixed")
SLIDING = Limit(10, 60.0, "sliding", "here/sliding")
LOG = Limit(10, 60.0, "log", "here/log")
BUCKET = Limit(10, 60.0, "bucket", "here/bucket")
CALENDAR = Limit(10, 3600.0, "calendar", "here/calendar", calendar="hour UTC")
LIFETIME = Limit(10, math.inf, "fixed", "here/lifetime")


def each_of(*limits: Limit) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("limit", limits, ids=[limit.place[5:] for limit in limits])


ALL = each_of(FIXED, SLIDING, LOG, BUCKET, CALENDAR)
HOSTILE = ["", " ", "a|b", "a\x00b", "a\nb", "{a}", "é", "e\u0301", "\U0001f600", "k" * 4096, "%s", "a:b", "a/b"]


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"1" * 1_000})


async def hit(counters: Counters, key: str, limit: Limit, cost: int = 1) -> Tally:
    [tally] = await counters.hit([Hit(key, limit, cost)])
    return tally


async def allowed(counters: Counters, hits: Sequence[Hit]) -> list[bool]:
    return [tally.allowed for tally in await counters.hit(hits)]


async def remaining(counters: Counters, key: str, limit: Limit) -> int:
    [tally] = await counters.peek([Hit(key, limit)])
    return tally.remaining


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

    @ALL
    @pytest.mark.anyio
    async def test_as_many_as_the_quota_pass_and_no_more(self, counters: Counters, limit: Limit) -> None:
        told = [await hit(counters, "a", limit) for _ in range(12)]
        assert [tally.allowed for tally in told] == [True] * 10 + [False] * 2
        assert [tally.remaining for tally in told] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]

    @ALL
    @pytest.mark.anyio
    async def test_a_refused_hit_counts_nothing(self, counters: Counters, limit: Limit) -> None:
        await hit(counters, "a", limit, 8)
        assert not (await hit(counters, "a", limit, 3)).allowed
        assert (await hit(counters, "a", limit, 2)).allowed

    @ALL
    @pytest.mark.anyio
    async def test_a_hit_that_costs_more_than_the_quota_can_never_pass(self, counters: Counters, limit: Limit) -> None:
        tally = await hit(counters, "a", limit, 11)
        assert tally[:4] == (False, 10, 0.0, math.inf)

    @ALL
    @pytest.mark.anyio
    async def test_a_hit_that_costs_nothing_always_passes(self, counters: Counters, limit: Limit) -> None:
        await hit(counters, "a", limit, 10)
        assert (await hit(counters, "a", limit, 0))[:2] == (True, 0)

    @ALL
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

    @ALL
    @pytest.mark.anyio
    async def test_the_time_told_is_as_good_when_windows_are_long(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        limit = limit._replace(window=30 * 86_400.0, calendar=limit.calendar and "month UTC")
        for step in (0.0, 7_300.0, 600_000.0):
            clock.advance(step)
            await hit(counters, "a", limit, 3)
        tally = await hit(counters, "a", limit, 4)
        clock.advance(tally.retry_after - 0.002)
        assert not (await counters.peek([Hit("a", limit, 4)]))[0].allowed
        clock.advance(0.002)
        assert (await counters.peek([Hit("a", limit, 4)]))[0].allowed

    @ALL
    @pytest.mark.anyio
    async def test_an_allowed_hit_is_told_when_the_next_can_pass(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        assert (await hit(counters, "a", limit, 5)).retry_after == 0
        tally = await hit(counters, "a", limit, 5)
        assert tally.retry_after > 0
        clock.advance(tally.retry_after)
        assert (await hit(counters, "a", limit, 5)).allowed

    @ALL
    @pytest.mark.anyio
    async def test_after_the_reset_the_whole_quota_is_there(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        clock.advance(12.5)
        await hit(counters, "a", limit, 3)
        tally = await hit(counters, "a", limit, 7)
        clock.advance(tally.reset)
        assert (await counters.peek([Hit("a", limit, 10)]))[0][:4] == (True, 10, 0.0, 0.0)
        assert (await hit(counters, "a", limit, 10)).allowed

    @ALL
    @pytest.mark.anyio
    async def test_a_whole_number_of_seconds_is_not_one_second_more(self, counters: Counters, limit: Limit) -> None:
        for tally in (await hit(counters, "a", limit, 10), await hit(counters, "a", limit, 10)):
            assert (math.ceil(tally.reset), math.ceil(tally.retry_after)) == (limit.window, limit.window)

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

    @ALL
    @pytest.mark.anyio
    async def test_peeking_counts_nothing(self, counters: Counters, limit: Limit) -> None:
        await hit(counters, "a", limit, 4)
        for cost, passes in ((6, True), (7, False)):
            [tally] = await counters.peek([Hit("a", limit, cost)])
            assert (tally.allowed, tally.remaining) == (passes, 6)
        assert (await hit(counters, "a", limit, 6)).allowed

    @ALL
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

    @pytest.mark.parametrize(("start", "left"), [(25.0, 25), (-35.0, 25), (1_800_000_025.0, 25), (4e9 + 30, 10),
                                                 (-62_135_596_800.0, 60), (59.5, 59.5)])  # fmt: skip
    @pytest.mark.anyio
    async def test_a_fixed_window_begins_where_it_is_told(
        self, clock: FakeClock, counters: Counters, start: float, left: float
    ) -> None:
        limit = FIXED._replace(start=start)
        assert (await hit(counters, "a", limit, 10)).reset == pytest.approx(left, abs=1e-5)
        clock.advance(left - 0.001)
        assert not (await hit(counters, "a", limit)).allowed
        clock.advance(0.001)
        assert (await hit(counters, "a", limit)).reset == pytest.approx(60, abs=1e-5)

    @pytest.mark.anyio
    async def test_a_window_without_end_gives_nothing_back(self, clock: FakeClock, counters: Counters) -> None:
        assert (await counters.peek([Hit("a", LIFETIME)]))[0][:4] == (True, 10, 0.0, 0.0)
        assert (await hit(counters, "a", LIFETIME, 4))[:4] == (True, 6, math.inf, 0.0)
        clock.advance(50 * 365 * 86_400)
        assert (await hit(counters, "a", LIFETIME, 6))[:4] == (True, 0, math.inf, math.inf)
        assert (await hit(counters, "a", LIFETIME, 6))[:4] == (False, 0, math.inf, math.inf)
        await counters.reset([Hit("a", LIFETIME)])
        assert (await hit(counters, "a", LIFETIME, 10)).allowed

    # Calendars

    @pytest.mark.parametrize(
        ("calendar", "hours", "then"),
        [
            ("hour UTC", 1, 1),
            ("hour Asia/Kolkata", 0.5, 1),
            ("day UTC", 16, 24),
            ("day Europe/Berlin", 15, 24),
            ("week UTC", 2 * 24 + 16, 7 * 24),
            ("week America/New_York", 2 * 24 + 21, 7 * 24),
            ("month UTC", 16 * 24 + 16, 28 * 24),
            ("month Asia/Tokyo", 16 * 24 + 7, 28 * 24),
            ("year UTC", 350 * 24 + 16, 366 * 24),
        ],
    )
    @pytest.mark.anyio
    async def test_a_calendar_is_that_of_its_time_zone(
        self, clock: FakeClock, counters: Counters, calendar: str, hours: float, then: float
    ) -> None:
        """It is Friday, 15 January 2027, 08:00 UTC."""
        limit = CALENDAR._replace(calendar=calendar)
        for length in (hours, then):
            tally = await hit(counters, "a", limit, 10)
            assert tally[:3] == (True, 0, pytest.approx(length * 3600, abs=1e-5))
            clock.advance(length * 3600 - 0.001)
            assert not (await hit(counters, "a", limit)).allowed
            clock.advance(0.001)

    @pytest.mark.anyio
    async def test_days_have_as_many_hours_as_the_zone_gives_them(self, clock: FakeClock, counters: Counters) -> None:
        limit = CALENDAR._replace(calendar="day Europe/Berlin")
        clock.advance(15 * 3600 + 71 * 86_400)  # 28 March 2027, 00:00 in Berlin
        for hours in (23, 24):
            assert (await hit(counters, "a", limit, 10)).retry_after == pytest.approx(hours * 3600, abs=1e-5)
            clock.advance(hours * 3600)

    @pytest.mark.parametrize("calendar", ["month Mars/Olympus", "fortnight UTC", ""])
    @pytest.mark.anyio
    async def test_a_calendar_that_nobody_knows_is_a_mistake(self, counters: Counters, calendar: str) -> None:
        with pytest.raises(ValueError, match=r"calendar|time zone"):
            await hit(counters, "a", CALENDAR._replace(calendar=calendar))

    # Sliding windows

    @pytest.mark.anyio
    async def test_what_was_used_at_once_comes_back_at_once_a_window_later(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        await hit(counters, "b", SLIDING)  # so that no window begins with what is looked at
        clock.advance(41)
        for _ in range(3):
            tally = await hit(counters, "a", SLIDING, 10)
            assert tally[:4] == (True, 0, pytest.approx(60, abs=1e-3), pytest.approx(60, abs=1e-3))
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

    # Logs

    @pytest.mark.anyio
    async def test_each_unit_of_a_log_comes_back_a_window_after_it_was_used(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        moments = [0.0, 0.5, 7.25, 7.25, 7.75, 30.0, 31.5, 40.0, 59.0, 59.5]
        for moment, later in zip(moments, [*moments[1:], 59.75], strict=True):
            assert (await hit(counters, "a", LOG)).allowed
            clock.advance(later - moment)
        now = 59.75
        for moment in moments:
            tally = await hit(counters, "a", LOG)
            assert tally[:2] == (now >= moment + 60, 0)
            if not tally.allowed:
                assert tally.retry_after == pytest.approx(moment + 60 - now, abs=1e-3)
                clock.advance(moment + 60 - now)
                now = moment + 60
                assert (await hit(counters, "a", LOG)).allowed

    @pytest.mark.anyio
    async def test_a_log_waits_for_as_many_units_as_are_asked_for(self, clock: FakeClock, counters: Counters) -> None:
        for cost in (1, 2, 3, 4):
            await hit(counters, "a", LOG, cost)
            clock.advance(10)
        for cost, wait in ((1, 20), (2, 30), (3, 30), (4, 40), (6, 40), (7, 50), (10, 50)):
            [tally] = await counters.peek([Hit("a", LOG, cost)])
            assert (tally.reset, tally.retry_after) == (pytest.approx(50, abs=1e-3), pytest.approx(wait, abs=1e-3))

    # Buckets

    @pytest.mark.anyio
    async def test_of_a_sliding_window_nobody_waits_longer_than_what_was_used_before_still_counts(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        for step in (30, 35):
            await hit(counters, "a", SLIDING, 5)
            clock.advance(step)
        await hit(counters, "a", SLIDING, 2)
        [tally] = await counters.peek([Hit("a", SLIDING, 8)])
        assert (tally.allowed, tally.retry_after) == (False, pytest.approx(25, abs=1e-3))

    @pytest.mark.anyio
    async def test_of_many_moments_of_a_log_each_comes_back_in_its_turn(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        limit = LOG._replace(quota=300)
        for _ in range(200):
            await hit(counters, "a", limit)
            clock.advance(0.125)
        [tally] = await counters.peek([Hit("a", limit, 250)])
        assert tally.retry_after == pytest.approx(60 - 50 * 0.125 - 0.125, abs=1e-4)
        for back in (150, 151):
            clock.advance(tally.retry_after if back == 150 else 0.125)
            assert await remaining(counters, "a", limit) == 100 + back

    @pytest.mark.anyio
    async def test_a_bucket_gives_its_burst_at_once_and_then_evenly(self, clock: FakeClock, counters: Counters) -> None:
        limit = BUCKET._replace(quota=60, burst=5)
        assert [(await hit(counters, "a", limit)).remaining for _ in range(5)] == [4, 3, 2, 1, 0]
        for _ in range(10):
            assert (await hit(counters, "a", limit))[:4] == (
                False,
                0,
                pytest.approx(5, abs=1e-3),
                pytest.approx(1, abs=1e-3),
            )
            clock.advance(1)
            assert (await hit(counters, "a", limit)).allowed

    @pytest.mark.anyio
    async def test_a_bucket_never_holds_more_than_its_burst(self, clock: FakeClock, counters: Counters) -> None:
        limit = BUCKET._replace(burst=3)
        await hit(counters, "a", limit)
        for seconds in (6, 3600, 1e7):
            clock.advance(seconds)
            assert [(await hit(counters, "a", limit, cost)).allowed for cost in (4, 3, 1)] == [False, True, False]
        assert (await counters.peek([Hit("a", limit, 4)]))[0].retry_after == math.inf

    @pytest.mark.anyio
    async def test_a_bucket_may_hold_more_than_comes_back_in_a_window(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        limit = BUCKET._replace(burst=30)
        assert (await hit(counters, "a", limit, 30))[:3] == (True, 0, pytest.approx(180, abs=1e-3))
        clock.advance(60)
        assert (await counters.peek([Hit("a", limit)]))[0].remaining == 10

    # Corrections

    @ALL
    @pytest.mark.anyio
    async def test_a_store_says_when_it_counted(self, clock: FakeClock, counters: Counters, limit: Limit) -> None:
        first = await hit(counters, "a", limit, 10)
        clock.advance(5)
        [looked] = await counters.peek([Hit("b", limit)])
        refused = await hit(counters, "a", limit, 10)
        assert (looked.counted, refused.counted) == (pytest.approx(first.counted + 5, abs=1e-3),) * 2

    @ALL
    @pytest.mark.anyio
    async def test_units_can_be_given_back(self, clock: FakeClock, counters: Counters, limit: Limit) -> None:
        tally = await hit(counters, "a", limit, 8)
        clock.advance(0.5)
        await counters.settle([Change("a", limit, -5, tally.counted)])
        assert await remaining(counters, "a", limit) == 7
        assert [(await hit(counters, "a", limit, cost)).allowed for cost in (8, 7)] == [False, True]

    @ALL
    @pytest.mark.anyio
    async def test_of_two_hits_at_one_moment_each_can_be_given_back(self, counters: Counters, limit: Limit) -> None:
        told = [await hit(counters, "a", limit, cost) for cost in (1, 3)]
        await counters.settle([Change("a", limit, -3, told[1].counted)])
        assert await remaining(counters, "a", limit) == 9
        await counters.settle([Change("a", limit, -1, told[0].counted)])
        assert await remaining(counters, "a", limit) == 10

    @each_of(FIXED, SLIDING, LOG, BUCKET, CALENDAR, LIFETIME)
    @pytest.mark.anyio
    async def test_more_can_be_counted_than_was_free(self, clock: FakeClock, counters: Counters, limit: Limit) -> None:
        tally = await hit(counters, "a", limit, 8)
        await counters.settle([Change("a", limit, 7, tally.counted)])
        told = await hit(counters, "a", limit, 2)
        assert told[:2] == (False, 0)
        assert told.retry_after <= told.reset
        if limit is not LIFETIME:
            clock.advance(told.retry_after - 0.001)
            assert not (await hit(counters, "a", limit, 2)).allowed
            clock.advance(0.001)
            assert (await hit(counters, "a", limit, 2)).allowed

    @ALL
    @pytest.mark.anyio
    async def test_no_counter_falls_below_zero(self, counters: Counters, limit: Limit) -> None:
        tally = await hit(counters, "a", limit, 3)
        await counters.settle([Change("a", limit, -100, tally.counted), Change("b", limit, -100, tally.counted)])
        assert [await remaining(counters, key, limit) for key in "ab"] == [10, 10]
        assert [(await hit(counters, "a", limit, cost)).allowed for cost in (10, 1)] == [True, False]

    @pytest.mark.parametrize("units", [-3, 3])
    @ALL
    @pytest.mark.anyio
    async def test_what_is_over_cannot_be_corrected(
        self, clock: FakeClock, counters: Counters, limit: Limit, units: int
    ) -> None:
        tally = await hit(counters, "a", limit, 5)
        clock.advance(2 * limit.window)
        await hit(counters, "a", limit, 4)
        await counters.settle([Change("a", limit, units, tally.counted), Change("b", limit, units, tally.counted)])
        assert [await remaining(counters, key, limit) for key in "ab"] == [6, 10]

    @pytest.mark.parametrize("units", [-3, 3])
    @ALL
    @pytest.mark.anyio
    async def test_what_was_used_exactly_a_window_ago_is_over(
        self, clock: FakeClock, counters: Counters, limit: Limit, units: int
    ) -> None:
        tally = await hit(counters, "a", limit, 5)
        clock.advance(limit.window)
        await hit(counters, "a", limit, 4)
        await counters.settle([Change("a", limit, units, tally.counted)])
        assert await remaining(counters, "a", limit) == 6

    @ALL
    @pytest.mark.anyio
    async def test_a_correction_of_nothing_is_none(self, clock: FakeClock, counters: Counters, limit: Limit) -> None:
        both = [Hit("a", limit, 4), Hit("b", limit, 4)]
        for step in (20, 20):
            await counters.hit(both)
            clock.advance(step)
        [looked] = await counters.peek([Hit("a", limit)])
        for step in (25, 0):
            await counters.settle([Change("a", limit, 0, looked.counted)])
            clock.advance(step)
        one, other = await counters.peek(both)
        assert one == other

    @each_of(SLIDING, LOG)
    @pytest.mark.anyio
    async def test_what_still_counts_can_be_corrected_when_the_next_window_runs(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        await hit(counters, "b", limit)
        clock.advance(50)
        tally = await hit(counters, "a", limit, 6)
        clock.advance(20)
        await hit(counters, "a", limit, 3)
        await counters.settle([Change("a", limit, -4, tally.counted)])
        assert await remaining(counters, "a", limit) == 5
        clock.advance(40)
        assert await remaining(counters, "a", limit) == 7

    @each_of(FIXED, SLIDING, LOG, BUCKET, CALENDAR, LIFETIME)
    @pytest.mark.anyio
    async def test_more_can_be_counted_where_nothing_was(self, counters: Counters, limit: Limit) -> None:
        [looked] = await counters.peek([Hit("a", limit, 0)])
        await counters.settle([Change("a", limit, 4, looked.counted)])
        assert await remaining(counters, "a", limit) == 6
        assert [(await hit(counters, "a", limit, cost)).allowed for cost in (7, 6)] == [False, True]

    @pytest.mark.parametrize("later", [0.0, 0.25, 0.6, 1.01, 1.5, 1.99, 2.01, 3.0])
    @pytest.mark.parametrize("units", [1, 4, 25])
    @each_of(FIXED, SLIDING, LOG, CALENDAR, LIFETIME)
    @pytest.mark.anyio
    async def test_what_is_counted_later_counts_as_used_at_its_moment(
        self, clock: FakeClock, counters: Counters, limit: Limit, units: int, later: float
    ) -> None:
        """It is told what it would be told had the units been used then."""
        window = min(limit.window, 3600.0)
        used, late = (limit._replace(quota=30, place=f"here/{place}") for place in ("used", "late"))
        await counters.hit([Hit("b", used), Hit("b", late)])  # so that windows begin here
        clock.advance(0.4 * window)
        [looked] = await counters.peek([Hit("a", late, 0)])
        await hit(counters, "a", used, units)
        clock.advance(later * window)
        await counters.settle([Change("a", late, units, looked.counted)])
        for step in (0.0, 0.2, 0.5):
            clock.advance(step * window)
            told, expected = await counters.peek([Hit("a", late, 20), Hit("a", used, 20)])
            assert told[:2] == expected[:2]
            assert told[2:4] == (pytest.approx(expected.reset, abs=1e-3), pytest.approx(expected.retry_after, abs=1e-3))

    @each_of(FIXED, SLIDING, LOG, BUCKET, CALENDAR, LIFETIME)
    @pytest.mark.anyio
    async def test_what_was_never_counted_cannot_be_given_back(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        [looked] = await counters.peek([Hit("a", limit, 0)])
        for seconds in (0.0, 5.0, 60.0):
            clock.advance(seconds)
            await counters.settle([Change("a", limit, -4, looked.counted)])
            assert await remaining(counters, "a", limit) == 10
        assert [(await hit(counters, "a", limit, cost)).allowed for cost in (10, 1)] == [True, False]

    @each_of(FIXED, SLIDING, LOG, BUCKET, CALENDAR, LIFETIME)
    @pytest.mark.anyio
    async def test_a_moment_to_come_is_now(self, clock: FakeClock, counters: Counters, limit: Limit) -> None:
        """As of a counter that was counted by another clock, before that of the store was set back."""
        window = min(limit.window, 3600.0)
        clock.advance(0.4 * window)
        tally = await hit(counters, "a", limit, 5)
        for units, left in ((2, 3), (-3, 6), (4, 2)):
            await counters.settle([Change("a", limit, units, tally.counted + 10 * window)])
            assert await remaining(counters, "a", limit) == left
        await counters.settle([Change("b", limit, 8, tally.counted + 10 * window)])
        told = await counters.peek([Hit("a", limit, 10), Hit("b", limit, 10)])
        assert [each.remaining for each in told] == [2, 2]
        assert all(each.reset <= window + 1e-3 or limit is LIFETIME for each in told)

    @pytest.mark.anyio
    async def test_what_more_was_used_later_in_a_sliding_window_is_no_sooner_over(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        """A response that uses nine units at its end, 50 seconds after the request took one."""
        await hit(counters, "a", SLIDING)
        clock.advance(50)
        [looked] = await counters.peek([Hit("a", SLIDING, 0)])
        await counters.settle([Change("a", SLIDING, 9, looked.counted)])
        assert (await counters.peek([Hit("a", SLIDING, 10)]))[0].retry_after == pytest.approx(60, abs=1e-3)
        clock.advance(35)
        assert await remaining(counters, "a", SLIDING) == 5

    @pytest.mark.anyio
    async def test_of_a_sliding_window_that_is_over_what_is_counted_later_can_still_count(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        await hit(counters, "b", SLIDING)  # so that windows begin here
        clock.advance(10)
        await hit(counters, "a", SLIDING, 3)
        clock.advance(40)
        [looked] = await counters.peek([Hit("a", SLIDING, 0)])
        clock.advance(25)
        assert await remaining(counters, "a", SLIDING) == 10
        await counters.settle([Change("a", SLIDING, 4, looked.counted)])
        for seconds, left in ((0, 6), (34.99, 6), (0.01, 10)):
            clock.advance(seconds)
            assert await remaining(counters, "a", SLIDING) == left

    @pytest.mark.anyio
    async def test_a_log_corrects_no_other_moment(self, clock: FakeClock, counters: Counters) -> None:
        [looked] = await counters.peek([Hit("a", LOG, 0)])
        for cost in (1, 2):
            clock.advance(20)
            tally = await hit(counters, "a", LOG, cost)
        await counters.settle([Change("a", LOG, -2, looked.counted)])
        assert await remaining(counters, "a", LOG) == 7
        await counters.settle([Change("a", LOG, 4, looked.counted)])
        for seconds, left in ((0.0, 3), (19.999, 3), (0.001, 7), (20, 8), (20, 10)):
            clock.advance(seconds)
            assert await remaining(counters, "a", LOG) == left
        assert tally.allowed

    @pytest.mark.anyio
    @pytest.mark.parametrize("kept", [1, 3])
    async def test_a_log_is_whole_again_when_the_newest_unit_is_that_was_not_given_back(
        self, clock: FakeClock, counters: Counters, kept: int
    ) -> None:
        many, tallies = LOG._replace(quota=1_000), []
        for _ in range(200):
            tallies.append(await hit(counters, "a", many, 2))
            clock.advance(0.1)
        for tally in [*tallies[kept:-1], tallies[-1]]:
            await counters.settle([Change("a", many, -2, tally.counted)])
        [told] = await counters.peek([Hit("a", many)])
        assert (told.remaining, told.reset) == (1_000 - 2 * kept, pytest.approx(40 + 0.1 * (kept - 1), abs=0.01))
        assert (await hit(counters, "a", many)).remaining == 999 - 2 * kept
        clock.advance(told.reset)
        assert await remaining(counters, "a", many) == 999
        await counters.settle([Change("a", many, 5, tallies[-1].counted)])
        assert await remaining(counters, "a", many) == 994

    @pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
    @pytest.mark.anyio
    async def test_moments_of_a_log_may_be_told_in_any_order(
        self, clock: FakeClock, counters: Counters, order: list[int]
    ) -> None:
        looked = []
        for _ in range(4):
            clock.advance(10)
            looked += await counters.peek([Hit("a", LOG, 0)])
        for position in order:
            await counters.settle([Change("a", LOG, position + 1, looked[position].counted)])
        await hit(counters, "b", LOG)
        clock.advance(20)
        for left in (0, 1, 3, 6, 10):
            assert await remaining(counters, "a", LOG) == left
            clock.advance(10)

    @pytest.mark.anyio
    async def test_a_bucket_that_holds_more_takes_units_back_for_a_window(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        """It may have been full meanwhile, so that they would come back twice; what was used more counts for longer."""
        limit = Limit(2, 1.0, "bucket", "here/bucket", burst=10)
        told = [await hit(counters, "a", limit) for _ in range(10)]
        clock.advance(0.9)
        await counters.settle([Change("a", limit, -1, each.counted) for each in told[:4]])
        assert await remaining(counters, "a", limit) == 5
        clock.advance(0.2)
        await counters.settle([Change("a", limit, -1, each.counted) for each in told[4:]])
        assert await remaining(counters, "a", limit) == 6
        await counters.settle([Change("a", limit, 2, told[0].counted)])
        assert await remaining(counters, "a", limit) == 4

    @pytest.mark.anyio
    async def test_a_bucket_that_holds_less_is_full_again_earlier(self, clock: FakeClock, counters: Counters) -> None:
        limit = BUCKET._replace(burst=2)
        tally = await hit(counters, "a", limit, 2)
        clock.advance(12.1)
        await hit(counters, "a", limit)
        await counters.settle([Change("a", limit, -1, tally.counted), Change("a", limit, -1, tally.counted)])
        assert await remaining(counters, "a", limit) == 1

    @ALL
    @pytest.mark.anyio
    async def test_a_correction_touches_its_own_counter_only(self, counters: Counters, limit: Limit) -> None:
        other = limit._replace(place="there")
        told = await counters.hit([Hit("a", limit, 3), Hit("b", limit, 3), Hit("a", other, 3)])
        await counters.settle([Change("a", limit, -2, told[0].counted), Change("a", other, 4, told[2].counted)])
        assert [await remaining(counters, *each) for each in (("a", limit), ("b", limit), ("a", other))] == [9, 7, 3]

    @ALL
    @pytest.mark.anyio
    async def test_a_counter_stands_where_it_is_put(self, clock: FakeClock, counters: Counters, limit: Limit) -> None:
        for _ in range(3):
            await hit(counters, "a", limit, 3)
            clock.advance(25)
        for units, left in ((4, 6), (0, 10), (9, 1), (10, 0), (25, 0), (1, 9)):
            await counters.assign([Hit("a", limit, units), Hit("b", limit, 2)])
            assert [await remaining(counters, key, limit) for key in "ab"] == [left, 8]
        assert [(await hit(counters, "a", limit, cost)).allowed for cost in (10, 9)] == [False, True]

    @ALL
    @pytest.mark.anyio
    async def test_what_was_put_counts_as_used_just_now(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        clock.advance(25)
        used, put = limit._replace(place="here/used"), limit._replace(place="here/put")
        tally = await hit(counters, "a", used, 10)
        await counters.assign([Hit("a", put, 10)])
        [told] = await counters.peek([Hit("a", put, 10)])
        assert told[:4] == (False, 0, pytest.approx(tally.reset, abs=1e-3), pytest.approx(tally.retry_after, abs=1e-3))

    @ALL
    @pytest.mark.anyio
    async def test_what_was_put_beyond_the_quota_must_be_worked_off(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        await counters.assign([Hit("a", limit, 25)])
        [told] = await counters.peek([Hit("a", limit, 4)])
        clock.advance(told.retry_after - 0.001)
        assert not (await hit(counters, "a", limit, 4)).allowed
        clock.advance(0.001)
        assert (await hit(counters, "a", limit, 4)).allowed

    # What policies make of it

    @pytest.mark.parametrize("window", ["fixed", "sliding", "log", "bucket"])
    @pytest.mark.anyio
    async def test_who_is_counted_afterwards_is_refused_in_the_end(
        self, clock: FakeClock, counters: Counters, window: Any
    ) -> None:
        env = Env(counters=counters, clock=clock, place="here")
        limit = RateLimit(calls=3, per=600, window=window, increment="afterwards")
        guarded, told = Stack(limit, env=env)(answering), []
        for _ in range(5):
            told.append((await call(guarded)).status)
            await Standings(env).settled()
        assert told == [200, 200, 200, 429, 429]

    @pytest.mark.parametrize("seconds", [10, 50, 70, 130])
    @pytest.mark.parametrize("window", ["fixed", "sliding", "log", "bucket"])
    @pytest.mark.anyio
    async def test_bytes_of_a_response_count_however_long_it_takes(
        self, clock: FakeClock, counters: Counters, window: Any, seconds: float
    ) -> None:
        """What it held while under way may be over."""

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            clock.advance(seconds)
            await answering(scope, receive, send)

        env = Env(counters=counters, clock=clock, place="here")
        limit = RateLimit(calls=10_000, per=60, window=window, units="response-bytes")
        limited = Stack(limit, env=env)(slow)
        assert (await call(limited)).status == 200
        await Standings(env).settled()
        [standing] = await Standings(env).read(limit, "203.0.113.7")
        assert 999 <= standing.used <= 1_000

    # Several limits, several keys

    @pytest.mark.anyio
    async def test_several_limits_all_count_or_none_does(self, counters: Counters) -> None:
        small = SLIDING._replace(quota=2)
        both = [Hit("a", FIXED, 1), Hit("a", small, 1)]
        assert [await allowed(counters, both) for _ in range(4)] == [[True, True]] * 2 + [[True, False]] * 2
        assert [tally.remaining for tally in await counters.peek(both)] == [8, 0]

    @pytest.mark.anyio
    async def test_of_all_algorithms_together_all_count_or_none_does(self, counters: Counters) -> None:
        hits = [Hit("a", limit, 3) for limit in (FIXED, SLIDING, LOG, BUCKET, CALENDAR, LIFETIME)]
        assert await allowed(counters, hits) == [True] * 6
        for position, hit in enumerate(hits):
            several = [*hits[:position], hit._replace(cost=8), *hits[position + 1 :]]
            assert await allowed(counters, several) == [other != position for other in range(6)]
            assert [tally.remaining for tally in await counters.peek(hits)] == [7] * 6

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
        for limit in (FIXED, SLIDING, LOG, BUCKET, CALENDAR):
            await hit(counters, "c", limit, 2)
            assert await allowed(counters, [Hit("c", limit, 3), Hit("c", limit, 3), Hit("c", limit, 3)]) != [True] * 3
            assert (await counters.peek([Hit("c", limit)]))[0].remaining == 8

    @pytest.mark.anyio
    async def test_nothing_to_count_is_nothing_to_say(self, counters: Counters) -> None:
        assert await counters.hit([]) == await counters.peek([]) == []
        for nothing in (counters.settle([]), counters.assign([]), counters.reset([])):
            await nothing

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
            Limit(1, 60.0, "log", "p"), Limit(1, 60.0, "fixed", "p", start=1.0), Limit(1, math.inf, "fixed", "p"),
            Limit(1, 60.0, "bucket", "p"), Limit(1, 60.0, "bucket", "p", burst=2), Limit(2, 60.0, "fixed", "p"),
            Limit(1, 60.0, "calendar", "p", calendar="day UTC"), Limit(1, 60.0, "calendar", "p", calendar="month UTC"),
        ]  # fmt: skip
        assert [(await hit(counters, "a", limit)).allowed for limit in limits] == [True] * len(limits)

    @ALL
    @pytest.mark.anyio
    async def test_of_a_thousand_at_once_exactly_the_quota_passes(self, counters: Counters, limit: Limit) -> None:
        limit = limit._replace(quota=100)
        passed = 0

        async def one() -> None:
            nonlocal passed
            tally = await hit(counters, "a", limit)  # others count meanwhile
            passed += tally.allowed

        async with anyio.create_task_group() as group:
            for _ in range(1_000):
                group.start_soon(one)
        assert passed == 100


class ClockJumps:
    """What a store with two clocks promises besides: the wall clock may be set, and time goes on all the same."""

    @pytest.mark.parametrize("back", [0.0, 0.5, 1.0, 30.0, 59.0, 60.0, 61.0, 3_600.0, 1e9])
    @each_of(FIXED, CALENDAR)
    @pytest.mark.anyio
    async def test_a_clock_set_back_hands_no_window_out_twice(
        self, clock: FakeClock, counters: Counters, limit: Limit, back: float
    ) -> None:
        passed, minute = 0, limit.window / 60
        for quarter in range(4 * 300):
            passed += (await hit(counters, "a", limit)).allowed
            assert passed <= 10 * (1 + quarter // 240)
            if quarter in (119, 480, 700):
                clock.jump(-min(back * minute, 1e9))
            clock.advance(0.25 * minute)
        assert passed >= 30

    @each_of(FIXED, CALENDAR)
    @pytest.mark.anyio
    async def test_a_clock_set_back_blocks_for_two_windows_at_most(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        await hit(counters, "a", limit, 10)
        clock.jump(-1_000_000_007)
        for _ in range(20):
            tally = await hit(counters, "a", limit, 10)
            if not tally.allowed:
                assert 0 < tally.retry_after <= 2 * limit.window
                clock.advance(tally.retry_after)
                assert (await hit(counters, "a", limit, 10)).allowed

    @each_of(SLIDING, LOG, BUCKET)
    @pytest.mark.anyio
    async def test_what_is_no_window_of_the_clock_does_not_look_at_it(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        await hit(counters, "a", limit, 10)
        for jump in (3_600, -7_200, 1_000_000_000, -2_000_000_000):
            clock.jump(jump)
            assert not (await hit(counters, "a", limit)).allowed
        clock.advance(2 * limit.window)
        assert (await hit(counters, "a", limit, 10)).allowed

    @pytest.mark.anyio
    async def test_no_setting_of_the_clock_ends_a_window_without_end(
        self, clock: FakeClock, counters: Counters
    ) -> None:
        await hit(counters, "a", LIFETIME, 10)
        for jump in (3_600, -7_200, 1_000_000_000, -2_000_000_000):
            clock.jump(jump)
            assert not (await hit(counters, "a", LIFETIME)).allowed


class PermitsConformance:
    """What every version of ``Permits`` must do."""

    @pytest.fixture
    def permits(self) -> Permits:
        """The store under test."""
        raise NotImplementedError

    @pytest.mark.anyio
    async def test_as_many_are_let_in_as_there_is_room_for(self, permits: Permits) -> None:
        told = [await permits.acquire("a", 3, f"holder-{number}") for number in range(5)]
        assert told == [(True, 1), (True, 2), (True, 3), (False, 3), (False, 3)]

    @pytest.mark.anyio
    async def test_who_leaves_makes_room_for_one(self, permits: Permits) -> None:
        for holder in "xyz":
            await permits.acquire("a", 3, holder)
        await permits.release("a", "y")
        assert [await permits.acquire("a", 3, holder) for holder in "vw"] == [(True, 3), (False, 3)]

    @pytest.mark.anyio
    async def test_each_key_has_a_room_of_its_own(self, permits: Permits) -> None:
        for key in HOSTILE * 2:
            assert await permits.acquire(key, 1, f"holder of {key}") == (True, 1)
            assert await permits.acquire(key, 1, "another") == (False, 1)

    @pytest.mark.anyio
    async def test_who_is_in_is_not_let_in_twice(self, permits: Permits) -> None:
        assert [await permits.acquire("a", 2, "x") for _ in range(3)] == [(True, 1)] * 3
        await permits.release("a", "x")
        assert await permits.acquire("a", 1, "y") == (True, 1)

    @pytest.mark.anyio
    async def test_who_is_not_in_cannot_leave(self, permits: Permits) -> None:
        await permits.release("a", "x")
        await permits.acquire("a", 1, "x")
        for _ in range(2):
            await permits.release("a", "y")
            await permits.release("b", "x")
        assert await permits.acquire("a", 1, "y") == (False, 1)

    @pytest.mark.anyio
    async def test_where_there_is_less_room_than_before_nobody_is_thrown_out(self, permits: Permits) -> None:
        for holder in "xyz":
            await permits.acquire("a", 3, holder)
        assert await permits.acquire("a", 1, "w") == (False, 3)
        for holder in "xyz":
            await permits.release("a", holder)
        assert await permits.acquire("a", 1, "w") == (True, 1)

    @pytest.mark.anyio
    async def test_of_a_hundred_at_the_door_exactly_as_many_get_in_as_there_is_room_for(self, permits: Permits) -> None:
        inside = []

        async def one(holder: str) -> None:
            if (await permits.acquire("a", 10, holder))[0]:
                inside.append(holder)

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, f"holder-{number}")
        assert len(inside) == 10
