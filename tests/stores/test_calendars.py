"""The periods of calendars: tables of days that are known to be odd, and laws that hold in every zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.stores.calendars import period_of

HOUR, DAY = 3600, 86_400


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("period", "zone", "now", "begin", "hours"),
    [
        ("hour", "UTC", "2026-03-29T02:30", "2026-03-29T02:00", 1),
        ("hour", "Asia/Kolkata", "2026-03-29T02:15", "2026-03-29T02:00", 1),
        ("hour", "Asia/Kathmandu", "2026-03-29T02:59:59.999", "2026-03-29T02:00", 1),
        ("day", "UTC", "2026-03-29T00:00", "2026-03-29T00:00", 24),
        ("day", "UTC", "2026-03-29T23:59:59.999999", "2026-03-29T00:00", 24),
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", 23),
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:00", 25),
        ("day", "Europe/Berlin", "2026-10-26T00:00", "2026-10-26T00:00", 24),
        ("day", "Australia/Lord_Howe", "2026-04-05T12:00", "2026-04-05T00:00", 24.5),
        ("day", "America/Havana", "2026-03-08T12:00", "2026-03-08T01:00", 23),  # has no midnight
        ("day", "America/Havana", "2026-11-01T12:00", "2026-11-01T00:00", 25),  # has two
        ("day", "Africa/Cairo", "2026-10-29T12:00", "2026-10-29T00:00", 25),  # ends with two elevens
        ("day", "Pacific/Apia", "2011-12-29T12:00", "2011-12-29T00:00", 24),  # the 30th never was
        ("day", "Pacific/Apia", "2011-12-31T12:00", "2011-12-31T00:00", 24),
        ("week", "UTC", "2026-11-21T12:00", "2026-11-16T00:00", 7 * 24),
        ("week", "UTC", "2026-11-16T00:00", "2026-11-16T00:00", 7 * 24),
        ("week", "UTC", "2027-01-01T00:00", "2026-12-28T00:00", 7 * 24),
        ("week", "Europe/Berlin", "2026-03-29T12:00", "2026-03-23T00:00", 7 * 24 - 1),
        ("month", "UTC", "2026-02-28T23:59:59", "2026-02-01T00:00", 28 * 24),
        ("month", "UTC", "2028-02-29T23:59:59", "2028-02-01T00:00", 29 * 24),
        ("month", "UTC", "2026-12-31T23:59:59", "2026-12-01T00:00", 31 * 24),
        ("month", "UTC", "2027-01-31T23:59:59", "2027-01-01T00:00", 31 * 24),
        ("month", "Europe/Berlin", "2026-10-31T12:00", "2026-10-01T00:00", 31 * 24 + 1),
        ("month", "America/Los_Angeles", "2026-03-01T00:00", "2026-03-01T00:00", 31 * 24 - 1),
        ("year", "UTC", "2028-02-29T12:00", "2028-01-01T00:00", 366 * 24),
        ("year", "Asia/Tokyo", "2026-12-31T23:59:59", "2026-01-01T00:00", 365 * 24),
    ],
)
def test_a_period_begins_and_is_as_long_as_the_calendar_says(
    period: str, zone: str, now: str, begin: str, hours: float
) -> None:
    start = at(begin, zone)
    assert period_of(f"{period} {zone}", at(now, zone)) == (start, start + hours * HOUR)


def test_an_hour_that_is_shown_twice_is_two() -> None:
    first, second = (at("2026-10-25T02:30", "Europe/Berlin", fold) for fold in (0, 1))
    assert period_of("hour Europe/Berlin", first) == (first - 1800, first + 1800)
    assert period_of("hour Europe/Berlin", second) == (second - 1800, second + 1800)


def test_an_hour_is_cut_short_where_the_clock_is_changed_by_half_of_one() -> None:
    change = at("2026-04-04T15:00")  # 02:00 becomes 01:30
    assert period_of("hour Australia/Lord_Howe", change - 1) == (change - HOUR, change)
    assert period_of("hour Australia/Lord_Howe", change + 1) == (change, change + 1800)


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("America/Caracas", "2016-05-01T07:00"),  # 02:30 becomes 03:00
        ("Asia/Colombo", "1996-10-25T18:30"),
        ("Asia/Pyongyang", "2018-05-04T15:00"),
        ("Asia/Kathmandu", "1985-12-31T18:30"),  # 00:00 becomes 00:15
    ],
)
@pytest.mark.parametrize("minutes", range(-90, 91, 15))
def test_no_two_hours_overlap_where_a_clock_was_changed_for_good(zone: str, change: str, minutes: int) -> None:
    """From an audit: the hour before the change went on into the one after it, and its units counted in both."""
    now = at(change) + minutes * 60
    begin, end = period_of(f"hour {zone}", now)
    assert begin <= now < end
    assert period_of(f"hour {zone}", end)[0] == end
    assert period_of(f"hour {zone}", begin - 1)[1] == begin


def test_a_day_that_began_does_not_end_when_the_clock_is_set_back_before_midnight() -> None:
    midnight = at("2010-11-07T00:00", "America/St_Johns")  # one minute later it is 23:01 again
    assert period_of("day America/St_Johns", midnight + 1800) == (midnight, midnight + 25 * HOUR)


@pytest.mark.parametrize("period", ["hour", "day", "week", "month", "year"])
def test_every_zone_has_periods(period: str) -> None:
    for zone in available_timezones():
        begin, end = period_of(f"{period} {zone}", 1_800_000_000.0)
        assert begin <= 1_800_000_000 < end


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Africa/Cairo",
         "Asia/Beirut", "America/Santiago", "America/Nuuk", "Antarctica/Troll", "Africa/Casablanca", "Asia/Kathmandu",
         "Pacific/Chatham", "Atlantic/Azores"]  # fmt: skip
LENGTHS = {
    "hour": (0.5 * HOUR, HOUR),
    "day": (22 * HOUR, 26 * HOUR),
    "week": (7 * DAY - 2 * HOUR, 7 * DAY + 2 * HOUR),
    "month": (28 * DAY - 2 * HOUR, 31 * DAY + 2 * HOUR),
    "year": (365 * DAY - 2 * HOUR, 366 * DAY + 2 * HOUR),
}
moments = st.floats(at("2024-01-01T00:00"), at("2036-12-31T00:00"))


@given(st.sampled_from(list(LENGTHS)), st.sampled_from(ZONES), moments, st.floats(0, 1, exclude_max=True))
def test_each_moment_belongs_to_one_period(period: str, zone: str, now: float, part: float) -> None:
    calendar = f"{period} {zone}"
    begin, end = period_of(calendar, now)
    assert begin <= now < end
    assert LENGTHS[period][0] <= end - begin <= LENGTHS[period][1]
    within = begin + (end - begin) * part
    if begin <= within < end:
        period_of(calendar, end)  # so that it is not simply remembered
        assert period_of(calendar, within) == (begin, end)
    assert period_of(calendar, end)[0] == end
    assert period_of(calendar, begin - 0.001)[1] == begin


@pytest.mark.parametrize("calendar", ["", "month", "month ", "Month UTC", "fortnight UTC", "month  UTC",
                                      "month Mars/Olympus", "month ../../etc/passwd", "month /etc/passwd",
                                      "month Europe", "month a\x00b", "month é", "UTC month"])  # fmt: skip
def test_what_is_no_calendar_is_a_mistake_that_says_why(calendar: str) -> None:
    with pytest.raises(ValueError, match=r"is no known time zone|begins with no period"):
        period_of(calendar, 0.0)
