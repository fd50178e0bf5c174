"""Entity tags: strong ones for bytes, strong and weak comparison, one for each content coding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.entity_tags import (
    coded_tag,
    is_strong,
    matches_strongly,
    matches_weakly,
    strong_tag,
    with_plain_tags,
)

HEADERS = st.lists(st.none() | st.binary(max_size=5).filter(lambda text: b"\n" not in text), min_size=3, max_size=3)


@given(st.binary(max_size=20), st.binary(max_size=20), HEADERS, HEADERS)
def test_tags_are_equal_exactly_for_equal_representations(one: bytes, other: bytes, told: list, retold: list):  # type: ignore[type-arg]
    tag = strong_tag(one, told)
    assert is_strong(tag)
    assert (tag == strong_tag(other, retold)) == ((one, told) == (other, retold))


def test_a_tag_is_the_same_in_every_process():
    assert strong_tag(b"hello", [b"text/plain", None, None]) == b'"PCTIKvbkhzlpdgT9U0nYwWJY"'


# RFC 9110 §8.8.3.2
@pytest.mark.parametrize(
    ("one", "other", "strongly", "weakly"),
    [
        (b'W/"1"', b'W/"1"', False, True),
        (b'W/"1"', b'W/"2"', False, False),
        (b'W/"1"', b'"1"', False, True),
        (b'"1"', b'"1"', True, True),
        (b'"1"', b'W/"1"', False, True),
    ],
)
def test_comparison(one: bytes, other: bytes, strongly: bool, weakly: bool):
    assert (matches_strongly([one], other), matches_weakly([one], other)) == (strongly, weakly)


@pytest.mark.parametrize(
    ("lines", "strongly", "weakly"),
    [
        ([b"*"], True, True),
        ([b' "a", "1" ,"b"'], True, True),
        ([b'"a"', b'"1"'], True, True),
        ([b'"a, b", W/"1"'], False, True),
        ([b'"a"'], False, False),
        ([b"1"], False, False),
        ([b""], False, False),
        ([b'w/"1"'], True, True),
        ([b'"a"1"b"'], False, False),
    ],
)
def test_lists(lines: list[bytes], strongly: bool, weakly: bool):
    assert (matches_strongly(lines, b'"1"'), matches_weakly(lines, b'"1"')) == (strongly, weakly)


def test_what_is_no_tag_matches_nothing_but_any():
    assert not matches_weakly([b"1"], b"1")
    assert not matches_strongly([b"1"], b"1")
    assert matches_weakly([b"*"], b"1")


@pytest.mark.parametrize(
    ("tag", "coded"),
    [(b'"a"', b'"a--gzip"'), (b'""', b'"--gzip"'), (b'W/"a"', b'W/"a"'), (b"odd", b"odd")],
)
def test_a_coded_representation_has_a_tag_of_its_own(tag: bytes, coded: bytes):
    assert coded_tag(tag, b"gzip") == coded


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        (b'"a--gzip"', b'"a--gzip", "a"'),
        (b'"a--gzip", W/"b--gzip", "c"', b'"a--gzip", W/"b--gzip", "c", "a", W/"b"'),
        (b'"a--br"', b'"a--br"'),
        (b'"a--"', b'"a--"'),
        (b'"gzip"', b'"gzip"'),
        (b"*", b"*"),
        (b"", b""),
    ],
)
def test_who_names_a_coded_tag_names_the_plain_one_too(value: bytes, becomes: bytes):
    assert with_plain_tags(value, {b"gzip"}) == becomes


@given(st.binary(max_size=30))
def test_any_bytes_can_be_read(value: bytes):
    assert with_plain_tags(value, {b"gzip"}).startswith(value)
    matches_weakly([value], b'"a"')
