"""One exchange on a connection, seen by the task that made it: it waits, it is told, it reads the response.

The connection and the exchange have to do with each other only while the response comes in. Once it is there to its
end, the connection carries the next one, whether or not this one was read.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from apim_middleware.errors import TransportError
from apim_middleware.types import RawHeaders


class Line(Protocol):
    """The connection, as the exchange on it sees it."""

    def expect_within(self, seconds: float | None) -> asyncio.Future[None]:
        """What to wait for; the exchange fails with UpstreamTimeout when it takes longer."""
        ...

    def go_on(self) -> None:
        """What has come of the body was taken: there is room for more."""
        ...

    def abort(self) -> None:
        """Close the connection now."""
        ...


class Answer:
    """The response: the head is known, the body flows when iterated."""

    __slots__ = (
        "_error", "_line", "_waiter", "begun", "headers", "hints", "index", "interrupted", "latest", "length", "method",
        "parts", "read", "sent", "status", "trailers", "uploader",
    )  # fmt: skip

    begun: bool
    """Whether the head is known, and with it ``status``, ``latest``, ``headers``, ``index`` and ``length``."""
    status: int
    latest: bool
    """Whether it is of HTTP/1.1, not of HTTP/1.0."""
    headers: RawHeaders
    index: dict[bytes, bytes]
    """``dict`` of the lines as they came: names are tokens in lower case, no value holds a control character."""
    length: int | None
    """How long the body is; None when the head does not say."""
    parts: list[bytes]
    """What has come of the body and was not read."""
    trailers: Sequence[tuple[bytes, bytes]]
    """What came behind the body; there when the body has come to its end."""
    hints: list[RawHeaders] | None
    """The lines of early hints that were not passed on; None when nobody wants them."""
    sent: bool
    """Whether the request was sent to its end."""
    uploader: asyncio.Task[object] | None
    """The task of the exchange, while it waits for more of the request's body."""
    interrupted: bool
    """Whether that waiting was broken off; there once it has begun."""
    _line: Line | None
    _waiter: asyncio.Future[None] | None
    _error: TransportError | None

    def __init__(self, line: Line, method: str, read: float | None) -> None:
        """An exchange begins; ``read`` is in seconds, for each wait on the body."""
        self.method, self.read = method, read
        self.begun = self.sent = False
        self.parts, self.trailers = [], ()
        self.hints = self.uploader = None
        self._line = line
        self._waiter = self._error = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self.parts:
            if self._line is None:
                error, self._error = self._error, None
                try:
                    raise error or StopAsyncIteration
                finally:
                    del error  # else its traceback and this frame hold each other, and the bodies with them
            try:
                await self.news(self.read)
            except BaseException:
                await self.aclose()
                raise
        parts, self.parts = self.parts, []
        if self._line is not None:
            self._line.go_on()
        return b"".join(parts)

    def whole(self) -> bytes | None:
        """What there is to read of the body when all of it has come, which is then read; else None."""
        if self._line is not None or self._error is not None:
            return None
        parts, self.parts = self.parts, []
        return b"".join(parts)

    async def aclose(self) -> None:
        """Close the connection, unless the exchange is over: then it has gone back already."""
        line, self._line = self._line, None
        self.parts, self._error = [], None
        if line is not None:
            line.abort()

    # Between the connection and the task of the exchange

    def news(self, seconds: float | None) -> "asyncio.Future[None]":
        """Done when there is something new; the exchange fails with UpstreamTimeout when that takes longer.

        Raises what went wrong before.
        """
        if self._line is None:
            raise self._error or RuntimeError("nothing more will come")
        self._waiter = waiter = self._line.expect_within(seconds)
        return waiter

    def check(self) -> None:
        """Raise what went wrong, unless it did so after the head: then it comes after what there is of the body."""
        if self._error is not None and not self.begun:
            raise self._error

    def wake(self) -> None:
        """There is something new. The answer, or the end, breaks the waiting for the request's body off as well."""
        waiter = self._waiter
        if self.uploader is not None and (self.begun or self._line is None):
            uploader, self.uploader, self.interrupted = self.uploader, None, True
            uploader.cancel()
        elif waiter is not None and not waiter.done():
            waiter.set_result(None)

    def hint(self, lines: RawHeaders) -> None:
        """Early hints have come. Who still sends the request goes on with that."""
        if self.hints is None:
            return
        self.hints.append(lines)
        if self.sent and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, error: TransportError | None = None) -> None:
        """Nothing more will come, because all is there or because of an error: part with the connection."""
        self._line, self._error = None, error
        self.wake()
