"""What ``HttpxTransport`` and ``Httpx2Transport`` are made of: each adds its library and nothing else."""

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from functools import partial
from importlib.util import find_spec
from typing import Self

import anyio.lowlevel

from apim_middleware._config import check, check_count
from apim_middleware.errors import ConfigError, UpstreamBroken
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._fields import NO_FILE, check_admits, check_idle, check_uds, check_verify
from apim_middleware.transports._httpcore.answer import Answer
from apim_middleware.transports._httpcore.core import Core
from apim_middleware.transports._httpcore.line import GiveBack, Line
from apim_middleware.transports._httpcore.pool import Pool
from apim_middleware.transports._httpcore.wire import Wire
from apim_middleware.transports._origins import parsed
from apim_middleware.transports._requests import repeatable


class CoreTransport(ABC):
    """Asks upstreams over the connections of a library."""

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        http2: bool = False,
        max_connections: int = 1000,
        max_idle: int = 100,
        idle: float = 4.0,
        uds: str | None = None,
        admits: Callable[[str], bool] | None = None,
    ) -> None:
        """Nothing is opened before the first request.

        ``verify`` is True (the usual certificate authorities), False (no check: for tests), or an SSL context of yours.
        ``http2`` lets TLS upstreams choose HTTP/2 (needs the extra ``http2``), one exchange at a time on a connection.
        ``max_connections`` are in use at once; a request that gets none within its ``connect`` seconds is
        NoConnectionFree. ``max_idle`` are kept open between requests, each for ``idle`` seconds: less than the five
        after which many servers hang up, so that a request seldom meets a closing connection.
        ``uds`` is the path of a Unix socket to connect to, whatever the request's origin.
        ``admits`` says of an address, as text, whether it may be connected to: the first address of a name that it
        admits is dialled. Without one it is ConnectFailed.
        """
        owner = type(self).__name__
        check_verify(owner, verify, NO_FILE)
        check(owner, "http2", http2, bool)
        check_count(owner, "max_connections", max_connections)
        check_count(owner, "max_idle", max_idle, least=0)
        check_idle(owner, idle)
        check_uds(owner, uds)
        check_admits(owner, admits)
        if http2 and find_spec("h2") is None:
            raise ConfigError(owner, "http2", "True needs the package h2", 'Install "apim-middleware[http2]"')
        core = _speaking_http2(self._core()) if http2 else self._core()
        tls = core.context(verify)

        def line(text: str, give_back: GiveBack) -> Line:
            parts, wire = parsed(text), Wire(core, admits)
            origin = core.origin(parts.scheme.encode(), parts.host.encode(), parts.port)
            options = {"keepalive_expiry": idle, "http2": http2, "uds": uds, "network_backend": wire}
            return Line(core, text, core.connection(origin, tls, **options), wire, give_back)

        self._new_pool = partial(Pool, max_connections, max_idle, line)
        self._pools = _pools()

    @staticmethod
    @abstractmethod
    def _core() -> Core:
        """The library. Raises ConfigError when it is not installed."""

    async def send(self, request: UpstreamRequest) -> Answer:
        """Send the request and return once the response head is known. Raises TransportError.

        A request that is safe to repeat is repeated once, on a new connection, when a kept one turns out to be dead.
        """
        pool = self._pool()
        line = await pool.take(request)
        try:
            return await line.ask(request)
        except UpstreamBroken:
            if not (line.was_dead and repeatable(request)):
                raise
        return await (await pool.take(request, fresh=True)).ask(request)

    async def aclose(self) -> None:
        """Close every pooled connection of this event loop; those in use close when their exchange ends."""
        pool = self._pools.get(None)
        if pool is not None:
            await pool.aclose()

    def apart(self) -> Self:
        """A transport with the same fields, whose connections are its own and counted for themselves."""
        other = copy(self)
        other._pools = _pools()
        return other

    def _pool(self) -> Pool:
        pool = self._pools.get(None)
        if pool is None or pool.closed:
            pool = self._new_pool()
            self._pools.set(pool)
        return pool


def _speaking_http2(core: Core) -> Core:
    """A core that knows the errors of h2 as well, which the library lets through while a body comes down."""
    from h2.exceptions import ProtocolError

    return core._replace(broken=(*core.broken, ProtocolError))


def _pools() -> anyio.lowlevel.RunVar[Pool]:
    """A pool for each event loop."""
    return anyio.lowlevel.RunVar("apim_middleware.connections")
