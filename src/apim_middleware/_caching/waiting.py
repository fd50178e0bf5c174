"""A request that waits for the answer to another one like it, and reads it as it comes."""

from typing import TYPE_CHECKING

from apim_middleware._caching.answers import is_known
from apim_middleware._caching.detached import Detached
from apim_middleware._caching.flights import Flight, Reader
from apim_middleware._caching.lookup import CacheLookup
from apim_middleware._caching.pages import Headers, Stored
from apim_middleware._http.freshness import not_modified_fields
from apim_middleware._http.keeping import Keeping
from apim_middleware.errors import ApimError
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.types import Message, RawHeaders, Receive, Scope, Send

if TYPE_CHECKING:
    from apim_middleware._caching.collapsing import Collapsing


FAILURE = 500
"""The least status that says the app is in trouble, and nothing of whom its responses are for."""


class BrokenOff(ApimError):
    """The response that several clients were reading ended before it was whole."""


class Waiting:
    """The answer to a request while the app is at work on another one like it, as an ASGI app."""

    __slots__ = ("_asked", "_exchange", "_flight", "_given", "_keeper", "_reader", "_send")

    def __init__(self, keeper: "Collapsing", exchange: Exchange, asked: CacheLookup, flight: Flight) -> None:
        """Wait for this flight at first."""
        self._keeper, self._exchange, self._asked, self._flight = keeper, exchange, asked, flight
        self._reader = Reader()
        self._given: tuple[int, Headers] | None = None  # status and fields the client has already

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the flight, and those that take over from it, or ask the app after all."""
        self._send = send
        if not await self._is_answered():
            await self._alone(scope, receive)

    async def _is_answered(self) -> bool:
        """Read one flight after the other until the request is answered, or none is of use."""
        self._flight.joined(self._reader)
        try:
            while isinstance(found := await self._follow(self._flight), Flight):
                self._reader.begin()
                found.joined(self._reader)  # before the other is left, so that it waits for us
                self._flight.left(self._reader)
                self._flight = found
            return found
        finally:
            self._flight.left(self._reader)

    # one flight: the next one to follow, or whether the request is answered

    async def _follow(self, flight: Flight) -> Flight | bool:
        if not await flight.judged():
            return self._next(flight)
        verdict = flight.verdict
        if self._is_mine(flight):
            flight.tell(self._exchange)
        else:
            if isinstance(verdict, str) and flight.status >= FAILURE:
                return await self._fail(flight, verdict)
            if not isinstance(verdict, Keeping | Stored) or not flight.shared:
                self._keeper.disappointed(self._asked)
                return self._unshared()
            if not self._keeper.open_to(self._asked, verdict):
                return self._unshared()
            if not self._keeper.selected_alike(self._asked, flight.asked, verdict):
                return self._is_new and self._keeper.flight_of(self._exchange, self._asked, verdict.selecting)
        if isinstance(verdict, Stored):
            return await self._give(flight, verdict)
        return await self._read(flight, verdict)

    async def _fail(self, flight: Flight, verdict: str) -> Flight | bool:
        """The app is in trouble: it is asked once more for all, and what it says then is for all who may have it."""
        if not isinstance(flight, Detached):
            return self._next(flight)
        headers = self._keeper.failure_for(self._asked, flight) if self._is_new else None
        if headers is None:
            return self._unshared()
        flight.headers = headers
        return await self._read(flight, verdict)

    def _is_mine(self, flight: Flight) -> bool:
        """Whether it is our own request that was made, so that whatever comes is for us."""
        return flight.asked is self._asked

    @property
    def _is_new(self) -> bool:
        return self._given is None

    def _unshared(self) -> bool:
        """The response is for others: ask the app, unless half of another one has been given."""
        if not self._is_new:
            raise BrokenOff("what took over is not for everybody")
        return False

    def _next(self, flight: Flight) -> Flight | bool:
        """Who takes over from a flight that failed, stalls, or cannot be copied any further."""
        if not isinstance(flight, Detached):
            return self._keeper.successor(flight, self._exchange, self._asked)
        if flight.error is not None and self._is_mine(flight) and self._is_new:
            raise flight.error
        if flight.error is not None or not self._is_new:
            raise BrokenOff("the app failed while several waited for its answer") from flight.error
        return False

    # its answer

    async def _give(self, flight: Flight, stored: Stored) -> bool:
        if not self._is_new:
            raise BrokenOff("what took over is another response")
        app = self._keeper.given(self._exchange, self._asked, flight, stored, collapsed=not self._is_mine(flight))
        await app(self._exchange.scope, _nothing, self._send)
        return True

    async def _read(self, flight: Flight, verdict: Keeping | str | None) -> Flight | bool:
        headers = tuple(flight.own_headers) if self._is_mine(flight) else flight.headers
        if self._is_new:
            if isinstance(verdict, Keeping) and flight.status == 200 and self._has(headers):
                await self._begin(flight, 304, not_modified_fields(headers), verdict)
                await self._body(b"", more=False)
                return True
            await self._begin(flight, flight.status, headers, verdict)
        elif not (flight.looks_like(*(self._given or (0, ()))) and await self._goes_on(flight)):
            raise BrokenOff("what took over is another response")
        return await self._chunks(flight)

    def _has(self, headers: Headers) -> bool:
        return is_known(self._exchange, headers, self._keeper.now())

    async def _goes_on(self, flight: Flight) -> bool:
        while (agrees := flight.agrees(self._reader.sent)) is None:
            await flight.change()
        return agrees

    async def _begin(self, flight: Flight, status: int, headers: Headers, verdict: Keeping | str | None) -> None:
        mine = self._is_mine(flight)
        if isinstance(verdict, Keeping) and flight.status == status:
            self._given = (status, headers)
        else:
            self._given = (status, ())
        lines: RawHeaders = list(headers)
        if isinstance(verdict, Keeping) and not mine:
            lines.append((b"age", b"%d" % max(0.0, verdict.age)))
        outcome = verdict if isinstance(verdict, str) else "stored" if mine else None
        lines.append(self._keeper.told(self._asked, outcome, collapsed=not mine))
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    async def _chunks(self, flight: Flight) -> Flight | bool:
        reader = self._reader
        while True:
            chunk = flight.ready(reader.at)
            if chunk is not None:
                rest = reader.rest(chunk)
                if rest:
                    await self._body(rest, more=True)
                    reader.sent += len(rest)
                reader.at += 1
                flight.moved(reader)
            elif reader.at < flight.first:
                raise BrokenOff("the client was too slow for what others wait for")
            elif flight.whole:
                await self._body(b"", more=False)
                return True
            elif flight.over or not await flight.change():
                return self._next(flight)

    async def _body(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _alone(self, scope: Scope, receive: Receive) -> None:
        """Ask the app for ourselves, and keep nothing: who passes here next will."""
        keeper, asked, send = self._keeper, self._asked, self._send

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                head = ResponseHead(message["status"], message.get("headers") or ())
                keeper.strip(head)
                head.headers.append(keeper.told(asked, "not-shared", collapsed=False))
                message = {**message, "headers": head.headers}
            await send(message)

        await keeper.inner(scope, receive, tell)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
