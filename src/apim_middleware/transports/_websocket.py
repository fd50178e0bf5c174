"""An open WebSocket to an upstream, on asyncio (RFC 6455): it takes over the connection that has carried the handshake.

The package ``websockets`` reads and writes the frames, without input or output of its own; everything else is here.
"""

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig
from websockets.frames import EXTERNAL_CLOSE_CODES, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from apim_middleware.transports._answer import Answer
from apim_middleware.transports._connection import Connection
from apim_middleware.transports.websockets import WebSockets
from apim_middleware.types import RawHeaders

_log = logging.getLogger("apim_middleware.frames")
_log.setLevel(logging.WARNING)  # what messages say is nobody's business

_SLICE = 4096  # bytes of frames that are read in one go: of the smallest, two thousand
_MANY = 512  # frames after which others have their turn: each costs microseconds, and 256 KiB may come at once
_AHEAD = 65536  # bytes of messages beyond which the upstream has to wait for the reader
_PLACE = 128  # bytes a message takes besides its own, so that empty ones count as well
_UNASKED = 1024 * 1024  # bytes of pongs an upstream may make us owe it without taking them
_LONGEST_REASON = 123  # bytes (RFC 6455 §5.5)
_NO_STATUS = 1005  # what a close without a code is called


class Closing(NamedTuple):
    """How a WebSocket was closed, in the words of RFC 6455 §7.1.5 and §7.1.6."""

    code: int
    reason: str


class UpstreamWebSocket(asyncio.Protocol):
    """An open WebSocket: messages one by one, as fast as the other side takes them."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, answer: Answer, subprotocol: str | None,
        rules: WebSockets,
    ) -> None:  # fmt: skip
        """Take the connection over; what came behind the handshake comes first."""
        self.status = answer.status
        self.headers: RawHeaders = answer.headers
        self.subprotocol = subprotocol
        self.end: Closing | None = None
        """How the upstream's side came to its end, once that is known; messages before it may still wait."""
        self._loop, self._rules, self._connection = loop, rules, connection
        self._frames = Protocol(Side.CLIENT, max_size=rules.max_message_bytes, logger=_log)
        self._messages: deque[tuple[str | bytes, int]] = deque()
        self._held = 0  # bytes of them
        self._part = bytearray()  # of a message that is not whole
        self._came = b""  # and was not looked at yet
        self._turn: asyncio.Handle | None = None  # in which it will be
        self._lost = False
        self._is_text = False
        self._reading = self._writable = True
        self._deaf = False  # nobody reads any more
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = loop.create_future()
        self._heard = self._spoken = loop.time()  # when anything came last, and when a message passed last
        self._asked: float | None = None  # when a ping was sent that has no answer
        self._timer: asyncio.TimerHandle | None = None
        self._last = inf if rules.lifetime is None else self._heard + rules.lifetime
        self._last_word = Closing(1001, "lifetime-over")
        self._begin(connection.hand_over(self), answer)

    def _begin(self, transport: asyncio.Transport | None, answer: Answer) -> None:
        self._transport = transport
        self._writable = self._connection.writable
        parts, answer.parts = answer.parts, []
        for part in parts:
            self.data_received(part)
        if transport is None:
            self.connection_lost(None)
        elif self.end is None:
            self._wind()

    # For those who use it

    async def receive(self) -> str | bytes | None:
        """The next message; None when there are no more: ``end`` says why."""
        while not self._messages:
            if self.end is not None:
                return None
            self._reader = self._loop.create_future()
            await self._reader
        message, size = self._messages.popleft()
        self._spoken = self._loop.time()
        self._held -= size
        if self._held < _AHEAD:
            self._go_on()
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a message, and wait until the upstream takes more. What is said after the end is said to nobody."""
        if self._frames.state is not State.OPEN:
            return
        self._spoken = self._loop.time()
        if isinstance(message, str):
            self._frames.send_text(message.encode())
        else:
            self._frames.send_binary(message)
        self._flush()
        while not (self._writable or self._gone.done()):
            self._writer = self._loop.create_future()
            await self._writer

    def end_within(self, seconds: float, code: int, reason: str) -> None:
        """Give it up after so many seconds at the latest."""
        at = self._loop.time() + seconds
        if at < self._last:
            self._last, self._last_word = at, Closing(code, reason)
            if self.end is None:
                self._wind()

    async def aclose(self, code: int = 1001, reason: str = "") -> None:
        """Close as the client has: 1005 without a code, 1006 without a word. Waits until the upstream has closed too.

        Messages that nobody has read are dropped.
        """
        if code == _NO_STATUS:
            self._say_goodbye()
        elif _can_be_said(code):
            self._say_goodbye(code, _short(reason))
        else:
            self.abort()
        self._stop_listening()
        await asyncio.wait([self._gone], timeout=self._rules.close_timeout)
        self.abort()

    def give_up(self, code: int, reason: str) -> None:
        """End it from this side, for what the reader is told then; the upstream hears that its client is gone."""
        self._say_goodbye(1001)
        self._over(Closing(code, reason))
        self._stop_listening()

    def hang_up(self) -> None:
        """Say that the client is gone and close, without waiting for anybody."""
        self._say_goodbye(1001)
        if self._transport is not None and self._writable:
            self._transport.close()
        else:
            self.abort()

    def _say_goodbye(self, code: int | None = None, reason: str = "") -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_close(code, reason)
            self._flush()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _stop_listening(self) -> None:
        """Read on, for the upstream's goodbye, but keep nothing; and not for ever."""
        self._deaf = True
        self._messages.clear()
        self._held = 0
        self._go_on()
        self._await_goodbye()

    def _go_on(self) -> None:
        if self._came:
            self._turn = self._turn or self._loop.call_soon(self._take_in)
        elif not self._reading and self._transport is not None:
            self._reading, self._asked = True, None
            self._heard = self._loop.time()
            self._connection.read_on()

    # What the event loop tells

    def data_received(self, data: bytes) -> None:
        """Frames of the upstream, whole or in part."""
        self._heard, self._asked = self._loop.time(), None
        self._came = self._came + data if self._came else data
        if self._turn is None:
            self._take_in()

    def _take_in(self) -> None:
        """Look at what has come, as far as there is room for messages and others need not wait too long."""
        self._turn = None
        came, at, frames = self._came, 0, 0
        while at < len(came) and frames < _MANY and self._held < _AHEAD:
            self._frames.receive_data(came[at : at + _SLICE])
            at += _SLICE
            events = self._frames.events_received()
            frames += len(events)
            for event in events:
                if isinstance(event, Frame):
                    self._take(event)
        self._came = came[at:]
        self._flush()
        error = self._frames.parser_exc
        if error is not None:
            self._came = b""
            self._over(Closing(1011, "upstream-message-too-big" if isinstance(error, PayloadTooBig) else _BROKEN))
        self._check_debt()
        self._see_to_reading()

    def _see_to_reading(self) -> None:
        """Read on, or let the upstream wait; a connection that is lost ends behind what had come."""
        if self._lost and not self._came:
            self._end_lost()
        elif self._held < _AHEAD:
            self._go_on()
        if (self._came or self._held >= _AHEAD) and self._reading and self._transport is not None:
            self._reading = False
            self._connection.hold_back()

    def eof_received(self) -> None:
        """The upstream says nothing more; the connection closes of itself."""

    def connection_lost(self, error: Exception | None) -> None:
        """Closed, by whichever side."""
        self._lost = True
        if not self._gone.done():
            self._gone.set_result(None)
        if not self._came:
            self._end_lost()
        _wake(self._writer)
        if self._timer is not None:
            self._timer.cancel()
        self._connection.connection_lost(error)

    def _end_lost(self) -> None:
        self._frames.receive_eof()
        self._over(Closing(1011, _BROKEN))

    def pause_writing(self) -> None:
        """The upstream takes no more until it says so."""
        self._writable = False

    def resume_writing(self) -> None:
        """It takes more again."""
        self._writable = True
        _wake(self._writer)

    # Frames

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            close = self._frames.close_rcvd
            self._over(Closing(_NO_STATUS, "") if close is None else Closing(close.code, close.reason))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) and not self._deaf and self.end is None:
            if frame.opcode is not Opcode.CONT:
                self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin and not self._part:
                self._take_message(bytes(frame.data))
                return
            self._part += frame.data
            if frame.fin:
                whole = bytes(self._part)
                self._part.clear()
                self._take_message(whole)

    def _take_message(self, raw: bytes) -> None:
        self._spoken = self._heard
        try:
            message = raw.decode() if self._is_text else raw
        except UnicodeDecodeError:
            self._frames.fail(1007)
            self._over(Closing(1011, _BROKEN))
            return
        size = len(raw) + _PLACE
        self._messages.append((message, size))
        self._held += size
        _wake(self._reader)

    def _flush(self) -> None:
        """Write what is to be written: one write for all of it."""
        if self._transport is None or self._transport.is_closing():
            self._frames.data_to_send()
            return
        writes = self._frames.data_to_send()
        if writes and writes[-1] == b"":
            self._transport.write(b"".join(writes))
            self._transport.close()
        elif writes:
            self._transport.write(writes[0] if len(writes) == 1 else b"".join(writes))

    def _check_debt(self) -> None:
        """Give an upstream up that asks for pongs and takes none."""
        most = self._rules.max_message_bytes + _UNASKED
        if self._transport is not None and not self._lost and self._transport.get_write_buffer_size() > most:
            self._over(Closing(1011, _BROKEN))
            self.abort()

    def _over(self, how: Closing) -> None:
        """There will be no more messages. The first reason counts."""
        if self.end is None:
            self.end = how
            self._part.clear()
            _wake(self._reader)
            self._await_goodbye()

    # Time

    def _await_goodbye(self) -> None:
        """The server closes first (RFC 6455 §7.1.1), but not whenever it likes."""
        if not self._gone.done():
            self._set_timer(self._loop.time() + self._rules.close_timeout, self.abort)

    def _wind(self) -> None:
        rules = self._rules
        idle = inf if rules.idle_timeout is None else self._spoken + rules.idle_timeout
        if not self._reading:  # nothing can be heard, so nothing be concluded
            next_ask = self._loop.time() + rules.ping_interval
        else:
            next_ask = self._heard + rules.ping_interval if self._asked is None else self._asked + rules.ping_timeout
        at = min(idle, next_ask, self._last)
        if at != inf:
            self._set_timer(at, self._tick)

    def _tick(self) -> None:
        now, rules = self._loop.time() + _TICK, self._rules
        if rules.idle_timeout is not None and now - self._spoken >= rules.idle_timeout:
            self.give_up(1001, "idle-timeout")
        elif now >= self._last:
            self.give_up(*self._last_word)
        elif self._asked is not None and self._reading and now - self._asked >= rules.ping_timeout:
            self._over(Closing(1011, "upstream-timeout"))
            self.abort()
        else:
            if self._asked is None and self._reading and now - self._heard >= rules.ping_interval:
                self._asked = now
                self._frames.send_ping(b"")
                self._flush()
            self._wind()

    def _set_timer(self, at: float, what: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, what, context=contextvars.Context())


_BROKEN = "upstream-broken"
_TICK = 0.001  # event loops keep time in milliseconds


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _can_be_said(code: int) -> bool:
    return code in EXTERNAL_CLOSE_CODES or 3000 <= code < 5000


def _short(reason: str) -> str:
    """As much of a reason as a frame holds."""
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
