"""The route that policies are chosen for is the one the framework takes: on random trees, for random paths."""

import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from apim_middleware.errors import ConfigError
from apim_middleware.guarding import Require, coverage, guard
from apim_middleware.guarding._resolver import Resolver
from apim_middleware.guarding._routes import NOTHING, routes_of
from apim_middleware.policies.client import IPFilter
from apim_middleware.testing import call, connect, http_scope, websocket_scope
from apim_middleware.types import Scope

TREES = 150
PIECES = ("a", "b", "a-b", "{x}", "{n:int}", "{rest:path}", "a{x}", "{x}.txt", "")
WORDS = ("a", "b", "a-b", "7", "c", "ab", "a.txt", "", "%2F")
METHODS = (("GET",), ("POST",), ("GET", "POST"), None)


class Forest:
    """Grows apps at random; each endpoint answers with a mark of its own."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.marks = 0

    def endpoint(self) -> Any:
        self.marks += 1
        mark = str(self.marks)

        async def endpoint(request: Request) -> Response:
            return PlainTextResponse(mark)

        endpoint.mark = mark  # type: ignore[attr-defined]
        return endpoint

    def socket(self) -> Any:
        self.marks += 1
        mark = str(self.marks)

        async def endpoint(websocket: WebSocket) -> None:
            await websocket.accept(headers=[(b"x-mark", mark.encode())])
            await websocket.close()

        endpoint.mark = mark  # type: ignore[attr-defined]
        return endpoint

    def path(self, *, mount: bool = False) -> str:
        pieces = [piece for piece in PIECES if not mount or piece not in ("", "{rest:path}")]
        chosen = [self.rng.choice(pieces) for _ in range(self.rng.randint(1, 3))]
        path = "/" + "/".join(chosen)
        names: list[str] = []
        while "{" in path:  # each parameter its own name, as frameworks demand
            before, _, after = path.partition("{")
            inside, _, behind = after.partition("}")
            names.append(inside.partition(":")[2])
            path = f"{before}<{len(names) - 1}>{behind}"
        for number, kind in enumerate(names):
            path = path.replace(f"<{number}>", f"{{p{number}{':' + kind if kind else ''}}}")
        return path

    def routes(self, depth: int) -> list[BaseRoute]:
        return [self.route(depth) for _ in range(self.rng.randint(1, 5))]

    def route(self, depth: int) -> BaseRoute:
        kind = self.rng.random()
        if depth and kind < 0.25:
            path = self.path(mount=True)
            inner = Starlette if self.rng.random() < 0.5 else Router
            return Mount(self.unique(path, depth), inner(routes=self.routes(depth - 1)))
        if depth and kind < 0.3:
            return Host(self.rng.choice(("testserver", "other")), Router(routes=self.routes(depth - 1)))
        if kind < 0.4:
            return WebSocketRoute(self.unique(self.path(), depth), self.socket())
        return Route(self.unique(self.path(), depth), self.endpoint(), methods=self.rng.choice(METHODS))

    def unique(self, path: str, depth: int) -> str:
        """Parameters of mounts and of what is in them have different names."""
        return path.replace("{p", f"{{d{depth}p")

    def fastapi(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        for _ in range(self.rng.randint(1, 3)):
            app.include_router(self.router(2), prefix=self.rng.choice(("", "/a", "/b/{q}")))
        app.router.routes.extend(self.routes(1))
        app.include_router(self.router(1))
        return app

    def router(self, depth: int) -> APIRouter:
        router = APIRouter(prefix=self.rng.choice(("", "/a", "/c")))
        for _ in range(self.rng.randint(1, 3)):
            path = self.unique(self.path(), depth)
            router.add_api_route(path, self.endpoint(), methods=list(self.rng.choice(METHODS) or ("GET",)))
        if depth:
            router.include_router(self.router(depth - 1), prefix=self.rng.choice(("", "/b")))
            router.mount(self.unique("/a", depth), Router(routes=self.routes(0)))
        return router

    def asked(self) -> str:
        return "/" + "/".join(self.rng.choice(WORDS) for _ in range(self.rng.randint(1, 5)))


async def agree(app: Any, forest: Forest) -> int:
    """How many requests were answered by the very endpoint the resolver found; fails on the first that was not."""
    resolver = Resolver(routes_of(app))
    answered = 0
    for _ in range(40):
        path, method = forest.asked(), forest.rng.choice(("GET", "POST", "DELETE", "HEAD"))
        socket = forest.rng.random() < 0.15
        root = forest.rng.choice(("", "", "/a", "/a/b"))  # which servers tell of, and paths may lack
        scope: Scope = websocket_scope(path, root_path=root) if socket else http_scope(method, path, root_path=root)
        known = resolver.find(scope)
        assert resolver.find(scope) is known or known is NOTHING
        if socket:
            answer = await connect(app, path, root_path=root)
            mark = answer.header(b"x-mark") if answer.status == 101 else None
        else:
            answer = await call(app, method, path, root_path=root)
            mark = answer.body if answer.status == 200 and method != "HEAD" else None
        if mark is None:  # 404, 405, a redirect, or no body to tell by
            continue
        found = getattr(known.endpoint, "mark", None)
        assert found == mark.decode(), (path, root, method, known.template)
        answered += 1
    return answered


def never_known_but_unanswered(app: Any, forest: Forest) -> None:
    resolver = Resolver(routes_of(app))
    for _ in range(40):
        path = forest.asked()
        known = resolver.find(http_scope("GET", path))
        status = anyio.run(_status, app, path)
        assert (status == 404) <= (known is NOTHING or known.kind == "mount"), (path, known.template)
        assert (known is NOTHING) <= (status in (404, 307)), (path, status)


async def _status(app: Any, path: str) -> int:
    return (await call(app, "GET", path)).status


@pytest.mark.parametrize("kind", ["starlette", "router", "fastapi"])
def test_the_resolver_takes_the_route_that_the_framework_takes(kind: str) -> None:
    answered = 0
    for seed in range(TREES):
        forest = Forest(seed)
        plain = Starlette if kind == "starlette" else Router
        app: Any = forest.fastapi() if kind == "fastapi" else plain(routes=forest.routes(2))
        answered += anyio.run(agree, app, forest)
    assert answered > TREES  # that enough of them were answered at all


@pytest.mark.parametrize("kind", ["starlette", "fastapi"])
def test_what_the_resolver_finds_nothing_for_is_answered_by_nobody(kind: str) -> None:
    for seed in range(TREES // 5):
        forest = Forest(seed)
        app: Any = forest.fastapi() if kind == "fastapi" else Starlette(routes=forest.routes(2))
        never_known_but_unanswered(app, forest)


WITH_FRONTENDS = [
    ("/", "/", "root"),
    ("/anything/else", "/", "root"),
    ("/app", "/app", None),  # redirected by the frontend itself
    ("/app/", "/app", "app"),
    ("/app/some/page", "/app", "app"),
    ("/apple", "/", "root"),
    ("/app/deep/x", "/app/deep", "deep"),
    ("/app/orders", "/app/orders", '"orders"'),
    ("/app/orders/", "/*", None),  # redirected by the router
    ("/shop", "/shop", None),
    ("/shop/x", "/shop", "shop"),
    ("/shop/inner/x", "/shop/inner", "inner"),
    ("/mounted/x", "/mounted", "mounted"),
    ("/mounted/own", "/mounted/own", '"own"'),
    ("/fenced/x", "/fenced", "fenced"),
]


def with_frontends(folder: Path) -> FastAPI:
    """An app with what FastAPI's ``frontend`` serves, in every place where it can stand."""

    def frontend(router: FastAPI | APIRouter, path: str, mark: str) -> None:
        (folder / mark).mkdir()
        (folder / mark / "index.html").write_text(mark)
        router.frontend(path, directory=folder / mark, fallback="index.html")

    app, shop, inner, mounted, fenced = FastAPI(), APIRouter(), APIRouter(prefix="/inner"), FastAPI(), FastAPI()
    frontend(app, "/", "root")
    frontend(app, "/app/", "app")
    frontend(app, "/app/deep", "deep")
    app.get("/app/orders")(lambda: "orders")
    frontend(shop, "/", "shop")
    frontend(inner, "/", "inner")
    shop.include_router(inner)
    app.include_router(shop, prefix="/shop")
    mounted.get("/own")(lambda: "own")
    frontend(mounted, "/", "mounted")
    app.mount("/mounted", mounted)
    frontend(fenced, "/", "fenced")
    app.router.routes.append(Mount("/fenced", fenced, middleware=[Middleware(GZipMiddleware)]))
    return app


@pytest.mark.parametrize(("path", "template", "answered"), WITH_FRONTENDS)
def test_the_resolver_knows_frontends(path: str, template: str, answered: str | None, tmp_path: Path) -> None:
    """They are among no routes of the app: what a guard wrote for them stood in front of nothing."""
    app = with_frontends(tmp_path)
    html = [(b"accept", b"text/html")]
    assert Resolver(routes_of(app)).find(http_scope("GET", path, headers=html)).template == template
    answer = anyio.run(partial(call, app, "GET", path, headers=html))
    assert answer.body.decode() == answered if answered is not None else answer.status == 307


@pytest.mark.parametrize("selector", ["/app", "/app/*", "/shop", "/shop/inner", "/mounted", "/fenced"])
def test_frontends_can_be_guarded_by_their_paths(selector: str, tmp_path: Path) -> None:
    guarded = guard(with_frontends(tmp_path), routes={selector: [IPFilter(allow=("192.0.2.1",))]})
    below = selector.removesuffix("/*")
    for path in (f"{below}/", f"{below}/x"):
        assert anyio.run(call, guarded, "GET", path).status == 403
    html = [(b"accept", b"text/html")]
    assert anyio.run(partial(call, guarded, "GET", "/elsewhere", headers=html)).status == 200


def test_a_frontend_that_stands_open_is_found(tmp_path: Path) -> None:
    table = coverage(with_frontends(tmp_path))
    with pytest.raises(ConfigError, match=r"any /mounted/\*, .*any /shop/\*, any /app/\*, any /\*\. Put"):
        Require(IPFilter).check(table)


def test_paths_that_callers_invent_are_not_remembered_without_bound() -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("")

    resolver = Resolver(routes_of(Starlette(routes=[Route("/{x}", page)])))
    for number in range(10_000):
        resolver.find(http_scope(path=f"/{number}"))
        resolver.find(http_scope(path=f"/{number}/nothing"))
    assert len(resolver._found) == 4096


def test_long_paths_are_not_remembered() -> None:
    """Four thousand of them took more than a hundred megabytes."""

    async def page(request: Request) -> Response:
        return PlainTextResponse("")

    resolver = Resolver(routes_of(Starlette(routes=[Route("/{x:path}", page), Host("{any}", Router())])))
    for scope in (http_scope(path="/" + "a" * 8_000), http_scope(headers=[(b"host", b"a" * 8_000)])):
        assert resolver.find(scope) is not NOTHING
    assert not resolver._found


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


def work_of(make: Callable[[], object]) -> int:
    """How many steps of Python something takes."""
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        steps += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        make()
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize(
    "templates",
    [("/plain{n}/{{x}}",), ("/{{x}}/open{n}",), ("/plain{n}/{{x}}", "/{{x}}/open{n}")],
    ids=["plain first segments", "parameters first", "both"],
)
def test_twice_the_routes_are_twice_the_work(templates: tuple[str, ...]) -> None:
    """Each first segment looked at every route, so that the table of 20,000 routes took minutes."""

    def reading(number: int) -> Callable[[], object]:
        app = Starlette(routes=[Route(each.format(n=n), hello) for n in range(number) for each in templates])
        return lambda: routes_of(app)

    work_of(reading(1))  # what is remembered of the first time
    assert work_of(reading(200)) < 2.1 * work_of(reading(100))


def test_first_segments_and_parameters_are_tried_in_the_order_of_the_app() -> None:
    templates = ("/{x}/1", "/a/{y}", "/{x}/2", "/b/{y}", "/a/z")
    level = routes_of(Starlette(routes=[Route(each, hello) for each in templates]))
    found = {path: [step.known.template for step in level.candidates(path)] for path in ("/a/1", "/b/1", "/c/1")}
    assert found == {
        "/a/1": ["/{x}/1", "/a/{y}", "/{x}/2", "/a/z"],
        "/b/1": ["/{x}/1", "/{x}/2", "/b/{y}"],
        "/c/1": ["/{x}/1", "/{x}/2"],
    }
