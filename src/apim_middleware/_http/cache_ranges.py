"""Parts cut out of a whole response that is kept (RFC 9110 §14)."""

import re
from collections.abc import Sequence
from typing import Final

from apim_middleware._http.dates import http_date
from apim_middleware._http.headers import get, get_all, without

_RANGE = re.compile(rb"bytes[ \t]*=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE)

Part = tuple[int, int]
"""The first byte of a part, and the one behind its last."""

UNSATISFIABLE: Final = (0, 0)
"""The part asked for begins behind the end."""


def part_of(asked: Sequence[bytes], size: int) -> Part | None:
    """The part of so many bytes that a Range field asks for; None when the whole is the answer.

    A server may answer any range with the whole (§14.2): several parts at once, other units, and what cannot be read
    are.
    """
    match = _RANGE.fullmatch(asked[0]) if len(asked) == 1 else None
    if match is None or match[1] + match[2] == b"":
        return None
    if not match[1]:
        suffix = min(int(match[2]), size)
        return (size - suffix, size) if suffix else UNSATISFIABLE
    first, last = int(match[1]), int(match[2] or size)
    if match[2] and last < first:
        return None
    return (first, min(last + 1, size)) if first < size else UNSATISFIABLE


def is_same(if_range: bytes, headers: Sequence[tuple[bytes, bytes]], received: float) -> bool:
    """Whether a stored response is the one that If-Range means, strongly compared (RFC 9110 §13.1.5)."""
    stored = list(headers)
    if if_range[:1] == b'"':
        return get_all(stored, b"etag") == [if_range]
    asked, changed, made = (
        http_date(value, received)
        for value in (if_range, get(stored, b"last-modified") or b"", get(stored, b"date") or b"")
    )
    # A date is strong when the response was made at least a second later (RFC 9110 §8.8.2.2).
    return asked is not None and asked == changed and made is not None and made - changed >= 1


def partial_fields(headers: Sequence[tuple[bytes, bytes]], part: Part, size: int) -> list[tuple[bytes, bytes]]:
    """The fields of a 206 for this part (RFC 9110 §15.3.7)."""
    first, end = part
    lines = without(list(headers), b"content-length", b"content-range")
    said = b"bytes %d-%d/%d" % (first, end - 1, size)
    return [*lines, (b"content-range", said), (b"content-length", b"%d" % (end - first))]


def unsatisfied_fields(headers: Sequence[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, bytes]]:
    """The fields of a 416: what tells of the content goes (RFC 9110 §15.5.17)."""
    lines = without(
        list(headers), b"content-length", b"content-range", b"content-type", b"content-encoding", b"content-language"
    )
    return [*lines, (b"content-range", b"bytes */%d" % size), (b"content-length", b"0")]
