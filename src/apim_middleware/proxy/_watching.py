"""Seeing the client leave while its answer is on the way, and ending the exchange then.

``receive`` tells of it, and only to whoever waits for it. On asyncio most exchanges are over before a task for that is
worth its cost: those that are not get one, a moment later. On other event loops each exchange has one.
"""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import anyio.abc

from apim_middleware._loops import first_of
from apim_middleware.types import Receive

_MOMENT = 0.05  # seconds after which an exchange that goes on is watched; it may be twice that


class Watch(Protocol):
    """What the exchange tells those who watch for it."""

    def begin(self) -> None:
        """Nobody else waits for ``receive`` any more: look from now on."""
        ...

    def stop(self) -> None:
        """There is nothing left to end: look no longer."""
        ...


async def _leaving(receive: Receive) -> None:
    """Return when the client has left; whatever it still sends came too late."""
    while (await receive())["type"] == "http.request":
        pass


async def watched(receive: Receive, exchange: Callable[[Watch], Awaitable[None]], *, begun: bool = False) -> None:
    """Do the exchange, and end it when the client leaves. An error of ``receive`` comes out as it is.

    ``begun`` is whether nobody waits for ``receive`` even now.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # the event loop is none of asyncio's
        task = None
    if task is None:
        await _watched_beside(receive, exchange, begun)
        return
    watch = _LateWatch(receive, _lookout(task.get_loop()), task, begun)
    try:
        await exchange(watch)
    except BaseException as error:
        if not (watch.undo() and isinstance(error, asyncio.CancelledError)):
            raise
        if watch.error is not None:
            raise watch.error from None
    finally:
        if not watch.over:
            watch.stop()
        if watch.watcher is not None:
            await asyncio.wait([watch.watcher])
            watch.watcher = None  # which holds it, by the frames of what ended it


class _LateWatch:
    """A task that is started late if at all; it cancels the one of the exchange, as ``asyncio.timeout`` does."""

    __slots__ = (
        "_among", "_cancelled", "_context", "_lookout", "_receive", "_struck", "_task", "error", "over", "watcher",
    )  # fmt: skip

    error: Exception | None
    """What ``receive`` raised; there when the exchange was ended."""

    def __init__(self, receive: Receive, lookout: "_Lookout", task: "asyncio.Task[object]", begun: bool) -> None:
        self._receive, self._lookout = receive, lookout
        self._task, self._cancelled = task, task.cancelling()
        self._context = contextvars.copy_context()
        self.over = self._struck = False
        self.watcher: asyncio.Task[None] | None = None
        self._among = lookout.add(self) if begun else None

    def begin(self) -> None:
        if self._among is None:
            self._among = self._lookout.add(self)

    def stop(self) -> None:
        self.over = True
        if self.watcher is not None:
            self.watcher.cancel()
        elif self._among is not None:
            self._among.pop(self, None)

    def start(self) -> None:
        """It is worth a task now."""
        self.watcher = self._lookout.loop.create_task(self._look(), context=self._context)

    async def _look(self) -> None:
        self.error = None
        try:
            await _leaving(self._receive)
        except Exception as error:
            self.error = error
        if not self.over:
            self._struck = True
            self._task.cancel()

    def undo(self) -> bool:
        """Whether the task was cancelled from here and nowhere else."""
        return self._struck and self._task.uncancel() <= self._cancelled


async def _watched_beside(receive: Receive, exchange: Callable[[Watch], Awaitable[None]], begun: bool) -> None:
    try:
        async with anyio.create_task_group() as group:
            watch = _GroupWatch(receive, group)
            if begun:
                watch.begin()
            await exchange(watch)
            watch.stop()
    except BaseExceptionGroup as wrapped:
        error = first_of(wrapped)
        raise error from error.__cause__


class _GroupWatch:
    """A task beside the exchange, in a task group with it."""

    def __init__(self, receive: Receive, group: anyio.abc.TaskGroup) -> None:
        self._receive, self._group = receive, group
        self._looking = anyio.CancelScope()
        self._begun = self._over = False

    def begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._group.start_soon(self._look)

    def stop(self) -> None:
        self._over = True
        self._looking.cancel()

    async def _look(self) -> None:
        with self._looking:
            await _leaving(self._receive)
        if not self._over:
            self._group.cancel_scope.cancel()


class _Lookout:
    """The exchanges of one event loop that go on, and one timer for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._newer: dict[_LateWatch, None] = {}
        self._older: dict[_LateWatch, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watch: _LateWatch) -> dict[_LateWatch, None]:
        """Where the watch is from now on, until it is started."""
        newer = self._newer
        newer[watch] = None
        if self._timer is None:
            self._wind()
        return newer

    def _wind(self) -> None:
        self._timer = self.loop.call_later(_MOMENT, self._tick, context=contextvars.Context())

    def _tick(self) -> None:
        self._timer = None
        due, self._older, self._newer = self._older, self._newer, {}
        for watch in due:
            watch.start()
        due.clear()  # which each of them holds
        if self._older:
            self._wind()


class _Kept(threading.local):
    """The lookout of the event loop that runs in this thread: there is never more than one."""

    lookout: _Lookout | None = None


_kept = _Kept()


def _lookout(loop: asyncio.AbstractEventLoop) -> _Lookout:
    """The lookout of the running event loop."""
    kept = _kept.lookout
    if kept is None or kept.loop is not loop:
        kept = _kept.lookout = _Lookout(loop)
    return kept
