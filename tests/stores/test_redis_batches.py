"""Hits on their way to Redis: those of one tick travel together, and nobody's fate is another's."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
import uvloop
from tests.servers import RedisServer

from apim_middleware.errors import StoreError
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.redis import RedisCounters
from apim_middleware.stores.redis.lanes import Lane

LIMIT = Limit(1_000, 3_600.0, "fixed", "here")


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
async def counters(shared_redis: RedisServer, emptied_redis: redis.Redis) -> AsyncIterator[RedisCounters]:
    store = RedisCounters(shared_redis.url, timeout=20.0, max_waiting=100)
    await store.hit([Hit("first", LIMIT)])
    emptied_redis.config_resetstat()
    yield store
    await store.aclose()


def scripts(admin: redis.Redis) -> int:
    """How many have run."""
    found: dict[str, dict[str, int]] = admin.info("commandstats")
    return found.get("cmdstat_evalsha", {}).get("calls", 0)


@pytest.mark.anyio
async def test_hits_of_one_tick_are_one_script(counters: RedisCounters, emptied_redis: redis.Redis) -> None:
    several = [LIMIT, LIMIT._replace(algorithm="sliding"), LIMIT._replace(algorithm="bucket")]
    told = await asyncio.gather(*[counters.hit([Hit(f"{n}", limit) for limit in several]) for n in range(30)])
    assert all(tally.allowed for tallies in told for tally in tallies)
    assert scripts(emptied_redis) == 1


@pytest.mark.anyio
async def test_many_hits_are_several_scripts(counters: RedisCounters, emptied_redis: redis.Redis) -> None:
    """So that the server does not stand still for others."""
    told = await asyncio.gather(*[counters.hit([Hit("a", LIMIT)]) for _ in range(100)])
    assert [tallies[0].remaining for tallies in told] == [*range(999, 899, -1)]  # first come, first served
    assert scripts(emptied_redis) == 4


@pytest.mark.anyio
@pytest.mark.parametrize("count", [199, 200, 201, 333, 1_500])
async def test_a_decision_over_many_counters_is_told_of_each(counters: RedisCounters, count: int) -> None:
    """More numbers than the script handles at once, there and back."""
    limits = [LIMIT._replace(quota=1_000 + number) for number in range(count)]
    for used in (1, 2):
        told = await counters.hit([Hit("a", limit) for limit in limits])
        assert [tally.remaining for tally in told] == [limit.quota - used for limit in limits]


@pytest.mark.anyio
async def test_different_calls_travel_together_and_in_order(
    counters: RedisCounters, emptied_redis: redis.Redis
) -> None:
    hit = [Hit("a", LIMIT, 10)]
    told = await asyncio.gather(
        counters.hit(hit), counters.peek(hit), counters.assign([Hit("a", LIMIT, 500)]), counters.peek(hit),
        counters.reset(hit), counters.hit(hit),
    )  # fmt: skip
    assert [tallies[0].remaining for tallies in told if tallies] == [990, 990, 500, 990]
    assert scripts(emptied_redis) == 1


@pytest.mark.anyio
async def test_more_than_may_wait_are_told_so_at_once(counters: RedisCounters) -> None:
    told = await asyncio.gather(*[counters.hit([Hit("a", LIMIT)]) for _ in range(110)], return_exceptions=True)
    assert [isinstance(each, StoreError) for each in told] == [False] * 100 + [True] * 10
    assert (await counters.peek([Hit("a", LIMIT)]))[0].remaining == 900


@pytest.mark.anyio
async def test_a_hit_that_is_cancelled_before_it_left_is_not_counted(counters: RedisCounters) -> None:
    asked = [asyncio.ensure_future(counters.hit([Hit("a", LIMIT)])) for _ in range(10)]
    await asyncio.sleep(0)
    for each in asked[::2]:
        each.cancel()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in told] == [True, False] * 5
    assert (await counters.peek([Hit("a", LIMIT)]))[0].remaining == 995


@pytest.mark.anyio
async def test_a_hit_that_is_cancelled_on_its_way_spoils_nothing(counters: RedisCounters) -> None:
    asked = [asyncio.ensure_future(counters.hit([Hit("a", LIMIT)])) for _ in range(10)]
    for _ in range(3):
        await asyncio.sleep(0)
    for each in asked[::2]:
        each.cancel()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert [each[0].remaining for each in told if not isinstance(each, BaseException)] == [998, 996, 994, 992, 990]


@pytest.mark.anyio
async def test_whoever_comes_at_whatever_moment_is_served(counters: RedisCounters) -> None:
    """Also when all others are about to be done."""

    async def caller(number: int) -> None:
        for _ in range(40):
            for _ in range(number):
                await asyncio.sleep(0)
            assert (await counters.hit([Hit(f"{number}", LIMIT)]))[0].allowed

    await asyncio.gather(*[caller(number) for number in range(12)])


@pytest.mark.anyio
async def test_a_mistake_of_one_caller_is_theirs_alone(counters: RedisCounters) -> None:
    nonsense = LIMIT._replace(algorithm="calendar", calendar="moon UTC")
    mistaken, well = await asyncio.gather(
        counters.hit([Hit("a", nonsense)]), counters.hit([Hit("a", LIMIT)]), return_exceptions=True
    )
    assert isinstance(mistaken, ValueError)
    assert not isinstance(well, BaseException)


@pytest.mark.anyio
async def test_closing_waits_for_what_is_on_its_way(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    counters = RedisCounters(shared_redis.url)
    asked = [asyncio.ensure_future(counters.hit([Hit("a", LIMIT)])) for _ in range(300)]
    await asyncio.sleep(0)
    await counters.aclose()
    assert all(tally.allowed for [tally] in await asyncio.gather(*asked))


def test_another_event_loop_for_asyncio_serves_as_well(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    async def count() -> list[int]:
        counters = RedisCounters(shared_redis.url)
        told = await asyncio.gather(*[counters.hit([Hit("a", LIMIT)]) for _ in range(100)])
        await counters.aclose()
        return [tally.remaining for [tally] in told]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(count()) == [*range(999, 899, -1)]


@pytest.mark.anyio
async def test_who_has_no_answer_among_those_of_a_batch_is_told_so() -> None:
    """And does not wait for ever."""

    async def carry(questions: list[int]) -> list[int | StoreError]:
        return questions[:-1]

    lane: Lane[int, int] = Lane(carry, 10)
    loop = asyncio.get_running_loop()
    asked = [lane.ask(number, loop) for number in range(3)]
    told = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
    assert [str(each) for each in told] == ["the store answered 2 of 3 questions"] * 3
