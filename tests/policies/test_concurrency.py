"""Limits of concurrency: who comes in, who is refused; and that every permit comes back."""

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from tests.servers import serving

from apim_middleware import by
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.testing import call, connect
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .visiting import SlowPermits, Working, callers, failing, inside, settled

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "store"])
def permits(request: pytest.FixtureRequest) -> MemoryPermits | SlowPermits:
    """Permits that need no awaiting, and permits that do: nobody can tell which."""
    return MemoryPermits() if request.param == "memory" else SlowPermits()


@pytest.fixture
def env(permits: MemoryPermits | SlowPermits) -> Env:
    return Env(place="here", permits=permits)


# Let in and refused


async def test_as_many_as_allowed_are_at_work_and_the_next_is_refused(env: Env) -> None:
    app = Working()
    async with callers(Stack(LimitConcurrency(at_once=2), env=env)(app)) as many:
        for path in "abc":
            await many.ask(path)
        assert many.statuses == {"c": 429}
        app.go_on.set()
    assert many.statuses == {"a": 200, "b": 200, "c": 429}


async def test_a_refused_caller_is_told_so(env: Env) -> None:
    app = Working()
    async with callers(Stack(LimitConcurrency(at_once=1), env=env)(app)) as many:
        await many.ask("a")
        await many.ask("b")
        app.go_on.set()
    answer = many.answers["b"]
    assert json.loads(answer.body)["code"] == "too-many-at-once"
    assert answer.header(b"content-type") == b"application/problem+json"
    assert answer.header(b"retry-after") == b"1"


async def test_each_key_is_counted_apart(env: Env, permits: MemoryPermits) -> None:
    app = Working()
    async with callers(Stack(LimitConcurrency(at_once=1, by=by.header("x-tenant")), env=env)(app)) as many:
        tenants = ["a", "b", "a", "ü", "x" * 5_000, "x" * 5_001, "a:b", "a b", "x" * 5_000]
        for number, tenant in enumerate(tenants):
            await many.ask(str(number), headers=[(b"x-tenant", tenant.encode("latin-1"))])
        assert many.statuses == {"2": 429, "8": 429}
        app.go_on.set()
    assert await inside(permits) == 0


async def test_one_without_a_key_is_refused(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    guarded = Stack(LimitConcurrency(at_once=1, by=by.header("x-tenant")), env=env)(Working())
    answers = [await call(guarded) for _ in range(3)]
    assert {(answer.status, json.loads(answer.body)["code"]) for answer in answers} == {(403, "caller-unknown")}
    assert len(caplog.records) == 1


async def test_those_without_a_key_can_be_counted_together(env: Env) -> None:
    app = Working()
    policy = LimitConcurrency(at_once=1, by=by.header("x-tenant"), when_unknown="together")
    async with callers(Stack(policy, env=env)(app)) as many:
        await many.ask("a")
        await many.ask("b")
        await many.ask("c", headers=[(b"x-tenant", b"")])
        assert many.statuses == {"b": 429}
        app.go_on.set()


async def test_equal_policies_at_two_places_count_apart(env: Env) -> None:
    app, policy = Working(), LimitConcurrency(at_once=1)
    here, there = (Stack(policy, env=env, place=place)(app) for place in ("here", "there"))
    async with callers(here) as many:
        await many.ask("a")
        many.app = there
        await many.ask("b")
        assert many.statuses == {}
        app.go_on.set()


async def test_who_is_in_is_still_known_after_a_reload_that_changes_the_limit(env: Env) -> None:
    app = Working()
    async with callers(Stack(LimitConcurrency(at_once=2), env=env, place="orders")(app)) as many:
        await many.ask("a")
        await many.ask("b")
        many.app = Stack(LimitConcurrency(at_once=3), env=env, place="orders")(app)
        await many.ask("c")
        await many.ask("d")
        assert many.statuses == {"d": 429}
        app.go_on.set()


async def test_those_who_wait_after_a_reload_come_in_when_those_from_before_it_are_done(env: Env) -> None:
    before, after = Working(), Working()
    policy = LimitConcurrency(at_once=1, queue=5, wait=60)
    async with callers(Stack(policy, env=env, place="orders")(before)) as many:
        await many.ask("a")
        changed = LimitConcurrency(at_once=1, queue=6, wait=60)
        many.app = Stack(changed, env=env, place="orders")(after)
        await many.ask("b")
        before.go_on.set()
        after.go_on.set()
        await settled()
        await many.ask("c")
    assert many.statuses == {"a": 200, "b": 200, "c": 200}
    assert after.came == ["b", "c"]


# When permits come back


async def test_a_streamed_response_is_at_work_until_its_last_byte(env: Env) -> None:
    app = Working("within the body")
    async with callers(Stack(LimitConcurrency(at_once=1), env=env)(app)) as many:
        await many.ask("a")
        await many.ask("b")
        assert many.statuses == {"b": 429}
        app.go_on.set()
        await settled()
        await many.ask("c")
    assert many.statuses == {"a": 200, "b": 429, "c": 200}


@pytest.mark.parametrize("speak", [call, connect])
async def test_what_an_app_does_after_the_last_byte_holds_nothing(
    env: Env, permits: MemoryPermits, speak: Callable[..., Any]
) -> None:
    app = Working("after the last byte")
    async with callers(Stack(LimitConcurrency(at_once=1), env=env)(app)) as many:
        for path in "abc":
            await many.ask(path, speak)
            assert await inside(permits) == 0
        assert (app.at_work, many.statuses) == (3, {})
        app.go_on.set()


async def test_a_websocket_is_at_work_until_it_is_closed(env: Env, permits: MemoryPermits) -> None:
    app = Working("within the body")
    async with callers(Stack(LimitConcurrency(at_once=1), env=env)(app)) as many:
        await many.ask("a", connect)
        await many.ask("b", connect)
        await many.ask("c", connect, denial=False)
        app.go_on.set()
    assert many.statuses == {"a": 101, "b": 429, "c": 403}
    assert many.answers["c"].messages == [{"type": "websocket.close", "code": 1008, "reason": "too-many-at-once"}]
    assert await inside(permits) == 0


async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("out of order")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """An app whose client left: it says nothing."""


class Refusing(Policy):
    def on_request(self, exchange: Exchange) -> None:
        raise Refusal(403, "no")


@pytest.mark.parametrize("queue", [0, 1])
@pytest.mark.parametrize("app", [failing, failing_late, silent, Refusing()(silent)])
async def test_whatever_becomes_of_a_request_its_permit_comes_back(
    env: Env, permits: MemoryPermits, app: ASGIApp, queue: int
) -> None:
    guarded = Stack(LimitConcurrency(at_once=1, queue=queue), env=env)(app)
    for speak in (call, connect, call):
        with contextlib.suppress(RuntimeError):
            await speak(guarded)
        assert await inside(permits) == 0


@pytest.mark.parametrize("leave_after", [0, 1, 2, 3])
async def test_wherever_a_client_leaves_its_permit_comes_back(
    env: Env, permits: MemoryPermits, leave_after: int
) -> None:
    app = Working("nowhere")
    guarded = Stack(LimitConcurrency(at_once=1), env=env)(app)
    with contextlib.suppress(OSError):
        await call(guarded, leave_after=leave_after)
    assert await inside(permits) == 0


@pytest.mark.parametrize("pause", ["before the head", "within the body", "after the last byte"])
async def test_wherever_a_request_is_cancelled_its_permit_comes_back(
    env: Env, permits: MemoryPermits, pause: str
) -> None:
    app = Working(pause)
    async with callers(Stack(LimitConcurrency(at_once=1), env=env)(app)) as many:
        await many.ask("a")
        assert app.at_work == 1
        many.tasks.cancel_scope.cancel()
    assert (app.at_work, await inside(permits)) == (0, 0)


# Trying it out


async def test_a_limit_that_is_tried_out_lets_all_in_and_says_who_it_would_refuse(
    env: Env, permits: MemoryPermits, caplog: pytest.LogCaptureFixture
) -> None:
    noted: list[Any] = []

    class Watching(Policy):
        def on_end(self, exchange: Exchange) -> None:
            noted.append(exchange.attributes.get("apim.concurrency.shadow"))

    app = Working()
    policy = LimitConcurrency(at_once=1, shadow=True, queue=5)
    async with callers(Stack(Watching(), policy, env=env)(app)) as many:
        for path in "abc":
            await many.ask(path)
        assert app.at_work == 3
        app.go_on.set()
    assert sorted(map(str, noted)) == ["None", "concurrency", "concurrency"]
    assert len(caplog.records) == 1
    assert await inside(permits) == 0


def broken(exchange: Exchange) -> str:
    raise ValueError("no such key")


@pytest.mark.parametrize(
    ("key", "noted", "logged"),
    [(by.header("x"), "caller-unknown", "would refuse requests of which"), (broken, None, "only tried out, failed")],
)
async def test_a_limit_that_is_tried_out_refuses_nobody_though_it_has_no_key(
    env: Env, permits: MemoryPermits, key: Any, noted: str | None, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    class Watching(Policy):
        def on_end(self, exchange: Exchange) -> None:
            seen.append(exchange.attributes.get("apim.concurrency.shadow"))

    guarded = Stack(Watching(), LimitConcurrency(at_once=1, by=key, shadow=True), env=env)(Working("nowhere"))
    assert (await call(guarded)).status == 200
    assert seen == [noted]
    assert logged in caplog.text
    assert await inside(permits) == 0


@pytest.mark.parametrize("shadow", [False, True])
async def test_a_store_that_is_broken_is_felt_unless_the_limit_is_tried_out(shadow: bool) -> None:
    store = SlowPermits()
    store.failure = RuntimeError("broken")
    guarded = Stack(LimitConcurrency(at_once=1, shadow=shadow), env=Env(place="here", permits=store))(
        Working("nowhere")
    )
    assert (await call(guarded)).status == (200 if shadow else 500)


@pytest.mark.parametrize("outcome", ["refuse", "allow", "local"])
async def test_a_limit_that_is_tried_out_refuses_nobody_while_its_store_is_down(outcome: Any) -> None:
    store, app = SlowPermits(), Working()
    store.failure = StoreError("gone")
    policy = LimitConcurrency(at_once=1, shadow=True, when_store_fails=outcome)
    async with callers(Stack(policy, env=Env(place="here", permits=store))(app)) as many:
        await many.ask("a")
        await many.ask("b")
        assert app.at_work == 2
        app.go_on.set()


# Neighbours


async def test_it_is_one_ring_with_its_neighbours_unless_somebody_may_wait() -> None:
    guarded: Any = Stack(LimitConcurrency(at_once=1), LimitConcurrency(at_once=2, by=by.client))(Working())
    assert len(guarded.seats) == 2


@pytest.mark.parametrize(("queue", "refused"), [(0, ["b", "d"]), (5, ["b"])])
async def test_two_of_them_in_one_stack_both_count(
    env: Env, permits: MemoryPermits, queue: int, refused: list[str]
) -> None:
    app = Working()
    policies = [
        LimitConcurrency(at_once=2, queue=queue, wait=60),
        LimitConcurrency(at_once=1, by=by.header("x"), queue=queue, wait=0.001),
    ]
    async with callers(Stack(*policies, env=env)(app)) as many:
        for path, tenant in (("a", b"1"), ("b", b"1"), ("c", b"2"), ("d", b"3")):
            await many.ask(path, headers=[(b"x", tenant)])
        while len(many.statuses) < len(refused):
            await anyio.lowlevel.checkpoint()
        app.go_on.set()
    assert sorted(path for path, status in many.statuses.items() if status == 429) == refused
    assert app.most <= 2
    assert await inside(permits) == 0


def test_used_alone_it_works_as_in_a_stack() -> None:
    client = TestClient(LimitConcurrency(at_once=1, queue=1)(PlainTextResponse("hello")))
    assert [client.get("/").status_code for _ in range(3)] == [200] * 3


async def test_other_kinds_of_scopes_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*args: Any) -> Any:
        raise AssertionError

    await Stack(LimitConcurrency(at_once=1, queue=1))(app)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]


# On a real server


@pytest.mark.parametrize("queue", [0, 1_000])
def test_of_a_thousand_at_once_never_more_than_allowed_are_at_work(queue: int) -> None:
    at_work, most, permits = 0, 0, MemoryPermits()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await anyio.sleep(0.001)
        at_work -= 1
        await send({"type": "http.response.body", "body": b"k"})

    guarded = Stack(LimitConcurrency(at_once=7, queue=queue, wait=60), env=Env(place="here", permits=permits))(app)
    with serving(guarded, lifespan="off") as server:
        statuses = anyio.run(thousand, server.port)
    assert most == 7
    assert len(permits) == 0
    assert sum(statuses.values()) == 1_000
    assert set(statuses) == ({200} if queue else {200, 429})


async def thousand(port: int) -> dict[int, int]:
    """Ask a thousand times at once, each on a connection of its own; how many got which status."""
    statuses: dict[int, int] = {}

    async def ask() -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            status = int((await stream.receive()).split()[1])
            with contextlib.suppress(anyio.EndOfStream):
                while await stream.receive():
                    pass
        statuses[status] = statuses.get(status, 0) + 1

    async with anyio.create_task_group() as tasks:
        for _ in range(1_000):
            tasks.start_soon(ask)
    return statuses


@pytest.mark.parametrize("queue", [0, 5])
def test_a_connection_that_breaks_gives_its_permit_back(queue: int) -> None:
    permits = MemoryPermits()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    guarded = Stack(LimitConcurrency(at_once=3, queue=queue, wait=60), env=Env(place="here", permits=permits))(app)
    with serving(guarded, lifespan="off") as server:
        connections = [server.connect() for _ in range(3 + queue)]
        for connection in connections:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = server.talk(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b" 429 " in answer
        for connection in connections:
            connection.close()
        while len(permits):
            time.sleep(0)


# Mistakes


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "at_once"),
        ({"at_once": 0}, "at_once"),
        ({"at_once": 1, "queue": -1}, "queue"),
        ({"at_once": 1, "queue": 1, "wait": 0.0}, "wait"),
        ({"at_once": 1, "queue": 1, "wait": float("inf")}, "wait"),
        ({"at_once": 1, "queue": 1, "wait": float("nan")}, "wait"),
        ({"at_once": 1, "name": ""}, "name"),
        ({"at_once": 1, "name": "a\nb"}, "name"),
        ({"at_once": 1, "name": "x" * 65}, "name"),
        ({"at_once": 1, "by": "client"}, "by"),
    ],
)
def test_mistakes_are_found_while_building(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as failure:
        LimitConcurrency(**fields)
    assert failure.value.field == field


def test_a_key_that_awaits_is_a_mistake() -> None:
    async def key(exchange: Exchange) -> str:
        return "a"

    with pytest.raises(ConfigError, match="is async"):
        LimitConcurrency(at_once=1, by=key)


def test_a_key_that_is_established_only_further_in_is_a_mistake() -> None:
    from apim_middleware.policies.client import TrustedProxies

    with pytest.raises(ConfigError, match="relies on the client"):
        Stack(LimitConcurrency(at_once=1, by=by.client), TrustedProxies(trusted=("127.0.0.1",)))
