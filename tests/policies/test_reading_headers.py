"""A policy is not told to read a request header that hygiene keeps from it: every request would be judged wrongly."""

from collections.abc import Callable

import pytest

from apim_middleware import (
    APIKeyAuth,
    Authorize,
    Cache,
    Choose,
    Env,
    Gateway,
    HMACSignature,
    HTTPSignature,
    Hygiene,
    JWTAuth,
    LimitGuesses,
    Limits,
    MemoryKeys,
    OAuth2Introspection,
    Quota,
    RateLimit,
    RequireHeader,
    SetHeader,
    SignatureKey,
    Stack,
    When,
    _unseen_reads,
    by,
    conditions,
)
from apim_middleware.errors import ConfigError
from apim_middleware.identity import Subscription
from apim_middleware.model import Api, Version, Versions
from apim_middleware.policy import Policy
from apim_middleware.stores.keys import key_digest
from apim_middleware.testing import call
from apim_middleware.types import Receive, Scope, Send

KEY = "k" * 43
SECRET = b"0123456789abcdef0123456789abcdef"
SIGNERS = (SignatureKey(id="one", key=SECRET, algorithm="hmac-sha256"),)
FIRST = RateLimit(calls=1, per=1)
KEPT = Env(hygiene=Hygiene(odd_names="keep", strip=()))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def keys() -> MemoryKeys:
    store = MemoryKeys()
    store.add(Subscription(id="one"), primary=key_digest(KEY))
    return store


def jwt(name: str) -> JWTAuth:
    return JWTAuth(
        issuer="i", audience="a", keys=SECRET, algorithms=("HS256",), token_from=("query:token", f"header:{name}")
    )


def introspection(name: str) -> OAuth2Introspection:
    return OAuth2Introspection(
        url="https://as.example/i", client_id="a", client_secret="b", audience="c", token_from=f"header:{name}"
    )


def signed_at(name: str) -> HMACSignature:
    return HMACSignature(secrets=(SECRET,), signed="{timestamp}.{body}", timestamp_header=name)


NAMED: dict[str, Callable[[str], Policy]] = {
    "APIKeyAuth.header": lambda name: APIKeyAuth(keys=keys(), header=name),
    "JWTAuth.token_from": jwt,
    "OAuth2Introspection.token_from": introspection,
    "RequireHeader.name": lambda name: RequireHeader(name=name),
    "HMACSignature.header": lambda name: HMACSignature(secrets=(SECRET,), header=name),
    "HMACSignature.timestamp_header": signed_at,
    "HTTPSignature.covered": lambda name: HTTPSignature(keys=SIGNERS, covered=("@method", name)),
}
"""Policies that are given a name, by the field it is given in."""

ASKED: dict[str, Callable[[str], Policy]] = {
    "RateLimit.by": lambda name: RateLimit(calls=1, per=1, by=by.header(name)),
    "RateLimit.tier": lambda name: RateLimit(calls=1, per=1, tiers={"a": 2}, tier=by.header(name)),
    "RateLimit.count_when": lambda name: RateLimit(calls=1, per=1, count_when=conditions.header(name)),
    "Quota.by": lambda name: Limits(FIRST, Quota(calls=1, per=1, by=by.both(by.client, by.header(name)))),
    "LimitGuesses.by": lambda name: LimitGuesses(by=by.either(by.header(name), by.client)),
    "Cache.vary_by": lambda name: Cache(vary_by=(by.cookie("theme"), by.header(name))),
    "SetHeader.value": lambda name: SetHeader(name="x-seen", value=by.header(name), on="request"),
    "Authorize.when": lambda name: Authorize(when=conditions.not_(conditions.header(name))),
    "When.condition": lambda name: When(conditions.all_of(conditions.header(name), by.client), FIRST),
    "Choose.branches": lambda name: Choose((by.route(a=conditions.header(name)), FIRST)),
}
"""Policies that are given a key or a condition, in whatever it is wrapped."""


CREDENTIALS = [field for field in NAMED if not field.startswith("RequireHeader")]


@pytest.mark.parametrize("name", ["x_tenant", "x-original-url"])
@pytest.mark.parametrize("field", CREDENTIALS)
def test_a_credential_in_what_hygiene_takes_out_is_a_mistake_where_the_rules_say_so(field: str, name: str) -> None:
    """Who had the right key would be told that it is missing."""
    made = NAMED[field](name)
    with pytest.raises(ConfigError, match=f"asks for the header {name}, which hygiene takes out") as caught:
        Stack(made)(app)
    assert f"{caught.value.policy}.{caught.value.field}" == field
    Stack(made, env=KEPT)(app)


@pytest.mark.parametrize("name", ["x_tenant_one", "x-original-url"])
@pytest.mark.parametrize("field", ["RequireHeader.name", *ASKED])
def test_what_else_is_asked_for_is_told_of_once(field: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A layer in front may set it."""
    made = {**NAMED, **ASKED}[field](name)
    _unseen_reads._warn.cache_clear()
    Stack(made, env=KEPT)(app)
    assert not caplog.records
    for _ in range(2):
        Stack(made)(app)
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{field} asks for the header {name}, which hygiene takes out of every request")


@pytest.mark.anyio
async def test_a_header_that_a_layer_in_front_sets_is_read() -> None:
    stack = Stack(SetHeader(name="x-original-host", value="a", on="request"), RequireHeader(name="x-original-host"))
    assert (await call(stack(app))).status == 200


@pytest.mark.parametrize("field", NAMED)
def test_what_proxies_say_is_nothing_to_read(field: str) -> None:
    with pytest.raises(ConfigError, match="hygiene sets aside for TrustedProxies alone") as caught:
        Stack(NAMED[field]("x-forwarded-for"), env=KEPT)(app)
    assert f"{caught.value.policy}.{caught.value.field}" == field


@pytest.mark.anyio
async def test_an_odd_name_that_is_let_in_is_read() -> None:
    guarded = Stack(APIKeyAuth(keys=keys(), header="x_api_key"), env=KEPT)(app)
    assert (await call(guarded, headers=[(b"x_api_key", KEY.encode())])).status == 200


def test_a_gateway_is_not_told_versions_in_such_a_header() -> None:
    versions = Versions("header", (Version("v1"),), parameter="x_version")
    api = Api("orders", backend=app, versions=versions, subscription_required=False)
    with pytest.raises(ConfigError, match=r"Versions\.parameter: .* asks for the header x_version"):
        Gateway(apis=(api,))
    Gateway(apis=(api,), env=KEPT)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "connection", "te", "Host"])
def test_a_credential_does_not_come_in_what_says_something_else(name: str) -> None:
    for make, field in ((NAMED["APIKeyAuth.header"], "header"), (jwt, "token_from"), (introspection, "token_from")):
        with pytest.raises(ConfigError) as caught:
            make(name)
        assert caught.value.field == field


def test_a_token_may_come_as_a_subprotocol_from_where_no_other_header_can_be_set() -> None:
    jwt("Sec-WebSocket-Protocol")(app)


def test_something_else_of_that_name_is_no_header() -> None:
    class Counted:
        reads = 5

        def __call__(self, exchange: object) -> str:
            return "one"

    RateLimit(calls=1, per=1, by=Counted())(app)
