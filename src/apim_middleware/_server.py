"""What the server is to be told otherwise, said when it starts: there it cannot be mended."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from typing import Any

from apim_middleware.types import Receive, Scope

log = logging.getLogger("apim_middleware")

_KEY = "apim_middleware.server"
_READER = "uvicorn.protocols.http.httptools_impl"


def look_at_server(scope: Scope, receive: Receive) -> None:
    """Warn of what uvicorn leaves to clients, once for each lifespan; other servers show no configuration."""
    uvicorn = sys.modules.get("uvicorn.config")
    if uvicorn is None or scope["type"] != "lifespan" or _KEY in scope:
        return
    try:
        config = next((each for each in _configs(receive) if isinstance(each, uvicorn.Config)), None)
        if config is not None:
            scope[_KEY] = "looked at"
            _warn(config)
    except Exception:  # a server that starts is worth more than what is said of it
        log.debug("the configuration of uvicorn could not be read", exc_info=True)


def _configs(receive: Receive) -> Iterator[object]:
    """What may be the server's configuration: that of whose ``receive`` this is, or of who runs the lifespan.

    FastAPI has a ``receive`` of its own around uvicorn's, as other middlewares may. The task is uvicorn's all the same,
    and its coroutine a method of the object that has the configuration.
    """
    yield getattr(getattr(receive, "__self__", None), "config", None)
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop of asyncio
        return
    frame = getattr(task.get_coro(), "cr_frame", None) if task is not None else None
    if frame is not None:
        yield getattr(frame.f_locals.get("self"), "config", None)


def _warn(config: Any) -> None:  # noqa: ANN401 - of uvicorn, which is not imported
    if config.proxy_headers:
        log.warning(
            "uvicorn puts what X-Forwarded-For says in the place of the peer's address, for peers at %s: "
            "run it with --no-proxy-headers, and write TrustedProxies where there is a proxy in front",
            config.forwarded_allow_ips,
        )
    if getattr(config, "http_protocol_class", type(None)).__module__ == _READER:
        log.warning(
            "uvicorn puts trailers of a request among its headers, and holds heads of any size: "
            "run it with --http apim_middleware.serving.httptools:HttpToolsProtocol, or --http h11"
        )
