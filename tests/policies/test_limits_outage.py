"""Limits while their store is away: refused, let in or counted here; asked rarely; told to the store afterwards."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apim_middleware import by, conditions
from apim_middleware._limits import corrections, remote, stand_in
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, NotDone, Spoiled, StoreError
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policy import Stack
from apim_middleware.protocols import Change, Hit, Tally
from apim_middleware.testing import FakeClock, call, connect

from .counting import AWAY, Counting, SlowCounters, Watch, from_address, left, quiet, statuses

pytestmark = pytest.mark.anyio


@pytest.fixture
def slow(clock: FakeClock) -> SlowCounters:
    return SlowCounters(clock)


@pytest.fixture
def env(clock: FakeClock, slow: SlowCounters) -> Env:
    return Env(place="here", clock=clock, counters=slow)


@pytest.fixture
def app() -> Counting:
    return Counting()


def limit(calls: int, **fields: Any) -> RateLimit:
    return RateLimit(**{"calls": calls, "per": 60, "window": "fixed", "when_store_fails": "local", **fields})


# Asked rarely


async def test_a_store_that_is_away_is_left_alone_for_a_while(
    env: Env, slow: SlowCounters, clock: FakeClock, app: Counting
) -> None:
    slow.failure = AWAY
    guarded = Stack(limit(5, when_store_fails="refuse"), env=env)(app)
    assert await statuses(guarded, 100) == [503] * 100
    assert slow.calls == ["hit"]
    clock.advance(0.2)
    assert await statuses(guarded, 100) == [503] * 100
    assert slow.calls == ["hit"] * 2


async def test_all_limits_of_an_environment_know_of_it_at_once(env: Env, slow: SlowCounters, app: Counting) -> None:
    slow.failure = AWAY
    guarded = Stack(limit(5, name="a", when_store_fails="allow"), limit(5, name="b"), env=env)(app)
    assert await statuses(guarded, 2) == [200] * 2
    assert slow.calls == ["hit"]


async def test_the_first_answer_ends_the_outage(env: Env, slow: SlowCounters, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(limit(5, when_store_fails="refuse"), env=env)(app)
    slow.failure = AWAY
    await call(guarded)
    slow.failure = None
    assert (await call(guarded)).status == 503
    clock.advance(1)
    assert await statuses(guarded, 3) == [200] * 3


# Counted here


async def test_what_cannot_be_counted_there_is_counted_here(
    env: Env, slow: SlowCounters, clock: FakeClock, app: Counting
) -> None:
    slow.failure = AWAY
    guarded = Stack(limit(2), env=env)(app)
    answers = [await call(guarded) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert json.loads(answers[2].body)["code"] == "rate-limit-exceeded"
    assert [left(answer) for answer in answers] == [[1], [0], [0]]
    assert await statuses(guarded, 1, **from_address("192.0.2.1")) == [200]
    assert (await connect(guarded)).status == 429


async def test_what_was_counted_here_is_told_to_the_store(
    env: Env, slow: SlowCounters, clock: FakeClock, app: Counting
) -> None:
    guarded = Stack(limit(10), env=env)(app)
    assert left(await call(guarded)) == [9]
    slow.failure = AWAY
    answers = [await call(guarded, **more) for more in ({}, {}, from_address("192.0.2.1"))]
    assert [left(answer) for answer in answers] == [[9], [8], [9]]  # here everybody begins anew
    slow.failure = None
    clock.advance(1)
    await call(guarded, **from_address("192.0.2.2"))
    await quiet()
    assert {change.key: change.units for change in slow.changes} == {"203.0.113.7": 2, "192.0.2.1": 1}
    assert left(await call(guarded)) == [6]


async def test_what_no_longer_counts_is_not_told(env: Env, slow: SlowCounters, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(limit(10), env=env)(app)
    slow.failure = AWAY
    await statuses(guarded, 3)
    slow.failure = None
    clock.advance(60)
    assert left(await call(guarded)) == [9]
    await quiet()
    assert slow.changes == []


async def test_each_outage_begins_at_nothing(env: Env, slow: SlowCounters, clock: FakeClock, app: Counting) -> None:
    guarded = Stack(limit(10), env=env)(app)
    for _ in range(2):
        slow.failure = AWAY
        assert left(await call(guarded)) == [9]
        slow.failure = None
        clock.advance(1)
        await call(guarded)
        await quiet()
    assert [change.units for change in slow.changes] == [1, 1]


async def test_what_was_held_here_is_settled_here(env: Env, slow: SlowCounters, app: Counting) -> None:
    slow.failure = AWAY
    guarded = Stack(limit(10, cost=5, used=lambda exchange: 1), env=env)(app)
    assert [left(await call(guarded)) for _ in range(3)] == [[5], [4], [3]]
    assert slow.changes == []


@pytest.mark.parametrize("increment", ["now", "afterwards"])
async def test_what_was_held_here_is_settled_there_when_the_store_is_back(
    env: Env, slow: SlowCounters, clock: FakeClock, increment: Any
) -> None:
    opened = anyio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await opened.wait()
        await Counting()(scope, receive, send)

    guarded = Stack(limit(10, cost=5, used=lambda exchange: 1, increment=increment), env=env)(waits)
    slow.failure = AWAY
    async with anyio.create_task_group() as group:
        group.start_soon(call, guarded, "GET", "/wait")
        await quiet()
        slow.failure = None
        clock.advance(1)
        await call(guarded)
        await quiet()
        opened.set()
    await quiet()
    units = sum(change.units for change in slow.changes)
    assert units == (5 - 4 - 4 if increment == "now" else 2)
    assert left(await call(guarded))[0] == 10 - 2 - (5 if increment == "now" else 0)


class Slow:
    """An app that answers each request when it is told how."""

    def __init__(self) -> None:
        self.told: dict[str, anyio.Event] = {}
        self.status: dict[str, int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"]
        if name != "/":
            self.told[name] = anyio.Event()
            await self.told[name].wait()
        await send({"type": "http.response.start", "status": self.status.get(name, 500), "headers": []})
        await send({"type": "http.response.body"})

    def tell(self, name: str, status: int) -> None:
        self.status[name] = status
        self.told.pop(name).set()


async def used(slow: SlowCounters) -> int:
    """What the store knows of, once all is settled."""
    await quiet()
    if not slow.asked:
        return 0
    [tally] = await slow.kept.peek(slow.asked[:1])
    return slow.asked[0].limit.quota - tally.remaining


async def test_what_was_counted_here_in_a_window_that_is_over_is_given_back_in_no_other(
    env: Env, slow: SlowCounters, clock: FakeClock
) -> None:
    app = Slow()
    guarded = Stack(limit(10, count_when=conditions.failed), env=env)(app)
    slow.failure = AWAY
    async with anyio.create_task_group() as group:
        group.start_soon(call, guarded, "GET", "/late")
        await quiet()
        slow.failure = None
        clock.advance(1)
        await call(guarded)
        clock.advance(60)
        await statuses(guarded, 3)
        app.tell("/late", 200)
    assert await used(slow) == 3


async def test_what_was_given_back_before_the_store_was_told_is_not_told(
    env: Env, slow: SlowCounters, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many counts are told little by little: who is done meanwhile is not given back twice."""
    monkeypatch.setattr(remote, "_BATCH", 1)
    app = Slow()
    guarded = Stack(limit(10, count_when=conditions.failed), env=env)(app)
    slow.failure = AWAY
    async with anyio.create_task_group() as group:
        for number in range(3):
            asks = partial(call, guarded, "GET", f"/{number}", **from_address(f"192.0.2.{number}"))
            group.start_soon(asks)
        await quiet()
        slow.failure = None
        clock.advance(1)
        await call(guarded)
        for number in range(3):
            app.tell(f"/{number}", 200)
    await quiet()
    sums = Counter[str]()
    for change in slow.changes:
        sums[change.key] += change.units
    assert set(sums.values()) <= {0}


class Halting(SlowCounters):
    """Counts, and says nothing of its counts while it halts."""

    halts = True

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        if self.halts:
            raise StoreError("halts")
        return await super().peek(hits)


@pytest.mark.parametrize(("meanwhile", "counted"), [(0, 4), (60, 1)])
async def test_a_store_that_is_told_late_is_told_what_still_counts_then(
    clock: FakeClock, app: Counting, meanwhile: float, counted: int
) -> None:
    halting = Halting(clock)
    guarded = Stack(limit(10), env=Env(place="here", clock=clock, counters=halting))(app)
    halting.failure = AWAY
    await statuses(guarded, 2)
    halting.failure = None
    clock.advance(1)
    await call(guarded)
    await quiet()
    halting.halts = False
    clock.advance(max(meanwhile, 1))
    await call(guarded)
    await quiet()
    assert await used(halting) == counted


class Stalling(SlowCounters):
    """Takes its time over the first corrections, and does not make them."""

    stalls = True

    async def settle(self, changes: Sequence[Change]) -> None:
        if self.stalls:
            await quiet(100)
            self.stalls = False
            raise NotDone("away again")
        await super().settle(changes)


async def test_who_ends_while_the_store_is_told_in_vain_is_given_back_once(clock: FakeClock) -> None:
    app, stalling = Slow(), Stalling(clock)
    env = Env(place="here", clock=clock, counters=stalling)
    guarded = Stack(limit(10, count_when=conditions.failed), env=env)(app)
    stalling.failure = AWAY
    async with anyio.create_task_group() as group:
        group.start_soon(call, guarded, "GET", "/late")
        await quiet()
        await statuses(guarded, 3)
        stalling.failure = None
        clock.advance(1)
        await call(guarded)
        await quiet()
        app.tell("/late", 200)
    await quiet(200)
    clock.advance(1)
    await call(guarded)
    assert await used(stalling) == 3 + 2


class Noting(SlowCounters):
    """Notes how many hits it has counted."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.counted = 0

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        tallies = await super().hit(hits)
        self.counted += 1
        return tallies


@example(["away", "come", "back", "a minute", "come", "come", "well"])
@example(["away", "come", "back", "come", "away", "well", "come", "back", "a minute", "come"])
@given(st.lists(st.sampled_from(["come", "come", "well", "badly", "away", "back", "a minute"]), max_size=40))
def test_no_end_of_an_outage_makes_the_store_forget_what_it_counted(steps: list[str]) -> None:
    """In no window is more given back than was counted in it, whoever comes, ends well or badly, here or there."""
    clock, app = FakeClock(1_800_000_000), Slow()
    slow = Noting(clock)
    guarded = Stack(limit(100, count_when=conditions.failed), env=Env(place="here", clock=clock, counters=slow))(app)
    under_way: list[str] = []
    counted: set[str] = set()  # by the store, in the window that runs, and not given back

    async def take(step: str, group: anyio.abc.TaskGroup) -> None:
        if step == "come":
            under_way.append(name := f"/{len(under_way)}")
            before = slow.counted
            group.start_soon(call, guarded, "GET", name)
            await quiet()
            counted.update({name} if slow.counted > before else ())
        elif step in ("well", "badly"):
            for name in [each for each in under_way if each in app.told][:1]:
                app.tell(name, 200 if step == "well" else 500)
                counted.difference_update({name} if step == "well" else ())
        elif step == "a minute":
            clock.advance(60)
            counted.clear()
        else:
            slow.failure = AWAY if step == "away" else None
            clock.advance(1 if step == "back" else 0)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for step in steps:
                await take(step, group)
                if slow.failure is None:
                    assert await used(slow) >= len(counted)
            group.cancel_scope.cancel()

    anyio.run(main)


async def test_counting_afterwards_counts_here_too(env: Env, slow: SlowCounters, app: Counting) -> None:
    slow.failure = AWAY
    guarded = Stack(limit(2, increment="afterwards", count_when=conditions.failed), env=env)(app)
    assert await statuses(guarded, 5) == [200] * 5
    app.status = 500
    assert await statuses(guarded, 4) == [500, 500, 429, 429]


async def test_what_is_counted_here_is_bounded(
    env: Env, slow: SlowCounters, clock: FakeClock, app: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "_MOST_LOCAL", 50)
    slow.failure = AWAY
    guarded = Stack(limit(5), env=env)(app)
    for number in range(200):
        assert (await call(guarded, **from_address(f"192.0.2.{number}"))).status == 200
    slow.failure = None
    clock.advance(1)
    await call(guarded)
    await quiet()
    assert 0 < len(slow.changes) <= 50


async def test_as_many_limits_as_there_are_can_be_counted_here(env: Env, slow: SlowCounters, app: Counting) -> None:
    """Found by an audit: of more than 526, all but the latest began anew with each request."""
    slow.failure = AWAY
    stacks = [Stack(limit(1, by=by.everyone), env=env, place=f"operation-{number}")(app) for number in range(600)]
    for status in (200, 429):
        assert {(await call(guarded)).status for guarded in stacks} == {status}


async def test_more_corrections_than_can_wait_are_told_of(
    env: Env, slow: SlowCounters, clock: FakeClock, app: Counting, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(corrections, "_MOST_WAITING", 2)
    opened = anyio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await opened.wait()
        await app(scope, receive, send)

    guarded = Stack(limit(100, count_when=conditions.failed), env=env)(waits)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(call, guarded)
        await quiet()
        slow.failure = AWAY
        opened.set()
    await quiet()
    slow.failure = None
    clock.advance(1)
    await call(guarded)
    await quiet()
    assert "corrections of counts are lost: too many wait for their store" in caplog.text


# Told


@pytest.mark.parametrize(
    ("choice", "doing"),
    [("refuse", "refused"), ("allow", "let in uncounted"), ("local", "counted in this process")],
)
async def test_an_outage_is_told_in_the_log_and_counted_in_a_metric(
    env: Env, slow: SlowCounters, app: Counting, caplog: pytest.LogCaptureFixture, choice: Any, doing: str
) -> None:
    caplog.set_level(logging.INFO)
    watch, events = Watch(), Events()
    env.listen(events)
    env.listen(events)
    slow.failure = AWAY
    guarded = Stack(watch, limit(9, name="burst", when_store_fails=choice), env=env)(app)
    await statuses(guarded, 3)
    assert [record.getMessage() for record in caplog.records] == [
        f"RateLimit(name='burst') cannot count (the counters are away): requests are {doing}"
    ]
    assert (
        events.seen == [("apim.limits.uncounted", {"apim.limits.policy": "burst", "apim.limits.outcome": choice})] * 3
    )
    assert watch.seen == [{"apim.rate_limit.store": "unavailable"}] * 3


class Damaged(SlowCounters):
    """Counters of which one is no counter."""

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        if any(hit.key == "192.0.2.66" for hit in hits):
            raise Spoiled("the store could not do this (WRONGTYPE)")
        return await super().hit(hits)


async def test_one_key_that_cannot_be_counted_is_told_once_and_ends_no_outage(
    clock: FakeClock, app: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    """Found by looking: each of its requests was told as an outage, and the next of anybody else as its end."""
    damaged = Damaged(clock)
    guarded = Stack(limit(99), env=Env(place="here", clock=clock, counters=damaged))(app)
    for _ in range(5):
        assert await statuses(guarded, 1, **from_address("192.0.2.66")) == [200]
        assert left(await call(guarded)) != [99]
    [told] = [record.getMessage() for record in caplog.records]
    assert told.endswith(
        "cannot count under some keys (the store could not do this (WRONGTYPE)): "
        "such requests are counted in this process"
    )
    damaged.failure = AWAY
    await call(guarded)
    assert len(caplog.records) == 2


class Events:
    """Keeps every event that is counted."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []

    def count(self, event: str, attributes: Any) -> None:
        self.seen.append((event, dict(attributes)))


async def test_tracing_makes_a_metric_of_it(env: Env, slow: SlowCounters, app: Counting) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    slow.failure = AWAY
    stacks = [
        Stack(Tracing(meter_provider=meters), limit(9, name="burst"), env=env, place=place)(app) for place in ("a", "b")
    ]
    for guarded in stacks:
        await statuses(guarded, 2)
    data = reader.get_metrics_data()
    assert data is not None
    points = {
        metric.name: [(point.value, dict(point.attributes)) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("apim.")
    }
    outcome = {"apim.limits.policy": "burst", "apim.limits.outcome": "local"}
    assert points == {"apim.limits.uncounted": [(4, outcome)]}
    meters.shutdown()


async def test_without_a_named_place_it_does_not_count_in_a_store_that_others_see(
    clock: FakeClock, slow: SlowCounters
) -> None:
    with pytest.raises(ConfigError, match="place without a name"):
        Stack(RateLimit(calls=1, per=60), env=Env(clock=clock, counters=slow))(Counting())
