"""What every book does: keep a mark for each key, and find room for a new one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.counts.room import NOTHING, Counts, Part, Room

Mark = TypeVar("Mark", int, bytes)
"""What is kept of one key: values, so that one can be put back, and none of them the garbage collector's business."""

GRAIN = 1e-6
"""Seconds by which units come back early: waiting for exactly the time given is enough in spite of rounded floats."""

new = tuple.__new__
"""Makes a named tuple in half the time that its class takes."""


class Book(ABC, Generic[Mark]):
    """What was counted under one limit. Hits of a book that is ``due`` must wait for its ``turn``."""

    __slots__ = ("clock", "counts", "due", "quota", "room", "shards", "window")

    due: float

    def __init__(self, limit: Limit, room: Room) -> None:
        """Open the book, with nothing in it; its turn comes next."""
        self.quota, self.window = limit.quota, limit.window
        self.room, self.shards, self.clock = room, room.shards, room.clock
        self.counts: Counts = room.fresh()

    @abstractmethod
    def turn(self, now: float) -> None:
        """Begin the window that runs now."""

    @abstractmethod
    def again(self, key: str) -> tuple[int, int] | None:
        """Count one more unit of a key that was counted before and has more left, as nearly every hit is.

        Gives the units left and the whole seconds until all are there again, a window of them at most; None for any
        other hit, which is not counted and left to ``take``.
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

    def close(self) -> None:
        """Count nothing any more, for whoever still has this book, and keep nothing."""
        self.due = -math.inf
        for counts in self.all():
            self.room.discard(counts)
            counts.clear()

    def all(self) -> Iterable[Counts]:
        """Everything counted, newest first."""
        return (self.counts,)

    def held(self, shard: int) -> int:
        """How much room a shard takes, in entries."""
        return sum(len(counts[shard]) for counts in self.all())

    def mark(self, key: str, now: float) -> Mark | None:
        """What a hit may change, as it is."""
        return self.counts[hash(key) % self.shards].get(key)

    def put(self, key: str, mark: Mark, now: float) -> None:
        """Keep a mark."""
        counts = self.counts[hash(key) % self.shards]
        if key not in counts:
            counts = self.admit(key, now)
        counts[key] = mark

    def put_back(self, key: str, mark: Mark | None) -> None:
        """Undo a hit that was not to be: keep what was kept before it."""
        counts = self.counts[hash(key) % self.shards]
        if mark is None:
            self._drop(counts, key)
        elif key in counts:  # else it had to make room meanwhile
            counts[key] = mark

    def forget(self, key: str) -> None:
        """Uncount everything."""
        for counts in self.all():
            self._drop(counts[hash(key) % self.shards], key)

    def admit(self, key: str, now: float) -> dict[str, Any]:
        """The dict in which there is room for this new key."""
        shard = hash(key) % self.shards
        self.room.admit(shard, now)
        counts = self.counts[shard]
        if counts is NOTHING:
            counts = self.counts[shard] = {}
        return counts

    def _drop(self, counts: dict[str, Any], key: str) -> None:
        if counts.pop(key, None) is not None:
            self.room.leave(hash(key) % self.shards)
