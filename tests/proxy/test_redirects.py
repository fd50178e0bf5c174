"""Redirects of an upstream are the client's to follow: the proxy goes nowhere it was not told to go."""

import anyio
import pytest
from tests.servers import saying, stub

from apim_middleware.credentials.credential import BearerCredential
from apim_middleware.env import Env
from apim_middleware.policies.upstream_auth import UpstreamAuth
from apim_middleware.policy import Stack
from apim_middleware.proxy import Proxy
from apim_middleware.testing import call

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_redirect_goes_down_as_it_came_and_nobody_else_is_asked(status, method):
    """Else who answers for an upstream would choose who gets the credentials that are meant for it."""
    async with stub(saying(OK)) as elsewhere:
        there = f"{elsewhere.origin}/x".encode()
        redirect = b"HTTP/1.1 %d Go\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % (status, there)
        async with stub(saying(redirect)) as upstream:
            proxy = Proxy(upstream.origin)
            policy = UpstreamAuth(credential=BearerCredential(token="for-the-upstream"))
            with anyio.fail_after(10):
                answer = await call(Stack(policy, env=Env())(proxy), method)
            await proxy._transport.aclose()
    assert (answer.status, answer.header(b"location")) == (status, there)
    assert b"authorization: Bearer for-the-upstream" in bytes(upstream.heard[0])
    assert elsewhere.heard == []
