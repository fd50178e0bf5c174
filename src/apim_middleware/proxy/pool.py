"""Several upstreams that do the same: ``Pool``."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from apim_middleware._config import Configured, awaits, shown
from apim_middleware.by import Key
from apim_middleware.errors import ConfigError
from apim_middleware.proxy._balancing import Balance, ConsistentHash, LeastConnections, PowerOfTwo, RoundRobin
from apim_middleware.proxy.affinity import Affinity
from apim_middleware.proxy.breaker import CircuitBreaker
from apim_middleware.proxy.ejection import Ejection
from apim_middleware.proxy.health import HealthCheck
from apim_middleware.proxy.members import Entry, Member, Members, Service

_HOUR = 3600.0


@dataclass(frozen=True, init=False)
class Pool(Configured):
    """Several upstreams that do the same, for ``Proxy(Pool("http://10.0.0.1:8000", "http://10.0.0.2:8000"))``.

    Each request goes to one of those members that are available: well by their health checks, not put out for failing,
    their circuit breaker not open, not drained. Of these only the ones with the lowest ``priority`` are asked. When
    none is available the answer is 503 ``no-upstream-available`` with ``Retry-After``. Follows Azure's backend pools.
    """

    members: Members
    """URLs and ``Member`` values, given one after the other; or one ``Members``, to change them while requests come in.
    """

    balance: Literal["round-robin", "least-connections", "power-of-two", "consistent-hash"] = "round-robin"
    """Which member a request goes to: each in turn, by weight; the one with the fewest requests under way for its
    weight; the better of two that are drawn; always the same for the same ``key``."""

    key: Key | None = None
    """What a consistent hash is made of, such as ``by.client`` or ``by.header("x-tenant")``."""

    affinity: Affinity | None = None
    """Whether a cookie keeps clients at the member that answered them first."""

    health: HealthCheck | None = None
    """How members are asked whether they are well; not at all by default."""

    ejection: Ejection | None = None
    """When members are put out for failing time after time; never by default."""

    breaker: CircuitBreaker | None = None
    """When members that fail too often are left alone, each with a breaker of its own; never by default."""

    slow_start: float = 0.0
    """Seconds in which a member that comes in or back takes more and more of its weight, beginning with a tenth; 0 (the
    default) for all of it at once. A consistent hash takes no notice of it: keys would move all the while."""

    random: Callable[[], float] | None = field(default=None, repr=False)
    """Where numbers from 0 up to 1 come from that chance decides by; ``random.random`` by default."""

    def __new__(cls, *members: Entry | Members | str, **given: object) -> Self:
        """Check what was given, the members as one field."""
        return super().__new__(cls, members=_gathered(members), **given)

    def __init__(
        self,
        *members: Entry | Members | str,
        balance: Literal["round-robin", "least-connections", "power-of-two", "consistent-hash"] = "round-robin",
        key: Key | None = None,
        affinity: Affinity | None = None,
        health: HealthCheck | None = None,
        ejection: Ejection | None = None,
        breaker: CircuitBreaker | None = None,
        slow_start: float = 0.0,
        random: Callable[[], float] | None = None,
    ) -> None:
        """Keep the members as one field, and check that the rest goes together."""
        given = {
            "members": _gathered(members), "balance": balance, "key": key, "affinity": affinity, "health": health,
            "ejection": ejection, "breaker": breaker, "slow_start": slow_start, "random": random,
        }  # fmt: skip
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if (balance == "consistent-hash") != (key is not None):
            problem = "needs a key to hash" if key is None else "makes no use of a key"
            raise self.mistake("balance", problem, 'Write balance="consistent-hash", key=by.client')
        if awaits(key):
            raise self.mistake("key", "is async", "Give a plain function; look things up in a policy before it")
        if not 0 <= slow_start <= _HOUR:
            raise self.mistake("slow_start", "is out of range", f"Give seconds from 0 to {_HOUR:g}")

    def __repr__(self) -> str:
        """The call that would make it again, but for what is as it is by default."""
        others = [each for each in fields(self) if each.repr and each.name != "members"]
        given = [(each.name, getattr(self, each.name)) for each in others if getattr(self, each.name) != each.default]
        return f"Pool({', '.join([repr(self.members), *(f'{name}={value!r}' for name, value in given)])})"

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, object]]:
        """Copying and pickling give the members in the first place, as people do."""
        _, given = super().__getnewargs_ex__()
        return (given.pop("members"),), given

    def drawing(self) -> Callable[[], float]:
        """Where numbers come from that chance decides by."""
        return self.random or random.random

    def balancing(self) -> Balance:
        """What chooses a member."""
        if self.balance == "power-of-two":
            return PowerOfTwo(self.drawing())
        if self.balance == "consistent-hash":
            return ConsistentHash()
        return LeastConnections() if self.balance == "least-connections" else RoundRobin()


def _gathered(members: tuple[Any, ...]) -> Members:
    if len(members) == 1 and isinstance(members[0], Members):
        return members[0]
    if not members:
        raise ConfigError("Pool", "members", "there are none", 'Write Pool("http://10.0.0.1:8000", ...)')
    for each in members:
        if not isinstance(each, str | Member | Service):
            raise ConfigError("Pool", "members", f"{shown(each)} is no member", 'Write Pool("http://10.0.0.1:8000")')
    return _Given(*members)


class _Given(Members):
    """Members that a pool was given one by one: pools of equal ones are equal, and one may go on as the other."""

    def __init__(self, *members: Entry | str) -> None:
        """Remember who they were."""
        super().__init__(*members)
        self._given = tuple(self)

    def __eq__(self, other: object) -> bool:
        """Whether others were given the same."""
        return isinstance(other, _Given) and self._given == other._given

    def __hash__(self) -> int:
        """Equal for equal ones."""
        return hash(self._given)
