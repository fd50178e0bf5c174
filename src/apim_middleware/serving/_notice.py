"""Notice of the end: between the signal to end and the end there is a while in which others can be told."""

import asyncio
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Protocol, TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

TO_DRAIN: signal.Signals | None = getattr(signal, "SIGUSR2", None)
"""The signal that begins the drain and ends nothing; systems without it have none."""


class Beginning(Protocol):
    """What is to be begun, such as a ``Drain``."""

    def begin(self) -> bool:
        """Begin, and say whether this was the beginning."""
        ...


def give_notice(grace: float, drain: Beginning) -> None:
    """Have SIGTERM do so many seconds later what it does now, and begin the drain at once; a second one ends that.

    Where it has been done before, both drains begin, and the longest grace counts. Only in the main thread of asyncio,
    and where the server handles the signal: elsewhere nothing is changed.
    """
    loop, before = _main_loop(), signal.getsignal(signal.SIGTERM)
    if loop is None or not callable(before):
        return
    # A handler of the loop cannot be asked for. Servers that have one, such as granian, have it for SIGINT as well.
    if before == signal.getsignal(signal.SIGINT) and _was_of(loop):
        notice = _of_loops.get(loop) or _Notice(loop, lambda number, frame: signal.raise_signal(signal.SIGINT))
        loop.add_signal_handler(signal.SIGTERM, notice, signal.SIGTERM, None)
        _of_loops[loop] = notice
    else:
        notice = before if isinstance(before, _Notice) and before.is_of(loop) else _Notice(loop, before)
        signal.signal(signal.SIGTERM, notice)
    notice.add(grace, drain)


def _was_of(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop has handled SIGTERM, which it does no longer."""
    try:
        return loop.remove_signal_handler(signal.SIGTERM)
    except NotImplementedError:  # on Windows
        return False


class _Notice:
    """What SIGTERM does in the place of the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, end: _Handler) -> None:
        self._loop, self._end = weakref.ref(loop), end
        self._grace, self._drains = 0.0, list[Beginning]()
        self._given = False

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._loop() is loop

    def add(self, grace: float, drain: Beginning) -> None:
        self._grace = max(self._grace, grace)
        self._drains.append(drain)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        loop = self._loop()
        if self._given or loop is None:
            self._end(number, frame)
            return
        self._given = True
        for drain in self._drains:
            drain.begin()
        loop.call_soon_threadsafe(loop.call_later, self._grace, self._end, number, frame)


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Notice] = weakref.WeakKeyDictionary()
"""What is a handler of a loop; nothing in it holds the loop."""


def hear_drain(drain: Beginning) -> None:
    """Have SIGUSR2 begin the drain, unless somebody else handles that signal."""
    if TO_DRAIN is None or _main_loop() is None:
        return
    survive_drain()
    hearing = signal.getsignal(TO_DRAIN)
    if isinstance(hearing, _Hearing):
        hearing.drains.add(drain)


def survive_drain() -> None:
    """Have SIGUSR2 begin what will be there to begin, unless somebody else handles it; its default is to kill."""
    if TO_DRAIN is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(TO_DRAIN) is signal.SIG_DFL:
        signal.signal(TO_DRAIN, _Hearing())


class _Hearing:
    """What SIGUSR2 begins in this process."""

    def __init__(self) -> None:
        self.drains: weakref.WeakSet[Beginning] = weakref.WeakSet()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for drain in tuple(self.drains):
            drain.begin()


def _main_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of asyncio that runs in the main thread, if this is it: only there signals can be handled."""
    if threading.current_thread() is not threading.main_thread():
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
