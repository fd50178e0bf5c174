"""Corrections of what one key used in one sliding window, as a table."""

import pytest

from apim_middleware.stores.fading import FIRST, MOST, UNITS, corrected, mark_of, still_counting


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
