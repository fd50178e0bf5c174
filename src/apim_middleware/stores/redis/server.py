"""The server: scripts that come with this package run there, asked from one event loop."""

import asyncio
import hashlib
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from apim_middleware._config import check, shown
from apim_middleware.credentials.secret import Secret, reader_of
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.stores.redis.link import Link, Rejected, failed, is_elsewhere
from apim_middleware.stores.redis.target import target_of

if TYPE_CHECKING:
    from apim_middleware.stores.redis.ready import Client


class _Script(NamedTuple):
    text: bytes
    digest: bytes


WRITING = "writing"
"""Begins a script that a server refuses as a whole where it may not write, or has no room to."""


@cache
def _script(parts: tuple[str, ...]) -> _Script:
    """What these files say one after the other, and the name the server knows it by."""
    folder = files(__package__) / "lua"
    text = b"\n".join([folder.joinpath(f"{part}.lua").read_bytes() for part in parts])
    return _Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


class Server:
    """Runs scripts on a Redis or Valkey server, a cluster, or whatever a ready client leads to.

    Nothing is sent twice: who cannot know whether the server heard it is told that it failed. The one exception is a
    script the server does not know (any more), for then it did nothing.
    """

    def __init__(
        self, owner: str, target: "str | Client", connect: float, timeout: float, password: str | Secret | None
    ) -> None:
        """Connect lazily. ``connect`` and ``timeout`` are seconds, for a connection and for an answer."""
        for field, seconds in (("connect", connect), ("timeout", timeout)):
            check(owner, field, seconds, float)
            if not 0 < seconds < math.inf:
                raise ConfigError(owner, field, f"{seconds} is no time to wait", "Give seconds above 0")
        check(owner, "password", password, str | Secret | None, secret=True)
        self._link = _link(owner, target, connect, timeout, password)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """Where it is, without names and passwords."""
        return self._link.address

    def check(self) -> asyncio.AbstractEventLoop:
        """The event loop this belongs to: the first that used it. Raises StoreError in any other, and when closed."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise StoreError("stores on Redis need asyncio, and no loop of it is running here") from None
        if self._closed:
            raise StoreError(f"the store on {self.address} is closed")
        if loop is not self._loop:
            if self._loop is not None:
                raise StoreError(f"the store on {self.address} belongs to another event loop: make one for each")
            self._loop = loop
        return loop

    async def run(self, parts: tuple[str, ...], keys: Sequence[bytes], args: Sequence[bytes]) -> list[Any]:
        """What the script of these parts, files in ``lua``, answers. Raises StoreError."""
        try:
            return await self._answers(_script(parts), (b"%d" % len(keys), *keys, *args))
        except Rejected as error:
            if is_elsewhere(error):
                self._link.leave()
            raise

    async def _answers(self, script: _Script, words: tuple[bytes, ...]) -> list[Any]:
        try:
            answers: list[Any] = await self._link.say(b"EVALSHA", script.digest, *words)
        except Rejected as error:
            if error.kind != "NOSCRIPT":
                raise
            answers = await self._link.say(b"EVAL", script.text, *words)
        return answers

    def failure(self, told: bytes | str) -> StoreError:
        """What a script said of a call that failed in it."""
        error = failed(self.address, told)
        if is_elsewhere(error):
            self._link.leave()
        return error

    def close(self) -> None:
        """Let nobody ask any more."""
        self._closed = True

    async def aclose(self) -> None:
        """Close the connection, unless it is that of a ready client."""
        await self._link.aclose()


def _link(owner: str, target: "str | Client", connect: float, timeout: float, password: str | Secret | None) -> Link:
    """The libraries are imported here and not before: they take a while, and not everybody has them."""
    if not isinstance(target, str) and (isinstance(target, type) or not hasattr(target, "execute_command")):
        problem = f"{shown(target, secret=True)} is neither a URL nor a client"
        raise ConfigError(owner, "redis", problem, "Write redis://host:6379/0, or give a client of redis.asyncio")
    try:
        if not isinstance(target, str):
            if password is not None:
                cure = "Leave it out, and give the client a credential provider"
                raise ConfigError(owner, "password", "is for a URL, and redis is a ready client", cure)
            from apim_middleware.stores.redis.ready import ReadyLink

            return ReadyLink(target, connect + timeout)
        from apim_middleware.stores.redis.wire import OwnLink
    except ImportError as error:
        raise ConfigError(owner, "redis", "needs redis-py and hiredis", 'Install "apim-middleware[redis]"') from error
    try:
        found = target_of(target)
    except (ValueError, OSError) as error:  # nothing of the URL itself may be said
        cure = "Write redis://host:6379/0, rediss:// for TLS, or unix:///path?db=0; give a ready client for more"
        raise ConfigError(owner, "redis", f"is no URL of a server: it {error}", cure) from None
    if password is not None and found.password:
        raise ConfigError(owner, "password", "is given, and there is one in the URL too", "Give one of them")
    reader = reader_of(found.password if password is None else password, Env())
    return OwnLink(found, reader, connect, timeout)
