"""The windows of the SQLite store: which one of a limit runs, given the one that ran last."""

import math
from typing import NamedTuple

from apim_middleware.protocols import Limit
from apim_middleware.stores.calendars import period_of

GRAIN = 1e-6
"""Everything comes back this many seconds early: waiting for exactly the time given is enough, though floats round."""


class Window(NamedTuple):
    """The window of a limit that runs, or ran last."""

    serial: int
    """Counts the windows; of a sliding one that follows right after another it is one more."""

    starts: float
    """When it starts by the wall clock; of no meaning where the algorithm does not look at that."""

    began: float
    ends: float

    @property
    def due(self) -> float:
        """When the next can begin."""
        return self.ends - GRAIN


def running(limit: Limit, last: Window | None, now: float, wall: float) -> Window:
    """The window of a fixed, sliding or calendar limit that runs now, given the last one."""
    if last is not None and now < last.due:
        return last
    serial = last.serial if last else 0
    if limit.algorithm == "sliding":
        if last is not None and now < last.due + limit.window:
            return Window(serial + 1, 0.0, last.ends, last.ends + limit.window)
        return Window(serial + 2, 0.0, now, now + limit.window)
    starts, left = _period(limit, wall)
    # Run on to the next boundary when this one is upon us, and when the clock went back: windows never come twice.
    if left <= GRAIN or (last is not None and starts <= last.starts):
        starts, left = _following(limit, starts, left, wall)
    return Window(serial + 1, starts, now, now + left)


def _period(limit: Limit, wall: float) -> tuple[float, float]:
    """When the period started that runs by the wall clock, and how much is left of it."""
    if limit.algorithm == "calendar":
        starts, end = period_of(limit.calendar, wall)
        return starts, end - wall
    if limit.window == math.inf:
        return -math.inf, math.inf
    number, into = divmod(wall - limit.start, limit.window)
    return limit.start + number * limit.window, limit.window - into


def _following(limit: Limit, starts: float, left: float, wall: float) -> tuple[float, float]:
    if limit.algorithm == "calendar":
        starts, end = period_of(limit.calendar, wall + left)
        return starts, end - wall
    return starts + limit.window, left + limit.window
