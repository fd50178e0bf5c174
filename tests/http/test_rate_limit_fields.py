"""What callers are told of limits, as values of header fields."""

import math

import pytest

from apim_middleware._http.fields import parse_list
from apim_middleware._http.rate_limit_fields import (
    effective_window,
    policy_value,
    standing_form,
    tightness,
    until_whole,
)
from apim_middleware.protocols import Limit, Tally

inf = math.inf


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (Limit(10, 60.0), b'"a";q=10;w=60'),
        (Limit(10, 60.0, "bucket", burst=3), b'"a";q=10;w=60'),
        (Limit(10, 0.5), b'"a";q=10'),
        (Limit(10, inf), b'"a";q=10'),
        (Limit(10, 2_592_000.0, "calendar", calendar="month UTC"), b'"a";q=10'),  # months differ
    ],
)
def test_a_window_is_said_when_it_is_a_whole_number_of_seconds(limit: Limit, said: bytes) -> None:
    assert policy_value(["a"], [limit]) == said


def test_a_unit_that_is_not_requests_is_said() -> None:
    """From an audit: a limit of ten million bytes was announced as one of ten million requests."""
    assert policy_value(["a"], [Limit(10, 60.0)], counts_bytes=True) == b'"a";q=10;qu="content-bytes";w=60'


def test_a_form_has_two_numbers_for_each_limit_whatever_it_says_of_them() -> None:
    limits = [Limit(10, 60.0), Limit(10, inf), Limit(10, 2_592_000.0, "calendar", calendar="month UTC")]
    form = standing_form(["a%d", "b", "c"], limits)
    assert parse_list((form % (1, 2, 3, 4, 5, 6)).decode()) == [
        ("a%d", {"r": 1, "t": 2}), ("b", {"r": 3}), ("c", {"r": 5, "t": 6}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tally", "window", "seconds"),
    [
        (Tally(True, 5, 42.1, 0.0), 60.0, 43),
        (Tally(True, 5, 90.0, 0.0), 60.0, 60),  # a sliding window may take nearly two until all is back
        (Tally(True, 0, 90.0, 12.1), 60.0, 13),
        (Tally(False, 2, 60.0, 12.1), 60.0, 13),
        (Tally(True, 2, 60.0, 12.1), 60.0, 60),
        (Tally(False, 2, 59.0, inf), 60.0, 59),  # it can never pass, others can
        (Tally(True, 0, inf, inf), inf, 0),
        (Tally(True, 3, 90_000.0, 0.0), inf, 90_000),  # a day in which clocks are set back
        (Tally(True, 3, 0.0, 0.0), 60.0, 0),
    ],
)
def test_the_time_in_which_no_more_should_be_used(tally: Tally, window: float, seconds: int) -> None:
    assert effective_window(tally, window) == seconds


@pytest.mark.parametrize(
    ("tally", "seconds"),
    [
        (Tally(True, 5, 42.1, 0.0), 43),
        (Tally(True, 0, 90.0, 12.1), 13),
        (Tally(False, 0, 90.0, 12.1), 13),
        (Tally(True, 0, 42.1, 0.0), 43),
        (Tally(True, 0, inf, inf), None),
        (Tally(False, 3, 90.0, 12.1), 13),  # too few are left for this one
        (Tally(False, 3, 42.1, inf), 43),  # it can never pass, others can
    ],
)
def test_the_time_until_there_is_something_again(tally: Tally, seconds: int | None) -> None:
    assert until_whole(tally) == seconds


@pytest.mark.parametrize(
    ("tallies", "first"),
    [
        ([Tally(True, 5, 9.0, 0.0), Tally(True, 3, 9.0, 0.0)], 1),
        ([Tally(True, 0, 1.0, 1.0), Tally(True, 0, 3_600.0, 3_600.0)], 1),  # the one that comes back last
        ([Tally(False, 0, 1.0, 1.0), Tally(False, 0, 3_600.0, 3_600.0)], 1),
        ([Tally(True, 0, 1.0, 1.0), Tally(False, 2, 9.0, 4.0)], 1),  # who refused, whatever is left
        ([Tally(False, 0, 1.0, 1.0), Tally(False, 3, 90.0, 60.0)], 1),
        ([Tally(False, 9, 90.0, inf), Tally(False, 0, 90.0, 60.0)], 0),
    ],
)
def test_the_tightest_of_several_limits_refused_or_leaves_least_for_longest(tallies: list[Tally], first: int) -> None:
    assert min(tallies, key=tightness) is tallies[first]
