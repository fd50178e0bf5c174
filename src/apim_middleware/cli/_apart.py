"""What each worker process would keep for itself: counts, answers, permits, and what it was told of callers."""

from collections.abc import Iterator
from typing import Any

from apim_middleware._jose.revocations import RevokedTokens
from apim_middleware._limits.overrides import Overrides
from apim_middleware.cli._standing import Standing, standing_in
from apim_middleware.env import Env
from apim_middleware.errors import ApimError
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policies.introspection import OAuth2Introspection
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.stores.records import MemoryRecords
from apim_middleware.stores.users import MemoryUsers
from apim_middleware.types import Layer, Receive, Scope, Send

_APART = {
    "counters": "count apart in each of the {workers} workers, so that {workers} times as much may pass. "
    "Share the counts: Env(counters=SQLiteCounters(...)) or RedisCounters, and a place",
    "permits": "count apart in each of the {workers} workers, so that {workers} times as many may be in. "
    "Share the permits: Env(permits=SQLitePermits(...)) or RedisPermits, and a place",
    "entries": "keep apart in each of the {workers} workers what they store; what one purges stays in the others. "
    "Share the entries: Env(entries=SQLiteEntries(...)) or RedisEntries, and a place",
    "keys": "look keys up in the memory of each of the {workers} workers: a key that one makes opens no other, "
    "and one it revokes works on in the others. "
    "Share the keys: RecordKeys on SQLiteRecords or RedisRecords",
    "users": "look users up in the memory of each of the {workers} workers: a password that one changes stays the old "
    "one in the others, and a user it suspends comes in there. "
    "Share the users: a store of yours with find and cost, on a database that all of them ask",
    "revoked": "ask for revoked tokens in the memory of each of the {workers} workers: a token that one revokes works "
    "on in the others. Share them: revoked=..., an async function of yours that asks a store of all",
    "proofs": "remember DPoP proofs in each of the {workers} workers: one that was used in one of them counts "
    "once more in each of the others. Share them: DPoP(replays=...) with a RedisEntries or SQLiteEntries",
    "overrides": "read overrides in the memory of each of the {workers} workers: a rate that one sets holds in no "
    "other. Share them: RecordOverrides on SQLiteRecords or RedisRecords",
}


class _Noting(Env):
    """An environment of its own that notes which stores a policy asks for when it is built."""

    asked: set[str]

    def _resolve(self, name: str, default: Any) -> Any:  # noqa: ANN401 - whatever the store is
        self.asked.add(name)
        return super()._resolve(name, default)


def kept_apart(app: object, workers: int) -> list[str]:
    """A sentence for each kind of store that so many workers would have one each of, with the policies that use it."""
    names: dict[str, dict[str, None]] = {}
    for each in standing_in(app) if workers > 1 else ():
        for kind in _apart(each):
            names.setdefault(kind, {})[type(each.layer).__name__] = None
    return [f"{', '.join(names[kind])}: {_APART[kind].format(workers=workers)}." for kind in _APART if kind in names]


def _apart(each: Standing) -> Iterator[str]:
    asked = _asked_by(each)
    if "counters" in asked and isinstance(each.env.counters(MemoryCounters), MemoryCounters):
        yield "counters"
    if "permits" in asked and isinstance(each.env.permits(MemoryPermits), MemoryPermits):
        yield "permits"
    if "entries" in asked and isinstance(each.env.entries(MemoryEntries), MemoryEntries):
        yield "entries"
    yield from _told_apart(each.layer)


def _told_apart(layer: Layer) -> Iterator[str]:
    """What a policy goes by that is told to one process while it serves."""
    if isinstance(layer, APIKeyAuth) and _in_memory(layer.keys):
        yield "keys"
    if isinstance(layer, BasicAuth) and isinstance(layer.users, MemoryUsers):
        yield "users"
    if isinstance(layer, JWTAuth) and isinstance(layer.revoked, RevokedTokens):
        yield "revoked"
    proofs = layer.dpop if isinstance(layer, JWTAuth | OAuth2Introspection) else None
    if proofs is not None and isinstance(proofs.replays, MemoryEntries | None):
        yield "proofs"
    limits = layer.policies if isinstance(layer, Limits) else (layer,)
    if any(isinstance(each, RateLimit | Quota) and _in_memory(each.overrides) for each in limits):
        yield "overrides"


def _asked_by(each: Standing) -> set[str]:
    noting = _Noting(place="check")
    noting.asked, noting.scrub = set(), each.env.scrub
    try:
        each.layer.build(_nowhere, noting)
    except ApimError:  # which is told where the policy really stands
        return set()
    return noting.asked


def _in_memory(given: object) -> bool:
    """Whether keys or rates are kept in this process, or as records that are."""
    return isinstance(given, MemoryKeys | Overrides) or isinstance(getattr(given, "_records", None), MemoryRecords)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("no request comes this way")
