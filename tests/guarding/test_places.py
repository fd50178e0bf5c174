"""Where a guard counts and stores: at its name, within the place of its environment, and apart from all others."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from apim_middleware import (
    Cache,
    CachedResponses,
    Env,
    LimitConcurrency,
    MemoryCounters,
    RateLimit,
    RequireHeader,
    Stack,
    Standings,
    When,
    by,
    conditions,
)
from apim_middleware.errors import ConfigError
from apim_middleware.guarding import guard, guarded_by
from apim_middleware.stores.sqlite import SQLiteCounters
from apim_middleware.stores.sqlite.entries import SQLiteEntries
from apim_middleware.stores.sqlite.permits import SQLitePermits
from apim_middleware.testing import call

pytestmark = pytest.mark.anyio

LIMIT = RateLimit(calls=1, per=3600, by=by.everyone)


def selling(what: str, endpoint: Any = None) -> Starlette:
    """An app whose prices are its own."""

    async def prices(request: Request) -> Response:
        return PlainTextResponse(what, headers={"cache-control": "max-age=60"})

    return Starlette(routes=[Route("/prices", endpoint or prices)])


def counted_at(env: Env) -> list[str]:
    """The places of limits, without what tells those of one policy apart."""
    return [each.removesuffix("/default/apim_middleware.by.everyone") for each in Standings(env).places()]


@pytest.fixture
async def stores(tmp_path: Path, anyio_backend: str) -> AsyncIterator[dict[str, Any]]:
    """Stores that others see, as an environment takes them."""
    file = tmp_path / "shared.db"
    found = {"counters": SQLiteCounters(file), "entries": SQLiteEntries(file), "permits": SQLitePermits(file)}
    yield found
    for each in found.values():
        await each.aclose()


async def test_at_two_places_of_one_store_two_guards_count_apart(stores: dict[str, Any]) -> None:
    """The place of the environment was not asked, so the visits of one shop were those of the other."""
    apps = [guard(selling(each), policies=(LIMIT,), env=Env(**stores, place=each)) for each in ("shop", "bank")]
    assert [(await call(app, path="/prices")).status for app in (*apps, *apps)] == [200, 200, 429, 429]


async def test_at_two_places_of_one_store_no_guard_answers_for_the_other(stores: dict[str, Any]) -> None:
    """The bank's prices were the shop's."""
    policies = (Cache(ttl=60),)
    apps = [guard(selling(each), policies=policies, env=Env(**stores, place=each)) for each in ("shop", "bank")]
    assert [(await call(app, path="/prices")).body for app in (*apps, *apps)] == [b"shop", b"bank"] * 2


async def test_at_one_place_two_names_count_apart(stores: dict[str, Any]) -> None:
    env = Env(**stores, place="mall")
    apps = [guard(selling(each), policies=(LIMIT,), name=each, env=env) for each in ("shop", "bank")]
    assert [(await call(app, path="/prices")).status for app in apps] == [200, 200]


def test_the_name_stands_within_the_place_of_the_environment() -> None:
    env = Env(place="mall")
    app = guard(selling("tea"), policies=(LIMIT, Cache(ttl=60)), routes={"/prices": (LIMIT,)}, name="shop", env=env)
    assert counted_at(env) == ["mall/shop//prices/RateLimit", "mall/shop/RateLimit"]
    assert CachedResponses(env).places() == ["mall/shop/Cache/Cache"]
    assert app.env.place == "mall/shop"


def test_a_name_alone_is_the_place_it_always_was() -> None:
    env = Env(counters=MemoryCounters())
    app = guard(selling("tea"), policies=(LIMIT,), routes={"/prices": (LIMIT,)}, name="shop", env=env)
    assert counted_at(env) == ["shop//prices/RateLimit", "shop/RateLimit"]
    assert app.env.place == "shop"


async def test_a_name_will_do_in_a_store_that_others_see(stores: dict[str, Any]) -> None:
    env = Env(**stores)
    app = guard(selling("tea"), policies=(LIMIT,), name="shop", env=env)
    assert counted_at(env) == ["shop/RateLimit"]
    assert (await call(app, path="/prices")).status == 200


@pytest.mark.parametrize(
    "layer",
    [LIMIT, Cache(ttl=60), LimitConcurrency(at_once=1), When(conditions.method("GET"), Stack(LIMIT))],
    ids=["counts", "responses", "permits", "counts within a branch"],
)
async def test_without_place_or_name_nothing_is_kept_where_others_see_it(stores: dict[str, Any], layer: Any) -> None:
    with pytest.raises(ConfigError, match="in the gateway or guard, or Env"):
        guard(selling("tea"), policies=(layer,), env=Env(**stores))


async def test_nor_by_what_stands_in_front_of_one_route(stores: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="without a name, but its store is seen by others"):
        guard(selling("tea"), routes={"/prices": (LIMIT,)}, env=Env(**stores))


async def test_nor_by_what_an_endpoint_is_marked_with(stores: dict[str, Any]) -> None:
    @guarded_by(LIMIT)
    async def prices(request: Request) -> Response:
        return PlainTextResponse("tea")

    with pytest.raises(ConfigError, match="without a name, but its store is seen by others"):
        guard(selling("tea", prices), env=Env(**stores))


async def test_who_keeps_nothing_in_a_shared_store_needs_no_name(stores: dict[str, Any]) -> None:
    app = guard(selling("tea"), policies=(RequireHeader(name="x-key"),), env=Env(**stores))
    assert (await call(app, path="/prices")).status == 400


async def test_a_stack_with_a_place_of_its_own_is_named(stores: dict[str, Any]) -> None:
    app = guard(selling("tea"), policies=(Stack(LIMIT, place="mall"),), env=Env(**stores))
    assert [(await call(app, path="/prices")).status for _ in range(2)] == [200, 429]
