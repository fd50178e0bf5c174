"""What a way to an upstream that speaks HTTP/2 must do with one, over TLS.

A transport's test module subclasses ``HTTP2Conformance`` and says in ``kind`` which one.
"""

import ssl
from collections import deque
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.streams.tls
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from hyperframe.frame import GoAwayFrame
from tests.servers import LOOPBACK

from apim_middleware.errors import TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.protocols import UpstreamRequest

from .conformance import OK, ask, chunks


class Exchange:
    """One request, and the answer to it."""

    def __init__(self, connection, number, headers):
        self.headers = headers
        self._connection, self._number = connection, number
        self._heard, self._news = deque(), anyio.Event()

    async def more(self):
        """The next bytes of the body; none at its end."""
        while not self._heard:
            self._news = anyio.Event()
            await self._news.wait()
        return self._heard.popleft()

    async def head(self, status=200, *fields):
        await self._connection.do("send_headers", self._number, [(b":status", b"%d" % status), *fields])

    async def say(self, data, *, last=False):
        await self._connection.do("send_data", self._number, data, end_stream=last)

    async def raw(self, data):
        """Bytes that no state machine has seen."""
        await self._connection.send(data)

    def hear(self, data):
        self._heard.append(data)
        self._news.set()


class Spoken:
    """One connection of an upstream, and what was asked on it."""

    def __init__(self, stream, speak):
        self._stream, self._speak = stream, speak
        self._state = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._exchanges = {}

    async def do(self, name, *args, **options):
        getattr(self._state, name)(*args, **options)
        await self._stream.send(self._state.data_to_send())

    async def send(self, data):
        await self._stream.send(data)

    async def serve(self):
        async with anyio.create_task_group() as tasks:
            try:
                await self.do("initiate_connection")
                while True:
                    for event in self._state.receive_data(await self._stream.receive()):
                        self._take(event, tasks)
                    if data := self._state.data_to_send():
                        await self._stream.send(data)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                tasks.cancel_scope.cancel()

    def _take(self, event, tasks):
        if isinstance(event, RequestReceived):
            self._exchanges[event.stream_id] = exchange = Exchange(self, event.stream_id, event.headers)
            tasks.start_soon(self._speak, exchange)
        elif isinstance(event, DataReceived):
            self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._exchanges[event.stream_id].hear(event.data)
        elif isinstance(event, StreamEnded):
            self._exchanges[event.stream_id].hear(b"")


class Upstream:
    def __init__(self, port):
        self.origin = f"https://localhost:{port}"
        self.connections = 0
        self.gone = anyio.Event()
        """Set when a connection has come to its end."""


class HTTP2Conformance:
    pytestmark = pytest.mark.anyio
    kind: type

    @pytest.fixture
    async def transport(self, authority):
        made = self.kind(verify=ssl.create_default_context(cafile=authority), http2=True)
        yield made
        await made.aclose()

    @pytest.fixture
    def upstream(self, authority):
        """Makes upstreams that speak HTTP/2, or HTTP/1.1 with those who do not."""

        @asynccontextmanager
        async def make(speak):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(authority)
            context.set_alpn_protocols(["h2", "http/1.1"])
            plain = await anyio.create_tcp_listener(local_host=LOOPBACK)
            made = Upstream(plain.extra(anyio.abc.SocketAttribute.local_port))

            async def serve(stream):
                made.connections += 1
                async with stream:
                    if stream.extra(anyio.streams.tls.TLSAttribute.alpn_protocol) == "h2":
                        await Spoken(stream, speak).serve()
                    else:
                        await stream.receive()
                        await stream.send(OK)
                made.gone.set()

            listener = anyio.streams.tls.TLSListener(plain, context, standard_compatible=False)
            async with listener, anyio.create_task_group() as tasks:
                tasks.start_soon(partial(listener.serve, serve))
                yield made
                tasks.cancel_scope.cancel()

        return make

    async def test_a_request_goes_up_and_its_response_comes_down(self, transport, upstream):
        heard = []

        async def speak(exchange):
            heard.extend([*exchange.headers, await exchange.more()])
            await exchange.head(404, (b"x-a", b"1"), (b"x-a", b"2"))
            await exchange.say(b"gone", last=True)

        async with upstream(speak) as there:
            headers = [(b"host", b"other"), (b"x-b", b"\xff")]
            answer = await ask(transport, there.origin, "POST", b"/%61?b", headers=headers, body=b"all of it")
        assert answer == (404, [(b"x-a", b"1"), (b"x-a", b"2")], b"gone")
        start = {b":method": b"POST", b":path": b"/%61?b", b":authority": b"other", b":scheme": b"https"}
        assert start.items() <= dict(heard[:-1]).items()
        assert (b"x-b", b"\xff") in heard
        assert heard[-1] == b"all of it"

    async def test_it_is_spoken_only_where_that_was_asked_for(self, authority, upstream):
        transport = self.kind(verify=ssl.create_default_context(cafile=authority))
        async with upstream(None) as there:
            assert (await ask(transport, there.origin))[2] == b"ok"
            await transport.aclose()

    async def test_a_body_goes_up_while_it_is_made(self, transport, upstream):
        heard = anyio.Event()

        async def speak(exchange):
            assert await exchange.more() == b"first"
            heard.set()
            assert await exchange.more() == b"second"
            assert await exchange.more() == b""
            await exchange.head()
            await exchange.say(b"ok", last=True)

        async def body():
            yield b"first"
            await heard.wait()
            yield b"second"

        async with upstream(speak) as there:
            assert (await ask(transport, there.origin, "POST", body=body()))[2] == b"ok"

    async def test_a_body_comes_down_while_it_is_made(self, transport, upstream):
        heard = anyio.Event()

        async def speak(exchange):
            await exchange.head()
            await exchange.say(b"first")
            await heard.wait()
            await exchange.say(b"second", last=True)

        async with upstream(speak) as there:
            response = await transport.send(UpstreamRequest("GET", there.origin))
            with anyio.fail_after(10):
                assert await anext(response) == b"first"
                heard.set()
                assert [chunk async for chunk in response] == [b"second"]
            await response.aclose()

    async def test_a_connection_is_kept(self, transport, upstream):
        async def speak(exchange):
            await exchange.head()
            await exchange.say(b"ok", last=True)

        async with upstream(speak) as there:
            for body in (None, b"x", chunks(b"a", b"b")):
                assert (await ask(transport, there.origin, "PUT", body=body))[2] == b"ok"
            assert there.connections == 1

    async def test_a_response_left_in_the_middle_costs_the_connection_and_leaves_nothing_behind(
        self, transport, upstream
    ):
        async def speak(exchange):
            await exchange.head()
            await exchange.say(b"some")
            await anyio.sleep_forever()

        async with upstream(speak) as there:
            response = await transport.send(UpstreamRequest("GET", there.origin))
            assert await anext(response) == b"some"
            await response.aclose()
            with anyio.fail_after(10):
                await there.gone.wait()

    async def test_a_request_that_is_being_cancelled_costs_the_connection(self, transport, upstream):
        """It was kept, with the request still open at the upstream: many of them left no room for others."""
        heard = anyio.Event()

        async def speak(exchange):
            heard.set()
            await anyio.sleep_forever()

        async with upstream(speak) as there:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, transport, there.origin)
                await heard.wait()
                tasks.cancel_scope.cancel()
            with anyio.fail_after(10):
                await there.gone.wait()

    async def test_an_upstream_that_says_nothing_times_out_and_costs_the_connection(self, transport, upstream):
        async def speak(exchange):
            await anyio.sleep_forever()

        async with upstream(speak) as there:
            with pytest.raises(UpstreamTimeout):
                await ask(transport, there.origin, read=0.05)
            with anyio.fail_after(10):
                await there.gone.wait()

    async def test_a_head_of_too_many_lines_is_refused(self, transport, upstream):
        async def speak(exchange):
            await exchange.head(200, *[(b"x", b"y")] * 300)
            await exchange.say(b"ok", last=True)

        async with upstream(speak) as there:
            with pytest.raises(UpstreamBroken):
                await ask(transport, there.origin)

    async def test_an_upstream_that_wants_no_more_requests_gets_them_over_a_new_connection(self, transport, upstream):
        """GOAWAY came out as an error of the library, which nobody knew."""
        heard = []

        async def speak(exchange):
            heard.append(exchange)
            if len(heard) == 2:
                await exchange.raw(GoAwayFrame(0, last_stream_id=1).serialize())
                return
            await exchange.head()
            await exchange.say(b"ok", last=True)

        async with upstream(speak) as there:
            for _ in range(3):
                assert (await ask(transport, there.origin))[2] == b"ok"
            assert there.connections == 2

    async def test_a_request_after_the_upstream_has_said_goodbye_is_broken_off(self, transport, upstream):
        heard = []

        async def speak(exchange):
            heard.append(exchange)
            if len(heard) == 1:
                await exchange.head()
                await exchange.say(b"ok", last=True)
            else:
                await exchange.raw(GoAwayFrame(0, last_stream_id=1).serialize())

        async with upstream(speak) as there:
            assert (await ask(transport, there.origin, "POST", body=b"x"))[2] == b"ok"
            with pytest.raises(UpstreamBroken):
                await ask(transport, there.origin, "POST", body=b"x")

    async def test_frames_that_may_not_be_are_the_fault_of_the_upstream(self, transport, upstream):
        async def speak(exchange):
            await exchange.raw(b"\0\0\1\0\0\0\0\0\1x" * 3)

        async with upstream(speak) as there:
            with pytest.raises(UpstreamBroken):
                await ask(transport, there.origin, "POST", body=b"x")

    async def test_frames_that_may_not_be_are_that_in_the_middle_of_a_body_too(self, transport, upstream):
        go_on = anyio.Event()

        async def speak(exchange):
            await exchange.head()
            await exchange.say(b"some")
            await go_on.wait()
            await exchange.raw(b"\0\0\1\0\0\0\0\0\x09x")

        async with upstream(speak) as there:
            response = await transport.send(UpstreamRequest("GET", there.origin))
            assert await anext(response) == b"some"
            go_on.set()
            with anyio.fail_after(10), pytest.raises(UpstreamBroken):
                await anext(response)
            await response.aclose()
            with anyio.fail_after(10):
                await there.gone.wait()

    async def test_a_request_that_cannot_be_written_is_nobodys_fault(self, transport, upstream):
        async with upstream(None) as there:
            with pytest.raises(TransportError, match="cannot be written") as told:
                await ask(transport, there.origin, headers=[(b"te", b"gzip")])
            assert not isinstance(told.value, UpstreamBroken)
