"""The advice of ``apim check``: what works, and hardly as it was meant."""

from typing import Any

import jwt
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from apim_middleware import (
    AllOf,
    AnyOf,
    Api,
    APIKeyAuth,
    Cache,
    Choose,
    Gateway,
    Idempotency,
    IPFilter,
    JWTAuth,
    LimitConcurrency,
    LimitGuesses,
    Limits,
    MemoryKeys,
    Operation,
    Product,
    RateLimit,
    RewritePath,
    SetHeader,
    SetQuery,
    Stack,
    Subscription,
    TrustedProxies,
    Version,
    Versions,
    When,
    by,
    conditions,
    guard,
)
from apim_middleware.cli._lint import advice_on
from apim_middleware.guarding import coverage
from apim_middleware.testing import call
from apim_middleware.types import Layer

SHUT = IPFilter(allow=("10.0.0.0/8",))
TOKENS = JWTAuth(issuer="https://issuer.example", audience="orders")


def told(app: Any, word: str) -> list[str]:
    return [each for each in advice_on(coverage(app), app) if word in each]


def gateway(*layers: Layer, own: tuple[Layer, ...] = (), path: str = "/orders", **more: Any) -> Gateway:
    given = {"subscription_required": False, **more}
    return Gateway(policies=own, apis=(Api("shop", path, backend=PlainTextResponse("here"), policies=layers, **given),))


# Paths


@pytest.mark.parametrize(
    ("layer", "cure"),
    [
        (When(conditions.path("/orders/items/*"), SHUT), "write '/items/*'"),
        (When(conditions.not_(conditions.path("/orders")), SHUT), "write '/'"),
        (Stack(When(conditions.path("/items"), Stack(When(conditions.path("/orders/a"), SHUT)))), "write '/a'"),
        (RewritePath(match="/orders/{id}", to="/{id}"), "write '/{id}'"),
    ],
    ids=["condition", "negated", "in stacks", "rewriting"],
)
def test_a_pattern_that_begins_with_the_path_of_its_api_is_told_of(layer: Layer, cure: str) -> None:
    [sentence] = told(gateway(layer), "own path")
    assert sentence.endswith(f"{cure}.")


def test_so_is_one_of_an_operation() -> None:
    operation = Operation("GET", "/items", policies=(When(conditions.path("/orders/items"), SHUT),))
    assert told(gateway(operations=(operation,)), "own path")


def test_a_version_in_the_path_is_gone_too() -> None:
    versions = Versions("path", (Version("v1", policies=(When(conditions.path("/orders/v1/items"), SHUT),)),))
    [sentence] = told(gateway(versions=versions), "own path")
    assert sentence.endswith("write '/items'.")


@pytest.mark.parametrize(
    "app",
    [
        gateway(When(conditions.path("/items/*", "/orderspace"), SHUT)),
        gateway(own=(When(conditions.path("/orders/items"), SHUT),)),
        gateway(When(conditions.path("/orders/items"), SHUT), path="/"),
        gateway(When(conditions.path("/orders"), SHUT), operations=(Operation("GET", "/orders"),)),
    ],
    ids=["below", "of the gateway", "at the root", "an operation of that path"],
)
def test_a_path_that_can_be_met_is_no_reason_for_advice(app: Gateway) -> None:
    assert told(app, "own path") == []


# Caches


def keyed(cache: Cache, *before: Layer) -> Gateway:
    return Gateway(
        keys=MemoryKeys(),
        apis=(Api("shop", "/orders", backend=PlainTextResponse("here"), policies=(*before, cache)),),
    )


def test_a_cache_that_keeps_nothing_behind_a_key_is_told_of_with_its_cure() -> None:
    [sentence] = told(keyed(Cache(ttl=30)), "Cache")
    assert sentence.startswith("Cache stands behind APIKeyAuth")
    assert "private_to=by.subscription" in sentence
    assert 'regardless_of=("subscription",)' in sentence


def test_so_is_one_behind_a_token() -> None:
    [sentence] = told(gateway(TOKENS, Cache(ttl=30)), "Cache")
    assert "private_to=by.principal" in sentence


@pytest.mark.parametrize(
    "app",
    [
        keyed(Cache(ttl=30, private_to=by.subscription)),
        keyed(Cache(ttl=30, regardless_of=("subscription",))),
        gateway(TOKENS, Cache(ttl=30, private_to=by.principal)),
        gateway(Cache(ttl=30)),
        gateway(APIKeyAuth(keys=MemoryKeys(), optional=True), Cache(ttl=30)),
    ],
    ids=["private", "shared on purpose", "private to the token", "nobody asks", "strangers come in"],
)
def test_a_cache_that_knows_whose_its_answers_are_needs_no_advice(app: Gateway) -> None:
    assert told(app, "Cache") == []


def stacked(*layers: Layer) -> Any:
    return guard(Starlette(routes=[Route("/a", PlainTextResponse("here"))]), policies=layers)


KEYED = APIKeyAuth(keys=MemoryKeys())
BOTH = by.either(by.principal, by.subscription)


@pytest.mark.parametrize(
    ("layers", "cure"),
    [
        ((KEYED, TOKENS, Cache(ttl=30, private_to=by.principal)), "private_to=(by.principal, by.subscription)"),
        ((TOKENS, KEYED, Cache(ttl=30, private_to=by.subscription)), "private_to=(by.subscription, by.principal)"),
        ((AllOf(TOKENS, KEYED), Cache(ttl=30)), "private_to=(by.principal, by.subscription)"),
        ((AnyOf(TOKENS, KEYED), Cache(ttl=30)), "private_to=by.principal)"),
        ((TOKENS, Cache(ttl=30, regardless_of=("principal",))), "private_to=by.principal)"),
    ],
    ids=["no subscription", "no principal", "neither", "either", "the token itself"],
)
def test_a_cache_is_compared_with_all_that_was_established(layers: tuple[Layer, ...], cure: str) -> None:
    """Behind a key and a token, one told apart by the principal kept nothing, and nothing was said of it."""
    [sentence] = told(stacked(*layers), "keeps nothing")
    assert cure in sentence


def test_a_cache_that_keeps_nothing_of_some_callers_says_of_some() -> None:
    [sentence] = told(stacked(AnyOf(TOKENS, KEYED), Cache(ttl=30, private_to=by.subscription)), "keeps nothing")
    assert "of some callers" in sentence


@pytest.mark.parametrize(
    "layers",
    [
        (KEYED, TOKENS, Cache(ttl=30, private_to=(by.principal, by.subscription))),
        (KEYED, TOKENS, Cache(ttl=30, private_to=by.principal, regardless_of=("subscription",))),
        (AnyOf(KEYED, TOKENS), Cache(ttl=30, private_to=by.principal)),
        (AnyOf(KEYED, TOKENS), Cache(ttl=30, private_to=BOTH)),
        (KEYED, Cache(ttl=30, private_to=by.principal)),
    ],
    ids=["both", "one, and regardless of the other", "the principal of either", "either", "the principal of a key"],
)
def test_a_cache_that_tells_all_callers_apart_needs_no_advice(layers: tuple[Layer, ...]) -> None:
    assert told(stacked(*layers), "keeps nothing") == []


SECRET = b"0123456789abcdef0123456789abcdef"
SIGNED = JWTAuth(issuer="issuer", audience="orders", keys=SECRET, algorithms=("HS256",))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("cache", "kept"),
    [
        (Cache(ttl=30, private_to=by.principal), False),
        (Cache(ttl=30, private_to=by.subscription), False),
        (Cache(ttl=30, regardless_of=("subscription", "principal")), False),
        (Cache(ttl=30, private_to=(by.principal, by.subscription)), True),
        (Cache(ttl=30, regardless_of=("subscription", "principal", "authorization")), True),
    ],
)
async def test_the_advice_on_a_cache_is_what_it_does(cache: Cache, kept: bool) -> None:
    keys = MemoryKeys()
    keys.add(Subscription(id="acme"))
    token = jwt.encode({"iss": "issuer", "aud": "orders", "sub": "ada", "exp": 4_000_000_000}, SECRET, "HS256")
    headers = [
        (b"ocp-apim-subscription-key", keys.issue("acme").encode()),
        (b"authorization", b"Bearer " + token.encode()),
    ]
    app = stacked(APIKeyAuth(keys=keys), SIGNED, cache)
    await call(app, "GET", "/a", headers=headers)
    again = await call(app, "GET", "/a", headers=headers)
    assert (b"hit" in dict(again.headers)[b"cache-status"]) == kept
    assert (told(app, "keeps nothing") == []) == kept


# Clients


ADDRESSED = "RateLimit goes by the client's address"
KEY_OR_CLIENT = RateLimit(calls=5, per=60, by=by.either(by.subscription, by.client))


@pytest.mark.parametrize(
    "app",
    [
        stacked(KEYED, Idempotency()),
        stacked(KEYED, KEY_OR_CLIENT),
        stacked(KEYED, Limits(KEY_OR_CLIENT)),
        stacked(AnyOf(Stack(KEYED, KEY_OR_CLIENT), TOKENS)),
        stacked(AnyOf(KEYED, TOKENS), RateLimit(calls=5, per=60, by=by.either(by.principal, by.client))),
        Gateway(
            policies=(KEY_OR_CLIENT,), keys=MemoryKeys(), apis=(Api("a", "/a", backend=PlainTextResponse("here")),)
        ),
    ],
    ids=["idempotency", "limit", "limits", "within another", "whoever it is", "of a gateway"],
)
def test_a_client_that_is_never_asked_for_is_no_reason_for_advice(app: Any) -> None:
    """Behind a key, Idempotency was said to go by the client's address, which failed pipelines."""
    assert told(app, "client's address") == []


@pytest.mark.parametrize(
    "layers",
    [
        (RateLimit(calls=5, per=60),),
        (KEY_OR_CLIENT, IPFilter(deny=("192.0.2.1",))),
        (KEYED, RateLimit(calls=5, per=60, by=by.both(by.subscription, by.client))),
        (KEYED, RateLimit(calls=5, per=60, by=by.either(by.product, by.client))),
        (APIKeyAuth(keys=MemoryKeys(), optional=True), KEY_OR_CLIENT),
        (AnyOf(KEYED, TOKENS), KEY_OR_CLIENT),
        (KEYED, Limits(RateLimit(calls=5, per=60, name="one"))),
        (KEYED, LimitGuesses()),
        (KEYED, SHUT),
    ],
    ids=["alone", "no key", "both", "no product", "strangers", "tokens", "limits", "guesses", "filter"],
)
def test_a_client_that_is_asked_for_without_proxies_is_told_of(layers: tuple[Layer, ...]) -> None:
    assert len(told(stacked(*layers), "client's address")) == 1


def test_a_client_that_proxies_tell_of_is_no_reason_for_advice() -> None:
    assert told(stacked(TrustedProxies(trusted=("unix",)), RateLimit(calls=5, per=60)), "client's address") == []


def test_a_gateway_that_stands_behind_a_limit_knows_of_no_key_there() -> None:
    inner = Gateway(keys=MemoryKeys(), apis=(Api("a", "/a", backend=PlainTextResponse("here")),))
    assert len(told(Stack(KEY_OR_CLIENT)(inner), "client's address")) == 1


# Open routes


def here(request: Any) -> PlainTextResponse:
    return PlainTextResponse("here")


def test_a_route_is_said_once_and_not_for_head_again() -> None:
    assert told(Starlette(routes=[Route("/a", here)]), "stands open") == [
        "GET /a stands open: no policy decides who may call it."
    ]


def test_head_alone_is_said() -> None:
    app = Starlette(routes=[Route("/a", here, methods=["HEAD"])])
    assert len(told(app, "HEAD /a stands open")) == 1


def test_open_routes_of_one_path_are_told_apart_by_version() -> None:
    """What is accepted of one version is not accepted of another."""
    versions = Versions("header", (Version("v1"), Version("v2")))
    said = told(gateway(versions=versions), "stands open")
    assert "any /orders/* stands open in the version v1: no policy decides who may call it." in said
    assert len(said) == len(set(said)) > 1


# Keys


def bought(limit: Layer, **more: Any) -> Gateway:
    product = Product("starter", apis=("shop",), policies=(limit,), **more)
    return Gateway(keys=MemoryKeys(), products=(product,), apis=(Api("shop", "/orders", backend="http://a"),))


PER_SUBSCRIPTION = RateLimit(calls=1, per=60, by=by.subscription)


@pytest.mark.parametrize(
    "layer", [PER_SUBSCRIPTION, Limits(PER_SUBSCRIPTION), LimitConcurrency(at_once=1, by=by.subscription)]
)
def test_a_limit_by_the_subscription_in_a_gateway_without_keys_is_told_of(layer: Layer) -> None:
    [sentence] = told(gateway(layer), "by the subscription")
    assert sentence.endswith("every call is refused with 403. Give Gateway(keys=...), or another key.")


def test_a_limit_by_the_subscription_in_an_open_product_is_told_of() -> None:
    [sentence] = told(bought(PER_SUBSCRIPTION, subscription_required=False), "by the subscription")
    assert "any /orders/* in the product starter asks for none: calls without a key are refused" in sentence


@pytest.mark.parametrize(
    "app",
    [
        bought(PER_SUBSCRIPTION),
        bought(RateLimit(calls=1, per=60, by=by.subscription, when_unknown="together"), subscription_required=False),
        bought(RateLimit(calls=1, per=60, by=by.either(by.subscription, by.client)), subscription_required=False),
        bought(LimitConcurrency(at_once=1, by=by.product), subscription_required=False),
        gateway(APIKeyAuth(keys=MemoryKeys()), PER_SUBSCRIPTION),
        gateway(TOKENS, RateLimit(calls=1, per=60, by=by.principal)),
    ],
    ids=["a key is asked for", "together", "either", "by the product", "a policy asks", "by the principal"],
)
def test_a_limit_whose_key_can_be_known_is_no_reason_for_advice(app: Gateway) -> None:
    assert told(app, "by the subscription") == []


# Versions


def test_a_retired_version_does_not_stand_open() -> None:
    """Its routes did, which answer 410 to everybody."""
    versions = Versions("path", (Version("v1", retired=True), Version("v2")))
    assert told(gateway(versions=versions), "stands open") == [
        "any /orders/v2/* stands open in the version v2: no policy decides who may call it."
    ]


# Texts


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("Basic {{key}}", "a named value is a NamedValue"),
        ("{{ key }}", "a named value is a NamedValue"),
        ("@(context.Subscription.Key)", "an expression is a function of the exchange"),
        ("@{ return key; }", "an expression is a function of the exchange"),
        (
            "@(context.Request.Body.As<JObject>()['model'])",
            'an expression is a function of the exchange, such as by.body("/model") behind ReadBody',
        ),
    ],
)
def test_a_text_of_azure_is_told_of_and_not_shown(text: str, cure: str) -> None:
    [sentence] = told(gateway(SetHeader(name="x-key", value=text, on="request")), "SetHeader")
    assert sentence.startswith(f"SetHeader 'x-key' sends a text of Azure as it is written: {cure}")
    assert text not in sentence


def test_a_text_that_is_the_name_of_a_key_is_told_how_the_key_is_written() -> None:
    [sentence] = told(gateway(SetQuery(name="who", value="by.header('x-a')")), "SetQuery")
    assert sentence.endswith(
        """Write value=by.header('x-a') for the key, in a file { function = "by.header('x-a')" }."""
    )


@pytest.mark.parametrize("text", ["{a} {{", "by the way", "by.nobody", "me@(here)", "{{}}"])
def test_a_text_that_is_only_alike_is_no_reason_for_advice(text: str) -> None:
    assert told(gateway(SetHeader(name="x-key", value=text, on="request")), "SetHeader") == []


# Orders that work, and not as they look


def test_a_limit_by_the_principal_in_front_of_who_says_it_is_told_of_behind_a_key() -> None:
    """It counts by the holder of the key."""
    limit = RateLimit(calls=10, per=60, by=by.principal)

    def behind_a_key(*layers: Layer) -> Gateway:
        api = Api("shop", "/orders", backend=PlainTextResponse("here"), policies=layers)
        return Gateway(keys=MemoryKeys(), apis=(api,))

    [sentence] = told(behind_a_key(limit, TOKENS), "only behind it")
    assert sentence == "RateLimit goes by the principal, which JWTAuth says only behind it. Write JWTAuth first."
    assert not told(behind_a_key(TOKENS, limit), "only behind it")


BETA = When(conditions.header("x-beta"), SetHeader(name="x-a", value="b", on="response"))


@pytest.mark.parametrize(
    "branch",
    [BETA, Choose((conditions.path("/a"), SetQuery(name="a", value="b")), (conditions.header("x-beta"), BETA))],
    ids=["when", "choose"],
)
def test_a_branch_behind_a_cache_that_goes_by_an_unkeyed_header_is_told_of(branch: Layer) -> None:
    [sentence] = told(gateway(Cache(), branch), "behind Cache")
    assert sentence.endswith('Write it first, or Cache(vary_by=by.header("x-beta")).')


@pytest.mark.parametrize(
    "layers",
    [
        (BETA, Cache()),
        (Cache(vary_by=(by.client, by.header("x-beta"))), BETA),
        (Cache(), When(conditions.path("/a"), SetQuery(name="a", value="b"))),
    ],
    ids=["in front", "keyed", "by path"],
)
def test_a_branch_that_a_cache_knows_of_is_no_reason_for_advice(layers: tuple[Layer, ...]) -> None:
    assert not told(gateway(*layers), "behind Cache")
