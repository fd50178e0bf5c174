"""Records in Redis or Valkey."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from apim_middleware._config import check_count
from apim_middleware.credentials.secret import Secret
from apim_middleware.errors import FeedLost, StoreError, VersionConflict
from apim_middleware.protocols import Clock, Record
from apim_middleware.stores.records import checked, checked_page, first_version, read, written
from apim_middleware.stores.redis.server import Server
from apim_middleware.stores.redis.shards import Shards

if TYPE_CHECKING:
    from apim_middleware.stores.redis.ready import Client

_SCRIPT = ("records",)


class RedisRecords:
    """Records in a Redis or Valkey server (7 or later) that many processes and machines share; asyncio only.

    One script for each call, atomic there. All records have one hash tag, so that in a cluster they are on one server.
    The last ``max_deleted`` deletions are told to those who follow the changes; where the server lost everything, they
    are told that they must begin anew. How durable records are is the server's affair (``appendonly yes``).

    Whatever goes wrong is a StoreError. One object serves one event loop. ``aclose`` closes the connections, unless
    they are those of a ready client.
    """

    def __init__(
        self,
        redis: "str | Client",
        *,
        prefix: str = "apim",
        max_deleted: int = 10_000,
        connect: float = 1.0,
        timeout: float = 2.0,
        password: str | Secret | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``redis`` is a URL (``redis://``, ``rediss://``, ``unix://``), or a ready client of ``redis.asyncio``.

        ``password`` stands in for the one in the URL; a secret, such as a ``FileSecret``, is read for each connection.
        ``connect`` and ``timeout`` are seconds; ``prefix`` begins the names of all keys; ``clock`` is for tests.
        """
        check_count("RedisRecords", "max_deleted", max_deleted)
        self._max_deleted = max_deleted
        self._server = Server("RedisRecords", redis, connect, timeout, password)
        [space] = Shards("RedisRecords", prefix, 1).spaces
        self._keys = [space + b"!records" + part for part in (b"", b"|feed", b"|names", b"|deleted", b"|state")]
        self._clock = clock

    def __repr__(self) -> str:
        """Where they are, without names and passwords."""
        return f"<RedisRecords: {self._server.address}>"

    async def get(self, kind: str, record_id: str) -> Record | None:
        """The record, unless there is none. Raises StoreError."""
        checked(kind, record_id)
        found = _records(await self._ask("get", _name(kind, record_id)))
        return found[0] if found else None

    async def page(self, kind: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        """The records of a kind by id. Raises StoreError."""
        checked_page(after, limit)
        first = b"(" + _name(kind, after) if after else b"[" + _name(kind, "")
        last = b"(" + kind.encode() + b"\x01"
        return _records(await self._ask("list", first, last, b"%d" % limit))

    async def put(
        self,
        kind: str,
        record_id: str,
        document: Mapping[str, Any],
        *,
        if_match: int | None = None,
    ) -> Record:
        """Write a record, whole. Raises VersionConflict and StoreError."""
        checked(kind, record_id, if_match)
        text = written(document)
        version = _done(await self._ask("put", _name(kind, record_id), _version(if_match), text))
        return Record(kind, record_id, version, read(text))

    async def delete(self, kind: str, record_id: str, *, if_match: int | None = None) -> None:
        """Delete a record. Raises VersionConflict and StoreError."""
        checked(kind, record_id, if_match)
        _done(await self._ask("delete", _name(kind, record_id), _version(if_match), b"%d" % self._max_deleted))

    async def version(self) -> int:
        """The version of the latest change. Raises StoreError."""
        [version] = await self._ask("version")
        return int(version)

    async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
        """What was changed behind a version. Raises FeedLost and StoreError."""
        checked_page(after, limit)
        answer = await self._ask("changes", b"%d" % after, b"%d" % limit)
        if answer[:1] == [b"lost"]:
            raise FeedLost(f"changes are known from version {answer[1].decode()} to {answer[2].decode()}")
        return _records(answer)

    async def aclose(self) -> None:
        """Close the connections, unless they are those of a ready client; calls fail afterwards."""
        self._server.close()
        await self._server.aclose()

    async def _ask(self, operation: str, *words: bytes) -> list[Any]:
        self._server.check()
        begin = b"%d" % first_version(self._clock.now()) if self._clock else b""
        answer = await self._server.run(_SCRIPT, self._keys, [begin, operation.encode(), *words])
        if not isinstance(answer, list):
            raise StoreError(f"the store on {self._server.address} answered something else")
        return answer


def _name(kind: str, record_id: str) -> bytes:
    return kind.encode() + b"\0" + record_id.encode("utf-8", "surrogatepass")


def _version(if_match: int | None) -> bytes:
    return b"" if if_match is None else b"%d" % if_match


def _done(answer: list[Any]) -> int:
    if answer[0] == b"conflict":
        raise VersionConflict(int(answer[1]))
    return int(answer[1])


def _records(answer: list[Any]) -> list[Record]:
    return [_record(*answer[at : at + 3]) for at in range(0, len(answer), 3)]


def _record(name: bytes, version: bytes, text: bytes | None) -> Record:
    kind, _, record_id = name.partition(b"\0")
    document = None if text is None else read(text)
    return Record(kind.decode(), record_id.decode("utf-8", "surrogatepass"), int(version), document)
