"""Pages that are too large for one entry: they stand in parts, and under their key a header that says in which."""

import secrets
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress

from apim_middleware._caching.packing import fingerprint
from apim_middleware.errors import StoreError
from apim_middleware.protocols import Entries

LARGEST = 256 * 1024
"""Bytes one entry has at most."""

_AT_ONCE = 8  # parts that are asked for together
_MOST = 4096 * LARGEST  # bytes of a page, whoever wrote its header
_MARK = b"apim\x03"
_HEADER = struct.Struct(">5s24s16sQ")


class Parts:
    """What is too large for one entry, in several of them that no other writer has."""

    def __init__(self, entries: Entries) -> None:
        """Keep them here."""
        self._entries = entries

    async def keep(
        self, key: bytes, header: bytes, data: bytes, seconds: float, *, tags: Collection[bytes] = ()
    ) -> None:
        """Keep the data as its header says; nothing when that is the data itself. Raises StoreError."""
        for number, name in enumerate(_names(key, header)):
            await self._entries.set(name, data[number * LARGEST : (number + 1) * LARGEST], seconds, tags=tags)

    async def joined(self, key: bytes, header: bytes) -> bytes | None:
        """The data a header tells of, or the header itself; None when a part is not there. Raises StoreError."""
        if not header.startswith(_MARK):
            return header
        found: list[bytes] = []
        names = list(_names(key, header, most=_AT_ONCE))
        while names:
            parts = await self._entries.get_many(names)
            here = [part for part in parts if part is not None]
            if len(here) < len(parts):
                return None
            found += here
            names = list(_names(key, header, most=_AT_ONCE, after=len(found)))
        return b"".join(found)

    async def delete(self, key: bytes, header: bytes | None) -> None:
        """Let go of the parts a header tells of, as far as the store answers."""
        with suppress(StoreError):
            for name in _names(key, header or b""):
                await self._entries.delete(name)


def header_of(key: bytes, data: bytes) -> bytes:
    """What stands under the key of the data: the data itself, unless it is too large."""
    if len(data) <= LARGEST:
        return data
    name = secrets.token_hex(8).encode()
    return _HEADER.pack(_MARK, _checksum(key, name, len(data)), name, len(data))


def _names(key: bytes, header: bytes, *, most: int | None = None, after: int = 0) -> Iterator[bytes]:
    """The keys of the parts a header tells of; none when it is no header, or that of another key."""
    if len(header) != _HEADER.size:
        return
    mark, checksum, name, size = _HEADER.unpack(header)
    if mark != _MARK or checksum != _checksum(key, name, size) or size > _MOST:
        return
    count = -(-size // LARGEST)
    for number in range(after, count if most is None else min(after + most, count)):
        yield b"%b.%b.%d" % (key, name, number)


def _checksum(key: bytes, name: bytes, size: int) -> bytes:
    return fingerprint(("parts", key, name, b"%d" % size))
