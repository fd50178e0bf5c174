"""``Health``: probes are answered before anything else, say little, and know when the end is near."""

import asyncio
import json
import logging
import signal
from collections.abc import Iterator

import anyio
import pytest

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.policy import Policy, Stack
from apim_middleware.serving.health import Drain, Health
from apim_middleware.testing import FakeClock, call, connect

pytestmark = pytest.mark.anyio


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        return
    headers = [(b"Connection", b"keep-alive"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


class Nobody(Policy):
    """Lets nobody in."""

    def on_request(self, exchange):
        raise Refusal(401, "nobody")


def guarded(clock=None, **options):
    return Stack(Health(**options), Nobody(), env=Env(clock=clock or FakeClock()))(app)


def said(answer):
    return answer.status, json.loads(answer.body)["status"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_are_answered_before_policies_are_asked(path):
    answer = await call(guarded(), path=path)
    assert said(answer) == (200, "ok")
    assert answer.header(b"cache-control") == b"no-store"


@pytest.mark.parametrize("path", ["/", "/healthz/", "/healthzz", "/HEALTHZ", "//healthz", "/x/healthz"])
async def test_everything_else_goes_to_the_policies(path):
    assert (await call(guarded(), path=path)).status == 401


async def test_paths_can_be_others():
    layer = guarded(live="/alive", ready="/ready")
    assert (await call(layer, path="/alive")).status == 200
    assert (await call(layer, path="/ready")).status == 200
    assert (await call(layer, path="/healthz")).status == 401


async def test_websockets_go_to_the_app_whatever_their_path():
    assert (await connect(Health()(app), "/healthz")).status == 101


async def test_head_has_no_body_and_other_methods_are_not_allowed():
    answer = await call(guarded(), "HEAD", "/readyz")
    assert (answer.status, answer.body) == (200, b"")
    answer = await call(guarded(), "POST", "/healthz")
    assert (answer.status, answer.header(b"allow")) == (405, b"GET, HEAD")


async def there():
    return None


async def gone():
    raise ConnectionError("redis://user:secret@store:6379 is gone")


@pytest.mark.parametrize(
    ("checks", "ready"),
    [
        ({}, True),
        ({"a": there, "b": lambda: True}, True),
        ({"a": there, "b": gone}, False),
        ({"a": lambda: False}, False),
        ({"a": anyio.sleep_forever}, False),
    ],
    ids=["none", "all there", "one gone", "plainly not", "never answers"],
)
async def test_it_is_ready_when_every_check_is_passed(checks, ready):
    layer = guarded(checks=checks, timeout=0.05)
    assert said(await call(layer, path="/readyz")) == ((200, "ok") if ready else (503, "unavailable"))
    assert said(await call(layer, path="/healthz")) == (200, "ok")


async def test_what_is_missing_is_in_the_log_once_and_never_in_the_answer(caplog):
    caplog.set_level(logging.INFO)
    layer = guarded(checks={"store": gone}, remember_for=0)
    for _ in range(3):
        assert b"store" not in (await call(layer, path="/readyz")).body
    assert caplog.messages == ["not ready: store"]


async def test_it_is_told_when_all_is_there_again(caplog):
    caplog.set_level(logging.INFO)
    fine = [False, True]
    layer = guarded(checks={"store": lambda: fine.pop(0)}, remember_for=0)
    assert (await call(layer, path="/readyz")).status == 503
    assert (await call(layer, path="/readyz")).status == 200
    assert caplog.messages == ["not ready: store", "ready"]


async def test_many_who_ask_cost_one_check():
    asked, go_on, clock = [], anyio.Event(), FakeClock()

    async def slow():
        asked.append(1)
        await go_on.wait()

    layer = guarded(clock, checks={"slow": slow}, timeout=20)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(lambda: call(layer, path="/readyz"))
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert len(asked) == 1
    clock.advance(1.0)
    await call(layer, path="/readyz")
    assert len(asked) == 2


async def test_while_draining_it_lives_and_is_not_ready():
    drain = Drain()
    layer = guarded(drain=drain)
    drain.begin()
    assert said(await call(layer, path="/healthz")) == (200, "ok")
    assert said(await call(layer, path="/readyz")) == (503, "draining")


async def test_while_draining_connections_end_with_their_response():
    drain = Drain()
    layer = Health(drain=drain)(app)
    assert (await call(layer)).all(b"Connection") == [b"keep-alive"]
    drain.begin()
    answer = await call(layer)
    assert (answer.status, answer.body, answer.all(b"connection")) == (200, b"ok", [b"close"])
    assert (await call(layer, http_version="2")).all(b"connection") == [b"keep-alive"]  # as the app has it


async def test_the_end_of_the_lifespan_begins_the_drain():
    health = Health()

    async def receive():
        return {"type": "lifespan.shutdown"}

    await health(app)({"type": "lifespan"}, receive, None)
    assert health.drain.begun


@pytest.fixture
def unhandled() -> Iterator[None]:
    """Nobody handles SIGUSR2."""
    before = signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR2, before)


async def started(*layers: Health) -> None:
    """Have the server's lifespan begin."""

    async def receive():
        return {"type": "lifespan.startup"}

    for layer in layers:
        await layer(app)({"type": "lifespan"}, receive, None)


@pytest.mark.usefixtures("unhandled")
def test_the_signal_to_drain_begins_every_drain_of_the_process():
    layers = [Health(), Health()]
    asyncio.run(started(*layers))
    assert callable(signal.getsignal(signal.SIGUSR2))
    signal.raise_signal(signal.SIGUSR2)
    assert all(each.drain.begun for each in layers)


@pytest.mark.usefixtures("unhandled")
def test_a_program_that_handles_the_signal_itself_keeps_it():
    heard, health = [], Health()
    signal.signal(signal.SIGUSR2, lambda *told: heard.append(told))
    asyncio.run(started(health))
    signal.raise_signal(signal.SIGUSR2)
    assert heard
    assert not health.drain.begun


@pytest.mark.parametrize("of_loop", [False, True])
def test_of_several_graces_the_longest_counts_and_a_second_signal_ends_them(of_loop):
    """They added up; and where the loop handles the signal, one drain began and the last grace counted."""
    ended, layers = [], [Health(grace=600), Health(grace=300)]

    async def serve():
        if of_loop:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, ended.append, number)
        await started(*layers)
        for _ in range(2):
            assert not ended
            signal.raise_signal(signal.SIGTERM)
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert all(each.drain.begun for each in layers)

    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    try:
        asyncio.run(serve())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == [signal.SIGINT if of_loop else signal.SIGTERM]


def test_several_graces_do_not_add_up():
    async def serve():
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
        began = loop.time()
        await started(Health(grace=0.3), Health(grace=0.2), Health(grace=0.3))
        signal.raise_signal(signal.SIGTERM)
        await ended.wait()
        return loop.time() - began

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert 0.29 < asyncio.run(serve()) < 0.5
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"live": "healthz"}, "is no path"),
        ({"ready": "/readyz?x"}, "is no path"),
        ({"ready": "/healthz"}, "is the path of live too"),
        ({"timeout": 0}, "leaves no time"),
        ({"remember_for": -1}, "is no time"),
        ({"checks": {"a": 1}}, "checks"),
    ],
)
def test_mistakes_are_found_while_building(options, problem):
    with pytest.raises(ConfigError, match=problem):
        Health(**options)
