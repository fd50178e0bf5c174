"""Permits in Redis: the promises of every store, and what leases add to them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis
from tests.servers import RedisServer, redis_server

from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.stores.redis import RedisPermits
from apim_middleware.testing import FakeClock

from .conformance import PermitsConformance

DOOR = "{apim}!permits|a"


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def permits(
    shared_redis: RedisServer, emptied_redis: redis.Redis, clock: FakeClock
) -> AsyncIterator[RedisPermits]:
    store = RedisPermits(shared_redis.url, clock=clock, lease=15.0)
    yield store
    await store.aclose()


class TestRedisPermits(PermitsConformance):
    @pytest.fixture
    def permits(self, permits: RedisPermits) -> RedisPermits:
        return permits


async def come_true(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.001)


@pytest.mark.anyio
async def test_a_lease_that_nobody_renews_ends(permits: RedisPermits, clock: FakeClock) -> None:
    assert await permits.acquire("a", 1, "x") == (True, 1)
    clock.advance(14.999)
    assert await permits.acquire("a", 1, "y") == (False, 1)
    clock.advance(0.001)
    assert await permits.acquire("a", 1, "y") == (True, 1)


@pytest.mark.anyio
async def test_what_is_held_is_renewed(permits: RedisPermits, clock: FakeClock) -> None:
    for holder in "xyz":
        await permits.acquire("a", 3, holder)
    await permits.release("a", "z")
    clock.advance(10)
    await permits._renew()
    clock.advance(10)
    assert await permits.acquire("a", 2, "w") == (False, 2)


@pytest.mark.anyio
async def test_it_renews_by_itself_while_somebody_is_in(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    permits = RedisPermits(shared_redis.url, lease=0.03)
    await permits.acquire("a", 1, "x")
    first = emptied_redis.zscore(DOOR, "x")
    await come_true(lambda: (emptied_redis.zscore(DOOR, "x") or 0.0) > first + 60_000)  # two leases later
    await permits.release("a", "x")
    assert permits._timer is None
    await permits.aclose()


@pytest.mark.anyio
async def test_a_timer_runs_only_while_somebody_is_in(permits: RedisPermits) -> None:
    assert permits._timer is None
    await permits.acquire("a", 1, "x")
    await permits.acquire("b", 1, "x")
    assert permits._timer is not None
    await permits.release("a", "x")
    assert permits._timer is not None
    await permits.release("b", "x")
    assert permits._timer is None


@pytest.mark.anyio
async def test_who_is_in_is_entered_again_when_the_server_forgot(
    permits: RedisPermits, emptied_redis: redis.Redis
) -> None:
    for holder in "xy":
        await permits.acquire("a", 2, holder)
    emptied_redis.flushall()
    await permits._renew()
    assert await permits.acquire("a", 2, "z") == (False, 2)


@pytest.mark.anyio
async def test_many_are_renewed_in_few_round_trips(permits: RedisPermits, emptied_redis: redis.Redis) -> None:
    async with anyio.create_task_group() as group:
        for number in range(1_000):
            group.start_soon(permits.acquire, f"door-{number % 7}", 1_000, f"holder-{number}")
    emptied_redis.config_resetstat()
    await permits._renew()
    assert emptied_redis.info("commandstats")["cmdstat_evalsha"]["calls"] <= 40


@pytest.mark.anyio
async def test_a_permit_lent_to_a_caller_who_was_cancelled_is_given_back(
    permits: RedisPermits, emptied_redis: redis.Redis
) -> None:
    await permits.acquire("b", 1, "x")  # so that there is a connection
    asked = asyncio.ensure_future(permits.acquire("a", 1, "x"))
    for _ in range(3):  # so that the question is on its way
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    while not (await permits.acquire("a", 1, "y"))[0]:
        pass
    assert emptied_redis.zrange(DOOR, 0, -1) == [b"y"]


@pytest.mark.anyio
async def test_a_permit_lent_late_to_a_caller_who_was_cancelled_is_given_back(tmp_path: Path) -> None:
    """The server stood still, and lent it when it went on."""
    with redis_server(tmp_path) as server, redis.Redis.from_url(server.url) as admin:
        permits = RedisPermits(server.url, connect=20.0, timeout=0.25, lease=3_600.0)
        await permits.acquire("b", 1, "x")
        server.freeze()
        asked = asyncio.ensure_future(permits.acquire("a", 1, "x"))
        for _ in range(3):
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await asyncio.wait(permits._lanes[b"{apim}"]._carriers)  # until it is known that there is no answer
        server.thaw()
        await come_true(lambda: evaluated(admin) >= 3)
        assert not admin.exists(DOOR)
        await permits.aclose()


def evaluated(admin: redis.Redis) -> int:
    """How many scripts ran, of those that were known."""
    return int(admin.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


@pytest.mark.anyio
async def test_a_key_of_another_kind_lends_nothing_that_could_not_be_given_back(
    permits: RedisPermits, emptied_redis: redis.Redis
) -> None:
    emptied_redis.set(DOOR, "text")
    await permits.release("a", "x")
    emptied_redis.delete(DOOR)


@pytest.mark.anyio
async def test_a_release_that_is_cancelled_happens_all_the_same(
    permits: RedisPermits, emptied_redis: redis.Redis
) -> None:
    await permits.acquire("a", 1, "x")
    releasing = asyncio.ensure_future(permits.release("a", "x"))
    await asyncio.sleep(0)
    releasing.cancel()
    while not (await permits.acquire("a", 1, "y"))[0]:
        pass


@pytest.mark.anyio
async def test_closing_lets_everybody_out(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    permits = RedisPermits(shared_redis.url)
    for holder in "xyz":
        await permits.acquire("a", 3, holder)
    await permits.aclose()
    assert not emptied_redis.keys()
    with pytest.raises(StoreError, match="is closed"):
        await permits.acquire("a", 3, "x")


@pytest.mark.anyio
async def test_who_comes_in_while_it_closes_is_let_out_too(
    shared_redis: RedisServer, emptied_redis: redis.Redis
) -> None:
    """Found by trying: the permit was renewed by nobody, and the timer that should have done so ran for ever."""
    permits = RedisPermits(shared_redis.url)
    entering = asyncio.ensure_future(permits.acquire("a", 3, "x"))
    await asyncio.sleep(0)
    await permits.aclose()
    assert await entering == (True, 1)
    assert not emptied_redis.keys()
    assert permits._timer is None


@pytest.mark.anyio
async def test_every_key_expires(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    permits = RedisPermits(shared_redis.url, lease=20.0)
    await permits.acquire("a", 1, "x")
    assert 19_000 < emptied_redis.pttl(DOOR) <= 20_001
    await permits.aclose()


@pytest.mark.anyio
async def test_a_key_of_another_kind_spoils_its_own_call_only(
    permits: RedisPermits, emptied_redis: redis.Redis
) -> None:
    emptied_redis.set(DOOR, "text")
    told = await asyncio.gather(
        permits.acquire("a", 1, "x"), permits.acquire("b", 1, "x"), return_exceptions=True
    )  # fmt: skip
    assert isinstance(told[0], StoreError)
    assert "WRONGTYPE" in str(told[0])
    assert told[1] == (True, 1)
    emptied_redis.delete(DOOR)


@pytest.mark.parametrize("lease", [0.0, -1.0, float("inf"), float("nan"), "15", None])
def test_a_lease_must_be_some_time(lease: Any) -> None:
    with pytest.raises(ConfigError, match=r"RedisPermits\.lease"):
        RedisPermits("redis://localhost", lease=lease)
