"""An upstream that breaks responses off is told of once by the proxy, and by no server with a traceback for each."""

import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.servers import Running, free_port, program, serving

from apim_middleware.errors import UpstreamBroken
from apim_middleware.proxy import Proxy
from apim_middleware.serving.httptools import HttpToolsProtocol

READER = {"http": HttpToolsProtocol, "lifespan": "off", "interface": "asgi3"}
SERVE = [sys.executable, "-c", "from apim_middleware.cli import main; main()", "serve"]
TIMES = 5


async def breaking(scope: Any, receive: Any, send: Any) -> None:
    """Announce a body of ten bytes unless it is asked not to, and come to four."""
    length = [] if scope["path"] == "/chunks" else [(b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("broken off")


async def in_a_group(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """A middleware that does something beside the app, and so wraps what that raises."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app, scope, receive, send)


@pytest.fixture
def upstream() -> Iterator[Running]:
    with serving(breaking, lifespan="off") as running:
        yield running


def asking(path: str, version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n".encode()


def is_half(answer: bytes) -> bool:
    """Whether a client sees that there should be more."""
    return b"half" in answer and not answer.endswith(b"0\r\n\r\n")


def is_of_the_upstream(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING or (record.exc_info is not None and record.exc_info[0] is RuntimeError)


@pytest.mark.parametrize("path", ["/", "/chunks"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "behind a task group"])
def test_a_burst_is_one_line_and_each_client_sees_a_half(
    upstream: Running, caplog: pytest.LogCaptureFixture, path: str, wrapped: bool
) -> None:
    proxy = Proxy(upstream.origin)
    with serving(partial(in_a_group, proxy) if wrapped else proxy, **READER) as gateway:
        assert all(is_half(gateway.talk(asking(path))) for _ in range(TIMES))
    of_the_gateway = [record for record in caplog.records if not is_of_the_upstream(record)]
    assert [record.getMessage().partition(": http")[0] for record in of_the_gateway] == ["upstream-broken"]


def test_a_half_that_ends_with_the_connection_is_still_reset(upstream: Running) -> None:
    with serving(Proxy(upstream.origin), **READER) as gateway, gateway.connect() as client:
        client.sendall(asking("/chunks", "1.0"))
        heard = iter(partial(client.recv, 65536), b"")
        with pytest.raises(ConnectionResetError):
            list(heard)


async def failing(scope: Any, receive: Any, send: Any) -> None:
    """As an app of its own does that asks an upstream."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise UpstreamBroken("nobody has told of this")


def test_what_nobody_has_told_of_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with serving(failing, **READER) as app:
        assert is_half(app.talk(asking("/")))
    assert "nobody has told of this" in caplog.text


GATEWAY = """
from apim_middleware import Proxy
app = Proxy("{origin}")
"""


def test_granian_shows_no_traceback_either(upstream: Running, tmp_path: Path) -> None:
    port, log, file = free_port(), tmp_path / "log", tmp_path / "broken_off.py"
    file.write_text(GATEWAY.format(origin=upstream.origin))
    command = [*SERVE, f"{file}:app", "--server", "granian", "--port", str(port)]
    with program(command, port, log=log) as gateway:
        for path in ("/", "/chunks"):
            assert all(is_half(gateway.talk(asking(path))) for _ in range(TIMES))
    said = log.read_text()
    assert "Traceback" not in said
    assert said.count("upstream-broken") == 1
