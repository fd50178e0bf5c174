"""The way to an upstream on the connections under httpx: HTTP/1.1, and HTTP/2 where wanted, on asyncio and trio."""

import ssl
from functools import partial

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
        return Core(
            context=partial(httpx.create_ssl_context, trust_env=False),
            connection=httpcore.AsyncHTTPConnection,
            network=httpcore.AnyIOBackend,  # runs on trio as well
            origin=httpcore.Origin,
            url=httpcore.URL,
            request=httpcore.Request,
            unreachable=(httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.UnsupportedProtocol),
            slow=httpcore.TimeoutException,
            unwritable=httpcore.LocalProtocolError,
            broken=(httpcore.NetworkError, httpcore.ProtocolError, httpcore.ConnectionNotAvailable, ssl.SSLError),
            unwanted=httpcore.WriteError,
        )
