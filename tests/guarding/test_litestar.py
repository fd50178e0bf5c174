"""``guard`` in front of Litestar: the route that policies are chosen for is the one its own router takes."""

import random
import warnings
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from litestar import Controller, HttpMethod, Litestar, Router, WebSocket, asgi, get, post, route, websocket
from starlette.applications import Starlette
from starlette.routing import Mount

from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.guarding import Only, coverage, guard, guarded_by
from apim_middleware.guarding._litestar import LitestarRoutes
from apim_middleware.guarding._resolver import Resolver
from apim_middleware.guarding._routes import NOTHING, routes_of
from apim_middleware.guarding.coverage import Require
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policy import Policy
from apim_middleware.testing import Answer, call, connect, http_scope, websocket_scope
from apim_middleware.types import Receive, Scope, Send

TREES = 80
PIECES = ("a", "b", "a-b", "{x:str}", "{n:int}", "{d:date}", "{u:uuid}")
WORDS = ("a", "b", "a-b", "7", "c", "2026-01-02", "", "%2F", "12345678-1234-5678-1234-567812345678")
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Marks(Policy):
    """Leaves its mark on responses."""

    text: str

    def on_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.append(b"x-marked", self.text.encode())


def marked(answer: Answer) -> list[bytes]:
    """The marks of a response, the outermost last."""
    return answer.all(b"x-marked")


class Forest:
    """Grows apps at random; each handler answers with a mark of its own."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.marks = 0

    def mark(self) -> str:
        self.marks += 1
        return str(self.marks)

    def path(self, *, rest: bool = True) -> str:
        chosen = [self.rng.choice(PIECES) for _ in range(self.rng.randint(0, 3))]
        if rest and self.rng.random() < 0.1:
            chosen.append("{rest:path}")
        named = [piece.replace("{", f"{{p{self.mark()}") for piece in chosen]  # each parameter its own name
        return "/" + "/".join(named)

    def handler(self) -> Any:
        kind = self.rng.random()
        mark = self.mark()
        if kind < 0.15:

            @websocket(self.path())
            async def socket(socket: WebSocket[Any, Any, Any]) -> None:
                await socket.accept(headers={"x-mark": mark})
                await socket.close()

            socket.fn.mark = mark  # type: ignore[attr-defined]
            return socket
        if kind < 0.3:
            plain = "/" + "/".join(self.rng.choice(("a", "b", "c")) for _ in range(self.rng.randint(1, 2)))

            @asgi(plain, is_mount=self.rng.random() < 0.7, copy_scope=True)
            async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "http":
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": mark.encode()})

            mounted.fn.mark = mark  # type: ignore[attr-defined]
            return mounted
        paths = [self.path()] if kind < 0.8 else [self.path(), self.path()]

        @route(paths, http_method=self.rng.choice((["GET"], ["POST"], ["GET", "POST"])), media_type="text/plain")
        async def plain_handler() -> str:
            return mark

        plain_handler.fn.mark = mark  # type: ignore[attr-defined]
        return plain_handler

    def app(self) -> Litestar | None:
        """None where Litestar does not let such routes stand together."""
        handlers: list[Any] = [self.handler() for _ in range(self.rng.randint(1, 5))]
        inner = [self.handler() for _ in range(self.rng.randint(1, 3))]
        handlers.append(Router(self.path(rest=False), route_handlers=inner))
        try:
            return Litestar(handlers, openapi_config=None, path=self.rng.choice(("", "", "/a")))
        except Exception:  # two handlers of one path, parameters behind the rest of a path
            return None

    def asked(self) -> str:
        return "/" + "/".join(self.rng.choice(WORDS) for _ in range(self.rng.randint(1, 5)))


async def agree(app: Litestar, forest: Forest) -> int:
    """How many requests were answered by the very handler the resolver found; fails on the first that was not."""
    resolver = Resolver(routes_of(app))
    answered = 0
    for _ in range(40):
        path, method, root = forest.asked(), forest.rng.choice(METHODS), forest.rng.choice(("", "", "/a", "/x"))
        socket = forest.rng.random() < 0.15
        scope = (websocket_scope if socket else http_scope)(path=path, root_path=root)
        if not socket:
            scope["method"] = method
        known = resolver.find(scope)
        assert resolver.find(scope) is known
        if socket:
            answer = await connect(app, path, root_path=root)
            mark = answer.header(b"x-mark") if answer.messages and answer.status == 101 else None
        else:
            answer = await call(app, method, path, root_path=root)
            mark = answer.body if answer.status in (200, 201) and method not in ("HEAD", "OPTIONS") else None
            assert answer.status != 404 or known is NOTHING, (path, known)
            assert known is not NOTHING or answer.status in (404, 405, 500), (
                path,
                answer.status,
            )  # 500: its router broke
        if mark is None:  # 404, 405, or nothing to tell by
            continue
        assert getattr(known.endpoint, "mark", None) == mark.decode(), (path, method, known)
        answered += 1
    return answered


def test_the_resolver_takes_the_route_that_the_framework_takes() -> None:
    answered = trees = 0
    for seed in range(TREES):
        forest = Forest(seed)
        with warnings.catch_warnings(action="ignore"):
            app = forest.app()
        if app is not None:
            trees += 1
            answered += anyio.run(agree, app, forest)
    assert trees > TREES / 2
    assert answered > TREES  # that enough of them were answered at all


def shop() -> Litestar:
    """An app with a controller, a router, a WebSocket and a mounted app."""

    class Orders(Controller):
        path = "/orders"
        tags = ["orders"]  # noqa: RUF012 - as Litestar wants it

        @get("/{number:int}", operation_id="show")
        async def one(self) -> str:
            return "order"

        @post("/", name="create")
        @guarded_by(Marks("marked"))
        async def create(self) -> str:
            return "created"

    @get(["/news", "/news/{year:int}"])
    async def news() -> str:
        return "news"

    @websocket("/live")
    async def live(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.close()

    @asgi("/old", is_mount=True, copy_scope=True)
    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"old"})

    return Litestar([Orders, Router("/api", route_handlers=[news]), live, old])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("selector", "path", "method"),
    [
        ("/orders/{number}", "/orders/7", "GET"),
        ("GET /orders/{number}", "/orders/7", "GET"),
        ("/orders/{number}", "/orders/7", "OPTIONS"),
        ("/orders/{number}", "/orders/7", "DELETE"),
        ("tag:orders", "/orders/7", "GET"),
        ("operation:show", "/orders/7", "GET"),
        ("operation:create", "/orders", "POST"),
        ("/api/*", "/api/news/2026", "GET"),
        ("/api/news/{year}", "/api/news/2026", "GET"),
        ("/old", "/old/any/thing", "GET"),
        ("/old/*", "/old/any/thing", "GET"),
        ("/orders/*", "/orders/none/such", "GET"),
    ],
)
async def test_policies_stand_in_front_of_what_is_selected(selector: str, path: str, method: str) -> None:
    guarded = guard(shop(), routes={selector: (Marks("chosen"),)})
    assert b"chosen" in marked(await call(guarded, method, path))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("selector", "path"),
    [("/orders/{number}", "/orders/x"), ("/api/news", "/api/news/2026"), ("/old", "/orders/7"), ("/live", "/live")],
)
async def test_policies_do_not_stand_in_front_of_anything_else(selector: str, path: str) -> None:
    guarded = guard(shop(), routes={selector: (Marks("chosen"),)})
    assert marked(await call(guarded, "GET", path)) == []


@pytest.mark.anyio
async def test_websockets_are_guarded() -> None:
    guarded = guard(shop(), routes={"WEBSOCKET /live": (RequireHeader(name="x-caller"),)})
    assert (await connect(guarded, "/live")).status == 400
    assert (await connect(guarded, "/live", headers=[(b"x-caller", b"ada")])).status == 101


@pytest.mark.anyio
async def test_everything_is_guarded_also_what_is_not_there() -> None:
    guarded = guard(shop(), policies=(RequireHeader(name="x-caller"),), routes={"/old": Only()})
    for path in ("/orders/7", "/nothing", "/schema"):
        assert (await call(guarded, "GET", path)).status == 400
    assert (await call(guarded, "GET", "/old/x")).status == 200


@pytest.mark.anyio
async def test_marked_handlers_have_their_policies_innermost() -> None:
    guarded = guard(shop(), policies=(Marks("outer"),))
    assert marked(await call(guarded, "POST", "/orders")) == [b"marked", b"outer"]
    assert marked(await call(guarded, "GET", "/orders/7")) == [b"outer"]


@pytest.mark.anyio
async def test_a_mark_may_stand_above_the_decorator_that_makes_the_handler() -> None:
    @guarded_by(Marks("marked"))
    @get("/marked")
    async def handler() -> str:
        return ""

    guarded = guard(Litestar([Router("/in", route_handlers=[handler])], openapi_config=None))
    assert marked(await call(guarded, "GET", "/in/marked")) == [b"marked"]


@pytest.mark.anyio
async def test_an_app_that_is_mounted_twice_is_two_places() -> None:
    @asgi(["/old", "/new"], is_mount=True, copy_scope=True)
    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"old"})

    guarded = guard(Litestar([old], openapi_config=None), routes={"/old": (Marks("a"),)})
    assert marked(await call(guarded, "GET", "/old/x")) == [b"a"]
    assert marked(await call(guarded, "GET", "/new/x")) == []


@pytest.mark.anyio
async def test_no_form_of_a_path_leads_around() -> None:
    guarded = guard(shop(), routes={"/orders/{number}": (RequireHeader(name="x-caller"),)})
    for path in ("/orders/7", "/orders/7/", "//orders//7", "/orders/./7", "/api/../orders/7", "/orders/%37"):
        assert (await call(guarded, "GET", path)).status in (400, 404), path


@pytest.mark.anyio
async def test_a_route_that_is_registered_later_passes_what_everything_passes() -> None:
    app = shop()
    guarded = guard(app, policies=(Marks("outer"),))

    @get("/late")
    async def late() -> str:
        return "late"

    app.register(late)
    assert marked(await call(guarded, "GET", "/late")) == [b"outer"]
    assert [each.template for each in guarded.added()] == ["/late"]


def test_the_table_has_every_route() -> None:
    text = str(coverage(guard(shop(), policies=(Marks("outer"),))))
    for path in ("/orders/{number}", "/orders", "/api/news/{year}", "/live", "/old/*", "/schema", "/*"):
        assert f" {path} " in text, text
    assert "OPTIONS" not in text


def test_a_route_that_stands_open_is_found() -> None:
    guarded = guard(shop(), routes={"tag:orders": (RequireHeader(name="x-caller"),)})
    with pytest.raises(ConfigError, match="/live"):
        Require(RequireHeader, everywhere=True).check(coverage(guarded))


def test_a_selector_for_no_route_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean '/orders/\{number\}'"):
        guard(shop(), routes={"/order/{number}": (Marks("x"),)})


@pytest.mark.anyio
async def test_mounted_in_starlette_it_goes_by_the_mount() -> None:
    outer = Starlette(routes=[Mount("/shop", shop())])
    guarded = guard(outer, routes={"/shop": (Marks("mount"),)})
    answer = await call(guarded, "GET", "/shop/orders/7")
    assert (answer.status, marked(answer)) == (200, [b"mount"])


def test_paths_that_callers_invent_are_not_remembered_without_bound() -> None:
    resolver = Resolver(routes_of(shop()))
    for number in range(10_000):
        resolver.find(http_scope(path=f"/orders/{number}"))
        resolver.find(http_scope(path=f"/orders/{number}/nothing"))
    assert len(resolver._found) == 4096


def test_methods_of_one_handler_are_one_route() -> None:
    @route("/both", http_method=[HttpMethod.GET, HttpMethod.POST])
    async def both() -> str:
        return ""

    found = list(LitestarRoutes(Litestar([both], openapi_config=None)).every())
    assert [(each.template, sorted(each.methods)) for each in found] == [("/both", ["GET", "POST"])]
