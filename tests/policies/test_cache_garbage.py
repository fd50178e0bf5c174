"""The response cache on Redis, and keys there that hold something else."""

import itertools
from collections.abc import AsyncIterator

import pytest
import redis
from tests.servers import RedisServer

from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.stores.redis import RedisEntries
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import Receive, Scope, Send

from .caching import status

pytestmark = pytest.mark.anyio

prefixes = map("test{}".format, itertools.count())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def entries(server: RedisServer) -> AsyncIterator[RedisEntries]:
    store = RedisEntries(server.url, prefix=next(prefixes), timeout=20.0)
    yield store
    await store.aclose()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\xff" * 64, b"\x00" * 64])
async def test_a_key_that_holds_something_else_is_in_the_way_once_at_most(
    server: RedisServer, entries: RedisEntries, garbage: bytes
) -> None:
    clock = FakeClock()
    cached = Stack(Cache(), env=Env(clock=clock, entries=entries), place="here")(app)
    await call(cached)
    client = redis.Redis.from_url(server.url)
    for key in client.keys("*!entry|*"):
        client.set(key, garbage)
    client.close()
    told = []
    for _ in range(3):
        told.append(status(await call(cached)))
        clock.advance(1)
    assert told[0] in ("apim;fwd=bypass", "apim;fwd=uri-miss;stored")
    assert told[2].startswith("apim;hit")
