"""Structured fields: what is written can be read, what cannot be said is refused (RFC 9651)."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.fields import GREATEST_INTEGER, Token, is_list, item, members, parse_list

WRITTEN: list[tuple[Any, str]] = [
    ("default", '"default"'),
    ("", '""'),
    ('say "hi" \\ bye', '"say \\"hi\\" \\\\ bye"'),
    (Token("fwd"), "fwd"),
    (Token("*a/b:c"), "*a/b:c"),
    (0, "0"),
    (-17, "-17"),
    (GREATEST_INTEGER, "999999999999999"),
    (1.0, "1.0"),
    (1.5, "1.5"),
    (-0.25, "-0.25"),
    (0.0025, "0.002"),  # a tie goes to the even digit
    (0.0035, "0.004"),
    (0.00251, "0.003"),
    (1e-9, "0.0"),
    (Decimal("1E+2"), "100.0"),
    (999_999_999_999.999, "999999999999.999"),
    (True, "?1"),
    (False, "?0"),
    (b"", "::"),
    (b"hello", ":aGVsbG8=:"),
    (datetime(2022, 8, 4, 1, 57, 13, tzinfo=UTC), "@1659578233"),
]


@pytest.mark.parametrize(("bare", "text"), WRITTEN)
def test_every_kind_of_bare_item_is_written_as_the_rfc_says(bare: Any, text: str) -> None:
    assert item(bare) == text


UNSPEAKABLE: list[Any] = [
    "café",
    "two\nlines",
    "\x7f",
    "\x00",
    "\ud800",
    Token(""),
    Token("1a"),
    Token("a b"),
    Token("a\r\nset-cookie: x"),
    Token("é"),
    GREATEST_INTEGER + 1,
    -GREATEST_INTEGER - 1,
    float("nan"),
    float("inf"),
    1e12,
    999_999_999_999.9996,
    Decimal("NaN"),
    datetime(2022, 8, 4),  # noqa: DTZ001 - the point
    None,
    object(),
    ["list"],
]


@pytest.mark.parametrize("bare", UNSPEAKABLE)
def test_what_no_structured_field_can_say_is_refused(bare: Any) -> None:
    with pytest.raises(ValueError, match="structured field"):
        item(bare)


def test_parameters_follow_in_their_order_and_true_is_its_key_alone() -> None:
    parameters = {"hit": True, "fwd": Token("stale"), "ttl": -5, "stored": False, "detail": "a;b"}
    assert item(Token("ours"), parameters) == 'ours;hit;fwd=stale;ttl=-5;stored=?0;detail="a;b"'


@pytest.mark.parametrize("key", ["", "R", "1a", "a b", "a=b", "é", "a\r\nb", "-a"])
def test_a_parameter_key_outside_the_grammar_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="parameter key"):
        item("x", {key: 1})


def test_members_are_one_list() -> None:
    assert members([item("a", {"r": 1}), item("b")]) == '"a";r=1, "b"'


def test_one_parameter_is_read_back_with_its_kind() -> None:
    bare, parameters = parse_list('tok;s="x";t=y;i=1;d=1.0;y;n=?0;b=:aGk:;when=@0')[0]
    assert bare == "tok"
    assert type(bare) is Token
    assert parameters == {
        "s": "x", "t": Token("y"), "i": 1, "d": Decimal("1.0"), "y": True, "n": False, "b": b"hi",
        "when": datetime.fromtimestamp(0, UTC),
    }  # fmt: skip
    assert [type(parameters[key]) for key in "stid"] == [str, Token, int, Decimal]


def test_a_key_given_again_has_its_last_value() -> None:
    assert parse_list("x;a=1;b=2;a=3") == [("x", {"a": 3, "b": 2})]


@pytest.mark.parametrize("text", ["", "   "])
def test_nothing_is_an_empty_list(text: str) -> None:
    assert parse_list(text) == []


MALFORMED = [
    "limit=100, remaining=50, reset=30",  # the form of older drafts of the RateLimit fields
    '"open',
    '"bad \\escape"',
    '"tab\there"',
    '"a",',
    ',"a"',
    '"a" "b"',
    '"a";R=1',
    '"a";',
    '"a";b=',
    "1.",
    "1.2345",
    "1234567890123.0",
    "1234567890123456",
    "-",
    "?2",
    ":not base64!:",
    "(1 2)",
    '"a"\x00',
    "é",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_list_is_refused_and_known_as_such(text: str) -> None:
    with pytest.raises(ValueError, match=r"list|structured field"):
        parse_list(text)
    assert not is_list(text.encode())


@pytest.mark.parametrize("text", [":a:", "@999999999999999"])
def test_a_value_that_stands_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"structured field|out of range"):
        parse_list(text)


bares = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)),
    st.from_regex(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*", fullmatch=True).map(Token),
    st.integers(-GREATEST_INTEGER, GREATEST_INTEGER),
    st.decimals(-999_999_999_999, 999_999_999_999, places=3),
    st.booleans(),
    st.binary(),
    st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)).map(lambda each: each.replace(microsecond=0)),  # noqa: DTZ001
)
keys = st.from_regex(r"[a-z*][a-z0-9_.*-]*", fullmatch=True)


@given(st.lists(st.tuples(bares, st.dictionaries(keys, bares, max_size=4)), max_size=5))
def test_what_is_written_is_what_is_read(items: list[Any]) -> None:
    text = members(item(bare, parameters) for bare, parameters in items)
    assert parse_list(text) == items
    assert is_list(text.encode()) == bool(items)


@given(st.text(max_size=40))
def test_reading_anything_gives_a_list_or_a_value_error(text: str) -> None:
    try:
        found = parse_list(text)
    except ValueError:
        return
    assert parse_list(members(item(bare, parameters) for bare, parameters in found)) == found


def test_a_hostile_value_costs_no_more_than_its_length() -> None:
    for value in (b'"' + b"\\\\" * 50_000, b"a" * 100_000 + b"\x00", b"a;b" * 30_000 + b"=", b"1," * 50_000):
        assert not is_list(value)
