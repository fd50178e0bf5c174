"""Bodies seen whole, told again, and responses held back."""

import tracemalloc
from itertools import pairwise

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.bodies import (
    Ahead,
    Collected,
    Gathered,
    Held,
    Replay,
    ServerSentEvent,
    ServerSentEvents,
    overheard,
    read_body,
)
from apim_middleware.errors import ClientLeft, Refusal, ResponseOver
from apim_middleware.exchange import ResponseHead

GONE = {"type": "http.disconnect"}


def telling(*messages):
    """A ``receive`` that gives these messages and then says that the client left."""
    rest = list(messages)

    async def receive():
        return rest.pop(0) if rest else GONE

    return receive


def request(*chunks, whole=True):
    """The messages of a request body."""
    return [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) or not whole}
        for number, chunk in enumerate(chunks, 1)
    ]


def start(status=200, *headers):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(chunk=b"", more=False):
    return {"type": "http.response.body", "body": chunk, "more_body": more}


class Outbox(list):
    """A ``send`` that keeps what it gets."""

    async def __call__(self, message):
        self.append(message)

    @property
    def text(self):
        return b"".join(each.get("body", b"") for each in self)


pytestmark = pytest.mark.anyio


# read_body


async def test_a_body_is_read_whole():
    assert await read_body(telling(*request(b"one ", b"", b"two")), 7) == b"one two"


async def test_a_body_may_fill_its_cap_and_no_more():
    assert await read_body(telling(*request(b"12345")), 5) == b"12345"
    with pytest.raises(Refusal) as refused:
        await read_body(telling(*request(b"123", b"456")), 5)
    assert (refused.value.status, refused.value.code) == (413, "body-too-large")


async def test_a_body_beyond_its_cap_is_refused_before_its_end():
    receive = telling(*request(b"123456", whole=False))
    with pytest.raises(Refusal):
        await read_body(receive, 5)


async def test_a_body_broken_off_is_no_body():
    with pytest.raises(ClientLeft):
        await read_body(telling(*request(b"half", whole=False)), 100)


# Replay


async def told(receive):
    """The body a ``receive`` tells, and whether it came to its end."""
    heard = b""
    while (message := await receive())["type"] == "http.request":
        heard += message.get("body", b"")
        if not message.get("more_body", False):
            return heard, True
    return heard, False


async def test_a_body_can_be_told_again():
    replay = Replay(telling(*request(b"one ", b"two")), 100)
    assert await told(replay.telling()) == (b"one two", True)
    assert await told(replay.telling()) == (b"one two", True)


async def peak(run, *given):
    tracemalloc.start()
    await run(*given)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def crumbs(number, chunk):
    """A request in as many messages, and nobody who holds on to them."""
    left = number

    async def receive():
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": chunk, "more_body": left > 0}

    return receive


@pytest.mark.parametrize("chunk", [b"", b"x"])
async def test_what_is_kept_of_a_body_is_no_larger_than_the_body(chunk):
    """Chunks were kept one by one, and each of one byte took eighty."""
    replay = Replay(crumbs(50_000, chunk), 1 << 20)

    async def telling():
        receive = replay.telling()
        while (await receive())["more_body"]:
            pass

    assert await peak(telling) < 1_000_000
    assert (await replay.telling()())["body"] == chunk * 50_000


@pytest.mark.parametrize("chunk", [b"", b"x"])
async def test_what_is_gathered_of_a_response_is_no_larger_than_its_body(chunk):
    sent = []

    async def send(message):
        sent.append(message)

    gathered = Gathered(send, 1 << 20)

    async def sending():
        await gathered(start())
        for _ in range(50_000):
            await gathered(body(chunk, more=True))
        await gathered(body())

    assert await peak(sending) < 1_000_000
    await gathered.release()
    assert sent[1]["body"] == chunk * 50_000


@given(st.lists(st.sampled_from([b"", b"ab", b"c" * 4_095, b"d" * 4_096, b"e" * 9_000])), st.integers(0, 20_000))
def test_what_is_collected_is_what_came(chunks, number):
    collected, whole = Collected(), b""
    for chunk in chunks:
        collected.add(chunk)
        whole += chunk
        assert len(collected) == len(whole)
        assert collected.after(number) == whole[number:]
    assert bytes(collected) == whole


async def test_a_body_that_comes_at_once_is_not_copied():
    whole = b"x" * 1000
    replay = Replay(telling(*request(whole)), 1000)
    await replay.telling()()
    assert (await replay.telling()())["body"] is whole


async def test_an_empty_body_can_be_told_again():
    replay = Replay(telling(*request(b"")), 0)
    assert await told(replay.telling()) == (b"", True)
    assert await told(replay.telling()) == (b"", True)


async def test_a_telling_goes_on_where_the_last_one_stopped():
    replay = Replay(telling(*request(b"one ", b"two ", b"three")), 100)
    first = replay.telling()
    assert (await first())["body"] == b"one "
    second = replay.telling()
    assert await second() == {"type": "http.request", "body": b"one ", "more_body": True}
    assert (await second())["body"] == b"two "
    assert await told(replay.telling()) == (b"one two three", True)


async def test_a_telling_never_begun_leaves_everything_to_the_next():
    replay = Replay(telling(*request(b"all")), 100)
    replay.telling()
    assert await told(replay.telling()) == (b"all", True)


async def test_an_older_telling_hears_that_it_is_over():
    replay = Replay(telling(*request(b"one", b"two")), 100)
    old = replay.telling()
    await old()
    replay.telling()
    assert await old() == GONE


async def test_a_body_beyond_the_cap_flows_once_and_cannot_be_told_again():
    replay = Replay(telling(*request(b"123", b"456", b"789")), 5)
    assert await told(replay.telling()) == (b"123456789", True)
    assert not replay.possible
    with pytest.raises(RuntimeError):
        replay.telling()


async def test_that_the_client_left_is_told_again():
    replay = Replay(telling(*request(b"half", whole=False)), 100)
    assert await told(replay.telling()) == (b"half", False)
    assert await told(replay.telling()) == (b"half", False)


@given(chunks=st.lists(st.binary(max_size=5), min_size=1), stops=st.lists(st.integers(0, 8), max_size=4))
def test_every_telling_tells_the_same(chunks, stops):
    """Wherever earlier tellings stopped, the last one tells the whole body."""

    async def tell():
        replay = Replay(telling(*request(*chunks)), 1000)
        for stop in stops:
            receive, heard, message = replay.telling(), b"", {"more_body": True}
            for _ in range(stop):
                if message["more_body"]:
                    message = await receive()
                    heard += message["body"]
            assert b"".join(chunks).startswith(heard)
        assert await told(replay.telling()) == (b"".join(chunks), True)

    steps = tell()
    with pytest.raises(StopIteration):  # nothing in here waits, so one step is all
        steps.send(None)


# Held


async def test_a_response_let_go_passes_unchanged():
    out = Outbox()
    held = Held(out, lambda status, headers: status < 500)
    messages = [start(200, (b"a", b"b")), body(b"x", more=True), body(b"y")]
    for message in messages:
        await held(message)
    assert out == messages
    assert held.opened
    assert not held.dropped


async def test_a_response_held_back_leaves_no_trace():
    out = Outbox()
    held = Held(out, lambda status, headers: status < 500)
    await held(start(503, (b"retry-after", b"1")))
    await held(body(b"sorry"))
    assert out == []
    assert held.dropped
    assert not held.opened


async def test_the_decision_sees_the_header_lines():
    seen = []
    held = Held(Outbox(), lambda status, headers: seen.append((status, headers)) or True)
    await held(start(429, (b"retry-after", b"1")))
    assert seen == [(429, [(b"retry-after", b"1")])]


async def test_an_app_that_streams_on_is_told_that_nobody_listens():
    held = Held(Outbox(), lambda status, headers: False)
    await held(start(503))
    with pytest.raises(ResponseOver):
        await held(body(b"on and ", more=True))


async def test_what_is_no_response_passes():
    out = Outbox()
    held = Held(out, lambda status, headers: False)
    await held({"type": "websocket.accept"})
    assert out == [{"type": "websocket.accept"}]
    assert held.opened


# Gathered


async def test_a_response_is_gathered_whole_before_anything_is_sent():
    out = Outbox()
    gathered = Gathered(out, 100)
    for message in (start(200, (b"a", b"b")), body(b"one ", more=True), body(b"two")):
        await gathered(message)
    assert out == []
    assert (gathered.whole, gathered.head["status"], gathered.body) == (True, 200, b"one two")
    await gathered.release()
    assert out == [start(200, (b"a", b"b")), body(b"one two")]


async def test_a_response_is_released_once():
    out = Outbox()
    gathered = Gathered(out, 100)
    for message in (start(), body(b"x")):
        await gathered(message)
    await gathered.release()
    await gathered.release()
    assert len(out) == 2


async def test_a_response_beyond_the_cap_flows_from_its_beginning():
    out = Outbox()
    gathered = Gathered(out, 4)
    for message in (start(), body(b"123", more=True), body(b"456", more=True)):
        await gathered(message)
    assert out == [start(), body(b"123", more=True), body(b"456", more=True)]
    await gathered(body(b"789"))
    assert (out.text, gathered.whole, gathered.flowing) == (b"123456789", False, True)


@pytest.mark.parametrize(
    "head",
    [
        start(200, (b"content-type", b"text/event-stream; charset=utf-8")),
        start(200, (b"Content-Length", b"1000")),
        start(200, (b"content-length", b"9" * 5000)),
        {**start(), "trailers": True},
    ],
)
async def test_what_cannot_or_must_not_be_gathered_flows_at_once(head):
    out = Outbox()
    await Gathered(out, 100)(head)
    assert out == [head]


async def test_a_file_sent_past_the_body_flows():
    out = Outbox()
    gathered = Gathered(out, 100)
    await gathered(start())
    await gathered({"type": "http.response.pathsend", "path": "/tmp/x"})
    assert [each["type"] for each in out] == ["http.response.start", "http.response.pathsend"]


async def test_a_response_not_whole_is_not_released():
    out = Outbox()
    gathered = Gathered(out, 100)
    await gathered(start())
    await gathered(body(b"half", more=True))
    await gathered.release()
    assert (out, gathered.whole) == ([], False)


# Reading ahead


def left(ahead, noted):
    def note():
        noted.append(ahead.left)

    return note


async def test_what_was_read_ahead_is_told_and_then_what_comes():
    ahead = Ahead(telling(*request(b"a", b"b", b"c")), 2)
    await ahead.watch(pytest.fail)
    assert [await ahead.receive() for _ in range(4)] == [*request(b"a", b"b", b"c"), GONE]


async def test_a_client_that_leaves_is_seen_behind_its_whole_body():
    noted = []
    ahead = Ahead(telling(*request(b"a", b"b")), 100)
    await ahead.watch(left(ahead, noted))
    assert noted == [True]
    assert [await ahead.receive() for _ in range(5)] == [*request(b"a", b"b"), GONE, GONE, GONE]


async def test_no_more_than_the_cap_is_read_ahead_but_for_the_rest_of_a_chunk():
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": b"xxxx", "more_body": True}

    await Ahead(receive, 10).watch(pytest.fail)
    assert len(asked) == 3


async def test_a_cap_filled_to_the_byte_is_read_no_further():
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": b"xxxxx", "more_body": True}

    await Ahead(receive, 10).watch(pytest.fail)
    assert len(asked) == 2


async def test_what_was_read_is_told_while_the_next_read_is_under_way():
    comes, inbox, told = anyio.Event(), request(b"early", b"late"), []

    async def receive():
        if len(inbox) == 1:
            await comes.wait()
        return inbox.pop(0)

    ahead = Ahead(receive, 100)

    async def app():
        told.append((await ahead.receive())["body"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ahead.watch, pytest.fail)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(app)
        await anyio.wait_all_tasks_blocked()
        ahead.stop()
        comes.set()
        assert told == [b"early"]


async def test_empty_messages_do_not_pile_up():
    """A client may send them without end: empty frames of HTTP/2, as in CVE-2019-9518."""
    asked = []

    async def receive():
        asked.append(1)
        if len(asked) > 1_000:
            raise AssertionError("there is no end to it")
        return {"type": "http.request", "body": b"", "more_body": True}

    await Ahead(receive, 10).watch(pytest.fail)
    assert len(asked) == 256


async def test_a_read_under_way_when_the_waiting_is_over_belongs_to_the_app():
    comes, reading = anyio.Event(), []

    async def receive():
        reading.append(1)
        await comes.wait()
        return request(b"late")[0]

    ahead, told = Ahead(receive, 100), []

    async def app():
        told.append(await ahead.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ahead.watch, pytest.fail)
        await anyio.wait_all_tasks_blocked()
        ahead.stop()
        tasks.start_soon(app)
        await anyio.wait_all_tasks_blocked()
        assert (told, reading) == ([], [1])
        comes.set()
    assert (told, reading) == (request(b"late"), [1])


async def test_one_who_left_when_the_waiting_was_over_is_not_told_of():
    comes = anyio.Event()

    async def receive():
        await comes.wait()
        return GONE

    ahead = Ahead(receive, 100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ahead.watch, pytest.fail)
        await anyio.wait_all_tasks_blocked()
        ahead.stop()
        comes.set()
    assert await ahead.receive() == GONE


async def test_an_error_while_reading_ahead_is_raised_where_it_is_asked_for():
    async def receive():
        raise OSError("the line is down")

    ahead = Ahead(receive, 100)
    await ahead.watch(pytest.fail)
    with pytest.raises(OSError, match="the line is down"):
        await ahead.receive()


# ServerSentEvents

STREAM = (
    b"\xef\xbb\xbf: hello\r\n\r\n"
    b"data: one\n\n"
    b"event: usage\rid: 7\rdata: two\rdata:  more\r\r"
    b"data\r\n\r\n"
    b"retry: 10\nid\n\n"
    b"event: empty\n\n"
    b"data: \xff\n\n"
    b"data: never ended\n"
)
EVENTS = [
    ServerSentEvent("one"),
    ServerSentEvent("two\n more", "usage", "7"),
    ServerSentEvent("", id="7"),
    ServerSentEvent("\ufffd"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_wherever_their_stream_is_cut(cuts):
    places = [0, *sorted(cuts), len(STREAM)]
    events = ServerSentEvents()
    assert [each for a, b in pairwise(places) for each in events.feed(STREAM[a:b])] == EVENTS


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("large", [b"data: " + b"x" * 30, b"data: x\n" * 5, b":" + b"x" * 30 + b"\ndata: 1"])
def test_an_event_that_is_too_large_is_left_out_and_counted(large, size):
    stream = b"data: a\n\n" + large + b"\n\ndata: b\n\n"
    events = ServerSentEvents(20)
    found = [each for a in range(0, len(stream), size) for each in events.feed(stream[a : a + size])]
    assert ([each.data for each in found], events.skipped) == (["a", "b"], 1)


def test_a_line_without_an_end_holds_no_more_than_the_cap():
    events = ServerSentEvents(100)
    for _ in range(1000):
        assert events.feed(b"x" * 50) == []
        assert len(events._rest) <= 100


# overheard


def hearing(*headers, cap=100):
    """A tap for a response with these headers, and what it says."""
    said = []
    return overheard(ResponseHead(200, headers), said.append, cap), said


def test_a_body_is_passed_on_as_it_comes_and_said_whole_at_its_end():
    tap, said = hearing((b"content-type", b"application/json"))
    assert [tap(b"[1,", False), tap(b"2", False)] == [b"[1,", b"2"]
    assert said == []
    assert (tap(b"]", True), said) == (b"]", ["[1,2]"])


def test_of_an_event_stream_each_event_is_said_when_it_ends():
    tap, said = hearing((b"Content-Type", b"Text/Event-Stream; charset=utf-8"))
    assert tap(b"data: one\n\ndata: t", False) == b"data: one\n\ndata: t"
    assert said == ["one"]
    tap(b"wo\n\n", True)
    assert said == ["one", "two"]


def test_nothing_is_said_of_what_is_compressed_or_too_large():
    tap, said = hearing((b"content-encoding", b"gzip"))
    assert (tap(b"\x1f\x8b", True), said) == (b"\x1f\x8b", [])
    tap, said = hearing(cap=3)
    assert ([tap(b"12", False), tap(b"34", False), tap(b"", True)], said) == ([b"12", b"34", b""], [])
    tap, said = hearing((b"content-encoding", b"identity"))
    assert (tap(b"\xff", True), said) == (b"\xff", ["\ufffd"])
