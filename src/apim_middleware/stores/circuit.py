"""What becomes of asking while a store is away: a circuit that asks it rarely, and finds out when it is back."""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from anyio import Event, move_on_after

from apim_middleware.errors import NotDone, Spoiled, StoreError
from apim_middleware.protocols import Clock

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0


class Circuit:
    """Keeps a store that failed from being asked by everybody: each would wait for the same disappointment.

    The first StoreError opens it. While it is open, ``run`` raises StoreError at once; after a pause one asks for all,
    and when that fails too, the next pause is twice as long: a tenth of a second first, ten seconds at most.
    Whatever is answered closes it again, and so does Spoiled, which is an answer. It is meant for one event loop.
    """

    __slots__ = ("_again", "_better", "_clock", "_on_closed", "_pause", "_probing", "opened")

    def __init__(self, clock: Clock, on_closed: Callable[[], None] | None = None) -> None:
        """Begin closed; ``on_closed`` is called whenever an outage is over."""
        self._clock = clock
        self._on_closed = on_closed
        self._pause = _FIRST_PAUSE
        self._again = 0.0
        self._probing = False
        self._better: Event | None = None  # set when it is worth trying again
        self.opened = False
        """Whether the store is away, as far as anybody knows."""

    @property
    def wait(self) -> float:
        """Seconds until somebody may ask again: 0 while it is closed."""
        return max(self._again - self._clock.monotonic(), 0.0) if self.opened else 0.0

    async def better(self) -> None:
        """Wait until somebody may ask again, a tenth of a second at least, or somebody else has found it back."""
        self._better = Event()
        try:
            with move_on_after(max(self.wait, _FIRST_PAUSE)):
                await self._better.wait()
        finally:
            self._better = None

    async def run(self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the store answers. Raises StoreError: its own, or at once while it is not to be asked."""
        probing = self.opened
        if probing and (self._probing or self._clock.monotonic() < self._again):
            raise NotDone("it failed a moment ago, and is left alone for a while")
        if probing:
            self._probing = True
        try:
            answer = await ask(*args, **kwargs)
        except Spoiled:
            self._answered()
            raise
        except StoreError:
            self._failed(probing=probing)
            raise
        finally:
            if probing:  # also when who asked was cancelled: the next one may
                self._probing = False
        self._answered()
        return answer

    def _failed(self, *, probing: bool) -> None:
        if self.opened and not probing:  # asked before it was known
            return
        self._pause = min(self._pause * 2, _LONGEST_PAUSE) if probing else _FIRST_PAUSE
        self._again = self._clock.monotonic() + self._pause
        self.opened = True

    def _answered(self) -> None:
        if not self.opened:
            return
        self.opened = False
        if self._better is not None:
            self._better.set()
        if self._on_closed is not None:
            self._on_closed()
