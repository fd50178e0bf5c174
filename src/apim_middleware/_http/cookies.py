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


def remove(headers: RawHeaders, name: bytes) -> RawHeaders:
    """The header lines without cookies of this name; a Cookie line in which nothing is left goes."""
    kept: RawHeaders = []
    for line, value in headers:
        if line == b"cookie":
            pairs = [pair for pair in value.split(b";") if pair.partition(b"=")[0].strip(b" \t") != name]
            value = b";".join(pairs).strip(b" \t")
            if not value:
                continue
        kept.append((line, value))
    return kept


def _unquoted(value: bytes) -> bytes:
    return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
