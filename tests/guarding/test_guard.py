"""Policies by route: each stands in front of what it was written for, and nothing finds a way around it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from tests.letting_go import is_let_go

from apim_middleware import (
    Cache,
    Env,
    IPFilter,
    RateLimit,
    RequireHeader,
    RewritePath,
    SetHeader,
    Stack,
    When,
    by,
    conditions,
)
from apim_middleware.errors import ConfigError
from apim_middleware.guarding import Only, guard, guarded_by
from apim_middleware.testing import Answer, FakeClock, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio


def seen(value: str) -> SetHeader:
    """A policy one can see in the answer."""
    return SetHeader(name="x-seen", value=value, on="response", exists="append")


def page(request: Request) -> Response:
    return PlainTextResponse(request.url.path)


async def live(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


def shop() -> FastAPI:
    """An app with everything an app can have."""
    app = FastAPI()
    orders = APIRouter(prefix="/orders", tags=["orders"])
    lines = APIRouter(prefix="/{order}/lines")

    @lines.get("/{line}", tags=["lines"])
    def line(order: int, line: int) -> str:
        return "line"

    @orders.get("/", operation_id="listOrders")
    def orders_of_all() -> str:
        return "orders"

    @orders.post("/")
    def create() -> str:
        return "created"

    @orders.get("/latest")
    def latest() -> str:
        return "latest"

    @orders.get("/{order}")
    def order(order: int) -> str:
        return "order"

    @app.get("/reports")
    @guarded_by(seen("marked"))
    def reports() -> str:
        return "reports"

    orders.include_router(lines)
    app.include_router(orders)
    app.add_api_websocket_route("/live", live)
    inner = Starlette(routes=[Route("/users/{name}", page), Route("/settings", page)])
    app.mount("/admin", inner)
    app.mount("/static", StaticFiles(directory="."))
    app.add_api_route("/{section}/about", page, methods=["GET"])
    return app


async def met(app: Any, path: str, method: str = "GET", **more: Any) -> list[str]:
    """The policies a request met."""
    answer = await call(app, method, path, **more)
    return [value.decode() for value in reversed(answer.all(b"x-seen"))]


ROUTES: dict[str, Any] = {
    "/orders/{order}": (seen("template"),),
    "POST /orders/": (seen("method"),),
    "/admin/*": (seen("below"),),
    "/static/*": (seen("static"),),
    "tag:orders": (seen("tag"),),
    "operation:listOrders": (seen("operation"),),
    "/orders/latest": Only(seen("only")),
}


@pytest.mark.parametrize(
    ("method", "path", "policies"),
    [
        ("GET", "/orders/", ["all", "tag", "operation"]),
        ("POST", "/orders/", ["all", "tag", "method"]),
        ("GET", "/orders/7", ["all", "tag", "template"]),
        ("GET", "/orders/latest", ["only"]),
        ("GET", "/orders/7/lines/1", ["all", "tag"]),
        ("GET", "/reports", ["all", "marked"]),
        ("GET", "/admin/users/ada", ["all", "below"]),
        ("GET", "/admin/settings", ["all", "below"]),
        ("GET", "/admin/nothing-here", ["all", "below"]),
        ("GET", "/admin/about", ["all", "below"]),
        ("GET", "/orders/about", ["all", "tag", "template"]),
        ("GET", "/else/about", ["all"]),
        ("GET", "/static/x.txt", ["all", "static"]),
        ("GET", "/nothing", ["all"]),
        ("GET", "/orders", ["all"]),
        ("DELETE", "/orders/7", ["all", "tag", "template"]),
        ("OPTIONS", "/orders/7", ["all", "tag", "template"]),
        ("HEAD", "/orders/7", ["all", "tag", "template"]),
        ("GET", "/openapi.json", ["all"]),
    ],
)
async def test_every_request_meets_the_policies_of_its_route(method: str, path: str, policies: list[str]) -> None:
    app = guard(shop(), policies=(seen("all"),), routes=ROUTES)
    assert await met(app, path, method) == policies


async def test_websockets_are_routes_too() -> None:
    app = guard(shop(), routes={"WEBSOCKET /live": (RateLimit(calls=1, per=60, by=by.everyone),)})
    assert [(await connect(app, "/live")).status for _ in range(2)] == [101, 429]


async def test_a_limit_counts_once_for_all_the_routes_it_is_written_for() -> None:
    app = guard(
        shop(), routes={"tag:orders": (RateLimit(calls=2, per=60, by=by.everyone),)}, env=Env(clock=FakeClock())
    )
    statuses = [(await call(app, path=path)).status for path in ("/orders/1", "/orders/", "/orders/1/lines/1")]
    assert statuses == [200, 200, 429]
    assert (await call(app, path="/reports")).status == 200


async def test_equal_limits_of_two_routes_count_apart() -> None:
    limit = RateLimit(calls=1, per=60, by=by.everyone)
    app = guard(shop(), routes={"/reports": (limit,), "/orders/{order}": (limit,)}, env=Env(clock=FakeClock()))
    assert [(await call(app, path=path)).status for path in ("/reports", "/orders/1", "/reports")] == [200, 200, 429]


async def test_the_route_is_a_key() -> None:
    app = guard(shop(), policies=(RateLimit(calls=1, per=60, by=by.operation),), env=Env(clock=FakeClock()))
    statuses = [(await call(app, path=path)).status for path in ("/orders/1", "/orders/2", "/reports")]
    assert statuses == [200, 429, 200]


@pytest.mark.parametrize(
    "path", ["/admin//settings", "/admin/./settings", "/x/../admin/settings", "/%61dmin/settings", "//admin/settings"]
)
async def test_no_spelling_of_a_path_leads_around(path: str) -> None:
    app = guard(shop(), routes={"/admin/*": (seen("below"),)})
    raw = path.encode()
    from urllib.parse import unquote

    answer = await call(app, path=unquote(path), raw_path=raw)
    assert answer.status == 400 or answer.all(b"x-seen") == [b"below"] or answer.status == 404


async def test_a_policy_that_changes_the_route_is_stopped() -> None:
    app = guard(shop(), routes={"/reports": (RewritePath(match="/reports", to="/admin/settings"),)})
    assert (await call(app, path="/reports")).status == 500


async def test_a_policy_may_change_the_path_within_the_route() -> None:
    app = guard(shop(), routes={"/orders/{order}": (RewritePath(match="/orders/1", to="/orders/2"),)})
    assert (await call(app, path="/orders/1")).status == 200


async def test_routes_of_a_host_are_found_by_the_host() -> None:
    inner = Router(routes=[Route("/", page)])
    app = guard(
        Starlette(routes=[Host("api.example", inner), Route("/", page)]),
        routes={"/": (seen("both"),)},
        policies=(seen("all"),),
    )
    assert await met(app, "/", headers=[(b"host", b"API.example:8000")]) == ["all", "both"]


async def test_what_stands_below_a_mount_without_routes_goes_by_the_mount() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["root_path"])(scope, receive, send)

    app = guard(
        Starlette(routes=[Mount("/files", inner)]),
        routes={"/files": (seen("mount"),), "/files/private/*": (seen("private"),)},
    )
    assert await met(app, "/files/a") == ["mount"]
    assert await met(app, "/files/private/a") == ["private", "mount"]
    assert await met(app, "/files/privately") == ["mount"]


async def test_a_route_that_is_added_later_passes_what_everything_passes() -> None:
    inner = shop()
    app = guard(inner, policies=(seen("all"),), routes={"/admin/*": (seen("below"),)})
    inner.add_api_route("/admin/late", page, methods=["GET"])
    inner.add_api_route("/late", page, methods=["GET"])
    assert await met(app, "/late") == ["all"]


async def test_behind_a_gateways_match_the_gateways_words_stay() -> None:
    from apim_middleware.gateway import Gateway
    from apim_middleware.model import Api

    inner = guard(
        shop(), policies=(SetHeader(name="x-api", value=lambda exchange: exchange.match.route.api, on="response"),)
    )
    api = Api("shop", "/shop", backend=inner, subscription_required=False)
    answer = await call(Gateway(apis=(api,)), path="/shop/orders/1")
    assert (answer.status, answer.header(b"x-api")) == (200, b"shop")


async def test_it_is_an_app_to_put_anything_in_front_of() -> None:
    app = Stack(seen("outer"))(guard(shop(), policies=(When(conditions.path("/orders/*"), seen("when")),)))
    assert await met(app, "/orders/1") == ["outer", "when"]


async def test_the_lifespan_is_the_apps() -> None:
    events: list[str] = []

    async def lifespan(app: Starlette) -> Iterator[None]:
        events.append("up")
        yield
        events.append("down")

    from contextlib import asynccontextmanager

    from starlette.testclient import TestClient

    inner = Starlette(lifespan=asynccontextmanager(lifespan))  # type: ignore[arg-type, type-var]
    with TestClient(guard(inner)):
        assert events == ["up"]
    assert events == ["up", "down"]


def test_routers_can_be_guarded() -> None:
    assert guard(Router(routes=[WebSocketRoute("/live", live)]), routes={"/live": (seen("x"),)})


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("/order/{order}", "Did you mean '/orders/{order}'"),
        ("GET /live", "for no route"),
        ("tag:order", "Did you mean 'tag:orders'"),
        ("operation:listOrder", "Did you mean 'operation:listOrders'"),
        ("orders", "selects nothing"),
        ("tag:", "selects nothing"),
        ("get /orders", "selects nothing"),
    ],
)
def test_a_selector_for_no_route_is_a_mistake(selector: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("{", r"\{")):
        guard(shop(), routes={selector: (seen("x"),)})


def test_a_wildcard_that_no_route_can_meet_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="for no route"):
        guard(Starlette(routes=[Route("/here/{page}", page)]), routes={"/nowhere/*": (seen("x"),)})


def test_a_wildcard_that_only_an_open_route_meets_is_for_that() -> None:
    assert guard(shop(), routes={"/anything/*": (seen("x"),)})  # /{section}/about


def test_what_is_no_layer_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="no layer"):
        guard(shop(), routes={"/reports": ("x",)})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"polices": []}, r"guard\.polices: .* Did you mean policies\?"),
        ({"middleware": []}, r"guard\.middleware: .* The fields are app, policies, routes, name, env"),
        ({"env": "redis://localhost"}, r"guard\.env: .* is not Env"),
        ({"name": 7}, r"guard\.name: 7 is not str"),
        ({"name": ""}, r"guard\.name: is empty"),
        ({"routes": ["/reports"]}, r"guard\.routes: .* is not Mapping"),
        ({"policies": ("keys",)}, r"guard\.policies: number 1 is 'keys', which is no layer"),
    ],
)
def test_what_a_guard_does_not_know_is_a_mistake(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        guard(shop(), **given)


def test_policies_are_given_by_name() -> None:
    with pytest.raises(ConfigError, match=r"at most 1 without a name \(app\)"):
        guard(shop(), [LOCKED])  # type: ignore[call-arg]


def test_a_guard_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"guard\.app: is missing"):
        guard(policies=())  # type: ignore[call-arg]


def test_policies_that_stand_around_the_app_already_are_put_around_the_guard() -> None:
    with pytest.raises(ConfigError, match=r"guard\.app: has policies around it already\. Write Stack\(\.\.\.\)\(guard"):
        guard(LOCKED(shop()))


def test_a_mark_that_is_no_layer_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="guarded_by: number 1 is 'keys', which is no layer"):
        guarded_by("keys")  # type: ignore[arg-type]


def test_an_app_without_routes_is_a_mistake() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    with pytest.raises(ConfigError, match="cannot read the routes"):
        guard(app)


# What an attacker tried

LOCKED = RequireHeader(name="x-key")


def code(answer: Answer) -> object:
    """The code of a refusal."""
    return json.loads(answer.body)["code"] if answer.status >= 400 else None


async def test_what_hygiene_refuses_does_not_come_in_by_the_policies_of_everything() -> None:
    app = guard(Starlette(routes=[Route("/secret", page)]), routes={"/secret": (LOCKED,)})
    lines = [(b"host", b"a"), (b"x-forwarded-a", b"a" * 9000), (b"x-forwarded-b", b"a" * 9000)]
    answer = await call(app, path="/secret", headers=lines)
    assert (answer.status, code(answer)) == (431, "headers-too-large")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
async def test_only_for_one_method_opens_no_other_of_the_same_route(method: str) -> None:
    app = guard(
        Starlette(routes=[Route("/o", page, methods=["GET", "POST", "DELETE"])]),
        policies=(LOCKED,),
        routes={"GET /o": Only()},
    )
    assert (await call(app, "GET", "/o")).status == 200
    assert (await call(app, "HEAD", "/o")).status == 200
    assert code(await call(app, method, "/o")) == "header-missing"


@pytest.mark.parametrize("selector", ["GET /files", "GET /files/*"])
async def test_only_for_one_method_opens_no_other_of_a_mount(selector: str) -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("in")(scope, receive, send)

    app = guard(Starlette(routes=[Mount("/files", inner)]), policies=(LOCKED,), routes={selector: Only()})
    assert (await call(app, "GET", "/files/a")).status == 200
    assert code(await call(app, "DELETE", "/files/a")) == "header-missing"


async def test_a_policy_for_one_method_is_not_met_by_another() -> None:
    routes = [Route("/o", page, methods=["GET", "POST"])]
    app = guard(Starlette(routes=routes), routes={"POST /o": (seen("post"),)})
    assert await met(app, "/o", "POST") == ["post"]
    assert await met(app, "/o", "GET") == []


async def test_a_method_a_route_has_not_meets_what_stands_in_front_of_all_it_has() -> None:
    routes = [Route("/o", page, methods=["POST"])]
    app = guard(Starlette(routes=routes), routes={"POST /o": (seen("post"),)})
    assert await met(app, "/o", "DELETE") == ["post"]


@pytest.mark.filterwarnings("ignore:The `root_path` parameter")
@pytest.mark.parametrize("path", ["/api/admin/x", "/admin/x"])
async def test_paths_below_one_are_seen_below_the_root_path_of_the_app(path: str) -> None:
    app = FastAPI(root_path="/api", openapi_url=None)

    @app.get("/{rest:path}")
    def anything(rest: str) -> str:
        return rest

    guarded = guard(app, routes={"/admin/*": (LOCKED,)})
    assert code(await call(guarded, path=path)) == "header-missing"


@pytest.mark.parametrize("path", ["/api/b/x", "/b/x"])
async def test_mounts_are_searched_as_the_framework_does_when_the_path_lacks_the_root_path(path: str) -> None:
    async def secret(request: Request) -> Response:
        return PlainTextResponse("secret")

    inner = Starlette(routes=[Route("/x", page), Route("/{rest:path}", secret)])
    app = guard(Starlette(routes=[Mount("/b", inner)]), policies=(LOCKED,), routes={"/b/x": Only()})
    answer = await call(app, path=path, root_path="/api")
    assert b"secret" not in answer.body
    assert (answer.status == 200) == (path == "/api/b/x")


@pytest.mark.parametrize("host", [b"ADMIN.example", b"admin.example:80", b"admin.example", b"a!b.example", b"[::1]"])
async def test_however_a_host_is_spelled_the_guard_takes_the_route_the_framework_takes(host: bytes) -> None:
    async def marked(request: Request) -> Response:
        return PlainTextResponse("host")

    of_host = Router(routes=[Route("/a", marked)])
    routes = [Host("admin.example", of_host), Host("{sub}.example", of_host), Host("[::1]", of_host), Route("/a", page)]
    guarded = guard(Starlette(routes=routes), routes={"/a": (seen("any"),)})
    bare = await call(Starlette(routes=routes), path="/a", headers=[(b"host", host)])
    known = guarded._resolver.find(http_scope(path="/a", headers=[(b"host", host)]))
    assert (known.endpoint is marked) == (bare.body == b"host")


async def test_hosts_of_an_included_router_are_found_below_its_prefix() -> None:
    router = APIRouter()
    router.routes.append(Host("admin.example", Router(routes=[Route("/a", page)])))
    app = FastAPI(openapi_url=None)
    app.include_router(router, prefix="/p")
    app.add_api_route("/{rest:path}", lambda rest: rest)
    guarded = guard(app, routes={"/p/a": (LOCKED,)})
    answer = await call(guarded, path="/p/a", headers=[(b"host", b"admin.example")])
    assert code(answer) == "header-missing"


async def test_a_policy_that_rewrites_to_a_guarded_path_of_the_same_route_is_stopped() -> None:
    app = guard(
        Starlette(routes=[Route("/{section}/about", page)]),
        policies=(RewritePath(match="/public/about", to="/admin/about"),),
        routes={"/admin/*": (LOCKED,)},
    )
    assert code(await call(app, path="/public/about")) == "route-changed"


async def test_a_layer_that_changes_the_method_to_that_of_another_route_is_stopped() -> None:
    def as_delete(app: Any) -> Any:
        async def changed(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "method": "DELETE"}, receive, send)

        return changed

    routes = [Route("/o", page), Route("/o", page, methods=["DELETE"])]
    app = guard(Starlette(routes=routes), routes={"GET /o": (as_delete,), "DELETE /o": (LOCKED,)})
    assert code(await call(app, path="/o")) == "route-changed"


@pytest.mark.parametrize("selector", ["/admin/*", "POST /{section}/about"])
def test_an_order_that_cannot_work_for_some_requests_of_a_route_is_a_mistake(selector: str) -> None:
    routes = [Route("/{section}/about", page, methods=["GET", "POST"])]
    with pytest.raises(ConfigError, match="IPFilter"):
        guard(Starlette(routes=routes), policies=(Cache(ttl=60),), routes={selector: (IPFilter(deny=("192.0.2.1",)),)})


def test_an_order_that_no_request_meets_is_none() -> None:
    routes = [Route("/o", page, methods=["GET", "POST"])]
    guarded = {"GET /o": (Cache(ttl=60),), "POST /o": (IPFilter(deny=("192.0.2.1",)),)}
    assert guard(Starlette(routes=routes), routes=guarded)


async def test_a_request_that_failed_is_let_go_without_the_collector() -> None:
    """As with rings, whoever opens an exchange parts it from what was raised."""

    async def fail(request: Request) -> Response:
        raise RuntimeError

    app = guard(Router([Route("/", fail)]), policies=(RateLimit(calls=9, per=60),), env=Env())
    assert await is_let_go(app)
