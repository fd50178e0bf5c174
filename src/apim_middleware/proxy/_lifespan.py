"""The lifespan of an app, and of other apps that live beside it."""

import logging
from collections.abc import Sequence

import anyio

from apim_middleware._alongside import alongside
from apim_middleware._ring import seats_of
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("apim_middleware")


class Together:
    """An app that starts others before itself and ends them before itself; only what it says is heard.

    Others that know no lifespan, or fail to start, go without one.
    """

    def __init__(self, app: ASGIApp, others: Sequence[ASGIApp]) -> None:
        """Only the lifespan goes to the others."""
        self._app, self._others = app, others
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        sides = [_Side(app, scope) for app in self._others]
        async with alongside() as tasks:

            async def receiving() -> Message:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    for each in sides:
                        tasks.start_soon(each.run)
                        await each.started.wait()
                elif message["type"] == "lifespan.shutdown":
                    for each in sides:
                        await each.stop()
                return message

            await self._app(scope, receiving, send)


class _Side:
    """The lifespan of one of the others."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app, self._scope = app, {**scope, "state": {}}
        self._asked = False
        self.started, self._stopping, self._over = anyio.Event(), anyio.Event(), anyio.Event()

    async def run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            if not self.started.is_set():
                log.debug("an app beside the main one has no lifespan: %s", error)
            else:
                log.exception("an app beside the main one failed to end")
        finally:
            self.started.set()
            self._over.set()

    async def stop(self) -> None:
        self._stopping.set()
        await self._over.wait()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            log.warning("an app beside the main one did not start: %s", message.get("message", ""))
        self.started.set()
