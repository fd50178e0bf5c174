"""Addresses of the public internet, and those that only mean something from here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.reach import is_loopback, is_public

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
OURS = [
    "127.0.0.1", "127.255.255.255", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "2001:db8::1", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "2002:a00:1::", "2002:7f00:1::",
    "::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::10.0.0.1", "5f00::1", "4000::1", "3fff::1",
    "192.88.99.1", "168.63.129.16", "::ffff:168.63.129.16",
    "192.0.0.8", "192.0.0.9", "2001:1::1", "2001:4:112::1", "2001:20::1",  # Pythons differ about them
    "", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "010.0.0.1", "8.8.8.8:53",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_what_everybody_means_the_same_by_is_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize("text", OURS)
def test_everything_else_is_not(text: str) -> None:
    assert not is_public(text)


@given(st.ip_addresses(v=4))
def test_an_address_within_another_is_judged_as_itself(address: object) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    assert is_public(f"64:ff9b::{address}") == is_public(str(address))


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
        ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("127.1", False), ("10.0.0.1", False),
        ("", False), ("LOCALHOST", False),
    ],
)  # fmt: skip
def test_this_machine_is_named_as_such(host: str, here: bool) -> None:
    assert is_loopback(host) == here
