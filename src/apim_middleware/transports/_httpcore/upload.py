"""The request body on its way up."""

from collections.abc import AsyncIterable, AsyncIterator

import anyio.abc

from apim_middleware.errors import TransportError
from apim_middleware.transports._httpcore.wire import Wire


class Whole:
    """A request body that is there; the library's own would be a generator, which trio misses when it is forgotten."""

    def __init__(self, body: bytes) -> None:
        """All of it is one part."""
        self._parts = [body] if body else []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


class Upload:
    """The request body on its way, which stops when the answer is there before its end."""

    def __init__(self, body: AsyncIterable[bytes], length: int | None, wire: Wire, tasks: anyio.abc.TaskGroup) -> None:
        """``tasks`` is where the answer is listened for while the body goes up."""
        self._chunks = aiter(body)
        self._left = length
        self._wire = wire
        self._tasks: anyio.abc.TaskGroup | None = tasks

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._tasks is not None and not self._wire.bare:
            self._wire.listen(self._tasks)
        self._tasks = None
        return self

    async def __anext__(self) -> bytes:
        chunk: bytes | None = b""
        while not chunk:
            if self._left == 0:  # all is sent, so an answer is no reason to miss the end
                chunk = await anext(self._chunks, None)
            else:
                with self._wire.unless_answered():
                    chunk = await anext(self._chunks, None)
            if chunk is None:
                break
        if self._left is not None:
            self._left -= len(chunk or b"")
            if self._left < 0 or (self._left and chunk is None):
                raise TransportError("the request body is not as long as announced")
        if chunk is None:
            raise StopAsyncIteration
        return chunk
