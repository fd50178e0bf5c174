"""The proxy as people run it: uvicorn in front, uvicorn behind, plain sockets for a client."""

import json
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.servers import free_port, program, read_all, serving

from apim_middleware.proxy import Proxy

CHUNK = bytes(1 << 16)
MANY = 16_384  # chunks of 64 KiB: 1 GiB


def get(path="/", *lines):
    return b"\r\n".join([b"GET %b HTTP/1.1" % path.encode(), b"Host: a", b"Connection: close", *lines, b"", b""])


class Upstream:
    """An app that does what its path asks for, and tells the test what it saw."""

    def __init__(self):
        self.go_on, self.left = threading.Event(), threading.Event()
        self.heard = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await getattr(self, scope["path"].strip("/") or "echo")(scope, receive, send)

    async def echo(self, scope, receive, send):
        size, message = 0, {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            size += len(message.get("body", b""))
        seen = {
            "method": scope["method"],
            "headers": {k.decode(): v.decode() for k, v in scope["headers"]},
            "size": size,
        }
        body = json.dumps(seen).encode()
        await start(send, (b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.body", "body": body})

    async def download(self, scope, receive, send):
        await start(send, (b"content-length", b"%d" % (MANY * len(CHUNK))))
        for number in range(1, MANY + 1):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": number < MANY})

    async def events(self, scope, receive, send):
        await start(send, (b"content-type", b"text/event-stream"))
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await in_thread(self.go_on.wait)
        await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": False})

    async def forever(self, scope, receive, send):
        await start(send)
        await send({"type": "http.response.body", "body": b"waiting", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def broken(self, scope, receive, send):
        await start(send)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("the upstream breaks off")

    async def short(self, scope, receive, send):
        await start(send, (b"content-length", b"100"))
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("the upstream breaks off")


async def start(send, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def in_thread(wait):
    import anyio.to_thread

    await anyio.to_thread.run_sync(wait)


@pytest.fixture(scope="module")
def upstream():
    return Upstream()


@pytest.fixture(scope="module")
def gateway(upstream):
    with serving(upstream, lifespan="off") as behind, serving(Proxy(behind.origin)) as front:
        yield front


def test_a_request_passes(gateway):
    answer = gateway.talk(get("/", b"Authorization: Bearer x"))
    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert json.loads(body)["headers"]["authorization"] == "Bearer x"


def test_events_pass_when_they_come(gateway, upstream):
    with gateway.connect() as client:
        client.sendall(get("/events"))
        heard = b""
        while b"data: 1\n\n" not in heard:
            heard += client.recv(65536)
        assert b"data: 2" not in heard
        upstream.go_on.set()
        assert b"data: 2\n\n" in read_all(client)


def test_a_client_that_leaves_is_missed_by_the_upstream(gateway, upstream):
    with gateway.connect() as client:
        client.sendall(get("/forever"))
        while b"waiting" not in client.recv(65536):
            pass
    assert upstream.left.wait(5)


def test_a_chunked_body_that_breaks_off_arrives_broken(gateway):
    answer = gateway.talk(get("/broken"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_a_body_of_known_length_that_breaks_off_arrives_broken(gateway):
    answer = gateway.talk(get("/short"))
    assert b"content-length: 100" in answer
    assert answer.endswith(b"\r\n\r\nhalf")


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(gateway):
    with gateway.connect() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        seen = json.loads(read_all(client).split(b"\r\n\r\n")[1])
    assert seen["size"] == 4
    assert "expect" not in seen["headers"]


def test_an_upstream_that_is_not_there_is_a_problem():
    with serving(Proxy(f"http://127.0.0.1:{free_port()}")) as front:
        answer = front.talk(get())
    assert answer.startswith(b"HTTP/1.1 502")
    assert b"upstream-unreachable" in answer


# Large bodies


@contextmanager
def gateway_process(origin, folder):
    """The gateway in a process of its own, whose memory can be looked at."""
    (folder / "gateway.py").write_text(f"from apim_middleware.proxy import Proxy\napp = Proxy({origin!r})\n")
    port = free_port()
    options = ["--no-proxy-headers", "--no-access-log", "--port", str(port), "--app-dir", str(folder)]
    command = [sys.executable, "-m", "uvicorn", "gateway:app", *options]
    with program(command, port, log=folder / "gateway.log") as front:
        yield front


def memory(process, which):
    """The memory of a process in KiB: ``VmRSS`` is what it has, ``VmHWM`` the most it ever had."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which))


def test_a_gibibyte_passes_both_ways_in_little_memory(upstream, tmp_path):
    with serving(upstream, lifespan="off") as behind, gateway_process(behind.origin, tmp_path) as front:
        down(front, "/echo")
        idle, whole = memory(front.process, "VmRSS"), MANY * len(CHUNK)
        chunk = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)
        assert down(front, "/download") == whole
        assert up(front, b"Content-Length: %d" % whole, CHUNK) == whole
        assert up(front, b"Transfer-Encoding: chunked", chunk, b"0\r\n\r\n") == whole
        assert memory(front.process, "VmHWM") - idle < 16 << 10


def down(front, path):
    """How many bytes of a body come down."""
    size = -1
    with front.connect() as client:
        client.sendall(get(path))
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        size = 0
        while data := client.recv(1 << 16):
            size += len(data)
    return size


def up(front, framing, part, end=b""):
    """How many bytes of a body came up."""
    with front.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%b\r\n\r\n" % framing)
        for _ in range(MANY):
            client.sendall(part)
        client.sendall(end)
        return json.loads(read_all(client).split(b"\r\n\r\n")[1])["size"]


def test_a_front_that_reuses_connections_gets_each_answer_where_it_belongs(gateway):
    """Requests one after the other on one connection are answered in their order."""
    with gateway.connect() as client:
        for number in range(20):
            client.sendall(b"GET /echo HTTP/1.1\r\nHost: a\r\nX-Number: %d\r\n\r\n" % number)
            assert json.loads(one_body(client))["headers"]["x-number"] == str(number)


def one_body(client: socket.socket) -> bytes:
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += client.recv(65536)
    head, _, body = heard.partition(b"\r\n\r\n")
    length = int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
    while len(body) < length:
        body += client.recv(65536)
    return body
