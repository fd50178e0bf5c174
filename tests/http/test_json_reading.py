"""JSON that two readers would read in two ways is read by none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.json_reading import Unclear, found_at, read_json, steps_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    PLAIN | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


@given(VALUES, st.booleans())
def test_what_everybody_reads_alike_is_read(value: Any, ascii_only: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"nope",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 1} {"a": 2}',
        b'{"a": 1}\x00',
        b'{"a": 1} // and more',
        b'"a\nb"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
        '{"a": 1}'.encode("utf-32-be"),
        b'{"model": "small", "model": "large"}',
        b'{"model": "small", "mod\\u0065l": "large"}',
        b'[{"deep": {"a": 1, "a": 1}}]',
        b"NaN",
        b'{"a": Infinity}',
        b"[-Infinity]",
        b"1e999",
        b"123456789012345678901",
        b"1" * 1_000_000,
        b"-" + b"9" * 20,
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b'["\\ud83d", "\\ude00"]',
        b"[" * 200 + b"]" * 200,
        b"[" * 500_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"01",
        b"+1",
        b"\x0b1",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_what_is_read_in_two_ways_is_refused(text: bytes) -> None:
    with pytest.raises(Unclear):
        read_json(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'"[[[[' + b"{" * 500 + b'"', "[[[[" + "{" * 500),
        (b"[" * 128 + b"]" * 128, None),
        (b' {"a" : 1}\r\n\t', {"a": 1}),
    ],
    ids=repr,
)
def test_what_is_only_odd_is_read(text: bytes, value: Any) -> None:
    found = read_json(text)
    assert value is None or found == value


@pytest.mark.parametrize("kind", [b"", b"application/json", b'application/json; Charset="UTF-8"', b"text/plain"])
def test_utf_8_is_what_it_may_say_it_is(kind: bytes) -> None:
    assert read_json(b"1", kind) == 1


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json; charset=utf-7",
        b"application/json;charset = 'utf-16'",
        b"a/b; charset=utf-8, a/b; charset=latin-1",
        b"a/b; charset=",
        b"a/b; charset*=utf-8''utf-7",
        b'a/b; charset="utf-8',
        b"a/b; charset=utf-8 utf-7",
    ],
)
def test_another_encoding_is_read_otherwise_by_some(kind: bytes) -> None:
    with pytest.raises(Unclear):
        read_json(b'{"model": "+AGE-"}', kind)


# Places in it


RFC_6901 = json.loads(
    r'{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}'
)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC_6901), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3),
        ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8),
        # and where nothing stands
        ("/foo/2", None), ("/foo/-", None), ("/foo/00", None), ("/foo/-1", None), ("/foo/0/x", None), ("/bar", None),
        ("/foo/\u0660", None), ("/foo/99999999999", None),
    ],
)  # fmt: skip
def test_a_pointer_leads_to_what_its_rfc_says(pointer: str, value: Any) -> None:
    assert found_at(RFC_6901, steps_of(pointer)) == value


@pytest.mark.parametrize("pointer", ["model", "$.model", "/a~", "/a~2", "#/model", "model/", "/~01~"])
def test_what_is_no_pointer_leads_nowhere(pointer: str) -> None:
    with pytest.raises(ValueError, match="no JSON Pointer"):
        steps_of(pointer)


@pytest.mark.parametrize(
    ("name", "sent"), [("model", "Model"), ("model", "MODEL"), ("models", "model\u017f"), ("key", "\u212aey")]
)
@pytest.mark.parametrize("beside", [{}, {"model": "a", "models": "a", "key": "a"}])
def test_a_name_that_some_take_for_another_is_refused(name: str, sent: str, beside: dict[str, str]) -> None:
    """Go's encoding/json takes the last member whose name fits without its case."""
    with pytest.raises(Unclear):
        found_at({**beside, sent: "b"}, (name,))


def test_other_names_may_differ_by_their_case() -> None:
    assert found_at({"model": 1, "a": 2, "A": 3}, ("model",)) == 1


@pytest.mark.parametrize(("text", "value"), [(b"1.0", "1"), (b"1e2", "100"), (b"-0.0", "0"), (b"0.5", "0.5")])
def test_a_number_is_one_however_it_is_written(text: bytes, value: str) -> None:
    assert repr(found_at(read_json(text), ())) == value


@pytest.mark.parametrize("text", [b"9007199254740993", b"1e300", b"-9007199254740992"])
def test_a_number_that_doubles_cannot_tell_from_its_neighbours_is_none(text: bytes) -> None:
    with pytest.raises(Unclear):
        found_at(read_json(text), ())
