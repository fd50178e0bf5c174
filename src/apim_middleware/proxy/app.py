"""The reverse proxy: ``Proxy("http://upstream")`` is an ASGI app that passes each request on and each response back.

``Proxy`` holds the configuration and writes the request, ``_Passing`` is one exchange under way: the client's body goes
up while the response comes down, in one task group that no task outlives.
"""

import logging
import re
import secrets
import ssl
from collections.abc import AsyncIterator
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal, NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import anyio

from apim_middleware._config import Configured
from apim_middleware._http import hops
from apim_middleware._http.addresses import parse_address
from apim_middleware._http.headers import get, get_all, is_token, raw_headers, without
from apim_middleware._http.paths import BadTarget, canonical_path, is_plain
from apim_middleware._ring import refusal_messages
from apim_middleware.conditions import routed_path
from apim_middleware.env import default_env
from apim_middleware.errors import (
    ConfigError,
    ConnectFailed,
    Refusal,
    TransportError,
    UpstreamBroken,
    UpstreamTimeout,
)
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Transport, UpstreamRequest, UpstreamResponse
from apim_middleware.types import Message, RawHeaders, Receive, Scope, Send

log = logging.getLogger("apim_middleware")

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9.])?")
_USER_INFO = re.compile(r"(?:[^/?#]*//)?[^/?#]*@")
_TARGET = re.compile(rb"\*|/[!-\"$-~]*")
_ENCODED_SLASH = re.compile(rb"%(2[fF]|5[cC])")
_OURS = frozenset((b"content-length", b"expect", b"host"))  # framing, and what is settled with the client's server


@dataclass(frozen=True)
class Proxy(Configured):
    """Pass every request on to an upstream and its response back; an ASGI app, to stand behind a stack or alone.

    Both bodies flow chunk by chunk, event streams too, each side as fast as the other takes them. A client that leaves
    ends the upstream's exchange. What belongs to one hop is not passed on (RFC 9110 §7.6.1); ``Via`` and the forwarding
    fields tell where a message came from. Trailers and interim responses are not passed on.

    Answers of its own, as problem+json: 502 ``upstream-unreachable`` when no connection was made, 502
    ``upstream-broken`` when the upstream broke off or its head cannot be passed on, 504 ``upstream-timeout``, 508
    ``loop-detected``, 501 ``websocket-not-supported``, 400 ``bad-target``, ``bad-header`` and ``bad-framing`` for what
    cannot be sent, and the refusals of ``Hygiene`` where no policy in front has seen to that. An upstream that fails
    after its head breaks the response off: never a clean end. Follows Azure's ``forward-request``.
    """

    upstream: str
    """Where requests go: ``http://host``, ``https://host:8443``, or with a path that is put in front of every path.

    A proxy that is mounted puts it in the place of the path it is mounted at.
    """

    _: KW_ONLY

    transport: Transport | None = None
    """What sends the requests; an ``HttpxTransport`` of its own by default. Closed when the server shuts down."""

    connect_timeout: float | None = 5.0
    """Seconds until a connection must be made; None for no limit."""

    read_timeout: float | None = 60.0
    """Seconds for the response head, and for each wait on the upstream after that; None for no limit."""

    host: Literal["upstream", "preserve"] = "upstream"
    """The ``Host`` the upstream gets: its own, or the one the client asked for."""

    forwarded: Literal["x-forwarded", "forwarded", "both", "none"] = "x-forwarded"
    """How the upstream learns of client address, scheme and host: ``X-Forwarded-For``, ``-Proto`` and ``-Host``, or
    ``Forwarded`` (RFC 7239).

    They name the client this gateway vouches for, alone: the one ``TrustedProxies`` found, else the peer.
    """

    via: str = "apim"
    """The name in ``Via`` fields; a suffix made anew for each proxy tells it from others, so that loops are found."""

    verify: bool | ssl.SSLContext = True
    """How an https upstream is checked: by the usual authorities, not at all (for tests), or by a context of yours."""

    def __post_init__(self) -> None:
        """The upstream must be one, and the rest must make sense with it."""
        for name in ("connect_timeout", "read_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise self.mistake(name, "leaves no time", "Give seconds above 0, or None for no limit")
        if not is_token(self.via.encode("latin-1", "replace")):
            raise self.mistake("via", "is no name for a Via field", 'Give a word such as "apim"')
        if self.transport is not None and self.verify is not True:
            raise self.mistake("verify", "does not reach a transport of your own", "Give it to the transport")
        _ = self._upstream, self._pseudonym, self._transport  # what can be known now, now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        kind = scope["type"]
        if kind == "http":
            await self._serve(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            refusal = Refusal(501, "websocket-not-supported", "WebSockets are not passed on.")
            await _refuse(refusal, scope, send)
        else:
            raise RuntimeError(f"a proxy knows no {kind} scope")

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await self._transport.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = self._request(scope)
        except Refusal as refusal:
            await _refuse(refusal, scope, send)
            return
        if request.method == "OPTIONS" and hops.ends_here(scope["headers"]):
            await _answer_options(send)
            return
        via = (b"via", b"1.1 " + self._pseudonym)
        await _Passing(self._transport, request, via, scope, receive, send).run()

    # The request

    def _request(self, scope: Scope) -> UpstreamRequest:
        """The request as the upstream gets it, but for its body. Raises Refusal."""
        exchange = Exchange.of(scope)
        if exchange is None or not exchange.clean:  # no policy in front has seen to that
            scope = {**scope}
            Exchange(scope).scrub(default_env.scrub)
        length = get(scope["headers"], b"content-length")
        try:
            target, headers = self._target(scope), raw_headers(self._headers(scope))
            known = None if length is None else int(length)
        except BadTarget as error:
            raise Refusal(400, "bad-target", f"The request target cannot be passed on: {error}.") from None
        except ValueError as error:
            raise Refusal(400, "bad-header", f"The request cannot be passed on: {error}.") from None
        return UpstreamRequest(
            scope["method"],
            self._upstream.origin,
            target,
            headers,
            length=known,
            connect=self.connect_timeout,
            read=self.read_timeout,
        )

    def _headers(self, scope: Scope) -> RawHeaders:
        """The header lines for the upstream. What ``Connection`` nominates went at the door, with request hygiene."""
        lines = scope["headers"]
        if hops.passed(lines, self._pseudonym):
            raise Refusal(508, "loop-detected", "The request came back to a gateway it had passed.")
        host = get(lines, b"host")
        headers = hops.end_to_end(lines, without=_OURS)
        client, scheme = scope.get("client"), scope.get("scheme", "http")
        told = list(hops.forwarding_fields(self.forwarded, client[0] if client else None, scheme, host))
        headers = hops.one_cookie(without(headers, *(name for name, _ in told)))
        authority = host if self.host == "preserve" and host is not None else self._upstream.authority
        via = b"%b %b" % (scope.get("http_version", "1.1").encode("latin-1"), self._pseudonym)
        if scope["method"] == "OPTIONS":
            headers = hops.one_hop_fewer(headers)
        return [(b"host", authority), *headers, *told, (b"via", via)]

    def _target(self, scope: Scope) -> bytes:
        """Path and query for the upstream, exactly as the policies in front have judged them. Raises BadTarget."""
        path, query = _written_path(scope), scope.get("query_string", b"")
        target = b"*" if path == b"*" else self._upstream.prefix + path or b"/"
        if query:
            target = b"%b?%b" % (target, query)
        if _TARGET.fullmatch(target) is None:
            raise BadTarget("it holds characters that may not stand there")
        return target

    # What is found out once

    @cached_property
    def _upstream(self) -> "_Upstream":
        if _USER_INFO.match(self.upstream):  # which no message may show
            cure = "Set the Authorization header with SetHeader instead"
            raise ConfigError("Proxy", "upstream", "holds a user name or password", cure)
        try:
            return _parsed(self.upstream)
        except ValueError as error:
            cure = 'Write Proxy("http://host:8080") or Proxy("https://host/base")'
            raise self.mistake("upstream", f"cannot be asked: {error}", cure) from None

    @cached_property
    def _pseudonym(self) -> bytes:
        return f"{self.via}-{secrets.token_hex(4)}".encode()

    @cached_property
    def _transport(self) -> Transport:
        if self.transport is not None:
            return self.transport
        from apim_middleware.transports.httpx import HttpxTransport

        return HttpxTransport(verify=self.verify)


class _Upstream(NamedTuple):
    """An upstream's URL in the parts a request needs."""

    origin: str
    authority: bytes
    prefix: bytes


def _parsed(url: str) -> _Upstream:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("its scheme is neither http nor https")
    if "?" in url or "#" in url:
        raise ValueError("it holds a query or a fragment")
    host, port = parts.hostname or "", parts.port
    if port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it is no URL")
    if ":" in host and parse_address(host) is not None and "%" not in host:
        host = f"[{host}]"
    elif _HOST_NAME.fullmatch(host) is None:
        raise ValueError("it names no host")
    authority = host if port in (None, 443 if parts.scheme == "https" else 80) else f"{host}:{port}"
    prefix = canonical_path(unquote(parts.path), parts.path.encode())[1] if parts.path else b""
    return _Upstream(f"{parts.scheme}://{authority}", authority.encode(), prefix.rstrip(b"/"))


def _written_path(scope: Scope) -> bytes:
    """The path below the place this app is mounted at, as it stood on the wire unless a policy changed it."""
    root, path = routed_path(scope)
    raw: bytes = scope.get("raw_path") or b""
    if root:
        raw = _below(raw, root.count("/"))
    if is_plain(path, raw) or path == "":
        return raw
    if path == "*" or unquote_to_bytes(_ENCODED_SLASH.sub(rb"%25\1", raw)) == path.encode():
        return raw or path.encode()
    return canonical_path(path, None)[1]


def _below(raw: bytes, segments: int) -> bytes:
    parts = raw.split(b"/", segments + 1)
    return b"/" + parts[-1] if len(parts) == segments + 2 else b""


# Answers of the proxy's own


async def _refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    for message in refusal_messages(refusal, scope):
        await send(message)


async def _answer_options(send: Send) -> None:
    """The request may go no further: this is its final recipient."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _failed(error: TransportError) -> Refusal:
    if isinstance(error, ConnectFailed):
        return Refusal(502, "upstream-unreachable", "The upstream could not be reached.")
    if isinstance(error, UpstreamTimeout):
        return Refusal(504, "upstream-timeout", "The upstream took too long.")
    return Refusal(502, "upstream-broken", "The upstream did not give a proper response.")


# The exchange


class _Passing:
    """One exchange: its request on the way up, its response on the way down."""

    def __init__(
        self,
        transport: Transport,
        request: UpstreamRequest,
        via: tuple[bytes, bytes],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._transport, self._request, self._via = transport, request, via
        self._scope, self._send = scope, send
        self._body = _RequestBody(receive, request.length)

    async def run(self) -> None:
        """Pass the request up and the response down, until both are through or the client has left."""
        if not await self._prepare_body():
            return
        try:
            async with anyio.create_task_group() as tasks, self._body:
                tasks.start_soon(self._body.read, tasks.cancel_scope)
                await self._pass()
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = _only(group)
            raise error from error.__cause__

    async def _prepare_body(self) -> bool:
        """Decide whether the request has a body; false when the client has left already."""
        if get(self._scope["headers"], b"transfer-encoding") is None:
            if self._request.length == 0:
                self._request.body = b""
                return True
            if self._request.length is None and not await self._body.begins():
                return not self._body.left
        self._request.body = self._body
        return True

    async def _pass(self) -> None:
        try:
            response = await self._transport.send(self._request)
        except (TransportError, Refusal) as error:
            await self._fail(error)
            return
        self._body.close()  # whatever the client still sends came too late
        try:
            await self._pass_down(response)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _fail(self, error: TransportError | Refusal) -> None:
        refusal = _failed(error) if isinstance(error, TransportError) else error
        log.warning("%s: %s", refusal.code, error if isinstance(error, TransportError) else refusal.detail)
        exchange = Exchange.of(self._scope)
        if exchange is not None:
            exchange.attributes["apim.upstream.error"] = refusal.code
        await _refuse(refusal, self._scope, self._send)

    async def _pass_down(self, response: UpstreamResponse) -> None:
        try:
            headers, left = _relayed(response, head_only=self._request.method == "HEAD")
        except UpstreamBroken as error:
            await self._fail(error)
            return
        await self._send({"type": "http.response.start", "status": response.status, "headers": [*headers, self._via]})
        async for chunk in response:
            if left is not None:
                left -= len(chunk)
                if left < 0:
                    raise UpstreamBroken("the upstream sent more than it had announced")
            if chunk:
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        if left:
            raise UpstreamBroken("the upstream sent less than it had announced")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _relayed(response: UpstreamResponse, *, head_only: bool) -> tuple[RawHeaders, int | None]:
    """The header lines for the client, and how long the body has to be, when that is known. Raises UpstreamBroken."""
    if not 200 <= response.status <= 599:
        raise UpstreamBroken(f"the upstream answered with status {response.status}")
    try:
        headers = raw_headers(hops.end_to_end(response.headers, without=hops.nominated(response.headers)))
    except ValueError as error:
        raise UpstreamBroken(f"the upstream sent {error}") from None
    lengths = get_all(headers, b"content-length")
    if len(lengths) > 1 or not all(each.isdigit() and len(each) <= 19 for each in lengths):
        raise UpstreamBroken("the length of the response is ambiguous")
    if response.status in (204, 304):  # some servers take the length for a promise they have to keep
        headers = without(headers, b"content-length")
    if head_only or response.status in (204, 304):
        return headers, 0
    return headers, int(lengths[0]) if lengths else None


class _RequestBody:
    """The client's body on its way up, and the one reader of ``receive``, which also sees the client leave.

    It ends only when the client has ended it: a body that breaks off is never whole.
    """

    def __init__(self, receive: Receive, length: int | None) -> None:
        self._receive = receive
        self._left = length
        self._first: Message | None = None
        self.left = False
        """Whether the client is gone."""

    async def begins(self) -> bool:
        """Whether there is a body, where no header tells: HTTP/2 needs none, and a layer in front may have made one."""
        self._first = await self._receive()
        self.left = self._first["type"] == "http.disconnect"
        return bool(self._first.get("body") or self._first.get("more_body"))

    async def __aenter__(self) -> None:
        self._writer, self._chunks = anyio.create_memory_object_stream[bytes](0)

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        self._chunks.close()

    def close(self) -> None:
        """Take no more chunks."""
        self._chunks.close()

    async def read(self, exchange: anyio.CancelScope) -> None:
        """Read what the client sends, in step with the upstream, and end the exchange when the client leaves."""
        message = self._first or await self._receive()
        while message["type"] == "http.request":
            if message.get("body"):
                await self._hand_on(message["body"])
            if not message.get("more_body", False):
                self._writer.close()
            message = await self._receive()
        self.left = True
        exchange.cancel()

    async def _hand_on(self, chunk: bytes) -> None:
        try:
            await self._writer.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # nobody wants it any more

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._chunks.receive()
        except anyio.EndOfStream:
            self._count(0, last=True)
            raise StopAsyncIteration from None
        self._count(len(chunk), last=False)
        return chunk

    def _count(self, size: int, *, last: bool) -> None:
        if self._left is not None:
            self._left -= size
            if self._left < 0 or (last and self._left):
                raise Refusal(400, "bad-framing", "The request body is not as long as announced.")


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error a task group has wrapped; when it is several, the others came of the first."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
