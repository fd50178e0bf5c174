"""Encrypted tokens (RFC 7516): a signed token inside one that only the audience can read (RFC 7519 §5.2)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from joserfc import jwe
from joserfc.jwk import ECKey, JWKRegistry, OctKey, OKPKey, RSAKey

from apim_middleware._jose.tokens import BadToken, decoded, parsed

_ECDH = ("ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW")
_FITTING = {
    "RSA": ("RSA-OAEP", "RSA-OAEP-256"),
    "EC": _ECDH,
    "OKP": _ECDH,
    "oct": ("dir", "A128KW", "A192KW", "A256KW", "A128GCMKW", "A192GCMKW", "A256GCMKW"),
}
"""The key management each type of key can do. RSA1_5 is none: what it tells an attacker decrypts tokens."""
_CONTENT = ("A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512", "A128GCM", "A192GCM", "A256GCM")
_SMALLEST_RSA = 2048
_MOST_TRIED = 4  # each costs a millisecond, whoever made the token


class BadDecryptionKey(ValueError):
    """This key decrypts nothing, and why; the text holds nothing of the key."""


class _Key(NamedTuple):
    kid: str | None
    material: Any
    algorithms: tuple[str, ...]


class Decryption:
    """Decrypts tokens with the keys of their audience."""

    def __init__(self, keys: object) -> None:
        """Read PEM text of a private key, a JWK as a dict, a secret as bytes, or several. Raises BadDecryptionKey."""
        self._keys = [_read(each) for each in (keys if isinstance(keys, tuple) else (keys,))]

    def __call__(self, token: bytes) -> bytes:
        """The signed token inside. Raises BadToken."""
        header = parsed(decoded(token.partition(b".")[0]))
        algorithm, content, kid = header.get("alg"), header.get("enc"), header.get("kid")
        if content not in _CONTENT or "crit" in header or header.get("zip", "DEF") != "DEF":
            raise BadToken("encrypted", "header")
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        named = [key for key in fitting if key.kid is not None and key.kid == kid]
        for key in (named or fitting)[:_MOST_TRIED]:
            try:
                allowed = [str(algorithm), str(content), "DEF"]
                return bytes(jwe.decrypt_compact(token, key.material, algorithms=allowed).plaintext or b"")
            except Exception:  # noqa: S112 - whatever was wrong: another key may fit, or the token is bad
                continue
        raise BadToken("encrypted", "key")


def _read(given: object) -> _Key:
    try:
        key = _imported(given)
    except BadDecryptionKey:
        raise
    except Exception:
        raise BadDecryptionKey("is no private key that can be read") from None
    if not key.is_private:
        raise BadDecryptionKey("is a public key, which decrypts nothing")
    if isinstance(key, RSAKey) and key.raw_value.key_size < _SMALLEST_RSA:
        raise BadDecryptionKey("is an RSA key of too few bits")
    return _Key(key.get("kid"), key, _FITTING[key.key_type])


def _imported(given: object) -> Any:  # noqa: ANN401 - one of the library's keys
    if isinstance(given, Mapping):
        return JWKRegistry.import_key(dict(given))
    if isinstance(given, bytes):
        return OctKey.import_key(given)
    if not isinstance(given, str):
        raise BadDecryptionKey("is no key")
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            return kind.import_key(given)
        except Exception:  # noqa: S112 - of another type
            continue
    raise BadDecryptionKey("is not the PEM text of a private key")
