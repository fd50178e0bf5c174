"""One connection to an upstream in the hands of one exchange at a time, as an asyncio protocol.

Callbacks of the event loop take the bytes in. There is no task here, and one timer for each connection, however often
it is waited on.
"""

import asyncio
import contextlib
import contextvars
import select
import socket
import ssl
from math import inf
from typing import Protocol, cast

from apim_middleware.errors import TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.transports._answer import Answer
from apim_middleware.transports._framing import Body, UntilClose, body_of, length_of
from apim_middleware.transports._heads import Head, read_head
from apim_middleware.transports._strictness import MAX_HEAD, check_beginning

_AHEAD = 65536  # bytes of a response body beyond which its upstream has to wait for the reader
_FRAMING = (b"content-length", b"transfer-encoding")
_SAYS_NOTHING = frozenset((None, b"0"))
_END = b"\r\n\r\n"  # of a head
_TICK = 0.001  # event loops keep time in milliseconds


def _is_closed(tls: ssl.SSLObject) -> bool:
    """Whether the other side has closed, and not only its socket (RFC 9112 §9.8)."""
    try:
        return not tls.read(1)
    except ssl.SSLError:  # it would have to hear more
        return False


class Keeper(Protocol):
    """Whoever keeps connections between exchanges."""

    def give_back(self, connection: "Connection") -> None:
        """An exchange has ended cleanly."""
        ...

    def forget(self, connection: "Connection") -> None:
        """The connection is of no use any more; told once."""
        ...


class Connection(asyncio.Protocol):
    """One connection to one origin.

    It goes back to its keeper when a response has ended cleanly and its request was sent to the end. Whatever else
    happens closes it: bytes that belong to no response, a broken one, a timeout, an exchange that is given up.
    """

    __slots__ = (
        "_ahead", "_answer", "_body", "_deadline", "_head", "_keep", "_keeper", "_loop", "_poll", "_reading", "_room",
        "_timer", "_timer_at", "_transport", "closed", "ended", "gone", "idle_since", "kept", "line", "origin",
        "silent", "upgrades", "writable",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: Keeper, origin: str) -> None:
        """Not connected yet."""
        self.origin = origin
        self.closed = False
        """Whether it is of no use any more."""
        self.ended = False
        """Whether the upstream has said that nothing more will come."""
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the socket is closed."""
        self.kept = False
        """Whether it was kept after an exchange."""
        self.line: asyncio.Transport | None = None
        """What reads from the socket: below TLS, where there is any."""
        self.silent = True
        """Whether the upstream has said nothing at all in the last exchange."""
        self.upgrades = False
        """Whether exchanges on it ask for another protocol."""
        self.idle_since = 0.0
        """The event loop's time when the last exchange ended."""
        self.writable = True
        """Whether the upstream takes what is written."""
        self._loop = loop
        self._keeper = keeper
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._answer: Answer | None = None
        self._head = b""  # what has come of a head that is not whole
        self._room = MAX_HEAD  # bytes that the heads of this exchange may still have
        self._body: Body = UntilClose()
        self._keep = False
        self._ahead = 0  # bytes of the body that wait for the reader
        self._reading = True
        self._deadline = self._timer_at = inf
        self._timer: asyncio.TimerHandle | None = None

    # For those who use it

    def reusable(self) -> bool:
        """Whether nothing has come since the last exchange, not even what the event loop has not told yet."""
        return not (self.closed or (self._poll is not None and self._poll.poll(0)))

    def begin(self, method: str, read: float | None) -> Answer:
        """Open an exchange."""
        self.silent = True
        self._head, self._room = b"", MAX_HEAD
        self._answer = answer = Answer(self, method, read)
        return answer

    def write(self, data: bytes) -> None:
        """Send bytes; look at ``writable`` before sending many more."""
        if self._transport is not None:
            self._transport.write(data)
            if self._transport.is_closing():  # it failed; ``connection_lost`` comes next
                self.writable = False

    def expect_within(self, seconds: float | None) -> "asyncio.Future[None]":
        """What the exchange is to wait for, and for how long at most."""
        self._deadline = deadline = inf if seconds is None else self._loop.time() + seconds
        if deadline < self._timer_at:
            self._wind(deadline)
        return self._loop.create_future()

    def go_on(self) -> None:
        """Let the upstream send more."""
        self._ahead, self._deadline = 0, inf
        if not self._reading:
            self._reading = True
            self.read_on()

    def hold_back(self) -> None:
        """Read no more from the socket until ``read_on``.

        TLS itself is not held back: if the socket closes then, uvloop drops what TLS has not handed on.
        """
        if self.line is not None and not self.line.is_closing():
            self.line.pause_reading()

    def read_on(self) -> None:
        """Read from the socket again."""
        if self.line is not None and not self.line.is_closing():
            self.line.resume_reading()

    def hand_over(self, successor: asyncio.Protocol) -> asyncio.Transport | None:
        """Give the socket to another protocol after a 101; None when it is closed already.

        What has come since waits in the answer. The successor tells when it has lost the connection.
        """
        answer, self._answer, self._deadline = self._answer, None, inf
        if answer is None or self._transport is None or self._transport.is_closing():
            return None
        self._transport.set_protocol(successor)
        if not self._reading:
            self.read_on()
        return self._transport

    def close(self) -> None:
        """Close it, with the goodbye that TLS has."""
        if self._let_go() and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it now, whatever is under way."""
        if self._let_go() and self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> bool:
        if self.closed:
            return False
        self.closed, self._answer, self._deadline = True, None, inf
        if self._timer is not None:
            self._timer.cancel()
        self._keeper.forget(self)
        return True

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and agreed on TLS where there is any."""
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            self._transport.abort()
            return
        self.line = self.line or self._transport
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def eof_received(self) -> None:
        """The upstream says nothing more; over TLS anybody on the way could say so, if not in TLS itself."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        self.ended = tls is None or _is_closed(tls)

    def connection_lost(self, error: Exception | None) -> None:
        """Closed, by whichever side."""
        if not self.gone.done():
            self.gone.set_result(None)
        if error is not None:
            self._hear_out()
        answer = self._answer
        if answer is None:
            self.abort()
        elif error is None and self.ended and answer.begun and isinstance(self._body, UntilClose):
            self._part(answer)
        else:
            self._fail(UpstreamBroken("the upstream hung up before its response was whole"), error)

    def _hear_out(self) -> None:
        """Take what came before sending failed: an early answer closes on the rest of its request (RFC 9112 §9.5)."""
        transport = self._transport
        if self._answer is None or transport is None or transport.get_extra_info("ssl_object") is not None:
            return
        with (
            contextlib.suppress(OSError),
            socket.fromfd(transport.get_extra_info("socket").fileno(), socket.AF_INET, socket.SOCK_STREAM) as line,
        ):
            line.settimeout(0)
            while self._answer is not None and self._ahead < _AHEAD and (data := line.recv(_AHEAD)):
                self.data_received(data)

    def pause_writing(self) -> None:
        """The upstream takes no more until it says so."""
        self.writable = False

    def resume_writing(self) -> None:
        """It takes more again."""
        self.writable = True
        if self._answer is not None:
            self._wake(self._answer)

    def data_received(self, data: bytes) -> None:
        """Bytes of the response, or of nothing that was asked for."""
        answer = self._answer
        if answer is None:
            self.abort()
            return
        self.silent = False
        try:
            if answer.begun:
                self._take_body(answer, self._body, data)
            else:
                self._take_head(answer, self._head + data)
        except TransportError as error:
            self._fail(error)

    # The response

    def _take_head(self, answer: Answer, raw: bytes) -> None:
        """Look for the end of the head; of interim ones only early hints are told (RFC 9110 §15.2)."""
        said, end, rest = raw.partition(_END)
        while end:
            size = len(said) + len(end)
            if size > self._room:
                raise UpstreamBroken("the response head is larger than allowed")
            head = read_head(said)
            status = head[0]
            if status >= 200 or (status == 101 and self.upgrades):
                self._begin_body(answer, head, rest)
                return
            if status == 101:
                raise UpstreamBroken("the upstream changed the protocol without being asked")
            if status == 103:
                answer.hint(head[1])
            self._room -= size
            said, end, rest = rest.partition(_END)
        check_beginning(said, self._room)
        self._head = said

    def _begin_body(self, answer: Answer, head: Head, rest: bytes) -> None:
        status, lines, index, latest, self._keep = head
        # what follows a 101 is another protocol, to the end
        length = None if status == 101 else length_of(answer.method, status, lines, index, latest=latest)
        answer.begun, answer.length = True, length
        answer.status, answer.latest = status, latest
        answer.headers, answer.index = lines, index
        if length == len(rest):  # as most often, it has come with the head
            if rest:
                answer.parts = [rest]
            elif status == 204 and not _SAYS_NOTHING.issuperset(map(index.get, _FRAMING)):
                self._keep = False  # it announces what it must not have (RFC 9110 §8.6), and may send it yet
            self._part(answer, clean=True)
            return
        self._body, self._ahead = UntilClose() if status == 101 else body_of(length, index), 0
        if rest or self._body.over:
            self._take_body(answer, self._body, rest)
        else:
            self._wake(answer)

    def _take_body(self, answer: Answer, body: Body, data: bytes) -> None:
        used = body.take(data, answer.parts)
        if body.over:
            answer.trailers = body.trailers
            self._part(answer, clean=used == len(data))
            return
        self._wake(answer)
        self._ahead += used
        if self._ahead >= _AHEAD and self._reading:
            self._reading = False
            self.hold_back()

    def _wake(self, answer: Answer) -> None:
        self._deadline = inf
        answer.wake()

    def _part(self, answer: Answer, *, clean: bool = False) -> None:
        """The response is there to its end: keep the connection if it can carry another exchange."""
        self._answer, self._deadline = None, inf
        if not self._reading:
            self.go_on()
        if not (clean and answer.sent and self._transport and not self._transport.get_write_buffer_size()):
            self.abort()  # what is still on its way up might wait for ever, and whatever is behind it
        elif self._keep and not self.closed:
            self.idle_since, self.kept = self._loop.time(), True
            self._keeper.give_back(self)
        else:
            self.close()
        answer.end()

    def _fail(self, error: TransportError, cause: Exception | None = None) -> None:
        """The response will never be whole."""
        error.__cause__ = error.__cause__ or cause
        answer = self._answer
        self.abort()
        if answer is not None:
            answer.end(error)

    # Time

    def _wind(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._tick, context=contextvars.Context())

    def _tick(self) -> None:
        """It may have been moved since; most of the time there is nothing to wait for."""
        self._timer, self._timer_at = None, inf
        if self._deadline - self._loop.time() > _TICK:
            if self._deadline != inf:
                self._wind(self._deadline)
        else:
            self._fail(UpstreamTimeout("the upstream took too long"))
