"""Whether a shared cache may keep a response, for how long, and for which requests (RFC 9111 §3).

Where the RFC leaves a choice, the cautious one is taken: what belongs to one caller stays with one.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from apim_middleware._http.cache_control import Directives, parse_directives
from apim_middleware._http.credentials import CREDENTIALS, Credential
from apim_middleware._http.freshness import freshness_lifetime, initial_age
from apim_middleware._http.headers import get, get_all, is_token, list_members
from apim_middleware.types import RawHeaders

STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501})
"""Statuses that may be kept: those that are cacheable by definition (RFC 9110 §15.1), without 206."""

_NOBODY: frozenset[Credential] = frozenset()
_MOST_SELECTING_FIELDS = 16

# Whether a response may be kept (§3)

_NOT_KEPT = frozenset(
    b"age connection keep-alive proxy-authenticate proxy-authentication-info proxy-authorization proxy-connection "
    b"ratelimit ratelimit-policy retry-after te trailer transfer-encoding upgrade".split()
)


TO_CACHES = frozenset(b"cache-control pragma expires date age vary set-cookie".split())
"""Fields without which a response says nothing about being kept, as most responses of APIs."""


class Keeping(NamedTuple):
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
    if status not in STATUSES:
        return "status"
    lines, kind = [], b""
    for line in headers:
        if line[0] in TO_CACHES:
            lines.append(line)
        elif line[0] == b"content-type":
            kind = line[1]
    said = _SILENCE if not lines else _said_before(tuple(lines)) if _are_usual(lines) else _said(lines, received)
    if said.reason is not None:
        return said.reason
    if kind[:17].lower() == b"text/event-stream":
        return "event-stream"
    if said.selecting is None:
        return "vary"
    lifetime = ttl if said.lifetime is None and status == 200 else said.lifetime
    if lifetime is None:
        return "no-freshness"
    age = initial_age(lines, received, delay) if lines else delay
    if lifetime <= age:
        return "stale"
    if not carried <= said.shared:
        return min(carried - said.shared)
    open_to = said.shared if said.lifetime is None else CREDENTIALS
    return Keeping(lifetime, age, said.selecting, open_to, kept_fields(headers, said.directives))


class _Said(NamedTuple):
    """What a response says to caches: why nobody may keep it, or else for how long, and for which requests."""

    reason: str | None
    directives: Directives
    lifetime: float | None
    selecting: tuple[bytes, ...] | None
    shared: frozenset[Credential]


_TIMELESS = frozenset({b"cache-control", b"pragma", b"vary"})


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
    directives = parse_directives(get_all(lines, b"cache-control"))
    selecting = selecting_fields(get_all(lines, b"vary"))
    lifetime = freshness_lifetime(directives, lines, received)
    return _Said(_told_not_to(lines, directives), directives, lifetime, selecting, shared_among(directives, selecting))


_SILENCE = _Said(None, parse_directives([]), None, (), _NOBODY)


def _told_not_to(lines: RawHeaders, directives: Directives) -> str | None:
    """Why nobody may keep the response, whatever its freshness."""
    if directives.broken:
        return "bad-cache-control"
    if b"no-store" in directives and b"must-understand" not in directives:
        return "no-store"
    if directives.entire(b"private"):
        return "private"
    if directives.entire(b"no-cache") or (not directives and b"no-cache" in list_members(lines, b"pragma")):
        return "no-cache"
    return None if get(lines, b"set-cookie") is None else "set-cookie"


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
