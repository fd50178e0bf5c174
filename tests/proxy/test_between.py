"""What stands between a proxy and the transport that sends may change messages; nothing of it is taken on trust."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from apim_middleware import Proxy
from apim_middleware.transports.http1 import Http1Transport

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok"


@pytest.fixture
def anyio_backend():
    """``Http1Transport`` runs on asyncio."""
    return "asyncio"


class Between:
    """A transport that changes the lines it passes on, in their own lists."""

    def __init__(self, *, up=(), down=()):
        self._inner, self._up, self._down = Http1Transport(), up, down

    async def send(self, request):
        request.headers += self._up
        response = await self._inner.send(request)
        response.headers += self._down
        return response

    async def aclose(self):
        await self._inner.aclose()


@asynccontextmanager
async def upstream(asked):
    async def serve(reader, writer):
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(ANSWER)
            await reader.read()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def passed(between):
    """What the upstream was asked, and the messages of the answer."""
    asked, sent = [], []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "headers": [(b"host", b"a")],
    }
    async with upstream(asked) as url:
        await Proxy(url, transport=between)(scope, asyncio.Event().wait, lambda message: _keep(sent, message))
        await between.aclose()
    return asked, sent


async def _keep(sent, message):
    sent.append(message)


@pytest.mark.parametrize("line", [(b"x", b"a\r\ny: z"), (b"x y", b"z"), (b"content-length", b"5")])
async def test_a_line_added_on_the_way_up_is_still_looked_at(line):
    asked, sent = await passed(Between(up=[line]))
    assert asked == []
    assert sent[0]["status"] == 502


@pytest.mark.parametrize("line", [(b"x", b"a\r\ny: z"), (b"x y", b"z"), (b"content-length", b"5")])
async def test_a_line_added_on_the_way_down_is_still_looked_at(line):
    _, sent = await passed(Between(down=[line]))
    assert sent[0]["status"] == 502


async def test_a_good_line_added_on_the_way_is_passed_on():
    asked, sent = await passed(Between(up=[(b"x-up", b"1")], down=[(b"x-down", b"2")]))
    assert b"\r\nx-up: 1\r\n" in asked[0]
    assert (b"x-down", b"2") in sent[0]["headers"]
    assert sent[-1]["body"] == b"ok"
