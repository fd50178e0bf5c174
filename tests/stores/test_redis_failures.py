"""What becomes of counters when Redis is away, silent, full, read-only, somebody else's or emptied: a StoreError.

And as soon as the server is well again, the same object counts again.
"""

import asyncio
import gc
import re
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.servers import RedisServer, free_port, redis_server

from apim_middleware.errors import ConfigError, NotDone, Spoiled, StoreError
from apim_middleware.protocols import Change, Hit, Limit
from apim_middleware.stores.redis import RedisCounters, RedisEntries, RedisPermits, RedisRecords

LIMIT = Limit(10, 3_600.0, "sliding", "here")
HIT = [Hit("a", LIMIT)]


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def counters(server: RedisServer) -> AsyncIterator[RedisCounters]:
    store = RedisCounters(server.url, timeout=2.0)
    yield store
    await store.aclose()


async def failure(store: RedisCounters) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await store.hit(HIT)
    return caught.value


async def heard() -> None:
    """Let the loop take notice of what happened to its connections."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


# Away


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_an_error_with_its_cause() -> None:
    counters = RedisCounters(f"redis://127.0.0.1:{free_port()}")
    assert isinstance((await failure(counters)).__cause__, ConnectionRefusedError)


@pytest.mark.anyio
async def test_a_name_nobody_knows_is_an_error() -> None:
    assert isinstance((await failure(RedisCounters("redis://nowhere.invalid"))).__cause__, OSError)


@pytest.mark.anyio
async def test_a_server_that_is_started_later_is_found(server: RedisServer, counters: RedisCounters) -> None:
    server.stop()
    for _ in range(3):
        await failure(counters)
    server.start()
    assert (await counters.hit(HIT))[0].remaining == 9


@pytest.mark.anyio
async def test_a_server_that_was_killed_and_started_meanwhile_is_not_even_missed(
    server: RedisServer, counters: RedisCounters
) -> None:
    await counters.hit(HIT)
    server.stop()
    server.start()
    await heard()
    assert (await counters.hit(HIT))[0].remaining == 9


@pytest.mark.anyio
async def test_a_connection_that_is_cut_is_laid_anew(admin: redis.Redis, counters: RedisCounters) -> None:
    for remaining in range(9, 4, -1):
        assert (await counters.hit(HIT))[0].remaining == remaining
        admin.client_kill_filter(_type="normal", skipme=True)
        await heard()


@pytest.mark.anyio
async def test_all_who_wait_hear_of_a_server_that_dies(server: RedisServer, counters: RedisCounters) -> None:
    await counters.hit(HIT)
    server.freeze()
    asked = [asyncio.ensure_future(counters.hit(HIT)) for _ in range(300)]
    await heard()
    server.stop()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, StoreError) for each in told)
    assert len({id(each) for each in told}) == 300  # each has one of its own to raise


# Silent


@pytest.mark.anyio
async def test_a_server_that_stands_still_is_an_error_in_time_for_everybody(server: RedisServer) -> None:
    """Those who wait for their turn need not wait for a time of their own: the connection is given up."""
    counters = RedisCounters(server.url, timeout=0.25)
    await counters.hit(HIT)
    server.freeze()
    began = time.monotonic()
    told = await asyncio.gather(*[counters.hit(HIT) for _ in range(1_000)], return_exceptions=True)
    waited = time.monotonic() - began
    assert all(isinstance(each, StoreError) for each in told)
    assert {TimeoutError} <= {type(each.__cause__) for each in told} <= {TimeoutError, ConnectionResetError}
    assert waited >= 0.25
    server.thaw()
    await counters.aclose()


@pytest.mark.anyio
async def test_a_late_answer_is_taken_for_nobody_elses(server: RedisServer) -> None:
    counters = RedisCounters(server.url, timeout=0.5)
    other = Limit(1_000, 3_600.0, "fixed", "there")
    await counters.hit(HIT)
    server.freeze()
    await failure(counters)
    server.thaw()
    patient = RedisCounters(server.url, timeout=20.0)
    assert (await patient.hit([Hit("b", other, 600)]))[0].remaining == 400
    assert (await counters.peek([Hit("b", other)]))[0].remaining == 400
    await counters.aclose()
    await patient.aclose()


@pytest.mark.anyio
async def test_a_server_that_accepts_and_says_nothing_is_an_error(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        for url in (f"redis://127.0.0.1:{port}", f"redis://:secret@127.0.0.1:{port}/3"):
            counters = RedisCounters(url, connect=0.05, timeout=0.05)
            assert isinstance((await failure(counters)).__cause__, TimeoutError)
            await counters.aclose()
        gc.collect()  # what nobody asked about of the greeting would be told now, and fail the test


@pytest.mark.anyio
async def test_a_server_that_speaks_something_else_is_an_error() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as listener:
        counters = RedisCounters(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        assert isinstance((await failure(counters)).__cause__, OSError)
        await counters.aclose()


# There, but unwilling


def read_only(admin: redis.Redis) -> Callable[[], object]:
    admin.slaveof("127.0.0.1", "1")
    admin.config_set("replica-serve-stale-data", "yes")
    return admin.slaveof


def full(admin: redis.Redis) -> Callable[[], object]:
    admin.config_set("maxmemory", "1kb")
    return lambda: admin.config_set("maxmemory", "0")


def guarded(admin: redis.Redis) -> Callable[[], object]:
    admin.config_set("requirepass", "secret")
    admin.execute_command("AUTH", "secret")
    admin.client_kill_filter(_type="normal", skipme=True)
    return lambda: admin.config_set("requirepass", "")


def too_few_replicas(admin: redis.Redis) -> Callable[[], object]:
    admin.config_set("min-replicas-to-write", "1")
    return lambda: admin.config_set("min-replicas-to-write", "0")


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(read_only, "READONLY"), (full, "OOM"), (guarded, "NOAUTH"), (too_few_replicas, "NOREPLICAS")],
)
@pytest.mark.anyio
async def test_what_the_server_refuses_is_an_error_that_names_its_kind_and_passes_with_its_reason(
    admin: redis.Redis, counters: RedisCounters, spoil: Callable[[redis.Redis], Callable[[], object]], kind: str
) -> None:
    await counters.hit(HIT)
    mend = spoil(admin)
    await heard()
    for _ in range(2):
        error = await failure(counters)
        assert kind in str(error)
        assert isinstance(error, NotDone)
        assert error.__cause__ is not None
    mend()
    assert (await counters.hit(HIT))[0].remaining == 8  # and nothing was counted meanwhile


@pytest.mark.parametrize(("spoil", "kind"), [(read_only, "READONLY"), (full, "OOM")])
@pytest.mark.anyio
async def test_a_ready_client_says_too_that_nothing_was_done(
    admin: redis.Redis, server: RedisServer, spoil: Callable[[redis.Redis], Callable[[], object]], kind: str
) -> None:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        counters = RedisCounters(client)
        await counters.hit(HIT)
        mend = spoil(admin)
        error = await failure(counters)
        mend()
        assert kind in str(error)
        assert isinstance(error, NotDone)


@pytest.mark.anyio
async def test_who_waits_for_a_connection_waits_for_no_other_first() -> None:
    """A server that says nothing to the greeting is given up by all at once, not by one after the other."""
    asked = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        counters = RedisCounters(f"redis://:secret@127.0.0.1:{port}", shards=16, connect=0.1)
        hits = [Hit(str(number), HIT[0].limit) for number in range(100)]
        found = await asyncio.gather(*(counters.hit([each]) for each in hits), return_exceptions=True)
        await counters.aclose()
    assert all(isinstance(each, StoreError) for each in found)
    assert asked < 16


@pytest.mark.anyio
async def test_a_server_that_is_still_loading_is_an_error(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--appendonly", "no") as server, redis.Redis.from_url(server.url) as admin:
        admin.execute_command("DEBUG", "POPULATE", 20_000)
        admin.save()
        server.stop()
    with redis_server(
        tmp_path, "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"
    ) as server:
        counters = RedisCounters(server.url, timeout=20.0)
        assert "LOADING" in str(await failure(counters))
        await counters.aclose()


@pytest.mark.anyio
async def test_scripts_the_server_forgot_are_sent_again(admin: redis.Redis, counters: RedisCounters) -> None:
    for remaining in range(9, 6, -1):
        admin.script_flush()
        assert (await counters.hit(HIT))[0].remaining == remaining


@pytest.mark.anyio
async def test_a_server_that_was_emptied_counts_from_the_beginning(admin: redis.Redis, counters: RedisCounters) -> None:
    await counters.hit([Hit("a", LIMIT, 10)])
    admin.flushall()
    assert (await counters.hit(HIT))[0].remaining == 9


@pytest.mark.parametrize("algorithm", ["fixed", "sliding", "log", "bucket"])
@pytest.mark.anyio
async def test_a_key_that_is_somebody_elses_spoils_its_own_call_only(
    admin: redis.Redis, counters: RedisCounters, algorithm: str
) -> None:
    limit = LIMIT._replace(algorithm=algorithm)
    await counters.hit([Hit("a", limit), Hit("b", limit)])
    names = admin.keys()
    for name in names:
        if name.endswith(b"|b"):
            admin.delete(name)
            admin.lpush(name, "not ours")
    spoiled, well = await asyncio.gather(
        counters.hit([Hit("a", limit), Hit("b", limit)]), counters.hit([Hit("a", limit)]), return_exceptions=True
    )
    assert isinstance(spoiled, StoreError)
    assert "WRONGTYPE" in str(spoiled)
    assert not isinstance(well, BaseException)
    assert well[0].remaining == 8


# What the server cannot keep, or kept badly, is nobody else's trouble

LOG = Limit(10, 3_600.0, "log", "here")


@pytest.mark.parametrize("algorithm", ["fixed", "sliding", "log", "bucket"])
@pytest.mark.anyio
async def test_as_many_units_as_can_be_said_are_kept_however_long_they_take_to_come_back(
    counters: RedisCounters, algorithm: str
) -> None:
    """Of a bucket that is longer than the server can count milliseconds."""
    many = [Hit("a", LIMIT._replace(algorithm=algorithm), 10**15)]
    await counters.assign(many)
    assert [(each.allowed, each.remaining) for each in await counters.peek(many)] == [(False, 0)]


async def damage(counters: RedisCounters, admin: redis.Redis, entries: int) -> None:
    """Make a log say that it has more units and entries than it has."""
    await counters.hit([Hit("bad", LOG)])
    [name] = admin.keys("*|bad")
    admin.setrange(name, 0, struct.pack("<ddd", 9, 0, entries))


# The first cannot be read to the end, which a hit that is refused would want; nothing can be added to the second.
DAMAGED = pytest.mark.parametrize(("entries", "cost"), [(100, 5), (2**27, 1)])


@DAMAGED
@pytest.mark.anyio
async def test_a_damaged_record_fails_its_own_calls_only(
    counters: RedisCounters, admin: redis.Redis, entries: int, cost: int
) -> None:
    await damage(counters, admin, entries)
    bad, good = Hit("bad", LOG, cost), Hit("good", LOG)
    told = await asyncio.gather(
        *[counters.hit(hits) for hits in ([good], [bad], [good, bad], [good, good])], return_exceptions=True
    )
    failed = [isinstance(each, Spoiled) for each in told]
    assert failed == [False, True, True, False]
    [first, *_], *_, [_, last] = [each for each in told if not isinstance(each, BaseException)]
    assert first.remaining == 9
    assert (await counters.peek([good]))[0].remaining == last.remaining


@pytest.mark.anyio
async def test_a_correction_that_cannot_be_made_keeps_no_other_from_being_made(
    counters: RedisCounters, admin: redis.Redis
) -> None:
    [good] = await counters.hit([Hit("good", LOG)])
    await damage(counters, admin, 2**27)
    [known] = admin.keys("*|bad")
    admin.rename(known, known[:-3] + b"worse")
    admin.lpush(known, "not ours")
    keys = ("bad", "good", "worse", "good")
    with pytest.raises(Spoiled, match=r"2 of 4 corrections cannot be made: .*WRONGTYPE"):
        await counters.settle([Change(key, LOG, 2, good.counted) for key in keys])
    assert (await counters.peek([Hit("good", LOG)]))[0].remaining == 5


# Secrets


@pytest.mark.anyio
async def test_no_password_is_said_to_anybody(server: RedisServer, admin: redis.Redis) -> None:
    url = f"redis://user:hunter2@127.0.0.1:{server.port}/0"
    counters, permits = RedisCounters(url), RedisPermits(url)
    error = await failure(counters)
    assert "WRONGPASS" in str(error)
    said = [repr(error), str(error), repr(error.__cause__), repr(counters), repr(permits)]
    assert not [each for each in said if "hunter2" in each]
    for wrong in ("http://user:hunter2@host", "redis://user:hunter2@host:port", "redis://:hunter2@host/?nonsense=1"):
        with pytest.raises(ConfigError, match=r"RedisCounters\.redis") as caught:
            RedisCounters(wrong)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
    await counters.aclose()


@pytest.mark.anyio
async def test_who_has_the_password_is_let_in(server: RedisServer, admin: redis.Redis) -> None:
    admin.acl_setuser("gate", enabled=True, passwords=["+p@ss/w:rd"], keys=["{apim}*"], categories=["+@all"])
    counters = RedisCounters(f"redis://gate:p%40ss%2Fw%3Ard@127.0.0.1:{server.port}/2")
    assert (await counters.hit(HIT))[0].allowed
    admin.select(2)
    assert admin.dbsize() == 1
    await counters.aclose()


# Used wrongly


@pytest.mark.anyio
async def test_a_closed_store_says_so(counters: RedisCounters) -> None:
    await counters.aclose()
    assert "is closed" in str(await failure(counters))
    await counters.aclose()


def test_a_store_belongs_to_one_event_loop(server: RedisServer) -> None:
    counters = RedisCounters(server.url)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(counters.hit(HIT))
        with pytest.raises(StoreError, match="another event loop"):
            second.run(counters.hit(HIT))
        first.run(counters.aclose())


def test_trio_is_told_that_it_is_not_served(server: RedisServer) -> None:
    import trio

    with pytest.raises(StoreError, match="asyncio"):
        trio.run(RedisCounters(server.url).hit, HIT)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("connect", 0.0), ("timeout", -1.0), ("timeout", float("inf")), ("max_waiting", 0), ("shards", 0),
        ("shards", 16_385), ("prefix", ""), ("prefix", "a b"), ("prefix", "{a}"), ("prefix", "é"),
        ("connect", "x"), ("timeout", "x"), ("shards", "x"), ("shards", 1.5), ("max_waiting", "x"), ("prefix", 5),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_while_building(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"RedisCounters\.{field}"):
        RedisCounters("redis://localhost", **{field: value})


@pytest.mark.parametrize("given", [5, None, b"redis://:hunter2@localhost", RedisCounters])
def test_what_is_neither_a_url_nor_a_client_is_a_mistake(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"RedisCounters\.redis: .* is neither a URL nor a client") as caught:
        RedisCounters(given)
    assert "hunter2" not in str(caught.value)


@pytest.mark.anyio
async def test_a_connection_that_is_made_while_the_store_closes_is_closed_too(
    server: RedisServer, admin: redis.Redis
) -> None:
    """Found by trying: records are followed in the background, and nobody waits for that at the end."""
    records = RedisRecords(server.url)
    asking = asyncio.ensure_future(records.get("kind", "id"))
    for _ in range(2):
        await asyncio.sleep(0)
    await records.aclose()
    with pytest.raises(StoreError, match="is closed"):
        await asking
    while len(admin.client_list()) != 1:
        pass


@pytest.mark.anyio
async def test_nothing_is_left_open(server: RedisServer, admin: redis.Redis) -> None:
    counters = RedisCounters(server.url)
    await counters.hit(HIT)
    assert len(admin.client_list()) == 2
    await counters.aclose()
    del counters
    gc.collect()
    while len(admin.client_list()) != 1:
        pass


# What the page says that a user must be allowed


PAGE = Path(__file__).parents[2] / "docs/stores/redis.md"


def allowed(line: str) -> list[str]:
    """The commands named in the line that begins so, of the page."""
    [found] = [each for each in PAGE.read_text().splitlines() if each.startswith(line)]
    return [f"+{name.lower()}" for name in re.findall(r"`([A-Z]+)`", found) if name != "SELECT"]


@pytest.mark.parametrize(
    "line",
    [
        "The server needs to allow `EVAL`, `EVALSHA` and what the scripts use",
        "The server needs to allow `GET`, `SET`",
        "`RedisRecords` needs",
    ],
)
@pytest.mark.anyio
async def test_what_the_page_says_must_be_allowed_is_enough(server: RedisServer, admin: redis.Redis, line: str) -> None:
    admin.acl_setuser("gate", enabled=True, passwords=["+secret"], keys=["{apim}*"], commands=allowed(line))
    url = f"redis://gate:secret@127.0.0.1:{server.port}/0"
    counters, permits, entries, records = RedisCounters(url), RedisPermits(url), RedisEntries(url), RedisRecords(url)
    if "EVALSHA` and what" in line:
        for algorithm in ("fixed", "sliding", "log", "bucket"):
            [tally] = await counters.hit([Hit("a", LIMIT._replace(algorithm=algorithm), 5)])
            await counters.settle([Change("a", LIMIT._replace(algorithm=algorithm), -2, tally.counted)])
            await counters.reset([Hit("a", LIMIT._replace(algorithm=algorithm))])
        assert (await permits.acquire("key", 1, "me"))[0]
        await permits._renew()
        await permits.release("key", "me")
    elif "RedisRecords" in line:
        version = (await records.put("kind", "id", {})).version
        await records.delete("kind", "id")
        assert len(await records.changes(version)) == 1
        assert await records.page("kind") == []
    else:
        [_], since = await entries.look([b"key"])
        assert await entries.set(b"key", b"value", 60.0, tags=[b"tag"], since=since)
        await entries.purge(b"tag")
        assert not await entries.set(b"key", b"value", 60.0, tags=[b"tag"], since=since)
        assert await entries.add(b"key", b"value", 60.0)
    refused = [each for each in admin.acl_log() if each["username"] == "gate"]
    assert refused == []
    for store in (counters, permits, entries, records):
        await store.aclose()
