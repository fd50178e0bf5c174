"""Tables of marks that are whole numbers: what a hit needs of a key stands in one place, however many keys there are.

Among a million keys a hit waits for memory more than for anything else, and a dict makes it wait five times: for its
index, its entry, the key, the number, and the place of the next number. Here a slot holds the mark beside the
fingerprint of its key, 64 bits of a hash that is seeded for each process; the key itself is not kept. Of a million keys
two have the same fingerprint, and count as one, in one process of thirty million.
"""

import secrets
import sys
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from operator import index
from typing import TYPE_CHECKING, ClassVar, Self, TypeAlias

if TYPE_CHECKING:
    _Words: TypeAlias = array[int]
else:
    _Words = array  # which takes no parameter before Python 3.12

FREE = -1
"""Stands in a slot where there has been no fingerprint yet; no hash is -1."""

NOTHING = -1
"""Stands for the mark of a key that has none (any more)."""

WIDE = -2
"""Stands for a mark that does not fit; it is kept beside the slots."""

LARGEST = 2**63 - 1
"""The largest mark that fits into a word."""

_FEWEST = 4
"""Slots of a table that has just been made. The number is always a power of two."""

_PLACE = 2
"""Bytes that tell of a place."""

_SEED = secrets.token_bytes(16)


def digest(key: str) -> int:
    """A fingerprint where hashes have fewer than 64 bits, or no seed that callers cannot know."""
    raw = blake2b(repr(key).encode(), digest_size=8, key=_SEED).digest()
    found = int.from_bytes(raw, "big", signed=True)
    return found if found != FREE else 0


fingerprint: Callable[[str], int] = hash if sys.hash_info.width >= 64 and sys.flags.hash_randomization else digest
"""Tells keys apart, and says where to look for them."""


class Table(_Words):
    """Whole numbers, each under a key. Slots are looked through from that of a fingerprint to the next free one.

    A slot is ``WIDTH`` words: the fingerprint, then the mark. Those who are in a hurry look for themselves::

        whose = fingerprint(key)
        at = whose & len(table) - WIDTH
        while table[at] != whose: ...

    At most two thirds of the slots are ever taken, so there is always a free one to end at.
    """

    __slots__ = ("held", "order", "wide")

    WIDTH: ClassVar[int] = 2

    held: int
    """How many keys have a mark."""

    def __new__(cls, slots: int = _FEWEST) -> Self:
        """Make one with so many slots, all of them free."""
        return super().__new__(cls, "q", _free(slots * cls.WIDTH))  # type: ignore[return-value]

    def __init__(self, slots: int = _FEWEST) -> None:
        """Begin with nothing in it."""
        self.held = 0
        self.order = bytearray()  # the place of each mark, in the order in which the keys came
        self.wide: dict[int, int] | None = None

    def find(self, whose: int) -> int:
        """Where the mark of a fingerprint stands; 0 when it has none."""
        last = len(self) - self.WIDTH
        at = whose & last
        while (found := self[at]) != whose:
            if found == FREE:
                return 0
            at = at + self.WIDTH & last
        return at + 1 if self[at + 1] != NOTHING else 0

    def read(self, at: int) -> int:
        """The mark that stands there."""
        mark = self[at]
        return mark if mark >= 0 else self.wide_at(at)

    def write(self, at: int, mark: int) -> None:
        """Keep a mark in the place of the one that stands there."""
        if 0 <= mark <= LARGEST:
            self[at] = mark
        else:
            self.widen(at, mark)

    def wide_at(self, at: int) -> int:
        """The mark that stands there, but for its place."""
        return (self.wide or {})[self[at - 1]]

    def widen(self, at: int, mark: int) -> None:
        """Keep a mark that does not fit."""
        if self.wide is None:
            self.wide = {}
        self[at], self.wide[self[at - 1]] = WIDE, mark

    def get(self, key: str) -> int | None:
        """The mark of a key."""
        at = self.find(fingerprint(key))
        return self.read(at) if at else None

    def put(self, key: str, mark: int) -> None:
        """Keep a mark in the place of the one before."""
        whose, mark = fingerprint(key), index(mark)
        self.write(self.find(whose) or self._add(whose), mark)

    def pull(self, key: str) -> int | None:
        """The mark of a key, taken out."""
        at = self.find(fingerprint(key))
        if not at:
            return None
        mark = self.read(at)
        self._clear(at)
        return mark

    def marks(self) -> list[int]:
        """Every mark, that of the newest key first."""
        return list(map(self.read, self._newest()))

    def drop(self, places: Sequence[int]) -> None:
        """Take out the marks at these places of ``marks``."""
        newest = self._newest()
        for place in places:
            self._clear(newest[place])

    def spread(self, shards: int) -> dict[int, Self]:
        """These marks spread over so many tables, by number; only tables that are needed are made."""
        found = defaultdict[int, Self](type(self))
        for at in reversed(self._newest()):
            whose = self[at - 1]
            table = found[whose % shards]
            table.write(table._add(whose), self.read(at))
        return found

    def shed(self) -> bool:
        """Free some of what nobody wants any more, and say whether that was all: it is one piece of memory."""
        return True

    def _newest(self) -> list[int]:
        """Where there are marks, the newest key first; who came again is where it came last."""
        return [at for at in dict.fromkeys(reversed(array("H", self.order))) if self[at] != NOTHING]

    def _clear(self, at: int) -> None:
        if self.wide:
            self.wide.pop(self[at - 1], None)
        self[at] = NOTHING
        self.held -= 1

    def _add(self, whose: int) -> int:
        """Where the mark of a fingerprint is to stand that has none."""
        if 3 * self.WIDTH * len(self.order) >= 2 * _PLACE * len(self):
            self._arrange()
        last = len(self) - self.WIDTH
        at = whose & last
        while (found := self[at]) != FREE and found != whose:
            at = at + self.WIDTH & last
        self[at] = whose
        self.order += (at + 1).to_bytes(_PLACE, sys.byteorder)
        self.held += 1
        return at + 1

    def _arrange(self) -> None:
        """Make more slots, or do away with those whose marks were taken out."""
        width, kept = self.WIDTH, self._newest()
        kept.reverse()
        slots = _FEWEST
        while slots < 2 * (len(kept) + 1):
            slots *= 2
        words, order, last = array("q", _free(slots * width)), array("H"), (slots - 1) * width
        for place in kept:
            whose = self[place - 1]
            at = whose & last
            while words[at] != FREE:
                at = at + width & last
            words[at : at + width] = self[place - 1 : place - 1 + width]
            order.append(at + 1)
        self[:], self.order = words, bytearray(order)


def _free(words: int) -> bytes:
    return b"\xff" * (8 * words)
