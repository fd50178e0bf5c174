"""WebSockets through the proxy, message by message: failed handshakes, hostile frames, who leaves when."""

import asyncio
import socket
import struct
import time

import anyio
import jwt
import pytest
from tests.servers import saying, stub
from websockets.utils import accept_key

from apim_middleware.errors import ConfigError, Refusal, UpstreamBroken
from apim_middleware.exchange import ResponseHead
from apim_middleware.identity import Principal
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.testing import call, connect, websocket_scope
from apim_middleware.transports.http1 import Http1Transport
from apim_middleware.transports.httpx import HttpxTransport
from apim_middleware.transports.websockets import WebSockets

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """``Http1Transport`` runs on asyncio."""
    return "asyncio"


def accepted(head: bytes, *lines: bytes, upgrade=b"websocket", connection=b"upgrade", accept=None) -> bytes:
    """The answer to a handshake, as it should be unless told otherwise."""
    key = next(line for line in head.split(b"\r\n") if line.startswith(b"sec-websocket-key: "))
    accept = accept_key(key[19:].decode()).encode() if accept is None else accept
    own = (b"upgrade: " + upgrade, b"connection: " + connection, b"sec-websocket-accept: " + accept)
    return b"\r\n".join((b"HTTP/1.1 101 Switching Protocols", *own, *lines, b"", b""))


def frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as a server sends it."""
    assert len(data) < 126
    return bytes((fin << 7 | opcode, len(data))) + data


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(8, struct.pack("!H", code) + reason)


def shaking(*parts: bytes, then=None, **handshake):
    """Shake hands, say these frames, and go on as ``then`` does, or listen until the other side hangs up."""

    async def speak(spoken):
        head = await spoken.until()
        if head:
            await spoken.say(accepted(head, **handshake) + b"".join(parts))
            await (then or type(spoken).hang_on)(spoken)

    return speak


class Client:
    """A client who says and hears what the test wants, when it wants."""

    def __init__(self, **scope):
        self.scope = websocket_scope(**scope)
        self.inbox, self.heard = asyncio.Queue(), asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect"})

    async def hear(self):
        """The next message of the app; None when it has ended."""
        return await self.heard.get()

    def leave(self, code=1006, reason=""):
        self.inbox.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def run(self, app):
        try:
            await app(self.scope, self.inbox.get, self.heard.put)
        finally:
            self.heard.put_nowait(None)


async def visited(app, **scope):
    """All that a client hears who stays until the end."""
    client = Client(**scope)
    messages = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run, app)
        while (message := await client.hear()) is not None:
            messages.append(message)
    return messages


async def closed_with(speak, **scope):
    """How the client's side ends with such an upstream."""
    async with stub(speak) as upstream:
        return await visited(Proxy(upstream.origin), **scope)


# Handshakes


@pytest.mark.parametrize(
    "wrong",
    [
        {"upgrade": b"h2c"},
        {"upgrade": b"websocket, h2c"},
        {"connection": b"keep-alive"},
        {"accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
        {"accept": b""},
    ],
    ids=str,
)
async def test_a_handshake_answered_wrongly_is_a_502(wrong):
    messages = await closed_with(shaking(**wrong))
    assert messages[0]["status"] == 502
    assert b"upstream-broken" in messages[1]["body"]


@pytest.mark.parametrize(
    "line",
    [
        b"sec-websocket-extensions: permessage-deflate",
        b"sec-websocket-protocol: chat",
        b"sec-websocket-protocol: a\r\nsec-websocket-protocol: b",
    ],
)
async def test_what_nobody_offered_is_a_502(line):
    async def speak(spoken):
        await spoken.say(accepted(await spoken.until(), line))
        await spoken.hang_on()

    messages = await closed_with(speak, subprotocols=["a", "b"])
    assert messages[0]["status"] == 502


@pytest.mark.parametrize("status", [101, 102])
async def test_a_101_that_is_no_handshake_is_a_502(status):
    messages = await closed_with(saying(b"HTTP/1.1 %d x\r\n\r\n" % status))
    assert messages[0]["status"] == 502


async def test_a_refusal_passes_with_status_headers_and_body_but_not_what_is_for_one_hop():
    answer = b"HTTP/1.1 401 x\r\nwww-authenticate: Bearer\r\nkeep-alive: 5\r\ncontent-length: 2\r\n\r\nno"
    messages = await closed_with(saying(answer))
    assert messages[0]["type"] == "websocket.http.response.start"
    assert messages[0]["status"] == 401
    names = [name for name, _ in messages[0]["headers"]]
    assert names == [b"www-authenticate", b"content-length", b"via", b"date"]
    assert b"".join(each["body"] for each in messages[1:]) == b"no" or messages[1]["body"] == b"no"


async def test_a_refusal_is_a_close_where_the_server_cannot_answer():
    messages = await closed_with(saying(b"HTTP/1.1 401 x\r\ncontent-length: 0\r\n\r\n"), denial=False)
    assert messages == [{"type": "websocket.close", "code": 1008, "reason": "handshake-refused"}]


async def test_a_handshake_nobody_answers_takes_as_long_as_a_request_may():
    async def speak(spoken):
        await spoken.hang_on()

    async with stub(speak) as upstream:
        messages = await visited(Proxy(upstream.origin, first_byte_timeout=0.05))
    assert messages[0]["status"] == 504
    assert b"upstream-timeout" in messages[1]["body"]


async def test_a_long_refusal_passes_as_well():
    body = bytes(1_000_000)
    messages = await closed_with(saying(b"HTTP/1.1 403 x\r\ncontent-length: 1000000\r\n\r\n", body))
    assert messages[0]["status"] == 403
    assert messages[-1]["more_body"] is False
    assert b"".join(each["body"] for each in messages[1:]) == body


async def test_a_broken_refusal_is_broken_off():
    with pytest.raises(BaseExceptionGroup) as caught:
        await closed_with(saying(b"HTTP/1.1 401 x\r\ncontent-length: 5\r\n\r\nno"))
    assert caught.group_contains(UpstreamBroken)


async def test_a_client_that_leaves_during_the_handshake_ends_it():
    hung_up = anyio.Event()

    async def speak(spoken):
        await spoken.until()
        client.leave()
        await spoken.hang_on()
        hung_up.set()

    client = Client()
    async with stub(speak) as upstream:
        await client.run(Proxy(upstream.origin))
        await hung_up.wait()


@pytest.mark.parametrize("denial", [True, False])
async def test_a_proxy_that_passes_none_on_says_so(denial):
    answer = await connect(Proxy("http://127.0.0.1:1", websockets=None), denial=denial)
    if denial:
        assert (answer.status, b"websocket-not-supported" in answer.body) == (501, True)
    else:
        assert answer.messages == [{"type": "websocket.close", "code": 1008, "reason": "websocket-not-supported"}]


async def test_a_transport_that_opens_none_says_so():
    answer = await connect(Proxy("http://127.0.0.1:1", transport=HttpxTransport()))
    assert (answer.status, b"websocket-not-supported" in answer.body) == (501, True)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_none_are_passed_on(anyio_backend):
    answer = await connect(Proxy("http://127.0.0.1:1"))
    assert (answer.status, b"websocket-not-supported" in answer.body) == (501, True)


async def test_a_subprotocol_that_is_no_token_is_refused():
    answer = await connect(Proxy("http://127.0.0.1:1"), subprotocols=["a b"])
    assert (answer.status, b"bad-header" in answer.body) == (400, True)


async def test_a_proxy_alone_looks_at_the_request_too():
    answer = await connect(Proxy("http://127.0.0.1:1"), "/a%2f..%2fb", raw_path=b"/a%2f..%2fb")
    assert (answer.status, b"bad-target" in answer.body) == (400, True)


async def test_a_request_that_comes_back_is_a_loop():
    async def speak(spoken):
        head = await spoken.until()
        via.append(next(line for line in head.split(b"\r\n") if line.startswith(b"via: "))[5:])

    via = []
    async with stub(speak) as upstream:
        proxy = Proxy(upstream.origin)
        await visited(proxy)
        messages = await visited(proxy, headers=[(b"via", via[0])])
    assert messages[0]["status"] == 508


async def test_a_policy_that_refuses_the_upstreams_yes_closes_the_upstream():
    class Second(Policy):
        def on_response(self, exchange):
            assert isinstance(exchange.response, ResponseHead)
            assert exchange.response.status == 101
            raise Refusal(403, "on-second-thoughts")

    hung_up = anyio.Event()

    async def then(spoken):
        await spoken.hang_on()
        hung_up.set()

    async with stub(shaking(frame(1, b"hello"), then=then)) as upstream:
        messages = await visited(Stack(Second())(Proxy(upstream.origin)))
        await hung_up.wait()
    assert messages[0]["status"] == 403


# Frames


async def test_frames_right_behind_the_handshake_are_heard():
    messages = await closed_with(shaking(frame(1, b"one"), frame(2, b"two"), close(4000, b"done")))
    assert messages[0]["type"] == "websocket.accept"
    assert messages[1:] == [
        {"type": "websocket.send", "text": "one"},
        {"type": "websocket.send", "bytes": b"two"},
        {"type": "websocket.close", "code": 4000, "reason": "done"},
    ]


async def test_what_came_before_an_upstream_hung_up_is_heard():
    async def then(spoken):
        await spoken.stream.aclose()

    messages = await closed_with(shaking(frame(1, b"one"), then=then))
    assert messages[1:] == [
        {"type": "websocket.send", "text": "one"},
        {"type": "websocket.close", "code": 1011, "reason": "upstream-broken"},
    ]


HOSTILE = {
    "text that is no UTF-8": frame(1, b"\xff"),
    "a reserved bit": b"\xc1\x00",
    "an opcode that is none": frame(3),
    "a masked frame": b"\x81\x81abcd1",
    "a control frame in fragments": frame(9, fin=False),
    "a control frame too long": b"\x89\x7e\x00\x7e" + bytes(126),
    "a continuation of nothing": frame(0, b"x"),
    "a message within a message": frame(1, b"a", fin=False) + frame(1, b"b"),
    "a close code that is not for the wire": close(1006),
    "a close code that is none": close(999),
    "half a close code": frame(8, b"\x03"),
    "a close reason that is no UTF-8": close(1000, b"\xff"),
    "a message larger than any": b"\x82\x7f" + (1 << 62).to_bytes(8, "big"),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_no_websocket_ends_it_with_1011(hostile):
    messages = await closed_with(shaking(frame(1, b"fine"), hostile, frame(1, b"never")))
    assert messages[1] == {"type": "websocket.send", "text": "fine"}
    assert messages[2]["type"] == "websocket.close"
    assert messages[2]["code"] == 1011
    assert len(messages) == 3


async def test_fragments_larger_together_than_a_message_may_be_end_it():
    endless = frame(2, bytes(100), fin=False) + frame(0, bytes(100), fin=False) * 9 + frame(0, bytes(100), fin=False)
    async with stub(shaking(endless)) as upstream:
        messages = await visited(Proxy(upstream.origin, websockets=WebSockets(max_message_bytes=1000)))
    assert messages[1:] == [{"type": "websocket.close", "code": 1011, "reason": "upstream-message-too-big"}]


async def test_an_upstream_that_asks_and_does_not_listen_is_given_up():
    """The pongs it is owed would be kept for ever."""

    async def flood(spoken):
        spoken.stream.extra(anyio.abc.SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            while True:
                await spoken.stream.send(frame(9, bytes(125)) * 500)
        except anyio.BrokenResourceError:
            pass

    async with stub(shaking(then=flood)) as upstream, anyio.create_task_group() as tasks:
        client = Client()
        tasks.start_soon(client.run, Proxy(upstream.origin, websockets=WebSockets(max_message_bytes=1000)))
        assert (await client.hear())["type"] == "websocket.accept"
        assert await client.hear() == {"type": "websocket.close", "code": 1011, "reason": "upstream-broken"}


# Leaving


@pytest.mark.parametrize(("code", "heard"), [(1000, 1000), (1005, None), (4001, 4001)])
async def test_the_upstream_is_told_how_the_client_closed(code, heard):
    async def then(spoken):
        while len(spoken.heard) < spoken.heard.find(b"\r\n\r\n") + 10:
            await spoken.more()
        said.append(bytes(spoken.heard).partition(b"\r\n\r\n")[2])
        await spoken.say(close(code) if heard else frame(8))

    said = []
    async with stub(shaking(then=then)) as upstream, anyio.create_task_group() as tasks:
        client = Client()
        tasks.start_soon(client.run, Proxy(upstream.origin))
        await client.hear()
        client.leave(code)
        assert await client.hear() is None
    raw = said[0]
    data = bytes(byte ^ raw[2 + number % 4] for number, byte in enumerate(raw[6:]))
    assert raw[0] == 0x88
    assert data == (b"" if heard is None else struct.pack("!H", heard))


@pytest.mark.parametrize("code", [1006, 1015, 0, 99999])
async def test_a_client_that_is_gone_without_a_word_takes_the_upstream_along(code):
    heard = anyio.Event()

    async def then(spoken):
        length = len(spoken.heard)
        await spoken.hang_on()
        assert len(spoken.heard) == length
        heard.set()

    async with stub(shaking(then=then)) as upstream, anyio.create_task_group() as tasks:
        client = Client()
        tasks.start_soon(client.run, Proxy(upstream.origin))
        await client.hear()
        client.leave(code)
        await heard.wait()


async def test_an_upstream_that_never_says_goodbye_is_hung_up_on():
    async def speak(spoken):
        await spoken.say(accepted(await spoken.until()))
        await spoken.hang_on()

    transport = Http1Transport()
    async with stub(speak) as upstream:
        client = Client()
        proxy = Proxy(upstream.origin, transport=transport, websockets=WebSockets(close_timeout=0.05))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.run, proxy)
            await client.hear()
            assert transport.connections == 1
            client.leave(1000)
        assert transport.connections == 0


async def test_a_long_reason_is_cut_between_characters():
    async def then(spoken):
        await spoken.hang_on()
        heard.append(bytes(spoken.heard).partition(b"\r\n\r\n")[2])

    heard = []
    async with stub(shaking(then=then)) as upstream:
        client = Client()
        rules = WebSockets(close_timeout=0.05)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.run, Proxy(upstream.origin, websockets=rules))
            await client.hear()
            client.leave(1000, "ü" * 100)
    raw = heard[0]
    data = bytes(byte ^ raw[2 + number % 4] for number, byte in enumerate(raw[6:]))
    assert data[2:].decode() == "ü" * 61


async def test_a_client_whose_server_cannot_send_any_more_closes_the_upstream():
    hung_up = anyio.Event()

    async def then(spoken):
        await spoken.hang_on()
        hung_up.set()

    async def send(message):
        if message["type"] == "websocket.send":
            raise OSError("the client is gone")

    async with stub(shaking(frame(1, b"x"), then=then)) as upstream:
        client = Client()
        with pytest.raises(OSError, match="gone"):
            await Proxy(upstream.origin)(client.scope, client.inbox.get, send)
        await hung_up.wait()


ENDS = ["client closes", "client is gone", "upstream closes", "upstream dies", "cancelled", "too big", "never accepted"]


async def test_nothing_is_left_of_any_end():
    """Connections and tasks are back to none, whoever ended it and how."""
    transport = Http1Transport()
    before = len(asyncio.all_tasks())

    async def speak(spoken):
        head = await spoken.until()
        if b"/never" in head:
            return
        await spoken.say(accepted(head) + frame(1, b"hello"))
        if b"/upstream%20closes" in head:
            await spoken.say(close(1000))
        elif b"/upstream%20dies" in head:
            return
        while await spoken.more():
            if b"\x88" in spoken.heard[-40:]:
                await spoken.say(close(1000))

    async def one(end: str, proxy: Proxy) -> None:
        path = "/" + end
        client = Client(path=path, raw_path=path.replace(" ", "%20").encode())
        task = asyncio.create_task(client.run(proxy))
        if end != "never accepted":
            assert (await client.hear())["type"] == "websocket.accept"
        if end == "cancelled":
            task.cancel()
        elif end == "too big":
            client.inbox.put_nowait({"type": "websocket.receive", "bytes": bytes(2000)})
        elif end.startswith("client"):
            client.leave(1000 if end == "client closes" else 1006)
        await asyncio.wait([task])

    async with stub(speak) as upstream:
        rules = WebSockets(max_message_bytes=1000, close_timeout=0.5)
        proxy = Proxy(upstream.origin, transport=transport, websockets=rules)
        async with anyio.create_task_group() as tasks:
            for number in range(20 * len(ENDS)):
                tasks.start_soon(one, ENDS[number % len(ENDS)], proxy)
        while transport.connections:  # noqa: ASYNC110 - nobody tells of it
            await anyio.sleep(0.01)
    assert len(asyncio.all_tasks()) == before


class Holder(Policy):
    """Lets a caller in by a token that expires at a moment."""

    def __init__(self, expiry):
        object.__setattr__(self, "expiry", expiry)

    def on_request(self, exchange):
        exchange.principal = Principal(subject="alice", claims={"exp": self.expiry})


@pytest.mark.parametrize("left", [-5.0, 0.05])
async def test_it_ends_with_the_token_that_let_it_in(left):
    async with stub(shaking(frame(1, b"hello"))) as upstream:
        messages = await visited(Stack(Holder(time.time() + left))(Proxy(upstream.origin)))
    assert messages[-1] == {"type": "websocket.close", "code": 1008, "reason": "token-expired"}


@pytest.mark.parametrize(
    ("over_since", "end"), [(200.0, (1001, "lifetime-over")), (299.9, (1008, "token-expired"))], ids=["within", "after"]
)
async def test_it_is_open_for_as_long_as_the_token_would_be_let_in(over_since, end):
    """A leeway lets an expired token in: the WebSocket was closed at once, and came back, and was let in."""
    secret = b"0123456789abcdef0123456789abcdef"
    claims = {"iss": "us", "aud": "them", "sub": "alice", "exp": time.time() - over_since}
    shown = (b"authorization", b"Bearer " + jwt.encode(claims, secret, "HS256").encode())
    auth = JWTAuth(issuer="us", audience="them", keys=secret, algorithms=("HS256",), leeway=300)
    async with stub(shaking(frame(1, b"hello"))) as upstream:
        app = Stack(auth)(Proxy(upstream.origin, websockets=WebSockets(lifetime=0.5)))
        messages = await visited(app, headers=[shown])
    assert {"type": "websocket.send", "text": "hello"} in messages
    assert (messages[-1]["code"], messages[-1]["reason"]) == end


@pytest.mark.parametrize("rules", [WebSockets(outlive_token=True, lifetime=0.05), WebSockets(lifetime=0.05)], ids=str)
async def test_it_ends_when_its_time_is_over(rules):
    expiry = time.time() + (0.0 if rules.outlive_token else 3600.0)
    async with stub(shaking()) as upstream:
        messages = await visited(Stack(Holder(expiry))(Proxy(upstream.origin, websockets=rules)))
    assert messages[-1] == {"type": "websocket.close", "code": 1001, "reason": "lifetime-over"}


@pytest.mark.parametrize("never", [10**400, 1e300])
async def test_a_token_may_expire_later_than_numbers_go(never):
    """``exp`` is any number of JSON: one beyond a double broke the WebSocket off, and left the upstream's open."""
    async with stub(shaking()) as upstream:
        rules = WebSockets(lifetime=0.05)
        messages = await visited(Stack(Holder(never))(Proxy(upstream.origin, websockets=rules)))
    assert messages[-1] == {"type": "websocket.close", "code": 1001, "reason": "lifetime-over"}


# Where to


async def test_a_unix_socket_leads_to_the_upstream_as_well(tmp_path):
    path = str(tmp_path / "socket")

    async def serve(stream):
        async with stream:
            head = await stream.receive()
            await stream.send(accepted(head) + frame(1, b"over unix") + close(1000))
            await stream.receive()

    listener = await anyio.create_unix_listener(path)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        messages = await visited(Proxy("http://upstream.example", transport=Http1Transport(uds=path)))
        tasks.cancel_scope.cancel()
    assert messages[1] == {"type": "websocket.send", "text": "over unix"}


async def test_a_refused_handshake_leaves_room_for_the_next():
    async def speak(spoken):
        while await spoken.until():
            await spoken.say(b"HTTP/1.1 401 x\r\ncontent-length: 0\r\n\r\n")

    async with stub(speak) as upstream:
        proxy = Proxy(upstream.origin, transport=Http1Transport(max_connections=1))
        assert [(await visited(proxy))[0]["status"] for _ in range(3)] == [401, 401, 401]


async def test_what_a_handshake_says_of_a_body_is_of_no_matter():
    """A 101 has none (RFC 9110 §15.2), and what follows it is the other protocol's."""

    async def speak(spoken):
        await spoken.say(accepted(await spoken.until(), b"content-length: 0"))
        await spoken.more()
        await spoken.say(frame(1, b"heard") + close(1000))
        await spoken.hang_on()

    async with stub(speak) as upstream, anyio.create_task_group() as tasks:
        client = Client()
        tasks.start_soon(client.run, Proxy(upstream.origin))
        assert (await client.hear())["type"] == "websocket.accept"
        client.inbox.put_nowait({"type": "websocket.receive", "text": "hello"})
        assert await client.hear() == {"type": "websocket.send", "text": "heard"}


async def test_websockets_are_counted_apart_from_requests():
    async def speak(spoken):
        head = await spoken.until()
        if b"upgrade: websocket" in head:
            await spoken.say(accepted(head))
            await spoken.hang_on()
        else:
            await spoken.say(b"HTTP/1.1 204 x\r\n\r\n")

    async with stub(speak) as upstream, anyio.create_task_group() as tasks:
        proxy = Proxy(upstream.origin, transport=Http1Transport(max_connections=1, max_waiting=0))
        client = Client()
        tasks.start_soon(client.run, proxy)
        await client.hear()
        assert b"upstream-busy" in (await visited(proxy))[1]["body"]
        assert (await call(proxy)).status == 204
        client.leave(1006)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"max_message_bytes": 0}, "max_message_bytes: 0 leaves no room"),
        ({"ping_interval": 0}, "ping_interval: 0 leaves no time"),
        ({"idle_timeout": -1.0}, "idle_timeout: -1.0 leaves no time"),
        ({"max_size": 5}, "no such field"),
    ],
)
def test_mistakes_are_found_while_building(given, problem):
    with pytest.raises(ConfigError, match=problem):
        WebSockets(**given)


@pytest.mark.parametrize("policies", [(), (Policy(),)], ids=["alone", "behind policies"])
async def test_a_tunnel_is_refused(policies):
    answer = await call(Stack(*policies)(Proxy("http://127.0.0.1:1")), "CONNECT", "", raw_path=b"internal.example:22")
    assert (answer.status, b"method-not-implemented" in answer.body) == (501, True)
