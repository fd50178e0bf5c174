"""Cache-Control for caches like this one alone: the targeted field CDN-Cache-Control (RFC 9213)."""

import re
from collections.abc import Sequence
from functools import lru_cache

from apim_middleware._http.cache_control import Directives

TARGETED = b"cdn-cache-control"
"""The field, lower case; where it can be read, Cache-Control and Expires mean nothing to us (§2.1)."""

_KEY = rb"[a-z*][a-z0-9_.*-]*"
_BARE = (
    rb'"(?:[ !#-\[\]-~]|\\["\\])*"|[A-Za-z*][!#$%&\'*+.^_`|~0-9A-Za-z:/-]*|-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}'
    rb"|\?[01]|:[A-Za-z0-9+/=]*:|@-?[0-9]{1,15}"
)
_PARAMETERS = rb"(?:;[ ]*" + _KEY + rb"(?:=(?:" + _BARE + rb"))?)*"
_INNER = rb"\([ ]*(?:(?:" + _BARE + rb")" + _PARAMETERS + rb"(?:[ ]+|(?=\))))*\)"
_MEMBER = re.compile(rb"(" + _KEY + rb")(?:=(?:(" + _BARE + rb")|" + _INNER + rb"))?" + _PARAMETERS)
_COMMA = re.compile(rb"[ \t]*,[ \t]*")
_NUMBERED = frozenset({b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"})
_LONGEST = 4096


def targeted_directives(lines: Sequence[bytes]) -> Directives | None:
    """The directives of the targeted field; None when there are none that can be read, so that Cache-Control counts.

    It is a dictionary of structured fields (RFC 9651 §3.2): one mistake, and the whole field is none.
    """
    text = b", ".join(lines).strip(b" ")
    return _read(text) if 0 < len(text) <= _LONGEST else None


@lru_cache(maxsize=256)
def _read(text: bytes) -> Directives | None:
    values: dict[bytes, list[bytes | None]] = {}
    at = 0
    while True:
        member = _MEMBER.match(text, at)
        if member is None:
            return None
        _take(values, member)
        if member.end() == len(text):
            return Directives(values, broken=False)
        comma = _COMMA.match(text, member.end())
        if comma is None:
            return None
        at = comma.end()


def _take(values: dict[bytes, list[bytes | None]], member: re.Match[bytes]) -> None:
    """Note one directive: the last of a name counts, and a value of the wrong kind makes it none."""
    name, value = member[1], member[2]
    values.pop(name, None)
    if value == b"?0" or (name in _NUMBERED and (value is None or not value.lstrip(b"-").isdigit())):
        return
    plain = value is None or value == b"?1"
    values[name] = [None if plain else re.sub(rb"\\(.)", rb"\1", (value or b"").strip(b'"'))]
