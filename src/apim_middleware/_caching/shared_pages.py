"""Stored responses in a store that others see too, looked at closely when they come back."""

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress

from anyio import move_on_after

from apim_middleware._caching.marks import EVERYTHING, names_of, tag_in_store
from apim_middleware._caching.packing import fingerprint, pack, unpack
from apim_middleware._caching.pages import Owners, Page
from apim_middleware._caching.shared_debts import Debts
from apim_middleware._caching.shared_parts import Parts, header_of
from apim_middleware._caching.shared_seals import Seals, seal_of
from apim_middleware._caching.shared_store import WaryEntries
from apim_middleware._http.targets import Resource
from apim_middleware._loops import running_loop
from apim_middleware.errors import StoreError

log = logging.getLogger("apim_middleware")

_GENERATION = 86_400.0  # seconds a generation lasts, and all that is kept under it
_CLEARING = 2.0  # seconds the store has to let go of what is of no use any more
_ALONE = b"alone"


class SharedPages:
    """Pages as bytes under keys that no other cache, resource or owner has.

    Where responses have owners, a resource has a generation that is part of every key, so that a change to it can
    take the responses of all of them away at once. A page larger than a quarter of a MiB stands in several entries.
    Each page has a seal, without which it is stale.
    """

    def __init__(
        self, entries: WaryEntries, space: str, *, owned: bool, on_trouble: Callable[[], None] = lambda: None
    ) -> None:
        """Keep everything under keys that begin with ``space``."""
        self._entries, self._parts, self._seals = entries, Parts(entries), Seals(entries, f"{space}:".encode())
        self._debts = Debts(self._take_away)
        self._name, self._space = space, f"{space}:".encode()
        self._owned = owned
        self._on_trouble = on_trouble
        self._disbelieved = False

    async def find(self, resource: Resource, owners: Owners) -> tuple[bytes | None, Page | None]:
        """The generation the resource is in, and the page, where there are such. Raises StoreError."""
        try:
            return await self._find(resource, owners)
        except StoreError:
            self._on_trouble()
            raise

    async def _find(self, resource: Resource, owners: Owners) -> tuple[bytes | None, Page | None]:
        if self._debts:
            await self._debts.settle(resource)
        generation: bytes | None = b""
        if owners:
            generation = await self._entries.get(self.key("generation", resource))
        if generation is None:
            return None, None
        return generation, await self._page(resource, self.key("page", resource, owners, generation))

    async def _page(self, resource: Resource, key: bytes, seen: bytes | None = None) -> Page | None:
        """What stands under a key; looked for once more when its parts are gone, for it may have been replaced."""
        header, seal = await self._entries.get_many([key, seal_of(key)])
        if header is None:
            return None
        data = await self._parts.joined(key, header)
        if data is None and seen is None:
            return await self._page(resource, key, header)
        page = None if data is None else unpack(data, key)
        if page is None:
            self._disbelieve()
            return None
        self._disbelieved = False
        if not self._seals.holds(seal, page):
            await self._seals.soften(page, self._tags(resource, page))
        return page

    def _tags(self, resource: Resource, page: Page) -> list[bytes]:
        """By what a page is found in the store."""
        return [tag_in_store(self._name, name) for name in names_of(resource, page.tags)]

    async def keep(
        self,
        resource: Resource,
        owners: Owners,
        generation: bytes | None,
        page: Page,
        *,
        seconds: float,
        asked: float,
        current: Callable[[], bool],
    ) -> bool:
        """Put a page under its key, while it is ``current``; without a generation, one begins. Whether that was done.

        It is looked whether it is so before it is put there and once more after it, for a change may pass that step;
        and whether another process has marked or taken away what has its names since it was ``asked`` for.
        """
        try:
            if generation is None:
                generation = secrets.token_bytes(16)
                await self._entries.set(self.key("generation", resource), generation, _GENERATION)
            key = self.key("page", resource, owners, generation)
            seconds = min(seconds, _GENERATION) if owners else seconds
            return await self._put(resource, key, page, seconds, asked, current)
        except StoreError:
            self._on_trouble()
            if not current():
                self._debts.add(resource)  # it may have been kept all the same
            return False

    async def _put(
        self, resource: Resource, key: bytes, page: Page, seconds: float, asked: float, current: Callable[[], bool]
    ) -> bool:
        data, tags = pack(page, key), self._tags(resource, page)
        header, before, kept, late = header_of(key, data), None, False, False
        try:
            if header is not data:
                await self._parts.keep(key, header, data, seconds, tags=tags)
            before = await self._entries.get(key)
            if current():
                await self._entries.set(key, header, seconds, tags=tags)
                await self._seals.put(key, page, seconds, tags)
                late = any(moment > asked for moment in await self._seals.moments(tags))
                kept = current() and not late
        finally:
            with nullcontext() if running_loop() is None else move_on_after(_CLEARING, shield=True):
                if kept:
                    await self._parts.delete(key, before)
                else:
                    await self._take_back(resource, key, header, harmless=current() and not late)
        return kept

    async def _take_back(self, resource: Resource, key: bytes, header: bytes, *, harmless: bool) -> None:
        """Take away what was just put under a key, unless it has been replaced already."""
        gone = False
        try:
            with suppress(StoreError):
                await self._entries.delete(key, value=header)
                gone = True
                await self._seals.remove(key)
        finally:
            if not (gone or harmless):
                self._debts.add(resource)
        await self._parts.delete(key, header)

    # what is taken away

    async def forget(self, resource: Resource) -> None:
        """Take away what anybody has of the resource, now or as soon as the store answers."""
        try:
            await self._take_away(resource)
        except StoreError:
            self._debts.add(resource)
            self._on_trouble()
        except BaseException:
            self._debts.add(resource)
            raise

    async def _take_away(self, resource: Resource | None) -> None:
        if resource is None:
            await self._entries.purge(tag_in_store(self._name, EVERYTHING))
        elif self._owned:
            await self._entries.delete(self.key("generation", resource))
        else:
            await self._remove(self.key("page", resource))

    async def drop(self, resource: Resource, owners: Owners, generation: bytes | None) -> None:
        """Take away what one owner has of the resource."""
        try:
            await self._remove(self.key("page", resource, owners, generation or b""))
        except StoreError:
            self._on_trouble()

    async def _remove(self, key: bytes) -> None:
        """Let go of what stands under a key, of its seal and of its parts."""
        header = await self._entries.get(key)
        await self._entries.delete(key)
        await self._seals.remove(key)
        await self._parts.delete(key, header)

    async def purge(self, name: Sequence[str | bytes], *, soft: bool) -> None:
        """Take away every page that goes by this name, or only mark it stale. Raises StoreError when it is not done."""
        tag = tag_in_store(self._name, name)
        with suppress(StoreError):  # it is for what is on its way elsewhere
            await self._seals.note(tag, soft=soft)
        await self._seals.break_all(tag)
        if not soft:
            await self._entries.purge_now(tag)

    # who of several processes asks the app

    async def lease(self, name: bytes, seconds: float) -> bytes | None:
        """A token when nobody else asks the app for this; None when somebody does. Raises StoreError."""
        token = secrets.token_bytes(12)
        return token if await self._entries.add(name, token, seconds) else None

    async def is_alone(self, name: bytes) -> bool:
        """Whether responses to this are known not to be for others. Raises StoreError."""
        return await self._entries.get(name) == _ALONE

    async def release(self, name: bytes, token: bytes, *, alone: float = 0.0) -> None:
        """Let others ask; or say for so many seconds that it is of no use to wait for each other."""
        try:
            if alone:
                await self._entries.set(name, _ALONE, alone)
            else:
                await self._entries.delete(name, value=token)
        except StoreError:
            self._on_trouble()

    def key(self, kind: str, resource: Resource, owners: Owners = (), generation: bytes = b"") -> bytes:
        """A key no other cache, resource or owner has."""
        host, (scheme, *rest) = resource
        return self._space + fingerprint((kind, scheme, host, *rest, generation, *owners)).hex().encode()

    def lease_name(self, resource: Resource, owners: Owners, said: tuple[bytes | None, ...]) -> bytes:
        """The key of the lease for requests like one."""
        host, (scheme, *rest) = resource
        return self._space + fingerprint(("lease", scheme, host, *rest, *owners, b"", *said)).hex().encode()

    def _disbelieve(self) -> None:
        """Count what cannot be read, and say it once until something can."""
        self._on_trouble()
        if not self._disbelieved:
            log.error("the store of the response cache gave back what was never stored")
        self._disbelieved = True
