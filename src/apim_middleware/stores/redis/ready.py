"""A ready client of redis-py: a cluster, a master that sentinels know, whatever it leads to."""

import asyncio
import contextlib
from typing import Any, TypeAlias

import redis.asyncio
import redis.exceptions
from redis.client import NEVER_DECODE

from apim_middleware.errors import StoreError
from apim_middleware.stores.redis.link import Silence, kind_of, rejected

_KINDS: dict[type[Exception], str] = {
    redis.exceptions.AuthenticationError: "NOAUTH",
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.NoScriptError: "NOSCRIPT",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
}
"""What the client makes of errors of the server, and how the server calls them."""

Client: TypeAlias = "redis.asyncio.Redis | redis.asyncio.RedisCluster"


class ReadyLink:
    """A way through a client that somebody else made and closes; it should not send anything again by itself."""

    def __init__(self, client: Client, patience: float) -> None:
        """``patience`` is seconds for a connection and an answer together: the client may have no limit of its own."""
        self._client: Any = client
        self._patience = patience
        self._left = False
        self.address = type(client).__name__

    async def say(self, *words: bytes) -> Any:  # noqa: ANN401
        """The reply to a command. Raises StoreError."""
        name, *rest = words
        try:
            async with asyncio.timeout(self._patience):
                if self._left:
                    await self._give_up()
                # Replies are bytes, whatever the client makes of those to others.
                return await self._client.execute_command(name.decode(), *rest, **{NEVER_DECODE: True})
        except (TimeoutError, redis.exceptions.TimeoutError) as error:
            raise Silence(f"the store on {self.address} did not answer in time") from error
        except Exception as error:
            if kind := _KINDS.get(type(error)) or _kind_in(error):
                raise rejected(self.address, kind, str(error)) from error
            raise StoreError(f"the store on {self.address} failed ({type(error).__name__})") from error

    def leave(self) -> None:
        """Have the client give up the connections that nobody uses, before the next command."""
        self._left = True

    async def _give_up(self) -> None:
        self._left = False
        pool = getattr(self._client, "connection_pool", None)
        if pool is not None:  # a cluster has several, and finds its masters itself
            with contextlib.suppress(OSError, redis.exceptions.RedisError):
                await pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Leave it as it is."""


def _kind_in(error: Exception) -> str:
    """What the server said where the client has no class for it."""
    return kind_of(str(error)) if type(error) is redis.exceptions.ResponseError else ""
