"""Answers given in the place of the app's: ``Redirect``, ``ReturnResponse`` and ``MockResponse``."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import anyio

from apim_middleware._config import awaits, is_text
from apim_middleware._functions import needs
from apim_middleware._http.headers import get, header_name, header_value
from apim_middleware._http.hops import FRAMING
from apim_middleware._http.paths import routed_path
from apim_middleware._http.templates import (
    Shape,
    Target,
    canonical,
    path_of,
    query_of,
    raw_path,
    sent,
    shape_of,
    target_of,
)
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

_Headers = Mapping[str, str | tuple[str, ...]]

_BODILESS = frozenset((204, 205, 304))
_LONGEST_DELAY = 60.0

_EVERYTHING = "/{rest:path}"
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_URL = re.compile(r"(https?)://([^/?#]*)(.*)", re.DOTALL)
_DEFAULT_PORTS = {"http": b":80", "ws": b":80", "https": b":443", "wss": b":443"}
_SECURED = {"http": "https", "ws": "wss"}


@dataclass(frozen=True, kw_only=True)
class Redirect(Policy):
    """Send callers to where they should have asked; whoever asked there already passes.

    Everything that is to be different goes into one ``Location``: another path (``match`` and ``to`` are the templates
    of ``RewritePath``), ``https``, a known host, a slash at the end. No part of a request can name the host callers are
    sent to: it is written here, or the request's own when that is one of ``hosts``. What callers sent stays within the
    segment or parameter it stood in.

    A WebSocket handshake gets the redirect as its denial where the server can send one, with ``ws`` or ``wss`` in the
    ``Location``, else it is closed with 1008. A path that a template cannot make sense of is refused with 400
    ``bad-target``. Behind a front that ends TLS, ``TrustedProxies(..., also=("scheme",))`` stands before this policy:
    without it every request looks like plain HTTP, and would be redirected for ever.
    """

    guards = False

    match: str = _EVERYTHING
    """The paths this is about: ``"/old/{rest:path}"``; every path unless given."""

    to: str | None = None
    """Their new path, ``"/new/{rest}"``, or URL, ``"https://new.example/{rest}"``; None, the default, keeps the path.

    A path is below the ``root_path`` of a mounted app, as ``match`` is.
    """

    https: bool = False
    """Whether callers must come by https; needs ``hosts``, for otherwise a caller would choose the host."""

    hosts: tuple[str, ...] = ()
    """The hosts callers may use, with the port where it is not the usual one; any other is sent to the first."""

    slash: Literal["keep", "add", "remove"] = "keep"
    """What becomes of the slash at the end of a path; the root always has one."""

    status: Literal[301, 302, 303, 307, 308] = 307
    """How long it holds and what becomes of the method (RFC 9110 §15.4): 307 and 308 keep it, 303 makes it GET, 301 and
    302 may; 301 and 308 are permanent, and browsers never ask again. Default 307."""

    copy_query: bool = True
    """Whether the caller's query goes along, all but the parameters that ``to`` names."""

    @stated
    def documentation(self) -> Documentation:
        """The redirect."""
        bad = (Answer(400, ("bad-target",)),) if "{" in (self.to or "") else ()
        return Documentation(answers=(Answer(self.status, (), ("location",)), *bad))

    @stated
    def needs(self) -> frozenset[str]:
        """Scheme and host must be those the client used, which ``TrustedProxies`` knows."""
        return frozenset({"client"}) if self.https or self.hosts else frozenset()

    def __post_init__(self) -> None:
        """There must be somewhere to go, on a host that is known."""
        if self.to is None and not self.https and not self.hosts and self.slash == "keep":
            raise self.mistake("to", "leads nowhere", 'Give to="/new/{rest}", https=True, hosts=(...,) or slash="add"')
        if self.https and not self.hosts:
            problem = "would send callers to whatever host they named"
            raise self.mistake("https", problem, 'Give hosts=("api.example.com",) beside it')
        if self.https and any(host.endswith(":80") for host in self.hosts):
            raise self.mistake("hosts", "holds the port of plain HTTP", "Write the host without a port")
        for host in self.hosts:
            if _HOST.fullmatch(host) is None:
                raise self.mistake(
                    "hosts", f"holds {host!r}, which is no host", 'Write ("api.example.com",), lower case'
                )
        self._compiled()

    def bind(self, env: Env) -> "_Redirecting":
        """The compiled templates."""
        return self._compiled()

    def _compiled(self) -> "_Redirecting":
        try:
            shape = shape_of(self.match)
        except ValueError as error:
            cure = 'Write match="/users/{id}" or match="/old/{rest:path}"'
            raise self.mistake("match", f"matches no path: {error}", cure) from None
        origin, path = self._origin()
        try:
            target = None if path is None else target_of(path, shape)
        except ValueError as error:
            cure = 'Write to="/new/{rest}" or to="https://new.example/{rest}"'
            raise self.mistake("to", f"makes no target: {error}", cure) from None
        return _Redirecting(self, shape, target, origin)

    def _origin(self) -> tuple[bytes | None, str | None]:
        """Scheme and host that ``to`` names, if it does, and its path."""
        if self.to is None or self.to.startswith("/"):
            return None, self.to
        url = _URL.fullmatch(self.to)
        if url is None or _HOST.fullmatch(url[2]) is None:
            cure = 'Write a path, "/new/{rest}", or a whole URL, "https://new.example/{rest}"'
            raise self.mistake("to", "names no host that is known beforehand", cure)
        if self.https or self.hosts:
            raise self.mistake("to", "says already which scheme and host", "Leave out https and hosts, or give a path")
        return f"{url[1]}://{url[2]}".encode(), url[3] if url[3].startswith("/") else f"/{url[3]}"


@dataclass(frozen=True, kw_only=True)
class ReturnResponse(Policy):
    """Answer every request with this response; nothing behind is asked. ``When`` gives it a condition.

    It leaves through the policies in front, as any response does. HEAD gets the head alone. A WebSocket handshake gets
    it as its denial where the server can send one, else it is closed with 1008.
    A body function that fails is logged and refused with 500 ``policy-failed``.
    Follows Azure's ``return-response``, but for the reason phrase: HTTP has none since HTTP/2 (RFC 9113 §8.3.2).
    """

    guards = False

    status: int = 200
    """The status, 200 to 599."""

    headers: _Headers = field(default_factory=dict, hash=False)
    """The header fields; a tuple of texts makes several lines. Framing is not to be set."""

    body: str | bytes | Callable[[Exchange], str | bytes] = field(default=b"", repr=False)
    """The body, or a plain function of the exchange that makes it. Text goes out as UTF-8, as ``text/plain`` where
    ``headers`` name no other type."""

    @stated
    def documentation(self) -> Documentation:
        """The answer."""
        return Documentation(answers=(Answer(self.status, (), tuple(name.lower() for name in self.headers)),))

    @stated
    def needs(self) -> frozenset[str]:
        """What the function relies on, if it says so."""
        return needs(self.body) if callable(self.body) else frozenset()

    def __post_init__(self) -> None:
        """It must be a response that can be sent."""
        lines = _checked(self, self.headers)
        if awaits(self.body):
            raise self.mistake("body", "must be awaited", "Give a plain function, or write a policy of your own")
        if isinstance(self.body, str) and not is_text(self.body):
            raise self.mistake("body", "holds half a surrogate pair", "Give text that UTF-8 can carry")
        _check_status(self, self.status, has_body=bool(self.body))
        if self.status in _BODILESS and get(lines, b"content-type") is not None:
            raise self.mistake("headers", f"describe a body, which a {self.status} has not", "Leave content-type out")

    def bind(self, env: Env) -> "_Returning":
        """The response, made ready."""
        return _Returning(self)


@dataclass(frozen=True, kw_only=True)
class MockResponse(Policy):
    """Answer in the place of an app that is not there yet: JSON by default, after a while if asked.

    ``MockResponse(body={"id": 7, "name": "Ada"})``. It behaves as ``ReturnResponse`` with a body known beforehand; that
    it has a name of its own shows in a stack what is still to be built. Follows Azure's ``mock-response``, with the
    example written here; ``api_from_openapi(..., mock=True)`` writes those of a document.
    """

    guards = False

    status: int = 200
    """The status, 200 to 599."""

    body: object = field(default=None, hash=False)
    """The example: text and bytes go out as they are, None as no body, anything else as JSON."""

    content_type: str = "application/json"
    """The media type of the example."""

    headers: _Headers = field(default_factory=dict, hash=False)
    """Further header fields; a tuple of texts makes several lines. Framing is not to be set."""

    delay: float = 0.0
    """Seconds until the answer, as an app would take; 60 at most. Default none. It ends with a client that leaves."""

    @stated
    def documentation(self) -> Documentation:
        """The answer."""
        return Documentation(answers=(Answer(self.status, (), tuple(name.lower() for name in self.headers)),))

    def __post_init__(self) -> None:
        """It must be a response that can be sent, and soon."""
        if not 0 <= self.delay <= _LONGEST_DELAY:
            raise self.mistake("delay", "is no time to wait", "Give 0 to 60 seconds")
        _check_status(self, self.status, has_body=bool(self._content()))
        if get(_checked(self, self.headers), b"content-type") is not None:
            raise self.mistake("headers", "holds the content type", "Give it as content_type")
        try:
            header_value(self.content_type)
        except ValueError as error:
            raise self.mistake("content_type", f"cannot be sent: {error}", 'Write "application/json"') from None

    def bind(self, env: Env) -> "_Mocking":
        """The response, made ready."""
        body = self._content()
        kind = [(b"content-type", header_value(self.content_type))] if body else []
        return _Mocking(_Reply(self.status, [*kind, *_checked(self, self.headers)], body), self.delay)

    def _content(self) -> bytes:
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        try:
            return (self.body if isinstance(self.body, str) else json.dumps(self.body, allow_nan=False)).encode()
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"cannot be written as JSON: {error}"
            raise self.mistake("body", problem, "Give text, bytes, or what JSON can hold") from None


def _checked(policy: ReturnResponse | MockResponse, headers: _Headers) -> RawHeaders:
    lines: RawHeaders = []
    for name, value in headers.items():
        try:
            key = header_name(name)
            lines += [(key, header_value(each)) for each in ((value,) if isinstance(value, str) else value)]
        except ValueError as error:
            raise policy.mistake("headers", f"cannot be sent: {error}", "Give names, and printable Latin-1") from None
        if key in FRAMING:
            raise policy.mistake("headers", f"holds {name!r}, which is framing", "Leave it to the server")
    return lines


def _check_status(policy: ReturnResponse | MockResponse, status: int, *, has_body: bool) -> None:
    if not 200 <= status <= 599:
        raise policy.mistake("status", "is no status of an answer", "Give 200 to 599")
    if status in _BODILESS and has_body:
        raise policy.mistake("status", "has no body (RFC 9110 §15)", "Leave the body out, or give another status")


class _Reply:
    """A response whose every byte is known, as an app."""

    def __init__(self, status: int, headers: RawHeaders, body: bytes = b"") -> None:
        length = [] if status in (204, 304) else [(b"content-length", b"%d" % len(body))]
        self._status, self._headers, self._body = status, [*headers, *length], body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self._messages(scope):
            await send(message)

    def _messages(self, scope: Scope) -> list[Message]:
        kind = "http.response"
        if scope["type"] == "websocket":
            if "websocket.http.response" not in (scope.get("extensions") or ()):
                return [{"type": "websocket.close", "code": 1008, "reason": f"status {self._status}"}]
            kind = "websocket.http.response"
        body = b"" if scope.get("method") == "HEAD" else self._body
        return [
            {"type": f"{kind}.start", "status": self._status, "headers": self._headers},
            {"type": f"{kind}.body", "body": body, "more_body": False},
        ]


class _Returning:
    def __init__(self, policy: ReturnResponse) -> None:
        self._status, self._headers = policy.status, _checked(policy, policy.headers)
        self._body = policy.body
        self._reply = None if callable(policy.body) else self._reply_with(policy.body)

    def on_request(self, exchange: Exchange) -> _Reply:
        body = self._body
        return self._reply or self._reply_with(body(exchange) if callable(body) else body)

    def _reply_with(self, body: str | bytes) -> _Reply:
        headers = self._headers
        if isinstance(body, str):
            if body and get(headers, b"content-type") is None:
                headers = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
            body = body.encode()
        return _Reply(self._status, headers, body)


class _Mocking:
    def __init__(self, reply: _Reply, delay: float) -> None:
        self._reply, self._delay = reply, delay

    def on_request(self, exchange: Exchange) -> ASGIApp:
        return self._answer if self._delay else self._reply

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(self._delay):
            await _left(scope, receive)
            return
        await self._reply(scope, receive, send)


async def _left(scope: Scope, receive: Receive) -> None:
    """Return when the client has left. One that waits to be asked for its body is not asked (RFC 9110 §10.1.1)."""
    if any(name == b"expect" for name, _ in scope["headers"]):
        await anyio.sleep_forever()
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass


class _Redirecting:
    """Compares where a request was sent with where it should have been."""

    def __init__(self, policy: Redirect, shape: Shape, target: Target | None, origin: bytes | None) -> None:
        self._shape, self._target, self._origin = shape, target, origin
        self._status, self._copy, self._slash = policy.status, policy.copy_query, policy.slash
        self._https, self._hosts = policy.https, [host.encode() for host in policy.hosts]
        self._same_target = target is None and policy.slash == "keep"

    def on_request(self, exchange: Exchange) -> _Reply | None:
        scope = exchange.scope
        root, path = routed_path(scope)
        if self._shape.pattern.fullmatch(path) is None:
            return None
        here, there = self._origins(scope, exchange.header(b"host"))
        if here == there and self._same_target:
            return None
        try:
            asked = raw_path(scope), scope.get("query_string", b"")
            wanted = self._wanted(scope, root, *asked)
        except ValueError:
            raise Refusal(400, "bad-target", "The request target cannot be redirected.") from None
        if here == there and asked == wanted:
            return None
        location = (b"" if here == there else there) + wanted[0] + (b"?" + wanted[1] if wanted[1] else b"")
        return _Reply(self._status, [(b"location", location)])

    def _origins(self, scope: Scope, host: bytes | None) -> tuple[bytes, bytes]:
        """Scheme and host that were asked, and those that should have been."""
        scheme: str = scope.get("scheme", "http")
        asked = (host or b"").lower().removesuffix(_DEFAULT_PORTS.get(scheme, b""))
        here = scheme.encode() + b"://" + asked
        if self._origin is not None:
            return here, b"ws" + self._origin[4:] if scheme in ("ws", "wss") else self._origin
        if self._https:
            scheme = _SECURED.get(scheme, scheme)
        if self._hosts and asked not in self._hosts:
            asked = self._hosts[0]
        return here, scheme.encode() + b"://" + asked

    def _wanted(self, scope: Scope, root: str, path: bytes, query: bytes) -> tuple[bytes, bytes]:
        """The path and query that should have been asked for; ValueError when the path has no canonical form."""
        query = query if self._copy else b""
        if self._target is not None:
            front, segments = sent(scope, self._shape, root)
            path = path_of(self._target, segments)
            path = canonical(path if self._origin else front + path)[1]
            query = query_of(self._target, segments, query)
        bare = path.rstrip(b"/")
        if self._slash != "keep" and bare != root.encode().rstrip(b"/"):
            path = bare + b"/" if self._slash == "add" else bare
        return path, query
