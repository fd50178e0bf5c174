"""Records that lose everything, or go back in time, on a real Redis: nobody is shut out at once, and it is told."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
from tests.servers import RedisServer

from apim_middleware._limits.record_overrides import RecordOverrides
from apim_middleware.errors import StoreError
from apim_middleware.identity import Subscription
from apim_middleware.stores.keys import key_digest
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.stores.redis import RedisRecords
from apim_middleware.testing import FakeClock

pytestmark = pytest.mark.anyio
STALE = 5.0


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def records(server: RedisServer) -> AsyncIterator[RedisRecords]:
    made = RedisRecords(server.url, connect=10.0, timeout=10.0)
    yield made
    await made.aclose()


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def keys(records: RedisRecords, clock: FakeClock) -> RecordKeys:
    """Of a process that knows three keys as of now."""
    made = RecordKeys(records, refresh=1.0, stale=STALE, clock=clock)
    for name in ("ada", "bob", "eve"):
        await made.add(Subscription(id=name), primary=key_digest(name))
    return made


async def opens(keys: RecordKeys, name: str) -> bool:
    return await keys.find(key_digest(name)) is not None


def saved(admin: redis.Redis) -> Callable[[], None]:
    """Keep what the server holds; what is given back puts it there again."""
    kept: dict[Any, Any] = {name: admin.dump(name) for name in admin.keys("*")}

    def put_back() -> None:
        for name, dump in kept.items():
            admin.restore(name, 0, dump)

    return put_back


async def asked_again(keys: RecordKeys) -> None:
    """Have the records asked, as by whoever looks a key up a while later."""
    try:
        await keys.find(b"of nobody")
    except StoreError:
        return


async def test_keys_work_on_when_the_server_was_emptied_and_it_is_told_once(
    keys: RecordKeys, admin: redis.Redis, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    admin.flushall()
    for _ in range(4):
        clock.advance(1.0)
        await asked_again(keys)
        assert await opens(keys, "ada")
    [told] = caplog.records
    assert told.levelno == logging.ERROR
    assert "they are empty, and 3 of kind subscription were known" in told.getMessage()


async def test_whether_an_unknown_key_exists_nobody_can_say_then(
    keys: RecordKeys, admin: redis.Redis, clock: FakeClock
) -> None:
    admin.flushall()
    clock.advance(1.0)
    with pytest.raises(StoreError):
        await opens(keys, "unknown")


async def test_what_was_put_back_is_followed_again(
    keys: RecordKeys, admin: redis.Redis, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    put_back = saved(admin)
    admin.flushall()
    clock.advance(1.0)
    await asked_again(keys)
    admin.flushall()  # what was asked of an empty server has begun its records
    put_back()
    clock.advance(10.0)
    assert [await opens(keys, name) for name in ("ada", "unknown")] == [True, False]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_records_that_stay_empty_are_believed_after_a_while(
    keys: RecordKeys, admin: redis.Redis, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    admin.flushall()
    clock.advance(1.0)
    await asked_again(keys)
    clock.advance(STALE)
    assert not await opens(keys, "ada")
    assert "0 are known, of 3" in caplog.text


async def test_who_writes_into_an_empty_server_begins_anew(
    keys: RecordKeys, admin: redis.Redis, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    admin.flushall()
    clock.advance(1.0)
    await keys.add(Subscription(id="new"), primary=key_digest("new"))
    assert [await opens(keys, name) for name in ("new", "ada")] == [True, False]
    assert "1 are known, of 4" in caplog.text


async def test_a_server_that_went_back_in_time_is_believed_and_told_of(
    keys: RecordKeys, admin: redis.Redis, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    put_back = saved(admin)
    await keys.remove("ada")
    await keys.add(Subscription(id="ida"), primary=key_digest("ida"))
    admin.flushall()
    put_back()
    clock.advance(1.0)
    await asked_again(keys)
    assert [await opens(keys, name) for name in ("ada", "ida")] == [True, False]
    assert "RecordKeys are older than they were: 3 are known, of 3" in caplog.text


async def test_records_that_were_always_empty_are_no_loss(
    records: RedisRecords, admin: redis.Redis, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    keys = RecordKeys(records, clock=clock)
    assert not await opens(keys, "ada")
    admin.flushall()
    clock.advance(1.0)
    assert not await opens(keys, "ada")
    assert not caplog.records


async def test_who_was_removed_one_by_one_is_no_loss(
    keys: RecordKeys, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ada", "bob", "eve"):
        await keys.remove(name)
    clock.advance(1.0)
    assert not await opens(keys, "ada")
    assert not caplog.records


async def test_rates_of_single_keys_hold_on_for_a_minute(
    records: RedisRecords, admin: redis.Redis, clock: FakeClock
) -> None:
    """They held for ever, also where somebody had removed all of them."""
    rates = RecordOverrides(records, clock=clock)
    await rates.set("ada", "5/minute")
    admin.flushall()
    clock.advance(3_600.0)
    with pytest.raises(StoreError):
        await rates.refresh()
    assert rates.rates("ada") is not None
    clock.advance(60.0)
    await rates.refresh()
    assert rates.rates("ada") is None


async def test_rates_that_are_written_hold_at_once(records: RedisRecords, admin: redis.Redis, clock: FakeClock) -> None:
    rates = RecordOverrides(records, clock=clock)
    await rates.set("ada", "5/minute")
    admin.flushall()
    clock.advance(3_600.0)
    await rates.set("bob", "7/minute")
    assert (rates.rates("ada"), len(rates)) == (None, 1)
