"""A gateway of a file, taken over anew when the file has changed."""

import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import anyio

from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.types import Receive, Scope, Send

log = logging.getLogger("apim_middleware.cli")

_EVERY = 1.0

Stamp: TypeAlias = tuple[int, int, int]
"""What tells a file from what it was before."""


class Watched:
    """A gateway of a file, taken over anew when the file has changed; a broken one changes nothing.

    The log says which file serves: by a number that grows, and by the first digits of its SHA-256, which are the same
    in all processes that have read the same file. ``apim.configuration.reloads`` counts what came of each change.
    """

    def __init__(
        self,
        path: Path,
        gateway: Gateway,
        read: Callable[[Gateway], Any],
        *,
        every: float = _EVERY,
        stamp: Stamp | None = None,
    ) -> None:
        """Look at the file ``every`` so many seconds while the server runs.

        ``read`` gives what the file says now, after the gateway that serves. ``stamp`` is that of the file before it
        was read; without one it is taken now.
        """
        self._path, self._read, self._every = path, read, every
        self._served = Reloadable(gateway)
        self._generation = 1
        self._stamp = self._seen = stamp or stamp_of(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope; the file is watched within the lifespan."""
        if scope["type"] != "lifespan":
            await self._served(scope, receive, send)
            return
        log.info("%s is served: generation 1, sha256 %s", self._path, _digest(self._path))
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            await self._served(scope, receive, send)
            group.cancel_scope.cancel()

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Take the file over if it has changed, and has not since the last look: it may still be being written."""
        stamp, seen = stamp_of(self._path), self._seen
        self._seen = stamp
        if stamp is None and seen is not None:
            log.warning("%s is gone: what it said goes on", self._path)
        if stamp is None or stamp == self._stamp or stamp != seen:
            return
        self._stamp = stamp
        await self._take_over()

    async def _take_over(self) -> None:
        digest = _digest(self._path)  # first: what changes meanwhile is seen at the next look
        try:
            changes = await self._served.reload(self._read(self._served.gateway))
        except ConfigError as error:
            log.error("%s is not taken over: %s", self._path, error)
            self._count("failed")
            return
        except Exception:  # of what a file names: whatever it is, the old one goes on
            log.exception("%s is not taken over", self._path)
            self._count("failed")
            return
        self._generation += 1
        for change in changes:
            log.log(logging.WARNING if change.loud else logging.INFO, "%s", change)
        log.info("%s is taken over: generation %d, sha256 %s", self._path, self._generation, digest)
        self._count("taken-over")

    def _count(self, outcome: str) -> None:
        env = self._served.gateway.env or self._served._env
        env.count("apim.configuration.reloads", {"apim.configuration.outcome": outcome})


def _digest(path: Path) -> str:
    """What tells one content of a file from others, in the log."""
    try:
        return sha256(path.read_bytes()).hexdigest()[:12]
    except OSError:
        return "unknown"


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None where there is none."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
