"""Work that no request carries: it goes on when the client has left, and ends with the event loop at the latest."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

_running: set[object] = set()
"""What asyncio itself would only know by a weak reference."""


def event_loop() -> object:
    """The event loop this runs on, asyncio's or trio's; None where there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    trio = sys.modules.get("trio")
    try:
        return None if trio is None else trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


def begin(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start work in a task of its own; it must not raise, and is cancelled when the event loop ends.

    With asyncio ``asyncio.run`` does that, as servers do; with trio it is a system task.
    """
    loop = event_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        task = loop.create_task(work())
        _running.add(task)
        task.add_done_callback(_running.discard)
    else:
        sys.modules["trio"].lowlevel.spawn_system_task(work)
