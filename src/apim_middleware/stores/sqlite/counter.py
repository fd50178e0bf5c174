"""What one counter of the SQLite store can do while a transaction lasts; its time, in seconds, stands still then."""

import math
from abc import ABC, abstractmethod
from typing import Protocol

from apim_middleware.protocols import Limit, Tally


class Moments(Protocol):
    """The moments of one log, oldest first, and how many units were used at each."""

    def forget_until(self, moment: float) -> int:
        """Forget everything up to this moment, and say how many units that was."""
        ...

    def oldest(self, units: int) -> float:
        """When the last of so many units was used, counted from the oldest."""
        ...

    def newest(self) -> float:
        """When units were used last; minus infinity when none were."""
        ...

    def at(self, moment: float) -> int:
        """How many units were used at this moment."""
        ...

    def add(self, moment: float, units: int) -> None:
        """Note more or fewer units used at this moment."""
        ...


class Counter(ABC):
    """One counter: what is free of its quota, and when it comes back."""

    __slots__ = ("changed", "limit", "most", "now")

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit, self.now = limit, now
        self.most = limit.quota
        self.changed = False

    def look(self, cost: int) -> Tally:
        """What a hit would be told, counting nothing."""
        return self._tally(cost, allowed=self.free() >= cost)

    def take(self, cost: int) -> Tally:
        """Count the hit if there is room for it."""
        allowed = self.free() >= cost
        if allowed and cost:
            self.add(cost)
        return self._tally(cost, allowed=allowed)

    def _tally(self, cost: int, *, allowed: bool) -> Tally:
        free = self.free()
        wait = 0.0 if free >= cost else self.wait(cost) if cost <= self.most else math.inf
        return Tally(allowed, max(free, 0), self.reset(), wait, self.now)

    @abstractmethod
    def free(self) -> int:
        """Units that can be used now; below 0 when more were counted than the quota."""

    @abstractmethod
    def reset(self) -> float:
        """Seconds until the whole quota is there."""

    @abstractmethod
    def wait(self, cost: int) -> float:
        """Seconds until so many units are free, which now are not, but can be."""

    @abstractmethod
    def add(self, cost: int) -> None:
        """Count units as used now."""

    @abstractmethod
    def change(self, units: int, counted: float) -> None:
        """Count more or fewer units than were counted then, unless that is over."""

    @abstractmethod
    def put(self, units: int) -> None:
        """Stand at so many units, used now."""

    @abstractmethod
    def saved(self) -> float:
        """What ``restore`` needs to undo what is added from here on."""

    @abstractmethod
    def restore(self, saved: float) -> None:
        """Undo what was added."""

    @abstractmethod
    def packed(self) -> bytes | None:
        """What is to be kept; None when nothing counts."""

    @abstractmethod
    def due(self) -> float:
        """When nothing of it counts any more, or somewhat later."""

    @abstractmethod
    def share(self) -> float:
        """How much of the quota is used: 1 for all of it."""
