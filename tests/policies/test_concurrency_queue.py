"""Limits of concurrency with a queue: the order, the end of waiting, and clients that leave meanwhile."""

import json
from dataclasses import replace
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from apim_middleware import by
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.testing import call, http_scope, websocket_scope
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

from .visiting import Client, SlowPermits, Visitor, Working, callers, failing, inside, settled

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "store"])
def permits(request: pytest.FixtureRequest) -> MemoryPermits | SlowPermits:
    """Permits that need no awaiting, and permits that do: nobody can tell which."""
    return MemoryPermits() if request.param == "memory" else SlowPermits()


@pytest.fixture
def env(permits: MemoryPermits | SlowPermits) -> Env:
    return Env(place="here", permits=permits)


@pytest.fixture
def client() -> Any:
    made = Client()
    yield made
    made.close()


# Waiting


async def test_who_must_wait_comes_in_in_the_order_they_came(env: Env) -> None:
    app = Working()
    async with callers(Stack(LimitConcurrency(at_once=1, queue=20, wait=60), env=env)(app)) as many:
        for path in "abcdefgh":
            await many.ask(path)
        assert (app.came, many.statuses) == (["a"], {})
        app.go_on.set()
    assert app.came == list("abcdefgh")
    assert app.most == 1
    assert set(many.statuses.values()) == {200}


async def test_those_from_before_a_reload_and_after_it_stand_in_one_line(env: Env) -> None:
    """Found by an audit: who came after it was not called when those from before it were done, and waited in vain."""
    app = Working()
    policy = LimitConcurrency(at_once=1, queue=5, wait=60)
    async with callers(Stack(policy, env=env, place="orders")(app)) as many:
        before = many.app
        await many.ask("a")
        many.app = Stack(replace(policy, queue=6), env=env, place="orders")(app)
        await many.ask("b")
        many.app = before
        await many.ask("c")
        app.go_on.set()
    assert app.came == ["a", "b", "c"]
    assert set(many.statuses.values()) == {200}


async def test_who_may_come_in_by_a_limit_that_was_raised_need_not_wait_for_those_from_before_it(env: Env) -> None:
    app = Working()
    policy = LimitConcurrency(at_once=1, queue=5, wait=60)
    async with callers(Stack(policy, env=env, place="orders")(app)) as many:
        for path in "ab":
            await many.ask(path)
        many.app = Stack(replace(policy, at_once=2, queue=0), env=env, place="orders")(app)
        for path in "cd":
            await many.ask(path)
        assert (app.came, many.statuses) == (["a", "c"], {"d": 429})
        app.go_on.set()
    assert many.statuses == {"a": 200, "b": 200, "c": 200, "d": 429}


async def test_a_limit_that_was_lowered_is_not_passed_by_those_who_wait(env: Env) -> None:
    app = Working()
    policy = LimitConcurrency(at_once=2, queue=5, wait=60)
    async with callers(Stack(policy, env=env, place="orders")(app)) as many:
        lowered = Stack(replace(policy, at_once=1), env=env, place="orders")(app)
        for path in "ab":
            await many.ask(path)
        many.app = lowered
        for path in "cd":
            await many.ask(path)
        first, app.go_on = app.go_on, anyio.Event()
        app.most, app.answering = 0, 0
        first.set()
        await settled()
        assert app.came == ["a", "b", "c"]
        app.go_on.set()
    assert set(many.statuses.values()) == {200}


async def test_nobody_overtakes_those_who_wait(env: Env, permits: MemoryPermits) -> None:
    class Slowly(Working):
        async def wait(self, where: str) -> None:
            await anyio.lowlevel.checkpoint()

    app = Slowly()
    guarded = Stack(LimitConcurrency(at_once=1, queue=100, wait=60), env=env)(app)
    async with callers(guarded) as many:
        for number in range(60):
            many.tasks.start_soon(many.ask, f"{number:02}")
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
    assert (app.came, app.most) == (sorted(app.came), 1)
    assert len(many.answers) == 60
    assert await inside(permits) == 0


async def test_when_the_queue_is_full_the_next_is_refused_at_once(env: Env) -> None:
    app = Working()
    async with callers(Stack(LimitConcurrency(at_once=1, queue=2, wait=60), env=env)(app)) as many:
        for path in "abcd":
            await many.ask(path)
        assert many.statuses == {"d": 429}
        app.go_on.set()
    assert app.came == ["a", "b", "c"]


async def test_who_waited_long_enough_is_refused(env: Env, permits: MemoryPermits) -> None:
    app = Working()
    async with callers(Stack(LimitConcurrency(at_once=1, queue=5, wait=0.001), env=env)(app)) as many:
        await many.ask("a")
        answer = await call(many.app, path="/b")
        assert (answer.status, json.loads(answer.body)["code"]) == (429, "too-many-at-once")
        assert answer.header(b"retry-after") == b"1"
        app.go_on.set()
    assert await inside(permits) == 0


async def test_who_waited_and_was_refused_is_known_to_policies_further_out(env: Env) -> None:
    seen: list[tuple[Any, ...]] = []

    class Watching(Policy):
        def on_end(self, exchange: Exchange) -> None:
            assert exchange.refusal is not None
            seen.append((exchange.refusal.code, exchange.attributes))

    app = Working()
    guarded = Stack(LimitConcurrency(at_once=1, queue=5, wait=0.001, name="reports"), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("a")
        await call(Stack(Watching())(guarded))
        app.go_on.set()
    assert seen == [("too-many-at-once", {"apim.concurrency.policy": "reports"})]


async def test_nothing_is_kept_for_those_who_do_not_wait_any_more(env: Env) -> None:
    app = Working()
    guarded: Any = Stack(LimitConcurrency(at_once=1, queue=5, wait=60, by=by.header("x")), env=env)(app)
    door = guarded.seats[0].hooks
    async with callers(guarded) as many:
        for number in range(12):
            await many.ask(str(number), headers=[(b"x", b"%d" % (number % 4))])
        assert len(door.lines) == 4
        app.go_on.set()
    assert door.lines == {}


# Leaving while waiting


def part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(body)(scope, receive, send)


def first_works_then_echoes(working: Working) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (working if scope["path"] == "/first" else echo)(scope, receive, send)

    return app


@pytest.mark.parametrize("said", [[], [part(b"hel", more=True)], [part(b"hello", more=False)]])
async def test_a_client_that_leaves_gives_its_place_up_at_once(
    env: Env, permits: MemoryPermits, client: Client, said: list[Message]
) -> None:
    app = Working()
    guarded: Any = Stack(LimitConcurrency(at_once=1, queue=1, wait=60), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("first")
        many.tasks.start_soon(guarded, http_scope(path="/second"), client.receive, client.send)
        for message in said:
            await client.say.send(message)
        await settled()
        await many.ask("third")
        assert many.statuses == {"third": 429}
        await client.say.send({"type": "http.disconnect"})
        await settled()
        assert client.answer.messages == []
        await many.ask("fourth")
        app.go_on.set()
    assert app.came == ["first", "fourth"]
    assert await inside(permits) == 0


async def test_a_websocket_client_that_leaves_gives_its_place_up_at_once(env: Env, client: Client) -> None:
    app = Working()
    guarded: Any = Stack(LimitConcurrency(at_once=1, queue=1, wait=60), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("first")
        many.tasks.start_soon(guarded, websocket_scope("/second"), client.receive, client.send)
        await client.say.send({"type": "websocket.connect"})
        await client.say.send({"type": "websocket.disconnect", "code": 1001})
        await settled()
        await many.ask("third")
        app.go_on.set()
    assert (app.came, client.answer.messages) == (["first", "third"], [])


async def test_a_websocket_that_waited_long_enough_is_refused(env: Env, client: Client) -> None:
    app = Working()
    guarded = Stack(LimitConcurrency(at_once=1, queue=5, wait=0.001), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("a")
        await client.say.send({"type": "websocket.connect"})
        await guarded(websocket_scope("/b"), client.receive, client.send)
        assert (client.answer.status, json.loads(client.answer.body)["code"]) == (429, "too-many-at-once")
        app.go_on.set()


@pytest.mark.parametrize("before", range(5))
async def test_no_byte_of_a_body_is_lost_by_waiting(env: Env, client: Client, before: int) -> None:
    """However much of it came while the request waited, and though a read was under way when it came in."""
    working = Working()
    guarded = Stack(LimitConcurrency(at_once=1, queue=1, wait=60), env=env)(first_works_then_echoes(working))
    parts = [part(b"a", more=True), part(b"b", more=True), part(b"", more=True), part(b"c", more=False)]
    async with callers(guarded) as many:
        await many.ask("first")
        many.tasks.start_soon(guarded, http_scope("POST", "/second"), client.receive, client.send)
        for message in parts[:before]:
            await client.say.send(message)
            await settled()
        working.go_on.set()
        await settled()
        for message in parts[before:]:
            await client.say.send(message)
    assert client.answer.body == b"abc"


async def test_an_app_is_told_of_a_client_that_leaves_after_it_waited(env: Env, client: Client) -> None:
    working, told = Working(), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/first":
            await working(scope, receive, send)
            return
        told.extend([(await receive())["type"] for _ in range(2)])

    guarded = Stack(LimitConcurrency(at_once=1, queue=1, wait=60), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("first")
        many.tasks.start_soon(guarded, http_scope(path="/second"), client.receive, client.send)
        await client.say.send(part(b"", more=False))
        working.go_on.set()
        await settled()
        await client.say.send({"type": "http.disconnect"})
    assert told == ["http.request", "http.disconnect"]


async def test_once_a_request_came_in_no_more_is_read_than_its_app_asks_for(env: Env, client: Client) -> None:
    first, second = Working(), Working()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (first if scope["path"] == "/first" else second)(scope, receive, send)

    guarded = Stack(LimitConcurrency(at_once=1, queue=1, wait=60), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("first")
        many.tasks.start_soon(guarded, http_scope("POST", "/second"), client.receive, client.send)
        await settled()
        first.go_on.set()
        await settled()
        assert (second.at_work, client.reading) == (1, 1)
        await client.say.send(part(b"a", more=True))
        await settled()
        assert client.reading == 0
        second.go_on.set()


async def test_a_large_body_is_not_read_before_its_request_comes_in(env: Env, client: Client) -> None:
    working = Working()
    guarded = Stack(LimitConcurrency(at_once=1, queue=1, wait=60), env=env)(first_works_then_echoes(working))
    async with callers(guarded) as many:
        await many.ask("first")
        many.tasks.start_soon(guarded, http_scope("POST", "/second"), client.receive, client.send)
        await client.say.send(part(b"x" * 65_536, more=True))
        await settled()
        assert client.reading == 0
        working.go_on.set()
        await client.say.send(part(b"y", more=False))
    assert client.answer.body == b"x" * 65_536 + b"y"


async def test_a_client_that_waits_to_be_told_to_go_on_is_not_told_so_while_it_waits(env: Env, client: Client) -> None:
    """A server sends ``100 Continue`` with the first read."""
    working = Working()
    guarded = Stack(LimitConcurrency(at_once=1, queue=1, wait=60), env=env)(first_works_then_echoes(working))
    async with callers(guarded) as many:
        await many.ask("first")
        scope = http_scope("POST", "/second", headers=[(b"expect", b"100-continue")])
        many.tasks.start_soon(guarded, scope, client.receive, client.send)
        await settled()
        assert client.reading == 0
        working.go_on.set()
        await client.say.send(part(b"hello", more=False))
    assert client.answer.body == b"hello"


async def test_one_that_is_cancelled_while_it_waits_holds_no_place(env: Env, permits: MemoryPermits) -> None:
    app = Working()
    guarded: Any = Stack(LimitConcurrency(at_once=1, queue=1, wait=60), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("first")
        async with callers(guarded) as others:
            await others.ask("second")
            others.tasks.cancel_scope.cancel()
        await many.ask("third")
        app.go_on.set()
    assert app.came == ["first", "third"]
    assert await inside(permits) == 0
    assert guarded.seats[0].hooks.lines == {}


async def test_one_that_is_cancelled_when_it_has_just_been_called_gives_its_permit_back(
    env: Env, permits: MemoryPermits
) -> None:
    app = Working()
    guarded = Stack(LimitConcurrency(at_once=1, queue=5, wait=60), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("first")
        async with callers(guarded) as others:
            await others.ask("second")
            app.go_on.set()
            others.tasks.cancel_scope.cancel()
        await many.ask("third")
    assert many.statuses == {"first": 200, "third": 200}
    assert await inside(permits) == 0


async def test_an_error_of_an_app_comes_out_as_it_is_though_its_request_waited(env: Env) -> None:
    working = Working()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (working if scope["path"] == "/first" else failing)(scope, receive, send)

    guarded = Stack(LimitConcurrency(at_once=1, queue=5, wait=60), env=env)(app)
    async with callers(guarded) as many:
        await many.ask("first")

        async def second() -> None:
            with pytest.raises(RuntimeError, match="out of order"):
                await call(guarded, path="/second")

        many.tasks.start_soon(second)
        await settled()
        working.go_on.set()


async def test_an_error_while_reading_is_told_to_the_app(env: Env) -> None:
    working = Working()

    async def receive() -> Message:
        raise OSError("the line is down")

    async def send(message: Message) -> None:
        pass

    guarded = Stack(LimitConcurrency(at_once=1, queue=5, wait=60), env=env)(first_works_then_echoes(working))
    async with callers(guarded) as many:
        await many.ask("first")

        async def second() -> None:
            with pytest.raises(OSError, match="the line is down"):
                await guarded(http_scope("POST", "/second"), receive, send)

        many.tasks.start_soon(second)
        await settled()
        working.go_on.set()


# Whatever happens

steps = st.lists(
    st.tuples(st.sampled_from(["come", "come", "finish", "fail", "leave", "cancel"]), st.integers(0, 5)), max_size=40
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("make", [MemoryPermits, SlowPermits])
@settings(max_examples=150)
@given(steps=steps, at_once=st.integers(1, 3), queue=st.integers(0, 3))
def test_at_random_no_more_are_at_work_than_allowed_and_every_permit_comes_back(
    backend: str, make: Any, steps: list[tuple[str, int]], at_once: int, queue: int
) -> None:
    permits = make()
    policy = LimitConcurrency(at_once=at_once, queue=queue, wait=60, by=by.header("x"))
    guarded: Any = Stack(policy, env=Env(place="here", permits=permits))(Visitor.serve)

    async def run() -> None:
        visitors: list[Visitor] = []
        async with anyio.create_task_group() as tasks:
            for step, number in steps:
                if step == "come":
                    visitors.append(Visitor(f"{number % 2}"))
                    tasks.start_soon(visitors[-1].visit, guarded)
                elif visitors:
                    await visitors[number % len(visitors)].do(step)
                await settled()
                for key in "01":
                    assert sum(each.at_work for each in visitors if each.key == key) <= at_once
                    assert sum(each.state == "waiting" for each in visitors if each.key == key) <= queue
            for each in visitors:
                each.scope.cancel()
        assert await inside(permits) == 0
        assert guarded.seats[0].hooks.lines == {}
        for each in visitors:
            each.close()

    anyio.run(run, backend=backend)
