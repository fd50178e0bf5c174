"""Tokens only their owner may use: bound to a key, with a proof for each request, or to a client certificate."""

import base64
import hashlib
import logging
import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from tests.jose.issuer import (
    AUDIENCE,
    ISSUER,
    NOW,
    SECRET,
    as_json,
    claims,
    ec_key,
    ed_key,
    forged,
    jwk,
    rsa_key,
    token,
)
from tests.jose.prover import proof, thumbprint

from apim_middleware._http import client_certificate
from apim_middleware._jose.proofs import DPoP
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.policies.client import TrustedProxies
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policy import Stack
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.replays import MemoryReplays
from apim_middleware.testing import Answer, FakeClock, call, connect
from apim_middleware.types import Receive, Scope, Send

from .bearing import KEY, House, code

pytestmark = pytest.mark.anyio


def bound(key: Any = None, **changed: Any) -> bytes:
    """A token bound to a key."""
    return token(kid="one", cnf={"jkt": thumbprint(ec_key() if key is None else key)}, **changed)


async def present(house: House, text: bytes, *proofs: bytes, scheme: bytes = b"DPoP", **more: Any) -> Answer:
    headers = [(b"authorization", scheme + b" " + text), *((b"dpop", each) for each in proofs)]
    return await call(house.app, headers=[*headers, *more.pop("headers", [])], **more)


@pytest.fixture(params=["static", "remote"])
def house(request: pytest.FixtureRequest) -> House:
    return House(remote=request.param == "remote", dpop=DPoP())


# Proofs


async def test_who_proves_to_hold_the_key_comes_in_again_and_again(house: House) -> None:
    text = bound()
    for _ in range(3):
        assert (await present(house, text, proof(text))).status == 200
    assert house.principal.subject == "ada"


@pytest.mark.parametrize(("key", "algorithm"), [(rsa_key("p"), "RS256"), (rsa_key("p"), "PS256"), (ed_key(), "EdDSA")])
async def test_every_kind_of_key_can_prove(house: House, key: Any, algorithm: str) -> None:
    text = bound(key)
    assert (await present(house, text, proof(text, key=key, algorithm=algorithm))).status == 200


TEXT = bound()
OTHER = ec_key(ec.SECP384R1)


BAD_PROOFS: dict[str, bytes] = {
    "empty": b"",
    "junk": b"x",
    "the token": TEXT,
    "typ missing": proof(TEXT, header={"typ": None}),
    "typ jwt": proof(TEXT, header={"typ": "JWT"}),
    "alg none": proof(TEXT, header={"alg": "none"}),
    "alg of another": proof(TEXT, header={"alg": "ES384"}),
    "alg shared": forged({"typ": "dpop+jwt", "alg": "HS256", "jwk": jwk(ec_key())}, {}, SECRET, "HS256"),
    "crit": proof(TEXT, header={"crit": ["exp"]}),
    "jwk missing": proof(TEXT, header={"jwk": None}),
    "jwk text": proof(TEXT, header={"jwk": "x"}),
    "jwk private": proof(TEXT, header={"jwk": {**jwk(ec_key()), "d": "AAAA"}}),
    "jwk shared": proof(TEXT, header={"jwk": {"kty": "oct", "k": "AAAA"}}),
    "jwk of another": proof(TEXT, header={"jwk": jwk(OTHER)}),
    "jwk off the curve": proof(TEXT, header={"jwk": {**jwk(ec_key()), "y": jwk(ec_key())["x"]}}),
    "jwk weak": proof(TEXT, key=rsa_key("weak", 1024), algorithm="RS256"),
    "key of another": proof(TEXT, key=OTHER, algorithm="ES384"),
    "jti missing": proof(TEXT, jti=None),
    "jti empty": proof(TEXT, jti=""),
    "jti number": proof(TEXT, jti=7),
    "htm missing": proof(TEXT, htm=None),
    "htm other": proof(TEXT, htm="POST"),
    "htm small": proof(TEXT, htm="get"),
    "htu missing": proof(TEXT, htu=None),
    "htu scheme": proof(TEXT, htu="https://testserver/"),
    "htu host": proof(TEXT, htu="http://evil.example/"),
    "htu port": proof(TEXT, htu="http://testserver:8080/"),
    "htu path": proof(TEXT, htu="http://testserver/x"),
    "htu user": proof(TEXT, htu="http://u@testserver/"),
    "htu list": proof(TEXT, htu=["http://testserver/"]),
    "htu broken": proof(TEXT, htu="http://[::1/"),
    "iat missing": proof(TEXT, iat=None),
    "iat text": proof(TEXT, iat=str(NOW)),
    "iat old": proof(TEXT, iat=NOW - 61),
    "iat future": proof(TEXT, iat=NOW + 6),
    "ath missing": proof(TEXT, ath=None),
    "ath of another": proof(bound(jti="other")),
    "ath of nothing": proof(b""),
    "cut": proof(TEXT)[:-4],
    "zero": proof(TEXT).rsplit(b".", 1)[0] + b"." + base64.urlsafe_b64encode(bytes(64)).rstrip(b"="),
    "long": proof(TEXT, pad="x" * 9000),
    "jti twice": forged(
        {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(ec_key())}, b'{"jti":"a","jti":"b"}', ec_key(), "ES256"
    ),
}


@pytest.mark.parametrize("name", [name for name in BAD_PROOFS if name != "long"])
async def test_a_bad_proof_lets_nobody_in(house: House, name: str) -> None:
    answer = await present(house, TEXT, BAD_PROOFS[name])
    assert (answer.status, code(answer)) == (401, "dpop-proof-invalid")
    [challenge] = answer.all(b"www-authenticate")
    assert challenge.startswith(b'DPoP realm="api", algs="ES256 ')
    assert b'error="invalid_dpop_proof"' in challenge
    assert house.seen == []


async def test_a_long_proof_lets_nobody_in(house: House) -> None:
    assert (await present(house, TEXT, BAD_PROOFS["long"])).status in (401, 431)


async def test_a_proof_counts_once(house: House) -> None:
    text = bound()
    once = proof(text)
    assert [(await present(house, text, once)).status for _ in range(3)] == [200, 401, 401]
    house.clock.advance(66)
    assert (await present(house, text, once)).status == 401  # too old by now


async def test_exactly_one_proof_is_sent(house: House) -> None:
    text = bound()
    assert (await present(house, text)).status == 401
    assert (await present(house, text, proof(text), proof(text))).status == 401
    both = proof(text) + b", " + proof(text)
    assert (await present(house, text, both)).status == 401


async def test_a_stolen_token_is_of_no_use_without_its_key(house: House) -> None:
    text = bound()
    assert (await present(house, text, proof(text))).status == 200
    assert code(await present(house, text, scheme=b"Bearer")) == "token-invalid"
    assert code(await present(house, text, proof(text), scheme=b"Bearer")) == "token-invalid"
    assert code(await present(house, text, proof(text, key=OTHER, algorithm="ES384"))) == "dpop-proof-invalid"


async def test_a_token_bound_to_nothing_is_no_dpop_token(house: House) -> None:
    free = token(kid="one")
    for _ in range(2):
        assert (await present(house, free, scheme=b"Bearer")).status == 200
        assert code(await present(house, free, proof(free))) == "token-invalid"


async def test_tokens_bound_to_nothing_are_refused_where_proofs_are_required() -> None:
    house = House(dpop=DPoP(required=True))
    free = token(kid="one")
    answer = await present(house, free, scheme=b"Bearer")
    assert code(answer) == "token-invalid"
    assert [each.split(b" ")[0] for each in answer.all(b"www-authenticate")] == [b"DPoP"]
    text = bound()
    assert (await present(house, text, proof(text))).status == 200


@pytest.mark.parametrize("remote", [False, True])
async def test_where_proofs_are_required_a_token_bound_to_nothing_is_refused_every_time(remote: bool) -> None:
    """It was remembered when its signature had been verified, and came in from then on."""
    house = House(remote=remote, dpop=DPoP(required=True))
    free = token(kid="one")
    for _ in range(3):
        assert (await present(house, free, scheme=b"Bearer")).status == 401
    assert house.seen == []


async def test_where_no_proofs_are_understood_a_bound_token_is_refused() -> None:
    for house in (House(), House(remote=True)):
        text = bound()
        for scheme in (b"Bearer", b"DPoP"):
            for _ in range(2):
                assert (await present(house, text, proof(text), scheme=scheme)).status == 401
        assert house.seen == []


async def test_both_schemes_are_offered(house: House) -> None:
    answer = await house.ask()
    assert [each.split(b" ")[0] for each in answer.all(b"www-authenticate")] == [b"Bearer", b"DPoP"]


@pytest.mark.parametrize("scheme", [b"dpop", b"DPOP", b"DPoP  "])
async def test_the_scheme_is_read_without_case(house: House, scheme: bytes) -> None:
    text = bound()
    assert (await present(house, text, proof(text), scheme=scheme)).status == 200


@pytest.mark.parametrize(
    "htu",
    ["http://testserver/a%20b", "HTTP://TESTSERVER:80/a%20b?x=1#y", "http://testserver//a%20b"],
)
async def test_the_url_is_compared_in_one_spelling(house: House, htu: str) -> None:
    text = bound()
    answer = await present(house, text, proof(text, htu=htu), path="/a b", query=b"q=1")
    assert answer.status == 200


async def test_the_url_is_that_which_trusted_proxies_tell() -> None:
    house = House(dpop=DPoP())
    house.app = Stack(TrustedProxies(trusted=("203.0.113.7",), also=("scheme", "host")), house.policy, env=house.env)(
        house.inner
    )
    forwarded = [
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"a.example"),
    ]
    text = bound()
    outside = proof(text, htu="https://a.example/")
    assert (await present(house, text, outside, headers=forwarded)).status == 200
    assert (await present(house, text, proof(text), headers=forwarded)).status == 401


@pytest.mark.parametrize("htu", [None, "not a url", "http:///", "http://testserver/"])
async def test_a_request_that_names_no_host_is_one_no_proof_can_be_for(house: House, htu: str | None) -> None:
    async def hostless(scope: Scope, receive: Receive, send: Send) -> None:
        lines = [each for each in scope["headers"] if each[0] != b"host"]
        await guarded({**scope, "http_version": "1.0", "headers": lines}, receive, send)

    guarded, house.app = house.app, hostless
    text = bound()
    assert (await present(house, text, proof(text, htu=htu))).status == 401
    assert house.seen == []


async def test_an_origin_can_be_named() -> None:
    house = House(dpop=DPoP(origin="https://api.example.com"))
    text = bound()
    good = proof(text, htu="https://api.example.com/")
    assert (await present(house, text, good, headers=[(b"host", b"inside")])).status == 200
    assert (await present(house, text, proof(text))).status == 401


async def test_a_websocket_is_proved_as_the_get_it_is() -> None:
    house = House(dpop=DPoP())
    text = bound()
    headers = [(b"authorization", b"DPoP " + text), (b"dpop", proof(text))]
    assert (await connect(house.app, headers=headers)).status == 101
    assert (await connect(house.app, headers=headers)).status == 401


# Nonces


async def test_a_proof_holds_the_nonce_it_was_given() -> None:
    """RFC 9449 §9."""
    house = House(dpop=DPoP(nonce_key=bytes(32), nonce_life=100))
    text = bound()
    first = await present(house, text, proof(text))
    assert (first.status, code(first)) == (401, "dpop-nonce-required")
    assert b'error="use_dpop_nonce"' in first.all(b"www-authenticate")[0]
    nonce = (first.header(b"dpop-nonce") or b"").decode()
    assert (await present(house, text, proof(text, nonce=nonce))).status == 200
    house.clock.advance(60)
    assert (await present(house, text, proof(text, nonce=nonce, iat=NOW + 60))).status == 200
    house.clock.advance(50)
    late = await present(house, text, proof(text, nonce=nonce, iat=NOW + 110))
    assert code(late) == "dpop-nonce-required"
    for wrong in (nonce[:-2] + "AA", "A" * 32, "", 7, nonce.upper(), "é" * 32):
        assert code(await present(house, text, proof(text, nonce=wrong, iat=NOW + 110))) == "dpop-nonce-required"


async def test_a_nonce_of_another_secret_is_none() -> None:
    one, two = (House(dpop=DPoP(nonce_key=bytes([number]) * 32)) for number in (1, 2))
    text = bound()
    nonce = ((await present(one, text, proof(text))).header(b"dpop-nonce") or b"").decode()
    assert (await present(two, text, proof(text, nonce=nonce))).status == 401
    assert (await present(one, text, proof(text, nonce=nonce))).status == 200


# Memory of proofs


async def test_the_memory_of_proofs_is_bounded_and_forgets_in_time() -> None:
    clock = FakeClock()
    replays = MemoryReplays(3, clock)
    assert [await replays.add(bytes([number]), b"", 60) for number in range(3)] == [True] * 3
    with pytest.raises(StoreError):
        await replays.add(b"x", b"", 60)
    assert not await replays.add(b"\0", b"", 60)
    clock.advance(60)
    assert await replays.add(b"x", b"", 60)
    assert await replays.add(b"\0", b"", 60)
    assert len(replays) <= 3


async def test_what_lives_long_keeps_nothing_that_is_past() -> None:
    """The oldest two alone were looked at, so behind one that lives for a day the room stayed full for a day."""
    clock = FakeClock()
    replays = MemoryReplays(1000, clock)
    assert await replays.add(b"long", b"", 86_400)
    assert all([await replays.add(b"%d" % number, b"", 60) for number in range(999)])
    clock.advance(60)
    assert all([await replays.add(b"later %d" % number, b"", 60) for number in range(999)])
    assert not await replays.add(b"long", b"", 86_400)
    assert len(replays._ends) == len(replays) == 1000


async def test_what_is_past_takes_nobodys_share() -> None:
    clock = FakeClock()
    replays = MemoryReplays(1000, clock)
    assert all([await replays.add(b"long %d" % number, b"", 600) for number in range(400)])
    assert all([await replays.add(b"%d" % number, b"me", 60) for number in range(300)])
    assert all([await replays.add(b"more %d" % number, b"", 600) for number in range(300)])
    clock.advance(60)
    assert await replays.add(b"anew", b"me", 60)
    assert await replays.add(b"0", b"me", 60)


async def test_nobody_takes_the_room_of_all_others() -> None:
    """One caller filled the memory of proofs, and everybody else was refused."""
    clock = FakeClock()
    replays = MemoryReplays(100, clock)

    async def taken(who: bytes) -> int:
        for number in range(100):
            try:
                assert await replays.add(who + number.to_bytes(), who, 60)
            except StoreError:
                return number
        return 100

    assert [await taken(who) for who in (b"eve", b"mallory", b"bob")] == [50, 25, 13]
    clock.advance(60)
    assert all([await replays.add(b"later %d" % number, b"ada", 60) for number in range(30)])
    assert set(replays._held) <= {b"eve", b"mallory", b"bob", b"ada"}
    assert sum(replays._held.values()) == len(replays)


async def test_one_caller_does_not_keep_out_the_others(caplog: pytest.LogCaptureFixture) -> None:
    house = House(dpop=DPoP(max_remembered=4))
    text, other = bound(), bound(key=OTHER)
    assert [(await present(house, text, proof(text))).status for _ in range(4)] == [200, 200, 503, 503]
    assert (await present(house, other, proof(other, key=OTHER, algorithm="ES384"))).status == 200
    assert not caplog.records


@pytest.mark.parametrize("replays", [None, MemoryEntries])
async def test_a_proof_counts_once_up_to_the_last_moment_it_is_good_for(replays: Any) -> None:
    """In that moment it was good still, and forgotten already."""
    clock = FakeClock(NOW)
    house = House(dpop=DPoP(replays=None if replays is None else replays(clock=clock)))
    text = bound()
    once = proof(text, iat=NOW + 5)
    assert (await present(house, text, once)).status == 200
    for each in (house.clock, clock):
        each.advance(65)
    assert (await present(house, text, once)).status == 401
    assert (await present(house, text, proof(text, iat=NOW + 5, jti="other"))).status == 200


async def test_when_no_more_proofs_can_be_remembered_nobody_comes_in() -> None:
    house = House(dpop=DPoP(max_remembered=1))
    text = bound()
    assert (await present(house, text, proof(text))).status == 200
    answer = await present(house, text, proof(text))
    assert (answer.status, code(answer), answer.header(b"retry-after")) == (503, "proofs-unavailable", b"1")


async def test_while_no_proofs_can_be_remembered_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    class Replays:
        away = True

        async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
            if self.away:
                raise StoreError("gone")
            return True

    replays = Replays()
    house, text = House(dpop=DPoP(replays=replays)), bound()
    assert [(await present(house, text, proof(text))).status for _ in range(3)] == [503] * 3
    replays.away = False
    assert [(await present(house, text, proof(text))).status for _ in range(3)] == [200] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_processes_that_share_their_memory_of_proofs_let_in_once() -> None:
    replays = MemoryEntries(clock=FakeClock(NOW))
    houses = [House(dpop=DPoP(replays=replays)) for _ in range(2)]
    text = bound()
    once = proof(text)
    assert [(await present(house, text, once)).status for house in houses] == [200, 401]


async def test_when_the_shared_memory_is_down_nobody_comes_in() -> None:
    class Broken:
        async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
            await anyio.lowlevel.checkpoint()
            raise StoreError("gone")

    house = House(dpop=DPoP(replays=Broken()))
    text = bound()
    assert code(await present(house, text, proof(text))) == "proofs-unavailable"


async def test_a_bound_token_is_forgotten_when_it_expires_and_when_its_key_goes() -> None:
    house = House(remote=True, dpop=DPoP(), jwks_refresh=60)
    text = bound(exp=NOW + 100)
    assert (await present(house, text, proof(text))).status == 200
    house.clock.advance(100)
    assert (await present(house, text, proof(text, iat=NOW + 100))).status == 401
    longer = bound(exp=NOW + 100_000)
    assert (await present(house, longer, proof(longer, iat=NOW + 100))).status == 200
    house.issuer.keys = [jwk(rsa_key("two"), "two")]
    house.clock.advance(60)
    await house.renewed(b"x.y.z")
    assert (await present(house, longer, proof(longer, iat=NOW + 160))).status == 401


async def test_nothing_of_a_token_or_proof_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "apim_middleware")
    house = House(dpop=DPoP(nonce_key=b"n" * 32))
    for name, text in BAD_PROOFS.items():
        answer = await present(house, TEXT, text)
        assert TEXT[:40] not in answer.body, name
    for record in caplog.records:
        line = record.getMessage()
        assert line.isprintable()
        assert TEXT.decode()[:40] not in line
        assert "nnnnnnnn" not in line


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("algorithms", {"algorithms": ()}),
        ("algorithms", {"algorithms": ""}),
        ("algorithms", {"algorithms": "HS256"}),
        ("algorithms", {"algorithms": ("HS256",)}),
        ("algorithms", {"algorithms": ("none",)}),
        ("max_age", {"max_age": 0}),
        ("max_age", {"max_age": 601}),
        ("max_age", {"max_age": float("nan")}),
        ("leeway", {"leeway": -1}),
        ("origin", {"origin": "api.example.com"}),
        ("origin", {"origin": "https://api.example.com/"}),
        ("nonce_key", {"nonce_key": b"short"}),
        ("nonce_life", {"nonce_life": 0}),
        ("max_remembered", {"max_remembered": 0}),
        ("replays", {"replays": "redis"}),
    ],
)
def test_a_mistake_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        DPoP(**fields)
    assert (caught.value.policy, caught.value.field) == ("DPoP", field)
    assert "nonce_key" not in repr(DPoP(nonce_key=bytes(32)))


# Certificates


@cache
def certificate(name: str) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )


def x5t(name: str) -> str:
    digest = hashlib.sha256(certificate(name).public_bytes(Encoding.DER)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def tls(name: str) -> dict[str, Any]:
    pem = certificate(name).public_bytes(Encoding.PEM).decode()
    return {"extensions": {"tls": {"client_cert_chain": [pem], "tls_version": 0x0304}}}


@pytest.mark.parametrize("remote", [False, True])
async def test_a_token_bound_to_a_certificate_comes_over_its_connection_only(remote: bool) -> None:
    """RFC 8705 §3."""
    house = House(remote=remote)
    text = token(kid="one", cnf={"x5t#S256": x5t("ada")})
    for _ in range(2):
        assert (await house.ask(text, **tls("ada"))).status == 200
        assert (await house.ask(text, **tls("eve"))).status == 401
        assert (await house.ask(text)).status == 401
        assert (await house.ask(text, extensions={"tls": {"client_cert_chain": []}})).status == 401
        assert (await house.ask(text, extensions={"tls": {"client_cert_chain": ["junk"]}})).status == 401
    free = token(kid="one")
    assert (await house.ask(free, **tls("eve"))).status == 200


async def test_a_certificate_that_a_policy_has_checked_counts_before_that_of_the_connection() -> None:
    house = House()
    text = token(kid="one", cnf={"x5t#S256": x5t("ada")})
    der = ssl.PEM_cert_to_DER_cert(certificate("ada").public_bytes(Encoding.PEM).decode())
    assert (await house.ask(text, **tls("eve"), **{client_certificate.KEY: der})).status == 200
    assert (await house.ask(text, **tls("ada"), **{client_certificate.KEY: None})).status == 401


async def test_a_token_bound_to_both_needs_both() -> None:
    house = House(dpop=DPoP())
    text = token(kid="one", cnf={"jkt": thumbprint(ec_key()), "x5t#S256": x5t("ada")})
    assert (await present(house, text, proof(text), **tls("ada"))).status == 200
    assert (await present(house, text, proof(text))).status == 401
    assert (await present(house, text, scheme=b"Bearer", **tls("ada"))).status == 401


@pytest.mark.parametrize(
    "cnf",
    [
        {},
        "x",
        None,
        [],
        {"jwk": {}},
        {"kid": "x"},
        {"jkt": 7},
        {"x5t#S256": ""},
        {"x5t#S256": "é"},
        {"jkt": "x", "y": "z"},
    ],
)
async def test_a_binding_that_cannot_be_checked_is_none_that_holds(cnf: Any) -> None:
    text = forged({"alg": "RS256", "kid": "one"}, {**claims(), "cnf": cnf})
    for house in (House(), House(dpop=DPoP())):
        for _ in range(2):
            assert (await house.ask(text, **tls("ada"))).status == 401


def test_the_keys_of_proofs_are_none_of_the_issuers() -> None:
    assert JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=KEY) != JWTAuth(
        issuer=ISSUER, audience=AUDIENCE, keys=KEY, dpop=DPoP()
    )
    assert as_json(jwk(ec_key())) != as_json(KEY)
