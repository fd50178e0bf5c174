"""Basic credentials are read in one way, or not at all (RFC 7617)."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.basic import BadCredentials, is_sendable, normal, read


def basic(text: str | bytes) -> bytes:
    return b"Basic " + base64.b64encode(text.encode() if isinstance(text, str) else text)


GOOD = {
    "the example of RFC 7617 section 2": (b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),
    "the example of RFC 7617 section 2.1": (b"Basic dGVzdDoxMjPCow==", ("test", "123\u00a3")),
    "lower case": (b"basic YTpi", ("a", "b")),
    "mixed case": (b"bAsIc YTpi", ("a", "b")),
    "several blanks": (b"Basic   YTpi", ("a", "b")),
    "colons in the password": (basic("a:b:c:"), ("a", "b:c:")),
    "blanks are part of it": (basic(" a : b "), (" a ", " b ")),
    "decomposed": (basic("Zoe\u0308:u\u0308"), ("Zo\u00eb", "\u00fc")),
    "composed": (basic("Zo\u00eb:\u00fc"), ("Zo\u00eb", "\u00fc")),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_credentials_are_read(name: str) -> None:
    value, expected = GOOD[name]
    assert read(value) == expected


@pytest.mark.parametrize("value", [b"", b"Bearer YTpi", b"Basics YTpi", b"Basic-2 YTpi", b" Basic YTpi", b"YTpi"])
def test_another_scheme_is_none_of_its_business(value: bytes) -> None:
    assert read(value) is None


BAD = {
    "nothing": b"Basic",
    "blank": b"Basic ",
    "tab": b"Basic\tYTpi",
    "comma": b"Basic YTpi, Basic YTpi",
    "more": b"Basic YTpi YTpi",
    "behind": b"Basic YTpi ",
    "parameter": b'Basic realm="x"',
    "quotes": b'Basic "YTpi"',
    "not base64": b"Basic !!!!",
    "url-safe base64": b"Basic " + base64.urlsafe_b64encode("a:b\u00ff\u00ff?".encode()),
    "no padding": b"Basic YTo",
    "too much padding": b"Basic YTpi==",
    "padding within": b"Basic YQ==OmI=",
    "loose bits": b"Basic YTpiYh==",
    "length": b"Basic YTpiY",
    "no colon": basic("ab"),
    "empty name": basic(":b"),
    "empty password": basic("a:"),
    "both empty": basic(":"),
    "not UTF-8": basic(b"a:\xff\xfe"),
    "Latin-1": basic("zo\u00eb:x".encode("latin-1")),
    "surrogate": basic(b"a:\xed\xa0\x80"),
    "overlong": basic(b"a\xc0\xba:b"),
    "NUL in the name": basic("a\0:b"),
    "NUL in the password": basic("a:b\0"),
    "line break": basic("a\r\nX:b"),
    "tab inside": basic("a:b\t"),
    "delete": basic("a:b\x7f"),
    "C1": basic("a:b\x85"),
    "huge": basic("a:" + "b" * 2000),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_credentials_are_nobodys(name: str) -> None:
    with pytest.raises(BadCredentials):
        read(BAD[name])


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(value: bytes) -> None:
    for each in (value, b"Basic " + value, basic(value)):
        try:
            found = read(each)
        except BadCredentials:
            continue
        assert found is None or all(is_sendable(part) for part in found)


texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)


@given(texts.filter(lambda text: ":" not in text), texts)
def test_what_is_written_is_read(name: str, password: str) -> None:
    assert read(basic(f"{name}:{password}")) == (normal(name), normal(password))
