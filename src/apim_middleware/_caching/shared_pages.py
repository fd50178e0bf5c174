"""Stored responses in a store that others see too, looked at closely when they come back."""

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress

from anyio import move_on_after

from apim_middleware._caching.marks import EVERYTHING, names_of, resource_name, tag_in_store
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

_PURGED = ("purged",)  # what names nothing that is kept, and is purged with whatever is
_PROBE = 1.0  # seconds for which is kept what is kept to find out whether it would be
_CLEARING = 2.0  # seconds the store has to let go of what is of no use any more
_ALONE = b"alone"


class SharedPages:
    """Pages as bytes under keys that no other cache, resource or owner has.

    A page and its parts go by a tag for each of its names, so that a change to its resource, or a purge, takes away
    what all owners have at once; and nothing is kept that was asked for before such a purge, whoever purged. A page
    larger than a quarter of a MiB stands in several entries. Each page has a seal, without which it is stale.
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

    async def find(self, resource: Resource, owners: Owners) -> tuple[bytes, Page | None]:
        """After which purge it is in the store, and the page, where there is one. Raises StoreError."""
        try:
            return await self._find(resource, owners)
        except StoreError:
            self._on_trouble()
            raise

    async def _find(self, resource: Resource, owners: Owners) -> tuple[bytes, Page | None]:
        if self._debts:
            await self._debts.settle(resource)
        return await self._page(resource, self.key("page", resource, owners))

    async def _page(self, resource: Resource, key: bytes, *, again: bool = False) -> tuple[bytes, Page | None]:
        """What stands under a key; looked for once more when its parts are gone, for it may have been replaced."""
        (header, seal), after = await self._entries.look([key, seal_of(key)])
        if header is None:
            return after, None
        data = await self._parts.joined(key, header)
        if data is None and not again:
            return await self._page(resource, key, again=True)
        page = None if data is None else unpack(data, key)
        if page is None:
            self._disbelieve()
            return after, None
        self._disbelieved = False
        if not self._seals.holds(seal, page):
            await self._seals.soften(page, self._tags(resource, page))
        return after, page

    def names(self, resource: Resource, tags: Iterable[bytes]) -> list[tuple[str | bytes | None, ...]]:
        """Everything a page goes by in the store."""
        return [resource_name(resource), *names_of(resource, tags)]

    def _tags(self, resource: Resource, page: Page) -> list[bytes]:
        return [tag_in_store(self._name, name) for name in self.names(resource, page.tags)]

    async def keep(
        self,
        resource: Resource,
        owners: Owners,
        page: Page,
        *,
        seconds: float,
        since: bytes,
        current: Callable[[], bool],
    ) -> bool:
        """Put a page under its key, unless any of its names was purged or marked ``since``. Whether that was done.

        It must also be ``current`` to this process, which may know of a change that the store could not be told. It
        is looked whether it is so before it is put there and once more after it, for a change may pass that step.
        """
        try:
            return await self._put(resource, self.key("page", resource, owners), page, seconds, since, current)
        except StoreError:
            self._on_trouble()
            if not current():
                self._debts.add(resource)  # it may have been kept all the same
            return False

    async def _put(
        self, resource: Resource, key: bytes, page: Page, seconds: float, since: bytes, current: Callable[[], bool]
    ) -> bool:
        data, tags = pack(page, key), self._tags(resource, page)
        header, before, kept, tried = header_of(key, data), None, False, False
        try:
            if header is not data:
                await self._parts.keep(key, header, data, seconds, tags=tags)
            before = await self._entries.get(key)
            if current():
                tried = True
                tried = await self._entries.set(key, header, seconds, tags=tags, since=since)
                kept = tried and await self._seals.put(key, page, seconds, tags, since) and current()
        finally:
            with nullcontext() if running_loop() is None else move_on_after(_CLEARING, shield=True):
                if kept:
                    await self._parts.delete(key, before)
                else:
                    await self._take_back(resource, key, header, put=tried, harmless=current())
        return kept

    async def _take_back(self, resource: Resource, key: bytes, header: bytes, *, put: bool, harmless: bool) -> None:
        """Take away what was just put under a key, unless it was not or has been replaced already."""
        gone = not put
        try:
            if put:
                with suppress(StoreError):
                    await self._entries.delete(key, value=header)
                    gone = True
        finally:
            if not (gone or harmless):
                self._debts.add(resource)
        await self._parts.delete(key, header)

    async def unchanged(self, resource: Resource, *, since: bytes) -> bool:
        """Whether a resource was not changed since, and nothing purged: by what names is not known before it comes."""
        tags = [tag_in_store(self._name, name) for name in (resource_name(resource), _PURGED)]
        try:
            return await self._entries.set(self.key("probe", resource), b"", _PROBE, tags=tags, since=since)
        except StoreError:
            self._on_trouble()
            return False

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
        else:
            key, header = self.key("page", resource), None
            if not self._owned:
                with suppress(StoreError):
                    header = await self._entries.get(key)
            await self._entries.purge(tag_in_store(self._name, resource_name(resource)))
            await self._parts.delete(key, header)

    async def drop(self, resource: Resource, owners: Owners) -> None:
        """Take away what one owner has of the resource."""
        try:
            await self._remove(self.key("page", resource, owners))
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
        if soft:
            with suppress(StoreError):  # without it, what is marked is taken to have been so from the beginning
                await self._seals.note(tag)
        await self._entries.purge_now(tag_in_store(self._name, _PURGED))
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

    def key(self, kind: str, resource: Resource, owners: Owners = ()) -> bytes:
        """A key no other cache, resource or owner has."""
        host, (scheme, *rest) = resource
        return self._space + fingerprint((kind, scheme, host, *rest, *owners)).hex().encode()

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
