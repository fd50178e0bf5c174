"""What a token says, read strictly and judged by pure rules."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._jose.rules import ClaimMatch, Rules, demand
from apim_middleware._jose.tokens import BadToken, claims_in, frozen, parsed, take_apart

from .issuer import AUDIENCE, ISSUER, NOW, as_json, claims, encoded, forged, token


def rules(**changed: Any) -> Rules:
    usual: dict[str, Any] = {
        "audiences": {ISSUER: frozenset({AUDIENCE})},
        "required": {},
        "subject_claim": "sub",
        "leeway": 0,
    }
    return Rules(**{**usual, **changed})


def reason(payload: object, *, now: float = NOW, **changed: Any) -> str:
    """Why claims are not believed; empty when they are."""
    try:
        rules(**changed).believe(claims_in(as_json(payload)), now)
    except BadToken as bad:
        return bad.reason
    return ""


def test_an_honest_token_is_taken_apart() -> None:
    signed = take_apart(token(kid="k1"))
    assert (signed.algorithm, signed.kid, signed.type) == ("RS256", "k1", "jwt")
    assert json.loads(signed.payload) == claims()
    assert token(kid="k1").startswith(signed.signed)


def test_a_second_spelling_of_the_same_bytes_is_refused() -> None:
    """The second of two characters has four bits to spare."""
    head = encoded(b'{"alg":"RS256"}') + b".e30."
    assert take_apart(head + b"AA").signature == b"\0"
    with pytest.raises(BadToken):
        take_apart(head + b"AB")


HONEST = {"alg": "RS256", "typ": "JWT"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b".",
        b"..",
        b"a.b",
        b"." * 1000,
        b"a.b.c.d.e",
        b"a.b.c\n",
        b" " + token(),
        token() + b"=",
        token() + b".",
        token().replace(b".", b"!."),
        token()[:-1] + b"+",
        token().rsplit(b".", 1)[0] + b".",
        b"\xff\xfe.\x00.x",
        "\uff41.\uff42.\uff43".encode(),
        b"A.AA.AA",
        b"AB.AA.AA",  # two spellings of one byte
        encoded(b"{}") + b"." + encoded(b"{}") + b"." + encoded(b"x"),
    ],
)
def test_what_is_no_compact_token_is_refused(text: bytes) -> None:
    with pytest.raises(BadToken):
        take_apart(text)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"null",
        b'"alg"',
        b"\xef\xbb\xbf" + as_json(HONEST),
        as_json(HONEST).decode().encode("utf-16"),
        b'{"alg":"RS256","alg":"none"}',
        b'{"alg":"RS256","x":{"a":1,"a":2}}',
        b'{"alg":"RS256","x":NaN}',
        b'{"alg":"RS256","x":-Infinity}',
        b'{"alg":"RS256","x":1e400}',
        b'{"alg":"RS256",}',
        b"[" * 20_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"alg":"RS256","x":' + b"[" * 32 + b"]" * 32 + b"}",
        b'{"alg":"RS256","x":' + b'{"a":' * 2400 + b"1" + b"}" * 2401,  # Python 3.13 reads it, older ones do not
        {},
        {"alg": None},
        {"alg": ["RS256"]},
        {"alg": 256},
        {"alg": {"RS256": 1}},
        {**HONEST, "kid": 1},
        {**HONEST, "kid": None},
        {**HONEST, "kid": {"$ne": ""}},
        {**HONEST, "kid": ["a"]},
        {**HONEST, "typ": 1},
        {**HONEST, "crit": []},
        {**HONEST, "crit": ["exp"]},
        {**HONEST, "crit": ["b64"], "b64": False},
        {**HONEST, "crit": "b64"},
        {**HONEST, "crit": None},
        {**HONEST, "b64": False},
    ],
)
def test_headers_that_could_be_read_two_ways_or_ask_for_more_are_refused(header: object) -> None:
    with pytest.raises(BadToken):
        take_apart(forged(header, claims()))


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_apart_or_refused(text: bytes) -> None:
    with suppress(BadToken):
        take_apart(text)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_header_and_payload_are_read_or_refused(header: bytes, payload: bytes) -> None:
    for data in (header, b'{"alg":"RS256",' + header, b'{"exp":' + payload + b"}"):
        with suppress(BadToken):
            frozen(parsed(data))


def test_whom_a_token_speaks_of_and_until_when() -> None:
    principal, expires = rules().believe(claims_in(as_json(claims(scope="a b", scp=["c"]))), NOW)
    assert (principal.subject, principal.issuer, expires) == ("ada", ISSUER, NOW + 600)
    assert principal.scopes == {"a", "b", "c"}


@pytest.mark.parametrize("value", [str(NOW + 600), True, [NOW + 600], {}, "", "NaN", {"exp": NOW + 600}])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_times_must_be_numbers(name: str, value: object) -> None:
    assert reason(claims(**{name: value})) == "claims"


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"1e400", b"-1e400", b"1" * 5000, b"01", b"0x10"])
@pytest.mark.parametrize("name", [b"exp", b"nbf", b"iat"])
def test_times_must_be_numbers_that_exist(name: bytes, text: bytes) -> None:
    rest = as_json({key: value for key, value in claims().items() if key.encode() != name})
    assert reason(rest[:-1] + b',"' + name + b'":' + text + b"}") == "malformed"


@pytest.mark.parametrize(
    ("changed", "leeway", "expected"),
    [
        ({"exp": None}, 0, "claims"),
        ({"exp": NOW}, 0, "expired"),
        ({"exp": NOW + 0.5}, 0, ""),
        ({"exp": NOW - 10}, 10, "expired"),
        ({"exp": NOW - 9}, 10, ""),
        ({"exp": -1}, 300, "expired"),
        ({"exp": 10**300}, 0, ""),
        ({"exp": 10**4000}, 0, ""),
        ({"exp": -(10**4000)}, 0, "expired"),
        ({"nbf": NOW}, 0, ""),
        ({"nbf": NOW + 1}, 0, "early"),
        ({"nbf": NOW + 10}, 10, ""),
        ({"nbf": NOW + 11}, 10, "early"),
        ({"iat": NOW + 1}, 0, "early"),
        ({"iat": NOW + 10}, 10, ""),
        ({"nbf": None, "iat": None}, 0, ""),
    ],
)
def test_a_token_has_begun_and_not_ended(changed: dict[str, Any], leeway: float, expected: str) -> None:
    present = {**claims(), **changed}
    assert reason({name: value for name, value in present.items() if value is not None}, leeway=leeway) == expected


@pytest.mark.parametrize(
    "issuer",
    [None, "", ISSUER + "/", ISSUER.upper(), ISSUER[:-1], ISSUER + ".evil", [ISSUER], {"a": ISSUER}, 1, True],
)
def test_the_issuer_is_compared_character_for_character(issuer: object) -> None:
    assert reason(claims(iss=issuer)) == "issuer"


@pytest.mark.parametrize(
    "audience",
    [
        None,
        "",
        AUDIENCE + "/",
        AUDIENCE.upper(),
        AUDIENCE[:-1],
        f"{AUDIENCE} other",
        [],
        [AUDIENCE + "x"],
        [AUDIENCE, 1],
        [[AUDIENCE]],
        {"a": AUDIENCE},
        1,
        True,
    ],
)
def test_the_audience_is_compared_character_for_character(audience: object) -> None:
    assert reason(claims(aud=audience)) in ("audience", "claims")


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
def test_one_of_several_audiences_is_enough(audience: object) -> None:
    assert not reason(claims(aud=audience))


@pytest.mark.parametrize("subject", [None, "", 1, ["ada"], {"sub": "ada"}, True])
def test_a_token_names_its_caller(subject: object) -> None:
    assert reason(claims(sub=subject)) == "subject"


def test_another_claim_may_name_the_caller() -> None:
    principal, _ = rules(subject_claim="client_id").believe(
        claims_in(as_json(claims(sub=None, client_id="robot"))), NOW
    )
    assert principal.subject == "robot"


@pytest.mark.parametrize(
    ("accepted", "value", "holds"),
    [
        (("a",), "a", True),
        (("a",), "A", False),
        (("a",), "ab", False),
        (("a",), None, False),
        (("a",), ["b", "a"], True),
        (("a",), ["b"], False),
        (("a",), [["a"]], False),
        (("a",), {"a": "a"}, False),
        (("a", "b"), "b", True),
        ((True,), True, True),
        ((True,), 1, False),
        ((True,), "true", False),
        ((1,), True, False),
        ((1,), 1, True),
        ((1,), 1.0, True),
        ((1,), "1", False),
    ],
)
def test_a_required_claim_has_an_accepted_value(accepted: tuple[Any, ...], value: object, holds: bool) -> None:
    found = reason(claims(role=value), required={("role",): demand(accepted)})
    assert (found == "") is holds


@pytest.mark.parametrize(
    ("given_claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "a b"}, {"a", "b"}),
        ({"scope": " a  b "}, {"a", "b"}),
        ({"scope": "a\u2003b"}, {"a\u2003b"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b c"]}, {"a", "b c"}),
        ({"scope": "a", "scp": ["b"]}, {"a", "b"}),
    ],
)
def test_scopes_are_read_from_either_claim(given_claims: dict[str, Any], scopes: set[str]) -> None:
    principal, _ = rules().believe(claims_in(as_json(claims(**given_claims))), NOW)
    assert principal.scopes == scopes


@pytest.mark.parametrize("value", [1, True, {"a": 1}, [1], [["a"]]])
def test_scopes_of_another_shape_are_refused(value: object) -> None:
    assert reason(claims(scope=value)) == "claims"


@pytest.mark.parametrize("payload", [b"", b"[]", b"1", b"null", b'"{}"', b"{", b"\xff", forged(HONEST, claims())])
def test_claims_are_a_json_object(payload: bytes) -> None:
    assert reason(payload) == "malformed"


@pytest.mark.parametrize(
    "more",
    [b'"sub":"eve"', b'"aud":"x"', b'"a":[{"b":1,"b":1}]', b'"s\\u0075b":"eve"'],
    ids=["sub", "aud", "in", "esc"],
)
def test_claims_named_twice_are_refused(more: bytes) -> None:
    assert reason(as_json(claims())[:-1] + b"," + more + b"}") == "malformed"


@pytest.mark.parametrize("text", [b'"\\ud800"', b'["\\udfff"]', b'{"\\ud800":1}', b'{"a":["b\\ud83d"]}'])
def test_half_a_surrogate_pair_is_refused(text: bytes) -> None:
    assert reason(as_json(claims())[:-1] + b',"name":' + text + b"}") == "malformed"


def test_text_beyond_ascii_is_kept() -> None:
    principal, _ = rules().believe(claims_in(as_json(claims(sub="Zoë \U0001f600"))), NOW)
    assert principal.subject == "Zoë \U0001f600"


@pytest.mark.parametrize("depth", [33, 900, 20_000])
def test_deep_claims_are_refused(depth: int) -> None:
    for opened, closed in ((b"[", b"]"), (b'{"a":', b"}")):
        payload = as_json(claims())[:-1] + b',"x":' + opened * depth + b"1" + closed * depth + b"}"
        assert reason(payload) == "malformed"


def test_claims_cannot_be_changed_at_any_depth() -> None:
    principal, _ = rules().believe(claims_in(as_json(claims(roles=["a"], address={"city": {"name": "Linz"}}))), NOW)
    assert principal.claims["roles"] == ("a",)
    targets: list[Any] = [principal.claims, principal.claims["address"], principal.claims["address"]["city"]]
    for target in targets:
        with pytest.raises(TypeError):
            target["sub"] = "eve"
    with pytest.raises(AttributeError):
        principal.subject = "eve"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wanted", "value", "good"),
    [
        (ClaimMatch(values=("a", "b")), ["a", "b", "c"], True),
        (ClaimMatch(values=("a", "b")), ["a", "c"], False),
        (ClaimMatch(values=("a", "b"), match="any"), ["c", "b"], True),
        (ClaimMatch(values=("a", "b"), match="any"), ["c"], False),
        (ClaimMatch(values=("a", "b"), separator=" "), "b a", True),
        (ClaimMatch(values=("a", "b"), separator=","), "b a", False),
        (ClaimMatch(values=("a",), separator=" "), ["a b"], False),
        (ClaimMatch(values=("a b",)), "a b", True),
        (ClaimMatch(values=("a",)), "ab", False),
        (ClaimMatch(values=("a",)), "A", False),
        (ClaimMatch(values=("a.*",)), "abc", False),
        (ClaimMatch(values=(1,)), [True], False),
        (ClaimMatch(values=(True,)), True, True),
        (ClaimMatch(), "whatever", True),
        (ClaimMatch(), False, True),
        (ClaimMatch(), None, False),
        (ClaimMatch(values=("a",)), {"a": 1}, False),
        (ClaimMatch(values=("a",)), [["a"]], False),
    ],
)
def test_claims_match_all_or_any_of_the_values(wanted: ClaimMatch, value: object, good: bool) -> None:
    found = reason({**claims(), "role": value} if value is not None else claims(), required={("role",): demand(wanted)})
    assert found == ("" if good else "claim-value")


def test_a_claim_within_others_is_found_by_its_steps() -> None:
    required = {("realm_access", "roles"): demand("admin")}
    assert reason(claims(realm_access={"roles": ["admin"]}), required=required) == ""
    assert reason(claims(realm_access="admin"), required=required) == "claim-value"
    assert reason({**claims(), "realm_access.roles": "admin"}, required=required) == "claim-value"


@pytest.mark.parametrize(
    ("named", "good"),
    [
        ({"azp": "app"}, True), ({"client_id": "app"}, True), ({"appid": "app"}, True),
        ({"azp": "app", "client_id": "app"}, True), ({"azp": "app", "client_id": "evil"}, False),
        ({"azp": "evil"}, False), ({}, False), ({"azp": ["app"]}, False), ({"azp": {"app": 1}}, False),
    ],
)  # fmt: skip
def test_the_application_a_token_was_issued_to_counts(named: dict[str, Any], good: bool) -> None:
    assert reason(claims(**named), clients=frozenset({"app", "other"})) == ("" if good else "client")


@pytest.mark.parametrize("missing", ["client_id", "jti", "iat"])
def test_an_access_token_has_all_its_claims(missing: str) -> None:
    """RFC 9068 §2.2."""
    whole = claims(client_id="app", jti="1")
    assert reason(whole, access_tokens=True) == ""
    del whole[missing]
    assert reason(whole, access_tokens=True) == "claims"


def test_each_issuer_has_its_own_audience() -> None:
    audiences = {ISSUER: frozenset({"a"}), "https://other.example": frozenset({"b"})}
    assert reason(claims(aud="a"), audiences=audiences) == ""
    assert reason(claims(aud="b"), audiences=audiences) == "audience"
    assert reason(claims(aud="b", iss="https://other.example"), audiences=audiences) == ""


def test_an_encrypted_token_is_told_apart_from_a_broken_one() -> None:
    for text, why in ((b"a.b.c.d.e", "encrypted"), (b"a.b.c.d", "malformed")):
        with pytest.raises(BadToken) as caught:
            take_apart(text)
        assert caught.value.reason == why
