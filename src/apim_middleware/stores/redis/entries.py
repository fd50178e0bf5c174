"""Entries in Redis or Valkey."""

import asyncio
import math
import secrets
import struct
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias
from zlib import crc32

from apim_middleware.credentials.secret import Secret
from apim_middleware.errors import StoreError
from apim_middleware.protocols import Clock
from apim_middleware.stores.redis.lanes import lanes
from apim_middleware.stores.redis.server import Server
from apim_middleware.stores.redis.shards import Shards
from apim_middleware.stores.tags import checked

if TYPE_CHECKING:
    from apim_middleware.stores.redis.ready import Client

Operation: TypeAlias = Literal["get", "look", "set", "keep", "add", "delete", "release", "purge"]
_Answer: TypeAlias = bytes | int | list[bytes] | None

_SCRIPT = ("entries",)
_LONGEST = 2**31  # seconds
_BEGINS = struct.Struct("<I")


class _Question(NamedTuple):
    operation: Operation
    key: bytes
    life: int = 0
    value: bytes = b""
    tags: Collection[bytes] = ()


class RedisEntries:
    """Entries in a Redis or Valkey server (7 or later) that many processes and machines share; asyncio only.

    Every call is one step of one script, and those of one tick of the event loop travel together. Beside entries and
    tags one key knows the last 10,000 purges, until nothing was kept or purged for a day. The server lets
    entries go when their time is over; when it is full it does what its ``maxmemory-policy`` says, and of those
    ``allkeys-lfu`` or ``allkeys-lru`` suit a server of entries alone. Keys of tags live as long as the last entry that
    has them, and one the server lets go earlier takes its entries along.

    Whatever goes wrong is a StoreError: no connection, no answer in time, a server that loads, is full or may not
    write. Nothing is sent twice; what failed may have been done all the same.

    One object serves one event loop. ``aclose`` waits for what is on its way and closes the connections, unless they
    are those of a ready client.
    """

    def __init__(
        self,
        redis: "str | Client",
        *,
        prefix: str = "apim",
        shards: int = 1,
        connect: float = 1.0,
        timeout: float = 1.0,
        max_waiting: int = 1_000,
        password: str | Secret | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``redis`` is a URL (``redis://``, ``rediss://``, ``unix://``), or a ready client of ``redis.asyncio``.

        ``password`` stands in for the one in the URL; a secret, such as a ``FileSecret``, is read for each connection.
        Keys begin with ``prefix`` in braces, which gives all of them one place in a cluster; with ``shards`` they are
        spread over so many. ``connect`` and ``timeout`` are seconds to wait for a connection and for an answer;
        ``max_waiting`` is how many calls may wait for their turn, of each shard. A ``clock`` is for tests: it stands
        in for the server's.
        """
        self._server = Server("RedisEntries", redis, connect, timeout, password)
        self._shards = Shards("RedisEntries", prefix, shards)
        self._lanes = lanes("RedisEntries", self._shards.spaces, self._carry, max_waiting)
        self._clock = clock

    def __repr__(self) -> str:
        """Where they are, without names and passwords."""
        return f"<RedisEntries: {self._server.address}>"

    async def get(self, key: bytes) -> bytes | None:
        """The bytes, unless unknown, expired, purged or evicted. Raises StoreError."""
        return _found(await self._ask("get", key))

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What ``get`` gives for each of the keys, asked together. Raises StoreError."""
        return [_found(answer) for answer in await self._all("get", keys)]

    async def look(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        """What ``get_many`` gives, and after which purge in each of their shards. Raises StoreError."""
        answers = await self._all("look", keys)
        found: list[bytes | None] = []
        after: dict[bytes, bytes] = {}  # of several keys in a shard the first to be looked at says it
        for key, answer in zip(keys, answers, strict=True):
            record, number = answer if isinstance(answer, list) else (b"", b"")
            found.append(_found(record or None))
            space = self._space(key)
            after[space] = min(after.get(space, number), number, key=lambda each: (len(each), each))
        return found, b",".join([b"%d:%b" % (crc32(space), number) for space, number in after.items()])

    async def _all(self, operation: Operation, keys: Sequence[bytes]) -> list[_Answer]:
        asked: list[asyncio.Future[_Answer]] = []
        try:
            for key in keys:
                asked.append(self._ask(operation, key))  # noqa: PERF401 - some may be asked when there is no room for more
            return await asyncio.gather(*asked)
        finally:
            for each in asked:
                each.cancel()

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        """Keep the bytes for ``ttl`` seconds, or less when room is needed or a tag is purged. Raises StoreError.

        With ``since``, only if none of the tags was purged since, in one step; False when that is why not.
        """
        tags = checked(tags) if tags else []
        if since is None:
            await self._ask("set", key, _milliseconds(ttl), value, tags)
            return True
        shard = b"%d:" % crc32(self._space(key))
        number = next((each[len(shard) :] for each in since.split(b",") if each.startswith(shard)), b"")
        return await self._ask("keep", key, _milliseconds(ttl), value, [number, *tags]) == 1

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        """Keep the bytes if the key has none; whether that was so. Raises StoreError."""
        return await self._ask("add", key, _milliseconds(ttl), value) == 1

    async def delete(self, key: bytes, *, value: bytes | None = None) -> None:
        """Forget the key; with ``value``, only if it has that. Raises StoreError."""
        if value is None:
            await self._ask("delete", key)
        else:
            await self._ask("release", key, 0, value)

    async def purge(self, tag: bytes) -> None:
        """Forget all entries that were set with this tag, however many they are at once. Raises StoreError."""
        loop = self._server.check()
        await asyncio.gather(
            *[lane.ask(_Question("purge", _tags(space) + tag), loop) for space, lane in self._lanes.items()]
        )

    def _ask(
        self, operation: Operation, key: bytes, life: int = 0, value: bytes = b"", tags: Collection[bytes] = ()
    ) -> "asyncio.Future[_Answer]":
        loop, space = self._server.check(), self._space(key)
        return self._lanes[space].ask(_Question(operation, space + b"!entry|" + key, life, value, tags), loop)

    def _space(self, key: bytes) -> bytes:
        return self._shards.only or self._shards.space((key.decode("latin-1"),))

    async def _carry(self, questions: list[_Question]) -> list[_Answer | StoreError]:
        moment = b"%d" % (self._clock.monotonic() * 1000) if self._clock else b""
        space = questions[0].key.partition(b"}")[0] + b"}"  # one lane, one space
        told = [moment, _tags(space), secrets.token_bytes(12), _purges(space)]
        for operation, _, life, value, tags in questions:
            told += operation.encode(), b"%d" % life, value, b"%d" % len(tags), *tags
        reply = await self._server.run(_SCRIPT, [question.key for question in questions], told)
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return [answer if fine == 1 else self._server.failure(answer) for fine, answer in pairs]

    async def aclose(self) -> None:
        """Wait for what is on its way, then close the connections, unless they are those of a ready client."""
        self._server.close()
        for lane in self._lanes.values():
            await lane.aclose()
        await self._server.aclose()


def _tags(space: bytes) -> bytes:
    """What the keys of tags begin with."""
    return space + b"!tag|"


def _purges(space: bytes) -> bytes:
    """The key that knows which tags were purged last."""
    return space + b"!purges"


def _found(answer: _Answer) -> bytes | None:
    """The value of a record, which the script has looked at."""
    return answer[_BEGINS.unpack_from(answer, 12)[0] :] if isinstance(answer, bytes) else None


def _milliseconds(seconds: float) -> int:
    """Whole ones, at least one if it is any time at all."""
    return max(math.floor(min(seconds, _LONGEST) * 1000), 1) if seconds > 0 else 0
