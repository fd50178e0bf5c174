"""Cookies of a request, by name (RFC 6265 §5.4)."""

from apim_middleware._http.headers import get_all
from apim_middleware.types import RawHeaders


def values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """Every value that came with a cookie of this name, over all Cookie lines (RFC 9113 §8.2.3)."""
    found = []
    for pair in b";".join(get_all(headers, b"cookie")).split(b";"):
        key, equals, value = pair.partition(b"=")
        if equals and key.strip(b" \t") == name:
            found.append(_unquoted(value.strip(b" \t")))
    return found


def _unquoted(value: bytes) -> bytes:
    return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
