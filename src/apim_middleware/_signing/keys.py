"""Keys of those who sign messages, each for one algorithm of RFC 9421 §3.3: what a message names is never looked up."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from apim_middleware._config import Configured
from apim_middleware.identity import Principal

SignatureAlgorithm: TypeAlias = Literal[
    "ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512", "rsa-v1_5-sha256", "hmac-sha256"
]
"""How messages are signed, by the names of the registry of RFC 9421 §6.2.2."""

ISSUER = "urn:apim-middleware:http-signature"
"""The issuer of principals who are known by their key."""

_SHORTEST_SECRET = 32

Check: TypeAlias = Callable[[bytes, bytes], bool]
"""Whether a signature is one of this text."""


@dataclass(frozen=True, kw_only=True)
class SignatureKey(Configured):
    """The key of somebody who signs messages, and who that is."""

    id: str
    """The ``keyid`` that signatures name it by."""

    key: str | bytes = field(repr=False)
    """The PEM text of a public key, or for ``hmac-sha256`` a secret of at least 32 bytes."""

    algorithm: SignatureAlgorithm
    """The one algorithm it is used with, whatever ``alg`` a signature names."""

    subject: str = ""
    """Whose key it is; the ``id`` when not given."""

    scopes: frozenset[str] = frozenset()
    """What its owner may do, for ``Authorize`` and the app."""

    def __post_init__(self) -> None:
        """The id must be one, and the key fit its algorithm."""
        if not (self.id and self.id.isascii() and self.id.isprintable()):
            raise self.mistake("id", "is no key id", "Give printable ASCII")
        _ = self._check  # which finds out whether the key is one

    def matches(self, signature: bytes, text: bytes) -> bool:
        """Whether this is a signature of the text with this key."""
        return self._check(signature, text)

    @property
    def principal(self) -> Principal:
        """Who signs with it."""
        return Principal(subject=self.subject or self.id, issuer=ISSUER, scopes=self.scopes)

    @cached_property
    def _check(self) -> Check:
        if self.algorithm == "hmac-sha256":
            return self._check_of_secret()
        from apim_middleware._signing.algorithms import check_with  # which loads a large library, for who needs it

        check = check_with(self.key.encode() if isinstance(self.key, str) else self.key, self.algorithm)
        if check is None:
            cure = "Give the PEM text of a public key of the right type, curve and size (RSA: 2048 to 8192 bits)"
            raise self.mistake("key", f"is no key for {self.algorithm}", cure)
        return check

    def _check_of_secret(self) -> Check:
        secret = self.key
        if not isinstance(secret, bytes) or len(secret) < _SHORTEST_SECRET:
            raise self.mistake("key", "is no secret of at least 32 bytes", "Give bytes, as secrets.token_bytes(32)")

        def check(signature: bytes, text: bytes) -> bool:
            return hmac.compare_digest(hmac.digest(secret, text, "sha256"), signature)

        return check


KeySource: TypeAlias = (
    SignatureKey | tuple[SignatureKey, ...] | Callable[[str], SignatureKey | Awaitable[SignatureKey | None] | None]
)
"""One key or several, or a function that finds the key of an id.

It may be async, gives None for an unknown id, and raises StoreError.
"""
