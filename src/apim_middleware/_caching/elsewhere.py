"""The response cache in a store that others see too: one process of several asks the app, the others wait for it."""

from collections.abc import Sequence
from functools import partial

import anyio

from apim_middleware._caching.detached import Detached
from apim_middleware._caching.keeper import Keeper
from apim_middleware._caching.lookup import CacheLookup
from apim_middleware._caching.marks import EVERYTHING, Place
from apim_middleware._caching.pages import Page, Stored, Variants
from apim_middleware._caching.rules import Caching
from apim_middleware._caching.shared_pages import SharedPages
from apim_middleware._caching.shared_store import WaryEntries
from apim_middleware._caching.shared_turns import Turns
from apim_middleware._http.freshness import unfit
from apim_middleware._http.keeping import selection
from apim_middleware._loops import running_loop, start
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, StoreError
from apim_middleware.exchange import Exchange, ResponseHead
from apim_middleware.protocols import Entries
from apim_middleware.stores.tags import MOST_TAGS
from apim_middleware.types import ASGIApp, Tap

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
_LEASE = 10.0  # seconds after which others ask the app, whatever became of who was to
_ALONE = 10.0  # seconds the processes do not wait for each other's responses that turned out not to be for others
_RELEASE = 2.0  # seconds the store has to take a lease back


class RemoteKeeper(Keeper):
    """Keeps pages in a store that others see too."""

    def __init__(self, policy: Caching, env: Env, entries: Entries) -> None:
        """Keep them at the place of the environment."""
        super().__init__(policy, env, env.clock.now)
        wary = env.kept("cache.store", lambda: WaryEntries(entries, env.clock))
        self._pages = SharedPages(wary, f"{env.place}/{policy.name}", owned=self._owned, on_trouble=self._count_trouble)
        self._turns = Turns()

    def _count_trouble(self) -> None:
        self._count("store_failed")

    async def on_request(self, exchange: Exchange) -> ASGIApp | None:
        """Answer from the store if there is something that may answer."""
        fields = exchange.index()
        wished = self._wished(exchange, fields)
        if wished is None:
            return None
        key = self._key(exchange, fields[b"host"])
        asked = CacheLookup(*self._noted(exchange, key, self.monotonic()), wished)
        try:
            asked.after, asked.page = await self._pages.find(*asked.key)
        except StoreError as error:
            if self._policy.when_store_fails == "refuse":
                raise Refusal(503, "cache-unavailable", "The response cache cannot be asked at the moment.") from error
            self._bypass(exchange, asked.wished)
            return None
        await self._look_at_flights(asked)
        asked.started = self.monotonic()
        if asked.page is not None:
            answer = self._answer(exchange, asked, asked.page, self._time())
        else:
            answer = self._miss(exchange, asked)
        going_on = answer is None and exchange.state.get(self) is asked
        if going_on and asked.flight_key is not None and self._flights.get(asked.flight_key) is asked:
            return await self._lead(exchange, asked)
        return answer

    async def _look_at_flights(self, asked: CacheLookup) -> None:
        """See that nobody waits here for a response from before a change that another process has told the store of.

        It takes asking the store once more only while the same is on its way and anything was purged meanwhile.
        """
        resource, _ = asked.key
        names = [asked.key, (asked.key, selection(asked.page.selecting, asked.headers) if asked.page else ())]
        for found in [self._flights[name] for name in names if name in self._flights]:
            first = found.asked if isinstance(found, Detached) else found
            if first.after == asked.after or self._versions.changed(resource, since=first.changes):
                continue
            if not await self._pages.unchanged(resource, since=first.after):
                self._versions.end(resource)
                asked.changes = self._versions.changes

    async def _lead(self, exchange: Exchange, asked: CacheLookup) -> ASGIApp | None:
        """Ask the app, unless another process does already."""
        try:
            stored = await self._leased(asked)
        except BaseException:
            self._end_flight(asked, whole=False)
            raise
        if stored is None:
            return None
        self._end_flight(asked, whole=False)  # who waits here will look for it too
        return self._stored_answer(exchange, asked.key, asked.wished, stored, self._time())

    # one of several processes

    async def _leased(self, asked: CacheLookup) -> Stored | None:
        """Wait until this process is to ask the app, or for what another one has stored meanwhile."""
        if self._unshared.get(asked.flight_key, 0.0) > self.monotonic():
            return None
        try:
            if await self._is_first(asked):
                return None
            with anyio.move_on_after(self._patience or 0.0):
                return await self._stored_by_others(asked)
        except StoreError:
            self._count_trouble()
        return None

    async def _looked_for(self, asked: CacheLookup) -> Stored | None:
        """What another process has stored since it was looked for, or stores while it is waited for."""
        try:
            stored = await self._found(asked)
        except StoreError:
            return None
        return await self._leased(asked) if stored is None else stored

    async def _is_first(self, asked: CacheLookup) -> bool:
        """Whether it is for this process to ask the app, or of no use to wait for who does."""
        name = self._lease_name(asked)
        token = await self._pages.lease(name, _LEASE)
        if token is None:
            return await self._pages.is_alone(name)
        asked.lease = name, token
        return True

    async def _stored_by_others(self, asked: CacheLookup) -> Stored | None:
        """Look again and again for what another process stores, or for its leaving that to us."""
        pause = _FIRST_PAUSE
        while True:
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            first = await self._is_first(asked)  # who stores something does so before it leaves
            if (stored := await self._found(asked)) is not None:
                await self._release(asked)
                return stored
            if first:
                return None

    async def _found(self, asked: CacheLookup) -> Stored | None:
        """What another process has stored that may answer."""
        asked.after, page = await self._pages.find(*asked.key)
        asked.page = page
        stored = None if page is None else page.choose(asked.headers)
        if stored is None or not self.open_to(asked, stored):
            return None
        now = self._time()
        return stored if unfit(asked.wished, now - stored.born, stored.fresh - stored.born) is None else None

    def _lease_name(self, asked: CacheLookup) -> bytes:
        resource, owners = asked.key
        page, stale = asked.page, asked.stale
        names = page.selecting if isinstance(page, Variants) else () if stale is None else stale.selecting
        return self._pages.lease_name(resource, owners, selection(names, asked.headers))

    async def _release(self, asked: CacheLookup, *, alone: bool = False) -> None:
        lease, asked.lease = asked.lease, None
        if lease is not None:
            await self._pages.release(*lease, alone=_ALONE if alone else 0.0)

    async def at_work_on(self, flight: Detached) -> None:
        """Ask the app for a flight, unless another process does."""
        asked = flight.asked
        if asked.flight_key is not None and asked.lease is None and self._patience is not None:
            stored = await self._looked_for(asked)
            if stored is not None:
                flight.answer(stored)
                return
        try:
            await flight.ask()
        finally:
            with anyio.move_on_after(_RELEASE, shield=True):
                await self._release(asked, alone=isinstance(flight.verdict, str))

    async def completed(self, flight: Detached) -> None:
        """A flight has come to its end, and what is to be kept of it is kept."""
        await self._release(flight.asked, alone=isinstance(flight.verdict, str))
        self.landed(flight)

    # on the way out

    async def on_response(self, exchange: Exchange) -> Tap | None:
        """Copy what may be kept; take away what was changed."""
        asked, head = exchange.state.get(self), exchange.shared.response
        if asked is None or head is None:
            return None
        if isinstance(asked, CacheLookup):
            tap = self._record(exchange, asked, head)
            if tap is None and asked.lease is not None:
                self.disappointed(asked)
                await self._release(asked, alone=True)
            return tap
        for resource in self._passed(asked, head):
            await self._pages.forget(resource)
        if asked.shown is not None and head.status == 200:
            await self._after_head(exchange, asked.shown, head)
        return None

    async def _after_head(self, exchange: Exchange, shown: CacheLookup, head: ResponseHead) -> None:
        """Look at what the answer to HEAD tells of, if nobody else has changed it meanwhile."""
        before = shown.page
        try:
            _, shown.page = await self._pages.find(*shown.key)
        except StoreError:
            return
        if before is None or shown.page is None:
            return
        if _told(before) != _told(shown.page):
            return
        stored = self._shown_by_head(exchange, shown, shown.page, head)
        if stored is not None:
            await self.keep_stored(shown, stored)

    async def on_sent(self, exchange: Exchange) -> None:
        """Keep what passed whole."""
        asked = exchange.state.get(self)
        if isinstance(asked, CacheLookup) and asked.recording is not None:
            await self.keep(asked, asked.recording)
            await self._release(asked)

    def on_end(self, exchange: Exchange) -> None:
        """Whatever became of the response, nothing of it is on its way any more."""
        asked = exchange.state.pop(self, None)
        if not isinstance(asked, CacheLookup):
            return
        whole = False
        if asked.recording is not None:
            whole = exchange.shared.completed and asked.recording.body() is not None
            asked.recording.give_up()
        if asked.flight_key is not None:
            self._end_flight(asked, whole=whole)
        if asked.lease is not None and running_loop() is not None:
            start(partial(self._release, asked))

    async def keep_stored(self, asked: CacheLookup, stored: Stored) -> None:
        """Keep a response, in the place of what is replaced by it: one after the other."""
        turn = self._turns.turn(asked.key)
        if turn is None:
            return
        async with turn:
            if not stored.selecting or await self._joins(asked):
                await self._put(asked, stored)

    async def _joins(self, asked: CacheLookup) -> bool:
        """Look again for what it is to stand beside; whether the store says."""
        try:
            _, asked.page = await self._pages.find(*asked.key)
        except StoreError:
            return False
        return True

    async def _put(self, asked: CacheLookup, stored: Stored) -> None:
        resource, owners = asked.key
        most_tags = MOST_TAGS - len(self._pages.names(resource, ()))
        page = self._page_with(asked, stored, asked.page, self._policy.max_entry_bytes, most_tags)
        if len(page.tags) > most_tags:
            return  # it could not be taken away by all of them
        seconds, current = page.until - self._time(), partial(self._is_current, asked)
        if await self._pages.keep(resource, owners, page, seconds=seconds, since=asked.after, current=current):
            self._stored += 1
            self._count("stored")

    def _is_current(self, asked: CacheLookup) -> bool:
        """Whether nobody here has changed what was asked for since."""
        return not self._versions.changed(asked.key[0], since=asked.changes)

    async def forget(self, asked: CacheLookup) -> None:
        """Take away what is kept for a request."""
        await self._pages.drop(*asked.key)

    # taken away, or marked stale

    async def purge_place(self, place: Place, *, soft: bool) -> None:
        """Take away what answers a URL, or all below one."""
        await self._purge(place.name, soft=soft)

    async def purge_tag(self, tag: bytes, *, soft: bool) -> None:
        """Take away what has a tag."""
        await self._purge(("tag", tag), soft=soft)

    async def purge_everything(self, *, soft: bool) -> None:
        """Take away all there is."""
        await self._purge(EVERYTHING, soft=soft)

    async def _purge(self, name: Sequence[str | bytes], *, soft: bool) -> None:
        self._versions.end_all()
        await self._pages.purge(name, soft=soft)


def _told(page: Page) -> list[tuple[object, ...]]:
    """All that would be another if somebody had stored something else meanwhile, or marked it stale."""
    return [(stored.received, stored.fresh, stored.headers, stored.body) for stored in page.all()]
