"""Records in memory, and what every version of them checks and writes in the same way."""

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from apim_middleware._config import check, check_count
from apim_middleware.errors import FeedLost, VersionConflict
from apim_middleware.protocols import Clock, Record

LARGEST = 1_000_000
"""Bytes of a document as JSON."""

_KIND = re.compile(r"[a-z0-9-]{1,40}")


def checked(kind: str, record_id: str, if_match: int | None = None) -> None:
    """Refuse names that no store keeps. Raises ValueError."""
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is no kind of record: it has 1 to 40 characters of a-z, 0-9 and -")
    if not 1 <= len(record_id) <= 256 or not record_id.isprintable():
        raise ValueError("the id of a record has 1 to 256 characters that print")
    if if_match is not None and if_match < 0:
        raise ValueError(f"{if_match} is no version")


def checked_page(after: int | str, limit: int) -> None:
    """Refuse pages that cannot be. Raises ValueError."""
    if limit < 1 or (isinstance(after, int) and after < 0):
        raise ValueError("a page begins behind a version and holds at least one record")


def written(document: Mapping[str, Any]) -> bytes:
    """A document as JSON. Raises ValueError for what is none, or too large."""
    try:
        text = json.dumps(dict(document), allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a document: {error}") from None
    if len(text) > LARGEST:
        raise ValueError(f"the document has {len(text)} bytes as JSON, which is more than {LARGEST}")
    return text


def read(text: bytes | str) -> dict[str, Any]:
    """The document that was written."""
    document: dict[str, Any] = json.loads(text)
    return document


def first_version(now: float) -> int:
    """Where versions begin: by the clock, so that a store begun anew has none that its former self had."""
    return int(now * 1_000_000)


class MemoryRecords:
    """Records in the memory of this process, gone when it ends.

    The last ``max_deleted`` deletions are told to those who follow the changes.
    """

    def __init__(self, *, max_deleted: int = 10_000, clock: Clock | None = None) -> None:
        """Begin with no record; without a ``clock``, take the machine's."""
        check("MemoryRecords", "clock", clock, Clock | None)
        check_count("MemoryRecords", "max_deleted", max_deleted)
        self._max_deleted = max_deleted
        self._version = self._floor = first_version((clock.now if clock else time.time)())
        self._kept: dict[tuple[str, str], tuple[int, bytes | None]] = {}  # in the order of their versions
        self._deleted: dict[tuple[str, str], None] = {}

    def __repr__(self) -> str:
        """How many there are."""
        return f"<MemoryRecords: {len(self)} records>"

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept) - len(self._deleted)

    async def get(self, kind: str, record_id: str) -> Record | None:
        """The record, unless there is none."""
        checked(kind, record_id)
        version, text = self._kept.get((kind, record_id), (0, None))
        return None if text is None else Record(kind, record_id, version, read(text))

    async def page(self, kind: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        """The records of a kind by id. Looks at all there are: not for every request."""
        checked_page(after, limit)
        ids = sorted(name for of, name in self._kept if of == kind and name > after and (of, name) not in self._deleted)
        return [self._record(kind, name) for name in ids[:limit]]

    async def put(
        self,
        kind: str,
        record_id: str,
        document: Mapping[str, Any],
        *,
        if_match: int | None = None,
    ) -> Record:
        """Write a record, whole. Raises VersionConflict."""
        text = written(document)
        self._match(kind, record_id, if_match)
        self._write(kind, record_id, text)
        self._deleted.pop((kind, record_id), None)
        return self._record(kind, record_id)

    async def delete(self, kind: str, record_id: str, *, if_match: int | None = None) -> None:
        """Delete a record. Raises VersionConflict."""
        if self._match(kind, record_id, if_match):
            self._write(kind, record_id, None)
            self._deleted[kind, record_id] = None
            if len(self._deleted) > self._max_deleted:
                oldest = next(iter(self._deleted))
                del self._deleted[oldest]
                self._floor = self._kept.pop(oldest)[0]

    async def version(self) -> int:
        """The version of the latest change."""
        return self._version

    async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
        """What was changed behind a version. Raises FeedLost."""
        checked_page(after, limit)
        if after and not self._floor <= after <= self._version:
            raise FeedLost(f"changes are known from version {self._floor} to {self._version}")
        found = []
        for place in reversed(self._kept):
            if self._kept[place][0] <= after:
                break
            if after or place not in self._deleted:
                found.append(place)
        found.reverse()
        return [self._record(*place) for place in (found[:limit] if after else found)]

    def _match(self, kind: str, record_id: str, if_match: int | None) -> int:
        """The version a record has, when it is the one that was said."""
        checked(kind, record_id, if_match)
        version, text = self._kept.get((kind, record_id), (0, None))
        version = version if text is not None else 0
        if if_match is not None and if_match != version:
            raise VersionConflict(version)
        return version

    def _write(self, kind: str, record_id: str, text: bytes | None) -> None:
        self._version += 1
        self._kept.pop((kind, record_id), None)
        self._kept[kind, record_id] = self._version, text

    def _record(self, kind: str, record_id: str) -> Record:
        version, text = self._kept[kind, record_id]
        return Record(kind, record_id, version, None if text is None else read(text))
