"""The gateways of table 3, in processes that are tuned as those of ``apim serve``."""

import os
from typing import Any

from apps import seven

from apim_middleware import Proxy
from apim_middleware.serving.collector import tune_gc
from apim_middleware.transports.httpx import HttpxTransport

UPSTREAM = os.environ.get("APIM_BENCHMARK_UPSTREAM", "http://127.0.0.1:9000")


def proxy() -> Any:
    """The proxy alone."""
    return tuned(Proxy(UPSTREAM))


def proxy_seven() -> Any:
    """The proxy behind the seven policies of table 2."""
    return tuned(seven()(Proxy(UPSTREAM)))


def proxy_httpx() -> Any:
    """The proxy alone, on the connections under httpx."""
    return tuned(Proxy(UPSTREAM, transport=HttpxTransport()))


def tuned(app: Any) -> Any:
    """The app, in a process whose garbage collector knows that it only serves."""
    tune_gc()
    return app
