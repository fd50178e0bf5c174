"""The response: the head is known, the body flows when iterated."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import suppress

import anyio

from apim_middleware.errors import UpstreamBroken
from apim_middleware.transports._framing import body_of, length_of
from apim_middleware.transports._httpcore.core import Core, Response
from apim_middleware.transports._httpcore.wire import Reach, Wire
from apim_middleware.transports._strictness import MAX_FIELDS
from apim_middleware.types import RawHeaders


class Answer:
    """A response, and the connection it comes on until it is closed."""

    def __init__(self, core: Core, response: Response, wire: Wire, release: Callable[[], Awaitable[None]]) -> None:
        """Raises UpstreamBroken for a head that may not be."""
        self.status = response.status
        self.latest = response.extensions.get("http_version") != b"HTTP/1.0"
        self.headers: RawHeaders = [(name.lower(), value) for name, value in response.headers]
        if not 200 <= self.status <= 599:
            raise UpstreamBroken(f"the upstream answered with status {self.status}")
        if len(self.headers) > MAX_FIELDS:  # of HTTP/2
            raise UpstreamBroken("the response head has more lines than allowed")
        self._core = core
        self._response = response
        self._wire = wire
        self._release: Callable[[], Awaitable[None]] | None = release
        self._chunks: AsyncIterator[bytes] | None = None
        self._over = self._broken = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        if self._chunks is None:
            self._chunks = aiter(_stream(self._response))
        try:
            with self._core.border():
                return await anext(self._chunks)
        except BaseException as error:
            self._over = True
            self._broken = not isinstance(error, StopAsyncIteration)
            raise

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        release, self._release = self._release, None
        if release is None:
            return
        with anyio.CancelScope(shield=True):
            if self._chunks is not None and not self._over:
                await self._break_off(self._chunks)
            if self._broken:  # over HTTP/2 the connection would look as good as before
                await self._wire.aclose()
            await self._response.aclose()
            await release()

    async def _break_off(self, chunks: AsyncIterator[bytes]) -> None:
        """End the generators of the library from within: left to the collector, trio warns of each."""
        self._over = True
        await self._wire.aclose()
        with suppress(UpstreamBroken, *self._core.broken):
            async for _ in chunks:
                pass


def _stream(response: Response) -> AsyncIterable[bytes]:
    if not isinstance(response.stream, AsyncIterable):
        raise UpstreamBroken("the response has no body to read")
    return response.stream


def reach_of(method: str, answer: Answer) -> Reach:
    """How far a response reaches, by its head (RFC 9112 §6.3). Raises UpstreamBroken when that is ambiguous."""
    index = dict(answer.headers)
    body = body_of(length_of(method, answer.status, answer.headers, index, latest=answer.latest), index)
    return lambda data: body.take(data, [])
