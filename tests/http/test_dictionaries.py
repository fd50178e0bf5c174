"""Dictionaries and inner lists (RFC 9651 §3.2): read, refused, and written back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.dictionaries import InnerList, parse_dictionary, write_dictionary
from apim_middleware._http.fields import Token


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", {}),
        ("a", {"a": (True, {})}),
        ("a;x", {"a": (True, {"x": True})}),
        ("a=?0", {"a": (False, {})}),
        ('en="Applepie", da=:w4ZibGV0w6ZydGU=:', {"en": ("Applepie", {}), "da": ("Æbletærte".encode(), {})}),
        (
            "rating=1.5, feelings=(joy sadness)",
            {"feelings": InnerList([(Token("joy"), {}), (Token("sadness"), {})], {})},
        ),
        (
            's=("a" "b";sf);created=1;keyid="k"',
            {"s": InnerList([("a", {}), ("b", {"sf": True})], {"created": 1, "keyid": "k"})},
        ),
        ("a=1, a=2", {"a": (2, {})}),
        ("a=()", {"a": InnerList([], {})}),
        ("a=( 1  2 )", {"a": InnerList([(1, {}), (2, {})], {})}),
        ("a ,\tb", {"a": (True, {}), "b": (True, {})}),
    ],
)
def test_what_can_be_read_is_read(text: str, members: dict[str, object]) -> None:
    found = parse_dictionary(text)
    assert {key: found[key] for key in members} == members


@pytest.mark.parametrize(
    "text",
    ["a,", ",a", "a b", "A=1", "a=", "a=(", "a=)", "a=(1,2)", "a=((1))", 'a="', "a=:!:", "a=1;", "1=a", "a=1 2", "é=1"],
)
def test_what_is_malformed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"dictionary|base64"):
        parse_dictionary(text)


BARE = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.booleans(),
    st.binary(max_size=20),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10),
)
KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,5}", fullmatch=True)
ITEMS = st.tuples(BARE, st.dictionaries(KEYS, BARE, max_size=2))
LISTS = st.builds(InnerList, st.lists(ITEMS, max_size=3), st.dictionaries(KEYS, BARE, max_size=2))


@given(st.dictionaries(KEYS, st.one_of(ITEMS, LISTS), max_size=4))
def test_what_was_written_is_read_again(members: dict[str, object]) -> None:
    assert parse_dictionary(write_dictionary(members)) == members  # type: ignore[arg-type]


@given(st.text(st.sampled_from('ab=();,"\\:? 1.-*'), max_size=30))
def test_whatever_is_read_is_written_in_one_way(text: str) -> None:
    try:
        members = parse_dictionary(text)
    except ValueError:
        return
    assert parse_dictionary(write_dictionary(members)) == members
