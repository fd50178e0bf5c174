"""Whatever can stand in a file, with one field after another given: it reads back as itself, or is refused in words."""

import dataclasses
import json
import random
import types
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Union

import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import apim_middleware as apim
from apim_middleware import Api, Env, Gateway, JWTAuth, MockResponse, Pool, Proxy, RateLimit, ReturnResponse, by
from apim_middleware import conditions as when
from apim_middleware.configuration import dumps, json_schema, loads
from apim_middleware.configuration._catalogue import names
from apim_middleware.configuration._reading import parameters_of
from apim_middleware.env import default_env
from apim_middleware.errors import ConfigError
from apim_middleware.proxy.members import Members
from apim_middleware.serving.health import Drain

KEYS, USERS = apim.MemoryKeys(), apim.MemoryUsers()
NAMES: dict[str, object] = {"keys": KEYS, "users": USERS}
FORMS: tuple[Any, ...] = ("toml", "yaml", "json")
each_form = pytest.mark.parametrize("form", FORMS)

SECRET = "0123456789abcdef-0123456789abcdef"
MOMENT = datetime(2027, 1, 1, 12, 30, tzinfo=UTC)
SIGNED = apim.SignatureKey(id="a", key=SECRET.encode(), algorithm="hmac-sha256")
JWK = {"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZi0wMTIzNDU2Nzg5YWJjZGVm", "use": "sig"}
LIMIT = RateLimit(calls=1, per=60)
CLIENT = apim.ClientCredentials(token_url="https://i.example/token", client_id="a", client_secret=SECRET)
OPERATION = apim.Operation("GET", "/a")


def around(*layers: Any, **api: Any) -> Gateway:
    given = {"backend": "http://a", "subscription_required": False, "policies": layers, **api}
    return Gateway(apis=(Api("a", **given),))


def behind_a_caller(layer: Any) -> Gateway:
    """A layer where everything it may ask for is known."""
    caller = JWTAuth(issuer="https://i.example", audience="a", keys=SECRET.encode(), algorithms=("HS256",))
    key = apim.APIKeyAuth(keys=KEYS, header="x-key")
    try:
        return around(layer)
    except ConfigError:
        return around(caller, key, layer)


def token(**given: Any) -> JWTAuth:
    return JWTAuth(**{"issuer": "https://i.example", "audience": "a", "jwks_url": "https://i.example/jwks", **given})


def pool(**given: Any) -> Gateway:
    return around(backend=Proxy(Pool("http://a", "http://b", **given)))


def upstream(credential: Any) -> Gateway:
    return around(apim.UpstreamAuth(credential=credential))


def versions(*given: Any) -> Gateway:
    return around(versions=apim.Versions("path", given, default=given[0].name))


VALUES: dict[str, Any] = {
    "AccessLog": apim.AccessLog(),
    "Affinity": apim.Affinity(cookie="c"),
    "AllOf": apim.AllOf(apim.APIKeyAuth(keys=KEYS), apim.BasicAuth(users=USERS)),
    "AnyOf": apim.AnyOf(apim.APIKeyAuth(keys=KEYS), apim.BasicAuth(users=USERS)),
    "Api": Api("b", "/b", backend="http://b", subscription_required=False),
    "APIKeyAuth": apim.APIKeyAuth(keys=KEYS),
    "Authorize": apim.Authorize(scopes="a"),
    "BasicAuth": apim.BasicAuth(users=USERS),
    "BasicCredential": apim.BasicCredential(username="a", password=SECRET),
    "BearerCredential": apim.BearerCredential(token=SECRET),
    "Cache": apim.Cache(ttl=5),
    "CertificateIdentity": apim.CertificateIdentity(common_name="a"),
    "Choose": apim.Choose((when.method("GET"), LIMIT)),
    "CircuitBreaker": apim.CircuitBreaker(),
    "ClaimMatch": apim.ClaimMatch(values=("a",)),
    "ClientCertificate": apim.ClientCertificate(authorities="server", header="x-cert", trusted=("10.0.0.1",)),
    "ClientCredentials": CLIENT,
    "Compress": apim.Compress(),
    "DPoP": apim.DPoP(),
    "Deprecation": apim.Deprecation(since=MOMENT),
    "ETag": apim.ETag(),
    "Ejection": apim.Ejection(),
    "EnvironmentSecret": apim.EnvironmentSecret(name="PATH"),
    "Faults": apim.Faults(fail=0.5),
    "FileSecret": apim.FileSecret(path=__file__),
    "ForwardAuth": apim.ForwardAuth(layer=LIMIT, trusted=("10.0.0.1",)),
    "Fragment": apim.Fragment("f", (LIMIT,)),
    "Gateway": around(LIMIT),
    "HMACSignature": apim.HMACSignature(secrets=(b"\xff" * 32,)),
    "HTTPSignature": apim.HTTPSignature(keys=(SIGNED,)),
    "HeaderCredential": apim.HeaderCredential(name="x-a", value=SECRET),
    "Health": apim.Health(),
    "HealthCheck": apim.HealthCheck(),
    "Hedge": apim.Hedge(after=0.5),
    "IPFilter": apim.IPFilter(deny=("192.0.2.1",)),
    "Idempotency": apim.Idempotency(),
    "IdentityHeaders": apim.IdentityHeaders(),
    "Issuer": apim.Issuer("https://i.example"),
    "JWTAuth": token(),
    "KeyVaultSecret": apim.KeyVaultSecret(vault="https://v.vault.azure.net", name="a"),
    "LimitBody": apim.LimitBody(max_bytes=1),
    "LimitConcurrency": apim.LimitConcurrency(at_once=1),
    "LimitGuesses": apim.LimitGuesses(),
    "LimitHeaders": apim.LimitHeaders(),
    "Limits": apim.Limits(LIMIT),
    "LoadShed": apim.LoadShed(),
    "ManagedIdentity": apim.ManagedIdentity(resource="https://r.example"),
    "Member": apim.Member("http://m"),
    "Mirror": apim.Mirror(to=Proxy("http://m")),
    "MockResponse": MockResponse(),
    "NamedValue": apim.NamedValue("n", SECRET),
    "OAuth2Introspection": apim.OAuth2Introspection(
        url="https://i.example", client_id="a", client_secret=SECRET, audience="a"
    ),
    "Operation": OPERATION,
    "Pool": Pool("http://a", "http://b"),
    "Product": apim.Product("p", apis=("a",)),
    "ProtectedResource": apim.ProtectedResource(resource="https://a.example"),
    "Proxy": Proxy("http://a"),
    "Quota": apim.Quota(calls=1, period="day", by=by.client),
    "RateLimit": LIMIT,
    "ReadBody": apim.ReadBody(max_bytes=9),
    "Redirect": apim.Redirect(to="/b"),
    "RemoveHeader": apim.RemoveHeader(name="x-a", on="request"),
    "RemoveQuery": apim.RemoveQuery(name="a"),
    "RequireHeader": apim.RequireHeader(name="x-a"),
    "Retry": apim.Retry(),
    "ReturnResponse": ReturnResponse(),
    "Revision": apim.Revision(1),
    "RewriteLocation": apim.RewriteLocation(upstream="http://a"),
    "RewritePath": apim.RewritePath(match="/a", to="/b"),
    "Service": apim.Service("_http._tcp.a.internal"),
    "SetHeader": apim.SetHeader(name="x-a", value="b", on="request"),
    "SetQuery": apim.SetQuery(name="a", value="b"),
    "SignatureKey": SIGNED,
    "SetBackend": apim.SetBackend(Proxy("http://m")),
    "Split": apim.Split(Proxy("http://m"), share=0.5),
    "Stack": apim.Stack(LIMIT),
    "Timeout": apim.Timeout(seconds=1),
    "TokenExchange": apim.TokenExchange(
        token_url="https://i.example/token", client_id="a", client_secret=SECRET, subject=by.header("x-a")
    ),
    "Tracing": apim.Tracing(),
    "TrustedProxies": apim.TrustedProxies(trusted=("10.0.0.1",)),
    "UpstreamAuth": apim.UpstreamAuth(credential=CLIENT),
    "Version": apim.Version("v1"),
    "Versions": apim.Versions("path", (apim.Version("v1"),)),
    "WebSockets": apim.WebSockets(),
    "When": apim.When(when.method("GET"), LIMIT),
}
"""One of each, with as little as it takes."""

MORE: dict[str, tuple[Any, ...]] = {
    "Authorize": (apim.Authorize(subjects=("a",), issuer="https://i.example"),),
    "Cache": (apim.Cache(ttl=5, max_bytes=1 << 30),),
    "Compress": (apim.Compress(types=("text/*",)),),
    "DPoP": (apim.DPoP(algorithms=("ES256",)),),
    "ForwardAuth": (apim.ForwardAuth(layer=LIMIT, trusted=("10.0.0.1",), told_by="path", prefix="/auth"),),
    "HMACSignature": (
        apim.HMACSignature(secrets=(b"a" * 32,), signed="{timestamp}.{body}", timestamp_header="x-time"),
        apim.HMACSignature(secrets=(b"a" * 32,), parameter="v1", signed="{timestamp}.{body}", timestamp_parameter="t"),
    ),
    "JWTAuth": (token(algorithms=("ES256",)), token(token_from="query:token")),
    "KeyVaultSecret": (
        dataclasses.replace(apim.KeyVaultSecret(vault="https://v.vault.azure.net", name="a"), credential=CLIENT),
    ),
    "Quota": (
        apim.Quota(calls=1, period="day", by=by.client, zone="Europe/Paris"),
        apim.Quota(calls=1, period="day", by=by.client, tier=by.header("x-a"), tiers={"a": 2}),
    ),
    "RateLimit": (RateLimit(calls=1, per=60, tier=by.header("x-a"), tiers={"a": 2, "use": "3/minute"}),),
    "Service": (apim.Service("_http._tcp.a.internal", scheme="https"),),
    "Versions": (apim.Versions("path", (apim.Version("v1"),), default="v1"),),
}
"""Fields that make sense together only."""

NOWHERE = {"CacheValue", "Env", "Hygiene", "PublishOpenAPI", "Require", "SubApp", "User"}
"""What no field of a gateway takes; and ``Env``, which is no value, with what is in it alone."""

PLACES: dict[str, Callable[[Any], Gateway]] = {
    "Affinity": lambda it: pool(affinity=it),
    "Api": lambda it: Gateway(apis=(it,)),
    "CertificateIdentity": lambda it: around(
        apim.ClientCertificate(authorities="server", header="x-cert", trusted=("10.0.0.1",), identities=(it,))
    ),
    "CircuitBreaker": lambda it: pool(breaker=it),
    "ClaimMatch": lambda it: around(token(required_claims={"a": it, ("b", "c"): 1})),
    "DPoP": lambda it: around(token(dpop=it)),
    "Deprecation": lambda it: around(deprecation=it, operations=(dataclasses.replace(OPERATION, deprecation=it),)),
    "Ejection": lambda it: pool(ejection=it),
    "EnvironmentSecret": lambda it: upstream(apim.BearerCredential(token=it)),
    "FileSecret": lambda it: upstream(apim.BearerCredential(token=it)),
    "ForwardAuth": lambda it: around(backend=it),
    "Gateway": lambda it: it,
    "HealthCheck": lambda it: pool(health=it),
    "Hedge": lambda it: around(backend=Proxy(VALUES["Pool"], hedge=it)),
    "Issuer": lambda it: around(token(issuer=(it, "https://j.example"), jwks_url=None)),
    "KeyVaultSecret": lambda it: upstream(apim.BearerCredential(token=it)),
    "LimitHeaders": lambda it: around(RateLimit(calls=1, per=60, headers=it)),
    "Member": lambda it: around(backend=Pool(it, "http://b")),
    "NamedValue": lambda it: around(apim.SetHeader(name="x-a", value=it, on="request")),
    "Operation": lambda it: around(operations=(it,)),
    "Pool": lambda it: around(backend=it),
    "Product": lambda it: Gateway(apis=around().apis, products=(it,), keys=KEYS),
    "Proxy": lambda it: around(backend=it),
    "Retry": lambda it: around(backend=Proxy("http://a", retry=it)),
    "Revision": lambda it: around(revisions=(it, apim.Revision(9)), revision=9),
    "Service": lambda it: around(backend=Pool(it, "http://b")),
    "SignatureKey": lambda it: around(apim.HTTPSignature(keys=(it,))),
    "Version": lambda it: versions(it, apim.Version("v9")),
    "Versions": lambda it: around(versions=it),
    "WebSockets": lambda it: around(backend=Proxy("http://a", websockets=it)),
    **dict.fromkeys(("BasicCredential", "BearerCredential", "ClientCredentials", "HeaderCredential"), upstream),
    **dict.fromkeys(("ManagedIdentity", "TokenExchange"), upstream),
}
"""Where it stands, if that is not among the policies of an API."""

KEPT: dict[Any, tuple[Any, ...]] = {
    str: (
        "x-b",
        "ab" * 32,
        "https://b.example/x",
        "/b",
        "GET",
        SECRET,
        "a b",
        "v2",
        "10.0.0.2",
        "$x ${PATH}\n\x00\u2028é🦆",
    ),
    bytes: (SECRET.encode(), b"\xff\x00" * 16),
    bool: (True, False),
    int: (1, 2, 20, 3000, 404, HTTPStatus.ACCEPTED),
    float: (0.25, 2.5, 60, 3600.0),
    datetime: (MOMENT,),
    object: ({"a": [1, None, {"use": "RateLimit"}]}, {"use": "RateLimit"}, ["a"], ("a",), Proxy("http://o"), 1.5),
    Any: ({"a": [True]}, {"ref": "keys"}, "a"),
    type(None): (None,),
}
FUNCTIONS = (
    by.client, by.header("x-a"), by.either(by.principal, by.client), when.method("GET"), when.status("5xx"),
    apim.RemoveHeader(name="x-a", on="request"), Proxy("http://f"), random.random, lambda *given: "a",
)  # fmt: skip


def some(hint: Any) -> Iterator[Any]:
    """Values that fit an annotation, whether or not they make sense."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        for each in args:
            yield from some(each)
    elif origin is Literal:
        yield from args
    elif origin is tuple:
        parts = [list(some(each)) for each in args if each is not Ellipsis]
        yield from map(tuple, zip(*parts, strict=False))
        yield from ((parts[0][0], parts[0][-1]) for _ in parts[:1] if parts[0])
    elif origin is frozenset:
        yield frozenset(some(args[0]))
    elif getattr(origin, "__name__", "") == "Mapping":
        yield from ({key: value} for key, value in zip(cycle(some(args[0])), some(args[1]), strict=False))
        yield from (JWK, {"ref": "a"}, {"use": "a"}, {"base64": "a"}, {"function": "a"})
    elif getattr(origin, "__name__", "") == "Callable":
        yield from FUNCTIONS
    elif isinstance(hint, type) and hint.__name__ in VALUES:
        yield VALUES[hint.__name__]
    else:
        yield from KEPT.get(hint, ())


@cache
def variants(name: str) -> tuple[tuple[set[str], Gateway], ...]:
    return tuple(_variants(name))


def _variants(name: str) -> Iterator[tuple[set[str], Gateway]]:
    """Gateways with one of this class, its fields given one after the other; they are named."""
    value = VALUES[name]
    hints, several = parameters_of(type(value))
    single = [(field, given) for field, hint in hints.items() if field != several for given in some(hint)]
    made = (_with(value, field, given, several) for field, given in single if dataclasses.is_dataclass(value))
    for each in (value, *MORE.get(name, ()), *made):
        if (gateway := _placed(name, each)) is not None:
            yield {field for field in hints if getattr(each, field) is not getattr(value, field)}, gateway


def _with(value: Any, field: str, given: Any, several: str) -> Any:
    """The same value with another field, or None where that makes no sense."""
    try:
        if not several:
            return dataclasses.replace(value, **{field: given})
        return type(value)(*getattr(value, several), **{field: given})
    except Exception:  # whatever it makes of nonsense
        return None


def _placed(name: str, value: Any) -> Gateway | None:
    try:
        return None if value is None else PLACES.get(name, behind_a_caller)(value)
    except Exception:
        return None


def written(gateway: Gateway, form: Any, **names: object) -> str | None:
    """The text of a gateway, which reads back as an equal one; None for one that is refused."""
    known = {**NAMES, **names}
    try:
        text = dumps(gateway, form, names=known, secrets=True)
    except ConfigError as error:
        assert error.cure  # noqa: PT017 - most of them are written
        assert "gateway" in str(error)  # noqa: PT017
        return None
    again = loads(text, form, names=known)
    assert again == gateway, text
    assert dumps(again, form, names=known, secrets=True) == text
    return text


@cache
def texts(name: str, form: Any) -> tuple[str | None, ...]:
    """What is written of each of its variants."""
    return tuple(written(gateway, form) for _, gateway in variants(name))


def refused(gateway: Gateway, form: Any = "toml", **given: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        dumps(gateway, form, names=NAMES, **given)
    return str(raised.value)


def test_there_is_a_value_of_every_class_that_files_can_name() -> None:
    stores = {name for name in names() if name.startswith(("Memory", "SQLite", "Redis", "Limits", "Record", "Http"))}
    assert set(names()) - (stores - {"Limits"}) - NOWHERE == set(VALUES)


def test_nearly_every_field_is_given_in_one_of_them() -> None:
    given = {(name, field) for name in VALUES for fields, _ in variants(name) for field in fields}
    every = {(name, field) for name, value in VALUES.items() for field in parameters_of(type(value))[0]}
    assert len(given) > 0.85 * len(every)


@pytest.mark.parametrize("name", VALUES)
def test_whatever_is_written_reads_back_as_itself(name: str) -> None:
    found = [texts(name, form) for form in FORMS]
    assert all(first for first, *_ in found)
    assert sum(text is not None for each in found for text in each) > sum(map(len, found)) / 2


# One by one

PEM = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
"""
PUBLIC_JWK = {
    "kty": "EC", "crv": "P-256", "use": "sig", "kid": "a",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}  # fmt: skip
SECRETS: dict[str, Callable[[], Any]] = {
    "in a tuple": lambda: apim.HMACSignature(secrets=(SECRET.encode(),)),
    "in another policy": lambda: apim.AnyOf(apim.HMACSignature(secrets=(SECRET.encode(),))),
    "of a header that is required": lambda: apim.RequireHeader(name="x-a", values=(SECRET,)),
    "among keys": lambda: token(keys=(PEM, SECRET.encode()), jwks_url=None, algorithms=("HS256", "ES256")),
    "in a JWK": lambda: token(keys=JWK, jwks_url=None, algorithms=("HS256",)),
    "in a set of JWKs": lambda: token(keys={"keys": [PUBLIC_JWK, JWK]}, jwks_url=None, algorithms=("HS256", "ES256")),
    "of an issuer": lambda: token(
        issuer=apim.Issuer("a", keys=(SECRET.encode(),)), jwks_url=None, algorithms=("HS256",)
    ),
    "among the values of a header": lambda: apim.SetHeader(name="x-a", value=("a", SECRET), on="request"),
    "among those of a parameter": lambda: apim.SetQuery(name="a", value=(SECRET,)),
    "of an affinity": lambda: apim.Mirror(
        to=Proxy(Pool("http://a", affinity=apim.Affinity(cookie="c", secret=SECRET)))
    ),
    "among parameters": lambda: apim.UpstreamAuth(
        credential=dataclasses.replace(
            CLIENT, client_secret=VALUES["EnvironmentSecret"], parameters={"password": SECRET}
        )
    ),
}


@each_form
@pytest.mark.parametrize("layer", SECRETS.values(), ids=SECRETS)
def test_what_may_be_a_secret_is_refused_however_deep_it_is(layer: Callable[[], Any], form: Any) -> None:
    told = refused(behind_a_caller(layer()), form)
    assert "may hold a secret" in told
    assert "secrets=True" in told
    assert SECRET[:8] not in told


@each_form
@pytest.mark.parametrize("keys", [PEM, PUBLIC_JWK, (PEM, PUBLIC_JWK), {"keys": [PUBLIC_JWK]}])
def test_public_keys_are_no_secrets(keys: Any, form: Any) -> None:
    gateway = around(token(keys=keys, jwks_url=None, algorithms=("ES256",)))
    assert loads(dumps(gateway, form), form) == gateway


@each_form
def test_references_to_secrets_are_none(form: Any) -> None:
    gateway = upstream(apim.BearerCredential(token=VALUES["EnvironmentSecret"]))
    assert loads(dumps(gateway, form), form) == gateway


@each_form
def test_a_named_value_that_is_no_secret_is_written(form: Any) -> None:
    gateway = around(
        apim.SetHeader(name="x-region", value=apim.NamedValue("region", "north", secret=False), on="request")
    )
    assert loads(dumps(gateway, form), form) == gateway


@each_form
@pytest.mark.parametrize("function", [by.client, by.header("x-a"), by.either(by.principal, by.header("x-b"))])
def test_a_function_among_texts_stays_one(function: Any, form: Any) -> None:
    gateway = around(
        apim.SetHeader(name="x-a", value=function, on="request"),
        apim.SetQuery(name="a", value=function),
        ReturnResponse(body=function),
    )
    assert loads(dumps(gateway, form), form) == gateway
    text = around(apim.SetHeader(name="x-a", value="by.client", on="request"))
    assert loads(dumps(text, form, secrets=True), form) == text


def test_a_function_that_has_a_name_is_imported_among_texts() -> None:
    text = dumps(around(apim.SetQuery(name="a", value=by.client)))
    assert 'import = "apim_middleware.by:client"' in text


@each_form
@pytest.mark.parametrize("body", ["abc", b"abc", b"\xff", "", b"\x00"])
def test_bytes_and_text_stay_apart(body: Any, form: Any) -> None:
    again = loads(dumps(around(ReturnResponse(body=body)), form, secrets=True), form)
    assert again.apis[0].policies[0].body == body  # type: ignore[attr-defined]


@each_form
def test_a_path_of_claims_is_written_as_a_pair(form: Any) -> None:
    gateway = around(token(required_claims={("a", "b"): ("x",), "use": True}))
    assert loads(dumps(gateway, form), form) == gateway


@pytest.mark.parametrize("pairs", [[["a"]], ["ab"], [1], [["a", 1], ["a", 2]], [[{"use": "RateLimit"}, 1]]])
def test_what_is_no_list_of_pairs_is_a_mistake(pairs: Any) -> None:
    policy = {"use": "JWTAuth", "issuer": "a", "audience": "a", "required_claims": pairs}
    with pytest.raises(ConfigError, match="required_claims"):
        loads(json.dumps({"apis": [], "policies": [policy]}), "json")


def test_what_a_format_cannot_say_is_refused_where_it_stands() -> None:
    body = "gateway.apis[0].policies[0].body"
    assert f'{body}.a[1]: is None, which TOML cannot say. Write it as "yaml"' in refused(
        around(MockResponse(body={"a": [1, None]}))
    )
    assert f"{body}: has the key 'use'" in refused(around(MockResponse(body={"use": "RateLimit"})))
    assert f"{body}.a: is a tuple" in refused(around(MockResponse(body={"a": (1,)})))
    assert "is nested too deep" in refused(around(MockResponse(body=_nested(70))))
    assert "is nested too deep" in refused(around(MockResponse(body=_nested(200))))
    assert "half a character" in refused(around(title="\ud800"), "json")


def _nested(depth: int) -> list[Any]:
    return [_nested(depth - 1)] if depth else []


def test_a_path_of_files_is_to_be_given_as_text() -> None:
    told = refused(upstream(apim.BearerCredential(token=apim.FileSecret(path=Path(__file__)))))
    assert "Give it as text" in told


KEYS_OF_DATA = st.sampled_from(["use", "ref", "a", "é"])
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS_OF_DATA, inner, max_size=3),
    max_leaves=6,
)


@given(DATA)
def test_any_data_reads_back_as_itself_or_is_refused(body: Any) -> None:
    try:
        gateway = around(MockResponse(body=body))
    except ConfigError:
        return
    for form in FORMS:
        written(gateway, form)


@given(st.text())
@example("\x85 \u2028 \u2029 \ufeff \x7f \r\n\t \x00 $ ${A} 2027-01-01 on")
def test_any_text_reads_back_as_itself_or_is_refused(text: str) -> None:
    for form in FORMS:
        assert written(around(title=text, tags=(text, text)), form) is not None


# Pools and environments


@each_form
def test_the_members_of_a_pool_are_written_one_by_one(form: Any) -> None:
    gateway = around(
        backend=Pool("http://a", apim.Member("http://b", weight=2), key=by.client, balance="consistent-hash")
    )
    assert loads(dumps(gateway, form), form) == gateway
    assert json.loads(dumps(gateway, "json"))["apis"][0]["backend"]["members"][0] == "http://a"


@each_form
def test_members_that_are_shared_are_written_by_their_name(form: Any) -> None:
    members = Members("http://a")
    gateway = around(backend=Pool(members))
    assert "names=" in refused(gateway, form)
    assert written(gateway, form, members=members) is not None


@each_form
def test_a_drain_is_written_by_its_name_and_left_out_while_it_is_new(form: Any) -> None:
    drain = Drain()
    gateway = around(apim.Health(drain=drain))
    assert "drain" not in dumps(gateway, form)
    text = dumps(gateway, form, names={"drain": drain})
    assert loads(text, form, names={"drain": drain}).apis[0].policies[0].drain is drain  # type: ignore[attr-defined]
    drain.begin()
    assert ".drain: is a Drain" in refused(gateway, form)


@each_form
def test_an_environment_is_written_as_what_it_was_given(form: Any) -> None:
    counters, hygiene = apim.MemoryCounters(max_keys=7000), apim.Hygiene(max_fields=50)
    gateway = Gateway(apis=around(LIMIT).apis, env=Env(place="shop", counters=counters, hygiene=hygiene))
    names = {"counters": counters}
    text = dumps(gateway, form, names=names)
    again = loads(text, form, names=names)
    assert again.env is not None
    assert again.env.place == "shop"
    assert again.env.counters(apim.MemoryCounters) is counters
    assert dataclasses.replace(again, env=None) == dataclasses.replace(gateway, env=None)
    assert dumps(again, form, names=names) == text
    assert ".env.counters: is a MemoryCounters" in refused(gateway, form)


@each_form
def test_what_an_environment_has_made_itself_is_left_out(form: Any) -> None:
    gateway = Gateway(apis=around(LIMIT, apim.Cache(ttl=5)).apis, env=Env(place="shop"))
    assert json.loads(dumps(gateway, "json"))["env"] == {"use": "Env", "place": "shop"}
    stack = around(apim.Stack(LIMIT, env=Env(place="b")), backend=Proxy("http://a", env=Env(place="c")))
    text = dumps(stack, form)
    assert dumps(loads(text, form), form) == text


@each_form
def test_the_environment_of_the_process_stays_it(form: Any) -> None:
    gateway = Gateway(apis=around(LIMIT).apis, env=default_env)
    assert loads(dumps(gateway, form), form) == gateway


def test_one_moment_can_stand_in_several_places() -> None:
    ended = apim.Deprecation(since=MOMENT, sunset=MOMENT)
    for form in FORMS:
        assert written(around(deprecation=ended), form) is not None


def test_a_reference_says_where_its_object_can_be_given() -> None:
    with pytest.raises(ConfigError, match=r"names=, or on the command line with --names module:attribute"):
        loads('keys = { ref = "keys" }')


@pytest.mark.parametrize("document", ['use = "RateLimit"\ncalls = 1\nper = 1', 'import = "os:path"', 'import = ".a:b"'])
def test_a_file_of_something_else_is_a_mistake(document: str) -> None:
    with pytest.raises(ConfigError):
        loads(document)


def test_what_is_no_gateway_is_not_written() -> None:
    with pytest.raises(ConfigError, match="is not Gateway"):
        dumps(LIMIT)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["!", 1, None, "YQ"])
def test_what_is_no_base64_is_a_mistake_that_does_not_show_it(wrong: Any) -> None:
    policy = {"use": "IdentityHeaders", "key": {"base64": wrong}}
    with pytest.raises(ConfigError, match=r"policies\[0\]\.key: a table of base64 holds no base64"):
        loads(json.dumps({"apis": [], "policies": [policy]}), "json")


# The schema


def test_whatever_is_written_is_valid() -> None:
    validator = jsonschema_rs.validator_for(json_schema())
    for name in VALUES:
        for text in filter(None, texts(name, "json")):
            validator.validate(json.loads(text))


def test_the_schema_says_of_parameters_what_is_said_where_they_are_made() -> None:
    kinds = json_schema()["$defs"]
    assert "Unix socket" in kinds["use-Http1Transport"]["properties"]["uds"]["description"]
    assert "in the file at ``path``" in kinds["use-SQLiteCounters"]["properties"]["path"]["description"]


def test_the_schema_describes_every_field() -> None:
    kinds = {name: kind["properties"] for name, kind in json_schema()["$defs"].items() if "properties" in kind}
    mute = {(name, field) for name, fields in kinds.items() for field in fields if "description" not in fields[field]}
    assert {(name, field) for name, field in mute if field != "use" and name != field} == set()
