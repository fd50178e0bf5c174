"""Counters in Redis: the promises of every store, kept by a real server."""

from collections.abc import AsyncIterator

import pytest
import redis
from tests.servers import RedisServer

from apim_middleware.protocols import Change, Counters, Hit, Limit
from apim_middleware.stores.redis import RedisCounters
from apim_middleware.testing import FakeClock

from .conformance import BUCKET, CALENDAR, FIXED, LOG, SLIDING, ClockJumps, CountersConformance, each_of, hit


@pytest.fixture
def anyio_backend() -> str:
    """Drivers of Redis are for asyncio."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def counters(
    shared_redis: RedisServer, emptied_redis: redis.Redis, clock: FakeClock
) -> AsyncIterator[RedisCounters]:
    store = RedisCounters(shared_redis.url, clock=clock)
    yield store
    await store.aclose()


class TestRedisCounters(CountersConformance, ClockJumps):
    """The server has one clock, that of the wall: when it is set forward, time has passed."""

    @pytest.fixture
    def counters(self, counters: RedisCounters) -> RedisCounters:
        return counters

    @pytest.mark.parametrize("back", [0.0, 0.5, 1.0, 30.0, 59.0, 60.0, 61.0, 3_600.0, 1e6])
    @each_of(FIXED, CALENDAR)
    @pytest.mark.anyio
    async def test_a_clock_set_back_hands_no_window_out_twice(
        self, clock: FakeClock, counters: Counters, limit: Limit, back: float
    ) -> None:
        """Nor does it make more than two windows one, each time."""
        passed, minute = 0, limit.window / 60
        for quarter in range(4 * 300):
            passed += (await counters.hit([Hit("a", limit)]))[0].allowed
            assert passed <= 10 * (1 + quarter // 240)
            if quarter in (119, 480, 700):
                clock.jump(-back * minute)
            clock.advance(0.25 * minute)
        assert passed >= 20

    @pytest.mark.parametrize(("later", "comes_back"), [(1_000, 0), (1_001, 1)])
    @pytest.mark.anyio
    async def test_what_a_log_counts_before_a_thousand_others_comes_back_with_the_next(
        self, clock: FakeClock, counters: Counters, later: int, comes_back: int
    ) -> None:
        limit = Limit(10_000, 60.0, "log")
        [looked] = await counters.peek([Hit("a", limit, 0)])
        for _ in range(later):
            clock.advance(1 / 64)
            await counters.hit([Hit("a", limit)])
        await counters.settle([Change("a", limit, 7, looked.counted)])
        clock.advance(60 - later / 64)
        for moment in range(2):
            [tally] = await counters.peek([Hit("a", limit, 0)])
            assert 10_000 - tally.remaining == later - moment + (7 if moment < comes_back else 0)
            clock.advance(1 / 64)

    @each_of(SLIDING, LOG, BUCKET)
    @pytest.mark.anyio
    async def test_what_is_no_window_of_the_clock_does_not_look_at_it(
        self, clock: FakeClock, counters: Counters, limit: Limit
    ) -> None:
        """But for seconds that never were."""
        await hit(counters, "a", limit, 10)
        for jump in (-3_600, -0.5, -1_000_000_000):
            clock.jump(jump)
            assert (await hit(counters, "a", limit))[:2] == (False, 0)
            tally = await hit(counters, "a", limit)
            assert 0 < tally.retry_after < limit.window + 1e-3
        clock.advance(limit.window)
        assert (await hit(counters, "a", limit, 10)).allowed
