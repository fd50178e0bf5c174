"""Stored responses in a store that others see too, looked at closely when they come back."""

import json
import logging
import secrets
from collections.abc import Callable

from apim_middleware._caching.packing import fingerprint, pack, unpack
from apim_middleware._caching.pages import Owners, Page
from apim_middleware._http.targets import Resource
from apim_middleware.errors import StoreError
from apim_middleware.protocols import Entries

log = logging.getLogger("apim_middleware")

_GENERATION = 86_400.0  # seconds a generation lasts, and all that is kept under it
_CHUNK = 256 * 1024
_AT_ONCE = 8  # chunks that are asked for together
_CHUNKED = b"apim\x03"
_ALONE = b"alone"


class SharedPages:
    """Pages as bytes under keys that no other cache, resource or owner has.

    Where responses have owners, a resource has a generation that is part of every key, so that a change to it can
    take the responses of all of them away at once. A page larger than a quarter of a MiB stands in several entries.
    """

    def __init__(
        self, entries: Entries, space: str, *, owned: bool, on_trouble: Callable[[], None] = lambda: None
    ) -> None:
        """Keep everything under keys that begin with ``space``."""
        self._entries = entries
        self._space = f"{space}:".encode()
        self._owned = owned
        self._on_trouble = on_trouble
        self._troubled = False

    async def find(self, resource: Resource, owners: Owners) -> tuple[bytes | None, Page | None]:
        """The generation the resource is in, and the page, where there are such. Raises StoreError."""
        try:
            return await self._find(resource, owners)
        except StoreError as error:
            self._trouble("cannot answer", error)
            raise

    async def _find(self, resource: Resource, owners: Owners) -> tuple[bytes | None, Page | None]:
        generation: bytes | None = b""
        if owners:
            generation = await self._entries.get(self.key("generation", resource))
        if generation is None:
            return None, None
        key = self.key("page", resource, owners, generation)
        data = await self._entries.get(key)
        page = None
        if data is not None:
            whole = await self._joined(key, data) if data.startswith(_CHUNKED) else data
            page = unpack(whole, key)
        if data is not None and page is None:
            self._trouble("gave back what was never stored")
        else:
            self._troubled = False
        return generation, page

    async def keep(
        self,
        resource: Resource,
        owners: Owners,
        generation: bytes | None,
        page: Page,
        *,
        seconds: float,
        tags: list[bytes],
    ) -> bool:
        """Put a page under its key; without a generation, one begins. Whether that was done."""
        try:
            if generation is None:
                generation = secrets.token_bytes(16)
                await self._entries.set(self.key("generation", resource), generation, _GENERATION)
            key = self.key("page", resource, owners, generation)
            data = pack(page, key)
            if len(data) > _CHUNK:
                data = await self._split(key, data, seconds)
            await self._entries.set(key, data, seconds, tags=tags)
        except StoreError as error:
            self._trouble("cannot keep a response", error)
            return False
        return True

    # in several entries

    async def _split(self, key: bytes, data: bytes, seconds: float) -> bytes:
        """Keep the data in parts, and give back what tells where they are."""
        name = secrets.token_hex(8)
        for number, at in enumerate(range(0, len(data), _CHUNK)):
            await self._entries.set(_part(key, name, number), data[at : at + _CHUNK], seconds)
        return _CHUNKED + json.dumps([name, len(data)]).encode()

    async def _joined(self, key: bytes, data: bytes) -> bytes:
        """The data that stands in parts; nothing when one of them is gone."""
        try:
            name, size = json.loads(data[len(_CHUNKED) :])
            keys = [_part(key, name, number) for number in range(-(-size // _CHUNK))]
        except (ValueError, TypeError, OverflowError, MemoryError):
            return b""
        found: list[bytes] = []
        for at in range(0, len(keys), _AT_ONCE):
            parts = await self._entries.get_many(keys[at : at + _AT_ONCE])
            here = [part for part in parts if part is not None]
            if len(here) < len(parts):
                return b""
            found += here
        return b"".join(found)

    # what is taken away

    async def forget(self, resource: Resource) -> None:
        """Take away what anybody has of the resource."""
        key = self.key("generation", resource) if self._owned else self.key("page", resource)
        try:
            await self._entries.delete(key)
        except StoreError as error:
            self._trouble("cannot forget a response", error)

    async def drop(self, resource: Resource, owners: Owners, generation: bytes | None) -> None:
        """Take away what one owner has of the resource."""
        try:
            await self._entries.delete(self.key("page", resource, owners, generation or b""))
        except StoreError as error:
            self._trouble("cannot forget a response", error)

    async def purge(self, tag: bytes) -> None:
        """Take away every page with this tag. Raises StoreError."""
        await self._entries.purge(tag)

    async def read_marks(self) -> bytes | None:
        """What was marked stale. Raises StoreError."""
        try:
            return await self._entries.get(self._space + b"marks")
        except StoreError as error:
            self._trouble("cannot answer", error)
            raise

    async def write_marks(self, marks: bytes) -> None:
        """Keep what was marked stale. Raises StoreError."""
        await self._entries.set(self._space + b"marks", marks, _GENERATION)

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
        except StoreError as error:
            self._trouble("cannot take back a lease", error)

    def key(self, kind: str, resource: Resource, owners: Owners = (), generation: bytes = b"") -> bytes:
        """A key no other cache, resource or owner has."""
        host, (scheme, *rest) = resource
        return self._space + fingerprint((kind, scheme, host, *rest, generation, *owners)).hex().encode()

    def lease_name(self, resource: Resource, owners: Owners, said: tuple[bytes | None, ...]) -> bytes:
        """The key of the lease for requests like one."""
        host, (scheme, *rest) = resource
        return self._space + fingerprint(("lease", scheme, host, *rest, *owners, b"", *said)).hex().encode()

    def _trouble(self, problem: str, error: StoreError | None = None) -> None:
        """Count it, and say it once until the store is well again; not what the driver says, which may hold secrets."""
        self._on_trouble()
        if not self._troubled:
            cause = "" if error is None else f": {type(error.__cause__ or error).__name__}"
            log.error("the store of the response cache %s%s", problem, cause)
        self._troubled = True


def _part(key: bytes, name: str, number: int) -> bytes:
    return b"%b.%b.%d" % (key, name.encode(), number)
