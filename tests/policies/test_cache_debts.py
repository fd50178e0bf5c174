"""A change while the store is away: what it should have taken away is not given away afterwards (RFC 9111 §4.4)."""

from typing import Any

import pytest

from apim_middleware import by
from apim_middleware._caching import shared_debts
from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio

STORED, HIT = "apim;fwd=uri-miss;stored", "apim;hit;ttl=60"


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
    await send({"type": "http.response.body", "body": b"hello"})


def guarded(entries: Elsewhere, clock: FakeClock, **fields: Any) -> ASGIApp:
    return Stack(Cache(**fields), env=Env(clock=clock, entries=entries), place="here")(answers)


@pytest.fixture
def entries() -> Elsewhere:
    return Elsewhere()


@pytest.fixture(params=[{}, {"vary_by": by.header("x-tenant")}], ids=["for all", "for some"])
def app(request: pytest.FixtureRequest, entries: Elsewhere, clock: FakeClock) -> ASGIApp:
    return guarded(entries, clock, **request.param)


async def changed_while_away(app: ASGIApp, entries: Elsewhere, clock: FakeClock, *paths: str) -> None:
    """Something is kept, and changes while the store takes nothing away, which is not asked for a while then."""
    for path in paths:
        await call(app, path=path)
    entries.down = {"get", "set", "add", "delete", "purge"}
    for path in paths:
        assert status(await call(app, "POST", path=path)) == "apim;fwd=method"
    clock.advance(1)


async def test_it_is_gone_once_the_store_answers_again(app: ASGIApp, entries: Elsewhere, clock: FakeClock) -> None:
    await changed_while_away(app, entries, clock, "/")
    entries.down = set()
    assert [status(await call(app)) for _ in range(2)] == [STORED, HIT]


async def test_it_is_not_given_away_while_nothing_can_be_taken_away(
    app: ASGIApp, entries: Elsewhere, clock: FakeClock
) -> None:
    await changed_while_away(app, entries, clock, "/")
    entries.down = {"delete", "purge"}
    for _ in range(2):
        assert status(await call(app)) == "apim;fwd=bypass"


async def test_other_resources_are_given_away_meanwhile(app: ASGIApp, entries: Elsewhere, clock: FakeClock) -> None:
    await call(app, path="/other")
    await changed_while_away(app, entries, clock, "/")
    entries.down = {"delete", "purge"}
    assert status(await call(app, path="/other")) == "apim;hit;ttl=59"


async def test_whatever_is_asked_for_next_takes_it_away_for_other_processes_too(
    app: ASGIApp, entries: Elsewhere, clock: FakeClock
) -> None:
    there = guarded(entries, clock)
    await call(there)
    here = guarded(entries, clock)
    await changed_while_away(here, entries, clock, "/")
    entries.down = set()
    await call(here, path="/other")
    assert status(await call(there)) == STORED


async def test_more_than_can_be_remembered_is_all(
    app: ASGIApp, entries: Elsewhere, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_debts, "_MOST", 2)
    await call(app, path="/other")
    paths = ["/a", "/b", "/c"]
    await changed_while_away(app, entries, clock, *paths)
    entries.down = set()
    assert [status(await call(app, path=path)) for path in [*paths, "/other"]] == [STORED] * 4
    assert status(await call(app, path="/other")) == HIT
