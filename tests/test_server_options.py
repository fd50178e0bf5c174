"""What is said when the server starts that leaves something to clients, and what is to be given to it."""

from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from tests.servers import serving

from apim_middleware import Api, Gateway, RequireHeader, Stack
from apim_middleware.serving.options import uvicorn_options

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


def test_a_gateway_says_it_too(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(apis=(Api("a", backend=PlainTextResponse("hello"), subscription_required=False),))
    assert len(warnings_of(gateway, caplog, proxy_headers=True, http="httptools")) == 2


def test_nothing_is_said_of_the_options_of_this_package(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(middleware=[Middleware(POLICY)])
    assert warnings_of(app, caplog, **uvicorn_options()) == []


def test_the_options_are_those_of_uvicorn() -> None:
    config = uvicorn.Config(Starlette(), **uvicorn_options())
    config.load()
    assert config.http_protocol_class.__module__ == "apim_middleware.serving.httptools"


def test_without_httptools_requests_are_read_by_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apim_middleware.serving.options.find_spec", lambda name: None)
    assert uvicorn_options()["http"] == "h11"
