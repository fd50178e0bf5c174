"""Event loops of both libraries: which one runs here, and work that no request carries."""

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anyio import CancelScope

T = TypeVar("T")

_running: set[object] = set()
"""What asyncio itself would only know by a weak reference."""


def running_loop() -> Any:  # noqa: ANN401 - asyncio's loop, or trio's token
    """What runs here; None where nothing does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    trio = sys.modules.get("trio")
    try:
        return None if trio is None else trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


async def outlasting(work: Coroutine[Any, Any, T], left: Callable[[T], None]) -> T:
    """What comes of work that goes on when who waits for it is cancelled.

    ``left`` is told of it where nobody waits any more: asyncio cancels tasks whatever scope shields them.
    """
    loop = running_loop()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        with CancelScope(shield=True):
            return await work
    task = loop.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    try:
        with CancelScope(shield=True):
            result: T = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: None if done.cancelled() or done.exception() else left(done.result()))
        raise
    return result


def start(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begin work in a task of its own, with no context of a request; the event loop cancels it when it ends.

    With asyncio ``asyncio.run`` does that, as servers do; with trio it is a system task, so the work must not raise.
    """
    loop = running_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        task = loop.create_task(work(), context=contextvars.Context())
        _running.add(task)
        task.add_done_callback(_running.discard)
    else:
        sys.modules["trio"].lowlevel.spawn_system_task(work, context=contextvars.Context())


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error a task group has wrapped; when it is several, the others came of the first."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
