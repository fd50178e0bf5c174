"""Cookies are found by their exact name, however a client wrote them."""

import pytest

from apim_middleware._http.cookies import values


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
