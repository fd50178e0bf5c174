"""The lifespan of an app, and of other apps that live beside it."""

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from apim_middleware._alongside import alongside
from apim_middleware._lifespan import Life, StartFailed
from apim_middleware._ring import Ring, seats_of
from apim_middleware.env import Env
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("apim_middleware")


class Together:
    """An app that starts others before itself and ends them before itself; only what it says is heard.

    Others that know no lifespan, or fail to start, go without one.
    """

    def __init__(self, app: ASGIApp, others: Sequence[ASGIApp]) -> None:
        """Only the lifespan goes to the others."""
        self.app, self.others = app, others
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        lives = [Life(app) for app in self.others]
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

            await self.app(scope, receiving, send)


async def _started(life: Life) -> None:
    try:
        await life.started()
    except StartFailed as error:
        log.warning("an app beside the main one does not start: %s", error)


def beside(app: ASGIApp) -> list[ASGIApp]:
    """The others that live beside an app, as far as policies in front of it let them be seen."""
    found: list[ASGIApp] = []
    while isinstance(app, Together | Ring):
        if isinstance(app, Together):
            found += app.others
        app = app.app
    return found


def told(app: ASGIApp, env: Env) -> ASGIApp:
    """The app, a proxy of which tells this environment what happens to its upstreams, unless it was given one."""
    if isinstance(app, _Telling):
        app.tell(env)
    return app


@runtime_checkable
class _Telling(Protocol):
    def tell(self, env: Env) -> None: ...
