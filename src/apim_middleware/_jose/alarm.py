"""A call at a later time, without a task where the event loop can do without one, and without holding on to anybody."""

import asyncio
import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio


class _Timer(NamedTuple):
    """What runs until the time has come: the event loop it runs on, and how to stop it there."""

    home: object
    stop: Callable[[], None]


class Alarm:
    """Calls a bound method after some seconds of the event loop's time, if its object is still there.

    Set again, it forgets the time set before. It ends with the event loop it was set on.
    """

    def __init__(self, method: Callable[[], None]) -> None:
        """Nothing is set yet."""
        self._method = weakref.WeakMethod(method)
        self._timer: _Timer | None = None
        self._times = 0

    def set(self, seconds: float) -> None:
        """Call after so many seconds, on the event loop that is running."""
        self._times += 1
        earlier, self._timer = self._timer, _started(weakref.ref(self), self._times, seconds)
        if earlier is not None and earlier.home is self._timer.home:
            earlier.stop()

    def ring(self, times: int) -> None:
        """Call, unless the alarm was set again since."""
        method = self._method()
        if method is not None and times == self._times:
            method()


def _started(alarm: "weakref.ref[Alarm]", times: int, seconds: float) -> _Timer:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        lowlevel: Any = sys.modules["trio"].lowlevel  # there is no asyncio, so trio is what runs
        scope = anyio.CancelScope()
        lowlevel.spawn_system_task(_sleep, scope, alarm, times, seconds)
        return _Timer(lowlevel.current_trio_token(), scope.cancel)
    return _Timer(loop, loop.call_later(seconds, _ring, alarm, times).cancel)


def _ring(alarm: "weakref.ref[Alarm]", times: int) -> None:
    found = alarm()
    if found is not None:
        found.ring(times)


async def _sleep(scope: anyio.CancelScope, alarm: "weakref.ref[Alarm]", times: int, seconds: float) -> None:
    with scope:
        await anyio.sleep(seconds)
        _ring(alarm, times)
