"""Counters in Redis or Valkey."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from apim_middleware.credentials.secret import Secret
from apim_middleware.errors import NotDone, Spoiled, StoreError
from apim_middleware.protocols import Change, Clock, Hit, Limit, Tally
from apim_middleware.stores.redis.decisions import Call, Item, Operation, Wording, answers, microseconds
from apim_middleware.stores.redis.lanes import lanes
from apim_middleware.stores.redis.server import WRITING, Server
from apim_middleware.stores.redis.shards import Shards

if TYPE_CHECKING:
    from apim_middleware.stores.redis.ready import Client

_SCRIPT = (WRITING, "moments", "windows", "sliding", "bucket", "log", "calls")
_HIT = Operation.HIT  # looking it up in its class takes as long as half a hit
_new = tuple.__new__  # makes a named tuple in half the time that its class takes


class RedisCounters:
    """Counts in a Redis or Valkey server (7 or later) that many processes and machines share; asyncio only.

    A decision over all limits of a request is one step of one script, by the server's clock and in whole microseconds:
    all are counted or none is. Decisions of one tick of the event loop travel together. Every counter expires when
    nothing of it counts any more, but for windows without end.

    Whatever goes wrong is a StoreError: no connection, no answer in time, a server that loads, is full or may not
    write. Nothing is sent twice, so a hit is never counted twice; one that failed may have been counted all the same,
    and so may that of a caller who was cancelled meanwhile.

    One object serves one event loop. ``aclose`` waits for what is on its way and closes the connections, unless they
    are those of a ready client.
    """

    def __init__(
        self,
        redis: "str | Client",
        *,
        prefix: str = "apim",
        shards: int = 1,
        connect: float = 1.0,
        timeout: float = 0.5,
        max_waiting: int = 10_000,
        password: str | Secret | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``redis`` is a URL (``redis://``, ``rediss://``, ``unix://``), or a ready client of ``redis.asyncio``.

        ``password`` stands in for the one in the URL; a secret, such as a ``FileSecret``, is read for each connection.
        Keys begin with ``prefix`` in braces, which gives all of them one place in a cluster. With ``shards`` they are
        spread over so many places by the caller's key, and a call whose keys are in different ones is refused.
        ``connect`` and ``timeout`` are seconds to wait for a connection and for an answer; ``max_waiting`` is how many
        calls may wait for their turn, of each shard. A ``clock`` is for tests: it stands in for the server's.
        """
        self._server = Server("RedisCounters", redis, connect, timeout, password)
        self._shards = Shards("RedisCounters", prefix, shards)
        self._lanes = lanes("RedisCounters", self._shards.spaces, self._carry, max_waiting)
        self._clock = clock
        self._wording = Wording(clock.now if clock else time.time)

    def __repr__(self) -> str:
        """Where they are, without names and passwords."""
        return f"<RedisCounters: {self._server.address}>"

    @property
    def spread(self) -> bool:
        """Whether different keys may be in different places, so that no one step counts under both."""
        return self._shards.only is None

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order. Raises StoreError."""
        return await self._ask(_HIT, hits) if hits else []

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        """What each hit alone would be told, counting nothing; ``remaining`` is before the hit. Raises StoreError."""
        if self._shards.only or len(hits) < 2:
            return await self._ask(Operation.PEEK, hits) if hits else []
        return [tally for [tally] in await asyncio.gather(*[self._ask(Operation.PEEK, [hit]) for hit in hits])]

    async def settle(self, changes: Sequence[Change]) -> None:
        """Correct hits that were counted: give units back, or count more, beyond the quota too. Raises StoreError."""
        loop, items = self._server.check(), defaultdict[bytes, list[Item]](list)
        for key, limit, units, counted in changes:
            space = self._shards.only or self._shards.space((key,))
            items[space] += self._wording.items(space, [(key, limit, units)], microseconds(counted))
        # Corrections of many callers come together: they need not be one step, and may be in different shards.
        asked = [self._settle(space, each, loop) for space, each in items.items()]
        failed = [each for each in await asyncio.gather(*asked, return_exceptions=True) if each is not None]
        away = [each for each in failed if not isinstance(each, Spoiled)]
        if away and len(away) < len(asked) and all(isinstance(each, NotDone) for each in away):
            raise StoreError("some corrections could be made, and others not") from away[0]
        if failed:
            raise next((each for each in away if not isinstance(each, NotDone)), (away or failed)[0])

    async def _settle(self, space: bytes, items: list[Item], loop: asyncio.AbstractEventLoop) -> None:
        await self._lanes[space].ask(Call(Operation.SETTLE, items), loop)

    async def assign(self, hits: Sequence[Hit]) -> None:
        """Make each counter stand at ``cost`` units, as if used just now and nothing before. Raises StoreError."""
        if hits:
            await self._ask(Operation.ASSIGN, hits)

    async def reset(self, hits: Sequence[Hit]) -> None:
        """Forget what was counted under these keys and limits. Raises StoreError."""
        await self.assign([Hit(key, limit, 0) for key, limit, _ in hits])

    def _ask(self, operation: Operation, hits: Sequence[tuple[str, Limit, int]]) -> "asyncio.Future[list[Tally]]":
        loop = self._server.check()
        space = self._shards.only or self._shards.space([hit[0] for hit in hits])
        return self._lanes[space].ask(_new(Call, (operation, self._wording.items(space, hits))), loop)

    async def _carry(self, calls: list[Call]) -> list[list[Tally] | StoreError]:
        keys, *told = self._wording.packed(calls)
        moment = b"%d" % microseconds(self._clock.now()) if self._clock else b""
        return answers(await self._server.run(_SCRIPT, keys, (moment, *told)), calls, self._server.failure)

    async def aclose(self) -> None:
        """Wait for what is on its way, then close the connections, unless they are those of a ready client."""
        self._server.close()
        for lane in self._lanes.values():
            await lane.aclose()
        await self._server.aclose()
