"""Keys are bound to algorithms when they are read, so no token can have one used for another."""

import base64
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._jose.keys import BadKey, KeySet, keys_from_configuration, keys_from_jwks
from apim_middleware._jose.tokens import BadToken, take_apart
from apim_middleware.policies.jwt import _ALGORITHMS, _ASYMMETRIC

from .issuer import ALGORITHMS, SECRET, as_json, claims, ec_key, ed_key, encoded, forged, jwk, pem, rsa_key, token

SIGNERS: dict[str, Any] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), rsa_key()),
    "ES256": ec_key(),
    "ES384": ec_key(ec.SECP384R1),
    "ES512": ec_key(ec.SECP521R1),
    "ES256K": ec_key(ec.SECP256K1),
    "EdDSA": ed_key(),
}
OCT = {"kty": "oct", "k": encoded(SECRET).decode()}


def published(*keys: object, allowed: tuple[str, ...] = _ASYMMETRIC) -> KeySet:
    return keys_from_jwks(as_json({"keys": keys}), allowed)


def verifies(keys: KeySet, text: bytes) -> bool:
    try:
        keys.verify(take_apart(text))
    except BadToken:
        return False
    return True


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_each_algorithm_verifies_with_its_key(algorithm: str) -> None:
    signer = SIGNERS[algorithm]
    text = token(signer, algorithm)
    assert verifies(keys_from_configuration(pem(signer), _ALGORITHMS), text)
    assert verifies(keys_from_configuration(jwk(signer), _ALGORITHMS), text)
    assert verifies(published(jwk(signer), allowed=_ALGORITHMS), text)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_shared_secrets_verify_when_written_down(algorithm: str) -> None:
    text = token(SECRET, algorithm)
    for given_keys in (SECRET, OCT, {"keys": [OCT]}, (SECRET, OCT)):
        assert verifies(keys_from_configuration(given_keys, (algorithm,)), text)


@pytest.mark.parametrize("named", _ALGORITHMS)
@pytest.mark.parametrize("signer", SIGNERS)
def test_no_key_is_used_with_an_algorithm_of_another_kind(signer: str, named: str) -> None:
    """Every key is tried with every algorithm a token may name, all of them allowed: only what fits ever verifies."""
    keys = published(jwk(SIGNERS[signer]), allowed=_ALGORITHMS)
    text = forged({"alg": named}, claims(), SIGNERS[signer], signer)
    assert verifies(keys, text) is (named == signer)


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1, ec.SECP256K1])
@pytest.mark.parametrize("named", ["ES256", "ES384", "ES512", "ES256K"])
def test_a_curve_goes_with_its_algorithm_only(curve: type[ec.EllipticCurve], named: str) -> None:
    fits = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1, "ES256K": ec.SECP256K1}[named] is curve
    signed = encoded(as_json({"alg": named})) + b"." + encoded(as_json(claims()))
    hashing = ALGORITHMS[named]
    signature = type(hashing)(hashing.hash_alg).sign(signed, ec_key(curve))  # type: ignore[attr-defined,call-arg]
    text = signed + b"." + encoded(signature)
    assert verifies(published(jwk(ec_key(curve)), allowed=_ALGORITHMS), text) is fits


def public_forms() -> dict[str, bytes]:
    """What an attacker could take for the shared secret: every spelling of the public key."""
    public, text = rsa_key().public_key(), pem(rsa_key())
    return {
        "pem": text.encode(),
        "stripped": text.strip().encode(),
        "body": "".join(text.splitlines()[1:-1]).encode(),
        "crlf": text.replace("\n", "\r\n").encode(),
        "pkcs1": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(jwk(rsa_key())).encode(),
        "tight": json.dumps(jwk(rsa_key()), separators=(",", ":")).encode(),
        "n": base64.urlsafe_b64decode(jwk(rsa_key())["n"] + "=="),
        "empty": b"",
    }


@pytest.mark.parametrize("form", public_forms())
@pytest.mark.parametrize("allowed", [_ASYMMETRIC, _ALGORITHMS])
def test_a_public_key_is_never_a_shared_secret(form: str, allowed: tuple[str, ...]) -> None:
    signed = encoded(as_json({"alg": "HS256"})) + b"." + encoded(as_json(claims()))
    text = signed + b"." + encoded(hmac.digest(public_forms()[form], signed, "sha256"))
    for keys in (keys_from_configuration(pem(rsa_key()), allowed), published(jwk(rsa_key()), allowed=allowed)):
        assert not verifies(keys, text)


def signatures() -> dict[str, bytes]:
    """Signatures of ES256 that are none (the first is the one Java once believed)."""
    signed = b".".join(token(ec_key(), "ES256").split(b".")[:2])
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    der = ec_key().sign(signed, ec.ECDSA(hashes.SHA256()))
    good = ALGORITHMS["ES256"].sign(signed, ec_key())
    return {
        "zero": bytes(64),
        "order": order.to_bytes(32, "big") * 2,
        "zero-s": good[:32] + bytes(32),
        "zero-r": bytes(32) + good[32:],
        "ones": b"\xff" * 64,
        "der": der,
        "short": good[:-1],
        "long": good + b"\0",
        "one": b"\0",
        "huge": bytes(4000),
    }


@pytest.mark.parametrize("form", signatures())
def test_signatures_that_are_none_are_refused(form: str) -> None:
    head = b".".join(token(ec_key(), "ES256").split(b".")[:2])
    assert not verifies(published(jwk(ec_key())), head + b"." + encoded(signatures()[form]))


@given(st.sampled_from(["RS256", "PS256", "ES256", "EdDSA"]), st.binary(min_size=1, max_size=300))
def test_any_signature_is_judged_without_an_error(algorithm: str, signature: bytes) -> None:
    keys = published(*(jwk(key) for key in (rsa_key(), ec_key(), ed_key())))
    signed = encoded(as_json({"alg": algorithm})) + b"." + encoded(as_json(claims()))
    assert not verifies(keys, signed + b"." + encoded(signature))


RSA = jwk(rsa_key())


@pytest.mark.parametrize(
    "key",
    [
        OCT,
        {**OCT, "alg": "HS256", "use": "sig"},
        {**RSA, "use": "enc"},
        {**RSA, "use": 1},
        {**RSA, "key_ops": ["encrypt"]},
        {**RSA, "key_ops": "verify"},
        {**RSA, "alg": "RSA-OAEP"},
        {**RSA, "alg": "HS256"},
        {**RSA, "alg": "none"},
        {**RSA, "alg": ["RS256"]},
        {**RSA, "alg": "ES256"},
        {**RSA, "kid": 1},
        {**RSA, "kid": ["a"]},
        {**RSA, "kty": "rsa"},
        {**RSA, "kty": ["RSA"]},
        {**RSA, "kty": None},
        {**RSA, "kty": "EC"},
        {**RSA, "n": 5},
        {**RSA, "n": ""},
        {**RSA, "n": "!!"},
        {**RSA, "n": "ü"},
        {**RSA, "n": "A" * 100_000},
        {**RSA, "e": "AQAC"},
        {**RSA, "e": ""},
        {**RSA, "e": RSA["n"]},
        {**RSA, "d": "AQAB"},
        jwk(rsa_key("small", 1024)),
        {**jwk(ec_key()), "crv": "P-384"},
        {**jwk(ec_key()), "crv": "P-999"},
        {**jwk(ec_key()), "crv": ["P-256"]},
        {**jwk(ec_key()), "x": jwk(ec_key())["y"]},
        {**jwk(ec_key()), "x": "AA"},
        {**jwk(ed_key()), "crv": "X25519"},
        {**jwk(ed_key()), "x": "AA"},
        {"kty": "RSA"},
        {},
        [],
        None,
        "RSA",
        7,
    ],
)
def test_keys_of_the_network_that_cannot_be_used_are_passed_over(key: object) -> None:
    keys = published(key, jwk(rsa_key("two"), "good"))
    assert len(keys) == 1
    assert verifies(keys, token(rsa_key("two"), kid="good"))


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b"null", b'{"keys":{}}', b'{"keys":null}', b'{"keys":[],"keys":[]}', b"<html>", b"\xff",
     b"[" * 100_000, as_json({"keys": [RSA] * 101})],
)  # fmt: skip
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(BadKey):
        keys_from_jwks(document, _ASYMMETRIC)


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid", "key_ops"]),
        st.one_of(
            st.sampled_from(
                ["RSA", "EC", "OKP", "P-256", "Ed25519", "Ed448", "RS256", "ES256", "EdDSA", "sig", "AQAB"]
            ),
            st.text(max_size=50),
            st.none(),
            st.integers(),
            st.lists(st.text(max_size=3), max_size=2),
        ),
    )
)
def test_any_key_of_the_network_is_read_or_passed_over(key: dict[str, Any]) -> None:
    published(key)


def test_an_empty_key_set_is_one() -> None:
    assert len(published()) == 0
    assert not verifies(published(), token())


def test_a_token_that_names_its_key_is_tried_with_no_other() -> None:
    keys = published(jwk(rsa_key("one"), "one"), jwk(rsa_key("two"), "two"))
    assert verifies(keys, token(rsa_key("two"), kid="two"))
    assert not verifies(keys, token(rsa_key("two"), kid="one"))
    assert not verifies(keys, token(rsa_key("two"), kid="three"))


def test_a_token_that_names_no_key_is_tried_with_those_that_fit() -> None:
    keys = published(jwk(ec_key(), "ec"), jwk(rsa_key("one"), "one"), jwk(rsa_key("two"), "two"))
    assert verifies(keys, token(rsa_key("two")))


def test_a_key_without_an_id_answers_to_any() -> None:
    assert verifies(published(jwk(rsa_key())), token(kid="whatever"))
    assert verifies(keys_from_configuration(pem(rsa_key()), _ASYMMETRIC), token(kid="whatever"))


def test_a_bad_token_is_tried_with_a_few_keys_only() -> None:
    keys = published(*(jwk(rsa_key("one"), f"key-{number}") for number in range(8)), jwk(rsa_key("two"), "last"))
    assert verifies(keys, token(rsa_key("two"), kid="last"))
    assert not verifies(keys, token(rsa_key("two")))


def test_the_algorithm_of_a_key_narrows_its_use() -> None:
    keys = published({**RSA, "alg": "RS512"})
    assert verifies(keys, token(algorithm="RS512"))
    assert not verifies(keys, token(algorithm="RS256"))


def test_an_algorithm_that_is_not_allowed_verifies_nothing() -> None:
    assert not verifies(published(RSA, allowed=("PS256",)), token())


@pytest.mark.parametrize(
    "hostile",
    [
        "../../etc/passwd",
        "/dev/null",
        "https://evil.example/keys",
        "' OR 1=1 --",
        "a\0b",
        "a\r\nb",
        "x" * 8000,
        "__all__",
    ],
)
def test_a_key_id_is_compared_and_nothing_else(hostile: str) -> None:
    keys = published(jwk(rsa_key(), "one"))
    assert not verifies(keys, token(kid=hostile))
    assert verifies(published(jwk(rsa_key(), hostile)), token(kid=hostile))


@pytest.mark.parametrize("name", ["jwk", "x5c", "jku", "x5u"])
def test_keys_a_token_brings_along_mean_nothing(name: str) -> None:
    evil = {"jwk": jwk(rsa_key("evil")), "x5c": ["AAAA"], "jku": "https://evil.example", "x5u": "https://evil.example"}
    header = {"alg": "RS256", name: evil[name]}
    assert not verifies(published(RSA), forged(header, claims(), rsa_key("evil")))
    assert verifies(published(RSA), forged(header, claims()))


PRIVATE = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("given_keys", "allowed", "problem"),
    [
        ("", _ASYMMETRIC, "PEM"),
        ("secret", _ASYMMETRIC, "PEM"),
        (pem(rsa_key()) * 2, _ASYMMETRIC, "one PEM block"),
        (PRIVATE, _ASYMMETRIC, "public key"),
        (pem(rsa_key()).replace("MII", "XXX", 1), _ASYMMETRIC, "public key"),
        (pem(rsa_key("small", 1024)), _ASYMMETRIC, "1024 bits"),
        (pem(rsa_key()), ("ES256",), "none of the algorithms"),
        (pem(rsa_key()), ("HS256",), "none of the algorithms"),
        (b"short", ("HS256",), "too short"),
        (SECRET[:32], ("HS256", "HS512"), "too short for HS512"),
        (SECRET, _ASYMMETRIC, "no HS algorithm"),
        (pem(rsa_key()).encode(), ("HS256",), "looks like a public key"),
        (json.dumps(RSA).encode(), ("HS256",), "looks like a public key"),
        ({**RSA, "use": "enc"}, _ASYMMETRIC, "not meant to verify"),
        ({**RSA, "d": "AQAB"}, _ASYMMETRIC, "private"),
        ({"keys": [{**RSA, "d": "AQAB"}]}, _ASYMMETRIC, "private"),
        ({"keys": []}, _ASYMMETRIC, "no key"),
        ({"keys": "RSA"}, _ASYMMETRIC, "no list"),
        ({"keys": [{**RSA, "use": "enc"}]}, _ASYMMETRIC, "no key"),
        ({"kty": "oct"}, ("HS256",), "without its k"),
        ({"kty": "oct", "k": "A"}, ("HS256",), "base64url"),
        ({**OCT, "alg": "HS512"}, ("HS256",), "no HS algorithm"),
        ({**OCT, "alg": ["HS256"]}, ("HS256",), "no HS algorithm"),
        ({}, _ASYMMETRIC, "not a public key"),
        ((), _ASYMMETRIC, "no key"),
        ((pem(rsa_key()), "x"), _ASYMMETRIC, "PEM"),
        (7, _ASYMMETRIC, "is no key"),
    ],
)
def test_keys_written_down_wrongly_are_refused(given_keys: object, allowed: tuple[str, ...], problem: str) -> None:
    with pytest.raises(BadKey, match=problem) as caught:
        keys_from_configuration(given_keys, allowed)
    assert "MII" not in str(caught.value)


def test_several_keys_may_be_written_down() -> None:
    keys = keys_from_configuration((pem(rsa_key()), jwk(ec_key(), "ec"), {"keys": [jwk(ed_key(), "ed")]}), _ASYMMETRIC)
    assert len(keys) == 3
    assert verifies(keys, token())
    assert verifies(keys, token(ec_key(), "ES256", kid="ec"))
    assert verifies(keys, token(ed_key(), "EdDSA", kid="ed"))


def test_the_same_keys_are_the_same_in_any_order() -> None:
    one, two = jwk(rsa_key("one"), "one"), jwk(rsa_key("two"), "two")
    assert published(one, two).marks == published(two, one).marks
    assert published(one).marks != published(one, two).marks
    assert published(one).marks != published({**one, "kid": "two"}).marks
    assert published(one).marks != published({**one, "alg": "RS256"}).marks
