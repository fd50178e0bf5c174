"""The rule by which a limit is learnt: as tables, at random, and with simulated servers of known capacity."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isqrt
from statistics import fmean, geometric_mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._adaptive import CRITICAL, DEFAULT, SHEDDABLE, AdaptiveLimit, Bounds, Learnt, Probe, Seen, learn

BOUNDS = Bounds(least=2, most=1_000, first=20, tolerance=1.5, smoothing=0.2, window=0.5, relearn=30.0)
KNOWN = Learnt(limit=100.0, baseline=0.1, eager=False)


# One window


@pytest.mark.parametrize(
    ("seen", "limit"),
    [
        (Seen(0.10, 100), 105.0),  # nobody waits: a fifth of a quarter more
        (Seen(0.15, 100), 105.0),  # as long as is tolerated
        (Seen(0.20, 100), 100.0),  # a third longer still: here it settles
        (Seen(0.25, 100), 97.0),
        (Seen(0.30, 100), 95.0),
        (Seen(9.99, 100), 95.0),  # however long: never more than this in one window
        (Seen(0.10, 49), 100.0),  # not even half of it was needed: nothing was learnt about it
        (Seen(9.99, 49), 100.0),
        (Seen(0.10, 50), 105.0),
        (Seen(0.10, 49, full=True), 105.0),  # it was needed: others would have come in
        (Seen(0.00, 100), 105.0),
    ],
)
def test_the_limit_follows_how_long_requests_take(seen: Seen, limit: float) -> None:
    assert learn(BOUNDS, KNOWN._replace(baseline=min(0.1, seen.latency)), seen).limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("seen", "baseline"),
    [
        (Seen(0.20, 100), 0.10),  # with many at once it may have waited: says nothing
        (Seen(0.20, 26), 0.10),
        (Seen(0.20, 25), 0.12),  # with few it has not
        (Seen(0.05, 25), 0.09),
        (Seen(0.05, 100), 0.10),  # nor when it took less: that may be chance, and would be the least of all windows
        (Seen(0.20, 25, full=True), 0.12),  # who was not let in made nobody wait
    ],
)
def test_the_baseline_follows_requests_that_did_not_wait(seen: Seen, baseline: float) -> None:
    assert learn(BOUNDS, KNOWN, seen).baseline == pytest.approx(baseline)


def test_what_is_seen_first_is_the_baseline() -> None:
    assert learn(BOUNDS, Learnt(20.0), Seen(0.3, 20)).baseline == 0.3


def test_the_limit_grows_fast_until_somebody_has_to_wait() -> None:
    first = learn(BOUNDS, KNOWN._replace(eager=True), Seen(0.1, 100))
    assert (first.limit, first.eager) == (125.0, True)
    second = learn(BOUNDS, first, Seen(0.2, 125))
    assert (second.limit, second.eager) == (125.0, False)


def test_a_small_limit_grows_by_whole_requests() -> None:
    assert learn(BOUNDS._replace(smoothing=1.0), Learnt(2.0, 0.1, eager=False), Seen(0.1, 2)).limit == 3.0


windows = st.lists(st.builds(Seen, st.floats(0, 1e6), st.integers(0, 5_000)), max_size=200)
all_bounds = st.builds(
    lambda least, first, most, tolerance, smoothing: Bounds(
        least, least + first + most, least + first, tolerance, smoothing, 0.5, 30.0
    ),
    st.integers(1, 100), st.integers(0, 500), st.integers(0, 5_000), st.floats(1, 10), st.floats(0.01, 1),
)  # fmt: skip


@given(all_bounds, windows)
def test_whatever_is_seen_the_limit_stays_within_its_bounds(bounds: Bounds, seen: list[Seen]) -> None:
    learnt = Learnt(float(bounds.first))
    for each in seen:
        learnt = learn(bounds, learnt, each)
        assert bounds.least <= learnt.limit <= bounds.most
        assert learnt.baseline >= 0


@given(windows, st.floats(0.001, 10))
def test_however_bad_it_was_the_limit_grows_again(seen: list[Seen], latency: float) -> None:
    learnt = Learnt(float(BOUNDS.first))
    for each in seen:
        learnt = learn(BOUNDS, learnt, each)
    for _ in range(400):
        learnt = learn(BOUNDS, learnt, Seen(latency, 1))  # a quiet time
    for _ in range(200):
        learnt = learn(BOUNDS, learnt, Seen(latency, int(learnt.limit), full=True))
    assert learnt.limit == BOUNDS.most


# Who is let in


@pytest.mark.parametrize(("level", "room"), [(CRITICAL, 20), (DEFAULT, 16), (SHEDDABLE, 10)])
def test_each_level_has_its_share_of_the_limit(level: int, room: int) -> None:
    limit = AdaptiveLimit(BOUNDS)
    assert [limit.admit(level, 0.0) for _ in range(21)] == [True] * room + [False] * (21 - room)


@pytest.mark.parametrize("level", [CRITICAL, DEFAULT, SHEDDABLE])
def test_one_of_any_level_can_always_be_at_work(level: int) -> None:
    limit = AdaptiveLimit(BOUNDS._replace(least=1, first=1, most=1))
    assert [limit.admit(level, 0.0) for _ in range(2)] == [True, False]


steps = st.lists(st.tuples(st.sampled_from(["admit", "leave", "fail", "forget"]), st.integers(0, 2), st.floats(0, 5)))


@given(all_bounds, steps)
def test_at_random_no_more_are_at_work_than_the_limit_and_every_one_is_counted(
    bounds: Bounds, steps: list[tuple[str, int, float]]
) -> None:
    limit, now, inside = AdaptiveLimit(bounds), 0.0, deque[float]()
    for step, level, seconds in steps * 3:
        now += seconds
        if step == "admit":
            before = limit.learnt.limit
            if limit.admit(level, now):
                inside.append(now)
                assert len(inside) <= max(before, limit.learnt.limit)
        elif inside and step == "forget":
            limit.forget(inside.popleft(), now)
        elif inside:
            limit.leave(inside.popleft(), now, well=step == "leave")
        assert limit.in_flight == len(inside)
        assert bounds.least <= limit.learnt.limit <= bounds.most
    while inside:
        limit.forget(inside.popleft(), now)
    assert limit.admit(SHEDDABLE, now + 1e9)


# Samples


def busy(
    limit: AdaptiveLimit, latency: float, *, seconds: float, start: float, well: bool = True, staying: int = 0
) -> float:
    """An app that is full all the time, however many it lets in; some that were in before stay."""
    now, ends = start, start + seconds
    while now < ends:
        began = now
        while limit.admit(DEFAULT, now):
            pass
        now += latency
        for _ in range(limit.in_flight - staying):
            limit.leave(began, now, well=well)
    return now


def test_quick_failures_say_nothing() -> None:
    limit = AdaptiveLimit(BOUNDS)
    now = busy(limit, 0.1, seconds=2, start=0)
    now = busy(limit, 0.01, seconds=1, start=now, well=False)
    before = limit.learnt
    busy(limit, 0.01, seconds=10, start=now, well=False)
    assert limit.learnt == before


def test_slow_failures_say_as_much_as_slow_answers() -> None:
    limit = AdaptiveLimit(BOUNDS._replace(relearn=1e6))
    now = busy(limit, 0.1, seconds=2, start=0)
    before = limit.learnt
    busy(limit, 1.0, seconds=20, start=now, well=False)
    assert limit.learnt.limit < before.limit


def test_one_that_hangs_for_ever_takes_one_place_and_no_more() -> None:
    limit = AdaptiveLimit(BOUNDS._replace(first=10, most=10))
    for _ in range(3):
        assert limit.admit(DEFAULT, 0.0)
    for second in range(1, 1_000):
        assert limit.admit(DEFAULT, float(second))
        limit.leave(float(second), second + 0.1, well=True)
    assert limit.in_flight == 3


def test_a_probe_in_which_nothing_is_done_comes_to_an_end() -> None:
    limit = AdaptiveLimit(BOUNDS)
    now = 0.0
    while not limit.probing:
        now = busy(limit, 0.05, seconds=0.1, start=now)
        assert now < 60
    while limit.admit(DEFAULT, now):
        pass
    assert limit.in_flight == isqrt(int(limit.learnt.limit))
    assert limit.admit(CRITICAL, now), "critical ones come in meanwhile"
    assert limit.admit(DEFAULT, now + BOUNDS.relearn)
    assert not limit.probing


def test_after_a_probe_the_limit_may_grow_fast_again() -> None:
    limit, now = AdaptiveLimit(BOUNDS), 0.0
    for latency in (0.05, 0.2):
        now = busy(limit, latency, seconds=2, start=now)
    assert not limit.learnt.eager
    while not limit.probing:
        now = busy(limit, 0.2, seconds=0.1, start=now)
    while limit.probing:
        now = busy(limit, 0.2, seconds=0.1, start=now)
    assert limit.learnt.eager
    assert limit.learnt.baseline == pytest.approx(0.2)


def test_the_first_that_are_done_say_nothing_for_they_are_the_fastest() -> None:
    limit = AdaptiveLimit(BOUNDS)
    for _ in range(16):
        assert limit.admit(DEFAULT, 0.0)
    for _ in range(10):
        limit.leave(0.0, 0.001, well=True)
    assert limit.learnt == Learnt(20.0)


# Probes


def probe(waits: list[float], *, hang: int = 0) -> Probe:
    """One in which requests that take so long came in one after the other, and some at 100 that are not done."""
    looked, now = Probe(0, 0.0, 1e9), 0.0
    for took in (9.9, *waits):  # the first had to pass those from before
        looked.came(began := now)
        now += took
        looked.left(began, now, tells=True)
    for _ in range(hang):
        looked.came(100.0)
    return looked


def test_what_a_probe_finds_out_is_the_geometric_mean() -> None:
    waits = [0.01, 1.0] * 10
    assert probe(waits).latency(1e9) == pytest.approx(geometric_mean(waits))


def test_a_probe_with_few_requests_finds_out_nothing() -> None:
    assert probe([0.1] * 7).latency(1e9) == 0
    assert probe([]).latency(1e9) == 0


def test_the_slow_requests_of_a_probe_are_waited_for_although_they_are_done_last() -> None:
    """From an audit: a probe was over when twenty were done, and so looked at the quick ones only."""
    looked = probe([0.01] * 29, hang=1)
    assert not looked.over(160.0)
    looked.left(100.0, 160.0, tells=True)
    assert looked.over(160.0)


def test_those_that_a_probe_waits_for_in_vain_have_taken_as_long_as_they_have() -> None:
    looked = probe([1.0] * 8, hang=8)
    assert looked.latency(100.1) == pytest.approx(1.0), "a short wait says nothing yet"
    assert looked.latency(104.0) == pytest.approx(2.0)


def test_what_had_to_pass_those_from_before_a_probe_is_not_looked_at() -> None:
    looked = Probe(3, 10.0, 1e9)
    for _ in range(5):
        looked.came(10.5)
    looked.left(9.0, 11.0, tells=True)
    assert looked.before == 2
    for _ in range(5):
        looked.left(10.5, 12.0, tells=True)
    for _ in range(8):
        looked.came(12.0)
    for _ in range(8):
        looked.left(12.0, 12.1, tells=True)
    assert looked.latency(1e9) == pytest.approx(0.1)


def test_those_that_are_at_work_for_long_keep_nobody_out_of_a_probe() -> None:
    """They took all places of it: nobody came in, nothing was found out, and the limit stayed as low as it was."""
    limit, now = AdaptiveLimit(BOUNDS), 0.0
    for _ in range(4):
        assert limit.admit(DEFAULT, 0.0)
    while not limit.probing:
        now = busy(limit, 0.05, seconds=0.01, start=now, staying=4)
    now = busy(limit, 0.2, seconds=10.0, start=now, staying=4)
    assert limit.learnt.baseline == pytest.approx(0.2)


# Simulated servers


@dataclass
class Server:
    """So many workers, one request each, and a queue before them; requests come at random."""

    limit: AdaptiveLimit
    workers: Callable[[float], int]
    rate: Callable[[float], float]
    service: Callable[[random.Random, float], float]
    levels: Callable[[random.Random], int] = lambda rng: DEFAULT
    came: list[tuple[float, int, bool]] = field(default_factory=list)
    """When, of which level, and whether it was let in."""
    done: list[tuple[float, float, bool]] = field(default_factory=list)
    """When, how long it took, and whether that was during a probe."""

    def run(self, seconds: float, seed: int) -> None:
        rng, now, order, at_work = random.Random(seed), 0.0, 0, 0
        queue = deque[float]()
        events: list[tuple[float, int, float | None]] = [(0.0, 0, None)]
        while events and now < seconds:
            now, _, began = heapq.heappop(events)
            if began is None:
                level, order = self.levels(rng), order + 1
                heapq.heappush(events, (now + rng.expovariate(self.rate(now)), order, None))
                let_in = self.limit.admit(level, now)
                self.came.append((now, level, let_in))
                queue.extend([now] if let_in else [])
            else:
                at_work -= 1
                self.done.append((now, now - began, self.limit.probing))
                self.limit.leave(began, now, well=True)
            while queue and at_work < self.workers(now):
                at_work, order = at_work + 1, order + 1
                heapq.heappush(events, (now + self.service(rng, now), order, queue.popleft()))

    def throughput(self, begin: float, end: float) -> float:
        return sum(begin <= now < end for now, _, _ in self.done) / (end - begin)

    def latency(self, begin: float, end: float) -> float:
        return fmean(took for now, took, _ in self.done if begin <= now < end)

    def shed(self, begin: float, end: float, level: int = DEFAULT) -> float:
        outcomes = [let_in for now, each, let_in in self.came if begin <= now < end and each == level]
        return outcomes.count(False) / len(outcomes)


SERVICE = 0.05


def steady(rng: random.Random, now: float) -> float:
    return SERVICE


def uneven(rng: random.Random, now: float) -> float:
    return rng.expovariate(1 / SERVICE)


def server(workers: int, load: float, service: Callable[[random.Random, float], float]) -> Server:
    return Server(AdaptiveLimit(BOUNDS), lambda now: workers, lambda now: load * workers / SERVICE, service)


@pytest.mark.parametrize("service", [steady, uneven])
@pytest.mark.parametrize("workers", [4, 10, 50])
@pytest.mark.parametrize("load", [2.0, 10.0])
def test_in_an_overload_nearly_all_of_the_capacity_is_used_and_nobody_waits_long(
    workers: int, load: float, service: Callable[[random.Random, float], float]
) -> None:
    simulated = server(workers, load, service)
    simulated.run(40, seed=7)
    assert simulated.throughput(10, 40) > 0.9 * workers / SERVICE
    assert simulated.latency(10, 40) < 3 * SERVICE


def test_without_the_limit_the_same_server_would_make_all_wait() -> None:
    simulated = server(10, 2.0, steady)
    simulated.limit = AdaptiveLimit(BOUNDS._replace(least=100_000, first=100_000, most=100_000))
    simulated.run(10, seed=7)
    assert simulated.latency(8, 10) > 50 * SERVICE


@pytest.mark.parametrize("service", [steady, uneven])
def test_a_server_with_room_to_spare_turns_nobody_away_and_is_never_probed(
    service: Callable[[random.Random, float], float],
) -> None:
    simulated = server(50, 0.5, service)
    simulated.run(100, seed=7)
    assert simulated.shed(20, 100) == 0
    assert not any(probed for now, _, probed in simulated.done if now > 10)


def test_critical_requests_pass_while_sheddable_ones_are_turned_away() -> None:
    simulated = server(10, 3.0, steady)
    simulated.levels = lambda rng: rng.choices((CRITICAL, DEFAULT, SHEDDABLE), (1, 4, 5))[
        0
    ]  # 0.3, 1.2, 1.5 of capacity
    simulated.run(60, seed=7)
    critical, default, sheddable = (simulated.shed(10, 60, level) for level in (CRITICAL, DEFAULT, SHEDDABLE))
    assert critical < 0.02
    assert critical < default < sheddable
    assert sheddable > 0.9


def test_when_capacity_is_lost_the_limit_shrinks_and_when_it_is_back_the_limit_grows() -> None:
    simulated = server(0, 0.0, uneven)
    simulated.workers = lambda now: 10 if 30 <= now < 70 else 100
    simulated.rate = lambda now: 3_000.0
    simulated.run(120, seed=7)
    assert simulated.throughput(20, 30) > 0.9 * 100 / SERVICE
    assert simulated.latency(55, 70) < 4 * SERVICE
    assert simulated.throughput(55, 70) > 0.9 * 10 / SERVICE
    assert simulated.throughput(100, 120) > 0.9 * 100 / SERVICE


@pytest.mark.parametrize("relearn", [30.0, 100_000.0])
def test_a_server_whose_every_request_becomes_slower_is_given_more_at_once_again(relearn: float) -> None:
    """Before the limit is halved it is measured anew, be it time for that or not."""
    simulated = server(1_000_000, 0.0, lambda rng, now: rng.expovariate(1 / (SERVICE if now < 30 else 5 * SERVICE)))
    simulated.limit = AdaptiveLimit(BOUNDS._replace(relearn=relearn))
    simulated.rate = lambda now: 300.0
    simulated.run(150, seed=7)
    assert simulated.shed(20, 30) < 0.02
    assert simulated.shed(100, 150) < 0.1


def mixed(share: float, quick: float, slow: float) -> Callable[[random.Random, float], float]:
    return lambda rng, now: slow if rng.random() < share else quick


def growing(rng: random.Random, now: float) -> float:
    """A slow endpoint, of which two of a hundred ask at first, and half of them after 100 seconds."""
    return 1.0 if rng.random() < 0.02 + 0.48 * min(now / 100, 1.0) else 0.01


MIXES: list[tuple[float, Callable[[random.Random, float], float]]] = [
    (200, mixed(0.05, 0.01, 2.0)),
    (100, mixed(0.2, 0.01, 2.0)),
    (500, mixed(0.01, 0.001, 1.0)),
    (100, mixed(0.5, 0.005, 0.5)),
    (300, lambda rng, now: 0.01 * rng.lognormvariate(0, 2.5)),
    (200, lambda rng, now: min(0.005 * rng.paretovariate(0.7), 60.0)),
    (100, growing),
]


@pytest.mark.parametrize(("rate", "service"), MIXES)
def test_requests_that_differ_are_no_overload(rate: float, service: Callable[[random.Random, float], float]) -> None:
    """From an audit: up to 97 of 100 were turned away by an app that could have done any number at once, for good.

    The mean told how many slow ones were in a window, a probe saw none of them, and the baseline sank to the least
    window of all.
    """
    simulated = server(1_000_000, 0.0, service)
    simulated.rate = lambda now: rate
    simulated.run(240, seed=7)
    assert simulated.shed(180, 240) < 0.01


@pytest.mark.parametrize("service", [mixed(0.05, 0.01, 2.0), mixed(0.01, 0.015, 0.5), mixed(0.5, 0.005, 0.5)])
@pytest.mark.parametrize("workers", [10, 50])
def test_an_overload_by_requests_that_differ_uses_most_of_the_capacity_and_nobody_waits_long(
    workers: int, service: Callable[[random.Random, float], float]
) -> None:
    rng = random.Random(7)
    mean = fmean(service(rng, 0.0) for _ in range(100_000))
    simulated = server(workers, 0.0, service)
    simulated.rate = lambda now: 2 * workers / mean
    simulated.run(60, seed=7)
    assert simulated.throughput(10, 60) > 0.85 * workers / mean
    assert simulated.latency(10, 60) < 3 * mean


@pytest.mark.parametrize("limit", [2.0, 4.0, 20.0])
def test_a_limit_that_sank_for_no_reason_comes_back(limit: float) -> None:
    """However wrong the baseline is: where few are at work nobody waits, so what they take is what it should be."""
    simulated = server(1_000_000, 0.0, uneven)
    simulated.limit.learnt = Learnt(limit, SERVICE / 20, eager=False)
    simulated.rate = lambda now: 300.0
    simulated.run(120, seed=7)
    assert simulated.shed(90, 120) < 0.01


def test_a_time_of_cheap_requests_only_does_not_spoil_what_is_known_for_long() -> None:
    simulated = server(100, 0.0, lambda rng, now: 0.001 if now < 30 else rng.expovariate(1 / SERVICE))
    simulated.rate = lambda now: 600.0
    simulated.run(120, seed=7)
    assert simulated.shed(90, 120) < 0.05
