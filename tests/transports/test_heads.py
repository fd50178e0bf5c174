"""Heads of responses, read line by line: what is accepted, another strict parser reads alike.

What a length or a coding means is seen to later, where the body is framed.
"""

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apim_middleware.errors import UpstreamBroken
from apim_middleware.transports import _heads
from apim_middleware.transports._heads import read_head
from apim_middleware.transports._strictness import MAX_FIELDS

STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 404 Not Found",
        b"HTTP/1.1 200",
        b"HTTP/1.1 503 ",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 2",
    ]
)
NAMES = st.sampled_from([b"Date", b"x-y", b"X_Y", b"etag", b"Set-Cookie", b"", b" x", b"x ", b"x\xe9", b"content-type"])
VALUES = st.sampled_from(
    [b"", b"5", b"a b", b" a\t b \t", b"\xe9\xff", b"a\x00", b"a\x7f", b"\ra", b"a\nb: c", b"a\r\n b"]
)
COLONS = st.sampled_from([b":", b": ", b":\t ", b" :", b"", b"::"])
LINES = st.builds(b"%b%b%b".__mod__, st.tuples(NAMES, COLONS, VALUES))
HEADS = st.builds(
    lambda first, lines: b"\r\n".join([first, *lines, b"", b""]), STATUS_LINES, st.lists(LINES, max_size=5)
)


def read(raw):
    """What a head says that ends with its empty line."""
    return read_head(raw[:-4])


class Llhttp:
    """A strict reading by llhttp."""

    def __init__(self, raw):
        self.lines = []
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(raw)
        self.status = parser.get_status_code()

    def on_header(self, name, value):
        self.lines.append((name.lower(), value.rstrip(b" \t")))


@settings(max_examples=2000)
@given(raw=HEADS | st.binary(max_size=60).map(lambda said: b"HTTP/1.1 200 OK\r\n" + said + b"\r\n\r\n"))
def test_what_is_accepted_llhttp_reads_alike(raw):
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    try:
        status, lines, index, latest, _ = read(raw)
    except UpstreamBroken:
        return
    other = Llhttp(raw)
    assert (other.status, other.lines) == (status, lines)
    assert (index, latest) == (dict(lines), raw.startswith(b"HTTP/1.1 "))


@given(lines=st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_a_usual_head_is_accepted(lines):
    usual = [(b"x-%d" % place, b"a b") for place, _ in enumerate(lines)]
    raw = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % line for line in usual) + b"\r\n"
    assert read(raw)[:2] == (200, usual)


@given(raw=HEADS)
def test_what_was_read_before_is_read_alike(raw):
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    assert outcome(raw) == outcome(raw)


def outcome(raw):
    try:
        return read(raw)
    except UpstreamBroken as error:
        return str(error)


def remembered():
    return [*_heads._field_said.__self__, *_heads._status_said.__self__]


def test_an_upstream_that_invents_lines_fills_no_memory():
    for number in range(10_000):
        read(b"HTTP/1.1 200 Fine %d\r\nx-id: %d\r\n\r\n" % (number, number))
    assert len(remembered()) <= 2 * 2048


@pytest.mark.parametrize("line", [b"Set-Cookie: session=secret", b"x-long: secret" + b"a" * 300])
def test_what_is_secret_or_long_is_not_remembered(line):
    read(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n")
    assert not any(b"secret" in each for each in remembered())


def test_the_names_of_lines_that_are_remembered_are_in_lower_case():
    for _ in range(2):
        assert read(b"HTTP/1.1 200 OK\r\nX-Server: A\r\n\r\n")[1] == [(b"x-server", b"A")]


@pytest.mark.parametrize(
    ("line", "version", "keeps"),
    [
        (b"Connection: close", b"1.1", False), (b"Connection: keep-alive", b"1.0", True), (b"x: y", b"1.0", False),
        (b"x: y", b"1.1", True), (b"Connection: x, Close", b"1.1", False), (b"Connection: x", b"1.0", False),
    ],
)  # fmt: skip
def test_a_connection_is_kept_as_the_head_says(line, version, keeps):
    assert read(b"HTTP/%b 200 OK\r\n%b\r\n\r\n" % (version, line))[4] is keeps


@pytest.mark.parametrize(("lines", "fits"), [(MAX_FIELDS, True), (MAX_FIELDS + 1, False)])
def test_a_head_has_so_many_lines_at_most(lines, fits):
    raw = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * lines + b"\r\n"
    if fits:
        assert len(read(raw)[1]) == lines
        return
    with pytest.raises(UpstreamBroken, match="more lines"):
        read(raw)


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"HTTP/1x1 200 OK",
            b"HTTP/1.2 200 OK",
            b"HTTP/2 200 OK",
            b"http/1.1 200 OK",
            b"HTTP/1.1 099 x",
            b"HTTP/1.1 20",
        ),
        *(
            b"HTTP/1.1 600 x",
            b"HTTP/1.1 2000 x",
            b"HTTP/1.1 200x",
            b"HTTP/1.1  200 OK",
            b" HTTP/1.1 200 OK",
            b"HTTP/1.1",
        ),
        *(b"HTTP/1.1 200 a\x00", b"HTTP/1.1 200 a\x7f", b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200\tOK", b""),
    ],
)
def test_what_is_no_status_line_is_refused(line):
    with pytest.raises(UpstreamBroken, match="status line"):
        read(line + b"\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        *(b": a", b"x", b"x : a", b"x\t: a", b" x: a", b"\tx: a", b"x y: a", b"x\xe9: a", b"x\x00: a", b"x: a\x00b"),
        *(b"x: a\rb", b"x: a\x7f", b"x: a\x0b", b"x: a\nb: c"),
    ],
)
def test_what_is_no_header_line_is_refused(line):
    with pytest.raises(UpstreamBroken, match="broken or folded"):
        read(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n")
