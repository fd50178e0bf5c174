"""How often somebody may call: ``RateLimit`` for short windows, ``Quota`` for long ones, ``Limits`` for several as one.

All count what is used under a key, refuse what is beyond the limit, and tell callers where they stand in the fields of
draft-ietf-httpapi-ratelimit-headers. What is counted is kept in ``Env.counters``.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self

from apim_middleware._config import check_one_by_one
from apim_middleware._http.fields import GREATEST_INTEGER
from apim_middleware._limits.answers import headers_of, told_in
from apim_middleware._limits.build import gate, in_front
from apim_middleware._limits.gates import Hooks
from apim_middleware._limits.places import place_of
from apim_middleware._limits.rates import Rate
from apim_middleware._limits.rules import Limiting
from apim_middleware._unseen_reads import look_at_functions
from apim_middleware.by import Key, everyone, subscription
from apim_middleware.documentation import Answer, Documentation, Told, together
from apim_middleware.env import Env
from apim_middleware.policy import Policy, stated
from apim_middleware.protocols import Limit
from apim_middleware.stores.calendars import period_of
from apim_middleware.types import ASGIApp

OUT_OF_BANDWIDTH, OUT_OF_UNITS = "The quota of bytes is used up.", "The quota is used up."
"""What is said of a quota that counts bytes, and of one that counts what it was told to."""

_PERIODS = {"hour": 3_600.0, "day": 86_400.0, "week": 604_800.0, "month": 30 * 86_400.0, "year": 365 * 86_400.0}
"""The periods of the calendar and how long they usually are."""


class _Counted(Limiting, Policy):
    """A policy of limits with a gate of its own."""

    guards = False

    @stated
    def counts(self) -> frozenset[str]:
        """What its limits are called in a store, wherever they stand; with overrides, any others of their kind too."""
        place = place_of(self, "")
        names = {repr(limit) for limits in self.all_limits(place) for limit in limits}
        return frozenset(names if self.overrides is None else {place, *names})

    @stated
    def documentation(self) -> Documentation:
        """What is answered beyond the limit, and where callers stand."""
        if self.shadow:
            return Documentation()
        told = told_in(self)
        refused = Answer(self.status, (self.code,), (headers_of(self).retry_after.lower(), *told))
        answers = [refused]
        if self.when_unknown == "refuse" and self.by is not everyone:
            answers.append(Answer(403, ("caller-unknown",)))
        if self.when_store_fails == "refuse":
            answers.append(Answer(503, ("limit-store-unavailable",)))
        return Documentation(answers=tuple(answers), headers=tuple(map(Told, told)))

    def bind(self, env: Env) -> Hooks:
        """Count in the counters of the environment: without awaiting when they are in memory."""
        return gate([self], env)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """The policy in front of the app."""
        return in_front(self, app, env, reads=self.units in ("request-bytes", "bytes"))


@dataclass(frozen=True, kw_only=True)
class RateLimit(_Counted):
    """Let each caller make so many calls in so many seconds.

    ``RateLimit(calls=100, per=60)`` or ``RateLimit(rate="100/minute; 5/second")``; of several limits all must pass,
    or nothing is counted. Every request that comes in counts, whatever becomes of it, unless ``count_when`` says
    otherwise; a refused one uses nothing.

    Refused: 429 ``rate-limit-exceeded`` with ``Retry-After``; 403 ``caller-unknown`` for a request without a key;
    503 ``limit-store-unavailable`` when it cannot be counted.
    Follows ``rate-limit`` and ``rate-limit-by-key`` of Azure API Management, RFC 6585 §4, and
    draft-ietf-httpapi-ratelimit-headers.
    """

    window: Literal["fixed", "sliding", "log", "bucket"] = "sliding"
    """``sliding`` (the default): no double burst where two windows meet. ``fixed``: each window of the clock afresh.
    ``log``: sliding and exact, at the price of memory for each call. ``bucket``: a token bucket, see ``burst``."""

    burst: int | None = None
    """Of a ``bucket``: how many calls may be made at once; they come back evenly. Default: as many as ``calls``."""

    status = 429
    code = "rate-limit-exceeded"
    detail = "Too many requests. Try again later."
    topic = "apim.rate_limit"

    def limit(self, units: int, window: float | None, place: str) -> Limit:
        """One limit at a place."""
        if window is None:
            raise TypeError("a rate limit has no window but the one that was given")
        return Limit(units, window, self.window, place, self.burst or 0)

    def __post_init__(self) -> None:
        """A burst is one of a bucket."""
        if self.burst is not None and self.window != "bucket":
            raise self.mistake("burst", f"means nothing to window={self.window!r}", 'Write window="bucket" beside it')
        if self.burst is not None and self.burst < 1:
            raise self.mistake("burst", "lets nobody in", "Allow at least 1 at once")
        if self.burst is not None and self.burst > GREATEST_INTEGER:
            raise self.mistake("burst", "is no number of calls to count to", "Allow at most 15 digits")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Quota(_Counted):
    """Let each subscription make so many calls in a long window, such as a day or a month.

    ``Quota(calls=10_000, per=86_400)``, ``Quota(rate="10000/day")``, ``Quota(calls=10_000, period="month",
    zone="Europe/Berlin")``. Windows given in seconds are aligned to the clock: a day's begins at 00:00 UTC unless
    ``starts`` says otherwise. Every request that comes in counts, whatever becomes of it, unless ``count_when`` says
    otherwise; a refused one uses nothing.

    Refused: 403 ``quota-exceeded`` with ``Retry-After``; 403 ``caller-unknown`` for a request without a key;
    503 ``limit-store-unavailable`` when it cannot be counted.
    Follows ``quota`` and ``quota-by-key`` of Azure API Management and draft-ietf-httpapi-ratelimit-headers.
    """

    by: Key = subscription
    """Whom to count: a function of the exchange that gives the key. Default: each subscription."""

    name: str = "quota"
    """What the ``RateLimit`` fields call this policy; policies in one stack should have different names."""

    period: Literal["hour", "day", "week", "month", "year", "lifetime"] | None = None
    """A period of the calendar, instead of ``per``; weeks begin on Monday. ``lifetime`` never begins anew."""

    zone: str = "UTC"
    """The time zone whose clock the period goes by, such as ``"Europe/Berlin"``."""

    starts: datetime | None = None
    """When a window given in seconds begins, with a time zone; the others follow and precede it without a gap."""

    status = 403
    code = "quota-exceeded"
    detail = "The quota of calls is used up."
    topic = "apim.quota"

    @property
    def said(self) -> str:
        """What callers are told who are beyond the quota."""
        if self.counts_bytes:
            return OUT_OF_BANDWIDTH
        return self.detail if self.cost == 1 and self.used is None else OUT_OF_UNITS

    @classmethod
    def cure_of(cls, field: str, value: object) -> str | None:
        """Windows in seconds are those of ``per``, and those of the calendar of ``period``."""
        if field == "period" and type(value) in (int, float):
            return f"Write per={value}"
        if field == "per" and isinstance(value, str) and value.lower() in (*_PERIODS, "lifetime"):
            return f'Write period="{value.lower()}"'
        return None

    def __post_init__(self) -> None:
        """There is one way to tell the window, and it is on the calendar."""
        if self.period is not None:
            for field in ("per", "rate", "starts"):
                if getattr(self, field) is not None:
                    raise self.mistake(field, "is given beside period", f"Give either {field}, or period")
        elif self.zone != "UTC":
            raise self.mistake("zone", "means nothing without a period", 'Write period="month" beside it')
        if self.period == "lifetime" and self.zone != "UTC":
            raise self.mistake("zone", 'means nothing to period="lifetime"', "Leave it out")
        if self.starts is not None and self.starts.tzinfo is None:
            raise self.mistake("starts", "has no time zone", "Write datetime(..., tzinfo=UTC)")
        try:
            period_of(f"day {self.zone}", 0.0)
        except ValueError:
            cure = 'Give one such as "Europe/Berlin" (where the machine knows none, the package tzdata does)'
            raise self.mistake("zone", "is no known time zone", cure) from None
        super().__post_init__()

    def _counted(self) -> tuple[Rate, ...]:
        if self.period is None:
            if self.calls is not None and self.per is None:
                raise self.mistake("per", "is no limit", 'Give per, in seconds, or period="month" with calls, or rate')
            return super()._counted()
        if self.calls is None:
            raise self.mistake("calls", "is no limit", "Give calls with period")
        return ((self.calls, None),)

    def limit(self, units: int, window: float | None, place: str) -> Limit:
        """One limit at a place; without a window, for the period."""
        if window is not None:
            start = 0.0 if self.starts is None else self.starts.timestamp()
            return Limit(units, window, "fixed", place, start=start)
        if self.period is None or self.period == "lifetime":
            return Limit(units, math.inf, "fixed", place)
        return Limit(units, _PERIODS[self.period], "calendar", place, calendar=f"{self.period} {self.zone}")


@dataclass(frozen=True, init=False)
class Limits(Policy):
    """Several rate limits and quotas as one decision: all of them pass, or none counts.

    ``Limits(RateLimit(calls=10, per=1), Quota(calls=10_000, period="month"))``. They are one question to the store,
    and one set of ``RateLimit`` fields. When several refuse, the one that keeps out for longest gives status and code.
    If the store is away, the strictest ``when_store_fails`` among them holds for all.

    Refused as the policy that refuses does: 429 ``rate-limit-exceeded`` or 403 ``quota-exceeded`` with ``Retry-After``;
    403 ``caller-unknown``; 503 ``limit-store-unavailable``.
    """

    guards = False

    one_by_one = "policies"

    policies: tuple[RateLimit | Quota, ...]
    """The policies, in the order callers are told of them."""

    def __new__(cls, *policies: RateLimit | Quota, **given: object) -> Self:
        """Check what was given, the policies as one field."""
        check_one_by_one(cls.__name__, "policies", given)
        return super().__new__(cls, policies=policies, **given)

    def __init__(self, *policies: RateLimit | Quota) -> None:
        """Keep the policies as one field."""
        object.__setattr__(self, "policies", policies)
        if not policies:
            raise self.mistake("policies", "limits nothing", "Write Limits(RateLimit(...), Quota(...))")
        if any(policy in policies[:number] for number, policy in enumerate(policies)):
            raise self.mistake("policies", "holds one twice", "Write it once, or give the second another name")
        self._check_counts()
        if len({policy.shadow for policy in policies}) > 1:
            problem = "holds some that are only tried out, which must not keep the others from counting"
            raise self.mistake("policies", problem, "Put those with shadow=True beside Limits")

    def _check_counts(self) -> None:
        """Of whatever type: they stand at one place."""
        seen = set[str]()
        for policy in self.policies:
            if not seen.isdisjoint(policy.counts):
                problem = "would count together with another of Limits"
                raise policy.mistake("name", problem, "Give one of them another name")
            seen |= policy.counts

    @stated
    def needs(self) -> frozenset[str]:
        """What their keys rely on."""
        return frozenset[str]().union(*(policy.needs for policy in self.policies))

    @stated
    def counts(self) -> frozenset[str]:
        """What their limits are called in a store, wherever they stand."""
        return frozenset[str]().union(*(policy.counts for policy in self.policies))

    @stated
    def documentation(self) -> Documentation:
        """What all its limits may answer; a refusal tells where the caller stands in each."""
        found = together(each.documentation for each in self.policies)
        told = tuple(each.name for each in found.headers)
        answers = tuple(
            each._replace(headers=tuple(dict.fromkeys((*each.headers, *told)))) if each.headers else each
            for each in found.answers
        )
        return replace(found, answers=answers)

    def bind(self, env: Env) -> Hooks:
        """Count for all of them at once."""
        for each in self.policies:
            look_at_functions(each, env)
        return gate(self.policies, env)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """All of them in front of the app."""
        return in_front(self, app, env, reads=any(each.units in ("request-bytes", "bytes") for each in self.policies))
