"""Timeouts: what they end, how, and what they leave alone."""

import json

import anyio
import pytest
from tests.servers import stub

from apim_middleware.errors import ConfigError, ResponseOver
from apim_middleware.policies.headers import SetHeader
from apim_middleware.policies.timeout import Timeout
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.testing import Answer, call, connect
from apim_middleware.transports.httpx import HttpxTransport

pytestmark = pytest.mark.anyio

SOON = Timeout(seconds=0.02)
BODY = "http.response.body"


def start(*headers):
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


class App:
    """Sends these messages; waits for ever at None, and for so many seconds at a number."""

    def __init__(self, *script):
        self.script, self.cancelled, self.finished = script, False, False

    async def __call__(self, scope, receive, send):
        try:
            for each in self.script:
                if each is None:
                    await anyio.sleep_forever()
                elif isinstance(each, float):
                    await anyio.sleep(each)
                else:
                    await send(each)
            self.finished = True
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise


WHOLE = (start(), {"type": BODY, "body": b"ok"})


async def test_what_is_quick_passes():
    answer = await call(SOON(App(*WHOLE)))
    assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)


async def test_what_takes_too_long_is_refused_and_cancelled():
    app = App(None)
    answer = await call(SOON(app))
    assert (answer.status, app.cancelled) == (504, True)
    assert json.loads(answer.body)["code"] == "timeout"


async def test_the_refusal_passes_out_through_the_policies_before_it():
    guarded = Stack(SetHeader(name="x-out", value="1", on="response"), SOON)(App(None))
    answer = await call(guarded)
    assert (answer.status, answer.header(b"x-out")) == (504, b"1")


class Ends(Policy):
    """Writes down how each exchange ended."""

    def on_end(self, exchange):
        ENDED.append((exchange.refusal.code if exchange.refusal else None, exchange.completed))


ENDED: list[object] = []


async def test_those_before_and_behind_it_come_to_their_end():
    ENDED.clear()
    await call(Stack(Ends(), SOON, Ends())(App(None)))
    assert ENDED == [(None, False), ("timeout", True)]


async def test_a_response_that_has_begun_is_broken_off():
    answer = Answer()
    app = App(start(), {"type": BODY, "body": b"half", "more_body": True}, None)
    with pytest.raises(TimeoutError):
        await call(SOON(app), answer=answer)
    assert (answer.body, answer.complete, app.cancelled) == (b"half", False, True)


async def test_it_may_be_the_head_alone_that_counts():
    app = App(start(), {"type": BODY, "body": b"a", "more_body": True}, 0.05, {"type": BODY, "body": b"b"})
    assert (await call(Timeout(seconds=0.02, until="head")(app))).body == b"ab"
    assert (await call(Timeout(seconds=0.02, until="head")(App(None)))).status == 504


async def test_an_event_stream_may_last():
    kind = (b"Content-Type", b"text/event-stream; charset=utf-8")
    app = App(start(kind), {"type": BODY, "body": b"data\n\n", "more_body": True}, 0.05, {"type": BODY, "body": b""})
    assert (await call(SOON(app))).complete


async def test_an_event_stream_must_begin_in_time():
    assert (await call(SOON(App(None, start((b"content-type", b"text/event-stream")))))).status == 504


async def test_what_is_done_after_the_response_is_not_cut_off():
    app = App(*WHOLE, 0.05)
    await call(SOON(app))
    assert app.finished


async def test_trailers_belong_to_the_response():
    app = App({**start(), "trailers": True}, {"type": BODY, "body": b"ok"}, None)
    with pytest.raises(TimeoutError):
        await call(SOON(app))


async def test_a_websocket_may_last_once_it_is_accepted():
    app = App({"type": "websocket.accept"}, 0.05, {"type": "websocket.close", "code": 1000})
    await connect(SOON(app))
    assert app.finished


@pytest.mark.parametrize(("denial", "status"), [(True, 504), (False, 403)])
async def test_a_websocket_must_be_accepted_in_time(denial, status):
    assert (await connect(SOON(App(None)), denial=denial)).status == status


async def test_an_error_of_the_app_comes_out_as_it_is():
    async def failing(scope, receive, send):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await call(SOON(failing))


async def test_a_client_that_leaves_is_no_timeout():
    answer = Answer()
    with pytest.raises(OSError, match="gone"):
        await call(Timeout(seconds=60)(App(*WHOLE)), leave_after=0, answer=answer)
    assert answer.messages == []


async def test_an_app_that_goes_on_in_another_task_is_not_heard():
    heard = []
    over = anyio.Event()

    async def app(scope, receive, send):
        async def late():
            await over.wait()
            try:
                await send(start())
            except ResponseOver as error:
                heard.append(error)

        tasks.start_soon(late)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        answer = await call(SOON(app))
        over.set()
    assert (answer.status, len(answer.messages), len(heard)) == (504, 2, 1)


async def test_a_limit_of_somebody_else_is_not_mistaken_for_its_own():
    app = App(None)
    with anyio.move_on_after(0.02) as outer:
        await call(Timeout(seconds=60)(app))
    assert outer.cancelled_caught
    assert app.cancelled


async def test_an_upstream_that_is_waited_for_is_told():
    async def speak(spoken):
        await spoken.hang_on()
        gone.set()

    gone = anyio.Event()
    async with stub(speak) as upstream:
        proxy = Proxy(upstream.origin, transport=HttpxTransport())  # here already, so that it is asked in time
        assert (await call(Timeout(seconds=0.5)(proxy))).status == 504
        await gone.wait()
        await proxy._transport.aclose()


async def test_the_lifespan_has_no_end():
    app = App(0.05)
    await SOON(app)({"type": "lifespan"}, None, None)
    assert app.finished


@pytest.mark.parametrize("fields", [{"seconds": 0}, {"seconds": 90_000}, {"seconds": "1"}, {}])
def test_a_mistake_names_its_field(fields):
    with pytest.raises(ConfigError, match=r"Timeout\.seconds"):
        Timeout(**fields)
