"""The rule of sliding windows: what still counts of the window before, and when less of it does.

A mark is what one key used in one window: the units, and when in the window the first and the last were used. Moments
are fractions of the window. It is one integer, as ``mark_of`` makes it.
"""

FIRST, UNITS = 20, 40
"""How far the first moment and the units are shifted to the left: most marks then fit 60 bits."""

MOMENTS = (1 << FIRST) - 1
"""The last moment of a window; the first is 0."""

MOST = 2**62
"""Units that are kept of a window, whatever is told: there is always room for more of them."""


def mark_of(units: int, moment: int) -> int:
    """The mark of so many units, all used at one moment."""
    return (units << UNITS) | (moment << FIRST) | moment


def corrected(mark: int, units: int, moment: int) -> int:
    """The mark with so many units more, used at a moment, or (below 0) fewer; 0 when none are left.

    Where something was counted the first moment stays, and the last moves on to that of what more was used.
    """
    used, first, last = mark >> UNITS, mark >> FIRST & MOMENTS, mark & MOMENTS
    left = min(used + units, MOST)
    if left <= 0:
        return 0
    if not used:
        return mark_of(left, moment)
    return left << UNITS | first << FIRST | (max(last, moment) if units > 0 else last)


def still_counting(mark: int, moment: int) -> int:
    """Units of the window before that still count here, as if used evenly from its first moment to its last."""
    last = mark & MOMENTS
    if moment >= last:
        return 0
    units, first = mark >> UNITS, mark >> FIRST & MOMENTS
    if moment < first:
        return units
    units -= 1  # the first is gone
    return units - units * (moment - first) // (last - first)


def moment_of(mark: int, left: int) -> int:
    """The first moment where no more than ``left`` units of the window before still count."""
    units, first, last = mark >> UNITS, mark >> FIRST & MOMENTS, mark & MOMENTS
    if left >= units:
        return 0
    if left >= units - 1:
        return first
    return first - (units - 1 - left) * (first - last) // (units - 1)
