"""What else can be asked of a token: that it was not revoked, that it is an access token, roles; and encrypted ones."""

import logging
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwe
from joserfc.jwk import ECKey, OctKey, RSAKey
from tests.jose.issuer import ISSUER, NOW, as_json, claims, ec_key, encoded, forged, jwk, pem, rsa_key, token

from apim_middleware._jose.revocations import RevokedTokens
from apim_middleware._jose.rules import ClaimMatch
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.identity import Principal
from apim_middleware.testing import FakeClock

from .bearing import House, code

pytestmark = pytest.mark.anyio


# Claims


async def test_required_claims_may_want_all_of_some_values() -> None:
    house = House(required_claims={"groups": ClaimMatch(values=("a", "b")), ("org", "id"): 7})
    assert (await house.ask(token(groups=["b", "a"], org={"id": 7}))).status == 200
    assert (await house.ask(token(groups=["b"], org={"id": 7}))).status == 401
    assert (await house.ask(token(groups=["b", "a"], org={"id": 8}))).status == 401


async def test_missing_roles_are_forbidden_and_nobody_is_told_which() -> None:
    house = House(roles=("reader", "writer"), roles_claim="realm_access.roles")
    assert (await house.ask(token(realm_access={"roles": ["writer", "reader"]}))).status == 200
    answer = await house.ask(token(realm_access={"roles": ["writer"]}))
    assert (answer.status, code(answer)) == (403, "forbidden")
    assert b"reader" not in answer.body


async def test_scopes_are_named_to_who_brings_nothing() -> None:
    house = House(scopes="a b")
    assert (await house.ask()).all(b"www-authenticate") == [b'Bearer realm="api", scope="a b"']


async def test_an_access_token_says_that_it_is_one() -> None:
    """RFC 9068: an ID token with everything else right stays out."""
    house = House(profile="rfc9068")
    whole = claims(client_id="app", jti="1")
    assert (await house.ask(forged({"alg": "RS256", "typ": "at+jwt"}, whole))).status == 200
    assert (await house.ask(forged({"alg": "RS256", "typ": "JWT"}, whole))).status == 401
    assert (await house.ask(forged({"alg": "RS256", "typ": "at+jwt"}, claims(jti="1")))).status == 401


async def test_only_the_applications_named_come_in() -> None:
    house = House(client_ids=("spa", "cli"))
    assert (await house.ask(token(azp="cli"))).status == 200
    assert (await house.ask(token(azp="other"))).status == 401
    assert (await house.ask(token())).status == 401


# Revocation


@pytest.mark.parametrize("remote", [False, True])
async def test_a_revoked_token_is_refused_from_the_next_request_on(remote: bool) -> None:
    revoked = RevokedTokens(clock=FakeClock(NOW))
    house = House(remote=remote, revoked=revoked)
    one, two = token(kid="one", jti="1"), token(kid="one", jti="2")
    assert [(await house.ask(text)).status for text in (one, two, one)] == [200, 200, 200]
    revoked.revoke_token(ISSUER, "1", until=NOW + 600)
    assert [(await house.ask(text)).status for text in (one, two)] == [401, 200]
    assert house.env.bind(house.policy)._memories.free.get(one) is None


@pytest.mark.parametrize("jti", [7, [], {}, [{}]])
async def test_a_token_whose_id_nobody_could_revoke_counts_as_revoked(jti: Any) -> None:
    house = House(revoked=RevokedTokens(clock=FakeClock(NOW)))
    assert (await house.ask(token(kid="one", jti=jti))).status == 401


async def test_all_tokens_of_a_caller_can_be_revoked_and_later_ones_count() -> None:
    clock = FakeClock(NOW)
    revoked = RevokedTokens(clock=clock)
    house = House(revoked=revoked)
    revoked.revoke_caller(ISSUER, "ada", until=NOW + 600)
    assert (await house.ask(token())).status == 401
    assert (await house.ask(token(iat=None))).status == 401
    assert (await house.ask(token(sub="bob"))).status == 200
    house.clock.advance(2)
    assert (await house.ask(token(iat=NOW + 1))).status == 200


async def test_the_one_who_knows_may_be_asked_asynchronously() -> None:
    asked: list[str] = []

    async def revoked(principal: Principal) -> bool:
        await anyio.lowlevel.checkpoint()
        asked.append(principal.subject)
        return principal.subject == "eve"

    house = House(revoked=revoked)
    assert [(await house.ask(token(sub=sub))).status for sub in ("ada", "eve", "ada")] == [200, 401, 200]
    assert asked == ["ada", "eve", "ada"]


@pytest.mark.parametrize("answer", [None, 0, "", "no"])
async def test_whatever_is_not_false_counts_as_revoked(answer: Any) -> None:
    house = House(revoked=lambda _: answer)
    assert (await house.ask(token())).status == 401


async def test_when_nobody_can_say_what_was_revoked_nobody_comes_in(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(principal: Principal) -> bool:
        raise StoreError("gone")

    house = House(revoked=broken)
    answer = await house.ask(token())
    assert (answer.status, code(answer)) == (503, "revocations-unavailable")
    assert answer.header(b"retry-after") == b"1"
    assert house.seen == []
    assert "gone" in caplog.text


async def test_while_nobody_can_say_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    answers = [StoreError("gone"), StoreError("gone"), StoreError("gone"), None, None]

    def revoked(principal: Principal) -> bool:
        if (error := answers.pop(0)) is not None:
            raise error
        return False

    house = House(revoked=revoked)
    assert [(await house.ask(token())).status for _ in range(5)] == [503, 503, 503, 200, 200]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_mistake_in_the_function_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    house = House(revoked=lambda principal: principal.nothing)
    assert (await house.ask(token())).status == 500
    assert house.seen == []
    caplog.clear()


async def test_a_bad_token_is_never_asked_about() -> None:
    asked: list[Principal] = []
    house = House(revoked=lambda principal: bool(asked.append(principal)))
    await house.ask(b"x")
    assert asked == []


def test_revocations_are_bounded_and_none_is_dropped_early() -> None:
    clock = FakeClock(NOW)
    revoked = RevokedTokens(max_revocations=2, clock=clock)
    revoked.revoke_token("i", "1", until=NOW + 10)
    revoked.revoke_caller("i", "ada", until=NOW + 20)
    with pytest.raises(StoreError):
        revoked.revoke_token("i", "2", until=NOW + 10)
    clock.advance(10)
    revoked.revoke_token("i", "2", until=NOW + 30)
    assert len(revoked) == 2
    assert revoked(Principal(subject="x", issuer="i", claims={"jti": "2"}))
    assert not revoked(Principal(subject="x", issuer="j", claims={"jti": "2"}))


def test_what_is_revoked_already_can_be_revoked_again_when_no_more_can() -> None:
    revoked = RevokedTokens(max_revocations=2, clock=FakeClock(NOW))
    for _ in range(2):
        revoked.revoke_token("i", "1", until=NOW + 10)
        revoked.revoke_caller("i", "ada", until=NOW + 10)
    assert len(revoked) == 2


def test_to_revoke_again_ends_no_revocation_earlier() -> None:
    clock = FakeClock(NOW)
    revoked = RevokedTokens(max_revocations=2, clock=clock)
    for until in (NOW + 20, NOW + 10):
        revoked.revoke_token("i", "1", until=until)
        revoked.revoke_caller("i", "ada", until=until)
    clock.advance(15)
    with pytest.raises(StoreError):
        revoked.revoke_token("i", "2", until=NOW + 30)


@pytest.mark.parametrize("most", [0, -1, "5", 1.5, True])
def test_room_for_no_revocation_is_a_mistake(most: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        RevokedTokens(max_revocations=most)
    assert caught.value.field == "max_revocations"


# Encrypted tokens


ENC_RSA = rsa_key("enc")
SECRET = bytes(range(32))


def private_pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def wrapped(inner: bytes, key: Any = None, alg: str = "RSA-OAEP-256", enc: str = "A256GCM", **more: Any) -> bytes:
    key = RSAKey.import_key(pem(ENC_RSA)) if key is None else key
    header = {"alg": alg, "enc": enc, "cty": "JWT", **more}
    return jwe.encrypt_compact(header, inner, key, algorithms=[alg, enc, "DEF"]).encode()


@pytest.fixture(params=[False, True])
def closed(request: pytest.FixtureRequest) -> House:
    return House(remote=request.param, decryption_keys=(private_pem(ENC_RSA), private_pem(ec_key()), SECRET))


async def test_an_encrypted_token_is_refused_where_nobody_can_read_it() -> None:
    house = House()
    assert code(await house.ask(wrapped(token(kid="one")))) == "token-invalid"


@pytest.mark.parametrize(
    ("key", "alg", "enc"),
    [
        (None, "RSA-OAEP", "A128CBC-HS256"),
        (None, "RSA-OAEP-256", "A256CBC-HS512"),
        (ECKey.import_key(pem(ec_key())), "ECDH-ES", "A128GCM"),
        (ECKey.import_key(pem(ec_key())), "ECDH-ES+A256KW", "A192CBC-HS384"),
        (OctKey.import_key(SECRET), "dir", "A256GCM"),
        (OctKey.import_key(SECRET), "A256KW", "A256GCM"),
    ],
)
async def test_an_encrypted_token_is_read_and_judged_as_what_is_inside(
    closed: House, key: Any, alg: str, enc: str
) -> None:
    for _ in range(2):
        assert (await closed.ask(wrapped(token(kid="one"), key, alg, enc))).status == 200
    assert closed.principal.subject == "ada"
    assert (await closed.ask(wrapped(token(rsa_key("evil"), kid="one"), key, alg, enc))).status == 401
    assert (await closed.ask(wrapped(token(kid="one", aud="x"), key, alg, enc))).status == 401


async def test_a_compressed_one_is_read_up_to_a_limit(closed: House) -> None:
    assert (await closed.ask(wrapped(token(kid="one"), zip="DEF"))).status == 200
    assert (await closed.ask(wrapped(bytes(10_000_000), zip="DEF"))).status in (401, 431)


HOSTILE: dict[str, bytes] = {
    "claims without a signature": wrapped(as_json(claims())),
    "nothing": wrapped(b""),
    "unsigned": wrapped(b".".join(forged({"alg": "none"}, claims()).split(b".")[:2]) + b"."),
    "encrypted twice": wrapped(wrapped(token(kid="one"))),
    "to somebody else": wrapped(token(kid="one"), RSAKey.import_key(pem(rsa_key("else")))),
    "crit": encoded(as_json({"alg": "dir", "enc": "A256GCM", "crit": ["exp"], "exp": 1})) + b"..AA.AA.AA",
    "cut": wrapped(token(kid="one"))[:-4],
    "rsa1_5": encoded(as_json({"alg": "RSA1_5", "enc": "A256GCM"})) + b".AA.AA.AA.AA",
    "password": encoded(as_json({"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2c": 10**9, "p2s": "AA"}))
    + b".AA.AA.AA.AA",
    "enc unknown": encoded(as_json({"alg": "dir", "enc": "none"})) + b"..AA.AA.AA",
    "alg list": encoded(as_json({"alg": ["dir"], "enc": "A256GCM"})) + b"..AA.AA.AA",
    "alg twice": encoded(b'{"alg":"dir","alg":"dir","enc":"A256GCM"}') + b"..AA.AA.AA",
    "zip unknown": encoded(as_json({"alg": "dir", "enc": "A256GCM", "zip": "BR"})) + b"..AA.AA.AA",
    "no header": b"....",
    "junk": b"a.b.c.d.e",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_one_is_refused_like_any_other(
    closed: House, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "apim_middleware")
    answer = await closed.ask(HOSTILE[name])
    assert (answer.status, code(answer)) == (401, "token-invalid")
    assert closed.seen == []
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_a_key_is_chosen_by_its_id() -> None:
    own = {**RSAKey.import_key(private_pem(ENC_RSA)).as_dict(private=True), "kid": "mine"}
    house = House(decryption_keys=(private_pem(rsa_key("else")), own))
    assert (await house.ask(wrapped(token(kid="one"), kid="mine"))).status == 200
    assert (await house.ask(wrapped(token(kid="one")))).status == 200


@pytest.mark.parametrize(
    "keys", ["x", pem(rsa_key()), jwk(rsa_key()), private_pem(rsa_key("weak", 1024)), {"kty": "oct"}]
)
def test_a_key_that_decrypts_nothing_is_told_at_once_and_not_shown(keys: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        House(decryption_keys=keys)
    assert caught.value.field == "decryption_keys"
    assert "PRIVATE" not in str(caught.value)
    assert "decryption_keys" not in repr(House(decryption_keys=SECRET).policy)
