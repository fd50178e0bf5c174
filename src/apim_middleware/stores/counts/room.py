"""The room that entries take, and who makes room when there is none.

A key's fingerprint picks one of about two thousand shards; in each book, the entries of a shard stand together. None
ever holds much more than five hundred, so giving one more slots and making room in one are short, and are done by the
hit that meets the need. What is over is dropped whole, and freed bit by bit.

A book begins narrow, with all its entries in one shard, for of many limits most are those of a few keys; it becomes
wide, with entries in every shard, when it has more.
"""

import logging
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from apim_middleware.protocols import Limit

if TYPE_CHECKING:
    from apim_middleware.stores.counts.book import Book

_SHARD = 500
"""About how many entries a shard holds: few enough that touching each of them is no stall."""

_NARROW, _WIDE = 20, 200
"""How many entries take about the room of an empty book."""

_FEW = 64
"""So many entries are kept by a narrow book."""

_SAMPLE, _TRIES = 32, 8
"""When there are too many books: how many are looked at together, and how often when all of those are used up."""

log = logging.getLogger("apim_middleware")


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

    def spread(self, shards: int) -> dict[int, Self]:
        """These entries spread over so many shards, by number; only shards that are needed are made."""
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

    __slots__ = (
        "_admitted", "_home", "_most_books", "_most_wide", "_narrow", "_size", "_waste", "_wide",
        "books", "clock", "evicted", "shards", "wall",
    )  # fmt: skip

    def __init__(self, max_keys: int, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """Have room for so many; ``clock`` never goes back, ``wall`` is the one that windows are aligned to."""
        self.clock, self.wall = clock, wall
        # An odd number of shards: keys in one shard then differ in the low bits of their hash, which dicts go by.
        self.shards = max(max_keys // _SHARD, 1) - 1 | 1
        self.books: dict[Limit, Book[Any]] = {}
        self.evicted = 0
        self._size = max_keys // self.shards
        self._most_books, self._most_wide = max(self._size, max_keys // _NARROW), max_keys // _WIDE
        self._wide: dict[Book[Any], None] = {}
        self._narrow: defaultdict[int, dict[Book[Any], None]] = defaultdict(dict)  # by shard
        self._home = 0
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

    def home(self) -> int:
        """A shard for a book that begins narrow."""
        self._home = (self._home + 1) % self.shards
        return self._home

    def add(self, book: "Book[Any]", now: float) -> None:
        """Put in a book; beyond the bound, others go."""
        if len(self.books) >= self._most_books:
            self._close_some(now)
        self.books[book.limit] = book
        (self._wide if book.shards == self.shards else self._narrow[book.home])[book] = None

    def crowded(self, book: "Book[Any]") -> bool:
        """Whether a narrow book is to become wide before it has one more entry."""
        few = _FEW if self._admitted[book.home] < self._size else _FEW // 8
        return len(self._wide) < self._most_wide and book.held(0) >= few

    def widen(self, book: "Book[Any]", now: float) -> None:
        """Let a narrow book have entries in every shard."""
        del self._narrow[book.home][book]
        self._admitted[book.home] -= book.held(0)
        filled = book.widen()
        self._wide[book] = None
        for shard in filled:
            self._admitted[shard] += book.held(shard)
            if self._admitted[shard] > self._size:
                self._make_room(shard, now)

    def held(self, shard: int) -> int:
        """How many entries are in a shard."""
        return sum(book.held(shard - book.home) for book in self._books_in(shard))

    def _books_in(self, shard: int) -> list["Book[Any]"]:
        return [*self._wide, *self._narrow.get(shard, ())]

    def _close_some(self, now: float) -> None:
        """Close, of the books that were not looked at for longest, those that are over; else one that matters least."""
        for _ in range(_TRIES):
            sample = list(islice(self.books.values(), _SAMPLE))
            for book in sample:  # who stays comes round again
                self.books[book.limit] = self.books.pop(book.limit)
            if over := [book for book in sample if book.over(now)]:
                for book in over:
                    self._close(book)
                return
            least, doomed = min(((_weight(book, now), book) for book in sample), key=itemgetter(0))
            if least < 1.0:
                break
        if not self.evicted:
            log.warning("counts are forgotten: there are more different limits than the %d kept", self._most_books)
        self.evicted += _entries(doomed)
        self._close(doomed)

    def _close(self, book: "Book[Any]") -> None:
        del self.books[book.limit]
        (self._wide if book in self._wide else self._narrow[book.home]).pop(book)
        book.close()

    def _sweep(self) -> None:
        if self._waste[-1].shed():
            self._waste.pop()

    def _make_room(self, shard: int, now: float) -> None:
        for book in self._books_in(shard):
            if book.over(now):
                self._close(book)
        while (held := self.held(shard)) >= self._size:
            self._evict(shard, now)
        self._admitted[shard] = held

    def _evict(self, shard: int, now: float) -> None:
        """Drop the eighth that used least of its quota, but nobody's who used it all while others are there."""
        parts = [part for book in reversed(self._books_in(shard)) for part in book.parts(shard - book.home, now)]
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


def _weight(book: "Book[Any]", now: float) -> float:
    """What is lost with a book: as much of its quota as a key used that used most of it; with a wide one more."""
    if book.shards > 1:
        return 2.0 + _entries(book)
    return max(chain.from_iterable(shares for _, shares in book.parts(0, now)), default=0.0)


def _entries(book: "Book[Any]") -> int:
    """How many entries a book keeps."""
    return sum(shard.held for shard in chain.from_iterable(book.all()))
