"""The small protocols between policies and the world, each named for its use, and the values they exchange.

A version in memory stands in ``stores``; one conformance suite runs against every version of a protocol.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from apim_middleware.types import RawHeaders


class Clock(Protocol):
    """Where the time comes from; a fake one drives limits, caches, token expiry and breakers in tests."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class Limit(NamedTuple):
    """How many units may be used in how much time, how the time is measured, and whose limit it is.

    The limit and a key name one counter: equal keys under different limits count apart, and so do equal limits at
    two places. It is a tuple because every hit hashes it.
    """

    quota: int
    """Units, at least 1."""

    window: float
    """Seconds, at least a thousandth; infinite for a fixed window that never ends (a lifetime quota)."""

    algorithm: Literal["fixed", "sliding", "log", "bucket", "calendar"] = "fixed"
    """How the time is measured.

    ``fixed``: so many units in each window of the clock; one begins ``start`` seconds after 1970-01-01 UTC, the others
    whole windows before and after.
    ``sliding``: so many in the last ``window`` seconds; exact for units used evenly or all at once, and lets
    ``quota + (quota - 1) * f`` pass in any ``f`` windows of time (``f`` up to 1) at the worst.
    ``log``: so many in the last ``window`` seconds, exactly; keeps the moment of every unit that still counts.
    ``bucket``: ``burst`` units at once, coming back evenly, ``quota`` of them in ``window`` seconds (GCRA).
    ``calendar``: so many in each hour, day, week, month or year of ``calendar``; ``window`` is its usual length.
    """

    place: str = ""
    """Where the limit stands: printable ASCII that no other policy uses."""

    burst: int = 0
    """Of a bucket: units that can be used at once, at least 1; 0 stands for ``quota``."""

    start: float = 0.0
    """Of a fixed window: when one of them begins, in seconds since 1970-01-01 UTC."""

    calendar: str = ""
    """Of a calendar: the period and the time zone, as ``month Europe/Berlin``."""


class Hit(NamedTuple):
    """One use of one limit: the key it counts under, the limit, and how many units, 0 or more."""

    key: str
    limit: Limit
    cost: int = 1


class Tally(NamedTuple):
    """What a counter says of one hit."""

    allowed: bool
    """Whether this limit lets the hit pass."""

    remaining: int
    """Units that can be used right now, after this hit if it was counted."""

    reset: float
    """Seconds until the whole quota is there again, if nothing else is counted; infinite when never."""

    retry_after: float
    """Seconds until the same hit can pass (again), if nothing else is counted: 0 when at once, infinite when never."""

    counted: float = 0.0
    """When that was, by the store's own clock: what ``Change`` wants to know of a hit that was counted."""


class Change(NamedTuple):
    """A correction of a hit that was counted: how many units more, or below 0 fewer, it used of a limit."""

    key: str
    limit: Limit
    units: int
    counted: float
    """The ``counted`` of its tally. What was counted in a window that is over cannot be changed, and need not be."""


class Counters(Protocol):
    """Counts uses. ``hit`` is atomic over all its limits: every one passes and is counted, or none is counted.

    Waiting for exactly ``retry_after`` is enough, and waiting for less is not, but for the last microseconds.
    Keys are ASCII of bounded length; a counter nobody hits is forgotten when nothing of it counts any more.
    A store that cannot keep every limit also has a plain ``check(limit)`` that raises ConfigError, and one that cannot
    correct every limit a plain ``corrects(limit)``: policies ask while they are built.
    """

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order. Raises StoreError."""
        ...

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        """What each hit alone would be told, counting nothing; ``remaining`` is before the hit. Raises StoreError."""
        ...

    async def settle(self, changes: Sequence[Change]) -> None:
        """Correct hits that were counted: give units back, or count more, beyond the quota too. Raises StoreError.

        Nothing falls below zero units; units above the quota must be worked off before anything passes again.
        Of several, those that can never be made keep no other from being made; for them, Spoiled is raised then.
        """
        ...

    async def assign(self, hits: Sequence[Hit]) -> None:
        """Make each counter stand at ``cost`` units, as if used just now and nothing before. Raises StoreError."""
        ...

    async def reset(self, hits: Sequence[Hit]) -> None:
        """Forget what was counted under these keys and limits. Raises StoreError."""
        ...


class Permits(Protocol):
    """Counts who is in the house. A permit is held from ``acquire`` to ``release``, or until its holder's process dies.

    A store that several processes share lends permits for a while and renews them itself as long as they are held,
    so that those of a process that was killed come back.
    """

    async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        """Let the holder in if fewer than ``at_once`` are; whether it is in, and how many are. Raises StoreError."""
        ...

    async def release(self, key: str, holder: str) -> None:
        """Let this holder out; nothing happens when it is not in. Raises StoreError."""
        ...


class Entries(Protocol):
    """Bytes under a key for a time: cached responses, looked-up documents, leases.

    Every store may forget any entry at any time to make room, so what must not be lost has no place here. Keys and tags
    begin with the place and the name of whose they are. An entry may carry up to 128 tags of 1 to 1024 bytes
    (ValueError for others); ``purge`` takes away at once what carries one, however much that is.
    Values may be large, but are handed over whole: what is larger than some 256 KiB is better cut into several.

    Purges have an order, and ``look`` tells where in it a store is: who makes something of what others may purge
    meanwhile looks first, and has it kept ``since`` then. A store that does not know any more keeps nothing.
    """

    async def get(self, key: bytes) -> bytes | None:
        """The bytes, unless unknown, expired, purged or evicted. Raises StoreError."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What ``get`` gives for each of the keys, in one round trip where there is one. Raises StoreError."""
        ...

    async def look(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        """What ``get_many`` gives, and after which purge, for ``since``; as many round trips. Raises StoreError."""
        ...

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        """Keep the bytes, and no others, for ``ttl`` seconds, or less when room is needed. Raises StoreError.

        With 0 seconds or fewer, or for a value larger than all the room there is, the key has nothing afterwards.
        With ``since``, which a ``look`` at this key told, nothing is done when one of the tags has been purged since,
        or when that is not known: looked up and done in one step. Whether it was not refused so.
        """
        ...

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        """Keep the bytes if the key has none, and say whether that was so; of several at once, one. Raises StoreError.

        With a value of one's own it is a lock that opens by itself after ``ttl`` seconds, and by ``delete`` earlier.
        """
        ...

    async def delete(self, key: bytes, *, value: bytes | None = None) -> None:
        """Forget the key; with ``value``, only if it has that, looked up and done in one step. Raises StoreError."""
        ...

    async def purge(self, tag: bytes) -> None:
        """Forget every entry that was set with this tag until now, whoever set it. Raises StoreError."""
        ...


@dataclass(slots=True)
class UpstreamRequest:
    """A request on its way to an upstream.

    ``origin`` is ``scheme://host[:port]``, ``target`` the path and query exactly as they are to be sent.
    ``headers`` are complete but for the framing, which the transport writes itself from ``body``:
    nothing, bytes (``Content-Length``), or chunks (``Content-Length`` when ``length`` is known, else chunked).
    ``connect`` and ``read`` are seconds: for the connection, and for each wait on the upstream's bytes. Where they are
    given, ``tls`` is for the TLS handshake in the place of ``connect``, and in the place of ``read`` ``first_byte`` is
    for the whole response head, once the request is sent, and ``write`` for each wait until the upstream takes more of
    the body. None is no limit for the first two; infinity is for all.
    ``trailers`` is whether trailers are wanted (``TE``), and ``early_hints`` is told the header lines of each 103 that
    comes once the request is sent (RFC 8297). A transport that can read neither makes nothing of them.
    """

    method: str
    origin: str
    target: bytes = b"/"
    headers: RawHeaders = field(default_factory=list)
    body: bytes | AsyncIterable[bytes] | None = None
    length: int | None = None
    connect: float | None = 5.0
    read: float | None = 60.0
    tls: float | None = None
    first_byte: float | None = None
    write: float | None = None
    trailers: bool = False
    early_hints: Callable[[RawHeaders], Awaitable[None]] | None = None


class UpstreamResponse(Protocol):
    """An upstream's answer: the head is known, the body flows when iterated, ``aclose`` gives the connection back."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """The header lines."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives, content codings untouched. Raises TransportError."""
        ...

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        ...


class Transport(Protocol):
    """Sends one request to one upstream: no cookies, no redirects, no environment, no decoding."""

    def send(self, request: UpstreamRequest) -> Awaitable[UpstreamResponse]:
        """Send the request and return once the response head is known. Raises TransportError."""
        ...

    async def aclose(self) -> None:
        """Close every pooled connection."""
        ...


class Record(NamedTuple):
    """A document at one of its versions."""

    kind: str
    """What it is about: ``subscription``, ``product``."""

    id: str
    version: int
    """Greater than that of every change to the store before; it is what ``if_match`` and ``changes`` go by."""

    document: dict[str, Any] | None
    """What JSON can hold, a copy of your own; None when the record was deleted."""


class Records(Protocol):
    """Documents with versions: what a gateway's administration keeps, and every process wants to know of.

    ``if_match`` is the version a record must have for a change to be made, 0 for a record that is not there; without it
    the change is made whatever it has. Kinds have 1 to 40 characters of ``a-z0-9-``, ids 1 to 256 of any that print;
    a document has a million bytes as JSON at most; else ValueError.
    """

    async def get(self, kind: str, record_id: str) -> Record | None:
        """The record, unless there is none. Raises StoreError."""
        ...

    async def page(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Record]:
        """The records of a kind by id, those behind ``after``, in the order of code points. Raises StoreError."""
        ...

    async def put(
        self, kind: str, record_id: str, document: Mapping[str, Any], *, if_match: int | None = None
    ) -> Record:
        """Write a record, whole. Raises VersionConflict and StoreError."""
        ...

    async def delete(self, kind: str, record_id: str, *, if_match: int | None = None) -> None:
        """Delete a record; nothing happens when there is none and that was not excluded. As ``put``."""
        ...

    async def version(self) -> int:
        """The version of the latest change; whoever reads everything after that can follow from there.

        Raises StoreError.
        """
        ...

    async def changes(self, after: int, *, limit: int = 1000) -> Sequence[Record]:
        """What was changed behind a version, each record as it is now, in the order of versions.

        Behind 0 it is everything there is, at one moment and whatever the limit: where to begin, after asking for the
        ``version``. Deleted records are told as such, for as long as that is remembered; behind a version too far back
        for that, or one that the store has never had, it raises FeedLost. Raises StoreError.
        """
        ...
