"""Notice of the end: between the signal to end and the end there is a while in which others can be told."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], object]


def give_notice(grace: float, begin: Callable[[], bool]) -> None:
    """Have SIGTERM do so many seconds later what it does now, and ``begin`` at once; a second one does it at once.

    ``begin`` says whether this was the beginning. Only where the server handles the signal with a function of its own,
    in the main thread of asyncio: elsewhere nothing is changed.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    signal.signal(signal.SIGTERM, _notice(loop, grace, before, begin))


def _notice(
    loop: asyncio.AbstractEventLoop, grace: float, before: _Handler, begin: Callable[[], bool]
) -> Callable[[int, FrameType | None], None]:
    def told(number: int, frame: FrameType | None) -> None:
        if begin():
            loop.call_soon_threadsafe(loop.call_later, grace, before, number, frame)
        else:
            before(number, frame)

    return told
