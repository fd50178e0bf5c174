"""The lifespan of an app, and of other apps that live beside it."""

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable
from weakref import WeakValueDictionary

from apim_middleware._alike import Alike
from apim_middleware._alongside import alongside
from apim_middleware._lifespan import Life, StartFailed
from apim_middleware._ring import seats_of
from apim_middleware.env import Env, default_env
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


class Neighbour:
    """An app that requests may be sent to besides, and what its lifespan left for them."""

    __slots__ = ("__weakref__", "app", "state")

    def __init__(self, app: ASGIApp) -> None:
        """It has left nothing yet."""
        self.app = app
        self.state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a scope on, a request with the state of this app."""
        if scope["type"] == "lifespan":
            self.state = scope.setdefault("state", {})
        elif self.state:
            scope["state"] = {**(scope.get("state") or {}), **self.state}
        await self.app(scope, receive, send)


def neighbour(app: ASGIApp, env: Env) -> Neighbour:
    """The one there is for apps like this in an environment, which a proxy tells what happens to its upstreams."""
    known = env.kept("neighbours", WeakValueDictionary[Hashable, Neighbour])
    key = Alike(app) if isinstance(app, Hashable) else id(app)
    found: Neighbour | None = known.get(key)
    if found is None:
        found = known[key] = Neighbour(app)
        if isinstance(app, _Telling):
            app.tell(env)
    return found


def living(built: ASGIApp, app: ASGIApp) -> ASGIApp:
    """What was built in front of an app, and one lifespan for it and whatever its policies lead to besides."""
    others = {id(each): each for each in _neighbours(built)}
    for each in _neighbours(app):  # which has seen to that
        others.pop(id(each), None)
    beside = [each for each in others.values() if each.app is not app]
    return Together(built, beside) if beside else built


def living_with(app: ASGIApp, others: Iterable[ASGIApp], env: Env) -> ASGIApp:
    """An app, and one lifespan for it and for others."""
    beside = {id(each): each for each in (neighbour(other, env) for other in others)}
    return Together(app, list(beside.values())) if beside else app


def _neighbours(app: ASGIApp) -> Iterator[Neighbour]:
    for seat in seats_of(app):
        for other in getattr(seat.policy, "leads_to", ()):
            yield neighbour(other, seat.env or default_env)


@runtime_checkable
class _Telling(Protocol):
    def tell(self, env: Env) -> None: ...
