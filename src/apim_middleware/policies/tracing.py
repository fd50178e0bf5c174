"""Tracing: one OpenTelemetry server span and one measured duration for each request.

The only file that imports OpenTelemetry, and only once a stack is built.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from apim_middleware._config import Configured
from apim_middleware._ring import seats_of
from apim_middleware._telemetry.choosing import check_choice, check_names
from apim_middleware._telemetry.notes import PORTS, Notes, close_code, exception, origin, span_name, told, type_name
from apim_middleware._telemetry.propagation import Propagation
from apim_middleware._telemetry.routes import route_of
from apim_middleware.env import Env
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policy import Composable
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Meter
    from opentelemetry.trace import Span

log = logging.getLogger("apim_middleware")

_SCOPES = frozenset({"http", "websocket"})
_HEADS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})
_GONE = frozenset({"http.disconnect", "websocket.disconnect"})

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_NATIVE = "fastapi.telemetry"
"""Where FastAPI's own telemetry looks whether a request is observed already."""


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
        check_choice(self)
        check_names(self, "baggage", self.baggage)
        if not all(re.fullmatch(r"[^\s=&;#]+", name) for name in self.redact):
            raise self.mistake("redact", "holds something that is no name of a parameter", "Give names, decoded")

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """The app with a span around it."""
        return _Traced(self, app, env)


class _Traced:
    """The middleware: opens a span for each request while anybody listens, and passes on while nobody does."""

    def __init__(self, rule: Tracing, app: ASGIApp, env: Env) -> None:
        from opentelemetry import context, metrics, trace

        self.app, self.seats = app, seats_of(app)
        self.rule = rule
        self.clock = env.clock
        self.notes = Notes(
            redact=rule.redact,
            request_headers=rule.request_headers,
            response_headers=rule.response_headers,
            exclude=rule.exclude,
        )
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
        self._propagation = Propagation(rule.parent, rule.baggage)
        self._attach, self._detach, self._context = context.attach, context.detach, context.get_current
        self._current_span, self._with_span = trace.get_current_span, trace.set_span_in_context
        self._server, self.error = trace.SpanKind.SERVER, trace.StatusCode.ERROR

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (self._listening or self._noticed()) or scope["type"] not in _SCOPES or self.notes.leaves_out(scope):
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
            watch.error = None  # as the outermost ring does: its frames hold all there is of the exchange
            if KEY in added and (exchange := Exchange.of(scope)) is not None:
                exchange.shared.error = None
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
            span_name(method),
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
            self._code = close_code(message)
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
            self._code = close_code(message)
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
            measured = {"http.request.method": self._method, "url.scheme": scheme if scheme in PORTS else "_OTHER"}
            house.duration.record(max(lasted, 0.0), measured | outcome | self._decided())
        if not span.is_recording():
            return
        if route := outcome.get("http.route"):
            span.update_name(f"{span_name(self._method)} {route}")
        span.set_attributes({**told(self._exchange), **outcome, **self._late()})
        if isinstance(self.error, Exception):
            span.add_event("exception", exception(self.error, with_message=house.rule.exception_messages))
        if "error.type" in outcome:
            span.set_status(house.error)
        span.end(self.started + int(lasted * 1e9))

    def _outcome(self) -> dict[str, Any]:
        """What span and duration both tell, with few values each."""
        outcome: dict[str, Any] = {}
        if self._status is not None:
            outcome["http.response.status_code"] = int(self._status)
        if route := self._house.notes.route(self._exchange.attributes.get("http.route") or route_of(self._scope)):
            outcome["http.route"] = route
        if failure := self._failure():
            outcome["error.type"] = failure
        return outcome

    def _decided(self) -> dict[str, Any]:
        """What the duration tells of the other policies: with few values each, which stand on the span as well."""
        decided: dict[str, Any] = {}
        if (refusal := self._exchange.refusal) is not None:
            decided["apim.refusal.code"] = refusal.code
        if isinstance(status := self._exchange.attributes.get("apim.cache.status"), str):
            decided["apim.cache.status"] = status
        return decided

    def _late(self) -> dict[str, Any]:
        """What only the span tells, and what others decided about the caller meanwhile."""
        late: dict[str, Any] = {} if self._code is None else {"apim.websocket.close_code": self._code}
        if self._exchange.forwarded:
            late |= origin(self._scope, dict(reversed(self._scope["headers"])).get(b"host"))
        return late

    def _failure(self) -> str | None:
        """What went wrong on our side or on the way, if anything did."""
        if self.error is not None and not self._left:
            return type_name(self.error)
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
            self._span.set_attributes(told(self._exchange))
        return self._send(message)

    def end(self) -> None:
        """Whoever opened the span ends it."""


def _listens(provider: object) -> bool:
    """Whether anything becomes of what a provider is told: those of the API itself stand in for nobody."""
    apis = ("opentelemetry.trace", "opentelemetry.metrics")
    return provider is not None and not type(provider).__module__.startswith(apis)
