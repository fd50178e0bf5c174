"""Counts read, set and reset at run time, by people and by what acts for them."""

from typing import NamedTuple

from apim_middleware._config import shown
from apim_middleware._limits.build import house_of, meters_of
from apim_middleware._limits.meters import Meter, Terms
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ConfigError
from apim_middleware.policy import Policy
from apim_middleware.protocols import Hit


class Standing(NamedTuple):
    """Where a key stands in one limit."""

    name: str
    """What the ``RateLimit`` fields call the limit."""

    place: str
    """Where it stands."""

    quota: int
    """The units it allows; of a bucket, those it allows at once."""

    used: int
    """The units that are used, the quota at the most."""

    remaining: int
    """The units that are left."""

    reset: float
    """Seconds until all are there again; infinite when never."""


class Standings:
    """Where callers stand in the limits of an environment: read it, set it, reset it.

    A limit is named by its policy, wherever that stands, or by its place, as ``places()`` has it. A key is the text
    that ``by`` gives, or None for the callers nobody knows; ``tier`` is that of the key, where the policy has tiers.
    Only limits that stand in front of an app are known: Starlette and FastAPI put them there at their first request.
    """

    def __init__(self, env: Env = default_env) -> None:
        """Look at the limits of this environment; without one, at those of stacks that have none of their own."""
        self._env = env

    def places(self) -> list[str]:
        """Where limits stand, sorted."""
        return sorted({meter.place for meter in meters_of(self._env)})

    async def read(self, policy: Policy | str, key: str | None, *, tier: str | None = None) -> list[Standing]:
        """Where a key stands in each of the limits. Raises StoreError."""
        found = []
        for meter, terms in self._terms(policy, key, tier):
            hits = _hits(terms, key)
            tallies = await meter.counters.peek(hits)
            for name, hit, tally in zip(terms.names, hits, tallies, strict=True):
                full = hit.limit.burst or hit.limit.quota
                found.append(
                    Standing(name, meter.place, full, full - tally.remaining, tally.remaining, max(tally.reset, 0.0))
                )
        return found

    async def set(self, policy: Policy | str, key: str | None, used: int, *, tier: str | None = None) -> None:
        """Let a key have used so many units of each of the limits, as if just now. Raises StoreError.

        ValueError for what is no number of units.
        """
        if type(used) is not int:
            raise ValueError(f"nobody can have used {shown(used)} units: give a whole number")
        if used < 0:
            raise ValueError("nobody can have used fewer than 0 units")
        for meter, terms in self._terms(policy, key, tier):
            await meter.counters.assign(_hits(terms, key, used))

    async def reset(self, policy: Policy | str, key: str | None, *, tier: str | None = None) -> None:
        """Forget what a key has used of each of the limits. Raises StoreError."""
        for meter, terms in self._terms(policy, key, tier):
            await meter.counters.reset(_hits(terms, key))

    async def settled(self) -> None:
        """Make every correction that waits, such as at the end of a lifespan. Raises StoreError."""
        await house_of(self._env).settled()

    def _terms(self, policy: Policy | str, key: str | None, tier: str | None) -> list[tuple[Meter, Terms]]:
        meant = (policy, *getattr(policy, "policies", ()))
        meters = [meter for meter in meters_of(self._env) if meter.place in meant or meter.policy in meant]
        if not meters:
            cure = "Give a policy that stands in front of an app in this environment, or one of places()"
            raise ConfigError("Standings", "policy", f"{policy!r} limits nothing here", cure)
        meters.sort(key=lambda meter: meter.place)
        return [(meter, meter.terms_of(key, tier)) for meter in meters]


def _hits(terms: Terms, key: str | None, cost: int = 0) -> list[Hit]:
    counted, limits = terms.counters(key)
    return [Hit(counted, limit, cost) for limit in limits]
