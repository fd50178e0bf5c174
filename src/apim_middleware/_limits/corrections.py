"""Corrections of what was counted: as of when they are made, and where they wait until they are."""

import logging
import math
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from apim_middleware._limits.meters import Use
from apim_middleware.protocols import Change, Tally
from apim_middleware.stores.memory import MemoryCounters

log = logging.getLogger("apim_middleware")

_MOST_WAITING = 100_000
"""Corrections that wait for a store to come back; beyond that the newest are lost, and it is said how many."""

NOW = -math.inf
"""Stands for the moment of a change that is to be made as of when it is made."""


def dated(changes: Sequence[Change], tallies: Sequence[Tally]) -> list[Change]:
    """The changes, those as of now by the store's own clock, which each tally tells."""
    return [
        change._replace(counted=tally.counted) if change.counted == NOW else change
        for change, tally in zip(changes, tallies, strict=True)
    ]


def settle_now(counters: MemoryCounters, changes: Sequence[Change]) -> None:
    """Correct hits in memory."""
    if any(change.counted == NOW for change in changes):
        changes = dated(changes, counters.peek_now(peeks_of(changes)))
    counters.settle_now(changes)


def peeks_of(changes: Sequence[Change]) -> list[Use]:
    """What to look at before the changes are made."""
    return [(change.key, change.limit, 0) for change in changes]


class Left:
    """Changes that are left to be made. When it is dropped with some in it, as at the end of a process, it says so."""

    def __init__(self) -> None:
        self._waiting: deque[Change] = deque()
        self._following: Iterator[Change] = iter(())
        self._lost = 0
        weakref.finalize(self, _report, self._waiting)

    def add(self, changes: Iterable[Change]) -> None:
        """Leave some more."""
        for change in changes:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(change)
            else:
                self._lost += 1

    def follow(self, changes: Iterator[Change]) -> None:
        """Leave what can be found out when its turn comes."""
        self._following = chain(self._following, changes)

    def take(self, most: int) -> list[Change]:
        """The oldest of them, no longer here."""
        if self._lost:  # told now and then, not for each
            log.error("%d corrections of counts are lost: too many wait for their store", self._lost)
            self._lost = 0
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        taken += islice(self._following, most - len(taken))
        return taken

    def put_back(self, changes: Sequence[Change]) -> None:
        """Have them first again."""
        self._waiting.extendleft(reversed(changes))


def _report(waiting: deque[Change]) -> None:
    if waiting:
        log.error("%d corrections of counts were never made: their store was away to the end", len(waiting))
