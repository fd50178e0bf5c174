"""How many requests may be at work at once, learnt from how long they take. The time is an argument.

What a server does at once without making anybody wait is its rate times its latency (Little's law). More at once only
wait for each other, and take longer. So the latency without waiting, the baseline, is kept in mind; while requests
take about as long the limit grows, and when they take longer it shrinks in proportion. The ideas are those of TCP Vegas
and BBR, of Netflix's concurrency limits and of Envoy's adaptive concurrency.

Requests differ: of twenty, nineteen may take 10 ms and one two seconds. Their mean would tell how many of the slow ones
happened to be among them, and little else. So what is averaged is the logarithm of the time (the geometric mean), to
which each request adds its part.
"""

from math import exp, isqrt, log
from statistics import fmean
from typing import NamedTuple

CRITICAL, DEFAULT, SHEDDABLE = range(3)
"""Levels of requests; each may use a share of the limit, so that the last are the first to be turned away."""

_SHARES = (1.0, 0.8, 0.5)
_HEADROOM = 0.25  # of the limit: what it grows by while nobody waits, so what may wait when it is full
_STEEPEST = 0.5  # what the limit is multiplied by at the least, however long requests take
_SAMPLES = 10  # fewer say nothing of a window
_PROBED, _AT_LEAST = 30, 8  # what a probe waits for, and what it makes do with
_REST = 500.0  # baselines between two probes, at least
_EFFORT, _LATENCIES = 0.05, 20.0  # how long it waits: a part of the time between two, or for requests as slow as now
_SHORTEST = 0.001  # seconds: what takes less is not told apart, as clocks and event loops do not


class Bounds(NamedTuple):
    """Within which a limit is learnt."""

    least: int
    most: int
    first: int
    """What the limit begins with."""

    tolerance: float
    """How many times the baseline requests may take before the limit shrinks."""

    smoothing: float
    """Which part of a change is made with each window, above 0 and up to 1."""

    window: float
    """Seconds over which latencies are averaged, at least."""

    relearn: float
    """Seconds after which the baseline of a busy server is measured anew."""


class Learnt(NamedTuple):
    """What is known: the limit, and the baseline in seconds, 0 while nothing is known of it."""

    limit: float
    baseline: float = 0.0
    eager: bool = True
    """Whether nobody had to wait since the baseline was measured, so that the limit may grow fast."""


class Seen(NamedTuple):
    """One window: seconds a request took on average, how many were at work at once, and whether others wanted to be."""

    latency: float
    peak: int
    full: bool = False


def learn(bounds: Bounds, learnt: Learnt, seen: Seen) -> Learnt:
    """What is known after one more window."""
    baseline = next_baseline(bounds, learnt, seen)
    if not seen.full and seen.peak * 2 < learnt.limit:  # it did not matter what the limit was
        return learnt._replace(baseline=baseline)
    gradient = 1.0 if seen.latency <= 0 else min(bounds.tolerance * baseline / seen.latency, 1.0)
    eager = learnt.eager and gradient == 1.0
    change = learnt.limit * (max(gradient, _STEEPEST) - 1.0) + max(learnt.limit * _HEADROOM, 1.0)
    limit = learnt.limit + change * (1.0 if eager else bounds.smoothing)
    return Learnt(min(max(limit, bounds.least), bounds.most), baseline, eager)


def next_baseline(bounds: Bounds, learnt: Learnt, seen: Seen) -> float:
    """The latency without waiting: it follows windows with few requests at once.

    Others say nothing of it, not even when they took less: windows differ by chance, and it would sink to the least of
    them all.
    """
    if not learnt.baseline:
        return seen.latency
    if seen.peak > max(learnt.limit / 4, bounds.least):
        return learnt.baseline
    return learnt.baseline + (seen.latency - learnt.baseline) * bounds.smoothing


def logarithm(took: float) -> float:
    """What a request adds to an average."""
    return log(took if took > _SHORTEST else _SHORTEST)


class Probe:
    """A look at how long requests take that need not wait: at the first thirty that come in while there are few.

    All of these are waited for, as the slow among them are done last. What comes in before one that had to pass those
    from before the probe is done may have waited for them, and is not looked at.
    """

    def __init__(self, before: int, now: float, ends: float) -> None:
        """Begin with so many at work from before, which may stay for long: they do not count as being there."""
        self.before = before
        self.ends = ends
        self._began = now
        self._open = False
        self._asked = 0
        self._at_work: list[float] = []  # when they came in
        self._logarithms: list[float] = []

    def came(self, now: float) -> None:
        """One more comes in."""
        if self._open and self._asked < _PROBED:
            self._asked += 1
            self._at_work.append(now)

    def left(self, began: float, now: float, *, tells: bool) -> None:
        """One is done, and tells how long it takes, or nothing."""
        if began < self._began:
            self.before -= 1
            return
        self._open = True
        if began in self._at_work:
            self._at_work.remove(began)
            if tells:
                self._logarithms.append(logarithm(now - began))

    def over(self, now: float) -> bool:
        """Whether all are done, or it took too long."""
        return now >= self.ends or (self._asked == _PROBED and not self._at_work)

    def latency(self, now: float) -> float:
        """What was found out, 0 when it is nothing; who is not done by now tells something once it took longer."""
        if not self._logarithms:
            return 0.0
        known = fmean(self._logarithms)
        waits = (logarithm(now - began) for began in self._at_work)
        told = [*self._logarithms, *(each for each in waits if each > known)]
        return exp(fmean(told)) if len(told) >= _AT_LEAST else 0.0


class AdaptiveLimit:
    """Lets requests in, and learns from each that is done; every step takes the same short time.

    While a server is full, nothing shows any more how long requests take that need not wait. So it probes now and then:
    for as long as thirty requests take, no more than the root of the limit are at work, but for critical ones: few
    enough even where the limit is far too high, and enough for a slow one not to keep all others out. A server that
    turned nobody away is never probed.
    """

    __slots__ = (
        "_checked", "_count", "_due", "_ends", "_full", "_peak", "_probe", "_rooms", "_sum", "bounds", "in_flight",
        "learnt",
    )  # fmt: skip

    def __init__(self, bounds: Bounds) -> None:
        """Know nothing yet."""
        self.bounds = bounds
        self.learnt = Learnt(float(bounds.first))
        self.in_flight = 0
        self._probe: Probe | None = None
        self._checked = self.learnt.limit  # what the limit was when the baseline was measured
        self._due = -1.0  # when it is to be measured again; before the first sample nobody knows
        self._begin(-bounds.window)

    @property
    def probing(self) -> bool:
        """Whether few are let in, to see how long they take."""
        return self._probe is not None

    def _begin(self, now: float) -> None:
        self._ends = now + self.bounds.window
        self._count, self._sum, self._peak, self._full = 0, 0.0, self.in_flight, False
        self._make_room()

    def _make_room(self) -> None:
        limit = self.learnt.limit
        rooms = [max(int(limit * share), 1) for share in _SHARES]
        if self._probe is not None:
            few = max(self.bounds.least, isqrt(int(limit))) + self._probe.before
            rooms = [rooms[CRITICAL], *(min(room, few) for room in rooms[1:])]
        self._rooms = rooms

    def admit(self, level: int, now: float) -> bool:
        """Let a request of this level in, unless there is no room for it."""
        if self.in_flight < self._rooms[level]:
            self.in_flight += 1
            if self.in_flight > self._peak:
                self._peak = self.in_flight
            if self._probe is not None:
                self._probe.came(now)
            return True
        if self._probe is not None and now >= self._probe.ends:
            self._end_probe(self._probe, now)
            return self.admit(level, now)
        self._full = True
        return False

    def leave(self, began: float, now: float, *, well: bool) -> None:
        """A request is done that came in at ``began``.

        One that did not go well tells something only when it took longer than the baseline: quick failures are common
        in an overload, and would look like a server with time to spare.
        """
        self.in_flight -= 1
        took = now - began
        tells = well or took > self.learnt.baseline > 0
        if self._probe is not None:
            self._leave_probe(self._probe, began, now, tells=tells)
            return
        if tells:
            self._count += 1
            self._sum += log(took if took > _SHORTEST else _SHORTEST)  # logarithm(), written out
        if now >= self._ends and self._count >= _SAMPLES:
            self._end_window(now)

    def forget(self, began: float, now: float) -> None:
        """A request is done that says nothing of the server."""
        self.in_flight -= 1
        if self._probe is not None:
            self._leave_probe(self._probe, began, now, tells=False)

    def _leave_probe(self, probe: Probe, began: float, now: float, *, tells: bool) -> None:
        probe.left(began, now, tells=tells)
        if probe.over(now):
            self._end_probe(probe, now)
        else:
            self._make_room()  # fewer may be left from before

    def _end_window(self, now: float) -> None:
        if self._due < 0:  # the first: those that were done fastest, by a server that had just begun
            self._due = now + self.bounds.relearn / 10
        else:
            self._learn(Seen(exp(self._sum / self._count), self._peak, self._full), now)
        self._begin(now)

    def _learn(self, seen: Seen, now: float) -> None:
        self.learnt = learn(self.bounds, self.learnt, seen)
        if seen.peak <= self.bounds.least:
            self._measured(now)
        elif seen.full and (now >= self._due or self.learnt.limit < self._checked / 2):
            ends = now + max(self._interval * _EFFORT, seen.latency * _LATENCIES)
            self._probe = Probe(self.in_flight, now, ends)

    def _end_probe(self, probe: Probe, now: float) -> None:
        if latency := probe.latency(now):
            self.learnt = self.learnt._replace(baseline=latency, eager=True)
        self._probe = None
        self._measured(now)
        self._begin(now)

    def _measured(self, now: float) -> None:
        self._checked = self.learnt.limit
        self._due = now + self._interval

    @property
    def _interval(self) -> float:
        return max(self.bounds.relearn, _REST * self.learnt.baseline)
