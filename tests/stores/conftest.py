"""Real Redis servers for the tests of stores: one that is started once and emptied for each, and one for each."""

from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which it may ill-treat."""
    with redis_server(tmp_path) as running:
        yield running
