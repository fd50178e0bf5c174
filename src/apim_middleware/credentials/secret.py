"""Secrets that are read where they are kept, so that they can be rotated without a restart."""

import logging
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from apim_middleware._config import Configured
from apim_middleware.env import Env
from apim_middleware.errors import StoreError

log = logging.getLogger("apim_middleware.credentials")

Reader: TypeAlias = Callable[[], Awaitable[str]]
"""Gives a secret as it is now. Raises StoreError when it cannot be had; its message never holds the secret."""

_LARGEST = 64 * 1024


class Secret(Protocol):
    """A secret text that is kept somewhere: an ``EnvironmentSecret``, a ``FileSecret``, or one of your own."""

    def reader(self, env: Env) -> Reader:
        """What reads it, asked whenever the secret is needed: it must be quick, so it remembers what it read."""
        ...


def reader_of(secret: str | Secret, env: Env) -> Reader:
    """What reads a secret; one that is given as text never changes."""
    if not isinstance(secret, str):
        return secret.reader(env)
    text = secret

    async def read() -> str:
        return text

    return read


@dataclass(frozen=True, kw_only=True)
class EnvironmentSecret(Configured):
    """A secret in an environment variable of this process.

    ConfigError while building when it is not set or empty.
    """

    name: str
    """The variable's name."""

    def reader(self, env: Env) -> Reader:
        """What reads the variable."""
        name = self.name
        if not os.environ.get(name):
            raise self.mistake("name", "is not set in the environment", "Set it before the process starts")

        async def read() -> str:
            text = os.environ.get(name)
            if not text:
                raise StoreError(f"the environment variable {name} is not set")
            return text

        return read


@dataclass(frozen=True, kw_only=True)
class FileSecret(Configured):
    """A secret in a file, such as one that Docker or Kubernetes mounts; read again when the file has changed.

    One line break at the end is left out. ConfigError while building when it cannot be read then; a file that cannot be
    read later, or is empty, changes nothing: that is logged, and the secret stays what it was.
    """

    path: str | Path
    """Where the file is."""

    check_every: float = 5.0
    """Seconds between two looks at whether the file has changed; it is never looked at for each request."""

    def __post_init__(self) -> None:
        """A time must be one."""
        if not 0 < self.check_every < math.inf:
            raise self.mistake("check_every", "is no time", "Give seconds above 0")

    def reader(self, env: Env) -> Reader:
        """What reads the file."""
        return _File(self, env).read


class _Stamp(NamedTuple):
    """By what a file is known to be the same: replaced files have another inode, changed ones another time."""

    inode: int
    changed: int
    size: int


class _File:
    """A file and what stood in it."""

    def __init__(self, secret: FileSecret, env: Env) -> None:
        self._path = Path(secret.path)
        self._every = secret.check_every
        self._now = env.clock.monotonic
        try:
            self._stamp = self._look()
            self._text = self._content()
        except (OSError, ValueError) as error:
            raise secret.mistake("path", f"cannot be read: {_reason(error)}", "Give a file with the secret") from None
        self._next = self._now() + self._every

    async def read(self) -> str:
        if self._now() >= self._next:
            self._next = self._now() + self._every
            self._refresh()
        return self._text

    def _refresh(self) -> None:
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._text = self._content()
                self._stamp = stamp
        except (OSError, ValueError) as error:
            log.error("the secret in %s cannot be read, and stays what it was: %s", self._path, _reason(error))

    def _look(self) -> _Stamp:
        found = self._path.stat()
        return _Stamp(found.st_ino, found.st_mtime_ns, found.st_size)

    def _content(self) -> str:
        with self._path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise ValueError("it is too large")
        text = raw.decode().removesuffix("\n").removesuffix("\r")
        if not text:
            raise ValueError("it is empty")
        return text


def _reason(error: OSError | ValueError) -> str:
    """What went wrong, without what was read: an error of decoding shows the bytes."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is not UTF-8" if isinstance(error, UnicodeError) else str(error)
