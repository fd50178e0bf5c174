"""A client that proves that it holds a key (RFC 9449), honestly or not."""

import base64
import hashlib
import itertools
from typing import Any

from .issuer import NOW, as_json, ec_key, encoded, forged, jwk

_serial = itertools.count(1)


def thumbprint(key: Any) -> str:
    """The thumbprint of a key (RFC 7638), worked out apart from the code under test."""
    public = {name: value for name, value in jwk(key).items() if name in ("crv", "e", "kty", "n", "x", "y")}
    canonical = as_json(dict(sorted(public.items()))).replace(b", ", b",").replace(b": ", b":")
    return encoded(hashlib.sha256(canonical).digest()).decode()


def hash_of(token: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token).digest()).rstrip(b"=").decode()


def proof(token: bytes, *, key: Any = None, algorithm: str = "ES256", header: Any = None, **changed: Any) -> bytes:
    """A proof for ``GET http://testserver/``, some of its claims changed and none where None is given."""
    key = ec_key() if key is None else key
    honest = {
        "jti": f"proof {next(_serial)}",
        "htm": "GET",
        "htu": "http://testserver/",
        "iat": NOW,
        "ath": hash_of(token),
    }
    head = {"typ": "dpop+jwt", "alg": algorithm, "jwk": jwk(key), **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    claims = {name: value for name, value in {**honest, **changed}.items() if value is not None}
    return forged(head, claims, key, algorithm)
