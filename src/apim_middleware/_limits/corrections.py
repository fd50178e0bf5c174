"""Corrections of what was counted: as of when they are made, and where they wait until they are."""

import logging
import math
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from apim_middleware._limits.meters import Use
from apim_middleware.protocols import Change, Tally
from apim_middleware.stores.memory import MemoryCounters

log = logging.getLogger("apim_middleware")

_MOST_WAITING = 100_000
"""Corrections that wait for a store to come back; beyond that the newest are lost, and it is said how many."""

NOW = -math.inf
"""Stands for the moment of a change that is to be made as of when it is made."""


class Finding(Protocol):
    """A change that is found out when its turn comes, and anew when it could not be made then."""

    def change(self) -> Change | None:
        """What is to be changed, as things stand; None when nothing is."""
        ...

    def made(self, change: Change) -> None:
        """It was made, as of a moment of the store's own clock."""
        ...

    def put_back(self) -> None:
        """It was not made."""
        ...


class Pending(NamedTuple):
    """A change whose turn has come, and what found it, if it had to be found out."""

    change: Change
    finding: Finding | None


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
        self._waiting: deque[Change | Finding] = deque()
        self._lost = 0
        weakref.finalize(self, _report, self._waiting)

    def add(self, changes: Iterable[Change | Finding]) -> None:
        """Leave some more."""
        for change in changes:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(change)
            else:
                self._lost += 1

    def take(self, most: int) -> list[Pending]:
        """The oldest of them, no longer here."""
        if self._lost:  # told now and then, not for each
            log.error("%d corrections of counts are lost: too many wait for their store", self._lost)
            self._lost = 0
        taken: list[Pending] = []
        while self._waiting and len(taken) < most:
            left = self._waiting.popleft()
            if isinstance(left, Change):
                taken.append(Pending(left, None))
            elif (change := left.change()) is not None:
                taken.append(Pending(change, left))
        return taken

    def put_back(self, batch: Sequence[Pending]) -> None:
        """Have them first again."""
        for change, finding in reversed(batch):
            if finding is not None:
                finding.put_back()
            self._waiting.appendleft(finding or change)


def _report(waiting: deque[Change | Finding]) -> None:
    if waiting:
        log.error("%d corrections of counts were never made: their store was away to the end", len(waiting))
