"""Tracing: one server span and one measured duration a request, whatever becomes of it, and no secret in either."""

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Host, Mount, Route, Router
from starlette.testclient import TestClient
from tests.letting_go import is_let_go

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.testing import FakeClock, call, connect, http_scope
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send, Tap

CALLER = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = CALLER[:-2] + b"00"
TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPAN_ID = 0x00F067AA0BA902B7
CANARY = "canary-7f3a"


class Telemetry:
    """A whole OpenTelemetry SDK in memory."""

    def __init__(self, sampler: Sampler = DEFAULT_ON) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def tracing(self, **fields: Any) -> Tracing:
        return Tracing(tracer_provider=self.tracers, meter_provider=self.meters, **fields)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        """The one server span there is."""
        (span,) = [each for each in self.spans if each.kind is SpanKind.SERVER]
        return span

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.span.attributes or {})

    @property
    def points(self) -> list[HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        found = [
            metric for scope in scopes for metric in scope.metrics if metric.name == "http.server.request.duration"
        ]
        return [point for metric in found for point in metric.data.data_points]

    @property
    def everything(self) -> str:
        """All that left the process, as text."""
        return "".join(span.to_json() for span in self.spans) + "".join(map(str, self.points))


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


@dataclass
class Keeper:
    """An app that keeps the scope it got and what was current when it ran."""

    scope: Scope = field(default_factory=dict)
    span: trace.Span = trace.INVALID_SPAN
    baggage: dict[str, object] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = dict(scope)
        self.span = trace.get_current_span()
        self.baggage = dict(baggage.get_all())
        await hello(scope, receive, send)

    def header(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.scope["headers"] if key == name]


@dataclass(frozen=True, kw_only=True)
class Says(Policy):
    """A policy with an outcome, or a refusal."""

    attributes: tuple[tuple[str, Any], ...] = ()
    refuse: int | None = None

    def on_request(self, exchange: Exchange) -> None:
        exchange.attributes.update(self.attributes)
        if self.refuse is not None:
            raise Refusal(self.refuse, "no-luck", "Not today.")


# The span


@pytest.mark.anyio
async def test_a_request_is_one_server_span_by_the_http_conventions(telemetry: Telemetry):
    app = Stack(telemetry.tracing())(hello)
    headers = [(b"host", b"api.example.com:8443"), (b"user-agent", b"probe/1.0")]
    await call(app, "POST", "/orders/7", headers=headers, query=b"page=2&sort=up", scheme="https")
    assert telemetry.span.name == "POST"
    assert telemetry.span.parent is None
    assert telemetry.attributes == {
        "http.request.method": "POST",
        "url.scheme": "https",
        "url.path": "/orders/7",
        "url.query": "page=2&sort=up",
        "server.address": "api.example.com",
        "server.port": 8443,
        "client.address": "203.0.113.7",
        "network.protocol.version": "1.1",
        "user_agent.original": "probe/1.0",
        "http.response.status_code": 200,
    }
    assert telemetry.span.status.status_code is StatusCode.UNSET


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("host", "scheme", "server"),
    [
        (b"example.com", "http", ("example.com", 80)),
        (b"example.com", "https", ("example.com", 443)),
        (b"[2001:db8::1]:8080", "http", ("2001:db8::1", 8080)),
        (b"user@evil/path", "http", ("testserver", 80)),
        (b"example.com:99999999", "http", ("testserver", 80)),
    ],
)
async def test_the_server_is_whom_the_request_names(telemetry: Telemetry, host: bytes, scheme: str, server: Any):
    await call(telemetry.tracing()(hello), headers=[(b"host", host)], scheme=scheme)
    assert (telemetry.attributes["server.address"], telemetry.attributes["server.port"]) == server


@pytest.mark.anyio
async def test_a_server_that_knows_nobody_is_no_obstacle(telemetry: Telemetry):
    app = telemetry.tracing()(hello)
    scope = http_scope()
    scope |= {"headers": [], "client": None, "server": None, "raw_path": None}
    del scope["http_version"], scope["query_string"]
    await app(scope, Inbox(), discard)
    assert set(telemetry.attributes) == {"http.request.method", "url.path", "url.scheme", "http.response.status_code"}


@pytest.mark.anyio
async def test_an_unknown_method_is_other(telemetry: Telemetry):
    await call(telemetry.tracing()(hello), "PROPFIND")
    assert telemetry.span.name == "HTTP"
    assert telemetry.attributes["http.request.method"] == "_OTHER"
    assert telemetry.attributes["http.request.method_original"] == "PROPFIND"


@pytest.mark.anyio
async def test_more_methods_can_be_made_known(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET,PROPFIND")
    await call(telemetry.tracing()(hello), "PROPFIND")
    assert telemetry.span.name == "PROPFIND"


@pytest.mark.anyio
async def test_the_caller_is_whom_a_policy_further_in_decided_on(telemetry: Telemetry):
    class Judge(Policy):
        def on_request(self, exchange: Exchange) -> None:
            exchange.scope["client"] = ("198.51.100.9", 0)
            exchange.scope["scheme"] = "https"
            exchange.set_header("host", "public.example")

    app = Stack(telemetry.tracing(), Judge())(hello)
    await call(app, headers=[(b"x-forwarded-for", b"198.51.100.9")])
    told = telemetry.attributes
    assert (told["client.address"], told["url.scheme"], told["server.address"], told["server.port"]) == (
        "198.51.100.9", "https", "public.example", 443,
    )  # fmt: skip


@pytest.mark.anyio
async def test_headers_are_recorded_when_named(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = PlainTextResponse("x", headers={"ETag": '"1"'})
        response.raw_headers += [(b"X-Part", b"a"), (b"x-part", b"b")]
        await response(scope, receive, send)

    tracing = telemetry.tracing(request_headers=("X-Request-Id", "accept"), response_headers=("etag", "X-Part"))
    await call(tracing(app), headers=[(b"x-request-id", b"1"), (b"accept", b"a"), (b"accept", b"b")])
    assert telemetry.attributes["http.request.header.x-request-id"] == ("1",)
    assert telemetry.attributes["http.request.header.accept"] == ("a", "b")
    assert telemetry.attributes["http.response.header.etag"] == ('"1"',)
    assert telemetry.attributes["http.response.header.x-part"] == ("a", "b")


@pytest.mark.anyio
async def test_excluded_paths_are_neither_traced_nor_measured(telemetry: Telemetry):
    app = telemetry.tracing(exclude=("/health", "/internal/*"))(hello)
    for path in ("/health", "/internal/", "/internal/a/b"):
        await call(app, path=path)
    assert telemetry.spans == []
    assert telemetry.points == []
    for path in ("/health/", "/internal", "/"):
        await call(app, path=path)
    assert len(telemetry.spans) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/internal/../orders", "/internal/%2e%2e/orders", "/internal/..%2forders"])
async def test_no_form_of_a_path_leads_around_tracing(telemetry: Telemetry, path: str):
    app = Stack(telemetry.tracing(exclude=("/internal/*",)), Says())(hello)
    assert (await call(app, path=unquote(path), raw_path=path.encode())).status == 400
    assert [span.attributes["http.response.status_code"] for span in telemetry.spans] == [400]
    assert len(telemetry.points) == 1


@pytest.mark.anyio
async def test_lifespan_passes_through(telemetry: Telemetry):
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    await telemetry.tracing()(app)(scope, Inbox(), discard)
    assert seen[0] is scope
    assert scope == {"type": "lifespan", "asgi": {"version": "3.0"}}


# The route


def orders() -> FastAPI:
    app = FastAPI()

    @app.get("/orders/{number}")
    async def order(number: int) -> int:
        return number

    @app.websocket("/live/{room}")
    async def live(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        await websocket.close()

    lines = APIRouter(prefix="/lines")

    @lines.get("/{line}")
    async def line(line: str) -> str:
        return line

    shop = APIRouter(prefix="/shops/{shop}")
    shop.include_router(lines)
    app.include_router(shop, prefix="/api")

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(CANARY)

    return app


async def text(request: Request) -> Response:
    return PlainTextResponse("x")


def town() -> Starlette:
    inner = Starlette(routes=[Route("/{rest:path}", text)])
    return Starlette(
        routes=[
            Mount("/sub/{tenant}", orders()),
            Mount("/v{version:int}", orders()),
            Mount("/{floor:int}/deep", orders()),
            Mount("/a/b", routes=[Mount("/{name}", inner), Route("/{name}/x/{other}", text)]),
            Mount("/raw", hello),
            Host("{city}.example.org", Router(routes=[Route("/at/{place}", text)])),
            Route("/plain/{q:path}", text),
        ]
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/orders/7", "GET /orders/{number}"),
        ("/orders/seven", "GET /orders/{number}"),
        ("/api/shops/north/lines/4", "GET /api/shops/{shop}/lines/{line}"),
        ("/nowhere", "GET"),
        ("/orders/7/", "GET"),
    ],
)
def test_the_span_is_named_by_the_route_of_fastapi(telemetry: Telemetry, path: str, name: str):
    TestClient(telemetry.tracing()(orders())).get(path, follow_redirects=False)
    assert telemetry.span.name == name
    assert telemetry.attributes.get("http.route", "") == name.removeprefix("GET").strip()


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/plain/a/b", "/plain/{q}"),
        ("/sub/acme/orders/7", "/sub/{tenant}/orders/{number}"),
        ("/sub/acme/api/shops/acme/lines/acme", "/sub/{tenant}/api/shops/{shop}/lines/{line}"),
        ("/sub/acme/nowhere", "/sub/{tenant}/{path}"),
        ("/sub/acme/docs", "/sub/{tenant}/{path}"),
        ("/a/b/bob/some/thing", "/a/b/{name}/{rest}"),
        ("/raw/any/thing", "/raw/{path}"),
        ("/17/deep/orders/7", "/{floor}/deep/orders/{number}"),
    ],
)
def test_mounts_stand_in_the_route_by_their_templates(telemetry: Telemetry, path: str, route: str):
    TestClient(telemetry.tracing()(town())).get(path)
    assert telemetry.attributes["http.route"] == route


@pytest.mark.parametrize("path", ["/v1/orders/7", "/017/deep/api/shops/x/lines/y"])
def test_a_mount_whose_parameter_cannot_be_told_leaves_no_route(telemetry: Telemetry, path: str):
    TestClient(telemetry.tracing()(town())).get(path)
    assert telemetry.span.name == "GET"


def test_a_host_route_adds_nothing(telemetry: Telemetry):
    TestClient(telemetry.tracing()(town()), base_url="http://delft.example.org").get("/at/home")
    assert telemetry.attributes["http.route"] == "/at/{place}"


def test_inside_a_mount_its_template_still_stands_in_front(telemetry: Telemetry):
    app = Starlette(routes=[Mount("/of/{tenant}", telemetry.tracing()(orders()))])
    TestClient(app).get("/of/acme/orders/7")
    assert telemetry.span.name == "GET /of/{tenant}/orders/{number}"


def test_the_root_path_stands_in_the_route(telemetry: Telemetry):
    TestClient(telemetry.tracing()(orders()), root_path="/shop").get("/shop/orders/7")
    assert telemetry.attributes["http.route"] == "/shop/orders/{number}"


@pytest.mark.anyio
async def test_litestar_leaves_the_template_itself(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_template"] = "/orders/{number:int}"
        await hello(scope, receive, send)

    await call(telemetry.tracing()(app), path="/orders/7")
    assert telemetry.span.name == "GET /orders/{number:int}"


@pytest.mark.anyio
async def test_a_policy_may_name_the_route(telemetry: Telemetry):
    app = Stack(telemetry.tracing(), Says(attributes=(("http.route", "/orders/{id}"),)))(hello)
    await call(app, path="/orders/7")
    assert telemetry.span.name == "GET /orders/{id}"


def test_a_middleware_added_to_the_app_sees_the_route(telemetry: Telemetry):
    app = orders()
    app.add_middleware(telemetry.tracing())
    TestClient(app).get("/orders/7")
    assert telemetry.span.name == "GET /orders/{number}"


def test_callers_cannot_make_names_or_series(telemetry: Telemetry):
    client = TestClient(telemetry.tracing()(town()))
    for number in range(50):
        for path in (f"/no{number}", f"/sub/t{number}/orders/{number}", f"/0{number}/deep/nowhere", f"/raw/{number}"):
            client.get(path)
    names = {span.name for span in telemetry.spans}
    assert names == {"GET", "GET /sub/{tenant}/orders/{number}", "GET /raw/{path}"}
    assert len(telemetry.points) == 3


@pytest.mark.anyio
async def test_not_even_an_app_can_make_names_without_bound(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_template"] = scope["path"]
        await hello(scope, receive, send)

    traced = telemetry.tracing()(app)
    for number in range(1100):
        await call(traced, path=f"/{number}")
    assert len({span.name for span in telemetry.spans}) == 1001
    assert len(telemetry.points) == 1001


@pytest.mark.anyio
async def test_the_route_is_seen_through_a_ring_that_taps(telemetry: Telemetry):
    class Taps(Policy):
        taps_body = True

        def on_response(self, exchange: Exchange) -> Tap:
            return lambda chunk, last: chunk

    app = Stack(telemetry.tracing(), Taps())(orders())
    await call(app, path="/orders/7", extensions={"http.response.pathsend": {}})
    assert telemetry.span.name == "GET /orders/{number}"


# What became of it


@pytest.mark.anyio
async def test_a_client_error_is_no_error_of_the_span(telemetry: Telemetry):
    await call(telemetry.tracing()(PlainTextResponse("no", status_code=404)))
    assert telemetry.span.status.status_code is StatusCode.UNSET
    assert "error.type" not in telemetry.attributes


@pytest.mark.anyio
async def test_a_server_error_is_an_error_of_the_span(telemetry: Telemetry):
    await call(telemetry.tracing()(PlainTextResponse("no", status_code=503)))
    assert telemetry.span.status.status_code is StatusCode.ERROR
    assert telemetry.attributes["error.type"] == "503"


@pytest.mark.anyio
async def test_a_refusal_is_told_by_its_code(telemetry: Telemetry):
    answer = await call(Stack(telemetry.tracing(), Says(refuse=403))(hello))
    assert answer.status == 403
    assert telemetry.attributes["apim.refusal.code"] == "no-luck"
    assert telemetry.attributes["http.response.status_code"] == 403
    assert telemetry.span.status.status_code is StatusCode.UNSET


@pytest.mark.anyio
async def test_a_refusal_with_a_server_error_is_an_error_by_its_code(telemetry: Telemetry):
    await call(Stack(telemetry.tracing(), Says(refuse=503))(hello))
    assert telemetry.attributes["error.type"] == "no-luck"
    assert telemetry.span.status.status_code is StatusCode.ERROR


@pytest.mark.anyio
async def test_a_request_refused_by_hygiene_is_traced(telemetry: Telemetry):
    answer = await call(Stack(telemetry.tracing(), Says())(hello), path="/a/../b")
    assert answer.status == 400
    assert telemetry.attributes["apim.refusal.code"] == "bad-target"


@pytest.mark.anyio
async def test_outcomes_of_policies_are_attributes(telemetry: Telemetry):
    said = (
        ("apim.cache.status", "hit"),
        ("apim.limit.remaining", 7),
        ("apim.share", 0.5),
        ("apim.flag", True),
        ("apim.object", object()),
        ("apim.list", ["a"]),
        ("apim.none", None),
        ("apim.long", "x" * 5000),
        ("apim.odd", "\ud800 ü"),
    )
    await call(Stack(telemetry.tracing(), Says(attributes=said))(hello))
    told = {name: value for name, value in telemetry.attributes.items() if name.startswith("apim.")}
    assert told == {
        "apim.cache.status": "hit",
        "apim.limit.remaining": 7,
        "apim.share": 0.5,
        "apim.flag": True,
        "apim.long": "x" * 1024,
        "apim.odd": "? ü",
    }


@pytest.mark.anyio
async def test_outcomes_reach_it_from_behind_other_middlewares(telemetry: Telemetry):
    def foreign(app: ASGIApp) -> ASGIApp:
        async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
            await app(dict(scope), receive, send)

        return pass_on

    await call(Stack(telemetry.tracing(), foreign, Says(refuse=429))(hello))
    assert telemetry.attributes["apim.refusal.code"] == "no-luck"


@pytest.mark.anyio
async def test_inside_a_ring_it_tells_what_the_outer_policies_said(telemetry: Telemetry):
    app = Stack(Says(attributes=(("apim.outer", 1),)), telemetry.tracing(), Says(attributes=(("apim.inner", 2),)))(
        hello
    )
    await call(app)
    assert (telemetry.attributes["apim.outer"], telemetry.attributes["apim.inner"]) == (1, 2)


@pytest.mark.anyio
async def test_nothing_of_ours_is_left_in_the_scope(telemetry: Telemetry):
    scope = http_scope()
    before = set(scope)
    await telemetry.tracing()(hello)(scope, Inbox(), discard)
    assert set(scope) == before


# Errors


def failing(at: str) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        password = CANARY  # noqa: F841 - locals must not be recorded
        if at != "start":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError(f"no such thing: {CANARY}")

    return app


@pytest.mark.anyio
@pytest.mark.parametrize("at", ["start", "midway"])
async def test_an_exception_of_the_app_is_recorded_once_and_passes_on(telemetry: Telemetry, at: str):
    with pytest.raises(LookupError):
        await call(Stack(telemetry.tracing(), Says())(failing(at)))
    (event,) = telemetry.span.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "LookupError"
    assert "raise LookupError" in str(event.attributes["exception.stacktrace"])
    assert telemetry.attributes["error.type"] == "LookupError"
    assert telemetry.span.status.status_code is StatusCode.ERROR
    assert telemetry.attributes.get("http.response.status_code") == (None if at == "start" else 200)


@pytest.mark.anyio
async def test_neither_message_nor_locals_of_an_exception_are_recorded(telemetry: Telemetry):
    with pytest.raises(LookupError):
        await call(telemetry.tracing()(failing("start")))
    assert CANARY not in telemetry.everything


@pytest.mark.anyio
async def test_messages_of_exceptions_are_recorded_when_asked(telemetry: Telemetry):
    with pytest.raises(LookupError):
        await call(telemetry.tracing(exception_messages=True)(failing("start")))
    (event,) = telemetry.span.events
    assert event.attributes is not None
    assert event.attributes["exception.message"] == f"no such thing: {CANARY}"


def test_an_exception_raised_after_a_500_is_recorded(telemetry: Telemetry):
    """Starlette answers 500 first and raises what the endpoint raised only then."""
    client = TestClient(telemetry.tracing()(orders()), raise_server_exceptions=False)
    assert client.get("/broken").status_code == 500
    assert [event.name for event in telemetry.span.events] == ["exception"]
    assert telemetry.attributes["error.type"] == "RuntimeError"
    assert telemetry.attributes["http.response.status_code"] == 500
    assert telemetry.span.name == "GET /broken"


@pytest.mark.anyio
async def test_a_policy_that_fails_is_an_error_without_its_words(telemetry: Telemetry):
    class Fails(Policy):
        def on_request(self, exchange: Exchange) -> None:
            raise ValueError(CANARY)

    await call(Stack(telemetry.tracing(), Fails())(hello))
    assert telemetry.attributes["error.type"] == "policy-failed"
    assert CANARY not in telemetry.everything


@pytest.mark.anyio
async def test_a_cancelled_request_ends_its_span(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        cancelled.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as cancelled:
        await call(telemetry.tracing()(app))
    assert telemetry.attributes["error.type"].rpartition(".")[2] in ("CancelledError", "Cancelled")
    assert telemetry.span.events == ()
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.anyio
async def test_an_app_that_says_nothing_is_an_error(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    await call(telemetry.tracing()(app))
    assert telemetry.attributes["error.type"] == "incomplete_response"


@pytest.mark.anyio
async def test_a_client_that_leaves_is_told(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})

    await call(telemetry.tracing()(app), leave_after=2)
    assert telemetry.attributes["error.type"] == "client_disconnected"
    assert telemetry.attributes["http.response.status_code"] == 200
    assert telemetry.span.status.status_code is StatusCode.ERROR


@pytest.mark.anyio
async def test_a_client_to_whom_nothing_can_be_sent_is_told(telemetry: Telemetry):
    with pytest.raises(OSError, match="the client is gone"):
        await call(Stack(telemetry.tracing(), Says())(hello), leave_after=1)
    assert telemetry.attributes["error.type"] == "OSError"


@pytest.mark.anyio
async def test_a_client_that_leaves_after_the_last_byte_is_nothing(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        while (await receive())["type"] != "http.disconnect":
            pass

    await call(telemetry.tracing()(app))
    assert "error.type" not in telemetry.attributes


# The end


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("start", "rest"),
    [
        ({}, [{"type": "http.response.body", "body": b"x", "more_body": True}, {"type": "http.response.body"}]),
        ({}, [{"type": "http.response.pathsend", "path": "/dev/null"}]),
        ({}, [{"type": "http.response.zerocopysend", "file": 0, "more_body": True}, {"type": "http.response.body"}]),
        (
            {"trailers": True},
            [
                {"type": "http.response.body", "body": b"x"},
                {"type": "http.response.trailers", "headers": [], "more_trailers": True},
                {"type": "http.response.trailers", "headers": []},
            ],
        ),
    ],
)
async def test_the_span_ends_with_the_last_byte(telemetry: Telemetry, start: Message, rest: Sequence[Message]):
    counts: list[int] = []
    clock = FakeClock()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], **start})
        for message in rest:
            counts.append(len(telemetry.spans))
            clock.advance(1)
            await send(message)
        counts.append(len(telemetry.spans))
        clock.advance(1000)  # background work

    await call(Stack(telemetry.tracing(), Says(), env=Env(clock=clock))(app))
    assert counts == [0] * len(rest) + [1]
    assert seconds(telemetry.span) == len(rest)
    assert [point.sum for point in telemetry.points] == [len(rest)]


@pytest.mark.anyio
async def test_after_a_server_error_background_work_is_still_not_in_the_span(telemetry: Telemetry):
    clock = FakeClock()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clock.advance(2)
        await PlainTextResponse("no", status_code=500)(scope, receive, send)
        clock.advance(1000)

    await call(Stack(telemetry.tracing(), env=Env(clock=clock))(app))
    assert seconds(telemetry.span) == 2
    assert [point.sum for point in telemetry.points] == [2]


@pytest.mark.anyio
async def test_a_body_sent_by_another_task_ends_the_span(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hello, scope, receive, send)

    await call(telemetry.tracing()(app))
    assert telemetry.attributes["http.response.status_code"] == 200


@pytest.mark.anyio
async def test_a_response_used_again_is_not_changed(telemetry: Telemetry):
    response = PlainTextResponse("hello")
    before = list(response.raw_headers)
    app = telemetry.tracing(response_headers=("content-type",))(response)
    first, second = await call(app), await call(app)
    assert first.messages == second.messages
    assert response.raw_headers == before


@pytest.mark.anyio
async def test_messages_pass_as_they_are(telemetry: Telemetry):
    sent = [
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.start", "status": 200, "headers": [(b"X-A", b"1")], "extra": 1},
        {"type": "http.response.body", "body": b"x", "extra": 2},
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in sent:
            await send(message)

    answer = await call(telemetry.tracing()(app))
    assert all(got is message for got, message in zip(answer.messages, sent, strict=True))


# The trace


@pytest.mark.anyio
async def test_the_span_is_current_while_the_app_runs_and_not_after(telemetry: Telemetry):
    keeper = Keeper()
    await call(telemetry.tracing()(keeper))
    assert keeper.span.get_span_context() == telemetry.span.context
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.anyio
async def test_spans_of_the_app_are_its_children(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with telemetry.tracers.get_tracer("app").start_as_current_span("work"):
            await hello(scope, receive, send)

    await call(telemetry.tracing()(app))
    (child,) = [span for span in telemetry.spans if span.name == "work"]
    assert child.parent is not None
    assert child.parent.span_id == telemetry.span.context.span_id


@pytest.mark.anyio
async def test_the_trace_of_a_caller_goes_on(telemetry: Telemetry):
    keeper = Keeper()
    await call(telemetry.tracing()(keeper), headers=[(b"traceparent", CALLER), (b"tracestate", b"congo=t61rcWkgMzE")])
    assert telemetry.span.parent is not None
    assert (telemetry.span.parent.trace_id, telemetry.span.parent.span_id) == (TRACE_ID, SPAN_ID)
    assert telemetry.span.context.trace_id == TRACE_ID
    assert keeper.header(b"traceparent") == [traceparent(telemetry.span)]
    assert keeper.header(b"tracestate") == [b"congo=t61rcWkgMzE"]


@pytest.mark.anyio
async def test_a_request_without_a_trace_begins_one(telemetry: Telemetry):
    keeper = Keeper()
    await call(telemetry.tracing()(keeper), headers=[(b"tracestate", b"congo=t61rcWkgMzE")])
    assert keeper.header(b"traceparent") == [traceparent(telemetry.span)]
    assert keeper.header(b"tracestate") == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lines",
    [
        [CALLER, CALLER],
        [CALLER, UNSAMPLED],
        [b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"],
        [CALLER.replace(b"00-", b"ff-", 1)],
        [CALLER + b"-extra"],
        [CALLER.upper()],
        [b"\xff\x00garbage"],
        [b"x" * 65536],
    ],
)
async def test_a_trace_that_is_not_valid_begins_anew(telemetry: Telemetry, lines: list[bytes]):
    keeper = Keeper()
    headers = [*((b"traceparent", line) for line in lines), (b"tracestate", b"a=1")]
    await call(telemetry.tracing()(keeper), headers=headers)
    assert telemetry.span.parent is None
    assert telemetry.span.context.trace_id != TRACE_ID
    assert keeper.header(b"traceparent") == [traceparent(telemetry.span)]
    assert keeper.header(b"tracestate") == []


@pytest.mark.anyio
@pytest.mark.parametrize("state", [b"a=1,a=2", b"x" * 65536, b"A=1", b"a=1\x00", b"\xff=1"])
async def test_a_tracestate_that_is_not_valid_is_dropped_alone(telemetry: Telemetry, state: bytes):
    keeper = Keeper()
    await call(telemetry.tracing()(keeper), headers=[(b"traceparent", CALLER), (b"tracestate", state)])
    assert telemetry.span.context.trace_id == TRACE_ID
    assert keeper.header(b"tracestate") == []


@pytest.mark.anyio
async def test_an_unsampled_trace_of_a_caller_stays_unsampled(telemetry: Telemetry):
    keeper = Keeper()
    await call(telemetry.tracing()(keeper), headers=[(b"traceparent", UNSAMPLED)])
    assert telemetry.spans == []
    (line,) = keeper.header(b"traceparent")
    assert line.startswith(UNSAMPLED[:35])
    assert line[-2:] in (b"00", b"02")
    assert line[36:52] != UNSAMPLED[36:52]


@pytest.mark.anyio
async def test_a_linked_caller_decides_neither_trace_nor_sampling(telemetry: Telemetry):
    keeper = Keeper()
    headers = [(b"traceparent", UNSAMPLED), (b"tracestate", b"a=1")]
    await call(telemetry.tracing(parent="link")(keeper), headers=headers)
    assert telemetry.span.parent is None
    assert telemetry.span.context.trace_id != TRACE_ID
    assert [(link.context.trace_id, link.context.span_id) for link in telemetry.span.links] == [(TRACE_ID, SPAN_ID)]
    assert keeper.header(b"traceparent") == [traceparent(telemetry.span)]
    assert keeper.header(b"tracestate") == []


@pytest.mark.anyio
async def test_an_ignored_caller_leaves_no_mark(telemetry: Telemetry):
    keeper = Keeper()
    headers = [(b"traceparent", CALLER), (b"tracestate", b"a=1")]
    await call(telemetry.tracing(parent="ignore")(keeper), headers=headers)
    assert (telemetry.span.parent, telemetry.span.links) == (None, ())
    assert f"{TRACE_ID:032x}" not in telemetry.everything
    assert keeper.header(b"traceparent") == [traceparent(telemetry.span)]
    assert keeper.header(b"tracestate") == []


@pytest.mark.anyio
async def test_a_forced_sampling_flag_does_not_force_a_linked_trace():
    telemetry = Telemetry(ALWAYS_OFF)
    await call(telemetry.tracing(parent="link")(hello), headers=[(b"traceparent", CALLER)])
    assert telemetry.spans == []


@pytest.mark.anyio
async def test_a_request_not_sampled_is_still_measured_and_still_a_trace():
    telemetry, keeper = Telemetry(ALWAYS_OFF), Keeper()
    await call(telemetry.tracing()(keeper))
    assert telemetry.spans == []
    assert [point.count for point in telemetry.points] == [1]
    (line,) = keeper.header(b"traceparent")
    assert line[-2:] in (b"00", b"02")


@pytest.mark.anyio
async def test_the_list_of_headers_of_the_server_is_not_changed(telemetry: Telemetry):
    headers = [(b"host", b"a"), (b"traceparent", CALLER)]
    kept = list(headers)
    await telemetry.tracing()(hello)(http_scope() | {"headers": headers}, Inbox(), discard)
    assert headers == kept


@pytest.mark.anyio
async def test_baggage_enters_the_context_only_when_allowed(telemetry: Telemetry):
    keeper = Keeper()
    lines = [(b"baggage", b"tenant=acme,session=" + CANARY.encode())]
    await call(telemetry.tracing(baggage=("tenant",))(keeper), headers=lines)
    assert keeper.baggage == {"tenant": "acme"}
    await call(telemetry.tracing()(keeper), headers=lines)
    assert keeper.baggage == {}
    assert CANARY not in telemetry.everything


@pytest.mark.anyio
async def test_a_span_left_over_from_an_earlier_request_is_no_parent(telemetry: Telemetry):
    ended = telemetry.tracers.get_tracer("x").start_span("before", kind=SpanKind.SERVER)
    ended.end()
    with trace.use_span(ended):
        await call(telemetry.tracing()(hello))
    (span,) = [span for span in telemetry.spans if span.name == "GET"]
    assert span.parent is None


@pytest.mark.anyio
@given(
    st.lists(
        st.tuples(st.sampled_from([b"traceparent", b"tracestate", b"baggage"]), st.binary(max_size=80)), max_size=4
    )
)
async def test_no_trace_header_makes_an_error(headers: list[tuple[bytes, bytes]]):
    telemetry = Telemetry()
    answer = await call(telemetry.tracing(baggage=("a",))(hello), headers=headers)
    assert answer.status == 200
    assert len(telemetry.spans) == 1


# One server span


@pytest.mark.anyio
async def test_two_of_them_make_one_span(telemetry: Telemetry):
    app = Stack(telemetry.tracing(), Says(attributes=(("apim.a", 1),)), telemetry.tracing(), Says(refuse=401))(hello)
    keeper = await call(app)
    assert keeper.status == 401
    assert len(telemetry.spans) == 1
    assert (telemetry.attributes["apim.a"], telemetry.attributes["apim.refusal.code"]) == (1, "no-luck")
    assert [point.count for point in telemetry.points] == [1]


def self_tracing(telemetry: Telemetry) -> FastAPI:
    app = FastAPI(telemetry={"tracer_provider": telemetry.tracers, "meter_provider": telemetry.meters})

    @app.get("/orders/{number}")
    async def order(number: int) -> int:
        return number

    return app


def test_around_fastapi_its_own_span_is_not_a_second(telemetry: Telemetry):
    TestClient(Stack(telemetry.tracing())(self_tracing(telemetry))).get("/orders/7")
    assert telemetry.span.name == "GET /orders/{number}"
    assert telemetry.span.instrumentation_scope is not None
    assert telemetry.span.instrumentation_scope.name == "apim_middleware"
    assert [point.count for point in telemetry.points] == [1]


def test_inside_fastapi_its_span_is_told_what_policies_say(telemetry: Telemetry):
    app = self_tracing(telemetry)
    app.add_middleware(Stack(telemetry.tracing(), Says(attributes=(("apim.cache.status", "miss"),))))
    TestClient(app).get("/orders/7")
    assert telemetry.span.instrumentation_scope is not None
    assert telemetry.span.instrumentation_scope.name == "fastapi"
    assert telemetry.attributes["apim.cache.status"] == "miss"
    assert [point.count for point in telemetry.points] == [1]


@pytest.mark.anyio
async def test_the_span_of_somebody_else_goes_further_in(telemetry: Telemetry):
    keeper = Keeper()
    with telemetry.tracers.get_tracer("x").start_as_current_span("outer", kind=SpanKind.SERVER):
        await call(telemetry.tracing()(keeper))
    assert keeper.header(b"traceparent") == [traceparent(telemetry.span)]
    assert telemetry.points == []


@pytest.mark.anyio
async def test_a_websocket_closed_at_once_is_told_to_the_span_of_somebody_else(telemetry: Telemetry):
    with telemetry.tracers.get_tracer("x").start_as_current_span("outer", kind=SpanKind.SERVER):
        await connect(Stack(telemetry.tracing(), Says(refuse=403))(hello), denial=False)
    assert telemetry.attributes["apim.refusal.code"] == "no-luck"


@pytest.mark.anyio
async def test_a_request_that_begins_in_the_context_of_another_has_a_span_of_its_own(telemetry: Telemetry):
    """Servers begin the next request on a connection where the last one, which may go on, has sent its response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        if scope["path"] == "/one":
            await call(traced, path="/two")

    traced = telemetry.tracing()(app)
    await call(traced, path="/one")
    spans = {(span.attributes or {})["url.path"]: span for span in telemetry.spans}
    assert sorted(spans) == ["/one", "/two"]
    assert spans["/two"].parent is None
    assert sum(point.count for point in telemetry.points) == 2


# WebSockets


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": [(b"x-room", b"1")]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


@pytest.mark.anyio
async def test_a_websocket_is_one_span_from_handshake_to_close(telemetry: Telemetry):
    keeper = Keeper()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        keeper.scope = dict(scope)
        await echo(scope, receive, send)

    tracing = telemetry.tracing(response_headers=("x-room",))
    answer = await connect(Stack(tracing, Says())(app), "/live", texts=["a", "b"])
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.send", "websocket.send"]
    told = telemetry.attributes
    assert telemetry.span.name == "GET"
    assert (told["http.request.method"], told["http.response.status_code"], told["url.scheme"]) == ("GET", 101, "ws")
    assert told["network.protocol.name"] == "websocket"
    assert "network.protocol.version" not in told
    assert told["apim.websocket.close_code"] == 1000
    assert told["http.response.header.x-room"] == ("1",)
    assert "error.type" not in told
    assert keeper.header(b"traceparent") == [traceparent(telemetry.span)]


def test_a_websocket_is_named_by_its_route(telemetry: Telemetry):
    with TestClient(telemetry.tracing()(orders())).websocket_connect("/live/kitchen") as socket:
        assert socket.receive()["type"] == "websocket.close"
    assert telemetry.span.name == "GET /live/{room}"


@pytest.mark.anyio
async def test_how_long_a_websocket_stays_open_is_not_measured(telemetry: Telemetry):
    await connect(telemetry.tracing()(echo))
    assert telemetry.points == []


@pytest.mark.anyio
@pytest.mark.parametrize(("denial", "status"), [(True, 401), (False, 403)])
async def test_a_refused_handshake_is_traced_and_measured(telemetry: Telemetry, denial: bool, status: int):
    answer = await connect(Stack(telemetry.tracing(), Says(refuse=401))(echo), denial=denial)
    assert answer.status == status
    assert telemetry.attributes["http.response.status_code"] == status
    assert telemetry.attributes["apim.refusal.code"] == "no-luck"
    assert [point.count for point in telemetry.points] == [1]


@pytest.mark.anyio
async def test_an_app_that_fails_on_a_websocket_is_an_error(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise LookupError(CANARY)

    with pytest.raises(LookupError):
        await connect(telemetry.tracing()(app))
    assert telemetry.attributes["error.type"] == "LookupError"
    assert telemetry.span.status.status_code is StatusCode.ERROR


@pytest.mark.anyio
async def test_a_client_that_leaves_a_websocket_is_no_error(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await connect(telemetry.tracing()(app))
    assert "error.type" not in telemetry.attributes
    assert telemetry.span.status.status_code is StatusCode.UNSET


# The duration


@pytest.mark.anyio
async def test_the_duration_is_measured_by_the_http_conventions(telemetry: Telemetry):
    clock = FakeClock()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clock.advance(0.25)
        scope["path_template"] = "/orders/{id}"
        await PlainTextResponse("no", status_code=503)(scope, receive, send)

    await call(Stack(telemetry.tracing(), env=Env(clock=clock))(app), "PUT", "/orders/7")
    (point,) = telemetry.points
    assert dict(point.attributes or {}) == {
        "http.request.method": "PUT",
        "url.scheme": "http",
        "http.response.status_code": 503,
        "http.route": "/orders/{id}",
        "error.type": "503",
    }
    assert (point.count, point.sum) == (1, 0.25)
    assert point.explicit_bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
    assert seconds(telemetry.span) == 0.25


@pytest.mark.anyio
async def test_refusals_are_counted_by_their_codes(telemetry: Telemetry):
    app = Stack(telemetry.tracing(), RateLimit(calls=2, per=60))(hello)
    for _ in range(5):
        await call(app)
    counted = {(point.attributes or {}).get("apim.refusal.code"): point.count for point in telemetry.points}
    assert counted == {None: 2, "rate-limit-exceeded": 3}


@pytest.mark.anyio
async def test_hits_and_misses_are_counted_apart(telemetry: Telemetry):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("tea", headers={"Cache-Control": "max-age=60"})(scope, receive, send)

    cached = Stack(telemetry.tracing(), Cache())(app)
    for _ in range(4):
        await call(cached)
    counted = {(point.attributes or {}).get("apim.cache.status"): point.count for point in telemetry.points}
    assert counted == {"uri-miss": 1, "hit": 3}


@pytest.mark.anyio
async def test_a_clock_that_jumps_back_changes_no_duration(telemetry: Telemetry):
    clock = FakeClock()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clock.advance(1)
        clock.jump(-3600)
        await hello(scope, receive, send)

    await call(Stack(telemetry.tracing(), env=Env(clock=clock))(app))
    assert seconds(telemetry.span) == 1


@pytest.mark.anyio
async def test_odd_schemes_make_no_series(telemetry: Telemetry):
    app = telemetry.tracing()(hello)
    for number in range(3):
        await call(app, scheme=f"odd{number}")
    assert [point.count for point in telemetry.points] == [3]


@pytest.mark.anyio
async def test_metrics_alone_are_measured_and_the_trace_passes_by():
    telemetry, keeper = Telemetry(), Keeper()
    tracing = Tracing(tracer_provider=trace.NoOpTracerProvider(), meter_provider=telemetry.meters)
    await call(tracing(keeper), headers=[(b"traceparent", CALLER)])
    assert [point.count for point in telemetry.points] == [1]
    assert keeper.header(b"traceparent") == [CALLER]


# Secrets


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "written"),
    [
        (b"q=1&subscription-key=canary", "q=1&subscription-key=REDACTED"),
        (b"Subscription-Key=canary", "Subscription-Key=REDACTED"),
        (b"subscription%2Dkey=canary&q=1", "subscription%2Dkey=REDACTED&q=1"),
        (b"%61ccess_token=canary", "%61ccess_token=REDACTED"),
        (b"+token=canary", "+token=REDACTED"),
        (b"sig=canary&sig=canary", "sig=REDACTED&sig=REDACTED"),
        (b"X-Goog-Signature=canary;x=1", "X-Goog-Signature=REDACTED;x=1"),
        (b"a=1;token=canary", "a=1;token=REDACTED"),
        (b"token=canary=canary", "token=REDACTED"),
        (b"next=%2Fcb%3Faccess_token%3Dcanary", "next=REDACTED"),
        (b"next=/cb?access_token=canary", "next=/cb?access_token=REDACTED"),
        (b"door=canary", "door=REDACTED"),
        (b"t%C3%BCr=canary", "t%C3%BCr=REDACTED"),
        (b"q=%zz%ff&monkey=1&tokens=2&key", "q=%zz%ff&monkey=1&tokens=2&key"),
    ],
)
async def test_secrets_in_the_query_are_masked(telemetry: Telemetry, query: bytes, written: str):
    await call(telemetry.tracing(redact=("Door", "tür"))(hello), query=query)
    assert telemetry.attributes["url.query"] == written
    assert "canary" not in telemetry.everything


@pytest.mark.anyio
async def test_a_parameter_that_a_policy_reads_a_secret_from_is_masked(telemetry: Telemetry):
    auth = APIKeyAuth(keys=MemoryKeys(), query="h8")
    await call(Stack(telemetry.tracing(), auth)(hello), query=b"h8=canary")
    assert telemetry.attributes["url.query"] == "h8=REDACTED"
    assert "canary" not in telemetry.everything


@pytest.mark.anyio
async def test_no_secret_of_a_request_leaves_the_process(telemetry: Telemetry):
    secret = CANARY.encode()
    headers = [
        (b"authorization", b"Bearer " + secret),
        (b"cookie", b"session=" + secret),
        (b"ocp-apim-subscription-key", secret),
        (b"x-api-key", secret),
        (b"baggage", b"user=" + secret),
        (b"referer", b"https://example.com/?access_token=" + secret + b"#id_token=" + secret),
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = RedirectResponse(f"/cb?code={CANARY}&state=1", headers={"set-cookie": f"s={CANARY}"})
        await response(scope, receive, send)
        raise RuntimeError(CANARY)

    tracing = telemetry.tracing(request_headers=("referer",), response_headers=("location",))
    with pytest.raises(RuntimeError):
        await call(tracing(app), path="/a;token=" + CANARY, headers=headers, query=b"api_key=" + secret)
    assert CANARY not in telemetry.everything
    assert telemetry.attributes["http.response.header.location"] == ("/cb?code=REDACTED&state=1",)


@pytest.mark.anyio
async def test_what_a_caller_chose_is_kept_short(telemetry: Telemetry):
    big = b"x" * 65536
    headers = [(b"user-agent", big), (b"host", big), (b"x-request-id", big)]
    app = telemetry.tracing(request_headers=("x-request-id",))(hello)
    await call(app, "M" * 10000, "/" + "y" * 65536, headers=headers, query=big)
    assert len(telemetry.span.to_json()) < 10000


@pytest.mark.anyio
@given(st.binary(max_size=60), st.binary(max_size=60), st.text(max_size=30))
async def test_no_request_makes_an_error(raw: bytes, header: bytes, path: str):
    telemetry = Telemetry()
    app = telemetry.tracing(request_headers=("x-any",))(hello)
    headers = [(name, header) for name in (b"host", b"user-agent", b"x-any", b"traceparent")]
    await call(app, path="/" + path, headers=headers, query=raw, raw_path=b"/" + raw)
    await call(app, path="/" + path.encode("utf-8", "replace").decode(), raw_path=None, query=header)
    assert len(telemetry.spans) == 2
    for span in telemetry.spans:
        span.to_json().encode()


# Without anybody who listens, or with somebody who fails


@pytest.mark.anyio
async def test_without_an_sdk_nothing_is_touched():
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.extend(given)

    scope, inbox = http_scope(headers=[(b"traceparent", CALLER)]), Inbox()
    before = {**scope, "headers": list(scope["headers"])}
    quiet = Tracing(tracer_provider=trace.NoOpTracerProvider(), meter_provider=metrics.NoOpMeterProvider())
    await quiet(app)(scope, inbox, discard)
    assert seen[0] is scope
    assert seen[1] is inbox
    assert seen[2] is discard
    assert scope == before


def test_an_sdk_set_up_late_is_noticed_within_a_second():
    """In a process of its own, for the global provider can be set only once."""
    script = """
        import anyio
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from starlette.responses import PlainTextResponse
        from apim_middleware.env import Env
        from apim_middleware.policies.tracing import Tracing
        from apim_middleware.policy import Stack
        from apim_middleware.testing import FakeClock, call

        seen, clock = [], FakeClock()

        async def app(scope, receive, send):
            seen.append(set(scope))
            await PlainTextResponse("x")(scope, receive, send)

        async def main():
            traced = Stack(Tracing(), env=Env(clock=clock))(app)
            await call(traced)
            exporter = InMemorySpanExporter()
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
            await call(traced)
            assert seen[0] == seen[1], seen
            assert not exporter.get_finished_spans()
            clock.advance(1)
            await call(traced)
            assert [span.name for span in exporter.get_finished_spans()] == ["GET"]

        anyio.run(main)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_opentelemetry_is_not_imported_before_a_stack_is_built():
    script = """
        import sys
        from apim_middleware.policies.tracing import Tracing
        tracing = Tracing(exclude=("/health",))
        assert "opentelemetry" not in sys.modules
        tracing(print)
        assert "opentelemetry" in sys.modules and "opentelemetry.sdk" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.anyio
async def test_a_sampler_that_fails_fails_no_request(caplog: pytest.LogCaptureFixture):
    class Broken(Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("broken")

        def get_description(self) -> str:
            return "broken"

    answer = await call(Stack(Telemetry(Broken()).tracing(), Says())(hello))
    assert answer.body == b"hello"
    assert "could not be traced" in caplog.text


@pytest.mark.anyio
async def test_a_processor_that_fails_fails_no_request(caplog: pytest.LogCaptureFixture):
    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise ValueError("broken")

    telemetry = Telemetry()
    telemetry.tracers.add_span_processor(Broken())
    answer = await call(telemetry.tracing()(hello))
    assert answer.body == b"hello"
    assert "could not be recorded" in caplog.text


@pytest.mark.anyio
async def test_the_exchange_is_there_for_the_app(telemetry: Telemetry):
    keeper = Keeper()
    await call(telemetry.tracing()(keeper))
    assert isinstance(keeper.scope[KEY], Exchange)


# Configuration


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"exclude": ("health",)}, "exclude"),
        ({"exclude": ("/a*b",)}, "exclude"),
        ({"exclude": ("",)}, "exclude"),
        ({"exclude": "/health"}, "exclude"),
        ({"redact": ("a=b",)}, "redact"),
        ({"redact": ("",)}, "redact"),
        ({"baggage": ("a b",)}, "baggage"),
        ({"request_headers": ("x y",)}, "request_headers"),
        ({"parent": "trust"}, "parent"),
        ({"tracer_provider": object()}, "tracer_provider"),
        ({"meter_provider": "otlp"}, "meter_provider"),
        ({"sample": 0.1}, "sample"),
    ],
)
def test_a_mistake_is_told_while_building(fields: dict[str, Any], field: str):
    with pytest.raises(ConfigError) as error:
        Tracing(**fields)
    assert error.value.policy == "Tracing"
    assert error.value.field == field


@pytest.mark.parametrize("side", ["request_headers", "response_headers"])
@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "proxy-authorization", "Cookie", "Set-Cookie", "X-Api-Key", "api-key", "apikey",
        "X-Auth-Token", "Ocp-Apim-Subscription-Key", "x-functions-key", "X-Amz-Security-Token", "X-CSRF-Token", "dpop",
        "x-session-id", "x-forwarded-client-cert", "x-hub-signature", "x-client-secret",
    ],
)  # fmt: skip
def test_headers_that_carry_credentials_are_not_recorded(side: str, name: str):
    with pytest.raises(ConfigError, match="carries credentials"):
        Tracing(**{side: ("x-request-id", name)})


@pytest.mark.parametrize(
    "name", ["x-request-id", "etag", "Idempotency-Key", "www-authenticate", "x-cache-key", "author"]
)
def test_other_headers_may_be_recorded(name: str):
    assert Tracing(request_headers=(name,), response_headers=(name,))


# The doubles


class Inbox:
    """A request without a body."""

    async def __call__(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}


async def discard(message: Message) -> None:
    pass


def traceparent(span: ReadableSpan) -> bytes:
    context = span.context
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


@pytest.mark.anyio
async def test_a_request_that_failed_is_let_go_without_the_collector(telemetry: Telemetry):
    """As with rings, whoever opens an exchange parts it from what was raised."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    assert await is_let_go(Stack(telemetry.tracing(), Says())(fail))
