"""What must come once only, in this process."""

from collections import Counter, OrderedDict

from apim_middleware.errors import StoreError
from apim_middleware.protocols import Clock


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
        self._until: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._held = Counter[bytes]()

    def __len__(self) -> int:
        """How many are held."""
        return len(self._until)

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        """Keep the key for ``ttl`` seconds unless it is there; whether it was not. Raises StoreError.

        ``value`` says whose it is; what is nobody's may fill it. Times should not differ much: one that lies far ahead
        keeps those that were added behind it.
        """
        now = self._now()
        self._forget(now)
        until, _ = self._until.get(key, (now, b""))
        if until > now:
            return False
        left = self._most - len(self._until)
        if left <= 0:
            raise StoreError("more is fresh than is remembered")
        if value and self._held[value] >= left:
            raise ShareTaken("more of one is fresh than is remembered")
        if key in self._until:
            self._drop(key)
        self._until[key] = now + ttl, value
        self._held[value] += 1
        return True

    def _forget(self, now: float) -> None:
        """Two out for one in, so what is past goes without a sweep."""
        for _ in range(2):
            oldest = next(iter(self._until), None)
            if oldest is not None and self._until[oldest][0] <= now:
                self._drop(oldest)

    def _drop(self, key: bytes) -> None:
        _, value = self._until.pop(key)
        self._held[value] -= 1
        if not self._held[value]:
            del self._held[value]
