"""What one key used in one sliding window: corrections as a table, and how it fades."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.stores.sliding_marks import FIRST, MOST, UNITS, corrected, mark_of, moment_of, still_counting


def mark(units: int, first: int, last: int) -> int:
    return units << UNITS | first << FIRST | last


@pytest.mark.parametrize(
    ("before", "units", "moment", "after"),
    [
        (0, 3, 70, mark(3, 70, 70)),  # nothing was used
        (0, 0, 70, 0),
        (0, -3, 70, 0),
        (mark(0, 10, 90), 3, 70, mark(3, 70, 70)),
        (mark(5, 10, 50), 3, 30, mark(8, 10, 50)),
        (mark(5, 10, 50), 3, 70, mark(8, 10, 70)),  # later than all
        (mark(5, 10, 50), 3, 5, mark(8, 10, 50)),  # earlier: what was used is no sooner over
        (mark(5, 10, 50), -3, 70, mark(2, 10, 50)),
        (mark(5, 10, 50), -5, 70, 0),
        (mark(5, 10, 50), -9, 70, 0),
        (mark(5, 10, 50), 2**80, 50, mark(MOST, 10, 50)),
        (0, 2**80, 50, mark_of(MOST, 50)),
    ],
)
def test_a_correction(before: int, units: int, moment: int, after: int) -> None:
    assert corrected(before, units, moment) == after


@pytest.mark.parametrize("moment", [9, 10, 30, 50])
def test_of_what_was_given_back_nothing_counts_in_the_next_window(moment: int) -> None:
    """Not even a unit less than nothing, as at the first moment."""
    assert still_counting(corrected(mark(5, 10, 50), -5, 10), moment) == 0


def test_a_correction_of_nothing_is_none() -> None:
    assert corrected(mark(5, 10, 50), 0, 70) == mark(5, 10, 50)


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 30), st.integers(0, 21))
def test_so_many_count_up_to_a_moment_and_no_longer(units: int, first: int, length: int, left: int) -> None:
    used = mark(units, first, first + length)
    moment = moment_of(used, left)
    assert still_counting(used, moment) <= left
    assert moment == 0 or still_counting(used, moment - 1) > left


def test_units_fade_evenly_from_the_first_moment_to_the_last() -> None:
    used = mark(5, 10, 50)
    assert [still_counting(used, moment) for moment in (0, 9, 10, 19, 20, 29, 30, 40, 49, 50)] == [
        5, 5, 4, 4, 3, 3, 2, 1, 1, 0
    ]  # fmt: skip
