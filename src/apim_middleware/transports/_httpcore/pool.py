"""The connections of one event loop."""

from collections import defaultdict, deque
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
        self._idle: defaultdict[str, deque[Line]] = defaultdict(deque)
        self._idle_count = 0
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
        if line.reusable and not self.closed and self._idle_count < self._most_idle:
            self._idle[line.origin].append(line)
            self._idle_count += 1
        else:
            await line.aclose()

    async def aclose(self) -> None:
        """Close what is idle now, and what comes back later."""
        self.closed = True
        idle, self._idle, self._idle_count = self._idle, defaultdict(deque), 0
        for lines in idle.values():
            for line in lines:
                await line.aclose()

    async def _free(self, origin: str) -> Line | None:
        while lines := self._idle.get(origin):
            line = lines.pop() if lines[0].reusable else lines.popleft()  # the oldest go stale first
            self._idle_count -= 1
            if not lines:
                del self._idle[origin]
            if line.reusable:
                return line
            await line.aclose()
        return None
