"""The gate most requests come through: one limit, a fixed cost, counters in memory, nothing to settle."""

import math
from collections.abc import Callable
from math import ceil

from apim_middleware._http.rate_limit_fields import FIELDS, POLICY, STANDING, effective_window
from apim_middleware._limits.answers import announce
from apim_middleware._limits.gates import Hooks
from apim_middleware._limits.headers import LimitHeaders
from apim_middleware._limits.memory_gate import GateInMemory
from apim_middleware._limits.meters import Asked, Meter
from apim_middleware._limits.places import LONGEST_KEY
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.memory import MemoryCounters


def is_simple(meter: Meter) -> bool:
    """Whether this gate can stand for a policy."""
    policy = meter.policy
    plain = isinstance(policy.cost, int) and not (policy.settles or policy.shadow or meter.graded)
    usual = not isinstance(policy.headers, LimitHeaders) or policy.headers == LimitHeaders()
    return plain and usual and len(meter.terms.limits) == 1 and meter.terms.limits[0].window < math.inf


class SwiftGate:
    """Does what ``GateInMemory`` does, with everything looked up beforehand and as few calls as there can be."""

    __slots__ = ("_by", "_cost", "_form", "_hit", "_limit", "_policy_line", "_usual", "_window", "meter")

    def __init__(self, meter: Meter, env: Env, counters: MemoryCounters) -> None:
        policy, terms = meter.policy, meter.terms
        if not isinstance(policy.cost, int):
            raise TypeError("a cost that depends on the request is not simple")
        self.meter = meter
        self._by, self._cost = policy.by, policy.cost
        self._hit: Callable[[str, Limit, int], Tally] = counters.hit_one
        self._limit: Limit = terms.limits[0]
        self._window = terms.windows[0]
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
        if key is None or len(key) > LONGEST_KEY or not key.isascii():
            if key is None:
                self.meter.refuse_unknown()
            key, (limit,) = self.meter.terms.counters(key)
        else:
            limit = self._limit
        tally = self._hit(key, limit, self._cost)
        if not tally[0]:
            asked = Asked(self.meter, self.meter.terms, key, (limit,), self._cost)
            asked.tallies = (tally,)
            self._usual.judge(exchange, [asked])
        exchange.state[self] = tally

    def on_response(self, exchange: Exchange) -> None:
        """Tell the caller where they stand."""
        tally: Tally = exchange.state[self]
        head = exchange.shared.response
        if head is None:
            return
        _, remaining, reset, wait, _ = tally
        if wait:  # what is used up: effective_window says when it can be used again
            seconds = effective_window(tally, self._window)
        else:
            seconds = ceil(reset if reset < self._window else self._window)
        headers = head.headers
        standing = self._form % (remaining, seconds)
        for line in headers:
            if line[0] in FIELDS:
                announce(head, self._policy_line, (STANDING, standing))
                return
        headers += (self._policy_line, (STANDING, standing))
