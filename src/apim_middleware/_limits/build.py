"""From policies to the gate that stands in front of an app, and the register of all there are."""

from collections.abc import Sequence
from weakref import WeakSet

from apim_middleware._limits.gates import Gate, Hooks
from apim_middleware._limits.house import House
from apim_middleware._limits.memory_gate import GateInMemory
from apim_middleware._limits.meters import Meter
from apim_middleware._limits.rules import Limiting
from apim_middleware._limits.store_gate import GateAtStore
from apim_middleware._limits.swift import SwiftGate, is_simple
from apim_middleware._limits.transfer import Reading
from apim_middleware.env import Env
from apim_middleware.policy import Policy, check_place, ring
from apim_middleware.protocols import Counters
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.types import ASGIApp


def counters_of(env: Env) -> Counters:
    """Where the limits of an environment count."""
    return env.counters(lambda: MemoryCounters(env.clock))


def house_of(env: Env) -> House:
    """What all limits of an environment that count in a slow store have together."""
    return env.kept("limits.house", lambda: House(counters_of(env), env.clock))


def meters_of(env: Env) -> "WeakSet[Meter]":
    """Every policy of an environment that counts at some place, for as long as a stack keeps it."""
    return env.kept("limits.meters", WeakSet)


def gate(policies: Sequence[Limiting], env: Env) -> Hooks:
    """The hooks that count for all these policies at once."""
    return gate_of(policies, env).hooks()


def gate_of(policies: Sequence[Limiting], env: Env) -> Gate | SwiftGate:
    """The gate that counts for all these policies at once."""
    counters = counters_of(env)
    meters = [Meter(policy, env.place, counters) for policy in policies]
    check = getattr(counters, "check", None)
    if check is not None:  # a store that cannot keep every limit says so while we build
        for limit in (limit for meter in meters for limit in meter.limits):
            check(limit)
    meters_of(env).update(meters)
    return _gate(meters, env, counters)


def _gate(meters: Sequence[Meter], env: Env, counters: Counters) -> Gate | SwiftGate:
    if not isinstance(counters, MemoryCounters):
        return GateAtStore(meters, env, house_of(env))
    if len(meters) == 1 and is_simple(meters[0]):
        return SwiftGate(meters[0], env, counters)
    return GateInMemory(meters, env, counters)


def in_front(policy: Policy, app: ASGIApp, env: Env, *, reads: bool) -> ASGIApp:
    """The policy in front of an app, whose request bodies are counted where they are read when that is needed."""
    if not isinstance(counters_of(env), MemoryCounters):
        check_place(policy, env)
    return ring(policy, env.bind(policy), Reading(app) if reads else app, env)
