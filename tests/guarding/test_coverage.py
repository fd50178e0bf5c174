"""The table of what guards what: it shows everything there is, and fails the build for what stands open."""

import json
from dataclasses import replace

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from apim_middleware import (
    AccessLog,
    AllOf,
    AnyOf,
    APIKeyAuth,
    IPFilter,
    MemoryKeys,
    Quota,
    RateLimit,
    RequireHeader,
    Stack,
    Tracing,
    When,
    by,
    conditions,
)
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.guarding import Only, Require, coverage, guard, guarded_by
from apim_middleware.model import Api, Operation, Product
from apim_middleware.serving.forward_auth import ForwardAuth
from apim_middleware.types import Receive, Scope, Send

KEYS = APIKeyAuth(keys=MemoryKeys())
SHUT = IPFilter(deny=("192.0.2.1",))
LIMIT = RateLimit(calls=1, per=60, by=by.everyone)


def page(request: Request) -> Response:
    return PlainTextResponse("")


def shop() -> FastAPI:
    app = FastAPI(openapi_url=None)
    router = APIRouter(prefix="/orders", tags=["orders"])
    nested = APIRouter(prefix="/lines")
    nested.add_api_route("/{line}", page, methods=["GET"])
    router.add_api_route("/", page, methods=["GET", "POST"])
    router.include_router(nested)
    app.include_router(router)

    async def live(socket: WebSocket) -> None: ...

    app.add_api_websocket_route("/live", live)
    app.mount("/shop", Starlette(routes=[Route("/cart", page), Mount("/deep", routes=[Route("/er", page)])]))
    app.mount("/static", StaticFiles(directory="."))
    app.add_api_route("/health", guarded_by(LIMIT)(lambda: "ok"), methods=["GET"])
    return app


def names(app: object) -> dict[str, list[str]]:
    return {f"{row.method} {row.path}": [type(layer).__name__ for layer in row.layers] for row in coverage(app)}


def test_every_kind_of_route_is_in_the_table() -> None:
    assert names(shop()) == {
        "GET /orders/": [],
        "POST /orders/": [],
        "GET /orders/lines/{line}": [],
        "WEBSOCKET /live": [],
        "GET /shop/cart": [],
        "HEAD /shop/cart": [],
        "GET /shop/deep/er": [],
        "HEAD /shop/deep/er": [],
        "any /static/*": [],
        "GET /health": [],
        "any /*": [],
    }


def test_policies_stand_in_the_order_they_are_met() -> None:
    app = guard(
        shop(),
        policies=(KEYS,),
        routes={"tag:orders": (LIMIT,), "/health": Only(), "/shop/*": (RequireHeader(name="x-a"),)},
    )
    table = names(app)
    assert table["GET /orders/"] == ["APIKeyAuth", "RateLimit"]
    assert table["GET /shop/deep/er"] == ["APIKeyAuth", "RequireHeader"]
    assert table["GET /health"] == ["RateLimit"]  # its own mark is narrower than Only
    assert table["any /*"] == table["WEBSOCKET /live"] == ["APIKeyAuth"]


def test_what_holds_for_some_paths_of_a_route_is_told_apart() -> None:
    app = guard(Starlette(routes=[Route("/{section}/about", page)]), routes={"/admin/*": (KEYS,)})
    (row, *_) = coverage(app)
    assert (row.layers, row.perhaps) == ((), ("/admin/*",))
    assert "and /admin/* for its paths" in str(coverage(app))


def test_policies_that_were_added_as_middleware_are_seen() -> None:
    app = shop()
    app.add_middleware(LIMIT)  # type: ignore[arg-type]
    app.add_middleware(Stack(KEYS, Quota(calls=1, per=60, by=by.everyone)))  # type: ignore[arg-type]
    assert names(app)["GET /shop/cart"] == ["Stack", "RateLimit"]
    assert "APIKeyAuth, Quota, RateLimit" in str(coverage(app))
    Require(APIKeyAuth, everywhere=True).check(coverage(app))


def test_policies_around_an_app_are_seen() -> None:
    assert names(Stack(KEYS)(shop()))["GET /health"] == ["APIKeyAuth"]
    assert names(Stack(AccessLog(), Tracing(), KEYS)(shop()))["GET /health"] == ["AccessLog", "Tracing", "APIKeyAuth"]
    assert names(KEYS(guard(shop(), policies=(LIMIT,))))["GET /orders/"] == ["APIKeyAuth", "RateLimit"]


@pytest.mark.parametrize("kind", ["mount", "nested router", "websocket", "static folder"])
def test_a_route_that_is_added_later_is_found_to_be_open(kind: str) -> None:
    app = shop()
    guarded = guard(app, routes=dict.fromkeys(("tag:orders", "/live", "/shop/*", "/static/*", "/health"), (KEYS,)))
    Require(APIKeyAuth).check(coverage(guarded))
    if kind == "mount":
        app.mount("/more", Starlette(routes=[Route("/late", page)]))
    elif kind == "nested router":
        late = APIRouter(prefix="/more", tags=["orders"])
        late.add_api_route("/late", page, methods=["GET"])
        app.include_router(late)
    elif kind == "websocket":
        app.add_api_websocket_route("/more/late", lambda socket: None)
    else:
        app.mount("/more", StaticFiles(directory="."))
    with pytest.raises(ConfigError, match=r"stands not in front of .* /more"):
        Require(APIKeyAuth).check(coverage(guarded))


def test_a_route_added_later_below_a_guarded_path_is_guarded_and_the_table_says_so() -> None:
    app = shop()
    guarded = guard(app, routes={"/shop/*": (KEYS,)})
    app.add_api_route("/shop/late", page, methods=["GET"])
    late = [row for row in coverage(guarded) if row.late]
    assert [(row.path, [type(layer).__name__ for layer in row.layers]) for row in late] == [
        ("/shop/late", ["APIKeyAuth"])
    ]
    assert "(added later)" in str(coverage(guarded))


def test_the_limit_that_mount_led_around_stands_in_front_of_mounts() -> None:
    """A popular limiter is skipped by everything under mount(), and nobody is told."""
    app = shop()
    app.add_middleware(LIMIT)  # type: ignore[arg-type]
    Require(RateLimit, everywhere=True).check(coverage(app))


def test_require_names_every_open_route_and_none_that_is_excepted() -> None:
    app = guard(shop(), routes={"tag:orders": (KEYS,)})
    with pytest.raises(ConfigError) as raised:
        Require(APIKeyAuth, except_=("/health", "GET /shop/cart")).check(coverage(app))
    told = str(raised.value)
    assert "WEBSOCKET /live, HEAD /shop/cart, GET /shop/deep/er" in told
    assert not {"/health", "GET /shop/cart", "any /*"} & set(told.replace(",", "").split())


def test_a_mount_of_all_paths_is_a_route_as_others_are() -> None:
    """It looks like the row of what fits no route, and was taken for that."""
    app = Starlette(routes=[Mount("/", StaticFiles(directory="."))])
    with pytest.raises(ConfigError, match=r"any /\*"):
        Require(RequireHeader).check(coverage(app))


def test_everywhere_is_everywhere() -> None:
    app = guard(shop(), routes={"/shop/*": Only(KEYS)}, policies=(KEYS,))
    Require(APIKeyAuth, everywhere=True).check(coverage(app))
    with pytest.raises(ConfigError, match=r"any /\*"):
        Require(APIKeyAuth, everywhere=True).check(coverage(guard(Starlette(), routes={})))


def test_an_exception_for_no_route_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="no route"):
        Require(APIKeyAuth, except_=("/helth",)).check(coverage(shop()))


@pytest.mark.parametrize(
    ("layer", "counts"),
    [
        (When(conditions.method("POST"), KEYS), False),
        (AnyOf(KEYS, RequireHeader(name="x-a")), False),
        (AllOf(RequireHeader(name="x-a"), KEYS), True),
        (Stack(LIMIT, KEYS), True),
    ],
)
def test_only_what_every_request_meets_counts(layer: object, counts: bool) -> None:
    table = coverage(guard(shop(), policies=(layer,)))  # type: ignore[arg-type]
    assert bool(table.without(APIKeyAuth)) is not counts


def test_a_gateway_has_a_table_too() -> None:
    orders = Api(
        "orders", "/orders", backend="http://localhost:1", operations=(Operation("GET", "/{id}", policies=(LIMIT,)),)
    )
    starter = Product("starter", apis=("orders",), policies=(RequireHeader(name="x-a"),))
    gateway = Gateway(apis=(orders,), products=(starter,), policies=(SHUT,), keys=MemoryKeys())
    table = {
        (row.product, f"{row.method} {row.path}"): [type(each).__name__ for each in row.layers]
        for row in coverage(gateway)
    }
    assert table == {
        ("", "GET /orders/{id}"): ["IPFilter", "APIKeyAuth", "RateLimit"],
        ("starter", "GET /orders/{id}"): ["IPFilter", "APIKeyAuth", "RequireHeader", "RateLimit"],
        ("", "any /*"): ["IPFilter"],
    }


def test_keys_are_asked_for_behind_the_policies_of_a_gateway_wherever_its_env_is() -> None:
    orders = Api("orders", "/orders", backend="http://localhost:1")
    gateway = Gateway(apis=(orders,), policies=(SHUT,), keys=MemoryKeys(), env=Env(place="eu"))
    assert names(gateway)["any /orders/*"] == ["IPFilter", "APIKeyAuth"]


def test_a_table_is_seen_through_what_stands_in_front_of_a_gateway() -> None:
    orders = Api("orders", "/orders", backend="http://localhost:1", subscription_required=False)
    gateway = Gateway(apis=(orders,))
    for app in (SHUT(gateway), SHUT(Reloadable(gateway))):
        assert names(app) == {"any /orders/*": ["IPFilter"], "any /*": ["IPFilter"]}


@pytest.mark.parametrize("layer", [replace(KEYS, optional=True), AnyOf(KEYS, anonymous=True)])
def test_what_lets_in_who_brings_nothing_does_not_count(layer: APIKeyAuth | AnyOf) -> None:
    table = coverage(guard(shop(), policies=(layer,)))
    with pytest.raises(ConfigError, match="stands not in front of"):
        Require(type(layer)).check(table)
    assert not any(row.guarded for row in table)


def test_a_part_of_an_app_can_be_demanded() -> None:
    app = guard(shop(), routes={"/shop/*": (KEYS,)})
    Require(APIKeyAuth, below="/shop").check(coverage(app))
    with pytest.raises(ConfigError, match="GET /orders/"):
        Require(APIKeyAuth, below="/orders/").check(coverage(app))


@pytest.mark.parametrize("given", [{"policies": LIMIT}, {"routes": {"/health": LIMIT}}])
def test_a_lone_policy_is_told_to_have_a_comma(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="with the comma"):
        guard(shop(), **given)  # type: ignore[arg-type]


def test_the_table_is_text_json_and_html() -> None:
    table = coverage(guard(Starlette(routes=[Route("/<b>", page)]), policies=(LIMIT,)))
    assert str(table).splitlines()[0].split() == [
        "method", "path", "version", "product", "policies,", "outermost", "first",
    ]  # fmt: skip
    assert json.loads(table.as_json())[0]["path"] == "/<b>"
    assert "RateLimit(calls=1" in json.loads(table.as_json())[0]["policies"][0]
    assert "<td>/&lt;b&gt;</td>" in table.as_html()


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


# Apps that show no routes


def test_what_stands_in_front_of_an_app_without_routes_stands_in_front_of_all_of_it() -> None:
    table = coverage(Stack(LIMIT, KEYS)(plain))
    assert [(row.method, row.path, [type(each) for each in row.layers]) for row in table] == [
        ("any", "/*", [RateLimit, APIKeyAuth])
    ]


@pytest.mark.parametrize("below", ["/", "/admin"])
def test_an_app_without_routes_stands_open_everywhere_unless_it_is_guarded(below: str) -> None:
    Require(APIKeyAuth, below=below).check(coverage(KEYS(plain)))
    with pytest.raises(ConfigError, match=r"APIKeyAuth: stands not in front of any /\*"):
        Require(APIKeyAuth, below=below).check(coverage(LIMIT(plain)))


def test_what_judges_for_another_server_is_seen() -> None:
    table = coverage(ForwardAuth(Stack(LIMIT, KEYS), trusted=("127.0.0.1",)))
    Require(APIKeyAuth, below="/admin").check(table)
    with pytest.raises(ConfigError, match="RequireHeader: stands not in front of any"):
        Require(RequireHeader).check(table)


def test_routes_behind_a_middleware_of_others_are_not_said_to_be_one() -> None:
    with pytest.raises(
        ConfigError, match=r"coverage\.app: cannot see past CORSMiddleware, .* a FastAPI.*add_middleware"
    ):
        coverage(KEYS(CORSMiddleware(LIMIT(shop()))))


def test_what_is_no_app_has_no_table() -> None:
    with pytest.raises(ConfigError, match=r"coverage\.app: cannot read the routes of str"):
        coverage("shop:app")


def test_a_route_that_cannot_be_read_is_told_by_the_name_of_what_was_called() -> None:
    class Odd(BaseRoute):
        """One of somebody's own."""

    with pytest.raises(ConfigError, match=r"coverage\.app: holds a Odd, which cannot be read"):
        coverage(Starlette(routes=[Odd()]))


def test_a_mount_holds_the_paths_below_a_part_of_it() -> None:
    """It was not asked for: ``/static/*`` is not below ``/static/private``, but has what is."""
    with pytest.raises(ConfigError, match=r"APIKeyAuth: stands not in front of any /static/\*"):
        Require(APIKeyAuth, below="/static/private").check(coverage(shop()))


# Marks that nobody reads


def test_a_mark_without_a_guard_is_shown_as_one() -> None:
    """It looked as though it were in force, and the route stood open."""
    [row] = [row for row in coverage(shop()) if row.marked]
    assert (row.path, row.layers, row.marked) == ("/health", (), (LIMIT,))
    assert row.notes == ("marked with RateLimit, and no guard in front",)


def test_the_table_says_which_marks_nobody_reads() -> None:
    table = coverage(KEYS(shop()))
    assert "APIKeyAuth (marked with RateLimit, and no guard in front)" in str(table)
    assert "(marked with RateLimit, and no guard in front)" in table.as_html()
    assert [each["path"] for each in json.loads(table.as_json()) if each["marked"]] == ["/health"]


def test_a_mark_that_a_guard_reads_is_a_policy_as_others_are() -> None:
    assert not any(row.marked for row in coverage(guard(shop())))


def test_who_requires_what_is_only_marked_is_told_of_the_guard() -> None:
    app = Starlette(routes=[Route("/", guarded_by(KEYS)(page))])
    with pytest.raises(ConfigError, match=r"Put guard\(app\) in front, which reads guarded_by"):
        Require(APIKeyAuth).check(coverage(app))


# Mistakes


def test_an_app_in_the_place_of_its_coverage_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"is no coverage\. Write \.check\(coverage\(app\)\)"):
        Require(APIKeyAuth).check(shop())  # type: ignore[arg-type]


def test_a_policy_in_the_place_of_its_class_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"Require\.policy: is a policy, .* Write Require\(APIKeyAuth\)"):
        Require(KEYS)  # type: ignore[arg-type]
