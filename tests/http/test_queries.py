"""Query strings are edited parameter by parameter, and read as the app will read them."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http import queries
from apim_middleware._http.paths import canonical_query

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
written = st.lists(
    st.sampled_from(
        [b"a", b"%61", b"A", b"b", b"a+b", b"a%20b", b"=", b"&", b"&&", b"1", b"%", b"%zz", b"%C3%A9", b"%FF", b";"]
    ),
    max_size=12,
).map(b"".join)


def as_an_app_reads(query: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", []),
        (b"b=1", []),
        (b"a=1", ["1"]),
        (b"a=1&b=2&a=3", ["1", "3"]),
        (b"a", [""]),
        (b"a=", [""]),
        (b"a==", ["="]),
        (b"%61=1", ["1"]),
        (b"A=1", []),
        (b"a=x+y%20z", ["x y z"]),
        (b"a=%26%3D", ["&="]),
        (b"a=%FF", ["\ufffd"]),
        (b"a=1;a=2", ["1;a=2"]),
        (b"ab=1&ba=2", []),
    ],
)
def test_values(query: bytes, found: list[str]):
    assert queries.values(query, "a") == found


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"", b""),
        (b"b=1", b"b=1"),
        (b"a=1", b""),
        (b"a", b""),
        (b"a=1&b=2", b"b=2"),
        (b"b=2&a=1", b"b=2"),
        (b"b=%7e&a=1&c=+&%61=2", b"b=%7e&c=+"),
        (b"b=1&&c=%zz", b"b=1&&c=%zz"),
        (b"ab=1&b=a", b"ab=1&b=a"),
        (b"a%20=1&a+=2", b"a%20=1&a+=2"),
    ],
)
def test_remove_leaves_the_others_byte_for_byte(query: bytes, left: bytes):
    assert queries.remove(query, "a") == left


@pytest.mark.parametrize("query", [b"a+b=1", b"a%20b=1", b"a+%62=1"])
def test_a_name_is_found_however_it_was_written(query: bytes):
    assert queries.values(query, "a b") == ["1"]
    assert queries.remove(query, "a b") == b""


@pytest.mark.parametrize(
    ("query", "pairs", "longer"),
    [(b"a=1", b"b=2", b"a=1&b=2"), (b"", b"b=2", b"b=2"), (b"a=1", b"", b"a=1"), (b"", b"", b"")],
)
def test_nothing_stands_between_where_there_are_not_two(query: bytes, pairs: bytes, longer: bytes):
    assert queries.append(query, pairs) == longer


@given(written, st.sampled_from(["a", "b", "a b", "é", "A"]))
def test_what_is_seen_is_what_the_app_sees(query: bytes, name: str):
    assert queries.values(query, name) == [value for key, value in as_an_app_reads(query) if key == name]


@given(written, st.sampled_from(["a", "b", "a b", "é"]))
def test_what_is_removed_is_gone_for_the_app_and_nothing_else_is(query: bytes, name: str):
    others = [(key, value) for key, value in as_an_app_reads(query) if key != name]
    assert as_an_app_reads(queries.remove(query, name)) == others


@given(names, st.lists(texts, max_size=3), written)
def test_any_text_comes_back_as_it_was_and_adds_no_parameter(name: str, given_values: list[str], query: bytes):
    longer = queries.append(query, queries.encoded(name, given_values))
    assert as_an_app_reads(longer) == as_an_app_reads(query) + [(name, value) for value in given_values]


@given(names, texts)
def test_what_is_written_is_canonical(name: str, value: str):
    pair = queries.encoded(name, [value])
    assert canonical_query(pair) == pair


def test_half_a_surrogate_pair_cannot_be_written():
    with pytest.raises(ValueError, match="surrogate"):
        queries.encoded("a", ["\ud800"])
