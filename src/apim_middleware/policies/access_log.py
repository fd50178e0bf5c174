"""The access log: one line of JSON for each call, with who called what, and how it came out."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from apim_middleware._config import Configured, awaits
from apim_middleware._http.headers import get_all
from apim_middleware._http.trace_context import traceparent
from apim_middleware._ring import seats_of
from apim_middleware._telemetry.choosing import check_choice
from apim_middleware._telemetry.notes import Notes, close_code, origin, told, type_name
from apim_middleware._telemetry.routes import route_of
from apim_middleware.env import Env
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policy import Composable
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("apim_middleware")
access = logging.getLogger("apim_middleware.access")

_HEADS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})
_GONE = frozenset({"http.disconnect", "websocket.disconnect"})

_encoded = json.JSONEncoder(default=str).encode


@dataclass(frozen=True, kw_only=True)
class AccessLog(Composable, Configured):
    """Write one line of JSON for each request and WebSocket connection: who called what, and how it came out.

    It has ``time`` (when it began, UTC), ``seconds`` (to the last byte), ``outcome`` (``completed``, ``client-left``,
    ``incomplete`` or ``failed``), the caller as ``apim.caller``, ``apim.issuer``, ``apim.subscription`` and
    ``apim.product``, the code of a refusal, and besides what ``Tracing`` records, under the same names. What is not
    known is not there. No bodies, no credentials; values of secret query parameters are masked. Nothing is refused, and
    a line that cannot be written fails no request. It does the job of Azure's gateway logs.

    It is a layer that sees every request, also those that hygiene refuses; stand it outermost, within ``Tracing``.
    """

    write: Callable[[str], object] | None = field(default=None, repr=False)
    """What takes each line, without a line feed, at once; None: the logger ``apim_middleware.access``, as INFO."""

    exclude: tuple[str, ...] = ()
    """Paths without a line: exact, or everything below when they end in ``*`` (``/internal/*``)."""

    redact: tuple[str, ...] = ()
    """Names of query parameters whose values are masked, besides those known to be secret, in any case of letters."""

    request_headers: tuple[str, ...] = ()
    """Request headers written as ``http.request.header.<name>``; those that carry credentials are not accepted."""

    response_headers: tuple[str, ...] = ()
    """Response headers written as ``http.response.header.<name>``; those that carry credentials are not accepted."""

    def __post_init__(self) -> None:
        """Paths are paths, names are names, and no header that carries credentials is written."""
        if awaits(self.write):
            raise self.mistake("write", "must be awaited", "Give a plain function, one that puts lines on a queue")
        check_choice(self)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """The app with a line for each call."""
        return _Logged(self, app, env)


class _Logged:
    def __init__(self, rule: AccessLog, app: ASGIApp, env: Env) -> None:
        self.app, self.rule, self.clock = app, rule, env.clock
        self.seats = seats_of(app)
        self._write = rule.write
        self._second, self._prefix = -1.0, ""
        self.notes = Notes(
            redact=rule.redact,
            request_headers=rule.request_headers,
            response_headers=rule.response_headers,
            exclude=rule.exclude,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self.notes.leaves_out(scope):
            await self.app(scope, receive, send)
            return
        opened = KEY not in scope
        exchange = scope[KEY] = scope.get(KEY) or Exchange(scope)
        entry = _Entry(self, scope, receive, send, exchange)
        try:
            await self.app(scope, entry.receive, entry.send)
        except BaseException as error:
            entry.error = error
            raise
        finally:
            entry.end()
            entry.error = None  # as the outermost ring does: its frames hold all there is of the exchange
            if opened:
                scope.pop(KEY, None)
                exchange.shared.error = None

    def line(self, entry: dict[str, Any]) -> None:
        """Write a line."""
        if self._write is not None:
            self._write(_encoded(entry))
        elif access.isEnabledFor(logging.INFO):
            access.info("%s", _encoded(entry))

    def when(self, moment: float) -> str:
        """A time as RFC 3339 writes it; all but the milliseconds is the same for a second."""
        second, part = divmod(moment, 1)
        if second != self._second:
            self._second, self._prefix = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._prefix}.{int(part * 1000):03}Z"


class _Entry:
    """One call under way, and what will be said of it."""

    __slots__ = (
        "_began", "_code", "_ended", "_exchange", "_house", "_lasted", "_left", "_receive", "_said", "_scope",
        "_send", "_status", "_time", "_trailers", "error",
    )  # fmt: skip

    def __init__(self, house: _Logged, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        self._house, self._scope, self._receive, self._send = house, scope, receive, send
        self._exchange = exchange
        self._began, self._time = house.clock.monotonic(), house.clock.now()
        self._said = house.notes.of_request(scope, house.notes.method(scope))  # policies may change the request
        self._status: int | None = None
        self._code: int | None = None
        self._lasted: float | None = None  # seconds to the last byte, once it is sent
        self._trailers = self._left = self._ended = False
        self.error: BaseException | None = None

    async def receive(self) -> Message:
        """The ``receive`` the app gets."""
        message = await self._receive()
        if message["type"] in _GONE and self._lasted is None:
            self._left = True
            self._code = close_code(message)
        return message

    async def send(self, message: Message) -> None:
        """The ``send`` the app gets."""
        kind = message["type"]
        if kind in _HEADS:
            self._status = message.get("status", 101)  # an accepted WebSocket has no other
            self._said |= self._house.notes.of_response(message.get("headers") or ())
            self._trailers = message.get("trailers", False)
        elif kind == "websocket.close":
            self._status = self._status or 403  # as servers answer a handshake that is closed instead of accepted
            self._code = close_code(message)
        try:
            await self._send(message)
        except OSError:
            self._left = self._left or self._lasted is None
            raise
        if self._lasted is None and self._is_last(message):
            self._lasted = self._house.clock.monotonic() - self._began
            if (self._status or 500) < 500:
                self.end()  # else what went wrong may still come: frameworks answer 500 first and raise afterwards

    def _is_last(self, message: Message) -> bool:
        kind = message["type"]
        if kind in _BODIES:
            return not (self._trailers or message.get("more_body", False))
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        return kind in ("http.response.pathsend", "websocket.close")

    def end(self) -> None:
        """Write the line, once."""
        if self._ended:
            return
        self._ended = True
        try:
            self._house.line(self._line())
        except Exception:
            log.exception("a call could not be written down")

    def _line(self) -> dict[str, Any]:
        exchange, house = self._exchange, self._house
        lasted = house.clock.monotonic() - self._began if self._lasted is None else self._lasted
        line = {"time": house.when(self._time), "seconds": round(max(lasted, 0.0), 6), "outcome": self._outcome()}
        line |= self._said
        if exchange.forwarded:  # then somebody further in knows better who the client is
            line |= origin(self._scope, dict(reversed(self._scope["headers"])).get(b"host"))
        if self._status is not None:
            line["http.response.status_code"] = self._status
        if self._code is not None:
            line["apim.websocket.close_code"] = self._code
        line |= told(exchange)
        for name, value in self._found():
            if value:
                line[name] = value
        return line

    def _found(self) -> Iterator[tuple[str, str | None]]:
        """What others have found out: who it was, where it went, and what became of it."""
        exchange, scope = self._exchange, self._scope
        if exchange.principal is not None:
            yield "apim.caller", exchange.principal.subject
            yield "apim.issuer", exchange.principal.issuer
        if exchange.subscription is not None:
            yield "apim.subscription", exchange.subscription.id
        yield "apim.product", exchange.product
        yield "http.route", self._house.notes.route(exchange.attributes.get("http.route") or route_of(scope))
        if self.error is not None:
            yield "error.type", type_name(self.error)
        if parent := traceparent(get_all(scope["headers"], b"traceparent")):
            yield "trace_id", parent.split("-")[1]

    def _outcome(self) -> str:
        if self._left and self._scope["type"] == "http":
            return "client-left"
        if self.error is not None:
            return "failed"
        return "incomplete" if self._lasted is None and not self._left else "completed"
