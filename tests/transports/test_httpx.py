"""The transport on the connections under httpx, on asyncio and trio."""

import ssl

import anyio
import pytest
from tests.servers import stub

from apim_middleware.errors import ConfigError
from apim_middleware.transports.httpx import HttpxTransport

from .conformance import TransportConformance, ask, polite
from .conformance_tls import TLSConformance, authority, tls_origin

__all__ = ["authority", "tls_origin"]  # fixtures


class TestHttpxTransport(TransportConformance):
    kind = HttpxTransport
    usual = {"verify": ssl.create_default_context()}  # noqa: RUF012 - made once, for it takes a while


class TestHttpxTransportOverTLS(TLSConformance):
    kind = HttpxTransport


def test_each_event_loop_has_connections_of_its_own():
    transport = HttpxTransport()

    async def once():
        async with stub(polite()) as upstream:
            assert (await ask(transport, upstream))[2] == b"ok"
            await transport.aclose()

    anyio.run(once)
    anyio.run(once)
    anyio.run(once, backend="trio")


def test_http2_needs_its_package(monkeypatch):
    monkeypatch.setattr("apim_middleware.transports.httpx.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"HttpxTransport\.http2"):
        HttpxTransport(http2=True)
