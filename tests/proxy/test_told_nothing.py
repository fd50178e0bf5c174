"""What goes wrong on the way to an upstream is for the log: clients learn that it did, and nothing of where or why."""

import json
import logging

import pytest

from apim_middleware.errors import ConnectFailed, NoConnectionFree, TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.pool import Pool
from apim_middleware.testing import call

from .scripted import Scripted

pytestmark = pytest.mark.anyio

HOST = "orders-7.internal"
INTERNAL = f"[Errno 111] http://{HOST}:8443/v2?key=s3cret at /srv/app/transport.py, line 7"
ERRORS = (ConnectFailed, NoConnectionFree, UpstreamBroken, UpstreamTimeout, TransportError)


def ways(error):
    """A proxy, one with a pool, and a gateway of either kind, whose upstream fails like this."""
    told = Scripted(**{HOST: error(INTERNAL)})
    proxy = Proxy(f"http://{HOST}", transport=told)
    yield proxy
    yield Proxy(Pool(f"http://{HOST}", f"http://{HOST}/other"), transport=told)
    for errors in ("problem", "azure"):
        yield Gateway(apis=(Api("a", "/", backend=proxy, subscription_required=False),), errors=errors)


@pytest.mark.parametrize("error", ERRORS)
async def test_a_client_is_told_nothing_of_an_upstream_that_fails(error, caplog):
    caplog.set_level(logging.WARNING)
    for app in ways(error):
        answer = await call(app)
        said = answer.body.decode() + repr(answer.headers)
        assert answer.status in (502, 503, 504)
        assert not [each for each in (HOST, "Errno", "8443", "s3cret", "/srv/app", "Traceback") if each in said], said
        assert json.loads(answer.body)
    assert INTERNAL in caplog.text
