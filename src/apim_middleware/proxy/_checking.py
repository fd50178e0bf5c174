"""Asking the members of a pool how they are."""

from collections.abc import Sequence
from typing import Protocol

import anyio

from apim_middleware.errors import TransportError
from apim_middleware.protocols import Clock, UpstreamRequest
from apim_middleware.proxy._balancing import Draw
from apim_middleware.proxy._node import Node
from apim_middleware.proxy._statuses import statuses_of
from apim_middleware.proxy.health import HealthCheck

_AT_ONCE = 32
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
    """Asks all members, some of them at once."""

    def __init__(self, rule: HealthCheck, pool: Checked) -> None:
        self._rule, self._pool = rule, pool
        self._well = statuses_of(rule, "statuses")

    async def check_all(self) -> float:
        """Ask each of them once, and give the seconds until the next time."""
        limit = anyio.CapacityLimiter(_AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for each in list(self._pool.nodes()):
                tasks.start_soon(self._check, each, limit)
        return self._rule.every * (0.9 + 0.2 * self._pool.draw())

    async def _check(self, node: Node, limit: anyio.CapacityLimiter) -> None:
        async with limit:
            well = await self._asked(node)
        if node.pulse is not None and node.pulse.turns(well=well):
            if well:
                node.come_in(self._pool.clock.monotonic())
            self._pool.tell(node, "health", "well" if well else "unhealthy")

    async def _asked(self, node: Node) -> bool:
        rule, upstream = self._rule, node.writer.upstream
        headers = [(b"host", upstream.authority), (b"user-agent", b"apim-health-check")]
        target = upstream.prefix + rule.path.encode()
        request = UpstreamRequest(
            rule.method, upstream.origin, target, headers, connect=rule.timeout, read=rule.timeout
        )
        try:
            with anyio.fail_after(rule.timeout):
                response = await node.transport.send(request)
                try:
                    read = 0
                    async for chunk in response:
                        read += len(chunk)
                        if read > _MOST:
                            break
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
        except (TransportError, TimeoutError):
            return False
        return response.status in self._well
