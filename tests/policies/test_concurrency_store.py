"""Limits of concurrency over a store that others ask too, and that may be away."""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.servers import redis_server

from apim_middleware import by
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, NotDone, StoreError
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policy import Stack
from apim_middleware.stores.redis import RedisPermits
from apim_middleware.stores.sqlite import SQLitePermits
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import ASGIApp

from .visiting import SlowPermits, Visitor, Working, callers, inside, settled

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> SlowPermits:
    return SlowPermits()


async def test_what_others_hold_counts_and_their_going_is_noticed(store: SlowPermits) -> None:
    app = Working("nowhere")
    guarded: Any = Stack(LimitConcurrency(at_once=1, queue=5, wait=60), env=Env(place="here", permits=store))(app)
    door = guarded.seats[0].hooks
    key = f"{door.place}:everyone"
    await store.acquire(key, 1, "another process")
    async with callers(guarded) as many:
        await many.ask("a")
        assert app.came == []
        store.kept.release_now(key, "another process")
    assert many.statuses == {"a": 200}


async def test_when_the_first_in_line_leaves_the_next_asks_the_store(store: SlowPermits) -> None:
    app = Working("nowhere")
    guarded: Any = Stack(LimitConcurrency(at_once=1, queue=5, wait=60), env=Env(place="here", permits=store))(app)
    key = f"{guarded.seats[0].hooks.place}:everyone"
    await store.acquire(key, 1, "another process")
    async with callers(guarded) as many:
        async with callers(guarded) as others:
            await others.ask("a")
            await many.ask("b")
            others.tasks.cancel_scope.cancel()
        store.kept.release_now(key, "another process")
    assert (app.came, many.statuses) == (["b"], {"b": 200})


async def test_what_the_store_lends_when_the_time_to_wait_is_just_over_is_used() -> None:
    class Thinking(SlowPermits):
        async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
            self.asked += 1
            if self.asked == 1:
                return False, 1
            await anyio.sleep(0.01)  # longer than anybody waits here
            return self.kept.acquire_now(key, at_once, holder)

    thinking, app = Thinking(), Working("nowhere")
    guarded = Stack(LimitConcurrency(at_once=1, queue=1, wait=0.001), env=Env(place="here", permits=thinking))(app)
    assert (await call(guarded)).status == 200
    assert (thinking.asked, await inside(thinking)) == (2, 0)


async def test_only_the_first_in_line_asks_the_store(store: SlowPermits) -> None:
    app = Working()
    guarded = Stack(LimitConcurrency(at_once=1, queue=50, wait=60), env=Env(place="here", permits=store))(app)
    async with callers(guarded) as many:
        await many.ask("a")
        await many.ask("b")
        before = store.asked
        for number in range(40):
            many.tasks.start_soon(many.ask, f"c{number}")
        await settled()
        assert store.asked - before <= 40, "nobody asks who stands behind another"
        app.go_on.set()
    assert app.most == 1
    assert len(many.statuses) == 42


async def test_one_cancelled_while_the_store_thinks_leaves_no_permit_behind() -> None:
    answers = anyio.Event()
    lent: list[bool] = []

    class Thinking(SlowPermits):
        async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
            self.asked += 1
            await answers.wait()
            lent.append(True)
            return self.kept.acquire_now(key, at_once, holder)

    thinking = Thinking()
    guarded = Stack(LimitConcurrency(at_once=1), env=Env(place="here", permits=thinking))(Working())
    async with callers(guarded) as many:
        await many.ask("a")
        assert thinking.asked == 1
        many.tasks.cancel_scope.cancel()
        answers.set()
    assert lent, "what the store may have done must be known"
    assert await inside(thinking) == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_cancelled_past_every_shield_leaves_no_permit_behind(anyio_backend: str) -> None:
    """As asyncio cancels whatever runs when its event loop ends."""

    class Thinking(SlowPermits):
        async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
            self.kept.acquire_now(key, at_once, holder)
            await anyio.sleep_forever()
            raise AssertionError

    thinking = Thinking()
    guarded = Stack(LimitConcurrency(at_once=1), env=Env(place="here", permits=thinking))(Working())
    task = asyncio.create_task(call(guarded))  # type: ignore[arg-type]
    await settled()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await inside(thinking) == 0


@pytest.mark.parametrize("queue", [0, 5])
async def test_when_the_store_is_down_requests_are_refused(
    store: SlowPermits, queue: int, caplog: pytest.LogCaptureFixture
) -> None:
    app, clock = Working("nowhere"), FakeClock()
    guarded = Stack(LimitConcurrency(at_once=1, queue=queue), env=Env(place="here", permits=store, clock=clock))(app)
    store.failure = StoreError("gone")
    answers = [await call(guarded) for _ in range(3)]
    assert {answer.status for answer in answers} == {503}
    assert json.loads(answers[0].body)["code"] == "limit-store-unavailable"
    store.failure = None
    clock.advance(1)
    assert (await call(guarded)).status == 200
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_when_the_store_is_down_requests_can_be_let_in(store: SlowPermits) -> None:
    app = Working()
    policy = LimitConcurrency(at_once=1, when_store_fails="allow")
    store.failure = StoreError("gone")
    async with callers(Stack(policy, env=Env(place="here", permits=store))(app)) as many:
        for path in "abc":
            await many.ask(path)
        assert app.at_work == 3
        app.go_on.set()
    assert set(many.statuses.values()) == {200}


async def test_when_the_store_is_down_requests_can_be_counted_here(store: SlowPermits) -> None:
    app = Working()
    policy = LimitConcurrency(at_once=1, when_store_fails="local")
    store.failure = StoreError("gone")
    guarded = Stack(policy, env=Env(place="here", permits=store))(app)
    async with callers(guarded) as many:
        await many.ask("a")
        await many.ask("b")
        assert many.statuses == {"b": 429}
        app.go_on.set()
        await settled()
        await many.ask("c")
    assert many.statuses == {"a": 200, "b": 429, "c": 200}


async def test_one_who_waits_when_the_store_goes_down_is_refused(store: SlowPermits) -> None:
    app = Working()
    guarded = Stack(LimitConcurrency(at_once=1, queue=5, wait=60), env=Env(place="here", permits=store))(app)
    async with callers(guarded) as many:
        await many.ask("a")
        await many.ask("b")
        store.failure = StoreError("gone")
        app.go_on.set()
    assert many.statuses == {"a": 200, "b": 503}


async def test_a_permit_that_could_not_be_given_back_is_given_back_when_the_store_is_there_again(
    store: SlowPermits,
) -> None:
    app, clock = Working("within the body"), FakeClock()
    guarded: Any = Stack(LimitConcurrency(at_once=2), env=Env(place="here", permits=store, clock=clock))(app)
    async with callers(guarded) as many:
        await many.ask("a")
        store.failure = StoreError("gone")
        app.go_on.set()
    assert await inside(store) == 1
    store.failure, app.go_on = None, anyio.Event()
    clock.advance(1)
    async with callers(guarded) as many:
        await many.ask("b")
        assert await inside(store) == 1, "that of the second, no longer that of the first"
        app.go_on.set()
    assert await inside(store) == 0
    assert not guarded.seats[0].hooks._lending.owed


async def test_what_is_owed_is_given_back_though_nobody_asks(store: SlowPermits) -> None:
    app = Working("within the body")
    async with callers(Stack(LimitConcurrency(at_once=2), env=Env(place="here", permits=store))(app)) as many:
        await many.ask("a")
        store.failure = StoreError("gone")
        app.go_on.set()
    assert await inside(store) == 1
    store.failure = None
    while await inside(store):
        pass


@pytest.mark.parametrize(("outcome", "status"), [("refuse", 503), ("allow", 200), ("local", 200)])
async def test_only_the_first_request_of_an_outage_asks_the_store_whatever_the_policy(
    store: SlowPermits, outcome: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    env, told = Env(place="here", permits=store, clock=FakeClock()), list[str]()

    class Listening:
        def count(self, event: str, attributes: Mapping[str, str]) -> None:
            told.append(f"{event} {attributes['apim.limits.policy']} {attributes['apim.limits.outcome']}")

    env.listen(Listening())
    one, other = (
        Stack(LimitConcurrency(at_once=1, when_store_fails=outcome, name=name), env=env)(Working("nowhere"))
        for name in ("one", "other")
    )
    store.failure = StoreError("gone")
    assert {(await call(each)).status for each in (one, other) * 20} == {status}
    assert store.asked == 1
    assert told == [f"apim.limits.uncounted one {outcome}", f"apim.limits.uncounted other {outcome}"] * 20
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2, "once for each policy"


async def test_while_one_finds_out_whether_the_store_is_back_nobody_else_waits(store: SlowPermits) -> None:
    clock, answers = FakeClock(), anyio.Event()

    class Thinking(SlowPermits):
        async def _answer(self) -> None:
            if self.asked > 1:
                await answers.wait()
            await super()._answer()

    thinking = Thinking()
    policy = LimitConcurrency(at_once=5, when_store_fails="allow")
    app = Working("nowhere")
    async with callers(Stack(policy, env=Env(place="here", permits=thinking, clock=clock))(app)) as many:
        thinking.failure = NotDone("gone")
        await many.ask("a")
        thinking.failure = None
        clock.advance(1)
        await many.ask("b")
        for path in "cde":
            await many.ask(path)
        assert (many.statuses, thinking.asked) == ({"a": 200, "c": 200, "d": 200, "e": 200}, 2)
        answers.set()
    assert many.statuses["b"] == 200
    assert await inside(thinking) == 0


class Stalling(SlowPermits):
    """A store that does what it is told, but whose answers are lost for a while: as of a server that stood still."""

    stalled = False

    async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        told = await super().acquire(key, at_once, holder)
        if self.stalled:
            raise StoreError("no answer in time")
        return told

    async def release(self, key: str, holder: str) -> None:
        if self.stalled:
            raise StoreError("no answer in time")
        await super().release(key, holder)


@pytest.mark.parametrize("outcome", ["refuse", "allow", "local"])
@pytest.mark.parametrize("queue", [0, 1])
async def test_room_that_is_taken_only_by_requests_whose_answer_was_lost_is_room(outcome: Any, queue: int) -> None:
    """A Redis that stood still lent permits when it went on, to requests that were refused long ago."""
    stalling, clock = Stalling(), FakeClock()
    policy = LimitConcurrency(at_once=1, queue=queue, when_store_fails=outcome)
    guarded = Stack(policy, env=Env(place="here", permits=stalling, clock=clock))(Working("nowhere"))
    stalling.stalled = True
    for _ in range(3):
        assert (await call(guarded)).status == (503 if outcome == "refuse" else 200)
    assert await inside(stalling) == 1
    stalling.stalled = False
    clock.advance(1)
    assert (await call(guarded)).status == 200
    assert await inside(stalling) == 0


async def test_a_request_that_did_not_reach_the_store_owes_it_nothing(store: SlowPermits) -> None:
    guarded: Any = Stack(LimitConcurrency(at_once=1), env=Env(place="here", permits=store))(Working("nowhere"))
    store.failure = NotDone("cannot be reached")
    assert (await call(guarded)).status == 503
    assert not guarded.seats[0].hooks._lending.owed


async def test_one_who_waits_through_an_outage_keeps_the_permit_it_gets_afterwards() -> None:
    """What was owed for its first question is not what it was lent for a later one."""
    stalling, clock, app = Stalling(), FakeClock(), Working()
    policy = LimitConcurrency(at_once=1, queue=5, wait=60, when_store_fails="local")
    guarded: Any = Stack(policy, env=Env(place="here", permits=stalling, clock=clock))(app)
    async with callers(guarded) as many:
        stalling.stalled = True
        await many.ask("a")
        await many.ask("b")
        assert app.came == ["a"]
        stalling.stalled = False
        clock.advance(1)
        while app.came != ["a", "b"]:
            await anyio.lowlevel.checkpoint()
        assert await inside(stalling) == 1
        assert not guarded.seats[0].hooks._lending.owed
        app.go_on.set()
    assert await inside(stalling) == 0


steps = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "finish", "fail", "leave", "cancel", "stall", "go on"]), st.integers(0, 5)
    ),
    max_size=40,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=150)
@given(steps=steps, at_once=st.integers(1, 3), queue=st.integers(0, 3))
def test_at_random_outages_let_no_more_in_and_every_permit_comes_back(
    backend: str, steps: list[tuple[str, int]], at_once: int, queue: int
) -> None:
    stalling, clock = Stalling(), FakeClock()
    policy = LimitConcurrency(at_once=at_once, queue=queue, wait=60, by=by.header("x"))
    guarded: Any = Stack(policy, env=Env(place="here", permits=stalling, clock=clock))(Visitor.serve)

    async def run() -> None:
        visitors: list[Visitor] = []
        async with anyio.create_task_group() as tasks:
            for step, number in steps:
                if step in ("stall", "go on"):
                    stalling.stalled = step == "stall"
                    clock.advance(number)
                elif step == "come":
                    visitors.append(Visitor(f"{number % 2}"))
                    tasks.start_soon(visitors[-1].visit, guarded)
                elif visitors:
                    await visitors[number % len(visitors)].do(step)
                await settled()
                for key in "01":
                    assert sum(each.at_work for each in visitors if each.key == key) <= at_once
            for each in visitors:
                each.scope.cancel()
        stalling.stalled = False
        clock.advance(60)
        lending = guarded.seats[0].hooks._lending
        await lending._bring_back(last=True)
        assert await inside(stalling) == 0
        assert guarded.seats[0].hooks.lines == {}
        for each in visitors:
            each.close()

    anyio.run(run, backend=backend)


async def test_permits_of_many_that_end_together_are_given_back_together() -> None:
    class Counting(SlowPermits):
        at_once = most = 0

        async def release(self, key: str, holder: str) -> None:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await super().release(key, holder)
            self.at_once -= 1

    counting, app = Counting(), Working()
    async with callers(Stack(LimitConcurrency(at_once=20), env=Env(place="here", permits=counting))(app)) as many:
        for number in range(20):
            await many.ask(str(number))
        app.go_on.set()
    assert await inside(counting) == 0
    assert counting.most > 10


async def shared_by_two(first: Any, second: Any) -> None:
    """Two processes with one store: who is at work in one counts in the other, and nobody stays in it."""
    app = Working("within the body")
    stacks = [
        Stack(LimitConcurrency(at_once=2, queue=9, wait=60), env=Env(place="here", permits=permits), place="orders")(
            app
        )
        for permits in (first, second)
    ]
    answers: list[Answer] = []

    async def ask(guarded: ASGIApp) -> None:
        answers.append(await call(guarded))

    async with anyio.create_task_group() as tasks:
        for guarded in stacks * 4:
            tasks.start_soon(ask, guarded)
        while app.at_work < 2:
            await anyio.lowlevel.checkpoint()
        app.go_on.set()
    assert (app.most, [answer.status for answer in answers]) == (2, [200] * 8)
    key = f"{stacks[0].seats[0].hooks.place}:everyone"  # type: ignore[attr-defined]
    while not (await first.acquire(key, 1, "the last"))[0]:
        await anyio.lowlevel.checkpoint()
    assert (await second.acquire(key, 2, "one more")) == (True, 2)
    for holder in ("the last", "one more"):
        await first.release(key, holder)


async def test_processes_that_share_a_file_count_together(tmp_path: Path) -> None:
    await shared_by_two(*(SQLitePermits(tmp_path / "permits.db") for _ in range(2)))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_processes_that_share_a_redis_count_together(tmp_path: Path, anyio_backend: str) -> None:
    with redis_server(tmp_path) as server:
        first, second = RedisPermits(server.url), RedisPermits(server.url)
        await shared_by_two(first, second)
        await first.aclose()
        await second.aclose()


# Real stores that stand still


def lent(admin: redis.Redis) -> int:
    return sum(admin.zcard(key) for key in admin.scan_iter())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("outcome", "status"), [("refuse", 503), ("allow", 200), ("local", 200)])
async def test_a_redis_that_stood_still_keeps_no_room_for_those_who_are_gone(
    tmp_path: Path, anyio_backend: str, outcome: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock, app = FakeClock(), Working("nowhere")
    with redis_server(tmp_path) as server, redis.Redis.from_url(server.url) as admin:
        permits = RedisPermits(server.url, timeout=0.25, lease=3_600.0)
        policy = LimitConcurrency(at_once=1, when_store_fails=outcome)
        guarded: Any = Stack(policy, env=Env(place="here", permits=permits, clock=clock))(app)
        assert (await call(guarded)).status == 200
        while lent(admin):  # until the release was heard
            await anyio.lowlevel.checkpoint()
        await permits.release("other", "nobody")  # and answered, for answers come in order
        server.freeze()
        assert [(await call(guarded)).status for _ in range(20)] == [status] * 20
        server.thaw()
        while not lent(admin):  # to the first of them, long after it was answered
            await anyio.lowlevel.checkpoint()
        clock.advance(1)
        assert (await call(guarded)).status == 200
        while lent(admin):
            await anyio.lowlevel.checkpoint()
        told = [record.levelno for record in caplog.records if "given back" not in record.message]
        assert told == [logging.ERROR, logging.WARNING]
        await permits.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_redis_that_stood_still_gets_back_what_it_lent_though_nobody_asks(
    tmp_path: Path, anyio_backend: str
) -> None:
    app = Working()
    with redis_server(tmp_path) as server, redis.Redis.from_url(server.url) as admin:
        permits = RedisPermits(server.url, timeout=0.25, lease=3_600.0)
        guarded = Stack(LimitConcurrency(at_once=2), env=Env(place="here", permits=permits))(app)
        async with callers(guarded) as many:
            await many.ask("a")
            while not app.at_work:
                await anyio.lowlevel.checkpoint()
            server.freeze()
            assert (await call(guarded)).status == 503
            await permits._renew()  # nor does it answer this
            app.go_on.set()
        server.thaw()
        while lent(admin):
            await anyio.lowlevel.checkpoint()
        assert permits._timer is None
        await permits.aclose()


async def test_only_the_first_request_waits_for_a_file_that_is_locked(tmp_path: Path) -> None:
    class Counting(SQLitePermits):
        asked = 0

        async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
            self.asked += 1
            return await super().acquire(key, at_once, holder)

    clock, permits = FakeClock(), Counting(tmp_path / "permits.db", patience=0.05)
    policy = LimitConcurrency(at_once=1, when_store_fails="allow")
    guarded = Stack(policy, env=Env(place="here", permits=permits, clock=clock))(Working("nowhere"))
    with contextlib.closing(sqlite3.connect(tmp_path / "permits.db", isolation_level=None)) as lock:
        assert (await call(guarded)).status == 200
        while lock.execute("SELECT * FROM permits").fetchall():  # until the release was written
            await anyio.lowlevel.checkpoint()
        lock.execute("BEGIN IMMEDIATE")
        assert [(await call(guarded)).status for _ in range(20)] == [200] * 20
        assert permits.asked == 2
        lock.execute("ROLLBACK")
    clock.advance(1)
    before = permits.asked
    assert (await call(guarded)).status == 200
    assert permits.asked > before
    await permits.aclose()


async def test_without_a_named_place_nobody_is_counted_in_a_store_that_others_see() -> None:
    with pytest.raises(ConfigError, match="place without a name"):
        Stack(LimitConcurrency(at_once=1), env=Env(permits=SlowPermits()))(Working("nowhere"))
