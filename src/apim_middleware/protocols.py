"""The small protocols between policies and the world, each named for its use, and the values they exchange.

A version in memory stands in ``stores``; one conformance suite runs against every version of a protocol.
"""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from apim_middleware.types import RawHeaders


class Clock(Protocol):
    """Where the time comes from; a fake one drives limits, caches, token expiry and breakers in tests."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


@dataclass(frozen=True, slots=True)
class Limit:
    """How many units may be used in how many seconds, and how the window moves."""

    quota: int
    window: float
    algorithm: Literal["fixed", "sliding"] = "fixed"


class Hit(NamedTuple):
    """One use of one limit: the key it counts under, the limit, and how many units."""

    key: str
    limit: Limit
    cost: int = 1


class Tally(NamedTuple):
    """What a counter says: allowed or not, units left, seconds until all are back and until a retry can pass."""

    allowed: bool
    remaining: int
    reset: float
    retry_after: float


class Counters(Protocol):
    """Counts uses. ``hit`` is atomic over all its limits: every one passes and is counted, or none is counted."""

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order. Raises StoreError."""
        ...

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        """The tallies as they stand, counting nothing. Raises StoreError."""
        ...

    async def reset(self, hits: Sequence[Hit]) -> None:
        """Forget what was counted under these keys and limits. Raises StoreError."""
        ...


class Entries(Protocol):
    """Bytes under a key for a time: cached responses and looked-up documents."""

    async def get(self, key: bytes) -> bytes | None:
        """The bytes, unless unknown, expired or evicted. Raises StoreError."""
        ...

    async def set(self, key: bytes, value: bytes, ttl: float) -> None:
        """Keep the bytes for ``ttl`` seconds, or less when room is needed. Raises StoreError."""
        ...

    async def delete(self, key: bytes) -> None:
        """Forget the key. Raises StoreError."""
        ...


@dataclass(slots=True)
class UpstreamRequest:
    """A request on its way to an upstream.

    ``origin`` is ``scheme://host[:port]``, ``target`` the path and query exactly as they are to be sent.
    ``headers`` are complete but for the framing, which the transport writes itself from ``body``:
    nothing, bytes (``Content-Length``), or chunks (``Content-Length`` when ``length`` is known, else chunked).
    ``connect`` and ``read`` are seconds: for the connection, and for each wait on the upstream's bytes.
    """

    method: str
    origin: str
    target: bytes = b"/"
    headers: RawHeaders = field(default_factory=list)
    body: bytes | AsyncIterable[bytes] | None = None
    length: int | None = None
    connect: float | None = 5.0
    read: float | None = 60.0


class UpstreamResponse(Protocol):
    """An upstream's answer: the head is known, the body flows when iterated, ``aclose`` gives the connection back."""

    status: int
    headers: RawHeaders

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives, content codings untouched. Raises TransportError."""
        ...

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        ...


class Transport(Protocol):
    """Sends one request to one upstream: no cookies, no redirects, no environment, no decoding."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send the request and return once the response head is known. Raises TransportError."""
        ...

    async def aclose(self) -> None:
        """Close every pooled connection."""
        ...
