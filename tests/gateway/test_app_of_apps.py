"""Apps that join a gateway become APIs of it: at once, when their documents are there, and while it serves."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from tests import servers
from tests.gateway.houses import Passes, Subscribers, code, get
from tests.gateway.test_lifespan import Server

from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway
from apim_middleware.gateway.app_of_apps import AppOfApps
from apim_middleware.gateway.sub_app import SubApp
from apim_middleware.model import Product
from apim_middleware.openapi import PublishOpenAPI
from apim_middleware.proxy.pool import Pool
from apim_middleware.testing import connect
from apim_middleware.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio

OPEN: dict[str, Any] = {"subscription_required": False}


def shop(name: str = "orders") -> FastAPI:
    """A small app with a document, a hidden route and a WebSocket."""
    app = FastAPI(title=name)

    @app.get("/", operation_id=f"list-{name}")
    async def every() -> list[str]:
        return [name]

    @app.get("/{number}", operation_id=f"show-{name}")
    async def one(number: int) -> dict[str, Any]:
        return {"name": name, "number": number}

    @app.get("/hidden/door", include_in_schema=False)
    async def hidden() -> str:
        return "behind"

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(name)
        await websocket.close()

    return app


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """An app without a document."""
    await PlainTextResponse("plain")(scope, receive, send)


@pytest.fixture
def remote() -> Iterator[servers.Running]:
    """A remote app, served."""
    with servers.serving(shop("stock")) as running:
        yield running


def document(paths: dict[str, Any]) -> bytes:
    """A document with these paths."""
    return json.dumps({"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths}).encode()


GET = {"get": {"responses": {"200": {"description": "fine"}}}}


def answering(body: bytes, status: str = "200 OK", *more: bytes) -> servers.Speaker:
    """A server that answers this."""
    lines = [f"HTTP/1.1 {status}".encode(), b"content-length: %d" % len(body), b"connection: close", *more]
    return servers.saying(b"\r\n".join(lines) + b"\r\n\r\n" + body)


def remote_app(origin: str, **more: Any) -> SubApp:
    return SubApp("stock", "/stock", backend=origin, **{**OPEN, **more})


# In this process


async def test_an_app_of_this_process_is_an_api_at_its_path() -> None:
    both = AppOfApps(
        Gateway,
        SubApp("orders", "/orders", backend=shop(), **OPEN),
        SubApp("stock", "/stock", backend=shop("stock"), **OPEN),
    )
    assert json.loads((await get(both, "/orders/7")).body) == {"name": "orders", "number": 7}
    assert json.loads((await get(both, "/stock")).body) == ["stock"]
    assert (await get(both, "/other")).status == 404


async def test_its_operations_are_those_of_its_document() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), **OPEN))
    operations = {each.operation: each.path for each in one.gateway.rows()}
    assert operations["list-orders"] == "/orders"
    assert operations["show-orders"] == "/orders/{number}"


async def test_what_its_document_does_not_tell_passes_behind_the_same_policies() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), policies=(Passes("p"),), **OPEN))
    hidden = await get(one, "/orders/hidden/door")
    assert hidden.status == 200
    assert hidden.header(b"x-passed") == b"p"
    assert (await connect(one, "/orders/live")).status == 101


async def test_what_its_document_does_not_tell_can_be_shut() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), only_documented=True, **OPEN))
    assert (await get(one, "/orders/hidden/door")).status == 404
    assert (await get(one, "/orders/7")).status == 200


async def test_an_app_without_a_document_lets_everything_pass() -> None:
    one = AppOfApps(Gateway, SubApp("plain", "/plain", backend=plain, **OPEN))
    assert (await get(one, "/plain/any/thing")).body == b"plain"


async def test_a_document_that_is_given_goes_before_its_own(tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    path.write_bytes(document({"/hidden/door": GET}))
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), document=path, only_documented=True, **OPEN))
    assert (await get(one, "/orders/hidden/door")).status == 200
    assert (await get(one, "/orders/7")).status == 404


async def test_policies_of_single_operations_go_by_their_ids() -> None:
    own = {"show-orders": (Passes("single"),)}
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), operation_policies=own, **OPEN))
    assert (await get(one, "/orders/7")).header(b"x-passed") == b"single"
    assert (await get(one, "/orders")).header(b"x-passed") is None


async def test_routes_an_app_gets_later_are_in_its_document_after_the_start() -> None:
    app = shop()
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=app, **OPEN))

    @app.get("/late/news", operation_id="late")
    async def late() -> str:
        return "late"

    await one.refresh()
    assert "late" in {each.operation for each in one.gateway.rows()}
    assert "/late/news" in app.openapi()["paths"]


async def test_identity_products_and_policies_are_those_of_the_gateway() -> None:
    subscribers = Subscribers()
    header = subscribers.add("acme", product="all")
    make = partial(
        Gateway,
        policies=(Passes("gateway"),),
        products=(Product("all", apis=("*",), policies=(Passes("product"),)),),
        keys=subscribers.store,
    )
    both = AppOfApps(
        make, SubApp("orders", "/orders", backend=shop()), SubApp("stock", "/stock", backend=shop("stock"))
    )
    for path in ("/orders/1", "/stock/1"):
        assert (await get(both, path)).status == 401
        assert (await get(both, path, header)).all(b"x-passed") == [b"product", b"gateway"]


async def test_one_document_describes_all() -> None:
    both = AppOfApps(
        Gateway,
        SubApp("orders", "/orders", backend=shop(), **OPEN),
        SubApp("stock", "/stock", backend=shop("stock"), **OPEN),
    )
    described = json.loads((await get(PublishOpenAPI()(both), "/openapi.json")).body)
    assert set(described["paths"]) == {"/orders", "/orders/{number}", "/stock", "/stock/{number}"}
    await both.leave("stock")
    described = json.loads((await get(PublishOpenAPI()(both), "/openapi.json")).body)
    assert set(described["paths"]) == {"/orders", "/orders/{number}"}


async def test_apps_start_and_end_with_it() -> None:
    events: list[str] = []

    def with_lifespan(name: str) -> Starlette:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            events.append(f"{name} starts")
            yield
            events.append(f"{name} ends")

        return Starlette(lifespan=lifespan)

    first, second = with_lifespan("first"), with_lifespan("second")
    both = AppOfApps(Gateway, SubApp("first", "/first", backend=first, **OPEN))
    async with Server(both).running():
        await both.join(SubApp("second", "/second", backend=second, **OPEN))
        assert events == ["first starts", "second starts"]
    assert events == ["first starts", "second starts", "second ends", "first ends"]


def test_a_server_whose_send_has_to_wait_hears_of_the_end_too() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), **OPEN))
    with TestClient(one) as client:
        assert client.get("/orders/7").json() == {"name": "orders", "number": 7}


# Claims


def mistake(*apps: SubApp) -> str:
    with pytest.raises(ConfigError) as caught:
        AppOfApps(Gateway, *apps)
    return str(caught.value)


def test_two_apps_with_one_path_are_a_mistake() -> None:
    text = mistake(SubApp("orders", "/shop", backend=shop()), SubApp("stock", "/shop", backend=plain))
    assert text.startswith("SubApp stock.path: '/shop' is the path of orders already.")


def test_two_apps_with_one_name_are_a_mistake() -> None:
    assert "SubApp.name: 'a'" in mistake(SubApp("a", "/a", backend=plain), SubApp("a", "/b", backend=plain))


async def test_two_apps_with_one_path_may_have_different_hosts() -> None:
    first = SubApp("orders", "/", backend=shop(), hosts=("a.example",), **OPEN)
    second = SubApp("stock", "/", backend=shop("stock"), hosts=("b.example",), **OPEN)
    both = AppOfApps(Gateway, first, second)
    assert json.loads((await get(both, "/", [(b"host", b"b.example")])).body) == ["stock"]


def test_an_app_that_stands_where_another_has_operations_is_a_mistake() -> None:
    outer = SubApp("shop", "/shop", backend=plain, document=document({"/admin/users": GET}))
    text = mistake(outer, SubApp("admin", "/shop/admin", backend=plain))
    assert text.startswith("SubApp admin.path: '/shop/admin' stands where shop has GET /admin/users.")


async def test_an_app_may_stand_where_another_has_none() -> None:
    outer = SubApp("shop", "/shop", backend=shop(), **OPEN)
    both = AppOfApps(Gateway, outer, SubApp("admin", "/shop/admin", backend=plain, **OPEN))
    assert (await get(both, "/shop/admin/users")).body == b"plain"
    assert (await get(both, "/shop/7")).status == 200


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": 7}, "SubApp.backend: 7 is no app"),
        ({"backend": "stock:8000"}, "SubApp stock.backend: "),
        (
            {"backend": "http://stock", "document": "ftp://stock/x"},
            "SubApp stock.document: 'ftp://stock/x' is not https",
        ),
        ({"backend": "http://stock", "document": "http://me:secret@stock/x"}, "SubApp stock.document: names a user"),
        ({"backend": Pool("http://a", "http://b")}, "SubApp stock.document: is missing, and the backend is no URL"),
        ({"backend": plain, "timeout": 0.0}, "SubApp.timeout: 0.0 is no time"),
        ({"backend": plain, "path": "stock"}, "Api.path: 'stock' begins no path"),
    ],
)
def test_mistakes_are_told_when_it_is_made(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SubApp(**{"name": "stock", "path": "/stock", **given})
    assert str(caught.value).startswith(said)
    assert "secret" not in str(caught.value)


def test_a_document_of_an_app_here_that_is_refused_names_the_app() -> None:
    text = mistake(SubApp("orders", "/orders", backend=plain, document=b'{"openapi": "9.0"}'))
    assert text.startswith("SubApp orders.document: is refused: #/openapi: ")


# Remote


async def test_a_remote_app_is_an_api_once_the_start_has_fetched_its_document(remote: servers.Running) -> None:
    one = AppOfApps(Gateway, remote_app(remote.origin))
    before = await get(one, "/stock/7")
    assert (before.status, code(before), before.header(b"retry-after")) == (503, "app-unavailable", b"30")
    async with Server(one).running() as server:
        assert server.types() == ["startup.complete"]
        assert json.loads((await get(one, "/stock/7")).body) == {"name": "stock", "number": 7}
        assert (await get(one, "/stock/hidden/door")).status == 404
    assert one.missing == {}


async def test_the_start_fails_without_the_document_of_a_required_app() -> None:
    async with servers.stub(answering(b"no", "500 Oh")) as broken:
        one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), **OPEN), remote_app(broken.origin))
        async with Server(one).running() as server:
            assert server.types() == ["startup.failed"]
            url = f"{broken.origin}/openapi.json"
            assert server.told[0]["message"].startswith(
                f"SubApp stock.document: {url} cannot be read: the answer was 500."
            )


@pytest.mark.parametrize(
    ("speaker", "reason"),
    [
        (answering(b"no", "404 Not Found"), "cannot be read: the answer was 404"),
        (answering(b"", "302 Found", b"location: http://127.0.0.1/x"), "cannot be read: the answer was 302"),
        (answering(b"x", "200 OK", b"content-encoding: gzip"), "cannot be read: the answer is compressed"),
        (answering(b"{"), "is refused: #: "),
        (answering(b'{"swagger": "2.0"}'), "is refused: #/swagger: "),
        (answering(document({})), "is refused: #/paths: holds no operations"),
        (servers.saying(), "cannot be asked: "),
        (
            servers.saying(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", b" " * (9 << 20)),
            "the answer is too large",
        ),
    ],
    ids=["missing", "redirect", "compressed", "no JSON", "swagger", "no operations", "hangs up", "too large"],
)
async def test_others_serve_while_the_document_of_an_optional_app_is_not_there(
    speaker: servers.Speaker, reason: str
) -> None:
    async with servers.stub(speaker) as broken:
        both = AppOfApps(
            Gateway, SubApp("orders", "/orders", backend=shop(), **OPEN), remote_app(broken.origin, required=False)
        )
        async with Server(both).running() as server:
            assert server.types() == ["startup.complete"]
            assert (await get(both, "/orders/7")).status == 200
            assert code(await get(both, "/stock/7")) == "app-unavailable"
            assert reason in both.missing["stock"]


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def silent(spoken: servers.Spoken) -> None:
        await spoken.hang_on()

    async with servers.stub(silent) as slow:
        one = AppOfApps(Gateway, remote_app(slow.origin, required=False, timeout=0.05))
        await one.refresh()
        assert "did not answer within 0.05 seconds" in one.missing["stock"]


async def test_keys_are_asked_for_in_front_of_an_app_that_is_not_there() -> None:
    subscribers = Subscribers()
    header = subscribers.add("acme", api="stock")
    one = AppOfApps(partial(Gateway, keys=subscribers.store), SubApp("stock", "/stock", backend="http://127.0.0.1:9"))
    assert (await get(one, "/stock")).status == 401
    assert code(await get(one, "/stock", header)) == "app-unavailable"
    assert (await connect(one, "/stock", headers=header)).status == 503


async def test_a_document_that_is_missing_is_asked_for_again_while_it_serves() -> None:
    came, bodies = anyio.Event(), [b"nothing yet", document({"/7": GET})]

    async def speak(spoken: servers.Spoken) -> None:
        await answering(bodies.pop(0))(spoken)

    async with servers.stub(speak) as late:
        one = AppOfApps(Gateway, remote_app(late.origin, required=False), retry_every=0.01)
        changed = one.reload

        async def reload(gateway: Gateway) -> Any:
            done = await changed(gateway)
            if not bodies:
                came.set()
            return done

        one.reload = reload  # type: ignore[method-assign]
        async with Server(one).running():
            await came.wait()
            assert {each.path for each in one.gateway.rows()} == {"/stock/7"}


async def test_a_document_that_was_there_stays_when_it_cannot_be_had_again() -> None:
    bodies = [document({"/7": GET}), b"broken"]

    async def speak(spoken: servers.Spoken) -> None:
        await answering(bodies.pop(0))(spoken)

    async with servers.stub(speak) as unsteady:
        one = AppOfApps(Gateway, remote_app(unsteady.origin))
        await one.refresh()
        await one.refresh()
    assert bodies == []
    assert {each.path for each in one.gateway.rows()} == {"/stock/7"}
    assert one.missing == {}


@pytest.mark.parametrize(
    ("backend", "given", "path"),
    [
        ("", {}, "/stock/v2/items"),
        ("/v2", {}, "/stock/items"),
        ("", {"server_path": ""}, "/stock/items"),
    ],
    ids=["that of its servers", "that of the URL", "what is said"],
)
async def test_the_path_in_front_of_its_operations(backend: str, given: dict[str, Any], path: str) -> None:
    text = json.dumps({**json.loads(document({"/items": GET})), "servers": [{"url": "https://stock.example/v2"}]})
    async with servers.stub(answering(text.encode())) as server:
        one = AppOfApps(Gateway, remote_app(f"{server.origin}{backend}", **given))
        await one.refresh()
    assert [each.path for each in one.gateway.rows()] == [path]


# At run time


async def test_an_app_joins_and_leaves_while_it_serves(remote: servers.Running) -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), **OPEN))
    async with Server(one).running():
        changes = await one.join(remote_app(remote.origin))
        assert {each.kind for each in changes} == {"added"}
        assert (await get(one, "/stock/7")).status == 200
        await one.leave("stock")
        assert (await get(one, "/stock/7")).status == 404
        assert [each.name for each in one.apps] == ["orders"]


async def test_an_app_that_cannot_join_changes_nothing() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), **OPEN))
    before = one.gateway
    for wrong in (SubApp("stock", "/orders", backend=plain), remote_app("http://127.0.0.1:9", timeout=5.0)):
        with pytest.raises(ConfigError, match="SubApp stock"):
            await one.join(wrong)
    assert one.gateway is before
    assert [each.name for each in one.apps] == ["orders"]
    with pytest.raises(ConfigError, match="has no 'stock'"):
        await one.leave("stock")


async def test_limits_of_the_others_go_on_counting_when_an_app_joins() -> None:
    from apim_middleware.policies.limits import RateLimit

    own = (RateLimit(calls=1, per=60),)
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), policies=own, **OPEN))
    assert (await get(one, "/orders/7")).status == 200
    await one.join(SubApp("plain", "/plain", backend=plain, **OPEN))
    assert (await get(one, "/orders/7")).status == 429


async def test_an_app_is_registered_under_a_name_and_a_path() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), **OPEN))
    changes = await one.register(plain, name="plain", path="/plain", **OPEN)
    assert [change.kind for change in changes] == ["added"]
    assert (await get(one, "/plain/x")).body == b"plain"
    with pytest.raises(ConfigError, match="'/plain' is the path of plain already"):
        await one.register(shop(), name="other", path="/plain")


async def test_apps_that_join_at_the_same_time_are_all_there() -> None:
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=shop(), **OPEN))
    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(one.join, SubApp(name, f"/{name}", backend=plain, **OPEN))
    assert {each.name for each in one.gateway.apis} == {"orders", "a", "b", "c"}


async def test_a_stream_of_an_app_that_leaves_comes_to_its_end() -> None:
    going, go_on = anyio.Event(), anyio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        going.set()
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"last"})

    one = AppOfApps(
        Gateway,
        SubApp("slow", "/slow", backend=slow, **OPEN),
        SubApp("plain", "/plain", backend=plain, **OPEN),
    )
    answers: list[bytes] = []

    async def ask() -> None:
        answers.append((await get(one, "/slow")).body)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await going.wait()
        await one.leave("slow")
        go_on.set()
    assert answers == [b"first last"]


def test_what_is_no_time_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="retry_every"):
        AppOfApps(Gateway, SubApp("plain", "/plain", backend=plain), retry_every=0)


def test_it_says_which_apps_there_are() -> None:
    assert repr(AppOfApps(Gateway, SubApp("plain", "/plain", backend=plain, **OPEN))) == "<AppOfApps: plain>"


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


async def test_an_app_within_layers_is_asked_for_its_document() -> None:
    from apim_middleware.policy import Stack

    wrapped: ASGIApp = Stack(Passes("own"))(shop())
    one = AppOfApps(Gateway, SubApp("orders", "/orders", backend=wrapped, **OPEN))
    assert "show-orders" in {each.operation for each in one.gateway.rows()}


def test_an_app_that_cannot_make_its_document_is_named() -> None:
    class Broken:
        def openapi(self) -> dict[str, Any]:
            raise RuntimeError("no schema for this")

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Nothing."""

    text = mistake(SubApp("broken", "/broken", backend=Broken()))
    assert text.startswith("SubApp broken.document: cannot be made by the app: RuntimeError: no schema for this.")


async def test_a_starlette_app_passes_whole() -> None:
    app = Starlette(routes=[Route("/hello", hello)])
    one = AppOfApps(Gateway, SubApp("hello", "/h", backend=app, **OPEN))
    assert (await get(one, "/h/hello")).body == b"hello"
