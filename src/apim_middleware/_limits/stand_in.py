"""Counters of this process for the time their store is away."""

from collections.abc import Sequence
from typing import TypeAlias

from apim_middleware._limits.corrections import NOW, Finding, settle_now
from apim_middleware._limits.meters import Use
from apim_middleware.protocols import Change, Clock, Limit, Tally
from apim_middleware.stores.memory import MemoryCounters

_Counter: TypeAlias = tuple[str, Limit]

_MOST_LOCAL = 10_000
"""Counts kept in this process while the store is away, and told to it afterwards."""

_EACH = 20
"""Room for each of them, which may be under a limit of its own."""


class StandIn:
    """Counters of this process for one outage of their store: everybody begins at nothing."""

    def __init__(self, clock: Clock) -> None:
        self.counters = MemoryCounters(clock=clock, max_keys=_EACH * _MOST_LOCAL)
        self._tellings: dict[_Counter, _Telling] = {}  # what the store is told of when it is back
        self._over = False

    def hit_now(self, uses: Sequence[Use]) -> list[Tally]:
        """Count all if every limit allows it."""
        self._remember(uses)
        return self.counters.hit_now(uses)

    def peek_now(self, uses: Sequence[Use]) -> list[Tally]:
        """What each would be told, counting nothing yet."""
        self._remember(uses)
        return self.counters.peek_now(uses)

    def _remember(self, uses: Sequence[Use]) -> None:
        for key, limit, _ in uses:
            if len(self._tellings) < _MOST_LOCAL and (key, limit) not in self._tellings:
                self._tellings[key, limit] = _Telling(self, (key, limit))

    def tellings(self) -> Sequence[Finding]:
        """What the store is to be told: all that still counts when it is. The outage is over."""
        self._over = True
        return [*self._tellings.values()]

    def settle(self, changes: Sequence[Change]) -> list[Change | Finding]:
        """Correct hits that were counted here; what is left to correct in the store, which may know of them by now."""
        return [left for change in changes if (left := self._settle(change))]

    def _settle(self, change: Change) -> Change | Finding | None:
        counter = change.key, change.limit
        before = self.used(counter)
        settle_now(self.counters, [change])
        telling = self._tellings.get(counter)
        if not self._over or (telling is not None and not telling.told):  # it is told of what counts then
            return None
        if change.units > 0:
            change = change._replace(counted=NOW)
            return change if telling is None else _Amendment(telling, change)
        # The window it was counted in may be over; what fell here is still in the one that the store was told it for.
        fell = before - self.used(counter)
        return _Amendment(telling, Change(*counter, -fell, NOW)) if fell and telling is not None else None

    def used(self, counter: _Counter) -> int:
        """How many units count here."""
        [tally] = self.counters.peek_now([(*counter, 0)])
        return (counter[1].burst or counter[1].quota) - tally.remaining


class _Telling:
    """Tells the store of what was counted here under one key."""

    def __init__(self, stand_in: StandIn, counter: _Counter) -> None:
        self._stand_in, self._counter = stand_in, counter
        self.attempt = 0
        self.told = False
        """Whether the latest attempt was made, or still may be."""
        self.at = NOW
        """When that was, by the clock of the store; now, until that is known."""

    def change(self) -> Change | None:
        self.attempt, self.told, self.at = self.attempt + 1, True, NOW
        units = self._stand_in.used(self._counter)
        return Change(*self._counter, units, NOW) if units else None

    def made(self, change: Change) -> None:
        self.at = change.counted

    def put_back(self) -> None:
        self.told = False


class _Amendment:
    """Corrects what the store was told; when it has to be told anew, that holds the correction as well."""

    def __init__(self, telling: _Telling, change: Change) -> None:
        self._telling, self._change, self._attempt = telling, change, telling.attempt

    def change(self) -> Change | None:
        telling = self._telling
        if not telling.told or telling.attempt != self._attempt:
            return None
        return self._change if self._change.units > 0 else self._change._replace(counted=telling.at)

    def made(self, change: Change) -> None: ...

    def put_back(self) -> None: ...
