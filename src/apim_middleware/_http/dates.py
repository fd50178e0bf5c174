"""Dates in header fields (RFC 9110 §5.6.7)."""

import re
from datetime import UTC, datetime
from functools import lru_cache

_MONTHS = {
    name: number
    for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
}  # fmt: skip
_MONTH, _TIME = rb"(?P<month>[a-z]{3})", rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FIXED = re.compile(rb"[a-z]{3}, (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + rb" gmt", re.IGNORECASE)
_OBSOLETE = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rb"[a-z]{6,9}, (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + rb" gmt",
        rb"[a-z]{3} " + _MONTH + rb" (?P<day>[ \d]\d) " + _TIME + rb" (?P<year>\d{4})",
    )
)
_FIXED_LENGTH = len(b"Sun, 06 Nov 1994 08:49:37 GMT")


def http_date(text: bytes, now: float) -> float | None:
    """Seconds since 1970 of an HTTP date in any of its three forms, letters in any case; None when it is none.

    ``now`` gives years of two digits their century: never more than fifty years ahead.
    """
    if len(text) == _FIXED_LENGTH and (when := _fixed_date(text)) is not None:
        return when
    for form in _OBSOLETE:
        if (match := form.fullmatch(text)) is not None:
            return _timestamp(match, now)
    return None


@lru_cache(maxsize=64)
def _fixed_date(text: bytes) -> float | None:
    """A date in the form everybody sends, which is the same in all responses of a second."""
    match = _FIXED.fullmatch(text)
    return None if match is None else _timestamp(match, 0.0)


def _timestamp(match: re.Match[bytes], now: float) -> float | None:
    month = _MONTHS.get(match["month"].lower())
    if month is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        today = datetime.fromtimestamp(now, UTC).year
        year += today - today % 100
        year -= 100 if year > today + 50 else 0
    second = min(int(match["second"]), 59)  # a leap second is as good as the one before
    try:
        when = datetime(year, month, int(match["day"]), int(match["hour"]), int(match["minute"]), second, tzinfo=UTC)
    except ValueError:
        return None
    return when.timestamp()
