"""A WebSocket client for tests that wait, over TLS as well: one event loop reads and writes.

The threads of ``websockets.sync`` use one TLS session at the same time, which OpenSSL does not allow: once in some
hundred handshakes nothing is sent.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from tests.servers import PATIENCE
from websockets.asyncio.client import ClientConnection, connect

LONG = 3 * PATIENCE
"""Seconds for whatever several processes do together, which a busy machine lets wait for each other."""


@dataclass(frozen=True)
class Talk:
    """An open WebSocket."""

    portal: BlockingPortal
    connection: ClientConnection

    def send(self, message: str | bytes) -> None:
        """Say something."""
        self.portal.call(self.connection.send, message)

    def recv(self) -> str | bytes:
        """What is said next. Raises ConnectionClosed."""
        return self.portal.call(self.connection.recv)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, and wait for the other side's."""
        self.portal.call(self.connection.close, code, reason)

    @property
    def subprotocol(self) -> str | None:
        """What was agreed on."""
        return self.connection.subprotocol

    @property
    def close_code(self) -> int | None:
        """With what it was closed."""
        return self.connection.close_code


@contextlib.contextmanager
def talk(url: str, **options: Any) -> Iterator[Talk]:
    """Shake hands, and close in the end. Raises InvalidStatus."""
    waits = {"open_timeout": LONG, "close_timeout": LONG, "ping_interval": None}

    async def shake_hands() -> ClientConnection:
        return await connect(url, proxy=None, **waits, **options)

    with start_blocking_portal() as portal:
        opened = Talk(portal, portal.call(shake_hands))
        try:
            yield opened
        finally:
            opened.close()
