"""What callers are told of limits: ``RateLimit`` and ``RateLimit-Policy``, and the older ``X-RateLimit-*`` trio.

The first two follow draft-ietf-httpapi-ratelimit-headers; the trio has no standard.
"""

import math
from collections.abc import Iterable

from apim_middleware._http.fields import item, members
from apim_middleware.protocols import Limit, Tally

POLICY, STANDING = b"ratelimit-policy", b"ratelimit"
FIELDS = frozenset((POLICY, STANDING))
TRIO_LIMIT, TRIO_REMAINING, TRIO_RESET = b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"
TRIO = frozenset((TRIO_LIMIT, TRIO_REMAINING, TRIO_RESET))


def policy_value(names: Iterable[str], limits: Iterable[Limit], *, counts_bytes: bool = False) -> bytes:
    """The value of ``RateLimit-Policy``; a window that is no whole number of seconds cannot be said in it.

    The quota unit (``qu``) is said where it is bytes: it is requests when nothing is said.
    """
    told = []
    unit = {"qu": "content-bytes"} if counts_bytes else {}
    for name, limit in zip(names, limits, strict=True):
        window = {"w": int(limit.window)} if told_window(limit).is_integer() else {}
        told.append(item(name, {"q": limit.quota, **unit, **window}))
    return members(told).encode()


def standing_form(names: Iterable[str], limits: Iterable[Limit]) -> bytes:
    """The value of ``RateLimit``, with two numbers to fill in for each limit: ``r``, and ``t`` where there is one."""
    told = []
    for name, limit in zip(names, limits, strict=True):
        time = ";t=%d" if limit.window < math.inf else "%.0a"  # this one takes its number and says nothing
        told.append(f"{item(name).replace('%', '%%')};r=%d{time}")
    return members(told).encode()


def told_window(limit: Limit) -> float:
    """The window as far as it can be told in seconds: months differ, and days in which clocks change do."""
    return math.inf if limit.algorithm == "calendar" else limit.window


def effective_window(tally: Tally, window: float) -> int:
    """Seconds in which no more than ``remaining`` should be used: until all comes back, but no longer than the window.

    When nothing is left, and for who is refused, until the same hit can pass: then it is the ``Retry-After`` too
    (draft, section 6). 0 when that is never.
    """
    allowed, remaining, reset, wait, _ = tally
    if 0.0 < wait < math.inf and not (allowed and remaining):
        return math.ceil(wait)
    seconds = reset if reset < window else window
    return math.ceil(seconds) if seconds < math.inf else 0


def tightness(tally: Tally) -> tuple[bool, float, float]:
    """What to compare limits by, the tightest first: it refused and keeps out for longest, or leaves least for longest.

    Of limits that leave nothing, the one that comes back last decides when there is something again.
    """
    allowed, remaining, _, wait, _ = tally
    return allowed, remaining if allowed else -wait, -wait


def until_whole(tally: Tally) -> int | None:
    """Whole seconds until the same hit can pass or, for who may go on, until all is there again; None when never."""
    waits = 0.0 < tally.retry_after < math.inf and not (tally.allowed and tally.remaining)
    seconds = tally.retry_after if waits else tally.reset
    return math.ceil(seconds) if seconds < math.inf else None
