"""What every request goes through before any policy, whatever the server let in."""

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.hygiene import FORWARDING, Hygiene
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.testing import http_scope
from apim_middleware.types import RawHeaders, Scope


def clean(*headers: tuple[bytes, bytes], rules: Hygiene | None = None, **scope: Any) -> tuple[Scope, RawHeaders]:
    """Clean a request with these headers; the scope as it is then and the forwarding fields taken out."""
    dirty = http_scope(headers=headers, **scope)
    _, aside = (rules or Hygiene()).compiled()(dirty)
    return dirty, aside


def refusal(*headers: tuple[bytes, bytes], rules: Hygiene | None = None, **scope: Any) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        clean(*headers, rules=rules, **scope)
    return caught.value.status, caught.value.code


HOST = (b"host", b"api.example.com")


def test_an_ordinary_request_passes_untouched() -> None:
    headers = [HOST, (b"accept", b"*/*"), (b"x-custom", b"1"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
    scope, aside = clean(*headers)
    assert scope["headers"] == headers
    assert aside == []


def test_what_a_server_adds_to_its_headers_afterwards_is_not_in_the_request() -> None:
    """As uvicorn adds trailers, when the policies are through with the headers."""
    headers = [HOST, (b"accept", b"*/*"), (b"transfer-encoding", b"chunked")]
    scope = http_scope("POST", headers=headers)
    scope["headers"] = headers
    Hygiene().compiled()(scope)
    headers.append((b"authorization", b"late"))
    assert scope["headers"] == headers[:-1]


@pytest.mark.parametrize("name", [b"host", b"authorization", b"content-type", b"transfer-encoding", b"range"])
@pytest.mark.parametrize("values", [(b"1", b"1"), (b"good", b"bad"), (b"bad", b"good")])
def test_what_must_stand_alone_is_refused_twice(name: bytes, values: tuple[bytes, bytes]) -> None:
    assert refusal(*((name, value) for value in values)) == (400, "duplicate-header")


def test_a_request_refused_for_a_double_is_as_it_was() -> None:
    """Whoever looks again must find the same."""
    headers = [HOST, (b"X-Forwarded-For", b"203.0.113.9"), (b"authorization", b"a"), (b"Authorization", b"b")]
    scope = http_scope(headers=headers)
    for _ in range(2):
        with pytest.raises(Refusal, match="duplicate-header"):
            Hygiene().compiled()(scope)
        assert scope["headers"] == headers


def test_doubles_are_found_under_any_case() -> None:
    assert refusal((b"Authorization", b"a"), (b"authorization", b"b")) == (400, "duplicate-header")


@pytest.mark.parametrize("host", [
    b"example.com", b"example.com:8080", b"example.com:", b"127.0.0.1", b"[::1]", b"[::1]:443", b"xn--bcher-kva.example", b"a_b.example",  # noqa: E501
])  # fmt: skip
def test_hosts_pass(host: bytes) -> None:
    assert clean((b"host", host))[0]["headers"] == [(b"host", host)]


@pytest.mark.parametrize("host", [
    b"a/b@c", b"good:99999", b"good:8o", b"", b"a b", b"a,b c", b"[::1", b"::1", b"a@b", b"http://a", b"a\xff", b"a" * 300, b"[fe80::1%eth0]",  # noqa: E501
])  # fmt: skip
def test_what_is_no_host_is_refused(host: bytes) -> None:
    assert refusal((b"host", host)) == (400, "bad-host")


def test_http_1_1_must_name_a_host() -> None:
    scope = http_scope()
    scope["headers"] = []
    with pytest.raises(Refusal) as caught:
        Hygiene().compiled()(scope)
    assert caught.value.code == "bad-host"


def test_http_1_0_need_not_name_a_host() -> None:
    scope = http_scope(http_version="1.0")
    scope["headers"] = []
    Hygiene().compiled()(scope)


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\0b"])
def test_line_breaks_and_nulls_in_values_are_refused(value: bytes) -> None:
    assert refusal((b"x-a", value)) == (400, "bad-header")


def test_a_line_break_hides_in_no_double() -> None:
    assert refusal((b"x-a", b"a\r\nb"), (b"x-a", b"c")) == (400, "bad-header")


@pytest.mark.parametrize("name", [b"", b"a b", b"a:b", b":path", b"a\r\nb", b"a\0", b"\xff", b"a" * 300])
def test_names_outside_the_grammar_are_refused(name: bytes) -> None:
    assert refusal((name, b"1")) == (400, "bad-header")


@pytest.mark.parametrize("name", [b"x_user", b"x.user", b"x-user~", b"X_User"])
def test_twins_of_a_name_are_dropped(name: bytes) -> None:
    """CGI-like servers behind us read ``x_user`` and ``x-user`` as one."""
    assert clean(HOST, (b"x-user", b"a"), (name, b"evil"))[0]["headers"] == [HOST, (b"x-user", b"a")]


def test_odd_names_are_refused_on_request() -> None:
    assert refusal((b"x_user", b"1"), rules=Hygiene(odd_names="refuse")) == (400, "bad-header")


def test_odd_names_are_kept_on_request() -> None:
    assert clean(HOST, (b"x_user", b"1"), rules=Hygiene(odd_names="keep"))[0]["headers"] == [HOST, (b"x_user", b"1")]


def test_upper_case_names_become_lower_case() -> None:
    assert clean(HOST, (b"X-Custom", b"1"))[0]["headers"] == [HOST, (b"x-custom", b"1")]


@pytest.mark.parametrize("name", sorted(FORWARDING))
def test_forwarding_fields_are_set_aside(name: bytes) -> None:
    scope, aside = clean(HOST, (name, b"203.0.113.9"))
    assert scope["headers"] == [HOST]
    assert aside == [(name, b"203.0.113.9")]


@pytest.mark.parametrize("name", [b"x-original-url", b"x-rewrite-url", b"x-http-method-override", b"proxy"])
def test_fields_that_override_the_request_are_taken_away(name: bytes) -> None:
    assert clean(HOST, (name, b"/admin"))[0]["headers"] == [HOST]


def test_what_is_stripped_can_be_chosen() -> None:
    rules = Hygiene(strip=("X-Tenant",))
    headers = [HOST, (b"x-original-url", b"/a"), (b"x-tenant", b"t")]
    assert clean(*headers, rules=rules)[0]["headers"] == headers[:2]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(b"content-length", b"2"), (b"transfer-encoding", b"chunked")], "bad-framing"),
        ([(b"transfer-encoding", b"gzip, chunked")], "bad-framing"),
        ([(b"transfer-encoding", b"identity")], "bad-framing"),
        ([(b"transfer-encoding", b"xchunked")], "bad-framing"),
        ([(b"transfer-encoding", b"\x0bchunked")], "bad-framing"),
        ([(b"transfer-encoding", b"chunked\x0c")], "bad-framing"),
        ([(b"content-length", b"2, 2")], "bad-framing"),
        ([(b"content-length", b"+2")], "bad-framing"),
        ([(b"content-length", b"0x2")], "bad-framing"),
        ([(b"content-length", b"-1")], "bad-framing"),
        ([(b"content-length", b"")], "bad-framing"),
        ([(b"content-length", b"1" * 30)], "bad-framing"),
        ([(b"content-length", b"2"), (b"content-length", b"3")], "bad-framing"),
    ],
)
def test_framing_that_a_neighbour_could_read_differently_is_refused(headers: RawHeaders, code: str) -> None:
    assert refusal(*headers) == (400, code)


@pytest.mark.parametrize("first", [b"chunked", b"identity"])
def test_two_codings_of_a_body_are_the_last_of_a_connection(first: bytes) -> None:
    """Some servers let them in, and others end the body elsewhere."""
    with pytest.raises(Refusal) as refused:
        clean(HOST, (b"transfer-encoding", first), (b"transfer-encoding", b"chunked"))
    assert refused.value.headers == [(b"connection", b"close")]


@pytest.mark.parametrize("version", ["1.0", "1", "0.9"])
def test_http_1_0_has_no_chunks(version: str) -> None:
    assert refusal((b"transfer-encoding", b"chunked"), http_version=version) == (400, "bad-framing")


def test_chunked_requests_pass() -> None:
    clean((b"transfer-encoding", b"Chunked"))


@pytest.mark.parametrize("method", ["get", "gET", "1GET", "G ET", "G\r\nX", "", "A" * 40, "GÉT"])
def test_what_is_no_method_is_refused(method: str) -> None:
    assert refusal(method=method) == (400, "bad-method")


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PRI"])
def test_methods_that_are_not_for_gateways_are_not_implemented(method: str) -> None:
    assert refusal(method=method) == (501, "method-not-implemented")


@pytest.mark.parametrize("method", ["GET", "PROPFIND", "M-SEARCH", "QUERY"])
def test_methods_pass(method: str) -> None:
    clean(method=method)


def test_a_long_target_is_refused() -> None:
    assert refusal(path="/" + "a" * 9000) == (414, "target-too-long")


def test_a_long_query_is_refused() -> None:
    assert refusal(query=b"a" * 9000) == (414, "target-too-long")


def test_a_target_that_grows_by_its_escapes_is_measured_as_sent() -> None:
    assert refusal(path="/" + "a" * 3000, raw_path=b"/" + b"%61" * 3000) == (414, "target-too-long")


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer " + b"a" * 65536)],
        [(b"x-%d" % number, b"1") for number in range(5000)],
        [(b"x-a", b"1")] * 5000,
        [(b"x-%d" % number, b"a" * 8000) for number in range(20)],
        [(b"x-forwarded-for", b"1.2.3.4, " * 4000)],
    ],
)
def test_oversized_headers_are_refused(headers: RawHeaders) -> None:
    assert refusal(*headers) == (431, "headers-too-large")


def test_asterisk_belongs_to_options_alone() -> None:
    clean(method="OPTIONS", path="*")
    assert refusal(path="*") == (400, "bad-target")


def test_names_that_callers_invent_do_not_crowd_out_those_of_others_for_good() -> None:
    scrub = Hygiene().compiled()
    for number in range(3_000):
        scrub(http_scope(headers=[HOST, (b"invented-%d" % number, b"")]))
    scrub(http_scope(headers=[HOST, (b"x-tenant", b"1")]))
    assert b"x-tenant" in scrub._names


def test_names_from_callers_are_remembered_within_bounds() -> None:
    scrub = Hygiene().compiled()
    for number in range(10_000):
        scrub(http_scope(headers=[(b"x-%d" % number, b"1"), (b"host", b"h%d" % number)]))
    assert len(scrub._names) <= 2048
    assert len(scrub._hosts) <= 2048


@pytest.mark.parametrize("field", ["max_target_bytes", "max_fields", "max_field_bytes", "max_header_bytes"])
def test_bounds_must_be_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=f"Hygiene.{field}: 0 is no bound"):
        Hygiene(**{field: 0})


@pytest.mark.parametrize("name", ["", "x\r\n", "x y", "ä"])
def test_what_is_stripped_must_be_names(name: str) -> None:
    with pytest.raises(ConfigError, match=r"Hygiene\.strip: .* no name of a header"):
        Hygiene(strip=("x-debug", name))


@pytest.mark.parametrize("sent", ["/admin;x=1/users", "/;x/admin", "/admin%3Bx=1", "/admin%3bx"])
def test_matrix_parameters_are_refused_on_request(sent: str) -> None:
    rules = Hygiene(matrix_parameters="refuse")
    target = {"path": unquote(sent), "raw_path": sent.encode()}
    assert refusal(HOST, rules=rules, **target) == (400, "bad-target")
    clean(HOST, **target)


def test_a_semicolon_in_the_query_is_no_matrix_parameter() -> None:
    clean(HOST, rules=Hygiene(matrix_parameters="refuse"), query_string=b"a=1;b=2")


pairs = st.tuples(st.binary(max_size=12), st.binary(max_size=12))


@given(st.lists(pairs, max_size=8), st.binary(max_size=12), st.binary(max_size=12), st.text(max_size=8))
def test_anything_is_cleaned_or_refused(headers: RawHeaders, path: bytes, query: bytes, method: str) -> None:
    """Never another error, and what passes is within the grammar."""
    scope = http_scope(method, path.decode("latin-1"), headers=[HOST, *headers], query=query, raw_path=path)
    try:
        Hygiene().compiled()(scope)
    except Refusal as refused:
        assert 400 <= refused.status < 500 or refused.status == 501  # noqa: PT017 - passing is fine too
        return
    for name, value in scope["headers"]:
        assert name == name.lower()
        assert not set(value) & set(b"\r\n\0")
    assert scope["raw_path"].isascii()


def test_what_the_client_nominates_for_this_hop_ends_here() -> None:
    """Taken away at the door, where nothing but the client's own fields can be meant."""
    scope, _ = clean(HOST, (b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"x-other", b"1"))
    assert scope["headers"] == [HOST, (b"connection", b"close, X-Hop"), (b"x-other", b"1")]


@pytest.mark.parametrize("name", [b"authorization", b"cookie", b"ocp-apim-subscription-key"])
def test_what_is_for_every_recipient_cannot_be_nominated(name: bytes) -> None:
    scope, _ = clean(HOST, (b"connection", name), (name, b"1"))
    assert (name, b"1") in scope["headers"]


def test_framing_that_cannot_be_trusted_ends_the_connection() -> None:
    with pytest.raises(Refusal) as caught:
        clean((b"content-length", b"2"), (b"transfer-encoding", b"chunked"))
    assert caught.value.headers == [(b"connection", b"close")]


@pytest.mark.parametrize("name", [b"x-forwarded-user", b"x-forwarded-uri", b"x-forwarded", b"x-forwarded-access-token"])
def test_whatever_speaks_in_the_name_of_a_proxy_is_set_aside(name: bytes) -> None:
    scope, aside = clean(HOST, (name, b"root"))
    assert (scope["headers"], aside) == ([HOST], [(name, b"root")])


@pytest.mark.parametrize("name", [b"remote-user", b"x-client-cert", b"x-ms-client-principal", b"front-end-https"])
def test_identities_that_only_a_neighbour_could_tell_of_are_taken_away(name: bytes) -> None:
    assert clean(HOST, (name, b"root"))[0]["headers"] == [HOST]


def test_a_second_connection_line_nominates_too() -> None:
    scope, _ = clean(HOST, (b"connection", b"close"), (b"connection", b"x-hop"), (b"x-hop", b"1"))
    assert (b"x-hop", b"1") not in scope["headers"]


def test_the_framing_of_a_body_cannot_be_nominated_away() -> None:
    """A cache that does not see the body would keep what it made of the response."""
    scope, _ = clean(HOST, (b"connection", b"transfer-encoding"), (b"transfer-encoding", b"chunked"))
    assert (b"transfer-encoding", b"chunked") in scope["headers"]


@pytest.mark.parametrize("name", [
    b"forwarded", b"x-forwarded-for", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-original-forwarded-for",
    b"true-client-ip", b"cf-connecting-ip", b"fastly-client-ip", b"x-envoy-external-address",
])  # fmt: skip
def test_no_field_that_proxies_tell_the_client_s_address_in_reaches_the_app(name: bytes) -> None:
    assert clean(HOST, (name, b"203.0.113.9"))[0]["headers"] == [HOST]


@pytest.mark.parametrize("name", [
    b"x-azure-clientip", b"x-ms-client-principal-id", b"x-ms-client-principal-name", b"x-real-port", b"x-remote-user",
    b"x-scheme", b"x-ssl-client-cert", b"x-url-scheme", b"x-original-host", b"x-original-uri", b"x-original-method",
    b"x-host", b"x-http-method", b"x-method-override",
])  # fmt: skip
def test_no_other_field_that_speaks_for_a_neighbour_or_of_another_request_passes(name: bytes) -> None:
    assert clean(HOST, (name, b"1"))[0]["headers"] == [HOST]


@pytest.mark.parametrize("name", [
    b"proxy-authorization", b"max-forwards", b"date", b"from", b"referer", b"user-agent", b"if-modified-since",
    b"if-unmodified-since", b"if-range", b"expect", b"origin",
])  # fmt: skip
def test_no_other_field_of_one_value_is_sent_twice(name: bytes) -> None:
    """RFC 9110 §5.3: only fields that are lists may stand on several lines."""
    assert refusal(HOST, (name, b"1"), (name, b"2")) == (400, "duplicate-header")


@pytest.mark.parametrize(("port", "valid"), [(b"65535", True), (b"65536", False)])
def test_a_host_names_no_port_beyond_the_last(port: bytes, valid: bool) -> None:
    host = (b"host", b"a.example:" + port)
    if valid:
        assert clean(host)[0]["headers"] == [host]
    else:
        assert refusal(host) == (400, "bad-host")


@pytest.mark.parametrize(("digits", "passes"), [(19, True), (20, False)])
def test_a_length_has_no_more_digits_than_sixty_four_bits_hold(digits: int, passes: bool) -> None:
    length = (b"content-length", b"1" * digits)
    if passes:
        assert length in clean(HOST, length)[0]["headers"]
    else:
        assert refusal(HOST, length) == (400, "bad-framing")


def test_a_host_holds_what_a_name_may_hold_and_nothing_else() -> None:
    """RFC 3986 §3.2.2; an escape, but no colon, for behind it stands the port."""
    allowed = b"-._~!$&'()*+,;=%0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    passed = []
    for code in range(256):
        try:
            clean((b"host", b"a%cb" % code))
        except Refusal as refused:
            assert refused.code in ("bad-host", "bad-header")  # noqa: PT017 - passing is fine too
        else:
            passed.append(code)
    assert bytes(passed) == bytes(sorted(allowed))


@pytest.mark.parametrize("host", [b"a.example:000080", b"a.example:80:80", b"[::1]a", b"[::1]:000080"])
def test_nothing_but_a_port_of_five_digits_stands_behind_a_host(host: bytes) -> None:
    assert refusal((b"host", host)) == (400, "bad-host")


@pytest.mark.parametrize("more", [0, 1])
def test_a_target_has_8192_bytes_at_most(more: int) -> None:
    target = {"path": "/" + "a" * (4091 + more), "query": b"b" * 4100}
    if more:
        assert refusal(HOST, **target) == (414, "target-too-long")
    else:
        clean(HOST, **target)


@pytest.mark.parametrize(
    ("largest", "beyond"),
    [
        ([(b"x-%d" % number, b"") for number in range(127)], (b"x-more", b"")),
        ([(b"x-a", b"a" * 16384)], (b"x-b", b"b" * 16385)),
        ([(b"x-%d" % number, b"a" * 16128) for number in range(4)], (b"x-more", b"a" * (1025 - len(HOST[1])))),
    ],
    ids=["lines", "value", "values"],
)
def test_headers_are_no_larger_than_documented(largest: RawHeaders, beyond: tuple[bytes, bytes]) -> None:
    """128 lines, 16384 bytes in one of them, 65536 in all."""
    clean(HOST, *largest)
    assert refusal(HOST, *largest, beyond) == (431, "headers-too-large")
