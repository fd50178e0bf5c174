"""Books whose entries end each at its own time: they are dropped a generation at a time, when the last has ended."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import TypeAlias

from apim_middleware.protocols import Limit
from apim_middleware.stores.counts.book import GRAIN, Book, Mark
from apim_middleware.stores.counts.room import Counts, Part, Room
from apim_middleware.stores.counts.table import fingerprint

_SHORTEST = 1.0
"""Seconds a generation takes at least, for each turn costs something."""

Generation: TypeAlias = tuple[Counts, float]
"""Entries, and when the last of them has ended."""


class Aging(Book[Mark]):
    """Keeps the marks of a generation together; one that is asked for moves to the generation that runs."""

    __slots__ = ("length", "older", "until")

    def __init__(self, limit: Limit, room: Room, length: float) -> None:
        """Open the book; a mark ends ``length`` seconds after it was written, if nothing else is said."""
        super().__init__(limit, room)
        self.length = max(length, _SHORTEST) + GRAIN
        self.until = -math.inf
        self.older: list[Generation] = []

    @abstractmethod
    def shares(self, marks: Iterable[Mark], now: float) -> list[float]:
        """What share of the quota each mark stands for."""

    def turn(self, now: float) -> None:
        """Begin a generation, and drop those that have ended."""
        generations: list[Generation] = [(self.withdrawn(), self.until), *self.older]
        self.older = [each for each in generations if each[1] > now]
        for counts, until in generations:
            if until <= now:
                self.discard(counts)
        self.counts, self.due = self.fresh(), now + self.length
        self.until = self.due + self.length
        self.again = self.short_way()

    def mark(self, key: str, now: float) -> Mark | None:
        """What was kept of a key, in the generation that runs from now on."""
        mark: Mark | None = self.counts[fingerprint(key) % self.shards].get(key)
        return mark if mark is not None else self.recall(key, now)

    def recall(self, key: str, now: float) -> Mark | None:
        """The mark of an older generation, moved to the one that runs."""
        shard = fingerprint(key) % self.shards
        for counts, _ in self.older:
            mark: Mark | None = counts[shard].pull(key)
            if mark is not None:
                self.room.leave(self.home + shard)
                self.put(key, mark, now)
                return mark
        return None

    def over(self, now: float) -> bool:
        """Whether nothing here counts any more."""
        return now >= self.until and all(now >= until for _, until in self.older)

    def all(self) -> Iterable[Counts]:
        """Everything counted, newest first."""
        return (self.counts, *(counts for counts, _ in self.older))

    def parts(self, shard: int, now: float) -> Iterable[Part]:
        """Everything counted in a shard, newest first."""
        return [(counts[shard], self.shares(counts[shard].marks(), now)) for counts in self.all()]
