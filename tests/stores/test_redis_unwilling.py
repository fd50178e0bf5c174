"""A Redis server that is there and will not serve, in the middle of the load: asked rarely, told once, found again.

A replica after a failover, a full server, one without replicas, one that cannot save, and users who may not any more.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from tests.servers import RedisServer, redis_server

from apim_middleware import LimitConcurrency, RateLimit, Stack, conditions
from apim_middleware._limits.standings import Standings
from apim_middleware.env import Env
from apim_middleware.errors import NotDone, Spoiled, StoreError
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.redis import RedisCounters, RedisEntries, RedisPermits
from apim_middleware.stores.values import CacheValue
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio
HIT = [Hit("a", Limit(10, 3_600.0, "sliding", "here"))]

Mend = Callable[[], object]


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    """What pauses between attempts go by; counts go by the clock of the server."""
    return FakeClock()


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def env(server: RedisServer, clock: FakeClock) -> AsyncIterator[Env]:
    stores = (
        RedisCounters(server.url, timeout=10.0),
        RedisEntries(server.url, timeout=10.0),
        RedisPermits(server.url, timeout=10.0),
    )
    counters, entries, permits = stores
    yield Env(place="here", clock=clock, counters=counters, entries=entries, permits=permits)
    for store in stores:
        await store.aclose()


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b""})


# What can be wrong with a server


def read_only(admin: redis.Redis) -> Mend:
    admin.replicaof("127.0.0.1", 1)
    return lambda: admin.replicaof("NO", "ONE")


def read_only_and_stale(admin: redis.Redis) -> Mend:
    admin.config_set("replica-serve-stale-data", "no")
    return read_only(admin)


def full(admin: redis.Redis) -> Mend:
    admin.config_set("maxmemory", "1")
    return lambda: admin.config_set("maxmemory", "0")


def too_few_replicas(admin: redis.Redis) -> Mend:
    admin.config_set("min-replicas-to-write", "1")
    return lambda: admin.config_set("min-replicas-to-write", "0")


def forbidden_scripts(admin: redis.Redis) -> Mend:
    admin.acl_setuser("default", enabled=True, nopass=True, commands=["-evalsha", "-eval"])
    return lambda: admin.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"])


def forbidden_in_scripts(admin: redis.Redis) -> Mend:
    commands = ["-set", "-setrange", "-zadd", "-zrem", "-zremrangebyscore"]
    admin.acl_setuser("default", enabled=True, nopass=True, commands=commands)
    return lambda: admin.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"])


def forbidden_keys(admin: redis.Redis) -> Mend:
    admin.acl_setuser("default", enabled=True, nopass=True, reset_keys=True, keys=["others:*"])
    return lambda: admin.acl_setuser("default", enabled=True, nopass=True, keys=["*"])


def cannot_save(admin: redis.Redis) -> Mend:
    shutil.rmtree(str(admin.config_get("dir")["dir"]))
    admin.config_set("save", "3600 1")
    admin.bgsave()
    while admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
        pass
    return lambda: admin.config_set("stop-writes-on-bgsave-error", "no")


TROUBLES = pytest.mark.parametrize(
    "spoil",
    [
        read_only, read_only_and_stale, full, too_few_replicas, forbidden_scripts, forbidden_in_scripts, forbidden_keys,
        cannot_save,
    ],
    ids=lambda spoil: spoil.__name__,
)  # fmt: skip


def asked(admin: redis.Redis) -> int:
    """How many scripts the server was asked to run so far, those that it refused too."""
    told: Any = admin.info("commandstats")
    return sum(
        stats["calls"] + stats["rejected_calls"]
        for name, stats in told.items()
        if name in ("cmdstat_eval", "cmdstat_evalsha")
    )


async def load(app: ASGIApp, clock: FakeClock, *, requests: int = 150, seconds: float = 3.0) -> set[int]:
    """The statuses of requests one after the other, evenly over a time."""
    found = set()
    for number in range(requests):
        clock.advance(seconds / requests)
        found.add((await call(app, client=(f"192.0.2.{number % 50}", 50_000))).status)
    return found


def levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records]


@TROUBLES
@pytest.mark.parametrize(("choice", "status"), [("refuse", 503), ("allow", 200), ("local", 200)])
async def test_limits_leave_it_alone_and_find_it_again(
    admin: redis.Redis, env: Env, clock: FakeClock, caplog: pytest.LogCaptureFixture,
    spoil: Callable[[redis.Redis], Mend], choice: Any, status: int,
) -> None:  # fmt: skip
    guarded = Stack(RateLimit(calls=1_000, per=3_600, when_store_fails=choice), env=env)(answers)
    assert await load(guarded, clock, requests=10) == {200}
    mend = spoil(admin)
    try:
        before = asked(admin)
        assert await load(guarded, clock) == {status}
        assert asked(admin) - before <= 8  # at the beginning, and after 0.1, 0.2, 0.4, 0.8 and 1.6 seconds
    finally:
        mend()
    clock.advance(10)
    assert await load(guarded, clock) == {200}
    await Standings(env).settled()
    assert levels(caplog) == [logging.ERROR, logging.WARNING]


@TROUBLES
async def test_it_is_no_better_for_those_who_only_look_or_are_over_their_limit(
    admin: redis.Redis, env: Env, clock: FakeClock, caplog: pytest.LogCaptureFixture,
    spoil: Callable[[redis.Redis], Mend],
) -> None:  # fmt: skip
    """A server that may not write answers both, and counts nobody."""
    policy = RateLimit(calls=5, per=3_600, count_when=conditions.failed, increment="afterwards", name="failures")
    app = Stack(policy, RateLimit(calls=20, per=3_600, name="all"), env=env)(fails)
    for _ in range(8):
        await call(app, client=("192.0.2.1", 50_000))
    await Standings(env).settled()
    assert (await call(app, client=("192.0.2.1", 50_000))).status == 429
    mend = spoil(admin)
    try:
        before = asked(admin)
        await load(app, clock)
        told = len(caplog.records)
        assert asked(admin) - before <= 24
        assert told <= 2  # for each policy once
    finally:
        mend()


@TROUBLES
async def test_permits_leave_it_alone_and_find_it_again(
    admin: redis.Redis, env: Env, clock: FakeClock, caplog: pytest.LogCaptureFixture,
    spoil: Callable[[redis.Redis], Mend],
) -> None:  # fmt: skip
    guarded = Stack(LimitConcurrency(at_once=5, when_store_fails="refuse"), env=env)(answers)
    assert await load(guarded, clock, requests=10) == {200}
    mend = spoil(admin)
    try:
        before = asked(admin)
        if spoil is full:  # a permit is small, and comes back soon
            assert await load(guarded, clock) == {200}
        else:
            assert await load(guarded, clock) == {503}
            assert asked(admin) - before <= 16
            assert levels(caplog)[0] == logging.ERROR
    finally:
        mend()
    clock.advance(10)
    assert 200 in await load(guarded, clock)
    assert await load(guarded, clock, requests=10) == {200}
    assert levels(caplog).count(logging.ERROR) <= 1


async def test_permits_are_renewed_on_a_full_server(admin: redis.Redis, server: RedisServer) -> None:
    """Found by looking: a renewal was refused, so the permit came back and was lent to somebody else besides."""
    permits = RedisPermits(server.url, timeout=10.0)
    assert await permits.acquire("key", 1, "first") == (True, 1)
    [name] = admin.keys("*permits*")
    before = admin.zscore(name, "first")
    full(admin)
    await permits._renew()
    after = admin.zscore(name, "first")
    assert before is not None
    assert after is not None
    assert after > before
    await permits.aclose()


@pytest.mark.parametrize("spoil", [read_only, full, too_few_replicas], ids=lambda spoil: spoil.__name__)
async def test_what_is_kept_is_found_where_nothing_more_can_be_kept(
    admin: redis.Redis, env: Env, caplog: pytest.LogCaptureFixture, spoil: Callable[[redis.Redis], Mend]
) -> None:
    values: CacheValue[int] = CacheValue(name="values", ttl=3_600, env=env)
    await values.set("kept", 7)
    mend = spoil(admin)
    before = asked(admin)
    try:
        for number in range(50):
            await values.set(f"new-{number}", 1)
            assert await values.get("kept") == 7
        assert asked(admin) - before <= 52
    finally:
        mend()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("spoil", [read_only, too_few_replicas, full], ids=lambda spoil: spoil.__name__)
async def test_entries_and_permits_say_what_it_is(
    admin: redis.Redis, server: RedisServer, spoil: Callable[[redis.Redis], Mend]
) -> None:
    entries, permits = RedisEntries(server.url), RedisPermits(server.url)
    calls: list[Callable[[], Any]] = [lambda: entries.add(b"new", b"value", 60.0)]
    if spoil is not full:
        calls += [lambda: permits.acquire("key", 5, "me"), lambda: entries.purge(b"tag")]
    mend = spoil(admin)
    for each in calls:
        with pytest.raises(NotDone, match=r"READONLY|NOREPLICAS|OOM") as caught:
            await each()
        assert not isinstance(caught.value, Spoiled)
    mend()
    for each in calls:
        await each()
    await entries.aclose()
    await permits.aclose()


@pytest.mark.parametrize("spoil", [read_only, full, forbidden_scripts], ids=lambda spoil: spoil.__name__)
async def test_of_a_thousand_at_once_few_hear_it_from_the_server(
    admin: redis.Redis, server: RedisServer, spoil: Callable[[redis.Redis], Mend]
) -> None:
    """Those who wait for their turn when the first are refused need not ask."""
    counters = RedisCounters(server.url, timeout=10.0)
    await counters.hit(HIT)
    spoil(admin)
    before, connections = asked(admin), admin.info("stats")["total_connections_received"]
    told = await asyncio.gather(*[counters.hit(HIT) for _ in range(1_000)], return_exceptions=True)
    assert all(isinstance(each, NotDone) for each in told)
    assert len({id(each) for each in told}) == 1_000  # each has one of its own to raise
    assert {str(each).rpartition(" said ")[2] for each in told} <= {"READONLY", "OOM", "NOPERM"}
    assert asked(admin) - before <= 4
    assert admin.info("stats")["total_connections_received"] - connections <= 2
    await counters.aclose()


# The name leads to another server


class Name:
    """A loopback port that leads to whatever server a name would lead to; it counts the connections."""

    def __init__(self, port: int) -> None:
        self.leads_to = port
        self.connections = 0
        self.cuts = False
        """Whether connections break when the server answers."""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        tasks: set[asyncio.Task[Any]] = set()

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
            try:
                with contextlib.suppress(OSError):
                    while (data := await reader.read(65536)) and not (answers and self.cuts):
                        writer.write(data)
            finally:
                writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            there, back = await asyncio.open_connection("127.0.0.1", self.leads_to)
            for each in (carry(reader, back, answers=False), carry(there, writer, answers=True)):
                task = asyncio.ensure_future(each)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("ready", [False, True])
async def test_after_a_failover_the_name_is_looked_up_again(
    admin: redis.Redis, server: RedisServer, tmp_path: Path, ready: bool
) -> None:
    (tmp_path / "other").mkdir()
    name = Name(server.port)
    async with name.listening() as url, contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(redis.asyncio.Redis.from_url(url)) if ready else url
        counters, entries = RedisCounters(client, timeout=10.0), RedisEntries(client, timeout=10.0)
        await counters.hit(HIT)
        await entries.set(b"key", b"value", 60.0)
        read_only(admin)
        with redis_server(tmp_path / "other") as primary:
            name.leads_to = primary.port
            for each in (counters.hit(HIT), entries.set(b"key", b"value", 60.0)):
                with pytest.raises(StoreError, match="READONLY"):
                    await each
            assert (await counters.hit(HIT))[0].remaining == 9
            assert await entries.set(b"key", b"value", 60.0)
            for store in (counters, entries):
                await store.aclose()
    assert name.connections <= 4


async def test_what_is_on_its_way_when_the_connection_is_left_still_comes_back(
    admin: redis.Redis, server: RedisServer
) -> None:
    """Reads are answered by a replica, and come back beside the writes that it refused."""
    entries = RedisEntries(server.url, shards=8, timeout=10.0)
    for number in range(20):
        await entries.set(b"%d" % number, b"kept", 3_600.0)
    read_only(admin)
    told = await asyncio.gather(
        *[entries.get(b"%d" % number) for number in range(20)],
        *[entries.set(b"new-%d" % number, b"", 60.0) for number in range(20)],
        *[entries.get(b"%d" % number) for number in range(20)],
        return_exceptions=True,
    )
    assert told[:20] + told[40:] == [b"kept"] * 40
    assert all(isinstance(each, NotDone) for each in told[20:40])
    await entries.aclose()
    while len(admin.client_list(_type="normal")) > 1:
        pass


async def test_what_was_counted_there_without_an_answer_is_counted_here_too_and_never_forgotten(
    server: RedisServer, clock: FakeClock
) -> None:
    """Nobody can know that it was counted: the limit is too strict by what was on its way."""
    name = Name(server.port)
    policy = RateLimit(calls=100, per=3_600, when_store_fails="local")
    async with name.listening() as url:
        counters = RedisCounters(url, timeout=10.0)
        env = Env(place="here", clock=clock, counters=counters)
        guarded = Stack(policy, env=env)(answers)
        assert (await call(guarded)).status == 200
        name.cuts = True
        assert [(await call(guarded)).status for _ in range(3)] == [200] * 3
        name.cuts = False
        clock.advance(10)
        assert (await call(guarded)).status == 200
        await Standings(env).settled()
        [standing] = await Standings(env).read(policy, "203.0.113.7")
        assert standing.used == 5 + 1
        await counters.aclose()


# Still loading


async def test_a_server_that_is_loading_is_left_alone_and_found_when_it_is_done(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server(tmp_path) as server, redis.Redis.from_url(server.url) as admin:
        admin.execute_command("DEBUG", "POPULATE", 4_000)
        admin.save()
        server.stop()
    slowly = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    with redis_server(tmp_path, *slowly) as server, redis.Redis.from_url(server.url) as admin:
        counters = RedisCounters(server.url, timeout=10.0)
        guarded = Stack(RateLimit(calls=1_000, per=3_600), env=Env(place="here", clock=clock, counters=counters))(
            answers
        )
        assert (await call(guarded)).status == 503
        while admin.info("persistence")["loading"]:
            await load(guarded, clock, requests=10)
        clock.advance(10)
        assert await load(guarded, clock) == {200}
        assert levels(caplog) == [logging.ERROR, logging.WARNING]
        await counters.aclose()
