"""An upstream that changes the protocol without being asked has not answered, whatever it says behind that."""

import json

import anyio
import pytest
from tests.servers import saying, stub

from apim_middleware.proxy import Proxy
from apim_middleware.testing import call

pytestmark = pytest.mark.anyio

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize("said", [(SWITCH, OK), (SWITCH + OK,), (SWITCH + SWITCH + OK,)])
@pytest.mark.parametrize("asking", [[], [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]])
async def test_it_is_a_bad_gateway_and_no_interim_response(said, asking):
    """The fields that ask for it are for one hop, so a request that is no handshake never asks."""
    async with stub(saying(*said)) as upstream:
        proxy = Proxy(upstream.origin)
        with anyio.fail_after(10):
            answer = await call(proxy, headers=asking)
        await proxy._transport.aclose()
    assert (answer.status, json.loads(answer.body)["code"]) == (502, "upstream-broken")
