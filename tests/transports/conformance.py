"""What every way to an upstream must do, over real sockets: exact bytes up, untouched bytes down, nothing mixed up.

A transport's test module subclasses ``TransportConformance`` and ``TLSConformance`` and says in ``kind`` which one.
"""

import gzip
import socket
import tempfile
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.servers import LOOPBACK, saying, stub

from apim_middleware.errors import ConnectFailed, NoConnectionFree, TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.protocols import UpstreamRequest

from .hostile import BODIES, EXCESS, HEADS, POISON, STALLING

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def ask(transport, upstream, method="GET", target=b"/", **more):
    """Send a request, read the response to its end and give it back."""
    origin = upstream if isinstance(upstream, str) else upstream.origin
    with anyio.fail_after(10):
        response = await transport.send(UpstreamRequest(method, origin, target, **more))
        try:
            body = b"".join([chunk async for chunk in response])
        finally:
            await response.aclose()
    return response.status, response.headers, body


async def chunks(*parts):
    for part in parts:
        yield part


def polite(answer=OK):
    """Answer every request of a connection."""

    async def speak(spoken):
        while await spoken.until():
            await spoken.say(answer)

    return speak


def dying(first=OK):
    """Answer the first request of a connection, and hang up on the second, having read it."""

    async def speak(spoken):
        await spoken.until()
        await spoken.say(first)
        await spoken.until()

    return speak


def naming(speech):
    """Answer every request of a connection with its target, but for those to ``/hostile``, answered with this speech.

    Hang up then unless the speech is to go on.
    """

    async def speak(spoken):
        while request := await spoken.until():
            target = request.split(b" ")[1]
            if target == b"/hostile":
                await spoken.say(speech)
                return
            await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))

    return speak


class TransportConformance:
    pytestmark = pytest.mark.anyio
    kind: type
    usual: dict = {}  # noqa: RUF012 - options for every transport

    @pytest.fixture
    async def make(self):
        """Makes transports, and closes them."""
        made = []

        def new(**options):
            made.append(self.kind(**self.usual, **options))
            return made[-1]

        yield new
        for each in made:
            await each.aclose()

    @pytest.fixture
    def transport(self, make):
        return make()

    # Exact bytes

    @pytest.mark.parametrize("target", [b"/", b"*", b"/%61%zz//../x;y?<>|^`{}", b"http://other/absolute"])
    async def test_the_target_goes_up_byte_for_byte(self, transport, target):
        async with stub(saying(OK)) as upstream:
            await ask(transport, upstream, target=target)
            assert upstream.heard[0].startswith(b"GET " + target + b" HTTP/1.1\r\n")

    async def test_the_header_lines_go_up_as_given_and_nothing_else(self, transport):
        headers = [(b"host", b"other"), (b"X-b", b"2"), (b"x-a", b"1"), (b"X-b", b"\xff")]
        async with stub(saying(OK)) as upstream:
            await ask(transport, upstream, headers=headers)
            assert upstream.heard[0] == b"GET / HTTP/1.1\r\nhost: other\r\nX-b: 2\r\nx-a: 1\r\nX-b: \xff\r\n\r\n"

    async def test_the_origin_is_the_host_where_none_is_given(self, transport):
        async with stub(saying(OK)) as upstream:
            await ask(transport, upstream)
            assert upstream.heard[0] == b"GET / HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\n" % upstream.port

    @pytest.mark.parametrize(
        ("body", "length", "sent"),
        [
            (b"bytes", None, b"content-length: 5\r\n\r\nbytes"),
            (b"", None, b"content-length: 0\r\n\r\n"),
            ((b"by", b"", b"tes"), 5, b"content-length: 5\r\n\r\nbytes"),
            ((b"by", b"", b"tes"), None, b"transfer-encoding: chunked\r\n\r\n2\r\nby\r\n3\r\ntes\r\n0\r\n\r\n"),
            ((), None, b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ],
    )
    async def test_a_body_is_framed_by_what_is_known_of_it(self, transport, body, length, sent):
        async def speak(spoken):
            await spoken.until(sent)
            await spoken.say(OK)

        async with stub(speak) as upstream:
            body = body if isinstance(body, bytes) else chunks(*body)
            assert (await ask(transport, upstream, "POST", body=body, length=length))[2] == b"ok"
            assert upstream.heard[0].endswith(sent)

    async def test_a_response_comes_down_untouched(self, transport):
        packed = gzip.compress(b"text")
        said = (
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\nX: \xff\r\n\r\n"
            + packed
        )
        async with stub(saying(said)) as upstream:
            status, headers, body = await ask(transport, upstream)
            lines = [(b"location", b"/x"), (b"content-encoding", b"gzip"), (b"set-cookie", b"a=b"), (b"x", b"\xff")]
            assert (status, headers, body) == (302, lines, packed)

    async def test_the_environment_has_no_say(self, monkeypatch, transport):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        async with stub(saying(OK)) as upstream:
            assert (await ask(transport, upstream))[0] == 200

    async def test_an_error_of_the_body_comes_out_as_it_is(self, transport):
        class Odd(OSError):
            pass

        class Failing:
            def __aiter__(self):
                return self

            async def __anext__(self):
                raise Odd

        async with stub(polite()) as upstream:
            with pytest.raises(Odd):
                await ask(transport, upstream, "POST", body=Failing())

    # Connections

    async def test_a_connection_is_kept(self, transport):
        async with stub(polite()) as upstream:
            for _ in range(3):
                assert (await ask(transport, upstream))[2] == b"ok"
            assert len(upstream.heard) == 1

    @pytest.mark.parametrize("length", [7, None])
    async def test_a_connection_is_kept_after_an_upload(self, transport, length):
        async def speak(spoken):
            while (request := await spoken.until()) and await spoken.until(
                b"3\r\ntwo\r\n0\r\n\r\n" if length is None else b"two"
            ):
                assert request.startswith(b"POST")
                await spoken.say(OK)

        async with stub(speak) as upstream:
            for _ in range(20):
                sent = chunks(b"one ", b"two")
                assert (await ask(transport, upstream, "POST", body=sent, length=length))[2] == b"ok"
            assert len(upstream.heard) == 1

    async def test_requests_at_once_have_connections_of_their_own(self, transport):
        async with stub(polite()) as upstream:
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(ask, transport, upstream)
            assert len(upstream.heard) == 5
            await ask(transport, upstream)
            assert len(upstream.heard) == 5

    @pytest.mark.parametrize("framing", [b"content-length: 100000", b"transfer-encoding: chunked"])
    async def test_a_response_left_in_the_middle_leaves_nothing_behind(self, transport, framing):
        """On trio a forgotten generator would be told of, and warnings are errors."""
        async with stub(polite(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nsome \r\n5\r\nmore \r\n")) as upstream:
            response = await transport.send(UpstreamRequest("GET", upstream.origin))
            async for _ in response:
                break
            await response.aclose()
            assert [chunk async for chunk in response] == []

    async def test_a_connection_the_upstream_closed_is_not_used(self, transport):
        closed = anyio.Event()

        async def speak(spoken):
            await spoken.until()
            await spoken.say(OK)
            await spoken.stream.aclose()
            closed.set()

        async with stub(speak) as upstream:
            for _ in range(3):
                assert (await ask(transport, upstream, "POST", body=b"x"))[2] == b"ok"
                with anyio.fail_after(10):
                    await closed.wait()
                closed = anyio.Event()
            assert len(upstream.heard) == 3

    @pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", b"all of it"), ("DELETE", None)])
    async def test_a_safe_request_on_a_dead_connection_is_repeated(self, transport, method, body):
        async with stub(dying()) as upstream:
            await ask(transport, upstream)
            assert (await ask(transport, upstream, method, body=body))[2] == b"ok"
            assert len(upstream.heard) == 2

    @pytest.mark.parametrize(("method", "body"), [("POST", None), ("PATCH", b"x"), ("PUT", (b"a", b"b"))])
    async def test_a_request_that_may_have_had_its_effect_is_not(self, transport, method, body):
        async with stub(dying()) as upstream:
            await ask(transport, upstream)
            with pytest.raises(UpstreamBroken):
                await ask(transport, upstream, method, body=chunks(*body) if isinstance(body, tuple) else body)
            assert len(upstream.heard) == 1

    async def test_a_request_that_got_half_an_answer_is_not_repeated(self, transport):
        async def speak(spoken):
            await spoken.until()
            await spoken.say(OK)
            await spoken.until()
            await spoken.say(b"HTTP/1.1 2")

        async with stub(speak) as upstream:
            await ask(transport, upstream)
            with pytest.raises(UpstreamBroken):
                await ask(transport, upstream)
            assert len(upstream.heard) == 1

    async def test_idle_connections_are_given_up_after_their_time(self, make):
        transport = make(idle=0.0)
        async with stub(polite()) as upstream:
            await ask(transport, upstream)
            await ask(transport, upstream)
            assert len(upstream.heard) == 2
            await transport.aclose()

    async def test_no_more_connections_are_kept_than_allowed(self, make):
        transport = make(max_idle=1)
        async with stub(polite()) as upstream:
            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask, transport, upstream)
                    tasks.start_soon(ask, transport, upstream)
            assert len(upstream.heard) == 3
            await transport.aclose()

    async def test_connections_to_an_origin_nobody_asks_any_more_make_room(self, make):
        """Those that were over held the room of all others, which were opened anew for every request."""
        transport = make(max_idle=1)
        async with stub(polite()) as gone:
            await ask(transport, gone)
        async with stub(polite()) as upstream:
            for _ in range(3):
                await ask(transport, upstream)
            assert len(upstream.heard) == 1
            await transport.aclose()

    async def test_a_connection_that_is_still_good_keeps_its_room(self, make):
        transport = make(max_idle=1)
        async with stub(polite()) as upstream, stub(polite()) as other:
            for each in (upstream, other, upstream):
                await ask(transport, each)
            assert len(upstream.heard) == 1
            await transport.aclose()

    async def test_connections_beyond_the_most_are_waited_for(self, make):
        transport, heard, answer = make(max_connections=1), anyio.Event(), anyio.Event()

        async def speak(spoken):
            while await spoken.until():
                heard.set()
                await answer.wait()
                await spoken.say(OK)

        async with stub(speak) as upstream, anyio.create_task_group() as tasks:
            tasks.start_soon(ask, transport, upstream)
            await heard.wait()
            with pytest.raises(NoConnectionFree, match="every connection is in use"):
                await ask(transport, upstream, connect=0.01)
            tasks.start_soon(ask, transport, upstream)
            answer.set()
        assert len(upstream.heard) == 1
        await transport.aclose()

    async def test_failures_and_cancellations_give_their_place_back(self, make):
        transport = make(max_connections=1)
        async with stub(polite(b"no HTTP\r\n\r\n")) as broken, stub(polite(b"")) as silent, stub(polite()) as good:
            for _ in range(3):
                with pytest.raises(UpstreamBroken):
                    await ask(transport, broken)
                with pytest.raises(UpstreamTimeout):
                    await ask(transport, silent, read=0.01)
                with anyio.move_on_after(0.01) as scope:
                    await ask(transport, silent)
                assert scope.cancelled_caught
                with pytest.raises(ConnectFailed):
                    await transport.send(UpstreamRequest("GET", "http://127.0.0.1:1"))
                assert (await ask(transport, good, connect=1.0))[2] == b"ok"
            await transport.aclose()

    async def test_a_closed_transport_can_be_used_again(self, transport):
        async with stub(polite()) as upstream:
            for _ in range(2):
                await ask(transport, upstream)
            await transport.aclose()
            for _ in range(2):
                assert (await ask(transport, upstream))[2] == b"ok"
            assert len(upstream.heard) == 2

    @pytest.mark.parametrize("origin", ["host", "ftp://host", "http://", "http://host:99999", "http://hö"])
    async def test_what_is_no_origin_cannot_be_connected_to(self, transport, origin):
        with pytest.raises(ConnectFailed):
            await transport.send(UpstreamRequest("GET", origin))

    async def test_a_unix_socket_can_be_connected_to(self, make):
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            path = Path(folder, "s")
            transport = make(uds=str(path))

            async def serve(stream):
                async with stream:
                    await stream.receive()
                    await stream.send(OK)

            async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, serve)
                response = await transport.send(UpstreamRequest("GET", "http://anything"))
                assert [chunk async for chunk in response] == [b"ok"]
                await response.aclose()
                await transport.aclose()
                tasks.cancel_scope.cancel()

    async def test_a_response_not_read_to_its_end_costs_the_connection(self, transport):
        async with stub(polite(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nsome")) as upstream:
            for _ in range(2):
                response = await transport.send(UpstreamRequest("GET", upstream.origin))
                await response.aclose()
                await response.aclose()
            assert len(upstream.heard) == 2

    async def test_closing_closes_what_is_idle_now_and_what_comes_back_later(self, transport):
        idle, busy, go_on = anyio.Event(), anyio.Event(), anyio.Event()

        async def speak(spoken):
            while request := await spoken.until():
                if request.startswith(b"GET /slow"):
                    await spoken.say(OK[:-1])
                    await go_on.wait()
                    await spoken.say(OK[-1:])
                else:
                    await spoken.say(OK)
            (busy if b"/slow" in spoken.heard else idle).set()

        async with stub(speak) as upstream:
            response = await transport.send(UpstreamRequest("GET", upstream.origin, b"/slow"))
            await ask(transport, upstream)
            await transport.aclose()
            with anyio.fail_after(10):
                await idle.wait()
            go_on.set()
            assert b"".join([chunk async for chunk in response]) == b"ok"
            await response.aclose()
            with anyio.fail_after(10):
                await busy.wait()

    # What cannot be sent

    @pytest.mark.parametrize(
        "odd",
        [
            {"headers": [(b"x", b"a\r\nb: c")]},
            {"headers": [(b"x", b"a\nb: c")]},
            {"headers": [(b"x", b"a\rb: c")]},
            {"headers": [(b"x", b"a\0b")]},
            {"headers": [(b"x\r\ny", b"z")]},
            {"headers": [(b"x ", b"y")]},
            {"headers": [(b"", b"y")]},
            {"headers": [(b"x: y\r\nz", b"y")]},
            {"target": b"/ HTTP/1.1\r\nx: y"},
            {"target": b"/a b"},
            {"target": b""},
            {"method": "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"},
            {"method": ""},
        ],
        ids=repr,
    )
    async def test_what_would_break_out_of_its_line_never_reaches_the_wire(self, transport, odd):
        async with stub(polite()) as upstream:
            with pytest.raises(TransportError):
                await ask(transport, upstream, **{"method": "GET", **odd})
            assert b"".join(upstream.heard) == b""

    @pytest.mark.parametrize(("length", "body"), [(5, (b"four",)), (3, (b"four",)), (0, (b"four",))])
    async def test_a_body_that_is_not_as_long_as_announced_never_arrives_whole(self, transport, length, body):
        async def speak(spoken):
            await spoken.until(b"never")

        async with stub(speak) as upstream:
            with pytest.raises(TransportError):
                await ask(transport, upstream, "POST", body=chunks(*body), length=length)

    # While the request is still on its way

    async def test_an_answer_ends_the_upload_and_the_connection_with_it(self, transport):
        async def speak(spoken):
            request = await spoken.until()
            if request.startswith(b"POST"):
                await spoken.until(b"first")
            await spoken.say(OK)
            await spoken.hang_on()

        class Endless:
            asked = 0

            def __aiter__(self):
                return self

            async def __anext__(self):
                self.asked += 1
                return b"first" if self.asked == 1 else await anyio.sleep_forever()

        async with stub(speak) as upstream:
            assert (await ask(transport, upstream, "POST", body=Endless()))[2] == b"ok"
            assert (await ask(transport, upstream))[2] == b"ok"
            assert len(upstream.heard) == 2

    @pytest.mark.parametrize("length", [8 << 20, None])
    async def test_an_upload_that_is_taken_slowly_arrives_whole(self, transport, length):
        """Whether there is room for more is no answer, however often that changes while the client is waited for."""
        part = bytes(1 << 20)

        async def body():
            for _ in range(8):
                yield part
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()

        async def speak(spoken):
            await spoken.until()
            framing = 0 if length else 8 * len(b"100000\r\n\r\n") + len(b"0\r\n\r\n")
            begin = len(spoken.heard) - spoken.heard.find(b"\r\n\r\n") - 4
            while begin < (8 << 20) + framing:
                begin += len(await spoken.more())
            await spoken.say(OK)

        async with stub(speak) as upstream:
            assert (await ask(transport, upstream, "POST", body=body(), length=length))[2] == b"ok"
            assert upstream.heard[0].endswith(bytes(8) + (b"" if length else b"\r\n0\r\n\r\n"))

    async def test_interim_responses_do_not_end_the_upload(self, transport):
        async def speak(spoken):
            await spoken.until(b"first")
            await spoken.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
            await spoken.until(b"second\r\n0\r\n\r\n")
            await spoken.say(OK)

        async with stub(speak) as upstream:
            assert (await ask(transport, upstream, "POST", body=chunks(b"first", b"second")))[2] == b"ok"

    @pytest.mark.parametrize("kind_of_body", ["chunks", "bytes"])
    async def test_an_upstream_that_takes_nothing_more_times_out(self, transport, kind_of_body):
        body = bytes(32 << 20) if kind_of_body == "bytes" else chunks(*[bytes(1 << 20)] * 32)
        with socket.create_server((LOOPBACK, 0)) as deaf:
            origin = f"http://{LOOPBACK}:{deaf.getsockname()[1]}"
            with pytest.raises(UpstreamTimeout):
                await ask(transport, origin, "POST", body=body, write=0.05)

    async def test_the_head_has_a_time_of_its_own(self, transport):
        async with stub(polite(b"")) as upstream:
            with pytest.raises(UpstreamTimeout):
                await ask(transport, upstream, first_byte=0.05)

    async def test_a_request_that_is_being_cancelled_leaves_nothing_behind(self, transport):
        sent, gone = anyio.Event(), anyio.Event()

        async def speak(spoken):
            await spoken.until(b"part")
            sent.set()
            await spoken.hang_on()
            gone.set()

        async def body():
            yield b"part"
            await anyio.sleep_forever()

        async with stub(speak) as upstream:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: ask(transport, upstream, "POST", body=body()))
                await sent.wait()
                tasks.cancel_scope.cancel()
            with anyio.fail_after(10):
                await gone.wait()

    # How a response is framed

    @pytest.mark.parametrize(
        ("method", "said"),
        [
            ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
            ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
            ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
            ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            ("GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\n\r\n"),
        ],
    )  # fmt: skip
    async def test_a_response_without_a_body_leaves_the_connection_usable(self, transport, method, said):
        async with stub(polite(said)) as upstream:
            for _ in range(3):
                assert (await ask(transport, upstream, method))[2] == b""
            assert len(upstream.heard) == 1

    @pytest.mark.parametrize(
        "said",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x, Close\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ],
    )
    async def test_a_connection_the_upstream_wants_to_close_is_not_used_again(self, transport, said):
        async with stub(polite(said)) as upstream:
            for _ in range(2):
                assert (await ask(transport, upstream))[2] == b"ok"
            assert len(upstream.heard) == 2

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    async def test_a_body_may_end_with_the_connection(self, transport, version):
        async with stub(saying(b"HTTP/%b 200 OK\r\n\r\nto the " % version, b"end")) as upstream:
            assert (await ask(transport, upstream))[2] == b"to the end"

    # Hostile upstreams

    @pytest.mark.parametrize("said", HEADS.values(), ids=HEADS)
    async def test_a_head_two_readers_could_read_in_two_ways_is_refused(self, transport, said):
        async with stub(naming(said)) as upstream:
            assert (await ask(transport, upstream, target=b"/before"))[2] == b"/before"
            with pytest.raises(UpstreamBroken):
                await ask(transport, upstream, "POST", b"/hostile")
            assert (await ask(transport, upstream, target=b"/after"))[2] == b"/after"

    @pytest.mark.parametrize("said", BODIES.values(), ids=BODIES)
    async def test_a_body_that_breaks_off_is_never_whole(self, transport, said):
        async with stub(naming(said)) as upstream:
            response = await transport.send(UpstreamRequest("GET", upstream.origin, b"/hostile"))
            assert response.status == 200
            with pytest.raises(UpstreamBroken):
                async for _ in response:
                    pass
            await response.aclose()
            assert (await ask(transport, upstream, target=b"/after"))[2] == b"/after"

    @pytest.mark.parametrize("said", STALLING.values(), ids=STALLING)
    async def test_an_upstream_that_stalls_times_out(self, transport, said):
        async def speak(spoken):
            await spoken.until()
            await spoken.say(said)
            await spoken.hang_on()

        async with stub(speak) as upstream:
            with pytest.raises(UpstreamTimeout):
                await ask(transport, upstream, read=0.05)

    @pytest.mark.parametrize(("method", "said"), EXCESS.values(), ids=EXCESS)
    async def test_bytes_beyond_a_response_never_reach_the_next(self, transport, method, said):
        async def speak(spoken):
            while await spoken.until():
                await spoken.say(said)

        async with stub(speak) as upstream:
            for number in range(1, 4):
                assert (await ask(transport, upstream, method))[2] in (b"ok", b"")
                assert len(upstream.heard) == number

    async def test_bytes_that_come_between_two_exchanges_are_no_answer(self, transport):
        answered, poisoned = anyio.Event(), anyio.Event()

        async def speak(spoken):
            await spoken.until()
            await spoken.say(OK)
            await answered.wait()
            await spoken.say(POISON)
            poisoned.set()
            await spoken.hang_on()

        async with stub(speak) as upstream:
            assert (await ask(transport, upstream))[2] == b"ok"
            answered.set()
            await poisoned.wait()
            assert (await ask(transport, upstream, "POST"))[2] == b"ok"
            assert len(upstream.heard) == 2

    async def test_a_slow_reader_holds_the_upstream_back(self, transport):
        """Nothing is read ahead but what the sockets hold."""
        said = 0

        async def speak(spoken):
            nonlocal said
            await spoken.until()
            await spoken.say(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(64):
                await spoken.say(bytes(1 << 20))
                said += 1

        async with stub(speak) as upstream:
            response = await transport.send(UpstreamRequest("GET", upstream.origin))
            await anext(aiter(response))
            before = -1
            while before != said:  # until no more goes into the sockets
                before = said
                await anyio.sleep(0.05)
            assert said < 32
            await response.aclose()
