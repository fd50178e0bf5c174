"""The room that entries take, and who makes room when there is none.

A key's fingerprint picks one of about two thousand shards; in each book, the entries of a shard stand together. None
ever holds much more than five hundred, so giving one more slots and making room in one are short, and are done by the
hit that meets the need. What is over is dropped whole, and freed bit by bit.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from apim_middleware.protocols import Limit

if TYPE_CHECKING:
    from apim_middleware.stores.counts.book import Book

_SHARD = 500
"""About how many entries a shard holds: few enough that touching each of them is no stall."""

_BOOK = 200
"""How many entries take about the room of an empty book."""


class Shard(Protocol):
    """Entries of one book whose keys have something in common."""

    @property
    def held(self) -> int:
        """How many there are."""
        ...

    def get(self, key: str, /) -> Any:  # noqa: ANN401 - what it is, the book knows
        """The mark of a key; None when there is none."""
        ...

    def put(self, key: str, mark: Any, /) -> None:  # noqa: ANN401
        """Keep a mark in the place of the one before."""
        ...

    def pull(self, key: str, /) -> Any:  # noqa: ANN401
        """The mark of a key, taken out; None when there is none."""
        ...

    def marks(self) -> list[Any]:
        """Every mark, that of the newest key first."""
        ...

    def drop(self, places: Sequence[int], /) -> None:
        """Take out the marks at these places of ``marks``."""
        ...

    def shed(self) -> bool:
        """Free some of what nobody wants any more, and say whether that was all."""
        ...


Counts: TypeAlias = list[Any]
"""What was counted under each key, shard by shard; of which kind they are, the book knows."""

Part: TypeAlias = tuple[Shard, list[float]]
"""Entries, and the share of its quota that each has used, in the order of ``marks``; 1 or more goes last."""


class Room:
    """Room for so many entries, divided evenly among the shards."""

    __slots__ = ("_admitted", "_most_books", "_size", "_waste", "books", "clock", "evicted", "shards", "wall")

    def __init__(self, max_keys: int, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """Have room for so many; ``clock`` never goes back, ``wall`` is the one that windows are aligned to."""
        self.clock, self.wall = clock, wall
        # An odd number of shards: keys in one shard then differ in the low bits of their hash, which dicts go by.
        self.shards = max(max_keys // _SHARD, 1) - 1 | 1
        self.books: dict[Limit, Book[Any]] = {}
        self.evicted = 0
        self._size = max_keys // self.shards
        self._most_books = max(self._size, max_keys // _BOOK)
        # Entries in each shard, or more: those whose window is over are counted until somebody wants their room.
        self._admitted = [0] * self.shards
        self._waste: list[Shard] = []

    def __len__(self) -> int:
        """How many entries are kept, those included that are over and in nobody's way."""
        return sum(map(_entries, self.books.values()))

    def discard(self, shards: Iterable[Shard]) -> None:
        """Drop entries: little by little, for freeing a million at once would be a stall."""
        self._waste.extend(shards)

    def admit(self, shard: int, now: float) -> None:
        """Say that an entry is added to a shard; it takes the room of others if there is none."""
        if self._admitted[shard] >= self._size:
            self._make_room(shard, now)
        self._admitted[shard] += 1
        if self._waste:
            self._sweep()

    def leave(self, shard: int) -> None:
        """Say that an entry was taken out of a shard."""
        self._admitted[shard] -= 1

    def add(self, limit: Limit, book: "Book[Any]") -> None:
        """Put in a book. Limits are configured, so there are few; beyond the bound, the one opened first is lost."""
        if len(self.books) >= self._most_books:
            first = next(iter(self.books))
            self.evicted += _entries(self.books[first])
            self.books.pop(first).close()
        self.books[limit] = book

    def held(self, shard: int) -> int:
        """How many entries are in a shard."""
        return sum(book.held(shard) for book in self.books.values())

    def _sweep(self) -> None:
        if self._waste[-1].shed():
            self._waste.pop()

    def _make_room(self, shard: int, now: float) -> None:
        for limit, book in list(self.books.items()):
            if book.over(now):
                self.books.pop(limit).close()
        while (held := self.held(shard)) >= self._size:
            self._evict(shard, now)
        self._admitted[shard] = held

    def _evict(self, shard: int, now: float) -> None:
        """Drop the eighth that used least of its quota, but nobody's who used it all while others are there."""
        parts = [part for book in reversed(self.books.values()) for part in book.parts(shard, now)]
        shares = sorted(chain.from_iterable(each for _, each in parts))
        number = min(max(len(shares) // 8, 1), bisect_left(shares, 1.0) or len(shares))
        least = shares[number - 1]
        ties = number - bisect_left(shares, least)
        for entries, each in parts:
            doomed = []
            for place, share in enumerate(each):
                if share < least or (share == least and ties):
                    ties -= share == least
                    doomed.append(place)
            entries.drop(doomed)
        self.evicted += max(number - bisect_right(shares, 0.0), 0)


def _entries(book: "Book[Any]") -> int:
    """How many entries a book keeps."""
    return sum(shard.held for shard in chain.from_iterable(book.all()))
