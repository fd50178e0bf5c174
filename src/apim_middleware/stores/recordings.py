"""Copies of response bodies on their way: what is kept is what was sent, whole, and nothing grows without bound."""

from apim_middleware._http.keeping import Keeping
from apim_middleware.stores.pages import Stored
from apim_middleware.stores.versions import Version
from apim_middleware.types import RawHeaders


class Room:
    """Room for the bodies that are being copied, so that slow ones cannot pile up: for each, and for all together."""

    __slots__ = ("_all", "_each", "taken")

    def __init__(self, each: int, together: int) -> None:
        """Bytes for one response, and for all of them."""
        self._each, self._all = each, together
        self.taken = 0

    def fits(self, headers: RawHeaders) -> bool:
        """Whether a response with these headers could fit, by the length it announces."""
        announced = 0
        for name, value in headers:
            if name == b"content-length":
                announced = int(value) if value.isdigit() and len(value) < 20 else 0
                break
        return announced + size_of(headers) <= self._each

    def take(self, size: int, *, after: int) -> bool:
        """Take so much more for one that has taken some already, if there is as much."""
        if after + size > self._each or self.taken + size > self._all:
            return False
        self.taken += size
        return True


class Recording:
    """Copies a response body as it passes, while there is room."""

    __slots__ = ("_copied", "_head_size", "_room", "_whole", "born", "keeping", "received", "status")

    def __init__(self, room: Room, keeping: Keeping, *, status: int, now: float, received: float) -> None:
        """Begin when the head is known: ``now`` on the clock of whoever keeps it, ``received`` the time of day."""
        self._room = room
        self._head_size = size_of(keeping.headers)
        self._copied: bytes | bytearray | None = b""
        self._whole = False
        self.status, self.keeping = status, keeping
        self.born, self.received = now - keeping.age, received

    def tap(self, chunk: bytes, last: bool) -> bytes:
        """Copy a chunk, and let go of everything when it becomes too much."""
        copied = self._copied
        if copied is not None:
            self._whole = last
            if not self._room.take(len(chunk), after=self._head_size + len(copied)):
                self.give_up()
            elif not copied:
                self._copied = bytes(chunk)  # the whole body as a rule, which then is not copied at all
            elif isinstance(copied, bytearray):
                copied += chunk
            else:
                self._copied = bytearray(copied) + chunk
        return chunk

    def give_up(self) -> None:
        """Let go of what was copied."""
        if self._copied is not None:
            self._room.taken -= len(self._copied)
            self._copied = None

    def body(self) -> bytes | None:
        """The body, if all of it passed: as much as Content-Length says, and none where there can be none."""
        if self._copied is None or not self._whole or (self.status == 204 and self._copied):
            return None
        announced = [value for name, value in self.keeping.headers if name == b"content-length"]
        return None if announced and announced != [b"%d" % len(self._copied)] else bytes(self._copied)

    def stored(self, *, key: object, version: Version | None) -> Stored | None:
        """The response as it may be given to others, if all of it passed."""
        body = self.body()
        if body is None:
            return None
        keeping, headers = self.keeping, self.keeping.headers
        if self.status != 204 and b"content-length" not in dict(headers):
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        return Stored(
            self.status, headers, body,
            born=self.born, until=self.born + keeping.lifetime, received=self.received,
            open_to=keeping.open_to, selecting=keeping.selecting, version=version, key=key,
        )  # fmt: skip


def size_of(headers: RawHeaders | tuple[tuple[bytes, bytes], ...]) -> int:
    """Bytes of text in header lines."""
    return sum([len(name) + len(value) for name, value in headers])
