"""Cache-Control: what its directives say, and what a request asks of a cache with them (RFC 9111 §5.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from apim_middleware._http.headers import is_token

FOREVER = 2**31
"""The longest time in seconds a directive can name; whatever is longer means this (§1.2.2)."""

_SHORT = 128  # longer lines are not remembered: who sends them chooses how much memory that takes


# Directives

_MEMBER = re.compile(rb'((?:[^,"]|"(?:[^"\\]|\\.)*")*)(,|\Z|".*)', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class Directives:
    """The directives of a Cache-Control field, however it was spelled."""

    __slots__ = ("_values", "broken")

    def __init__(self, values: dict[bytes, list[bytes | None]], *, broken: bool) -> None:
        """Keep every value given for each lower-case name; ``broken`` when a quotation never ends."""
        self._values = values
        self.broken = broken

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def seconds(self, name: bytes) -> int | None:
        """The time a directive names: None when absent, 0 when unreadable or said twice and differently (§4.2.1)."""
        values = self._values.get(name)
        if values is None:
            return None
        value = values[0]
        if value is None or any(other != value for other in values):
            return 0
        return delta_seconds(value) or 0

    def bare(self, name: bytes) -> bool:
        """Whether a directive is there, and nowhere with a value."""
        return name in self._values and not any(value is not None for value in self._values[name])

    def entire(self, name: bytes) -> bool:
        """Whether a directive is meant for the whole response: present, and not only for fields it names."""
        return name in self._values and not self.fields(name)

    def fields(self, name: bytes) -> frozenset[bytes]:
        """The fields a directive is meant for (``no-cache="set-cookie"``); none when it is meant for the whole."""
        found: set[bytes] = set()
        for value in self._values.get(name, ()):
            members = [part.strip(b" \t").lower() for part in (value or b"").split(b",")]
            if not all(map(is_token, members)):
                return frozenset()
            found.update(members)
        return frozenset(found)


def parse_directives(lines: Sequence[bytes]) -> Directives:
    """The directives in all lines of a Cache-Control field; never raises."""
    if not lines:
        return _NONE
    known = tuple(lines)
    return _remembered(known) if sum(map(len, known)) <= _SHORT else _parsed(known)


def _parsed(lines: tuple[bytes, ...]) -> Directives:
    values: dict[bytes, list[bytes | None]] = {}
    members = [found for line in lines for found in _MEMBER.findall(line)]  # no quotation spans two lines
    for member, end in members:
        for each in (member, *_opened(end)):
            spelled, equals, value = each.strip(b" \t").partition(b"=")
            name = spelled.rstrip(b" \t").lower()
            if is_token(name):
                readable = equals and len(name) == len(spelled)  # "max-age =60" has no value anybody agrees on
                values.setdefault(name, []).append(_unquoted(value) if readable else None)
    return Directives(values, broken=any(end not in (b",", b"") for _, end in members))


def _opened(end: bytes) -> list[bytes]:
    """What stands behind a quotation that never ends: no other quote there ends either, so they part as commas do."""
    return end.replace(b'"', b",").split(b",") if end.startswith(b'"') else []


_remembered = lru_cache(maxsize=256)(_parsed)
_NONE = Directives({}, broken=False)


def _unquoted(value: bytes) -> bytes:
    if value[:1] == b'"' and value[-1:] == b'"' and len(value) > 1:
        return _ESCAPED.sub(rb"\1", value[1:-1])
    return value


def delta_seconds(text: bytes) -> int | None:
    """A time in seconds (§1.2.2), capped; None when it is not digits."""
    if not text.isdigit():
        return None
    digits = text.lstrip(b"0")
    return min(int(digits or b"0"), FOREVER) if len(digits) <= 10 else FOREVER


# What a request asks of a cache (§5.2.1, §5.4)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request allows a cache to do."""

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int = 0
    max_stale: int = 0
    stale_if_error: int = 0


ANYTHING = Wishes()
"""What requests ask that say nothing to a cache, as most do; told apart from any other wishes by being this object."""


def wishes(cache_control: Sequence[bytes], pragma: Sequence[bytes] = ()) -> Wishes:
    """The wishes in these fields; never raises."""
    known = tuple(cache_control), tuple(pragma)
    return _wished_before(*known) if sum(map(len, known[0] + known[1])) <= _SHORT else _wished(*known)


def _wished(cache_control: tuple[bytes, ...], pragma: tuple[bytes, ...]) -> Wishes:
    if not cache_control:
        return Wishes(no_cache=b"no-cache" in parse_directives(pragma))
    directives = parse_directives(cache_control)
    return Wishes(
        no_store=b"no-store" in directives,
        no_cache=b"no-cache" in directives,
        only_if_cached=b"only-if-cached" in directives,
        max_age=directives.seconds(b"max-age"),
        min_fresh=directives.seconds(b"min-fresh") or 0,
        max_stale=_tolerance(directives),
        stale_if_error=directives.seconds(b"stale-if-error") or 0,
    )


def _tolerance(directives: Directives) -> int:
    """For how many seconds past its time a response is welcome: without a number, however many (§5.2.1.2)."""
    return FOREVER if directives.bare(b"max-stale") else directives.seconds(b"max-stale") or 0


_wished_before = lru_cache(maxsize=256)(_wished)
