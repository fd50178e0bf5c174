"""Policies of wider scopes stand outside those of narrower ones, and each counts once in its scope."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.houses import Backend, Passes, Subscribers, code, get, passing, told

from apim_middleware import by, conditions
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api, Deprecation, Fragment, NamedValue, Operation, Product, Version, Versions
from apim_middleware.policies.branch import When
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.client import IPFilter
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policies.headers import SetHeader
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policies.set_backend import SetBackend
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policy import Stack
from apim_middleware.stores.sqlite import SQLiteCounters
from apim_middleware.testing import FakeClock, call, connect
from apim_middleware.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio


def nested(*, operation: bool = True, version: bool = True, api: bool = True, product: bool = True) -> Any:
    """A gateway with a policy at each scope, and the header lines of a key of its product and of another one."""
    subscribers = Subscribers()
    lines = subscribers.add("mine", product="starter")
    other = subscribers.add("whole", api="*")
    operations = (
        Operation("GET", "/x", policies=(Passes("operation"),), inherit=operation),
        Operation("GET", "/y"),
    )
    versions = Versions("path", (Version("v1", policies=(Passes("version"),), inherit=version),))
    app = Gateway(
        policies=(Passes("global"),),
        products=(Product("starter", apis=("shop",), policies=(Passes("product"),), inherit=product),),
        apis=(
            Api("shop", "/shop", backend=Backend(), operations=operations, versions=versions,
                policies=(Passes("api"),), inherit=api),
        ),
        keys=subscribers.store,
    )  # fmt: skip
    return app, lines, other


async def test_scopes_nest_from_the_gateway_to_the_operation() -> None:
    app, lines, _ = nested()
    answer = await get(app, "/shop/v1/x", lines)
    whole = ["global", "product", "api", "version", "operation"]
    assert told(answer)["passed"] == whole
    assert [value.decode() for value in answer.all(b"x-passed")] == whole[::-1]
    assert told(await get(app, "/shop/v1/y", lines))["passed"] == whole[:-1]


async def test_policies_of_a_product_stand_only_in_front_of_its_own_calls() -> None:
    app, _, other = nested()
    answer = told(await get(app, "/shop/v1/y", other))
    assert (answer["passed"], answer["product"]) == (["global", "api", "version"], None)


@pytest.mark.parametrize(
    ("closed", "passed"),
    [
        ("operation", ["operation"]),
        ("version", ["version", "operation"]),
        ("api", ["api", "version", "operation"]),
        ("product", ["product", "api", "version", "operation"]),
    ],
)
async def test_a_scope_that_inherits_nothing_cuts_off_the_wider_ones(closed: str, passed: list[str]) -> None:
    app, lines, _ = nested(**{closed: False})
    assert told(await get(app, "/shop/v1/x", lines))["passed"] == passed


async def test_what_matches_nothing_passes_the_policies_of_the_gateway() -> None:
    app, lines, _ = nested()
    for path, headers in (("/nowhere", lines), ("/shop/v1/x/nowhere", lines), ("/shop/v1/x", []), ("/shop/v9/x", [])):
        answer = await get(app, path, headers)
        assert answer.status in (401, 404)
        assert answer.all(b"x-passed") == [b"global"]
    assert (await connect(app, "/nowhere")).status == 404


async def test_the_gateway_may_refuse_before_it_says_that_there_is_nothing() -> None:
    app = Gateway(
        apis=(Api("shop", "/shop", backend=Backend(), subscription_required=False),),
        policies=(IPFilter(allow=("10.0.0.0/8",)),),
    )
    assert (await get(app, "/nowhere")).status == 403


async def test_an_unclean_request_meets_no_policy_of_a_ring() -> None:
    app, lines, _ = nested()
    answer = await get(app, "/shop/v1/../x", lines)
    assert (answer.status, code(answer), answer.all(b"x-passed")) == (400, "bad-target", [])


# What counts once, and what counts apart


def shops(policies: Any, *, product: Any = (), env: Env | None = None, apis: int = 2) -> Any:
    subscribers = Subscribers()
    lines = subscribers.add("mine", product="starter")
    app = Gateway(
        apis=tuple(
            Api(f"s{number}", f"/s{number}", backend=Backend(), policies=policies,
                operations=(Operation("GET", "/x"), Operation("GET", "/y"), Operation("POST", "/x")))
            for number in range(apis)
        ),
        products=(
            Product("starter", apis=("*",), policies=product),
            Product("other", apis=("*",)),
        ),
        keys=subscribers.store,
        env=env,
    )  # fmt: skip
    subscribers.add("other", product="other")
    return app, lines, subscribers.of("other")


async def statuses(app: ASGIApp, *requests: tuple[str, Any]) -> list[int]:
    return [(await get(app, path, lines)).status for path, lines in requests]


async def test_a_limit_of_an_api_is_one_for_its_operations_and_products() -> None:
    app, lines, other = shops((RateLimit(calls=2, per=60),))
    assert await statuses(app, ("/s0/x", lines), ("/s0/y", other), ("/s0/x", lines)) == [200, 200, 429]


async def test_equal_limits_of_two_apis_count_apart() -> None:
    app, lines, _ = shops((RateLimit(calls=1, per=60),))
    assert await statuses(app, ("/s0/x", lines), ("/s1/x", lines), ("/s0/x", lines)) == [200, 200, 429]


async def test_a_limit_of_a_product_is_one_for_all_its_apis() -> None:
    app, lines, other = shops((), product=(RateLimit(calls=2, per=60, by=by.product),))
    asked = (("/s0/x", lines), ("/s1/x", lines), ("/s0/y", lines), ("/s0/x", other))
    assert await statuses(app, *asked) == [200, 200, 429, 200]


async def test_what_a_policy_keeps_itself_is_kept_once_for_its_scope() -> None:
    app, lines, other = shops((LimitConcurrency(at_once=1),))
    seen: list[int] = []

    async def asks_again(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await get(app, "/s0/y", other)).status)
        await Backend()(scope, receive, send)

    for api in app.apis:
        object.__setattr__(api, "backend", asks_again)
    app = Gateway(apis=app.apis, products=app.products, keys=app.keys)
    assert (await get(app, "/s0/x", lines)).status == 200
    assert seen == [429]


async def test_a_cache_of_an_api_is_one_for_its_operations() -> None:
    """What one operation changes, another must not answer from memory."""
    made: list[str] = []

    async def stock(scope: Scope, receive: Receive, send: Send) -> None:
        made.append(scope["method"])
        headers = [(b"cache-control", b"max-age=60"), (b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"1"})

    app = Gateway(
        apis=(
            Api("s", "/s", backend=stock, policies=(Cache(),), subscription_required=False,
                operations=(Operation("GET", "/x"), Operation("POST", "/x"))),
        ),
        env=Env(clock=FakeClock()),
    )  # fmt: skip
    for method in ("GET", "GET", "POST", "GET"):
        assert (await call(app, method, "/s/x")).status == 200
    assert made == ["GET", "POST", "GET"]


async def test_a_middleware_of_somebody_else_is_built_once_for_its_scope() -> None:
    built: list[ASGIApp] = []

    def layer(app: ASGIApp) -> ASGIApp:
        built.append(app)
        return passing("foreign")(app)

    subscribers = Subscribers()
    lines = subscribers.add("mine", product="starter")
    backends = [Backend(f"b{number}") for number in range(3)]
    app = Gateway(
        policies=(Passes("before"), layer, Passes("after")),
        apis=tuple(Api(f"s{n}", f"/s{n}", backend=backend) for n, backend in enumerate(backends)),
        products=(Product("starter", apis=("*",)),),
        keys=subscribers.store,
    )
    for number in range(3):
        answer = told(await get(app, f"/s{number}/x", lines))
        assert (answer["name"], answer["passed"]) == (f"b{number}", ["before", "foreign", "after"])
    assert len(built) == 1
    assert (await get(app, "/nowhere")).status == 404


async def test_a_fragment_is_as_if_written_out() -> None:
    baseline = Fragment("baseline", (Passes("a"), Stack(Passes("b")), passing("c")))
    app = Gateway(
        policies=(baseline, Passes("d")),
        apis=(Api("s", "/s", backend=Backend(), policies=(baseline,), subscription_required=False),),
    )
    assert told(await get(app, "/s"))["passed"] == ["a", "b", "c", "d", "a", "b", "c"]


async def test_a_fragment_used_alone_is_its_layers() -> None:
    app = Stack(Fragment("x", (Passes("a"), Passes("b"))))(Backend())
    assert told(await get(app, "/"))["passed"] == ["a", "b"]


async def test_a_named_value_is_looked_up_for_each_request() -> None:
    values = iter(["one", "two"])
    backend = Backend()
    secret = NamedValue("key", provider=lambda: next(values))
    app = Gateway(
        apis=(
            Api("s", "/s", backend=backend, subscription_required=False,
                policies=(SetHeader(name="x-key", value=secret, on="request"),)),
        )
    )  # fmt: skip
    await get(app, "/s")
    await get(app, "/s")
    assert [dict(scope["headers"])[b"x-key"] for scope in backend.seen] == [b"one", b"two"]
    assert "one" not in repr(NamedValue("key", "one"))


async def test_a_stack_with_a_place_of_its_own_keeps_it() -> None:
    limits = Stack(RateLimit(calls=1, per=60), place="shared")
    app, lines, _ = shops((limits,))
    assert await statuses(app, ("/s0/x", lines), ("/s0/y", lines), ("/s1/x", lines)) == [200, 429, 200]


def test_the_place_of_the_environment_comes_first() -> None:
    api = Api("s", "/s", backend=Backend(), policies=(Passes("a"),), subscription_required=False)
    [row] = Gateway(apis=(api,), env=Env(place="shop"), name="front").rows()
    assert [guarded.place for guarded in row.layers] == ["shop/front/api/s"]


@pytest.fixture
async def counters(tmp_path: Path, anyio_backend: str) -> AsyncIterator[SQLiteCounters]:
    """Counters that others see."""
    store = SQLiteCounters(tmp_path / "counts.db")
    yield store
    await store.aclose()


LIMIT = RateLimit(calls=1, per=3600, by=by.everyone)


@pytest.mark.parametrize("field", ["of the gateway", "of an API", "of an operation", "within a branch"])
async def test_a_gateway_without_place_or_name_counts_in_no_store_of_others(
    counters: SQLiteCounters, field: str
) -> None:
    """All gateways have the same name by default, and counted for each other."""
    operation = Operation("GET", "/x", policies=(LIMIT,) if field == "of an operation" else ())
    inside = {"of an API": (LIMIT,), "within a branch": (When(conditions.method("GET"), LIMIT),)}.get(field, ())
    api = Api("s", "/s", backend=Backend(), operations=(operation,), policies=inside, subscription_required=False)
    outside = (LIMIT,) if field == "of the gateway" else ()
    with pytest.raises(ConfigError, match="in the gateway or guard, or Env"):
        Gateway(apis=(api,), policies=outside, env=Env(counters=counters))


@pytest.mark.parametrize(("name", "place"), [("shop", ""), (None, "mall")])
async def test_with_one_of_them_it_does(counters: SQLiteCounters, name: str | None, place: str) -> None:
    api = Api("s", "/s", backend=Backend(), policies=(LIMIT,), subscription_required=False)
    named = {} if name is None else {"name": name}
    app = Gateway(apis=(api,), env=Env(counters=counters, place=place), **named)
    assert await statuses(app, ("/s/x", []), ("/s/x", [])) == [200, 429]
    assert [layer.place for row in app.rows() for layer in row.layers] == [
        f"{place or name}{'/gateway' * (not name)}/api/s"
    ]


async def test_a_copy_of_a_gateway_is_as_unnamed_as_that_is(counters: SQLiteCounters) -> None:
    api = Api("s", "/s", backend=Backend(), policies=(LIMIT,), subscription_required=False)
    with pytest.raises(ConfigError, match="without a name, but its store is seen by others"):
        replace(Gateway(apis=(api,)), env=Env(counters=counters))


async def test_tracing_sees_refusals_too_and_is_built_once() -> None:
    app = Gateway(
        policies=(Tracing(),),
        apis=(Api("s", "/s", backend=Backend(), subscription_required=False),),
    )
    assert told(await get(app, "/s/x"))["path"] == "/s/x"
    assert (await get(app, "/nowhere")).status == 404


# Orders that cannot work


def test_another_backend_in_front_of_the_key_check_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Gateway\.policies: holds what answers, before anybody"):
        Gateway(
            policies=(SetBackend(Backend()),),
            apis=(Api("s", "/s", backend=Backend()),),
            keys=Subscribers().store,
        )


def test_a_cache_in_front_of_the_key_check_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Gateway\.policies: holds what answers from memory, before anybody"):
        Gateway(
            policies=(Cache(),),
            apis=(Api("s", "/s", backend=Backend()),),
            keys=Subscribers().store,
        )
    Gateway(policies=(Cache(),), apis=(Api("s", "/s", backend=Backend(), subscription_required=False),))


def test_a_guard_behind_a_cache_of_a_wider_scope_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"IPFilter: stands behind Cache"):
        Gateway(
            apis=(
                Api("s", "/s", backend=Backend(), policies=(Cache(),), subscription_required=False,
                    operations=(Operation("GET", "/x", policies=(IPFilter(allow=("10.0.0.0/8",)),)),)),
            )
        )  # fmt: skip


def test_a_mistake_in_any_scope_shows_while_building() -> None:
    for scope in ("gateway", "product", "api", "operation"):
        both = (RateLimit(calls=1, per=60), RateLimit(calls=1, per=60, headers=False))
        given = {name: both if name == scope else () for name in ("gateway", "product", "api", "operation")}
        with pytest.raises(ConfigError, match="would count together"):
            Gateway(
                policies=given["gateway"],
                products=(Product("p", apis=("s",), policies=given["product"]),),
                apis=(
                    Api("s", "/s", backend=Backend(), policies=given["api"],
                        operations=(Operation("GET", "/x", policies=given["operation"]),)),
                ),
                keys=Subscribers().store,
            )  # fmt: skip


def test_a_layer_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Api\.policies: \('x',\) is not"):
        Api("s", "/s", backend=Backend(), policies=("x",))  # type: ignore[arg-type]


async def test_plans_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apim_middleware.gateway._plans.MOST_PLANS", 3)
    app, lines, _ = shops((RateLimit(calls=3, per=60),), apis=6)
    for _ in range(2):
        for number in range(6):
            assert (await get(app, f"/s{number}/x", lines)).status == 200
    assert sum(map(len, app.compiled._plans.made.of.values())) <= 3
    assert (await get(app, "/s0/x", lines)).status == 200
    assert (await get(app, "/s0/x", lines)).status == 429


async def test_routes_make_room_and_are_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apim_middleware.gateway._plans.MOST_PLANS", 3)
    app, lines, _ = shops((), apis=6)
    for _ in range(2):
        for number in range(6):
            assert (await get(app, f"/s{number}/x", lines)).status == 200
    seen = [scope["exchange"].match.route for api in app.apis for scope in api.backend.seen]
    assert [route.template for route in seen] == [f"/s{number}/x" for number in range(6) for _ in range(2)]
    assert sum(map(len, app.compiled._plans.routes.of.values())) <= 3


async def test_operations_share_a_plan_unless_policies_stand_between() -> None:
    own = Passes("own")
    operations = (Operation("GET", "/x"), Operation("GET", "/y"), Operation("GET", "/z", policies=(own,)))
    ending = Operation("GET", "/over", deprecation=Deprecation(since=datetime(2026, 1, 1, tzinfo=UTC)))
    api = Api("s", "/s", backend=Backend(), operations=(*operations, ending), subscription_required=False)
    app = Gateway(apis=(api,))
    answers = {name: await get(app, f"/s/{name}") for name in ("x", "y", "z", "over")}
    assert len(app.compiled._plans.made.of[""]) == 3
    assert {name: answer.all(b"x-passed") for name, answer in answers.items() if name != "over"} == {
        "x": [], "y": [], "z": [b"own"],
    }  # fmt: skip
    assert [name for name, answer in answers.items() if answer.header(b"deprecation")] == ["over"]
