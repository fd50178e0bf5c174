"""A request body that can go up more than once, as long as it is small."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeAlias

from apim_middleware._loops import running_loop
from apim_middleware.bodies import Collected

Body: TypeAlias = bytes | AsyncIterable[bytes] | None


class KeptBody:
    """A body that is kept as it comes, up to a size; every iteration begins with what came before, in one chunk.

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
        self._kept = Collected()
        self._most = most

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

    def after(self, number: int) -> bytes:
        """What is there behind so many bytes."""
        return self._kept.after(number)

    async def more(self) -> bytes:
        """The next chunk that comes, which is kept if there is room."""
        self._waits = True
        chunk = await self._comes()
        self._waits = False
        if chunk is None:
            raise StopAsyncIteration
        if self.whole and len(self._kept) + len(chunk) <= self._most:
            self._kept.add(chunk)
        elif self.whole:
            self.whole, self._kept = False, Collected()
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
        self._body, self._told = body, 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = self._body.after(self._told) or await self._body.more()
        self._told += len(part)
        return part


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
