"""The response cache in the memory of the process, which never waits."""

from collections.abc import Callable

from apim_middleware._caching.asking import Asked
from apim_middleware._caching.keeper import Keeper
from apim_middleware._caching.marks import Place, softened
from apim_middleware._caching.pages import Owners, Page, Stored
from apim_middleware._caching.rules import Caching
from apim_middleware._http.targets import Resource
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.stores.entries import Shelf
from apim_middleware.types import ASGIApp, Tap


class MemoryKeeper(Keeper):
    """Keeps pages in memory as they are."""

    def __init__(self, policy: Caching, env: Env) -> None:
        """Begin with nothing."""
        super().__init__(policy, env, env.clock.monotonic)
        self._versioned = self._owned
        self._shelf: Shelf[tuple[Resource, Owners], Page] = Shelf(policy.max_bytes)
        self._told_evicted = 0

    def on_request(self, exchange: Exchange) -> ASGIApp | None:
        """Answer from memory if there is something that may answer."""
        asked = self._asked(exchange)
        if asked is None:
            return None
        now = self._time()
        page = self._shelf.find(asked.key, now)
        if page is not None:
            return self._answer(exchange, asked, page, now)
        return self._miss(exchange, asked, "uri-miss")

    def on_response(self, exchange: Exchange) -> Tap | None:
        """Copy what may be kept; take away what was changed."""
        asked, head = exchange.state.get(self), exchange.shared.response
        if asked is None or head is None:
            return None
        if isinstance(asked, Asked):
            return self._record(exchange, asked, head)
        for resource in self._passed(asked, head):
            self._shelf.drop((resource, ()))  # what has owners is told by its version: nobody can find it all
        return None

    def on_end(self, exchange: Exchange) -> None:
        """Keep what passed whole; nothing of it is on its way any more."""
        asked = exchange.state.get(self)
        if asked is None or (asked.recording is None and asked.flight_key is None):
            return
        whole, recording = False, asked.recording
        if recording is not None:
            if exchange.shared.completed:
                stored = self._recorded(asked, recording, versioned=self._owned)
                if stored is not None:
                    self._put(asked, stored)
                whole = stored is not None or recording.body() is not None
            recording.give_up()
        if asked.flight_key is not None:
            self._end_flight(asked, whole=whole)

    def _put(self, asked: Asked, stored: Stored) -> None:
        now = self._time()
        page = self._page_with(asked, stored, self._shelf.find(asked.key, now), self._policy.max_bytes)
        if self._shelf.keep(asked.key, page, now, page.tags):
            self._stored += 1
            self._count("stored")
        while self._told_evicted < self._shelf.evicted:
            self._told_evicted += 1
            self._count("evicted")

    async def keep_stored(self, asked: Asked, stored: Stored) -> None:
        """Keep a response."""
        self._put(asked, stored)

    async def forget(self, asked: Asked) -> None:
        """Take away what is kept for a request."""
        self._shelf.drop(asked.key)

    @property
    def _evicted(self) -> int:
        return self._shelf.evicted

    @property
    def _held(self) -> int:
        return self._shelf.held

    # taken away, or marked stale

    async def purge_place(self, place: Place, *, soft: bool) -> None:
        """Take away what answers a URL, or all below one."""
        self._versions.end_all()
        if soft:
            self._soften(lambda key: place.holds(key[0]))
        else:
            self._shelf.drop_if(lambda key: place.holds(key[0]))

    async def purge_tag(self, tag: bytes, *, soft: bool) -> None:
        """Take away what has a tag."""
        self._versions.end_all()
        if soft:
            self._soften(lambda key: True, tag)
        else:
            self._shelf.purge(tag)

    async def purge_everything(self, *, soft: bool) -> None:
        """Take away all there is."""
        self._versions.end_all()
        if soft:
            self._soften(lambda key: True)
        else:
            self._shelf.clear()

    def _soften(self, meant: Callable[[tuple[Resource, Owners]], bool], tag: bytes | None = None) -> None:
        found: list[tuple[Resource, Owners]] = []

        def note(key: tuple[Resource, Owners]) -> bool:
            if meant(key):
                found.append(key)
            return False

        self._shelf.drop_if(note)
        now = self._time()
        for key in found:
            page = self._shelf.find(key, now)
            if page is not None:
                softened(page, now, tag)
