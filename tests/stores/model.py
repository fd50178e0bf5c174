"""A slow and obvious model of counters, and a machine that compares any version of ``Counters`` with it.

The model keeps every use for ever and adds them up anew. A store's test module subclasses ``CountersMachine``, says in
``open`` how its store is made with ``self.clock``, and in ``windows`` if its sliding windows begin elsewhere.
"""

import asyncio
import math
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, TypeVar

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from apim_middleware.protocols import Change, Counters, Hit, Limit, Tally
from apim_middleware.stores.calendars import period_of
from apim_middleware.testing import FakeClock

T = TypeVar("T")

EDGE, GRAIN = 3e-6, 2e-6
"""Nearer than this part of a window and this many seconds, moments cannot be told apart."""


@dataclass
class Use:
    """Units used under a key; ``window`` is the number of the window, where windows are numbered."""

    key: str
    units: int
    time: float
    window: int = 0


class Model:
    """What one limit counted."""

    def __init__(self, limit: Limit, clock: FakeClock) -> None:
        self.limit, self.clock = limit, clock
        self.most = limit.burst or limit.quota if limit.algorithm == "bucket" else limit.quota
        self.uses: list[Use] = []
        self.number = 0

    def turn(self, key: str) -> None:
        """Do what a store does when it is asked for a key, whatever is asked."""

    def used(self, key: str, late: float) -> int:
        """Units that count, if it were so many seconds later."""
        raise NotImplementedError

    def free(self, key: str) -> tuple[int, int]:
        """Units left: at least, and at most, for times are rounded."""
        self.turn(key)
        used = [self.used(key, late) for late in self.edges]
        return self.most - max(used), self.most - min(used)

    @property
    def edges(self) -> tuple[float, float, float]:
        edge = EDGE * self.limit.window + GRAIN if self.limit.window < math.inf else 0.0
        return -edge, 0.0, edge

    def count(self, key: str, units: int) -> Use:
        use = Use(key, units, self.clock.monotonic(), self.number)
        if units:
            self.uses.append(use)
        return use

    def settle(self, use: Use, units: int) -> None:
        self.turn(use.key)
        use.units += units

    def seen(self, key: str) -> Use:
        """A moment at which the store was asked for a key."""
        self.turn(key)
        return Use(key, 0, self.clock.monotonic(), self.number)

    def holds(self, use: Use) -> bool:
        """Whether units could be given back of a moment."""
        return self.sum(use.key, use.window) > 0

    def add(self, use: Use) -> bool:
        """Count units of a moment that is over; whether they are one use of their own."""
        self.uses.append(use)
        self.uses.sort(key=lambda each: each.time)
        return True

    def forget(self, key: str) -> None:
        self.turn(key)
        self.uses = [use for use in self.uses if use.key != key]

    def sum(self, key: str, window: int) -> int:
        return sum(use.units for use in self.uses if (use.key, use.window) == (key, window))


class Fixed(Model):
    """Windows of the clock and periods of the calendar, numbered as they come."""

    def __init__(self, limit: Limit, clock: FakeClock) -> None:
        super().__init__(limit, clock)
        self.end = self.boundary = -math.inf

    def turn(self, key: str) -> None:
        now, wall = self.clock.monotonic(), self.clock.now()
        if now < self.end - 1e-6:
            return
        boundary = self.boundary_after(wall)
        if boundary <= max(self.boundary, wall + 1e-6):  # is upon us, or has been, as the clock went back
            boundary = self.boundary_after(boundary + 1e-5)
        self.number, self.boundary, self.end = self.number + 1, boundary, now + boundary - wall

    def boundary_after(self, wall: float) -> float:
        if self.limit.algorithm == "calendar":
            return period_of(self.limit.calendar, wall)[1]
        if self.limit.window == math.inf:
            return math.inf
        into = (wall - self.limit.start) % self.limit.window
        return wall - into + self.limit.window

    def used(self, key: str, late: float) -> int:
        return self.sum(key, self.number)


class Sliding(Model):
    """Windows that begin when the limit is asked for, and follow each other while it is."""

    def __init__(self, limit: Limit, clock: FakeClock) -> None:
        super().__init__(limit, clock)
        self.end = -math.inf

    def turn(self, key: str) -> None:
        now, length = self.clock.monotonic(), self.limit.window
        if now < self.end - 1e-6:
            return
        if now < self.end + length - 1e-6:
            self.number, self.end = self.number + 1, self.end + length
        else:
            self.number, self.end = self.number + 2, now + length

    def used(self, key: str, late: float) -> int:
        return self.sum(key, self.number) + self.fading(key, self.clock.monotonic() + late - self.limit.window)

    def fading(self, key: str, moment: float) -> int:
        before = [use for use in self.uses if (use.key, use.window) == (key, self.number - 1)]
        if not before or moment >= before[-1].time:
            return 0
        units, first, last = sum(use.units for use in before), before[0].time, before[-1].time
        return units if moment < first else units - 1 - int((units - 1) * (moment - first) / (last - first))

    def add(self, use: Use) -> bool:
        """The first moment of a window stays; what is over goes."""
        window = [each for each in self.uses if (each.key, each.window) == (use.key, use.window)]
        if use.window == self.number - 1:
            fading = {self.fading(use.key, self.clock.monotonic() + late - self.limit.window) for late in self.edges}
            assume(0 not in fading or len(fading) == 1)
            if fading == {0}:
                self.uses, window = [each for each in self.uses if each not in window], []
        use.time = max([use.time, *(each.time for each in window[:1])])
        return super().add(use)

    def settle(self, use: Use, units: int) -> None:
        super().settle(use, units)
        if not self.sum(use.key, use.window):  # nothing is kept of it, not even when it was
            self.uses = [each for each in self.uses if (each.key, each.window) != (use.key, use.window)]


class Log(Model):
    def used(self, key: str, late: float) -> int:
        since = self.clock.monotonic() + late - self.limit.window
        return sum(use.units for use in self.uses if use.key == key and use.time > since)

    def holds(self, use: Use) -> bool:
        """In a crowd moments are not told apart."""
        near = self.limit.window / 1_000
        return any(each.key == use.key and -GRAIN <= each.time - use.time <= near for each in self.uses)


class Bucket(Model):
    """Uses are those after which the bucket was not full; their units are worked off one after the other."""

    @property
    def rate(self) -> Fraction:
        return self.limit.quota / Fraction(self.limit.window)

    def level(self, key: str, now: float) -> Fraction:
        level, since = Fraction(0), Fraction(0)
        for use in self.uses:
            if use.key == key:
                level = max(level - (Fraction(use.time) - since) * self.rate, Fraction(0))
                level, since = max(level + use.units, Fraction(0)), Fraction(use.time)
        return max(level - (Fraction(now) - since) * self.rate, Fraction(0))

    def used(self, key: str, late: float) -> int:
        return math.ceil(self.level(key, self.clock.monotonic() + late))

    def settle(self, use: Use, units: int) -> None:
        reach = self.full if units > 0 else min(self.full, self.limit.window)
        if use.time > self.clock.monotonic() - reach:
            self.count(use.key, units)
        use.units += 0 if use in self.uses else units

    @property
    def full(self) -> float:
        """How long an empty bucket takes to be full."""
        return self.limit.window * self.most / self.limit.quota

    def holds(self, use: Use) -> bool:
        return self.level(use.key, self.clock.monotonic()) > 0

    def add(self, use: Use) -> bool:
        if use.time > self.clock.monotonic() - self.full:
            self.count(use.key, use.units)
        return False


MODELS: dict[str, type[Model]] = {
    "fixed": Fixed,
    "calendar": Fixed,
    "sliding": Sliding,
    "log": Log,
    "bucket": Bucket,
}

KEYS = ["a", "b"]
LIMITS = [
    Limit(5, 10.0, "fixed"),
    Limit(3, 1.0, "fixed", start=0.25),
    Limit(20, 86_400.0, "fixed", start=-3_600.0),
    Limit(1, 0.3, "fixed"),
    Limit(9, math.inf, "fixed"),
    Limit(5, 10.0, "sliding"),
    Limit(3, 1.0, "sliding"),
    Limit(20, 86_400.0, "sliding"),
    Limit(7, 0.7, "sliding"),
    Limit(5, 10.0, "log"),
    Limit(3, 1.0, "log"),
    Limit(20, 86_400.0, "log"),
    Limit(5, 10.0, "bucket"),
    Limit(3, 1.0, "bucket", burst=6),
    Limit(20, 86_400.0, "bucket", burst=2),
    Limit(5, 3_600.0, "calendar", calendar="hour Asia/Kolkata"),
    Limit(5, 86_400.0, "calendar", calendar="day Europe/Berlin"),
    Limit(9, 30 * 86_400.0, "calendar", calendar="month UTC"),
]


def hits_of(limits: list[Limit]) -> st.SearchStrategy[list[Hit]]:
    one = st.builds(Hit, st.sampled_from(KEYS), st.sampled_from(limits), st.integers(0, 6))
    return st.lists(one, min_size=1, max_size=3, unique_by=lambda each: each[:2])


durations = st.one_of(
    st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0, 5.0, 10.0, 20.0, 86_400.0]),
    st.floats(0, 30),
    st.floats(0, 200_000),
)
jumps = st.one_of(st.floats(-100, 100), st.sampled_from([-86_400.0, 86_400.0, -1e9, 1e9]))


class CountersMachine(RuleBasedStateMachine):
    """Does anything in any order, and is told nothing that the model does not say too."""

    clock_jumps: ClassVar[bool] = True
    """Whether the store has a steady clock besides that on the wall, which can be set."""

    models: ClassVar[dict[str, type[Model]]] = MODELS

    async def open(self) -> Counters:
        """The store under test, which goes by ``self.clock``."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close it."""

    @initialize(
        start=st.floats(1e9, 2e9),
        offset=st.floats(-5e8, 1e9),
        limits=st.lists(st.sampled_from(LIMITS), min_size=1, max_size=3, unique=True),
    )
    def begin(self, start: float, offset: float, limits: list[Limit]) -> None:
        """Few limits at a time, so that much happens to each."""
        self.hits = hits_of(limits)
        self.clock = FakeClock(start)
        if self.clock_jumps:
            self.clock.jump(offset)
        self.runner = asyncio.Runner()
        self.counters = self.run(self.open())
        self.model = {limit: self.models[limit.algorithm](limit, self.clock) for limit in limits}
        self.counted: list[tuple[Hit, Tally, Use]] = []
        self.looked: list[tuple[Hit, Tally, Use]] = []

    def teardown(self) -> None:
        if hasattr(self, "counters"):
            self.run(self.close())
            self.runner.close()

    def run(self, awaited: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaited

        return self.runner.run(wait())

    def free(self, hit: Hit) -> tuple[int, int]:
        return self.model[hit.limit].free(hit.key)

    def check(self, hit: Hit, tally: Tally, free: tuple[int, int], used: int) -> None:
        least, most = free
        if least >= hit.cost:
            assert tally.allowed
        if most < hit.cost:
            assert not (tally.allowed and hit.cost)
        assert max(least - used, 0) <= tally.remaining <= max(most - used, 0)
        if hit.cost > self.model[hit.limit].most:
            assert tally.retry_after == math.inf

    def hit_now(self, hits: list[Hit]) -> list[Tally]:
        free = [self.free(hit) for hit in hits]
        told = self.run(self.counters.hit(hits))
        passed = all(each.allowed for each in told)
        for hit, tally, before in zip(hits, told, free, strict=True):
            self.check(hit, tally, before, hit.cost if passed else 0)
            if passed and hit.cost:
                self.counted.append((hit, tally, self.model[hit.limit].count(hit.key, hit.cost)))
        return told

    def forget(self, hit: Hit) -> None:
        self.model[hit.limit].forget(hit.key)
        self.counted = [each for each in self.counted if each[0][:2] != hit[:2]]

    @rule(data=st.data())
    def hit(self, data: st.DataObject) -> None:
        self.hit_now(data.draw(self.hits))

    @rule(data=st.data(), times=st.integers(2, 8))
    def hit_often(self, data: st.DataObject, times: int) -> None:
        hit = data.draw(self.hits)[0]
        for _ in range(times):
            self.hit_now([hit])

    @rule(data=st.data())
    def peek(self, data: st.DataObject) -> None:
        hits = data.draw(self.hits)
        for hit, tally in zip(hits, self.run(self.counters.peek(hits)), strict=True):
            self.check(hit, tally, self.free(hit), 0)
            self.looked.append((hit, tally, self.model[hit.limit].seen(hit.key)))
            if hit.cost:
                assert tally.retry_after == 0 if tally.allowed else tally.retry_after > 0

    @precondition(lambda self: self.looked)
    @rule(data=st.data(), units=st.integers(-6, 12), seconds=st.sampled_from([0.0, 0.0, 0.2, 0.6, 4.0, 9.0, 13.0]))
    def count_what_was_not(self, data: st.DataObject, units: int, seconds: float) -> None:
        """Settle at a moment at which the store was only looked at."""
        hit, tally, seen = data.draw(st.sampled_from(self.looked[-3:]))
        self.clock.advance(seconds)
        model = self.model[hit.limit]
        self.free(hit)
        use = replace(seen, units=units)
        assume(units > 0 or not model.holds(use))
        if units > 0 and model.add(use):
            self.counted.append((hit, tally, use))
        self.run(self.counters.settle([Change(hit.key, hit.limit, units, tally.counted)]))
        [told] = self.run(self.counters.peek([hit]))
        self.check(hit, told, self.free(hit), 0)

    @precondition(lambda self: self.counted)
    @rule(data=st.data(), units=st.integers(-6, 12))
    def settle(self, data: st.DataObject, units: int) -> None:
        position = data.draw(st.integers(0, len(self.counted) - 1))
        hit, tally, use = self.counted[position]
        units = max(units, -use.units)
        self.free(hit)
        self.model[hit.limit].settle(use, units)
        self.run(self.counters.settle([Change(hit.key, hit.limit, units, tally.counted)]))
        if not use.units:
            del self.counted[position]

    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        hits = data.draw(self.hits)
        self.run(self.counters.assign(hits))
        for hit in hits:
            self.forget(hit)
            use = self.model[hit.limit].count(hit.key, hit.cost)
            [tally] = self.run(self.counters.peek([hit]))
            self.check(hit, tally, self.free(hit), 0)
            if use.units:
                self.counted.append((hit, tally, use))

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        hits = data.draw(self.hits)
        self.run(self.counters.reset(hits))
        for hit in hits:
            self.forget(hit)
            [tally] = self.run(self.counters.peek([hit]))
            assert (tally.remaining, tally.reset) == (self.model[hit.limit].most, 0)

    @rule(seconds=durations)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.clock_jumps)
    @rule(seconds=jumps)
    def jump(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @rule(data=st.data(), early=st.booleans())
    def wait_as_told(self, data: st.DataObject, early: bool) -> None:
        hit = data.draw(self.hits)[0]
        self.free(hit)
        [tally] = self.run(self.counters.peek([hit]))
        assume(0 < tally.retry_after < math.inf)
        early = early and tally.retry_after > 0.01
        self.clock.advance(tally.retry_after - 0.005 if early else tally.retry_after)
        [told] = self.hit_now([hit])
        assert told.allowed != early

    @rule(data=st.data(), early=st.booleans())
    def wait_for_all(self, data: st.DataObject, early: bool) -> None:
        hit = data.draw(self.hits)[0]
        self.free(hit)
        [tally] = self.run(self.counters.peek([hit]))
        assume(0 < tally.reset < math.inf)
        early = early and tally.reset > 0.01
        self.clock.advance(tally.reset - 0.005 if early else tally.reset)
        self.free(hit)
        [told] = self.run(self.counters.peek([hit]))
        assert (told.remaining == self.model[hit.limit].most and told.reset == 0) != early
