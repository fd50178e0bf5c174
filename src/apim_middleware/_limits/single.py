"""The gate most requests come through: one limit, a fixed cost, counters in memory, nothing to settle."""

import math
from collections.abc import Callable
from typing import Any

from apim_middleware._http.rate_limit_fields import FIELDS, POLICY, STANDING, effective_window
from apim_middleware._limits.answers import announce
from apim_middleware._limits.gates import Hooks
from apim_middleware._limits.headers import LimitHeaders
from apim_middleware._limits.memory_gate import GateInMemory
from apim_middleware._limits.meters import LimitCheck, Meter
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.stores.memory import MemoryCounters


def is_simple(meter: Meter) -> bool:
    """Whether this gate can stand for a policy."""
    policy = meter.policy
    plain = isinstance(policy.cost, int) and not (policy.settles or policy.shadow or meter.graded)
    usual = not isinstance(policy.headers, LimitHeaders) or policy.headers == LimitHeaders()
    return plain and usual and len(meter.terms.limits) == 1 and meter.terms.limits[0].window < math.inf


class SingleLimitGate:
    """Does what ``GateInMemory`` does, with everything looked up beforehand and as few calls as there can be.

    Nearly every request is one more of a caller who has more left, which the counters tell in a word. All others are
    counted at length, and so are all that cost anything but one unit.
    """

    __slots__ = ("_again", "_by", "_cost", "_counters", "_form", "_policy_line", "_usual", "meter")

    def __init__(self, meter: Meter, env: Env, counters: MemoryCounters) -> None:
        policy, terms = meter.policy, meter.terms
        if not isinstance(policy.cost, int):
            raise TypeError("a cost that depends on the request is not simple")
        self.meter = meter
        self._by, self._cost = policy.by, policy.cost
        self._counters = counters
        self._again: Callable[[Any], tuple[int, int] | None] = _never
        self._policy_line = (POLICY, terms.policy)
        self._form = terms.form
        self._usual = GateInMemory([meter], env, counters)

    def hooks(self) -> Hooks:
        """The hooks that are needed."""
        if self._usual.answers.speaks:
            return Hooks(on_request=self.on_request, on_response=self.on_response)
        return Hooks(on_request=self.on_request)

    def on_request(self, exchange: Exchange) -> None:
        """Let the request in, or refuse it."""
        key = self._by(exchange)
        told = self._again(key)  # None is nobody's key, and nowhere counted
        if told is None:
            told = self._counted(exchange, key)
        exchange.state[self] = told

    def on_response(self, exchange: Exchange) -> None:
        """Tell the caller where they stand."""
        head = exchange.shared.response
        if head is None:
            return
        headers, standing = head.headers, (STANDING, self._form % exchange.state[self])
        for line in headers:
            if line[0] in FIELDS:
                announce(head, self._policy_line, standing)
                return
        headers += (self._policy_line, standing)

    def _counted(self, exchange: Exchange, key: str | None) -> tuple[int, int]:
        """Count the request, or refuse it: the units left, and the seconds in which no more should be used."""
        meter, cost = self.meter, self._cost
        if key is None:
            meter.refuse_unknown()
        terms = meter.terms
        counted, limits = terms.counters(key)
        tally, again = self._counters.hit_one(counted, limits[0], cost)
        if not tally.allowed:
            asked = LimitCheck(meter, terms, counted, limits, cost)
            asked.tallies = (tally,)
            self._usual.judge(exchange, [asked])
        if cost == 1 and limits is terms.limits:
            self._again = again
        return tally.remaining, effective_window(tally, terms.windows[0])


def _never(key: object) -> None:
    """Nobody was counted here before."""
