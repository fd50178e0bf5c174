"""``reachable`` asks any store of ours whether it is there, ``Health(stores=True)`` all that an ``Env`` was given."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.servers import RedisServer, redis_server

from apim_middleware.configuration import loads
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.policy import Stack
from apim_middleware.serving.health import Health
from apim_middleware.serving.stores import Store, reachable
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.stores.records import MemoryRecords
from apim_middleware.stores.redis.counters import RedisCounters
from apim_middleware.stores.redis.entries import RedisEntries
from apim_middleware.stores.redis.permits import RedisPermits
from apim_middleware.stores.redis.records import RedisRecords
from apim_middleware.stores.sqlite import SQLiteCounters, SQLiteEntries, SQLitePermits, SQLiteRecords
from apim_middleware.testing import FakeClock, call

pytestmark = pytest.mark.anyio

REDIS = [RedisCounters, RedisEntries, RedisPermits, RedisRecords]
SQLITE = [SQLiteCounters, SQLiteEntries, SQLitePermits, SQLiteRecords]
MEMORY = [MemoryCounters, MemoryEntries, MemoryPermits, MemoryRecords]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody asks for this")


@pytest.mark.parametrize("kind", REDIS)
async def test_a_store_on_redis_is_reachable_until_it_is_gone(kind: Callable[[str], Any], server: RedisServer) -> None:
    store = kind(server.url)
    try:
        await reachable(store)()
        with redis.Redis.from_url(server.url) as client:
            assert client.keys("*readiness*") == []
        server.stop()
        with pytest.raises(StoreError):
            await reachable(store)()
    finally:
        await store.aclose()


@pytest.mark.parametrize("kind", SQLITE)
async def test_a_store_in_a_file_is_reachable_where_there_can_be_one(
    kind: Callable[[str], Any], tmp_path: Path
) -> None:
    await reachable(kind(str(tmp_path / "store.db")))()
    (folder := tmp_path / "unmounted").mkdir()
    store = kind(str(folder / "store.db"))
    folder.rmdir()
    with pytest.raises(StoreError):
        await reachable(store)()


@pytest.mark.parametrize("kind", MEMORY)
async def test_a_store_in_memory_is_always_reachable(kind: Callable[[], Store]) -> None:
    assert await reachable(kind())() is not False


@pytest.mark.parametrize("given", ["redis://user:secret@store", RedisCounters, None])
def test_what_is_no_store_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(ConfigError, match="Give the store") as caught:
        reachable(given)
    assert "secret" not in str(caught.value)


async def test_a_process_is_ready_when_the_stores_it_was_given_answer(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    counters, permits = RedisCounters(server.url), RedisPermits(server.url)
    env = Env(clock=FakeClock(), counters=counters, permits=permits)
    health = Health(stores=True, remember_for=0, checks={"mine": lambda: True})
    layer, other = Stack(health, env=env)(app), Stack(Health(), env=env)(app)
    try:
        assert (await call(layer, path="/readyz")).status == 200
        server.stop()
        assert (await call(layer, path="/readyz")).status == 503
        assert caplog.messages == ["not ready: counters, permits"]
        assert (await call(other, path="/readyz")).status == 200
    finally:
        await counters.aclose()
        await permits.aclose()


FILE = """
[[apis]]
name = "orders"
path = "/orders"
backend = {{ ref = "app" }}
subscription_required = false

[env]
use = "Env"
place = "shop"
counters = {{ use = "RedisCounters", redis = "{url}" }}

[[policies]]
use = "Health"
stores = true
remember_for = 0
"""


async def test_a_file_can_ask_for_it(server: RedisServer) -> None:
    gateway = loads(FILE.format(url=server.url), names={"app": app})
    assert (await call(gateway, path="/readyz")).status == 200
    server.stop()
    assert (await call(gateway, path="/readyz")).status == 503
