"""The way to an upstream on the connections under httpx2, the maintained continuation of httpx."""

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
        return Core.of(httpcore2, httpx2)
