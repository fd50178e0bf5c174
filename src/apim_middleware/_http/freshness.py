"""When a shared cache may keep a response, and when it may answer with it (RFC 9111).

Every rule is a function of values. Where the RFC leaves a choice, the cautious one is taken: what cannot be read
counts as stale, what is said twice and differently counts as not said, and what belongs to one caller stays with one.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, TypeAlias

from apim_middleware._http.headers import get, get_all, is_token, list_members
from apim_middleware.types import RawHeaders

FOREVER = 2**31
"""The longest time in seconds a directive can name; whatever is longer means this (§1.2.2)."""

STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501})
"""Statuses that may be kept: those that are cacheable by definition (RFC 9110 §15.1), without 206."""

Credential: TypeAlias = Literal["authorization", "cookie", "key", "principal", "subscription"]
"""What in a request may tell one caller from another, so that the response may be for that caller only."""

CREDENTIALS: frozenset[Credential] = frozenset(("authorization", "cookie", "key", "principal", "subscription"))

CARRIERS: dict[bytes, Credential] = {
    b"authorization": "authorization",
    b"proxy-authorization": "authorization",
    b"cookie": "cookie",
    b"x-api-key": "key",
    b"api-key": "key",
    b"x-auth-token": "key",
    b"x-access-token": "key",
    b"ocp-apim-subscription-key": "key",
}
"""The request fields credentials come in."""

_NOBODY: frozenset[Credential] = frozenset()
_MOST_SELECTING_FIELDS = 16
_SHORT = 128  # longer lines are not remembered: who sends them chooses how much memory that takes


# Cache-Control (§5.2)

_MEMBER = re.compile(rb'((?:[^,"]++|"(?:[^"\\]++|\\.)*+")*+)(,|\Z|.)', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class Directives:
    """The directives of a Cache-Control field, however it was spelled."""

    __slots__ = ("_values", "broken")

    def __init__(self, values: dict[bytes, list[bytes | None]], *, broken: bool) -> None:
        """Keep every value given for each lower-case name; ``broken`` when a quotation never ends."""
        self._values = values
        self.broken = broken

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def seconds(self, name: bytes) -> int | None:
        """The time a directive names: None when absent, 0 when unreadable or said twice and differently (§4.2.1)."""
        values = self._values.get(name)
        if values is None:
            return None
        value = values[0]
        if value is None or any(other != value for other in values):
            return 0
        return delta_seconds(value) or 0

    def entire(self, name: bytes) -> bool:
        """Whether a directive is meant for the whole response: present, and not only for fields it names."""
        return name in self._values and not self.fields(name)

    def fields(self, name: bytes) -> frozenset[bytes]:
        """The fields a directive is meant for (``no-cache="set-cookie"``); none when it is meant for the whole."""
        found: set[bytes] = set()
        for value in self._values.get(name, ()):
            members = [part.strip(b" \t").lower() for part in (value or b"").split(b",")]
            if not all(map(is_token, members)):
                return frozenset()
            found.update(members)
        return frozenset(found)


def parse_directives(lines: Sequence[bytes]) -> Directives:
    """The directives in all lines of a Cache-Control field; never raises."""
    known = tuple(lines)
    return _remembered(known) if sum(map(len, known)) <= _SHORT else _parsed(known)


def _parsed(lines: tuple[bytes, ...]) -> Directives:
    values: dict[bytes, list[bytes | None]] = {}
    broken = False
    for member, end in (found for line in lines for found in _MEMBER.findall(line)):  # no quotation spans two lines
        broken = broken or end not in (b",", b"")
        spelled, equals, value = member.strip(b" \t").partition(b"=")
        name = spelled.rstrip(b" \t").lower()
        if is_token(name):
            readable = equals and len(name) == len(spelled)  # "max-age =60" has no value anybody agrees on
            values.setdefault(name, []).append(_unquoted(value) if readable else None)
    return Directives(values, broken=broken)


_remembered = lru_cache(maxsize=256)(_parsed)


def _unquoted(value: bytes) -> bytes:
    if value[:1] == b'"' and value[-1:] == b'"' and len(value) > 1:
        return _ESCAPED.sub(rb"\1", value[1:-1])
    return value


def delta_seconds(text: bytes) -> int | None:
    """A time in seconds (§1.2.2), capped; None when it is not digits."""
    if not text.isdigit():
        return None
    digits = text.lstrip(b"0")
    return min(int(digits or b"0"), FOREVER) if len(digits) <= 10 else FOREVER


# Dates (RFC 9110 §5.6.7)

_MONTHS = {
    name: number
    for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
}  # fmt: skip
_MONTH, _TIME = rb"(?P<month>[a-z]{3})", rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rb"[a-z]{3}, (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + rb" gmt",
        rb"[a-z]{6,9}, (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + rb" gmt",
        rb"[a-z]{3} " + _MONTH + rb" (?P<day>[ \d]\d) " + _TIME + rb" (?P<year>\d{4})",
    )
)


def http_date(text: bytes, now: float) -> float | None:
    """Seconds since 1970 of an HTTP date in any of its three forms, letters in any case; None when it is none.

    ``now`` gives years of two digits their century: never more than fifty years ahead.
    """
    for form in _DATES:
        if (match := form.fullmatch(text)) is not None:
            return _timestamp(match, now)
    return None


def _timestamp(match: re.Match[bytes], now: float) -> float | None:
    month = _MONTHS.get(match["month"].lower())
    if month is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        today = datetime.fromtimestamp(now, UTC).year
        year += today - today % 100
        year -= 100 if year > today + 50 else 0
    second = min(int(match["second"]), 59)  # a leap second is as good as the one before
    try:
        when = datetime(year, month, int(match["day"]), int(match["hour"]), int(match["minute"]), second, tzinfo=UTC)
    except ValueError:
        return None
    return when.timestamp()


# How long a response is fresh, and how old it is (§4.2)


def freshness_lifetime(directives: Directives, headers: RawHeaders, received: float) -> float | None:
    """For how many seconds a shared cache may call the response fresh; None when it does not say (§4.2.1)."""
    for name in (b"s-maxage", b"max-age"):
        if (seconds := directives.seconds(name)) is not None:
            return seconds
    expires = set(get_all(headers, b"expires"))
    if not expires:
        return None
    until = http_date(expires.pop(), received)
    if until is None or expires:
        return 0  # invalid, as "0" is, or two that differ: already over (§5.3)
    return min(max(0.0, until - origination(headers, received)), FOREVER)


def origination(headers: RawHeaders, received: float) -> float:
    """When the response was made: its Date, or when it was received."""
    date = get(headers, b"date")
    made = None if date is None else http_date(date, received)
    return received if made is None else made


def initial_age(headers: RawHeaders, received: float, delay: float) -> float:
    """How old the response was when it was received, ``delay`` seconds after it was asked for (§4.2.3)."""
    apparent = received - origination(headers, received)
    said = age_value(get_all(headers, b"age"))
    return min(max(0.0, apparent, said + delay), FOREVER)


def age_value(lines: Sequence[bytes]) -> int:
    """The first member of an Age field; 0 when it is not a number of seconds (§5.1)."""
    return (delta_seconds(lines[0].split(b",", 1)[0].strip(b" \t")) or 0) if lines else 0


# What a request asks of a cache (§5.2.1, §5.4)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request allows a cache to do."""

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int = 0


ANYTHING = Wishes()
"""What requests ask that say nothing to a cache, as most do; told apart from any other wishes by being this object."""


def wishes(cache_control: Sequence[bytes], pragma: Sequence[bytes] = ()) -> Wishes:
    """The wishes in these fields; never raises. ``max-stale`` is not granted: nothing stale is given away."""
    known = tuple(cache_control), tuple(pragma)
    return _wished_before(*known) if sum(map(len, known[0] + known[1])) <= _SHORT else _wished(*known)


def _wished(cache_control: tuple[bytes, ...], pragma: tuple[bytes, ...]) -> Wishes:
    if not cache_control:
        return Wishes(no_cache=b"no-cache" in parse_directives(pragma))
    directives = parse_directives(cache_control)
    return Wishes(
        no_store=b"no-store" in directives,
        no_cache=b"no-cache" in directives,
        only_if_cached=b"only-if-cached" in directives,
        max_age=directives.seconds(b"max-age"),
        min_fresh=directives.seconds(b"min-fresh") or 0,
    )


_wished_before = lru_cache(maxsize=256)(_wished)


def unfit(wished: Wishes, age: float, lifetime: float) -> Literal["stale", "request"] | None:
    """Why a stored response may not answer a request, in the words of RFC 9211 §2.2; None when it may (§4)."""
    if age >= lifetime:
        return "stale"
    if wished is ANYTHING:
        return None
    too_old = wished.max_age is not None and age > wished.max_age
    return "request" if wished.no_cache or too_old or age + wished.min_fresh > lifetime else None


# Which requests get the same response (§4.1)

_NEGOTIATED = frozenset({b"accept", b"accept-charset", b"accept-encoding", b"accept-language"})
_BLANKS = re.compile(rb"[ \t]*([,;=])[ \t]*")


def selecting_fields(vary: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """The request fields a Vary field names, in one order; None when no request can be told to match."""
    if not vary:
        return ()
    names = {part.strip(b" \t").lower() for part in b",".join(vary).split(b",")} - {b""}
    if b"*" in names or len(names) > _MOST_SELECTING_FIELDS or not all(map(is_token, names)):
        return None
    return tuple(sorted(names))


def selection(names: Iterable[bytes], headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes | None, ...]:
    """What a request says in these fields; absent and empty are different things."""
    lines = list(headers)
    return tuple(_normalised(name, get_all(lines, name)) for name in names)


def _normalised(name: bytes, values: list[bytes]) -> bytes | None:
    if not values:
        return None
    value = b", ".join(value.strip(b" \t") for value in values)
    if name not in _NEGOTIATED or b'"' in value:
        return value
    value = _BLANKS.sub(rb"\1", value.lower())
    return b",".join(sorted(filter(None, value.split(b",")))) if name == b"accept-encoding" else value


# Whether a response may be kept (§3)

_NOT_KEPT = frozenset(
    b"age connection keep-alive proxy-authenticate proxy-authentication-info proxy-authorization proxy-connection "
    b"te trailer transfer-encoding upgrade".split()
)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a response may be kept: for how long, how old it already is, for which requests, and with which fields.

    ``open_to`` names the credentials a request may carry and still be answered with it.
    """

    lifetime: float
    age: float
    selecting: tuple[bytes, ...]
    open_to: frozenset[Credential]
    headers: tuple[tuple[bytes, bytes], ...]


def judge(
    status: int,
    headers: RawHeaders,
    *,
    carried: frozenset[Credential] = _NOBODY,
    ttl: float | None = None,
    received: float,
    delay: float = 0.0,
) -> Keeping | str:
    """How a shared cache may keep the response to a GET request, or the reason why it may not.

    ``carried`` are the credentials the request came with, ``ttl`` the freshness of a 200 that does not say,
    ``received`` the time of day, and ``delay`` how long the response took, all in seconds.
    """
    directives = parse_directives(get_all(headers, b"cache-control"))
    selecting = selecting_fields(get_all(headers, b"vary"))
    if (reason := _forbidden(status, headers, directives)) is not None:
        return reason
    if selecting is None:
        return "vary"
    said = freshness_lifetime(directives, headers, received)
    lifetime = ttl if said is None and status == 200 else said
    age = initial_age(headers, received, delay)
    if lifetime is None:
        return "no-freshness"
    if lifetime <= age:
        return "stale"
    shared = shared_among(directives, selecting)
    if not carried <= shared:
        return min(carried - shared)
    open_to = CREDENTIALS if said is not None else shared
    return Keeping(lifetime, age, selecting, open_to, kept_fields(headers, directives))


def _forbidden(status: int, headers: RawHeaders, directives: Directives) -> str | None:
    """Why nobody may keep this response, whatever its freshness."""
    if status not in STATUSES:
        return "status"
    if directives.broken:
        return "bad-cache-control"
    if b"no-store" in directives and b"must-understand" not in directives:
        return "no-store"
    if directives.entire(b"private"):
        return "private"
    if directives.entire(b"no-cache") or (not directives and b"no-cache" in list_members(headers, b"pragma")):
        return "no-cache"
    if get(headers, b"set-cookie") is not None:
        return "set-cookie"
    if (get(headers, b"content-type") or b"").lower().startswith(b"text/event-stream"):
        return "event-stream"
    return None


def shared_among(directives: Directives, selecting: Collection[bytes] = ()) -> frozenset[Credential]:
    """The credentials that do not matter, for the response says so.

    ``public`` and ``s-maxage`` open it to all; ``must-revalidate`` to requests with Authorization (§3.5);
    ``Vary: Cookie`` makes the cookie part of the key.
    """
    if b"public" in directives or b"s-maxage" in directives:
        return CREDENTIALS
    found: set[Credential] = set()
    if b"must-revalidate" in directives:
        found.add("authorization")
    if b"cookie" in selecting:
        found.add("cookie")
    return frozenset(found)


def carried_in(names: Iterable[bytes]) -> set[Credential]:
    """The credentials a request with these fields carries."""
    return {CARRIERS[name] for name in names if name in CARRIERS}


def kept_fields(headers: RawHeaders, directives: Directives) -> tuple[tuple[bytes, bytes], ...]:
    """The fields to keep: not those of the connection, nor those a directive keeps from being kept (§3.1)."""
    dropped = _NOT_KEPT.union(list_members(headers, b"connection")) if get(headers, b"connection") else _NOT_KEPT
    for name in (b"no-cache", b"private"):
        if name in directives:
            dropped |= directives.fields(name)
    return tuple([pair for pair in headers if pair[0] not in dropped])


# Conditional requests answered from what is kept (§4.3.2, RFC 9110 §13)

_OF_CONTENT = frozenset(b"content-type content-length content-encoding content-language content-range".split())
_ENTITY_TAG = re.compile(rb'(?:W/)?("[^"]*")')


def not_modified(
    none_match: Sequence[bytes],
    modified_since: bytes | None,
    headers: Sequence[tuple[bytes, bytes]],
    received: float,
) -> bool:
    """Whether 304 answers a conditional request, when a stored 200 with these headers is fresh.

    If-None-Match goes before If-Modified-Since and compares weakly; a date that cannot be read is no condition.
    """
    stored = list(headers)
    if none_match:
        asked = b",".join(none_match)
        tag = _ENTITY_TAG.fullmatch(get(stored, b"etag") or b"")
        return asked.strip(b" \t") == b"*" or (tag is not None and tag[1] in _ENTITY_TAG.findall(asked))
    since = http_date(modified_since or b"", received)
    if since is None:
        return False
    changed = http_date(get(stored, b"last-modified") or b"", received)
    return (origination(stored, received) if changed is None else changed) <= since


def not_modified_fields(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a 304: those of the 200 but for the ones that describe its content (RFC 9110 §15.4.5)."""
    return tuple(pair for pair in headers if pair[0] not in _OF_CONTENT)
