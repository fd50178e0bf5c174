"""Passwords of a Redis server that are changed while the stores are in use."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from tests.servers import RedisServer

from apim_middleware import FileSecret
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.protocols import Hit, Limit
from apim_middleware.stores.redis import RedisCounters, RedisEntries, RedisPermits, RedisRecords

pytestmark = pytest.mark.anyio
HIT = [Hit("a", Limit(10, 3_600.0, "sliding", "here"))]


@pytest.fixture
def anyio_backend() -> str:
    """Redis is asked on asyncio only."""
    return "asyncio"


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


def let_in(admin: redis.Redis, password: str) -> None:
    """Let the user in with this password and no other, and cut the connections of whoever had another."""
    admin.acl_setuser(
        "gate", enabled=True, reset_passwords=True, passwords=["+" + password], keys=["*"], categories=["+@all"]
    )
    admin.client_kill_filter(_type="normal", skipme=True)


def url_of(server: RedisServer) -> str:
    return f"redis://gate@127.0.0.1:{server.port}/0"


class Spoken:
    """A secret that somebody says when asked."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.failure: Exception | None = None

    def reader(self, env: Env) -> Any:
        async def read() -> str:
            await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            return self.text

        return read


async def heard() -> None:
    """Let the loop take notice of what happened to its connections."""
    await asyncio.sleep(0.01)


async def test_a_password_is_read_again_for_each_connection(server: RedisServer, admin: redis.Redis) -> None:
    password = Spoken("old")
    let_in(admin, "old")
    counters = RedisCounters(url_of(server), password=password)
    assert (await counters.hit(HIT))[0].remaining == 9
    let_in(admin, "new")
    await heard()
    with pytest.raises(StoreError, match="WRONGPASS"):
        await counters.hit(HIT)
    password.text = "new"
    assert (await counters.hit(HIT))[0].remaining == 8
    await counters.aclose()


async def test_a_password_in_a_file_is_that_of_now(server: RedisServer, admin: redis.Redis, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    let_in(admin, "old")
    entries = RedisEntries(url_of(server), password=FileSecret(path=file, check_every=0.001))
    await entries.set(b"key", b"value", 60.0)
    file.write_text("newer\n")
    let_in(admin, "newer")
    await heard()
    assert await entries.get(b"key") == b"value"
    await entries.aclose()


async def test_a_connection_that_was_let_in_is_kept_while_the_password_changes(
    server: RedisServer, admin: redis.Redis
) -> None:
    """Both passwords may be good for a while: nobody need notice."""
    password = Spoken("old")
    let_in(admin, "old")
    permits = RedisPermits(url_of(server), password=password)
    assert await permits.acquire("key", 5, "one") == (True, 1)
    admin.acl_setuser("gate", passwords=["+new", "-old"])
    password.text = "new"
    assert await permits.acquire("key", 5, "two") == (True, 2)
    await permits.aclose()


async def test_a_server_that_wants_a_password_all_of_a_sudden_gets_it_on_a_new_connection(
    server: RedisServer, admin: redis.Redis
) -> None:
    password = Spoken("")
    records = RedisRecords(server.url, password=password)
    await records.put("kind", "id", {})
    admin.config_set("requirepass", "new")
    admin.execute_command("AUTH", "new")
    admin.client_kill_filter(_type="normal", skipme=True)
    await heard()
    with pytest.raises(StoreError, match="NOAUTH"):  # a connection without a password is made before it is known
        await records.get("kind", "id")
    password.text = "new"
    assert await records.get("kind", "id") is not None
    await records.aclose()


async def test_a_password_that_cannot_be_had_is_an_error_and_said_to_nobody(
    server: RedisServer, admin: redis.Redis
) -> None:
    password = Spoken("hunter2")
    password.failure = ValueError("hunter2 is no good")
    records = RedisRecords(url_of(server), password=password)
    with pytest.raises(StoreError, match=r"cannot be had \(ValueError\)") as caught:
        await records.get("kind", "id")
    assert "hunter2" not in str(caught.value) + repr(records)
    let_in(admin, "hunter2")
    password.failure = None
    assert await records.get("kind", "id") is None
    await records.aclose()


@pytest.mark.parametrize("kind", [RedisCounters, RedisEntries, RedisPermits, RedisRecords])
def test_one_password_is_enough(kind: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.password: .* one in the URL too") as caught:
        kind("redis://user:hunter2@host", password="hunter3")
    assert "hunter" not in str(caught.value)
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.password") as caught:
        kind("redis://user@host", password=123456)
    assert "123456" not in str(caught.value)


async def test_a_ready_client_has_its_own() -> None:
    async with redis.asyncio.Redis() as client:
        with pytest.raises(ConfigError, match=r"RedisCounters\.password: .*ready client"):
            RedisCounters(client, password="hunter2")
