"""Challenges: read, taken apart, and added to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.challenges import has_parameter, scheme_of, split, with_parameters


@pytest.mark.parametrize(
    ("field", "challenges"),
    [
        ("Bearer", ["Bearer"]),
        ('Bearer realm="a"', ['Bearer realm="a"']),
        ('Bearer realm="a, Basic", error="x"', ['Bearer realm="a, Basic", error="x"']),
        ('Bearer realm="a",error="x",Basic realm="b"', ['Bearer realm="a",error="x"', 'Basic realm="b"']),
        ("Negotiate, Bearer", ["Negotiate", "Bearer"]),
        ("Negotiate YWJj==, Bearer realm=a", ["Negotiate YWJj==", "Bearer realm=a"]),
        (r'Bearer realm="a\", Basic"', [r'Bearer realm="a\", Basic"']),
        ('Bearer realm="open', ['Bearer realm="open']),
        ("", [""]),
        ("é", ["é"]),
    ],
)
def test_a_field_is_taken_apart_or_left_alone(field: str, challenges: list[str]) -> None:
    assert split(field) == challenges


@given(st.text(max_size=80))
def test_any_field_can_be_looked_at(field: str) -> None:
    for each in split(field):
        has_parameter(each, "realm")
        scheme_of(each)


def test_many_commas_cost_little() -> None:
    assert split('Bearer a="' + ", " * 20_000) == ['Bearer a="' + ", " * 20_000]


@pytest.mark.parametrize(
    ("challenge", "there"),
    [
        ('Bearer realm="a"', True),
        ("Bearer REALM=a", True),
        ('Bearer error="realm=1"', False),
        ('Bearer x_realm="a"', False),
        ("Bearer", False),
    ],
)
def test_a_parameter_is_found_by_its_name(challenge: str, there: bool) -> None:
    assert has_parameter(challenge, "realm") == there


def test_what_is_added_can_be_found() -> None:
    for challenge in ("Bearer", 'Bearer realm="a"'):
        assert has_parameter(with_parameters(challenge, x="1"), "x")
        assert scheme_of(with_parameters(challenge, x="1")) == "bearer"
