"""Permits in Redis or Valkey."""

import asyncio
import contextlib
import math
from contextvars import Context
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from apim_middleware._config import check
from apim_middleware.credentials.secret import Secret
from apim_middleware.errors import ConfigError, NotDone, StoreError
from apim_middleware.protocols import Clock
from apim_middleware.stores.redis.decisions import microseconds
from apim_middleware.stores.redis.lanes import lanes
from apim_middleware.stores.redis.server import Server
from apim_middleware.stores.redis.shards import Shards

if TYPE_CHECKING:
    from apim_middleware.stores.redis.ready import Client

Operation: TypeAlias = Literal["acquire", "renew", "restore", "release"]

_SCRIPT = ("permits",)
_TOGETHER = 512  # permits renewed at once


class _Question(NamedTuple):
    operation: Operation
    key: bytes
    holder: str
    at_once: int = 0


class RedisPermits:
    """Counts who is in, in a Redis or Valkey server (7 or later) that many processes and machines share; asyncio only.

    A permit is lent for ``lease`` seconds of the server's clock and renewed here, three times as often, as long as its
    holder is in: by one timer, which runs only then. When a process dies, its permits come back after the lease; when
    the server forgets them or was away for longer, those who are still in are entered again, be there room or not.

    Whatever goes wrong is a StoreError. A holder whose release failed is renewed no more. One object serves one event
    loop. ``aclose`` lets everybody out and closes the connections, unless they are those of a ready client.
    """

    def __init__(
        self,
        redis: "str | Client",
        *,
        prefix: str = "apim",
        shards: int = 1,
        lease: float = 15.0,
        connect: float = 1.0,
        timeout: float = 0.5,
        max_waiting: int = 10_000,
        password: str | Secret | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``redis`` is a URL (``redis://``, ``rediss://``, ``unix://``), or a ready client of ``redis.asyncio``.

        ``password`` stands in for the one in the URL; a secret, such as a ``FileSecret``, is read for each connection.
        Keys begin with ``prefix`` in braces, which gives all of them one place in a cluster; with ``shards`` they are
        spread over so many. ``lease`` is seconds, the same in all processes that share a key. ``connect`` and
        ``timeout`` are seconds to wait for a connection and for an answer; ``max_waiting`` is how many calls may wait
        for their turn, of each shard. A ``clock`` is for tests: it stands in for the server's.
        """
        check("RedisPermits", "lease", lease, float)
        if not 0.01 <= lease < math.inf:
            raise ConfigError("RedisPermits", "lease", f"{lease} is no time to lend", "Give seconds, some at least")
        self._server = Server("RedisPermits", redis, connect, timeout, password)
        self._shards = Shards("RedisPermits", prefix, shards)
        self._lanes = lanes("RedisPermits", self._shards.spaces, self._carry, max_waiting)
        self._lease, self._clock = lease, clock
        self._held: dict[tuple[str, str], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._entering = 0
        self._closing = False

    def __repr__(self) -> str:
        """Where they are, without names and passwords."""
        return f"<RedisPermits: {self._server.address}>"

    async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        """Let the holder in if fewer than ``at_once`` are; whether it is in, and how many are.

        Raises StoreError; unless it is NotDone, the holder may be in, or will be when a stopped server goes on.
        """
        if self._closing:
            raise NotDone(f"the store on {self._server.address} is closed")
        asked = self._ask("acquire", key, holder, at_once)
        self._entering += 1
        try:
            inside, count = await asyncio.shield(asked)
        except asyncio.CancelledError:  # nobody will release what may still be lent
            asked.add_done_callback(lambda answer: self._unwanted(answer, key, holder))
            raise
        finally:
            self._entering -= 1
        if inside:
            self._hold(key, holder)
        return inside, count

    async def release(self, key: str, holder: str) -> None:
        """Let this holder out; nothing happens when it is not in. Raises StoreError."""
        self._let_go(key, holder)
        await asyncio.shield(self._ask("release", key, holder))

    def _ask(self, operation: Operation, key: str, holder: str, at_once: int = 0) -> "asyncio.Future[tuple[bool, int]]":
        loop = self._server.check()
        space = self._shards.only or self._shards.space((key,))
        name = space + b"!permits|" + key.encode("utf-8", "surrogatepass")
        return self._lanes[space].ask(_Question(operation, name, holder, at_once), loop)

    async def _carry(self, questions: list[_Question]) -> list[tuple[bool, int] | StoreError]:
        moment = b"%d" % microseconds(self._clock.now()) if self._clock else b""
        told = [moment, b"%d" % microseconds(self._lease)]
        for operation, _, holder, at_once in questions:
            told += operation.encode(), b"%d" % at_once, holder.encode("utf-8", "surrogatepass")
        reply = await self._server.run(_SCRIPT, [question.key for question in questions], told)
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return [
            (inside == 1, count) if isinstance(inside, int) else self._server.failure(inside) for inside, count in pairs
        ]

    def _unwanted(self, answer: "asyncio.Future[tuple[bool, int]]", key: str, holder: str) -> None:
        """Give back what was lent to somebody who is gone, or may yet be by a server that did not answer."""
        if answer.cancelled() or isinstance(answer.exception(), NotDone):
            return
        if answer.exception() is None and not answer.result()[0]:
            return
        with contextlib.suppress(StoreError):  # then it comes back after the lease
            self._ask("release", key, holder).add_done_callback(_seen)

    # What is held here, and renewed

    def _hold(self, key: str, holder: str) -> None:
        self._held[key, holder] = None
        if self._timer is None and self._renewal is None:
            self._wind()

    def _let_go(self, key: str, holder: str) -> None:
        self._held.pop((key, holder), None)
        if not self._held and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wind(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._lease / 3, self._begin_renewal)

    def _begin_renewal(self) -> None:
        self._timer = None
        self._renewal = asyncio.get_running_loop().create_task(self._renew(), context=Context())

    async def _renew(self) -> None:
        """Renew everything that is held, not all of it at once; what fails has two more chances before it is lost."""
        try:
            held = list(self._held)
            for first in range(0, len(held), _TOGETHER):
                some = held[first : first + _TOGETHER]
                await asyncio.gather(*[self._renew_one(*each) for each in some], return_exceptions=True)
        finally:
            self._renewal = None
            if self._held:
                self._wind()

    async def _renew_one(self, key: str, holder: str) -> None:
        found, _ = await self._ask("renew", key, holder)
        if not found and (key, holder) in self._held:
            await self._ask("restore", key, holder)

    async def aclose(self) -> None:
        """Let everybody out, then close the connections, unless they are those of a ready client."""
        self._closing = True
        while self._entering:  # who comes in now would stay in
            await self._answered()
            await asyncio.sleep(0)
        if self._renewal is not None:
            await asyncio.wait([self._renewal])
        held = list(self._held)
        await asyncio.gather(*[self.release(*each) for each in held], return_exceptions=True)
        self._server.close()
        await self._answered()
        await self._server.aclose()

    async def _answered(self) -> None:
        """Wait for what is on its way."""
        for lane in self._lanes.values():
            await lane.aclose()


def _seen(answer: "asyncio.Future[tuple[bool, int]]") -> None:
    """Nobody asks what became of it, and nobody need be warned."""
    if not answer.cancelled():
        answer.exception()
