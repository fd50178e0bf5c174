"""The response cache in the memory of the process, which never waits."""

from collections.abc import Callable, Mapping
from functools import partial

from apim_middleware._caching.answers import answer
from apim_middleware._caching.keeper import DETAIL, STATUS, Keeper
from apim_middleware._caching.lookup import TELLING, CacheLookup, Key
from apim_middleware._caching.marks import Place, softened
from apim_middleware._caching.pages import Page, Stored
from apim_middleware._caching.rules import Caching
from apim_middleware._http.cache_control import ANYTHING, Wishes
from apim_middleware._http.freshness import unfit
from apim_middleware._http.headers import NAME
from apim_middleware._http.keeping import OPENING
from apim_middleware._http.targets import resource_of
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.stores.s3_fifo import S3Fifo
from apim_middleware.types import ASGIApp, Tap


class MemoryKeeper(Keeper):
    """Keeps pages in memory as they are."""

    _versioned = True

    def __init__(self, policy: Caching, env: Env) -> None:
        """Begin with nothing."""
        super().__init__(policy, env, env.clock.monotonic)
        self._pages: S3Fifo[Key, Page] = S3Fifo(policy.max_bytes)
        self._told_evicted = 0
        self._refines = self._owned or self._rewrites
        self._minds_authorization = self._ownership.minds_authorization
        self._authorized = self._unkept("uri-miss", "authorization")

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        """Answer from memory if there is something that may answer."""
        scope, fields = exchange.scope, exchange.index()
        if scope.get("method") != "GET" or b"host" not in fields or not TELLING.isdisjoint(fields):
            return self._look(exchange, fields)
        if self._refines or exchange.shared.match is not None:
            key = self._key(exchange, fields[b"host"])
        else:
            key = resource_of(scope, fields[b"host"]), ()
        now, page = self._time(), None
        slot = self._pages.slot_of(key)
        if slot is not None:
            page = self._pages.use(slot, now)
            stored = None if page is None else page.choose(scope["headers"])
            if stored is not None and stored.for_all and now < stored.fresh and not self._shows_key:
                exchange.shared.attributes[STATUS] = "hit"
                self._hits += 1
                told = self._hit(int(now - stored.born), int(stored.fresh - now))
                return partial(answer, stored.status, [*stored.headers, *told], stored.body)
        elif self._minds_authorization and b"authorization" in fields:  # what comes is hardly for others
            self._misses += 1
            exchange.shared.attributes[STATUS] = "uri-miss"
            exchange.state[self] = self._noted(exchange, key, now)
            return None
        return self._closely(exchange, key, ANYTHING, page, now)

    def _look(self, exchange: Exchange, fields: Mapping[bytes, bytes]) -> ASGIApp | None:
        """Answer a request that may ask something in particular."""
        wished = self._wished(exchange, fields)
        if wished is None:
            return None
        key, now = self._key(exchange, fields[b"host"]), self._time()
        page = self._pages.find(key, now)
        stored = None if page is None else page.choose(exchange.scope["headers"])
        if stored is not None and stored.for_all and not unfit(wished, now - stored.born, stored.fresh - stored.born):
            return self._stored_answer(exchange, key, wished, stored, now)
        return self._closely(exchange, key, wished, page, now)

    def _closely(self, exchange: Exchange, key: Key, wished: Wishes, page: Page | None, now: float) -> ASGIApp | None:
        """Answer a request of which all must be known."""
        asked = CacheLookup(*self._noted(exchange, key, now), wished)
        return self._miss(exchange, asked) if page is None else self._answer(exchange, asked, page, now)

    def on_response(self, exchange: Exchange) -> Tap | None:
        """Copy what may be kept; take away what was changed."""
        asked, head = exchange.state.pop(self, None), exchange.shared.response
        if asked is None or head is None:
            return None
        if isinstance(asked, tuple):  # what was noted, and no more
            if OPENING.isdisjoint(map(NAME, head.headers)):
                exchange.shared.attributes[DETAIL] = "authorization"
                head.headers.append(self._authorized)
                return None
            asked = CacheLookup(*asked)
        exchange.state[self] = asked
        if isinstance(asked, CacheLookup):
            tap = self._record(exchange, asked, head)
            if tap is None:  # there is nothing left to end
                del exchange.state[self]
            return tap
        for resource in self._passed(asked, head):
            self._pages.drop((resource, ()))  # what has owners is told by its version: nobody can find it all
        if asked.shown is not None:
            page = self._pages.find(asked.shown.key, self._time())
            stored = self._shown_by_head(exchange, asked.shown, page, head)
            if stored is not None:
                self._put(asked.shown, stored)
        return None

    def on_end(self, exchange: Exchange) -> None:
        """Keep what passed whole; nothing of it is on its way any more."""
        asked = exchange.state.pop(self, None)
        if (
            asked is None
            or not isinstance(asked, CacheLookup)
            or (asked.recording is None and asked.flight_key is None)
        ):
            return
        whole, recording = False, asked.recording
        if recording is not None:
            if exchange.shared.completed:
                stored = self._recorded(asked, recording)
                if stored is not None:
                    self._put(asked, stored)
                whole = stored is not None or recording.body() is not None
            recording.give_up()
        if asked.flight_key is not None:
            self._end_flight(asked, whole=whole)

    def _put(self, asked: CacheLookup, stored: Stored) -> None:
        now = self._time()
        page = self._page_with(asked, stored, self._pages.find(asked.key, now), self._policy.max_bytes)
        if self._pages.keep(asked.key, page, now, page.tags):
            self._stored += 1
            self._count("stored")
        while self._told_evicted < self._pages.evicted:
            self._told_evicted += 1
            self._count("evicted")

    async def keep_stored(self, asked: CacheLookup, stored: Stored) -> None:
        """Keep a response."""
        self._put(asked, stored)

    async def forget(self, asked: CacheLookup) -> None:
        """Take away what is kept for a request."""
        self._pages.drop(asked.key)

    @property
    def _evicted(self) -> int:
        return self._pages.evicted

    @property
    def _held(self) -> int:
        return self._pages.held

    # taken away, or marked stale

    async def purge_place(self, place: Place, *, soft: bool) -> None:
        """Take away what answers a URL, or all below one."""
        self._versions.end_all()
        if soft:
            self._soften(lambda key: place.holds(key[0]))
        else:
            self._pages.drop_if(lambda key: place.holds(key[0]))

    async def purge_tag(self, tag: bytes, *, soft: bool) -> None:
        """Take away what has a tag."""
        self._versions.end_all()
        if soft:
            self._soften(lambda key: True, tag)
        else:
            self._pages.purge(tag)

    async def purge_everything(self, *, soft: bool) -> None:
        """Take away all there is."""
        self._versions.end_all()
        if soft:
            self._soften(lambda key: True)
        else:
            self._pages.clear()

    def _soften(self, meant: Callable[[Key], bool], tag: bytes | None = None) -> None:
        found: list[Key] = []

        def note(key: Key) -> bool:
            if meant(key):
                found.append(key)
            return False

        self._pages.drop_if(note)
        now = self._time()
        for key in found:
            page = self._pages.find(key, now)
            if page is not None:
                softened(page, now, tag)
