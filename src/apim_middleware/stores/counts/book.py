"""What every book does: keep a mark for each key, and find room for a new one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.counts.room import Counts, Part, Room, Shard
from apim_middleware.stores.counts.table import Table, fingerprint

Mark = TypeVar("Mark", int, bytes)
"""What is kept of one key: values, so that one can be put back, and none of them the garbage collector's business."""

GRAIN = 1e-6
"""Seconds by which units come back early: waiting for exactly the time given is enough in spite of rounded floats."""

Again: TypeAlias = Callable[[str], tuple[int, int] | None]
"""Counts one more unit of a key, if that can be done the short way."""

new = tuple.__new__
"""Makes a named tuple in half the time that its class takes."""


class Book(ABC, Generic[Mark]):
    """What was counted under one limit. Hits of a book that is ``due`` must wait for its ``turn``."""

    __slots__ = ("again", "clock", "counts", "due", "found", "home", "limit", "quota", "room", "shards", "window")

    SHARD: ClassVar[type[Shard]] = Table
    """Where the entries of a shard are kept."""

    EMPTY: ClassVar[Shard] = Table(slots=1)
    """Stands for every shard that has no entry yet; never written to."""

    due: float

    again: Again
    """The short way to count, up to the next turn."""

    found: Mark | None
    """The mark that the latest ``take`` has found: what is put back when the hit was not to be."""

    def __init__(self, limit: Limit, room: Room) -> None:
        """Open the book, with nothing in it; its turn comes next."""
        self.limit, self.quota, self.window = limit, limit.quota, limit.window
        self.room, self.clock = room, room.clock
        self.home = room.home()  # where the first of its shards stands in the room
        self.shards = 1
        self.counts = self.fresh()

    @abstractmethod
    def turn(self, now: float) -> None:
        """Begin the window that runs now."""

    @abstractmethod
    def short_way(self) -> Again:
        """A function to count with up to the next turn: what it needs is its own, and quicker at hand than a method's.

        It counts one more unit of a key that was counted before and has more left, as nearly every hit is. It gives the
        units left and the whole seconds until all are there again, a window of them at most; None for any other hit,
        which is not counted and left to ``take``.
        """

    @abstractmethod
    def take(self, key: str, cost: int, now: float) -> Tally:
        """Count the hit if there is room for it."""

    @abstractmethod
    def look(self, key: str, cost: int, now: float) -> Tally:
        """What ``take`` would say, counting nothing."""

    @abstractmethod
    def settle(self, key: str, units: int, counted: float, now: float) -> None:
        """Count so many units more or (below 0) fewer than was done at ``counted``."""

    @abstractmethod
    def assign(self, key: str, units: int, now: float) -> None:
        """Count so many units used now, and nothing else."""

    @abstractmethod
    def over(self, now: float) -> bool:
        """Whether nothing here counts any more."""

    @abstractmethod
    def parts(self, shard: int, now: float) -> Iterable[Part]:
        """Everything counted in a shard, newest first."""

    def widen(self) -> set[int]:
        """Have as many shards as the room, and say in which of them there is something.

        Whoever still has a short way finds nothing there, or the right thing.
        """
        filled: set[int] = set()
        self.home, self.shards = 0, self.room.shards
        for counts in self.all():
            narrow = counts[0]
            counts[:] = self.fresh()
            for shard, entries in narrow.spread(self.shards).items():
                counts[shard] = entries
                filled.add(shard)
        self.again = self.short_way()
        return filled

    def close(self) -> None:
        """Count nothing any more, for whoever still has this book, and keep nothing."""
        self.due = -math.inf
        for counts in self.all():
            self.discard(counts)

    def discard(self, counts: Counts) -> None:
        """Drop entries, out of the reach of whoever still has a short way there."""
        self.room.discard(shard for shard in counts if shard is not self.EMPTY)
        counts[:] = self.fresh()

    def withdrawn(self) -> Counts:
        """What was counted until this turn, out of the reach of whoever still has a short way there."""
        counts, self.counts[:] = [*self.counts], self.fresh()
        return counts

    def fresh(self) -> Counts:
        """Every shard, with nothing in it."""
        return [self.EMPTY] * self.shards

    def all(self) -> Iterable[Counts]:
        """Everything counted, newest first."""
        return (self.counts,)

    def held(self, shard: int) -> int:
        """How much room a shard takes, in entries."""
        return sum(counts[shard].held for counts in self.all())

    def mark(self, key: str, now: float) -> Mark | None:
        """What a hit may change, as it is."""
        mark: Mark | None = self.counts[fingerprint(key) % self.shards].get(key)
        return mark

    def put(self, key: str, mark: Mark, now: float) -> None:
        """Keep a mark."""
        entries = self.counts[fingerprint(key) % self.shards]
        if entries.get(key) is None:
            entries = self.admit(key, now)
        entries.put(key, mark)

    def put_back(self, key: str, mark: Mark | None) -> None:
        """Undo a hit that was not to be: keep what was kept before it."""
        entries = self.counts[fingerprint(key) % self.shards]
        if mark is None:
            self._drop(entries, key)
        elif entries.get(key) is not None:  # else it had to make room meanwhile
            entries.put(key, mark)

    def forget(self, key: str) -> None:
        """Uncount everything."""
        for counts in self.all():
            self._drop(counts[fingerprint(key) % self.shards], key)

    def admit(self, key: str, now: float) -> Any:  # noqa: ANN401 - a shard of the kind this book has
        """The shard in which there is room for this new key."""
        if self.shards < self.room.shards and self.room.crowded(self):
            self.room.widen(self, now)
        shard = fingerprint(key) % self.shards
        self.room.admit(self.home + shard, now)
        if self.counts[shard] is self.EMPTY:
            self.counts[shard] = self.SHARD()
        return self.counts[shard]

    def _drop(self, entries: Shard, key: str) -> None:
        if entries.pull(key) is not None:
            self.room.leave(self.home + fingerprint(key) % self.shards)
