"""How uvicorn reads requests with the reader of this package: what follows a head is no part of it."""

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
from tests.servers import PATIENCE, Running, read_all, serving

from apim_middleware.serving.httptools import HttpToolsProtocol
from apim_middleware.types import Receive, Scope, Send

HEAD = b"POST /one HTTP/1.1\r\nHost: a\r\nX-User: ada\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK, TRAILERS = b"5\r\nhello\r\n", b"0\r\nX-User: bob\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class App:
    """Answers with what it got, headers as they are when the body is there."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.at_work = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            return
        self.paths.append(scope["path"])
        self.at_work.set()
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await asyncio.sleep(0)
        names = [name.decode() for name, _ in scope["headers"]]
        told = json.dumps([scope["path"], body.decode(), names]).encode()
        length = (b"content-length", b"%d" % len(told))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": told})


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def server(app: App) -> Iterator[Running]:
    with serving(app, http=HttpToolsProtocol, lifespan="off") as running:
        yield running


def told(answer: bytes) -> list[object]:
    """What the app said it got, answer by answer."""
    return [json.loads(part.partition(b"\r\n\r\n")[2]) for part in answer.split(b"HTTP/1.1 200 OK")[1:]]


def test_trailers_in_one_piece_with_the_request_are_no_headers(server: Running) -> None:
    assert told(server.talk(CHUNKED + CHUNK + TRAILERS + LAST)) == [
        ["/one", "hello", ["host", "x-user", "transfer-encoding"]],
        ["/last", "", ["host", "connection"]],
    ]


def test_trailers_that_come_late_are_no_headers_either(server: Running, app: App) -> None:
    with server.connect() as client:
        client.sendall(CHUNKED + CHUNK)
        assert app.at_work.wait(PATIENCE)
        client.sendall(TRAILERS + LAST)
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert told(answer)[0] == ["/one", "hello", ["host", "x-user", "transfer-encoding"]]


OFFER = HEAD + b"Connection: Upgrade\r\nUpgrade: "
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize("offered", [b"h2c", b"foo", b"TLS/1.0", b"h2c, websocket"])
@pytest.mark.parametrize("framed", [LENGTH, CHUNKS], ids=["length", "chunks"])
def test_a_body_behind_an_offer_that_is_not_taken_is_the_body(server: Running, offered: bytes, framed: bytes) -> None:
    answer = server.talk(OFFER + offered + b"\r\n" + framed + LAST)
    assert [found[:2] for found in told(answer)] == [["/one", HIDDEN.decode()], ["/last", ""]]


def test_a_body_that_comes_later_than_its_offer_is_the_body(server: Running, app: App) -> None:
    with server.connect() as client:
        client.sendall(OFFER + b"h2c\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN))
        assert app.at_work.wait(PATIENCE)
        client.sendall(HIDDEN + LAST)
        answer = read_all(client)
    assert [found[:2] for found in told(answer)] == [["/one", HIDDEN.decode()], ["/last", ""]]


def test_a_request_behind_an_offer_that_is_not_taken_is_answered(server: Running, app: App) -> None:
    """What came with the head was lost, and the rest of it read as a request of its own."""
    with server.connect() as client:
        client.sendall(OFFER + b"h2c\r\n\r\nPOST /two HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN))
        assert app.at_work.wait(PATIENCE)
        client.sendall(HIDDEN + LAST)
        answer = read_all(client)
    assert [found[:2] for found in told(answer)] == [["/one", ""], ["/two", HIDDEN.decode()], ["/last", ""]]


def test_offers_in_a_row_are_all_answered(server: Running) -> None:
    answer = server.talk((OFFER + b"h2c\r\n\r\n") * 500 + LAST)
    assert [found[0] for found in told(answer)] == ["/one"] * 500 + ["/last"]


def test_an_offer_that_is_not_taken_is_not_told(server: Running) -> None:
    answer = server.talk(OFFER + b"h2c\r\nContent-Length: 0\r\n\r\n" + LAST)
    assert told(answer)[0] == ["/one", "", ["host", "x-user", "connection", "content-length"]]


def test_a_broken_body_behind_an_offer_is_refused(server: Running) -> None:
    answer = server.talk(OFFER + b"h2c\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" + LAST)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"400"]


@pytest.mark.parametrize("target", [b"a:80", b"/one"])
def test_a_tunnel_is_refused_and_nothing_of_it_is_the_next_request(server: Running, app: App, target: bytes) -> None:
    answer = server.talk(b"CONNECT " + target + b" HTTP/1.1\r\nHost: a:80\r\n\r\n", HIDDEN)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"400"]
    assert app.paths == []


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 0\r\n"])
def test_an_upgrade_without_a_body_may_be_offered(server: Running, framing: bytes) -> None:
    answer = server.talk(HEAD + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n" + framing + b"\r\n")
    assert [found[:2] for found in told(answer)] == [["/one", ""]]


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 2"])
def test_a_websocket_with_a_body_is_refused(server: Running, app: App, framing: bytes) -> None:
    answer = server.talk(
        b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + framing + b"\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_websocket_is_one(server: Running) -> None:
    with server.connect() as client:
        client.sendall(
            b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert _read(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")


def test_a_websocket_of_http_1_0_is_none(server: Running) -> None:
    """RFC 9110 §7.8: an offer in HTTP/1.0 is not one."""
    head = b"GET /one HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    answer = server.talk(head + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert [found[:2] for found in told(answer)] == [["/one", ""]]


def _read(client: socket.socket, mark: bytes) -> bytes:
    heard = b""
    while mark not in heard and (data := client.recv(65536)):
        heard += data
    return heard


@pytest.mark.parametrize("version", [b"2.0", b"0.9", b"3.0"])
def test_another_version_is_refused(server: Running, app: App, version: bytes) -> None:
    answer = server.talk(b"GET /one HTTP/" + version + b"\r\nHost: a\r\n\r\n" + LAST)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert app.paths == []


def test_http_1_0_is_served(server: Running) -> None:
    assert told(server.talk(b"GET /one HTTP/1.0\r\n\r\n")) == [["/one", "", []]]


class Told:
    """Answers with what a scope says of its target and host."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode() for name, value in scope["headers"] if name == b"host"]
        told = json.dumps([scope["raw_path"].decode(), scope["query_string"].decode(), *hosts]).encode()
        length = (b"content-length", b"%d" % len(told))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": told})


@pytest.fixture(scope="module")
def telling() -> Iterator[Running]:
    with serving(Told(), http=HttpToolsProtocol, lifespan="off") as running:
        yield running


@pytest.mark.parametrize(
    ("request_line", "said"),
    [
        (b"GET http://b:8080/x?y=1", ["/x", "y=1", "b:8080"]),
        (b"GET HTTP://B/x", ["/x", "", "B"]),
        (b"GET http://[::1]/x", ["/x", "", "[::1]"]),
        (b"GET http://b", ["/", "", "b"]),
        (b"GET http://b?y=1", ["/", "y=1", "b"]),
        (b"OPTIONS http://b", ["*", "", "b"]),
        (b"OPTIONS http://b/", ["/", "", "b"]),
        (b"GET //b/x", ["//b/x", "", "a"]),
    ],
)
def test_the_host_in_a_target_is_the_host(telling: Running, request_line: bytes, said: list[str]) -> None:
    """RFC 9112 §3.2.2: the path was taken, and the other host kept."""
    answer = telling.talk(request_line + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert told(answer) == [said]


def test_a_second_host_is_there_to_be_refused(telling: Running) -> None:
    answer = telling.talk(b"GET http://b/x HTTP/1.1\r\nHost: a\r\nHost: c\r\nConnection: close\r\n\r\n")
    assert told(answer) == [["/x", "", "b", "b"]]


@pytest.mark.parametrize(
    "target",
    [
        *(b"/x#y", b"/x?y#z", b"http://b/x#y", b"http://b#/x", b"http://u@b/x", b"http://u:p@b/x"),
        *(b"https://b/x", b"ftp://b/x", b"foo://b/x"),
    ],
)
def test_what_is_no_target_here_is_refused(telling: Running, target: bytes) -> None:
    answer = telling.talk(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"400"]


@pytest.mark.parametrize(("version", "statuses"), [(b"1.0", [b"200"]), (b"1.1", [b"100", b"200"])])
def test_clients_of_http_1_0_are_not_asked_to_continue(server: Running, version: bytes, statuses: list[bytes]) -> None:
    """RFC 9110 §10.1.1, §15.2."""
    head = b"POST /one HTTP/" + version + b"\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\n"
    answer = server.talk(head + b"Content-Length: 2\r\n\r\n", b"ok")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == statuses


EXPECTING = b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)


def test_who_is_answered_instead_of_asked_for_the_body_is_answered_last(telling: Running) -> None:
    """The next request was taken for the body by us, and for a request by a server in front that sent none."""
    answer = telling.talk(EXPECTING + HIDDEN + LAST)
    assert told(answer) == [["/x", "", "a"]]
    assert b"\r\nconnection: close\r\n" in answer


def test_who_is_asked_for_the_body_keeps_the_connection(server: Running) -> None:
    answer = server.talk(EXPECTING + HIDDEN + LAST)
    assert [found[:2] for found in told(answer)] == [["/x", HIDDEN.decode()], ["/last", ""]]


class Patient(App):
    """Asks for the body once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.go_on, self.loop = asyncio.Event(), asyncio.get_running_loop()
        self.at_work.set()
        await self.go_on.wait()
        await super().__call__(scope, receive, send)


def test_a_request_begins_in_no_context_of_the_one_before_it() -> None:
    """It waited for the response to that, and so was begun by whoever sent it."""
    caller: ContextVar[str] = ContextVar("caller", default="nobody")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told = caller.get().encode()
        caller.set("ada")
        await asyncio.sleep(0)
        length = (b"content-length", b"%d" % len(told))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": told})

    with serving(app, http=HttpToolsProtocol, lifespan="off") as running:
        answer = running.talk(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n" * 3 + LAST)
    assert answer.count(b"nobody") == 4


SOCKET = (
    b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(EXPECTING + HIDDEN + b"no HTTP\r\n\r\n", id="expected"),
        pytest.param(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n" + SOCKET, id="socket"),
    ],
)
def test_what_is_refused_behind_a_request_ends_the_connection_with_the_response(sent: bytes) -> None:
    """Who was asked for a body was kept, but heard no more; a WebSocket was opened in the midst of the response."""
    app = Patient()
    with serving(app, http=HttpToolsProtocol, lifespan="off") as running, running.connect() as client:
        client.sendall(sent)
        assert app.at_work.wait(PATIENCE)
        assert app.loop is not None
        assert app.go_on is not None
        app.loop.call_soon_threadsafe(app.go_on.set)
        answer = read_all(client)
        assert (b" 101 " in answer, b"\r\nconnection: close\r\n" in answer) == (False, True)


def test_all_that_came_whole_before_a_broken_request_is_answered(server: Running) -> None:
    """The one that is broken waits for its turn behind the others, and gets none."""
    whole = b"".join(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % name for name in (b"one", b"two", b"three"))
    answer = server.talk(whole + CHUNKED.replace(b"/one", b"/four") + b"zz\r\n")
    assert [found[0] for found in told(answer)] == ["/one", "/two", "/three"]
    assert answer.count(b"HTTP/1.1") == 3


def test_what_is_no_http_is_in_the_log(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "uvicorn.error"):
        server.talk(b"no HTTP\r\n\r\n")
    assert "Invalid HTTP request received." in caplog.text
