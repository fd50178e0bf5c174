"""Statuses as people write them: ``503``, ``"5xx"``, ``"500-504"``."""

import re

from apim_middleware._config import Configured

_CLASS = re.compile(r"([1-5])xx", re.IGNORECASE)
_RANGE = re.compile(r"([1-5]\d\d)-([1-5]\d\d)")


def statuses_of(value: Configured, field: str) -> frozenset[int]:
    """All statuses that a field names. Raises ConfigError for what names none."""
    found: set[int] = set()
    for each in getattr(value, field):
        meant = _range_of(each)
        if not meant:
            raise value.mistake(field, "names no statuses", f'Write {field}=(503, "5xx", "500-504")')
        found.update(meant)
    return frozenset(found)


def _range_of(text: int | str) -> range:
    if isinstance(text, int):
        return range(text, text + 1) if 100 <= text <= 599 else range(0)
    if match := _CLASS.fullmatch(text):
        first = int(match[1]) * 100
        return range(first, first + 100)
    match = _RANGE.fullmatch(text)
    return range(int(match[1]), int(match[2]) + 1) if match else range(0)
