"""Counters of this process for the time their store is away."""

from collections.abc import Iterator, Sequence

from apim_middleware._limits.corrections import NOW, settle_now
from apim_middleware._limits.meters import Use
from apim_middleware.protocols import Change, Clock, Limit, Tally
from apim_middleware.stores.memory import MemoryCounters

_MOST_LOCAL = 10_000
"""Counts kept in this process while the store is away, and told to it afterwards."""

_EACH = 20
"""Room for each of them, which may be under a limit of its own."""


class StandIn:
    """Counters of this process for one outage of their store: everybody begins at nothing."""

    def __init__(self, clock: Clock) -> None:
        self.counters = MemoryCounters(clock, max_keys=_EACH * _MOST_LOCAL)
        self._met: dict[tuple[str, Limit], Use] = {}  # what the store is still to be told of
        self._told: set[tuple[str, Limit]] = set()
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
            if len(self._met) < _MOST_LOCAL:
                self._met.setdefault((key, limit), (key, limit, 0))

    def counted(self) -> Iterator[Change]:
        """What still counts of all that was counted, as of the moment it is asked for; the outage is over."""
        self._over = True
        return self._telling()

    def _telling(self) -> Iterator[Change]:
        while self._met:
            counter, use = next(iter(self._met.items()))
            del self._met[counter]
            if units := self._used(use):
                self._told.add(counter)
                yield Change(use[0], use[1], units, NOW)

    def settle(self, changes: Sequence[Change]) -> list[Change]:
        """Correct hits that were counted here; what is left to correct in the store, which may know of them by now."""
        return [left for change in changes if (left := self._settle(change))]

    def _settle(self, change: Change) -> Change | None:
        counter = change.key, change.limit
        use = *counter, 0
        before = self._used(use)
        settle_now(self.counters, [change])
        if not self._over or counter in self._met:  # it is told of what counts then
            return None
        if change.units > 0:
            return change._replace(counted=NOW)
        # The window it was counted in may be over; what fell here is still in the one that the store was told it for.
        fell = before - self._used(use)
        return Change(*counter, -fell, NOW) if fell and counter in self._told else None

    def _used(self, use: Use) -> int:
        [tally] = self.counters.peek_now([use])
        return (use[1].burst or use[1].quota) - tally.remaining
