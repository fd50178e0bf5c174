"""The advice of ``apim check``: what works, and hardly as it was meant."""

from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from apim_middleware import (
    Api,
    APIKeyAuth,
    Cache,
    Gateway,
    IPFilter,
    JWTAuth,
    MemoryKeys,
    Operation,
    RewritePath,
    Stack,
    Version,
    Versions,
    When,
    by,
    conditions,
)
from apim_middleware.cli._lint import advice_on
from apim_middleware.guarding import coverage
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
