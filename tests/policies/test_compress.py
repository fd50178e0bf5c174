"""Who can read smaller bodies gets them, streams flow, and nobody takes one representation for another."""

import random
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route
from tests.http.test_content_codings import decoded

from apim_middleware import SetHeader, Stack
from apim_middleware._http import content_codings
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.policies.compress import Compress
from apim_middleware.policies.etag import ETag
from apim_middleware.policy import Policy
from apim_middleware.testing import Answer, call, connect
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

pytestmark = pytest.mark.anyio

TEXT = b"All work and no play makes Jack a dull boy. " * 100
PLAIN = (b"content-type", b"text/plain; charset=utf-8")
GZIP = [(b"accept-encoding", b"gzip")]


def answering(
    *chunks: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = (PLAIN,), **more: Any
) -> ASGIApp:
    """An app that answers in these chunks."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})
        for number, chunk in enumerate(chunks, 1):
            await send({"type": "http.response.body", "body": chunk, "more_body": number < len(chunks)})

    return app


def whole(body: bytes = TEXT, *headers: tuple[bytes, bytes], status: int = 200) -> ASGIApp:
    """An app that answers as frameworks do: all at once, with its length."""
    return answering(body, status=status, headers=[PLAIN, (b"Content-Length", b"%d" % len(body)), *headers])


async def asked(
    app: ASGIApp, accept: bytes = b"gzip", *more: tuple[bytes, bytes], method: str = "GET", **given: Any
) -> Answer:
    return await call(app, method, headers=[(b"accept-encoding", accept), *more], **given)


def body_of(answer: Answer) -> bytes:
    coding: Any = (answer.header(b"content-encoding") or b"").decode()
    return decoded(coding, answer.body) if coding else answer.body


# Which coding


@pytest.mark.parametrize(
    ("accept", "coding"),
    [(b"gzip, deflate, br, zstd", b"zstd"), (b"gzip, br", b"br"), (b"gzip", b"gzip"), (b"zstd;q=0.1, gzip", b"gzip")],
)
async def test_the_client_gets_the_coding_it_likes_best(accept: bytes, coding: bytes):
    answer = await asked(Compress()(whole()), accept)
    assert (answer.header(b"content-encoding"), body_of(answer)) == (coding, TEXT)
    assert answer.header(b"content-length") == b"%d" % len(answer.body)
    assert len(answer.body) < len(TEXT) / 10
    assert answer.header(b"vary") == b"Accept-Encoding"


@pytest.mark.parametrize(
    "headers", [[], [(b"accept-encoding", b"deflate")], [(b"accept-encoding", b"identity, gzip;q=0.5")]]
)
async def test_who_wants_none_gets_none_and_is_told_that_there_are_others(headers: RawHeaders):
    answer = await call(Compress()(whole()), headers=headers)
    assert answer.headers == [PLAIN, (b"content-length", b"4400"), (b"vary", b"Accept-Encoding")]
    assert answer.body == TEXT


async def test_codings_are_offered_in_the_order_given():
    policy = Compress(codings=("gzip", "br"))
    assert (await asked(policy(whole()), b"br, gzip, zstd")).header(b"content-encoding") == b"gzip"
    assert (await asked(policy(whole()), b"zstd")).header(b"content-encoding") is None


async def test_several_lines_of_accept_encoding_are_one():
    answer = await asked(Compress()(whole()), b"gzip;q=0.5", (b"accept-encoding", b"br"))
    assert answer.header(b"content-encoding") == b"br"


async def test_without_the_extra_there_is_gzip(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(content_codings, "find_spec", lambda name: None)
    assert (await asked(Compress()(whole()), b"br, zstd, gzip;q=0.1")).header(b"content-encoding") == b"gzip"
    with pytest.raises(ConfigError, match=r"holds 'br', for which brotli is missing.*apim-middleware\[compress\]"):
        Compress(codings=("gzip", "br"))


# What is worth it


@pytest.mark.parametrize(
    ("content_type", "coded"),
    [
        (b"application/json", True),
        (b"Application/Problem+JSON; charset=utf-8", True),
        (b"image/svg+xml", True),
        (b"text/css", True),
        (b"image/png", False),
        (b"application/octet-stream", False),
        (b"application/grpc-web+proto", False),
        (b"text/event-stream", False),
        (b"TEXT/EVENT-STREAM; charset=utf-8", False),
        (b"xtext/plain", False),
        (b"", False),
    ],
)
async def test_types(content_type: bytes, coded: bool):
    answer = await asked(Compress()(answering(TEXT, headers=[(b"content-type", content_type)])))
    assert (answer.header(b"content-encoding") is not None, answer.header(b"vary") is not None) == (coded, coded)
    assert body_of(answer) == TEXT


async def test_types_of_ones_own():
    policy = Compress(types=("application/x.y",))
    assert (await asked(policy(answering(TEXT, headers=[(b"content-type", b"application/x.y")])))).header(b"vary")
    assert not (await asked(policy(answering(TEXT, headers=[(b"content-type", b"application/xzy")])))).header(b"vary")


@pytest.mark.parametrize("announced", [True, False])
async def test_small_bodies_stay_as_they_are(announced: bool):
    for size, coded in ((1023, False), (1024, True), (0, False)):
        app = whole(b"x" * size) if announced else answering(b"x" * size)
        answer = await asked(Compress()(app))
        assert (answer.header(b"content-encoding") is not None) == coded
        assert answer.header(b"vary") == b"Accept-Encoding"


async def test_who_can_read_nothing_else_gets_small_bodies_coded_too():
    answer = await asked(Compress()(whole(b"x")), b"gzip, identity;q=0")
    assert (answer.header(b"content-encoding"), body_of(answer)) == (b"gzip", b"x")
    assert (await asked(Compress()(whole(b"")), b"gzip, identity;q=0")).header(b"content-encoding") is None


async def test_a_body_that_would_only_grow_stays_as_it_is():
    noise = random.Random(1).randbytes(2000)
    answer = await asked(Compress()(whole(noise)))
    assert (answer.header(b"content-encoding"), answer.body) == (None, noise)


@pytest.mark.parametrize(
    "app",
    [
        whole(TEXT, (b"Content-Encoding", b"br")),
        whole(TEXT, (b"Cache-Control", b"public, No-Transform")),
        whole(TEXT, (b"Content-Range", b"bytes 0-4399/9000"), status=206),
        whole(TEXT, (b"Content-Digest", b"sha-256=:x:")),
        whole(TEXT, (b"Content-Range", b"bytes 0-4399/9000")),
        answering(b"", status=204, headers=[]),
        answering(b"", status=304, headers=[(b"etag", b'"1"'), (b"content-type", b"image/png")]),
        answering(TEXT, headers=[]),
        answering(TEXT, headers=[PLAIN, (b"content-length", b"many")]),
        answering(TEXT, trailers=True),
    ],
)
async def test_what_must_not_be_changed_is_not(app: ASGIApp):
    assert (await asked(Compress()(app))).messages == (await asked(app)).messages


async def test_errors_are_bodies_too():
    assert (await asked(Compress()(whole(TEXT, status=500)))).header(b"content-encoding") == b"gzip"


# The head


@pytest.mark.parametrize(
    ("sent", "becomes"),
    [
        ([], b"Accept-Encoding"),
        ([b"Origin"], b"Origin, Accept-Encoding"),
        ([b"Origin", b"Cookie, X"], b"Origin, Cookie, X, Accept-Encoding"),
        ([b"accept-encoding"], b"accept-encoding"),
        ([b"*"], b"*"),
    ],
)
async def test_vary_is_one_list(sent: list[bytes], becomes: bytes):
    for accept in (b"gzip", b"identity"):
        answer = await asked(Compress()(whole(TEXT, *[(b"Vary", value) for value in sent])), accept)
        assert answer.all(b"vary") == [becomes]


async def test_what_is_said_of_the_plain_bytes_is_not_said_of_the_coded():
    answer = await asked(Compress()(whole(TEXT, (b"Accept-Ranges", b"bytes"), (b"ETag", b'"1"'), (b"X", b"y"))))
    assert answer.headers == [
        PLAIN,
        (b"etag", b'"1--gzip"'),
        (b"x", b"y"),
        (b"vary", b"Accept-Encoding"),
        (b"content-encoding", b"gzip"),
        (b"content-length", b"%d" % len(answer.body)),
    ]


async def test_head_is_told_what_get_would_be():
    answer = await asked(Compress()(whole()), method="HEAD")
    assert (answer.header(b"content-encoding"), answer.header(b"content-length")) == (b"gzip", None)
    answer = await asked(Compress()(whole(b"small")), method="HEAD")
    assert (answer.header(b"content-encoding"), answer.header(b"content-length")) == (None, b"5")
    answer = await asked(Compress()(answering(b"")), method="HEAD")
    assert answer.headers == [PLAIN, (b"vary", b"Accept-Encoding")]


# Tags


class Tagged:
    """An app with a tag of its own, which answers conditions by it."""

    def __init__(self) -> None:
        self.seen: list[bytes | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self.seen.append(headers.get(b"if-none-match") or headers.get(b"if-match"))
        known = b'"1"' in (headers.get(b"if-none-match") or b"").split(b", ")
        head = [PLAIN, (b"etag", b'"1"')]
        await send({"type": "http.response.start", "status": 304 if known else 200, "headers": head})
        await send({"type": "http.response.body", "body": b"" if known else TEXT})


async def test_who_has_the_coded_representation_is_told_that_it_is_still_good():
    app = Tagged()
    tag = (await asked(Compress()(app))).header(b"etag") or b""
    answer = await asked(Compress()(app), b"gzip", (b"if-none-match", tag))
    assert (answer.status, answer.header(b"etag"), answer.header(b"vary")) == (304, b'"1--gzip"', b"Accept-Encoding")
    assert app.seen[-1] == b'"1--gzip", "1"'


async def test_who_has_the_plain_representation_is_told_that_it_is_still_good():
    answer = await asked(Compress()(Tagged()), b"gzip", (b"if-none-match", b'"1"'))
    assert (answer.status, answer.header(b"etag")) == (304, b'"1"')


async def test_who_has_another_coding_than_it_wants_now_gets_the_one_it_wants():
    answer = await asked(Compress()(Tagged()), b"br", (b"if-none-match", b'"1--gzip"'))
    assert (answer.status, answer.header(b"etag"), body_of(answer)) == (200, b'"1--br"', TEXT)


async def test_who_changes_something_names_the_tag_of_any_coding():
    app = Tagged()
    await call(Compress()(app), "PUT", headers=[(b"if-match", b'"1--br"')])
    assert app.seen == [b'"1--br", "1"']


async def test_a_range_of_the_coded_bytes_is_not_taken_for_one_of_the_plain():
    seen: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]).get(b"if-range"))
        await whole()(scope, receive, send)

    await asked(Compress()(app), b"gzip", (b"if-range", b'"1--gzip"'), (b"range", b"bytes=9-"))
    assert seen == [b'"1--gzip"']


async def test_a_weak_tag_stands_for_every_coding():
    answer = await asked(Compress()(whole(TEXT, (b"etag", b'W/"1"'))))
    assert answer.header(b"etag") == b'W/"1"'


async def test_with_etags_behind_conditions_work_both_ways():
    stack = Stack(Compress(), ETag())(answering(TEXT[:2000], TEXT[2000:]))
    for accept in (b"gzip", b"br", b"identity"):
        tag = (await asked(stack, accept)).header(b"etag") or b""
        answer = await asked(stack, accept, (b"if-none-match", tag))
        assert (answer.status, answer.header(b"etag")) == (304, tag)
        assert (await asked(stack, accept, (b"if-match", tag))).status == 200
        assert (await asked(stack, accept, (b"if-match", b'"other"'))).status == 412


async def test_with_etags_in_front_they_are_those_of_the_coded_bytes():
    stack = Stack(ETag(), Compress())(whole())
    tag = (await asked(stack)).header(b"etag") or b""
    assert tag != (await asked(stack, b"br")).header(b"etag")
    assert (await asked(stack, b"gzip", (b"if-none-match", tag))).status == 304


# Streams


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd"])
async def test_every_chunk_of_a_stream_goes_out_at_once_and_can_be_read(coding: bytes):
    answer = Answer()
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [PLAIN]})
        for chunk in (b"one,", b"two,", b"", b"three"):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            seen.append(body_of(answer))
        await send({"type": "http.response.body", "body": b""})

    await asked(Compress()(app), coding, answer=answer)
    assert seen == [b"one,", b"one,two,", b"one,two,", b"one,two,three"]
    assert (body_of(answer), answer.header(b"content-length"), answer.complete) == (b"one,two,three", None, True)


async def test_a_stream_that_begins_with_nothing_begins():
    answer = Answer()
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [PLAIN]})
        await send({"type": "http.response.body", "more_body": True})
        seen.append(len(answer.messages))
        await send({"type": "http.response.body"})

    await asked(Compress()(app), answer=answer)
    assert (seen, body_of(answer)) == ([2], b"")


async def test_event_streams_flow_as_they_are():
    app = answering(b"data: 1\n\n", b"data: 2\n\n", headers=[(b"content-type", b"text/event-stream")])
    assert (await asked(Compress(min_bytes=0)(app))).messages == (await asked(app)).messages


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=4), st.sampled_from([b"gzip", b"br", b"zstd"]))
def test_bodies_of_any_size_in_any_chunks_come_out_whole(sizes: list[int], coding: bytes):
    source = random.Random(sum(sizes)).randbytes(3000) * 70
    chunks = [source[:size] for size in sizes]
    answer = anyio.run(asked, Compress(min_bytes=0)(answering(*chunks)), coding)
    assert body_of(answer) == b"".join(chunks)
    assert answer.complete


async def test_a_large_body_leaves_others_their_turns():
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await anyio.lowlevel.checkpoint()
        answer = await asked(Compress()(whole(random.Random(1).randbytes(1 << 20))))
        tasks.cancel_scope.cancel()
    assert turns >= 15
    assert len(answer.messages) >= 16
    assert max(len(message.get("body", b"")) for message in answer.messages) < 1 << 18


async def test_files_the_server_would_send_itself_go_through_here(tmp_path: Any):
    (tmp_path / "file.txt").write_bytes(TEXT * 50)

    async def file(request: Request) -> FileResponse:
        return FileResponse(tmp_path / "file.txt")

    app = Compress()(Starlette(routes=[Route("/", file)]))
    answer = await asked(app, extensions={"http.response.pathsend": {}})
    assert body_of(answer) == TEXT * 50
    assert (answer.header(b"etag") or b"").endswith(b'--gzip"')
    assert answer.header(b"accept-ranges") is None


async def test_an_app_that_sends_a_file_past_it_is_broken_off():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [PLAIN]})
        await send({"type": "http.response.pathsend", "path": "/file"})

    with pytest.raises(RuntimeError, match="which it was not offered"):
        await asked(Compress()(app))


# Neighbours and endings


async def test_refusals_behind_are_compressed_and_policies_in_front_see_what_goes_out():
    class Refusing(Policy):
        def on_request(self, exchange: object) -> None:
            raise Refusal(403, "no", "x" * 3000)

    seen: list[RawHeaders] = []

    class Watching(Policy):
        def on_response(self, exchange: Any) -> None:
            seen.append(exchange.response.headers)

    stack = Stack(Watching(), SetHeader(name="x-a", value="1", on="response"), Compress(), Refusing())
    answer = await asked(stack(whole()))
    assert (answer.status, answer.header(b"x-a"), answer.header(b"content-encoding")) == (403, b"1", b"gzip")
    assert (b"content-encoding", b"gzip") in seen[0]


async def test_the_headers_of_a_response_that_is_used_again_are_not_touched():
    lines = [PLAIN, (b"content-length", b"4400")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": TEXT})

    await asked(Compress()(app))
    assert lines == [PLAIN, (b"content-length", b"4400")]


async def test_an_app_that_fails_before_its_first_chunk_has_sent_nothing():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [PLAIN]})
        raise LookupError("app")

    answer = Answer()
    with pytest.raises(LookupError):
        await asked(Compress()(app), answer=answer)
    assert answer.messages == []


async def test_an_app_that_fails_midway_leaves_no_clean_end():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [PLAIN]})
        await send({"type": "http.response.body", "body": TEXT, "more_body": True})
        raise LookupError("app")

    answer = Answer()
    with pytest.raises(LookupError):
        await asked(Compress()(app), answer=answer)
    assert (body_of(answer), answer.complete) == (TEXT, False)


async def test_a_client_that_leaves_is_no_secret_to_the_app():
    with pytest.raises(OSError, match="gone"):
        await asked(Compress()(answering(TEXT, TEXT)), leave_after=2)


async def test_a_websocket_passes():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": TEXT})
        await send({"type": "websocket.close"})

    answer = await connect(Compress()(app), headers=GZIP)
    assert answer.messages[1] == {"type": "websocket.send", "bytes": TEXT}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"min_bytes": -1}, "is no size"),
        ({"types": ("text",)}, "holds 'text', which is no media type"),
        ({"types": ("Text/plain",)}, "is no media type"),
        ({"codings": ()}, "offers nothing"),
        ({"codings": ("deflate",)}, "is not a tuple of 'zstd' or 'br' or 'gzip'"),
        ({"gzip_level": 0}, "is no level"),
        ({"br_quality": 12}, "is no level"),
        ({"zstd_level": 20}, "is no level"),
    ],
)
def test_mistakes(fields: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        Compress(**fields)


async def test_messages_nobody_knows_pass():
    odd: Message = {"type": "http.response.debug", "info": {}}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(odd)
        await answering(TEXT)(scope, receive, send)

    answer = await asked(Compress()(app))
    assert answer.messages[0] == odd
    assert body_of(answer) == TEXT
