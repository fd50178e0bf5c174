"""What the script of counters is told and what it answers: keys as text, everything else as doubles in one string."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import pack, unpack
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from apim_middleware.errors import Spoiled, StoreError
from apim_middleware.protocols import Limit, Tally
from apim_middleware.stores.calendars import period_of

_ALGORITHMS = {"fixed": 0, "sliding": 1, "log": 2, "bucket": 3, "calendar": 4}
_ANSWERS = 5  # numbers the script says of one item of a hit
_MOST = 2**52  # units: what a double counts exactly, with room to add
_REMEMBERED = 4096  # limits

_new = tuple.__new__
"""Makes a named tuple in half the time that its class takes."""


class Operation(IntEnum):
    """What can be done with counters."""

    HIT = 0
    PEEK = 1
    SETTLE = 2
    ASSIGN = 3


_PEEK, _SETTLE = int(Operation.PEEK), int(Operation.SETTLE)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is said of a limit; itself only when it is the same object, which is quicker to see than equal fields."""

    limit: Limit
    name: bytes
    numbers: bytes
    """Nothing for a calendar: they change with the time."""


Item: TypeAlias = tuple[bytes, Known, float, float]
"""The whole name of a key, its limit, units that a double can hold, and when they were counted (of a correction)."""


class Call(NamedTuple):
    """One operation on some counters."""

    operation: Operation
    items: Sequence[Item]


class Wording:
    """Puts calls into the words of the script; what is said of a limit is found once."""

    def __init__(self, now: Callable[[], float]) -> None:
        """``now`` is this machine's idea of the time: the script is told of the periods around it."""
        self._now = now
        self._known: dict[Limit, Known] = {}

    def items(self, space: bytes, uses: Sequence[tuple[str, Limit, int]], counted: float = 0.0) -> list[Item]:
        """Uses of limits ready to be sent. Raises ValueError for a calendar nobody knows."""
        items: list[Item] = []
        for key, limit, units in uses:
            known = self._known.get(limit) or self._learn(limit)
            fit = units if -_MOST < units < _MOST else math.copysign(_MOST, units)
            items.append((space + known.name + key.encode("utf-8", "surrogatepass"), known, fit, counted))
        return items

    def _learn(self, limit: Limit) -> Known:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        told = numbers_of(limit, self._now())
        known = self._known[limit] = Known(limit, name_of(limit), told if limit.algorithm != "calendar" else b"")
        return known

    def packed(self, calls: Sequence[Call]) -> tuple[list[bytes], bytes, bytes]:
        """The keys, the limits and the calls, in the words of the script."""
        keys: list[bytes] = []
        limits: dict[Known, int] = {}
        numbers: list[float] = []
        for operation, items in calls:
            apart = operation == _SETTLE  # corrections are calls of their own: one that cannot be made spoils no other
            if not apart:
                numbers += operation, len(items)
            for key, known, units, counted in items:
                if apart:
                    numbers += operation, 1
                keys.append(key)
                numbers += limits.setdefault(known, len(limits) + 1), units, counted
        told = b"".join([known.numbers or numbers_of(known.limit, self._now()) for known in limits])
        return keys, told, pack(f"<{len(numbers)}d", *numbers)


def name_of(limit: Limit) -> bytes:
    """What all keys of a limit begin with, and those of no other limit; the key itself comes last."""
    span, start = (repr(float(seconds)).removesuffix(".0") for seconds in (limit.window, limit.start))
    more = [str(limit.burst or ""), start if limit.start else "", quote(limit.calendar, "/+")]
    return "|".join([quote(limit.place, "/~#?:"), limit.algorithm, f"{limit.quota}/{span}", *more, ""]).encode()


def numbers_of(limit: Limit, now: float) -> bytes:
    """A limit as the script reads it; moments and spans in whole microseconds."""
    more: list[float] = [0.0] * 4
    if limit.algorithm == "calendar":
        more = periods_around(limit.calendar, now)
    elif limit.algorithm == "bucket":
        more[0] = limit.burst or limit.quota
    else:
        more[0] = microseconds(limit.start)
    return pack("<7d", _ALGORITHMS[limit.algorithm], limit.quota, microseconds(limit.window), *more)


def periods_around(calendar: str, now: float) -> list[float]:
    """When the last period began, this one, the next, and when that ends: the server's clock says which runs."""
    begin, end = period_of(calendar, now)
    before, _ = period_of(calendar, begin - 1.0)
    _, after = period_of(calendar, end)
    return [microseconds(moment) for moment in (before, begin, end, after)]


def microseconds(seconds: float) -> float:
    """Whole ones, or endlessly many."""
    return float(round(seconds * 1e6)) if seconds < math.inf else seconds


def answers(
    reply: Sequence[Any], calls: Sequence[Call], failure: Callable[[bytes | str], StoreError]
) -> list[list[Tally] | StoreError]:
    """What the script says of each call; ``failure`` makes an error of what it says of one that failed."""
    text, *problems = reply
    numbers = unpack(f"<{len(text) // 8}d", text)
    told: list[list[Tally] | StoreError] = []
    at = 0
    for operation, items in calls:
        if operation == _SETTLE:
            failed = [failure(problems.pop(0)) for number in numbers[at : at + len(items)] if number < 0]
            told.append(_some(failed, len(items)) if failed else [])
            at += len(items)
        elif numbers[at] < 0:
            told.append(failure(problems.pop(0)))
            at += 1
        elif operation > _PEEK:
            told.append([])
            at += 1
        else:
            tallies = []
            for _ in items:
                allowed, remaining, reset, wait, counted = numbers[at : at + _ANSWERS]
                # A microsecond longer, so that waiting in floats is enough.
                reset, wait = (reset + 1) / 1e6 if reset else 0.0, (wait + 1) / 1e6 if wait else 0.0
                tallies.append(_new(Tally, (allowed == 1, int(remaining), reset, wait, counted / 1e6)))
                at += _ANSWERS
            told.append(tallies)
    return told


def _some(failed: Sequence[StoreError], asked: int) -> StoreError:
    away = next((each for each in failed if not isinstance(each, Spoiled)), None)
    if asked == 1 or away is not None:
        return away or failed[0]
    return Spoiled(f"{len(failed)} of {asked} corrections cannot be made: {failed[0]}")
