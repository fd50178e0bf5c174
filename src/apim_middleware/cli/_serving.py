"""What servers load in each of their workers, and how a file that changes is taken over."""

import logging
import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio

from apim_middleware.cli._targets import found, is_file
from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.policies.access_log import access
from apim_middleware.serving.certificates import server_context
from apim_middleware.serving.collector import tune_gc
from apim_middleware.serving.dates import Dated
from apim_middleware.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("apim_middleware.cli")

TARGET, NAMES, RELOAD = "APIM_TARGET", "APIM_NAMES", "APIM_RELOAD"
CERTIFICATE, KEY = "APIM_CERTIFICATE", "APIM_KEY"
"""Variables by which a worker learns what to serve."""

_EVERY = 1.0


def app() -> ASGIApp:
    """The app of this worker, as the environment says."""
    target, names = os.environ[TARGET], os.environ.get(NAMES, "")
    stamp = _stamp_of(Path(target))  # first, so that what changes meanwhile is taken over
    served: ASGIApp = found(target, names)
    _speak()  # last, for the app may see to that itself
    if isinstance(served, Gateway) and is_file(target) and os.environ.get(RELOAD):
        served = Watched(Path(target), served, lambda now: found(target, names, now), stamp=stamp)
    tune_gc()
    return Dated(served)


def _speak() -> None:
    """Have what this package says be heard, unless somebody has seen to that; lines of AccessLog alone, on stdout."""
    ours = logging.getLogger("apim_middleware")
    if not ours.handlers and not logging.getLogger().handlers:
        logging.basicConfig(format="%(levelname)s:     %(message)s")
        ours.setLevel(logging.INFO)
        access.propagate = False  # those handlers are no place for JSON
        if not access.handlers:
            lines = logging.StreamHandler(sys.stdout)
            lines.setFormatter(logging.Formatter("%(message)s"))
            access.addHandler(lines)


def tls(config: object, default: object) -> ssl.SSLContext:
    """The TLS of this worker, which follows its files."""
    return server_context(os.environ[CERTIFICATE], os.environ[KEY])


class Watched:
    """A gateway of a file, taken over anew when the file has changed; a broken one changes nothing."""

    def __init__(
        self,
        path: Path,
        gateway: Gateway,
        read: Callable[[Gateway], Any],
        *,
        every: float = _EVERY,
        stamp: "Stamp | None" = None,
    ) -> None:
        """Look at the file ``every`` so many seconds while the server runs.

        ``read`` gives what the file says now, after the gateway that serves. ``stamp`` is that of the file before it
        was read; without one it is taken now.
        """
        self._path, self._read, self._every = path, read, every
        self._served = Reloadable(gateway)
        self._stamp = stamp or _stamp_of(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope; the file is watched within the lifespan."""
        if scope["type"] != "lifespan":
            await self._served(scope, receive, send)
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            await self._served(scope, receive, send)
            group.cancel_scope.cancel()

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Take the file over if it has changed."""
        stamp = _stamp_of(self._path)
        if stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        await self._take_over()

    async def _take_over(self) -> None:
        try:
            changes = await self._served.reload(self._read(self._served.gateway))
        except ConfigError as error:
            log.error("%s is not taken over: %s", self._path, error)
            return
        except Exception:  # of what a file names: whatever it is, the old one goes on
            log.exception("%s is not taken over", self._path)
            return
        for change in changes:
            log.log(logging.WARNING if change.loud else logging.INFO, "%s", change)
        log.info("%s is taken over", self._path)


Stamp: TypeAlias = tuple[int, int, int]


def _stamp_of(path: Path) -> Stamp | None:
    """What tells a file from what it was before; None where there is none."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
