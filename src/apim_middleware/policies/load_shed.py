"""Turning requests away before they make all others slow: ``LoadShed``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from apim_middleware._adaptive import CRITICAL, DEFAULT, SHEDDABLE, AdaptiveLimit, Bounds
from apim_middleware._config import awaits
from apim_middleware._functions import needs
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import RawHeaders

Priority: TypeAlias = Literal["critical", "default", "sheddable"]

_LEVELS: dict[object, int] = {"critical": CRITICAL, "default": DEFAULT, "sheddable": SHEDDABLE}
_DETAIL = "There is more to do than can be done in time. Try again later."
_INITIAL = 20
_MOST = 1_000_000
_LONGEST = 86_400.0


@dataclass(frozen=True, kw_only=True)
class LoadShed(Policy):
    """Let as many requests be at work as the app can do without making them wait, and turn the others away.

    How many that are is learnt from the time to the head of each response, and is different for every process. A
    request is at work until the head of its response is known, so that streams and WebSockets hold nothing for long.

    Refused: 503 ``overloaded`` with ``Retry-After`` (RFC 9110 §15.6.4).
    Azure API Management has no such policy; the rule stands in ``_adaptive``.
    """

    guards = False

    priority: Callable[[Exchange], Priority] | None = None
    """How important a request is, as a function of the exchange: ``"critical"`` ones may use the whole limit,
    ``"default"`` ones four fifths of it, ``"sheddable"`` ones half of it. Default: all are ``"default"``."""

    initial_limit: int | None = None
    """How many may be at work at once before anything is known. Default: 20, or of the numbers from ``min_limit`` to
    ``max_limit`` the one nearest to it."""

    min_limit: int = 2
    """How many may be at work at once at the least. Default: 2."""

    max_limit: int = 1_000
    """How many may be at work at once at the most. Default: 1,000."""

    tolerance: float = 1.5
    """How many times as long as without waiting requests may take before the limit shrinks, from 1 to 10. A full app
    settles where they take a third more than that. Default: 1.5."""

    smoothing: float = 0.2
    """Which part of a change is made after each window, above 0 and up to 1: less is steadier. Default: 0.2."""

    window: float = 0.5
    """Seconds over which the time of requests is averaged, at least; and ten requests at least. Default: 0.5."""

    relearn: float = 30.0
    """Seconds after which the time without waiting is measured anew in an app that was busy throughout; 500 times that
    time at least. For as long as thirty requests take, only the root of the limit are at work then. Default: 30."""

    retry_after: int = 5
    """The longest ``Retry-After`` in seconds; those refused one after the other are told all from 1 to this, so that
    they do not come back together. Default: 5."""

    @stated
    def documentation(self) -> Documentation:
        """What is answered where too many are at work."""
        return Documentation(answers=(Answer(503, ("overloaded",), ("retry-after",)),))

    @stated
    def needs(self) -> frozenset[str]:
        """What the priority relies on."""
        return frozenset() if self.priority is None else needs(self.priority)

    def __post_init__(self) -> None:
        """Check that the limits are in order, and the times and parts within reason."""
        self._check_limits()
        for field, most in (("window", 60.0), ("relearn", _LONGEST), ("smoothing", 1.0)):
            if not 0 < getattr(self, field) <= most:
                raise self.mistake(field, "is out of range", f"Give a number above 0, up to {most:g}")
        if not 1 <= self.tolerance <= 10:
            raise self.mistake("tolerance", "is out of range", "Give a number from 1 to 10")
        if not 1 <= self.retry_after <= _LONGEST:
            raise self.mistake("retry_after", "is out of range", f"Give whole seconds from 1 to {_LONGEST:g}")
        if awaits(self.priority):
            raise self.mistake("priority", "is async", "Give a plain function; look things up in a policy before it")

    def _check_limits(self) -> None:
        for field in ("min_limit", "max_limit"):
            if not 1 <= getattr(self, field) <= _MOST:
                raise self.mistake(field, "is out of range", f"Give a number from 1 to {_MOST}")
        if self.min_limit > self.max_limit:
            if self.min_limit == type(self).min_limit:  # which was not told, as far as can be seen
                problem = f"is below min_limit={self.min_limit}"
                raise self.mistake("max_limit", problem, "Give a greater one, or a smaller min_limit beside it")
            raise self.mistake("min_limit", f"is above max_limit={self.max_limit}", "Give a smaller one")
        if not self.min_limit <= _beginning(self) <= self.max_limit:
            problem = f"is not from min_limit={self.min_limit} to max_limit={self.max_limit}"
            raise self.mistake("initial_limit", problem, "Give a number between them, or none")

    def bind(self, env: Env) -> "_Shedder":
        """What is learnt at one place; a reload keeps it."""
        return _Shedder(self, env)


def _beginning(policy: LoadShed) -> int:
    """The initial limit that was told, or else the usual one as far as the others let it be."""
    if policy.initial_limit is not None:
        return policy.initial_limit
    return min(max(_INITIAL, policy.min_limit), policy.max_limit)


class _Shedder:
    """Asks the limit about each request, and tells it how long each took."""

    def __init__(self, policy: LoadShed, env: Env) -> None:
        self.limit = AdaptiveLimit(
            Bounds(
                policy.min_limit, policy.max_limit, _beginning(policy), policy.tolerance, policy.smoothing,
                policy.window, policy.relearn,
            )
        )  # fmt: skip
        self._priority, self._now = policy.priority, env.clock.monotonic
        seconds = range(1, policy.retry_after + 1)
        self._retry: list[RawHeaders] = [[(b"retry-after", b"%d" % each)] for each in seconds]
        self._refused = 0

    def on_request(self, exchange: Exchange) -> None:
        now = self._now()
        level = DEFAULT if self._priority is None else self._level(self._priority(exchange))
        if not self.limit.admit(level, now):
            raise self._refusal(exchange)
        exchange.state[self] = now

    def on_response(self, exchange: Exchange) -> None:
        began: float | None = exchange.state.pop(self, None)
        if began is not None and exchange.response is not None:
            if exchange.is_websocket:  # what comes before the first message of one is no work to speak of
                self.limit.forget(began, self._now())
            else:
                self.limit.leave(began, self._now(), well=exchange.response.status < 400)

    def on_end(self, exchange: Exchange) -> None:
        began: float | None = exchange.state.pop(self, None)
        if began is None:
            return
        if exchange.is_websocket:
            self.limit.forget(began, self._now())
        else:  # no head was seen: it failed, or its client did not wait for it
            self.limit.leave(began, self._now(), well=False)

    def _level(self, priority: Priority) -> int:
        level = _LEVELS.get(priority)
        if level is None:
            raise ValueError("LoadShed.priority gave none of 'critical', 'default', 'sheddable'")
        return level

    def _refusal(self, exchange: Exchange) -> Refusal:
        exchange.attributes["apim.load_shed.limit"] = int(self.limit.learnt.limit)
        self._refused += 1
        headers = self._retry[self._refused % len(self._retry)]
        return Refusal(503, "overloaded", _DETAIL, headers=headers)
