"""WebSockets through the proxy as people run it: uvicorn in front, another server behind, a client library outside."""

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator

import pytest
from tests.certificates import write_certificate
from tests.servers import LOOPBACK, free_port, program, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve
from websockets.utils import accept_key

from apim_middleware.by import everyone
from apim_middleware.errors import Refusal
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Retry
from apim_middleware.transports.websockets import WebSockets

MANY = 200


class Upstream:
    """A WebSocket server that does what the path asks for, and tells the test what it saw."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.close: tuple[int | None, str] = (None, "")
        self.go_on = threading.Event()
        self.sent = 0

    def __call__(self, connection: ServerConnection) -> None:
        self.closed.clear()
        path = connection.request.path.partition("?")[0].removeprefix("/other").strip("/") or "echo"
        try:
            getattr(self, path)(connection)
        except ConnectionClosed:
            pass
        finally:
            connection.close()
            self.close = (connection.close_code, connection.close_reason or "")
            self.closed.set()

    def echo(self, connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    def handshake(self, connection: ServerConnection) -> None:
        headers = [(name.lower(), value) for name, value in connection.request.headers.raw_items()]
        connection.send(json.dumps({"path": connection.request.path, "headers": headers}))

    def fragments(self, connection: ServerConnection) -> None:
        connection.send(iter(["frag", "men", "ted"]))
        connection.send(iter([b"in ", b"bytes"]))
        connection.recv()

    def pings(self, connection: ServerConnection) -> None:
        connection.send("pong" if connection.ping().wait(20) else "nothing")

    def reason(self, connection: ServerConnection) -> None:
        code, reason = json.loads(connection.recv())
        connection.close(code, reason)

    def wordless(self, connection: ServerConnection) -> None:
        connection.protocol.send_close()
        connection.socket.sendall(b"".join(connection.protocol.data_to_send()))
        connection.recv()

    def dies(self, connection: ServerConnection) -> None:
        connection.recv()
        connection.socket.shutdown(socket.SHUT_RDWR)

    def big(self, connection: ServerConnection) -> None:
        connection.send(bytes(2000))
        connection.recv()

    def talks(self, connection: ServerConnection) -> None:
        while not self.go_on.is_set():
            connection.send(bytes(65536))
            self.sent += 1


def refuse(connection, request):
    """An upstream that refuses a handshake in its own words."""
    if request.path == "/refused":
        response = connection.respond(418, "no tea here\n")
        response.headers["X-Why"] = "teapot"
        return response
    return None


def choose(connection, offered):
    return "chat.v2" if "chat.v2" in offered else None


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture(scope="module")
def origin(upstream: Upstream) -> Iterator[str]:
    server = serve(upstream, LOOPBACK, 0, select_subprotocol=choose, process_request=refuse, compression=None)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join(20)


GRANIAN = (sys.executable, "-m", "granian", "--interface", "asgi", "--no-log", "--loop", "asyncio")


@pytest.fixture(scope="module", params=["uvicorn", "granian"])
def gateway(request: pytest.FixtureRequest, origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if request.param == "uvicorn":
            running = stack.enter_context(serving(Proxy(origin)))
        else:
            folder, port = tmp_path_factory.mktemp("granian"), free_port()
            (folder / "passing.py").write_text(f"from apim_middleware import Proxy\n\napp = Proxy({origin!r})\n")
            command = [*GRANIAN, "--port", str(port), "--working-dir", str(folder), "passing:app"]
            running = stack.enter_context(program(command, port, log=folder / "log"))
        yield f"ws://{LOOPBACK}:{running.port}"


def test_messages_pass_both_ways_in_order_and_in_kind(gateway: str):
    messages = ["", "text", b"", b"bytes \xff", "grüße \U0001f30d", "x" * 70_000, bytes(1_000_000)]
    with connect(gateway) as client:
        for message in messages:
            client.send(message)
        assert [client.recv() for _ in messages] == messages


def test_fragments_come_as_one_message(gateway: str):
    with connect(gateway + "/fragments") as client:
        assert client.recv() == "fragmented"
        assert client.recv() == b"in bytes"
        client.send("enough")


def test_fragments_of_the_client_go_up_as_one_message(gateway: str):
    with connect(gateway) as client:
        client.send(iter(["a", "b", "c"]))
        assert client.recv() == "abc"


def test_an_upstream_that_asks_is_told_that_its_client_lives(gateway: str):
    with connect(gateway + "/pings") as client:
        assert client.recv() == "pong"


def test_the_upstream_gets_the_handshake_as_the_client_sent_it_and_what_the_gateway_vouches_for(gateway: str):
    headers = {"Authorization": "Bearer a.b.c", "Cookie": "a=b; c=d", "X-Forwarded-For": "6.6.6.6", "TE": "trailers"}
    with connect(gateway + "/handshake?x=1&y=%20", additional_headers=headers, origin="https://shop.example") as client:
        seen = json.loads(client.recv())
    lines = dict(seen["headers"])
    assert seen["path"] == "/handshake?x=1&y=%20"
    assert (lines["authorization"], lines["cookie"]) == ("Bearer a.b.c", "a=b; c=d")
    assert lines["origin"] == "https://shop.example"
    assert (lines["x-forwarded-for"], lines["x-forwarded-proto"]) == (LOOPBACK, "http")
    assert lines["via"].startswith("1.1 apim-")
    assert "te" not in lines
    assert len(lines) == len(seen["headers"])


def test_no_extension_is_offered_whatever_the_client_and_its_server_agree_on(origin: str):
    with serving(Proxy(origin)) as running, connect(f"ws://{LOOPBACK}:{running.port}/handshake") as client:
        assert client.protocol.extensions != []
        assert "sec-websocket-extensions" not in dict(json.loads(client.recv())["headers"])


def test_the_subprotocol_is_agreed_on_from_end_to_end(gateway: str):
    with connect(gateway, subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"
    with connect(gateway, subprotocols=["chat.v1"]) as client:
        assert client.subprotocol is None


def test_a_handshake_is_refused_in_the_words_of_the_upstream(gateway: str):
    with pytest.raises(InvalidStatus) as caught:
        connect(gateway + "/refused")
    response = caught.value.response
    assert (response.status_code, response.body) == (418, b"no tea here\n")
    assert response.headers["x-why"] == "teapot"


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (1011, "oh"), (3000, "x"), (4999, "ü" * 61)])
def test_the_upstreams_code_and_reason_reach_the_client(gateway: str, code: int, reason: str):
    with connect(gateway + "/reason") as client:
        client.send(json.dumps([code, reason]))
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert (client.close_code, client.close_reason) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (1001, ""), (3000, "x"), (4999, "ü" * 61)])
def test_the_clients_code_and_reason_reach_the_upstream(request, gateway: str, upstream: Upstream, code: int, reason):
    with connect(gateway) as client:
        client.send("hello")
        assert client.recv() == "hello"
        client.close(code, reason)
    assert upstream.closed.wait(20)
    granian = request.node.callspec.params["gateway"] == "granian"  # which tells its app of no reason
    assert upstream.close == (code, "" if granian else reason)


def test_an_upstream_that_gives_no_code_closes_normally(gateway: str):
    """ASGI has no way to close without a code."""
    with connect(gateway + "/wordless") as client:
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert client.close_code == CloseCode.NORMAL_CLOSURE


def test_a_client_that_gives_no_code_closes_the_upstream_without_one(gateway: str, upstream: Upstream):
    with connect(gateway) as client:
        client.protocol.send_close()
        client.socket.sendall(b"".join(client.protocol.data_to_send()))
        assert upstream.closed.wait(20)
    assert upstream.close == (1005, "")


def test_a_client_that_is_cut_off_closes_the_upstream(gateway: str, upstream: Upstream):
    with connect(gateway) as client:
        client.send("hello")
        client.recv()
        client.socket.shutdown(socket.SHUT_RDWR)
        assert upstream.closed.wait(20)


def test_an_upstream_that_dies_closes_the_client_with_1011(gateway: str):
    with connect(gateway + "/dies") as client:
        client.send("now")
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert (client.close_code, client.close_reason) == (1011, "upstream-broken")


def test_an_upstream_that_is_not_there_is_an_http_answer():
    with serving(Proxy("http://127.0.0.1:1")) as running, pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{LOOPBACK}:{running.port}")
    assert caught.value.response.status_code == 502
    assert json.loads(caught.value.response.body)["code"] == "upstream-unreachable"


def test_messages_beyond_the_cap_end_it_either_way(origin: str, upstream: Upstream):
    with serving(Proxy(origin, websockets=WebSockets(max_message_bytes=1000))) as running:
        with connect(f"ws://{LOOPBACK}:{running.port}") as client:
            client.send("x" * 1000)
            assert client.recv() == "x" * 1000
            client.send("ü" * 501)
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert (client.close_code, client.close_reason) == (1009, "message-too-big")
        assert upstream.closed.wait(20)
        assert upstream.close == (1001, "")
        with connect(f"ws://{LOOPBACK}:{running.port}/big") as client:
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert (client.close_code, client.close_reason) == (1011, "upstream-message-too-big")
        assert upstream.closed.wait(20)
        assert upstream.close[0] == 1009


def settled(read) -> int:
    """A number once it has stopped growing: whoever makes it grow is held back."""
    last, same = read(), 0
    while same < 5:
        threading.Event().wait(0.05)
        now = read()
        last, same = now, same + 1 if now == last else 0
    return last


HANDSHAKE = (
    b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_a_client_that_does_not_read_holds_the_upstream_back(gateway: str, upstream: Upstream):
    upstream.sent = 0
    upstream.go_on.clear()
    with socket.create_connection((LOOPBACK, int(gateway.rpartition(":")[2]))) as client:
        client.sendall(HANDSHAKE % b"talks")
        assert client.recv(12) == b"HTTP/1.1 101"
        assert settled(lambda: upstream.sent) * 65536 < 64 * 1024 * 1024
        upstream.go_on.set()
    assert upstream.closed.wait(20)


@contextlib.contextmanager
def shaken_by_hand(then) -> Iterator[str]:
    """An upstream of bare sockets: it shakes hands with one client, and ``then`` has the connection."""

    def accept() -> None:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            connection.sendall(accepting(head))
            then(connection)

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        thread.join(20)


def accepting(head: bytes) -> bytes:
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    accept = accept_key(key.partition(b":")[2].strip().decode()).encode()
    lines = (b"HTTP/1.1 101 x", b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-accept: " + accept)
    return b"\r\n".join((*lines, b"", b""))


def test_an_upstream_that_does_not_read_holds_the_client_back():
    go_on, heard, sent = threading.Event(), 0, 0

    def read_late(connection: socket.socket) -> None:
        nonlocal heard
        go_on.wait(20)
        while data := connection.recv(1 << 20):
            heard += len(data)

    def talk(client: socket.socket) -> None:
        nonlocal sent
        client.sendall(HANDSHAKE % b"")
        client.recv(65536)
        frame = b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes(4) + bytes(1 << 20)
        for _ in range(MANY):
            client.sendall(frame)
            sent += 1
        client.sendall(b"\x88\x80" + bytes(4))
        client.recv(65536)

    with shaken_by_hand(read_late) as origin, serving(Proxy(origin)) as running, running.connect() as client:
        thread = threading.Thread(target=talk, args=(client,), daemon=True)
        thread.start()
        assert settled(lambda: sent) < MANY
        go_on.set()
        thread.join(60)
    assert sent == MANY
    assert heard > MANY << 20


def test_an_upstream_that_answers_no_ping_is_given_up():
    """A stopped process keeps its connections open; only a ping tells."""
    over = threading.Event()
    rules = WebSockets(ping_interval=0.05, ping_timeout=0.05)
    silent = shaken_by_hand(lambda connection: over.wait(20))
    with silent as origin, serving(Proxy(origin, websockets=rules)) as running:
        with connect(f"ws://{LOOPBACK}:{running.port}") as client:
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert (client.close_code, client.close_reason) == (1011, "upstream-timeout")
        over.set()


def test_one_that_says_nothing_is_closed_when_it_may_not_be_idle(origin: str, upstream: Upstream):
    rules = WebSockets(idle_timeout=0.05, ping_interval=0.01)
    with serving(Proxy(origin, websockets=rules)) as running:
        with connect(f"ws://{LOOPBACK}:{running.port}") as client:
            with pytest.raises(ConnectionClosed):
                client.recv()
            assert (client.close_code, client.close_reason) == (1001, "idle-timeout")
        assert upstream.closed.wait(20)
        assert upstream.close == (1001, "")


def test_a_server_that_stops_closes_both_sides(origin: str, upstream: Upstream):
    with contextlib.ExitStack() as stack:
        with serving(Proxy(origin)) as running:
            client = stack.enter_context(connect(f"ws://{LOOPBACK}:{running.port}"))
            client.send("hello")
            client.recv()
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert client.close_code == CloseCode.SERVICE_RESTART
        assert upstream.closed.wait(20)


class Guard(Policy):
    """Lets in who has the word."""

    def on_request(self, exchange):
        if exchange.header(b"authorization") != b"Bearer good":
            raise Refusal(401, "no-token", headers={"www-authenticate": "Bearer"})


def test_policies_decide_before_the_upstream_hears_of_it(origin: str, upstream: Upstream):
    upstream.closed.clear()
    with serving(Stack(Guard())(Proxy(origin))) as running:
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://{LOOPBACK}:{running.port}")
        assert caught.value.response.status_code == 401
        assert caught.value.response.headers["www-authenticate"] == "Bearer"
        assert not upstream.closed.is_set()
        with connect(f"ws://{LOOPBACK}:{running.port}", additional_headers={"Authorization": "Bearer good"}) as client:
            client.send("hello")
            assert client.recv() == "hello"


def test_a_permit_is_held_until_the_close(origin: str):
    with serving(Stack(LimitConcurrency(at_once=1, by=everyone))(Proxy(origin))) as running:
        url = f"ws://{LOOPBACK}:{running.port}"
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                client = admitted(stack, url)
                client.send("hello")
                assert client.recv() == "hello"
                with pytest.raises(InvalidStatus) as caught:
                    stack.enter_context(connect(url))
                assert caught.value.response.status_code == 429


def admitted(stack: contextlib.ExitStack, url: str):
    """A WebSocket once there is room: the exchange before ends when its upstream has closed as well."""
    while True:
        with contextlib.suppress(InvalidStatus):
            return stack.enter_context(connect(url))


async def echo(scope, receive, send):
    """On an event loop: threads must not read and write one TLS session at the same time."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def test_a_websocket_goes_over_tls(tmp_path):
    certificate, key = write_certificate(tmp_path, "localhost")
    with serving(echo, lifespan="off", ssl_certfile=certificate, ssl_keyfile=key) as secure:
        proxy = Proxy(secure.origin.replace("http://", "https://"), verify=False)
        with serving(proxy) as running, connect(f"ws://{LOOPBACK}:{running.port}") as client:
            client.send(bytes(1_000_000))
            assert client.recv() == bytes(1_000_000)


def test_a_member_that_is_not_there_is_passed_over(origin: str):
    proxy = Proxy(Pool("http://127.0.0.1:1", origin), retry=Retry(attempts=2))
    with serving(proxy) as running:
        for _ in range(4):
            with connect(f"ws://{LOOPBACK}:{running.port}") as client:
                client.send("hello")
                assert client.recv() == "hello"


def test_a_member_is_busy_with_a_websocket_until_its_end(origin: str):
    proxy = Proxy(Pool(origin, origin + "/other", balance="least-connections"))
    with serving(proxy) as running:
        url = f"ws://{LOOPBACK}:{running.port}/echo"
        with connect(url) as first:
            first.send("x")
            first.recv()
            assert sum(each.under_way for each in proxy.standing()) == 1
            with connect(f"ws://{LOOPBACK}:{running.port}/"):
                assert [each.under_way for each in proxy.standing()] == [1, 1]
        settled(lambda: sum(each.under_way for each in proxy.standing()))
        assert [each.under_way for each in proxy.standing()] == [0, 0]
