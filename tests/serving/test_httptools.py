"""How uvicorn reads requests with the reader of this package: what follows a head is no part of it."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.servers import PATIENCE, Running, serving

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


@pytest.mark.parametrize("offered", [b"h2c", b"foo", b"TLS/1.0"])
@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 48"])
def test_an_upgrade_with_a_body_is_refused_and_nothing_of_it_is_the_next_request(
    server: Running, app: App, offered: bytes, framing: bytes
) -> None:
    head = HEAD + b"Connection: Upgrade\r\nUpgrade: " + offered + b"\r\n" + framing + b"\r\n\r\n"
    answer = server.talk(head, b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n", LAST)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
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
