"""The hard cases of the core, one by one, as a caller and an app see them."""

import gc
import weakref
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse

from apim_middleware import _ring as ring
from apim_middleware import exchange as exchange_module
from apim_middleware.errors import Refusal, ResponseOver
from apim_middleware.exchange import KEY, Exchange, ResponseHead
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, kw_only=True)
class Hooks(Policy):
    """A policy made of the hooks a test gives it."""

    hooks: dict[str, Any] = field(default_factory=dict, compare=False)

    def bind(self, env: object) -> object:
        given = {name: hook if name == "taps_body" else staticmethod(hook) for name, hook in self.hooks.items()}
        return type("Bound", (), given)()


def hooks(**given: Any) -> Hooks:
    return Hooks(hooks=given)


def refuse(exchange: Exchange) -> None:
    raise Refusal(403, "no", "Not today.", headers={"x-why": "because"})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


async def accepting(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def test_a_refusal_is_a_problem_document() -> None:
    answer = await call(Stack(hooks(on_request=refuse))(hello))
    assert answer.status == 403
    assert answer.header(b"content-type") == b"application/problem+json"
    assert answer.header(b"x-why") == b"because"
    assert answer.header(b"cache-control") == b"no-store"
    assert answer.body == (
        b'{"type": "about:blank", "title": "Forbidden", "status": 403, "code": "no", "detail": "Not today."}'
    )


async def test_a_refusal_of_head_has_no_body_but_its_length() -> None:
    answer = await call(Stack(hooks(on_request=refuse))(hello), "HEAD")
    assert answer.body == b""
    assert int(answer.header(b"content-length") or 0) > 0


def refusing(app: ASGIApp) -> ASGIApp:
    """A layer that is no policy, and refuses."""

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        await ring.refuse(Refusal(422, "body-invalid", "The body is no order."), scope, send)

    return layer


@pytest.mark.parametrize("make", [lambda: Stack(refusing)(hello), lambda: Stack(hooks(), refusing)(hello)])
async def test_a_layer_refuses_as_policies_do(make: Any) -> None:
    answer = await call(make())
    assert (answer.status, answer.header(b"content-type")) == (422, b"application/problem+json")
    assert b'"code": "body-invalid"' in answer.body


async def test_policies_further_out_know_what_a_layer_refused_with() -> None:
    codes: list[str] = []

    def note(exchange: Exchange) -> None:
        assert exchange.refusal is not None
        codes.append(exchange.refusal.code)

    await call(Stack(hooks(on_end=note), refusing)(hello))
    assert codes == ["body-invalid"]


async def test_a_layer_refuses_a_websocket_too() -> None:
    assert (await connect(Stack(refusing)(accepting))).status == 422


async def test_a_layer_that_fails_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        await ring.refuse(ValueError("secret"), scope, send)

    answer = await call(layer)
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert "a policy failed" in caplog.text


async def test_a_refused_websocket_gets_a_denial_response() -> None:
    answer = await connect(Stack(hooks(on_request=refuse))(accepting))
    assert answer.status == 403
    assert b'"code": "no"' in answer.body


async def test_a_refused_websocket_is_closed_where_no_denial_can_be_sent() -> None:
    answer = await connect(Stack(hooks(on_request=refuse))(accepting), denial=False)
    assert answer.messages == [{"type": "websocket.close", "code": 1008, "reason": "no"}]


async def test_the_accept_of_a_websocket_is_a_head() -> None:
    def stamp(exchange: Exchange) -> None:
        assert exchange.response is not None
        assert exchange.response.status == 101
        exchange.response.append(b"x-stamp", b"1")

    answer = await connect(Stack(hooks(on_response=stamp))(accepting), texts=["hi"])
    assert answer.messages == [
        {"type": "websocket.accept", "headers": [(b"x-stamp", b"1")]},
        {"type": "websocket.send", "text": "hi"},
    ]


async def test_an_accepted_websocket_has_no_other_status_whoever_sets_one() -> None:
    seen: list[int] = []

    def look(exchange: Exchange) -> None:
        assert exchange.response is not None
        seen.append(exchange.response.status)

    def set_status(exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.status = 201

    await connect(Stack(hooks(on_response=look), hooks(on_response=set_status))(accepting), texts=["hi"])
    assert seen == [101]


async def test_a_websocket_refused_on_its_way_out_is_denied() -> None:
    answer = await connect(Stack(hooks(on_response=refuse))(accepting), texts=["hi"])
    assert answer.status == 403
    assert not [each for each in answer.messages if each["type"] in ("websocket.accept", "websocket.send")]


async def test_an_app_that_talks_on_after_its_websocket_was_refused_is_told_to_stop() -> None:
    async def talking(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "and another thing"})

    answer = await connect(Stack(hooks(on_response=refuse))(talking))
    assert answer.status == 403


async def test_a_websocket_ends_when_it_is_closed_and_not_with_its_first_message() -> None:
    seen: list[str] = []

    async def talking(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        for _ in range(2):
            await send({"type": "websocket.send", "text": "hello"})
            seen.append("talked")
        await send({"type": "websocket.close"})

    await connect(Stack(hooks(on_end=lambda exchange: seen.append("ended")))(talking))
    assert seen == ["talked", "talked", "ended"]


async def test_an_error_of_a_policy_is_refused_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError("the secret is 42")

    answer = await call(Stack(hooks(on_request=fail))(hello))
    assert answer.status == 500
    assert b"42" not in answer.body
    assert "the secret is 42" in caplog.text


async def test_an_early_answer_leaves_through_the_policies_it_came_in_by_and_only_those() -> None:
    seen: list[str] = []
    stack = Stack(
        hooks(on_response=lambda exchange: seen.append("outer")),
        hooks(on_request=lambda exchange: PlainTextResponse("early")),
        hooks(on_request=lambda exchange: seen.append("in"), on_response=lambda exchange: seen.append("inner")),
    )
    answer = await call(stack(hello))
    assert answer.body == b"early"
    assert seen == ["outer"]


@pytest.mark.parametrize("line", [("x-a", "b\r\nset-cookie: c=d"), (b"x-a", b"b\nc"), ("x a", "b"), (b"", b"b")])
@pytest.mark.parametrize("change", ["set", "append"])
def test_a_response_takes_no_line_that_is_none(change: str, line: Any) -> None:
    head = ResponseHead(200, [])
    with pytest.raises(ValueError, match="header"):
        getattr(head, change)(*line)
    assert head.headers == []


def test_a_response_takes_text_as_well_as_bytes() -> None:
    head = ResponseHead(200, [(b"x-a", b"1")])
    head.set("X-A", "2")
    head.append("x-b", "3")
    head.remove("X-a")
    assert head.headers == [(b"x-b", b"3")]


async def test_a_response_refused_on_its_way_out_is_replaced_whole() -> None:
    answer = await call(Stack(hooks(on_response=refuse))(hello))
    assert answer.status == 403
    assert b"hello" not in answer.body
    assert answer.complete


async def test_policies_further_out_see_the_refusal_that_replaced_the_response() -> None:
    seen: list[Any] = []
    outer = hooks(on_response=lambda exchange: seen.append((exchange.response.status, exchange.refusal.code)))
    await call(Stack(outer, hooks(on_response=refuse))(hello))
    assert seen == [(403, "no")]


async def test_a_policy_that_refuses_a_response_is_told_of_its_end_and_not_that_it_was_sent() -> None:
    seen: list[str] = []

    def noting(name: str, **more: Any) -> Hooks:
        return hooks(
            on_sent=lambda exchange: seen.append(f"{name} sent"),
            on_end=lambda exchange: seen.append(f"{name} end"),
            **more,
        )

    await call(Stack(noting("outer"), noting("refusing", on_response=refuse))(hello))
    assert sorted(seen) == ["outer end", "outer sent", "refusing end"]


async def test_an_app_that_streams_on_after_its_response_was_replaced_is_told_to_stop() -> None:
    told: list[str] = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except ResponseOver as error:
            told.append(str(error))
            raise

    answer = await call(Stack(hooks(on_response=refuse))(endless))
    assert answer.status == 403
    assert told == ["the response was replaced"]


async def grouped(scope: Scope, receive: Receive, send: Send) -> None:
    """Send from a task of its own, which is told with others that the response was replaced."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hello, scope, receive, send)


async def test_tasks_of_an_app_whose_response_was_replaced_end_it_quietly() -> None:
    seen: list[BaseException | None] = []
    outer = hooks(on_end=lambda exchange: seen.append(exchange.error))
    inner = hooks(on_end=lambda exchange: seen.append(exchange.error))
    answer = await call(Stack(outer, hooks(on_response=refuse), lambda app: app, inner)(grouped))
    assert answer.status == 403
    assert seen == [None, None]


async def streaming_in_a_task(scope: Scope, receive: Receive, send: Send) -> None:
    """As Starlette streams: what its task is told comes out of the group as one error among several."""

    async def stream() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream)


async def test_tasks_that_stream_on_after_the_response_was_replaced_end_it_quietly() -> None:
    seen: list[BaseException | None] = []
    outer = hooks(on_end=lambda exchange: seen.append(exchange.error))
    inner = hooks(on_end=lambda exchange: seen.append(exchange.error))
    answer = await call(Stack(outer, hooks(on_response=refuse), lambda app: app, inner)(streaming_in_a_task))
    assert answer.status == 403
    assert seen == [None, None]


async def test_what_else_a_task_of_such_an_app_raises_is_raised() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hello, scope, receive, send)
            raise RuntimeError("another matter")

    with pytest.raises(BaseExceptionGroup) as caught:
        await call(Stack(hooks(on_response=refuse))(failing))
    assert caught.group_contains(RuntimeError)


async def test_background_work_of_an_app_whose_response_was_replaced_still_runs() -> None:
    done: list[bool] = []

    async def work() -> None:
        done.append(True)

    answer = await call(Stack(hooks(on_response=refuse))(PlainTextResponse("x", background=BackgroundTask(work))))
    assert answer.status == 403
    assert done == [True]


async def test_a_tap_that_fails_breaks_the_response_off() -> None:
    """The head is out: a clean end would be a lie."""

    def tap(chunk: bytes, last: bool) -> bytes:
        raise ZeroDivisionError

    answer = Answer()
    with pytest.raises(ZeroDivisionError):
        await call(Stack(hooks(on_response=lambda exchange: tap, taps_body=True))(hello), answer=answer)
    assert answer.status == 200
    assert not answer.complete


async def test_a_tap_must_be_announced(caplog: pytest.LogCaptureFixture) -> None:
    answer = await call(Stack(hooks(on_response=lambda exchange: lambda chunk, last: chunk))(hello))
    assert answer.status == 500
    assert "set taps_body = True" in caplog.text


async def test_streams_pass_chunk_by_chunk() -> None:
    """Nothing waits for the next chunk: each is out before the app makes another."""
    seen: list[int] = []
    answer = Answer()

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            seen.append(len(answer.messages))
        await send({"type": "http.response.body", "body": b""})

    upper = hooks(on_response=lambda exchange: lambda chunk, last: chunk.upper(), taps_body=True)
    await call(Stack(upper, hooks(on_end=lambda exchange: None))(counting), answer=answer)
    assert seen == [2, 3, 4]
    assert answer.body == b"XXX"


async def test_ways_past_a_tap_are_hidden_from_the_app_and_left_to_the_server() -> None:
    offered: list[set[str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        offered.append(set(scope["extensions"]))
        await hello(scope, receive, send)

    extensions = {"http.response.pathsend": {}, "http.response.trailers": {}, "tls": {}}
    await call(Stack(hooks(on_response=lambda exchange: None, taps_body=True))(app), extensions=extensions)
    await call(Stack(hooks(on_response=lambda exchange: None))(app), extensions=extensions)
    assert offered == [{"tls"}, {"http.response.pathsend", "http.response.trailers", "tls"}]
    assert len(extensions) == 3


@pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend"])
async def test_what_is_sent_past_a_tap_all_the_same_breaks_the_response_off(kind: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": kind, "more_body": True})
        await send({"type": "http.response.body", "body": b"tail"})

    answer = Answer()
    with pytest.raises(RuntimeError, match="was not offered"):
        await call(
            Stack(hooks(on_response=lambda exchange: lambda chunk, last: chunk, taps_body=True))(app), answer=answer
        )
    assert [each["type"] for each in answer.messages] == ["http.response.start"]


async def test_trailers_end_the_response() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        seen.append("body")
        await send({"type": "http.response.trailers", "headers": []})

    await call(Stack(hooks(on_sent=lambda exchange: seen.append("sent")))(app))
    assert seen == ["body", "sent"]


async def test_background_work_holds_nothing() -> None:
    seen: list[str] = []

    async def work() -> None:
        seen.append("background")

    app = PlainTextResponse("x", background=BackgroundTask(work))
    await call(Stack(hooks(on_end=lambda exchange: seen.append("end")))(app))
    assert seen == ["end", "background"]


async def test_a_cancelled_exchange_ends() -> None:
    ended: list[bool] = []

    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        cancel.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as cancel:
        await call(Stack(hooks(on_end=lambda exchange: ended.append(exchange.completed)))(stuck))
    assert ended == [False]


async def test_an_exchange_cancelled_on_its_way_in_ends_for_those_it_had_passed() -> None:
    ended: list[str] = []

    async def stuck(exchange: Exchange) -> None:
        cancel.cancel()
        await anyio.sleep_forever()

    stack = Stack(
        hooks(on_end=lambda exchange: ended.append("first")),
        hooks(on_request=stuck, on_end=lambda exchange: ended.append("second")),
    )
    with anyio.CancelScope() as cancel:
        await call(stack(hello))
    assert ended == ["first"]


async def test_an_exchange_cancelled_on_its_way_in_leaves_the_scope_clean() -> None:
    async def stuck(exchange: Exchange) -> None:
        assert KEY in scope
        cancel.cancel()
        await anyio.sleep_forever()

    async def nobody(*message: Message) -> Message:
        raise AssertionError

    scope = http_scope()
    with anyio.CancelScope() as cancel:
        await Stack(hooks(on_request=stuck))(hello)(scope, nobody, nobody)
    assert KEY not in scope


@pytest.mark.parametrize("suspended", [False, True])
async def test_an_exchange_ends_once_though_another_task_sends_on_when_the_app_has_returned(suspended: bool) -> None:
    """Whether its end comes after that of the app, or was on its way when the app returned."""
    ended: list[bool] = []
    returned = anyio.Event()

    async def sent(exchange: Exchange) -> None:
        await returned.wait()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def finish() -> None:
            if not suspended:
                await returned.wait()
            await send({"type": "http.response.body", "body": b""})

        await send({"type": "http.response.start", "status": 200, "headers": []})
        tasks.start_soon(finish)
        await anyio.wait_all_tasks_blocked()

    stack = Stack(hooks(on_sent=sent, on_end=lambda exchange: ended.append(exchange.completed)))
    async with anyio.create_task_group() as tasks:
        await call(stack(app))
        returned.set()
    assert ended == [suspended]


async def test_an_exchange_ends_when_the_client_leaves() -> None:
    ended: list[bool] = []
    stack = Stack(hooks(on_end=lambda exchange: ended.append(exchange.completed)))

    async def chunks() -> Any:
        for _ in range(100):
            yield b"x"

    async with aclosing(chunks()) as body:
        with pytest.raises(Exception, match=r"^$|client|ClientDisconnect"):
            await call(stack(StreamingResponse(body)), leave_after=3, asgi={"version": "3.0", "spec_version": "2.4"})
    assert ended == [False]


async def test_one_failing_end_does_not_keep_the_others_from_running(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    def fail(exchange: Exchange) -> None:
        raise RuntimeError("oops")

    stack = Stack(
        hooks(on_end=lambda exchange: ended.append("a")),
        hooks(on_end=fail),
        hooks(on_end=lambda exchange: ended.append("c")),
    )
    answer = await call(stack(hello))
    assert answer.body == b"hello"
    assert sorted(ended) == ["a", "c"]
    assert "oops" in caplog.text


class Load:
    """What an exchange holds in memory."""


def refuse_for_a_reason(exchange: Exchange) -> None:
    try:
        int("no number")
    except ValueError:
        raise Refusal(400, "no") from None


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("oops")


@pytest.mark.parametrize(
    ("inner", "app"),
    [
        (hooks(on_request=refuse), hello),
        (hooks(on_request=refuse_for_a_reason), hello),
        (hooks(on_end=lambda exchange: None), fail),
    ],
    ids=["refused", "refused for a reason", "raised"],
)
async def test_an_exchange_that_failed_is_let_go_without_the_collector(inner: Policy, app: ASGIApp) -> None:
    """Tracebacks held it, and its bodies with it: half a gigabyte after 400 responses that were cut short."""
    held: list[weakref.ref[Load]] = []

    def load(exchange: Exchange) -> None:
        exchange.state["load"] = load = Load()
        held.append(weakref.ref(load))

    stack = Stack(hooks(on_request=load, on_end=lambda exchange: None), inner)(app)
    gc.disable()
    try:
        with suppress(RuntimeError):
            await call(stack)
        assert [each() for each in held] == [None]
    finally:
        gc.enable()


async def test_what_is_cut_short_ends_from_the_inside_out() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    seen: list[str] = []
    outer, inner = (hooks(on_end=lambda exchange, name=name: seen.append(name)) for name in ("outer", "inner"))
    with pytest.raises(LookupError):
        await call(Stack(outer, inner)(app))
    assert seen == ["inner", "outer"]


async def test_what_an_app_raises_passes_and_is_seen() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await call(Stack(hooks(on_end=lambda exchange: seen.append(type(exchange.error))))(app))
    assert seen == [LookupError]


async def test_a_response_object_used_again_is_not_changed() -> None:
    response = PlainTextResponse("x")
    before = list(response.raw_headers)
    stack = Stack(hooks(on_response=lambda exchange: exchange.response.append(b"x-a", b"1")))(response)
    for _ in range(2):
        answer = await call(stack)
        assert answer.all(b"x-a") == [b"1"]
    assert response.raw_headers == before


async def test_a_hook_that_awaits_changes_a_response_as_one_that_does_not() -> None:
    async def change(exchange: Exchange) -> None:
        await anyio.lowlevel.checkpoint()
        assert exchange.response is not None
        exchange.response.append(b"x-a", b"1")

    answer = await call(Stack(hooks(on_response=change))(hello))
    assert (answer.status, answer.header(b"x-a"), answer.body) == (200, b"1", b"hello")


async def test_a_message_that_is_sent_again_is_not_changed() -> None:
    head = {"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")], "more": 1}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(head)
        await send({"type": "http.response.body", "body": b""})

    def change(exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.status = 201
        exchange.response.append(b"x-a", b"1")

    answer = await call(Stack(hooks(on_response=change))(app))
    assert answer.head == {**head, "status": 201, "headers": [(b"x-app", b"1"), (b"x-a", b"1")]}
    assert head == {"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")], "more": 1}


@pytest.mark.parametrize("first", [b"x-app", b"X-App"])
@pytest.mark.parametrize("line", [(b"X-App", b"A"), [b"x-app", b"A"], [b"X-APP", b"A"]])
async def test_lines_of_a_response_are_pairs_under_lower_case_names(first: bytes, line: Any) -> None:
    """However an app writes them, and whichever way it wrote them before."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": b""})

    stack = Stack(hooks(on_response=lambda exchange: None))(app)
    lines: list[Any] = [(first, b"B")]
    await call(stack)
    lines = [(b"x-app", b"B"), line]
    answer = await call(stack)
    assert answer.headers == [(b"x-app", b"B"), (b"x-app", b"A")]


async def test_lines_that_are_lists_every_one_become_pairs_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [[b"x-app", b"1"], [b"x-app", b"2"]]})
        await send({"type": "http.response.body", "body": b""})

    stack = Stack(hooks(on_response=lambda exchange: None))(app)
    for _ in range(2):  # the second time its names are known
        assert (await call(stack)).headers == [(b"x-app", b"1"), (b"x-app", b"2")]


def test_names_of_response_headers_are_remembered_within_bounds() -> None:
    for number in range(3_000):
        ResponseHead(200, [(b"invented-%d" % number, b""), (b"long" * number, b"")])
    ResponseHead(200, [(b"invented-%d" % number, b"") for number in range(3_000)])
    assert len(exchange_module._LOWER) <= 2048
    assert all(len(name) <= 64 for name in exchange_module._LOWER)


async def test_other_scopes_and_messages_pass_untouched() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "anything", "more": scope["more"]})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    await Stack(hooks(on_request=refuse))(app)({"type": "unheard.of", "more": 1}, receive, send)
    assert sent == [{"type": "anything", "more": 1}]


async def test_early_hints_pass_before_the_head() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a>"]})
        await hello(scope, receive, send)

    answer = await call(Stack(hooks(on_response=lambda exchange: None))(app))
    assert [each["type"] for each in answer.messages] == [
        "http.response.early_hint", "http.response.start", "http.response.body",
    ]  # fmt: skip


async def test_a_policy_that_keeps_its_exchange_in_no_cycle_leaves_the_scope_clean() -> None:
    scope = http_scope()

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        assert KEY in scope

    await Stack(hooks(on_request=lambda exchange: None))(hello)(scope, receive, send)
    assert KEY not in scope


async def test_the_same_object_twice_keeps_its_state_apart() -> None:
    """Nested, each has a ring of its own; a fused ring would mix up what they keep."""

    @dataclass(frozen=True, kw_only=True)
    class Depth(Policy):
        def on_request(self, exchange: Exchange) -> None:
            assert self not in exchange.state
            exchange.state[self] = True

        def on_end(self, exchange: Exchange) -> None:
            assert exchange.state.pop(self)

    twice = Depth()
    answer = await call(Stack(twice, twice)(hello))
    assert answer.status == 200


async def test_equal_policies_keep_their_state_apart() -> None:
    """A policy that is its own hooks is equal to any other of the same fields, and finds its state by equality."""

    @dataclass(frozen=True, kw_only=True)
    class Once(Policy):
        def on_request(self, exchange: Exchange) -> None:
            assert self not in exchange.state
            exchange.state[self] = True

    answer = await call(Stack(Once(), Once())(hello))
    assert answer.status == 200


async def test_hygiene_runs_before_any_policy() -> None:
    seen: list[str] = []
    stack: ASGIApp = Stack(hooks(on_request=lambda exchange: seen.append(exchange.path)))(hello)
    refused = await call(stack, path="/public/../admin")
    merged = await call(stack, path="//admin")
    assert (refused.status, merged.status) == (400, 200)
    assert seen == ["/admin"]


async def test_hygiene_guards_a_websocket_too() -> None:
    answer = await connect(Stack(hooks(on_request=lambda exchange: None))(accepting), path="/a\0b", raw_path=b"/a%00b")
    assert answer.status == 400


async def test_the_app_finds_the_exchange_in_its_scope() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found = Exchange.of(scope)
        assert found is not None
        await PlainTextResponse(found.attributes["note"])(scope, receive, send)

    answer = await call(Stack(hooks(on_request=lambda exchange: exchange.attributes.update(note="hi")))(app))
    assert answer.body == b"hi"
