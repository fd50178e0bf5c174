"""Calls of upstreams, measured as OpenTelemetry's conventions for HTTP clients have it."""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Protocol, Self, TypeVar
from urllib.parse import urlsplit

from apim_middleware._telemetry.notes import PORTS, type_name
from apim_middleware.errors import ClientLeft, Refusal, TransportError, refusal_of
from apim_middleware.protocols import Clock, Transport, UpstreamRequest, UpstreamResponse

CALLS = "apim_middleware.calls"
"""Where the scope says by whom calls are measured; nobody does unless it is there."""

DURATION = "http.client.request.duration"

Answer = TypeVar("Answer", bound=UpstreamResponse)


class Histogram(Protocol):
    """What takes measured values."""

    def record(self, amount: float, attributes: Mapping[str, str | int], /) -> None:
        """One more value."""
        ...


class Calls:
    """Begins calls, which measure themselves."""

    def __init__(self, histogram: Histogram, clock: Clock, known: Callable[[str], str]) -> None:
        """``known`` gives the name of a method that has one."""
        self.record, self.clock, self._known = histogram.record, clock, known

    def begin(self, request: UpstreamRequest) -> "Call":
        """A call that begins now."""
        return Call(self, {"http.request.method": self._known(request.method), **_server(request.origin)})

    def measured(self, transport: Transport) -> "Measured":
        """A transport for one request, whose call is measured."""
        return Measured(self, transport)


class Call:
    """One call of an upstream: the time to the head of its response, and how it ended."""

    __slots__ = ("_attributes", "_began", "_calls", "_over", "_seconds")

    def __init__(self, calls: Calls, attributes: dict[str, str | int]) -> None:
        """It begins now."""
        self._calls, self._attributes = calls, attributes
        self._began = calls.clock.monotonic()
        self._seconds: float | None = None
        self._over = False

    async def over(self, asked: Awaitable[Answer]) -> Answer:
        """The answer to it."""
        try:
            response = await asked
        except BaseException as error:
            self.end(error)
            raise
        self._seconds = self._gone()
        self._attributes["http.response.status_code"] = response.status
        if response.status >= 400:
            self._attributes["error.type"] = str(response.status)
        return response

    def end(self, error: BaseException | None = None) -> None:
        """Record it, unless that was done; ``error`` is why it ended, when it was not the end of the response."""
        if self._over:
            return
        self._over = True
        if self._seconds is None or isinstance(error, TransportError):
            self._attributes["error.type"] = _named(error)
        self._calls.record(self._gone() if self._seconds is None else self._seconds, self._attributes)

    def _gone(self) -> float:
        return max(0.0, self._calls.clock.monotonic() - self._began)


class Measured:
    """A transport for one request, and a context that ends with it."""

    __slots__ = ("_call", "_calls", "_transport")

    def __init__(self, calls: Calls, transport: Transport) -> None:
        """Nothing is under way yet."""
        self._calls, self._transport = calls, transport
        self._call: Call | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        """The request is over."""
        if self._call is not None:
            self._call.end(error)

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """The answer of the transport."""
        self._call = self._calls.begin(request)
        return await self._call.over(self._transport.send(request))

    async def aclose(self) -> None:
        """There is nothing to close: the transport belongs to others."""


@lru_cache(maxsize=1024)
def _server(origin: str) -> dict[str, str | int]:
    """Which server it is: never more than there are members of pools."""
    parts = urlsplit(origin)
    port = parts.port or PORTS.get(parts.scheme, 0)
    return {"url.scheme": parts.scheme, "server.address": parts.hostname or "", "server.port": port}


def _named(error: BaseException | None) -> str:
    """What went wrong, by few names."""
    if isinstance(error, TransportError):
        return refusal_of(error).code
    if isinstance(error, Refusal):
        return error.code
    if not isinstance(error, Exception) or isinstance(error, ClientLeft):
        return "cancelled"
    return type_name(error)
