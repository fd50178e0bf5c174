"""What rate limits and quotas have in common: their fields, and the mistakes one can make with them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from apim_middleware._config import Configured, awaits
from apim_middleware._functions import needs as needs_of
from apim_middleware._http.fields import item
from apim_middleware._limits.headers import LimitHeaders
from apim_middleware._limits.overrides import LONGEST, SHORTEST, BadRate, Overrides, rates_of, wrong_with
from apim_middleware._limits.rates import UNITS, NotALimitsParser, NoYear, Rate, parsed
from apim_middleware._limits.record_overrides import RecordOverrides
from apim_middleware.by import Key, client
from apim_middleware.exchange import Exchange
from apim_middleware.policy import stated
from apim_middleware.protocols import Limit

_FUNCTIONS = ("by", "cost", "used", "count_when", "tier")


@dataclass(frozen=True, kw_only=True)
class Limiting(Configured):
    """What rate limits and quotas share."""

    calls: int | None = None
    """How many calls, or units of another kind, are allowed; give either this and the time, or ``rate``."""

    per: float | None = None
    """The window in seconds, from a thousandth up to ten years."""

    rate: str | None = None
    """The limits as text: ``"100/minute"``, ``"5 per second"``, several as ``"100/minute; 5/second"``; a month has 30
    days, and a year is a mistake."""

    by: Key = client
    """Whom to count: a function of the exchange that gives the key. Default: each client's address."""

    cost: int | Callable[[Exchange], int] = 1
    """How many units a request uses, or a function of the exchange that says so (0 or more). Default: 1."""

    name: str = "default"
    """What the ``RateLimit`` fields call this policy; policies in one stack should have different names."""

    when_unknown: Literal["refuse", "together"] = "refuse"
    """What becomes of a request without a key: refused (the default), or counted together with all such requests."""

    when_store_fails: Literal["refuse", "allow", "local"] = "refuse"
    """What becomes of a request that cannot be counted: refused (the default), let in uncounted, or counted in this
    process until the store is back, which is then told."""

    headers: bool | LimitHeaders = True
    """Whether callers are told where they stand: in ``RateLimit`` and ``RateLimit-Policy`` (the default), in the fields
    that ``LimitHeaders`` names, or not at all."""

    units: Literal["requests", "request-bytes", "response-bytes", "bytes"] = "requests"
    """What is counted: requests (the default), or the bytes of the bodies that were sent here, there, or both ways.
    ``cost`` is then only what a request holds until its bytes are known."""

    used: Callable[[Exchange], int] | None = None
    """What a request used in truth, as a function of the exchange at its end; until then it holds ``cost``."""

    count_when: Callable[[Exchange], bool] | None = None
    """Which requests count, as a condition at their end, such as ``conditions.failed``. Default: all of them."""

    increment: Literal["now", "afterwards"] = "now"
    """When requests are counted: when they come in (the default), giving back at their end what they did not use, or
    only at their end, so that those under way together may go beyond the limit."""

    tiers: Mapping[str, int | str] = field(default_factory=dict, hash=False)
    """Other numbers of calls, or other rates, for the callers of each tier, as ``{"gold": 1000}``."""

    tier: Callable[[Exchange], str | None] | None = None
    """The tier of a request; one that ``tiers`` does not know has the limits of the policy itself."""

    overrides: Overrides | RecordOverrides | None = None
    """Rates of single keys that can be changed at run time; they go before the tiers."""

    shadow: bool = False
    """Whether the limit is only tried out: counted and reported, but nobody is refused or told. Default: no."""

    status: ClassVar[int]
    code: ClassVar[str]
    detail: ClassVar[str]
    topic: ClassVar[str]
    """What the attributes of the exchange begin with."""

    @stated
    def needs(self) -> frozenset[str]:
        """What the key, the tier and the condition rely on."""
        asked = (each for each in (self.by, self.tier, self.count_when) if each is not None)
        return frozenset[str]().union(*map(needs_of, asked))

    @property
    def said(self) -> str:
        """What callers are told who are beyond the limit."""
        return self.detail

    @property
    def counts_bytes(self) -> bool:
        """Whether bytes are counted."""
        return self.units != "requests"

    @property
    def settles(self) -> bool:
        """Whether there is something left to count, or to give back, at the end of a request."""
        late = self.count_when is not None or self.used is not None or self.increment == "afterwards"
        return late or self.counts_bytes

    @abstractmethod
    def limit(self, units: int, window: float | None, place: str) -> Limit:
        """One limit at a place; without a window, of the policy's own."""

    def limits(self, place: str, rates: tuple[Rate, ...] | None = None) -> tuple[Limit, ...]:
        """The limits to keep at a place, of the policy's own rates or of others."""
        return tuple(self.limit(units, window, place) for units, window in self._whole(rates or self.rates()))

    def all_limits(self, place: str) -> list[tuple[Limit, ...]]:
        """The limits to keep at a place: of the policy's own rates, and of each tier."""
        return [self.limits(place, rates) for rates in (None, *map(rates_of, self.tiers.values()))]

    def rates(self) -> tuple[Rate, ...]:
        """The policy's own rates. Raises ConfigError when it is not clear what they are."""
        if self.rate is None:
            return self._counted()
        for other in ("calls", "per"):
            if getattr(self, other) is not None:
                raise self.mistake("rate", "is given beside calls or per", "Give either rate, or calls and per")
        try:
            return parsed(self.rate)
        except NotALimitsParser as error:
            cure = "Rename it, or give calls and per"
            raise self.mistake("rate", "cannot be read: a module of yours hides the package limits", cure) from error
        except NoYear:
            cure = 'Write "100/365 days", or Quota(calls=100, period="year")'
            raise self.mistake("rate", "holds a year, which has no fixed number of days", cure) from None
        except ValueError:
            cure = f'Write "100/minute", or several as "100/minute; 5/second": a unit is {UNITS}'
            raise self.mistake("rate", "cannot be read as a rate", cure) from None

    def _counted(self) -> tuple[Rate, ...]:
        if self.calls is None or self.per is None:
            missing, other = ("calls", "per") if self.calls is None else ("per", "calls")
            raise self.mistake(missing, "is no limit", f"Give {missing} with {other}, or rate")
        return ((self.calls, float(self.per)),)

    def _whole(self, rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
        """A bare number takes the place of the policy's first one."""
        if len(rates) == 1 and rates[0][1] is None:
            (_, window), *others = self.rates()
            return ((rates[0][0], window), *(each for each in others))
        return rates

    def names(self, limits: tuple[Limit, ...]) -> list[str]:
        """What each limit is called."""
        return [self.name] if len(limits) == 1 else [f"{self.name}-{limit.window:.15g}s" for limit in limits]

    def __post_init__(self) -> None:
        """Check that there is one way to read the limits, and that each can be kept and said."""
        object.__setattr__(self, "tiers", dict(self.tiers))
        self._check_rates()
        self._check_tiers()
        self._check_cost()
        self._check_functions()
        self._check_name()

    def _check_rates(self) -> None:
        rates = self.rates()
        wrong, field = wrong_with(rates), "calls" if self.rate is None else "rate"
        if "number" in wrong:
            raise self.mistake(field, wrong, "Allow at least 1, at most 15 digits")
        if wrong == "is no window":
            cure = f"Give {SHORTEST} of a second up to {LONGEST / 366 / 86_400:.0f} years"
            raise self.mistake("per" if self.rate is None else "rate", wrong, cure)
        if wrong:
            raise self.mistake("rate", wrong, "Keep the smaller one")

    def _check_tiers(self) -> None:
        if bool(self.tiers) != (self.tier is not None):
            field, other = ("tier", "tiers") if self.tiers else ("tiers", "tier")
            raise self.mistake(field, f"is missing beside {other}", "Give both, or neither")
        for rate in self.tiers.values():
            try:
                rates_of(rate)
            except BadRate as wrong:
                cure = f'Write {{"gold": 1000}} or "1000/minute": a unit is {UNITS}'
                raise self.mistake("tiers", f"holds {rate!r}, which {wrong}", cure) from None

    def _check_cost(self) -> None:
        least = min(limit.burst or limit.quota for limits in self.all_limits("") for limit in limits)
        if isinstance(self.cost, int) and not 1 <= self.cost <= least:
            raise self.mistake("cost", f"is not between 1 and the limit of {least}", "Give what one request uses")
        if self.used is not None and self.counts_bytes:
            raise self.mistake("used", f"is given beside units={self.units!r}", "Give one of them")

    def _check_functions(self) -> None:
        for name in _FUNCTIONS:
            if awaits(getattr(self, name)):
                raise self.mistake(name, "is async", "Give a plain function; look things up in a policy before it")

    def _check_name(self) -> None:
        try:
            item(self.name)
        except ValueError:
            raise self.mistake("name", "is not printable ASCII", 'Give a short name such as "burst"') from None
        if not 1 <= len(self.name) <= 64:
            raise self.mistake("name", "has not 1 to 64 characters", 'Give a short name such as "burst"')
