"""Reading responses, bytes in and exchanges out: however they are cut, and whatever they hold."""

import asyncio
import socket
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apim_middleware.errors import TransportError, UpstreamBroken
from apim_middleware.transports._connection import Connection
from apim_middleware.transports._framing import Chunked, Length, length_of

from .hostile import BODIES, EXCESS, HEADS, OK, POISON


class Kept:
    """Who keeps a connection, and remembers what it was told."""

    def __init__(self):
        self.back = self.gone = 0

    def give_back(self, connection):
        self.back += 1

    def forget(self, connection):
        self.gone += 1


async def read(parts, method="GET", *, hang_up=True):
    """Make an exchange whose response comes in these parts: what came of it, and whether the connection was kept."""
    loop, kept = asyncio.get_running_loop(), Kept()
    near, far = socket.socketpair()
    with far:
        connection = Connection(loop, kept, "http://a")
        await loop.create_connection(lambda: connection, sock=near)
        answer = connection.begin(method, None)
        answer.sent = True
        for part in parts:
            connection.data_received(part)
        back = kept.back
        if hang_up:
            connection.eof_received()
            connection.connection_lost(None)
        outcome = await outcome_of(answer)
        connection.abort()
        await connection.gone
    assert kept.back <= 1
    assert kept.gone == 1
    return outcome, back


async def outcome_of(answer):
    """Status, headers and body, or the error; ``None`` stands for what never came."""
    try:
        answer.check()
        body = b"".join([chunk async for chunk in answer])
    except TransportError as error:
        return (answer.status if answer.begun else None, type(error))
    return answer.status, answer.headers, body


def cut(data, places):
    """The bytes in pieces that end at these places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


names = st.sampled_from([b"X-A", b"x-a", b"Server", b"set-cookie", b"date"])
values = st.binary(max_size=20).map(lambda raw: bytes(code for code in raw if code >= 32 and code != 127).strip())
chunk_lists = st.lists(st.binary(min_size=1, max_size=300), max_size=6)


@st.composite
def responses(draw):
    """A good response, and what it says."""
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * draw(st.integers(0, 2))
    status = draw(st.integers(200, 599).filter(lambda each: each not in (204, 304)))
    lines = draw(st.lists(st.tuples(names, values), max_size=6))
    chunks = draw(chunk_lists)
    body = b"".join(chunks)
    form = draw(st.sampled_from(["length", "chunked", "close"]))
    if form == "length":
        lines, written = [*lines, (b"Content-Length", b"%d" % len(body))], body
    elif form == "chunked":
        extension, trailer = draw(st.sampled_from([b"", b";a=b"])), draw(st.sampled_from([b"", b"X-Sum: 1\r\n"]))
        lines = [*lines, (b"Transfer-Encoding", b"Chunked")]
        written = b"".join(b"%X%b\r\n%b\r\n" % (len(each), extension, each) for each in chunks)
        written += b"0\r\n" + trailer + b"\r\n"
    else:
        written = body
    head = b"HTTP/1.1 %d Some thing\r\n" % status + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n"
    heard = [(name.lower(), value) for name, value in lines]
    return interim + head + written, (status, heard, body), form != "close"


@given(response=responses(), places=st.lists(st.integers(0, 3000), max_size=12))
def test_however_a_response_is_cut_it_is_the_same(response, places):
    data, said, keeps = response
    assert asyncio.run(read(cut(data, places))) == (said, int(keeps))


@given(response=responses())
@settings(max_examples=20)
def test_a_response_that_comes_byte_by_byte_is_the_same(response):
    data, said, keeps = response
    assert asyncio.run(read(cut(data, range(len(data))))) == (said, int(keeps))


@given(response=responses(), places=st.lists(st.integers(0, 3000), max_size=4), end=st.integers(0, 3000))
def test_a_response_cut_short_is_never_whole(response, places, end):
    data, said, keeps = response
    short = data[: end % len(data)]
    outcome, back = asyncio.run(read(cut(short, places)))
    assert not back
    if keeps:
        assert outcome in ((None, UpstreamBroken), (said[0], UpstreamBroken))


@given(response=responses(), places=st.lists(st.integers(0, 3000), max_size=4))
def test_whatever_follows_a_response_spoils_the_connection_and_nothing_else(response, places):
    data, said, keeps = response
    if keeps:
        outcome, _ = asyncio.run(read(cut(data + POISON, places)))
        assert outcome == said


TOKENS = [b"HTTP/1.1 ", b"HTTP/1.0 ", b"200 OK", b"100 C", b"101 S", b"204 N", b"\r\n", b"\n", b"\r", b" ", b"\t", b":"]
TOKENS += [b"content-length", b"transfer-encoding", b"chunked", b"connection", b"close", b"0", b"5", b"a", b";", b"\0"]
TOKENS += [b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"5\r\n"]
noise = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=8), max_size=40).map(b"".join)
started = st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"])


@given(
    start=started, rest=noise, places=st.lists(st.integers(0, 400), max_size=6), method=st.sampled_from(["GET", "HEAD"])
)
@settings(max_examples=300)
def test_no_bytes_crash_or_hang_the_reader(start, rest, places, method):
    """Every exchange ends, as an answer or as an error of ours, and the same however the bytes are cut."""
    whole, _ = asyncio.run(read([start + rest] if start + rest else [], method))
    parts, _ = asyncio.run(read(cut(start + rest, places), method))
    assert whole == parts


MARK = b"of another exchange"
NEXT = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(MARK), MARK)
changes = st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=4)


async def read_twice(parts):
    """Make an exchange of these parts, and another on the same connection if it was kept: what came of both."""
    loop, kept = asyncio.get_running_loop(), Kept()
    near, far = socket.socketpair()
    with far:
        connection = Connection(loop, kept, "http://a")
        await loop.create_connection(lambda: connection, sock=near)
        first, second = connection.begin("GET", None), None
        first.sent = True
        for part in parts:
            connection.data_received(part)
        if kept.back and not connection.closed:
            second = connection.begin("GET", None)
            second.sent = True
            connection.data_received(NEXT)
        connection.eof_received()
        connection.connection_lost(None)
        outcomes = await outcome_of(first), None if second is None else await outcome_of(second)
        connection.abort()
        await connection.gone
    return outcomes


@given(response=responses(), changes=changes, places=st.lists(st.integers(0, 3000), max_size=8))
@settings(max_examples=300)
def test_however_a_response_is_mutated_the_next_one_is_its_own(response, changes, places):
    """It is read, or it is UpstreamBroken; what the connection carries after it is nobody else's."""
    data = response[0]
    for at, bytes_, gone in changes:
        at %= len(data) + 1
        data = data[:at] + bytes_ + data[at + gone :] or b"\n"
    (status, *first), second = asyncio.run(read_twice(cut(data, places)))
    assert status is None or 200 <= status <= 599
    assert first == [UpstreamBroken] or MARK not in first[1]
    assert second is None or (second[0], second[2]) == (200, MARK)


@pytest.mark.parametrize("said", [*HEADS.values(), *BODIES.values()], ids=[*HEADS, *BODIES])
def test_hostile_bytes_come_to_the_same_however_they_are_cut(said):
    whole, _ = asyncio.run(read([said]))
    for step in (1, 7, 1000) if len(said) < 5000 else (1000, 65536):
        parts, _ = asyncio.run(read([said[at : at + step] for at in range(0, len(said), step)]))
        assert parts == whole


@pytest.mark.parametrize(("method", "said"), EXCESS.values(), ids=EXCESS)
def test_excess_spoils_the_connection_however_it_is_cut(method, said):
    for step in (1, 7, 1000):
        parts = [said[at : at + step] for at in range(0, len(said), step)]
        (status, _, _), back = asyncio.run(read(parts, method))
        assert status in (200, 204, 304)
        assert back <= (step < 1000)  # it was given back before the rest came, and closed then


def test_no_more_than_a_bounded_head_is_ever_kept():
    async def drip():
        loop, kept = asyncio.get_running_loop(), Kept()
        near, far = socket.socketpair()
        with far:
            connection = Connection(loop, kept, "http://a")
            await loop.create_connection(lambda: connection, sock=near)
            answer = connection.begin("GET", None)
            connection.data_received(b"HTTP/1.1 200 OK\r\nx: ")
            drops = 0
            while not kept.gone:
                connection.data_received(b"y" * 100)
                drops += 1
            with pytest.raises(UpstreamBroken, match="larger than allowed"):
                answer.check()
            await connection.gone
            return drops

    assert asyncio.run(drip()) <= 660


def test_an_answer_to_a_request_that_nobody_has_read_ends_the_connection():
    """It was kept, with the next request behind what was not read, and closing it waited for that for ever."""

    async def overtaken():
        loop, kept = asyncio.get_running_loop(), Kept()
        near, far = socket.socketpair()
        with far:
            connection = Connection(loop, kept, "http://a")
            transport, _ = await loop.create_connection(lambda: connection, sock=near)
            answer = connection.begin("POST", None)
            while not transport.get_write_buffer_size():
                connection.write(bytes(1 << 14))
            answer.sent = True
            connection.data_received(OK)
            assert answer.whole() == b"ok"
            assert not kept.back
            async with asyncio.timeout(5):
                await connection.gone

    asyncio.run(overtaken())


# How far a response reaches


def reached(body, data, step):
    """How many of these bytes are the response's, when they come ``step`` at a time, and what they hold."""
    total, parts = 0, []
    for at in range(0, len(data), step):
        part = data[at : at + step]
        count = body.take(part, parts)
        total += count
        if count < len(part):
            break
    return total, b"".join(parts)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("said", "held"),
    [
        (b"0\r\n\r\n", b""),
        (b"2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"A;name=value\r\n0\r\n\r\n\r\n\r\n0\r\n00\r\n\r\n", b"0\r\n\r\n\r\n\r\n0"),
        (b"000002\r\nok\r\n0\r\nx: y\r\nz: 0\r\n\r\n", b"ok"),
    ],
)
def test_a_chunked_body_ends_where_it_ends(said, held, step):
    assert reached(Chunked(), said + OK, step) == (len(said), held)


@given(parts=st.lists(st.binary(min_size=1, max_size=20)), rest=st.binary(max_size=20), step=st.integers(1, 30))
def test_any_chunks_end_where_they_end(parts, rest, step):
    said = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    assert reached(Chunked(), said + rest, step) == (len(said), b"".join(parts))


@given(length=st.integers(1, 50), data=st.binary(max_size=60), step=st.integers(1, 70))
def test_a_body_of_known_length_ends_there(length, data, step):
    assert reached(Length(length), data, step) == (min(length, len(data)), data[:length])


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_some_responses_have_no_body_whatever_they_say(method, status):
    for line in ((b"content-length", b"5"), (b"transfer-encoding", b"chunked")):
        assert length_of(method, status, [line], dict([line])) == 0
