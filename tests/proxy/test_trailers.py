"""What only some servers can pass on: trailers behind the body, and early hints before the head."""

import asyncio
import contextlib
import socket

import anyio
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypercorn.asyncio import serve
from hypercorn.config import Config
from tests.servers import LOOPBACK, saying, stub

from apim_middleware.errors import UpstreamBroken
from apim_middleware.policies.compress import Compress
from apim_middleware.policy import Stack
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.members import Member
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Retry
from apim_middleware.transports.httpx import HttpxTransport

from .scripted import Said, Scripted, ask

pytestmark = pytest.mark.anyio

TE, TRAILERS, HINT = (b"te", b"trailers"), "http.response.trailers", "http.response.early_hint"
OFFERED = {TRAILERS: {}, HINT: {}}
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
CHUNKS = b"2\r\nok\r\n0\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n"


@pytest.fixture
def anyio_backend():
    return "asyncio"  # for the transport that can


async def passed(*said, headers=(TE,), offered=OFFERED, wrap=lambda proxy: proxy, pool=False, **more):
    """The messages of one exchange with an upstream that says this, and what the upstream heard."""
    async with stub(saying(*said)) as upstream:
        proxy = Proxy(Pool(Member(upstream.origin)) if pool else upstream.origin, **more.pop("options", {}))
        async with proxy.lifespan():
            answer = await ask(wrap(proxy), headers=headers, extensions=offered, **more)
        return answer.messages, bytes(upstream.heard[0])


def trailing(messages):
    """The trailers, if the head announced any and they ended the response."""
    if not messages[0].get("trailers"):
        assert all(each["type"] != TRAILERS for each in messages)
        return None
    assert messages[-2]["type"] == "http.response.body"
    assert not messages[-2]["more_body"]
    assert messages[-1]["type"] == TRAILERS
    assert not messages[-1]["more_trailers"]
    return messages[-1]["headers"]


def field(messages, name):
    return [value for key, value in messages[0]["headers"] if key == name]


# Trailers


@pytest.mark.parametrize("pool", [False, True], ids=["one", "pool"])
async def test_trailers_follow_the_body(pool):
    said = CHUNKED + b"\r\n" + CHUNKS + b"X-Sum: 1 \r\nGRPC-Status:0\r\nx-sum: 2\r\n\r\n"
    messages, _ = await passed(said, pool=pool)
    assert trailing(messages) == [(b"x-sum", b"1"), (b"grpc-status", b"0"), (b"x-sum", b"2")]
    assert messages[1]["body"] == b"ok"


async def test_trailers_follow_a_body_that_comes_bit_by_bit():
    parts = [CHUNKED + b"\r\n", b"2\r\nok\r\n", b"2\r\nay\r\n0\r\nx-s", b"um: 1\r\n", b"\r\n"]

    async def speak(spoken):
        await spoken.until()
        for part in parts:
            await spoken.say(part)
            await anyio.sleep(0.01)  # so that they arrive one by one

    async with stub(speak) as upstream:
        answer = await ask(Proxy(upstream.origin), headers=[TE], extensions=OFFERED)
    assert answer.body == b"okay"
    assert trailing(answer.messages) == [(b"x-sum", b"1")]


async def test_none_are_announced_and_sent_as_none():
    messages, _ = await passed(CHUNKED + b"\r\n" + CHUNKS + b"\r\n")
    assert trailing(messages) == []


@pytest.mark.parametrize(
    "name",
    [
        *("Content-Length", "Transfer-Encoding", "Host", "Connection", "TE", "Trailer", "Upgrade", "Set-Cookie"),
        *("Content-Type", "Content-Encoding", "Content-Range", "Cache-Control", "Age", "Expires", "Date", "Vary"),
        *("Location", "Retry-After", "Authorization", "WWW-Authenticate", "Sec-WebSocket-Key", "Via", "X-Hop"),
        *("X-Forwarded-For", "Proxy-Authenticate", "Access-Control-Allow-Origin", "Clear-Site-Data", "If-Match"),
    ],
)  # fmt: skip
async def test_what_may_not_trail_is_dropped(name):
    """What frames, routes, authenticates or controls must be known before the body (RFC 9110 §6.5.1)."""
    said = CHUNKED + b"connection: x-hop\r\n\r\n" + CHUNKS + name.encode() + b": a\r\nx-sum: 1\r\n\r\n"
    messages, _ = await passed(said)
    assert trailing(messages) == [(b"x-sum", b"1")]


async def test_the_trailer_field_names_those_that_may_come():
    said = CHUNKED + b"trailer: X-Sum, Content-Length\r\ntrailer: grpc-status\r\n\r\n" + CHUNKS + b"\r\n"
    messages, _ = await passed(said)
    assert field(messages, b"trailer") == [b"x-sum, grpc-status"]


@pytest.mark.parametrize(
    "asked",
    [
        {"headers": []},
        {"headers": [(b"te", b"gzip")]},
        {"offered": {HINT: {}}},
        {"offered": None},
        {"http_version": "1.0"},
        {"method": "HEAD"},
    ],
    ids=["no TE", "TE of something else", "the server cannot", "no extensions", "HTTP/1.0", "HEAD"],
)
async def test_trailers_are_dropped_where_they_cannot_be_taken(asked):
    said = CHUNKED + b"trailer: x-sum\r\n\r\n" + (b"" if "method" in asked else CHUNKS + b"x-sum: 1\r\n\r\n")
    messages, heard = await passed(said, **asked)
    assert trailing(messages) is None
    assert field(messages, b"trailer") == []
    if "method" not in asked:
        assert b"\r\nte:" not in heard.lower()


@pytest.mark.parametrize("said", [OK, b"HTTP/1.1 200 OK\r\n\r\nok", b"HTTP/1.1 304 Not Modified\r\n\r\n"])
async def test_only_a_body_in_chunks_has_trailers(said):
    messages, _ = await passed(said)
    assert trailing(messages) is None


async def test_the_upstream_is_asked_for_trailers_as_the_neighbour_it_is():
    """``TE`` is for one hop: ``Connection`` names it, and codings the client would take stay behind (§10.1.4)."""
    lines = [(b"te", b"gzip;q=0.5, Trailers"), (b"connection", b"TE, close")]
    messages, heard = await passed(CHUNKED + b"\r\n" + CHUNKS + b"x-sum: 1\r\n\r\n", headers=lines)
    assert heard.count(b"te: ") == 1
    assert b"\r\nconnection: te\r\nte: trailers\r\n" in heard
    assert trailing(messages) == [(b"x-sum", b"1")]


async def test_trailers_of_a_response_that_was_asked_for_again_are_passed():
    said = [b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", CHUNKED + b"\r\n" + CHUNKS + b"x-sum: 1\r\n\r\n"]

    async def speak(spoken):
        while said and await spoken.until():
            await spoken.say(said.pop(0))

    async with stub(speak) as upstream:
        proxy = Proxy(upstream.origin, retry=Retry(backoff=0.001))
        answer = await ask(proxy, headers=[TE], extensions=OFFERED)
    assert trailing(answer.messages) == [(b"x-sum", b"1")]


@pytest.mark.parametrize("said", [b"x-sum\r\n\r\n", b"x sum: 1\r\n\r\n", b"x-sum: a\0\r\n\r\n", b"x-sum: 1\r\n"])
async def test_broken_trailers_break_the_response(said):
    async with stub(saying(CHUNKED + b"\r\n" + CHUNKS + said)) as upstream:
        with pytest.raises(UpstreamBroken):
            await ask(Proxy(upstream.origin), headers=[TE], extensions=OFFERED)


async def test_trailers_pass_no_policy_that_looks_at_the_body():
    """Such a policy hides from the proxy that the server takes them."""
    messages, heard = await passed(
        CHUNKED + b"\r\n" + CHUNKS + b"x-sum: 1\r\n\r\n", wrap=lambda proxy: Stack(Compress())(proxy)
    )
    assert trailing(messages) is None
    assert b"\r\nte:" not in heard


async def test_a_transport_that_cannot_read_trailers_is_not_asked_to():
    async with stub(saying(CHUNKED + b"\r\n" + CHUNKS + b"x-sum: 1\r\n\r\n")) as upstream:
        proxy = Proxy(upstream.origin, transport=HttpxTransport())
        async with proxy.lifespan():
            answer = await ask(proxy, headers=[TE], extensions=OFFERED)
        assert b"\r\nte:" not in upstream.heard[0]
    assert trailing(answer.messages) is None


async def test_what_a_transport_of_ones_own_gives_needs_no_trailers():
    answer = await ask(Proxy("http://a", transport=Scripted(a=Said())), headers=[TE], extensions=OFFERED)
    assert trailing(answer.messages) is None


async def test_the_trailer_field_of_a_request_stays_behind():
    """ASGI has no trailers of requests: servers read and drop them."""
    _, heard = await passed(OK, method="POST", headers=[(b"trailer", b"x-sum"), (b"transfer-encoding", b"chunked")])
    assert b"trailer" not in heard


# Early hints


def hinted(messages):
    return [each["links"] for each in messages if each["type"] == HINT]


@pytest.mark.parametrize("pool", [False, True], ids=["one", "pool"])
async def test_early_hints_come_before_the_head(pool):
    messages, _ = await passed(HINTS + HINTS, OK, pool=pool)
    assert [each["type"] for each in messages] == [HINT, HINT, "http.response.start", "http.response.body"]
    assert hinted(messages)[0] == [b"</a.css>; rel=preload", b"</b.js>"]


async def test_early_hints_come_when_they_are_said():
    heard = anyio.Event()

    async def speak(spoken):
        await spoken.until()
        await spoken.say(HINTS)
        await heard.wait()
        await spoken.say(OK)

    async def hear(message):
        if message["type"] == HINT:
            heard.set()

    async with stub(speak) as upstream:
        app = Proxy(upstream.origin)
        answer = await ask(_telling(app, hear), extensions=OFFERED)
    assert answer.status == 200


def _telling(app, hear):
    async def told(scope, receive, send):
        async def sending(message):
            await hear(message)
            await send(message)

        await app(scope, receive, sending)

    return told


async def test_hints_come_after_a_body_that_goes_up():
    messages, _ = await passed(HINTS, OK, method="POST", headers=[(b"content-length", b"2")], body=[b"a", b"b"])
    assert len(hinted(messages)) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\nlink: </a>\r\n\r\n",
        b"HTTP/1.1 104 Upload\r\nlink: </a>\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nset-cookie: a=b\r\n\r\n",
    ],
    ids=["100", "102", "104", "103 of nothing", "103 without a link"],
)
async def test_other_interim_responses_are_passed_over(said):
    messages, _ = await passed(said, OK)
    assert [each["type"] for each in messages] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("asked", [{"offered": {TRAILERS: {}}}, {"offered": None}, {"http_version": "1.0"}])
async def test_early_hints_are_passed_over_where_they_cannot_be_taken(asked):
    messages, _ = await passed(HINTS, OK, **asked)
    assert hinted(messages) == []
    assert messages[0]["status"] == 200


@pytest.mark.parametrize("offered", [OFFERED, None], ids=["passed", "passed over"])
async def test_hints_leave_an_upstream_no_more_time(offered):
    """``first_byte_timeout`` is for the whole head, however often it is hinted at."""

    async def speak(spoken):
        await spoken.until()
        while True:
            await spoken.say(HINTS)
            await anyio.sleep(0.02)

    async with stub(speak) as upstream:
        answer = await ask(Proxy(upstream.origin, first_byte_timeout=0.1), extensions=offered)
    assert answer.status == 504


async def test_hints_for_ever_are_no_answer():
    messages, _ = await passed(HINTS * 2000, OK)
    assert [each["status"] for each in messages if "status" in each] == [502]


async def test_hints_before_an_upstream_that_hangs_up_are_no_answer():
    messages, _ = await passed(HINTS)
    assert len(hinted(messages)) == 1
    assert messages[1]["status"] == 502


# On a server that can


@contextlib.asynccontextmanager
async def on_hypercorn(app):
    """The port of a hypercorn, which offers both to clients of HTTP/2."""
    config = Config()
    listener, over = socket.create_server((LOOPBACK, 0)), asyncio.Event()
    port, config.errorlog = listener.getsockname()[1], None
    config.bind = [f"fd://{listener.detach()}"]
    task = asyncio.create_task(serve(app, config, shutdown_trigger=over.wait))
    try:
        yield port
    finally:
        over.set()
        await task


async def over_http2(port, *fields):
    """The header lines a client of HTTP/2 hears in answer to a GET, by the kind of event, and the body."""
    lines = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a"), *fields]
    connection, events = H2Connection(H2Configuration(client_side=True)), []
    connection.initiate_connection()
    connection.send_headers(1, lines, end_stream=True)
    async with await anyio.connect_tcp(LOOPBACK, port) as stream:
        while not any(type(each).__name__ == "StreamEnded" for each in events):
            await stream.send(connection.data_to_send() or b"")
            events += connection.receive_data(await stream.receive())
    heard = {type(each).__name__: each.headers for each in events if hasattr(each, "headers")}
    return heard, b"".join(each.data for each in events if type(each).__name__ == "DataReceived")


async def test_both_reach_a_client_of_http2():
    said = HINTS + CHUNKED + b"trailer: x-sum\r\n\r\n" + CHUNKS + b"x-sum: 1\r\nset-cookie: a=b\r\n\r\n"
    async with stub(saying(said)) as upstream, on_hypercorn(Proxy(upstream.origin)) as port:
        heard, body = await over_http2(port, ("te", "trailers"))
    assert (b"link", b"</a.css>; rel=preload") in heard["InformationalResponseReceived"]
    assert (b"trailer", b"x-sum") in heard["ResponseReceived"]
    assert body == b"ok"
    assert heard["TrailersReceived"] == [(b"x-sum", b"1")]


async def test_a_client_of_http2_that_wants_no_trailers_gets_none():
    said = CHUNKED + b"\r\n" + CHUNKS + b"x-sum: 1\r\n\r\n"
    async with stub(saying(said)) as upstream, on_hypercorn(Proxy(upstream.origin)) as port:
        heard, body = await over_http2(port)
    assert body == b"ok"
    assert "TrailersReceived" not in heard
