"""Query strings, parameter by parameter: what is not named stays byte for byte.

Parameters are told apart as form decoders do it (URL standard, application/x-www-form-urlencoded): ``&`` stands between
them, ``+`` is a blank, escapes are UTF-8. So an escaped name is the same name, and letters of another case are another.
"""

from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes


def values(query: bytes, name: str) -> list[str]:
    """Every value under this name, decoded, in order; a parameter without ``=`` has the value ``""``."""
    if _surely_without(query, name):
        return []
    plain = name.encode()
    pairs = [part.partition(b"=") for part in query.split(b"&") if part]
    return [_decoded(value) for key, _, value in pairs if _same(key, plain, name)]


def remove(query: bytes, name: str) -> bytes:
    """The query without any parameter of this name."""
    if _surely_without(query, name):
        return query
    plain = name.encode()
    return b"&".join([part for part in query.split(b"&") if not _same(part.partition(b"=")[0], plain, name)])


def append(query: bytes, pairs: bytes) -> bytes:
    """The query with more pairs behind it, as ``encoded`` gives them."""
    return query + b"&" + pairs if query and pairs else query or pairs


def encoded(name: str, values: Iterable[str]) -> bytes:
    """``name=value`` for each value, all but unreserved characters escaped; ValueError for half a surrogate pair."""
    key = quote(name, safe="")
    return "&".join([f"{key}={quote(value, safe='')}" for value in values]).encode()


def _surely_without(query: bytes, name: str) -> bool:
    """The glance that spares most queries being taken apart."""
    return name.encode() not in query and b"%" not in query and b"+" not in query


def _same(written: bytes, plain: bytes, name: str) -> bool:
    return _decoded(written) == name if b"%" in written or b"+" in written else written == plain


def _decoded(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8", "replace")
