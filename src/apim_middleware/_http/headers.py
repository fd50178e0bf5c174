"""Header fields as raw pairs: grammar (RFC 9110 §5), reading and changing."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import itemgetter

from apim_middleware.types import RawHeaders

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")

NAME: Callable[[tuple[bytes, bytes]], bytes] = itemgetter(0)
"""The name of a header line; ``map(NAME, headers)`` takes half the time of a loop."""

VALUE: Callable[[tuple[bytes, bytes]], bytes] = itemgetter(1)
"""Its value."""


def is_token(text: bytes) -> bool:
    """Whether this is a ``token`` (RFC 9110 §5.6.2), as names of fields and methods are."""
    return _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def header_name(name: str | bytes) -> bytes:
    """The name as ASGI carries it, lower case; ValueError when it is not a token."""
    raw = name.encode("latin-1", "replace") if isinstance(name, str) else name
    if not is_token(raw):
        raise ValueError(f"not a header name: {name!r}")
    return raw.lower()


def header_value(value: str | bytes) -> bytes:
    """The value as bytes without outer blanks; ValueError when it holds CR, LF, NUL or another control."""
    try:
        raw = value.encode("latin-1") if isinstance(value, str) else value
    except UnicodeEncodeError as error:
        raise ValueError("a header value holds characters outside Latin-1") from error
    if _VALUE.fullmatch(raw) is None:
        raise ValueError("a header value holds a control character")
    return raw.strip(b" \t")


def raw_headers(headers: Mapping[str, str] | Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Checked raw pairs from a mapping of text or from pairs of bytes."""
    pairs: Iterable[tuple[str | bytes, str | bytes]] = headers.items() if isinstance(headers, Mapping) else headers
    return [(header_name(name), header_value(value)) for name, value in pairs]


def get(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value under a lower-case name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def get_all(headers: RawHeaders, name: bytes) -> list[bytes]:
    """Every value under a lower-case name, in order."""
    return [value for key, value in headers if key == name]


def without(headers: RawHeaders, *names: bytes) -> RawHeaders:
    """A copy without these lower-case names."""
    return [pair for pair in headers if pair[0] not in names]


def list_members(headers: RawHeaders, name: bytes) -> list[bytes]:
    """The members of a comma-separated field, lower case, over all its lines (RFC 9110 §5.6.1)."""
    members = b",".join(get_all(headers, name)).lower().split(b",")
    return [member for part in members if (member := part.strip(b" \t"))]
