"""URL templates: what they match, what their parameters stand for, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.url_templates import Mixed, UrlTemplate, parsed


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("/", UrlTemplate("/", (), ())),
        ("/a/b", UrlTemplate("/a/b", ("a", "b"), ())),
        ("/a/", UrlTemplate("/a/", ("a", ""), ())),
        ("/{a}/b/{c}", UrlTemplate("/{a}/b/{c}", (None, "b", None), ("a", "c"))),
        ("/x.{a}", UrlTemplate("/x.{a}", (Mixed(("x.", ""), ("a",)),), ())),
        ("/{a}-{b}z", UrlTemplate("/{a}-{b}z", (Mixed(("", "-", "z"), ("a", "b")),), ())),
        ("/a/*", UrlTemplate("/a/*", ("a",), (), "*")),
        ("/*", UrlTemplate("/*", (), (), "*")),
        ("/a/{*rest}", UrlTemplate("/a/{*rest}", ("a",), (), "rest")),
        ("/a/{rest:path}", UrlTemplate("/a/{rest:path}", ("a",), (), "rest")),
        ("/s?q={x}&k=v", UrlTemplate("/s?q={x}&k=v", ("s",), (), None, (("q", None, "x"), ("k", "v", "")))),
        ("/ä b", UrlTemplate("/ä b", ("ä b",), ())),
    ],
)  # fmt: skip
def test_a_template_is_taken_apart(text: str, template: UrlTemplate) -> None:
    assert parsed(text) == template


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "does not begin with a slash"),
        ("a", "does not begin with a slash"),
        ("//a", "an empty segment"),
        ("/a//b", "an empty segment"),
        ("/a/../b", "dot segment"),
        ("/a/.", "dot segment"),
        ("/%61", "percent-escape"),
        ("/a#b", "what no canonical path can"),
        ("/a\x00b", "control character|canonical"),
        ("/a\\b", "backslash"),
        ("/{a", "braces"),
        ("/a}", "braces"),
        ("/{{a}}", "braces|without a name"),
        ("/{}", "without a name"),
        ("/x{}", "without a name"),
        ("/{a}/{a}", "twice"),
        ("/{a}?q={a}", "twice"),
        ("/{a}{b}", "nothing tells where"),
        ("/*/a", "whole last segment"),
        ("/a*", "whole last segment"),
        ("/{*a}/b", "whole last segment"),
        ("/{a:path}/b", "whole last segment"),
        ("/?={a}", "without a name"),
        ("/?a={b", "name=text"),
        ("/?a=%20", "name=text"),
        ("/" + "/".join("a" * 65), "more than 64 segments"),
    ],
)
def test_what_is_none_is_said(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "segment", "found"),
    [
        ("/x.{a}", "x.png", ["png"]),
        ("/x.{a}", "x.", None),
        ("/x.{a}", "y.png", None),
        ("/{a}.{b}", "1.2.3", ["1", "2.3"]),
        ("/{a}.{b}", ".2", None),
        ("/{a}.{b}", "..2", [".", "2"]),
        ("/{a}ab", "aab", ["a"]),
        ("/{a}ab", "ab", None),
        ("/ab{a}ab", "abab", None),
        ("/ab{a}ab", "abxab", ["x"]),
        ("/ab{a}ab", "aba", None),
        ("/{a}-{b}-{c}", "1-2-3-4", ["1", "2", "3-4"]),
        ("/{a}-{b}-{c}", "1-2", None),
    ],
)
def test_the_shortest_text_that_fits_stands_for_a_parameter(text: str, segment: str, found: list[str] | None) -> None:
    [mixed] = parsed(text).segments
    assert isinstance(mixed, Mixed)
    assert mixed.read(segment) == found


@given(st.lists(st.text("ab.-", min_size=1, max_size=3), min_size=1, max_size=3), st.text("ab.-", max_size=12))
def test_what_is_read_can_be_put_back(texts: list[str], segment: str) -> None:
    mixed = Mixed(("", *texts), tuple("xyz"[: len(texts)]))
    found = mixed.read(segment)
    if found is not None:
        assert all(found)
        assert "".join(part + text for part, text in zip(found, texts, strict=True)) == segment


@pytest.mark.parametrize(
    ("query", "asks"),
    [
        (b"q=1", False),
        (b"q=1&k=v", True),
        (b"k=v&q", True),
        (b"k=v&q=1&q=2", True),
        (b"k=v&k=v&q=1", False),
        (b"k=w&q=1", False),
        (b"%6b=%76&%71=", True),
        (b"K=v&q=1", False),
        (b"", False),
    ],
)
def test_a_query_has_what_the_template_asks_for(query: bytes, asks: bool) -> None:
    assert parsed("/s?q={x}&k=v").asks(query) == asks


def test_parameters_stand_for_what_was_sent() -> None:
    template = parsed("/{a}/b/x.{c}/{*d}?e={f}&g=h")
    found = template.values(["1", "b", "x.2", "3", "4"], b"e=5&e=6&g=h")
    assert found == {"a": "1", "c": "2", "d": "3/4", "f": "5"}
    assert parsed("/a/*").values(["a"], b"") == {"*": ""}


def test_shapes_are_equal_where_nobody_could_choose() -> None:
    same = [("/{a}", "/{b}"), ("/x{a}", "/x{b}"), ("/*", "/{*a}"), ("/?a={x}&b=1", "/?b=1&a={y}")]
    other = [("/{a}", "/a"), ("/{a}", "/x{a}"), ("/", "/*"), ("/?a={x}", "/?a=1"), ("/", "/?a=1")]
    assert all(parsed(one).shape == parsed(two).shape for one, two in same)
    assert all(parsed(one).shape != parsed(two).shape for one, two in other)
