"""A request to the app in a task of its own: no client's leaving ends it, as long as somebody reads it or it refreshes.

Nothing is held without bound: what may be kept is copied within the room there is for copies; beyond that, and of what
may not be kept, a quarter of a MiB, and the app waits for the slowest reader. Who lags behind for ten seconds is cut
off, so that one cannot hold up all.
"""

import logging
from typing import TYPE_CHECKING

from anyio import CancelScope, Event, move_on_after, sleep_forever

from apim_middleware._caching.flights import Flight, Reader
from apim_middleware._caching.lookup import CacheLookup
from apim_middleware._caching.pages import Stored
from apim_middleware._caching.recordings import Recording
from apim_middleware._http.cache_validation import CONDITIONS, conditions_on, is_of
from apim_middleware._http.keeping import Keeping
from apim_middleware._loops import running_loop, start
from apim_middleware.exchange import KEY, Exchange, KnownBody, ResponseHead
from apim_middleware.types import Message, Scope

if TYPE_CHECKING:
    from apim_middleware._caching.collapsing import Collapsing

log = logging.getLogger("apim_middleware")

_WINDOW = 256 * 1024
_CHUNKS = 4096  # that are held at once: apps choose how small they are
_PATIENCE = 10.0  # seconds the slowest reader may hold up the others
_ITS_OWN = CONDITIONS | {b"range"}
"""What a client asks for itself, and those who read the answer may not have asked."""

_ERRORS = frozenset({500, 502, 503, 504})
"""Statuses that are errors to ``stale-if-error`` (RFC 5861 §4)."""


class Detached(Flight):
    """A request like one that was made, asked for whoever reads the answer."""

    __slots__ = (
        "_agreed", "_base", "_behind", "_coming", "_differs", "_exchange", "_expected", "_held", "_mark", "_moved",
        "_recording", "_scope", "_told", "_unheard", "background", "began", "keeper", "own", "reason", "shared",
    )  # fmt: skip

    def __init__(
        self,
        keeper: "Collapsing",
        exchange: Exchange,
        asked: CacheLookup,
        *,
        refreshes: bool = False,
        after: Flight | None = None,
    ) -> None:
        """Ask what the exchange asks; ``refreshes`` when nobody need wait, ``after`` a flight whose readers follow."""
        super().__init__(asked, running_loop())
        self.keeper, self.background = keeper, refreshes
        self.own: Stored | None = None  # the answer, where it is one that is stored
        self.shared = True
        self.reason: str | None = None  # why a stale response is the answer
        self.began = keeper.monotonic()
        self._exchange = _apart(exchange, asked)
        self._base = self._exchange.scope
        self._recording: Recording | None = None
        self._scope = CancelScope()
        self._held = self._agreed = self._behind = 0
        self._expected = b"" if after is None else b"".join(after.chunks)
        self._coming = set() if after is None else set(after.readers)  # who reads what came before it, as yet
        self._differs = self._told = False
        self._unheard = False  # the answer was to a condition, and tells of nothing that is kept
        self._mark = 0
        self._moved = Event()

    def start(self) -> None:
        """Begin, in a task of its own."""
        start(self._run)

    # who reads it

    def joined(self, reader: Reader) -> None:
        """Somebody reads it from now on."""
        self.readers.add(reader)
        if reader in self._coming:
            self._coming.discard(reader)
        elif reader.at < self._mark:
            self._behind += 1

    def moved(self, reader: Reader) -> None:
        """Somebody has read a chunk; when it was the last who had to, the app may go on."""
        if reader.at == self._mark:
            self._one_less_behind()

    def left(self, reader: Reader) -> None:
        """Somebody reads it no more; when nobody does, nobody need be asked."""
        if reader in self.readers:
            self.readers.discard(reader)
            if reader.at < self._mark:
                self._one_less_behind()
            self._go_on_if_of_use()

    def stays_away(self, reader: Reader) -> None:
        """Somebody who was to come has no need of it."""
        if reader in self._coming:
            self._coming.discard(reader)
            if self._mark:
                self._one_less_behind()
            self._go_on_if_of_use()

    def _one_less_behind(self) -> None:
        self._behind -= 1
        if self._behind == 0:
            self._moved.set()

    def _go_on_if_of_use(self) -> None:
        if not (self.readers or self._coming or self.background or self.over or self.whole):
            self._scope.cancel()

    def tell(self, exchange: Exchange) -> None:
        """Let the exchange of the request it was made for know who called, and who let them in: caches go by that."""
        shared, found = exchange.shared, self._exchange.shared
        shared.principal, shared.subscription, shared.guards = found.principal, found.subscription, found.guards
        shared.rejected = shared.rejected or found.rejected
        scope = self._exchange.scope
        exchange.scope.update({name: scope[name] for name in ("user", "auth") if name in scope})

    def agrees(self, sent: int) -> bool | None:
        """Whether its first bytes are those that somebody has of another response."""
        if self._differs and self._agreed < sent:
            return False
        return True if self._agreed >= sent else False if self.over else None

    # the task

    async def _run(self) -> None:
        error: Exception | None = None
        try:
            with self._scope:
                await self.keeper.at_work_on(self)
        except Exception as caught:
            error = caught
            if self.whole:
                log.error("the app failed after its response", exc_info=caught)
            elif self.background:
                log.error("a stored response could not be refreshed", exc_info=caught)
        finally:
            self.keeper.landed(self)
            if self._recording is not None:
                self._recording.give_up()
            self.end(whole=self.whole, error=error)

    async def ask(self) -> None:
        """Ask the app, and once more without a condition when its answer to that tells of nothing we have."""
        self.asked.started = self.keeper.monotonic()
        try:
            await self.keeper.inner(self._request(), self._receive, self._send)
        except Exception:
            if self.verdict is not None or not self._falls_back("error"):
                raise
        if self._unheard:
            self._unheard, self.asked.stale = False, None
            await self.keeper.inner(self._request(), self._receive, self._send)

    async def _complete(self) -> None:
        """All is here, though the app may still be at work: keep it, and let others find it."""
        if self._recording is not None:
            await self.keeper.keep(self.asked, self._recording)
        await self.keeper.completed(self)

    def answer(self, stored: Stored, reason: str | None = None, *, shared: bool = True) -> None:
        """A stored response is the answer, to whoever reads this or only to whose request was made."""
        self.own, self.shared = stored, shared
        self.verdict = stored
        self.reason, self.whole = reason, True
        self.wake()

    def _request(self) -> Scope:
        """The request that is made: with our condition instead of the client's (RFC 9111 §4.3.1)."""
        scope = self._exchange.scope = dict(self._base)
        lines = [line for line in self.asked.headers if line[0] not in _ITS_OWN]
        if self.asked.stale is not None:
            lines += conditions_on(self.asked.stale.headers)
        scope["headers"], scope[KEY] = lines, self._exchange
        self._told = False
        return scope

    async def _receive(self) -> Message:
        """There is no body, and nobody who leaves."""
        if not self._told:
            self._told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await sleep_forever()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._unheard or self.own is not None:
            return
        if message["type"] == "http.response.start" and self.verdict is None:
            await self._started(ResponseHead(message["status"], message.get("headers") or ()))
        elif message["type"] == "http.response.body" and not self.whole:
            await self._take(message.get("body", b""), not message.get("more_body", False))

    async def _started(self, head: ResponseHead) -> None:
        keeper, asked, stale = self.keeper, self.asked, self.asked.stale
        self.status = head.status
        if stale is not None and head.status == 304:
            if is_of(head.headers, stale.headers):
                await keeper.freshen(self, self._exchange, stale, head)
                await self._complete()
            else:
                self._unheard = True
            return
        if head.status in _ERRORS and self._falls_back("error"):
            return
        self._exchange.response = head
        verdict = keeper.judged(self._exchange, asked, head)
        keeper.strip(head)
        self.own_headers = head.headers
        if isinstance(verdict, Keeping):
            self.headers = verdict.headers
            self._recording = keeper.recording(verdict, head.status, self._exchange)
            self.chunks = self._recording.chunks
        self.verdict = verdict
        self.wake()

    def _falls_back(self, why: str) -> bool:
        stale = self.asked.stale
        if stale is None or not self.keeper.good_on_error(stale, self.asked.wished):
            return False
        self.answer(stale, f"stale-if-{why}")
        return True

    # the body

    async def _take(self, chunk: bytes, last: bool) -> None:
        self._compare(chunk)
        recording = self._recording
        if recording is not None and not recording.given_up:
            recording.tap(chunk, last)
            self._held = recording.size or self._held
        if recording is None or recording.given_up:
            await self._hold(chunk)
        self.whole = last
        self.wake()
        if last:
            await self._complete()

    def _compare(self, chunk: bytes) -> None:
        """Compare with what readers have of another response, as far as they have it."""
        if self._agreed < len(self._expected) and not self._differs:
            expected = self._expected[self._agreed : self._agreed + len(chunk)]
            self._differs = not chunk.startswith(expected)
            self._agreed += 0 if self._differs else len(expected)
            if self._agreed == len(self._expected):
                self._expected = b""
                self._differs = True  # as to whatever else somebody might have

    async def _hold(self, chunk: bytes) -> None:
        """Hold a chunk for those who read, and wait while what is held is too much."""
        if not chunk:
            return
        self._let_go()
        if self.chunks and (self._held + len(chunk) > _WINDOW or len(self.chunks) >= _CHUNKS):
            await self._wait_for_readers()
        self.chunks.append(chunk)
        self._held += len(chunk)

    def _let_go(self) -> None:
        """Let go of what everybody has read."""
        if self._coming:
            return
        low = min((reader.at for reader in self.readers), default=self.first + len(self.chunks))
        if low > self.first:
            self._held -= sum(map(len, self.chunks[: low - self.first]))
            del self.chunks[: low - self.first]
            self.first = low

    async def _wait_for_readers(self) -> None:
        """Wait until everybody has read half of what is held; cut off who takes too long."""
        self.wake()
        self._mark = self.first + (len(self.chunks) + 1) // 2
        self._behind = sum(reader.at < self._mark for reader in self.readers) + len(self._coming)
        self._moved = Event()
        while self._behind:
            with move_on_after(_PATIENCE) as waiting:
                await self._moved.wait()
            if waiting.cancelled_caught and self._behind < len(self.readers) + len(self._coming):
                self._cut_off()
        self._mark = 0
        self._let_go()

    def _cut_off(self) -> None:
        """Go on without those who hold up others: they will find nothing more to read."""
        self.readers = {reader for reader in self.readers if reader.at >= self._mark}
        self._coming.clear()
        self._behind = 0


def _apart(exchange: Exchange, asked: CacheLookup) -> Exchange:
    """The exchange of a request that goes its own way: what is known of the caller, but none of the outcomes."""
    scope: Scope = dict(exchange.scope)
    scope["method"], scope["headers"] = "GET", list(asked.headers)  # HEAD may be answered from what is kept of GET
    extensions = scope.get("extensions") or {}
    scope["extensions"] = {name: each for name, each in extensions.items() if not name.startswith("http.response.")}
    scope.pop(KEY, None)
    if isinstance(scope.get("state"), dict):
        scope["state"] = dict(scope["state"])
    apart, known = Exchange(scope), exchange.shared
    shared = apart.shared
    shared.clean, shared.guards, shared.forwarded = True, asked.guards, known.forwarded
    shared.principal, shared.subscription = asked.principal, asked.subscription
    shared.match = known.match  # where a gateway further out sends it
    shared.body = None if known.body is None else KnownBody(b"", told=True)
    shared.attributes = dict(known.attributes)
    return apart
