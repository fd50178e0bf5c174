"""What is left to do with a store when a request is over: hooks that never await leave it to an errand."""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from anyio import Event, get_cancelled_exc_class, move_on_after

log = logging.getLogger("apim_middleware")


class Work(Protocol):
    """What an errand does."""

    async def __call__(self, *, last: bool) -> None:
        """Do all there is to do; if this is the ``last`` time, without waiting for better times."""
        ...


_GRACE = 5.0
"""Seconds the work may still take when the event loop is about to end."""


class Errand:
    """Work that runs in the background whenever somebody woke it, outside of the request that did.

    ``work`` does all there is to do and returns; it runs once at a time. When the event loop ends meanwhile, it is
    begun once more, with ``last=True`` and five seconds. What it could not do stays for whoever wakes it next, on
    another event loop too. An error it raises is logged.
    """

    __slots__ = ("_home", "_over", "_task", "_work")

    def __init__(self, work: Work) -> None:
        """Nothing is to be done yet."""
        self._work = work
        self._home: object = None  # the event loop it runs on, while it runs
        self._task: object = None  # asyncio itself keeps no more than a weak reference
        self._over: Event | None = None

    def wake(self) -> None:
        """See that the work is done soon; plain, so that it can be called from where nothing may be awaited."""
        home = _running_loop()
        if home is not None and home is not self._home:
            self._home = home
            self._over = Event()
            self._task = _start(home, self._run)

    async def over(self) -> None:
        """Wait until nobody is at work any more."""
        if self._over is not None and self._home is _running_loop():
            await self._over.wait()

    async def _run(self) -> None:
        home, over = self._home, self._over
        try:
            await self._work(last=False)
        except get_cancelled_exc_class():
            with move_on_after(_GRACE, shield=True):
                await self._work(last=True)
            raise
        except Exception:
            log.exception("what was left to do for a store failed")
        finally:
            if self._home is home:
                self._home = self._task = self._over = None
            if over is not None:
                over.set()


def _running_loop() -> object:
    """What runs here, asyncio's loop or trio's; None where nothing does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    trio = sys.modules.get("trio")
    try:
        return None if trio is None else trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


def _start(loop: Any, work: Callable[[], Coroutine[Any, Any, None]]) -> object:  # noqa: ANN401 - of either library
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.create_task(work())
    return sys.modules["trio"].lowlevel.spawn_system_task(work)
