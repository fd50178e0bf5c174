"""A real Redis server for the tests of stores, started once and emptied for each."""

from collections.abc import Iterator

import pytest
import redis
from tests.servers import RedisServer, redis_server


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that leave it as they found it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def emptied_redis(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    """A plain client of that server, which holds nothing yet."""
    with redis.Redis.from_url(shared_redis.url) as client:
        client.flushall()
        yield client
