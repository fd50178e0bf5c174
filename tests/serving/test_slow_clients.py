"""What a client may keep the gateway waiting for, and what it may make it hold, with the reader of this package."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pytest
from tests.servers import PATIENCE, Running, read_all, serving

from apim_middleware.serving.httptools import HttpToolsProtocol
from apim_middleware.types import Receive, Scope, Send

GET = b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
SOON = 0.05


class Reader(HttpToolsProtocol):
    """One of whose bounds none is reached, and which tells when it has forgiven a wait."""

    max_head_bytes: ClassVar[int] = 1_000
    head_timeout: ClassVar[float] = PATIENCE
    body_timeout: ClassVar[float] = PATIENCE
    send_timeout: ClassVar[float] = PATIENCE
    forgiven: ClassVar[threading.Event]
    last: ClassVar["Reader"]

    def __init_subclass__(cls) -> None:
        cls.forgiven = threading.Event()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        type(self).last = self

    def _is_held_back(self) -> bool:
        held = super()._is_held_back()
        if held:
            self.forgiven.set()
        return held


class App:
    """Reads the body and says ok; ``early`` says so before, and ``gate`` keeps it from beginning."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.early = False
        self.size = 2
        self.gate: threading.Event | None = None
        self.began, self.left, self.done = threading.Event(), threading.Event(), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await receive()
            await send({"type": "websocket.send", "text": (await receive())["text"]})
            return
        self.paths.append(scope["path"])
        try:
            await self._serve(receive, send)
        finally:
            self.done.set()

    async def _serve(self, receive: Receive, send: Send) -> None:
        if self.early:
            await self._head(send)
        self.began.set()
        if self.gate is not None:
            await asyncio.to_thread(self.gate.wait, PATIENCE)
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        if message["type"] == "http.disconnect":
            self.left.set()
            return
        if not self.early:
            await self._head(send)
        await send({"type": "http.response.body", "body": b"ok" * (self.size // 2)})
        while self.size > 2 and message["type"] != "http.disconnect":
            message = await receive()
            self.left.set()

    async def _head(self, send: Send) -> None:
        length = (b"content-length", b"%d" % self.size)
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})


Serve = Callable[[type[Reader]], AbstractContextManager[Running]]


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def serve(app: App) -> Serve:
    return lambda reader: serving(app, http=reader, lifespan="off", loop="asyncio")


@pytest.fixture
def patient(serve: Serve) -> Iterator[Running]:
    class Patient(Reader):
        pass

    with serve(Patient) as server:
        yield server


def refusal(answer: bytes) -> tuple[int, str]:
    """The status and code of the one problem there is."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.split(b"\r\n")
    assert b"content-type: application/problem+json" in head.split(b"\r\n")
    problem = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % problem["status"])
    return problem["status"], problem["code"]


def heard(client: socket.socket, much: int) -> bytes:
    """So many bytes."""
    answer = b""
    while len(answer) < much and (data := client.recv(much - len(answer))):
        answer += data
    return answer


# How much


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-One: ", b"a"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-Some: b\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X"),
    ],
    ids=["target", "value", "lines", "name"],
)
def test_a_head_without_end_is_refused_at_its_bound(patient: Running, app: App, begin: bytes, more: bytes) -> None:
    with patient.connect() as client:
        client.sendall((begin + more * 1_000)[:900])
        client.sendall(more * 101)
        assert refusal(read_all(client)) == (431, "headers-too-large")
    assert app.paths == []


def test_a_head_of_too_many_lines_is_refused_at_its_bound(serve: Serve) -> None:
    class Few(Reader):
        max_head_bytes = 100_000
        max_head_lines = 50

    with serve(Few) as server, server.connect() as client:
        client.sendall(GET[:-2] + b"A:\r\n" * 51)
        assert refusal(read_all(client)) == (431, "headers-too-large")


def test_empty_lines_without_end_are_told_nothing(patient: Running) -> None:
    assert patient.talk(b"\r\n" * 501) == b""


def test_a_head_within_the_bound_is_served_however_it_comes(patient: Running) -> None:
    head = b"GET /one HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-One: " + b"a" * 900
    with patient.connect() as client:
        for byte in head[:-50], *[head[place : place + 1] for place in range(len(head) - 50, len(head))]:
            client.sendall(byte)
        client.sendall(b"\r\n\r\n")
        assert read_all(client).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("begin", [b"0\r\nX-One: ", b"0\r\n", b"5;"], ids=["a trailer", "trailers", "an extension"])
def test_trailers_without_end_are_refused_before_the_response(patient: Running, app: App, begin: bytes) -> None:
    more = b"X-Some: b\r\n" if begin == b"0\r\n" else b"a"
    with patient.connect() as client:
        client.sendall(CHUNKED + b"5\r\nhello\r\n" + begin)
        assert app.began.wait(PATIENCE)
        client.sendall((more * 1_001)[:1_001])
        assert refusal(read_all(client)) == (431, "headers-too-large")


def test_trailers_without_end_break_off_the_response(patient: Running, app: App) -> None:
    app.early = True
    with patient.connect() as client:
        client.sendall(CHUNKED + b"5\r\nhello\r\n0\r\nX-One: ")
        begun = heard(client, len(ANSWER) - 2)
        client.sendall(b"a" * 1_001)
        assert begun + read_all(client) == ANSWER[:-2]
    assert app.left.wait(PATIENCE)


def test_a_body_of_many_small_chunks_is_no_head(patient: Running) -> None:
    with patient.connect() as client:
        client.sendall(CHUNKED)
        for _ in range(1_000):
            client.sendall(b"1\r\na\r\n")
        client.sendall(b"0\r\n\r\n" + LAST)
        assert read_all(client) == ANSWER + LAST_ANSWER


# How long


class Hasty(Reader):
    head_timeout = SOON


class HastyInBodies(Reader):
    body_timeout = SOON


@pytest.mark.parametrize("begin", [b"G", b"GET / HTTP/1.1\r\n", GET[:-1], b"\r\nG"])
def test_a_head_that_does_not_come_in_time_is_refused(serve: Serve, app: App, begin: bytes) -> None:
    with serve(Hasty) as server:
        assert refusal(server.talk(begin)) == (408, "request-timeout")
    assert app.paths == []


def test_a_head_on_a_kept_connection_has_its_own_time(serve: Serve) -> None:
    with serve(Hasty) as server, server.connect() as client:
        client.sendall(GET)
        assert heard(client, len(ANSWER)) == ANSWER
        client.sendall(b"\r\nGET /")
        assert refusal(read_all(client)) == (408, "request-timeout")


@pytest.mark.parametrize("said", [b"", b"\r\n", b"\r\n\r\n"])
def test_a_client_that_says_nothing_is_told_nothing(serve: Serve, said: bytes) -> None:
    with serve(Hasty) as server, server.connect() as client:
        client.sendall(said)
        assert read_all(client) == b""


def test_what_says_nothing_after_a_request_is_told_nothing(serve: Serve) -> None:
    with serve(Hasty) as server, server.connect() as client:
        client.sendall(POST)
        client.sendall(b"hello")
        assert heard(client, len(ANSWER)) == ANSWER
        client.sendall(b"\r\n\r\n")
        assert read_all(client) == b""


@pytest.mark.parametrize("begin", [POST + b"hell", CHUNKED + b"5\r\nhello\r\n0\r\n", CHUNKED + b"5"])
def test_a_body_of_which_nothing_more_comes_is_refused(serve: Serve, app: App, begin: bytes) -> None:
    with serve(HastyInBodies) as server:
        assert refusal(server.talk(begin)) == (408, "request-timeout")
        assert app.left.wait(PATIENCE)


def test_who_waits_for_the_response_before_is_in_time(serve: Serve, app: App) -> None:
    app.gate = threading.Event()

    class Hastily(Hasty):
        pass

    with serve(Hastily) as server, server.connect() as client:
        client.sendall(GET + b"GET /two")
        assert Hastily.forgiven.wait(PATIENCE)
        app.gate.set()
        assert heard(client, len(ANSWER)) == ANSWER


def test_who_waits_to_be_told_to_continue_is_in_time(serve: Serve, app: App) -> None:
    app.gate = threading.Event()

    class Hastily(HastyInBodies):
        pass

    with serve(Hastily) as server, server.connect() as client:
        client.sendall(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert Hastily.forgiven.wait(PATIENCE)
        app.gate.set()
        assert heard(client, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert heard(client, len(ANSWER)) == ANSWER


def test_a_body_may_rest_once_the_response_has_begun(serve: Serve, app: App) -> None:
    app.early = True

    class Hastily(HastyInBodies):
        pass

    with serve(Hastily) as server, server.connect() as client:
        client.sendall(POST + b"hell")
        assert Hastily.forgiven.wait(PATIENCE)
        client.sendall(b"o")
        assert heard(client, len(ANSWER)) == ANSWER


def test_the_next_head_has_its_own_time_from_its_beginning(serve: Serve) -> None:
    class Hastily(Reader):
        body_timeout = SOON

    with serve(Hastily) as server, server.connect() as client:
        client.sendall(POST)
        client.sendall(b"helloGET /two HTTP/1.1\r\n")
        assert heard(client, len(ANSWER)) == ANSWER
        reader = Hastily.last
        assert reader._patience == PATIENCE
        assert reader.loop.time() - reader._since < PATIENCE
        client.sendall(b"Host: a\r\n\r\n")
        assert heard(client, len(ANSWER)) == ANSWER


def test_who_is_second_in_a_row_is_in_time(serve: Serve, app: App) -> None:
    app.gate = threading.Event()

    class Hastily(HastyInBodies):
        pass

    with serve(Hastily) as server, server.connect() as client:
        client.sendall(GET + POST + b"hell")
        assert Hastily.forgiven.wait(PATIENCE)
        app.gate.set()
        client.sendall(b"o")
        assert heard(client, 2 * len(ANSWER)) == 2 * ANSWER


def test_a_websocket_is_no_head_that_is_late(serve: Serve) -> None:
    class Hastily(Hasty):
        pass

    with serve(Hastily) as server, server.connect() as client:
        client.sendall(
            b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert heard(client, 12) == b"HTTP/1.1 101"
        assert Hastily.last._waits is None


# What goes out


def test_what_goes_out_waits_for_nothing(serve: Serve) -> None:
    """asyncio sees to it only on listeners that were made in one of several ways."""

    class Watched(Reader):
        pass

    with serve(Watched) as server, server.connect() as client:
        client.sendall(GET)
        assert heard(client, len(ANSWER)) == ANSWER
        line = Watched.last.transport.get_extra_info("socket")
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_client_that_takes_nothing_of_a_response_is_let_go(serve: Serve, app: App) -> None:
    app.size = 64 * 2**20

    class Hastily(Reader):
        send_timeout = SOON

    with serve(Hastily) as server, server.connect() as client:
        client.sendall(GET)
        assert app.left.wait(PATIENCE)
        assert len(read_all(client)) < app.size


@pytest.mark.parametrize("ends", [b"", b"Connection: close\r\n"])
def test_the_rest_of_a_response_waits_no_longer_than_the_whole(serve: Serve, app: App, ends: bytes) -> None:
    app.size = 3_000_000

    class Hastily(Reader):
        send_timeout = SOON
        lost: ClassVar[threading.Event] = threading.Event()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.lost.set()

    with serve(Hastily) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(GET[:-2] + ends + b"\r\n")
        assert Hastily.lost.wait(PATIENCE)


def test_a_client_that_takes_some_of_a_response_is_waited_for(serve: Serve, app: App) -> None:
    app.size = 64 * 2**20
    looked = threading.Event()

    class Hastily(Reader):
        send_timeout = SOON

        def _watched(self, waiting: int) -> None:
            looked.set()
            super()._watched(waiting - 1)

    with serve(Hastily) as server, server.connect() as client:
        client.sendall(GET)
        assert looked.wait(PATIENCE)
        assert len(heard(client, app.size)) == app.size


# What is wrong while a response is under way


def test_what_is_no_http_after_a_request_is_not_told_in_its_response(patient: Running, app: App) -> None:
    app.gate = threading.Event()
    with patient.connect() as client:
        client.sendall(GET + b"\0\0\0\0")
        assert app.began.wait(PATIENCE)
        app.gate.set()
        assert read_all(client) == LAST_ANSWER


def test_what_is_no_http_leaves_nobody_at_work_for_a_client_who_has_left(patient: Running, app: App) -> None:
    app.size = 64 * 2**20  # it listens for that until the end
    with patient.connect() as client:
        client.sendall(GET)
        heard(client, 1_000)
        client.sendall(b"\0\0\0\0")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert app.left.wait(PATIENCE)


@pytest.mark.parametrize("wrong", [b"no number\r\n", b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/3.0\r\n\r\n"])
def test_what_is_wrong_with_a_request_that_waits_takes_no_response_from_that_before(
    patient: Running, app: App, wrong: bytes
) -> None:
    app.gate = threading.Event()
    with patient.connect() as client:
        client.sendall(POST + b"hello" + CHUNKED + wrong)
        assert app.began.wait(PATIENCE)
        app.gate.set()
        answers = read_all(client)
    assert answers.startswith(ANSWER if b"HTTP/3" in wrong else LAST_ANSWER)
    assert b" 400 " not in answers


def test_who_is_at_work_hears_of_a_client_that_left_with_others_waiting(patient: Running, app: App) -> None:
    app.gate = threading.Event()
    with patient.connect() as client:
        client.sendall(POST + b"hell")
        assert app.began.wait(PATIENCE)
        client.sendall(b"o" + GET + b"\0")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    app.gate.set()
    assert app.done.wait(PATIENCE)


def test_a_body_that_is_no_http_is_refused_before_the_response(patient: Running, app: App) -> None:
    answer = patient.talk(CHUNKED + b"no number\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_body_that_is_no_http_breaks_off_the_response(patient: Running, app: App) -> None:
    app.early = True
    with patient.connect() as client:
        client.sendall(CHUNKED)
        begun = heard(client, len(ANSWER) - 2)
        client.sendall(b"no number\r\n")
        assert begun + read_all(client) == ANSWER[:-2]


@pytest.mark.parametrize("before", [(GET,), (POST, b"hello"), (CHUNKED, b"1\r\na\r\n", b"0\r\n\r\n")])
def test_what_is_no_http_after_a_response_is_refused(patient: Running, app: App, before: tuple[bytes, ...]) -> None:
    with patient.connect() as client:
        for part in before:
            client.sendall(part)
            assert app.began.wait(PATIENCE)
        assert heard(client, len(ANSWER)) == ANSWER
        client.sendall(b"GET /two HTTP/3.0\r\nHost: a\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 400 ")
