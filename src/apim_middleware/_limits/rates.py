"""Rates: how many units in how many seconds, as numbers or as text."""

import re
from typing import TypeAlias

Rate: TypeAlias = tuple[int, float | None]
"""Units and seconds; None for the window of the policy, whatever that is."""

UNITS = "second, minute, hour, day or month"
"""What the time of a rate is told in."""

_NO_TIME = re.compile(r"(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)


class NoYear(ValueError):
    """A year, which has no fixed number of seconds; the parser takes 360 days."""


class NotALimitsParser(ImportError):
    """The package limits is hidden by something of that name."""


def parsed(text: str) -> tuple[Rate, ...]:
    """The rates in a text such as ``100/minute; 5/second``; ValueError when it cannot be read."""
    try:
        from limits import parse_many  # here, because few need it and it is slow to import
    except ImportError as error:
        raise NotALimitsParser from error
    if _NO_TIME.search(text):
        raise ValueError("no time at all, which the parser takes for one unit of it")
    try:
        rates = parse_many(text)
        if any(each.GRANULARITY.name == "year" for each in rates):
            raise NoYear
        return tuple((each.amount, float(each.get_expiry())) for each in rates)
    except OverflowError as error:
        raise ValueError("more than can be counted") from error
