"""A store of responses that is away: nobody waits for it, it is told of once, and found again without a restart."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from tests.servers import RedisServer, redis_server

from apim_middleware._caching.purging import CachedResponses
from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.stores.redis import RedisEntries
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio

BYPASS = "apim;fwd=bypass"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"cache-control", b"max-age=3600"), (b"cache-tag", b"tea")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


class Watched(RedisEntries):
    """Counts how often it is looked into."""

    looks = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.looks += 1
        return await super().get_many(keys)

    async def look(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        self.looks += 1
        return await super().look(keys)

    async def get(self, key: bytes) -> bytes | None:
        self.looks += 1
        return await super().get(key)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def watched(server: RedisServer) -> AsyncIterator[Watched]:
    store = Watched(server.url, timeout=0.25)
    yield store
    await store.aclose()


@pytest.fixture
def env(clock: FakeClock, watched: Watched) -> Env:
    return Env(clock=clock, entries=watched)


@pytest.fixture
def app(env: Env) -> ASGIApp:
    return Stack(Cache(), env=env, place="shop")(answers)


async def kept(app: ASGIApp) -> None:
    """Have a response kept."""
    await call(app)
    assert status(await call(app)).startswith("apim;hit")


async def found_again(app: ASGIApp, clock: FakeClock) -> str:
    """What the first answer says that is not made without the store."""
    while (told := status(await call(app))) == BYPASS:
        clock.advance(20)
    return told


async def test_only_the_first_request_waits_for_a_server_that_stands_still(
    app: ASGIApp, server: RedisServer, watched: Watched
) -> None:
    """Each waited as long as the store has to answer."""
    await kept(app)
    before = watched.looks
    server.freeze()
    try:
        assert [status(await call(app)) for _ in range(20)] == [BYPASS] * 20
    finally:
        server.thaw()
    assert watched.looks == before + 1


async def test_what_it_keeps_is_given_away_again_once_it_goes_on(
    app: ASGIApp, server: RedisServer, clock: FakeClock
) -> None:
    await kept(app)
    server.freeze()
    try:
        assert status(await call(app)) == BYPASS
    finally:
        server.thaw()
    assert (await found_again(app, clock)).startswith("apim;hit")


async def test_one_that_was_killed_is_found_again_when_it_is_back(
    app: ASGIApp, server: RedisServer, clock: FakeClock
) -> None:
    await kept(app)
    server.stop()
    try:
        assert [status(await call(app)) for _ in range(20)] == [BYPASS] * 20
    finally:
        server.start()
    assert await found_again(app, clock) == "apim;fwd=uri-miss;stored"


async def test_all_caches_of_an_environment_learn_it_from_one(env: Env, server: RedisServer, watched: Watched) -> None:
    apps = [Stack(Cache(), env=env, place=place)(answers) for place in ("a", "b", "c")]
    for app in apps:
        await kept(app)
    before = watched.looks
    server.freeze()
    try:
        assert [status(await call(app)) for app in apps] == [BYPASS] * 3
    finally:
        server.thaw()
    assert watched.looks == before + 1


async def test_an_outage_is_told_of_once_and_so_is_its_end(
    app: ASGIApp, server: RedisServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await kept(app)
    server.stop()
    try:
        for _ in range(10):
            await call(app)
            clock.advance(20)
    finally:
        server.start()
    await found_again(app, clock)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


@pytest.mark.parametrize("soft", [False, True])
async def test_a_purge_that_a_server_does_not_hear_is_not_said_to_be_done(
    app: ASGIApp, env: Env, server: RedisServer, soft: bool
) -> None:
    await kept(app)
    server.freeze()
    try:
        await call(app)
        with pytest.raises(StoreError):
            await CachedResponses(env).purge_tag("tea", soft=soft)
    finally:
        server.thaw()


@pytest.mark.parametrize("soft", [False, True])
async def test_a_purge_is_done_as_soon_as_the_server_hears_it(
    app: ASGIApp, env: Env, server: RedisServer, clock: FakeClock, soft: bool
) -> None:
    """However long requests are still to leave it alone."""
    await kept(app)
    server.stop()
    try:
        await call(app)
    finally:
        server.start()
    await CachedResponses(env).purge_tag("tea", soft=soft)
    assert not (await found_again(app, clock)).startswith("apim;hit")


async def test_a_store_that_is_full_still_answers(clock: FakeClock) -> None:
    entries = Elsewhere()
    app = Stack(Cache(), env=Env(clock=clock, entries=entries), place="shop")(answers)
    await kept(app)
    entries.down = {"set", "add"}
    await call(app, path="/other")
    assert status(await call(app)).startswith("apim;hit")


async def test_and_lets_go_of_what_has_changed(clock: FakeClock) -> None:
    entries = Elsewhere()
    app = Stack(Cache(), env=Env(clock=clock, entries=entries), place="shop")(answers)
    await kept(app)
    entries.down = {"set", "add"}
    await call(app, path="/other")
    await call(app, "POST")
    assert entries.kept == {}


@pytest.mark.parametrize("soft", [False, True])
async def test_what_is_in_a_full_store_can_be_purged(clock: FakeClock, soft: bool) -> None:
    entries = Elsewhere()
    env = Env(clock=clock, entries=entries)
    app = Stack(Cache(), env=env, place="shop")(answers)
    await kept(app)
    entries.down = {"set", "add"}
    await CachedResponses(env).purge_tag("tea", soft=soft)
    clock.advance(1)
    assert not status(await call(app)).startswith("apim;hit")
