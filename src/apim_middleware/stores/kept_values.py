"""Values kept as bytes: looked up, kept, forgotten, and made by one for all who ask."""

import contextlib
import logging
import secrets
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import anyio

from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.protocols import Entries
from apim_middleware.stores.circuit import Circuit
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.flights import Flight, Flights

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("apim_middleware")

_TIMES = struct.Struct("<dd")
_PAUSE = 1.0  # seconds until it is tried again to make a value anew
_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.25  # seconds between looks at what another process makes

_LOCKED = True  # without a store there is nobody to wait for


def entries_of(env: Env) -> Entries:
    """The entries of an environment; in memory when it has none."""
    return env.entries(lambda: MemoryEntries(clock=env.clock))


def seen_by_others(env: Env) -> bool:
    """Whether the entries of an environment are those of other processes too, or outlive this one."""
    return not isinstance(entries_of(env), MemoryEntries)


class Terms(NamedTuple):
    """How long values are kept, how large they may be, and what becomes of them without a store."""

    ttl: float
    refresh_after: float | None
    most: int
    lease: float
    bypass: bool


class Found(NamedTuple):
    """A value that was found: whether it need not be made anew yet, and the time of day at which it is gone."""

    data: bytes
    fresh: bool
    gone: float


class _Ways(NamedTuple):
    """What a store does may fail apart: one that is full, or may not write, still answers."""

    asking: Circuit
    keeping: Circuit
    forgetting: Circuit


class KeptValues:
    """The values of one name, under keys that begin with the place and the name."""

    def __init__(self, name: str, env: Env, terms: Terms) -> None:
        """The values of a name in this environment: whoever keeps values under the same name shares them."""
        self._name, self._env, self._terms = name, env, terms
        self._space = f"{env.place}/CacheValue/{name}".encode()
        self._entries, self._shared = entries_of(env), seen_by_others(env)
        self._flights: Flights[bytes] = env.kept(f"values.{env.place}/{name}", Flights)
        self._ways = env.kept("values.ways", lambda: _Ways(*[Circuit(env.clock) for _ in _Ways._fields]))
        self._troubles: set[str] = set()

    async def look(self, key: bytes) -> Found | None:
        """What there is. Raises StoreError where a store that is away is no excuse."""
        data = await self._asked(self._ways.asking, None, self._entries.get, self._place(b"value", key))
        if data is None or len(data) < _TIMES.size:
            return None
        fresh_until, gone = _TIMES.unpack_from(data)
        return Found(data[_TIMES.size :], self._env.clock.now() < fresh_until, gone)

    async def keep(self, key: bytes, data: bytes) -> bool:
        """Keep a value unless it is too large; then the key has none. Raises StoreError as ``look`` does."""
        if len(data) > self._terms.most:
            await self._asked(self._ways.forgetting, None, self._entries.delete, self._place(b"value", key))
            return False
        now, after = self._env.clock.now(), self._terms.refresh_after
        await self._put(key, data, now + (self._terms.ttl if after is None else after), now + self._terms.ttl)
        self._troubles.discard("unreadable")
        return True

    async def _put(self, key: bytes, data: bytes, fresh_until: float, gone: float) -> None:
        keep = partial(self._entries.set, tags=(self._space,))
        value, seconds = _TIMES.pack(fresh_until, gone) + data, gone - self._env.clock.now()
        await self._asked(self._ways.keeping, None, keep, self._place(b"value", key), value, seconds)

    def overtake(self, key: bytes) -> None:
        """Keep nothing of what is being made of a value now."""
        self._flights.forget(key)

    async def forget(self, key: bytes) -> None:
        """Forget a value, and do not keep what is being made here. Raises StoreError as ``look`` does."""
        self._flights.forget(key)
        await self._asked(self._ways.forgetting, None, self._entries.delete, self._place(b"value", key))

    async def forget_all(self) -> None:
        """Forget all values. Raises StoreError as ``look`` does."""
        self._flights.forget_all()
        await self._asked(self._ways.forgetting, None, self._entries.purge, self._space)

    def under_way(self, key: bytes) -> bool:
        """Whether the value is being made here."""
        return self._flights.under_way(key)

    async def made(self, key: bytes, old: Found | None, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """What is made, here or by another process, and kept; the old value when it cannot be."""

        async def fly(flight: Flight[bytes]) -> bytes:
            try:
                return await (self._in_turn(key, old, make, flight) if self._shared else self._make(key, make, flight))
            except Exception as error:
                if old is None:
                    raise
                self.count("not_refreshed", error)
                await self._leave(key, old, flight)
                return old.data

        return await self._flights.run(key, fly)

    async def _make(self, key: bytes, make: Callable[[], Awaitable[bytes]], flight: Flight[bytes]) -> bytes:
        data = await make()
        self._troubles.discard("not_refreshed")
        if flight.wanted:
            with contextlib.suppress(StoreError):  # said already, and no reason to lose what was made
                await self.keep(key, data)
        return data

    async def _leave(self, key: bytes, old: Found, flight: Flight[bytes]) -> None:
        """Leave an old value as it is for a while: who cannot make it anew is not to be asked with every request."""
        if flight.wanted:
            with contextlib.suppress(StoreError):
                await self._put(key, old.data, self._env.clock.now() + _PAUSE, old.gone)

    async def _in_turn(
        self, key: bytes, old: Found | None, make: Callable[[], Awaitable[bytes]], flight: Flight[bytes]
    ) -> bytes:
        """Make it unless another process does: then wait for that, but no longer than its lease."""
        lock, token = self._place(b"lock", key), secrets.token_bytes(12)
        waited, pause = 0.0, _FIRST_LOOK
        while not await self._asked(self._ways.keeping, _LOCKED, self._entries.add, lock, token, self._terms.lease):
            if old is not None:
                return old.data
            if waited >= self._terms.lease:
                return await self._make(key, make, flight)
            await anyio.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, _LONGEST_LOOK)
            if found := await self.look(key):
                return found.data
        try:
            found = await self.look(key)  # kept by another after this one looked, and before it had the lock
            return found.data if found and found.fresh else await self._make(key, make, flight)
        finally:
            with anyio.CancelScope(shield=True):
                await self._unlock(lock, token)

    async def _unlock(self, lock: bytes, token: bytes) -> None:
        with contextlib.suppress(StoreError):  # then it opens by itself
            await self._asked(self._ways.forgetting, None, partial(self._entries.delete, value=token), lock)

    def _place(self, kind: bytes, key: bytes) -> bytes:
        return b"%b:%b:%b" % (self._space, kind, key)

    async def _asked(
        self, way: Circuit, otherwise: T, ask: Callable[P, Awaitable[T]], *args: P.args, **more: P.kwargs
    ) -> T:
        """What the store says, or what to go by when it is away and that may be."""
        try:
            answer = await way.run(ask, *args, **more)
        except StoreError as error:
            self.count("store_failed", error)
            if self._terms.bypass:
                return otherwise
            raise
        if not any(each.opened for each in self._ways):
            self._troubles.discard("store_failed")
        return answer

    def count(self, trouble: str, error: Exception) -> None:
        """Count what went wrong; say it once, until that is well again, and not what may hold secrets."""
        self._env.count(f"apim.cache_value.{trouble}", {"apim.cache_value.name": self._name})
        if trouble not in self._troubles:
            log.warning("values %s: %s (%s)", self._name, trouble.replace("_", " "), type(error).__name__)
        self._troubles.add(trouble)
