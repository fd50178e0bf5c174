"""The keys of one issuer or of several, each verifying its own tokens only (RFC 8725 §3.8)."""

from collections.abc import Mapping
from math import inf
from typing import Protocol, TypeVar

from apim_middleware._jose.keys import KeySet
from apim_middleware._jose.tokens import BadToken, Signed, parsed
from apim_middleware.protocols import Clock

S = TypeVar("S")


class Source(Protocol):
    """Keys that verify tokens, and may change."""

    look_at: float
    """When ``review`` has something to do, by the monotonic clock."""

    async def verify(self, token: Signed) -> str:
        """The mark of the key that made the signature. Raises BadToken, KeysUnavailable."""
        ...

    def review(self) -> None:
        """Renew what is about to go stale, give up what is too old."""
        ...


class StaticKeys:
    """Keys that are here."""

    look_at = inf

    def __init__(self, keys: KeySet) -> None:
        """Use these keys."""
        self._keys = keys

    async def verify(self, token: Signed) -> str:
        """The mark of the key that made the signature. Raises BadToken."""
        return self.verify_now(token)

    def verify_now(self, token: Signed) -> str:
        """The mark of the key that made the signature, without awaiting. Raises BadToken."""
        return self._keys.verify(token)

    def review(self) -> None:
        """Nothing changes."""


class StaticKeysOfMany:
    """Keys that are here, of several issuers."""

    look_at = inf

    def __init__(self, keys: Mapping[str, StaticKeys]) -> None:
        """Use these keys, each for the tokens of its issuer."""
        self._keys = keys

    async def verify(self, token: Signed) -> str:
        """The mark of the key that made the signature. Raises BadToken."""
        return self.verify_now(token)

    def verify_now(self, token: Signed) -> str:
        """The mark of the key that made the signature, without awaiting. Raises BadToken."""
        return chosen(self._keys, token).verify_now(token)

    def review(self) -> None:
        """Nothing changes."""


class Sources:
    """The keys of several issuers, some of them elsewhere."""

    def __init__(self, sources: Mapping[str, Source], clock: Clock) -> None:
        """Use these sources, each for the tokens of its issuer."""
        self._sources = sources
        self._now = clock.monotonic
        self.look_at = inf

    async def verify(self, token: Signed) -> str:
        """The mark of the key that made the signature. Raises BadToken, KeysUnavailable."""
        mark = await chosen(self._sources, token).verify(token)
        self._look()
        return mark

    def review(self) -> None:
        """Review those that have something to do."""
        now = self._now()
        for source in self._sources.values():
            if now >= source.look_at:
                source.review()
        self._look()

    def _look(self) -> None:
        self.look_at = min(source.look_at for source in self._sources.values())


def chosen(sources: Mapping[str, S], token: Signed) -> S:
    """The source of the issuer a token names; what it names is believed when the signature has been verified."""
    issuer = parsed(token.payload).get("iss")
    source = sources.get(issuer) if isinstance(issuer, str) else None
    if source is None:
        raise BadToken("issuer")
    return source
