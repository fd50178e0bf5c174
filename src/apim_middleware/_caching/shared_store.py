"""The store of shared pages as all caches of an environment ask for it: while it is away, nobody waits for it."""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import ParamSpec, TypeVar

from apim_middleware.errors import Spoiled, StoreError
from apim_middleware.protocols import Clock, Entries
from apim_middleware.stores.circuit import Circuit

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("apim_middleware")


class WaryEntries:
    """Entries that are left alone for a while once they failed: who asks meanwhile hears so at once.

    Asking, keeping and forgetting fail apart, for a store that is full still answers, and one that may not write too.
    What people want purged now is always tried: they wait to hear whether it is done.
    """

    def __init__(self, entries: Entries, clock: Clock) -> None:
        """Begin as if all were well."""
        self._entries, self.now = entries, clock.now
        self._asking = _Way("answer", clock)
        self._keeping = _Way("keep a response", clock)
        self._forgetting = _Way("forget a response", clock)

    async def get(self, key: bytes) -> bytes | None:
        """The value of a key as the store has it. Raises StoreError."""
        return await self._asking.go(self._entries.get, key)

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys as the store has them. Raises StoreError."""
        return await self._asking.go(self._entries.get_many, keys)

    async def look(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        """The values of keys as the store has them, and after which purge. Raises StoreError."""
        return await self._asking.go(self._entries.look, keys)

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        """Keep the bytes, unless a tag was purged since; whether that is not so. Raises StoreError."""
        return await self._keeping.go(self._entries.set, key, value, ttl, tags=tags, since=since)

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        """Keep the bytes if the key has none; whether that was so. Raises StoreError."""
        return await self._keeping.go(self._entries.add, key, value, ttl)

    async def delete(self, key: bytes, *, value: bytes | None = None) -> None:
        """Forget the key; with ``value``, only if it has that. Raises StoreError."""
        await self._forgetting.go(self._entries.delete, key, value=value)

    async def purge(self, tag: bytes) -> None:
        """Forget what has this tag. Raises StoreError."""
        await self._forgetting.go(self._entries.purge, tag)

    async def purge_now(self, tag: bytes) -> None:
        """Forget what has this tag, however the store has been of late. Raises StoreError."""
        await self._entries.purge(tag)


class _Way:
    """One thing a store does: tried rarely while it fails, and told of once until it is well again."""

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._circuit = Circuit(clock, self._well)
        self._told = False

    async def go(self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._circuit.run(ask, *args, **kwargs)
        except StoreError as error:
            if not self._told:  # not what the driver says, which may hold secrets
                cause = error if isinstance(error, Spoiled) else type(error.__cause__ or error).__name__
                log.error("the store of the response cache cannot %s: %s", self._what, cause)
            self._told = True
            raise

    def _well(self) -> None:
        log.warning("the store of the response cache can %s again", self._what)
        self._told = False
