"""Responses get a tag of their bytes, and who names it is spared the body; nothing is held that must flow."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from apim_middleware import Cache, SetHeader, Stack
from apim_middleware.errors import ConfigError, UpstreamBroken, UpstreamTimeout
from apim_middleware.policies.etag import ETag
from apim_middleware.policy import Policy
from apim_middleware.testing import Answer, call, connect
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

pytestmark = pytest.mark.anyio


def answering(*chunks: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = (), **more: Any) -> ASGIApp:
    """An app that answers GET and HEAD alike, as frameworks do, in these chunks."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})
        for number, chunk in enumerate(chunks, 1):
            await send({"type": "http.response.body", "body": chunk, "more_body": number < len(chunks)})

    return app


async def tag_of(app: ASGIApp) -> bytes:
    tag = (await call(app)).header(b"etag")
    assert tag is not None
    return tag


def asking(name: bytes, *tags: bytes) -> RawHeaders:
    return [(name, tag) for tag in tags]


HELLO = ETag()(answering(b"hel", b"lo", headers=[(b"Content-Type", b"text/plain"), (b"Cache-Control", b"max-age=9")]))


# Tagged


async def test_a_response_gets_a_strong_tag_and_the_length_of_its_body():
    answer = await call(HELLO)
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.header(b"etag") == await tag_of(HELLO)
    assert not (await tag_of(HELLO)).startswith(b"W/")
    assert answer.header(b"content-length") == b"5"
    assert len(answer.messages) == 2


async def test_the_tag_is_that_of_the_bytes_and_what_describes_them():
    same = await tag_of(ETag()(answering(b"hello", headers=[(b"content-type", b"text/plain")])))
    other_bytes = await tag_of(ETag()(answering(b"Hello", headers=[(b"content-type", b"text/plain")])))
    other_type = await tag_of(ETag()(answering(b"hello", headers=[(b"content-type", b"text/html")])))
    assert len({await tag_of(HELLO), same, other_bytes, other_type}) == 3
    assert same == await tag_of(HELLO)


async def test_an_empty_body_is_a_body():
    assert (await call(ETag()(answering(b"")))).header(b"content-length") == b"0"


async def test_a_wrong_length_is_set_right():
    answer = await call(ETag(max_bytes=9)(answering(b"hello", headers=[(b"content-length", b"7")])))
    assert answer.all(b"content-length") == [b"5"]


async def test_the_header_list_of_a_response_that_is_used_again_is_not_touched():
    lines = [(b"content-type", b"text/plain")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": b"x"})

    await call(ETag()(app))
    assert lines == [(b"content-type", b"text/plain")]


# Conditions


async def test_who_has_it_gets_304_without_what_describes_a_body():
    tag = await tag_of(HELLO)
    answer = await call(HELLO, headers=asking(b"if-none-match", b'"other"', b"W/" + tag))
    assert (answer.status, answer.body, answer.complete) == (304, b"", True)
    assert answer.headers == [(b"cache-control", b"max-age=9"), (b"etag", tag)]


@pytest.mark.parametrize("asked", [b'"other"', b"", b"hello", b'W/"other", "more"'])
async def test_who_has_another_gets_the_response(asked: bytes):
    assert (await call(HELLO, headers=asking(b"if-none-match", asked))).body == b"hello"


async def test_any_tag_will_do_for_a_star():
    assert (await call(HELLO, headers=asking(b"if-none-match", b"*"))).status == 304
    assert (await call(HELLO, headers=asking(b"if-match", b"*"))).status == 200


async def test_who_wants_a_state_that_is_gone_is_refused():
    answer = await call(HELLO, headers=asking(b"if-match", b'"other"'))
    assert (answer.status, b'"precondition-failed"' in answer.body) == (412, True)
    assert (await call(HELLO, headers=asking(b"if-match", await tag_of(HELLO)))).status == 200


async def test_if_match_goes_before_if_none_match():
    headers = [*asking(b"if-match", b'"other"'), *asking(b"if-none-match", await tag_of(HELLO))]
    assert (await call(HELLO, headers=headers)).status == 412


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_the_apps(method: str):
    answer = await call(HELLO, method, headers=[*asking(b"if-match", b'"x"'), *asking(b"if-none-match", b"*")])
    assert (answer.status, answer.header(b"etag"), answer.body) == (200, None, b"hello")


async def test_the_policies_in_front_see_what_goes_out():
    seen: list[Any] = []

    class Watching(Policy):
        def on_end(self, exchange: Any) -> None:
            seen.append((exchange.response.status, exchange.refusal and exchange.refusal.code, exchange.completed))

    stack = Stack(Watching(), SetHeader(name="x-a", value="1", on="response"), ETag())(answering(b"hello"))
    for name, tag in ((b"if-none-match", b"*"), (b"if-match", b'"x"')):
        assert (await call(stack, headers=asking(name, tag))).header(b"x-a") == b"1"
    assert seen == [(304, None, True), (412, "precondition-failed", True)]


# HEAD


async def test_head_has_the_tag_of_get_when_the_app_gives_the_body_for_it():
    answer = await call(HELLO, "HEAD")
    assert (answer.header(b"etag"), answer.header(b"content-length")) == (await tag_of(HELLO), b"5")
    assert answer.body == b""
    assert (await call(HELLO, "HEAD", headers=asking(b"if-none-match", await tag_of(HELLO)))).status == 304


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")], [(b"content-length", b"0")]])
async def test_head_has_no_tag_when_the_app_gives_none_of_the_body(headers: RawHeaders):
    answer = await call(ETag()(answering(b"", headers=headers)), "HEAD", headers=asking(b"if-none-match", b"*"))
    assert (answer.status, answer.headers) == (200, headers)


async def test_what_the_app_says_behind_its_last_byte_passes():
    odd: Message = {"type": "http.response.debug", "info": {}}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(b"" if scope["method"] == "HEAD" else b"x")(scope, receive, send)
        await send(odd)

    for method in ("GET", "HEAD"):
        messages = (await call(ETag()(app), method)).messages
        assert (len(messages), messages[-1]) == (3, odd)


# Left alone


@pytest.mark.parametrize(
    "app",
    [
        answering(b"hello", status=201),
        answering(b"hello", status=404),
        answering(b"", status=204),
        answering(b"hel", status=206, headers=[(b"content-range", b"bytes 0-2/5")]),
        answering(b"hello", headers=[(b"Cache-Control", b"private, No-Store")]),
        answering(b"x" * 11),
        answering(b"x" * 6, b"x" * 6),
        answering(b"x", headers=[(b"content-length", b"11")]),
        answering(b"data: 1\n\n", headers=[(b"content-type", b"text/event-stream; charset=utf-8")]),
        answering(b"hello", trailers=True),
    ],
)
async def test_what_cannot_or_need_not_be_tagged_passes_as_it_is(app: ASGIApp):
    direct = await call(app)
    answer = await call(ETag(max_bytes=10)(app), headers=asking(b"if-none-match", b'"x"'))
    assert (answer.status, answer.headers, answer.body) == (direct.status, direct.headers, direct.body)


async def test_a_response_that_has_a_tag_keeps_it_and_flows():
    app = ETag()(answering(b"hel", b"lo", headers=[(b"ETag", b'W/"7"')]))
    answer = await call(app)
    assert (len(answer.messages), answer.headers) == (3, [(b"ETag", b'W/"7"')])


async def test_the_conditions_on_a_tag_of_the_apps_own_are_answered_and_its_body_is_not_awaited():
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"ETag", b'"7"'), (b"x", b"y")]})
        try:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except OSError as error:
            told.append(type(error).__name__)
            raise RuntimeError("as Starlette does") from error

    answer = await call(ETag()(app), headers=asking(b"if-none-match", b'"7"'))
    assert (answer.status, answer.headers, answer.body) == (304, [(b"etag", b'"7"'), (b"x", b"y")], b"")
    assert told == ["ResponseOver"]


@pytest.mark.parametrize("asked", [b"if-none-match", b"if-match"])
async def test_what_the_app_raises_is_heard_though_the_client_got_another_answer(asked: bytes):
    """Failures of background tasks were told to nobody."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(b"x", headers=[(b"etag", b'"7"')])(scope, receive, send)
        raise LookupError("a background task")

    answer = Answer()
    with pytest.raises(LookupError):
        await call(ETag()(app), headers=asking(asked, b'"7"' if asked == b"if-none-match" else b'"8"'), answer=answer)
    assert answer.status == (304 if asked == b"if-none-match" else 412)


async def test_a_stream_flows_from_the_first_chunk_that_is_too_much():
    sizes: list[int] = []
    answer = Answer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            await send({"type": "http.response.body", "body": b"1234", "more_body": number < 4})
            sizes.append(len(answer.body))

    await call(ETag(max_bytes=10)(app), answer=answer)
    assert sizes == [0, 0, 12, 16, 20]


async def test_an_event_stream_flows_from_its_head_on():
    answer = Answer()
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        seen.append(len(answer.messages))
        await send({"type": "http.response.body", "body": b""})

    await call(ETag()(app), answer=answer)
    assert seen == [2]


async def test_what_the_app_does_after_its_last_byte_holds_nothing_up():
    answer = Answer()
    complete: list[bool] = []

    async def work() -> None:
        complete.append(answer.complete)

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x", background=BackgroundTask(work))

    await call(ETag()(Starlette(routes=[Route("/", endpoint)])), answer=answer)
    assert complete == [True]


async def test_starlettes_responses(tmp_path: Any):
    (tmp_path / "file").write_bytes(b"from a file")

    async def chunks() -> Any:
        yield "one"
        yield "two"

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(chunks())

    async def file(request: Request) -> FileResponse:
        return FileResponse(tmp_path / "file")

    app = ETag()(Starlette(routes=[Route("/stream", stream), Route("/file", file)]))
    tagged = await call(app, path="/stream")
    assert tagged.body == b"onetwo"
    headers = asking(b"if-none-match", tagged.header(b"etag") or b"")
    assert (await call(app, path="/stream", headers=headers)).status == 304
    tag = (await call(app, path="/file")).header(b"etag") or b""
    assert (await call(app, path="/file", headers=asking(b"if-none-match", tag))).status == 304
    pathsend = {"http.response.pathsend": {}}
    answer = await call(app, path="/file", extensions=pathsend)
    assert answer.messages[-1]["type"] == "http.response.pathsend"


async def test_a_cache_in_front_keeps_the_tag():
    app = Stack(Cache(ttl=60), ETag())(answering(b"hello"))
    tag = await tag_of(app)
    assert (await call(app, headers=asking(b"if-none-match", tag))).status == 304


# Endings


async def test_an_app_that_fails_while_its_response_is_held_sends_nothing_of_it():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("app")

    answer = Answer()
    with pytest.raises(LookupError):
        await call(ETag()(app), answer=answer)
    assert answer.messages == []


async def test_an_upstream_that_breaks_off_what_is_held_is_a_502():
    """It was a 500 of the server."""

    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise UpstreamBroken("gone")

    answer = await call(Stack(SetHeader(name="x-seen", value="yes", on="response"), ETag())(proxied))
    assert (answer.status, answer.header(b"x-seen")) == (502, b"yes")
    assert b'"code": "upstream-broken"' in answer.body


async def test_an_upstream_that_takes_too_long_over_what_is_held_is_a_504():
    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise UpstreamTimeout("slow")

    answer = await call(ETag()(proxied))
    assert answer.status == 504


async def test_an_upstream_that_breaks_off_what_flows_breaks_it_off():
    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
        raise UpstreamBroken("gone")

    answer = Answer()
    with pytest.raises(UpstreamBroken):
        await call(ETag(max_bytes=9)(proxied), answer=answer)
    assert (answer.status, answer.body) == (200, b"x" * 10)


async def test_an_app_that_never_ends_its_response_sends_nothing_of_it():
    answer = Answer()
    await call(ETag()(answering()), answer=answer)
    assert answer.messages == []


async def test_a_client_that_leaves_is_no_secret_to_the_app():
    with pytest.raises(OSError, match="gone"):
        await call(HELLO, leave_after=0)


async def test_a_client_that_leaves_is_seen_while_the_response_is_held():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        heard: Message = {}
        while heard.get("type") != "http.disconnect":
            heard = await receive()

    with anyio.fail_after(5):
        await call(ETag()(app), leave_after=0)


async def test_a_websocket_passes():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    assert (await connect(ETag()(app))).headers == []


def test_no_room_is_a_mistake():
    with pytest.raises(ConfigError, match="is no room for a body"):
        ETag(max_bytes=0)
