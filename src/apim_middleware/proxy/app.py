"""The reverse proxy: ``Proxy("http://upstream")`` is an ASGI app that passes each request on and each response back.

``Proxy`` holds the configuration; ``_writing`` writes the request, ``_passing`` is one exchange under way, and
``_watching`` sees the client leave.
"""

import re
import ssl
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._http import hops
from apim_middleware._http.headers import is_token
from apim_middleware.env import default_env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Transport
from apim_middleware.proxy._passing import Passing, refuse
from apim_middleware.proxy._writing import Seconds, Writer, parsed
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.types import Receive, Scope, Send

_TIMEOUTS = ("connect_timeout", "read_timeout", "tls_timeout", "first_byte_timeout", "write_timeout")
_USER_INFO = re.compile(r"(?:[^/?#]*//)?[^/?#]*@")


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
    """What sends the requests; one of its own by default, an ``Http1Transport`` on asyncio where httptools is installed
    (extra ``gateway``), else an ``HttpxTransport``. Closed when the server shuts down.
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

    verify: bool | ssl.SSLContext = True
    """How an https upstream is checked: by the usual authorities, not at all (for tests), or by a context of yours."""

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
        _ = self._writer, self._transport  # what can be known now, now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        try:
            exchange = Exchange.of(scope)
            index = None
            if exchange is None or not exchange.clean:  # no policy in front has seen to that
                scope = {**scope}
                index, _ = default_env.scrub(scope)
            request, index = self._writer.request(scope, index)
        except Refusal as refusal:
            await refuse(refusal, scope, send)
            return
        if request.method == "OPTIONS" and hops.ends_here(scope["headers"]):
            await _answer_options(send)
            return
        via, direct = self._writer.via, self.transport is None
        await Passing(self._transport, request, index, via, scope, receive, send, direct=direct).run()

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await self._transport.aclose()
            await send({"type": "lifespan.shutdown.complete"})
        elif kind == "websocket":
            await refuse(Refusal(501, "websocket-not-supported", "WebSockets are not passed on."), scope, send)
        else:
            raise RuntimeError(f"a proxy knows no {kind} scope")

    # What is found out once

    @cached_property
    def _writer(self) -> Writer:
        if _USER_INFO.match(self.upstream):  # which no message may show
            cure = "Set the Authorization header with SetHeader instead"
            raise ConfigError("Proxy", "upstream", "holds a user name or password", cure)
        try:
            upstream = parsed(self.upstream)
        except ValueError as error:
            cure = 'Write Proxy("http://host:8080") or Proxy("https://host/base")'
            raise self.mistake("upstream", f"cannot be asked: {error}", cure) from None
        seconds = Seconds(*(getattr(self, name) for name in _TIMEOUTS))
        keep_host, direct = self.host == "preserve", self.transport is None
        return Writer(upstream, seconds, via=self.via, forwarded=self.forwarded, keep_host=keep_host, direct=direct)

    @cached_property
    def _transport(self) -> Transport:
        return DefaultTransport(verify=self.verify) if self.transport is None else self.transport


async def _answer_options(send: Send) -> None:
    """The request may go no further: this is its final recipient."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
