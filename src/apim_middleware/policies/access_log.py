"""The access log: one line of JSON for each call, with who called what, and how it came out."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from typing import Any

from apim_middleware._config import Configured
from apim_middleware._http.headers import get_all, is_token
from apim_middleware._http.trace_context import traceparent
from apim_middleware._telemetry.masking import SECRET_HEADER
from apim_middleware._telemetry.notes import Notes, origin, told, type_name
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
        if iscoroutinefunction(self.write):
            raise self.mistake("write", "must be awaited", "Give a plain function, one that puts lines on a queue")
        for path in self.exclude:
            if not path.startswith("/") or "*" in path[:-1]:
                raise self.mistake("exclude", "holds no path", 'Write paths as "/health" or "/internal/*"')
        for name in ("request_headers", "response_headers"):
            for header in getattr(self, name):
                if not is_token(header.encode("latin-1", "replace")):
                    raise self.mistake(name, "holds something that is no name", "Give names of headers")
                if SECRET_HEADER.search(header.lower()):
                    raise self.mistake(name, f"would write {header}, which carries credentials", f"Leave out {header}")

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """The app with a line for each call."""
        return _Logged(self, app, env)


class _Logged:
    def __init__(self, rule: AccessLog, app: ASGIApp, env: Env) -> None:
        self._app, self.clock = app, env.clock
        self._write = rule.write
        self.notes = Notes(
            redact=rule.redact,
            request_headers=rule.request_headers,
            response_headers=rule.response_headers,
            exclude=rule.exclude,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self.notes.leave_out(scope["path"]):
            await self._app(scope, receive, send)
            return
        opened = KEY not in scope
        exchange = scope[KEY] = scope.get(KEY) or Exchange(scope)
        entry = _Entry(self, scope, receive, send, exchange)
        try:
            await self._app(scope, entry.receive, entry.send)
        except BaseException as error:
            entry.error = error
            raise
        finally:
            entry.end()
            if opened:
                scope.pop(KEY, None)

    def line(self, entry: dict[str, Any]) -> None:
        """Write a line; whatever goes wrong with that is told to the other log."""
        if self._write is None:
            access.info("%s", json.dumps(entry, default=str))
        else:
            self._write(json.dumps(entry, default=str))


class _Entry:
    """One call under way, and what will be said of it."""

    def __init__(self, house: _Logged, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        self._house, self._scope, self._receive, self._send = house, scope, receive, send
        self._exchange = exchange
        self._began, self._time = house.clock.monotonic(), house.clock.now()
        self._request = house.notes.of_request(scope, house.notes.method(scope))  # policies may change it
        self._response: dict[str, Any] = {}
        self._lasted: float | None = None  # seconds to the last byte, once it is sent
        self._trailers = self._left = self._ended = False
        self.error: BaseException | None = None

    async def receive(self) -> Message:
        """The ``receive`` the app gets."""
        message = await self._receive()
        if message["type"] in _GONE and self._lasted is None:
            self._left = True
        return message

    async def send(self, message: Message) -> None:
        """The ``send`` the app gets."""
        kind = message["type"]
        if kind in _HEADS:
            self._response["http.response.status_code"] = message.get("status", 101)  # accepted, it has no other
            self._response |= self._house.notes.of_response(message.get("headers") or ())
            self._trailers = message.get("trailers", False)
        elif kind == "websocket.close":
            self._response.setdefault("http.response.status_code", 403)  # as servers answer a handshake then
            self._response["apim.websocket.close_code"] = message.get("code", 1000)
        try:
            await self._send(message)
        except OSError:
            self._left = self._left or self._lasted is None
            raise
        if self._lasted is None and self._is_last(message):
            self._lasted = self._house.clock.monotonic() - self._began
            if self._response.get("http.response.status_code", 500) < 500:
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
            self._house.line(self._said())
        except Exception:
            log.exception("a call could not be written down")

    def _said(self) -> dict[str, Any]:
        """The line."""
        exchange, scope = self._exchange, self._scope
        lasted = self._house.clock.monotonic() - self._began if self._lasted is None else self._lasted
        when = datetime.fromtimestamp(self._time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if exchange.forwarded:  # then somebody further in knows better who the client is
            self._request |= origin(scope, dict(reversed(scope["headers"])).get(b"host"))
        route = self._house.notes.route(exchange.attributes.get("http.route") or route_of(scope))
        parent = traceparent(get_all(scope["headers"], b"traceparent"))
        return {
            "time": when,
            "seconds": round(max(lasted, 0.0), 6),
            "outcome": self._outcome(),
            **self._request,
            **self._response,
            **self._caller(),
            **told(exchange),
            **({"http.route": route} if route else {}),
            **({"error.type": type_name(self.error)} if self.error is not None else {}),
            **({"trace_id": parent.split("-")[1]} if parent else {}),
        }

    def _outcome(self) -> str:
        if self._left and self._scope["type"] == "http":
            return "client-left"
        if self.error is not None:
            return "failed"
        return "incomplete" if self._lasted is None and not self._left else "completed"

    def _caller(self) -> dict[str, str]:
        """Who it was, as far as anybody has found out."""
        principal, subscription = self._exchange.principal, self._exchange.subscription
        found = {
            "apim.caller": principal.subject if principal is not None else "",
            "apim.issuer": principal.issuer if principal is not None else "",
            "apim.subscription": subscription.id if subscription is not None else "",
            "apim.product": self._exchange.product or "",
        }
        return {name: value for name, value in found.items() if value}
