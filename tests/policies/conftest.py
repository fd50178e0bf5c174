"""What the tests of limits share; a module that needs other ones says so itself."""

import pytest

from apim_middleware.env import Env
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import FakeClock

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
    return Env(place="here", clock=clock, counters=MemoryCounters(clock) if request.param == "memory" else slow)


@pytest.fixture
def app() -> Counting:
    return Counting()
