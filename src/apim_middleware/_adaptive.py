"""How many requests may be at work at once, learnt from how long they take. The time is an argument.

What a server does at once without making anybody wait is its rate times its latency (Little's law). More at once only
wait for each other, and take longer. So the latency without waiting, the baseline, is kept in mind; while requests
take about as long the limit grows, and when they take longer it shrinks in proportion. The ideas are those of TCP Vegas
and BBR, of Netflix's concurrency limits and of Envoy's adaptive concurrency.
"""

from typing import NamedTuple

CRITICAL, DEFAULT, SHEDDABLE = range(3)
"""Levels of requests; each may use a share of the limit, so that the last are the first to be turned away."""

_SHARES = (1.0, 0.8, 0.5)
_HEADROOM = 0.25  # of the limit: what it grows by while nobody waits, so what may wait when it is full
_STEEPEST = 0.5  # what the limit is multiplied by at the least, however long requests take
_SAMPLES = 10  # fewer say nothing of a window
_PROBED, _AT_LEAST = 20, 8  # what a probe waits for, and what it makes do with
_REST = 500.0  # baselines between two probes, at least
_EFFORT, _LATENCIES = 0.05, 8.0  # how long it waits: a part of the time between two, or for requests as slow as now


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
    """One window: seconds a request took on average, and how many were at work at once, or wanted to be."""

    latency: float
    peak: float


def learn(bounds: Bounds, learnt: Learnt, seen: Seen) -> Learnt:
    """What is known after one more window."""
    baseline = next_baseline(bounds, learnt, seen)
    if seen.peak * 2 < learnt.limit:  # it did not matter what the limit was
        return learnt._replace(baseline=baseline)
    gradient = 1.0 if seen.latency <= 0 else min(bounds.tolerance * baseline / seen.latency, 1.0)
    eager = learnt.eager and gradient == 1.0
    change = learnt.limit * (max(gradient, _STEEPEST) - 1.0) + max(learnt.limit * _HEADROOM, 1.0)
    limit = learnt.limit + change * (1.0 if eager else bounds.smoothing)
    return Learnt(min(max(limit, bounds.least), bounds.most), baseline, eager)


def next_baseline(bounds: Bounds, learnt: Learnt, seen: Seen) -> float:
    """The latency without waiting: it follows windows with few requests at once, and others only downwards."""
    few = seen.peak <= max(learnt.limit / 4, bounds.least)
    if not learnt.baseline:
        return seen.latency
    if few or seen.latency < learnt.baseline:
        return learnt.baseline + (seen.latency - learnt.baseline) * bounds.smoothing
    return learnt.baseline


class AdaptiveLimit:
    """Lets requests in, and learns from each that is done; every step takes the same short time.

    While a server is full, nothing shows any more how long requests take that need not wait. So it probes now and then:
    for as long as twenty requests take, no more than the least limit come in, but for critical ones. A server that
    turned nobody away is never probed.
    """

    __slots__ = (
        "_checked", "_count", "_due", "_ends", "_peak", "_rooms", "_since", "_sum", "bounds", "in_flight", "learnt",
        "probing",
    )  # fmt: skip

    def __init__(self, bounds: Bounds) -> None:
        """Know nothing yet."""
        self.bounds = bounds
        self.learnt = Learnt(float(bounds.first))
        self.in_flight = 0
        self.probing = False
        self._checked = self.learnt.limit  # what the limit was when the baseline was measured
        self._due = -1.0  # when it is to be measured again; before the first sample nobody knows
        self._since = 0.0
        self._begin(-bounds.window)

    def _begin(self, now: float) -> None:
        if not self.probing:
            self._ends = now + self.bounds.window
        self._count, self._sum, self._peak = 0, 0.0, float(self.in_flight)
        limit, least = self.learnt.limit, self.bounds.least
        rooms = [max(int(limit * share), 1) for share in _SHARES]
        self._rooms = [rooms[CRITICAL], *(min(room, least) for room in rooms[1:])] if self.probing else rooms

    def admit(self, level: int, now: float) -> bool:
        """Let a request of this level in, unless there is no room for it."""
        if self.in_flight < self._rooms[level]:
            self.in_flight += 1
            if self.in_flight > self._peak:
                self._peak = self.in_flight
            return True
        if self.probing and now >= self._ends:
            self._end_probe(now)
            return self.admit(level, now)
        self._peak = max(self._peak, self.learnt.limit)
        return False

    def leave(self, began: float, now: float, *, well: bool) -> None:
        """A request is done that came in at ``began``.

        One that did not go well tells something only when it took longer than the baseline: quick failures are common
        in an overload, and would look like a server with time to spare.
        """
        self.in_flight -= 1
        took = now - began
        if (well or took > self.learnt.baseline > 0) and not (self.probing and began < self._since):
            self._count += 1
            self._sum += took
        if self.probing:
            if now >= self._ends or self._count >= _PROBED:
                self._end_probe(now)
        elif now >= self._ends and self._count >= _SAMPLES:
            self._end_window(now)

    def forget(self) -> None:
        """A request is done that says nothing of the server."""
        self.in_flight -= 1

    def _end_window(self, now: float) -> None:
        if self._due < 0:  # the first: those that were done fastest, by a server that had just begun
            self._due = now + self.bounds.relearn / 10
        else:
            self._learn(Seen(self._sum / self._count, self._peak), now)
        self._begin(now)

    def _learn(self, seen: Seen, now: float) -> None:
        full, few = seen.peak >= self.learnt.limit, seen.peak <= self.bounds.least
        self.learnt = learn(self.bounds, self.learnt, seen)
        if few:
            self._measured(now)
        elif full and (now >= self._due or self.learnt.limit < self._checked / 2):
            self._probe(now, seen.latency)

    def _probe(self, now: float, latency: float) -> None:
        self.probing, self._since = True, now
        self._ends = now + max(self._interval * _EFFORT, latency * _LATENCIES)

    def _end_probe(self, now: float) -> None:
        if self._count >= _AT_LEAST:
            self.learnt = self.learnt._replace(baseline=self._sum / self._count, eager=True)
        self.probing = False
        self._measured(now)
        self._begin(now)

    def _measured(self, now: float) -> None:
        self._checked = self.learnt.limit
        self._due = now + self._interval

    @property
    def _interval(self) -> float:
        return max(self.bounds.relearn, _REST * self.learnt.baseline)
