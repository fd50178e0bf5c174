"""Keys that verify tokens, each bound to the algorithms it may be used with (RFC 7517, RFC 8725 §3.1).

The algorithm a token names is looked up in the table of the key. That table was made when the key was read, and holds
only what fits the key's type, its curve, its own ``alg`` and the allow-list: no token can have a public key used as a
secret.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from apim_middleware._jose.tokens import BadToken, Signed, parsed

IMPLEMENTED = get_default_algorithms()

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_HMAC = {"HS256": 32, "HS384": 48, "HS512": 64}
_CURVES = {
    "P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "secp256k1": ("ES256K",),
    "Ed25519": ("EdDSA",), "Ed448": ("EdDSA",),
}  # fmt: skip
_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}

_RSA_BITS = range(2048, 8192 + 1)  # RFC 7518 §3.3; beyond, one signature costs the event loop milliseconds
_LARGEST_EXPONENT = 1 << 64
_LONGEST_MEMBER = 2048
_MOST_KEYS = 100
_MOST_TRIED = 8


class BadKey(ValueError):
    """This key cannot be used, and why; the text holds nothing of the key."""


class Key(NamedTuple):
    """A key and the algorithms it verifies with; ``mark`` tells it from any other."""

    kid: str | None
    material: Any
    algorithms: Mapping[str, Algorithm]
    mark: str


class KeySet:
    """Keys by their ids."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Index the keys."""
        self._all = tuple(keys)
        self._nameless = [key for key in self._all if key.kid is None]
        self._named: dict[str, list[Key]] = {}
        for key in self._all:
            if key.kid is not None:
                self._named.setdefault(key.kid, []).append(key)
        self.marks = frozenset(key.mark for key in self._all)
        """What tells these keys from any other, each for its use."""

    def __len__(self) -> int:
        """How many keys can be used."""
        return len(self._all)

    def knows(self, kid: str | None) -> bool:
        """Whether a key has this id; the id is compared, never followed."""
        return kid in self._named

    def verify(self, token: Signed) -> str:
        """The mark of the key that made the signature. Raises BadToken.

        A key named by the token is the only one asked. A token that names none is tried with a few keys, and one that
        names an unknown key with a few of those that have no id.
        """
        named = self._named.get(token.kid) if token.kid is not None else self._all
        fitting = [key for key in named or self._nameless if token.algorithm in key.algorithms]
        for key in fitting[:_MOST_TRIED]:
            if key.algorithms[token.algorithm].verify(token.signed, key.material, token.signature):
                return key.mark
        raise BadToken("signature" if fitting else "key-unknown", token.kid or "")


def keys_from_jwks(document: bytes, allowed: Collection[str]) -> KeySet:
    """The usable keys of a key set that came over the network. Raises BadKey when it is none.

    Passed over: shared secrets, private keys, keys for encryption, whatever else cannot verify an allowed algorithm.
    """
    try:
        listed = parsed(document).get("keys")
    except BadToken:
        raise BadKey("the key set is not a JSON object") from None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise BadKey(f"the key set has no list of at most {_MOST_KEYS} keys")
    return KeySet(_usable(listed, allowed))


def _usable(listed: Iterable[Any], allowed: Collection[str]) -> list[Key]:
    found = []
    for jwk in listed:
        try:
            found.append(_from_public_jwk(jwk, allowed))
        except BadKey:
            continue
    return found


def key_brought_along(jwk: object, allowed: Collection[str]) -> Key:
    """The public key in the header of a proof, which says nothing about whose it is. Raises BadKey."""
    return _from_public_jwk(jwk, allowed)


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """The SHA-256 thumbprint of a public key (RFC 7638), for a JWK that could be read as a key."""
    members = {name: jwk[name] for name in (*_PUBLIC_MEMBERS[jwk["kty"]], "kty")}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def keys_from_configuration(given: object, allowed: Collection[str]) -> KeySet:
    """Keys a user wrote down: PEM text, a secret, a JWK, a JWK set, or several of these. Raises BadKey."""
    several = given if isinstance(given, tuple) else (given,)
    keys = KeySet(key for each in several for key in _configured(each, allowed))
    if not len(keys):
        raise BadKey("has no key that can verify one of the algorithms")
    return keys


def _configured(given: object, allowed: Collection[str]) -> list[Key]:
    if isinstance(given, str):
        return [_from_pem(given, allowed)]
    if isinstance(given, bytes):
        return [_from_secret(given, None, allowed)]
    if not isinstance(given, Mapping):
        raise BadKey("is no key")
    listed = given.get("keys")
    if listed is None:
        return [_from_jwk(given, allowed)]
    if not isinstance(listed, list | tuple):
        raise BadKey("has no list of keys")
    if any("d" in jwk for jwk in listed if isinstance(jwk, Mapping)):
        raise BadKey("holds a private key, which has no business here")
    secrets = [_from_jwk(jwk, allowed) for jwk in listed if isinstance(jwk, Mapping) and jwk.get("kty") == "oct"]
    return secrets + _usable(listed, allowed)


def _from_jwk(jwk: Mapping[str, Any], allowed: Collection[str]) -> Key:
    if jwk.get("kty") != "oct":
        return _from_public_jwk(jwk, allowed)
    kid, secret = _kid_for_verifying(jwk), jwk.get("k")
    if not isinstance(secret, str):
        raise BadKey("is a shared secret without its k")
    try:
        raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    except ValueError:
        raise BadKey("is a shared secret whose k is not base64url") from None
    return _from_secret(raw, kid, [name for name in allowed if jwk.get("alg", name) == name])


def _from_secret(secret: bytes, kid: str | None, allowed: Collection[str]) -> Key:
    """A shared secret, as long as RFC 7518 §3.2 asks."""
    names = [name for name in _HMAC if name in allowed]
    if not names:
        raise BadKey("is a shared secret, and no HS algorithm is allowed")
    if len(secret) < _HMAC[names[-1]]:
        raise BadKey(f"is a shared secret too short for {names[-1]}")
    try:
        material = IMPLEMENTED[names[0]].prepare_key(secret)
    except PyJWTError:
        raise BadKey("is given as a shared secret and looks like a public key") from None
    return Key(kid, material, _bound(names, allowed), hashlib.sha256(secret).hexdigest())


def _from_pem(text: str, allowed: Collection[str]) -> Key:
    if text.count("-----BEGIN ") != 1:
        raise BadKey("is not one PEM block")
    try:
        material = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("is not the PEM text of a public key") from None
    return Key(None, material, _bound(_names_for(material), allowed), text)


def _from_public_jwk(jwk: object, allowed: Collection[str]) -> Key:
    """A public key as a JWK (RFC 7517 §4, RFC 7518 §6). Raises BadKey."""
    kty = jwk.get("kty") if isinstance(jwk, Mapping) else None
    if not isinstance(jwk, Mapping) or not isinstance(kty, str) or kty not in _PUBLIC_MEMBERS:
        raise BadKey("is not a public key")
    if "d" in jwk:
        raise BadKey("is a private key: anybody who reads it can sign")
    kid = _kid_for_verifying(jwk)
    public = {name: jwk.get(name) for name in _PUBLIC_MEMBERS[kty]}
    if not all(isinstance(value, str) and len(value) <= _LONGEST_MEMBER for value in public.values()):
        raise BadKey("lacks what a public key is made of")
    names = _RSA if kty == "RSA" else _CURVES.get(jwk["crv"], ())
    algorithms = _bound([name for name in names if jwk.get("alg", name) == name], allowed)
    try:
        material = next(iter(algorithms.values())).from_jwk({"kty": kty, **public})
    except (PyJWTError, ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        raise BadKey("is not a valid public key") from None
    _check_size(material)
    return Key(kid, material, algorithms, json.dumps([kid, kty, public, sorted(algorithms)]))


def _kid_for_verifying(jwk: Mapping[str, Any]) -> str | None:
    """The id of a key that is meant to verify signatures (RFC 7517 §4.2, §4.3, §4.5). Raises BadKey."""
    kid, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list | tuple) or "verify" not in operations:
        raise BadKey("is not meant to verify signatures")
    if not isinstance(kid, str | None):
        raise BadKey("has an id that is no text")
    return kid


def _names_for(material: object) -> Iterable[str]:
    if isinstance(material, RSAPublicKey):
        _check_size(material)
        return _RSA
    if isinstance(material, EllipticCurvePublicKey):
        return _CURVES.get(_CURVE_NAMES.get(material.curve.name, ""), ())
    return _CURVES["Ed25519"] if isinstance(material, Ed25519PublicKey | Ed448PublicKey) else ()


def _check_size(material: object) -> None:
    if isinstance(material, RSAPublicKey) and (
        material.key_size not in _RSA_BITS or material.public_numbers().e > _LARGEST_EXPONENT
    ):
        raise BadKey(f"is an RSA key of {material.key_size} bits, or of an odd exponent")


def _bound(names: Iterable[str], allowed: Collection[str]) -> dict[str, Algorithm]:
    """The algorithms among these names that are allowed and implemented. Raises BadKey when there are none."""
    bound = {name: IMPLEMENTED[name] for name in names if name in allowed and name in IMPLEMENTED}
    if not bound:
        raise BadKey("fits none of the algorithms")
    return bound
