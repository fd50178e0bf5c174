"""Values that mean the same, and those that Python only has be equal."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from apim_middleware._alike import Alike, alike
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.branch import When
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policy import Stack


@dataclass(frozen=True)
class Pair:
    first: object
    second: object = field(default=0, compare=False)


def everybody(exchange: object) -> bool:
    return True


def within(value: object) -> list[Any]:
    """The value in all that policies are made of."""
    return [
        value,
        (1, value),
        [value],
        {"a": value},
        {value: "a"},
        frozenset({value}),
        Pair(value),
        Pair((Pair({"a": [value]}),)),
        Authorize(claims={"admin": value}),
        Stack(Authorize(claims={"admin": value})),
        When(everybody, Stack(Authorize(claims={"admin": value}))),
    ]


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), (1, 1.0), (1.0, True)])
def test_what_is_equal_and_of_another_type_is_not_alike(one: object, other: object) -> None:
    for each, twin in zip(within(one), within(other), strict=True):
        assert each == twin
        assert not alike(each, twin)
        assert not alike(twin, each)


@pytest.mark.parametrize("value", [1, True, 1.0, "a"])
def test_what_was_made_alike_is_alike(value: object) -> None:
    for each, twin in zip(within(value), within(value), strict=True):
        assert alike(each, twin)


@pytest.mark.parametrize("other", [2, "1", 1.5])
def test_what_is_not_equal_is_not_alike(other: object) -> None:
    for each, twin in zip(within(1), within(other), strict=True):
        assert not alike(each, twin)


def test_what_is_not_compared_does_not_count() -> None:
    assert alike(Pair(1, 2), Pair(1, 3))


def test_a_key_finds_what_is_alike_alone() -> None:
    kept = {Alike(RateLimit(calls=1, per=60)): "a"}
    assert kept[Alike(RateLimit(calls=1, per=60))] == "a"
    assert Alike(RateLimit(calls=1, per=60.0)) not in kept
