"""Our own transport on asyncio and uvloop: its pool, its limits, its endings, and what it owes to nobody else."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import tempfile
import threading
import tracemalloc
import weakref
from functools import partial
from pathlib import Path

import anyio
import anyio.streams.tls
import anyio.to_thread
import pytest
from tests.servers import LOOPBACK, saying, stub

from apim_middleware._http import lines
from apim_middleware.errors import ConfigError, ConnectFailed, TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports import _requests
from apim_middleware.transports._dialling import _addresses, _fastest
from apim_middleware.transports._requests import written
from apim_middleware.transports._sending import ask as send
from apim_middleware.transports.http1 import Http1Transport

from .conformance import OK, TransportConformance, ask, chunks, polite
from .conformance_tls import TLSConformance, authority, fetch, tls_origin

__all__ = ["authority", "tls_origin"]  # fixtures

pytestmark = pytest.mark.anyio

LOOPS = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return request.param


@pytest.fixture
async def transport():
    made = Http1Transport()
    yield made
    await made.aclose()


class TestHttp1Transport(TransportConformance):
    kind = Http1Transport


class TestHttp1TransportOverTLS(TLSConformance):
    kind = Http1Transport


# Heads


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://a.example", b"a.example"),
        ("http://A.example:80", b"a.example"),
        ("http://a.example:443", b"a.example:443"),
        ("https://a.example:443", b"a.example"),
        ("http://[::1]:8080", b"[::1]:8080"),
        ("http://me:secret@a.example", b"a.example"),
    ],
)
def test_a_host_is_written_in_one_way_and_without_secrets(origin, host):
    assert written(UpstreamRequest("GET", origin)) == b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % host


@pytest.mark.parametrize("name", [b"content-length", b"Content-Length", b"transfer-encoding", b"Transfer-Encoding"])
def test_nobody_but_the_transport_frames_a_body(name):
    with pytest.raises(TransportError, match="frames its body itself"):
        written(UpstreamRequest("POST", "http://a", headers=[(name, b"5")]))


@pytest.mark.parametrize("name", [b"host", b"Host", b"HOST"])
def test_a_host_that_is_given_is_the_only_one(name):
    head = written(UpstreamRequest("GET", "http://a", headers=[(name, b"b")]))
    assert head == b"GET / HTTP/1.1\r\n%b: b\r\n\r\n" % name


@pytest.mark.parametrize(
    ("remembered", "look"),
    [
        (_requests._seen_names, lambda name: written(UpstreamRequest("GET", "http://a", headers=[(name, b"")]))),
        (lines._names, lambda name: lines.are_names([name])),
    ],
    ids=["written", "passed on"],
)
def test_names_that_callers_invent_keep_no_others_from_being_remembered(remembered, look):
    """The first 2,048 were kept for good: whoever sent them made every later one slow."""
    for number in range(5000):
        look(b"x-invented-%d" % number)
    look(b"x-meant")
    assert b"x-meant" in remembered
    assert len(remembered) <= 2048


async def test_a_response_of_many_lines_under_one_name_keeps_them_all(transport):
    said = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX: 1  \r\nset-cookie: b\r\nSET-COOKIE:\t c\r\ncontent-length: 0\r\n\r\n"
    )
    async with stub(polite(said)) as upstream:
        _, headers, _ = await ask(transport, upstream)
        cookies = [(b"set-cookie", b"a"), (b"x", b"1"), (b"set-cookie", b"b"), (b"set-cookie", b"c")]
        assert headers[:-1] == cookies


# The pool


async def test_the_connection_used_last_is_used_next(transport):
    async with stub(polite()) as upstream:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask, transport, upstream)
        before = [len(heard) for heard in upstream.heard]
        for _ in range(5):
            await ask(transport, upstream)
        assert sum(len(heard) > size for heard, size in zip(upstream.heard, before, strict=True)) == 1


async def test_an_upstream_in_trouble_takes_no_connections_from_another():
    transport, heard = Http1Transport(max_connections=1), anyio.Event()

    async def stuck(spoken):
        await spoken.until()
        heard.set()
        await spoken.hang_on()

    async with stub(stuck) as slow, stub(polite()) as good, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, transport, slow)
        await heard.wait()
        assert (await ask(transport, good))[2] == b"ok"
        assert transport.connections == 2
        tasks.cancel_scope.cancel()
    await transport.aclose()


class Gate:
    """An upstream that answers with the target when it is told to."""

    def __init__(self):
        self.heard, self.go_on = [], asyncio.Semaphore(0)

    async def speak(self, spoken):
        while request := await spoken.until():
            target = request.split(b" ")[1]
            self.heard.append(target)
            await self.go_on.acquire()
            await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))


async def turns():
    """Let everybody who can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("announced", [b"content-length: 5", b"transfer-encoding: chunked"])
async def test_a_204_that_announces_a_body_leaves_no_connection_on_which_it_could_come(transport, announced):
    async with stub(polite(b"HTTP/1.1 204 No Content\r\n" + announced + b"\r\n\r\n")) as upstream:
        for _ in range(2):
            assert (await ask(transport, upstream))[2] == b""
        assert len(upstream.heard) == 2


async def test_those_who_wait_are_served_in_the_order_they_came():
    transport, gate = Http1Transport(max_connections=1), Gate()
    async with stub(gate.speak) as upstream, anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(partial(ask, transport, upstream, target=b"/%d" % number))
            await turns()
        for _ in range(5):
            gate.go_on.release()
    assert gate.heard == [b"/0", b"/1", b"/2", b"/3", b"/4"]
    assert len(upstream.heard) == 1
    await transport.aclose()


async def test_one_who_gives_up_waiting_loses_nobody_their_turn():
    transport, gate = Http1Transport(max_connections=1), Gate()
    async with stub(gate.speak) as upstream, anyio.create_task_group() as tasks:
        waiting = [anyio.CancelScope() for _ in range(3)]

        async def wait(number):
            with waiting[number]:
                await ask(transport, upstream, target=b"/%d" % number)

        for number in range(3):
            tasks.start_soon(wait, number)
            await turns()
        waiting[1].cancel()
        gate.go_on.release()
        gate.go_on.release()
    assert gate.heard == [b"/0", b"/2"]
    await transport.aclose()


async def test_one_who_gives_up_as_their_turn_comes_hands_it_on():
    transport = Http1Transport(max_connections=1)
    async with stub(polite()) as upstream:
        pool = transport._pools.here()
        request = UpstreamRequest("GET", upstream.origin)
        connection = await pool.take(request)
        first = asyncio.create_task(pool.take(request))
        second = asyncio.create_task(pool.take(request))
        await turns()
        pool.give_back(connection)  # it is the first one's now
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second is connection
        connection.abort()
        assert transport.connections == 0


async def test_the_turn_of_one_who_has_just_given_up_is_the_next_ones():
    transport = Http1Transport(max_connections=1)
    async with stub(polite()) as upstream:
        pool = transport._pools.here()
        request = UpstreamRequest("GET", upstream.origin)
        connection = await pool.take(request)
        first = asyncio.create_task(pool.take(request))
        second = asyncio.create_task(pool.take(request))
        await turns()
        first.cancel()  # it has not left the queue itself yet
        pool.give_back(connection)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second is connection
        connection.abort()
        assert transport.connections == 0


async def test_a_place_comes_free_when_a_connection_breaks():
    transport = Http1Transport(max_connections=1)

    async def speak(spoken):
        await spoken.until()

    async with stub(speak) as upstream:
        answers = await asyncio.gather(*(ask(transport, upstream, "POST") for _ in range(4)), return_exceptions=True)
        assert [type(each) for each in answers] == [UpstreamBroken] * 4
        assert len(upstream.heard) == 4
    assert transport.connections == 0


async def test_the_queue_is_bounded():
    transport, gate = Http1Transport(max_connections=1, max_waiting=1), Gate()
    async with stub(gate.speak) as upstream, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(ask, transport, upstream)
            await turns()
        with pytest.raises(ConnectFailed, match="too many requests wait"):
            await ask(transport, upstream)
        gate.go_on.release()
        gate.go_on.release()
    await transport.aclose()


async def test_idle_connections_are_closed_after_their_time():
    transport, closed = Http1Transport(idle=0.01), anyio.Event()

    async def speak(spoken):
        while await spoken.until():
            await spoken.say(OK)
        closed.set()

    async with stub(speak) as upstream:
        await ask(transport, upstream)
        with anyio.fail_after(10):
            await closed.wait()
        assert transport.connections == 0


async def test_idle_connections_are_closed_after_their_time_again_and_again():
    """When none was left, the next one is timed as the first was."""
    transport, closed = Http1Transport(idle=0.01), [anyio.Event(), anyio.Event()]

    async def speak(spoken):
        while await spoken.until():
            await spoken.say(OK)
        next(each for each in closed if not each.is_set()).set()

    async with stub(speak) as upstream:
        for each in closed:
            await ask(transport, upstream)
            await each.wait()
        assert transport.connections == 0


async def test_an_idle_connection_the_upstream_closes_is_forgotten(transport):
    go_on = anyio.Event()

    async def speak(spoken):
        await spoken.until()
        await spoken.say(OK)
        await go_on.wait()

    async with stub(speak) as upstream:
        await ask(transport, upstream)
        [connection] = next(iter(transport._pools.here()._places.values())).free
        go_on.set()
        await connection.gone
        assert transport.connections == 0


async def test_connections_that_close_at_any_moment_lose_no_safe_request(transport):
    async def speak(spoken):
        for _ in range(3):
            if await spoken.until():
                await spoken.say(OK)

    async def client():
        return [(await ask(transport, upstream))[2] for _ in range(25)]

    async with stub(speak) as upstream:
        assert await asyncio.gather(*(client() for _ in range(8))) == [[b"ok"] * 25] * 8


async def test_room_for_more_is_no_answer(transport):
    """An event loop may tell of it late, when the client is waited for already."""

    async def body():
        yield b"first "
        connection.pause_writing()
        connection.resume_writing()
        await turns()
        yield b"second"

    async def speak(spoken):
        await spoken.until(b"0\r\n\r\n")
        await spoken.say(OK)

    async with stub(speak) as upstream:
        request = UpstreamRequest("POST", upstream.origin, body=body())
        connection = await transport._pools.here().take(request)
        answer = await send(connection, request, written(request))
        assert [chunk async for chunk in answer] == [b"ok"]
        assert b"6\r\nfirst \r\n6\r\nsecond\r\n0\r\n\r\n" in upstream.heard[0]


async def test_a_request_that_kills_its_upstream_is_sent_twice_at_most(transport):
    heard = 0

    async def speak(spoken):
        nonlocal heard
        while request := await spoken.until():
            if request.startswith(b"GET /kill"):
                heard += 1
                return
            await spoken.say(OK)

    async with stub(speak) as upstream:
        await asyncio.gather(*(ask(transport, upstream) for _ in range(5)))
        with pytest.raises(UpstreamBroken):
            await ask(transport, upstream, target=b"/kill")
        assert heard == 2


# Nothing is left behind


def our_tasks():
    """The tasks that run code of the package."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    return [each for each in coroutines if "apim_middleware" in each.cr_code.co_filename]


def open_files():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def cancelled_midway(transport, request, reached):
    """Send a request, read its response, and be cancelled when ``reached`` comes true."""

    async def exchange():
        response = await transport.send(request)
        try:
            async for _ in response:
                pass
        finally:
            await response.aclose()

    task = asyncio.create_task(exchange())
    await reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.connections == 0


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", OK[:-1]])
async def test_being_cancelled_while_waiting_for_an_answer_leaves_nothing_behind(said, transport):
    heard, gone = anyio.Event(), anyio.Event()

    async def speak(spoken):
        await spoken.until()
        await spoken.say(said)
        heard.set()
        await spoken.hang_on()
        gone.set()

    async with stub(speak) as upstream:
        await cancelled_midway(transport, UpstreamRequest("GET", upstream.origin), heard.wait)
        await gone.wait()
        assert our_tasks() == []


async def deaf_listener():
    """A listener whose queue is full: connecting to it takes for ever."""
    listener = socket.create_server((LOOPBACK, 0), backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return listener, fillers


async def test_being_cancelled_while_connecting_leaves_nothing_behind(transport):
    listener, fillers = await deaf_listener()
    before = open_files()
    request = UpstreamRequest("GET", f"http://{LOOPBACK}:{listener.getsockname()[1]}")
    await cancelled_midway(transport, request, turns)
    await turns()
    assert open_files() == before
    for each in (listener, *fillers):
        each.close()


async def test_connecting_has_its_time(transport):
    listener, fillers = await deaf_listener()
    with pytest.raises(ConnectFailed, match="timed out"):
        await ask(transport, f"http://{LOOPBACK}:{listener.getsockname()[1]}", connect=0.01)
    assert transport.connections == 0
    for each in (listener, *fillers):
        each.close()


async def test_being_cancelled_in_the_middle_of_a_handshake_leaves_nothing_behind(transport):
    arrived, gone = anyio.Event(), anyio.Event()

    async def speak(spoken):
        await spoken.more()
        arrived.set()
        await spoken.hang_on()
        gone.set()

    async with stub(speak) as upstream:
        request = UpstreamRequest("GET", upstream.origin.replace("http:", "https:"))
        await cancelled_midway(transport, request, arrived.wait)
        with anyio.fail_after(10):
            await gone.wait()


async def test_a_handshake_has_a_time_of_its_own(transport):
    async def speak(spoken):
        await spoken.hang_on()

    async with stub(speak) as upstream:
        with pytest.raises(ConnectFailed):
            await ask(transport, upstream.origin.replace("http:", "https:"), connect=30.0, tls=0.05)
        assert transport.connections == 0


async def test_a_refused_connection_leaves_nothing_behind(transport):
    before = open_files()
    with pytest.raises(ConnectFailed):
        await ask(transport, f"http://{LOOPBACK}:1")
    await turns()
    assert (open_files(), transport.connections) == (before, 0)


async def test_no_task_is_made_for_an_exchange(transport):
    tasks = []

    async def speak(spoken):
        while await spoken.until(b"0\r\n\r\n"):
            tasks.extend(our_tasks())
            await spoken.say(OK)

    async with stub(speak) as upstream:
        for _ in range(3):
            assert (await ask(transport, upstream, "POST", body=chunks(b"one", b"two")))[2] == b"ok"
        assert tasks == []


async def test_an_upload_is_broken_off_from_outside_like_anything_else(transport):
    """The answer interrupts the upload by cancelling its task; a cancellation of somebody else's must not get lost."""

    async def body():
        yield b"part"
        await asyncio.sleep(3600)

    async def upload(upstream):
        async with asyncio.timeout(30):
            return await ask(transport, upstream, "POST", body=body())

    async with stub(polite()) as upstream, stub(polite(b"")) as silent:
        task = asyncio.create_task(upload(upstream))
        assert (await task)[2] == b"ok"
        assert task.cancelling() == 0
        task = asyncio.create_task(upload(silent))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.connections == 0


async def waiting_after(first):
    """A body of which nothing more comes."""
    yield first
    await asyncio.Event().wait()


async def test_an_upload_that_waits_ends_with_the_head_of_an_answer_whose_body_goes_on(transport):
    async def speak(spoken):
        await spoken.until(b"first")
        await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok")
        await spoken.hang_on()

    async with stub(speak) as upstream:
        answer = await transport.send(UpstreamRequest("POST", upstream.origin, body=waiting_after(b"first")))
        assert (answer.status, await anext(answer)) == (200, b"ok")
        await answer.aclose()


async def test_an_upload_that_waits_ends_when_the_upstream_hangs_up(transport):
    async def speak(spoken):
        await spoken.until(b"first")

    async with stub(speak) as upstream:
        with pytest.raises(UpstreamBroken):
            await transport.send(UpstreamRequest("POST", upstream.origin, body=waiting_after(b"first")))


async def closed_upon(listener):
    """A body to whose first chunk the upstream answers, and resets the connection, before the others are sent."""
    yield bytes(1 << 16)
    upstream = await anyio.to_thread.run_sync(begun, listener)
    with upstream:
        upstream.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
    for _ in range(20):
        yield bytes(1 << 16)


def begun(listener):
    """A connection over which a request has begun to come."""
    upstream, _ = listener.accept()
    upstream.settimeout(10)
    upstream.recv(1)
    return upstream


@pytest.mark.parametrize("length", [21 << 16, None])
async def test_an_answer_is_heard_though_the_upstream_closed_on_the_rest_of_an_upload(transport, length, caplog):
    """Nothing was read between the answer and the write that fails: that was a 502, and a warning for each chunk."""
    with contextlib.closing(socket.create_server((LOOPBACK, 0))) as listener:
        origin = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        async with contextlib.aclosing(closed_upon(listener)) as upload:
            status, _, body = await ask(transport, origin, "POST", body=upload, length=length)
    assert (status, body, caplog.messages) == (413, b"no", [])


async def test_a_response_that_is_there_does_not_hold_its_connection(transport):
    """What was not read yet waits in memory, and the connection carries the next exchange."""
    async with stub(polite()) as upstream:
        first = await transport.send(UpstreamRequest("GET", upstream.origin))
        second = await transport.send(UpstreamRequest("GET", upstream.origin))
        assert [chunk async for chunk in second] == [b"ok"]
        assert [chunk async for chunk in first] == [b"ok"]
        assert len(upstream.heard) == 1


async def test_much_passes_through_little_memory(transport):
    async def speak(spoken):
        await spoken.until(b"0\r\n\r\n")
        await spoken.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n%b\r\n" % bytes(1 << 16)
        for _ in range(256):
            await spoken.say(chunk)
        await spoken.say(b"0\r\n\r\n")

    async with stub(speak) as upstream:
        response = await transport.send(UpstreamRequest("POST", upstream.origin, body=chunks(b"x")))
        gc.collect()
        tracemalloc.start()
        size = 0
        async for chunk in response:
            size += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert size == 256 << 16
    assert peak < 2 << 20


async def test_an_error_of_the_body_is_let_go_without_the_collector(transport):
    """It held the frame that raised it, and with it the request and its body."""
    async with stub(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")) as upstream:
        answer = await transport.send(UpstreamRequest("GET", upstream.origin))
        gc.disable()
        try:
            with pytest.raises(UpstreamBroken) as raised:
                await drained(answer)
            error = weakref.ref(raised.value)
            del raised
            assert error() is None
        finally:
            gc.enable()


async def drained(answer):
    async for _ in answer:
        pass


# Loops and addresses


def test_each_event_loop_has_connections_of_its_own():
    transport = Http1Transport()

    async def once():
        async with stub(polite()) as upstream:
            assert (await ask(transport, upstream))[2] == b"ok"
            assert transport.connections == 1
            await transport.aclose()

    anyio.run(once)
    anyio.run(once)
    other = threading.Thread(target=anyio.run, args=(once,))
    other.start()
    anyio.run(once)
    other.join()


def test_a_loop_that_was_closed_without_a_word_is_forgotten():
    transport = Http1Transport()

    async def count():
        return transport.connections

    for _ in range(3):
        asyncio.run(count())
    assert len(transport._pools._made) == 1


def test_trio_is_told_what_to_use_instead():
    with pytest.raises(RuntimeError, match="HttpxTransport"):
        anyio.run(Http1Transport().send, UpstreamRequest("GET", "http://a"), backend="trio")


async def test_the_second_address_is_tried_when_the_first_takes_its_time():
    listener, fillers = await deaf_listener()
    with socket.create_server((LOOPBACK, 0)) as good:
        dead, alive = listener.getsockname(), good.getsockname()
        won = await _fastest([(socket.AF_INET, dead), (socket.AF_INET, alive)])
        assert won.getpeername() == alive
        won.close()
    for each in (listener, *fillers):
        each.close()


async def test_the_second_address_is_tried_when_the_first_refuses():
    with socket.create_server((LOOPBACK, 0)) as good:
        won = await _fastest([(socket.AF_INET, (LOOPBACK, 1)), (socket.AF_INET, good.getsockname())])
        assert won.getpeername() == good.getsockname()
        won.close()


async def test_when_no_address_answers_the_last_one_says_why():
    with pytest.raises(ConnectionRefusedError):
        await _fastest([(socket.AF_INET, (LOOPBACK, 1)), (socket.AF_INET, (LOOPBACK, 2))])


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_an_address_needs_no_looking_up(host, family):
    assert await _addresses(host, 80) == [(family, (host, 80))]


async def test_a_name_is_looked_up_in_no_thread_of_the_event_loop(monkeypatch):
    """Everybody uses those, and a few names whose servers were silent held them all."""

    def busy(*_):
        raise RuntimeError("there is no thread left")

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", busy)
    assert (socket.AF_INET, (LOOPBACK, 80)) in await _addresses("localhost", 80)


async def test_a_unix_socket_can_carry_tls(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder, "s")

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(serve, path, ssl=context):
            transport = Http1Transport(uds=str(path), ca=authority)
            assert await fetch(transport, "https://localhost") == b"ok"


# TLS


@pytest.fixture
async def picky_origin(authority):
    """An upstream that wants a client certificate, and tells what it was asked for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    asked = []
    context.sni_callback = lambda connection, name, _: asked.append(name)

    async def serve(reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol() or "none"
                body = f"{asked[-1]} {protocol}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        except (asyncio.IncompleteReadError, ssl.SSLError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(serve, LOOPBACK, 0, ssl=context) as server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


async def test_a_client_certificate_is_shown_and_http11_asked_for(authority, picky_origin):
    transport = Http1Transport(ca=authority, cert=authority)
    assert await fetch(transport, picky_origin) == b"localhost http/1.1"


async def test_without_a_client_certificate_such_an_upstream_gives_no_answer(authority, picky_origin):
    with pytest.raises(TransportError):
        await fetch(Http1Transport(ca=authority), picky_origin)


async def test_another_name_can_be_asked_for(authority, picky_origin):
    transport = Http1Transport(ca=authority, cert=authority, server_name="localhost")
    assert await fetch(transport, picky_origin.replace("localhost", LOOPBACK)) == b"localhost http/1.1"


async def test_connections_over_tls_are_kept(authority, picky_origin):
    transport = Http1Transport(ca=authority, cert=(authority, authority))
    for _ in range(3):
        assert (await ask(transport, picky_origin))[2] == b"localhost http/1.1"
    assert transport.connections == 1
    await transport.aclose()


@contextlib.asynccontextmanager
async def ending(authority, *, goodbye):
    """An upstream whose response ends with the connection, and that with a goodbye in TLS or without one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority)

    async def serve(stream):
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")

    plain = await anyio.create_tcp_listener(local_host=LOOPBACK)
    listener = anyio.streams.tls.TLSListener(plain, context, standard_compatible=goodbye)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"https://localhost:{plain.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


async def test_a_response_that_ends_with_a_connection_over_tls_is_whole_when_that_says_goodbye(authority):
    async with ending(authority, goodbye=True) as origin:
        assert await fetch(Http1Transport(ca=authority), origin) == b"half"


async def test_a_response_that_ends_with_a_connection_over_tls_is_not_whole_without_a_goodbye(authority):
    """Anybody on the way can end a connection: RFC 9112 §9.8."""
    async with ending(authority, goodbye=False) as origin:
        with pytest.raises(UpstreamBroken):
            await fetch(Http1Transport(ca=authority), origin)


async def test_an_upstream_over_tls_may_hang_up_before_its_response_is_read(authority):
    """On uvloop what had come and was not read yet was lost, and the response broken off."""
    context, over = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), anyio.Event()
    context.load_cert_chain(authority)
    body = bytes(200_000)

    async def serve(stream):
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        over.set()

    plain = await anyio.create_tcp_listener(local_host=LOOPBACK)
    origin = f"https://localhost:{plain.extra(anyio.abc.SocketAttribute.local_port)}"
    listener = anyio.streams.tls.TLSListener(plain, context, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        transport = Http1Transport(ca=authority)
        response = await transport.send(UpstreamRequest("GET", origin))
        await over.wait()
        for _ in range(50):  # of the event loop, which hears of it meanwhile
            await anyio.lowlevel.checkpoint()
        assert b"".join([chunk async for chunk in response]) == body
        await transport.aclose()
        tasks.cancel_scope.cancel()


# Mistakes


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("max_connections", {"max_connections": 0}),
        ("max_idle", {"max_idle": -1}),
        ("max_waiting", {"max_waiting": -1}),
        ("idle", {"idle": -1.0}),
        ("ca", {"ca": "/no/such/file.pem"}),
        ("cert", {"cert": "/no/such/file.pem"}),
        ("verify", {"verify": ssl.create_default_context(), "cert": "/x.pem"}),
        ("verify", {"verify": False, "ca": "/x.pem"}),
    ],
)
def test_a_mistake_names_its_field(field, options):
    with pytest.raises(ConfigError, match=rf"Http1Transport\.{field}"):
        Http1Transport(**options)


async def test_a_timeout_says_so(transport):
    async with stub(polite(b"")) as upstream:
        with pytest.raises(UpstreamTimeout, match="took too long"):
            await ask(transport, upstream, read=0.01)
