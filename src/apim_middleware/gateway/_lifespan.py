"""The lifespans of several apps as one (ASGI lifespan protocol): all start, or none goes on."""

import logging
from collections.abc import Iterable

import anyio
from anyio.abc import TaskGroup

from apim_middleware.gateway._backends import Backend
from apim_middleware.types import Message, Receive, Scope, Send

log = logging.getLogger("apim_middleware.gateway")


class StartFailed(Exception):
    """An app said that it cannot start."""


class _Life:
    """One app from start to shutdown, in a task of its own."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._asked = False
        self._started, self._stop, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._failure: str | None = None

    async def run(self) -> None:
        state = self._backend.state = {}  # the app fills it while it starts
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        try:
            await self._backend.app(scope, self._receive, self._send)
        except Exception as error:
            if self._failure is not None:
                log.error("an app behind the gateway does not start", exc_info=error)
            elif self._started.is_set():
                log.exception("an app behind the gateway failed while it shut down")
            else:  # as servers do: it knows no lifespan
                log.debug("an app behind the gateway knows no lifespan: %s", type(error).__name__)
        finally:
            self._started.set()
            self._ended.set()

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
                log.error("an app behind the gateway failed to shut down: %s", ascii(message.get("message", "")))
            self._ended.set()

    async def started(self) -> None:
        await self._started.wait()
        if self._failure is not None:
            raise StartFailed(self._failure)

    async def end(self) -> None:
        self._stop.set()
        await self._ended.wait()


class Lives:
    """The apps that run behind a gateway; some may come and others go while it serves."""

    def __init__(self, group: TaskGroup) -> None:
        """Their tasks belong to a group of whoever serves the lifespan."""
        self._group = group
        self._running: dict[int, tuple[Backend, _Life]] = {}

    async def start(self, backends: Iterable[Backend]) -> None:
        """Start those that do not run yet; when one cannot, the others are ended again. Raises StartFailed."""
        fresh = [backend for backend in backends if id(backend) not in self._running]
        for backend in fresh:
            life = _Life(backend)
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
