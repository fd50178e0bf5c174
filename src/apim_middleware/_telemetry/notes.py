"""Attributes of a request, its response and what went wrong, by OpenTelemetry's conventions for HTTP."""

import os
import re
import traceback
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from apim_middleware._http.headers import get_all
from apim_middleware._http.paths import BadTarget, canonical_path
from apim_middleware._telemetry.choosing import Choosing
from apim_middleware._telemetry.masking import LONGEST, REDACTED, Mask, is_withheld
from apim_middleware.exchange import Exchange
from apim_middleware.types import RawHeaders, Scope

_METHODS = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,TRACE"
PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_MOST_ROUTES = 1000
_FRAMES = 50

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[^\s:@/?#\\\[\]]{1,255})(?::(\d{1,5}))?")


class Notes:
    """What is written down of a request, and what never is."""

    def __init__(self, choice: Choosing) -> None:
        """As the policy chooses: what to mask, which headers to write down, and which paths to leave out."""
        methods = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS") or _METHODS
        self._methods = frozenset(methods.split(","))
        self._masked = Mask(choice.redact)
        self._request_headers = _captured("request", choice.request_headers)
        self._response_headers = _captured("response", choice.response_headers)
        self._exclude = bool(choice.exclude)
        self._excluded = frozenset(path for path in choice.exclude if path[-1] != "*")
        self._excluded_below = tuple(path[:-1] for path in choice.exclude if path[-1] == "*")
        self._routes: set[str] = set()

    def leaves_out(self, scope: Scope) -> bool:
        """Whether a request is not written down at all; what only begins like such a path, and leads elsewhere, is."""
        if not self._exclude or not self._excludes(scope["path"]):
            return False
        try:
            path, _ = canonical_path(scope["path"], scope.get("raw_path"))
        except BadTarget:
            return False
        return self._excludes(path)

    def _excludes(self, path: str) -> bool:
        return path in self._excluded or path.startswith(self._excluded_below)

    def method(self, scope: Scope) -> str:
        """The method, unless nobody knows it; a WebSocket handshake is a GET (RFC 6455 §4.1)."""
        return self.known(scope.get("method", "GET"))

    def known(self, method: str) -> str:
        """A method, unless nobody knows it."""
        return method if method in self._methods else "_OTHER"

    def of_request(self, scope: Scope, method: str) -> dict[str, Any]:
        """What is known from the start, which is what a sampler may decide by."""
        index = dict(reversed(scope["headers"]))
        noted = origin(scope, index.get(b"host"))
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
        found = ((name, attribute, get_all(headers, name)) for name, attribute in wanted)
        return {attribute: self._values(name, values) for name, attribute, values in found if values}

    def _values(self, name: bytes, values: list[bytes]) -> list[str]:
        return [REDACTED if is_withheld(name) else self._masked(value) for value in values]

    def route(self, route: object) -> str | None:
        """The route, unless it is none or there are too many of them to be templates."""
        if not isinstance(route, str) or not route or len(route) > LONGEST:
            return None
        if route not in self._routes:
            if len(self._routes) >= _MOST_ROUTES:
                return None
            self._routes.add(route)
        return route


def origin(scope: Scope, host: bytes | None) -> dict[str, Any]:
    """Where the request came from and whom it was meant for."""
    scheme = scope.get("scheme", "http")
    known: dict[str, Any] = {"url.scheme": scheme}
    if (client := scope.get("client")) and client[0]:
        known["client.address"] = client[0]
    if host is not None and (match := _HOST.fullmatch(host)):
        known["server.address"] = match[1].strip(b"[]").decode("latin-1")
        port = int(match[2]) if match[2] else PORTS.get(scheme)
    elif server := scope.get("server"):
        known["server.address"], port = server
    else:
        return known
    if port is not None:
        known["server.port"] = port
    return known


def told(exchange: Exchange) -> dict[str, Any]:
    """What other policies tell of this request."""
    said = {
        name: _clean(value) if isinstance(value, str) else value
        for name, value in exchange.attributes.items()
        if isinstance(value, str | int | float)
    }
    if exchange.refusal is not None:
        said["apim.refusal.code"] = exchange.refusal.code
    return said


def type_name(error: BaseException) -> str:
    """The class of an exception, with its module unless it is Python's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def exception(error: Exception, *, with_message: bool) -> dict[str, str]:
    """An exception as an event: where it happened, without the values that were at work there."""
    event = {
        "exception.type": type_name(error),
        "exception.stacktrace": "".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES)),
    }
    if with_message:
        event["exception.message"] = _clean(str(error))
    return event


def span_name(method: str) -> str:
    """What a span is called before its route is known."""
    return "HTTP" if method == "_OTHER" else method


def _captured(side: str, names: Iterable[str]) -> tuple[tuple[bytes, str], ...]:
    return tuple((name.lower().encode("latin-1"), f"http.{side}.header.{name.lower()}") for name in names)


def _clean(text: str) -> str:
    """A text as exporters can encode it, and not too long."""
    return text[:LONGEST].encode("utf-8", "replace").decode()


def _path(scope: Scope) -> bytes:
    """The path as it was sent, percent-encoded."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"], errors="replace").encode("ascii")
    return raw.partition(b"?")[0]
