"""A gateway that is replaced while it serves: built, validated, swapped; what is under way ends on its old plan."""

from collections.abc import Iterator
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup

from apim_middleware._lifespan import StartFailed, ending_with
from apim_middleware._server import look_at_server
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway._compiled import Compiled, Row
from apim_middleware.gateway._lifespan import Lives
from apim_middleware.gateway.app import Gateway
from apim_middleware.gateway.difference import Change, difference
from apim_middleware.types import Receive, Scope, Send


class _Generation:
    """A gateway that serves, and how many requests are on their way through it."""

    def __init__(self, gateway: Gateway, env: Env) -> None:
        self.gateway = gateway
        self.standing = gateway if gateway.env else replace(gateway, env=env)
        """The gateway with the environment that it is served in."""
        self.compiled = self.standing.compiled
        self._inside = 0
        self._empty: anyio.Event | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._inside += 1
        try:
            await self.compiled.serve(scope, receive, send)
        finally:
            self._inside -= 1
            if not self._inside and self._empty is not None:
                self._empty.set()

    async def left(self) -> None:
        """Wait until nobody is inside; nobody comes in any more."""
        if self._inside:
            self._empty = anyio.Event()
            await self._empty.wait()


class Reloadable:
    """An ASGI app that serves a gateway, and another one from the moment ``reload`` has taken it over.

    Policies that are equal at equal places keep what they counted, backends that are equal keep their connections and
    their health. Requests and WebSockets that are under way end on the plan they began with; backends nobody uses any
    more are shut down after that. Whatever is wrong with the new gateway, the old one stays.

    Backends with a lifespan of their own are started and shut down where the server speaks that protocol with us; where
    it does not, they are neither.
    """

    def __init__(self, gateway: Gateway) -> None:
        """Begin with this gateway; its environment is that of all that follow, unless they bring one."""
        self._env = gateway.env or Env()
        self._now = _Generation(gateway, self._env)
        self._turn = anyio.Lock()
        self._lives: Lives | None = None
        self._group: TaskGroup | None = None

    def __repr__(self) -> str:
        """What it serves now."""
        return f"<Reloadable: {self.gateway.name}>"

    @property
    def gateway(self) -> Gateway:
        """The gateway that serves now."""
        return self._now.gateway

    def rows(self, product: str | None = None) -> Iterator[Row]:
        """What stands in front of each operation now; see ``Gateway.rows``."""
        return self._now.compiled.rows(product)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        kind = scope["type"]
        if kind == "http" or kind == "websocket":
            await self._now.serve(scope, receive, send)
        elif kind == "lifespan":
            look_at_server(scope, receive)
            await self._live(receive, ending_with(send, [self._end]))
        else:
            raise RuntimeError(f"a gateway knows no {kind} scope")

    async def reload(self, gateway: Gateway) -> tuple[Change, ...]:
        """Let another gateway serve from now on, and say what that changes.

        ConfigError when it cannot be compiled where it is to stand, or one of its backends does not start; the one that
        serves goes on then. That it can be compiled at all was known when it was made.
        """
        async with self._turn:
            following = _Generation(gateway, self._env)
            changes = difference(self._now.standing, following.standing)
            await self._start(following.compiled)
            before, self._now = self._now, following
            if self._group is not None:
                self._group.start_soon(self._retire, before)
            return changes

    async def _start(self, compiled: Compiled) -> None:
        if self._lives is not None:
            try:
                await self._lives.start(compiled.backends.every())
            except StartFailed as error:
                cure = "Look at what its start-up says"
                raise ConfigError("Gateway", "apis", f"holds a backend that does not start: {error}", cure) from error

    async def _retire(self, generation: _Generation) -> None:
        await generation.left()
        async with self._turn:
            if self._lives is not None:
                used = {id(backend) for backend in self._now.compiled.backends.every()}
                over = [each for each in generation.compiled.backends.every() if id(each) not in used]
                await self._lives.end(over)
        if generation.compiled.ending != self._now.compiled.ending:
            await generation.compiled.ending()

    async def _end(self) -> None:
        await self._now.compiled.ending()

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan of whatever stands behind, as long as the server runs."""
        await receive()
        async with anyio.create_task_group() as group:
            lives = Lives(group)
            try:
                await lives.start(self._now.compiled.backends.every())
            except StartFailed as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            self._lives, self._group = lives, group
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self._group = None
            await lives.end_all()
            self._lives = None
            group.cancel_scope.cancel()  # of retirements that wait for somebody who stays
        await send({"type": "lifespan.shutdown.complete"})
