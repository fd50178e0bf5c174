"""Signed statements of our own, such as what a client authenticates itself with (RFC 7523)."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from jwt.exceptions import PyJWTError

from apim_middleware._jose.keys import IMPLEMENTED, BadKey

SIGNING = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class Signer:
    """Signs claims with a private key."""

    def __init__(self, key: str | Mapping[str, Any], algorithm: str, kid: str | None = None) -> None:
        """Use the PEM text of a private key, or a JWK. Raises BadKey."""
        self._algorithm = IMPLEMENTED[algorithm]
        try:
            self._key = (
                self._algorithm.prepare_key(key) if isinstance(key, str) else self._algorithm.from_jwk(dict(key))
            )
            self._algorithm.sign(b"", self._key)
        except (PyJWTError, ValueError, TypeError, AttributeError):
            raise BadKey(f"is no private key that signs {algorithm}") from None
        given = key.get("kid") if isinstance(key, Mapping) else None
        self._header = {"typ": "JWT", "alg": algorithm, **({"kid": kid or given} if kid or given else {})}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token in compact form (RFC 7515 §7.1)."""
        signed = _encoded(json.dumps(self._header).encode()) + b"." + _encoded(json.dumps(dict(claims)).encode())
        return (signed + b"." + _encoded(self._algorithm.sign(signed, self._key))).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
