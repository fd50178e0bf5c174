"""The way to an upstream on the connections under httpx: HTTP/1.1, and HTTP/2 where wanted, on asyncio and trio."""

import httpcore
import httpx

from apim_middleware.transports._httpcore.core import Core
from apim_middleware.transports._httpcore.transport import CoreTransport


class HttpxTransport(CoreTransport):
    """Asks upstreams over pooled keep-alive connections; adds nothing to a request and decodes nothing of a response.

    A response whose framing is ambiguous (RFC 9112 §6.3), whose status is outside 200 to 599, or whose head is larger
    than 64 KiB or 256 lines is UpstreamBroken. Interim responses are passed over. An answer that comes while the
    request body is still being sent ends the sending (HTTP/1.1 only), and the connection with it.
    """

    @staticmethod
    def _core() -> Core:
        return Core.of(httpcore, httpx)
