"""What Redis is left with: names that say whose they are, an end to each, and in a cluster one place for each call."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import redis
import redis.asyncio
from tests.servers import RedisServer, free_port, redis_server

from apim_middleware.errors import NotDone, StoreError
from apim_middleware.protocols import Change, Hit, Limit
from apim_middleware.stores.redis import RedisCounters, RedisPermits
from apim_middleware.stores.redis.decisions import name_of

LIMITS = [
    Limit(10, 60.0, "fixed", "p"),
    Limit(10, 60.0, "sliding", "p"),
    Limit(10, 60.0, "log", "p"),
    Limit(10, 60.0, "bucket", "p"),
    Limit(10, 86_400.0, "calendar", "p", calendar="day UTC"),
]


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
async def counters(shared_redis: RedisServer, emptied_redis: redis.Redis) -> AsyncIterator[RedisCounters]:
    store = RedisCounters(shared_redis.url)
    yield store
    await store.aclose()


@pytest.mark.anyio
async def test_a_key_says_whose_it_is(counters: RedisCounters, emptied_redis: redis.Redis) -> None:
    await counters.hit([Hit("client-7", Limit(10, 0.5, "fixed", "shop/RateLimit/burst"))])
    assert emptied_redis.keys() == [b"{apim}shop/RateLimit/burst|fixed|10/0.5||||client-7"]


def test_no_name_of_a_limit_begins_another() -> None:
    usual = Limit(10, 60.0, "fixed", "p")
    limits = [
        usual, Limit(1, 60.0, "fixed", "p"), Limit(10, 6.0, "fixed", "p"), Limit(10, 60.5, "fixed", "p"),
        Limit(10, math.inf, "fixed", "p"), Limit(10, 60.0, "fixed", ""), Limit(10, 60.0, "fixed", "p|fixed"),
        Limit(10, 60.0, "fixed", "p%7Cfixed"), usual._replace(start=30.0), usual._replace(start=3.0),
        usual._replace(start=-30.0), usual._replace(start=0.5), usual._replace(burst=30), usual._replace(calendar="x"),
        usual._replace(calendar="x|"), usual._replace(algorithm="log"),
    ]  # fmt: skip
    names = [name_of(limit) for limit in limits]
    assert not [(one, other) for one in names for other in names if one is not other and other.startswith(one)]
    assert name_of(usual) == name_of(Limit(10, 60, "fixed", "p", 0, 0))  # equal, however written


@pytest.mark.parametrize("limit", LIMITS, ids=[limit.algorithm for limit in LIMITS])
@pytest.mark.anyio
async def test_every_counter_expires_when_nothing_of_it_counts(
    counters: RedisCounters, emptied_redis: redis.Redis, limit: Limit
) -> None:
    for cost in (3, 0, 1):
        [tally] = await counters.hit([Hit("a", limit, cost)])
        left = emptied_redis.pttl(emptied_redis.keys()[0]) / 1_000
        assert tally.reset - 1 < left <= tally.reset + 0.1


@pytest.mark.parametrize("limit", LIMITS, ids=[limit.algorithm for limit in LIMITS])
@pytest.mark.anyio
async def test_what_counts_nothing_leaves_nothing(
    counters: RedisCounters, emptied_redis: redis.Redis, limit: Limit
) -> None:
    await counters.peek([Hit("a", limit)])
    await counters.hit([Hit("a", limit, 11)])
    await counters.hit([Hit("a", limit, 0)])
    [tally] = await counters.hit([Hit("a", limit, 3)])
    await counters.settle([Change("a", limit, -3, tally.counted)])
    await counters.hit([Hit("b", limit, 3)])
    await counters.reset([Hit("b", limit)])
    assert emptied_redis.dbsize() == 0


@pytest.mark.anyio
async def test_a_log_is_as_long_as_what_still_counts(counters: RedisCounters, emptied_redis: redis.Redis) -> None:
    limit = Limit(100_000, 0.02, "log", "p")
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        await counters.hit([Hit("a", limit)])
    [tally] = await counters.peek([Hit("a", limit)])
    used = limit.quota - tally.remaining
    assert emptied_redis.strlen(b"{apim}p|log|100000/0.02||||a") <= 40 + 16 * (2 * max(used, 64) + 200)


@pytest.mark.anyio
async def test_the_server_says_the_time(counters: RedisCounters, emptied_redis: redis.Redis) -> None:
    before = emptied_redis.time()
    [tally] = await counters.hit([Hit("a", LIMITS[0])])
    after = emptied_redis.time()
    assert before[0] + before[1] / 1e6 <= tally.counted <= after[0] + after[1] / 1e6


@pytest.mark.anyio
async def test_a_ready_client_is_used_and_left_open(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    async with redis.asyncio.Redis.from_url(shared_redis.url, decode_responses=True) as client:
        counters, permits = RedisCounters(client), RedisPermits(client)
        for limit in LIMITS:
            assert (await counters.hit([Hit("a", limit)]))[0].remaining == 9
        emptied_redis.script_flush()
        assert (await counters.hit([Hit("a", LIMITS[0])]))[0].remaining == 8
        assert await permits.acquire("a", 1, "x") == (True, 1)
        emptied_redis.set("{apim}p|fixed|10/60||||b", "")
        emptied_redis.delete("{apim}p|fixed|10/60||||b")
        emptied_redis.lpush("{apim}p|fixed|10/60||||b", "not ours")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await counters.hit([Hit("b", LIMITS[0])])
        await counters.aclose()
        await permits.aclose()
        assert await client.ping()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cluster of one server, which is as strict as a large one about what belongs together."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(tmp_path_factory.mktemp("cluster"), *options) as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            while admin.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.01)
        yield server


@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.anyio
async def test_a_cluster_counts_too(cluster: RedisServer, shards: int) -> None:
    async with redis.asyncio.RedisCluster.from_url(cluster.url) as client:
        counters = RedisCounters(client, prefix=f"of-{shards}", shards=shards)
        for remaining in (9, 8):
            for number in range(20):
                tallies = await counters.hit([Hit(f"client-{number}", limit) for limit in LIMITS])
                assert {tally.remaining for tally in tallies} == {remaining}
        names = [name async for name in client.scan_iter(match=f"{{of-{shards}*")]
        tags = {name.partition(b"}")[0] for name in names}
        assert len(tags) == shards
        permits = RedisPermits(client, prefix=f"of-{shards}", shards=shards)
        assert [await permits.acquire(f"{number}", 1, "x") for number in range(20)] == [(True, 1)] * 20
        await permits.aclose()
        await counters.aclose()


@pytest.mark.anyio
async def test_keys_in_different_shards_are_no_decision(shared_redis: RedisServer) -> None:
    counters = RedisCounters(shared_redis.url, shards=8)
    with pytest.raises(StoreError, match="shards=1"):
        await counters.hit([Hit(f"client-{number}", LIMITS[0]) for number in range(20)])
    await counters.aclose()


@pytest.mark.anyio
async def test_looking_and_correcting_need_not_be_one_step(
    shared_redis: RedisServer, emptied_redis: redis.Redis
) -> None:
    """Corrections of many callers are made together; refused, they were taken for an outage, and never made."""
    counters = RedisCounters(shared_redis.url, shards=8)
    hits = [Hit(f"client-{number}", LIMITS[0], 2) for number in range(20)]
    counted = [(await counters.hit([hit]))[0].counted for hit in hits]
    await counters.settle([Change(hit.key, hit.limit, -1, at) for hit, at in zip(hits, counted, strict=True)])
    assert [tally.remaining for tally in await counters.peek(hits)] == [9] * 20
    await counters.aclose()


@pytest.mark.anyio
async def test_corrections_of_which_some_were_made_do_not_pass_for_undone(
    shared_redis: RedisServer, emptied_redis: redis.Redis
) -> None:
    """There is room for one call in each shard, and one of them is taken."""
    counters = RedisCounters(shared_redis.url, shards=8, timeout=20.0, max_waiting=1)
    hits = [Hit(f"client-{number}", LIMITS[0], 2) for number in range(20)]
    counted = [(await counters.hit([hit]))[0].counted for hit in hits]
    changes = [Change(hit.key, hit.limit, -1, at) for hit, at in zip(hits, counted, strict=True)]
    settled, _ = await asyncio.gather(counters.settle(changes), counters.hit([hits[0]]), return_exceptions=True)
    assert isinstance(settled, StoreError)
    assert not isinstance(settled, NotDone)
    assert {(await counters.peek([hit]))[0].remaining for hit in hits[1:]} == {8, 9}
    await counters.aclose()
