"""The proxy as people run it: uvicorn in front, uvicorn behind, plain sockets for a client."""

import json
import socket
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.servers import free_port, program, read_all, serving

from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy

CHUNK = bytes(1 << 16)
MANY = 512  # chunks of 64 KiB: 32 MiB


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


def peak(process):
    """The most memory the process ever had, in KiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_large_bodies_pass_both_ways_in_little_memory(upstream, tmp_path):
    with serving(upstream, lifespan="off") as behind, gateway_process(behind.origin, tmp_path) as front:
        down(front, "/echo")
        before = peak(front.process)
        assert down(front, "/download") == MANY * len(CHUNK)
        assert up(front, b"Content-Length: %d" % (MANY * len(CHUNK)), CHUNK) == MANY * len(CHUNK)
        assert up(front, b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK), b"0\r\n\r\n")
        assert peak(front.process) - before < 16 << 10  # half of one body


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


# Smuggling


HEAD = b"POST /attack HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def lengths(length, *lines):
    return HEAD + b"".join(lines) + b"Content-Length: " + length + b"\r\n\r\n" + HIDDEN


def codings(line):
    """A coding that one reader may see and another not, with a body that reads well both ways."""
    return HEAD + b"Content-Length: 5\r\n" + line + b"\r\n\r\n0\r\n\r\n" + HIDDEN


def chunked(body):
    return HEAD + CHUNKED + b"\r\n" + body + HIDDEN


SMUGGLING = {
    "CL.TE": codings(b"Transfer-Encoding: chunked"),
    "TE.CL": HEAD + CHUNKED + b"Content-Length: 4\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN),
    "TE with a space before the colon": codings(b"Transfer-Encoding : chunked"),
    "TE with a tab": codings(b"Transfer-Encoding:\tchunked"),
    "TE with a vertical tab": codings(b"Transfer-Encoding:\x0bchunked"),
    "TE behind a space": codings(b" Transfer-Encoding: chunked"),
    "TE folded": codings(b"Transfer-Encoding:\r\n chunked"),
    "TE behind a bare LF": codings(b"X: y\nTransfer-Encoding: chunked"),
    "TE behind a bare CR": codings(b"X: y\rTransfer-Encoding: chunked"),
    "TE behind a NUL": codings(b"X: y\0Transfer-Encoding: chunked"),
    "TE with an underscore": codings(b"Transfer_Encoding: chunked"),
    "TE in capitals": codings(b"TRANSFER-ENCODING: CHUNKED"),
    "TE in quotes": codings(b'Transfer-Encoding: "chunked"'),
    "TE of something like it": codings(b"Transfer-Encoding: xchunked"),
    "TE of identity": codings(b"Transfer-Encoding: identity"),
    "TE of gzip, chunked": codings(b"Transfer-Encoding: gzip, chunked"),
    "TE of chunked, identity": codings(b"Transfer-Encoding: chunked, identity"),
    "TE twice": codings(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    "TE with a parameter": codings(b"Transfer-Encoding: chunked; q=0.5"),
    "TE with a comma": codings(b"Transfer-Encoding: ,chunked"),
    "TE of nothing": codings(b"Transfer-Encoding:"),
    "TE in HTTP/1.0": codings(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "CL twice, different": lengths(b"5", b"Content-Length: 0\r\n"),
    "CL twice, alike": lengths(b"5", b"Content-Length: 5\r\n"),
    "CL as a list": lengths(b"0, 5"),
    "CL as a list of one": lengths(b"0,"),
    "CL with a sign": lengths(b"+0"),
    "CL below zero": lengths(b"-1"),
    "CL in hexadecimal": lengths(b"0x5"),
    "CL with a space within": lengths(b"1 0"),
    "CL with a tab": lengths(b"\t0"),
    "CL with a fraction": lengths(b"0.0"),
    "CL with an underscore": lengths(b"1_0"),
    "CL of other digits": lengths(b"\xd9\xa5"),
    "CL beyond any number": lengths(b"9" * 30),
    "CL of nothing": lengths(b""),
    "CL with a space before the colon": HEAD + b"Content-Length : 5\r\n\r\n" + HIDDEN,
    "CL folded": HEAD + b"Content-Length:\r\n 5\r\n\r\n" + HIDDEN,
    "CL on a GET": b"GET /attack HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + HIDDEN,
    "a chunk size with a sign": chunked(b"+0\r\n\r\n"),
    "a chunk size with 0x": chunked(b"0x0\r\n\r\n"),
    "a chunk size beyond any number": chunked(b"f" * 20 + b"\r\n"),
    "a chunk size that wraps": chunked(b"1" + b"0" * 16 + b"\r\n\r\n"),
    "a chunk extension": chunked(b"0;a=b\r\n\r\n"),
    "a chunk extension with a bare LF": chunked(b"0;a\nb\r\n\r\n"),
    "a chunk size ended by a bare LF": chunked(b"0\n\r\n"),
    "a chunk size ended by a bare CR": chunked(b"0\r\r\n"),
    "a chunk longer than its size": chunked(b"1\r\nabc\r\n0\r\n\r\n"),
    "a chunk without its end": chunked(b"1\r\na0\r\n\r\n"),
    "trailers that frame": chunked(b"0\r\nContent-Length: 100\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "a folded line": HEAD + b"X: y\r\n Content-Length: 5\r\n\r\n" + HIDDEN,
    "a bare LF head": b"POST /attack HTTP/1.1\nHost: a\nContent-Length: 0\n\n" + HIDDEN,
    "a bare CR head": b"POST /attack HTTP/1.1\rHost: a\rContent-Length: 0\r\r" + HIDDEN,
    "a line without a colon": HEAD + b"GET /hidden HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a request in a target": b"GET /attack%20HTTP/1.1%0d%0a%0d%0aGET%20/hidden HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "a space in a target": b"GET /attack HTTP/1.1\x20/hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    "a line break in a header": HEAD + b"X: a\r\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "an upgrade": b"GET /attack HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + HIDDEN,
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + HIDDEN,
    "an absolute target": b"GET http://b/attack HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /attack\r\n" + HIDDEN,
}  # fmt: skip


class Witness(Policy):
    """Sees every request that gets past hygiene."""

    def on_request(self, exchange):
        SEEN.append((exchange.method, exchange.path))


SEEN: list[tuple[str, str]] = []


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_no_request_gets_past_the_policies_inside_another(http):
    """The upstream gets the requests that the policies saw, each framed in one way, and nothing fails on the way."""
    SEEN.clear()
    upstream = Log()
    with serving(upstream, lifespan="off") as behind:
        app = Stack(Witness())(Proxy(behind.origin))
        with serving(app, http=http, timeout_keep_alive=1) as front, ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda attack: front.talk(attack, seconds=2), SMUGGLING.values()))
    assert Counter(upstream.requests) - Counter(SEEN) == Counter()
    assert upstream.requests
    assert upstream.ambiguous == []
    failed = {name for name, answer in zip(SMUGGLING, answers, strict=True) if b"HTTP/1.1 5" in answer}
    assert failed <= {"a tunnel", "HTTP/2 without asking"}  # 501: no such method


class Log:
    """An upstream that writes down what it gets."""

    def __init__(self):
        self.requests, self.ambiguous = [], []

    async def __call__(self, scope, receive, send):
        self.requests.append((scope["method"], scope["path"]))
        names = [name for name, _ in scope["headers"]]
        framing = names.count(b"content-length") + names.count(b"transfer-encoding")
        if framing > 1 or names.count(b"host") != 1:
            self.ambiguous.append(scope["headers"])
        while (await receive()).get("more_body"):
            pass
        await start(send, (b"content-length", b"0"))
        await send({"type": "http.response.body"})


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
