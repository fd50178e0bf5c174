"""How uvicorn is to read HTTP/1.1: a request ends where it says, and a client that keeps it waiting is not waited for.

uvicorn gateway:app --http apim_middleware.serving.httptools:HttpToolsProtocol
"""

from asyncio import TimerHandle, Transport
from http import HTTPStatus
from socket import AF_UNIX, IPPROTO_TCP, TCP_NODELAY
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _HttpToolsProtocol

from apim_middleware._http.problems import render
from apim_middleware.errors import Refusal

_VERSIONS = frozenset(("1.0", "1.1"))


class _Nowhere(list[tuple[bytes, bytes]]):
    """Where trailers go: however many come, none is kept."""

    def append(self, line: tuple[bytes, bytes], /) -> None:
        """Drop it."""


_NOWHERE = _Nowhere()


class HttpToolsProtocol(_HttpToolsProtocol):
    """uvicorn's reader on httptools, which takes some things differently.

    It puts trailers among the headers, where nobody has judged them: here they end (RFC 9110 §6.5.1). Of a request that
    offers an upgrade it loses the body, and reads the rest of that as the next request: here such a request is
    refused, as is one of another version than HTTP/1 (RFC 9112 §6.3, RFC 9110 §7.8). It holds a head of any size, and
    waits for anything forever: here there are bounds, which a subclass may set. What is wrong with a request is not
    told in the midst of the response to the one before it.

    Refusals: 408 ``request-timeout``, 431 ``headers-too-large``; 400 in plain text for what is no HTTP. Where no
    response can be given any more, the connection ends.
    """

    max_head_bytes: ClassVar[int] = 131_072
    """Most bytes of a request's line and headers, or of its trailers. ``Hygiene`` has narrower bounds."""

    head_timeout: ClassVar[float] = 30.0
    """Seconds in which the line and headers of a request must be there, once the connection is or they begin."""

    body_timeout: ClassVar[float] = 60.0
    """Seconds in which something more of a body must come, while it is wanted."""

    send_timeout: ClassVar[float] = 60.0
    """Seconds in which a client must take something more of a response."""

    _unread = 0  # bytes of what is not whole yet: a head, the size of a chunk, trailers
    _open = False  # whether a body is not over
    _since = 0.0  # when the wait began, or got something; 0 for now
    _waits: TimerHandle | None = None
    _sends: TimerHandle | None = None

    # What comes, and whether it comes in time

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client is there, and is to say something."""
        super().connection_made(transport)
        line = transport.get_extra_info("socket")
        if line is not None and line.family != AF_UNIX:  # asyncio leaves it, on some listeners
            line.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._stop_waiting()
        self._stop_watching()

    def data_received(self, data: bytes) -> None:
        """Read on; some of it may be of a request that is not whole."""
        self._unread += len(data)
        _HttpToolsProtocol.data_received(self, data)
        cycle = self.cycle
        if self._unread or cycle is None or cycle.more_body or cycle.scope is not self.scope:
            self._hold()
        elif self._waits is not None:  # as nearly always, there is nothing to wait for
            self._stop_waiting()

    def _hold(self) -> None:
        """Wait for the rest of what is not whole, unless it is too large by now."""
        cycle, was_open = self.cycle, self._open
        latest = cycle is not None and cycle.scope is self.scope
        self._open = latest and cycle.more_body
        if latest and was_open and not self._open:  # the body is whole
            self._unread = 0
            self._stop_waiting()
        elif self._unread > self.max_head_bytes:
            self._refuse(Refusal(431, "headers-too-large", "The request headers are larger than allowed."))
        elif self.transport.get_protocol() is self:  # and no WebSocket by now
            if self._open:
                self._since = 0.0
            self._wait()

    def _wait(self) -> None:
        """See to it that what is to come comes in time."""
        if not self._since:
            self._since = self.loop.time()
        if self._waits is None:
            self._waits = self.loop.call_later(self._patience, self._waited)

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
            self._wait()
            return
        left = self._since + self._patience - self.loop.time()
        if left > 0:
            self._waits = self.loop.call_later(left, self._waited)
        elif self.cycle is None and not self._unread:  # it has said nothing at all
            self.transport.close()
        else:
            self._refuse(Refusal(408, "request-timeout", "The request did not come in time."))

    def _is_held_back(self) -> bool:
        """Whether it is the client that waits: for the app, or for the response to another request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        wanted = self._open and not (cycle.waiting_for_100_continue or cycle.response_started)
        return self.flow.read_paused or not wanted

    # What is read

    def on_headers_complete(self) -> None:
        """The head is there, and nothing more belongs to it."""
        self._unread, self._since = 0, 0.0
        if self._waits is not None:  # a body has its own time
            self._stop_waiting()
        if self.parser.get_http_version() not in _VERSIONS:
            raise ValueError("this is another version of HTTP")
        upgrades = self.parser.should_upgrade()
        if upgrades and self._announces_a_body():
            raise ValueError("an upgrade is offered with a body")
        _HttpToolsProtocol.on_headers_complete(self)
        if upgrades and self._should_upgrade():  # to a WebSocket, which reads them once more
            return
        self.headers = _NOWHERE  # those of the request are in its scope

    def on_body(self, body: bytes) -> None:
        """More of a body is there."""
        self._unread = 0
        super().on_body(body)

    def _announces_a_body(self) -> bool:
        headers = dict(self.headers)
        return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""

    # What is wrong with it

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, where it can be said."""
        if not self._ends_with_the_response():
            super().send_400_response(msg)

    def _refuse(self, refusal: Refusal) -> None:
        if self.transport.is_closing() or self._ends_with_the_response():
            return
        headers, body = render(refusal)
        lines = [*self.server_state.default_headers, *headers, (b"connection", b"close")]
        status = HTTPStatus(refusal.status)
        head = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode()), *[b"%b: %b" % line for line in lines]]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()

    def _ends_with_the_response(self) -> bool:
        """Let the response that is under way be the last, if there is one: nothing else may be written into it."""
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not self._open):
            return False
        if not cycle.more_body:  # what is wrong comes after its request
            cycle.keep_alive = False
            self.flow.pause_reading()
            return True
        if cycle.response_started or self.pipeline:  # too late to say so
            self.transport.close()
            return True
        return False

    # What goes out, and whether it is taken

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._stop_watching()

    def _watch(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._sends = self.loop.call_later(self.send_timeout, self._watched, waiting)

    def _stop_watching(self) -> None:
        if self._sends is not None:
            self._sends.cancel()
            self._sends = None

    def _watched(self, waiting: int) -> None:
        """Wait on if some of what waited has gone out; else the client has left, or may as well have."""
        if self.transport.get_write_buffer_size() < waiting:
            self._watch()
        else:
            self.transport.abort()
