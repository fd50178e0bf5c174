"""Records in Redis: the promises of every store, and what becomes of those who follow a server that lost everything."""

from collections.abc import AsyncIterator

import pytest
import redis
from tests.servers import RedisServer
from tests.stores.records_conformance import RecordsConformance

from apim_middleware.errors import FeedLost, StoreError
from apim_middleware.identity import Subscription
from apim_middleware.stores.keys import key_digest
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.stores.redis.records import RedisRecords


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
async def store(shared_redis: RedisServer, emptied_redis: redis.Redis) -> AsyncIterator[RedisRecords]:
    records = RedisRecords(shared_redis.url, max_deleted=3)
    yield records
    await records.aclose()


class TestRedisRecords(RecordsConformance):
    @pytest.fixture
    def records(self, store: RedisRecords) -> RedisRecords:
        return store


@pytest.mark.anyio
async def test_a_server_that_lost_everything_lets_nobody_follow_on(
    store: RedisRecords, emptied_redis: redis.Redis
) -> None:
    before = await store.put("api", "a", {})
    emptied_redis.flushall()
    with pytest.raises(FeedLost):
        await store.changes(before.version)
    await store.put("api", "b", {})
    with pytest.raises(FeedLost):
        await store.changes(before.version)
    assert [each.id for each in await store.changes(0)] == ["b"]


@pytest.mark.anyio
async def test_scripts_that_were_flushed_come_back(store: RedisRecords, emptied_redis: redis.Redis) -> None:
    await store.put("api", "a", {})
    emptied_redis.script_flush()
    assert await store.get("api", "a") is not None


@pytest.mark.anyio
async def test_prefixes_keep_apart(shared_redis: RedisServer, store: RedisRecords) -> None:
    other = RedisRecords(shared_redis.url, prefix="other")
    await store.put("api", "a", {})
    assert await other.get("api", "a") is None
    await other.aclose()


@pytest.mark.anyio
async def test_a_server_that_is_away_is_a_store_error() -> None:
    records = RedisRecords("redis://127.0.0.1:1")
    with pytest.raises(StoreError):
        await records.get("api", "a")
    await records.aclose()
    with pytest.raises(StoreError, match="closed"):
        await records.get("api", "a")


@pytest.mark.anyio
async def test_a_key_of_another_type_is_a_store_error(store: RedisRecords, emptied_redis: redis.Redis) -> None:
    emptied_redis.set("{apim}!records|state", "x")
    with pytest.raises(StoreError):
        await store.put("api", "a", {})


@pytest.mark.anyio
async def test_a_subscription_changed_over_one_connection_is_known_over_another(
    shared_redis: RedisServer, store: RedisRecords
) -> None:
    there = RedisRecords(shared_redis.url)
    keys, others = RecordKeys(store, refresh=0.0), RecordKeys(there, refresh=0.0)
    await keys.add(Subscription(id="ada"), primary=key_digest("k"))
    assert await others.find(key_digest("k")) is not None
    await keys.revoke("ada", "primary")
    assert await others.find(key_digest("k")) is None
    await there.aclose()
