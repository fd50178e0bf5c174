"""Whether a store answers: asked for something that changes nothing in it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from apim_middleware._config import check
from apim_middleware.protocols import Counters, Entries, Hit, Limit, Permits, Records

Store: TypeAlias = Counters | Entries | Permits | Records

_KEY = "readiness"
_NOBODY = Hit(_KEY, Limit(quota=1, window=60, place=_KEY))
_KINDS = ("counters", "entries", "permits")


def reachable(store: Store) -> Callable[[], Awaitable[object]]:
    """A check for ``Health(checks=...)`` that is passed when a store answers: counters, entries, permits or records.

    It reads, by the same connections as everybody, and keeps nothing there; of a cluster it asks one part. A store that
    still answers and takes nothing any more, such as a replica or a full disk, passes it. ConfigError for what is none.
    """
    asked: Any = store
    cure = "Give the store, such as RedisCounters(...), or the records that keys are kept in"
    check("reachable", "store", store, Store, cure=cure, secret=isinstance(store, str | bytes))
    if hasattr(asked, "peek"):
        return lambda: asked.peek([_NOBODY])
    if hasattr(asked, "acquire"):
        return lambda: asked.acquire(_KEY, 0, _KEY)
    if hasattr(asked, "changes"):
        return lambda: asked.version()
    return lambda: asked.get(_KEY.encode())


def checks_of(given: Mapping[str, Any]) -> dict[str, Callable[[], Awaitable[object]]]:
    """A check for each store that an environment was given, by its kind."""
    return {kind: reachable(given[kind]) for kind in _KINDS if given[kind] is not None}
