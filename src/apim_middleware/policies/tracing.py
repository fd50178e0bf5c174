"""Tracing: one OpenTelemetry server span and one measured duration for each request.

The only file that imports OpenTelemetry, and only once a stack is built.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Protocol

from apim_middleware._config import Configured
from apim_middleware._ring import seats_of
from apim_middleware._telemetry.calls import CALLS, DURATION, Calls
from apim_middleware._telemetry.choosing import check_choice, check_names
from apim_middleware._telemetry.notes import PORTS, Notes, exception, span_name, told, type_name
from apim_middleware._telemetry.propagation import Propagation
from apim_middleware._telemetry.witness import HEADS, Witness
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

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_NATIVE = "fastapi.telemetry"
"""Where FastAPI's own telemetry looks whether a request is observed already."""

_SERIAL = "apim_middleware.traced"
"""Where scope and context say which request they are of, by a number that no other has."""

_serials = count(1)


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

    Of the calls that a ``Proxy`` behind it makes, ``http.client.request.duration``, one for each attempt.

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
        self.notes = Notes(rule)
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
        called = meter.create_histogram(
            DURATION,
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._calls = Calls(called, env.clock, self.notes.known)
        env.listen(env.kept(f"tracing.{id(rule.meter_provider)}", lambda: _Events(rule.meter_provider, meter)))
        self._propagation = Propagation(rule.parent, rule.baggage)
        self._attach, self._detach, self._context = context.attach, context.detach, context.get_current
        self._value, self._with_value = context.get_value, context.set_value
        self._current_span, self._with_span = trace.get_current_span, trace.set_span_in_context
        self._server, self.error = trace.SpanKind.SERVER, trace.StatusCode.ERROR

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (self._listening or self._noticed()) or scope["type"] not in _SCOPES or self.notes.leaves_out(scope):
            await self.app(scope, receive, send)
            return
        added = [key for key in (KEY, _NATIVE, _SERIAL, CALLS) if key not in scope]
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
            if self._is_ours(scope) and current.is_recording() and getattr(current, "kind", None) is self._server:
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
        scope.setdefault(CALLS, self._calls)
        return watch

    def _is_ours(self, scope: Scope) -> bool:
        """Whether the current context is that of this request, as far as we know.

        Servers may begin a request in the context of the one before it on the connection, which may still go on.
        """
        serial = self._value(_SERIAL)
        return serial is None or serial == scope.get(_SERIAL)

    def _opened(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> "_Watch":
        method = self.notes.method(scope)
        parent, links = self._propagation.inward(scope["headers"])
        watch = _Watch(self, method, exchange, scope, receive, send)
        watch.span = self._tracer.start_span(
            span_name(method),
            context=parent,
            kind=self._server,
            attributes=self.notes.of_request(scope, method),
            links=links,
            start_time=watch.started,
        )
        scope[_SERIAL] = next(_serials)
        watch.context = self._with_value(_SERIAL, scope[_SERIAL], self._with_span(watch.span, parent))
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


class _Watch(Witness):
    """One request under way, and the span it is."""

    context: "Context"
    span: "Span"

    __slots__ = ("_house", "_method", "context", "span", "started")

    def __init__(
        self, house: _Traced, method: str, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(house.notes, house.clock, exchange, scope, receive, send)
        self._house, self._method = house, method
        self.started = int(self.began * 1e9)

    def conclude(self) -> None:
        """End the span and measure."""
        house, span, seconds, outcome = self._house, self.span, self.seconds, self.outcome()
        if failure := self._failure():
            outcome["error.type"] = failure
        if self.status != 101:  # how long a WebSocket stays open says nothing of how fast requests are answered
            scheme = self.scope.get("scheme", "http")
            measured = {"http.request.method": self._method, "url.scheme": scheme if scheme in PORTS else "_OTHER"}
            house.duration.record(seconds, measured | outcome | self._decided())
        if not span.is_recording():
            return
        if route := outcome.get("http.route"):
            span.update_name(f"{span_name(self._method)} {route}")
        span.set_attributes(self.learnt() | outcome)
        if isinstance(self.error, Exception):
            span.add_event("exception", exception(self.error, with_message=house.rule.exception_messages))
        if failure:
            span.set_status(house.error)
        span.end(self.started + int(seconds * 1e9))

    def _decided(self) -> dict[str, Any]:
        """What the duration tells of the other policies: with few values each, which stand on the span as well."""
        decided: dict[str, Any] = {}
        if (refusal := self.exchange.refusal) is not None:
            decided["apim.refusal.code"] = refusal.code
        if isinstance(status := self.exchange.attributes.get("apim.cache.status"), str):
            decided["apim.cache.status"] = status
        return decided

    def _failure(self) -> str | None:
        """What went wrong on our side or on the way, if anything did."""
        if self.error is not None and not self.left:
            return type_name(self.error)
        status, refusal = self.status or 0, self.exchange.refusal
        if status >= 500:
            return refusal.code if refusal is not None else str(int(status))
        if self.lasted is None and self.scope["type"] == "http":
            return "client_disconnected" if self.left else "incomplete_response"
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
        if message["type"] in HEADS or message["type"] == "websocket.close":
            self._span.set_attributes(told(self._exchange))
        return self._send(message)

    def end(self) -> None:
        """Whoever opened the span ends it."""


def _listens(provider: object) -> bool:
    """Whether anything becomes of what a provider is told: those of the API itself stand in for nobody."""
    apis = ("opentelemetry.trace", "opentelemetry.metrics")
    return provider is not None and not type(provider).__module__.startswith(apis)
