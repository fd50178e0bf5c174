"""Limits of concurrency over a store that others ask too, and that may be away."""

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from tests.servers import redis_server

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policy import Stack
from apim_middleware.stores.redis import RedisPermits
from apim_middleware.stores.sqlite import SQLitePermits
from apim_middleware.testing import Answer, call
from apim_middleware.types import ASGIApp

from .visiting import SlowPermits, Working, callers, inside, settled

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
    app = Working("nowhere")
    guarded = Stack(LimitConcurrency(at_once=1, queue=queue), env=Env(place="here", permits=store))(app)
    store.failure = StoreError("gone")
    answers = [await call(guarded) for _ in range(3)]
    assert {answer.status for answer in answers} == {503}
    assert json.loads(answers[0].body)["code"] == "limit-store-unavailable"
    store.failure = None
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
    app = Working("within the body")
    guarded: Any = Stack(LimitConcurrency(at_once=2), env=Env(place="here", permits=store))(app)
    async with callers(guarded) as many:
        await many.ask("a")
        store.failure = StoreError("gone")
        app.go_on.set()
    assert await inside(store) == 1
    store.failure, app.go_on = None, anyio.Event()
    async with callers(guarded) as many:
        await many.ask("b")
        assert await inside(store) == 1, "that of the second, no longer that of the first"
        app.go_on.set()
    assert await inside(store) == 0
    assert guarded.seats[0].hooks._lending.owed == set()


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


async def test_without_a_named_place_nobody_is_counted_in_a_store_that_others_see() -> None:
    with pytest.raises(ConfigError, match="place without a name"):
        Stack(LimitConcurrency(at_once=1), env=Env(permits=SlowPermits()))(Working("nowhere"))
