"""What is signed of a request (RFC 9421 §2), by the examples of the standard and by what must never pass."""

import base64
import hmac

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.digests import content_digest, digest_matches, parse_digests
from apim_middleware._http.signatures import BadSignature, base, signatures
from apim_middleware.testing import http_scope
from apim_middleware.types import Scope

DIGEST = b"sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
REQUEST = [
    (b"host", b"example.com"),
    (b"date", b"Tue, 20 Apr 2021 02:07:55 GMT"),
    (b"content-type", b"application/json"),
    (b"content-digest", DIGEST),
    (b"content-length", b"18"),
]
"""The request of RFC 9421 B.2; its body is {"hello": "world"}."""


def request(query: bytes = b"param=Value&Pet=dog", **more: object) -> Scope:
    return http_scope("POST", "/foo", query=query, headers=REQUEST, **more)


def text(scope: Scope, components: str) -> list[str]:
    """The lines that are signed, but for the last."""
    signature = signatures([f"s=({components})".encode()], [b"s=:AA==:"])[0]
    return base(scope, signature.components).decode().split("\n")[:-1]


def test_the_ed25519_example_of_the_standard_verifies() -> None:
    """RFC 9421 B.2.6."""
    (signature,) = signatures(
        [
            b'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
            b';created=1618884473;keyid="test-key-ed25519"'
        ],
        [b"sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:"],
    )
    public = load_der_public_key(base64.b64decode("MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="))
    public.verify(signature.value, base(request(), signature.components))  # type: ignore[union-attr, call-arg, arg-type]


def test_the_shared_secret_example_of_the_standard_verifies() -> None:
    """RFC 9421 B.2.5."""
    (signature,) = signatures(
        [b'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'],
        [b"sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"],
    )
    secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
    assert hmac.digest(base64.b64decode(secret), base(request(), signature.components), "sha256") == signature.value


@pytest.mark.parametrize(
    ("component", "line"),
    [
        ('"@method"', '"@method": POST'),
        ('"@target-uri"', '"@target-uri": https://example.com/foo?param=Value&Pet=dog'),
        ('"@authority"', '"@authority": example.com'),
        ('"@scheme"', '"@scheme": https'),
        ('"@request-target"', '"@request-target": /foo?param=Value&Pet=dog'),
        ('"@path"', '"@path": /foo'),
        ('"@query"', '"@query": ?param=Value&Pet=dog'),
        ('"@query-param";name="Pet"', '"@query-param";name="Pet": dog'),
        ('"content-type"', '"content-type": application/json'),
        ('"content-type";bs', '"content-type";bs: :YXBwbGljYXRpb24vanNvbg==:'),
        ('"content-digest";sf', f'"content-digest";sf: {DIGEST.decode()}'),
        ('"content-digest";key="sha-512"', f'"content-digest";key="sha-512": {DIGEST.decode()[8:]}'),
    ],
)
def test_each_component_has_its_line(component: str, line: str) -> None:
    assert text(request(scheme="https"), component) == [line]


@pytest.mark.parametrize(
    ("host", "scheme", "authority"),
    [
        (b"Example.COM", "http", "example.com"),
        (b"example.com:80", "http", "example.com"),
        (b"example.com:443", "https", "example.com"),
        (b"example.com:443", "wss", "example.com"),
        (b"example.com:443", "http", "example.com:443"),
        (b"example.com:8443", "https", "example.com:8443"),
    ],
)
def test_the_authority_is_lower_case_without_its_usual_port(host: bytes, scheme: str, authority: str) -> None:
    scope = http_scope(headers=[(b"host", host)], scheme=scheme)
    assert text(scope, '"@authority"') == [f'"@authority": {authority}']


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        (b"var=this%20is%20a%20big%0Amultiline%20value", "var", "this%20is%20a%20big%0Amultiline%20value"),
        (b"bar=with+plus+whitespace", "bar", "with%20plus%20whitespace"),
        (b"fa%C3%A7ade%22%3A%20=something", "fa%C3%A7ade%22%3A%20", "something"),
        (b"a=", "a", ""),
        (b"a=~*-._", "a", "%7E*-._"),
    ],
)
def test_parameters_of_the_query_are_encoded_again(query: bytes, name: str, value: str) -> None:
    """RFC 9421 §2.2.8."""
    assert text(request(query), f'"@query-param";name="{name}"') == [f'"@query-param";name="{name}": {value}']


def test_an_empty_query_is_a_question_mark() -> None:
    assert text(request(b""), '"@query"') == ['"@query": ?']


def test_several_lines_of_a_field_are_one_value_without_outer_blanks() -> None:
    scope = http_scope(headers=[(b"host", b"a"), (b"x", b"  one "), (b"x", b"\ttwo")])
    assert text(scope, '"x"') == ['"x": one, two']


@pytest.mark.parametrize(
    "components",
    [
        '"x-not-there"',
        '"@method" "@method"',
        '"date" "date"',
        '"Date"',
        '"@status"',
        '"@unheard-of"',
        '"@method";sf',
        '"date";req',
        '"date";tr',
        '"date";sf',
        '"date";key="a"',
        '"content-digest";key="sha-256"',
        '"content-digest";sf;bs',
        '"@query-param"',
        '"@query-param";name="absent"',
        '"@query-param";name="param";sf',
        "token",
        "1",
    ],
)
def test_what_cannot_be_worked_out_is_no_signature(components: str) -> None:
    with pytest.raises(BadSignature):
        text(request(), components)


@pytest.mark.parametrize("query", [b"param=1&param=2", b"param=%FF"])
def test_a_parameter_that_could_be_read_differently_is_not_covered(query: bytes) -> None:
    with pytest.raises(BadSignature):
        text(request(query), '"@query-param";name="param"')


def test_a_field_beyond_ascii_is_covered_as_bytes_only() -> None:
    scope = http_scope(headers=[(b"host", b"a"), (b"x", b"\xfc")])
    assert text(scope, '"x";bs') == ['"x";bs: :/A==:']
    with pytest.raises(BadSignature):
        text(scope, '"x"')


@pytest.mark.parametrize(
    ("described", "signed"),
    [
        (b"s=", b"s=:AA==:"),
        (b"s=()", b""),
        (b"s=()", b"t=:AA==:"),
        (b"s=1", b"s=:AA==:"),
        (b"s=()", b's="text"'),
        (b"s=()", b"s=(:AA==:)"),
        (b"s=\xff", b"s=:AA==:"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(described: bytes, signed: bytes) -> None:
    with pytest.raises(BadSignature):
        signatures([described], [signed])


def test_the_target_covers_what_it_is_made_of() -> None:
    signature = signatures([b's=("@target-uri" "date" "x";bs)'], [b"s=:AA==:"])[0]
    assert signature.covered >= {"@authority", "@path", "@query", "@scheme", "@request-target", "date"}
    assert "x" not in signature.covered


def test_the_digest_of_the_standard_is_of_its_body() -> None:
    """RFC 9421 B.2, RFC 9530 B."""
    assert digest_matches(parse_digests(DIGEST.decode()), b'{"hello": "world"}')
    assert not digest_matches(parse_digests(DIGEST.decode()), b'{"hello": "World"}')
    assert content_digest(b'{"hello": "world"}') == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"


@pytest.mark.parametrize("field", ["", "md5=:AA==:", "sha-256=1", "sha-256", "sha-256=(:AA==:)", "sha-256=:A:,"])
def test_digests_nobody_should_trust_are_none(field: str) -> None:
    with pytest.raises(ValueError, match=r"digest|dictionary|base64"):
        parse_digests(field)


def test_every_digest_that_is_known_must_match() -> None:
    both = f"{content_digest(b'a')}, {content_digest(b'b', 'sha-512')}"
    assert not digest_matches(parse_digests(both), b"a")


PIECES = (
    's=("@method"', 's=("@query-param";name="param"', '"@query-param"', ';name="%00"', ";sf", ";bs", ';key="a"', "(",
    ")", ' "content-digest"', ' "date"', ";created=1618884473", ";created=-1.5", ";created=@-999999999999999",
    ";created=?1", ';keyid="\\""', ";keyid=a", ";nonce=:A:", ", ", "=", "s2", '"', "\\", ":AA==:", ":=:", "\x0b",
    "\xff", " ", "@path",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.lists(st.sampled_from(PIECES), max_size=5))
def test_whatever_is_sent_is_read_or_a_bad_signature(inputs: list[str], values: list[str]) -> None:
    try:
        found = signatures(["".join(inputs).encode("latin-1")], ["".join(values).encode("latin-1"), b"s=:AA==:"])
        texts = [base(request(), each.components) for each in found]
    except BadSignature:
        return
    assert all(each.count(b'"@signature-params": ') == 1 for each in texts)
