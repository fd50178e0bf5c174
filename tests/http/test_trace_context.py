"""Trace headers are believed as the W3C Recommendation says: its examples and the cases of its validation suite."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.trace_context import baggage, traceparent, tracestate

TRACE = b"12345678901234567890123456789012"
SPAN = b"1234567890123456"
SAMPLED = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
GOOD = b"00-" + TRACE + b"-" + SPAN + b"-01"


@pytest.mark.parametrize(
    ("line", "understood"),
    [
        (SAMPLED, SAMPLED.decode()),
        (NOT_SAMPLED, NOT_SAMPLED.decode()),
        (b" \t" + GOOD + b"\t ", GOOD.decode()),
        (b"cc" + GOOD[2:], GOOD.decode()),
        (b"cc" + GOOD[2:] + b"-what-the-future-will-be-like", GOOD.decode()),
    ],
)
def test_a_valid_traceparent_is_read_as_version_00(line: bytes, understood: str):
    assert traceparent([line]) == understood


@pytest.mark.parametrize(
    "line",
    [
        b"",
        GOOD + b".",
        GOOD + b"-what-the-future-will-be-like",
        GOOD + b"-",
        b"cc" + GOOD[2:] + b".what-the-future-will-be-like",
        b"cc" + GOOD[2:-1],
        b"ff" + GOOD[2:],
        b".0" + GOOD[2:],
        b"0." + GOOD[2:],
        b"0" + GOOD,
        b"00" + GOOD,
        GOOD[1:],
        b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-." + TRACE[1:] + b"-" + SPAN + b"-01",
        b"00-" + TRACE[:-1] + b".-" + SPAN + b"-01",
        b"00-" + TRACE + b"3-" + SPAN + b"-01",
        b"00-" + TRACE[1:] + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"00-" + TRACE + b"-." + SPAN[1:] + b"-01",
        b"00-" + TRACE + b"-" + SPAN + b"7-01",
        b"00-" + TRACE + b"-" + SPAN[1:] + b"-01",
        b"00-" + TRACE + b"-" + SPAN + b"-.0",
        b"00-" + TRACE + b"-" + SPAN + b"-001",
        b"00-" + TRACE + b"-" + SPAN + b"-1",
        b"00-" + TRACE.replace(b"1", b"A") + b"-" + SPAN + b"-01",
        b"01" + GOOD[2:] + b"-" + b"x" * 65536,
        GOOD + b"\n",
        b"01" + GOOD[2:] + b"-a\nb",
        b"\xff" * 55,
    ],
)
def test_a_broken_traceparent_is_none(line: bytes):
    assert traceparent([line]) is None


def test_two_traceparents_are_none():
    assert traceparent([GOOD, GOOD]) is None


def test_no_traceparent_is_none():
    assert traceparent([]) is None


@given(st.lists(st.binary(max_size=80), max_size=3))
def test_any_bytes_are_read_without_an_error(lines: list[bytes]):
    traceparent(lines)
    tracestate(lines)
    baggage(lines, frozenset({b"a"}))


KEY = b"abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = bytes(code for code in range(0x20, 0x7F) if code not in b",=")
MANY = [b"bar%02d=%02d" % (number, number) for number in range(1, 34)]


@pytest.mark.parametrize(
    ("lines", "list_"),
    [
        ([], ""),
        ([b""], ""),
        ([b"congo=t61rcWkgMzE"], "congo=t61rcWkgMzE"),
        ([b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ([b"foo=1", b""], "foo=1"),
        ([b"", b"foo=1"], "foo=1"),
        ([b"foo=1,,\t,bar=2"], "foo=1,bar=2"),
        ([b"foo=1,bar=2", b"rojo=1,congo=2", b"baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
        ([b"foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        ([b"\t foo=1 \t"], "foo=1"),
        ([b"foo= 1"], "foo= 1"),
        ([KEY + b"=" + VALUE], (KEY + b"=" + VALUE).decode()),
        ([KEY + b"@a-z0-9_-*/=" + VALUE], (KEY + b"@a-z0-9_-*/=" + VALUE).decode()),
        ([b"0tenant@vendor=1"], "0tenant@vendor=1"),
        ([b"foo=1", b"z" * 256 + b"=1"], "foo=1," + "z" * 256 + "=1"),
        ([b"foo=1", b"t" * 241 + b"@" + b"v" * 14 + b"=1"], "foo=1," + "t" * 241 + "@" + "v" * 14 + "=1"),
        ([b",".join(MANY[:10]), b",".join(MANY[10:32])], b",".join(MANY[:32]).decode()),
    ],
)
def test_a_valid_tracestate_becomes_one_list(lines: list[bytes], list_: str):
    assert tracestate(lines) == list_


@pytest.mark.parametrize(
    "lines",
    [
        [b"foo=1,foo=1"],
        [b"foo=1,foo=2"],
        [b"foo=1", b"foo=2"],
        [b"foo =1"],
        [b"FOO=1"],
        [b"foo.bar=1"],
        [b"foo@=1,bar=2"],
        [b"@foo=1,bar=2"],
        [b"foo@@bar=1,bar=2"],
        [b"foo@bar@baz=1,bar=2"],
        [b"foo=1", b"z" * 257 + b"=1"],
        [b"foo=1", b"t" * 242 + b"@v=1"],
        [b"foo=1", b"t@" + b"v" * 15 + b"=1"],
        [b"foo=bar=baz"],
        [b"foo=,bar=3"],
        [b"foo"],
        [b"foo=" + b"v" * 257],
        [b"foo=1\r\nx-evil: 1"],
        [b"foo=\xc3\xa9"],
        [b",".join(MANY)],
        [b"foo=1," + b"x" * 65536],
    ],
)
def test_a_broken_tracestate_is_dropped_whole(lines: list[bytes]):
    assert tracestate(lines) == ""


def test_a_long_tracestate_loses_long_members_first():
    lines = [b"a=1", b"long=" + b"x" * 250, *(b"k%02d=" % number + b"v" * 100 for number in range(8)), b"z=1"]
    kept = tracestate([b",".join(lines)]).split(",")
    assert [each.partition("=")[0] for each in kept] == ["a", *(f"k{number:02d}" for number in range(8)), "z"]


def test_a_long_tracestate_then_loses_members_from_its_end():
    lines = [b"k%02d=" % number + b"v" * 100 for number in range(20)]
    kept = tracestate([b",".join(lines)])
    assert kept.encode() == b",".join(lines[:9])
    assert 512 <= len(kept) <= 1024


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([], ""),
        ([b"tenant=acme"], "tenant=acme"),
        ([b"tenant=acme,session=canary"], "tenant=acme"),
        ([b"session=canary", b" tenant = acme;ttl=1 "], "tenant = acme;ttl=1"),
        ([b"Tenant=acme"], ""),
        ([b"tenant=" + b"x" * 65536], ""),
    ],
)
def test_only_allowed_baggage_is_let_in(lines: list[bytes], kept: str):
    assert baggage(lines, frozenset({b"tenant"})) == kept
