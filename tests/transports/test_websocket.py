"""Frames of an upstream, cut anywhere: the messages in them come out whole and in order."""

import asyncio
import itertools
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from apim_middleware.transports._connection import Connection
from apim_middleware.transports._websocket import Closing, UpstreamWebSocket
from apim_middleware.transports.websockets import WebSockets


class Nobody:
    """Keeps no connections."""

    def give_back(self, connection):
        raise AssertionError("a WebSocket is never given back")

    def forget(self, connection):
        pass


MESSAGES = st.lists(st.text(max_size=300) | st.binary(max_size=300), max_size=8)
CUTS = st.lists(st.integers(0, 4000), max_size=12)


def frames(message, sizes, pings) -> bytes:
    """A message in fragments of these sizes, with pings in between."""
    data = message.encode() if isinstance(message, str) else message
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    parts.append(data)
    raw, opcode = b"", Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
    for number, part in enumerate(parts, 1):
        raw += Frame(opcode, part, fin=number == len(parts)).serialize(mask=False)
        raw += Frame(Opcode.PING, b"?").serialize(mask=False) * pings
        opcode = Opcode.CONT
    return raw


def cut(raw: bytes, places) -> list[bytes]:
    """The bytes as a network may deliver them."""
    at = sorted({0, len(raw), *(place for place in places if place < len(raw))})
    return [raw[begin:end] for begin, end in itertools.pairwise(at)]


def shaken(connection):
    """The answer to a handshake on this connection."""
    answer = connection.begin("GET", None)
    answer.status, answer.headers = 101, []
    return answer


async def heard(parts) -> tuple[list[str | bytes], Closing | None]:
    """What is read of bytes that came behind the handshake, when the connection is closed then."""
    loop = asyncio.get_running_loop()
    connection = Connection(loop, Nobody(), "http://upstream.example")
    answer = shaken(connection)
    answer.parts = list(parts)
    websocket = UpstreamWebSocket(loop, connection, answer, None, WebSockets())
    messages = []
    while (message := await websocket.receive()) is not None:
        messages.append(message)
    return messages, websocket.end


@given(
    messages=MESSAGES,
    sizes=st.lists(st.integers(0, 40), max_size=4),
    pings=st.integers(0, 2),
    cuts=CUTS,
    code=st.sampled_from([1000, 1001, 1011, 3000, 4999]),
)
def test_messages_come_out_as_they_went_in(messages, sizes, pings, cuts, code):
    raw = b"".join(frames(message, sizes, pings) for message in messages)
    raw += Frame(Opcode.CLOSE, code.to_bytes(2, "big") + b"bye").serialize(mask=False)
    assert asyncio.run(heard(cut(raw, cuts))) == (messages, Closing(code, "bye"))


@given(junk=st.binary(max_size=200), cuts=CUTS)
def test_junk_ends_it_and_nothing_else(junk, cuts):
    _, end = asyncio.run(heard(cut(junk, cuts)))
    assert end is not None
    assert end.code != 1006


async def fed_until_it_waits(raw: bytes, times: int) -> int:
    """How often bytes come from an upstream whose messages nobody reads until it has to wait."""

    async def listen(reader, writer):
        await reader.read()
        writer.close()

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        connection = Connection(loop, Nobody(), "http://upstream.example")
        await loop.create_connection(lambda: connection, *server.sockets[0].getsockname())
        websocket = UpstreamWebSocket(loop, connection, shaken(connection), None, WebSockets())
        fed = 0
        while websocket._reading and fed < times:
            websocket.data_received(raw)
            fed += 1
        websocket.abort()
        await websocket._gone
    return fed


def test_messages_of_no_bytes_take_room_as_well():
    assert asyncio.run(fed_until_it_waits(Frame(Opcode.TEXT, b"").serialize(mask=False), 10_000)) < 1000


def test_fragments_of_one_byte_take_no_more_room_than_their_bytes():
    first = Frame(Opcode.BINARY, b"", fin=False).serialize(mask=False)
    one = Frame(Opcode.CONT, b"x", fin=False).serialize(mask=False)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        messages, _ = asyncio.run(heard([first, *[one * 1000] * 10]))
        assert messages == []
        assert tracemalloc.get_traced_memory()[1] - before < 1_000_000
    finally:
        tracemalloc.stop()


@given(messages=MESSAGES.filter(bool), cuts=CUTS, missing=st.integers(1, 5))
def test_half_a_message_is_none(messages, cuts, missing):
    raw = b"".join(frames(message, [], 0) for message in messages)
    kept, end = asyncio.run(heard(cut(raw[: max(0, len(raw) - missing)], cuts)))
    assert kept == messages[: len(kept)]
    assert len(kept) < len(messages)
    assert end == Closing(1011, "upstream-broken")


def test_many_small_frames_let_others_have_their_turn():
    """What came at once was looked at in one go: 256 KiB of empty frames kept everybody waiting for seconds."""

    async def beside():
        ping, close = Frame(Opcode.PING, b"").serialize(mask=False), Frame(Opcode.CLOSE, b"\x03\xe8bye")
        task = asyncio.create_task(heard([ping * 25_000 + frames("there", [], 0) + close.serialize(mask=False)]))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns, *await task

    turns, messages, end = asyncio.run(beside())
    assert (messages, end) == (["there"], Closing(1000, "bye"))
    assert turns >= 10


def test_what_came_before_the_connection_was_lost_is_read_however_much_it_was():
    messages = ["x" * 40] * 5_000
    raw = b"".join(frames(message, [], 0) for message in messages)
    assert asyncio.run(heard([raw])) == (messages, Closing(1011, "upstream-broken"))
