"""The room that entries take, and who makes room when there is none.

A key's hash picks one of about two thousand shards; in each book, the entries of a shard are one dict. No dict ever
holds much more than five hundred entries, so growing one and making room in one are short, and are done by the hit that
meets the need. What is over is dropped whole, and freed bit by bit.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from apim_middleware.protocols import Limit

if TYPE_CHECKING:
    from apim_middleware.stores.counts.book import Book

_SHARD = 500
"""About how many entries a shard holds: few enough that touching each of them is no stall."""

_SWEPT = 32
"""How many old entries are freed for each that is new. With the last of a million go all pages of memory they were on,
and giving those back to the system takes its time too."""

_BOOK = 200
"""How many entries take about the room of an empty book."""

Counts: TypeAlias = list[dict[str, Any]]
"""What was counted under each key, a dict for each shard."""

Part: TypeAlias = tuple[dict[str, Any], list[float]]
"""Entries, and the share of its quota that each has used, in their order; 1 or more goes last."""

NOTHING: dict[str, Any] = {}
"""Stands for the dict of every shard that has no entry yet; never written to."""


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
        self._waste: Counts = []

    def __len__(self) -> int:
        """How many entries are kept, those included that are over and in nobody's way."""
        return sum(map(len, chain.from_iterable(chain.from_iterable(book.all() for book in self.books.values()))))

    def fresh(self) -> Counts:
        """A dict for each shard."""
        return [NOTHING] * self.shards

    def discard(self, counts: Counts) -> None:
        """Drop entries: little by little, for freeing a million at once would be a stall."""
        self._waste.extend(filter(None, counts))

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
            self.evicted += sum(map(len, chain.from_iterable(self.books[first].all())))
            self.books.pop(first).close()
        self.books[limit] = book

    def held(self, shard: int) -> int:
        """How many entries are in a shard."""
        return sum(book.held(shard) for book in self.books.values())

    def _sweep(self) -> None:
        last = self._waste[-1]
        for _ in range(min(len(last), _SWEPT)):
            last.popitem()
        if not last:
            self._waste.pop()

    def _make_room(self, shard: int, now: float) -> None:
        for limit, book in list(self.books.items()):
            if book.over(now):
                self.books.pop(limit).close()
        while (held := self.held(shard)) >= self._size:
            self._evict(shard, now)
        self._admitted[shard] = held

    def _evict(self, shard: int, now: float) -> None:
        """Drop the eighth that used least of its quota, but nobody's who used it all while others are there.

        Lists of floats and of keys that exist anyway: a thousand new objects could set off the garbage collector.
        """
        parts = [part for book in reversed(self.books.values()) for part in book.parts(shard, now)]
        shares = sorted(chain.from_iterable(each for _, each in parts))
        number = min(max(len(shares) // 8, 1), bisect_left(shares, 1.0) or len(shares))
        least = shares[number - 1]
        ties = number - bisect_left(shares, least)
        for counts, each in parts:
            doomed = []
            for key, share in zip(reversed(counts), reversed(each), strict=True):
                if share < least or (share == least and ties):
                    ties -= share == least
                    doomed.append(key)
            for key in doomed:
                del counts[key]
        self.evicted += max(number - bisect_right(shares, 0.0), 0)
