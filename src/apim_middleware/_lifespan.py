"""The lifespan protocol of ASGI: an app run from start to shutdown, and what ends with the server."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import anyio

from apim_middleware.types import ASGIApp, Message, Send

log = logging.getLogger("apim_middleware")

Ending: TypeAlias = Callable[[], Awaitable[None]]

_OVER = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"})


def ending_with(send: Send, endings: Iterable[Ending]) -> Send:
    """The ``send`` of a lifespan that runs these at its end, before the server hears of it and stops the event loop."""

    async def tell(message: Message) -> None:
        if message["type"] in _OVER:
            for end in endings:
                await end()
        await send(message)

    return tell


class StartFailed(Exception):
    """An app said that it cannot start."""


class Life:
    """An app from start to shutdown, in a task of its own; one that knows no lifespan goes without."""

    def __init__(self, app: ASGIApp) -> None:
        """Its state is filled when it starts."""
        self.state: dict[str, Any] = {}
        self._app = app
        self._asked = False
        self._started, self._stop, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._failure: str | None = None

    async def run(self) -> None:
        """Speak with the app as a server does, until it has ended; for a task."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:
            if self._failure is not None:
                log.error("an app does not start", exc_info=error)
            elif self._started.is_set():
                log.exception("an app failed while it shut down")
            else:  # as servers do: it knows no lifespan
                log.debug("an app knows no lifespan: %s", type(error).__name__)
        finally:
            self._started.set()
            self._ended.set()

    async def started(self) -> None:
        """Wait until it has started. Raises StartFailed."""
        await self._started.wait()
        if self._failure is not None:
            raise StartFailed(self._failure)

    async def end(self) -> None:
        """Shut it down."""
        self._stop.set()
        await self._ended.wait()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            lines = str(message.get("message", "")).strip().splitlines()  # of a whole traceback, with Starlette
            self._failure = lines[-1] if lines else "it does not say why"
        if message["type"].startswith("lifespan.startup"):
            self._started.set()
        else:
            if message["type"] == "lifespan.shutdown.failed":
                log.error("an app failed to shut down: %s", ascii(message.get("message", "")))
            self._ended.set()
