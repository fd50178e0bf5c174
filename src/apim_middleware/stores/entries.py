"""Entries in memory, and the form stored responses have: as objects for a shelf, as bytes for a store elsewhere.

A ``Shelf`` holds whatever knows its size and its time within a budget of bytes. ``MemoryEntries`` is the ``Entries``
protocol on a shelf. ``pack`` and ``unpack`` write stored responses as data and nothing but data: what cannot be read
back to the last bit is not there.
"""

import hashlib
import json
import math
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from apim_middleware._http.freshness import CREDENTIALS, STATUSES, Credential, selection
from apim_middleware._http.headers import raw_headers
from apim_middleware.env import SystemClock
from apim_middleware.protocols import Clock

_PLACE = 144
"""What the shelf itself spends on a thing: a place in an ordered dict, and the numbers a thing keeps of itself."""

_VERSION = 256
"""What knowing a version of a resource takes, and finding it by the resource."""

_PAIR = 2 * getsizeof(b"") + getsizeof((b"", b""))
"""What a header line takes beside its text."""


class Kept(Protocol):
    """A thing on a shelf: how many bytes it takes with its key, and when its time is over."""

    @property
    def size(self) -> int:
        """Bytes of memory, all told."""
        ...

    @property
    def until(self) -> float:
        """The moment its time is over, on the clock of its owner."""
        ...


K = TypeVar("K")
V = TypeVar("V", bound=Kept)


class Shelf(Generic[K, V]):
    """Things under keys within a budget of bytes; the least recently used make room. Constant time, never waits."""

    def __init__(self, max_bytes: int, *, afterlife: float = 0.0) -> None:
        """Hold at most ``max_bytes``; things past their time stay to be found for ``afterlife`` more seconds."""
        self.max_bytes = max_bytes
        self.held = 0
        self._afterlife = afterlife
        self._things: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._things)

    def find(self, key: K, now: float) -> V | None:
        """The thing under this key, which counts as a use of it."""
        thing = self._things.get(key)
        if thing is None:
            return None
        if thing.until + self._afterlife <= now:
            self.drop(key)
            return None
        self._things.move_to_end(key)
        return thing

    def keep(self, key: K, thing: V, now: float) -> bool:
        """Put a thing under this key in place of what was there; False when it is larger than the whole shelf."""
        self.drop(key)
        if thing.size > self.max_bytes:
            return False
        self._things[key] = thing
        self.held += thing.size
        self._make_room(now)
        return True

    def drop(self, key: K) -> None:
        """Forget the key."""
        thing = self._things.pop(key, None)
        if thing is not None:
            self.held -= thing.size

    def _make_room(self, now: float) -> None:
        """Push out what no longer fits, and up to two things past their time if they are the next to go anyway."""
        while self.held > self.max_bytes:
            self.drop(next(iter(self._things)))
        for _ in range(2):
            key, thing = next(iter(self._things.items()))
            if thing.until + self._afterlife > now or len(self._things) == 1:
                return
            self.drop(key)


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    until: float
    size: int


_ENTRY = getsizeof(_Entry(b"", 0.0, 0))


class MemoryEntries:
    """Entries in the memory of this process: gone when it ends, seen by no other."""

    def __init__(self, *, max_bytes: int = 64 << 20, clock: Clock | None = None) -> None:
        """Hold at most ``max_bytes`` of keys, values and what keeping them costs."""
        self._clock = clock or SystemClock()
        self._shelf: Shelf[bytes, _Entry] = Shelf(max_bytes)

    def __len__(self) -> int:
        return len(self._shelf)

    @property
    def held(self) -> int:
        """Bytes held now, by the same account as ``max_bytes``."""
        return self._shelf.held

    async def get(self, key: bytes) -> bytes | None:
        """The bytes, unless unknown, expired or evicted."""
        entry = self._shelf.find(key, self._clock.monotonic())
        return None if entry is None else entry.value

    async def set(self, key: bytes, value: bytes, ttl: float) -> None:
        """Keep the bytes for ``ttl`` seconds, or less when room is needed."""
        now = self._clock.monotonic()
        if ttl > 0:
            size = _PLACE + _ENTRY + getsizeof(value) + getsizeof(key)
            self._shelf.keep(key, _Entry(value, now + ttl, size), now)
        else:
            self._shelf.drop(key)

    async def delete(self, key: bytes) -> None:
        """Forget the key."""
        self._shelf.drop(key)


# Stored responses

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
Selection: TypeAlias = tuple[bytes | None, ...]


class Version:
    """One state of a resource, ``current`` until something changes it."""

    __slots__ = ("__weakref__", "current")

    def __init__(self) -> None:
        """Begin."""
        self.current = True


class Stored:
    """A whole response, when it was made (``born``), and until when it is fresh, both on its keeper's clock.

    ``received`` is the time of day it came, ``open_to`` the credentials a request for it may carry, ``selecting``
    the request fields that chose it, and ``version`` the state of the resource it shows, where its keeper minds.
    """

    __slots__ = (
        "body", "born", "headers", "open_to", "received", "selecting", "size", "status", "until", "version",
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        born: float,
        until: float,
        received: float,
        open_to: frozenset[Credential],
        selecting: tuple[bytes, ...] = (),
        version: Version | None = None,
        key: object = (),
    ) -> None:
        """Weigh it, with the key it will stand under."""
        self.status, self.headers, self.body = status, headers, body
        self.born, self.until, self.received = born, until, received
        self.open_to, self.selecting = open_to, selecting
        self.version = version
        self.size = (
            _PLACE
            + (0 if version is None else _VERSION)
            + getsizeof(self)
            + getsizeof(headers)
            + getsizeof(body)
            + weight(key)
        )
        self.size += sum([_PAIR + len(name) + len(value) for name, value in headers])

    def choose(self, headers: Iterable[tuple[bytes, bytes]]) -> "Stored | None":
        """The response for a request with these headers: this one, whatever they are."""
        return self


class Variants:
    """The responses one key has for different requests: which fields select, and what is stored for what they say."""

    __slots__ = ("found", "selecting", "size", "until")

    def __init__(self, selecting: tuple[bytes, ...], found: Mapping[Selection, Stored]) -> None:
        """Weigh them all, with what they were selected by."""
        self.selecting = selecting
        self.found = found
        self.until = max(each.until for each in found.values())
        self.size = _PLACE + getsizeof(self) + getsizeof(found) + weight(selecting)
        self.size += sum(each.size + weight(said) for said, each in found.items())

    def choose(self, headers: Iterable[tuple[bytes, bytes]]) -> Stored | None:
        """The response for a request with these headers, if there is one."""
        return self.found.get(selection(self.selecting, headers))

    def joined_by(self, said: Selection, stored: Stored, *, most: int, max_bytes: int, now: float) -> "Variants":
        """These and one more: stale ones leave, and the oldest while they are too many or too large."""
        found = {other: each for other, each in self.found.items() if other != said and each.until > now}
        found[said] = stored
        joined = Variants(self.selecting, found)
        while len(found) > most or (joined.size > max_bytes and len(found) > 1):
            del found[next(iter(found))]
            joined = Variants(self.selecting, found)
        return joined


Page: TypeAlias = Stored | Variants
"""What stands under one key: one response for every request, or several that a request selects from."""


def weight(thing: object) -> int:
    """Bytes of memory a thing of tuples, text, bytes and None takes."""
    if isinstance(thing, tuple):
        return getsizeof(thing) + sum(map(weight, thing))
    return 0 if thing is None else getsizeof(thing)


# Stored responses as bytes: a mark, a checksum, the length of the description, the description, the bodies

_MARK = b"apim\x01"
_HEAD = struct.Struct(">5s16sI")


def pack(page: Page, identity: bytes) -> bytes:
    """A page as data, bound to the identity of its key."""
    variants = page.found.items() if isinstance(page, Variants) else [((), page)]
    description = {
        "identity": identity.hex(),
        "selecting": [name.decode("latin-1") for name in page.selecting],
        "responses": [_described(said, stored) for said, stored in variants],
    }
    text = json.dumps(description, separators=(",", ":")).encode()
    bodies = b"".join(stored.body for _, stored in variants)
    return _HEAD.pack(_MARK, _checksum(text, bodies), len(text)) + text + bodies


def _described(said: Selection, stored: Stored) -> dict[str, Any]:
    return {
        "said": [None if value is None else value.decode("latin-1") for value in said],
        "status": stored.status,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in stored.headers],
        "times": [stored.born, stored.until, stored.received],
        "open_to": sorted(stored.open_to),
        "length": len(stored.body),
    }


def _checksum(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16, person=b"apim cache")
    for part in parts:
        digest.update(part)
    return digest.digest()


def unpack(data: bytes, identity: bytes) -> Page | None:
    """The page these bytes are; None when they are anything else, or belong to another key."""
    try:
        return _unpacked(data, identity)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, struct.error):
        return None


def _unpacked(data: bytes, identity: bytes) -> Page:
    mark, checksum, length = _HEAD.unpack_from(data)
    text, bodies = data[_HEAD.size : _HEAD.size + length], data[_HEAD.size + length :]
    if mark != _MARK or checksum != _checksum(text, bodies):
        raise ValueError("not a stored response, or not all of it")
    description = json.loads(text)
    if description["identity"] != identity.hex():
        raise ValueError("a stored response of another key")
    selecting = tuple(name.encode("latin-1") for name in description["selecting"])
    found: dict[Selection, Stored] = {}
    for each in description["responses"]:
        end = _whole(each["length"])
        said = tuple(None if value is None else value.encode("latin-1") for value in each["said"])
        found[said], bodies = _revived(each, bodies[:end], selecting), bodies[end:]
    if bodies or not found or any(len(said) != len(selecting) for said in found):
        raise ValueError("stored responses that do not fit their description")
    return Variants(selecting, found) if selecting else found[()]


def _revived(each: Mapping[str, Any], body: bytes, selecting: tuple[bytes, ...]) -> Stored:
    status, open_to = each["status"], frozenset(each["open_to"])
    times = [float(number) for number in each["times"]]
    if status not in STATUSES or len(body) != each["length"] or not open_to <= CREDENTIALS:
        raise ValueError("a stored response that was never stored")
    if not all(map(math.isfinite, times)):
        raise ValueError("a time that is none")
    born, until, received = times
    headers = tuple(raw_headers(_pairs(each["headers"])))
    open_to = CREDENTIALS if open_to == CREDENTIALS else open_to
    return Stored(
        status, headers, body, born=born, until=until, received=received, open_to=open_to, selecting=selecting
    )


def _pairs(headers: Sequence[Sequence[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _whole(number: object) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("not a length")
    return number


def fingerprint(parts: Iterable[str | bytes | None]) -> bytes:
    """Bytes that differ for different parts: 24 of them, made of all."""
    digest = hashlib.blake2b(digest_size=24, person=b"apim cache key")
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"-" if raw is None else b"%d:%b" % (len(raw), raw))
    return digest.digest()
