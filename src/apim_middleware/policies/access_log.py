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
from apim_middleware._telemetry.notes import Notes, type_name
from apim_middleware._telemetry.witness import Witness
from apim_middleware.env import Env
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.policy import Composable
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

access = logging.getLogger("apim_middleware.access")

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
        self.notes = Notes(rule)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self.notes.leaves_out(scope):
            await self.app(scope, receive, send)
            return
        opened = KEY not in scope
        exchange = scope[KEY] = scope.get(KEY) or Exchange(scope)
        entry = _Entry(self, exchange, scope, receive, send)
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


class _Entry(Witness):
    """One call under way, and the line it will be."""

    __slots__ = ("_house", "_said", "_unsent")

    def __init__(self, house: _Logged, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(house.notes, house.clock, exchange, scope, receive, send)
        self._house = house
        self._unsent = False  # the client was not there to be sent all of it
        self._said = house.notes.of_request(scope, house.notes.method(scope))  # policies may change the request

    async def pass_on(self, message: Message) -> None:
        """Send a message on, and see whether there is anybody to send it to."""
        try:
            await super().pass_on(message)
        except OSError:
            self._unsent |= self.lasted is None
            raise

    def conclude(self) -> None:
        """Write the line."""
        line = {"time": self._house.when(self.began), "seconds": round(self.seconds, 6), "outcome": self._how()}
        for known in (self._said, self.learnt(), self.outcome()):
            line |= known
        for name, value in self._found():
            if value:
                line[name] = value
        self._house.line(line)

    def _found(self) -> Iterator[tuple[str, str | None]]:
        """Who it was, and what became of it."""
        exchange = self.exchange
        if exchange.principal is not None:
            yield "apim.caller", exchange.principal.subject
            yield "apim.issuer", exchange.principal.issuer
        if exchange.subscription is not None:
            yield "apim.subscription", exchange.subscription.id
        yield "apim.product", exchange.product
        if self.error is not None:
            yield "error.type", type_name(self.error)
        if parent := traceparent(get_all(self.scope["headers"], b"traceparent")):
            yield "trace_id", parent.split("-")[1]

    def _how(self) -> str:
        left = self.left or self._unsent
        if left and self.scope["type"] == "http":
            return "client-left"
        if self.error is not None:
            return "failed"
        return "incomplete" if self.lasted is None and not left else "completed"
