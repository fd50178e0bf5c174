"""The reverse proxy: ``Proxy("http://upstream")`` is an ASGI app that passes each request on and each response back.

``Proxy`` holds the configuration; ``_writing`` writes the request, ``_proxied_exchange`` is one exchange under way, and
``_watching`` sees the client leave. Where there is more than one upstream, or a request may be sent more than once,
``_attempts`` stands between the exchange and the transport, and ``_running_pool`` knows the members.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._http import hops
from apim_middleware._http.headers import is_token
from apim_middleware._server import look_at_server
from apim_middleware._telemetry.calls import CALLS, Calls
from apim_middleware.env import Env, default_env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Transport, UpstreamRequest, UpstreamResponse
from apim_middleware.proxy._attempts import Attempts, RetryPlan
from apim_middleware.proxy._node import MemberStanding, Node, Place
from apim_middleware.proxy._proxied_exchange import ProxiedExchange
from apim_middleware.proxy._relaying import refuse
from apim_middleware.proxy._running_pool import RunningPool
from apim_middleware.proxy._transports import Transports
from apim_middleware.proxy._websocket import Tunnel, as_request, offering, opener
from apim_middleware.proxy._writing import Seconds, Upstream, Writer, pseudonym_of, upstream_of
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Hedge, Retry
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.transports.websockets import WebSockets
from apim_middleware.types import Receive, Scope, Send

_TIMEOUTS = ("connect_timeout", "read_timeout", "tls_timeout", "first_byte_timeout", "write_timeout")
_WEBSOCKETS = WebSockets()
_CURE = 'Write Proxy("http://host:8080") or Proxy("https://host/base")'


@dataclass(frozen=True)
class Proxy(Configured):
    """Pass every request on to an upstream and its response back; an ASGI app, to stand behind a stack or alone.

    Both bodies flow chunk by chunk, event streams too, each side as fast as the other takes them. A client that leaves
    ends the upstream's exchange. What belongs to one hop is not passed on (RFC 9110 §7.6.1); ``Via`` and the forwarding
    fields tell where a message came from. Early hints (103) and the trailers of responses are passed on
    where transport and server can and the client takes them; trailers of requests and other interim responses are not.

    Answers of its own, as problem+json: 502 ``upstream-unreachable`` when no connection was made, 502
    ``upstream-broken`` when the upstream broke off or its head cannot be passed on, 504 ``upstream-timeout``, 508
    ``loop-detected``, 503 ``no-upstream-available`` when no member of a pool is, 503 ``upstream-busy`` when every
    connection there may be is in use, 501 ``websocket-not-supported`` where the transport passes no WebSockets on, 408
    ``request-timeout`` for a client whose body does not come in the time ``retry`` gives, 400 ``bad-target``,
    ``bad-header`` and ``bad-framing`` for what cannot be sent, and the refusals of ``Hygiene`` where no policy in front
    has seen to that. An upstream that fails after its head breaks the response off: never a clean end. Follows Azure's
    ``forward-request``.
    """

    upstream: str | Pool
    """Where requests go: ``http://host``, ``https://host:8443``, or with a path that is put in front of every path; or
    a ``Pool`` of such.

    A proxy that is mounted puts it in the place of the path it is mounted at.
    """

    _: KW_ONLY

    transport: Transport | None = None
    """What sends the requests; one of its own by default, an ``Http1Transport`` on asyncio and an ``HttpxTransport``
    elsewhere. Closed when the server shuts down.
    """

    connect_timeout: float | None = 5.0
    """Seconds until a connection must be made; None for no limit."""

    read_timeout: float | None = 60.0
    """Seconds for each wait on the upstream; None for no limit."""

    tls_timeout: float | None = None
    """Seconds for the TLS handshake, once connected; None for as many as ``connect_timeout``."""

    first_byte_timeout: float | None = None
    """Seconds for the response head, once the request is sent; None for as many as ``read_timeout``."""

    write_timeout: float | None = None
    """Seconds for each wait until the upstream takes more of the request; None for as many as ``read_timeout``."""

    host: Literal["upstream", "preserve"] = "upstream"
    """The ``Host`` the upstream gets: its own, or the one the client asked for."""

    forwarded: Literal["x-forwarded", "forwarded", "both", "none"] = "x-forwarded"
    """How the upstream learns of client address, scheme and host: ``X-Forwarded-For``, ``-Proto`` and ``-Host``, or
    ``Forwarded`` (RFC 7239).

    They name the client this gateway vouches for, alone: the one ``TrustedProxies`` found, else the peer.
    """

    via: str = "apim"
    """The name in ``Via`` fields; a suffix made anew for each proxy tells it from others, so that loops are found."""

    websockets: WebSockets | None = _WEBSOCKETS
    """How WebSockets are passed on; None to refuse them."""

    verify: bool | ssl.SSLContext = True
    """How an https upstream is checked: by the usual authorities, not at all (for tests), or by a context of yours."""

    retry: Retry | None = None
    """When a request is sent again; never by default, but for what transports do with a connection that was dead."""

    hedge: Hedge | None = None
    """When a second member of the pool is asked as well; never by default."""

    env: Env = field(default=default_env, repr=False, compare=False)
    """Whose clock times members and retries, who is told of what happens to them, and by whose hygiene requests are
    judged where no policy in front has done that."""

    def __post_init__(self) -> None:
        """The upstream must be one, and the rest must make sense with it."""
        for name in _TIMEOUTS:
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise self.mistake(name, "leaves no time", "Give seconds above 0, or float('inf') for no limit")
        if not is_token(self.via.encode("latin-1", "replace")):
            raise self.mistake("via", "is no name for a Via field", 'Give a word such as "apim"')
        if self.transport is not None and self.verify is not True:
            raise self.mistake("verify", "does not reach a transport of your own", "Give it to the transport")
        _ = self._transport, self._plan or self._writer  # what can be known now, now

    def tell(self, env: Env) -> None:
        """Tell this environment of what happens to members, as a gateway's, unless it or another was given before."""
        plan = self._plan
        if plan is not None and plan.pool.count == default_env.count:
            plan.pool.count = env.count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        if self._plan is not None:
            await self._serve_by_plan(self._plan, scope, receive, send)
            return
        try:
            scope, index = self._clean(scope)
            writer = self._writer
            request, index = writer.request(scope, index)
        except Refusal as refusal:
            await refuse(refusal, scope, send)
            return
        if request.method == "OPTIONS" and hops.ends_here(scope["headers"]):
            await _answer_options(send)
            return
        calls: Calls | None = scope.get(CALLS)
        if calls is None:
            await ProxiedExchange(self._transport, writer, request, index, scope, receive, send).run()
            return
        with calls.measured(self._transport) as transport:
            await ProxiedExchange(transport, writer, request, index, scope, receive, send).run()

    def _clean(self, scope: Scope) -> tuple[Scope, dict[bytes, bytes] | None]:
        """The scope after hygiene, and an index of its headers where no policy in front has seen to that."""
        exchange = Exchange.of(scope)
        if exchange is not None and exchange.clean:
            return scope, None
        scope = {**scope}
        return scope, self.env.scrub(scope)[0]

    async def _serve_by_plan(self, plan: RetryPlan, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope, index = self._clean(scope)
            attempts = Attempts(plan, scope)
            request, index = await attempts.begin(index)
        except Refusal as refusal:
            await refuse(refusal, scope, send)
            return
        with attempts:
            if request.method == "OPTIONS" and hops.ends_here(scope["headers"]):
                await _answer_options(send)
                return
            await ProxiedExchange(
                attempts, attempts.writer, request, index, scope, receive, attempts.stamping(send), attempts
            ).run()

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            look_at_server(scope, receive)
            async with self.lifespan():
                while (await receive())["type"] != "lifespan.shutdown":
                    await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        elif kind == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            raise RuntimeError(f"a proxy knows no {kind} scope")

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self.websockets is None:
                raise Refusal(501, "websocket-not-supported", "WebSockets are not passed on.")
            opens = opener(self._transport)
            scope, _ = self._clean(scope)
            handshake, offered = as_request(scope), scope.get("subprotocols") or []
            if self._plan is not None:
                attempts = Attempts(self._plan, handshake, partial(_shake_hands, self.websockets, offered))
                request, _ = await attempts.begin(None)
            else:
                request, _ = self._writer.request(handshake)
                request = offering(request, offered)
        except Refusal as refusal:
            await refuse(refusal, scope, send)
            return
        if self._plan is None:
            await Tunnel(opens, request, self.websockets, self._writer, scope, receive, send).run()
            return
        with attempts:
            opens, send = attempts.opening, attempts.stamping(send)
            await Tunnel(opens, request, self.websockets, attempts, scope, receive, send).run()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """From the start of the server to its end, for an app that mounts the proxy: ``Starlette(lifespan=...)``.

        Checks and lookups of a pool begin; at the end they end, and connections are closed, those that ``env`` has made
        too. A proxy that is the whole app, or stands at the end of a stack, needs no telling.
        """
        if self._plan is not None:
            self._plan.pool.begin()
        try:
            yield
        finally:
            if self._plan is not None:
                await self._plan.pool.aclose()
            await self._transports.aclose()
            await self._transport.aclose()
            await self.env.aclose()

    def standing(self) -> list[MemberStanding]:
        """How each member of the pool is doing in this process."""
        return [] if self._plan is None else self._plan.pool.standing()

    # What is found out once

    @cached_property
    def _writer(self) -> Writer:
        return self._writer_of(upstream_of(self, "upstream", str(self.upstream), _CURE))

    @cached_property
    def _plan(self) -> RetryPlan | None:
        """What is done where there is more to do than to send a request on."""
        pool = self.upstream
        if isinstance(pool, str):
            if self.hedge is not None:
                raise self.mistake("hedge", "has nobody else to ask", 'Write Proxy(Pool("http://a", "http://b"), ...)')
            if self.retry is None:
                return None
            _ = self._writer  # which says what is wrong with the URL
            pool = Pool(pool)
        pool.members.admit_by(self._transports.check)
        running = RunningPool(pool, self.env, writer=self._writer_at, transports=self._transports)
        return RetryPlan(running, self.retry, self.hedge)

    def _writer_at(self, place: Place) -> Writer:
        upstream = upstream_of(self, "upstream", place.url, _CURE)
        return self._writer_of(upstream._replace(authority=place.host.encode()) if place.host else upstream)

    def _writer_of(self, upstream: Upstream) -> Writer:
        seconds = Seconds(*(getattr(self, name) for name in _TIMEOUTS))
        keep_host, direct = self.host == "preserve", self.transport is None
        return Writer(
            upstream,
            seconds,
            pseudonym=self._pseudonym,
            forwarded=self.forwarded,
            keep_host=keep_host,
            direct=direct,
            clock=self.env.clock,
        )

    @cached_property
    def _pseudonym(self) -> bytes:
        return pseudonym_of(self.via)

    @cached_property
    def _transport(self) -> Transport:
        return DefaultTransport(verify=self.verify) if self.transport is None else self.transport

    @cached_property
    def _transports(self) -> Transports:
        return Transports(self._transport, self.verify, own=self.transport is None)


def _shake_hands(
    rules: WebSockets, offered: list[str], node: Node, request: UpstreamRequest
) -> Awaitable[UpstreamResponse]:
    return opener(node.transport)(offering(request, offered), rules)


async def _answer_options(send: Send) -> None:
    """The request may go no further: this is its final recipient."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
