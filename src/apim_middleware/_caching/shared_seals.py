"""Whether pages that others see too are as fresh as they say: each has a seal beside it, which a mark breaks.

A seal is an entry with a tag for each name of its page. So to mark is to purge a tag: that is one step, no mark undoes
another, and it holds for as long as the page stands. A store may let go of whatever it likes: a page without its seal
is stale, and without the moment it was marked it has been so from the beginning.
"""

import struct
from collections.abc import Iterable, Sequence

from apim_middleware._caching.packing import fingerprint
from apim_middleware._caching.pages import Page
from apim_middleware._caching.shared_store import WaryEntries

_SEAL, _MARK = b".seal", b".mark"
_KNOWN = 86_400.0  # seconds it is known since when something is stale
_MOMENT = struct.Struct("<d")


class Seals:
    """The seals of the pages of one cache, and the moments at which they were broken."""

    def __init__(self, entries: WaryEntries, space: bytes) -> None:
        """Keep them beside the pages, under keys that begin with ``space``."""
        self._entries, self._space = entries, space

    async def put(self, key: bytes, page: Page, seconds: float, tags: Sequence[bytes], since: bytes) -> bool:
        """Seal what stands under a key, unless any of its tags was marked since; whether not. Raises StoreError.

        The first tag is that of its resource, which is never marked: a change to it takes the seal along.
        """
        marks = [tags[0], *(tag + _SEAL for tag in tags[1:])]
        return await self._entries.set(seal_of(key), _impression(page), seconds, tags=marks, since=since)

    def holds(self, seal: bytes | None, page: Page) -> bool:
        """Whether a page is as it was sealed, and nothing it shows was marked since."""
        return seal == _impression(page)

    async def remove(self, key: bytes) -> None:
        """Let go of the seal of what no longer stands under a key. Raises StoreError."""
        await self._entries.delete(seal_of(key))

    async def break_all(self, tag: bytes) -> None:
        """Break the seal of every page with this tag. Raises StoreError."""
        await self._entries.purge_now(tag + _SEAL)

    async def note(self, tag: bytes) -> None:
        """Say that what has a tag is marked now. Raises StoreError."""
        await self._entries.set(self._place(tag), _MOMENT.pack(self._entries.now()), _KNOWN)

    async def soften(self, page: Page, tags: Sequence[bytes]) -> None:
        """Let a page whose seal is broken be stale: since it was marked first, or from the beginning.

        Nothing was marked in time to come, whatever the clock of another machine said. Raises StoreError.
        """
        moments = [min(moment, self._entries.now()) for moment in await self._moments(tags)]
        for stored in page.all():
            since = min((moment for moment in moments if moment >= stored.received), default=stored.received)
            stored.fresh = min(stored.fresh, since)

    async def _moments(self, tags: Iterable[bytes]) -> list[float]:
        """When what has these tags was marked, as far as that is known. Raises StoreError."""
        found = await self._entries.get_many([self._place(tag) for tag in tags])
        return [_MOMENT.unpack(each)[0] for each in found if each is not None and len(each) == _MOMENT.size]

    def _place(self, tag: bytes) -> bytes:
        return self._space + tag + _MARK


def seal_of(key: bytes) -> bytes:
    """Where the seal of what stands under a key is."""
    return key + _SEAL


def _impression(page: Page) -> bytes:
    """What a seal says: by which tags its page is found, beside the names that its key gives it."""
    return fingerprint(sorted(page.tags))
