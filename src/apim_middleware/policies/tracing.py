"""Tracing: one OpenTelemetry server span and one measured duration for each request.

The only file that imports OpenTelemetry, and only once a stack is built.
"""

import logging
import os
import re
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote, unquote_to_bytes

from apim_middleware._config import Configured
from apim_middleware._http import trace_context
from apim_middleware._http.headers import get_all, is_token
from apim_middleware.env import Env
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policy import Composable
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Meter
    from opentelemetry.trace import Link, Span

log = logging.getLogger("apim_middleware")

_SCOPES = frozenset({"http", "websocket"})
_HEADS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})
_GONE = frozenset({"http.disconnect", "websocket.disconnect"})

_METHODS = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,TRACE"
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_LONGEST = 1024  # characters kept of a text that a caller chose
_MOST_ROUTES = 1000
_FRAMES = 50

_NATIVE = "fastapi.telemetry"
"""Where FastAPI's own telemetry looks whether a request is observed already."""

_SECRET_PARAMETERS = (
    "access_token", "api-key", "api_key", "apikey", "assertion", "auth", "authorization", "awsaccesskeyid",
    "client_assertion", "client_secret", "code", "code_verifier", "credential", "credentials", "id_token", "jwt", "key",
    "ocp-apim-subscription-key", "passwd", "password", "pwd", "refresh_token", "secret", "session", "session_id",
    "sessionid", "sid", "sig", "signature", "subscription-key", "subscription_key", "ticket", "token",
    "x-amz-credential", "x-amz-security-token", "x-amz-signature", "x-api-key", "x-goog-credential", "x-goog-signature",
)  # fmt: skip

_SECRET_HEADER = re.compile(
    r"(^|[-_])(auth|authorization|cookie2?|credentials?|dpop|jwt|passwd|password|secret|session|sessionid|signature"
    r"|token|assertion)($|[-_])|(api|access|subscription|functions?)[-_]?key|client[-_]cert"
)
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[^\s:@/?#\\\[\]]{1,255})(?::(\d{1,5}))?")
_PAIR = re.compile(rb"(?<![^?&;#\s])([^?&;#=\s]*)=([^?&;#\s]*)")


class TracerProvider(Protocol):
    """An OpenTelemetry tracer provider, as far as it is needed here."""

    def get_tracer(self, instrumenting_module_name: str, /) -> Any:  # noqa: ANN401 - a Tracer, which is not imported yet
        """The tracer of one instrumentation."""
        ...


class MeterProvider(Protocol):
    """An OpenTelemetry meter provider, as far as it is needed here."""

    def get_meter(self, name: str, /) -> Any:  # noqa: ANN401 - a Meter, which is not imported yet
        """The meter of one instrumentation."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tracing(Composable, Configured):
    """One OpenTelemetry server span for each request and WebSocket connection, and ``http.server.request.duration``.

    Names and attributes follow the stable HTTP semantic conventions, the trace headers W3C Trace Context.
    The span is current while the app runs and stands in the ``traceparent`` that goes further in. It ends at the last
    byte of the body. What other policies left in ``exchange.attributes`` and the code of a refusal are its attributes.
    Where a server span is open already, these are added to that one. Nothing is ever refused. It does the job of the
    request telemetry of Azure API Management's diagnostics, with W3C correlation.

    It is a layer, for it sets a context variable; stand it outermost. Without an SDK requests only pass through.
    """

    tracer_provider: TracerProvider | None = None
    """Where spans go; None is the global provider, which may also be set later."""

    meter_provider: MeterProvider | None = None
    """Where the duration is measured; None is the global provider, which may also be set later."""

    parent: Literal["continue", "link", "ignore"] = "continue"
    """Whether a caller's span is the parent of ours, only linked from it, or not looked at. Linked or ignored, a caller
    decides neither the trace nor whether it is sampled: for the edge of a network."""

    baggage: tuple[str, ...] = ()
    """Keys of W3C Baggage let in from callers; they go out again with every instrumented call of the app."""

    exclude: tuple[str, ...] = ()
    """Paths neither traced nor measured: exact, or everything below when they end in ``*`` (``/internal/*``)."""

    redact: tuple[str, ...] = ()
    """Names of query parameters whose values are masked, besides those known to be secret, in any case of letters."""

    request_headers: tuple[str, ...] = ()
    """Request headers recorded as ``http.request.header.<name>``; those that carry credentials are not accepted."""

    response_headers: tuple[str, ...] = ()
    """Response headers recorded as ``http.response.header.<name>``; those that carry credentials are not accepted."""

    exception_messages: bool = False
    """Whether the message of an exception is recorded beside its type and stack; it may hold what a caller sent."""

    def __post_init__(self) -> None:
        """Paths are paths, names are names, and no header that carries credentials is captured."""
        for path in self.exclude:
            if not path.startswith("/") or "*" in path[:-1]:
                raise self.mistake("exclude", "holds no path", 'Write paths as "/health" or "/internal/*"')
        if not all(re.fullmatch(r"[^\s=&;#]+", name) for name in self.redact):
            raise self.mistake("redact", "holds something that is no name of a parameter", "Give names, decoded")
        for field in ("baggage", "request_headers", "response_headers"):
            if not all(is_token(name.encode("latin-1", "replace")) for name in getattr(self, field)):
                raise self.mistake(field, "holds something that is no name", "Give names without blanks")
        for field in ("request_headers", "response_headers"):
            for name in getattr(self, field):
                if _SECRET_HEADER.search(name.lower()):
                    raise self.mistake(field, f"would record {name}, which carries credentials", f"Leave out {name}")

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """The app with a span around it."""
        return _Traced(self, app, env)


class _Traced:
    """The middleware: opens a span for each request while anybody listens, and passes on while nobody does."""

    def __init__(self, rule: Tracing, app: ASGIApp, env: Env) -> None:
        from opentelemetry import context, metrics, trace

        self.app = app
        self.rule = rule
        self.clock = env.clock
        self.notes = _Notes(rule)
        self._listening = _listens(rule.tracer_provider) or _listens(rule.meter_provider)
        self._ask: list[Callable[[], object]] = []
        self._ask_again = float("-inf")
        if rule.tracer_provider is None:
            self._ask.append(trace.get_tracer_provider)
        if rule.meter_provider is None:
            self._ask.append(metrics.get_meter_provider)

        # What the global providers give before they are set becomes real once they are.
        self._tracer = (rule.tracer_provider or trace.get_tracer_provider()).get_tracer("apim_middleware")
        meter = (rule.meter_provider or metrics.get_meter_provider()).get_meter("apim_middleware")
        self.duration = meter.create_histogram(
            "http.server.request.duration",
            unit="s",
            description="Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        env.listen(env.kept(f"tracing.{id(rule.meter_provider)}", lambda: _Events(rule.meter_provider, meter)))
        self._propagation = _Propagation(rule)
        self._attach, self._detach, self._context = context.attach, context.detach, context.get_current
        self._current_span, self._with_span = trace.get_current_span, trace.set_span_in_context
        self._server, self.error = trace.SpanKind.SERVER, trace.StatusCode.ERROR

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            not (self._listening or self._noticed())
            or scope["type"] not in _SCOPES
            or self.notes.leave_out(scope["path"])
        ):
            await self.app(scope, receive, send)
            return
        added = [key for key in (KEY, _NATIVE) if key not in scope]
        watch = self._watch(scope, receive, send)
        if watch is None:
            await self.app(scope, receive, send)
            return
        token = self._attach(watch.context)
        try:
            await self.app(scope, watch.receive, watch.send)
        except BaseException as error:
            watch.error = error
            raise
        finally:
            self._detach(token)
            watch.end()
            for key in added:
                scope.pop(key, None)

    def _noticed(self) -> bool:
        """Whether a provider has been set; looked up once a second, for it costs more than all the rest together."""
        if (now := self.clock.monotonic()) >= self._ask_again:
            self._ask_again = now + 1.0
            self._listening = any(_listens(ask()) for ask in self._ask)
        return self._listening

    def _watch(self, scope: Scope, receive: Receive, send: Send) -> "_Watch | _Guest | None":
        """What follows this request from now on; None when telemetry fails, which is no reason to fail the request."""
        try:
            current = self._current_span()
            exchange = scope.get(KEY) or Exchange(scope)
            if current.is_recording() and getattr(current, "kind", None) is self._server:
                watch: _Watch | _Guest = _Guest(current, self._context(), exchange, receive, send)
            else:
                watch = self._opened(scope, receive, send, exchange)
            headers = self._propagation.outward(scope["headers"], watch.context)
        except Exception:
            log.exception("a request could not be traced")
            return None
        scope["headers"] = headers
        scope[KEY] = exchange
        scope.setdefault(_NATIVE, None)
        return watch

    def _opened(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> "_Watch":
        method = self.notes.method(scope)
        parent, links = self._propagation.inward(scope["headers"])
        watch = _Watch(self, scope, receive, send, exchange, method)
        watch.span = self._tracer.start_span(
            _name(method),
            context=parent,
            kind=self._server,
            attributes=self.notes.of_request(scope, method),
            links=links,
            start_time=watch.started,
        )
        watch.context = self._with_span(watch.span, parent)
        return watch


class _Events:
    """Makes a counter of each kind of event that policies count."""

    def __init__(self, provider: MeterProvider | None, meter: "Meter") -> None:
        self._provider = provider  # kept, so that no other one can have its id
        self._meter = meter
        self._counters: dict[str, Counter] = {}

    def count(self, event: str, attributes: Mapping[str, str]) -> None:
        if event not in self._counters:
            self._counters[event] = self._meter.create_counter(event, unit="{request}")
        self._counters[event].add(1, attributes)


class _Notes:
    """What is written down of a request, and what never is."""

    def __init__(self, rule: Tracing) -> None:
        methods = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS") or _METHODS
        self._methods = frozenset(methods.split(","))
        self._masked = _Mask((*_SECRET_PARAMETERS, *rule.redact))
        self._request_headers = _captured("request", rule.request_headers)
        self._response_headers = _captured("response", rule.response_headers)
        self._excluded = frozenset(path for path in rule.exclude if path[-1] != "*")
        self._excluded_below = tuple(path[:-1] for path in rule.exclude if path[-1] == "*")
        self._routes: set[str] = set()

    def leave_out(self, path: str) -> bool:
        """Whether requests for this path are not written down at all."""
        return path in self._excluded or path.startswith(self._excluded_below)

    def method(self, scope: Scope) -> str:
        """The method, unless nobody knows it; a WebSocket handshake is a GET (RFC 6455 §4.1)."""
        method: str = scope.get("method", "GET")
        return method if method in self._methods else "_OTHER"

    def of_request(self, scope: Scope, method: str) -> dict[str, Any]:
        """What is known from the start, which is what a sampler may decide by."""
        index = dict(reversed(scope["headers"]))
        noted = _origin(scope, index.get(b"host"))
        noted["http.request.method"] = method
        noted["url.path"] = self._masked(_path(scope))
        if method == "_OTHER":
            noted["http.request.method_original"] = _clean(scope.get("method", "GET"))
        if query := scope.get("query_string"):
            noted["url.query"] = self._masked(query)
        if agent := index.get(b"user-agent"):
            noted["user_agent.original"] = self._masked(agent)
        if scope["type"] == "websocket":
            noted["network.protocol.name"] = "websocket"
        elif version := scope.get("http_version"):
            noted["network.protocol.version"] = version
        if self._request_headers:
            noted |= self._captured(scope["headers"], self._request_headers)
        return noted

    def of_response(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
        """The headers of the response that are to be recorded."""
        if not self._response_headers:
            return {}
        return self._captured([(name.lower(), value) for name, value in headers], self._response_headers)

    def _captured(self, headers: RawHeaders, wanted: tuple[tuple[bytes, str], ...]) -> dict[str, list[str]]:
        found = ((attribute, get_all(headers, name)) for name, attribute in wanted)
        return {attribute: [self._masked(value) for value in values] for attribute, values in found if values}

    def route(self, route: object) -> str | None:
        """The route, unless it is none or there are too many of them to be templates."""
        if not isinstance(route, str) or not route or len(route) > _LONGEST:
            return None
        if route not in self._routes:
            if len(self._routes) >= _MOST_ROUTES:
                return None
            self._routes.add(route)
        return route


class _Watch:
    """One request under way, and what is learnt of it until the last byte."""

    context: "Context"
    span: "Span"

    __slots__ = (
        "_begun", "_code", "_ended", "_exchange", "_house", "_lasted", "_left", "_method", "_receive", "_scope",
        "_send", "_status", "_trailers", "context", "error", "span", "started",
    )  # fmt: skip

    def __init__(
        self, house: _Traced, scope: Scope, receive: Receive, send: Send, exchange: Exchange, method: str
    ) -> None:
        self._house, self._scope, self._receive, self._send = house, scope, receive, send
        self._exchange, self._method = exchange, method
        self._begun = house.clock.monotonic()
        self.started = int(house.clock.now() * 1e9)
        self._lasted: float | None = None  # seconds to the last byte, once it is sent
        self._status: int | None = None
        self._code: int | None = None
        self._trailers = self._left = self._ended = False
        self.error: BaseException | None = None

    async def receive(self) -> Message:
        """The ``receive`` the app gets."""
        message = await self._receive()
        if message["type"] in _GONE and self._lasted is None:
            self._left = True
            self._code = message.get("code")
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """The ``send`` the app gets."""
        kind = message["type"]
        if kind in _BODIES:
            if not (self._trailers or message.get("more_body", False)):
                return self._last(message)
        elif kind in _HEADS:
            self._status = message.get("status", 101)  # an accepted WebSocket has no other
            self._trailers = message.get("trailers", False)
            if noted := self._house.notes.of_response(message.get("headers") or ()):
                self.span.set_attributes(noted)
        elif kind == "websocket.close":
            self._status = self._status or 403  # as servers answer a handshake that is closed instead of accepted
            self._code = message.get("code", 1000)
            return self._last(message)
        elif kind == "http.response.pathsend" or (
            kind == "http.response.trailers" and not message.get("more_trailers", False)
        ):
            return self._last(message)
        return self._send(message)

    async def _last(self, message: Message) -> None:
        await self._send(message)
        if self._lasted is None:
            self._lasted = self._house.clock.monotonic() - self._begun
            if (self._status or 500) < 500:
                self.end()  # else what went wrong may still come: frameworks answer 500 first and raise afterwards

    def end(self) -> None:
        """End the span and measure, once."""
        if self._ended:
            return
        self._ended = True
        try:
            self._conclude()
        except Exception:
            log.exception("a request could not be traced")

    def _conclude(self) -> None:
        house, span = self._house, self.span
        lasted = house.clock.monotonic() - self._begun if self._lasted is None else self._lasted
        outcome = self._outcome()
        if self._status != 101:  # how long a WebSocket stays open says nothing of how fast requests are answered
            scheme = self._scope.get("scheme", "http")
            measured = {"http.request.method": self._method, "url.scheme": scheme if scheme in _PORTS else "_OTHER"}
            house.duration.record(max(lasted, 0.0), measured | outcome)
        if not span.is_recording():
            return
        if route := outcome.get("http.route"):
            span.update_name(f"{_name(self._method)} {route}")
        span.set_attributes({**_told(self._exchange), **outcome, **self._late()})
        if isinstance(self.error, Exception):
            span.add_event("exception", _exception(self.error, with_message=house.rule.exception_messages))
        if "error.type" in outcome:
            span.set_status(house.error)
        span.end(self.started + int(lasted * 1e9))

    def _outcome(self) -> dict[str, Any]:
        """What span and duration both tell, with few values each."""
        outcome: dict[str, Any] = {}
        if self._status is not None:
            outcome["http.response.status_code"] = int(self._status)
        if route := self._house.notes.route(self._exchange.attributes.get("http.route") or _route(self._scope)):
            outcome["http.route"] = route
        if failure := self._failure():
            outcome["error.type"] = failure
        return outcome

    def _late(self) -> dict[str, Any]:
        """What only the span tells, and what others decided about the caller meanwhile."""
        late: dict[str, Any] = {} if self._code is None else {"apim.websocket.close_code": self._code}
        if self._exchange.forwarded:
            late |= _origin(self._scope, dict(reversed(self._scope["headers"])).get(b"host"))
        return late

    def _failure(self) -> str | None:
        """What went wrong on our side or on the way, if anything did."""
        if self.error is not None and not self._left:
            return _type_name(self.error)
        status, refusal = self._status or 0, self._exchange.refusal
        if status >= 500:
            return refusal.code if refusal is not None else str(int(status))
        if self._lasted is None and self._scope["type"] == "http":
            return "client_disconnected" if self._left else "incomplete_response"
        return None


class _Guest:
    """A request whose server span somebody further out has opened and will end; we only add to it."""

    __slots__ = ("_exchange", "_send", "_span", "context", "error", "receive")

    def __init__(self, span: "Span", context: "Context", exchange: Exchange, receive: Receive, send: Send) -> None:
        self._span, self.context, self._exchange = span, context, exchange
        self.receive, self._send = receive, send
        self.error: BaseException | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """The ``send`` the app gets; with the last message the span may end, so all is told with the first."""
        if message["type"] in _HEADS or message["type"] == "websocket.close":
            self._span.set_attributes(_told(self._exchange))
        return self._send(message)

    def end(self) -> None:
        """Whoever opened the span ends it."""


class _Propagation:
    """Takes the trace of a caller out of the headers, and puts ours in."""

    def __init__(self, rule: Tracing) -> None:
        from opentelemetry import context, propagate, trace

        self._rule = rule
        self._getter: Any = _Getter(rule.baggage)
        self._textmap, self._now = propagate.get_global_textmap, context.get_current
        self._span_of, self._with_span = trace.get_current_span, trace.set_span_in_context
        self._nobody, self._link = trace.INVALID_SPAN, trace.Link
        self._fields_of: object = None
        self._fields: frozenset[bytes] = frozenset()

    def inward(self, headers: RawHeaders) -> "tuple[Context, list[Link]]":
        """The context a caller's headers make, and the links instead when it is not to be continued."""
        context = self._now()
        if self._span_of(context) is not self._nobody:
            context = self._with_span(self._nobody, context)  # left by whoever called us in process: not our caller
        carried = self._carried()
        lines = [pair for pair in headers if pair[0] in carried]
        if not lines or self._rule.parent == "ignore":
            return context, []
        try:
            found = self._textmap().extract(lines, context, self._getter)
        except Exception:
            log.warning("the trace headers of a caller could not be read", exc_info=True)
            return context, []
        caller = self._span_of(found).get_span_context()
        if self._rule.parent == "continue":
            return found, []
        return self._with_span(self._nobody, found), [self._link(caller)] if caller.is_valid else []

    def outward(self, headers: RawHeaders, context: "Context") -> RawHeaders:
        """A copy of the headers that names our span as the parent of what happens further in."""
        carrier: dict[str, str] = {}
        self._textmap().inject(carrier, context)
        carrier.pop("baggage", None)  # the caller's is for the app to read; what is let in stands in the context
        carried = self._carried()
        further = [pair for pair in headers if pair[0] not in carried or pair[0] == b"baggage"]
        further += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in carrier.items()]
        return further

    def _carried(self) -> frozenset[bytes]:
        """The headers of the propagators that are configured."""
        if (textmap := self._textmap()) is not self._fields_of:
            self._fields = frozenset(name.lower().encode("latin-1") for name in textmap.fields)
            self._fields_of = textmap
        return self._fields


class _Getter:
    """Reads headers for a propagator, and withholds what is not valid or not allowed."""

    def __init__(self, baggage: tuple[str, ...]) -> None:
        self._baggage = frozenset(name.encode("latin-1") for name in baggage)

    def get(self, carrier: RawHeaders, key: str) -> list[str] | None:
        name = key.lower().encode("latin-1")
        lines = get_all(carrier, name)
        if name == b"traceparent":
            value = trace_context.traceparent(lines)
        elif name == b"tracestate":
            value = trace_context.tracestate(lines)
        elif name == b"baggage":
            value = trace_context.baggage(lines, self._baggage)
        else:
            return [line[:_LONGEST].decode("latin-1") for line in lines] or None
        return [value] if value else None

    def keys(self, carrier: RawHeaders) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


class _Mask:
    """Writes down what a caller sent without the values of secret parameters.

    Their names are compared as an app reads them, escapes and case undone, also in a URL that is itself a value.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.encode("utf-8", "replace").lower() for name in names)
        within = b"|".join(map(re.escape, self._names))
        self._within = re.compile(rb"(?:^|[?&;#])(?:%s)=" % within, re.IGNORECASE)

    def __call__(self, raw: bytes) -> str:
        """Any text: a query, a path, a header that may hold a URL."""
        raw = raw[:_LONGEST]
        return (_PAIR.sub(self._pair, raw) if b"=" in raw else raw).decode("latin-1")

    def _pair(self, pair: re.Match[bytes]) -> bytes:
        name, value = pair.groups()
        plain = unquote_to_bytes(name.replace(b"+", b" ")).strip().lower()
        if plain in self._names or (b"%" in value and self._within.search(unquote_to_bytes(value))):
            return name + b"=REDACTED"
        return pair[0]


def _listens(provider: object) -> bool:
    """Whether anything becomes of what a provider is told: those of the API itself stand in for nobody."""
    apis = ("opentelemetry.trace", "opentelemetry.metrics")
    return provider is not None and not type(provider).__module__.startswith(apis)


def _name(method: str) -> str:
    return "HTTP" if method == "_OTHER" else method


def _captured(side: str, names: Iterable[str]) -> tuple[tuple[bytes, str], ...]:
    return tuple((name.lower().encode("latin-1"), f"http.{side}.header.{name.lower()}") for name in names)


def _clean(text: str) -> str:
    """A text as exporters can encode it, and not too long."""
    return text[:_LONGEST].encode("utf-8", "replace").decode()


def _path(scope: Scope) -> bytes:
    """The path as it was sent, percent-encoded."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"], errors="replace").encode("ascii")
    return raw.partition(b"?")[0]


def _origin(scope: Scope, host: bytes | None) -> dict[str, Any]:
    """Where the request came from and whom it was meant for."""
    scheme = scope.get("scheme", "http")
    origin: dict[str, Any] = {"url.scheme": scheme}
    if client := scope.get("client"):
        origin["client.address"] = client[0]
    if host is not None and (match := _HOST.fullmatch(host)):
        origin["server.address"] = match[1].strip(b"[]").decode("latin-1")
        port = int(match[2]) if match[2] else _PORTS.get(scheme)
    elif server := scope.get("server"):
        origin["server.address"], port = server
    else:
        return origin
    if port is not None:
        origin["server.port"] = port
    return origin


def _told(exchange: Exchange) -> dict[str, Any]:
    """What other policies tell of this request."""
    told = {
        name: _clean(value) if isinstance(value, str) else value
        for name, value in exchange.attributes.items()
        if isinstance(value, str | int | float)
    }
    if exchange.refusal is not None:
        told["apim.refusal.code"] = exchange.refusal.code
    return told


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _exception(error: Exception, *, with_message: bool) -> dict[str, str]:
    """An exception as an event: where it happened, without the values that were at work there."""
    event = {
        "exception.type": _type_name(error),
        "exception.stacktrace": "".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES)),
    }
    if with_message:
        event["exception.message"] = _clean(str(error))
    return event


def _route(scope: Scope) -> str | None:
    """The template the framework routed by, mounts included; never a path that somebody sent.

    Litestar leaves the template itself. Starlette and FastAPI leave the route, and of the mounts on the way to it only
    the concrete path they took up; FastAPI keeps the prefixes of included routers aside.
    """
    if template := scope.get("path_template"):
        return str(template)
    route = scope.get("route")
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    if included is not None and getattr(included, "original_route", None) is route:
        route = included
    if hasattr(route, "routes"):  # a mount or a host: the way went on from there, to nothing with a route
        route = None
    mounted = _mounted(scope, getattr(route, "param_convertors", None) or {})
    template = getattr(route, "path_format", None)
    if mounted is None or (template is None and "app_root_path" not in scope):
        return None
    return f"{mounted}{template or '/{path}'}"


def _mounted(scope: Scope, own: Mapping[str, Any]) -> str | None:
    """The templates of the mounts: their concrete path with each parameter that is not the route's ``own`` put back.

    None when a parameter cannot be found there: then part of that path was chosen by a caller. A parameter that the
    route names once more is lost on us; ``_MOST_ROUTES`` is for such cases.
    """
    path: str = scope.get("root_path") or ""
    root: str = scope.get("app_root_path", path)
    template = path[len(root) :] + "/"
    for name, value in (scope.get("path_params") or {}).items() if path != root else ():
        if name not in own:
            concrete = f"/{value}/"
            if concrete not in template:
                return None
            template = template.replace(concrete, f"/{{{name}}}/")
    return (root + template).rstrip("/")
