"""What an environment was made of, as far as that can be told: stores it has made itself are as good as none."""

from collections.abc import Iterator

from apim_middleware._http.hygiene import Hygiene
from apim_middleware.env import Env, SystemClock
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.permits import MemoryPermits


def parts_of(env: Env) -> Iterator[tuple[str, object, bool]]:
    """What it is given, by the names of its parameters, and whether that is what it would take by itself."""
    yield "place", env.place, not env.place
    yield "clock", env.clock, isinstance(env.clock, SystemClock)
    for name in ("counters", "entries", "permits"):
        yield name, env._given[name], env._given[name] is None or _is_own(env._given[name], env)
    yield "transport", env._brought, env._brought is None
    yield "hygiene", env.scrub._rules, env.scrub._rules == Hygiene()


def _is_own(store: object, env: Env) -> bool:
    """Whether an environment would make the same one for a policy that asks."""
    match store:
        case MemoryCounters():
            own = MemoryCounters(env.clock)
            return store._monotonic == own._monotonic and _size(store) == _size(own)
        case MemoryEntries():
            return store._clock is env.clock and store._shelf.max_bytes == MemoryEntries()._shelf.max_bytes
    return isinstance(store, MemoryPermits)


def _size(counters: MemoryCounters) -> tuple[int, ...]:
    room = counters._room
    return room.shards, room._size, room._most_books
