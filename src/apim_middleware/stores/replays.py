"""What must come once only, in this process."""

from collections import Counter
from heapq import heappop, heappush

from apim_middleware.errors import StoreError
from apim_middleware.protocols import Clock

_SWEPT = 1_000  # before anything is refused: what is past may still be there, and the loop has other things to do


class ShareTaken(StoreError):
    """Somebody has taken their share of the room; there is some for others."""


class MemoryReplays:
    """What came once, in this process. When all it can hold is fresh, it says so: nothing is let in twice.

    It makes no room before the time, so nobody may take all of it: who holds as much as is left gets no more.
    """

    def __init__(self, most: int, clock: Clock) -> None:
        """Hold at most so many."""
        self._most = most
        self._now = clock.monotonic
        self._until: dict[bytes, tuple[float, bytes]] = {}
        self._ends: list[tuple[float, bytes]] = []  # a heap: some live longer than others
        self._held = Counter[bytes]()

    def __len__(self) -> int:
        """How many are held."""
        return len(self._until)

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        """Keep the key for ``ttl`` seconds unless it is there; whether it was not. Raises StoreError.

        ``value`` says whose it is; what is nobody's may fill it.
        """
        now = self._now()
        self._forget(now, 2)
        until, _ = self._until.get(key, (now, b""))
        if until > now:
            return False
        if self._refusal(value):
            self._forget(now, _SWEPT)
        if refusal := self._refusal(value):
            raise refusal
        if key in self._until:
            self._drop(key)
        self._until[key] = now + ttl, value
        self._held[value] += 1
        heappush(self._ends, (now + ttl, key))
        return True

    def _refusal(self, value: bytes) -> StoreError | None:
        left = self._most - len(self._until)
        if left <= 0:
            return StoreError("more is fresh than is remembered")
        if value and self._held[value] >= left:
            return ShareTaken("more of one is fresh than is remembered")
        return None

    def _forget(self, now: float, most: int) -> None:
        """Two out for one in, so what is past goes without a sweep."""
        for _ in range(most):
            if not self._ends or self._ends[0][0] > now:
                return
            end, key = heappop(self._ends)
            if key in self._until and self._until[key][0] == end:  # else it has come anew
                self._drop(key)

    def _drop(self, key: bytes) -> None:
        _, value = self._until.pop(key)
        self._held[value] -= 1
        if not self._held[value]:
            del self._held[value]
