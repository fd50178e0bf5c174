"""A request body that can go up more than once, as long as it is small."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeAlias

from apim_middleware._loops import running_loop

Body: TypeAlias = bytes | AsyncIterable[bytes] | None


class KeptBody:
    """Chunks that are kept when they come, up to a size; every iteration begins with those that came before.

    One iteration goes on at a time. ``whole`` is whether all that has come is still there.

    An iteration may be broken off while it waits; what it waited for comes in the next one. On asyncio the source
    itself is never broken off until ``leave``: some servers lose what they have in hand when their ``receive`` is.
    """

    def __init__(self, body: AsyncIterable[bytes], most: int) -> None:
        """Keep at most so many bytes."""
        self.whole = True
        self._waits = False
        self._source = aiter(body)
        self._coming: asyncio.Task[bytes | None] | None = None
        self._parts: list[bytes] = []
        self._room = most

    def __aiter__(self) -> AsyncIterator[bytes]:
        if not self.whole:
            raise RuntimeError("some of the body is gone")
        return _Pass(self)

    @property
    def awaited(self) -> bool:
        """Whether it is the sender that everybody waits for, or waited for when the last iteration was left."""
        return self._waits and not (self._coming is not None and self._coming.done())

    def begin(self) -> None:
        """Another try begins: nobody waits for the sender in it so far."""
        self._waits = False

    def part(self, number: int) -> bytes | None:
        """A chunk that is there; None when it has yet to come."""
        return self._parts[number] if number < len(self._parts) else None

    async def more(self) -> bytes:
        """The next chunk that comes, which is kept if there is room."""
        self._waits = True
        chunk = await self._comes()
        self._waits = False
        if chunk is None:
            raise StopAsyncIteration
        self._room -= len(chunk)
        if self._room < 0:
            self.whole, self._parts = False, []
        elif self.whole:
            self._parts.append(chunk)
        return chunk

    def leave(self) -> None:
        """Nobody reads on, so others may read from where the source does."""
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.cancel()

    async def _comes(self) -> bytes | None:
        loop = running_loop()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            return await self._next()
        coming = self._coming
        if coming is None:
            coming = self._coming = loop.create_task(self._next())
            coming.add_done_callback(_seen)
        await asyncio.wait([coming])
        self._coming = None
        return coming.result()

    async def _next(self) -> bytes | None:
        return await anext(self._source, None)


def _seen(coming: asyncio.Task[bytes | None]) -> None:
    """An error that nobody asks for any more is no news."""
    if not coming.cancelled():
        coming.exception()


class _Pass:
    def __init__(self, body: KeptBody) -> None:
        self._body, self._next = body, 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = self._body.part(self._next)
        self._next += 1
        return await self._body.more() if part is None else part


def kept(body: Body, most: int) -> Body:
    """The body as it can be sent again."""
    return KeptBody(body, most) if isinstance(body, AsyncIterable) else body


def leave(body: Body) -> None:
    """Nobody reads on."""
    if isinstance(body, KeptBody):
        body.leave()


def is_whole(body: Body, most: int, *, begun: bool) -> bool:
    """Whether it can be sent again; ``begun`` is whether any of it may have been sent.

    One that came at once is still there, but it is no more to be kept than one that came in parts.
    """
    if isinstance(body, KeptBody):
        return body.whole
    return not (begun and isinstance(body, bytes) and len(body) > most)


def begin(body: Body) -> None:
    """A try begins, of which it may be asked whether it waited for the sender."""
    if isinstance(body, KeptBody):
        body.begin()


def is_awaited(body: Body) -> bool:
    """Whether it was the sender of the body that was waited for."""
    return isinstance(body, KeptBody) and body.awaited
