"""Keys are read as the draft and as most clients write them; what is remembered comes back, or is not there."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.idempotency import Record, digest_of, pack_response, parse_key, unpack, unpack_response


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b' "a b" ', "a b"),
        (b'"a\\"b\\\\"', 'a"b\\'),
        (b'"a";v=1', "a"),
        (b"order/7:pay=1", "order/7:pay=1"),
        (b"x" * 255, "x" * 255),
    ],
)
def test_keys(value: bytes, key: str):
    assert parse_key(value) == key


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b'""',
        b'"a',
        b'a"',
        b'"a", "b"',
        b"a,b",
        b"a b",
        b"a;b",
        b"x" * 256,
        b'"' + b"x" * 256 + b'"',
        b"\xe9",
        b'"\xe9"',
    ],
)
def test_what_is_no_key(value: bytes):
    with pytest.raises(ValueError):  # noqa: PT011 - any will do
        parse_key(value)


PARTS = st.lists(st.binary(max_size=4) | st.text(max_size=4), max_size=4)


@given(PARTS, PARTS)
def test_digests_are_equal_exactly_for_equal_parts(one: list[bytes | str], other: list[bytes | str]):
    plain = [[part if isinstance(part, bytes) else part.encode() for part in parts] for parts in (one, other)]
    assert (digest_of(one) == digest_of(other)) == (plain[0] == plain[1])


NAMES = st.from_regex(rb"[a-z][a-z0-9-]{0,8}", fullmatch=True)
VALUES = st.binary(max_size=8).map(lambda text: bytes(code for code in text if code >= 32 and code != 127).strip())


@given(st.integers(200, 599), st.lists(st.tuples(NAMES, VALUES), max_size=4), st.binary(max_size=40))
def test_a_response_comes_back(status: int, headers: list[tuple[bytes, bytes]], body: bytes):
    record = Record("done", digest_of([body]), pack_response(status, headers, body))
    assert unpack(record.pack()) == record
    assert unpack_response(record.content) == (status, headers, body)


@given(st.binary(max_size=60))
def test_bytes_that_are_something_else_are_no_record_or_response(data: bytes):
    for reading in (unpack, unpack_response):
        with contextlib.suppress(ValueError):
            reading(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"[200,[]]", b"[200]\n", b"{}\n", b"[99,[]]\n", b'["a",[]]\n', b'[200,[["a\\n","b"]]]\n', b"[200,[[1,2]]]\n"],
)
def test_what_is_no_response(data: bytes):
    with pytest.raises(ValueError):  # noqa: PT011 - any will do
        unpack_response(data)
