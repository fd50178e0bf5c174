"""The gateways of table 3."""

import os
from typing import Any

from apps import seven

from apim_middleware import Proxy
from apim_middleware.transports.httpx import HttpxTransport

UPSTREAM = os.environ.get("APIM_BENCHMARK_UPSTREAM", "http://127.0.0.1:9000")


def proxy() -> Any:
    """The proxy alone."""
    return Proxy(UPSTREAM)


def proxy_seven() -> Any:
    """The proxy behind the seven policies of table 2."""
    return seven()(proxy())


def proxy_httpx() -> Any:
    """The proxy alone, on the connections under httpx."""
    return Proxy(UPSTREAM, transport=HttpxTransport())
