"""The connections of one event loop."""

from collections import defaultdict
from collections.abc import Callable
from typing import TypeAlias

import anyio

from apim_middleware.errors import NoConnectionFree
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._httpcore.line import GiveBack, Line

Opens: TypeAlias = Callable[[str, GiveBack], Line]
"""A new line to an origin, and where it is given back."""


class Pool:
    """Lines in use, of which there are so many at most, and lines that are free."""

    def __init__(self, most: int, most_idle: int, opens: Opens) -> None:
        """Nothing is open yet."""
        self._room = anyio.Semaphore(most, fast_acquire=True)
        self._most_idle = most_idle
        self._opens = opens
        self._idle: dict[Line, None] = {}  # the one free for longest first
        self._idle_at: defaultdict[str, dict[Line, None]] = defaultdict(dict)
        self.closed = False

    async def take(self, request: UpstreamRequest, *, fresh: bool = False) -> Line:
        """A line to the origin: the one used last, for it is the least likely to be closing, or a new one."""
        try:
            with anyio.fail_after(request.connect):
                await self._room.acquire()
        except TimeoutError as error:
            raise NoConnectionFree("every connection is in use") from error
        try:
            line = None if fresh else await self._free(request.origin)
            return line or self._opens(request.origin, self.give_back)
        except BaseException:
            self._room.release()
            raise

    async def give_back(self, line: Line) -> None:
        """Take a line back when its exchange has ended, and close it unless it can carry another."""
        self._room.release()
        while len(self._idle) >= self._most_idle and (stale := self._stale()):  # nobody may ask its origin again
            await self._pull(stale).aclose()
        if line.reusable and not self.closed and len(self._idle) < self._most_idle:
            self._idle[line] = self._idle_at[line.origin][line] = None
        else:
            await line.aclose()

    async def aclose(self) -> None:
        """Close what is idle now, and what comes back later."""
        self.closed = True
        while self._idle:
            await self._pull(next(iter(self._idle))).aclose()

    async def _free(self, origin: str) -> Line | None:
        while lines := self._idle_at.get(origin):
            oldest, newest = next(iter(lines)), next(reversed(lines))
            line = self._pull(newest if oldest.reusable else oldest)  # the oldest go stale first
            if line.reusable:
                return line
            await line.aclose()
        return None

    def _stale(self) -> Line | None:
        """The line that has been free for longest, if it cannot carry another exchange."""
        oldest = next(iter(self._idle), None)
        return None if oldest is None or oldest.reusable else oldest

    def _pull(self, line: Line) -> Line:
        """A free line, no longer here."""
        del self._idle[line], self._idle_at[line.origin][line]
        if not self._idle_at[line.origin]:
            del self._idle_at[line.origin]
        return line
