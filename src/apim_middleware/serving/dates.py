"""The date of every response, where the server leaves it to those behind it."""

import time
from collections.abc import Awaitable
from email.utils import formatdate

from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send


class Dated:
    """An app whose responses have a ``Date`` (RFC 9110 §6.6.1): their own, else that of the moment.

    For servers that are told to write none, as they are in front of a proxy, which passes on that of the upstream.
    """

    __slots__ = ("_app", "_line", "_second")

    def __init__(self, app: ASGIApp) -> None:
        """Stand outermost."""
        self._app = app
        self._second, self._line = 0, (b"date", b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        def dated(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                lines = list(message.get("headers") or ())
                if not any(name == b"date" or name.lower() == b"date" for name, _ in lines):
                    lines.append(self._now())
                message = {**message, "headers": lines}
            return send(message)

        await self._app(scope, receive, dated)

    def _now(self) -> tuple[bytes, bytes]:
        second = int(time.time())
        if second != self._second:
            self._second, self._line = second, (b"date", formatdate(second, usegmt=True).encode())
        return self._line
