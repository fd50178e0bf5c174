"""Which transport those get who name none."""

import ssl

import anyio
import pytest
from tests.servers import saying, stub

from apim_middleware.errors import ConnectFailed
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.transports.http1 import Http1Transport
from apim_middleware.transports.httpx import HttpxTransport

from .conformance import OK
from .conformance_tls import TLSConformance, authority, tls_origin

__all__ = ["authority", "tls_origin"]


class TestDefaultTransportOverTLS(TLSConformance):
    kind = DefaultTransport


async def here():
    return DefaultTransport(verify=False).here


@pytest.mark.parametrize(("backend", "kind"), [("asyncio", Http1Transport), ("trio", HttpxTransport)])
def test_it_is_our_own_where_that_runs(backend, kind):
    assert isinstance(anyio.run(here, backend=backend), kind)


@pytest.mark.anyio
async def test_it_is_made_once():
    transport = DefaultTransport(verify=False)
    assert transport.here is transport.here


# Which addresses may be dialled


class Judge:
    """Admits some addresses, and remembers which it was asked about."""

    def __init__(self, *admitted: str) -> None:
        self.admitted, self.asked = admitted, []

    def __call__(self, address: str) -> bool:
        self.asked.append(address)
        return address in self.admitted


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1"])
async def test_only_an_admitted_address_is_dialled(host):
    async with stub(saying(OK)) as upstream:
        for judge, status in ((Judge(), None), (Judge("10.0.0.1"), None), (Judge("127.0.0.1"), 200)):
            transport = DefaultTransport(admits=judge)
            request = UpstreamRequest("GET", f"http://{host}:{upstream.port}")
            if status is None:
                with pytest.raises(ConnectFailed, match="may be connected to"):
                    await transport.send(request)
            else:
                response = await transport.send(request)
                assert response.status == status
                await response.aclose()
            await transport.aclose()
            assert "127.0.0.1" in judge.asked
        assert len(upstream.heard) == 1


@pytest.mark.anyio
async def test_tls_expects_the_name_whatever_address_was_admitted(tls_origin, authority):
    context = ssl.create_default_context(cafile=authority)
    transport = DefaultTransport(verify=context, admits=Judge("127.0.0.1"))
    response = await transport.send(UpstreamRequest("GET", tls_origin))
    assert response.status == 200
    await response.aclose()
    with pytest.raises(ConnectFailed):
        await transport.send(UpstreamRequest("GET", tls_origin.replace("localhost", "127.0.0.1")))
    await transport.aclose()


@pytest.mark.anyio
async def test_a_name_that_leads_nowhere_is_no_connection():
    transport = DefaultTransport(admits=Judge())
    with pytest.raises(ConnectFailed):
        await transport.send(UpstreamRequest("GET", "http://nowhere.invalid"))
    await transport.aclose()
