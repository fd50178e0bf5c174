"""The lifespans of several apps as one (ASGI lifespan protocol): all start, or none goes on."""

from collections.abc import Iterable

import anyio
from anyio.abc import TaskGroup

from apim_middleware._lifespan import Life, StartFailed
from apim_middleware.gateway._backends import Backend
from apim_middleware.types import Receive, Scope, Send


class Lives:
    """The apps that run behind a gateway; some may come and others go while it serves."""

    def __init__(self, group: TaskGroup) -> None:
        """Their tasks belong to a group of whoever serves the lifespan."""
        self._group = group
        self._running: dict[int, tuple[Backend, Life]] = {}

    async def start(self, backends: Iterable[Backend]) -> None:
        """Start those that do not run yet; when one cannot, the others are ended again. Raises StartFailed."""
        fresh = [backend for backend in backends if id(backend) not in self._running]
        for backend in fresh:
            life = Life(backend.app)
            backend.state = life.state
            self._running[id(backend)] = backend, life
            self._group.start_soon(life.run)
        try:
            for backend in fresh:
                await self._running[id(backend)][1].started()
        except StartFailed:
            await self.end(fresh)
            raise

    async def end(self, backends: Iterable[Backend]) -> None:
        """Shut these down, one after the other, the last first."""
        for backend in reversed(list(backends)):
            running = self._running.pop(id(backend), None)
            if running is not None:
                await running[1].end()

    async def end_all(self) -> None:
        """Shut all of them down."""
        await self.end([backend for backend, _ in self._running.values()])


async def serve(backends: Iterable[Backend], receive: Receive, send: Send) -> None:
    """The lifespan of these apps together, as a server asks for it."""
    async with anyio.create_task_group() as group:
        lives = Lives(group)
        await receive()
        try:
            await lives.start(backends)
        except StartFailed as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await lives.end_all()
        await send({"type": "lifespan.shutdown.complete"})


async def nothing_behind(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands behind a layer when only the layer itself is to start and stop."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
