"""What may be a secret, and so is not written without being asked for."""

import re
from collections.abc import Mapping

_PUBLIC_PEM = re.compile(r"\s*-----BEGIN ((?:RSA )?PUBLIC KEY|CERTIFICATE)-----[A-Za-z0-9+/=\s]+-----END \1-----\s*")
_PUBLIC_TYPES = ("RSA", "EC", "OKP")
_PUBLIC_MEMBERS = frozenset(
    ("kty", "n", "e", "crv", "x", "y", "use", "key_ops", "alg", "kid", "x5u", "x5c", "x5t", "x5t#S256", "ext")
)
"""What public keys hold (RFC 7517 §4, RFC 7518 §6); all others may be parts of private ones."""


def is_public(given: object) -> bool:
    """Whether this is a public key beyond doubt: as PEM text, a JWK, or a set of these."""
    if isinstance(given, str):
        return _PUBLIC_PEM.fullmatch(given) is not None
    if not isinstance(given, Mapping):
        return False
    if given.keys() == {"keys"} and isinstance(given["keys"], list | tuple):
        return all(isinstance(each, Mapping) and _is_public_jwk(each) for each in given["keys"])
    return _is_public_jwk(given)


def _is_public_jwk(given: Mapping[object, object]) -> bool:
    return given.get("kty") in _PUBLIC_TYPES and _PUBLIC_MEMBERS.issuperset(given)
