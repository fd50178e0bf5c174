"""The way to an upstream on asyncio: HTTP/1.1 over connections of our own.

``Http1Transport`` sends. Under it, each in a file: ``_requests`` writes heads and ``_heads`` reads them, strictly;
``_framing`` tells where a response ends; ``_connection`` is a connection and ``_answer`` the exchange on it;
``_sending`` sends a request in step with the upstream; ``_keeping`` keeps connections and ``_dialling`` makes them.
``_handshake`` opens a WebSocket, and ``_websocket`` is one.
"""

import ssl
from collections.abc import Callable
from copy import copy
from os import PathLike
from typing import TYPE_CHECKING, Self, TypeAlias

from apim_middleware._config import check, check_count, shown
from apim_middleware.errors import ConfigError, UpstreamBroken
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._answer import Answer
from apim_middleware.transports._dialling import Dialling
from apim_middleware.transports._fields import check_admits, check_idle, check_uds, check_verify
from apim_middleware.transports._keeping import Limits, Pools
from apim_middleware.transports._requests import repeatable, written
from apim_middleware.transports._sending import ask
from apim_middleware.transports.websockets import WebSockets

if TYPE_CHECKING:
    from apim_middleware.transports._websocket import UpstreamWebSocket

File: TypeAlias = str | PathLike[str]


class Http1Transport:
    """Asks upstreams over pooled keep-alive connections; adds nothing to a request and decodes nothing of a response.

    ``verify`` is True (the system's certificate authorities), False (no check: for tests), or an SSL context of your
    own, which then offers HTTP/1.1 alone (ALPN).
    ``ca`` is a file of authorities in the place of the system's; ``cert`` the file of a client certificate with its
    key, or one file for each. ``server_name`` is asked for and expected in the place of the origin's host (SNI).
    ``max_connections`` are open at once to each origin. ``max_waiting`` requests wait for one when all are in use,
    first come first served; one that gets none within its ``connect`` seconds, or no room in the queue, is
    NoConnectionFree.
    ``max_idle`` are kept open between requests, each for ``idle`` seconds: less than the five after which many servers
    hang up, so that a request seldom meets a closing connection.
    ``uds`` is the path of a Unix socket to connect to, whatever the request's origin.
    ``admits`` says of an address, as text, whether it may be connected to; it is asked for each address a name leads
    to, and only those it admits are dialled. Without one that is left it is ConnectFailed.

    What two readers could read in two ways is UpstreamBroken: ambiguous framing (RFC 9112 §6.3; a repeated
    ``Content-Length`` too), bare or folded lines, a space before a colon, a status outside 200 to 599, a change of
    protocol nobody asked for, a head of more than 64 KiB or 256 lines, interim ones included; lines of more than 4 KiB
    among the chunks, and trailers of more than 16 KiB; over TLS, a body that ends with the connection, where that ends
    without a word in TLS. An answer that comes while the request body is still being sent ends the sending, and the
    connection with it.

    Of interim responses only early hints are told, to a request that has ``early_hints``, the others are passed over.
    Trailers are asked for where the request has ``trailers``; those that come are the ``trailers`` of the response,
    once its body has been read.

    Each event loop has connections of its own. It needs asyncio; ``HttpxTransport`` runs on trio as well.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        ca: File | None = None,
        cert: File | tuple[File, File] | None = None,
        server_name: str | None = None,
        max_connections: int = 1000,
        max_idle: int = 1000,
        max_waiting: int = 1000,
        idle: float = 4.0,
        uds: str | None = None,
        admits: Callable[[str], bool] | None = None,
    ) -> None:
        """Nothing is opened before the first request."""
        _check_tls(verify, ca, cert, server_name)
        check_count("Http1Transport", "max_connections", max_connections)
        check_count("Http1Transport", "max_idle", max_idle, least=0)
        check_count("Http1Transport", "max_waiting", max_waiting, least=0)
        check_idle("Http1Transport", idle)
        check_uds("Http1Transport", uds)
        check_admits("Http1Transport", admits)
        limits = Limits(max_connections, max_idle, max_waiting, idle)
        dialling = Dialling(_Tls(verify, ca, cert).context, server_name, uds, admits)
        self._pools = Pools(limits, dialling)
        self._tunnels = Pools(limits, dialling)  # of WebSockets: those that stay must not keep requests out

    async def send(self, request: UpstreamRequest) -> Answer:
        """Send the request and return once the response head is known. Raises TransportError.

        A request that is safe to repeat (RFC 9110 §9.2.2) is repeated once, on a new connection, when a kept one turns
        out to be dead before anything came back (RFC 9112 §9.3.1). No other request is sent twice.
        """
        head, pool = written(request), self._pools.here()
        connection = pool.free(request.origin) or await pool.take(request)
        try:
            return await ask(connection, request, head)
        except UpstreamBroken:
            if not (connection.kept and connection.silent and repeatable(request)):
                raise
        return await ask(await pool.take(request), request, head)

    async def open_websocket(self, request: UpstreamRequest, rules: WebSockets) -> "Answer | UpstreamWebSocket":
        """Open a WebSocket, or give the response by which the upstream refuses it. Raises TransportError.

        The request is a handshake but for the fields that make it one (RFC 6455 §4.1), which are added. WebSockets are
        counted apart from other exchanges: ``max_connections`` of them to each origin.
        """
        from apim_middleware.transports._handshake import open_websocket

        return await open_websocket(self._tunnels.here(), request, rules)

    async def aclose(self) -> None:
        """Close every pooled connection of this event loop; those in use close when their exchange ends."""
        await self._pools.aclose()
        await self._tunnels.aclose()

    def apart(self) -> Self:
        """A transport with the same fields, whose connections are its own and counted for themselves."""
        other = copy(self)
        other._pools, other._tunnels = self._pools.others(), self._tunnels.others()
        return other

    @property
    def connections(self) -> int:
        """How many connections this event loop has open, those being made included."""
        return self._pools.here().connections + self._tunnels.here().connections


def _check_tls(
    verify: ssl.SSLContext | bool, ca: File | None, cert: File | tuple[File, File] | None, server_name: str | None
) -> None:
    check_verify("Http1Transport", verify, 'Give True, False or an ssl.SSLContext; a file of authorities is ca="..."')
    check("Http1Transport", "ca", ca, File | None)
    check("Http1Transport", "cert", cert, File | tuple[File, File] | None)
    check("Http1Transport", "server_name", server_name, str | None)
    if ca == "":
        raise ConfigError("Http1Transport", "ca", "'' is no file", "Give a PEM file, or leave it out")
    if (ca is not None or cert is not None) and (isinstance(verify, ssl.SSLContext) or (ca is not None and not verify)):
        problem, cure = "makes no use of ca and cert", "Load them into the context, or leave verify out"
        raise ConfigError("Http1Transport", "verify", problem, cure)
    if server_name is not None and not _can_be_asked_for(server_name):
        problem, cure = f"{shown(server_name)} is no name", "Give the name in the upstream's certificate"
        raise ConfigError("Http1Transport", "server_name", problem, cure)


def _can_be_asked_for(name: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (TypeError, ValueError):
        return False
    return True


class _Tls:
    """The SSL context of a transport: read at once when files are named, else when it is first needed."""

    def __init__(self, verify: ssl.SSLContext | bool, ca: File | None, cert: File | tuple[File, File] | None) -> None:
        self._verify = verify
        self._made = verify if isinstance(verify, ssl.SSLContext) else None
        if ca is not None or cert is not None:
            self._made = self._read(ca, cert)
        if self._made is not None:
            self._made.set_alpn_protocols(["http/1.1"])

    def context(self) -> ssl.SSLContext:
        """The context to connect with."""
        if self._made is None:
            self._made = self._read(None, None)
            self._made.set_alpn_protocols(["http/1.1"])
        return self._made

    def _read(self, ca: File | None, cert: File | tuple[File, File] | None) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=ca)
        except (OSError, ValueError) as error:
            raise ConfigError("Http1Transport", "ca", f"cannot be read: {error}", "Give a PEM file") from error
        if self._verify is False:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if cert is not None:
            try:
                context.load_cert_chain(*(cert if isinstance(cert, tuple) else (cert,)))
            except (OSError, ValueError) as error:
                cure = "Give a PEM file with certificate and key, or one for each"
                raise ConfigError("Http1Transport", "cert", f"cannot be read: {error}", cure) from error
        return context
