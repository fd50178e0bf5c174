"""Where keys are asked for: at a URL, or where the metadata of their issuer says."""

from collections.abc import Collection, Sequence
from math import inf
from typing import NamedTuple, Protocol

import anyio

from apim_middleware._jose.discovery import keys_url
from apim_middleware._jose.documents import Address, BadDocument, Document, Question, fetched, lifetime
from apim_middleware._jose.keys import KeySet, keys_from_jwks
from apim_middleware._jose.urls import Allowance
from apim_middleware.protocols import Clock, Transport

_KEYS = b"application/jwk-set+json, application/json"
_METADATA = b"application/json"


class Means(NamedTuple):
    """What it takes to ask: over what, by which clock, for how many seconds, and the longest an answer is good for."""

    transport: Transport
    clock: Clock
    timeout: float
    life: float
    algorithms: Collection[str]

    async def document(self, url: str, accept: bytes) -> Document:
        """The document at a URL. Raises BadDocument, TransportError or TimeoutError."""
        return await fetched(self.transport, Question(url, [(b"accept", accept)], self.timeout))

    async def keys(self, url: str) -> tuple[KeySet, float]:
        """The keys at a URL, and for how many seconds they are fresh. Raises what ``document`` does, and BadKey."""
        document = await self.document(url, _KEYS)
        return keys_from_jwks(document.body, self.algorithms), self.fresh(document)

    def fresh(self, document: Document) -> float:
        """For how many seconds a document is."""
        return lifetime(document.headers, self.life, self.clock.now())


class Publisher(Protocol):
    """Publishes keys."""

    name: str
    """How it is called in logs."""

    async def fetch(self) -> tuple[KeySet, float]:
        """The keys as published now, and for how many seconds they are fresh. Raises whatever went wrong."""
        ...


class At:
    """Keys at a URL."""

    def __init__(self, url: str, means: Means) -> None:
        """Nothing is asked for yet."""
        self.name = Address.of(url).origin
        self._url = url
        self._means = means

    async def fetch(self) -> tuple[KeySet, float]:
        """The keys published there."""
        return await self._means.keys(self._url)


class Discovered:
    """Keys wherever the metadata of their issuer says; what it says is kept as long as it is fresh."""

    def __init__(self, issuer: str, metadata: Sequence[str], allowed: Allowance, means: Means) -> None:
        """The issuer's metadata is at the first of these URLs that has any."""
        self.name = Address.of(issuer).origin
        self._issuer, self._metadata, self._allowed, self._means = issuer, metadata, allowed, means
        self._url = ""
        self._until = -inf

    async def fetch(self) -> tuple[KeySet, float]:
        """The keys, asked for where they were last time unless that is long ago or went wrong."""
        with anyio.fail_after(self._means.timeout):
            if self._means.clock.monotonic() >= self._until:
                await self._discover()
            try:
                return await self._means.keys(self._url)
            except BaseException:
                self._until = -inf
                raise

    async def _discover(self) -> None:
        document = await self._found()
        self._url = keys_url(document.body, self._issuer, self._allowed)
        self._until = self._means.clock.monotonic() + self._means.fresh(document)

    async def _found(self) -> Document:
        for url in self._metadata[:-1]:
            try:
                return await self._means.document(url, _METADATA)
            except BadDocument as bad:
                if not 400 <= bad.status < 500:
                    raise
        return await self._means.document(self._metadata[-1], _METADATA)
