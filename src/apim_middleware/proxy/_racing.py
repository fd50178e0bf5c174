"""Two questions, and the answer that comes first."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio

from apim_middleware.errors import TransportError
from apim_middleware.protocols import UpstreamResponse
from apim_middleware.proxy._node import Try

Won: TypeAlias = tuple[Try, UpstreamResponse]
"""Who has answered, and what."""


class Race:
    """Tries that run against each other. Who fails, or answers 5xx, wins only when the other does no better."""

    def __init__(self, ask: Callable[[Try], Awaitable[UpstreamResponse]]) -> None:
        """``ask`` makes a try, and leaves it when it is cancelled."""
        self._ask = ask
        self._over = anyio.Event()
        self._running = 0
        self._won: Won | None = None
        self._error: Exception | None = None

    async def run(self, first: Try, second: Callable[[], Try | None], after: float) -> tuple[Try, UpstreamResponse]:
        """Ask the second as well when the first takes so many seconds, and cancel the loser. Raises TransportError."""
        try:
            async with anyio.create_task_group() as runners:
                self._start(runners, first)
                with anyio.move_on_after(after):
                    await self._over.wait()
                if not self._over.is_set() and (other := second()) is not None:
                    self._start(runners, other)
                await self._over.wait()
                runners.cancel_scope.cancel()
        except BaseException:
            if self._won is not None:
                await _drop(*self._won)
            raise
        if self._won is not None:
            return self._won
        raise self._error or TransportError("nobody ran")

    def _start(self, runners: "anyio.abc.TaskGroup", live: Try) -> None:
        self._running += 1
        runners.start_soon(self._enter, live)

    async def _enter(self, live: Try) -> None:
        try:
            response = await self._ask(live)
        except Exception as error:  # kept out of the task group, which would wrap it
            self._error = error
        else:
            beaten: Won | None = (live, response)
            if self._won is None or _is_poor(self._won):
                beaten, self._won = self._won, beaten
            if beaten is not None:
                await _drop(*beaten)
        self._running -= 1
        if not self._running or not (self._won is None or _is_poor(self._won)):
            self._over.set()


def _is_poor(answer: Won) -> bool:
    return answer[1].status >= 500


async def _drop(live: Try, response: UpstreamResponse) -> None:
    live.leave()
    with anyio.CancelScope(shield=True):
        await response.aclose()
