"""How often somebody may call: ``RateLimit`` for short windows, ``Quota`` for long ones.

Both count requests under a key when they come in, refuse the ones beyond the limit, and tell callers where they
stand in the fields of draft-ietf-httpapi-ratelimit-headers. What is counted is kept in ``Env.counters``.
"""

import hashlib
import inspect
import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias
from urllib.parse import quote

from apim_middleware._http.fields import GREATEST_INTEGER, is_list, item, members
from apim_middleware.by import Key, client, subscription
from apim_middleware.by import needs as needs_of
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.policy import Policy
from apim_middleware.protocols import Counters, Hit, Limit, Tally
from apim_middleware.stores.memory import MemoryCounters

log = logging.getLogger("apim_middleware")

Line: TypeAlias = tuple[bytes, bytes]
"""A header line."""

Use: TypeAlias = tuple[str, Limit, int]
"""What a ``Hit`` says, as a bare tuple: made in a tenth of the time."""

_POLICY, _STANDING, _RETRY = b"ratelimit-policy", b"ratelimit", b"retry-after"
_FIELDS = frozenset((_POLICY, _STANDING))
_SHORTEST, _LONGEST = 0.001, 10 * 366 * 86_400.0
_LONGEST_KEY = 128
_NO_TIME = re.compile(r"(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Limiting(Policy):
    """What rate limits and quotas share."""

    calls: int | None = None
    """How many calls may be made in ``per`` seconds; give either these two or ``rate``."""

    per: float | None = None
    """The window in seconds, from a thousandth up to ten years."""

    rate: str | None = None
    """The limits as text: ``"100/minute"``, ``"5 per second"``, several as ``"100/minute; 5/second"``."""

    by: Key = client
    """Whom to count: a function of the exchange that gives the key. Default: each client's address."""

    cost: int | Callable[[Exchange], int] = 1
    """How many units a request uses, or a function of the exchange that says so (0 or more). Default: 1."""

    name: str = "default"
    """What the ``RateLimit`` fields call this policy; policies in one stack should have different names."""

    when_unknown: Literal["refuse", "together"] = "refuse"
    """What becomes of a request without a key: refused (the default), or counted together with all such requests."""

    when_store_fails: Literal["refuse", "allow"] = "refuse"
    """What becomes of a request that cannot be counted: refused (the default), or let in uncounted."""

    headers: bool = True
    """Whether callers are told where they stand, in ``RateLimit`` and ``RateLimit-Policy``. Default: yes."""

    status: ClassVar[int]
    code: ClassVar[str]
    detail: ClassVar[str]
    topic: ClassVar[str]  # what the attributes of the exchange begin with

    @property
    def needs(self) -> frozenset[str]:
        """What the key relies on."""
        return needs_of(self.by)

    def __post_init__(self) -> None:
        """Check that there is one way to read the limits, and that each can be kept and said."""
        limits = self.limits("")
        field = "calls" if self.rate is None else "rate"
        for limit in limits:
            if not 1 <= limit.quota <= GREATEST_INTEGER:
                raise self.mistake(field, "is no number of calls to count to", "Allow at least 1, at most 15 digits")
            if not _SHORTEST <= limit.window <= _LONGEST:
                field = "per" if self.rate is None else "rate"
                raise self.mistake(field, "is no window", "Give a thousandth of a second up to ten years")
        if len({limit.window for limit in limits}) < len(limits):
            raise self.mistake("rate", "has two limits for the same window", "Keep the smaller one")
        self._check_cost(min(limit.quota for limit in limits))
        self._check_name()

    def _check_cost(self, quota: int) -> None:
        if isinstance(self.cost, int) and not 1 <= self.cost <= quota:
            raise self.mistake("cost", f"is not between 1 and the limit of {quota}", "Give what one request uses")
        for field in ("by", "cost"):
            if inspect.iscoroutinefunction(getattr(self, field)):
                raise self.mistake(field, "is async", "Give a plain function; look things up in a policy before it")

    def _check_name(self) -> None:
        try:
            item(self.name)
        except ValueError:
            raise self.mistake("name", "is not printable ASCII", 'Give a short name such as "burst"') from None
        if not 1 <= len(self.name) <= 64:
            raise self.mistake("name", "has not 1 to 64 characters", 'Give a short name such as "burst"')

    def limits(self, place: str) -> tuple[Limit, ...]:
        """The limits to keep at a place."""
        return tuple(Limit(quota, window, self.algorithm, place) for quota, window in self._rates())

    @property
    def algorithm(self) -> Literal["fixed", "sliding"]:
        """How the windows move."""
        return "fixed"

    def _rates(self) -> list[tuple[int, float]]:
        if self.rate is not None:
            if self.calls is not None or self.per is not None:
                raise self.mistake("rate", "is given beside calls or per", "Give either rate, or calls and per")
            return self._parsed(self.rate)
        if self.calls is None or self.per is None:
            field, other = ("calls", "per") if self.calls is None else ("per", "calls")
            raise self.mistake(field, "is no limit", f"Give {field} with {other}, or rate")
        return [(self.calls, float(self.per))]

    def _parsed(self, rate: str) -> list[tuple[int, float]]:
        try:
            from limits import parse_many  # here, because few need it and it is slow to import
        except ImportError as error:
            cure = "Rename it, or give calls and per"
            raise self.mistake("rate", "cannot be read: a module of yours hides the package limits", cure) from error
        try:
            if _NO_TIME.search(rate):
                raise ValueError("no time at all, which the parser takes for one unit of it")
            return [(each.amount, float(each.get_expiry())) for each in parse_many(rate)]
        except (ValueError, OverflowError):
            cure = 'Write "100/minute", or several as "100/minute; 5/second"'
            raise self.mistake("rate", "cannot be read as a rate", cure) from None

    def bind(self, env: Env) -> "_Limiter":
        """Count in the counters of the environment: without awaiting when they are in memory."""
        counters = env.counters(lambda: MemoryCounters(env.clock))
        if isinstance(counters, MemoryCounters):
            return (_ShowingInMemory if self.headers else _InMemory)(self, counters, env.place)
        return (_ShowingInStore if self.headers else _InStore)(self, counters, env.place)


@dataclass(frozen=True, kw_only=True)
class RateLimit(_Limiting):
    """Let each caller make so many calls in so many seconds.

    ``RateLimit(calls=100, per=60)`` or ``RateLimit(rate="100/minute; 5/second")``; of several limits all must pass,
    or nothing is counted. Every request that comes in counts, whatever becomes of it; a refused one uses nothing.

    Refused: 429 ``rate-limit-exceeded`` with ``Retry-After``; 403 ``caller-unknown`` for a request without a key;
    503 ``limit-store-unavailable`` when it cannot be counted.
    Follows ``rate-limit`` and ``rate-limit-by-key`` of Azure API Management, RFC 6585 §4, and
    draft-ietf-httpapi-ratelimit-headers.
    """

    window: Literal["fixed", "sliding"] = "sliding"
    """``sliding`` (the default): no double burst where two windows meet. ``fixed``: each window of the clock afresh."""

    status = 429
    code = "rate-limit-exceeded"
    detail = "Too many requests. Try again later."
    topic = "apim.rate_limit"

    @property
    def algorithm(self) -> Literal["fixed", "sliding"]:
        """How the windows move."""
        return self.window


@dataclass(frozen=True, kw_only=True)
class Quota(_Limiting):
    """Let each subscription make so many calls in a long window, such as a day.

    ``Quota(calls=10_000, per=86_400)`` or ``Quota(rate="10000/day")``. Windows are aligned to the clock: a day's begins
    at 00:00 UTC. Every request that comes in counts, whatever becomes of it; a refused one uses nothing.

    Refused: 403 ``quota-exceeded`` with ``Retry-After``; 403 ``caller-unknown`` for a request without a key;
    503 ``limit-store-unavailable`` when it cannot be counted.
    Follows ``quota`` and ``quota-by-key`` of Azure API Management and draft-ietf-httpapi-ratelimit-headers.
    """

    by: Key = subscription
    """Whom to count: a function of the exchange that gives the key. Default: each subscription."""

    name: str = "quota"
    """What the ``RateLimit`` fields call this policy; policies in one stack should have different names."""

    status = 403
    code = "quota-exceeded"
    detail = "The quota of calls is used up."
    topic = "apim.quota"


# The pure parts: keys, and what callers are told


def digest_of(key: str) -> str:
    """A key of any length in any script as short ASCII, different for different keys."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def place_of(policy: _Limiting, place: str) -> str:
    """Where a policy keeps its counts: different for policies that differ in what they count, readable ASCII."""
    key = getattr(policy.by, "__name__", type(policy.by).__qualname__)
    if key == "<lambda>":  # all have one name; the line tells them apart
        key = f"{policy.by.__qualname__}:{policy.by.__code__.co_firstlineno}"
    parts = (policy.name, f"{getattr(policy.by, '__module__', '')}.{key}")
    return "/".join((quote(place, "/~"), *(quote(part, "") for part in parts)))


def names_of(policy: _Limiting) -> list[str]:
    """What each limit of a policy is called."""
    limits = policy.limits("")
    return [policy.name] if len(limits) == 1 else [f"{policy.name}-{limit.window:.15g}s" for limit in limits]


def policy_line(names: Iterable[str], limits: Iterable[Limit]) -> Line:
    """The ``RateLimit-Policy`` line; a window that is no whole number of seconds cannot be said in it."""
    told = []
    for name, limit in zip(names, limits, strict=True):
        window = {"w": int(limit.window)} if limit.window.is_integer() else {}
        told.append(item(name, {"q": limit.quota, **window}))
    return _POLICY, members(told).encode()


def standing_form(names: Iterable[str]) -> bytes:
    """The value of the ``RateLimit`` line, with ``%d`` for ``r`` and ``t`` of each limit."""
    return members(item(name).replace("%", "%%") + ";r=%d;t=%d" for name in names).encode()


def effective_window(tally: Tally, window: float) -> int:
    """Seconds in which no more than ``remaining`` should be used: until all comes back, but no longer than the window.

    When nothing is left, and for who is refused, until the same hit can pass: then it is the ``Retry-After`` too
    (draft, section 6).
    """
    allowed, remaining, reset, wait = tally
    if 0.0 < wait < math.inf and not (allowed and remaining):
        return math.ceil(wait)
    return math.ceil(reset if reset < window else window)


def announce(head: ResponseHead, policy: Line, standing: Line) -> None:
    """Add the two lines; limits further in said theirs before, and come after ours in one list."""
    headers = head.headers
    for name, _ in headers:
        if name in _FIELDS:
            break
    else:
        headers.append(policy)
        headers.append(standing)
        return
    for name, ours in (policy, standing):
        # What cannot be read would make ours unreadable too; it must be ignored anyway (draft, section 7).
        others = [value for value in head.get_all(name) if is_list(value)]
        head.set(name, b", ".join([ours, *others]))


# The shells


class _Limiter:
    """Counts the requests of one policy at one place."""

    def __init__(self, policy: _Limiting, place: str) -> None:
        self.policy = policy
        self.by, self.cost = policy.by, policy.cost
        self.warned = False
        place = place_of(policy, place)
        self.limits = policy.limits(place)
        self.limits_of_digests = policy.limits(f"{place}#")
        self.limits_of_unknown = policy.limits(f"{place}?")
        self.windows = [limit.window for limit in self.limits]
        self.names = names_of(policy)
        self.policy_line = policy_line(self.names, self.limits)
        self.standing_form = standing_form(self.names)

    def uses(self, exchange: Exchange) -> list[Use]:
        """What this request uses."""
        key, limits, cost = self.by(exchange), self.limits, self.cost
        if key is None:
            key, limits = self._unknown(exchange), self.limits_of_unknown
        elif len(key) > _LONGEST_KEY or not key.isascii():
            key, limits = digest_of(key), self.limits_of_digests
        if not isinstance(cost, int):
            cost = self._cost(cost(exchange))
        uses: list[Use] = []
        for limit in limits:
            uses.append((key, limit, cost))  # noqa: PERF401 - faster than a comprehension of one
        return uses

    def _unknown(self, exchange: Exchange) -> str:
        if self.policy.when_unknown == "refuse":
            if not self.warned:
                self.warned = True
                log.warning("%s refuses requests of which %r is not known", self._title, self.by)
            raise Refusal(403, "caller-unknown", "The request does not say who is calling.")
        return ""

    @property
    def _title(self) -> str:
        return f"{type(self.policy).__name__}(name={self.policy.name!r})"

    def _cost(self, cost: object) -> int:
        if type(cost) is not int or cost < 0:
            raise ValueError(f"{type(self.policy).__name__}.cost gave no number of units, 0 or more")
        return cost

    def judge(self, exchange: Exchange, tallies: Sequence[Tally]) -> None:
        """Let the request in, or refuse it."""
        for tally in tallies:
            if not tally[0]:
                raise self._refusal(exchange, tallies)
        exchange.state[self] = tallies

    def standing(self, tallies: Sequence[Tally]) -> Line:
        """The ``RateLimit`` line."""
        if len(tallies) == 1:  # as nearly always
            tally = tallies[0]
            return _STANDING, self.standing_form % (tally[1], effective_window(tally, self.windows[0]))
        told: list[int] = []
        for tally, window in zip(tallies, self.windows, strict=True):
            told += tally.remaining, effective_window(tally, window)
        return _STANDING, self.standing_form % tuple(told)

    def _refusal(self, exchange: Exchange, tallies: Sequence[Tally]) -> Refusal:
        policy = self.policy
        refusing = [name for name, tally in zip(self.names, tallies, strict=True) if not tally.allowed]
        exchange.attributes[f"{policy.topic}.policy"] = ", ".join(refusing)
        headers = [self.policy_line, self.standing(tallies)] if policy.headers else []
        wait = max(tally.retry_after for tally in tallies)
        if wait < math.inf:  # a request that costs more than the limit allows can never pass
            headers.append((_RETRY, b"%d" % max(math.ceil(wait), 1)))
        return Refusal(policy.status, policy.code, policy.detail, headers=headers)


class _InMemory(_Limiter):
    def __init__(self, policy: _Limiting, counters: MemoryCounters, place: str) -> None:
        super().__init__(policy, place)
        self.hit = counters.hit_now

    def on_request(self, exchange: Exchange) -> None:
        self.judge(exchange, self.hit(self.uses(exchange)))


class _InStore(_Limiter):
    def __init__(self, policy: _Limiting, counters: Counters, place: str) -> None:
        super().__init__(policy, place)
        self.hit = counters.hit
        self.failing = False

    async def on_request(self, exchange: Exchange) -> None:
        hits = [Hit(*use) for use in self.uses(exchange)]
        try:
            tallies = await self.hit(hits)
        except StoreError as error:
            self._failed(exchange, error)
            return
        if self.failing:
            self.failing = False
            log.warning("%s counts again", self._title)
        self.judge(exchange, tallies)

    def _failed(self, exchange: Exchange, error: StoreError) -> None:
        exchange.attributes[f"{self.policy.topic}.store"] = "unavailable"
        if not self.failing:
            self.failing = True
            log.error("%s cannot count (%s): requests are %s", self._title, error, self._doing)
        if self.policy.when_store_fails == "refuse":
            raise Refusal(503, "limit-store-unavailable", "The request could not be counted. Try again later.")

    @property
    def _doing(self) -> str:
        return "refused" if self.policy.when_store_fails == "refuse" else "let in uncounted"


class _Showing(_Limiter):
    def on_response(self, exchange: Exchange) -> None:
        tallies, head = exchange.state.get(self), exchange.response
        if tallies is not None and head is not None:
            announce(head, self.policy_line, self.standing(tallies))


class _ShowingInMemory(_Showing, _InMemory):
    pass


class _ShowingInStore(_Showing, _InStore):
    pass
