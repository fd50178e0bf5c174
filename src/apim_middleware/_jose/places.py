"""Where in a request a token may be, and finding it: exactly one, or none (RFC 6750 §2, RFC 9449 §7.1)."""

import re
from collections.abc import Callable
from typing import TypeAlias

from apim_middleware._http import cookies, queries
from apim_middleware._http.headers import is_token
from apim_middleware._http.hops import carries
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange

TOKEN = "apim_middleware.token"  # noqa: S105 - a name, not a token
"""Where the scope has the token that let the caller in, for whoever asks for another in exchange for it."""

Find: TypeAlias = Callable[[Exchange], bytes | None]
"""The token of a request, or None; raises Refusal for several."""

_Look: TypeAlias = Callable[[Exchange], list[bytes]]

_PLACE = re.compile(r"(header|cookie|query):([!-~]+)")
_BEARER = re.compile(rb"bearer(?![!#$%&'*+.^_`|~0-9A-Za-z-])", re.IGNORECASE)
_DPOP = re.compile(rb"dpop(?![!#$%&'*+.^_`|~0-9A-Za-z-])", re.IGNORECASE)


def is_place(text: str) -> bool:
    """Whether this names a place: ``header:x-token``, ``cookie:token`` or ``query:access_token``."""
    match = _PLACE.fullmatch(text)
    if match is None:
        return False
    kind, name = match[1], match[2].lower().encode()
    return kind == "query" or (is_token(name) and (kind == "cookie" or carries(name)))


def headers_in(places: tuple[str, ...]) -> list[str]:
    """The names of the headers among these places."""
    return [name for kind, _, name in (place.partition(":") for place in places) if kind == "header"]


def finder(places: tuple[str, ...], ambiguous: Callable[[], Refusal], *, dpop: bool = False) -> Find:
    """Looks for the token in these places, in ``Authorization`` after ``DPoP`` too where that is understood."""
    after = _bearer_or_dpop if dpop else bearer
    if [place.lower() for place in places] == ["header:authorization"]:
        return after
    looks = [_look(kind, name, after) for kind, _, name in (place.partition(":") for place in places)]

    def find(exchange: Exchange) -> bytes | None:
        found = [token for look in looks for token in look(exchange)]
        if len(found) > 1:
            raise ambiguous()
        return found[0] if found else None

    return find


def comes_with_dpop(exchange: Exchange) -> bool:
    """Whether the token in ``Authorization`` comes under the scheme that promises a proof."""
    return _DPOP.match(exchange.header(b"authorization") or b"") is not None


def _look(kind: str, name: str, after: Find) -> _Look:
    raw = name.encode()
    if kind == "query":
        return lambda exchange: _taken_from_query(exchange, name)
    if kind == "cookie":
        return lambda exchange: cookies.values(exchange.scope["headers"], raw)
    if raw.lower() == b"authorization":
        return lambda exchange: [] if (token := after(exchange)) is None else [token]
    return lambda exchange: exchange.headers(raw.lower())


def bearer(exchange: Exchange) -> bytes | None:
    """What follows ``Bearer``; another scheme is no token at all, and somebody else's business."""
    value = exchange.header(b"authorization")
    if value is None:
        return None
    if value[:7] == b"Bearer ":  # as nearly everybody writes it
        return value[7:].strip(b" ")
    if _BEARER.match(value) is None:
        return None
    return value[7:].strip(b" ") if value[6:7] in (b" ", b"") else value  # misspelt, and so no token that counts


def _bearer_or_dpop(exchange: Exchange) -> bytes | None:
    if (found := bearer(exchange)) is not None:
        return found
    value = exchange.header(b"authorization")
    if value is None or _DPOP.match(value) is None:
        return None
    return value[5:].strip(b" ") if value[4:5] in (b" ", b"") else value


def _taken_from_query(exchange: Exchange, name: str) -> list[bytes]:
    query = exchange.scope.get("query_string", b"")
    found = queries.values(query, name)
    if found:
        exchange.scope["query_string"] = queries.remove(query, name)
    return [token.encode() for token in found]
