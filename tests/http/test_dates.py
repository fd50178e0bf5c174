"""Dates in header fields (RFC 9110 §5.6.7)."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.dates import http_date

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    "text",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"SUN, 06 NOV 1994 08:49:37 gmt",
        b"sunday, 06-nov-94 08:49:37 gMT",
    ],
)
def test_each_form_of_a_date_is_understood_in_any_case(text: bytes) -> None:
    assert http_date(text, NOW) == 784111777


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0",
        b"-1",
        b"now",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun 06 Nov 1994 08:49:37 GMT",
        b"Sun,  06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov  1994 08:49:37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08.49.37 GMT",
        b"Sun, 06 Nov 1994 8:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:00 GMT",
        b"Sun, 31 Feb 1994 08:49:37 GMT",
        b"Sun, 06 Foo 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT".encode(),
    ],
)
def test_what_is_no_date_is_none(text: bytes) -> None:
    assert http_date(text, NOW) is None


def test_a_leap_second_is_the_last_of_its_minute() -> None:
    assert http_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) == http_date(b"Sat, 31 Dec 2016 23:59:59 GMT", NOW)


@pytest.mark.parametrize(("digits", "year"), [(94, 1994), (27, 2027), (77, 2077), (78, 1978)])
def test_a_year_of_two_digits_is_at_most_fifty_years_ahead(digits: int, year: int) -> None:
    text = b"Sunday, 06-Nov-%d 08:49:37 GMT" % digits
    assert http_date(text, NOW) == datetime(year, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()


@given(st.binary(max_size=40))
def test_reading_a_date_never_fails(text: bytes) -> None:
    assert isinstance(http_date(text, NOW), float | None)


@given(st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - made aware below
def test_a_date_written_is_the_date_read(when: datetime) -> None:
    when = when.replace(microsecond=0, tzinfo=UTC)
    text = f"Mon, {when:%d %b} {when.year:04d} {when:%H:%M:%S} GMT"
    assert http_date(text.encode(), NOW) == when.timestamp()
