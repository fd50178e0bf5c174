"""One request to the app for several clients: the response as it comes, and who reads it.

A response is read from the copy that is made of it anyway. The first request for a resource passes on as it would
alone, and only what waits for it makes a flight of it (``Led``); a flight of its own task (``Detached``, next door)
takes over where the first leaves, fails, stalls or is larger than what may be copied.
"""

from typing import TypeAlias

from anyio import Event, move_on_after

from apim_middleware._caching.lookup import CacheLookup
from apim_middleware._caching.pages import Headers, Stored
from apim_middleware._caching.recordings import Listener, Recording
from apim_middleware._http.keeping import Keeping
from apim_middleware.exchange import Exchange
from apim_middleware.types import RawHeaders

Verdict: TypeAlias = Keeping | Stored | str
"""How the response may be given to others: as it comes, as one that is stored, or not at all, and why."""

_SAME = frozenset(b"etag last-modified content-type content-encoding content-length content-language".split())


class Flight(Listener):
    """A response on its way: what it is, as much of its body as is held, and whether it is over."""

    __slots__ = (
        "_change",
        "asked",
        "chunks",
        "error",
        "first",
        "headers",
        "home",
        "over",
        "own_headers", "readers",
        "status",
        "successor",
        "verdict",
        "whole",
    )  # fmt: skip

    shared = True
    """Whether anybody may have the stored response it came to."""

    patience: float | None = None
    """Seconds a reader waits for the next change; None: as long as it takes."""

    def __init__(self, asked: CacheLookup, home: object) -> None:
        """Nothing is known yet but what was asked."""
        self.asked = asked
        self.home = home  # the event loop its readers run on
        self.verdict: Verdict | None = None
        self.status = 0
        self.headers: Headers = ()  # as others may see them
        self.own_headers: RawHeaders = []  # as the request sees them that was made
        self.chunks: list[bytes] = []
        self.first = 0  # the number of the first chunk that is held
        self.over = self.whole = False
        self.error: Exception | None = None
        self.successor: Flight | None = None
        self.readers: set[Reader] = set()
        self._change = Event()

    def wake(self) -> None:
        """Let everybody look who waits."""
        change, self._change = self._change, Event()
        change.set()

    async def change(self) -> bool:
        """Wait until something has changed; False when that took too long."""
        change = self._change
        if self.patience is None:
            await change.wait()
            return True
        with move_on_after(self.patience) as waiting:
            await change.wait()
        return not waiting.cancelled_caught

    async def judged(self) -> bool:
        """Wait until it is known what the response is; False when that took too long, or will never be."""
        while self.verdict is None and not self.over:
            if not await self.change():
                return False
        return self.verdict is not None

    def ready(self, number: int) -> bytes | None:
        """The chunk of this number, if it is here."""
        place = number - self.first
        return self.chunks[place] if 0 <= place < len(self.chunks) else None

    def tell(self, exchange: Exchange) -> None:
        """Let the exchange of the request it was made for know what was found out of the caller on the way."""

    def agrees(self, sent: int) -> bool | None:
        """Whether it goes on from so many bytes that somebody has of another response; None when not known yet."""
        return sent == 0

    def joined(self, reader: "Reader") -> None:
        """Somebody reads it from now on."""

    def moved(self, reader: "Reader") -> None:
        """Somebody has read a chunk."""

    def left(self, reader: "Reader") -> None:
        """Somebody reads it no more."""

    def stays_away(self, reader: "Reader") -> None:
        """Somebody who was to come has no need of it."""

    def end(self, *, whole: bool, error: Exception | None = None) -> None:
        """Nothing more will come."""
        self.over, self.whole, self.error = True, whole, error
        self.wake()

    def looks_like(self, status: int, headers: Headers) -> bool:
        """Whether the head is that of the same representation, as far as a head tells."""
        return status == self.status and _looks(headers) == _looks(self.headers)


class Reader:
    """Where somebody stands in a flight."""

    __slots__ = ("at", "sent", "skip")

    def __init__(self) -> None:
        """At the beginning."""
        self.at = 0  # the number of the next chunk
        self.sent = 0  # bytes that were sent on
        self.skip = 0  # bytes still to come that were sent from another flight

    def begin(self) -> None:
        """Begin a flight, with what was sent before behind oneself."""
        self.at, self.skip = 0, self.sent

    def rest(self, chunk: bytes) -> bytes:
        """What of a chunk was not sent yet."""
        if not self.skip:
            return chunk
        known = min(self.skip, len(chunk))
        self.skip -= known
        return chunk[known:]


class Led(Flight):
    """The response to a request that passes on as it would alone: others read the copy that is made of it."""

    __slots__ = ("patience",)

    def __init__(self, asked: CacheLookup, home: object, patience: float) -> None:
        """Wait for changes no longer than this, for its client may be slow, or worse."""
        super().__init__(asked, home)
        self.patience = patience

    def joined(self, reader: Reader) -> None:
        """Somebody reads it from now on."""
        self.readers.add(reader)

    def left(self, reader: Reader) -> None:
        """Somebody reads it no more, nor what takes over unless they have joined that."""
        self.readers.discard(reader)
        if self.successor is not None:
            self.successor.stays_away(reader)

    def copies(self, recording: Recording) -> None:
        """The response may be kept, and is being copied."""
        self.verdict, self.status, self.headers = recording.keeping, recording.status, recording.keeping.headers
        self.chunks = recording.chunks  # as far as it comes: who gives up begins another list
        if recording.given_up:
            self.end(whole=False)
            return
        recording.flight = self
        self.wake()


def _looks(headers: Headers) -> list[tuple[bytes, bytes]]:
    return sorted(pair for pair in headers if pair[0] in _SAME)
