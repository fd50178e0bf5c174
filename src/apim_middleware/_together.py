"""The lifespan of an app, and of other apps that live beside it."""

import logging
from collections.abc import Sequence

from apim_middleware._alongside import alongside
from apim_middleware._lifespan import Life, StartFailed
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
        lives = [Life(app) for app in self._others]
        async with alongside() as tasks:

            async def receiving() -> Message:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    for life in lives:
                        tasks.start_soon(life.run)
                        await _started(life)
                elif message["type"] == "lifespan.shutdown":
                    for life in lives:
                        await life.end()
                return message

            await self._app(scope, receiving, send)


async def _started(life: Life) -> None:
    try:
        await life.started()
    except StartFailed as error:
        log.warning("an app beside the main one does not start: %s", error)
