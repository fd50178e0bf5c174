"""Whether a shared cache may keep a response, for how long, and for which requests (RFC 9111 §3).

Where the RFC leaves a choice, the cautious one is taken: what belongs to one caller stays with one.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from apim_middleware._http.cache_control import Directives, parse_directives
from apim_middleware._http.cache_targeted import TARGETED, targeted_directives
from apim_middleware._http.credentials import CREDENTIALS, Credential
from apim_middleware._http.freshness import freshness_lifetime, heuristic_lifetime, initial_age
from apim_middleware._http.headers import get, get_all, is_token, list_members, without
from apim_middleware.types import RawHeaders

STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501})
"""Statuses that may be kept: those that are cacheable by definition (RFC 9110 §15.1), without 206."""

REDIRECTIONS = frozenset({302, 303, 307})
"""Statuses that may be kept when the response says how long: no other, for errors may lie in what no key covers."""

UNDERSTOOD = frozenset(
    (*range(200, 206), *range(300, 304), 305, 307, 308, *range(400, 418), 421, 422, 426, *range(500, 506))
)
"""Statuses whose meaning is known (RFC 9110 §15): no other is kept that wants to be understood (RFC 9111 §5.2.2.3)."""

NEVER_KEPT = frozenset({206, 304, 428, 429, 431, 511})
"""Statuses nobody may ask us to keep: parts, confirmations, and those no cache may keep (RFC 6585 §3 to §6)."""

_NOBODY: frozenset[Credential] = frozenset()
_MOST_SELECTING_FIELDS = 16

# Whether a response may be kept (§3)

_NOT_KEPT = frozenset(
    b"age connection keep-alive proxy-authenticate proxy-authentication-info proxy-authorization proxy-connection "
    b"ratelimit ratelimit-policy retry-after te trailer transfer-encoding upgrade".split()
)


TAGS = frozenset({b"cache-tag", b"surrogate-key"})
"""Fields that name what a response shows, so that it can be taken away by that name."""

TO_CACHES = TAGS | {TARGETED} | frozenset(b"cache-control pragma expires date age vary set-cookie".split())
"""Fields without which a response says nothing about being kept, as most responses of APIs."""

OPENING = TO_CACHES - {b"date"}
"""Fields without which the response to a request with credentials stays with who sent them (§3.5)."""

_DEFAULT_STATUSES = frozenset({200})


class Terms(NamedTuple):
    """What a cache decides where responses leave it open, in seconds, or is told to decide in spite of them."""

    ttl: float | None = None
    """How long a response is fresh that does not say."""

    statuses: frozenset[int] = _DEFAULT_STATUSES
    """The statuses that is for; they may be kept, be it by that time or by what they say."""

    fixed_ttl: float | None = None
    """How long every response is fresh that may be kept, whatever it says."""

    heuristic: float = 0.0
    """The part of the time since it was modified that a response is fresh which says nothing else; 0 for none."""

    while_revalidate: float = 0.0
    """How long a stale response is given away while a new one is asked for, if it does not say."""

    if_error: float = 0.0
    """How long a stale response is given away when the app fails, if it does not say."""

    show_tags: bool = False
    """Whether clients see the fields with the names of what a response shows."""


DEFAULT_TERMS = Terms()


class Keeping(NamedTuple):
    """How a response may be kept: for how long, how old it already is, for which requests, and with which fields.

    ``open_to`` names the credentials a request may carry and still be answered with it.
    """

    lifetime: float
    age: float
    selecting: tuple[bytes, ...]
    open_to: frozenset[Credential]
    headers: tuple[tuple[bytes, bytes], ...]
    while_revalidate: float = 0.0
    """Seconds past its time in which it may be given away while it is asked for anew (RFC 5861 §3)."""
    if_error: float = 0.0
    """Seconds past its time in which it may be given away when the app fails (RFC 5861 §4)."""
    strict: bool = False
    """Whether it says that it may never be given away stale (§4.2.4)."""
    tags: tuple[bytes, ...] = ()
    """What it shows, by names of the app's own."""


def judge(
    status: int,
    headers: RawHeaders,
    *,
    carried: frozenset[Credential] = _NOBODY,
    terms: Terms = DEFAULT_TERMS,
    received: float,
    delay: float = 0.0,
) -> Keeping | str:
    """How a shared cache may keep the response to a GET request, or the reason why it may not.

    ``carried`` are the credentials the request came with, ``received`` the time of day, and ``delay`` how long the
    response took, both in seconds.
    """
    if status not in STATUSES and status not in terms.statuses and status not in REDIRECTIONS:
        return "status"
    fields = dict(headers)
    lines = [] if TO_CACHES.isdisjoint(fields) else [line for line in headers if line[0] in TO_CACHES]
    validated = b"etag" in fields or b"last-modified" in fields
    said = _SILENCE if not lines else _said_before(tuple(lines)) if _are_usual(lines) else _said(lines, received)
    if said.reason is not None:
        return said.reason
    if status not in STATUSES and status not in UNDERSTOOD and b"must-understand" in said.directives:
        return "status"
    if fields.get(b"content-type", b"")[:17].lower() == b"text/event-stream":
        return "event-stream"
    if said.selecting is None:
        return "vary"
    if said.always and not validated:
        return "no-cache"
    lifetime = _lifetime(status, headers, said, terms, received)
    if lifetime is None:
        return "no-freshness"
    age = initial_age(lines, received, delay) if lines else delay
    if lifetime <= age and status not in STATUSES:
        return "stale"  # of what is kept because it says so, or because somebody else does, only what is fresh
    revalidate, error = (0.0, 0.0) if said.strict else _grace(said, terms)
    if lifetime <= age and not validated and lifetime + max(revalidate, error) <= age:
        return "stale"
    if not carried <= said.shared:
        return min(carried - said.shared)
    open_to = CREDENTIALS if said.lifetime is not None and status not in REDIRECTIONS else said.shared
    kept = kept_fields(headers, said.directives)
    if said.tags and not terms.show_tags:
        kept = tuple([pair for pair in kept if pair[0] not in TAGS])
    return Keeping(lifetime, age, said.selecting, open_to, kept, revalidate, error, said.strict, said.tags)


def _lifetime(status: int, headers: RawHeaders, said: "_Said", terms: Terms, received: float) -> float | None:
    """How long the response is fresh, by what it says or by the terms; None when neither tells."""
    if status in REDIRECTIONS and status not in terms.statuses:
        return None if said.always else said.lifetime
    if said.always:
        return 0.0
    if terms.fixed_ttl is not None:
        return terms.fixed_ttl
    if said.lifetime is not None:
        return said.lifetime
    if terms.ttl is not None and status in terms.statuses:
        return terms.ttl
    guessed = terms.heuristic and (status in STATUSES or b"public" in said.directives)
    return heuristic_lifetime(headers, received, terms.heuristic) if guessed else None


def _grace(said: "_Said", terms: Terms) -> tuple[float, float]:
    """How long the response may be given away past its time, while it is asked for anew and when the app fails."""
    revalidate = said.directives.seconds(b"stale-while-revalidate")
    error = said.directives.seconds(b"stale-if-error")
    return (
        terms.while_revalidate if revalidate is None else float(revalidate),
        terms.if_error if error is None else float(error),
    )


class _Said(NamedTuple):
    """What a response says to caches: why nobody may keep it, or else for how long, and for which requests."""

    reason: str | None
    directives: Directives
    lifetime: float | None
    selecting: tuple[bytes, ...] | None
    shared: frozenset[Credential]
    always: bool = False
    """It may be kept, and given away only after the app was asked."""
    strict: bool = False
    tags: tuple[bytes, ...] = ()


_TIMELESS = frozenset({b"cache-control", b"pragma", b"vary", TARGETED})
_STRICT = (b"must-revalidate", b"proxy-revalidate", b"s-maxage")


def _are_usual(lines: RawHeaders) -> bool:
    """Whether the lines mean the same at any time, and are short: who sends long ones chooses how much memory."""
    return (
        len(lines) <= 4
        and _TIMELESS.issuperset([name for name, _ in lines])
        and sum([len(value) for _, value in lines]) <= 128
    )


@lru_cache(maxsize=256)
def _said_before(lines: tuple[tuple[bytes, bytes], ...]) -> _Said:
    return _said(list(lines), 0.0)


def _said(lines: RawHeaders, received: float) -> _Said:
    targeted = targeted_directives(get_all(lines, TARGETED))
    directives = parse_directives(get_all(lines, b"cache-control")) if targeted is None else targeted
    if targeted is not None:
        lines = without(lines, b"expires", b"pragma")  # they mean nothing then (RFC 9213 §2.1)
    always = directives.entire(b"no-cache") or (not directives and b"no-cache" in list_members(lines, b"pragma"))
    selecting, tags = selecting_fields(get_all(lines, b"vary")), tags_in(lines)
    return _Said(
        _told_not_to(lines, directives) or (None if _can_be_found_by(tags) else "too-many-tags"),
        directives,
        freshness_lifetime(directives, lines, received),
        selecting,
        shared_among(directives, selecting),
        always,
        always or any(name in directives for name in _STRICT),
        tags,
    )


_SILENCE = _Said(None, parse_directives([]), None, (), _NOBODY)


def _told_not_to(lines: RawHeaders, directives: Directives) -> str | None:
    """Why nobody may keep the response, whatever its freshness."""
    if directives.broken:
        return "bad-cache-control"
    if b"no-store" in directives and b"must-understand" not in directives:
        return "no-store"
    if directives.entire(b"private"):
        return "private"
    return None if get(lines, b"set-cookie") is None else "set-cookie"


_MOST_TAGS, _LONGEST_TAG = 64, 1024


def _can_be_found_by(tags: Sequence[bytes]) -> bool:
    """Whether a response can be taken away by each of them."""
    return len(tags) <= _MOST_TAGS and all(len(tag) <= _LONGEST_TAG for tag in tags)


def tags_in(headers: RawHeaders) -> tuple[bytes, ...]:
    """The names of what a response shows: Cache-Tag separates them by commas, Surrogate-Key by blanks."""
    found = [tag.strip(b" \t") for value in get_all(headers, b"cache-tag") for tag in value.split(b",")]
    found += [tag for value in get_all(headers, b"surrogate-key") for tag in value.split()]
    return tuple(dict.fromkeys(tag for tag in found if tag))


def shared_among(directives: Directives, selecting: Collection[bytes] | None = ()) -> frozenset[Credential]:
    """The credentials that do not matter, for the response says so.

    ``public`` and ``s-maxage`` open it to all; ``must-revalidate`` to requests with Authorization (§3.5);
    ``Vary: Cookie`` makes the cookie part of the key.
    """
    if not directives and not selecting:
        return _NOBODY
    if b"public" in directives or b"s-maxage" in directives:
        return CREDENTIALS
    found: set[Credential] = set()
    if b"must-revalidate" in directives:
        found.add("authorization")
    if selecting and b"cookie" in selecting:
        found.add("cookie")
    return frozenset(found)


def kept_fields(headers: RawHeaders, directives: Directives) -> tuple[tuple[bytes, bytes], ...]:
    """The fields to keep: not those of the connection, nor those a directive keeps from being kept (§3.1)."""
    dropped = _NOT_KEPT.union(list_members(headers, b"connection")) if get(headers, b"connection") else _NOT_KEPT
    for name in (b"no-cache", b"private"):
        if name in directives:
            dropped |= directives.fields(name)
    return tuple([pair for pair in headers if pair[0] not in dropped])


# Which requests get the same response (§4.1)

_NEGOTIATED = frozenset({b"accept", b"accept-charset", b"accept-encoding", b"accept-language"})
_SIGNS = (b",", b";", b"=")
_SHORT = 128  # longer values are not remembered: who sends them chooses how much memory that takes


def selecting_fields(vary: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """The request fields a Vary field names, in one order; None when no request can be told to match."""
    if not vary:
        return ()
    names = {part.strip(b" \t").lower() for part in b",".join(vary).split(b",")} - {b""}
    if b"*" in names or len(names) > _MOST_SELECTING_FIELDS or not all(map(is_token, names)):
        return None
    return tuple(sorted(names))


def selection(names: Iterable[bytes], headers: Sequence[tuple[bytes, bytes]]) -> tuple[bytes | None, ...]:
    """What a request says in these fields; absent and empty are different things."""
    index = dict(headers)
    if len(index) == len(headers):  # no name stands on two lines, as nearly always
        return tuple([_said_once(name, index.get(name)) for name in names])
    lines = list(headers)
    return tuple([_normalised(name, get_all(lines, name)) for name in names])


def _said_once(name: bytes, value: bytes | None) -> bytes | None:
    if value is None:
        return None
    return _normalised_before(name, value) if len(value) <= _SHORT else _normalised(name, [value])


@lru_cache(maxsize=512)
def _normalised_before(name: bytes, value: bytes) -> bytes | None:
    return _normalised(name, [value])


def _normalised(name: bytes, values: list[bytes]) -> bytes | None:
    if not values:
        return None
    value = b", ".join(value.strip(b" \t") for value in values)
    if name not in _NEGOTIATED or b'"' in value:
        return value
    value = value.lower()
    for sign in _SIGNS:  # blanks around them mean nothing; taken off in linear time, however many there are
        value = sign.join([part.strip(b" \t") for part in value.split(sign)])
    return b",".join(sorted(filter(None, value.split(b",")))) if name == b"accept-encoding" else value
