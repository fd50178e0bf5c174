"""Addresses are read strictly, and a set of networks agrees with the standard library whatever is in it."""

import contextlib
import ipaddress
import tracemalloc
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apim_middleware._http.addresses import (
    AddressSet,
    BadNetwork,
    Verdicts,
    address_text,
    parse_address,
    parse_endpoint,
    parse_network,
)


def canonical(text: str) -> str | None:
    address = parse_address(text)
    return None if address is None else address_text(address)


def endpoint(text: str) -> tuple[str, int] | None:
    found = parse_endpoint(text)
    return None if found is None else (address_text(found[0]), found[1])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:db8::192.0.2.1", "2001:db8::c000:201"),
        ("::", "::"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_one_address_has_one_text(text: str, meant: str) -> None:
    assert canonical(text) == meant


@pytest.mark.parametrize("text", ["::ffff:10.0.0.1", "::FFFF:0a00:0001", "0:0:0:0:0:ffff:a00:1", "::ffff:10.0.0.1%1"])
def test_an_ipv4_mapped_address_is_the_ipv4_address(text: str) -> None:
    assert parse_address(text) == parse_address("10.0.0.1")


@pytest.mark.parametrize("text", ["::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::", "::fffe:10.0.0.1"])
def test_other_addresses_that_hold_an_ipv4_address_are_ipv6(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert len(address) == 16


FULLWIDTH_ONE = "\uff11"

NO_ADDRESS = [
    "", " ", "010.0.0.1", "10.0.0.01", "167772161", "0x0a000001", "0xa.0.0.1", "10.1", "10.0.1", "10.0.0.0.1",
    "10.0.0.256", "10.0.0.-1", "+10.0.0.1", "10.0.0.1 ", " 10.0.0.1", "10.0.0.1\n", "10.0.0.1\0", "10.0.0.1%eth0",
    FULLWIDTH_ONE + ".0.0.1", "\ud800", "::ffff:010.0.0.1", "::ffff:167772161", "1::2::3", "12345::", "::g", ":::",
    "fe80::1%", "fe80::1%a b", "fe80::1%a%b", "fe80::1%" + "x" * 33, "localhost", "unknown", "_hidden", "unix:",
    "10.0.0.1/8", "[::1", "::1]", "*", "PROXY TCP4 9.9.9.9",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_others_might_guess_at_is_no_address(text: str) -> None:
    assert parse_address(text) is None
    assert parse_endpoint(text) is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:47011", ("192.0.2.1", 47011)),
        ("192.0.2.1:_https", ("192.0.2.1", 0)),
        ("2001:db8:cafe::17", ("2001:db8:cafe::17", 0)),
        ("[2001:db8:cafe::17]", ("2001:db8:cafe::17", 0)),
        ("[2001:db8:cafe::17]:4711", ("2001:db8:cafe::17", 4711)),
        ("[2001:db8:cafe::17]:_http", ("2001:db8:cafe::17", 0)),
        ("[::ffff:192.0.2.1]:80", ("192.0.2.1", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1", 80)),
    ],
)
def test_an_address_may_come_with_a_port(text: str, meant: tuple[str, int]) -> None:
    assert endpoint(text) == meant


@pytest.mark.parametrize("text", [
    "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:123456", "192.0.2.1:8o", "192.0.2.1:-1", "192.0.2.1:+1",
    "192.0.2.1:" + FULLWIDTH_ONE, "192.0.2.1:80:80", "192.0.2.1:_", "192.0.2.1: 80", "[192.0.2.1]:80", "[]", "[]:80",
    "[::1]80", "[::1]:", "[::1]]", "[[::1]]", "::1]:80", "example.com:80", ":80", "_hidden:80", "[::1]:80 ",
])  # fmt: skip
def test_what_only_resembles_an_address_with_a_port_is_none(text: str) -> None:
    assert parse_endpoint(text) is None


@given(st.text())
def test_reading_never_raises(text: str) -> None:
    parse_address(text)
    parse_endpoint(text)
    parse_endpoint(f"[{text}]:{text}")
    with contextlib.suppress(BadNetwork):
        parse_network(text)


@given(st.ip_addresses())
def test_every_notation_of_the_standard_library_is_read_alike(address: IPv4Address | IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    for text in (str(address), address.exploded, address.exploded.upper()):
        assert parse_address(text) == (mapped or address).packed


@given(st.ip_addresses())
def test_the_canonical_text_reads_back(address: IPv4Address | IPv6Address) -> None:
    text = canonical(str(address))
    assert text is not None
    assert canonical(text) == text


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("192.0.2.7", ["192.0.2.7/32"]),
        ("2001:db8::1", ["2001:db8::1/128"]),
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("0.0.0.0/0", ["0.0.0.0/0"]),
        ("2001:db8::/32", ["2001:db8::/32"]),
        ("::ffff:10.0.0.0/104", ["10.0.0.0/8"]),
        ("::ffff:0.0.0.0/96", ["0.0.0.0/0"]),
        ("10.0.0.5-10.0.0.5", ["10.0.0.5/32"]),
        ("10.0.0.0 - 10.0.0.255", ["10.0.0.0/24"]),
        ("10.0.0.5-10.0.0.8", ["10.0.0.5/32", "10.0.0.6/31", "10.0.0.8/32"]),
        ("0.0.0.0-255.255.255.255", ["0.0.0.0/0"]),
        ("255.255.255.254-255.255.255.255", ["255.255.255.254/31"]),
        ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ["::/0"]),
        ("::ffff:10.0.0.4-10.0.0.5", ["10.0.0.4/31"]),
    ],
)
def test_networks_are_written_as_address_cidr_or_range(text: str, networks: list[str]) -> None:
    kinds = {32: IPv4Network, 128: IPv6Network}
    found = [kinds[width]((bits << width - length, length)) for width, length, bits in parse_network(text)]
    assert [str(each) for each in found] == networks


RANGES = st.sampled_from((4, 6)).flatmap(lambda version: st.tuples(*[st.ip_addresses(v=version)] * 2))


@given(RANGES)
def test_a_range_becomes_the_fewest_networks(ends: tuple[IPv4Address, IPv4Address]) -> None:
    first, last = sorted(ends)
    assume(first.version == 4 or not (first.ipv4_mapped or last.ipv4_mapped))
    expected = [
        (each.prefixlen, each.network_address.packed) for each in ipaddress.summarize_address_range(first, last)
    ]
    found = parse_network(f"{first}-{last}")
    assert [(length, (bits << width - length).to_bytes(width // 8)) for width, length, bits in found] == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no address"),
        ("10.0.0", "no address"),
        ("example.com", "no address"),
        ("010.0.0.0/8", "no address"),
        ("fe80::1%eth0", "no address"),
        ("fe80::%eth0/10", "no address"),
        ("192.0.2.1:80", "no address"),
        ("/8", "no address"),
        ("-", "no address"),
        ("10.0.0.1-", "no address"),
        ("10.0.0.1-10.0.0.2-10.0.0.3", "no address"),
        ("10.0.0.0/8-10.0.0.0/9", "no address"),
        ("10.0.0.0/", "prefix length"),
        ("10.0.0.0/33", "prefix length"),
        ("10.0.0.0/-1", "no address"),
        ("10.0.0.0/08", "prefix length"),
        ("10.0.0.0/255.0.0.0", "prefix length"),
        ("2001:db8::/129", "prefix length"),
        ("::ffff:0.0.0.0/95", "prefix length"),
        ("10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("2001:db8::1/32", "the network is 2001:db8::/32"),
        ("10.0.0.2-10.0.0.1", "ends before it begins"),
        ("10.0.0.1-::1", "address family"),
    ],
)
def test_what_is_no_network_is_told_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(BadNetwork, match=reason):
        parse_network(text)


def test_a_set_names_the_text_it_could_not_read() -> None:
    with pytest.raises(BadNetwork) as caught:
        AddressSet(("10.0.0.0/8", "10.0.0.300"))
    assert caught.value.args[1] == "10.0.0.300"


def networks_of(version: int) -> st.SearchStrategy[IPv4Network | IPv6Network]:
    kind, width = (IPv4Network, 32) if version == 4 else (IPv6Network, 128)
    return st.builds(
        lambda bits, length: kind((bits >> width - length << width - length, length)),
        st.integers(0, 2**width - 1),
        st.integers(0, width),
    )


def near(network: IPv4Network | IPv6Network) -> list[IPv4Address | IPv6Address]:
    """The addresses on both sides of both edges."""
    first, last = int(network.network_address), int(network.broadcast_address)
    kind, top = type(network.network_address), 2**network.max_prefixlen - 1
    return [kind(value) for value in (first - 1, first, last, last + 1) if 0 <= value <= top]


@given(st.lists(st.sampled_from((4, 6)).flatmap(networks_of), max_size=20), st.lists(st.ip_addresses(), max_size=20))
def test_a_set_agrees_with_the_standard_library(
    networks: list[IPv4Network | IPv6Network], addresses: list[IPv4Address | IPv6Address]
) -> None:
    mapped = IPv6Network("::ffff:0:0/96")
    networks = [each for each in networks if each.version == 4 or not each.subnet_of(mapped)]
    found = AddressSet(str(each) for each in networks)
    for address in [*addresses, *(each for network in networks for each in near(network))]:
        plain = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
        parsed = parse_address(str(address))
        assert parsed is not None
        assert (parsed in found) == any(plain in network for network in networks)


def test_an_empty_set_holds_nothing() -> None:
    assert b"\x0a\0\0\x01" not in AddressSet(())


@pytest.mark.parametrize("everything", ["0.0.0.0/0", "::/0", "0.0.0.0-255.255.255.255", "::ffff:0.0.0.0/96"])
def test_a_set_knows_that_it_holds_a_whole_family(everything: str) -> None:
    assert AddressSet(("10.0.0.0/8", everything)).everything
    assert not AddressSet(("10.0.0.0/8", "2001:db8::/32")).everything


@pytest.mark.parametrize(
    "networks",
    [
        ("0.0.0.0/1", "128.0.0.0/1"),
        ("0.0.0.0/1", "128.0.0.0/2", "192.0.0.0-255.255.255.255"),
        ("0.0.0.0-9.255.255.254", "9.255.255.255", "10.0.0.0-255.255.255.255"),
        ("::/2", "4000::/2", "8000::/1"),
    ],
)
def test_a_set_that_holds_everything_in_parts_is_known_as_such(networks: tuple[str, ...]) -> None:
    assert AddressSet(networks).everything
    for place in range(len(networks)):
        assert not AddressSet((*networks[:place], *networks[place + 1 :])).everything


def test_a_hundred_thousand_networks_take_less_than_ten_megabytes() -> None:
    networks = [f"{n >> 16}.{n >> 8 & 255}.{n & 255}.0/24" for n in range(65536 * 16, 65536 * 16 + 100_000)]
    tracemalloc.start()
    try:
        found = AddressSet(networks)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parse_address("16.0.1.77") in found
    assert used < 10_000_000


def test_verdicts_are_remembered_within_bounds_and_not_those_of_long_texts() -> None:
    asked: list[str] = []

    def find_out(text: str) -> str:
        asked.append(text)
        return text[:1]

    verdicts = Verdicts(find_out)
    assert [verdicts["192.0.2.1"], verdicts["192.0.2.1"], verdicts["x" * 65]] == ["1", "1", "x"]
    assert asked == ["192.0.2.1", "x" * 65]
    assert list(verdicts) == ["192.0.2.1"]
    for number in range(10_000):
        assert verdicts[str(number)] == str(number)[:1]
    assert len(verdicts) <= 4096
