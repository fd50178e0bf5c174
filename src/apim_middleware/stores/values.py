"""Named values that are looked up, kept and removed: ``CacheValue``."""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Literal, TypeVar

from apim_middleware._config import Configured
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ConfigError
from apim_middleware.stores.kept_values import Found, KeptValues, Terms, seen_by_others

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LONGEST = 2**31  # seconds


def to_json(value: object) -> bytes:
    """JSON in UTF-8. Raises TypeError or ValueError for what it cannot say."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8", "strict")


@dataclass(frozen=True, kw_only=True)
class CacheValue(Configured, Generic[T]):
    """Values of one kind, kept for a time under keys: for policies, call-outs and the app.

    They are in the entries of ``env``: in memory, or where other processes see them too. Whatever is kept may be gone
    at any time, so it must be possible to make it again. What comes back has always been through ``dumps`` and
    ``loads``, so nobody shares an object with anybody. A value that cannot be read back is unknown, and made again.
    Azure: ``cache-lookup-value``, ``cache-store-value``, ``cache-remove-value`` and ``cache-value``.
    """

    name: str
    """What the values are, in letters, digits, ``_.-``: those of one name in one environment are the same values."""

    ttl: float
    """Seconds a value is kept, up to 2**31."""

    refresh_after: float | None = None
    """Seconds after which ``get_or_set`` makes a value anew, though the old one is kept still: one caller makes it, the
    others get the old one meanwhile, and everybody does when that fails. None, the default: not before it is gone."""

    max_value_bytes: int = 1 << 20
    """Largest value kept, in bytes; a larger one is given to who asks and not kept. Default 1 MiB."""

    dumps: Callable[[T], bytes] = field(default=to_json, repr=False)
    """Makes bytes of a value; the default makes JSON."""

    loads: Callable[[bytes], T] = field(default=json.loads, repr=False)
    """Makes a value of bytes."""

    lease: float = 10.0
    """Seconds that other processes wait for one that makes a value, before another does. Default 10."""

    when_store_fails: Literal["bypass", "refuse"] = "bypass"
    """With a store that cannot answer: ``"bypass"`` takes every value for unknown, ``"refuse"`` raises StoreError."""

    env: Env = field(default=default_env, repr=False)
    """Whose store and clock to use; the default is that of stacks that have none of their own."""

    def __post_init__(self) -> None:
        """Times and sizes must leave room for something, and values that others see need a place with a name."""
        if not _NAME.fullmatch(self.name):
            raise self.mistake("name", "cannot begin a key", "Give 1 to 64 letters, digits, underscores, dots, dashes")
        for seconds in ("ttl", "lease"):
            if not 0 < getattr(self, seconds) <= _LONGEST:
                raise self.mistake(seconds, "is no time", "Give seconds above 0, up to 2**31")
        if self.refresh_after is not None and not 0 <= self.refresh_after < self.ttl:
            raise self.mistake("refresh_after", "is not before the value is gone", "Give fewer seconds than ttl")
        if self.max_value_bytes < 1:
            raise self.mistake("max_value_bytes", "is no bound", "Give a number of at least 1")
        if self.env.place[:1] in ("", "~") and seen_by_others(self.env):  # "~1/…" is that of a policy in such a place
            problem = "stands at a place without a name, but its store is seen by others"
            raise ConfigError("CacheValue", "env", problem, 'Write Env(..., place="orders")')

    async def get(self, key: str) -> T | None:
        """The value, or None when there is none. Raises StoreError with ``when_store_fails="refuse"``."""
        found = await self._look(_bytes(key))
        return found[1] if found else None

    async def set(self, key: str, value: T) -> bool:
        """Keep a value, and not one that this process is making now; False when it is too large.

        Raises StoreError as ``get`` does, and what ``dumps`` raises.
        """
        place, data = _bytes(key), self.dumps(value)
        self._kept.overtake(place)
        return await self._kept.keep(place, data)

    async def remove(self, key: str) -> None:
        """Forget a value, and do not keep one that this process is making now. Raises StoreError as ``get`` does."""
        await self._kept.forget(_bytes(key))

    async def clear(self) -> None:
        """Forget all values of this name, however many there are. Raises StoreError as ``get`` does."""
        await self._kept.forget_all()

    async def get_or_set(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """The value; when there is none, it is made and kept. Of all who ask at the same time, one makes it.

        When that one fails or is cancelled, the next of them makes it; who has waited for three that failed gets the
        last one's error. Where processes share a store, one of them makes it, and the others wait ``lease`` seconds.
        Raises what ``make``, ``dumps`` and ``loads`` raise, and StoreError as ``get`` does.
        """
        place = _bytes(key)
        found = await self._look(place)
        if found and (found[0].fresh or self._kept.under_way(place)):
            return found[1]

        async def made() -> bytes:
            return self.dumps(await make())

        return self.loads(await self._kept.made(place, found[0] if found else None, made))

    async def _look(self, place: bytes) -> tuple[Found, T] | None:
        """What is kept, and the value; what cannot be read is none, and is not looked at again."""
        found = await self._kept.look(place)
        if found is None:
            return None
        try:
            return found, self.loads(found.data)
        except Exception as error:
            self._kept.count("unreadable", error)
            await self._kept.forget(place)
            return None

    @cached_property
    def _kept(self) -> KeptValues:
        bypass = self.when_store_fails == "bypass"
        terms = Terms(self.ttl, self.refresh_after, self.max_value_bytes, self.lease, bypass)
        return KeptValues(self.name, self.env, terms)


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
