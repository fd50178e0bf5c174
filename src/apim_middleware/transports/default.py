"""The transport of those who name none: our own where it runs, httpx's elsewhere."""

import asyncio
import ssl
import sys
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

from apim_middleware.protocols import Transport, UpstreamRequest, UpstreamResponse
from apim_middleware.transports._fields import NO_FILE, check_admits, check_verify
from apim_middleware.transports.websockets import WebSockets


class DefaultTransport:
    """An ``Http1Transport`` on asyncio, an ``HttpxTransport`` elsewhere.

    ``verify`` is True (the usual certificate authorities), False (no check: for tests), or an SSL context of your own.
    ``admits`` says of an address, as text, whether it may be connected to; without one, all may.
    """

    def __init__(self, *, verify: ssl.SSLContext | bool = True, admits: Callable[[str], bool] | None = None) -> None:
        """Neither is made before it is needed."""
        check_verify("DefaultTransport", verify, NO_FILE)
        check_admits("DefaultTransport", admits)
        self._verify = verify
        self._admits = admits

    def send(self, request: UpstreamRequest) -> Awaitable[UpstreamResponse]:
        """Send the request and return once the response head is known. Raises TransportError."""
        return self.here.send(request)

    @property
    def open_websocket(self) -> Callable[[UpstreamRequest, WebSockets], Awaitable[Any]]:
        """How WebSockets are opened, by whichever transport is the one here. AttributeError where none can."""
        opens: Callable[[UpstreamRequest, WebSockets], Awaitable[Any]] = self.here.open_websocket  # type: ignore[attr-defined]
        return opens

    async def aclose(self) -> None:
        """Close every pooled connection of this event loop."""
        await self.here.aclose()

    def apart(self) -> "DefaultTransport":
        """A transport with the same fields, whose connections are its own and counted for themselves."""
        return DefaultTransport(verify=self._verify, admits=self._admits)

    @property
    def here(self) -> Transport:
        """The transport for the event loop that is running."""
        if "trio" in sys.modules:  # else it can only be asyncio, and asking is a system call on CPython 3.11
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return self._httpx
        return self._http1

    @cached_property
    def _http1(self) -> Transport:
        from apim_middleware.transports.http1 import Http1Transport

        return Http1Transport(verify=self._verify, admits=self._admits)

    @cached_property
    def _httpx(self) -> Transport:
        from apim_middleware.transports.httpx import HttpxTransport

        return HttpxTransport(verify=self._verify, admits=self._admits)
