"""Subscription keys in a Redis server that falls silent: stopped in its tracks, with all connections open."""

from collections.abc import AsyncIterator

import anyio
import pytest
from tests.servers import RedisServer

from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.identity import Subscription
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policy import Stack
from apim_middleware.stores.keys import key_digest
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.stores.redis.records import RedisRecords
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio
TIMEOUT = 2.0


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def records(server: RedisServer) -> AsyncIterator[RedisRecords]:
    made = RedisRecords(server.url, timeout=TIMEOUT)
    yield made
    await made.aclose()


@pytest.fixture
async def keys(records: RedisRecords, clock: FakeClock) -> RecordKeys:
    """Of a process that knows one key as of now."""
    made = RecordKeys(records, clock=clock)
    await made.add(Subscription(id="ada"), primary=key_digest("k"))
    return made


@pytest.fixture
def guarded(keys: RecordKeys, clock: FakeClock) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return Stack(APIKeyAuth(keys=keys, header="x-key"), env=Env(clock=clock))(app)


async def status(app: ASGIApp, key: str) -> int:
    return (await call(app, headers=[(b"x-key", key.encode())])).status


async def test_what_is_known_is_answered_without_waiting_for_a_silent_server(
    server: RedisServer, guarded: ASGIApp, clock: FakeClock
) -> None:
    """Reported by a user: each of them waited for two seconds, sixty in all."""
    server.freeze()
    with anyio.fail_after(TIMEOUT * 0.9):
        for _ in range(30):
            clock.advance(0.1)
            assert await status(guarded, "k") == 200


async def test_of_many_at_once_nobody_waits_for_a_silent_server(
    server: RedisServer, guarded: ASGIApp, clock: FakeClock
) -> None:
    server.freeze()
    clock.advance(1.0)
    told: list[int] = []

    async def ask() -> None:
        told.append(await status(guarded, "k"))

    with anyio.fail_after(TIMEOUT * 0.9):
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(ask)
    assert told == [200] * 30


async def test_once_it_is_known_to_be_silent_everybody_is_refused_at_once(
    server: RedisServer, guarded: ASGIApp, clock: FakeClock
) -> None:
    server.freeze()
    clock.advance(5.001)
    assert await status(guarded, "k") == 503
    with anyio.fail_after(TIMEOUT * 0.9):
        for _ in range(30):
            assert await status(guarded, "k") == 503


async def test_who_finds_out_that_it_is_still_silent_is_not_kept_long(
    server: RedisServer, guarded: ASGIApp, clock: FakeClock
) -> None:
    server.freeze()
    clock.advance(5.001)
    assert await status(guarded, "k") == 503
    clock.advance(10.0)
    with anyio.fail_after(TIMEOUT * 0.9):
        for _ in range(5):
            assert await status(guarded, "k") == 503


async def test_an_unknown_key_is_neither_refused_for_good_nor_let_in(
    server: RedisServer, guarded: ASGIApp, clock: FakeClock
) -> None:
    server.freeze()
    clock.advance(1.0)
    assert [await status(guarded, f"unknown-{number}") for number in range(3)] == [503] * 3


async def test_everybody_is_served_when_it_goes_on(server: RedisServer, guarded: ASGIApp, clock: FakeClock) -> None:
    server.freeze()
    clock.advance(5.001)
    assert await status(guarded, "k") == 503
    server.thaw()
    clock.advance(10.0)
    assert await status(guarded, "k") == 200
    assert await status(guarded, "unknown") == 401


async def test_a_key_revoked_elsewhere_works_for_no_longer_than_stale(
    server: RedisServer, keys: RecordKeys, records: RedisRecords, clock: FakeClock
) -> None:
    await RecordKeys(records, clock=clock).revoke("ada", "primary")
    server.freeze()
    clock.advance(5.0)
    assert await keys.find(key_digest("k")) is not None
    clock.advance(0.001)
    with pytest.raises(StoreError):
        await keys.find(key_digest("k"))


async def test_a_key_revoked_elsewhere_does_not_work_after_an_outage(
    server: RedisServer, keys: RecordKeys, guarded: ASGIApp, records: RedisRecords, clock: FakeClock
) -> None:
    await RecordKeys(records, clock=clock).revoke("ada", "primary")
    server.freeze()
    clock.advance(5.001)
    assert await status(guarded, "k") == 503
    server.thaw()
    clock.advance(10.0)
    assert await status(guarded, "k") == 401


async def test_an_outage_is_logged_once_whoever_is_served_meanwhile(
    server: RedisServer, guarded: ASGIApp, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    server.freeze()
    clock.advance(1.0)
    for number in range(5):
        assert [await status(guarded, each) for each in ("k", f"unknown-{number}")] == [200, 503]
    [record] = caplog.records
    assert record.getMessage().startswith("RecordKeys cannot ask the records")
