"""How signatures with public keys are checked, by the names of the registry of RFC 9421 §6.2.2."""

from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from apim_middleware._signing.keys import Check

_RSA_BITS = range(2048, 8192 + 1)


def check_with(pem: bytes, algorithm: str) -> Check | None:
    """What checks signatures with this public key by this algorithm; None when it is no key for it."""
    try:
        return _CHECKS[algorithm](load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm):
        return None


def _verified(verify: Callable[..., Any], *given: Any) -> bool:  # noqa: ANN401 - what each kind of key takes
    try:
        verify(*given)
    except InvalidSignature:
        return False
    return True


def _ed25519(public: object) -> Check | None:
    if not isinstance(public, Ed25519PublicKey):
        return None
    return lambda signature, text: _verified(public.verify, signature, text)


def _ecdsa(curve: type[ec.EllipticCurve], digest: SHA256 | SHA384, size: int) -> Callable[[object], Check | None]:
    def check_of(public: object) -> Check | None:
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, curve):
            return None

        def check(signature: bytes, text: bytes) -> bool:
            if len(signature) != 2 * size:  # both numbers, one behind the other (RFC 9421 §3.3.4)
                return False
            numbers = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
            return _verified(public.verify, encode_dss_signature(*numbers), text, ec.ECDSA(digest))

        return check

    return check_of


def _rsa(scheme: padding.PSS | padding.PKCS1v15, digest: SHA256 | SHA512) -> Callable[[object], Check | None]:
    def check_of(public: object) -> Check | None:
        if not isinstance(public, RSAPublicKey) or public.key_size not in _RSA_BITS:
            return None
        return lambda signature, text: _verified(public.verify, signature, text, scheme, digest)

    return check_of


_CHECKS: dict[str, Callable[[object], Check | None]] = {
    "ed25519": _ed25519,
    "ecdsa-p256-sha256": _ecdsa(ec.SECP256R1, SHA256(), 32),
    "ecdsa-p384-sha384": _ecdsa(ec.SECP384R1, SHA384(), 48),
    "rsa-pss-sha512": _rsa(padding.PSS(padding.MGF1(SHA512()), 64), SHA512()),
    "rsa-v1_5-sha256": _rsa(padding.PKCS1v15(), SHA256()),
}
