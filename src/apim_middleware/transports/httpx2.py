"""The same on the connections under httpx2, the maintained continuation of httpx."""

import ssl
from functools import partial

from apim_middleware.errors import ConfigError
from apim_middleware.transports._httpcore.core import Core
from apim_middleware.transports._httpcore.transport import CoreTransport


class Httpx2Transport(CoreTransport):
    """An ``HttpxTransport`` on httpx2 (extra ``httpx2``): the same fields, and the same answers.

    Where ``verify`` is True, the certificate authorities are those of the system.
    """

    @staticmethod
    def _core() -> Core:
        try:
            import httpcore2
            import httpx2
        except ImportError as error:
            cure = 'Install "apim-middleware[httpx2]"'
            raise ConfigError("Httpx2Transport", "", "needs the package httpx2", cure) from error
        return Core(
            context=partial(httpx2.create_ssl_context, trust_env=False),
            connection=httpcore2.AsyncHTTPConnection,
            network=httpcore2.AnyIOBackend,  # runs on trio as well
            origin=httpcore2.Origin,
            url=httpcore2.URL,
            request=httpcore2.Request,
            unreachable=(httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.UnsupportedProtocol),
            slow=httpcore2.TimeoutException,
            unwritable=httpcore2.LocalProtocolError,
            broken=(httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ConnectionNotAvailable, ssl.SSLError),
            unwanted=httpcore2.WriteError,
        )
