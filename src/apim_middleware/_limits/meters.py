"""One policy at one place: what each request uses of its limits, and what it used in truth."""

import logging
from collections.abc import Sequence
from typing import TypeAlias

from apim_middleware._functions import name_of
from apim_middleware._http.fields import GREATEST_INTEGER
from apim_middleware._http.rate_limit_fields import policy_value, standing_form, tightness, told_window
from apim_middleware._limits.overrides import rates_of
from apim_middleware._limits.places import LONGEST_KEY, digest_of, place_of
from apim_middleware._limits.rates import Rate
from apim_middleware._limits.rules import Limiting
from apim_middleware._limits.transfer import Transfer
from apim_middleware.conditions import holds
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Counters, Limit, Tally

log = logging.getLogger("apim_middleware")

Use: TypeAlias = tuple[str, Limit, int]
"""What a ``Hit`` says, as a bare tuple: made in a tenth of the time."""

_MOST_TERMS = 1_000
"""How many rates of overrides are kept compiled."""


class Terms:
    """The limits somebody is served under, and how they are told."""

    __slots__ = ("form", "limits", "limits_of_digests", "limits_of_unknown", "names", "policy", "windows")

    def __init__(self, policy: Limiting, place: str, rates: tuple[Rate, ...] | None = None) -> None:
        self.limits = policy.limits(place, rates)
        self.limits_of_digests = policy.limits(f"{place}#", rates)
        self.limits_of_unknown = policy.limits(f"{place}?", rates)
        self.windows = [told_window(limit) for limit in self.limits]
        self.names = policy.names(self.limits)
        self.policy = policy_value(self.names, self.limits, counts_bytes=policy.counts_bytes)
        self.form = standing_form(self.names, self.limits)

    def counters(self, key: str | None) -> tuple[str, tuple[Limit, ...]]:
        """Under which key and limits somebody counts: unknown, of a key that can be kept as it is, or of another."""
        if key is None:
            return "", self.limits_of_unknown
        if not isinstance(key, str):  # bytes would count in memory, and fail at every other store
            raise TypeError(f"by gave {type(key).__name__}, which is no text")
        if len(key) > LONGEST_KEY or not key.isascii():
            return digest_of(key), self.limits_of_digests
        return key, self.limits


class LimitCheck:
    """The check of one request against the limits of one policy: what it is to use, and what is told for each limit."""

    __slots__ = ("cost", "key", "limits", "meter", "tallies", "terms")

    def __init__(self, meter: "Meter", terms: Terms, key: str, limits: tuple[Limit, ...], cost: int) -> None:
        self.meter, self.terms = meter, terms
        self.key, self.limits, self.cost = key, limits, cost
        self.tallies: Sequence[Tally] = ()

    @property
    def allowed(self) -> bool:
        """Whether every limit let it pass."""
        return all(tally.allowed for tally in self.tallies)

    @property
    def wait(self) -> float:
        """Seconds until it can pass."""
        return max(tally.retry_after for tally in self.tallies)

    @property
    def said(self) -> str:
        """What the caller is told who is refused."""
        beyond = any(self.cost > (limit.burst or limit.quota) for limit in self.limits)
        return "The request asks for more than is ever allowed." if beyond else self.meter.policy.said

    @property
    def refusing(self) -> list[str]:
        """The names of the limits that refused."""
        return [name for name, tally in zip(self.terms.names, self.tallies, strict=True) if not tally.allowed]

    @property
    def tightest(self) -> tuple[Limit, Tally]:
        """The limit that refused or of which the least is left, and what it told."""
        return min(zip(self.limits, self.tallies, strict=True), key=lambda pair: tightness(pair[1]))


class Meter:
    """Says what each request uses of the limits of one policy."""

    def __init__(self, policy: Limiting, place: str, counters: Counters) -> None:
        self.policy = policy
        self.counters = counters
        self.place = place_of(policy, place)
        self.terms = Terms(policy, self.place)
        self.afterwards = policy.increment == "afterwards"
        self.graded = policy.tier is not None or policy.overrides is not None
        self._tiers = {tier: Terms(policy, self.place, rates_of(rate)) for tier, rate in policy.tiers.items()}
        self._others: dict[tuple[Rate, ...], Terms] = {}
        self._warned = False

    def __repr__(self) -> str:
        """What people call it in a log."""
        return f"{type(self.policy).__name__}(name={self.policy.name!r})"

    @property
    def limits(self) -> list[Limit]:
        """Every limit it can keep, but for those of overrides, which nobody knows yet."""
        return [limit for terms in (self.terms, *self._tiers.values()) for limit in terms.limits]

    def ask(self, exchange: Exchange) -> LimitCheck:
        """What this request uses. Raises Refusal when nobody knows whose it is."""
        policy = self.policy
        key, cost = policy.by(exchange), policy.cost
        terms = self.terms_of(key, self._tier(exchange)) if self.graded else self.terms
        if key is None:
            self.refuse_unknown()
        if not isinstance(cost, int):
            cost = self._units(cost(exchange), "cost")
        return LimitCheck(self, terms, *terms.counters(key), cost)

    def _tier(self, exchange: Exchange) -> str | None:
        tier = self.policy.tier(exchange) if self.policy.tier is not None else None
        if tier is None or isinstance(tier, str):
            return tier
        raise TypeError(f"tier gave {type(tier).__name__}, which is no text")  # nobody's limits would be everybody's

    def terms_of(self, key: str | None, tier: str | None) -> Terms:
        """The limits of a key: its own, those of its tier, or everybody's."""
        overrides = self.policy.overrides
        rates = overrides.rates(key) if overrides is not None and key is not None else None
        if rates is None:
            return self.terms if tier is None else self._tiers.get(tier, self.terms)
        found = self._others.get(rates)
        if found is None:
            if len(self._others) >= _MOST_TERMS:
                self._others.clear()
            found = self._others[rates] = Terms(self.policy, self.place, rates)
        return found

    def refuse_unknown(self) -> None:
        """Refuse a request without a key, unless all such requests are to be counted together."""
        if self.policy.when_unknown == "together":
            return
        if not self._warned:
            self._warned = True
            log.warning("%s refuses requests of which %s is not known", self, name_of(self.policy.by))
        raise Refusal(403, "caller-unknown", "The request does not say who is calling.")

    def used(self, exchange: Exchange, asked: LimitCheck, transfer: Transfer | None) -> int:
        """What a request used in truth, at its end; what it was to cost when that cannot be found out."""
        policy = self.policy
        try:
            if policy.count_when is not None and not holds(policy.count_when, exchange):
                return 0
            if policy.used is not None:
                return self._units(policy.used(exchange), "used")
        except Exception:
            log.exception("%s cannot tell what a request used: it counts as %d", self, asked.cost)
            return asked.cost
        return asked.cost if transfer is None or not policy.counts_bytes else transfer.bytes(policy.units)

    def _units(self, units: object, field: str) -> int:
        if type(units) is not int or not 0 <= units <= GREATEST_INTEGER:  # no store could keep more
            raise ValueError(f"{type(self.policy).__name__}.{field} gave no number of units, 0 up to 15 digits")
        return units
