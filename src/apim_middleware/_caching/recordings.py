"""Copies of response bodies on their way: what is kept is what was sent, whole, and nothing grows without bound."""

from abc import ABC, abstractmethod

from apim_middleware._caching.pages import Stored
from apim_middleware._caching.versions import Version
from apim_middleware._http.keeping import Keeping
from apim_middleware.types import RawHeaders

_FREE, _OVERHEAD = 1024, 64
"""Chunks beyond so many take room for what Python needs to hold each: apps choose how small they are."""


class Room:
    """Room for the bodies that are being copied, so that slow ones cannot pile up: for each, and for all together."""

    __slots__ = ("_all", "each", "taken")

    def __init__(self, each: int, together: int) -> None:
        """Bytes for one response, and for all of them."""
        self.each, self._all = each, together
        self.taken = 0

    def fits(self, headers: RawHeaders) -> bool:
        """Whether a response with these headers could fit, by the length it announces."""
        announced = 0
        for name, value in headers:
            if name == b"content-length":
                announced = int(value) if value.isdigit() and len(value) < 20 else 0
                break
        return announced + size_of(headers) <= self.each

    def take(self, size: int, *, after: int) -> bool:
        """Take so much more for one that has taken some already, if there is as much."""
        if after + size > self.each or self.taken + size > self._all:
            return False
        self.taken += size
        return True


class Recording:
    """Copies a response body as it passes, while there is room."""

    __slots__ = (
        "_after", "_head_size", "_room", "_taken", "_whole", "born", "chunks", "flight", "given_up", "keeping",
        "received", "size", "status",
    )  # fmt: skip

    def __init__(
        self, room: Room, keeping: Keeping, *, status: int, now: float, received: float, after: float = 0.0
    ) -> None:
        """Begin when the head is known: ``now`` on the clock of whoever keeps it, ``received`` the time of day.

        ``after`` is how many seconds past its time it is kept at least.
        """
        self._room = room
        self._head_size = size_of(keeping.headers)
        self._after = after
        self.chunks: list[bytes] = []
        self.size = self._taken = 0
        self._whole = self.given_up = False
        self.flight: Listener | None = None
        self.status, self.keeping = status, keeping
        self.born, self.received = now - keeping.age, received

    def tap(self, chunk: bytes, last: bool) -> bytes:
        """Copy a chunk, and let go of everything when it becomes too much."""
        if not self.given_up:
            self._whole = last
            if chunk:
                self._keep(bytes(chunk))  # no copy, as a rule
            if self.flight is not None:
                self.flight.wake()
        return chunk

    def _keep(self, chunk: bytes) -> None:
        cost = len(chunk) + (_OVERHEAD if len(self.chunks) >= _FREE else 0)
        if self._room.take(cost, after=self._head_size + self._taken):
            self.chunks.append(chunk)
            self.size += len(chunk)
            self._taken += cost
        else:
            self.give_up()

    def give_up(self) -> None:
        """Let go of what was copied; who reads it holds it still."""
        if not self.given_up:
            self._room.taken -= self._taken
            self.chunks, self.given_up = [], True

    def body(self) -> bytes | None:
        """The body, if all of it passed: as much as Content-Length says, and none where there can be none."""
        if self.given_up or not self._whole or (self.status == 204 and self.size):
            return None
        announced = [value for name, value in self.keeping.headers if name == b"content-length"]
        return None if announced and announced != [b"%d" % self.size] else b"".join(self.chunks)

    def stored(self, *, key: object, version: Version | None) -> Stored | None:
        """The response as it may be given to others, if all of it passed."""
        body = self.body()
        if body is None:
            return None
        keeping, headers = self.keeping, self.keeping.headers
        if self.status != 204 and b"content-length" not in dict(headers):
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        return stored_as(
            keeping, self.status, headers, body,
            born=self.born, received=self.received, after=self._after, key=key, version=version,
        )  # fmt: skip


class Listener(ABC):
    """Whoever reads a recording while it grows."""

    __slots__ = ()

    @abstractmethod
    def wake(self) -> None:
        """Something has changed."""


def stored_as(
    keeping: Keeping,
    status: int,
    headers: tuple[tuple[bytes, bytes], ...],
    body: bytes,
    *,
    born: float,
    received: float,
    after: float,
    key: object,
    version: Version | None,
) -> Stored:
    """A whole response, as it may be kept."""
    fresh = born + keeping.lifetime
    return Stored(
        status, headers, body,
        born=born, fresh=fresh, received=received,
        until=fresh + max(after, keeping.while_revalidate, keeping.if_error),
        open_to=keeping.open_to, selecting=keeping.selecting, while_revalidate=keeping.while_revalidate,
        if_error=keeping.if_error, strict=keeping.strict, tags=keeping.tags, version=version, key=key,
    )  # fmt: skip


def size_of(headers: RawHeaders | tuple[tuple[bytes, bytes], ...]) -> int:
    """Bytes of text in header lines."""
    return sum([len(name) + len(value) for name, value in headers])
