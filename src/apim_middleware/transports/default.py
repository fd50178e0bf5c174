"""The transport of those who name none: our own where it runs, httpx's elsewhere."""

import asyncio
import ssl
from collections.abc import Coroutine
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from apim_middleware.protocols import Transport, UpstreamRequest, UpstreamResponse


class DefaultTransport:
    """An ``Http1Transport`` on asyncio where httptools is installed (extra ``gateway``), else an ``HttpxTransport``.

    ``verify`` is True (the usual certificate authorities), False (no check: for tests), or an SSL context of your own.
    """

    def __init__(self, *, verify: ssl.SSLContext | bool = True) -> None:
        """Neither is made before it is needed."""
        self._verify = verify
        self._has_httptools = find_spec("httptools") is not None

    def send(self, request: UpstreamRequest) -> Coroutine[Any, Any, UpstreamResponse]:
        """Send the request and return once the response head is known. Raises TransportError."""
        return self.here.send(request)

    async def aclose(self) -> None:
        """Close every pooled connection of this event loop."""
        await self.here.aclose()

    @property
    def here(self) -> Transport:
        """The transport for the event loop that is running."""
        if self._has_httptools:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return self._httpx
            return self._http1
        return self._httpx

    @cached_property
    def _http1(self) -> Transport:
        from apim_middleware.transports.http1 import Http1Transport

        return Http1Transport(verify=self._verify)

    @cached_property
    def _httpx(self) -> Transport:
        from apim_middleware.transports.httpx import HttpxTransport

        return HttpxTransport(verify=self._verify)
