"""Leaving an upstream alone that fails: ``CircuitBreaker``, and the state machine behind it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from apim_middleware._config import Configured
from apim_middleware.proxy._outcomes import KINDS, Kind
from apim_middleware.proxy._statuses import statuses_of

State: TypeAlias = Literal["closed", "open", "half-open"]

_MOST = 10_000
_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class CircuitBreaker(Configured):
    """Send nothing to a member of a pool for a while when it has failed too often, then try it with a few requests.

    It opens at ``failures`` failed requests within ``per`` seconds, or, with ``percent``, when so many of all requests
    of that time have failed. After ``open_for`` seconds it is half open: ``probes`` requests may pass at once; the
    first of them that fails opens it again, and after ``successes`` it is closed. Where nothing came of any for
    ``open_for`` seconds, they count no more, and others may pass. Every member has a breaker of its own, in every
    process. Follows the circuit breaker of Azure's backends, which has no probes.
    """

    failures: int = 5
    """How many failed requests open it, from 1 to 10,000; with ``percent``, how many there must be at least."""

    percent: float | None = None
    """Which part of the requests must have failed, above 0 up to 100; None (the default) to count failures alone."""

    per: float = 10.0
    """Seconds in which failures are counted, up to a day."""

    open_for: float = 30.0
    """Seconds until it is half open, up to a day."""

    statuses: tuple[int | str, ...] = ("5xx",)
    """Statuses that are failures: ``503``, ``"5xx"``, ``"500-504"``."""

    errors: tuple[Kind, ...] = KINDS
    """Errors that are failures: ``"connect"``, ``"timeout"``, ``"broken"``; all by default."""

    retry_after: bool = True
    """Whether the ``Retry-After`` of a failed response says how long it stays open, up to ``longest`` seconds; one that
    asks for no time, or a moment that is past, says nothing."""

    longest: float = 300.0
    """The longest time in seconds that a ``Retry-After`` can keep it open."""

    probes: int = 1
    """How many requests may pass at once while it is half open."""

    successes: int = 1
    """How many requests must succeed while it is half open, one after the other, to close it."""

    def __post_init__(self) -> None:
        """The numbers must make sense, and there must be something to count."""
        for name in ("failures", "probes", "successes"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise self.mistake(name, "is out of range", f"Give a number from 1 to {_MOST}")
        for name in ("per", "open_for", "longest"):
            if not 0 < getattr(self, name) <= _DAY:
                raise self.mistake(name, "is out of range", f"Give seconds above 0, up to {_DAY:g}")
        if self.percent is not None and not 0 < self.percent <= 100:
            raise self.mistake("percent", "is no part", "Give a number above 0, up to 100")
        if not statuses_of(self, "statuses") and not self.errors:
            raise self.mistake("statuses", "leaves nothing to count", 'Write statuses=("5xx",)')


class Breaker:
    """The breaker of one member. Every time is an argument, in seconds of a clock that never goes back.

    Who asks the member takes a ticket from ``admit`` and gives it back to ``tell`` or ``forget``: an answer to a
    request from before a change of state says nothing of the state after it.
    """

    __slots__ = ("_changed", "_count", "_latest", "_probing", "_rule", "_ticket", "_until", "_well", "state")

    def __init__(self, rule: CircuitBreaker, changed: Callable[[State], None]) -> None:
        """Begin closed; ``changed`` is told of every change."""
        self.state: State = "closed"
        self._rule = rule
        self._changed = changed
        self._count: _Log | _Shares = _Log(rule) if rule.percent is None else _Shares(rule, rule.percent)
        self._until = self._latest = 0.0
        self._ticket = self._probing = self._well = 0

    def admits(self, now: float) -> bool:
        """Whether a request may pass now."""
        if self.state == "closed":
            return True
        if self.state == "open":
            if now < self._until:
                return False
            self._become("half-open")
        if self._probing >= self._rule.probes and now >= self._until:
            self._ticket += 1  # a client that never ends its request must not keep everybody else out
            self._probing = 0
        self._latest = now
        return self._probing < self._rule.probes

    def wait(self, now: float) -> float:
        """Seconds until a request may pass; 0 when one may, or when that hangs on probes under way."""
        return max(0.0, self._until - now) if self.state == "open" else 0.0

    def admit(self) -> int:
        """Let a request pass that it admits; the ticket is for ``tell``."""
        if self.state == "half-open":
            self._probing += 1
            self._until = self._latest + self._rule.open_for
        return self._ticket

    def tell(self, ticket: int, now: float, *, failed: bool, wait: float | None = None) -> None:
        """Say how a request fared; ``wait`` is what the response asked for."""
        if ticket != self._ticket:
            return
        if self.state == "half-open":
            self._probed(now, wait, failed=failed)
        elif self.state == "closed" and self._count.full(now, failed=failed):
            self._open(now, wait)

    def forget(self, ticket: int) -> None:
        """Say that a request was given up, which tells nothing of the member."""
        if ticket == self._ticket and self.state == "half-open":
            self._probing -= 1

    def tell_late(self, now: float) -> None:
        """Say that a response of which all seemed well has failed after its head."""
        if self.state == "closed" and self._count.full(now, failed=True):
            self._open(now, None)

    def _probed(self, now: float, wait: float | None, *, failed: bool) -> None:
        self._probing -= 1
        if failed:
            self._open(now, wait)
            return
        self._well += 1
        if self._well >= self._rule.successes:
            self._become("closed")

    def _open(self, now: float, wait: float | None) -> None:
        rule = self._rule
        asked = min(wait, rule.longest) if wait and rule.retry_after else 0.0
        self._until = now + (asked if asked > 0 else rule.open_for)
        self._become("open")

    def _become(self, state: State) -> None:
        self.state = state
        self._ticket += 1
        self._probing = self._well = 0
        self._count.clear()
        self._changed(state)


class _Log:
    """The moments of the latest failures, no more of them than are needed."""

    def __init__(self, rule: CircuitBreaker) -> None:
        self._moments: deque[float] = deque(maxlen=rule.failures)
        self._most, self._per = rule.failures, rule.per

    def full(self, now: float, *, failed: bool) -> bool:
        """Count a request, and say whether there are too many failures now."""
        if not failed:
            return False
        self._moments.append(now)
        return len(self._moments) == self._most and now - self._moments[0] < self._per

    def clear(self) -> None:
        self._moments.clear()


_PARTS = 10


class _Shares:
    """Requests and failures of the interval, in ten parts of it that come and go as one."""

    def __init__(self, rule: CircuitBreaker, percent: float) -> None:
        self._share, self._least, self._length = percent / 100, rule.failures, rule.per / _PARTS
        self._parts: deque[_Part] = deque(maxlen=_PARTS)

    def full(self, now: float, *, failed: bool) -> bool:
        """Count a request, and say whether the failed ones are too large a part now."""
        number, parts = int(now // self._length), self._parts
        if not parts or parts[-1].number != number:
            parts.append(_Part(number))
        parts[-1].total += 1
        parts[-1].bad += failed
        if not failed:
            return False
        lately = [each for each in parts if each.number > number - _PARTS]
        bad = sum(each.bad for each in lately)
        return bad >= self._least and bad >= self._share * sum(each.total for each in lately)

    def clear(self) -> None:
        self._parts.clear()


class _Part:
    __slots__ = ("bad", "number", "total")

    def __init__(self, number: int) -> None:
        self.number, self.total, self.bad = number, 0, 0
