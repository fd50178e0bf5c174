"""Counts read, set and reset at run time, by people and by what acts for them."""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from apim_middleware._config import shown
from apim_middleware._functions import name_of
from apim_middleware._limits.build import meters_of, remote_counters_of
from apim_middleware._limits.meters import Meter, Terms
from apim_middleware._limits.record_overrides import RecordOverrides
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ConfigError
from apim_middleware.policy import Policy
from apim_middleware.protocols import Hit


class _Every(Enum):
    """Not said which; None is those who have none."""

    TIER = "every tier"


EVERY_TIER: Final = _Every.TIER
Tier: TypeAlias = str | Literal[_Every.TIER] | None


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

    tier: str | None = None
    """The tier whose limit it is; None for those of the policy itself and of an override."""

    overridden: bool = False
    """Whether it is the limit of an override, which goes before every tier."""


class Standings:
    """Where callers stand in the limits of an environment: read it, set it, reset it.

    A limit is named by its policy, wherever that stands, or by its place, as ``places()`` has it. A key is the text
    that ``by`` gives, or None for the callers nobody knows. Where a policy has tiers, ``tier`` is that of the key, and
    None says that it has none; without it, ``read`` and ``reset`` are about every tier. A key that has an override is
    counted under that, whatever its tier. Counts under rates that an override had before are found no more.
    Only limits that stand in front of an app are known: Starlette and FastAPI put them there at their first request.

    ConfigError for a policy that limits nothing here, for several that count under different keys, and for a tier they
    do not have.
    """

    def __init__(self, env: Env = default_env) -> None:
        """Look at the limits of this environment; without one, at those of stacks that have none of their own."""
        self._env = env

    def places(self) -> list[str]:
        """Where limits stand, sorted."""
        return sorted({meter.place for meter in meters_of(self._env)})

    async def read(self, policy: Policy | str, key: str | None, *, tier: Tier = EVERY_TIER) -> list[Standing]:
        """Where a key stands in each limit that it may be counted under. Raises StoreError."""
        found = []
        for meter in await self._meters(policy, tier):
            counts = [count for under in _in_force(meter, key, tier) for count in under.counts(key)]
            tallies = await meter.counters.peek([count.hit for count in counts])
            for (name, hit, under), tally in zip(counts, tallies, strict=True):
                full = hit.limit.burst or hit.limit.quota
                left, reset = tally.remaining, max(tally.reset, 0.0)
                found.append(Standing(name, meter.place, full, full - left, left, reset, under.tier, under.overridden))
        return found

    async def set(self, policy: Policy | str, key: str | None, used: int, *, tier: Tier = EVERY_TIER) -> None:
        """Let a key have used so many units of each limit it is counted under, as if just now. Raises StoreError.

        ValueError for what is no number of units. ConfigError without a ``tier`` where that must be known.
        """
        if type(used) is not int:
            raise ValueError(f"nobody can have used {shown(used)} units: give a whole number")
        if used < 0:
            raise ValueError("nobody can have used fewer than 0 units")
        meters = await self._meters(policy, tier)
        served = [(meter, _in_force(meter, key, tier)) for meter in meters]
        if any(len(under) > 1 for _, under in served):
            problem = f"is missing, and there are {_listed(_tiers_of(meters))}"
            raise ConfigError("Standings", "tier", problem, "Say which is that of the key, or None if it has none")
        for meter, [under] in served:
            await meter.counters.assign([count.hit for count in under.counts(key, used)])

    async def reset(self, policy: Policy | str, key: str | None, *, tier: Tier = EVERY_TIER) -> None:
        """Forget what a key has used of each limit, also of those that an override stands before. Raises StoreError."""
        for meter in await self._meters(policy, tier):
            found = _in_force(meter, key, tier)
            if tier is EVERY_TIER:
                found += _by_tier(meter, tier)
            hits = dict.fromkeys(count.hit for under in found for count in under.counts(key))
            await meter.counters.reset([*hits])

    async def settled(self) -> None:
        """Make every correction that waits, such as at the end of a lifespan. Raises StoreError."""
        await remote_counters_of(self._env).settled()

    async def _meters(self, policy: Policy | str, tier: Tier) -> list[Meter]:
        """Those that are meant, with the overrides they have by now."""
        meant = (policy, *getattr(policy, "policies", ()))
        meters = [meter for meter in meters_of(self._env) if meter.place in meant or meter.policy in meant]
        if not meters:
            cure = "Give a policy that stands in front of an app in this environment, or one of places()"
            raise ConfigError("Standings", "policy", f"{policy!r} limits nothing here", cure)
        meters.sort(key=lambda meter: meter.place)
        _check_keys(meters)
        _check_tier(meters, tier)
        for overrides in {id(meter.policy.overrides): meter.policy.overrides for meter in meters}.values():
            if isinstance(overrides, RecordOverrides):
                await overrides.refresh()
        return meters


class _Count(NamedTuple):
    """One counter of a key: what its limit is called, and the terms it belongs to."""

    name: str
    hit: Hit
    under: "_Under"


class _Under(NamedTuple):
    """Terms that a key may be served under, and why."""

    terms: Terms
    tier: str | None = None
    overridden: bool = False

    def counts(self, key: str | None, cost: int = 0) -> list[_Count]:
        counted, limits = self.terms.counters(key)
        named = zip(self.terms.names, limits, strict=True)
        return [_Count(name, Hit(counted, limit, cost), self) for name, limit in named]


def _in_force(meter: Meter, key: str | None, tier: Tier) -> list[_Under]:
    """What a key is served under: its override, or the limits of its tier; of every tier when that is not said."""
    overrides = meter.policy.overrides
    if overrides is not None and key is not None and overrides.rates(key) is not None:
        return [_Under(meter.terms_of(key, None), overridden=True)]
    return _by_tier(meter, tier)


def _by_tier(meter: Meter, tier: Tier) -> list[_Under]:
    tiers = meter.policy.tiers
    meant = (None, *tiers) if tier is EVERY_TIER else (tier if tier in tiers else None,)
    return [_Under(meter.terms_of(None, each), each) for each in meant]


def _check_keys(meters: Sequence[Meter]) -> None:
    names = dict.fromkeys(name_of(meter.policy.by) for meter in meters)
    if len(names) > 1:
        problem = f"counts under different keys, those of {_listed(names)}"
        raise ConfigError("Standings", "policy", problem, "Name one of its policies at a time")


def _check_tier(meters: Sequence[Meter], tier: Tier) -> None:
    tiers = _tiers_of(meters)
    if tier is EVERY_TIER or tier is None or tier in tiers:
        return
    if not tiers:
        raise ConfigError("Standings", "tier", f"{shown(tier)} is none, for the policy has no tiers", "Leave it out")
    problem, cure = f"{shown(tier)} is none of {_listed(tiers)}", "Give one of them, or None for a key without a tier"
    raise ConfigError("Standings", "tier", problem, cure)


def _tiers_of(meters: Sequence[Meter]) -> list[str]:
    return list(dict.fromkeys(tier for meter in meters for tier in meter.policy.tiers))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
