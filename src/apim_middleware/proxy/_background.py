"""Work that goes on beside the requests, on asyncio and on trio, and ends when it is told to or the event loop does."""

import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from apim_middleware._loops import running_loop, start

log = logging.getLogger("apim_middleware")


class Rounds:
    """Does the same again and again in each event loop that asked for it.

    ``one`` is a method: it does its work once and gives the seconds until the next time. It is held weakly, so that
    what is forgotten is not kept by what it does in the background. An error it raises is logged.
    """

    def __init__(self, one: Callable[[], Awaitable[float]]) -> None:
        """Nothing runs yet."""
        self._one = weakref.WeakMethod(one)
        self._running: weakref.WeakKeyDictionary[Any, _Run] = weakref.WeakKeyDictionary()

    def begin(self) -> None:
        """See that it is done in this event loop."""
        loop = running_loop()
        if loop not in self._running:
            self._running[loop] = run = _Run(self._one)
            start(run.go_on)

    def hurry(self) -> None:
        """See that it is done again in this event loop, and at once."""
        self.begin()
        self._running[running_loop()].wanted.set()

    async def aclose(self) -> None:
        """End it in this event loop, and wait until it has ended."""
        run = self._running.pop(running_loop(), None)
        if run is not None:
            await run.end()


class _Run:
    """What goes on in one event loop."""

    def __init__(self, one: "weakref.WeakMethod[Callable[[], Awaitable[float]]]") -> None:
        self._one = one
        self._scope = anyio.CancelScope()
        self._over = anyio.Event()
        self.wanted = anyio.Event()
        """Set when the next time is now."""

    async def go_on(self) -> None:
        try:
            with self._scope:
                while (one := self._one()) is not None:
                    self.wanted = anyio.Event()
                    seconds = await _done(one)
                    del one
                    with anyio.move_on_after(seconds):
                        await self.wanted.wait()
        finally:
            self._over.set()

    async def end(self) -> None:
        self._scope.cancel()
        await self._over.wait()


_AFTER_AN_ERROR = 1.0


async def _done(one: Callable[[], Awaitable[float]]) -> float:
    try:
        return await one()
    except Exception:
        log.exception("work in the background failed")
        return _AFTER_AN_ERROR
