"""Stored responses in a store that others see too, looked at closely when they come back."""

import logging
import secrets
from typing import TypeAlias

from apim_middleware._http.targets import Resource
from apim_middleware.errors import StoreError
from apim_middleware.protocols import Entries
from apim_middleware.stores.packing import fingerprint, pack, unpack
from apim_middleware.stores.pages import Page

log = logging.getLogger("apim_middleware")

Owners: TypeAlias = tuple[str | None, ...]
"""Whom a response belongs to: what each key of ``private_to`` says of the request."""

_GENERATION = 86_400.0  # seconds a generation lasts, and all that is kept under it


class SharedPages:
    """Pages as bytes under keys that no other cache, resource or owner has.

    Where responses have owners, a resource has a generation that is part of every key, so that a change to it can
    take the responses of all of them away at once.
    """

    def __init__(self, entries: Entries, space: str, *, owned: bool) -> None:
        """Keep everything under keys that begin with ``space``."""
        self._entries = entries
        self._space = f"{space}:".encode()
        self._owned = owned
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
        page = None if data is None else unpack(data, key)
        if data is not None and page is None:
            self._trouble("gave back what was never stored")
        else:
            self._troubled = False
        return generation, page

    async def keep(
        self, resource: Resource, owners: Owners, generation: bytes | None, page: Page, *, seconds: float
    ) -> None:
        """Put a page under its key; without a generation, one begins."""
        try:
            if generation is None:
                generation = secrets.token_bytes(16)
                await self._entries.set(self.key("generation", resource), generation, _GENERATION)
            key = self.key("page", resource, owners, generation)
            await self._entries.set(key, pack(page, key), seconds)
        except StoreError as error:
            self._trouble("cannot keep a response", error)

    async def forget(self, resource: Resource) -> None:
        """Take away what anybody has of the resource."""
        key = self.key("generation", resource) if self._owned else self.key("page", resource)
        try:
            await self._entries.delete(key)
        except StoreError as error:
            self._trouble("cannot forget a response", error)

    def key(self, kind: str, resource: Resource, owners: Owners = (), generation: bytes = b"") -> bytes:
        """A key no other cache, resource or owner has."""
        return self._space + fingerprint((kind, *resource, generation, *owners)).hex().encode()

    def _trouble(self, problem: str, error: StoreError | None = None) -> None:
        """Say it once, until the store is well again; not what the driver says, which may hold secrets."""
        if not self._troubled:
            cause = "" if error is None else f": {type(error.__cause__ or error).__name__}"
            log.error("the store of the response cache %s%s", problem, cause)
        self._troubled = True
