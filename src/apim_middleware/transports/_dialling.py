"""Making a connection: the addresses of a name side by side (RFC 8305), then TLS, each with a time of its own."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from math import inf
from typing import Any, NamedTuple, TypeAlias

from apim_middleware.errors import ConnectFailed
from apim_middleware.transports._connection import Connection
from apim_middleware.transports._origins import Origin
from apim_middleware.transports._resolving import Resolver

_HEAD_START = 0.25  # seconds before the next address is tried as well (RFC 8305 §5)
_GOODBYE = 1.0  # seconds for the end of TLS
_DAY = 86400.0
_names = Resolver()

Address: TypeAlias = tuple[socket.AddressFamily, Any]
"""A family, and an address as sockets of it have them."""


class Dialling(NamedTuple):
    """How connections are made: over which socket, to which addresses, and how TLS is spoken."""

    context: Callable[[], ssl.SSLContext]
    server_name: str | None = None
    uds: str | None = None
    admits: Callable[[str], bool] | None = None

    async def dial(self, connection: Connection, origin: Origin, seconds: float | None, tls: float | None) -> None:
        """Connect to an origin within so many seconds, and so many more for TLS. Raises ConnectFailed."""
        try:
            async with asyncio.timeout(None if seconds == inf else seconds):
                sock = await self._reach(origin)
            if origin.scheme == "https":
                await self._hand_over_secured(sock, connection, self.server_name or origin.host, tls)
            else:
                await self._hand_over(sock, lambda: connection)
        except TimeoutError as error:
            raise ConnectFailed("no connection to the upstream: timed out") from error
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"no connection to the upstream: {error or type(error).__name__}") from error

    async def _reach(self, origin: Origin) -> socket.socket:
        if self.uds is not None:
            return await _connected((socket.AF_UNIX, self.uds))
        return await _fastest(self._admitted(await _addresses(origin.host, origin.port)))

    def _admitted(self, addresses: list[Address]) -> list[Address]:
        """Those that may be connected to; what is judged here is what is dialled, whatever the name says next time."""
        if self.admits is None:
            return addresses
        found = [each for each in addresses if self.admits(each[1][0])]
        if not found:
            raise ConnectFailed("the upstream's name leads to no address that may be connected to")
        return found

    async def _hand_over(self, sock: socket.socket, make: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        connect = loop.create_connection if self.uds is None else loop.create_unix_connection
        try:
            transport, _ = await connect(make, sock=sock)
        except BaseException:
            sock.close()
            raise
        return transport

    async def _hand_over_secured(
        self, sock: socket.socket, connection: Connection, name: str, seconds: float | None
    ) -> None:
        """Speak TLS on a line that the connection can hold back by itself."""
        connection.line = line = await self._hand_over(sock, asyncio.Protocol)
        try:
            transport = await asyncio.get_running_loop().start_tls(
                line,
                connection,
                self.context(),
                server_hostname=name,
                ssl_handshake_timeout=_DAY if seconds is None or seconds == inf else seconds,
                ssl_shutdown_timeout=_GOODBYE,
            )
        except BaseException:
            line.abort()
            raise
        if transport is None:
            raise ConnectFailed("no connection to the upstream: it hung up")
        connection.connection_made(transport)
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() not in (None, "http/1.1"):
            raise ConnectFailed("the upstream wants another protocol than HTTP/1.1")


async def _addresses(host: str, port: int) -> list[Address]:
    """Where a name leads, in the system's order but with the families taking turns."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    found = await _names.find(host, port)
    first = [each for each in found if each[0] == found[0][0]]
    others = [each for each in found if each[0] != found[0][0]]
    return [each for each in chain.from_iterable(zip_longest(first, others)) if each is not None]


async def _fastest(addresses: Sequence[Address]) -> socket.socket:
    """A socket connected to the first address that answers; the next is tried when one fails or takes its time."""
    if len(addresses) == 1:
        return await _connected(addresses[0])
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        for address in addresses:
            attempts.append(asyncio.create_task(_connected(address)))
            won = await _first(attempts, _HEAD_START)
            if won is not None:
                return attempts.pop(attempts.index(won)).result()
        while (won := await _first(attempts, None)) is None:
            pass
        return attempts.pop(attempts.index(won)).result()
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_dropped)


async def _first(
    attempts: Sequence["asyncio.Task[socket.socket]"], seconds: float | None
) -> "asyncio.Task[socket.socket] | None":
    """The attempt that has succeeded, if one has when one ends or the time is up. Raises the last one's error."""
    pending = [each for each in attempts if not each.done()]
    if not pending:
        attempts[-1].result()
    done, _ = await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return next((each for each in done if each.exception() is None), None)


def _dropped(attempt: "asyncio.Task[socket.socket]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connected(address: Address) -> socket.socket:
    family, there = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, there)
    except BaseException:
        sock.close()
        raise
    return sock
