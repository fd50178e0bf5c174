"""Entries in memory: a ``Shelf`` that holds things within a budget of bytes, and the ``Entries`` protocol on it."""

from collections import OrderedDict
from dataclasses import dataclass
from sys import getsizeof
from typing import Generic, Protocol, TypeVar

from apim_middleware.env import SystemClock
from apim_middleware.protocols import Clock

PLACE = 144
"""What a shelf itself spends on a thing: a place in an ordered dict, and the numbers a thing keeps of itself."""


class Kept(Protocol):
    """A thing on a shelf: how many bytes it takes with its key, and when its time is over."""

    @property
    def size(self) -> int:
        """Bytes of memory, all told."""
        ...

    @property
    def until(self) -> float:
        """The moment its time is over, on the clock of its owner."""
        ...


K = TypeVar("K")
V = TypeVar("V", bound=Kept)


class Shelf(Generic[K, V]):
    """Things under keys within a budget of bytes; the least recently used make room. Constant time, never waits."""

    def __init__(self, max_bytes: int, *, afterlife: float = 0.0) -> None:
        """Hold at most ``max_bytes``; things past their time stay to be found for ``afterlife`` more seconds."""
        self.max_bytes = max_bytes
        self.held = 0
        self._afterlife = afterlife
        self._things: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._things)

    def find(self, key: K, now: float) -> V | None:
        """The thing under this key, which counts as a use of it."""
        thing = self._things.get(key)
        if thing is None:
            return None
        if thing.until + self._afterlife <= now:
            self.drop(key)
            return None
        self._things.move_to_end(key)
        return thing

    def keep(self, key: K, thing: V, now: float) -> bool:
        """Put a thing under this key in place of what was there; False when it is larger than the whole shelf."""
        self.drop(key)
        if thing.size > self.max_bytes:
            return False
        self._things[key] = thing
        self.held += thing.size
        self._make_room(now)
        return True

    def drop(self, key: K) -> None:
        """Forget the key."""
        thing = self._things.pop(key, None)
        if thing is not None:
            self.held -= thing.size

    def _make_room(self, now: float) -> None:
        """Push out what no longer fits, and up to two things past their time if they are the next to go anyway."""
        while self.held > self.max_bytes:
            self.drop(next(iter(self._things)))
        for _ in range(2):
            key, thing = next(iter(self._things.items()))
            if thing.until + self._afterlife > now or len(self._things) == 1:
                return
            self.drop(key)


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    until: float
    size: int


_ENTRY = getsizeof(_Entry(b"", 0.0, 0))


class MemoryEntries:
    """Entries in the memory of this process: gone when it ends, seen by no other."""

    def __init__(self, *, max_bytes: int = 64 << 20, clock: Clock | None = None) -> None:
        """Hold at most ``max_bytes`` of keys, values and what keeping them costs."""
        self._clock = clock or SystemClock()
        self._shelf: Shelf[bytes, _Entry] = Shelf(max_bytes)

    def __len__(self) -> int:
        return len(self._shelf)

    @property
    def held(self) -> int:
        """Bytes held now, by the same account as ``max_bytes``."""
        return self._shelf.held

    async def get(self, key: bytes) -> bytes | None:
        """The bytes, unless unknown, expired or evicted."""
        entry = self._shelf.find(key, self._clock.monotonic())
        return None if entry is None else entry.value

    async def set(self, key: bytes, value: bytes, ttl: float) -> None:
        """Keep the bytes for ``ttl`` seconds, or less when room is needed."""
        now = self._clock.monotonic()
        if ttl > 0:
            size = PLACE + _ENTRY + getsizeof(value) + getsizeof(key)
            self._shelf.keep(key, _Entry(value, now + ttl, size), now)
        else:
            self._shelf.drop(key)

    async def delete(self, key: bytes) -> None:
        """Forget the key."""
        self._shelf.drop(key)
