"""What is said when the server starts that leaves something to clients, and what is to be given to it."""

from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from litestar import Litestar
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from tests.servers import serving
from uvicorn.protocols.http import httptools_impl

from apim_middleware import Api, Gateway, Proxy, Reloadable, RequireHeader, Stack, guard
from apim_middleware._server import look_at_server
from apim_middleware.serving.httptools import HttpToolsProtocol
from apim_middleware.serving.options import uvicorn_options
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

POLICY = RequireHeader(name="x-tenant")
REWRITES, TRAILERS = "--no-proxy-headers", "--http apim_middleware.serving.httptools:HttpToolsProtocol"


def warnings_of(app: Any, caplog: pytest.LogCaptureFixture, **options: Any) -> list[str]:
    """What is logged when it is served so."""
    with serving(app, lifespan="on", **options):
        pass
    return [record.getMessage() for record in caplog.records if record.name == "apim_middleware"]


def test_a_server_that_puts_clients_in_the_place_of_peers_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(middleware=[Middleware(POLICY)])
    [warning] = warnings_of(app, caplog, proxy_headers=True, http="h11")
    assert REWRITES in warning
    assert "127.0.0.1" in warning


def test_a_server_that_takes_trailers_for_headers_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(middleware=[Middleware(POLICY)])
    [warning] = warnings_of(app, caplog, http="httptools")
    assert TRAILERS in warning


def test_each_is_said_once_however_many_policies_there_are(caplog: pytest.LogCaptureFixture) -> None:
    inner = Starlette(routes=[Mount("/", PlainTextResponse("hello"))], middleware=[Middleware(POLICY)])
    app = Stack(POLICY, lambda app: lambda *what: app(*what))(inner)
    assert len(warnings_of(app, caplog, proxy_headers=True, http="httptools")) == 2


def on_fastapi() -> FastAPI:
    app = FastAPI()
    app.add_middleware(POLICY)  # type: ignore[arg-type]
    return app


def receiving_anew(app: ASGIApp) -> ASGIApp:
    """A layer with a ``receive`` of its own, as many have."""

    async def enter(scope: Scope, receive: Receive, send: Send) -> None:
        async def heard() -> Message:
            return await receive()

        await app(scope, heard, send)

    return enter


WAYS: dict[str, Callable[[], Any]] = {
    "a policy alone": lambda: POLICY(Starlette()),
    "a stack": lambda: Stack(POLICY)(FastAPI()),
    "a middleware of Starlette": lambda: Starlette(middleware=[Middleware(POLICY)]),
    "a middleware of FastAPI": on_fastapi,
    "a middleware of Starlette behind one of FastAPI": lambda: POLICY(on_fastapi()),
    "a guard": lambda: guard(FastAPI()),
    "a guard with policies": lambda: guard(Starlette(), policies=(POLICY,)),
    "a guard in front of policies": lambda: guard(on_fastapi(), policies=(POLICY,)),
    "a stack in front of a guard": lambda: Stack(POLICY)(guard(FastAPI())),
    "a guard of Litestar": lambda: guard(Litestar([], logging_config=None)),
    "a gateway": lambda: gateway(PlainTextResponse("hello")),
    "a gateway in front of policies": lambda: gateway(on_fastapi()),
    "a gateway that can be replaced": lambda: Reloadable(gateway(PlainTextResponse("hello"))),
    "a proxy": lambda: Proxy("http://127.0.0.1:1"),
    "behind a middleware that wraps receive": lambda: receiving_anew(guard(Starlette())),
    "a gateway behind such a one": lambda: receiving_anew(gateway(PlainTextResponse("hello"))),
}


def gateway(backend: Any) -> Gateway:
    return Gateway(apis=(Api("a", backend=backend, subscription_required=False),))


@pytest.mark.parametrize("way", WAYS)
def test_it_is_said_whichever_way_an_app_is_put_together(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """FastAPI has a receive of its own around that of the server, and a guard did not look."""
    told = warnings_of(WAYS[way](), caplog, proxy_headers=True, http="httptools")
    assert [REWRITES in each or TRAILERS in each for each in told] == [True, True]


def test_a_server_whose_configuration_cannot_be_read_starts(caplog: pytest.LogCaptureFixture) -> None:
    class Lifespan:
        config = object.__new__(uvicorn.Config)  # of another version, without the fields of this one

        async def receive(self) -> Message:
            return {"type": "lifespan.startup"}

    look_at_server({"type": "lifespan"}, Lifespan().receive)
    assert caplog.records == []


def test_nothing_is_said_of_the_options_of_this_package(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(middleware=[Middleware(POLICY)])
    assert warnings_of(app, caplog, **uvicorn_options()) == []


def test_the_options_are_those_of_uvicorn() -> None:
    config = uvicorn.Config(Starlette(), **uvicorn_options())
    config.load()
    assert config.http_protocol_class is HttpToolsProtocol
    assert issubclass(HttpToolsProtocol, httptools_impl.HttpToolsProtocol)


def test_without_httptools_requests_are_read_by_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apim_middleware.serving.options.find_spec", lambda name: None)
    assert uvicorn_options()["http"] == "h11"
