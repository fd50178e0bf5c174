"""How uvicorn writes responses for the reader of this package: their clients know where they end."""

import logging
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest
from tests.servers import Running, serving

from apim_middleware.serving.httptools import HttpToolsProtocol
from apim_middleware.types import Message, Receive, Scope, Send

LENGTH, CODING = (b"content-length", b"5"), (b"transfer-encoding", b"chunked")
OVER: Message = {"type": "http.response.body"}


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(chunk: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


class Script:
    """Sends what it was told to, and keeps what it is told of it."""

    messages: list[Message]

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for message in self.messages:
                await send(message)
        except Exception as error:
            self.heard.append(str(error))
            raise


@pytest.fixture
def app() -> Script:
    return Script()


@pytest.fixture
def server(app: Script) -> Iterator[Running]:
    with serving(app, http=HttpToolsProtocol, lifespan="off") as running:
        yield running


def asking(method: bytes = b"GET", version: bytes = b"1.1", *, last: bool = True) -> bytes:
    closing = b"Connection: close\r\n" if last else b""
    return method + b" /x HTTP/" + version + b"\r\nHost: a\r\n" + closing + b"\r\n"


OK, CLOSES = b"HTTP/1.1 200 OK\r\n", b"connection: close\r\n"
SIZED, IN_CHUNKS = OK + b"content-length: 5\r\n", OK + b"transfer-encoding: chunked\r\n"
OLD = asking(version=b"1.0")
TWO = [body(b"hel", more=True), body(b"lo")]


@pytest.mark.parametrize(
    ("request_line", "messages", "written"),
    [
        pytest.param(
            asking(),
            [start(), *TWO],
            IN_CHUNKS + CLOSES + b"\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            id="chunks",
        ),
        pytest.param(
            asking(),
            [start(), body(b"hello", more=True), body(b"", more=True), OVER],
            IN_CHUNKS + CLOSES + b"\r\n5\r\nhello\r\n0\r\n\r\n",
            id="an empty part is no last chunk",
        ),
        pytest.param(asking(), [start(LENGTH), *TWO], SIZED + CLOSES + b"\r\nhello", id="length"),
        pytest.param(
            asking(),
            [start(LENGTH, CODING), *TWO],
            IN_CHUNKS + CLOSES + b"\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            id="never both",
        ),
        pytest.param(OLD, [start(), *TWO], OK + CLOSES + b"\r\nhello", id="1.0"),
        pytest.param(OLD, [start(CODING), *TWO], OK + CLOSES + b"\r\nhello", id="1.0, asked for chunks"),
        pytest.param(OLD, [start(LENGTH), *TWO], SIZED + CLOSES + b"\r\nhello", id="1.0, length"),
        pytest.param(asking(b"HEAD"), [start(LENGTH), *TWO], SIZED + CLOSES + b"\r\n", id="HEAD"),
        pytest.param(asking(b"HEAD"), [start(), *TWO], OK + CLOSES + b"\r\n", id="HEAD without a length"),
        pytest.param(asking(), [start(status=204), OVER], b"HTTP/1.1 204 No Content\r\n" + CLOSES + b"\r\n", id="204"),
        pytest.param(
            asking(),
            [start(LENGTH, status=204), OVER],
            b"HTTP/1.1 204 No Content\r\n" + CLOSES + b"\r\n",
            id="204, length",
        ),
        pytest.param(
            asking(),
            [start(), body(b"hel", more=True), {**OVER, "body": None}],
            IN_CHUNKS + CLOSES + b"\r\n3\r\nhel\r\n0\r\n\r\n",
            id="no last part",
        ),
        pytest.param(
            asking(last=False),
            [start((b"Connection", b"Close"), LENGTH), *TWO],
            OK + b"connection: Close\r\ncontent-length: 5\r\n\r\nhello",
            id="the app closes",
        ),
    ],
)
def test_where_a_response_ends_is_said_once(
    app: Script, server: Running, request_line: bytes, messages: list[Message], written: bytes
) -> None:
    """RFC 9112 §6.1, §6.2, §6.3."""
    app.messages = messages
    assert server.talk(request_line) == written


def test_a_304_may_tell_a_length(app: Script, server: Running) -> None:
    """RFC 9110 §8.6: it was taken for a promise, and the connection broken off."""
    app.messages = [start(LENGTH, status=304), OVER]
    one = b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n"
    assert server.talk(asking(last=False) + asking()) == one + b"\r\n" + one + CLOSES + b"\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        *([(b"x", b"a\r\nb: c")], [(b"x y", b"a")], [(b"", b"a")], [(b"x", b"\0")]),
        *([(b"content-length", length)] for length in (b"-5", b"+5", b"5_0", b" 5", b"0x5", b"", b"5, 5")),
        *([LENGTH, LENGTH], [LENGTH, (b"content-length", b"6")]),
    ],
)
def test_a_head_that_cannot_be_written_is_a_500(app: Script, server: Running, lines: list[tuple[bytes, bytes]]) -> None:
    """The connection was broken off without a word."""
    app.messages = [start(*lines)]
    assert server.talk(asking()).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("messages", "heard"),
    [
        ([start(LENGTH), body(b"hello!")], "the body is longer than its Content-Length"),
        ([start(LENGTH), body(b"hell")], "the body is shorter than its Content-Length"),
        ([start(status=204), body(b"hello")], "the body is longer than its Content-Length"),
        ([OVER], "http.response.body cannot come now"),
        ([start(), start()], "http.response.start cannot come now"),
        ([start(LENGTH), *TWO, OVER], "http.response.body came after the end of the response"),
    ],
)
def test_the_app_hears_what_cannot_be(app: Script, server: Running, messages: list[Message], heard: str) -> None:
    app.messages = messages
    server.talk(asking())
    assert app.heard == [heard]


@pytest.mark.parametrize("messages", [[start(LENGTH), body(b"hello!")], [start(LENGTH), body(b"hell")]])
def test_a_body_of_another_length_ends_the_connection(app: Script, server: Running, messages: list[Message]) -> None:
    """What a client has read must not be taken for whole, nor the next response for the rest of this one."""
    app.messages = messages
    answer = server.talk(asking(last=False) + asking(last=False))
    assert answer == SIZED + b"\r\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_half_a_body_that_ends_with_the_connection_is_not_taken_for_whole(app: Script, loop: str) -> None:
    """RFC 9112 §8: nginx, which speaks HTTP/1.0 to its upstreams unless told otherwise, kept it as if it were all."""
    app.messages = [start(), body(b"hel", more=True), start()]
    with serving(app, http=HttpToolsProtocol, lifespan="off", loop=loop) as running, running.connect() as client:
        client.sendall(OLD)
        heard = iter(partial(client.recv, 65536), b"")
        with pytest.raises(ConnectionResetError):
            list(heard)


def test_a_status_that_is_not_final_is_a_500(app: Script, server: Running) -> None:
    app.messages = [start(status=103)]
    assert server.talk(asking()).startswith(b"HTTP/1.1 500 ")


def test_what_cannot_be_answered_at_all_ends_the_connection(app: Script) -> None:
    app.messages = [start(LENGTH), *TWO]
    options = {"headers": [("x y", "a")]}
    with serving(app, http=HttpToolsProtocol, lifespan="off", **options) as running:
        assert running.talk(asking(last=False)) == b""


@pytest.fixture
def logging_server(app: Script, caplog: pytest.LogCaptureFixture) -> Iterator[Running]:
    """A server that tells what it is asked."""
    app.messages = [start(LENGTH), *TWO]
    options = {"access_log": True, "log_config": None, "log_level": "info"}
    with (
        caplog.at_level(logging.INFO, "uvicorn.access"),
        serving(app, http=HttpToolsProtocol, lifespan="off", **options) as running,
    ):
        yield running


def test_responses_are_in_the_access_log(logging_server: Running, caplog: pytest.LogCaptureFixture) -> None:
    logging_server.talk(asking())
    assert [
        record.getMessage().partition(" - ")[2] for record in caplog.records if record.name == "uvicorn.access"
    ] == ['"GET /x HTTP/1.1" 200']


def test_no_secrets_are_in_the_access_log(logging_server: Running, caplog: pytest.LogCaptureFixture) -> None:
    logging_server.talk(asking().replace(b"/x", b"/x?page=2&subscription-key=canary"))
    assert '"GET /x?page=2&subscription-key=REDACTED HTTP/1.1" 200' in caplog.text
    assert "canary" not in caplog.text


def test_a_date_of_the_app_takes_the_place_of_the_servers(app: Script) -> None:
    """A proxied response had two: the server's, and that of its origin, which it is to keep (RFC 9110 §6.6.1)."""
    app.messages = [start((b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"), LENGTH), body(b"hello")]
    with serving(app, http=HttpToolsProtocol, lifespan="off", date_header=True) as running:
        said = running.talk(asking())
    assert [line for line in said.split(b"\r\n") if line.startswith(b"date:")] == [
        b"date: Sun, 06 Nov 1994 08:49:37 GMT"
    ]


def test_a_response_without_a_date_gets_the_servers(app: Script) -> None:
    app.messages = [start((b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), LENGTH), body(b"hello")]
    with serving(app, http=HttpToolsProtocol, lifespan="off", date_header=True) as running:
        said = running.talk(asking())
    assert said.count(b"\r\ndate: ") == 1


def test_a_head_and_a_body_at_hand_are_written_at_once(app: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two system calls for each response are one too many."""
    written: list[bytes] = []
    write = _SelectorSocketTransport.write

    def noted(transport: _SelectorSocketTransport, data: bytes) -> None:
        written.append(data)
        write(transport, data)

    monkeypatch.setattr(_SelectorSocketTransport, "write", noted)
    app.messages = [start(LENGTH), body(b"hello")]
    with serving(app, http=HttpToolsProtocol, lifespan="off", loop="asyncio") as running:
        running.talk(asking())
    assert written == [SIZED + CLOSES + b"\r\nhello"]


def test_a_large_body_comes_whole_behind_its_head(app: Script, server: Running) -> None:
    app.messages = [start((b"content-length", b"200000")), body(bytes(200_000))]
    assert server.talk(asking()) == OK + b"content-length: 200000\r\n" + CLOSES + b"\r\n" + bytes(200_000)


async def _silent(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await receive()
    await receive()


def test_a_head_does_not_wait_for_a_body_that_is_not_there_yet() -> None:
    """An event stream is open before its first event."""
    with serving(_silent, http=HttpToolsProtocol, lifespan="off") as running, running.connect() as client:
        client.sendall(asking())
        assert client.recv(65536) == IN_CHUNKS + CLOSES + b"\r\n"


def test_an_app_that_fails_behind_its_head_has_sent_it(app: Script, server: Running) -> None:
    app.messages = [start(LENGTH), start(LENGTH)]
    assert server.talk(asking()) == SIZED + CLOSES + b"\r\n"


async def _too_much_and_then_the_rest(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(LENGTH))
    await send(body(b"123", more=True))
    with suppress(RuntimeError):
        await send(body(b"456", more=True))
    await send(body(b"45"))


def test_what_was_too_much_does_not_count() -> None:
    """An app that went on sent a byte less than it had announced, on a connection that stayed open."""
    with serving(_too_much_and_then_the_rest, http=HttpToolsProtocol, lifespan="off") as running:
        assert running.talk(asking()) == SIZED + CLOSES + b"\r\n12345"


def test_a_large_body_is_written_so_that_asyncio_holds_it_back(app: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """``writelines`` of some versions forgets to, and all of a download was held for a client that took nothing."""
    written: list[int] = []
    write = _SelectorSocketTransport.write

    def noted(transport: _SelectorSocketTransport, data: bytes) -> None:
        written.append(len(data))
        write(transport, data)

    monkeypatch.setattr(_SelectorSocketTransport, "write", noted)
    monkeypatch.setattr(_SelectorSocketTransport, "writelines", None)
    app.messages = [start((b"content-length", b"200000")), body(bytes(200_000))]
    with serving(app, http=HttpToolsProtocol, lifespan="off", loop="asyncio") as running:
        running.talk(asking())
    assert written[-1] == 200_000
