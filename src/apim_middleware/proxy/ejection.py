"""Putting a member out that fails time after time: ``Ejection``."""

from dataclasses import dataclass

from apim_middleware._config import Configured
from apim_middleware.proxy._outcomes import KINDS, Kind
from apim_middleware.proxy._statuses import statuses_of

_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Ejection(Configured):
    """Put a member of a pool out for a while when so many requests one after the other have failed there.

    The first time lasts ``out_for``, the second twice as long, and so on up to ``longest``; a member that stays in as
    long as its last time lasted is forgiven one of them. Never more than ``at_most`` of the members are out at once,
    and never the last that could be asked, whatever keeps the others away: a fault all of them share leaves somebody.
    What comes of requests while their member is out counts no more.
    """

    consecutive: int = 5
    """How many requests one after the other must have failed, at least 1."""

    out_for: float = 30.0
    """How long the first time lasts, in seconds."""

    longest: float = 300.0
    """How long any time lasts at the most, in seconds."""

    at_most: float = 0.5
    """Which part of the members may be out at once, above 0 up to 1. A half of one member is none, so that it stays."""

    statuses: tuple[int | str, ...] = (502, 503, 504)
    """Statuses that are failures: ``503``, ``"5xx"``, ``"500-504"``."""

    errors: tuple[Kind, ...] = KINDS
    """Errors that are failures: ``"connect"``, ``"timeout"``, ``"broken"``; all by default."""

    def __post_init__(self) -> None:
        """The numbers must make sense, and there must be something to count."""
        if self.consecutive < 1:
            raise self.mistake("consecutive", "is too few", "Give a number of at least 1")
        if not 0 < self.out_for <= self.longest <= _DAY:
            raise self.mistake("out_for", "is no time up to longest", f"Give 0 < out_for <= longest <= {_DAY:g}")
        if not 0 < self.at_most <= 1:
            raise self.mistake("at_most", "is no part", "Give a number above 0, up to 1")
        if not statuses_of(self, "statuses") and not self.errors:
            raise self.mistake("statuses", "leaves nothing to count", "Write statuses=(502, 503, 504)")


class Outing:
    """How often in a row a member has failed, and until when it is out. Every time is an argument."""

    __slots__ = ("_lasted", "_rule", "_times", "row", "until")

    def __init__(self, rule: Ejection) -> None:
        """A member that is in, and has not failed."""
        self.until: float = 0.0
        self._rule = rule
        self.row: int = 0
        self._times = 0
        self._lasted = rule.out_for

    def full(self, *, failed: bool, before: int = 0) -> bool:
        """Count a request, and say whether so many have failed one after the other that the member should go.

        ``before`` is how many had failed when a response began that has failed after all.
        """
        self.row = max(self.row, before) + 1 if failed else 0
        return self.row >= self._rule.consecutive

    def begin(self, now: float) -> None:
        """Put the member out."""
        rule = self._rule
        forgiven = int(max(0.0, now - self.until) / self._lasted)
        self._times = max(0, self._times - forgiven) + 1
        self._lasted = min(rule.out_for * self._times, rule.longest)
        self.row, self.until = 0, now + self._lasted
