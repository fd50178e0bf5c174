"""Statuses in a field, as people write them: ``503``, ``"5xx"``, ``"500-504"``."""

from apim_middleware._config import Configured
from apim_middleware._http.statuses import statuses_named


def statuses_of(value: Configured, field: str) -> frozenset[int]:
    """All statuses that a field names. Raises ConfigError for what names none."""
    found: set[int] = set()
    for each in getattr(value, field):
        meant = statuses_named(str(each))
        if not meant:
            raise value.mistake(field, "names no statuses", f'Write {field}=(503, "5xx", "500-504")')
        found.update(meant)
    return frozenset(found)
