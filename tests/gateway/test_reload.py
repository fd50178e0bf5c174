"""A gateway is replaced while it serves: nothing is dropped, nothing is answered wrongly, counts stay."""

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from tests.gateway.houses import Backend, Subscribers, get, told

from apim_middleware import conditions
from apim_middleware._http.hygiene import Hygiene
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.identity import Principal
from apim_middleware.model import Api, Operation, Product, Revision
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.branch import When
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy.app import Proxy
from apim_middleware.proxy.breaker import CircuitBreaker
from apim_middleware.proxy.pool import Pool
from apim_middleware.stores.sqlite import SQLiteEntries
from apim_middleware.testing import FakeClock
from apim_middleware.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Counts(Policy):
    """Keeps a count in itself, as breakers do."""

    guards: ClassVar[bool] = False

    name: str = "counts"

    def bind(self, env: Env) -> "_Counting":
        return _Counting()


class _Counting:
    def __init__(self) -> None:
        self.count = 0

    def on_request(self, exchange: Exchange) -> None:
        self.count += 1
        exchange.attributes.setdefault("passed", []).append(self.count)


def shop(*policies: Any, backend: Any = None, **more: Any) -> Gateway:
    operations = (Operation("GET", "/x"), Operation("GET", "/y"))
    api = Api("shop", "/shop", backend=backend or Backend(), operations=operations, policies=policies,
              subscription_required=False)  # fmt: skip
    return Gateway(apis=(api,), **more)


async def counted(app: ASGIApp, path: str = "/shop/x") -> int:
    return int(told(await get(app, path))["passed"][0])


async def test_what_unchanged_policies_keep_stays() -> None:
    app = Reloadable(shop(Counts(), RateLimit(calls=3, per=60)))
    assert [await counted(app), await counted(app, "/shop/y")] == [1, 2]
    await app.reload(shop(Counts(), RateLimit(calls=3, per=60), Counts("new")))
    assert await counted(app) == 3
    assert (await get(app, "/shop/x")).status == 429


async def test_what_changed_policies_kept_is_gone() -> None:
    app = Reloadable(shop(Counts("old")))
    await counted(app)
    await app.reload(shop(Counts("new")))
    assert await counted(app) == 1


@dataclass(frozen=True)
class Claims(Policy):
    """Says what the caller's token says."""

    provides: ClassVar[frozenset[str]] = frozenset({"principal"})
    guards: ClassVar[bool] = True

    def on_request(self, exchange: Exchange) -> None:
        exchange.principal = Principal(subject="ada", issuer="https://issuer.example", claims={"admin": 1})


GETS = conditions.method("GET")


@pytest.mark.parametrize("within", [lambda layer: layer, lambda layer: When(GETS, layer), Stack])
async def test_what_only_python_has_be_equal_is_a_change(within: Any) -> None:
    """``claims={"admin": 1}`` stayed in force where ``True`` had been put in its place, and nothing told of it."""
    backend = Backend()
    app = Reloadable(shop(Claims(), within(Authorize(claims={"admin": 1})), backend=backend))
    assert (await get(app, "/shop/x")).status == 200
    changes = await app.reload(shop(Claims(), within(Authorize(claims={"admin": True})), backend=backend))
    assert [change.where for change in changes] == ["GET /shop/x", "GET /shop/y"]
    assert (await get(app, "/shop/x")).status == 403


async def test_two_revisions_with_what_only_python_has_be_equal_are_apart() -> None:
    revisions = tuple(
        Revision(number, policies=(Claims(), Authorize(claims={"admin": value})))
        for number, value in ((1, 1), (2, True))
    )
    api = Api("shop", "/shop", backend=Backend(), operations=(Operation("GET", "/x"),), revisions=revisions,
              subscription_required=False)  # fmt: skip
    app = Gateway(apis=(api,))
    assert [(await get(app, path)).status for path in ("/shop/x", "/shop;rev=2/x")] == [200, 403]


async def test_backends_that_only_python_has_be_equal_are_two() -> None:
    app = Reloadable(shop(backend=Proxy("http://127.0.0.1:1", connect_timeout=5)))
    [first] = app._now.compiled.backends.every()
    await app.reload(shop(backend=Proxy("http://127.0.0.1:1", connect_timeout=5.0)))
    assert app._now.compiled.backends.every() != [first]


async def test_a_cache_stays_warm() -> None:
    made: list[str] = []

    async def backend(scope: Scope, receive: Receive, send: Send) -> None:
        made.append(scope["path"])
        headers = [(b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x"})

    app = Reloadable(shop(Cache(), backend=backend, env=Env(clock=FakeClock())))
    await get(app, "/shop/x")
    await app.reload(shop(Cache(), Counts(), backend=backend, env=app.gateway.env))
    await get(app, "/shop/x")
    assert made == ["/shop/x"]


async def test_a_cache_answers_nobody_with_what_another_revision_said() -> None:
    """A revision that was rolled back went on answering until it was stale."""
    revisions = Revision(1), Revision(2, backend=Backend("two"))
    policies = (Cache(ttl=60),)
    api = Api(
        "shop", "/shop", backend=Backend("one"), revisions=revisions, policies=policies, subscription_required=False
    )
    app = Reloadable(Gateway(apis=(api,), env=Env(clock=FakeClock())))
    names = [told(await get(app, "/shop/x"))["name"]]
    await app.reload(Gateway(apis=(api.promote(2),), env=app.gateway.env))
    names.append(told(await get(app, "/shop/x"))["name"])
    assert names == ["one", "two"]


@pytest.mark.parametrize("shared", [False, True])
async def test_what_one_revision_changed_no_revision_shows_as_it_was(shared: bool, tmp_path: Path) -> None:
    """After a rollback the older revision answered with what it had said before the newer one changed it."""
    said: list[str] = []

    async def backend(scope: Scope, receive: Receive, send: Send) -> None:
        said.append(scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % len(said)})

    api = Api(
        "shop", "/shop", backend=backend, revisions=(Revision(1), Revision(2)), subscription_required=False,
        policies=(Cache(ttl=60),),
    )  # fmt: skip
    clock = FakeClock()
    env = Env(clock=clock, entries=SQLiteEntries(tmp_path / "e", clock=clock) if shared else None, place="g")
    app = Reloadable(Gateway(apis=(api,), env=env))
    await get(app, "/shop/x")
    await app.reload(Gateway(apis=(api.promote(2),), env=app.gateway.env))
    await get(app, "/shop/x")
    await get(app, "/shop/x", method="POST")
    await get(app, "/shop/x")
    await app.reload(Gateway(apis=(api,), env=app.gateway.env))
    await get(app, "/shop/x")
    assert said == ["GET", "GET", "POST", "GET", "GET"]


async def test_equal_backends_are_the_same_object() -> None:
    app = Reloadable(shop(backend="http://127.0.0.1:1"))
    [first] = app._now.compiled.backends.every()
    await app.reload(shop(Counts(), backend="http://127.0.0.1:1"))
    [second] = app._now.compiled.backends.every()
    assert second is first
    await app.reload(shop(Counts(), backend="http://127.0.0.1:2"))
    assert app._now.compiled.backends.every() != [first]


async def test_a_pool_keeps_its_breakers_and_its_health() -> None:
    def pooled(url: str) -> Pool:
        return Pool(url, "http://127.0.0.1:2", breaker=CircuitBreaker(failures=3), balance="least-connections")

    app = Reloadable(shop(backend=Proxy(pooled("http://127.0.0.1:1"), connect_timeout=1.0)))
    [first] = app._now.compiled.backends.every()
    await app.reload(shop(Counts(), backend=Proxy(pooled("http://127.0.0.1:1"), connect_timeout=1.0)))
    assert app._now.compiled.backends.every() == [first]
    await app.reload(shop(backend=Proxy(pooled("http://127.0.0.1:3"), connect_timeout=1.0)))
    assert app._now.compiled.backends.every() != [first]


async def test_who_is_under_way_ends_on_the_old_plan() -> None:
    inside, go_on = anyio.Event(), anyio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        inside.set()
        await go_on.wait()
        await Backend("old")(scope, receive, send)

    app = Reloadable(shop(backend=slow))
    names: list[str] = []

    async def ask() -> None:
        names.append(told(await get(app, "/shop/x"))["name"])

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await inside.wait()
        await app.reload(shop(backend=Backend("new")))
        names.append(told(await get(app, "/shop/x"))["name"])
        go_on.set()
    assert names == ["new", "old"]


async def test_what_is_wrong_in_its_new_place_is_refused_and_the_old_one_stays() -> None:
    """Such as a store that keeps only named places, or a backend that does not start."""
    app = Reloadable(shop(Counts()))
    before = app.gateway

    @dataclass(frozen=True)
    class Fussy(Policy):
        def bind(self, env: Env) -> object:
            if env.counters(lambda: None) is not None:  # type: ignore[arg-type, return-value]
                raise ConfigError("Fussy", "", "does not like this store", "Take another")
            return _Counting()

    fussy = shop(Fussy())
    app._env.counters(lambda: object())  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="Fussy: does not like this store"):
        await app.reload(fussy)
    assert app.gateway is before
    assert await counted(app) == 1


async def test_a_broken_configuration_cannot_even_be_made() -> None:
    with pytest.raises(ConfigError):
        shop(backend=7)


async def test_reloads_take_turns() -> None:
    app = Reloadable(shop())
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(app.reload, shop(Counts(str(number))))
    assert await counted(app) == 1


def configuration(number: int, subscribers: Subscribers) -> Gateway:
    """One of two gateways that differ in everything a caller can see; every twentieth is broken."""
    if number % 20 == 7:
        return Gateway(
            apis=(Api("shop", "/shop", backend=Backend("x")), Api("other", "/shop", backend=Backend("y"))),
            keys=subscribers.store,
        )
    kind = "even" if number % 2 == 0 else "odd"
    return Gateway(
        apis=(
            Api("shop", "/shop", backend=Backend(kind), operations=(Operation("GET", f"/{kind}"),)),
            Api("both", "/both", backend=Backend(kind), policies=(RateLimit(calls=1_000_000, per=60),)),
        ),
        products=(Product("p", apis=("shop", "both"), policies=(Counts(),)),),
        keys=subscribers.store,
    )


async def test_reloaded_again_and_again_under_load_nothing_is_dropped_or_answered_wrongly() -> None:
    subscribers = Subscribers()
    lines = subscribers.add("mine", product="p")
    app = Reloadable(configuration(0, subscribers))
    kinds, refused, over, seen = ["even"], 0, False, [0]
    counts: list[int] = []

    async def caller(seed: int) -> None:
        chance = random.Random(seed)
        while not over:
            asked = chance.choice(["even", "odd"])
            before = kinds[-1], len(kinds)
            answer = await get(app, f"/shop/{asked}", lines)
            whole = before[1] == len(kinds)
            if whole:  # nobody reloaded meanwhile
                assert answer.status == (200 if asked == before[0] else 404)
            assert answer.status in (200, 404)
            if answer.status == 200:
                assert json.loads(answer.body)["name"] == asked
            counts.append(told(await get(app, "/both/x", lines))["passed"][0])
            seen[0] += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for seed in range(8):
            group.start_soon(caller, seed)
        for number in range(1, 101):
            target = seen[0] + 10
            while seen[0] < target:
                await anyio.lowlevel.checkpoint()
            try:
                await app.reload(configuration(number, subscribers))
                kinds.append("even" if number % 2 == 0 else "odd")
            except ConfigError as error:
                assert "begins already" in str(error)  # noqa: PT017 - one of many
                refused += 1
        over = True
    assert refused == 5
    assert len(counts) == len(set(counts))  # one count all along, through every reload
    assert max(counts) >= seen[0]


async def test_a_changed_field_of_the_same_gateway_is_a_reload_too() -> None:
    app = Reloadable(shop(Counts()))
    assert (await get(app, "/shop/none", method="PUT")).status == 404
    assert [row.path for row in app.rows()] == ["/shop/x", "/shop/y"]
    changes = await app.reload(replace(app.gateway, unknown_method=405))
    assert (await get(app, "/shop/x", method="PUT")).status == 405
    assert [str(change) for change in changes] == ["Gateway: changed unknown_method (404 -> 405)"]


async def test_another_hygiene_is_told_of_as_it_is_where_the_gateway_stands() -> None:
    """What has no environment of its own was taken for one with that of ``Env()``."""
    without = shop()
    served = Reloadable(replace(without, env=Env(hygiene=Hygiene(odd_names="keep"))))
    stays = await served.reload(without)
    await served.reload(replace(without, env=Env()))
    comes_back = await served.reload(without)
    assert [stays, [(each.what, each.loud) for each in comes_back]] == [(), [("env.hygiene", True)]]
