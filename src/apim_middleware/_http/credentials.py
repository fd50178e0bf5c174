"""What in a request may tell one caller from another, so that the response may be for that caller only."""

import re
from collections.abc import Set
from functools import lru_cache
from typing import Literal, TypeAlias

Credential: TypeAlias = Literal["authorization", "cookie", "key", "principal", "subscription"]
"""What came in a field of the request, or was established from whatever came."""

CREDENTIALS: frozenset[Credential] = frozenset(("authorization", "cookie", "key", "principal", "subscription"))

CARRIERS: dict[bytes, Credential] = {
    b"authorization": "authorization",
    b"proxy-authorization": "authorization",
    b"cookie": "cookie",
}
"""The request fields credentials come in by their standards; others are known by how they are called."""

_KEYS = re.compile(
    rb"(?:^|[-_.])(?:auth|authorization|assertion|credentials?|dpop|jwt|passwd|password|principal|secret|session"
    rb"|sessionid|signature|tokens?)(?:$|[-_.])|(?:api|access|auth|subscription|functions?|master)"
    rb"[-_.]?key"
)
_INNOCENT = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection content-length content-type dnt "
    b"host if-match if-modified-since if-none-match if-unmodified-since origin pragma range referer traceparent "
    b"tracestate upgrade-insecure-requests user-agent via".split()
)
_NOTHING: frozenset[Credential] = frozenset()


def carried_in(names: Set[bytes]) -> frozenset[Credential]:
    """The credentials a request with these fields carries."""
    others = names - _INNOCENT
    return _carried_by(frozenset(others)) if others else _NOTHING


@lru_cache(maxsize=256)
def _carried_by(names: frozenset[bytes]) -> frozenset[Credential]:
    return frozenset(found for name in names if (found := _carried_as(name)) is not None)


def _carried_as(name: bytes) -> Credential | None:
    return CARRIERS.get(name) or ("key" if _KEYS.search(name) else None)
