"""How uvicorn is to read HTTP/1.1: a request ends where it says, and a client that makes it wait is not waited for."""

import re
import socket
from asyncio import TimerHandle, Transport
from contextvars import copy_context
from struct import unpack_from
from typing import Any, ClassVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _HttpToolsProtocol

from apim_middleware._http.problems import render
from apim_middleware.errors import Refusal
from apim_middleware.serving._response import Response

_VERSIONS = frozenset(("1.0", "1.1"))
_TCP = (socket.AF_INET, socket.AF_INET6)
_LOOKS = 8  # at a wait, to tell whose fault it is
_ABSOLUTE = re.compile(rb"(https?)://([^/?#@]+)(?=[/?#]|$)", re.IGNORECASE)


class _Nowhere(list[tuple[bytes, bytes]]):
    """Where trailers go: however many come, none is kept."""

    def append(self, line: tuple[bytes, bytes], /) -> None:
        """Drop it."""


_NOWHERE = _Nowhere()
_NO_HTTP = "Invalid HTTP request received."


class HttpToolsProtocol(_HttpToolsProtocol):
    """uvicorn's reader on httptools, which takes some things differently.

    It puts trailers among the headers, where nobody has judged them: here they end (RFC 9110 §6.5.1). Of a request that
    offers an upgrade it loses what came with the head, and may read the rest of that as the next request: here an offer
    of anything but a WebSocket is passed over, as if it were not there (RFC 9110 §7.8). It takes the path of a target
    that names a host and forgets the host: here that is the ``Host`` (RFC 9112 §3.2.2). It holds a head of any size,
    and waits for anything forever: here there are bounds, which a subclass may set. What is wrong with a request is not
    told in the midst of the response to the one before it. Responses are written by ``_response``.

    Refused are versions other than HTTP/1, tunnels (``CONNECT``), WebSockets with a body or behind a request that is
    not answered, targets with a fragment, a user, another scheme, or the scheme https where the connection is not
    (RFC 9110 §4.2.4, §7.4).

    Refusals: 408 ``request-timeout``, 431 ``headers-too-large``; 400 in plain text for what is no HTTP. Where no
    response can be given any more, the connection ends.
    """

    max_head_bytes: ClassVar[int] = 131_072
    """Most bytes of a request's line and headers, or of its trailers, that may wait for their end. A head that is whole
    in one segment (256 KiB at most) is for ``Hygiene`` to judge, which has narrower bounds."""

    max_head_lines: ClassVar[int] = 1_000
    """Most header lines that may wait for their end."""

    head_timeout: ClassVar[float] = 30.0
    """Seconds in which the line and headers of a request must be there, once the connection is or they begin."""

    body_timeout: ClassVar[float] = 60.0
    """Seconds in which something more of a body must come, while it is wanted."""

    send_timeout: ClassVar[float] = 60.0
    """Seconds in which a client must take something more of a response."""

    _unread = 0  # bytes of what is not whole yet: a head, the size of a chunk, trailers
    _open = False  # whether a body was not over, when last looked
    _deaf = False  # whether nothing more is read, for the response under way is the last
    _since = 0.0  # when the wait began, or got something; 0 while nobody waits
    _row: tuple[Any, ...] = ()  # requests that came before the response to the one before was there
    _waits: TimerHandle | None = None
    _sends: TimerHandle | None = None

    # What comes, and whether it comes in time

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client is there, and is to say something."""
        super().connection_made(transport)
        self._context = copy_context()
        line = transport.get_extra_info("socket")
        if line is not None and line.family in _TCP:  # asyncio leaves it, on some listeners
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more, and whoever is at work hears of it."""
        super().connection_lost(exc)
        self._stop_waiting()
        self._stop_watching()
        for cycle in self._row:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Read on; some of it may be of a request that is not whole."""
        if self._deaf:
            return
        self._unread += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            self._answer_offer(data, offer)
        except HttpParserError:
            self.send_400_response(_NO_HTTP)
        cycle = self.cycle
        if self._unread or cycle is None or cycle.more_body or cycle.scope is not self.scope:
            self._hold()
        elif self._waits is not None:  # else there was nothing to wait for, as nearly always
            self._rest()

    def _hold(self) -> None:
        """Wait for the rest of what is not whole, unless it is too large by now."""
        was_open, self._open = self._open, self._is_begun() and not self._is_head()
        if was_open and not self._open:
            self._rest()
            if not self._is_begun():
                self._unread = 0
                return
        if self._unread > self.max_head_bytes or (self._is_head() and len(self.headers) > self.max_head_lines):
            self._refuse(Refusal(431, "headers-too-large", "The request headers are larger than allowed."))
        elif self.transport.get_protocol() is self and not self._deaf:  # and no WebSocket by now
            if self._open:
                self._since = 0.0
            self._wait()

    def _is_head(self) -> bool:
        """Whether a request has begun whose head is not whole."""
        return self.scope is not None and (self.cycle is None or self.cycle.scope is not self.scope)

    def _is_begun(self) -> bool:
        """Whether a request has begun that is not whole."""
        return self._is_head() or (self.cycle is not None and self.cycle.more_body)

    def _wait(self) -> None:
        """See to it that what is to come comes in time."""
        if not self._since:
            self._since = self.loop.time()
        if self._waits is None:
            self._waits = self.loop.call_later(self._patience / _LOOKS, self._waited)

    def _rest(self) -> None:
        """There is nothing to wait for."""
        self._open, self._since = False, 0.0
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None

    @property
    def _patience(self) -> float:
        return self.body_timeout if self._open else self.head_timeout

    def _waited(self) -> None:
        """Wait on, unless the time is over, and it is the client's fault."""
        self._waits = None
        if self.transport.is_closing():
            return
        if self._is_held_back():
            self._since = 0.0
        if not self._since or self.loop.time() < self._since + self._patience:
            self._wait()
        else:
            self._refuse(Refusal(408, "request-timeout", "The request did not come in time."))

    def _is_held_back(self) -> bool:
        """Whether it is the client that waits: for the app, or for the response to another request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        wanted = self._open and not (self.pipeline or cycle.waiting_for_100_continue or cycle.response_started)
        return self.flow.read_paused or not wanted

    # What is read

    def on_headers_complete(self) -> None:
        """The head is there, and nothing more belongs to it."""
        self._unread = 0
        if self._waits is not None:  # a body has its own time
            self._rest()
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError("this is another version of HTTP")
        if self.parser.should_upgrade() and not self._is_websocket():
            return
        if self.url[:1] != b"/":
            self._take_host()
        if b"#" in self.url:
            raise ValueError("the target holds a fragment")
        before = self.cycle
        _HttpToolsProtocol.on_headers_complete(self)
        if self.cycle is before:  # a WebSocket, which reads the headers once more
            return
        if self.pipeline:
            earlier = [each for each in self._row or (before,) if not each.response_complete]
            self._row = (*earlier, self.cycle)
        if version == "1.0":
            self.cycle.waiting_for_100_continue = False  # it knows no interim responses (RFC 9110 §15.2)
        self.headers = _NOWHERE  # those of the request are in its scope

    def on_body(self, body: bytes) -> None:
        """More of a body is there."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there, unless its head is to be read again."""
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # What else a head may ask for

    def _is_websocket(self) -> bool:
        """Whether the upgrade that is offered is to a WebSocket."""
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("a tunnel is asked for")
        if not self._should_upgrade():
            return False
        if self._announces_a_body():
            raise ValueError("a WebSocket is offered with a body")
        if self.cycle is not None and not self.cycle.response_complete:
            raise ValueError("a WebSocket is offered before the response to the request before it")
        return True

    def _should_upgrade(self) -> bool:
        """Not in HTTP/1.0 (RFC 9110 §7.8)."""
        return self.parser.get_http_version() == "1.1" and super()._should_upgrade()

    def _answer_offer(self, data: bytes, offer: HttpParserUpgrade) -> None:
        """Change to a WebSocket, or read the head again without the offer, and then what follows it.

        The parser takes what follows such a head for another protocol.
        """
        rest = memoryview(data)
        while not self._should_upgrade():
            rest, head = rest[offer.args[0] :], self._without_offer()
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            try:
                self.parser.feed_data(head)
                if rest:
                    self.parser.feed_data(rest)
            except HttpParserUpgrade as another:
                offer = another
            except HttpParserError:
                self.send_400_response(_NO_HTTP)
                return
            else:
                return
        self.handle_websocket_upgrade()

    def _without_offer(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        lines = [b"%b: %b" % line for line in self.headers if line[0] != b"upgrade"]
        return b"\r\n".join([b"%b %b HTTP/%b" % (method, self.url, version.encode()), *lines, b"", b""])

    def _take_host(self) -> None:
        """Let the host in a target be the ``Host``, if there is one of each, and the rest be the target."""
        absolute = _ABSOLUTE.match(self.url)
        if absolute is None:
            if self.url != b"*":
                raise ValueError("the target is none")
            return
        if absolute[1].lower() not in (b"http", (self.scheme or "").encode()):
            raise ValueError("the target is of another scheme")
        self.headers[:] = [(name, absolute[2] if name == b"host" else value) for name, value in self.headers]
        rest = self.url[absolute.end() :]
        if not rest and self.parser.get_method() == b"OPTIONS":
            self.url = b"*"  # RFC 9112 §3.2.4
        else:
            self.url = rest if rest[:1] == b"/" else b"/" + rest

    def handle_websocket_upgrade(self) -> None:
        """What goes out from now on is no response."""
        self._stop_watching()
        super().handle_websocket_upgrade()

    def _announces_a_body(self) -> bool:
        headers = dict(self.headers)
        return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""

    # What is wrong with it

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, where it can be said."""
        self.logger.warning(msg)
        if not self._ends_with_the_response():
            super().send_400_response(msg)

    def _refuse(self, refusal: Refusal) -> None:
        if self.transport.is_closing() or self._ends_with_the_response():
            return
        if not self._is_begun():  # it would be taken for the response to the next request
            self.transport.close()
            return
        headers, body = render(refusal)
        lines = [*self.server_state.default_headers, *headers, (b"connection", b"close")]
        head = [b"HTTP/1.1 %d %b" % (refusal.status, refusal.title.encode()), *[b"%b: %b" % line for line in lines]]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()

    def _ends_with_the_response(self) -> bool:
        """Let the response that is under way be the last, if there is one: nothing else may be written into it."""
        last = self.cycle
        if last is None or (last.response_complete and not self._open):
            return False
        if last.more_body and not self.pipeline:
            if last.response_started:  # it is too late to say so
                self.transport.close()
            return last.response_started
        if last.more_body:  # it waits for its turn, and gets none
            self.pipeline.popleft()
            last = (
                self.pipeline[0][0] if self.pipeline else next(each for each in self._row if not each.response_complete)
            )
        last.keep_alive = False
        self._deaf = True
        self._stop_waiting()
        return True

    # What goes out, and whether it is taken

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        self._watch()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ANN401 - uvicorn's
        """Have a request answered, now that it is its turn."""
        cycle.__class__ = Response
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """All of a response is on its way.

        A request that waited for it begins in the context of the connection, not of the request before it.
        """
        if self.pipeline:
            self._context.copy().run(_HttpToolsProtocol.on_response_complete, self)
        else:
            _HttpToolsProtocol.on_response_complete(self)
        if self.transport.get_write_buffer_size():
            self._watch()

    def _watch(self) -> None:
        """See to it that what waits is taken."""
        if self._sends is None:
            self._sends = self.loop.call_later(self.send_timeout, self._watched, self._taken())

    def _stop_watching(self) -> None:
        if self._sends is not None:
            self._sends.cancel()
            self._sends = None

    def _watched(self, before: int) -> None:
        """Watch on if some of it was; else the client has left, or may as well have."""
        self._sends = None
        if not self.transport.get_write_buffer_size():
            return
        if self._taken() == before:
            self.transport.abort()
        else:
            self._watch()

    def _taken(self) -> int:
        """A number that changes when the client takes something: how many bytes it has acknowledged, where Linux tells.

        What waits here stays the same for long, until a good part of what the kernel holds is gone.
        """
        line = self.transport.get_extra_info("socket")
        if line is not None and line.family in _TCP and hasattr(socket, "TCP_INFO"):
            info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            if len(info) >= 128:
                acknowledged: int = unpack_from("Q", info, 120)[0]  # tcpi_bytes_acked
                return acknowledged
        return self.transport.get_write_buffer_size()
