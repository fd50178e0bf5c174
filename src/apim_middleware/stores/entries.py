"""Entries in the memory of this process."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from sys import getsizeof

from apim_middleware._config import check, check_count
from apim_middleware.env import SystemClock
from apim_middleware.protocols import Clock
from apim_middleware.stores.purges import Purges
from apim_middleware.stores.s3_fifo import PLACE, S3Fifo
from apim_middleware.stores.tags import checked


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    until: float
    size: int


_ENTRY = getsizeof(_Entry(b"", 0.0, 0))


class MemoryEntries:
    """Entries in the memory of this process: gone when it ends, seen by no other.

    What is not asked for again makes room, in the way of ``S3Fifo``; no call takes longer the more there is. Beside
    that it knows the last thousand tags that were purged, by their hashes.
    """

    def __init__(self, *, max_bytes: int = 64 << 20, clock: Clock | None = None) -> None:
        """Hold at most ``max_bytes`` of keys, values, tags and what keeping them costs.

        Without a ``clock``, take the machine's.
        """
        check("MemoryEntries", "clock", clock, Clock | None)
        check_count("MemoryEntries", "max_bytes", max_bytes)
        self._clock = clock or SystemClock()
        self._kept: S3Fifo[bytes, _Entry] = S3Fifo(max_bytes)
        self._purges = Purges(1_000)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def held(self) -> int:
        """Bytes held now, by the same account as ``max_bytes``."""
        return self._kept.held

    @property
    def evicted(self) -> int:
        """How many entries had to make room before their time was over."""
        return self._kept.evicted

    async def get(self, key: bytes) -> bytes | None:
        """The bytes, unless unknown, expired, purged or evicted."""
        entry = self._kept.find(key, self._clock.monotonic())
        return None if entry is None else entry.value

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What ``get`` gives for each of the keys."""
        return [await self.get(key) for key in keys]

    async def look(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        """What ``get_many`` gives, and after which purge."""
        return await self.get_many(keys), self._purges.now

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        """Keep the bytes for ``ttl`` seconds, or less when room is needed or one of the ``tags`` is purged.

        With ``since``, only if none of them was purged since; False when that is why they are not kept.
        """
        if tags:
            tags = checked(tags)
        if since is not None and not self._purges.none_of(tags, since=since):
            return False
        now = self._clock.monotonic()
        if ttl > 0:
            size = PLACE + _ENTRY + getsizeof(value) + getsizeof(key)
            self._kept.keep(key, _Entry(value, now + ttl, size), now, tags)
        else:
            self._kept.drop(key)
        return True

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        """Keep the bytes if the key has none; whether that was so."""
        if self._kept.find(key, self._clock.monotonic()) is not None:
            return False
        await self.set(key, value, ttl)
        return True

    async def delete(self, key: bytes, *, value: bytes | None = None) -> None:
        """Forget the key; with ``value``, only if it has that."""
        if value is None or await self.get(key) == value:
            self._kept.drop(key)

    async def purge(self, tag: bytes) -> None:
        """Forget all entries that were set with this tag, however many they are at once."""
        self._purges.note(tag)
        self._kept.purge(tag)
