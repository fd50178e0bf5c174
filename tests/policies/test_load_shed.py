"""Load shedding: who is turned away, what they are told, and what counts as being at work. The rule: test_adaptive."""

import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from tests.servers import serving

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policies.load_shed import LoadShed
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import FakeClock, call, connect
from apim_middleware.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio

TWO: dict[str, Any] = {"initial_limit": 2, "max_limit": 2}
"""Two at work; of those with the default priority, which may use four fifths, one."""


async def settled() -> None:
    """Let everything that runs come to rest."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


class Working:
    """An app that works until it is told to go on: before the head, after the head, or after the last byte."""

    def __init__(self, pause: str = "before the head") -> None:
        self.pause = pause
        self.at_work = 0
        self.most = 0
        self.begun = anyio.Event()
        self.go_on = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            await self.work(scope, send)
        finally:
            self.at_work -= 1

    async def work(self, scope: Scope, send: Send) -> None:
        await self.wait("before the head")
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await self.wait("after the head")
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hel", "more_body": True})
        await self.wait("after the head")
        await send({"type": "http.response.body", "body": b"lo"})
        await self.wait("after the last byte")

    async def wait(self, where: str) -> None:
        if where == self.pause:
            self.begun.set()
            await self.go_on.wait()


def shedder(guarded: ASGIApp) -> Any:
    return guarded.seats[0].hooks  # type: ignore[attr-defined]


# Turned away and let in


async def test_more_than_the_limit_are_turned_away_and_come_in_again_when_one_is_done(clock: FakeClock) -> None:
    app = Working()
    guarded = Stack(LoadShed(**TWO), env=Env(clock=clock))(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, guarded)
        await app.begun.wait()
        assert (await call(guarded)).status == 503
        app.go_on.set()
    assert (await call(guarded)).status == 200
    assert app.most == 1


async def test_one_who_is_turned_away_is_told_so_and_when_to_come_back() -> None:
    app = Working()
    guarded = Stack(LoadShed(**TWO, retry_after=3))(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, guarded)
        await app.begun.wait()
        answers = [await call(guarded) for _ in range(30)]
        app.go_on.set()
    assert {answer.status for answer in answers} == {503}
    assert answers[0].header(b"content-type") == b"application/problem+json"
    assert json.loads(answers[0].body)["code"] == "overloaded"
    told = [int(answer.header(b"retry-after") or b"") for answer in answers]
    assert {told.count(seconds) for seconds in (1, 2, 3)} == {10}, "they must not come back together"


async def test_what_was_decided_is_noted_on_the_exchange() -> None:
    seen: list[dict[str, Any]] = []

    def noting(app: ASGIApp) -> ASGIApp:
        async def note(scope: Scope, receive: Receive, send: Send) -> None:
            async def noted(message: Any) -> None:
                exchange = Exchange.of(scope)
                seen.append(dict(exchange.attributes) if exchange is not None else {})
                await send(message)

            await app(scope, receive, noted)

        return note

    app = Working()
    guarded = Stack(noting, LoadShed(**TWO))(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, guarded)
        await app.begun.wait()
        await call(guarded)
        assert seen[0] == {"apim.load_shed.limit": 2}
        app.go_on.set()


def by_path(exchange: Exchange) -> Any:
    return exchange.path[1:]


async def test_the_more_important_a_request_the_longer_it_is_let_in() -> None:
    app = Working()
    guarded = Stack(LoadShed(priority=by_path, initial_limit=10, max_limit=10))(app)
    turned_away: list[tuple[str, int]] = []

    async def ask(path: str, number: int) -> None:
        if (await call(guarded, path=path)).status == 503:
            turned_away.append((path, number))

    async with anyio.create_task_group() as tasks:
        for path in ("/sheddable", "/default", "/critical"):
            for number in range(6):
                tasks.start_soon(ask, path, number)
                await settled()
        app.go_on.set()
    refused = [path for path, _ in turned_away]
    assert [refused.count(path) for path in ("/sheddable", "/default", "/critical")] == [1, 3, 4]


async def test_a_priority_that_is_none_is_a_failure_and_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    app = Working()
    guarded = Stack(LoadShed(priority=by_path))(app)
    answer = await call(guarded, path="/urgent")
    assert (answer.status, json.loads(answer.body)["code"]) == (500, "policy-failed")
    assert "LoadShed.priority" in caplog.text
    assert app.most == 0


# What counts as being at work


@pytest.mark.parametrize("pause", ["after the head", "after the last byte"])
async def test_a_stream_is_at_work_until_its_head_is_known(pause: str) -> None:
    app = Working(pause)
    guarded = Stack(LoadShed(**TWO))(app)
    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(call, guarded)
            await settled()
            assert app.at_work == number + 1
        app.go_on.set()


async def test_a_websocket_is_at_work_until_it_is_accepted() -> None:
    app = Working("after the head")
    guarded = Stack(LoadShed(**TWO))(app)
    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(connect, guarded)
            await settled()
            assert app.at_work == number + 1
        app.go_on.set()


@pytest.mark.parametrize(("denial", "kind"), [(True, "websocket.http.response.start"), (False, "websocket.close")])
async def test_a_websocket_too_many_is_turned_away(denial: bool, kind: str) -> None:
    app = Working()
    guarded = Stack(LoadShed(**TWO))(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect, guarded)
        await app.begun.wait()
        answer = await connect(guarded, denial=denial)
        assert answer.messages[0]["type"] == kind
        app.go_on.set()


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("out of order")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """An app whose client left: it says nothing."""


async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(10):
        await send({"type": "http.response.body", "body": b"a", "more_body": number < 9})


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_whatever_becomes_of_a_request_it_is_not_at_work_for_ever(kind: str) -> None:
    speak: Callable[..., Any] = call if kind == "http" else connect
    policy, env = LoadShed(**TWO), Env()
    for app in (failing, silent):
        guarded = Stack(policy, env=env)(app)
        for _ in range(3):
            with contextlib.suppress(RuntimeError):
                await speak(guarded)
        assert shedder(guarded).limit.in_flight == 0


@pytest.mark.parametrize("leave_after", [0, 1, 2])
async def test_a_client_that_leaves_is_not_at_work_any_more(leave_after: int) -> None:
    guarded = Stack(LoadShed(**TWO))(streaming)
    for _ in range(3):
        with contextlib.suppress(OSError):
            await call(guarded, leave_after=leave_after)
    assert shedder(guarded).limit.in_flight == 0


async def test_one_that_is_cancelled_is_not_at_work_any_more() -> None:
    app = Working()
    guarded = Stack(LoadShed(**TWO))(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, guarded)
        await app.begun.wait()
        assert shedder(guarded).limit.in_flight == 1
        tasks.cancel_scope.cancel()
    assert shedder(guarded).limit.in_flight == 0


async def test_one_that_a_policy_behind_refuses_is_not_at_work_any_more() -> None:
    class Refusing(Policy):
        def on_request(self, exchange: Exchange) -> None:
            raise Refusal(403, "no")

    guarded = Stack(LoadShed(**TWO), Refusing())(failing)
    assert [(await call(guarded)).status for _ in range(3)] == [403] * 3
    assert shedder(guarded).limit.in_flight == 0


# What is learnt


class Timed:
    """An app that takes its time on a fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.takes = 0.1
        self.status = 200
        self.streams = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clock.advance(self.takes)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        self.clock.advance(self.streams)
        await send({"type": "http.response.body"})


async def learnt(clock: FakeClock, app: Timed, speak: Callable[..., Any] = call) -> float:
    """The time without waiting, as it is known after a while."""
    guarded = Stack(LoadShed(), env=Env(clock=clock))(app)
    for _ in range(100):
        await speak(guarded)
    return float(shedder(guarded).limit.learnt.baseline)


async def test_what_counts_is_the_time_to_the_head(clock: FakeClock) -> None:
    app = Timed(clock)
    app.streams = 60.0
    assert await learnt(clock, app) == pytest.approx(0.1)


async def test_websockets_say_nothing_of_the_time_requests_take(clock: FakeClock) -> None:
    assert await learnt(clock, Timed(clock), connect) == 0


async def test_quick_errors_say_nothing_of_the_time_requests_take(clock: FakeClock) -> None:
    app = Timed(clock)
    guarded = Stack(LoadShed(), env=Env(clock=clock))(app)
    for status, takes in ((200, 0.1), (503, 0.01)) * 100:
        app.status, app.takes = status, takes
        await call(guarded)
    assert shedder(guarded).limit.learnt.baseline == pytest.approx(0.1)


async def test_what_was_learnt_survives_a_reload(clock: FakeClock) -> None:
    env, app = Env(clock=clock), Timed(clock)
    first = Stack(LoadShed(), env=env, place="orders")(app)
    second = Stack(LoadShed(), env=env, place="orders")(app)
    assert shedder(first) is shedder(second)


# On a real server


def test_an_overloaded_server_answers_many_and_turns_the_others_away_quickly() -> None:
    """Four workers behind a queue: without the limit, the last of 100 would wait for the other 99."""

    workers, most, at_work = anyio.Semaphore(4), 0, 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most, at_work
        at_work += 1
        most = max(most, at_work)
        async with workers:
            await anyio.sleep(0.005)
        at_work -= 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    policy = LoadShed(initial_limit=10, max_limit=20)
    with serving(Stack(policy)(app), lifespan="off") as server:

        async def ask_all() -> list[int]:
            statuses: list[int] = []
            limits = httpx.Limits(max_connections=50)
            async with httpx.AsyncClient(base_url=server.origin, limits=limits, timeout=60) as client:

                async def ask() -> None:
                    statuses.append((await client.get("/")).status_code)

                async with anyio.create_task_group() as tasks:
                    for _ in range(100):
                        tasks.start_soon(ask)
            return statuses

        statuses = anyio.run(ask_all)
    assert set(statuses) == {200, 503}
    assert most <= 20


# Mistakes


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"min_limit": 0}, "min_limit"),
        ({"min_limit": 50, "max_limit": 40}, "min_limit"),
        ({"max_limit": 2_000_000}, "max_limit"),
        ({"max_limit": 1}, "max_limit"),
        ({"min_limit": 2_000_000}, "min_limit"),
        ({"initial_limit": 20, "max_limit": 10}, "initial_limit"),
        ({"initial_limit": 1}, "initial_limit"),
        ({"initial_limit": 2_000}, "initial_limit"),
        ({"tolerance": 0.9}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"smoothing": 0.0}, "smoothing"),
        ({"smoothing": 1.1}, "smoothing"),
        ({"window": 0.0}, "window"),
        ({"window": 61.0}, "window"),
        ({"relearn": float("inf")}, "relearn"),
        ({"retry_after": 0}, "retry_after"),
        ({"priority": "critical"}, "priority"),
    ],
)
def test_mistakes_are_found_while_building(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as failure:
        LoadShed(**fields)
    assert failure.value.field == field


@pytest.mark.parametrize(("fields", "first"), [({"max_limit": 10}, 10), ({"min_limit": 50}, 50), ({}, 20)])
def test_an_initial_limit_that_was_not_told_is_within_the_others(fields: dict[str, int], first: int) -> None:
    """Found by an audit: max_limit=10 alone was refused for an initial limit nobody had given."""
    shedder = LoadShed(**fields).bind(Env(clock=FakeClock()))  # type: ignore[arg-type]
    assert int(shedder.limit.learnt.limit) == first


class Later:
    async def __call__(self, exchange: Exchange) -> Any:
        return "default"


@pytest.mark.parametrize("priority", [Later(), partial(Later()), Later().__call__])
def test_a_priority_whose_call_awaits_is_a_mistake(priority: Any) -> None:
    with pytest.raises(ConfigError, match="is async"):
        LoadShed(priority=priority)


def test_a_priority_that_awaits_is_a_mistake() -> None:
    async def priority(exchange: Exchange) -> Any:
        return "default"

    with pytest.raises(ConfigError, match="is async"):
        LoadShed(priority=priority)
