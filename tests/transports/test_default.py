"""Which transport those get who name none."""

import anyio
import pytest

from apim_middleware.transports import default
from apim_middleware.transports.default import DefaultTransport
from apim_middleware.transports.http1 import Http1Transport
from apim_middleware.transports.httpx import HttpxTransport


async def here():
    return DefaultTransport(verify=False).here


@pytest.mark.parametrize(("backend", "kind"), [("asyncio", Http1Transport), ("trio", HttpxTransport)])
def test_it_is_our_own_where_that_runs(backend, kind):
    assert isinstance(anyio.run(here, backend=backend), kind)


def test_it_is_httpx_where_httptools_is_not_installed(monkeypatch):
    monkeypatch.setattr(default, "find_spec", lambda name: None)
    assert isinstance(anyio.run(here), HttpxTransport)


@pytest.mark.anyio
async def test_it_is_made_once():
    transport = DefaultTransport(verify=False)
    assert transport.here is transport.here
