"""What several workers would keep apart is told before they start: by policy, and with the cure."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from tests.servers import free_port, program
from typer.testing import CliRunner

from apim_middleware import (
    AccessLog,
    AllOf,
    AnyOf,
    Api,
    APIKeyAuth,
    BasicAuth,
    Cache,
    Choose,
    DPoP,
    Env,
    Gateway,
    Health,
    HMACSignature,
    Hygiene,
    Idempotency,
    IPFilter,
    JWTAuth,
    LimitConcurrency,
    Limits,
    MemoryEntries,
    MemoryKeys,
    MemoryRecords,
    MemoryUsers,
    OAuth2Introspection,
    Only,
    Operation,
    Overrides,
    Product,
    Quota,
    RateLimit,
    RecordKeys,
    RevokedTokens,
    Stack,
    Tracing,
    When,
    by,
    conditions,
    guard,
    guarded_by,
)
from apim_middleware.cli._apart import kept_apart
from apim_middleware.cli._standing import has_access_log
from apim_middleware.cli.app import app as command
from apim_middleware.gateway import Reloadable
from apim_middleware.serving.forward_auth import ForwardAuth
from apim_middleware.stores.sqlite import SQLiteCounters, SQLitePermits, SQLiteRecords
from apim_middleware.stores.sqlite.entries import SQLiteEntries

RATE, QUOTA = RateLimit(calls=5, per=60, by=by.client), Quota(rate="100/day", by=by.client)
ONCE = LimitConcurrency(at_once=3)
SIGNED = HMACSignature(secrets=(b"x" * 32,), once=True, signed="{timestamp}.{body}", timestamp_header="x-time")


def shop(*middlewares: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.get("/orders")(lambda: "orders")
    for each in middlewares:
        app.add_middleware(each)
    return app


def gateway(backend: Any = None, **more: Any) -> Gateway:
    api = Api(
        "orders",
        "/orders",
        backend=backend or shop(),
        subscription_required="keys" in more,
        policies=(QUOTA,),
        operations=(Operation("GET", "/*", policies=(ONCE,)),),
    )
    return Gateway(apis=(api,), policies=(RATE,), **more)


def reports() -> FastAPI:
    app = shop()
    app.get("/reports")(guarded_by(ONCE)(lambda: "reports"))
    return guard(app, policies=(RATE,), routes={"/orders": Only(QUOTA)})


APPS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "gateway": (gateway, ["RateLimit, Quota: count apart", "LimitConcurrency: count apart"]),
    "reloadable": (lambda: Reloadable(gateway()), ["RateLimit, Quota:", "LimitConcurrency:"]),
    "keys": (
        lambda: gateway(keys=MemoryKeys()),
        ["RateLimit, Quota:", "LimitConcurrency:", "APIKeyAuth: look keys up"],
    ),
    "backend": (
        lambda: gateway(backend=shop(Cache())),
        ["RateLimit, Quota:", "LimitConcurrency:", "Cache: keep apart"],
    ),
    "guard": (reports, ["RateLimit, Quota:", "LimitConcurrency:"]),
    "middlewares": (lambda: shop(RATE, Stack(Idempotency())), ["RateLimit:", "Idempotency:"]),
    "behind a guard": (lambda: guard(shop(RATE)), ["RateLimit:"]),
    "stack": (lambda: Stack(RATE, IPFilter(deny=("192.0.2.1",)), Stack(ONCE))(shop()), ["RateLimit:", "LimitConcu"]),
    "behind layers": (lambda: Stack(Health(), Tracing(), AccessLog(), RATE)(shop()), ["RateLimit:"]),
    "branches": (
        lambda: shop(When(conditions.path("/a"), RATE, otherwise=QUOTA), Choose((conditions.path("/b"), ONCE))),
        ["Quota, RateLimit:", "LimitConcurrency:"],
    ),
    "authenticators": (
        lambda: shop(AnyOf(APIKeyAuth(keys=MemoryKeys()), AllOf(SIGNED))),
        ["HMACSignature:", "APIKeyAuth:"],
    ),
    "mounted": (lambda: Starlette(routes=[Mount("/", Stack(RATE)(shop()))]), ["RateLimit:"]),
    "mounted with middleware": (lambda: Starlette(middleware=[Middleware(RATE)]), ["RateLimit:"]),
    "forward auth": (lambda: ForwardAuth(Stack(RATE), trusted=("unix",)), ["RateLimit:"]),
    "odd names": (
        lambda: Stack(RateLimit(calls=1, per=1, by=by.header("x_tenant")), env=Env(hygiene=Hygiene(odd_names="keep")))(
            shop()
        ),
        ["RateLimit:"],
    ),
    "nothing kept": (lambda: Stack(IPFilter(deny=("192.0.2.1",)))(shop()), []),
}


@pytest.mark.parametrize("name", APPS)
def test_what_workers_keep_apart_is_told_by_policy(name: str) -> None:
    make, beginnings = APPS[name]
    told = kept_apart(make(), 2)
    assert len(told) == len(beginnings), told
    assert all(each.startswith(beginning) for each, beginning in zip(told, beginnings, strict=True)), told


def test_the_cure_is_told() -> None:
    [counts] = kept_apart(shop(RATE), 3)
    assert "3 times as much may pass" in counts
    assert "Env(counters=SQLiteCounters(...)) or RedisCounters, and a place" in counts


def tokens(**more: Any) -> JWTAuth:
    return JWTAuth(issuer="https://issuer.example", audience="orders", **more)


def opaque(**more: Any) -> OAuth2Introspection:
    asked = {"url": "https://issuer.example/ask", "client_id": "a", "client_secret": "b"}
    return OAuth2Introspection(issuer="https://issuer.example", audience="orders", **asked, **more)


@pytest.mark.parametrize(
    ("layer", "happens", "cure"),
    [
        (tokens(revoked=RevokedTokens()), "JWTAuth: ask for revoked tokens", "an async function of yours"),
        (tokens(dpop=DPoP()), "JWTAuth: remember DPoP proofs", "DPoP(replays=...)"),
        (tokens(dpop=DPoP(replays=MemoryEntries())), "JWTAuth: remember DPoP proofs", "RedisEntries"),
        (opaque(dpop=DPoP()), "OAuth2Introspection: remember DPoP proofs", "RedisEntries"),
        (BasicAuth(users=MemoryUsers()), "BasicAuth: look users up", "a store of yours"),
        (APIKeyAuth(keys=RecordKeys(MemoryRecords())), "APIKeyAuth: look keys up", "SQLiteRecords or RedisRecords"),
    ],
    ids=["revoked tokens", "proofs", "proofs in memory", "proofs of opaque tokens", "users", "records in memory"],
)
def test_what_one_worker_is_told_of_callers_is_told_with_its_cure(layer: Any, happens: str, cure: str) -> None:
    """A token that was revoked in one of two workers worked on in the other, and nothing was said of it."""
    [told] = kept_apart(shop(layer), 2)
    assert told.startswith(happens)
    assert cure in told


@pytest.mark.parametrize("several", [False, True], ids=["alone", "in limits"])
def test_rates_that_one_worker_sets_are_told_with_their_cure(several: bool) -> None:
    limit = RateLimit(calls=5, per=60, by=by.client, overrides=Overrides())
    _, told = kept_apart(shop(Limits(limit) if several else limit), 2)
    assert told.startswith("Limits: read overrides" if several else "RateLimit: read overrides")
    assert "RecordOverrides on SQLiteRecords or RedisRecords" in told


@pytest.mark.parametrize("layer", [tokens(), tokens(revoked=lambda principal: False)], ids=["nobody", "elsewhere"])
def test_tokens_that_no_worker_revokes_by_itself_are_not_told_of(layer: Any) -> None:
    assert kept_apart(shop(layer), 2) == []


def test_proofs_that_all_workers_remember_together_are_not_told_of(tmp_path: Path) -> None:
    assert kept_apart(shop(tokens(dpop=DPoP(replays=SQLiteEntries(str(tmp_path / "proofs.db"))))), 2) == []


def test_one_worker_keeps_nothing_apart() -> None:
    assert kept_apart(gateway(keys=MemoryKeys()), 1) == []


def test_what_is_shared_is_not_told_of(tmp_path: Path) -> None:
    file = str(tmp_path / "shared.db")
    env = Env(counters=SQLiteCounters(file), permits=SQLitePermits(file), entries=SQLiteEntries(file), place="shop")
    keys = RecordKeys(SQLiteRecords(file))
    product = Product("starter", apis=("orders",), policies=(RATE, Idempotency()))
    assert kept_apart(gateway(keys=keys, env=env, products=(product,)), 2) == []
    assert kept_apart(guard(shop(), policies=(RATE,), env=env), 2) == []
    assert kept_apart(Stack(RATE, env=env)(shop()), 2) == []
    assert kept_apart(shop(Stack(RATE, env=env)), 2) == []


def test_the_check_for_so_many_workers_has_it_as_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(Path(__file__).parents[2])
    several = CliRunner().invoke(command, ["check", "tests.cli.apps:before", "--workers", "2"])
    assert "RateLimit: count apart in each of the 2 workers" in several.output
    alone = CliRunner().invoke(command, ["check", "tests.cli.apps:before"])
    assert "apart" not in alone.output


@pytest.mark.parametrize(("workers", "times"), [("2", 1), ("1", 0)])
def test_those_who_serve_are_warned_once(workers: str, times: int, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-c", "from apim_middleware.cli import main; main()", "serve", "tests.cli.apps:before"]
    with program([*command, "--workers", workers, "--port", str(port)], port, log=log):
        pass
    said = log.read_text()
    assert said.count("warning: RateLimit: count apart") == times
    assert said.count("warning:") == times


@pytest.mark.parametrize(
    "app",
    [
        Gateway(apis=(Api("a", "/a", backend=shop(), subscription_required=False),), policies=(AccessLog(),)),
        Stack(Tracing(), AccessLog(), RATE)(shop()),
        shop(Stack(AccessLog())),
        guard(shop(), policies=(AccessLog(),)),
    ],
    ids=["gateway", "stack", "middleware", "guard"],
)
def test_an_access_log_is_found_wherever_it_stands(app: Any) -> None:
    assert has_access_log(app)


def test_where_there_is_no_access_log_none_is_found() -> None:
    assert not any(has_access_log(make()) for make, _ in APPS.values() if make is not APPS["behind layers"][0])
