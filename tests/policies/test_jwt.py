"""Who bears a good token comes in; every other way of asking is refused, in one way, and never with an error."""

import copy
import json
import logging
import pickle
import time
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tests.jose.issuer import (
    AUDIENCE,
    ISSUER,
    NOW,
    SECRET,
    Held,
    Published,
    answering,
    as_json,
    claims,
    down,
    ec_key,
    encoded,
    forged,
    jwk,
    pem,
    rsa_key,
    token,
)
from tests.servers import serving

from apim_middleware import by
from apim_middleware._jose.issuers import Issuer
from apim_middleware._jose.proofs import DPoP
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policy import Stack
from apim_middleware.testing import FakeClock, call, connect, http_scope
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .bearing import KEY, URL, House, challenge, code


@pytest.fixture(params=["static", "remote"])
def house(request: pytest.FixtureRequest) -> House:
    """The same house with its keys written down, and with keys to fetch."""
    return House(remote=request.param == "remote")


# Let through


@pytest.mark.anyio
async def test_a_good_token_lets_its_bearer_in(house: House) -> None:
    answer = await house.ask(token(kid="one", scope="a b", tier="gold"))
    assert (answer.status, answer.body) == (200, b"inside")
    principal = house.principal
    assert (principal.subject, principal.issuer) == ("ada", ISSUER)
    assert principal.scopes == {"a", "b"}
    assert principal.claims["tier"] == "gold"
    assert house.seen[0]["auth"] is principal


@pytest.mark.anyio
async def test_a_remembered_token_lets_the_same_bearer_in(house: House) -> None:
    text = token(kid="one")
    for _ in range(3):
        assert (await house.ask(text)).status == 200
    assert {id(scope["user"]) for scope in house.seen} == {id(house.principal)}


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"Bearer   "])
async def test_the_scheme_is_read_without_case(house: House, scheme: bytes) -> None:
    answer = await call(house.app, headers=[(b"authorization", scheme + token(kid="one"))])
    assert answer.status == 200


@pytest.mark.anyio
async def test_the_limits_key_of_a_caller_is_issuer_and_subject() -> None:
    keys: list[str | None] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        found = Exchange.of(scope)
        assert found is not None
        keys.append(by.principal(found))

    house = House()
    house.app = Stack(house.policy, env=house.env)(inner)
    await house.ask(token())
    assert keys == [f"{len(ISSUER)}:{ISSUER}ada"]


@pytest.mark.anyio
async def test_the_token_goes_on_to_the_app_as_it_came(house: House) -> None:
    text = token(kid="one")
    await house.ask(text)
    assert (b"authorization", b"Bearer " + text) in house.seen[0]["headers"]


@pytest.mark.anyio
@pytest.mark.parametrize("algorithms", ["HS256", ("HS256",)])
async def test_a_shared_secret_lets_in_who_signed_with_it(algorithms: Any) -> None:
    house = House(keys=SECRET, algorithms=algorithms)
    assert (await house.ask(token(SECRET, "HS256"))).status == 200
    assert (await house.ask(token(SECRET[::-1], "HS256"))).status == 401


@pytest.mark.anyio
async def test_one_of_several_issuers_and_audiences_is_enough() -> None:
    house = House(issuer=(ISSUER, "https://other.example"), audience=(AUDIENCE, "b"))
    assert (await house.ask(token(iss="https://other.example", aud=["a", "b"]))).status == 200
    assert (await house.ask(token(iss="https://third.example"))).status == 401


# Refused


@pytest.mark.anyio
@pytest.mark.parametrize("value", [None, b"Basic YTpi", b"", b"Bearerx y", b"Token abc"])
async def test_without_a_token_there_is_a_challenge_and_no_error(house: House, value: bytes | None) -> None:
    answer = await call(house.app, headers=[] if value is None else [(b"authorization", value)])
    assert (answer.status, code(answer)) == (401, "token-missing")
    assert challenge(answer) == b'Bearer realm="api"'
    assert house.seen == []
    assert house.issuer.asked == []


GOOD = {"alg": "RS256", "typ": "JWT", "kid": "one"}
HONEST = claims()


def without_signature(header: object) -> bytes:
    return encoded(as_json(header)) + b"." + encoded(as_json(HONEST)) + b"."


HOSTILE: dict[str, bytes] = {
    # no signature, or one that needs no key
    **{
        f"alg {name}": forged({"alg": name}, HONEST) for name in ("none", "None", "NONE", "nOnE", "none ", "", "no\0ne")
    },
    **{f"unsigned {name}": without_signature({"alg": name}) for name in ("none", "None", "RS256")},
    "alg missing": forged({"typ": "JWT"}, HONEST),
    "alg list": forged({"alg": ["none"]}, HONEST),
    "alg number": forged({"alg": 0}, HONEST),
    "alg null": forged({"alg": None}, HONEST),
    # a public key as a secret
    "hs with pem": forged({**GOOD, "alg": "HS256"}, HONEST, pem(rsa_key()).encode(), "HS256"),
    "hs with jwk": forged({**GOOD, "alg": "HS256"}, HONEST, as_json(KEY), "HS256"),
    "hs with nothing": forged({**GOOD, "alg": "HS256"}, HONEST, b"\0", "HS256"),
    # somebody else's signature, or none that fits
    "other signer": forged(GOOD, HONEST, rsa_key("evil")),
    "other algorithm": forged({**GOOD, "alg": "RS512"}, HONEST),
    "ps as rs": forged(GOOD, HONEST, rsa_key(), "PS256"),
    "es as rs": forged({**GOOD, "alg": "ES256"}, HONEST, ec_key(), "ES256"),
    "es zero": b".".join(forged({"alg": "ES256"}, HONEST).split(b".")[:2]) + b"." + encoded(bytes(64)),
    "cut": token(kid="one")[:-4],
    "other payload": b".".join(
        [token(kid="one").split(b".")[0], encoded(as_json(claims(sub="eve"))), token(kid="one").split(b".")[2]]
    ),
    # keys the token brings along
    "jwk": forged({**GOOD, "kid": "two", "jwk": jwk(rsa_key("evil"))}, HONEST, rsa_key("evil")),
    "jku": forged({**GOOD, "kid": "two", "jku": "https://evil.example/keys"}, HONEST, rsa_key("evil")),
    "x5u": forged({**GOOD, "kid": "two", "x5u": "https://evil.example/cert"}, HONEST, rsa_key("evil")),
    "x5c": forged({**GOOD, "kid": "two", "x5c": ["MII"]}, HONEST, rsa_key("evil")),
    # ids that lead somewhere
    **{
        f"kid {name}": forged({**GOOD, "kid": kid}, HONEST)
        for name, kid in {
            "path": "../../../../etc/passwd",
            "url": "https://evil.example/keys",
            "sql": "' UNION SELECT 'key' --",
            "nul": "one\0",
            "crlf": "one\r\nFORGED log line",
            "long": "k" * 4096,
            "number": 1,
            "object": {"one": 1},
            "list": ["one"],
            "null": None,
        }.items()
    },
    # extensions nobody understands
    "crit unknown": forged({**GOOD, "crit": ["urn:x"], "urn:x": 1}, HONEST),
    "crit empty": forged({**GOOD, "crit": []}, HONEST),
    "crit known": forged({**GOOD, "crit": ["exp"], "exp": 1}, HONEST),
    "b64": forged({**GOOD, "crit": ["b64"], "b64": False}, HONEST),
    "b64 alone": forged({**GOOD, "b64": False}, HONEST),
    # members twice
    "alg twice": forged(b'{"alg":"none","kid":"one","alg":"RS256"}', HONEST),
    "sub twice": forged(GOOD, as_json(HONEST)[:-1] + b',"sub":"eve"}'),
    # times that are none
    **{
        f"exp {text.decode()[:10]}": forged(GOOD, as_json(claims(exp=None))[:-1] + b',"exp":' + text + b"}")
        for text in (
            b'"1900000000"',
            b"NaN",
            b"Infinity",
            b"1e400",
            b"true",
            b"[1900000000]",
            b"null",
            b"{}",
            b"9" * 5000,
        )
    },
    "exp missing": token(kid="one", exp=None),
    "exp past": token(kid="one", exp=NOW - 1),
    "exp now": token(kid="one", exp=NOW),
    "nbf later": token(kid="one", nbf=NOW + 1),
    "iat later": token(kid="one", iat=NOW + 1),
    # audiences and issuers that only look alike
    **{
        f"aud {value!r}": forged(GOOD, claims(aud=value))
        for value in (
            AUDIENCE + "/",
            AUDIENCE.upper(),
            AUDIENCE[:-1],
            [],
            [AUDIENCE + "x"],
            {"x": 1},
            1,
            True,
            "",
            None,
        )
    },
    **{
        f"iss {value!r}": forged(GOOD, claims(iss=value))
        for value in (ISSUER + "/", ISSUER.upper(), ISSUER[:-1], [ISSUER], 1, "", None)
    },
    # tokens of another kind
    **{f"typ {typ}": forged({**GOOD, "typ": typ}, HONEST) for typ in ("logout+jwt", "dpop+jwt", "secevent+jwt", "JWE")},
    "typ number": forged({**GOOD, "typ": 1}, HONEST),
    # too much of it
    "long": b"a" * 8193,
    "dots": b"." * 1000,
    "deep header": forged(b'{"alg":"RS256","x":' + b"[" * 2400 + b"]" * 2400 + b"}", HONEST),
    "deep claims": forged(GOOD, as_json(HONEST)[:-1] + b',"x":' + b"[" * 2400 + b"]" * 2400 + b"}"),
    "deep objects": forged(GOOD, as_json(HONEST)[:-1] + b',"x":' + b'{"a":' * 800 + b"1" + b"}" * 800 + b"}"),
    "open": forged(GOOD, b"[" * 4000),
    # and what else is no token
    "empty": b"",
    "space": b" ",
    "two": token(kid="one") + b" " + token(kid="one"),
    "comma": token(kid="one") + b"," + token(kid="one"),
    "encrypted": b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AA.AA.AA",
    "bytes": bytes(range(128, 256)),
    "padded": token(kid="one") + b"==",
    "surrogate": forged(GOOD, as_json(HONEST)[:-1] + b',"x":"\\ud800"}'),
    "no subject": token(kid="one", sub=None),
    "number as subject": forged(GOOD, claims(sub=7)),
    "claims list": forged(GOOD, b"[]"),
    "nested": forged({**GOOD, "cty": "JWT"}, token(kid="one")),
    "utf-16": forged(GOOD, json.dumps(HONEST).encode("utf-16")),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_token_is_refused_and_told_nothing(house: House, name: str) -> None:
    """One answer for whatever was wrong, and nothing fetched but the published keys."""
    answer = await house.ask(HOSTILE[name])
    assert (answer.status, code(answer)) == (401, "token-invalid")
    assert (
        challenge(answer)
        == b'Bearer realm="api", error="invalid_token", error_description="The bearer token is not valid."'
    )
    assert answer.body == (await house.ask(b"x")).body
    assert house.seen == []
    assert {request.origin for request in house.issuer.asked} <= {"https://issuer.example"}


@pytest.mark.anyio
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_token_leaves_no_trace_of_itself_in_the_log(
    house: House, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "apim_middleware")
    await house.ask(HOSTILE[name])
    for record in caplog.records:
        line = record.getMessage()
        assert line.isprintable()
        assert len(line) < 300
        assert not HOSTILE[name] or len(HOSTILE[name]) < 5 or HOSTILE[name].decode("latin-1") not in line


def resigned(signature: bytes, algorithm: str = "ES256") -> bytes:
    return b".".join(forged({"alg": algorithm}, HONEST, SECRET, "HS256").split(b".")[:2]) + b"." + encoded(signature)


ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CURVED: dict[str, bytes] = {
    "zero": resigned(bytes(64)),
    "r zero": resigned(bytes(32) + b"\1" * 32),
    "s zero": resigned(b"\1" * 32 + bytes(32)),
    "ones": resigned(bytes(31) + b"\1" + bytes(31) + b"\1"),
    "order": resigned(ORDER.to_bytes(32) * 2),
    "beyond the order": resigned(b"\xff" * 64),
    "empty": resigned(b"0")[:-2],
    "short": resigned(bytes(63)),
    "long": resigned(bytes(96)),
    "der": resigned(ec_key().sign(b"x", ec.ECDSA(hashes.SHA256()))),
    "another curve": forged({"alg": "ES384"}, HONEST, ec_key(ec.SECP384R1), "ES384"),
    "another curve, this algorithm": forged({"alg": "ES256"}, HONEST, ec_key(ec.SECP384R1), "ES384"),
    "bitcoin's curve": forged({"alg": "ES256K"}, HONEST, ec_key(ec.SECP256K1), "ES256K"),
    "another key": forged({"alg": "ES256"}, HONEST, ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "rsa": forged({"alg": "ES256"}, HONEST),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", CURVED)
async def test_a_hostile_signature_on_a_curve_is_refused(name: str) -> None:
    for house in (House(keys=jwk(ec_key())), House(keys=pem(ec_key()))):
        assert (await house.ask(forged({"alg": "ES256"}, HONEST, ec_key(), "ES256"))).status == 200
        assert code(await house.ask(CURVED[name])) == "token-invalid"


@pytest.mark.anyio
async def test_a_weak_key_verifies_nothing_wherever_it_comes_from() -> None:
    weak = rsa_key("weak", 1024)
    house = House(remote=True)
    house.issuer.keys = [jwk(weak, "weak")]
    assert (await house.ask(forged({"alg": "RS256", "kid": "weak"}, HONEST, weak))).status == 401
    for key in (pem(weak), jwk(weak)):
        with pytest.raises(ConfigError):
            House(keys=key)


@pytest.mark.anyio
async def test_a_failed_token_is_not_remembered(house: House) -> None:
    gate = house.env.bind(house.policy)
    for name in HOSTILE:
        await house.ask(HOSTILE[name])
    assert not gate._memories.free


@given(st.binary(max_size=200))
def test_any_authorization_is_judged_without_an_error(value: bytes) -> None:
    gate = JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=KEY).bind(Env(clock=FakeClock(NOW)))
    for text in (value, b"Bearer " + value):
        with pytest.raises(Refusal) as caught:
            gate.on_request(Exchange(http_scope(headers=[(b"authorization", text)])))
        assert caught.value.status == 401


@given(st.data())
def test_a_token_with_a_character_changed_is_refused(data: st.DataObject) -> None:
    text = token(kid="one")
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(b"ABCDwxyz0189-_.=+/ \xff"))
    changed = text[:place] + bytes([other]) + text[place + 1 :]
    gate = JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=KEY).bind(Env(clock=FakeClock(NOW)))
    exchange = Exchange(http_scope(headers=[(b"authorization", b"Bearer " + changed)]))
    if changed == text:
        gate.on_request(exchange)
        return
    with pytest.raises(Refusal):
        gate.on_request(exchange)


@pytest.mark.anyio
async def test_the_log_and_the_attributes_say_what_was_wrong(house: House, caplog: pytest.LogCaptureFixture) -> None:
    reasons: list[object] = []

    def watching(app: ASGIApp) -> ASGIApp:
        async def watch(scope: Scope, receive: Receive, send: Send) -> None:
            exchange = Exchange(scope)
            scope["apim_middleware.exchange"] = exchange
            await app(scope, receive, send)
            reasons.append(exchange.attributes.get("apim.jwt.failure"))

        return watch

    caplog.set_level(logging.DEBUG, "apim_middleware.jwt")
    house.app = watching(house.app)
    await house.ask(token(kid="one", exp=NOW - 1))
    await house.ask(forged({**GOOD, "kid": "a\r\nb"}, HONEST))
    assert reasons == ["expired", "key-unknown"]
    assert [record.getMessage() for record in caplog.records] == [
        "a token was refused: expired ''",
        "a token was refused: key-unknown 'a\\r\\nb'",
    ]


@pytest.mark.anyio
async def test_a_token_as_long_as_allowed_is_looked_at() -> None:
    text = token(pad="x" * 500)
    assert (await House(max_token_bytes=len(text)).ask(text)).status == 200
    assert (await House(max_token_bytes=len(text) - 1).ask(text)).status == 401


@pytest.mark.anyio
async def test_two_authorization_lines_are_refused_before_any_token_is_looked_at(house: House) -> None:
    lines = [(b"authorization", b"Bearer " + token(kid="one")), (b"authorization", b"Bearer x")]
    for headers in (lines, lines[::-1]):
        assert (await call(house.app, headers=headers)).status == 400
    assert house.seen == []


@pytest.mark.anyio
async def test_hostile_tokens_cost_little() -> None:
    """Under 5 ms of computing each."""
    house = House()
    for name in ("long", "dots", "deep header", "deep claims", "deep objects", "open", "kid long"):
        assert len(HOSTILE[name]) <= 8192 or name == "long"
        costs = []
        for _ in range(10):
            begun = time.process_time()
            await house.ask(HOSTILE[name])
            costs.append(time.process_time() - begun)
        assert min(costs) < 0.005, name  # the least of them: a collection of garbage is not the token's doing


@pytest.mark.anyio
async def test_a_token_of_64_kib_is_refused_before_it_is_looked_at(house: House) -> None:
    assert (await house.ask(b"a" * 65536)).status == 431


# What the token must say


@pytest.mark.anyio
async def test_missing_scopes_are_named(house: House) -> None:
    house = House(remote=house.policy.jwks_url is not None, scopes=("orders.read", "orders.write"))
    answer = await house.ask(token(kid="one", scope="orders.read"))
    assert (answer.status, code(answer)) == (403, "insufficient-scope")
    assert challenge(answer) == (
        b'Bearer realm="api", error="insufficient_scope", '
        b'error_description="The bearer token does not grant what this needs.", scope="orders.read orders.write"'
    )
    assert (await house.ask(token(kid="one", scp=["orders.read", "orders.write", "x"]))).status == 200


@pytest.mark.anyio
async def test_scopes_may_be_written_as_a_token_writes_them() -> None:
    house = House(scopes="a b")
    assert (await house.ask(token(scope="a"))).status == 403
    assert (await house.ask(token(scope="b a"))).status == 200


@pytest.mark.anyio
async def test_required_claims_are_asked_for() -> None:
    house = House(required_claims={"tid": "t1", "roles": ("admin", "auditor"), "verified": True})
    good: dict[str, Any] = {"tid": "t1", "roles": ["auditor", "x"], "verified": True}
    assert (await house.ask(token(**good))).status == 200
    for changed in ({"tid": "t2"}, {"tid": None}, {"roles": ["x"]}, {"roles": "admins"}, {"verified": 1}):
        answer = await house.ask(token(**{**good, **changed}))
        assert (answer.status, code(answer)) == (401, "token-invalid")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("accepted", "typ", "status"),
    [
        (("JWT", "at+jwt"), None, 200),
        (("JWT", "at+jwt"), "jwt", 200),
        (("JWT", "at+jwt"), "AT+JWT", 200),
        (("JWT", "at+jwt"), "application/at+jwt", 200),
        ("at+jwt", None, 401),
        ("at+jwt", "JWT", 401),
        ("at+jwt", "at+jwt", 200),
        ("application/at+jwt", "at+jwt", 200),
    ],
)
async def test_the_type_of_the_token_counts(accepted: str | tuple[str, ...], typ: str | None, status: int) -> None:
    """An ID token is no access token where access tokens say what they are (RFC 9068 §4)."""
    header = {"alg": "RS256"} if typ is None else {"alg": "RS256", "typ": typ}
    assert (await House(token_type=accepted).ask(forged(header, HONEST))).status == status


@pytest.mark.anyio
async def test_the_leeway_is_given_and_not_more() -> None:
    house = House(leeway=60)
    assert (await house.ask(token(exp=NOW - 59))).status == 200
    assert (await house.ask(token(exp=NOW - 60))).status == 401
    assert (await house.ask(token(nbf=NOW + 60))).status == 200
    assert (await house.ask(token(nbf=NOW + 61))).status == 401


# Where the token is


@pytest.mark.anyio
async def test_a_named_header_holds_the_bare_token() -> None:
    house = House(token_from="header:X-Token")
    assert (await house.ask(headers=[(b"x-token", token())])).status == 200
    assert (await house.ask(headers=[(b"x-token", b"Bearer " + token())])).status == 401
    assert (await house.ask(token())).status == 401
    assert code(await house.ask(token())) == "token-missing"


@pytest.mark.anyio
async def test_a_cookie_holds_the_token_and_stays() -> None:
    house = House(token_from="cookie:session")
    cookie = (b"cookie", b"a=1; session=" + token() + b"; b=2")
    assert (await house.ask(headers=[cookie])).status == 200
    assert cookie in house.seen[0]["headers"]


@pytest.mark.anyio
async def test_a_token_in_the_query_is_taken_out_byte_for_byte() -> None:
    house = House(token_from="query:access_token")
    assert (await house.ask(query=b"a=%41&&access_token=" + token() + b"&b=+&c")).status == 200
    assert house.seen[0]["query_string"] == b"a=%41&&b=+&c"


@pytest.mark.anyio
async def test_a_bad_token_in_the_query_is_taken_out_too() -> None:
    """Whoever logs the refused request must not find it."""
    house = House(token_from="query:access_token")
    scope = http_scope(query=b"a=1&access_token=secret")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await house.app(scope, send, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 401
    assert scope["query_string"] == b"a=1"


@pytest.mark.anyio
@pytest.mark.parametrize("where", [{"query": b"access_token="}, {"headers": [(b"cookie", b"access_token=")]}])
async def test_a_token_where_none_was_asked_for_is_no_token(house: House, where: dict[str, Any]) -> None:
    filled: dict[str, Any] = {
        name: value + token() if isinstance(value, bytes) else [(value[0][0], value[0][1] + token())]
        for name, value in where.items()
    }
    assert code(await house.ask(**filled)) == "token-missing"


EVERYWHERE = ("header:authorization", "header:x-token", "cookie:token", "query:token")


@pytest.mark.anyio
async def test_one_of_several_places_holds_the_token() -> None:
    house = House(token_from=EVERYWHERE)
    text = token()
    asked: list[dict[str, Any]] = [
        {"headers": [(b"authorization", b"Bearer " + text)]},
        {"headers": [(b"x-token", text)]},
        {"headers": [(b"cookie", b"token=" + text)]},
        {"query": b"token=" + text},
        {"headers": [(b"authorization", b"Basic YTpi"), (b"x-token", text)]},
    ]
    for more in asked:
        assert (await house.ask(**more)).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "more",
    [
        {"headers": [(b"authorization", b"Bearer " + token()), (b"x-token", token())]},
        {"headers": [(b"x-token", token()), (b"x-token", token())]},
        {"headers": [(b"cookie", b"token=a; token=b")]},
        {"headers": [(b"cookie", b"token=a"), (b"cookie", b"token=b")]},
        {"query": b"token=a&token=b"},
        {"query": b"token=a&t%6fken=b"},
        {"headers": [(b"x-token", b"")], "query": b"token=a"},
        {"headers": [(b"authorization", b"Bearer ")], "query": b"token=a"},
    ],
)
async def test_several_tokens_are_refused(more: dict[str, Any]) -> None:
    answer = await House(token_from=EVERYWHERE).ask(**more)
    assert (answer.status, code(answer)) == (400, "token-ambiguous")
    assert (
        challenge(answer)
        == b'Bearer realm="api", error="invalid_request", error_description="Send exactly one bearer token."'
    )


# Optional


@pytest.mark.anyio
async def test_an_optional_token_may_be_missing(house: House) -> None:
    house = House(remote=house.policy.jwks_url is not None, optional=True)
    assert (await house.ask()).status == 200
    assert "user" not in house.seen[0]
    assert (await house.ask(token(kid="one"))).status == 200
    assert house.principal.subject == "ada"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["empty", "exp past", "alg none", "other signer", "long"])
async def test_an_optional_token_must_be_good_when_it_is_there(house: House, name: str) -> None:
    house = House(remote=house.policy.jwks_url is not None, optional=True)
    assert (await house.ask(HOSTILE[name])).status == 401
    assert house.seen == []


# The memory of verified tokens


@pytest.mark.anyio
async def test_a_remembered_token_expires_on_time(house: House) -> None:
    text = token(kid="one", exp=NOW + 100)
    assert (await house.ask(text)).status == 200
    house.clock.advance(99.9)
    assert (await house.ask(text)).status == 200
    house.clock.advance(0.1)
    assert (await house.ask(text)).status == 401
    assert not house.env.bind(house.policy)._memories.free


@pytest.mark.anyio
async def test_the_leeway_outlives_the_memory_and_ends_too() -> None:
    house = House(leeway=10)
    text = token(exp=NOW + 1)
    await house.ask(text)
    house.clock.advance(5)
    assert (await house.ask(text)).status == 200
    assert not house.env.bind(house.policy)._memories.free
    house.clock.advance(6)
    assert (await house.ask(text)).status == 401


@pytest.mark.anyio
async def test_the_memory_is_bounded_and_the_oldest_goes_first() -> None:
    house = House(max_remembered=3)
    texts = [token(jti=str(number)) for number in range(5)]
    for text in texts:
        assert (await house.ask(text)).status == 200
    assert list(house.env.bind(house.policy)._memories.free._known) == texts[2:]


@pytest.mark.anyio
async def test_nothing_is_remembered_when_that_is_asked_for() -> None:
    house = House(max_remembered=0)
    assert (await house.ask(token())).status == 200
    assert not house.env.bind(house.policy)._memories.free


@pytest.mark.anyio
async def test_a_token_remembered_for_one_audience_is_judged_anew_for_another() -> None:
    house = House()
    text = token(aud="a")
    apps = [
        Stack(JWTAuth(issuer=ISSUER, audience=audience, keys=KEY), env=house.env, place="same")(house.inner)
        for audience in ("a", "b")
    ]
    headers = [(b"authorization", b"Bearer " + text)]
    for _ in range(2):
        assert (await call(apps[0], headers=headers)).status == 200
        assert (await call(apps[1], headers=headers)).status == 401


@pytest.mark.anyio
async def test_an_app_cannot_change_what_is_remembered(house: House) -> None:
    text = token(kid="one", roles=["reader"], org={"id": 1})
    await house.ask(text)
    targets: list[tuple[Any, str]] = [(house.principal.claims, "roles"), (house.principal.claims["org"], "id")]
    for target, name in targets:
        with pytest.raises(TypeError):
            target[name] = ["admin"]
    with pytest.raises(AttributeError):
        house.principal.claims["roles"].append("admin")
    await house.ask(text)
    assert house.principal.claims["roles"] == ("reader",)


# Keys that an issuer publishes


@pytest.mark.anyio
async def test_keys_are_fetched_once_and_only_for_a_token_that_could_be_good() -> None:
    house = House(remote=True)
    await house.ask()
    await house.ask(b"garbage")
    await house.ask(HOSTILE["alg none"])
    await house.ask(HOSTILE["typ logout+jwt"])
    assert house.issuer.asked == []
    for _ in range(3):
        assert (await house.ask(token(kid="one"))).status == 200
    assert len(house.issuer.asked) == 1


@pytest.mark.anyio
async def test_without_keys_nobody_comes_in() -> None:
    house = House(remote=True)
    house.issuer.behave(down)
    answer = await house.ask(token(kid="one"))
    assert (answer.status, code(answer)) == (503, "keys-unavailable")
    assert answer.header(b"retry-after") == b"5"
    assert house.seen == []
    house.clock.advance(5)
    house.issuer.behave(None)
    assert (await house.ask(token(kid="one"))).status == 200


@pytest.mark.anyio
async def test_a_key_set_that_says_it_is_compressed_is_not_read() -> None:
    """Nothing is decompressed, so nobody knows what whoever does would find."""
    house = House(remote=True)
    house.issuer.behave(answering(as_json({"keys": [KEY]}), headers=[(b"content-encoding", b"gzip")]))
    assert (await house.ask(token(kid="one"))).status == 503


@pytest.mark.anyio
async def test_a_new_key_is_found_after_the_cool_down() -> None:
    house = House(remote=True)
    await house.ask(token(kid="one"))
    house.issuer.keys = [KEY, jwk(rsa_key("two"), "two")]
    rotated = token(rsa_key("two"), kid="two")
    assert (await house.ask(rotated)).status == 401
    house.clock.advance(30)
    assert (await house.ask(rotated)).status == 200
    assert (await house.ask(token(kid="one"))).status == 200
    assert len(house.issuer.asked) == 2


@pytest.mark.anyio
async def test_a_key_without_an_id_is_replaced_like_any_other() -> None:
    house = House(remote=True)
    house.issuer.keys = [jwk(rsa_key("one"))]
    assert (await house.ask(token())).status == 200
    house.issuer.keys = [jwk(rsa_key("two"))]
    house.clock.advance(30)
    assert (await house.ask(token(rsa_key("two")))).status == 200


@pytest.mark.anyio
async def test_a_removed_key_verifies_no_more_once_the_keys_are_renewed_remembered_or_not() -> None:
    house = House(remote=True)
    text = token(kid="one", exp=NOW + 100_000)
    await house.ask(text)
    house.issuer.keys = [jwk(rsa_key("two"), "two")]
    house.clock.advance(3539)
    assert (await house.ask(text)).status == 200
    house.clock.advance(1)
    await house.renewed(text)
    assert (await house.ask(text)).status == 401
    assert len(house.issuer.asked) == 2


@pytest.mark.anyio
async def test_what_is_remembered_survives_a_renewal_that_leaves_its_key() -> None:
    house = House(remote=True)
    house.issuer.keys = [KEY, jwk(rsa_key("two"), "two")]
    texts = [token(kid="one", exp=NOW + 100_000), token(rsa_key("two"), kid="two", exp=NOW + 100_000)]
    for text in texts:
        await house.ask(text)
    house.issuer.keys = [KEY, jwk(rsa_key("three"), "three")]
    house.clock.advance(3600)
    await house.renewed(texts[0])
    gate = house.env.bind(house.policy)
    assert len(house.issuer.asked) == 2
    assert [gate._memories.free.get(text) is not None for text in texts] == [True, False]


@pytest.mark.anyio
async def test_known_keys_serve_while_the_issuer_is_down_up_to_a_limit() -> None:
    house = House(remote=True, jwks_stale_if_error=1000)
    text = token(kid="one", exp=NOW + 100_000)
    await house.ask(text)
    house.issuer.behave(down)
    house.clock.advance(3600 + 999)
    assert (await house.ask(text)).status == 200
    house.clock.advance(1)
    assert (await house.ask(text)).status == 503


@pytest.mark.anyio
async def test_what_is_remembered_serves_while_the_issuer_is_down() -> None:
    house = House(remote=True)
    text = token(kid="one", exp=NOW + 100_000)
    await house.ask(text)
    first = house.principal
    house.issuer.behave(down)
    house.clock.advance(4000)
    await house.renewed(text)
    assert (await house.ask(text)).status == 200
    assert house.principal is first
    assert len(house.issuer.asked) == 2


@pytest.mark.anyio
async def test_nobody_whose_key_is_known_waits_for_an_issuer_that_hangs() -> None:
    house = House(remote=True)
    warm, cold = token(kid="one", exp=NOW + 100_000), token(kid="one", jti="cold", exp=NOW + 100_000)
    await house.ask(warm)
    held = Held(house.issuer)
    house.issuer.behave(held)
    house.clock.advance(4000)
    for text in (warm, cold, warm):
        assert (await house.ask(text)).status == 200
        await held.asked.wait()
    assert len(house.issuer.asked) == 2
    held.let.set()


@pytest.mark.anyio
async def test_a_flood_of_unknown_keys_makes_one_fetch_and_harms_nobody() -> None:
    house = House(remote=True)
    good = token(kid="one")
    await house.ask(good)
    house.clock.advance(30)
    _, rest = good.split(b".", 1)
    gate = house.env.bind(house.policy)
    for number in range(10_000):
        flood = encoded(as_json({"alg": "RS256", "kid": f"k{number}"})) + b"." + rest
        with pytest.raises(Refusal):
            await gate.on_request(Exchange(http_scope(headers=[(b"authorization", b"Bearer " + flood)])))
    assert len(house.issuer.asked) == 2
    assert (await house.ask(good)).status == 200
    assert len(gate._memories.free) == 1


@pytest.mark.anyio
async def test_warm_tokens_do_not_wait_for_a_search_for_unknown_keys() -> None:
    house = House(remote=True)
    good = token(kid="one")
    await house.ask(good)
    house.clock.advance(30)
    held = Held(house.issuer)
    house.issuer.behave(held)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.ask, token(kid="unknown"))
        await held.asked.wait()
        assert (await house.ask(good)).status == 200
        assert (await house.ask(token(kid="one", jti="cold"))).status == 200
        held.let.set()


@pytest.mark.anyio
async def test_secrets_and_encryption_keys_of_the_network_verify_nothing() -> None:
    house = House(remote=True)
    secret = encoded(SECRET).decode()
    house.issuer.keys = [{"kty": "oct", "k": secret, "kid": "s", "alg": "HS256"}, {**KEY, "kid": "e", "use": "enc"}]
    assert (await house.ask(token(SECRET, "HS256", kid="s"))).status == 401
    assert (await house.ask(token(kid="e"))).status == 401


@pytest.mark.anyio
async def test_a_jump_of_the_wall_clock_does_not_let_keys_grow_old() -> None:
    house = House(remote=True)
    text = token(kid="one", iat=None, nbf=None)
    await house.ask(text)
    house.clock.jump(-100_000)
    house.clock.advance(3600)
    await house.renewed(text)
    assert len(house.issuer.asked) == 2


def test_the_gate_is_plain_with_keys_at_hand_and_async_without() -> None:
    import inspect

    env = Env(transport=Published())
    static = JWTAuth(issuer="i", audience="a", keys=KEY).bind(env)
    remote = JWTAuth(issuer="i", audience="a", jwks_url=URL).bind(env)
    assert not inspect.iscoroutinefunction(static.on_request)
    assert inspect.iscoroutinefunction(remote.on_request)


@pytest.mark.anyio
async def test_keys_come_from_a_real_server_over_the_default_transport() -> None:
    asked: list[tuple[str, bytes]] = []

    async def issuer(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append((scope["path"], scope["query_string"]))
        status = 200 if scope["path"] == "/tenant/keys" else 302
        headers = [(b"content-type", b"application/jwk-set+json"), (b"location", b"/tenant/keys")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": as_json({"keys": [KEY]})})

    with serving(issuer) as server:
        good = House(jwks_url=f"{server.origin}/tenant/keys?v=2", keys=None)
        moved = House(jwks_url=f"{server.origin}/moved", keys=None)
        env = Env(clock=good.clock)
        for house in (good, moved):
            house.app = Stack(house.policy, env=env)(house.inner)
        assert [(await good.ask(token(kid="one"))).status for _ in range(3)] == [200, 200, 200]
        assert (await good.ask(token(rsa_key("evil"), kid="one"))).status == 401
        assert code(await moved.ask(token(kid="one"))) == "keys-unavailable"
        await env.callouts(Published, public=False).aclose()
    assert asked == [("/tenant/keys", b"v=2"), ("/moved", b"")]


# WebSockets, streams, endings


@pytest.mark.anyio
async def test_a_websocket_handshake_is_judged_like_a_request(house: House) -> None:
    bearer = [(b"authorization", b"Bearer " + token(kid="one"))]
    assert (await connect(house.app, headers=bearer)).status == 101
    assert house.principal.subject == "ada"
    refused = await connect(house.app)
    assert (refused.status, code(refused)) == (401, "token-missing")
    assert challenge(refused) == b'Bearer realm="api"'
    closed = await connect(house.app, headers=[(b"authorization", b"Bearer x")], denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "token-invalid"}]
    assert len(house.seen) == 1


@pytest.mark.anyio
async def test_a_websocket_may_bring_its_token_in_the_query() -> None:
    house = House(token_from=("header:authorization", "query:access_token"))
    answer = await connect(house.app, query_string=b"access_token=" + token())
    assert answer.status == 101
    assert house.seen[0]["query_string"] == b""


@pytest.mark.anyio
async def test_bodies_stream_both_ways_untouched(house: House) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    house.app = Stack(house.policy, env=house.env)(echo)
    answer = await house.ask(token(kid="one"), method="POST", body=[b"a", b"b", b"c"])
    assert [message.get("body") for message in answer.messages[1:]] == [b"a", b"b", b"c"]


@pytest.mark.anyio
async def test_an_error_of_the_app_passes_through(house: House) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    house.app = Stack(house.policy, env=house.env)(broken)
    with pytest.raises(RuntimeError, match="the app"):
        await house.ask(token(kid="one"))


@pytest.mark.anyio
async def test_a_client_that_leaves_leaves_nothing_behind(house: House) -> None:
    with pytest.raises(OSError, match="gone"):
        await house.ask(token(kid="one"), leave_after=1)
    assert (await house.ask(token(kid="one"))).status == 200


@pytest.mark.anyio
async def test_a_client_that_is_cancelled_while_keys_are_fetched_strands_nobody() -> None:
    house = House(remote=True)
    held = Held(house.issuer)
    house.issuer.behave(held)
    statuses: list[int] = []
    leader = anyio.CancelScope()

    async def lead() -> None:
        with leader:
            await house.ask(token(kid="one"))

    async def follow() -> None:
        statuses.append((await house.ask(token(kid="one"))).status)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lead)
        await held.asked.wait()
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        held.let.set()
        leader.cancel()
    assert statuses == [200]


# Configuration


def configured(**fields: Any) -> JWTAuth:
    return JWTAuth(**{"issuer": ISSUER, "audience": AUDIENCE, "keys": KEY, **fields})


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("issuer", {"issuer": ""}),
        ("issuer", {"issuer": ()}),
        ("issuer", {"issuer": None}),
        ("issuer", {"issuer": [ISSUER]}),
        ("audience", {"audience": ""}),
        ("audience", {"audience": ("a", "")}),
        ("issuer", {"keys": None, "issuer": "no-url"}),
        ("issuer", {"keys": None, "issuer": "http://issuer.example"}),
        ("issuer", {"keys": None, "issuer": "https://issuer.example/?tenant=1"}),
        ("issuer", {"keys": None, "issuer": "https://10.0.0.1"}),
        ("issuer", {"issuer": (ISSUER, ISSUER)}),
        ("issuer", {"keys": None, "issuer": Issuer("i", jwks_url="http://issuer.example/keys")}),
        ("issuer", {"keys": None, "issuer": Issuer("i", keys="no key")}),
        ("keys", {"issuer": Issuer(ISSUER)}),
        ("jwks_url", {"keys": None, "jwks_url": URL, "issuer": Issuer(ISSUER)}),
        ("keys", {"jwks_url": URL}),
        ("keys", {"keys": 7}),
        ("algorithms", {"algorithms": ()}),
        ("algorithms", {"algorithms": "none"}),
        ("algorithms", {"algorithms": ""}),
        ("algorithms", {"algorithms": ["RS256"]}),
        ("algorithms", {"algorithms": ("none",)}),
        ("algorithms", {"algorithms": ("RS256", "None")}),
        ("algorithms", {"algorithms": ("rs256",)}),
        ("algorithms", {"keys": None, "jwks_url": URL, "algorithms": ("RS256", "HS256")}),
        ("required_claims", {"required_claims": {"role": ()}}),
        ("required_claims", {"required_claims": {"level": float("nan")}}),
        ("required_claims", {"required_claims": {"level": (1, float("inf"))}}),
        ("required_claims", {"required_claims": {"role": None}}),
        ("required_claims", {"required_claims": {"role": ["a"]}}),
        ("required_claims", {"required_claims": {"": "a"}}),
        ("required_claims", {"required_claims": {("a", ""): "a"}}),
        ("roles", {"roles": ("a", "")}),
        ("roles_claim", {"roles_claim": "a..b"}),
        ("client_ids", {"client_ids": ""}),
        ("profile", {"profile": "jwt"}),
        ("dpop", {"dpop": True}),
        ("dpop", {"dpop": DPoP(), "token_from": "cookie:token"}),
        ("revoked", {"revoked": "jti"}),
        ("decryption_keys", {"decryption_keys": "no key"}),
        ("decryption_keys", {"decryption_keys": pem(rsa_key())}),
        ("scopes", {"scopes": ('a"b',)}),
        ("scopes", {"scopes": ("a b",)}),
        ("scopes", {"scopes": ("",)}),
        ("scopes", {"scopes": ("a\r\nb",)}),
        ("scopes", {"scopes": ""}),  # as an unset variable would have it, and no scope was asked for
        ("scopes", {"scopes": " "}),
        ("scopes", {"scopes": "\r\n"}),
        ("subject_claim", {"subject_claim": ""}),
        ("token_type", {"token_type": ""}),
        ("leeway", {"leeway": -1}),
        ("leeway", {"leeway": 301}),
        ("leeway", {"leeway": float("nan")}),
        ("leeway", {"leeway": True}),
        ("token_from", {"token_from": ""}),
        ("token_from", {"token_from": ()}),
        ("token_from", {"token_from": "header"}),
        ("token_from", {"token_from": "header:"}),
        ("token_from", {"token_from": "header:a b"}),
        ("token_from", {"token_from": "header:a\n"}),
        ("token_from", {"token_from": "cookie:a;b"}),
        ("token_from", {"token_from": "body:token"}),
        ("token_from", {"token_from": ("query:a", "path:b")}),
        ("realm", {"realm": ""}),
        ("realm", {"realm": 'a"'}),
        ("realm", {"realm": "a\\"}),
        ("realm", {"realm": "a\r\nb"}),
        ("realm", {"realm": "é"}),
        ("max_token_bytes", {"max_token_bytes": 0}),
        ("max_token_bytes", {"max_token_bytes": 99}),  # less than any signed token has
        ("max_remembered", {"max_remembered": -1}),
        ("jwks_refresh", {"jwks_refresh": 59}),
        ("jwks_refresh", {"jwks_refresh": float("inf")}),
        ("jwks_refresh", {"jwks_refresh": 10**400}),
        ("jwks_cooldown", {"jwks_cooldown": 0}),
        ("jwks_stale_if_error", {"jwks_stale_if_error": -1}),
        ("jwks_timeout", {"jwks_timeout": 0}),
        ("jwks_timeout", {"jwks_timeout": float("nan")}),
        ("jwks_ulr", {"jwks_ulr": URL}),
    ],
)
def test_a_mistake_is_told_while_building_and_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(**fields)
    assert (caught.value.policy, caught.value.field) == ("JWTAuth", field)


@pytest.mark.parametrize(
    "url",
    ["", "keys", "//issuer.example/keys", "ftp://issuer.example", "file:///etc/keys", "http://issuer.example/keys",
     "http://127.0.0.1.evil.example/", "http://localhost.evil.example/", "http://10.0.0.1/", "https://",
     "https://10.0.0.1/", "https://169.254.169.254/", "https://[fd00::1]/", "https://[::ffff:10.0.0.1]/",
     "https://user:pw@issuer.example/", "https://issuer.example/#x", "https://issuer.example/a b",
     "https://issuer.example/\r\nx", "https://issuer.example:port/", "https://[::1/", "https://ïssuer.example/"],
)  # fmt: skip
def test_a_url_that_anybody_could_answer_for_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(keys=None, jwks_url=url)
    assert caught.value.field == "jwks_url"
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000"])
def test_http_is_good_enough_on_this_machine(host: str) -> None:
    configured(keys=None, jwks_url=f"http://{host}/keys")


def test_http_elsewhere_must_be_asked_for() -> None:
    configured(keys=None, jwks_url="http://issuer.example/keys", allow_http=True)


@pytest.mark.parametrize(
    "fields",
    [{"keys": SECRET}, {"keys": b"short", "algorithms": ("HS256",)}, {"keys": "secret-text"}, {"keys": {"keys": []}},
     {"keys": pem(rsa_key()), "algorithms": ("HS256",)}],
)  # fmt: skip
def test_keys_that_cannot_be_used_are_told_at_once(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(**fields)
    assert caught.value.field == "keys"
    assert "secret-text" not in str(caught.value)
    assert "\\x01" not in str(caught.value)


def test_nothing_secret_is_shown() -> None:
    policy = configured(keys=SECRET, algorithms=("HS256",))
    assert "\\x01" not in repr(policy)
    assert "keys=" not in repr(policy)


def test_the_policy_is_a_value() -> None:
    policy = configured(required_claims={"tid": "t1"})
    assert policy == configured(required_claims={"tid": "t1"})
    assert policy != configured(required_claims={"tid": "t2"})
    assert len({policy, configured(required_claims={"tid": "t1"})}) == 1
    assert copy.deepcopy(policy) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_what_is_relied_on_behind_it_is_provided() -> None:
    assert JWTAuth.provides == {"principal"}
    assert JWTAuth.guards
