"""What the server is to be told otherwise, said when it starts: there it cannot be mended."""

import logging
from typing import Any

from apim_middleware.types import Receive, Scope

log = logging.getLogger("apim_middleware")

_KEY = "apim_middleware.server"
_READER = "uvicorn.protocols.http.httptools_impl"


def look_at_server(scope: Scope, receive: Receive) -> None:
    """Warn of what uvicorn leaves to clients, once for each lifespan; other servers show no configuration."""
    config: Any = getattr(getattr(receive, "__self__", None), "config", None)
    if type(config).__module__ != "uvicorn.config" or _KEY in scope:
        return
    scope[_KEY] = "looked at"
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
