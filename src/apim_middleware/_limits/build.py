"""From policies to the gate that stands in front of an app, and the register of all there are."""

from collections.abc import Sequence
from weakref import WeakSet

from apim_middleware._limits.gates import Gate, Hooks
from apim_middleware._limits.memory_gate import GateInMemory
from apim_middleware._limits.meters import Meter
from apim_middleware._limits.remote import RemoteCounters
from apim_middleware._limits.rules import Limiting
from apim_middleware._limits.single import SingleLimitGate, is_simple
from apim_middleware._limits.store_gate import GateAtStore, strictest
from apim_middleware._limits.transfer import Reading
from apim_middleware.env import Env
from apim_middleware.policy import Policy, check_place, ring
from apim_middleware.protocols import Counters
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.types import ASGIApp


def counters_of(env: Env) -> Counters:
    """Where the limits of an environment count."""
    return env.counters(lambda: MemoryCounters(clock=env.clock))


def remote_counters_of(env: Env) -> RemoteCounters:
    """What all limits of an environment that count in a slow store have together."""
    return env.kept("limits.remote", lambda: RemoteCounters(counters_of(env), env.clock))


def meters_of(env: Env) -> "WeakSet[Meter]":
    """Every policy of an environment that counts at some place, for as long as a stack keeps it."""
    return env.kept("limits.meters", WeakSet)


def gate(policies: Sequence[Limiting], env: Env) -> Hooks:
    """The hooks that count for all these policies at once."""
    return gate_of(policies, env).hooks()


def gate_of(policies: Sequence[Limiting], env: Env) -> Gate | SingleLimitGate:
    """The gate that counts for all these policies at once."""
    counters = counters_of(env)
    meters = [Meter(policy, env.place, counters) for policy in policies]
    _check(meters, counters)
    meters_of(env).update(meters)
    return _gate(meters, env, counters)


def _check(meters: Sequence[Meter], counters: Counters) -> None:
    """Raise ConfigError for what the store cannot do; one that can keep and correct every limit is not asked."""
    check, corrects = getattr(counters, "check", None), getattr(counters, "corrects", None)
    for policy, limit in [(meter.policy, limit) for meter in meters for limit in meter.limits]:
        if check is not None:
            check(limit)
        if corrects is not None and not corrects(limit):
            correcting = _correcting(policy, [meter.policy for meter in meters])
            if correcting is not None:
                problem = f"needs corrections, and {type(counters).__name__} can make none of {limit.algorithm!r}"
                cure = "Count in fixed windows, or in memory, SQLite or Redis"
                raise correcting[0].mistake(correcting[1], problem, cure)
    other = next((meter.policy for meter in meters if meter.policy.by != meters[0].policy.by), None)
    if other is not None and getattr(counters, "spread", False):
        problem = f"is another key than that of {meters[0]!r}, and {type(counters).__name__} may keep them apart"
        raise other.mistake("by", problem, "Count by one key, or keep all of them together with shards=1")


def _correcting(policy: Limiting, together: Sequence[Limiting]) -> tuple[Limiting, str] | None:
    """The policy and the field because of which counts of one policy are corrected, if they ever are."""
    if policy.settles:
        return policy, _settled(policy)
    if strictest([each.when_store_fails for each in together]) == "local":  # the store is told what it missed
        return next(each for each in together if each.when_store_fails == "local"), "when_store_fails"
    return None


def _settled(policy: Limiting) -> str:
    """The field because of which something is counted, or given back, at the end of a request."""
    if policy.counts_bytes:
        return "units"
    if policy.used is not None:
        return "used"
    return "increment" if policy.increment == "afterwards" else "count_when"


def _gate(meters: Sequence[Meter], env: Env, counters: Counters) -> Gate | SingleLimitGate:
    if not isinstance(counters, MemoryCounters):
        return GateAtStore(meters, env, remote_counters_of(env))
    if len(meters) == 1 and is_simple(meters[0]):
        return SingleLimitGate(meters[0], env, counters)
    return GateInMemory(meters, env, counters)


def in_front(policy: Policy, app: ASGIApp, env: Env, *, reads: bool) -> ASGIApp:
    """The policy in front of an app, whose request bodies are counted where they are read when that is needed."""
    if not isinstance(counters_of(env), MemoryCounters):
        check_place(policy, env)
    return ring(policy, env.bind(policy), Reading(app) if reads else app, env)
