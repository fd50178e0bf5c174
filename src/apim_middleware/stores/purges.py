"""Which tags were purged last, in their order: what is kept is to be no older than that."""

import secrets
from collections.abc import Collection

KNOWN_PURGES = 10_000
"""So many purges are known; what was begun before more of them is not kept any more."""

FIRST_PURGE = 2**48
"""The order begins with a number below this, at random: so it is not taken for one that was forgotten."""


class Purges:
    """The purges of a store in memory: the last of each tag, while that is among the last ones of all."""

    def __init__(self, known: int = KNOWN_PURGES) -> None:
        """Begin with none, and know so many."""
        self._known = known
        self._number = self._first = secrets.randbelow(FIRST_PURGE)
        self._last: dict[int, int] = {}  # the numbers of tags, the oldest first; hashes, for tags may be long

    @property
    def now(self) -> bytes:
        """After which purge it is."""
        return b"%d" % self._number

    def note(self, tag: bytes) -> None:
        """This tag is purged."""
        self._number += 1
        self._last.pop(hash(tag), None)
        self._last[hash(tag)] = self._number
        if len(self._last) > self._known:
            self._first = self._last.pop(next(iter(self._last)))

    def none_of(self, tags: Collection[bytes], *, since: bytes) -> bool:
        """Whether it is known that none of these was purged since."""
        number = int(since) if since.isdigit() else -1
        if not self._first <= number <= self._number:
            return False
        return all(self._last.get(hash(tag), 0) <= number for tag in tags)
