"""What proxies say is believed as far as trust reaches, and no client can write its way past that."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.addresses import AddressSet, parse_address
from apim_middleware._http.forwarded import (
    FOR,
    HOST,
    MAX_HOPS,
    PORT,
    PROTO,
    REAL_IP,
    Hop,
    Trust,
    Vouched,
    agreed,
    from_forwarded,
    from_x_forwarded,
    host_header,
)

OURS = AddressSet(("10.0.0.0/8", "2001:db8:ffff::/48"))
judge = Trust(OURS, unix=False).judge
judge_with_sockets = Trust(OURS, unix=True).judge


def forwarded(*lines: str) -> Vouched:
    return from_forwarded([line.encode("latin-1") for line in lines], judge)


def x_forwarded(**fields: str | Sequence[str]) -> Vouched:
    """The fields by their last word: ``x_forwarded(proto="https")``."""
    names = {"real_ip": REAL_IP, "chain": FOR, "proto": PROTO, "host": HOST, "port": PORT}
    lines = {name: [value] if isinstance(value, str) else value for name, value in fields.items()}
    return from_x_forwarded({names[name]: [each.encode() for each in value] for name, value in lines.items()}, judge)


def client(*lines: str) -> tuple[str, int] | None:
    return x_forwarded(chain=lines).client


# The examples of RFC 7239, in the order they stand there


@pytest.mark.parametrize(
    ("value", "vouched"),
    [
        ('for="_gazonk"', Vouched()),
        ('For="[2001:db8:cafe::17]:4711"', Vouched(("2001:db8:cafe::17", 4711))),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", Vouched(("192.0.2.60", 0), "http")),
        ("for=192.0.2.43, for=198.51.100.17", Vouched(("198.51.100.17", 0))),
        ('for="192.0.2.43:47011"', Vouched(("192.0.2.43", 47011))),
        ('for="[2001:db8:cafe::17]:47011"', Vouched(("2001:db8:cafe::17", 47011))),
        ("for=_hidden, for=_SEVKISEK", Vouched()),
        ('for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown', Vouched()),
        ('for=192.0.2.43, for="[2001:db8:cafe::17]"', Vouched(("2001:db8:cafe::17", 0))),
        (
            "for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com",
            Vouched(("198.51.100.17", 0), "http", "example.com"),
        ),
    ],
)
def test_examples_of_rfc_7239_seen_by_who_trusts_the_last_proxy(value: str, vouched: Vouched) -> None:
    assert forwarded(value) == vouched


def test_the_chain_of_rfc_7239_section_7_5_seen_by_who_trusts_both_proxies() -> None:
    both = Trust(AddressSet(("198.51.100.17", "203.0.113.60")), unix=False).judge
    value = b"for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com"
    assert from_forwarded([value], both) == Vouched(("192.0.2.43", 0), "http", "example.com")


@pytest.mark.parametrize(
    "lines",
    [
        ('for=192.0.2.43,for="[2001:db8:cafe::17]",for=10.0.0.1',),
        ('for=192.0.2.43, for="[2001:db8:cafe::17]", for=10.0.0.1',),
        ("for=192.0.2.43", 'for="[2001:db8:cafe::17]", for=10.0.0.1'),
        ("for=192.0.2.43", 'for="[2001:db8:cafe::17]"', "for=10.0.0.1"),
    ],
)
def test_several_lines_are_one_list(lines: tuple[str, ...]) -> None:
    assert forwarded(*lines).client == ("2001:db8:cafe::17", 0)


# The walk


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ("192.0.2.43", ("192.0.2.43", 0)),
        ("192.0.2.43, 198.51.100.17", ("198.51.100.17", 0)),
        ("6.6.6.6, 192.0.2.43, 10.0.0.1", ("192.0.2.43", 0)),
        ("6.6.6.6,192.0.2.43,10.0.0.2,10.0.0.1", ("192.0.2.43", 0)),
        (" 192.0.2.43\t ,  10.0.0.1 ", ("192.0.2.43", 0)),
        ("10.0.0.3, 10.0.0.2, 10.0.0.1", ("10.0.0.3", 0)),
        ("192.0.2.43:4711, 10.0.0.1:80", ("192.0.2.43", 4711)),
        ("[2001:db8::17]:4711", ("2001:db8::17", 4711)),
        ("2001:DB8::17, 2001:db8:ffff::1", ("2001:db8::17", 0)),
        ("::ffff:192.0.2.43, ::ffff:10.0.0.1", ("192.0.2.43", 0)),
        ("192.0.2.43, fe80::1%eth0", ("fe80::1", 0)),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_ours(chain: str, found: tuple[str, int]) -> None:
    assert client(chain) == found
    elements = ",".join(f'for="{each.strip()}"' for each in chain.split(","))
    assert forwarded(elements).client == found


@pytest.mark.parametrize(
    "junk",
    ["unknown", "_hidden", "", " ", "-", "010.0.0.1", "167772161", "10.0.0.1:", "10.0.0.1:99999", "localhost", "[::1",
     "\xff", "10.0.0.1 10.0.0.2", "10.0.0.1;", "'10.0.0.1'", "unix:", "PROXY TCP4 9.9.9.9 8.8.8.8 1 2", "1" * 9999],
)  # fmt: skip
def test_junk_ends_the_walk_at_the_last_address_vouched_for(junk: str) -> None:
    assert client(f"6.6.6.6, {junk}, 10.0.0.2, 10.0.0.1") == ("10.0.0.2", 0)
    assert client(f"6.6.6.6, {junk}") is None
    assert forwarded(f'for=6.6.6.6, for="{junk}", for=10.0.0.2, for=10.0.0.1').client == ("10.0.0.2", 0)
    assert forwarded(f'for=6.6.6.6, for="{junk}"').client is None


def test_junk_behind_the_client_is_of_no_matter() -> None:
    assert client("junk,, ;\xff, 192.0.2.43, 10.0.0.1") == ("192.0.2.43", 0)


def test_lines_are_read_as_one_list() -> None:
    assert client("6.6.6.6", "192.0.2.43", "10.0.0.2, 10.0.0.1") == ("192.0.2.43", 0)
    assert client("6.6.6.6", "", "10.0.0.1") == ("10.0.0.1", 0)


@pytest.mark.parametrize("socket", ["unix:", "unix", "unix:/run/app.sock"])
def test_a_hop_over_a_local_socket_is_passed_only_when_such_are_trusted(socket: str) -> None:
    fields = {FOR: [f"6.6.6.6, 192.0.2.43, {socket}, 10.0.0.1".encode()]}
    assert from_x_forwarded(fields, judge).client == ("10.0.0.1", 0)
    assert from_x_forwarded(fields, judge_with_sockets).client == ("192.0.2.43", 0)


@pytest.mark.parametrize("junk", ["unknown", "uni", "unixx", "_hidden", ""])
def test_what_is_no_socket_ends_the_walk_though_sockets_are_trusted(junk: str) -> None:
    fields = {FOR: [f"6.6.6.6, {junk}, 10.0.0.1".encode()]}
    assert from_x_forwarded(fields, judge_with_sockets).client == ("10.0.0.1", 0)


def test_a_chain_of_nothing_but_sockets_names_no_client() -> None:
    assert from_x_forwarded({FOR: [b"unix:, unix:"]}, judge_with_sockets) == Vouched()


def test_ten_thousand_entries_cost_as_much_as_a_few() -> None:
    seen: list[str] = []

    def counting(text: str) -> Hop:
        seen.append(text)
        return judge(text)

    addresses = [f"10.0.{n >> 8}.{n & 255}" for n in range(10_000)]
    assert from_x_forwarded({FOR: [", ".join(addresses).encode()]}, counting).client == (addresses[-MAX_HOPS], 0)
    elements = ", ".join(f"for={each}" for each in addresses)
    assert from_forwarded([elements.encode()], counting).client == (addresses[-MAX_HOPS], 0)
    assert len(seen) == 2 * MAX_HOPS


# Elements of Forwarded


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("FOR=192.0.2.1;PROTO=HTTPS;HOST=Example.com", Vouched(("192.0.2.1", 0), "https", "Example.com")),
        ("for=192.0.2.1; proto=https ; host=example.com", Vouched(("192.0.2.1", 0), "https", "example.com")),
        (";;for=192.0.2.1;", Vouched(("192.0.2.1", 0))),
        ("for=192.0.2.1:80", Vouched(("192.0.2.1", 80))),
        ("for=[2001:db8::1]:80", Vouched(("2001:db8::1", 80))),
        ('for="192.0.2.1:_port"', Vouched(("192.0.2.1", 0))),
        (r'for="192.0.2\.1"', Vouched(("192.0.2.1", 0))),
        (r'for=192.0.2.1;secret="a\", for=6.6.6.6;x=\"b"', Vouched(("192.0.2.1", 0))),
        (r'for=192.0.2.1;secret="\\"', Vouched(("192.0.2.1", 0))),
        ('for=192.0.2.1;host="a,b;c"', Vouched(("192.0.2.1", 0), None, "a,b;c")),
        ("for=192.0.2.1;proto=gopher", Vouched(("192.0.2.1", 0))),
        ("for=192.0.2.1;proto=wss", Vouched(("192.0.2.1", 0), "https")),
        ("for=unknown;proto=https;host=example.com", Vouched(None, "https", "example.com")),
        ("proto=https;by=10.0.0.1", Vouched(None, "https")),
    ],
)
def test_an_element_is_read_as_it_is_meant(value: str, found: Vouched) -> None:
    assert forwarded(value) == found


@pytest.mark.parametrize("broken", [
    "for", "for=", "=192.0.2.1", "192.0.2.1", "for = 192.0.2.1", 'for="192.0.2.1', 'for=192.0.2.1"',
    "for=192.0.2.1 proto=https", "for=192.0.2.1;for=192.0.2.1", "for=192.0.2.1;FOR=192.0.2.2", "for=192.0.2.1;proto",
    'for="192.0.2.1"x', 'f"or=192.0.2.1', 'for="192.0.2.1\\', 'for="192.0.2.1\\"', "for=192.0.2.1;x=\\",
    "f(or=192.0.2.1", "for=192.0.2.1;x=y=z", "for=192.0.2.1;x=" + "y" * 1024, ";" * 1024 + "for=192.0.2.1",
])  # fmt: skip
def test_a_malformed_element_says_nothing_at_all(broken: str) -> None:
    assert forwarded(f"for=6.6.6.6, {broken}, for=10.0.0.2;proto=http, for=10.0.0.1") == Vouched(
        ("10.0.0.2", 0), "http"
    )
    assert forwarded("for=6.6.6.6", broken) == Vouched()


def test_scheme_and_host_are_those_the_client_used() -> None:
    chain = (
        "for=6.6.6.6;proto=http;host=evil, for=192.0.2.1;proto=https;host=shop.example, for=10.0.0.1;proto=http;host=in"
    )
    assert forwarded(chain) == Vouched(("192.0.2.1", 0), "https", "shop.example")


def test_what_the_outer_proxy_leaves_out_is_taken_from_the_next() -> None:
    chain = "for=192.0.2.1, for=10.0.0.1;proto=https;host=shop.example"
    assert forwarded(chain) == Vouched(("192.0.2.1", 0), "https", "shop.example")


# Fields of X-Forwarded


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [("https", "https"), ("HTTP", "http"), ("wss", "https"), ("ws", "http"), ("https, http", "http"),
     ("http,https", "https"), ("", None), ("ftp", None), ("https;", None), ("https, ", None)],
)  # fmt: skip
def test_the_scheme_is_the_last_one_told(proto: str, scheme: str | None) -> None:
    assert x_forwarded(proto=proto).scheme == scheme
    assert x_forwarded(chain="192.0.2.1", proto=("http", proto)).scheme == scheme


def test_the_host_is_the_last_one_told_for_apache_appends() -> None:
    assert x_forwarded(chain="192.0.2.1", host="evil.example, shop.example").host == "shop.example"


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ({"host": "a.example", "port": "8443"}, "a.example:8443"),
        ({"host": "a.example", "port": "8443, 8444"}, "a.example:8444"),
        ({"host": "a.example", "port": "08443"}, "a.example:8443"),
        ({"host": "a.example", "port": "443", "proto": "https"}, "a.example"),
        ({"host": "a.example", "port": "443", "proto": "http"}, "a.example:443"),
        ({"host": "a.example", "port": "80"}, "a.example"),
        ({"host": "a.example", "port": "443"}, "a.example"),
        ({"host": "a.example", "port": "80", "proto": "http"}, "a.example"),
        ({"host": "a.example", "port": "80", "proto": "https"}, "a.example:80"),
        ({"host": "a.example", "port": "65535"}, "a.example:65535"),
        ({"host": "a.example:1", "port": "8443"}, "a.example:1"),
        ({"host": "[2001:db8::1]", "port": "8443"}, "[2001:db8::1]:8443"),
        ({"host": "[2001:db8::1]:1", "port": "8443"}, "[2001:db8::1]:1"),
        ({"host": "a.example", "port": "65536"}, "a.example"),
        ({"host": "a.example", "port": "80/x"}, "a.example"),
        ({"host": "a.example", "port": ""}, "a.example"),
        ({"port": "8443"}, None),
    ],
)
def test_a_port_is_added_to_a_host_that_names_none(fields: dict[str, str], host: str | None) -> None:
    assert x_forwarded(**fields).host == host


CLIENT, ELSEWHERE = ("192.0.2.1", 0), ("198.51.100.7", 0)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Vouched(), Vouched(), Vouched()),
        (Vouched(CLIENT, "https", "a"), Vouched(CLIENT, "https", "a"), Vouched(CLIENT, "https", "a")),
        (Vouched(("192.0.2.1", 80)), Vouched(CLIENT), Vouched(CLIENT)),
        (Vouched(CLIENT), Vouched(("192.0.2.1", 80)), Vouched(CLIENT)),
        (Vouched(("192.0.2.1", 80)), Vouched(("192.0.2.1", 81)), None),
        (Vouched(CLIENT), Vouched(ELSEWHERE), None),
        (Vouched(CLIENT), Vouched(), None),
        (Vouched(), Vouched(CLIENT), None),
        (Vouched(CLIENT, "https"), Vouched(CLIENT, "http"), None),
        (Vouched(CLIENT, "https", "a"), Vouched(CLIENT, "https", "b"), None),
        (Vouched(None, "https"), Vouched(None, "http"), None),
    ],
)
def test_two_families_of_fields_agree_or_nobody_is_believed(one: Vouched, other: Vouched, both: Vouched | None) -> None:
    assert agreed(one, other) == both


def test_real_ip_is_walked_like_a_chain_of_one() -> None:
    assert x_forwarded(real_ip="192.0.2.1").client == ("192.0.2.1", 0)
    assert x_forwarded(real_ip="10.0.0.9").client == ("10.0.0.9", 0)
    assert x_forwarded(real_ip="unknown").client is None


@pytest.mark.parametrize("host", [
    "example.com", "example.com:8080", "EXAMPLE.com:0", "a_b.example", "xn--bcher-kva.example", "192.0.2.1",
    "192.0.2.1:80", "[2001:db8::1]", "[2001:db8::1]:443", "localhost",
])  # fmt: skip
def test_a_forwarded_host_passes(host: str) -> None:
    assert host_header(host) == host.encode()


@pytest.mark.parametrize("host", [
    "", ":80", "a b", "a/b", "a@b", "a\\b", "a,b", "a;b", 'a"b', "a%41", "a\r\nx: y", "a\0", "a:", "a:80:80", "a:65536",
    "a:8o", "a:+8", "a:\u0661", "\xfcber.example", "http://a", "[]", "[192.0.2.1]", "[::1", "::1", "[fe80::1%eth0]",
    "[::1]a", "[::1]:", "[::g]", "a" * 256,
])  # fmt: skip
def test_what_is_no_host_is_none(host: str) -> None:
    assert host_header(host) is None


# At random

ADDRESSES = st.sampled_from(
    ("192.0.2.1", "198.51.100.7", "[2001:db8::7]:80", "10.0.0.1", "10.9.8.7", "[2001:db8:ffff::1]")
)
JUNK = st.sampled_from(("unknown", "_x", "", "010.0.0.1", "unix:", "10.0.0.1;")) | st.text(max_size=5).filter(
    lambda text: not set(text) & set(',"\\') and all(ord(each) < 256 for each in text)
)
ENTRIES = st.lists(ADDRESSES | JUNK, max_size=12)


def furthest(entries: list[str]) -> int:
    """Where the walk must end at the latest: the last entry that does not name a trusted hop."""
    return max((place for place, entry in enumerate(entries) if not judge(entry.strip(" \t")).trusted), default=0)


@given(ENTRIES)
def test_the_walk_never_goes_past_a_hop_that_is_not_trusted(entries: list[str]) -> None:
    vouched_for = {judge(entry.strip(" \t")).address for entry in entries[furthest(entries) :]} - {None}
    chain = from_x_forwarded({FOR: [",".join(entries).encode("latin-1")]} if entries else {}, judge)
    elements = from_forwarded([",".join(f'for="{each}"' for each in entries).encode("latin-1")], judge)
    for found in (chain.client, elements.client):
        assert (found is None) == (not vouched_for)
        assert found is None or found[0] in vouched_for


@given(st.binary(max_size=200), st.sampled_from((b",", b", ")))
def test_nothing_a_client_writes_changes_what_proxies_wrote_behind_it(hostile: bytes, comma: bytes) -> None:
    own = b'for="[2001:db8::7]:4711";proto=https;host="shop.example", for=10.0.0.1;by=10.0.0.2'
    assert from_forwarded([hostile + comma + own], judge) == from_forwarded([own], judge)
    assert from_forwarded([hostile, own], judge) == from_forwarded([own], judge)
    chain = b"192.0.2.1, 10.0.0.1"
    assert from_x_forwarded({FOR: [hostile + comma + chain]}, judge) == from_x_forwarded({FOR: [chain]}, judge)


HOSTILE = st.text(alphabet='for=;,"\\ 10.:[]_\xff', max_size=60).map(lambda text: text.encode("latin-1"))


@given(st.lists(HOSTILE | st.binary(max_size=60), max_size=4))
def test_reading_never_raises(lines: list[bytes]) -> None:
    for vouched in (
        from_forwarded(lines, judge),
        from_x_forwarded({FOR: lines, PROTO: lines, HOST: lines, PORT: lines}, judge),
    ):
        assert vouched.client is None or parse_address(vouched.client[0]) is not None
        assert vouched.scheme in (None, "http", "https")
        assert vouched.host is None or host_header(vouched.host) in (None, vouched.host.encode("latin-1"))


QUOTED = st.text(alphabet='ab",;=\\ ', max_size=12)


@given(st.lists(st.tuples(st.integers(0, 255), QUOTED), min_size=1, max_size=MAX_HOPS))
def test_quoted_strings_hide_what_is_in_them(elements: list[tuple[int, str]]) -> None:
    """Read from the right, well-formed elements are the same as read from the left."""
    seen: list[str] = []

    def remembering(text: str) -> Hop:
        seen.append(text)
        return Hop(text, 0, trusted=True)

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'

    line = ",".join(f"for=10.0.0.{number};x={quoted(text)}" for number, text in elements)
    from_forwarded([line.encode()], remembering)
    assert seen == [f"10.0.0.{number}" for number, _ in reversed(elements)]
