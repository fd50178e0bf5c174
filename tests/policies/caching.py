"""What the tests of the response cache share."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from apim_middleware.errors import StoreError
from apim_middleware.stores.purges import Purges
from apim_middleware.stores.tags import checked
from apim_middleware.testing import Answer
from apim_middleware.types import ASGIApp

Guarded: TypeAlias = Callable[..., ASGIApp]
"""Puts layers in front of an app: those given, or a plain cache."""


def status(answer: Answer) -> str:
    """What the response says of caches."""
    return b", ".join(answer.all(b"cache-status")).decode()


class Elsewhere:
    """A store of entries that others see too, and that can be down."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.tagged: dict[bytes, set[bytes]] = {}
        self.down: set[str] = set()
        self.purges = Purges()

    @property
    def pages(self) -> list[bytes]:
        """The keys of responses and their parts, without what stands beside them."""
        return [key for key in self.kept if not key.endswith((b".seal", b".mark"))]

    def _may(self, act: str) -> None:
        if act in self.down:
            raise StoreError("redis://:secret@store is gone") from ConnectionError("refused")

    async def get(self, key: bytes) -> bytes | None:
        self._may("get")
        return self.kept.get(key)

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [await self.get(key) for key in keys]

    async def look(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        after = self.purges.now
        return await self.get_many(keys), after

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        self._may("set")
        assert ttl > 0
        if since is not None and not self.purges.none_of(tags, since=since):
            return False
        self.kept[key] = value
        self.tagged[key] = set(checked(tags))
        return True

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        self._may("add")
        return self.kept.setdefault(key, value) is value

    async def delete(self, key: bytes, *, value: bytes | None = None) -> None:
        self._may("delete")
        if value is None or self.kept.get(key) == value:
            self.kept.pop(key, None)

    async def purge(self, tag: bytes) -> None:
        self._may("purge")
        self.purges.note(tag)
        self.kept = {key: value for key, value in self.kept.items() if tag not in self.tagged.get(key, ())}
