"""No more of a request body passes than is allowed, however it is sent, and nothing of it is held."""

from collections.abc import AsyncIterable, Sequence
from typing import Any

import anyio
import pytest

from apim_middleware import SetHeader, Stack
from apim_middleware.errors import ConfigError, Refusal, TransportError
from apim_middleware.policies.size import LimitBody
from apim_middleware.policy import Policy
from apim_middleware.protocols import UpstreamRequest, UpstreamResponse
from apim_middleware.proxy.app import Proxy
from apim_middleware.testing import Answer, call, connect
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio

CHUNKED = [(b"transfer-encoding", b"chunked")]


class Reader:
    """An app that reads the whole body, as frameworks do, and fails when its client leaves."""

    def __init__(self) -> None:
        self.read = 0
        self.asked = 0
        self.heard: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        more = True
        while more:
            message = await receive()
            self.heard.append(message["type"])
            if message["type"] == "http.disconnect":
                raise RuntimeError("client disconnected")
            self.read += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % self.read})


def sized(length: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % length)]


async def post(app: ASGIApp, chunks: bytes | Sequence[bytes], headers: Any = CHUNKED, **more: Any) -> Answer:
    return await call(app, "POST", body=chunks, headers=headers, **more)


@pytest.mark.parametrize(
    ("cap", "chunks", "headers"),
    [
        (10, [b""], []),
        (10, [b"0123456789"], sized(10)),
        (10, [b"01234", b"56789"], CHUNKED),
        (10, [b"01234", b"56789", b""], CHUNKED),
        (0, [b""], sized(0)),
        (0, [b""], []),
        (0, [b"", b""], CHUNKED),
    ],
)
async def test_what_fits_passes(cap: int, chunks: list[bytes], headers: Any):
    answer = await post(LimitBody(max_bytes=cap)(Reader()), chunks, headers)
    assert (answer.status, answer.body) == (200, b"%d" % sum(map(len, chunks)))


async def test_a_body_that_says_it_is_too_large_is_refused_before_the_app_is_asked():
    app = Reader()
    answer = await post(LimitBody(max_bytes=10)(app), b"0123456789a", sized(11))
    assert (answer.status, answer.header(b"content-type")) == (413, b"application/problem+json")
    assert b'"body-too-large"' in answer.body
    assert answer.header(b"connection") == b"close"
    assert app.asked == 0


@pytest.mark.parametrize("chunks", [[b"01234", b"56789", b"a", b"more"], [b"0123456789a"], [b"x" * 100]])
@pytest.mark.parametrize("headers", [CHUNKED, sized(10)])
async def test_a_body_that_turns_out_too_large_is_refused_when_it_does(chunks: list[bytes], headers: Any):
    app = Reader()
    answer = await post(LimitBody(max_bytes=10)(app), chunks, headers)
    assert (answer.status, answer.header(b"connection")) == (413, b"close")
    assert answer.complete
    assert app.read <= 10
    assert app.heard[-1] == "http.disconnect"


async def test_on_http_2_a_body_needs_no_announcement_and_is_counted():
    app = Reader()
    answer = await post(LimitBody(max_bytes=10)(app), [b"0123456", b"789a"], [], http_version="2")
    assert (answer.status, answer.header(b"connection")) == (413, None)


async def test_the_refusal_passes_the_policies_in_front_and_is_known_to_them():
    seen: list[Refusal | None] = []

    class Watching(Policy):
        def on_end(self, exchange: Any) -> None:
            seen.append(exchange.refusal)

    stack = Stack(Watching(), SetHeader(name="x-a", value="1", on="response"), LimitBody(max_bytes=1))
    answer = await post(stack(Reader()), [b"01", b"2"])
    assert (answer.status, answer.header(b"x-a")) == (413, b"1")
    assert [each and each.code for each in seen] == ["body-too-large"]


async def test_the_answer_of_an_app_that_takes_a_missing_body_for_a_bad_one_goes_nowhere():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"bad"})

    assert (await post(LimitBody(max_bytes=1)(app), [b"01", b"2"])).status == 413


async def test_an_app_that_streams_on_is_told_to_stop():
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.body", "body": b"on and on", "more_body": True})
        except OSError as error:
            told.append(type(error).__name__)
            raise

    assert (await post(LimitBody(max_bytes=1)(app), [b"01", b"2"])).status == 413
    assert told == ["ResponseOver"]


async def test_a_response_that_has_begun_is_broken_off():
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive())["type"] == "http.request":
            await send({"type": "http.response.body", "body": message["body"], "more_body": message["more_body"]})

    answer = Answer()
    with pytest.raises(Refusal):
        await post(LimitBody(max_bytes=5)(echo), [b"012", b"345", b"678"], answer=answer)
    assert (answer.status, answer.body, answer.complete) == (200, b"012", False)


async def test_a_response_that_is_over_stays_what_it_was():
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})
        while (await receive())["type"] == "http.request":
            pass

    assert (await post(LimitBody(max_bytes=5)(hasty), [b"0123456", b"7"])).body == b"fine"


async def test_a_file_that_was_sent_is_over_as_well():
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/x"})
        await receive()

    answer = await post(LimitBody(max_bytes=5)(hasty), [b"0123456", b"7"])
    assert [each["type"] for each in answer.messages] == ["http.response.start", "http.response.pathsend"]


async def test_an_app_that_asks_on_hears_the_same_each_time_and_the_refusal_is_sent_once():
    heard: list[str] = []

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([(await receive())["type"] for _ in range(3)])

    answer = await post(LimitBody(max_bytes=5)(deaf), [b"0123456", b"7", b"8", b"9"])
    assert [each["type"] for each in answer.messages] == ["http.response.start", "http.response.body"]
    assert heard == ["http.disconnect"] * 3


async def test_bodies_flow_chunk_by_chunk():
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            seen.append(await receive())
            await send({"type": "http.response.body", "body": b"x", "more_body": len(seen) < 3})

    answer = await post(LimitBody(max_bytes=3)(app), [b"1", b"2", b"3"])
    assert [message["body"] for message in seen] == [b"1", b"2", b"3"]
    assert len(answer.messages) == 4


async def test_the_error_of_an_app_is_not_touched():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("app")

    with pytest.raises(LookupError):
        await post(LimitBody(max_bytes=3)(app), [b"1"])


async def test_a_client_that_leaves_is_seen_leaving():
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise OSError

    scope = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "headers": [(b"host", b"a"), *CHUNKED]}
    await LimitBody(max_bytes=3)(app)(scope, receive, send)
    assert heard == ["http.disconnect"]


async def test_a_client_that_is_gone_when_it_is_refused_does_no_harm():
    app = Reader()
    with anyio.fail_after(5):
        answer = await post(LimitBody(max_bytes=1)(app), [b"01", b"2"], leave_after=0)
    assert answer.messages == []


async def test_messages_of_a_websocket_pass():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await send({"type": "websocket.close"})

    answer = await connect(LimitBody(max_bytes=1)(app), texts=["more than one"])
    assert answer.messages[1]["text"] == "more than one"


async def test_an_upstream_request_ends_when_the_body_turns_out_too_large():
    sent: list[bytes] = []

    class Upstream:
        async def send(self, request: UpstreamRequest) -> UpstreamResponse:
            assert isinstance(request.body, AsyncIterable)
            async for chunk in request.body:
                sent.append(chunk)  # noqa: PERF401 - one by one, for it breaks off
            raise TransportError("the body came to an end that it should not have")

        async def aclose(self) -> None:
            pass

    proxy = Proxy("http://upstream.test", transport=Upstream())
    answer = await post(LimitBody(max_bytes=5)(proxy), [b"012", b"34", b"5", b"6"])
    assert answer.status == 413
    assert b"".join(sent) == b"01234"


def test_a_negative_size_is_a_mistake():
    with pytest.raises(ConfigError, match=r"LimitBody\.max_bytes: -1 is no size"):
        LimitBody(max_bytes=-1)
