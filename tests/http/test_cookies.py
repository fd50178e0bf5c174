"""Cookies are found by their exact name, however a client wrote them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.cookies import remove, values


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], []),
        ([b"token=abc"], [b"abc"]),
        ([b"a=1; token=abc; b=2"], [b"abc"]),
        ([b"a=1;token=abc;b=2"], [b"abc"]),
        ([b'token="abc"'], [b"abc"]),
        ([b'token="'], [b'"']),
        ([b"token=a=b"], [b"a=b"]),
        ([b"token=1; token=2"], [b"1", b"2"]),
        ([b"token=1", b"token=2"], [b"1", b"2"]),
        ([b"Token=1; xtoken=2; tokens=3; token"], []),
        ([b"token="], [b""]),
        ([b"; ;;=;token=\xff"], [b"\xff"]),
    ],
)
def test_cookies_are_found_by_their_exact_name(lines: list[bytes], found: list[bytes]) -> None:
    assert values([(b"cookie", line) for line in lines], b"token") == found


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([b"token=abc"], []),
        ([b"a=1; token=abc; b=2"], [b"a=1; b=2"]),
        ([b"token=1;a=1", b"b=2; token=2"], [b"a=1", b"b=2"]),
        ([b"Token=1; xtoken=2"], [b"Token=1; xtoken=2"]),
        ([b"a=1; token"], [b"a=1"]),
    ],
)
def test_a_cookie_is_taken_out_and_the_others_stay(lines: list[bytes], left: list[bytes]) -> None:
    headers = [(b"x-a", b"token=1"), *((b"cookie", line) for line in lines)]
    assert remove(headers, b"token") == [(b"x-a", b"token=1"), *((b"cookie", line) for line in left)]


@given(st.lists(st.text("tokena=; \t", max_size=30).map(str.encode), max_size=4))
def test_what_was_taken_out_is_not_found_and_all_else_is(lines: list[bytes]) -> None:
    headers = [(b"cookie", line) for line in lines]
    left = remove(headers, b"token")
    assert values(left, b"token") == []
    assert values(left, b"a") == values(headers, b"a")
