"""One question to the counters for all that a request asks, and the answers where they belong."""

from collections.abc import Sequence
from typing import Protocol

from apim_middleware._limits.meters import LimitCheck, Use
from apim_middleware.protocols import Tally


class Plain(Protocol):
    """Counters that need no awaiting."""

    def hit_now(self, hits: Sequence[Use]) -> list[Tally]:
        """Count all if every limit allows it."""
        ...

    def peek_now(self, hits: Sequence[Use]) -> list[Tally]:
        """What each would be told, counting nothing."""
        ...


def uses_of(all_asked: Sequence[LimitCheck]) -> list[Use]:
    """Everything that is used, in order."""
    uses: list[Use] = []
    for asked in all_asked:
        key, cost = asked.key, asked.cost
        for limit in asked.limits:
            uses.append((key, limit, cost))  # noqa: PERF401 - faster than a comprehension of one
    return uses


def tell(all_asked: Sequence[LimitCheck], tallies: Sequence[Tally]) -> None:
    """Give each its tallies."""
    if len(all_asked) == 1:
        all_asked[0].tallies = tallies
        return
    begin = 0
    for asked in all_asked:
        end = begin + len(asked.limits)
        asked.tallies = tallies[begin:end]
        begin = end


def at_once(all_asked: Sequence[LimitCheck]) -> list[LimitCheck]:
    """Those that count when the request comes in, unless one that looked first was refused: then nobody does."""
    if not all(asked.allowed for asked in all_asked):
        return []
    return [asked for asked in all_asked if not asked.meter.afterwards]


def ask_now(all_asked: Sequence[LimitCheck], counters: Plain, *, peeks: bool) -> None:
    """Ask counters in memory; if some count afterwards only, look first what all would be told."""
    now = all_asked
    if peeks:
        tell(all_asked, counters.peek_now(uses_of(all_asked)))
        now = at_once(all_asked)
    if now:
        tell(now, counters.hit_now(uses_of(now)))
