"""One connection to one origin, in the hands of one exchange at a time."""

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeAlias

import anyio

from apim_middleware._http.headers import get
from apim_middleware.errors import UpstreamBroken
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._httpcore.answer import Answer, reach_of
from apim_middleware.transports._httpcore.core import Connection, Core, Response
from apim_middleware.transports._httpcore.upload import Upload, Whole
from apim_middleware.transports._httpcore.wire import Wire
from apim_middleware.transports._origins import parsed
from apim_middleware.transports._requests import framing
from apim_middleware.types import RawHeaders

GiveBack: TypeAlias = Callable[["Line"], Awaitable[None]]
"""Takes a line back, whatever became of its exchange."""


class Line:
    """A connection, the wire it speaks over, and what became of its exchanges."""

    def __init__(self, core: Core, origin: str, connection: Connection, wire: Wire, give_back: GiveBack) -> None:
        """``give_back`` is called at the end of each exchange."""
        self.origin = origin
        self.wire = wire
        self._core = core
        self._connection = connection
        self._give_back = give_back
        self._asked = 0
        self._failed = False  # over HTTP/2 such a connection looks idle, while the upstream goes on answering

    @property
    def reusable(self) -> bool:
        """Whether the last exchange ended cleanly and the connection is still good."""
        return (
            not self._failed and self.wire.clean and self._connection.is_idle() and not self._connection.has_expired()
        )

    @property
    def was_dead(self) -> bool:
        """Whether this was a kept connection on which nothing at all came back."""
        return self._asked > 1 and self.wire.silent

    async def ask(self, request: UpstreamRequest) -> Answer:
        """Send the request and wait for the head. Whatever fails, the line is given back."""
        self._asked += 1
        self.wire.begin(request)
        try:
            with self._core.border():
                response = await self._blamed(request)
            answer = Answer(self._core, response, self.wire, self.release)
            if not self.wire.bare:
                self.wire.expect(reach_of(request.method, answer))
        except BaseException:
            self._failed = True
            await self.release()
            raise
        return answer

    async def _blamed(self, request: UpstreamRequest) -> Response:
        """The library says of a frame that may not be, too, that the request cannot be written."""
        try:
            return await self._exchange(request)
        except self._core.unwritable as error:
            if not self.wire.heard:
                raise
            raise UpstreamBroken("the upstream does not speak HTTP/2 as it should") from error

    async def _exchange(self, request: UpstreamRequest) -> Response:
        if not isinstance(request.body, AsyncIterable):
            whole = None if request.body is None else Whole(request.body)
            return await self._connection.handle_async_request(self._written(request, whole))
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            upload = Upload(request.body, request.length, self.wire, tasks)
            try:
                response = await self._connection.handle_async_request(self._written(request, upload))
            except Exception as error:  # kept out of the task group, which would wrap it
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return response

    def _written(self, request: UpstreamRequest, content: Whole | Upload | None) -> object:
        """The request as the library has it."""
        origin = parsed(request.origin)
        url = self._core.url(
            scheme=origin.scheme.encode(), host=origin.host.encode(), port=origin.port, target=request.target
        )
        write = request.read if request.write is None else request.write
        timeouts = {"connect": request.connect, "read": request.read, "write": write}
        return self._core.request(
            request.method, url, headers=_framed(request), content=content, extensions={"timeout": timeouts}
        )

    async def release(self) -> None:
        """Give the line back, whether or not its task is being cancelled."""
        with anyio.CancelScope(shield=True):
            await self._give_back(self)

    async def aclose(self) -> None:
        """Close the connection."""
        with anyio.CancelScope(shield=True):
            await self._connection.aclose()
            await self.wire.aclose()


def _framed(request: UpstreamRequest) -> RawHeaders:
    """The header lines as given, with a Host when there is none, and with the framing of the body."""
    headers = [*request.headers, *framing(request)]
    if get(headers, b"host") is None:
        headers.insert(0, (b"host", parsed(request.origin).authority))
    return headers
