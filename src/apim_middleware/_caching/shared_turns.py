"""One after the other at the same key, on one event loop; where none runs, nobody else is there."""

from contextlib import AbstractAsyncContextManager, nullcontext
from weakref import WeakValueDictionary

from anyio import Lock

from apim_middleware._loops import running_loop

_MOST = 16


class Turns:
    """Who is at work at which key: nothing is remembered of keys where nobody is."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._locks: WeakValueDictionary[object, Lock] = WeakValueDictionary()

    def turn(self, key: object) -> AbstractAsyncContextManager[object] | None:
        """What to be in while at work; None where too many wait for that already."""
        loop = running_loop()
        if loop is None:
            return nullcontext()
        lock = self._locks.setdefault((loop, key), Lock(fast_acquire=True))
        return lock if lock.statistics().tasks_waiting < _MOST else None
