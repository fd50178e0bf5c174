"""Chunks and trailers to the letter of RFC 9112 §7.1: what two readers might end differently breaks the response."""

import pytest

from apim_middleware.errors import UpstreamBroken
from apim_middleware.transports._framing import Chunked, length_of


def taken(data):
    """What these bytes hold of a body in chunks, how many of them are its own, and what came behind it."""
    body, parts = Chunked(), []
    used = body.take(data, parts)
    return b"".join(parts), used, list(body.trailers)


@pytest.mark.parametrize("size", [b"2", b"02", b"000000000000002", b"2;a", b"2 ;a=b", b'2\t; a="b c"', b"2;\xe9"])
def test_the_size_of_a_chunk_is_a_hexadecimal_number(size):
    data = size + b"\r\nok\r\n0\r\n\r\n"
    assert taken(data) == (b"ok", len(data), [])


@pytest.mark.parametrize(
    "size",
    [
        *(b"", b" 2", b"2 ", b"+2", b"-2", b"0x2", b"2_0", b"g", b"2 2", b"2,2", b"2a=b;", b"2=b", b"\xb2", b"2;\x00"),
        *(b"2;a\x7f", b"2;\ra", b"0000000000000002"),
    ],
)
def test_what_is_no_size_breaks_the_response(size):
    with pytest.raises(UpstreamBroken):
        taken(size + b"\r\nok\r\n0\r\n\r\n")


@pytest.mark.parametrize("end", [b"\n", b"\r", b"", b"x\r\n", b"\r\r\n", b"\n\r\n"])
def test_a_chunk_ends_where_its_size_says(end):
    with pytest.raises(UpstreamBroken):
        taken(b"2\r\nok" + end + b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("line", "trailer"),
    [
        (b"X-Sum: 1", (b"x-sum", b"1")),
        (b"x:", (b"x", b"")),
        (b"x:\ta: b \t", (b"x", b"a: b")),
        (b"x: \xe9", (b"x", b"\xe9")),
    ],
)
def test_a_trailer_is_read_as_a_header_line_is(line, trailer):
    assert taken(b"0\r\n" + line + b"\r\n\r\nnext")[1:] == (len(line) + 7, [trailer])


@pytest.mark.parametrize(
    "line",
    [
        *(b": a", b"x", b"x : a", b"x\t: a", b" x: a", b"\tx: a", b"x y: a", b"x\xe9: a", b"x\x00: a", b"x: a\x00b"),
        *(b"x: a\rb", b"x: a\x7f", b"x: a\x0b", b"x: a\nb: c"),
    ],
)
def test_what_is_no_trailer_breaks_the_response(line):
    with pytest.raises(UpstreamBroken):
        taken(b"0\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize(("size", "fits"), [(4096, True), (4097, False)])
def test_a_line_among_the_chunks_has_4096_bytes_at_most(size, fits):
    data = b"0;" + b"a" * (size - 4) + b"\r\n\r\n"
    if fits:
        assert taken(data) == (b"", len(data), [])
        return
    with pytest.raises(UpstreamBroken):
        taken(data)


@pytest.mark.parametrize("more", [b"", b"x:\r\n"])
def test_trailers_have_16384_bytes_at_most(more):
    lines = (b"x:" + b"a" * 1022 + b"\r\n") * 16
    if not more:
        assert len(taken(b"0\r\n" + lines + b"\r\n")[2]) == 16
        return
    with pytest.raises(UpstreamBroken):
        taken(b"0\r\n" + lines + more + b"\r\n")


@pytest.mark.parametrize(("digits", "fits"), [(18, True), (19, False)])
def test_a_length_has_18_digits_at_most(digits, fits):
    lines = [(b"content-length", b"0" * (digits - 1) + b"2")]
    if fits:
        assert length_of("GET", 200, lines, dict(lines)) == 2
        return
    with pytest.raises(UpstreamBroken):
        length_of("GET", 200, lines, dict(lines))


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [("HEAD", 200, 0), ("GET", 204, 0), ("GET", 304, 0), ("GET", 200, 5), ("GET", 205, 5)],
)
def test_some_responses_have_no_body_whatever_they_say(method, status, length):
    """RFC 9112 §6.3."""
    lines = [(b"content-length", b"5")]
    assert length_of(method, status, lines, dict(lines)) == length


LENGTH, CODING = (b"content-length", b"2"), (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    "lines",
    [
        *([LENGTH, LENGTH], [LENGTH, (b"content-length", b"3")], [CODING, CODING], [LENGTH, CODING], [CODING, LENGTH]),
        *([(b"transfer-encoding", b"identity"), CODING], [(b"transfer-encoding", b"gzip, chunked")]),
        *([(b"transfer-encoding", b"")], [(b"content-length", b"2, 2")], [(b"content-length", b"+2")]),
        *([(b"content-length", b"")], [(b"content-length", b"-2")], [(b"content-length", b"0x2")]),
    ],
)
def test_framing_that_could_be_read_in_two_ways_breaks_the_response(lines):
    """RFC 9112 §6.3; this is how responses are smuggled."""
    with pytest.raises(UpstreamBroken):
        length_of("GET", 200, lines, dict(lines))


def test_http_1_0_has_no_chunks():
    with pytest.raises(UpstreamBroken):
        length_of("GET", 200, [CODING], dict([CODING]), latest=False)
