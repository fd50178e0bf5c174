"""What the tests of credentials share."""

import pytest

from apim_middleware.env import Env
from apim_middleware.testing import FakeClock

from .services import Issuer, Metadata


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def issuer(clock: FakeClock) -> Issuer:
    return Issuer(clock)


@pytest.fixture
def metadata(clock: FakeClock) -> Metadata:
    return Metadata(clock)


@pytest.fixture
def env(clock: FakeClock, issuer: Issuer) -> Env:
    return Env(clock=clock, transport=issuer)


@pytest.fixture
def azure(clock: FakeClock, metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> Env:
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.delenv(name, raising=False)
    return Env(clock=clock, transport=metadata)
