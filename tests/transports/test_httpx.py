"""The transports on the connections under httpx and httpx2, on asyncio and trio."""

import ssl
import sys

import anyio
import pytest
from tests.servers import stub

from apim_middleware.errors import ConfigError
from apim_middleware.transports.httpx import HttpxTransport
from apim_middleware.transports.httpx2 import Httpx2Transport

from .conformance import TransportConformance, ask, polite
from .conformance_http2 import HTTP2Conformance
from .conformance_tls import TLSConformance, authority, tls_origin

__all__ = ["authority", "tls_origin"]  # fixtures

CONTEXT = ssl.create_default_context()  # made once, for it takes a while

both = pytest.mark.parametrize("kind", [HttpxTransport, Httpx2Transport])


class TestHttpxTransport(TransportConformance):
    kind = HttpxTransport
    usual = {"verify": CONTEXT}  # noqa: RUF012


class TestHttpx2Transport(TransportConformance):
    kind = Httpx2Transport
    usual = {"verify": CONTEXT}  # noqa: RUF012


class TestHttpxTransportOverTLS(TLSConformance):
    kind = HttpxTransport


class TestHttpx2TransportOverTLS(TLSConformance):
    kind = Httpx2Transport


class TestHttpxTransportOverHTTP2(HTTP2Conformance):
    kind = HttpxTransport


class TestHttpx2TransportOverHTTP2(HTTP2Conformance):
    kind = Httpx2Transport


@both
def test_each_event_loop_has_connections_of_its_own(kind):
    transport = kind()

    async def once():
        async with stub(polite()) as upstream:
            assert (await ask(transport, upstream))[2] == b"ok"
            await transport.aclose()

    anyio.run(once)
    anyio.run(once)
    anyio.run(once, backend="trio")


@both
def test_http2_needs_its_package(monkeypatch, kind):
    monkeypatch.setattr("apim_middleware.transports._httpcore.transport.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.http2.*apim-middleware\[http2\]"):
        kind(http2=True)


@pytest.mark.parametrize("missing", ["httpx2", "httpcore2"])
def test_without_httpx2_its_extra_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"Httpx2Transport: needs .*apim-middleware\[httpx2\]"):
        Httpx2Transport()
