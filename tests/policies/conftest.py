"""What the tests of limits and caches share; a module that needs other ones says so itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers import RedisServer, redis_server

from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import FakeClock
from apim_middleware.types import ASGIApp

from .caching import Elsewhere, Guarded
from .counting import Counting, SlowCounters


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def slow(clock: FakeClock) -> SlowCounters:
    return SlowCounters(clock)


@pytest.fixture(params=["memory", "slow"])
def env(request: pytest.FixtureRequest, clock: FakeClock, slow: SlowCounters) -> Env:
    """Counters that need no awaiting, and counters that do: nobody can tell which."""
    return Env(place="here", clock=clock, counters=MemoryCounters(clock=clock) if request.param == "memory" else slow)


@pytest.fixture
def app() -> Counting:
    return Counting()


@pytest.fixture(params=["memory", "elsewhere"])
def entries(request: pytest.FixtureRequest) -> Elsewhere | None:
    """Where responses are kept: all that is true of a cache holds in memory and in a store elsewhere."""
    return Elsewhere() if request.param == "elsewhere" else None


@pytest.fixture
def guarded(clock: FakeClock, entries: Elsewhere | None) -> Guarded:
    def build(app: ASGIApp, *layers: Any) -> ASGIApp:
        return Stack(*(layers or (Cache(),)), env=Env(clock=clock, entries=entries), place="here")(app)

    return build


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server for the tests of a module."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running
