"""Counters of this process for the time their store is away."""

from collections.abc import Iterator, Sequence

from apim_middleware._limits.corrections import NOW
from apim_middleware._limits.meters import Use
from apim_middleware.protocols import Change, Clock, Tally
from apim_middleware.stores.memory import MemoryCounters

_MOST_LOCAL = 10_000
"""Counts kept in this process while the store is away, and told to it afterwards."""


class StandIn:
    """Counters of this process for one outage of their store: everybody begins at nothing."""

    def __init__(self, clock: Clock) -> None:
        self.counters = MemoryCounters(clock, max_keys=_MOST_LOCAL)
        self._met: dict[tuple[str, object], Use] = {}

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
        """What still counts of all that was counted, as of the moment it is asked for."""
        for use in self._met.values():
            [tally] = self.counters.peek_now([use])
            limit = use[1]
            if units := (limit.burst or limit.quota) - tally.remaining:
                yield Change(use[0], limit, units, NOW)
