"""What belongs to one hop, and what a proxy says of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.forwarded import Hop, from_forwarded
from apim_middleware._http.hops import (
    HOP_BY_HOP,
    carries,
    end_to_end,
    ends_here,
    forwarding_fields,
    may_trail,
    nominated,
    one_cookie,
    one_hop_fewer,
    passed,
)


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    ],
)
def test_a_field_of_one_hop_stays_there(name):
    assert end_to_end([(b"a", b"1"), (name, b"x"), (b"b", b"2")]) == [(b"a", b"1"), (b"b", b"2")]


def test_other_fields_travel_on_in_their_order():
    lines = [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
    assert end_to_end(lines) == lines


def test_what_is_asked_for_stays_too():
    assert end_to_end([(b"host", b"x"), (b"a", b"1")], without=[b"host"]) == [(b"a", b"1")]


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([b"close"], {b"close"}),
        ([b"X-Hop"], {b"x-hop"}),
        ([b"close, X-Hop ,\tx-other"], {b"close", b"x-hop", b"x-other"}),
        ([b"x-one", b"x-two"], {b"x-one", b"x-two"}),
        ([b",, ,"], set()),
        ([], set()),
    ],
)
def test_connection_nominates_fields(lines, names):
    assert nominated([(b"connection", line) for line in lines]) == names


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"host",
        b"cache-control",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-anything",
        b"x-real-ip",
        b"via",
        b"max-forwards",
        b"traceparent",
        b"if-none-match",
        b"access-control-allow-origin",
        b"www-authenticate",
        b"te",
        b"upgrade",
    ],
)
def test_connection_cannot_nominate_what_is_for_every_recipient(name):
    assert nominated([(b"connection", b"close, " + name.upper())]) == {b"close"}


OURS = b"apim-0a1b2c3d"


@pytest.mark.parametrize(
    ("lines", "been_here"),
    [
        ([], False),
        ([b"1.1 apim-0a1b2c3d"], True),
        ([b"1.1 APIM-0A1B2C3D"], True),
        ([b"1.0 fred, 1.1 apim-0a1b2c3d (the gateway)"], True),
        ([b"1.0 fred", b"HTTP/1.1\tapim-0a1b2c3d"], True),
        ([b"1.1 apim-ffffffff"], False),
        ([b"1.1 xapim-0a1b2c3d"], False),
        ([b"1.1 other (like apim-0a1b2c3d)"], False),
        ([b"apim-0a1b2c3d"], False),
        ([b",, ,"], False),
    ],
)
def test_via_tells_where_a_message_was(lines, been_here):
    assert passed([(b"via", line) for line in lines], OURS) is been_here


@pytest.mark.parametrize(
    ("form", "client", "scheme", "host", "fields"),
    [
        (
            "x-forwarded",
            "192.0.2.1",
            "https",
            b"a.example",
            {b"x-forwarded-for": b"192.0.2.1", b"x-forwarded-proto": b"https", b"x-forwarded-host": b"a.example"},
        ),
        ("x-forwarded", None, "http", None, {b"x-forwarded-proto": b"http"}),
        ("x-forwarded", "testclient", "http", None, {b"x-forwarded-proto": b"http"}),
        (
            "x-forwarded",
            "fe80::1%eth0",
            "http",
            None,
            {b"x-forwarded-for": b"fe80::1", b"x-forwarded-proto": b"http"},
        ),
        ("forwarded", "192.0.2.1", "http", None, {b"forwarded": b"for=192.0.2.1;proto=http"}),
        (
            "forwarded",
            "2001:db8::1",
            "https",
            b"a.example:8443",
            {b"forwarded": b'for="[2001:db8::1]";proto=https;host="a.example:8443"'},
        ),
        ("forwarded", "::ffff:192.0.2.1", "http", None, {b"forwarded": b"for=192.0.2.1;proto=http"}),
        ("forwarded", "x, for=6.6.6.6", "http", None, {b"forwarded": b"for=unknown;proto=http"}),
        (
            "both",
            "192.0.2.1",
            "http",
            None,
            {
                b"x-forwarded-for": b"192.0.2.1",
                b"x-forwarded-proto": b"http",
                b"forwarded": b"for=192.0.2.1;proto=http",
            },
        ),
        ("none", "192.0.2.1", "http", b"a.example", {}),
    ],
)
def test_the_upstream_learns_of_the_client(form, client, scheme, host, fields):
    assert dict(forwarding_fields(form, client, scheme, host)) == fields


@given(host=st.binary(max_size=20).filter(lambda raw: not any(code < 32 or code == 127 for code in raw)))
def test_a_host_cannot_break_out_of_its_quotes(host):
    """Whatever stands in Host, the field still says of whom we said it."""
    [(_, line)] = forwarding_fields("forwarded", "192.0.2.1", "http", host)
    told = from_forwarded([line], lambda text: Hop(text, 0, trusted=False))
    assert (told.client, told.scheme) == (("192.0.2.1", 0), "http")


@pytest.mark.parametrize(
    ("left", "then"), [(b"5", b"4"), (b"1", b"0"), (b"0", b"0"), (b"", b""), (b"-1", b"-1"), (b"9" * 5000, b"9" * 5000)]
)
def test_max_forwards_counts_the_hops_left(left, then):
    assert one_hop_fewer([(b"a", b"1"), (b"max-forwards", left)]) == [(b"a", b"1"), (b"max-forwards", then)]


@pytest.mark.parametrize(("left", "over"), [(b"0", True), (b"000", True), (b"1", False), (b"10", False), (b"", False)])
def test_max_forwards_ends_the_way(left, over):
    assert ends_here([(b"max-forwards", left)]) is over
    assert not ends_here([])


def test_cookies_are_joined_only_where_they_are_split():
    assert one_cookie([(b"cookie", b"a=1"), (b"x", b"y")]) == [(b"cookie", b"a=1"), (b"x", b"y")]
    assert one_cookie([(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")])[-1] == (b"cookie", b"a=1; b=2")


def test_every_hop_by_hop_name_is_lower_case():
    assert all(name == name.lower() for name in HOP_BY_HOP)


@pytest.mark.parametrize(
    "name",
    [
        *(b"accept", b"age", b"allow", b"baggage", b"date", b"etag", b"expect", b"expires", b"from", b"last-modified"),
        *(b"location", b"ocp-apim-subscription-key", b"origin", b"pragma", b"priority", b"proxy-status", b"range"),
        *(b"referer", b"retry-after", b"server", b"tracestate", b"transfer-encoding", b"user-agent", b"vary"),
        *(b"x-api-key", b"accept-language", b"sec-fetch-site"),
    ],
)
def test_no_other_field_for_every_recipient_is_nominated(name):
    """A caller who could would take away what the upstream, or a cache on the way, relies on."""
    assert nominated([(b"connection", b"x-hop, " + name)]) == {b"x-hop"}


@pytest.mark.parametrize(
    "name",
    [
        *(b"alt-svc", b"content-disposition", b"content-location", b"content-security-policy", b"cookie", b"cookie2"),
        *(b"content-security-policy-report-only", b"expect", b"forwarded", b"max-forwards", b"pragma", b"range"),
        *(b"refresh", b"set-cookie2", b"status", b"strict-transport-security", b"warning", b"x-content-type-options"),
        *(b"x-frame-options", b"keep-alive", b"http2-settings", b"proxy-anything", b"if-none-match"),
    ],
)
def test_no_other_field_that_must_be_known_before_the_body_trails(name):
    assert not may_trail(name)


@pytest.mark.parametrize(
    "name",
    [
        *(b"host", b"connection", b"content-length", b"keep-alive", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade"),
    ],
)
def test_no_field_that_frames_or_routes_a_message_carries_a_key(name):
    assert not carries(name)
