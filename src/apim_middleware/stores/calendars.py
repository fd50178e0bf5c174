"""The hours, days, weeks, months and years of a time zone: when the one began that runs now, and when it ends."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

_HOUR = 3600.0


def period_of(calendar: str, now: float) -> tuple[float, float]:
    """When the period of a calendar began that runs at ``now``, and when the next begins; seconds since 1970 (UTC).

    A calendar is a period (``hour``, ``day``, ``week``, ``month`` or ``year``) and a time zone of the IANA database:
    ``month Europe/Berlin``. Each moment belongs to one period. Weeks begin with Monday (ISO 8601). Days begin with the
    first midnight the zone's clock shows, or when it skips that; they have 23 to 25 hours when that clock is changed.
    An hour that it shows twice is two hours. Raises ValueError for an unknown period or time zone, saying which.
    """
    return _calendar(calendar).period(now)


@lru_cache(maxsize=256)
def _calendar(calendar: str) -> "_Calendar":
    period, _, name = calendar.partition(" ")
    if period != "hour" and period not in _BEGINNINGS:
        known = ", ".join(["hour", *_BEGINNINGS])
        raise ValueError(f"{calendar!r} begins with no period of the calendar: {known}")
    return _Calendar(period, _zone(name))


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # known everywhere, unlike the others
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no such name can be, a folder of them
        cure = 'give one such as "Europe/Berlin" (where the machine knows none, the package tzdata does)'
        raise ValueError(f"{name!r} is no known time zone; {cure}") from None


class _Calendar:
    """Remembers the period it gave last, for that is asked for until it ends."""

    def __init__(self, period: str, zone: tzinfo) -> None:
        self.zone = zone
        self.find = self._hour if period == "hour" else self._longer
        self.beginning, self.following = _BEGINNINGS.get(period, _BEGINNINGS["day"])
        self.last = (0.0, 0.0)

    def period(self, now: float) -> tuple[float, float]:
        last = self.last
        if last[0] <= now < last[1]:
            return last
        self.last = last = self.find(now)
        return last

    def _longer(self, now: float) -> tuple[float, float]:
        first = self.beginning(datetime.fromtimestamp(now, self.zone).date())
        begin, second = self._midnight(first), self.following(first)
        end = self._midnight(second)
        if end <= now:  # the clock was set back from after midnight to before it: the new day has begun all the same
            begin, end = end, self._midnight(self.following(second))
        return begin, end

    def _midnight(self, day: date) -> float:
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp()

    def _hour(self, now: float) -> tuple[float, float]:
        begin = self._full_hour(now)
        before, end = self._full_hour(begin) + _HOUR, begin + _HOUR
        # Where a clock is changed by half an hour, as on Lord Howe Island, an hour is cut short: the one after the
        # change, or where that begins with a full hour, as in Caracas in 2016, the one before it.
        following = self._full_hour(end)
        if begin < following and self._full_hour(following) == following:
            end = following
        return (before if begin < before <= now else begin), end

    def _full_hour(self, now: float) -> float:
        offset = datetime.fromtimestamp(now, self.zone).utcoffset() or timedelta()
        return now - (now + offset.total_seconds()) % _HOUR


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _first_of_next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


_BEGINNINGS: dict[str, tuple[Callable[[date], date], Callable[[date], date]]] = {
    "day": (lambda day: day, lambda first: first + timedelta(days=1)),
    "week": (_monday, lambda first: first + timedelta(days=7)),
    "month": (lambda day: day.replace(day=1), _first_of_next_month),
    "year": (lambda day: day.replace(month=1, day=1), lambda first: first.replace(year=first.year + 1)),
}
"""The first day of the period that a day is in, and the first of the period after one that begins on a day."""
