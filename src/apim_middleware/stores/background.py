"""What is left to do outside of a request: hooks that never await leave it to a background job."""

import logging
from typing import Protocol

from anyio import Event, get_cancelled_exc_class, move_on_after

from apim_middleware._loops import running_loop, start

log = logging.getLogger("apim_middleware")


class Work(Protocol):
    """What a background job does."""

    async def __call__(self, *, last: bool) -> None:
        """Do all there is to do; if this is the ``last`` time, without waiting for better times."""
        ...


_GRACE = 5.0
"""Seconds the work may still take when the event loop is about to end."""


class BackgroundJob:
    """Work that runs in the background whenever somebody woke it, outside of the request that did.

    ``work`` does all there is to do and returns; it runs once at a time. When the event loop ends meanwhile, it is
    begun once more, with ``last=True`` and five seconds. What it could not do stays for whoever wakes it next, on
    another event loop too. An error it raises is logged.
    """

    __slots__ = ("_home", "_over", "_work")

    def __init__(self, work: Work) -> None:
        """Nothing is to be done yet."""
        self._work = work
        self._home: object = None  # the event loop it runs on, while it runs
        self._over: Event | None = None

    def wake(self) -> None:
        """See that the work is done soon; plain, so that it can be called from where nothing may be awaited."""
        home = running_loop()
        if home is not None and home is not self._home:
            self._home = home
            self._over = Event()
            start(self._run)

    @property
    def busy(self) -> bool:
        """Whether somebody is at work on this event loop."""
        return self._home is not None and self._home is running_loop()

    async def over(self) -> None:
        """Wait until nobody is at work any more."""
        if self._over is not None and self._home is running_loop():
            await self._over.wait()

    async def _run(self) -> None:
        home, over = self._home, self._over
        try:
            await self._do(last=False)
        except get_cancelled_exc_class():
            with move_on_after(_GRACE, shield=True):
                await self._do(last=True)
            raise
        finally:
            if self._home is home:
                self._home = self._over = None
            if over is not None:
                over.set()

    async def _do(self, *, last: bool) -> None:
        """Have it done; an error of the work is nobody else's, not even when the event loop ends."""
        try:
            await self._work(last=last)
        except Exception:
            log.exception("work in the background failed")
