"""The response cache: ``Cache``."""

from dataclasses import dataclass, replace

from apim_middleware._caching.elsewhere import RemoteKeeper
from apim_middleware._caching.in_memory import MemoryKeeper
from apim_middleware._caching.keeper import STATUS as STATUS
from apim_middleware._caching.purging import caches_of
from apim_middleware._caching.rules import Caching
from apim_middleware.documentation import Answer, Documentation, Told
from apim_middleware.env import Env
from apim_middleware.policy import Policy, check_place, ring, stated
from apim_middleware.protocols import Entries
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.types import ASGIApp


@dataclass(frozen=True, kw_only=True)
class Cache(Caching, Policy):
    """Answer GET and HEAD requests from memory while what the app answered before is fresh (RFC 9111).

    A shared cache that follows what responses say, and keeps to one caller what may be for that caller only.
    Requests for the same at the same time become one to the app; what is stale is confirmed by it, and given away
    meanwhile or when it fails where responses allow that (RFC 5861). ``CachedResponses`` takes responses away.
    A request that may only be answered from the cache (``only-if-cached``) and cannot be is refused with 504
    ``not-in-cache``; with a store elsewhere that is down and ``when_store_fails="refuse"``, 503 ``cache-unavailable``.
    Every response says in ``Cache-Status`` what happened (RFC 9211). Azure: ``cache-lookup`` and ``cache-store``.
    """

    guards = False

    taps_body = True
    answers = True

    @stated
    def documentation(self) -> Documentation:
        """What it says of itself, and what it answers with for the app."""
        down = (Answer(503, ("cache-unavailable",), ("cache-status",)),) if self.when_store_fails == "refuse" else ()
        kept = (Answer(304, (), ("cache-status", "age", "etag")), Answer(504, ("not-in-cache",)))
        found = Documentation(answers=(*kept, *down), headers=(Told("age"),)).only("GET", "HEAD")
        return replace(found, headers=(*found.headers, Told("cache-status")))

    def bind(self, env: Env) -> MemoryKeeper | RemoteKeeper:
        """Keep responses in memory as they are, unless the environment has a store elsewhere."""
        entries = _elsewhere(env)
        return MemoryKeeper(self, env) if entries is None else RemoteKeeper(self, env, entries)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A memory of its own for each app it is put in front of: one app's answers are never given for another's."""
        if _elsewhere(env) is not None:
            check_place(self, env)
        keeper = self.bind(env.within("Cache"))
        keeper.put_before(app)
        caches_of(env).add(keeper)
        return ring(self, keeper, app, env)


def _elsewhere(env: Env) -> Entries | None:
    """The store others see too, if the environment has one."""
    entries = env.entries(lambda: MemoryEntries(clock=env.clock))
    return None if isinstance(entries, MemoryEntries) else entries
