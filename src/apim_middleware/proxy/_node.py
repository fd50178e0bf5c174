"""A member at work: what is known of it, and one request that is under way there."""

from collections.abc import Callable
from math import inf
from typing import Literal, NamedTuple, TypeAlias

from apim_middleware._digest import digest
from apim_middleware._telemetry.calls import Call
from apim_middleware.credentials.credential import Credential, Showing
from apim_middleware.protocols import Transport
from apim_middleware.proxy._writing import Writer
from apim_middleware.proxy.breaker import Breaker, State
from apim_middleware.proxy.ejection import Outing
from apim_middleware.proxy.health import Pulse
from apim_middleware.proxy.pool import Pool

Standing: TypeAlias = Literal["ready", "unhealthy", "ejected", "open", "half-open", "draining"]

_FIRST_PART = 0.1  # of its weight, which a member takes at once when it starts slowly


class MemberStanding(NamedTuple):
    """How a member of a pool is doing."""

    name: str
    """What it is called."""

    url: str
    """Where it is: for one that was looked up, the address."""

    state: Standing
    """``ready`` for requests, or why it is not; ``half-open`` gets a few."""

    under_way: int
    """How many requests are under way there."""


class Node:
    """A member of a pool, or one address of it."""

    __slots__ = (
        "_since", "_slow", "_tell", "breaker", "draining", "load", "name", "outing", "place", "priority", "pulse",
        "seed", "share", "showing", "stamp", "transport", "turn", "weight", "writer",
    )  # fmt: skip

    def __init__(
        self, pool: Pool, place: "Place", writer: Writer, transport: Transport, tell: Callable[["Node", str, str], None]
    ) -> None:
        """A member of which nothing bad is known yet."""
        self.place, self.writer, self.transport = place, writer, transport
        self.name = place.name
        self.share = self.weight = place.weight
        self.priority = place.priority
        self.draining = False
        self.load, self.turn = 0, 0.0
        self.seed = digest(place.name)
        self.showing: Showing | None = None
        """What gives the credential it is shown, if it has one of its own."""
        self.stamp = b""
        """What an affinity cookie calls it."""
        self.pulse = None if pool.health is None else Pulse(pool.health)
        self.outing = None if pool.ejection is None else Outing(pool.ejection)
        self.breaker = None if pool.breaker is None else Breaker(pool.breaker, self._breaker_changed)
        self._slow, self._since = pool.slow_start, -inf
        self._tell = tell

    def available(self, now: float) -> bool:
        """Whether a request may go there, drained or not."""
        if self.pulse is not None and not self.pulse.well:
            return False
        if self.outing is not None and self.outing.until > now:
            return False
        breaker = self.breaker
        return breaker is None or breaker.state == "closed" or breaker.admits(now)

    def wait(self, now: float) -> float:
        """Seconds until it may be available again, as far as is known; 0 when nothing is."""
        out = 0.0 if self.outing is None else self.outing.until - now
        return max(0.0, out, 0.0 if self.breaker is None else self.breaker.wait(now))

    def standing(self, now: float) -> Standing:
        """How it is doing."""
        if self.draining:
            return "draining"
        if self.pulse is not None and not self.pulse.well:
            return "unhealthy"
        if self.outing is not None and self.outing.until > now:
            return "ejected"
        if self.breaker is not None:
            self.breaker.admits(now)  # which is when one that is open becomes half open
            if self.breaker.state != "closed":
                return self.breaker.state
        return "ready"

    def come_in(self, now: float) -> None:
        """Give the member requests again from now on: slowly at first, if the pool says so."""
        self._since = now

    def warm(self, now: float) -> None:
        """Take as much weight as it may by now."""
        gone = now - self._since
        self.weight = self.share if gone >= self._slow else self.share * max(_FIRST_PART, gone / self._slow)

    def take(self) -> "Try":
        """Begin a request there."""
        self.load += 1
        return Try(self, 0 if self.breaker is None else self.breaker.admit())

    def _breaker_changed(self, state: State) -> None:
        self._tell(self, "breaker", state)


class Place(NamedTuple):
    """Where a node is, and how much it is to take."""

    name: str
    url: str
    host: str
    """The host its requests are for, when that is not the one in the URL."""
    weight: float
    priority: int
    entry: str
    """The URL of the member it belongs to."""
    credential: Credential | None = None
    """What it is shown in the place of what callers show."""


class Try:
    """One request under way at a member."""

    __slots__ = ("_over", "_ticket", "_told", "call", "failed_before", "node")

    def __init__(self, node: Node, ticket: int) -> None:
        self.node = node
        self._ticket = ticket
        self._over = self._told = False
        self.failed_before = 0
        """How many in a row had failed there when its head came."""
        self.call: Call | None = None
        """What measures it, while anybody does."""

    def tell(self, now: float, *, failed: bool, wait: float | None = None) -> None:
        """Tell the member's breaker how it fared there; ``wait`` is what the response asked for."""
        if self.node.breaker is not None:
            self._told = True
            self.node.breaker.tell(self._ticket, now, failed=failed, wait=wait)

    def leave(self) -> None:
        """The request is over at its member, whether or not that says anything of it; said again it counts once."""
        if not self._over:
            self._over = True
            self.node.load -= 1
            if self.call is not None:
                self.call.end()
            if self.node.breaker is not None and not self._told:
                self.node.breaker.forget(self._ticket)
