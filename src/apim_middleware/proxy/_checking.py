"""Asking the members of a pool how they are, each in a rhythm of its own and over connections of their own."""

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import anyio

from apim_middleware._loops import running_loop
from apim_middleware.errors import NoConnectionFree, TransportError
from apim_middleware.protocols import Clock, UpstreamRequest
from apim_middleware.proxy._background import Rounds
from apim_middleware.proxy._balancing import Draw
from apim_middleware.proxy._node import Node
from apim_middleware.proxy._statuses import statuses_of
from apim_middleware.proxy._transports import Transports
from apim_middleware.proxy.health import HealthCheck

_AT_ONCE = 100
_MOST = 65_536  # bytes of an answer that are read for the sake of its connection


class Checked(Protocol):
    """Whose members are asked."""

    clock: Clock
    draw: Draw

    def nodes(self) -> Sequence[Node]:
        """The members as they are now."""
        ...

    def tell(self, node: Node, what: str, state: str) -> None:
        """Say that the state of a member has changed."""
        ...


class Checking:
    """Asks each member again and again, in every event loop that wants it."""

    def __init__(self, rule: HealthCheck, pool: Checked, transports: Transports) -> None:
        """``transports`` are for the checks alone, and closed with them."""
        self._rule, self._pool, self._transports = rule, pool, transports
        self._well = statuses_of(rule, "statuses")
        self._checkups: dict[Node, _Checkup] = {}
        self._rooms: weakref.WeakKeyDictionary[Any, anyio.CapacityLimiter] = weakref.WeakKeyDictionary()
        self._tending = Rounds(self.tend)

    def begin(self) -> None:
        """See that the members are asked in this event loop."""
        self._tending.begin()

    async def tend(self) -> float:
        """See that every member is asked in this event loop, and nobody else; give the seconds until that may change.

        One that hangs keeps no other from being asked.
        """
        nodes = list(self._pool.nodes())
        for gone in self._checkups.keys() - set(nodes):
            checkup = self._checkups.pop(gone, None)
            if checkup is not None:  # another event loop may have been here
                await checkup.rounds.aclose()
        for each in nodes:
            self._checkups.setdefault(each, _Checkup(self, each)).rounds.begin()
        return self._rule.every

    async def aclose(self) -> None:
        """End it in this event loop, and close the connections."""
        await self._tending.aclose()
        for each in list(self._checkups.values()):
            await each.rounds.aclose()
        await self._transports.aclose()

    async def check(self, node: Node) -> float:
        """Ask a member once, and give the seconds until the next time."""
        async with self._rooms.setdefault(running_loop(), anyio.CapacityLimiter(_AT_ONCE)):
            well = await self._asked(node) if node in self._pool.nodes() else None
        if node not in self._pool.nodes():  # it was removed, meanwhile perhaps
            return self._rule.every
        if well is not None and node.pulse is not None and node.pulse.turns(well=well):
            if well:
                node.come_in(self._pool.clock.monotonic())
            self._pool.tell(node, "health", "well" if well else "unhealthy")
        return self._rule.every * (0.9 + 0.2 * self._pool.draw())

    async def _asked(self, node: Node) -> bool | None:
        """Whether it is well; None when it could not even be asked, for want of a connection of ours."""
        rule, upstream = self._rule, node.writer.upstream
        headers = [(b"host", upstream.authority), (b"user-agent", b"apim-health-check")]
        target = upstream.prefix + rule.path.encode()
        request = UpstreamRequest(
            rule.method, upstream.origin, target, headers, connect=rule.timeout, read=rule.timeout
        )
        try:
            with anyio.fail_after(rule.timeout):
                response = await self._transports.of(node.place).send(request)
                try:
                    read = 0
                    async for chunk in response:
                        read += len(chunk)
                        if read > _MOST:
                            break
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
        except NoConnectionFree:
            return None
        except (TransportError, TimeoutError):
            return False
        return response.status in self._well


class _Checkup:
    """The checks of one member, one after the other."""

    def __init__(self, checking: Checking, node: Node) -> None:
        self._checking, self._node = checking, node
        self.rounds = Rounds(self.once)

    async def once(self) -> float:
        return await self._checking.check(self._node)
