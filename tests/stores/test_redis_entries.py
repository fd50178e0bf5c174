"""Entries in Redis: the promises of every store, expiry on the server, keys, and what becomes of trouble."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import redis
import redis.asyncio
from tests.servers import RedisServer, free_port, redis_server

from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.stores.redis import RedisEntries
from apim_middleware.testing import FakeClock

from .entries_conformance import EntriesConformance


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def entries(shared_redis: RedisServer, emptied_redis: redis.Redis) -> AsyncIterator[RedisEntries]:
    store = RedisEntries(shared_redis.url)
    yield store
    await store.aclose()


class TestRedisEntries(EntriesConformance):
    """On a connection of our own."""

    @pytest.fixture
    async def entries(
        self, shared_redis: RedisServer, emptied_redis: redis.Redis, clock: FakeClock
    ) -> AsyncIterator[RedisEntries]:
        store = RedisEntries(shared_redis.url, clock=clock, timeout=20.0)
        yield store
        await store.aclose()


class TestRedisEntriesInShards(EntriesConformance):
    """Spread over the places of a cluster."""

    @pytest.fixture
    async def entries(
        self, shared_redis: RedisServer, emptied_redis: redis.Redis, clock: FakeClock
    ) -> AsyncIterator[RedisEntries]:
        store = RedisEntries(shared_redis.url, clock=clock, timeout=20.0, shards=5)
        yield store
        await store.aclose()


class TestRedisEntriesOnAReadyClient(EntriesConformance):
    """Through redis-py."""

    @pytest.fixture
    async def entries(
        self, shared_redis: RedisServer, emptied_redis: redis.Redis, clock: FakeClock
    ) -> AsyncIterator[RedisEntries]:
        async with redis.asyncio.Redis.from_url(shared_redis.url) as client:
            store = RedisEntries(client, clock=clock, timeout=20.0)
            yield store
            await store.aclose()


# What is on the server


@pytest.mark.anyio
async def test_the_server_lets_entries_go_and_their_tags_after_them(
    entries: RedisEntries, emptied_redis: redis.Redis
) -> None:
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    await entries.set(b"other", b"value", 30, tags=[b"tag"])
    assert 59_000 < emptied_redis.pttl("{apim}!entry|key") <= 60_000
    assert 60_000 < emptied_redis.pttl("{apim}!tag|tag") <= 61_000


@pytest.mark.anyio
async def test_a_tag_lives_as_long_as_the_last_entry(entries: RedisEntries, emptied_redis: redis.Redis) -> None:
    await entries.set(b"other", b"value", 30, tags=[b"tag"])
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    assert 60_000 < emptied_redis.pttl("{apim}!tag|tag") <= 61_000


@pytest.mark.anyio
async def test_an_entry_past_its_time_is_gone_without_a_clock_of_ours(
    entries: RedisEntries, emptied_redis: redis.Redis
) -> None:
    await entries.set(b"key", b"value", 0.001)
    while emptied_redis.exists("{apim}!entry|key"):
        pass
    assert await entries.get(b"key") is None


@pytest.mark.anyio
async def test_every_key_is_in_one_place_and_begins_with_the_prefix(
    shared_redis: RedisServer, emptied_redis: redis.Redis
) -> None:
    entries = RedisEntries(shared_redis.url, prefix="shop!1")
    await entries.set(b"{key}", b"value", 60, tags=[b"{tag}"])
    await entries.add(b"lock", b"value", 60)
    assert sorted(emptied_redis.keys()) == [b"{shop!1}!entry|lock", b"{shop!1}!entry|{key}", b"{shop!1}!tag|{tag}"]
    await entries.purge(b"{tag}")
    assert await entries.get(b"{key}") is None
    await entries.aclose()


@pytest.mark.anyio
async def test_stores_with_other_prefixes_see_nothing_of_each_other(
    shared_redis: RedisServer, emptied_redis: redis.Redis
) -> None:
    one, other = (RedisEntries(shared_redis.url, prefix=prefix) for prefix in ("one", "other"))
    await one.set(b"key", b"value", 60, tags=[b"tag"])
    await other.purge(b"tag")
    await other.delete(b"key")
    assert (await one.get(b"key"), await other.get(b"key")) == (b"value", None)
    await one.aclose()
    await other.aclose()


@pytest.mark.anyio
async def test_what_one_process_purges_is_gone_for_all(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    one, other = RedisEntries(shared_redis.url), RedisEntries(shared_redis.url)
    await one.set(b"key", b"value", 60, tags=[b"tag"])
    await other.purge(b"tag")
    assert await one.get(b"key") is None
    await one.aclose()
    await other.aclose()


@pytest.mark.anyio
async def test_what_was_kept_before_a_purge_in_the_same_batch_is_gone(entries: RedisEntries) -> None:
    await asyncio.gather(
        entries.set(b"before", b"value", 60, tags=[b"tag"]),
        entries.purge(b"tag"),
        entries.set(b"after", b"value", 60, tags=[b"tag"]),
    )
    assert await entries.get_many([b"before", b"after"]) == [None, b"value"]


@pytest.mark.anyio
async def test_a_tag_the_server_let_go_takes_its_entries_along(
    entries: RedisEntries, emptied_redis: redis.Redis
) -> None:
    await entries.set(b"key", b"old", 60, tags=[b"tag"])
    emptied_redis.delete("{apim}!tag|tag")
    assert await entries.get(b"key") is None
    await entries.set(b"other", b"value", 60, tags=[b"tag"])
    assert await entries.get(b"key") is None


@pytest.mark.anyio
async def test_many_are_asked_for_in_few_round_trips(entries: RedisEntries, emptied_redis: redis.Redis) -> None:
    await entries.get(b"key")
    emptied_redis.config_resetstat()
    await entries.get_many([b"%d" % number for number in range(64)])
    assert emptied_redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 2


@pytest.mark.parametrize("key", ["{apim}!entry|key", "{apim}!tag|tag"])
@pytest.mark.anyio
async def test_a_key_of_another_kind_spoils_its_own_call_only(
    entries: RedisEntries, emptied_redis: redis.Redis, key: str
) -> None:
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    emptied_redis.delete(key)
    emptied_redis.lpush(key, "text")
    told = await asyncio.gather(entries.get(b"key"), entries.set(b"b", b"value", 60), return_exceptions=True)
    assert isinstance(told[0], StoreError)
    assert "WRONGTYPE" in str(told[0])
    assert told[1] is True


@pytest.mark.parametrize("record", [b"", b"x", b"\xff" * 11, b"\x00" * 8 + b"\xff" * 8])
@pytest.mark.anyio
async def test_what_was_never_stored_is_an_error(
    entries: RedisEntries, emptied_redis: redis.Redis, record: bytes
) -> None:
    emptied_redis.set("{apim}!entry|key", record)
    with pytest.raises(StoreError, match="script error"):
        await entries.get(b"key")
    await entries.set(b"key", b"value", 60)
    assert await entries.get(b"key") == b"value"


# Trouble


async def every_call_fails(entries: RedisEntries) -> None:
    calls = [
        entries.get(b"key"), entries.get_many([b"key"]), entries.set(b"key", b"value", 60, tags=[b"tag"]),
        entries.add(b"key", b"value", 60), entries.delete(b"key"), entries.delete(b"key", value=b"value"),
        entries.purge(b"tag"),
    ]  # fmt: skip
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, StoreError) for each in told)


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_an_error_in_every_call() -> None:
    await every_call_fails(RedisEntries(f"redis://127.0.0.1:{free_port()}"))


@pytest.mark.anyio
async def test_a_server_that_was_killed_is_an_error_until_it_is_back(server: RedisServer) -> None:
    entries = RedisEntries(server.url, timeout=20.0)
    await entries.set(b"key", b"value", 60)
    server.stop()
    await every_call_fails(entries)
    server.start()
    assert await entries.get(b"key") is None  # it keeps nothing
    await entries.set(b"key", b"value", 60)
    assert await entries.get(b"key") == b"value"
    await entries.aclose()


@pytest.mark.anyio
async def test_a_server_that_stands_still_is_an_error_in_time(server: RedisServer) -> None:
    entries = RedisEntries(server.url, timeout=0.4)
    await entries.set(b"key", b"value", 60)
    server.freeze()
    await every_call_fails(entries)
    server.thaw()
    patient = RedisEntries(server.url, timeout=20.0)
    assert await patient.add(b"new", b"value", 60)
    await entries.aclose()
    await patient.aclose()


@pytest.mark.anyio
async def test_what_was_flushed_is_unknown_and_can_be_kept_again(
    entries: RedisEntries, emptied_redis: redis.Redis
) -> None:
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    emptied_redis.flushall()
    assert await entries.get(b"key") is None
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    assert await entries.get(b"key") == b"value"


@pytest.mark.anyio
async def test_a_server_that_forgot_the_script_is_told_it_again(
    entries: RedisEntries, emptied_redis: redis.Redis
) -> None:
    for number in range(3):
        await entries.set(b"key", b"%d" % number, 60)
        emptied_redis.script_flush()
        assert await entries.get(b"key") == b"%d" % number


@pytest.mark.anyio
async def test_a_server_that_is_full_still_answers(server: RedisServer) -> None:
    entries = RedisEntries(server.url, timeout=20.0)
    await entries.set(b"key", b"value", 60)
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", "1")
        with pytest.raises(StoreError, match="OOM"):
            await entries.set(b"other", b"value", 60)
        admin.config_set("maxmemory", "0")
    assert await entries.get(b"key") == b"value"
    await entries.aclose()


@pytest.mark.anyio
async def test_no_more_wait_than_there_is_room_for(shared_redis: RedisServer, emptied_redis: redis.Redis) -> None:
    entries = RedisEntries(shared_redis.url, max_waiting=10)
    with pytest.raises(StoreError, match="10 wait for the store already"):
        await entries.get_many([b"%d" % number for number in range(100)])
    await asyncio.sleep(0)  # those that nobody waits for any more leave
    assert await entries.get(b"key") is None
    await entries.aclose()


@pytest.mark.anyio
async def test_a_closed_store_is_an_error(entries: RedisEntries) -> None:
    await entries.get(b"key")
    await entries.aclose()
    with pytest.raises(StoreError, match="closed"):
        await entries.get(b"key")


@pytest.mark.parametrize("more", [{"prefix": ""}, {"shards": 0}, {"timeout": 0}, {"connect": -1}, {"max_waiting": 0}])
def test_what_cannot_work_is_a_mistake(more: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"RedisEntries\.{next(iter(more))}"):
        RedisEntries("redis://localhost", **more)  # type: ignore[arg-type]


def test_nothing_secret_is_shown() -> None:
    assert repr(RedisEntries("redis://user:secret@host:1/2")) == "<RedisEntries: redis://host:1/2>"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cluster of one server, which is as strict as a large one about what belongs together."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(tmp_path_factory.mktemp("cluster"), *options) as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            while admin.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                pass
        yield server


@pytest.mark.parametrize("shards", [1, 7])
@pytest.mark.anyio
async def test_a_cluster_keeps_entries_too(cluster: RedisServer, shards: int) -> None:
    async with redis.asyncio.RedisCluster.from_url(cluster.url) as client:
        entries = RedisEntries(client, shards=shards, prefix=f"in-{shards}")
        keys = [b"%d" % number for number in range(50)]
        await asyncio.gather(*[entries.set(key, key, 60, tags=[b"a", b"b"]) for key in keys])
        assert await entries.get_many(keys) == keys
        assert [await entries.add(b"lock", b"token", 60) for _ in range(2)] == [True, False]
        await entries.delete(b"lock", value=b"token")
        await entries.purge(b"b")
        assert await entries.get_many([*keys, b"lock"]) == [None] * 51
        await entries.aclose()


# Purges


@pytest.mark.anyio
async def test_what_is_known_of_purges_has_an_end(entries: RedisEntries, emptied_redis: redis.Redis) -> None:
    await entries.purge(b"nobody has looked yet")
    assert not emptied_redis.exists("{apim}!purges")
    _, after = await entries.look([b"key"])
    for _ in range(21):
        await asyncio.gather(*[entries.purge(b"%d" % number) for number in range(500)])
    assert emptied_redis.zcard("{apim}!purges") == 501
    await entries.purge(b"tag")
    [(_, first), *_] = emptied_redis.zrange("{apim}!purges", 0, 0, withscores=True)
    emptied_redis.zadd("{apim}!purges", {f"old {number}": first + 1 + number % 100 for number in range(100)})
    await entries.purge(b"tag")
    assert emptied_redis.zcard("{apim}!purges") == 502
    assert 86_000_000 < emptied_redis.pttl("{apim}!purges") <= 86_400_000
    assert not await entries.set(b"key", b"value", 60, tags=[b"other"], since=after)


@pytest.mark.anyio
async def test_what_was_begun_before_purges_were_forgotten_is_not_kept(
    entries: RedisEntries, emptied_redis: redis.Redis
) -> None:
    _, after = await entries.look([b"key"])
    emptied_redis.flushall()
    assert not await entries.set(b"key", b"value", 60, tags=[b"tag"], since=after)
    _, later = await entries.look([b"key"])
    assert not await entries.set(b"key", b"value", 60, tags=[b"tag"], since=after)
    assert await entries.set(b"key", b"value", 60, tags=[b"tag"], since=later)


@pytest.mark.anyio
async def test_what_knows_no_purges_is_taken_away(entries: RedisEntries, emptied_redis: redis.Redis) -> None:
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    emptied_redis.set("{apim}!purges", "garbage")
    [found], after = await entries.look([b"key"])
    assert (found, await entries.set(b"key", b"new", 60, tags=[b"tag"], since=after)) == (b"value", True)
    emptied_redis.delete("{apim}!purges")
    emptied_redis.set("{apim}!purges", "garbage")
    await entries.purge(b"tag")
    assert await entries.get(b"key") is None


@pytest.mark.anyio
async def test_a_server_that_is_full_purges_and_keeps_nothing_since(
    entries: RedisEntries, emptied_redis: redis.Redis
) -> None:
    await entries.set(b"key", b"value", 60, tags=[b"tag"])
    _, after = await entries.look([b"key"])
    emptied_redis.config_set("maxmemory", 1)
    try:
        assert (await entries.look([b"key"]))[0] == [b"value"]
        await entries.purge(b"tag")
        assert (await entries.look([b"key"]))[0] == [None]
    finally:
        emptied_redis.config_set("maxmemory", 0)
    assert not await entries.set(b"key", b"value", 60, tags=[b"tag"], since=after)
