"""How long a response is fresh, how old it is, and when it may answer a request (RFC 9111 §4).

Every rule is a function of values. Where the RFC leaves a choice, the cautious one is taken: what cannot be read
counts as stale, and what is said twice and differently counts as not said.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from apim_middleware._http.cache_control import ANYTHING, FOREVER, Directives, Wishes, delta_seconds
from apim_middleware._http.dates import http_date
from apim_middleware._http.entity_tags import matches_weakly
from apim_middleware._http.headers import get, get_all
from apim_middleware.types import RawHeaders

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


def heuristic_lifetime(headers: RawHeaders, received: float, fraction: float) -> float | None:
    """A part of the time a response had not changed when it was made, a day at most (§4.2.2); None if unknown."""
    changed = http_date(get(headers, b"last-modified") or b"", received)
    if changed is None:
        return None
    return min(max(0.0, fraction * (origination(headers, received) - changed)), LONGEST_GUESS)


LONGEST_GUESS = 86_400.0
"""Seconds a response is fresh at most that does not say so itself."""


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


# Whether it may answer a request (§4, §5.2.1)


def unfit(wished: Wishes, age: float, lifetime: float) -> Literal["stale", "request"] | None:
    """Why a stored response may not answer a request, in the words of RFC 9211 §2.2; None when it may (§4)."""
    if age >= lifetime:
        return "stale"
    if wished is ANYTHING:
        return None
    too_old = wished.max_age is not None and age > wished.max_age
    return "request" if wished.no_cache or too_old or age + wished.min_fresh > lifetime else None


# Conditional requests answered from what is kept (§4.3.2, RFC 9110 §13)

_OF_CONTENT = frozenset(b"content-type content-length content-encoding content-language content-range".split())


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
        return matches_weakly(none_match, get(stored, b"etag") or b"")
    since = http_date(modified_since or b"", received)
    if since is None:
        return False
    changed = http_date(get(stored, b"last-modified") or b"", received)
    return (origination(stored, received) if changed is None else changed) <= since


def not_modified_fields(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a 304: those of the 200 but for the ones that describe its content (RFC 9110 §15.4.5)."""
    return tuple([pair for pair in headers if pair[0] not in _OF_CONTENT])
