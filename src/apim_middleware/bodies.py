"""Bodies for layers that must see one whole, tell it again, or hold a response back; all else lets bodies flow.

Each names a cap, and what happens beyond it: ``read_body`` refuses, ``Replay`` can no longer repeat, ``Ahead`` sees no
further, ``Gathered`` lets go what it holds and the rest flows, ``ServerSentEvents`` leaves out what is too large.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from anyio import Event

from apim_middleware._http.headers import get
from apim_middleware.errors import ClientLeft, Refusal, ResponseOver
from apim_middleware.exchange import ResponseHead
from apim_middleware.types import Message, RawHeaders, Receive, Scope, Send, Tap

_LINE_END = re.compile(rb"\r\n|\n|\r")
_CRUMB = 4096  # bytes: smaller chunks are copied, for held by themselves they take many times that
_MESSAGES = 256
"""How many messages are read ahead at most: empty ones have no bytes that could be counted."""


async def read_body(receive: Receive, cap: int) -> bytes:
    """The whole request body, of ``cap`` bytes at most.

    A longer one is refused with 413 ``body-too-large`` as soon as that is known (RFC 9110 §15.5.14).
    Raises ClientLeft when the client leaves before its end.
    """
    body = Collected()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeft("the client left before its request body was whole")
        chunk = message.get("body", b"")
        if len(body) + len(chunk) > cap:
            raise too_large(cap)
        body.add(chunk)
        if not message.get("more_body", False):
            return bytes(body)


def may_have_body(scope: Scope) -> bool:
    """Whether a body can follow: on HTTP/1 only one that is announced can (RFC 9112 §6.3)."""
    if scope.get("http_version", "1.1")[:1] != "1":
        return True
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def too_large(cap: int, scope: Scope | None = None) -> Refusal:
    """The refusal of a body of more than ``cap`` bytes; with the request's scope, one that ends its connection.

    What is left of the body would have to be read to its end before the connection could be used again.
    """
    closing = {} if scope is None or scope.get("http_version", "1.1")[:1] != "1" else {"connection": "close"}
    return Refusal(413, "body-too-large", f"The request body may have {cap} bytes at most.", headers=closing)


class Collected:
    """What has come of a body: chunks are as many and as small as a peer likes, so small ones are put together."""

    __slots__ = ("_crumbs", "_parts", "_size")

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._parts: list[bytes] = []
        self._crumbs = bytearray()  # behind the parts
        self._size = 0

    def __len__(self) -> int:
        """How many bytes have come."""
        return self._size

    def __bytes__(self) -> bytes:
        """All that has come."""
        self._sweep()
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def add(self, chunk: bytes) -> None:
        """Put one more behind the others."""
        if len(chunk) >= _CRUMB or not self._size:
            self._sweep()
            if chunk:
                self._parts.append(bytes(chunk))  # no copy, as a rule
        else:
            self._crumbs += chunk
        self._size += len(chunk)

    def after(self, number: int) -> bytes:
        """What has come behind so many bytes."""
        return bytes(self)[number:] if number < self._size else b""

    def _sweep(self) -> None:
        if self._crumbs:
            self._parts.append(bytes(self._crumbs))
            self._crumbs = bytearray()


class Replay:
    """A request body that can be told again, as long as no more than ``cap`` bytes of it were told.

    Nothing is read ahead: the first telling passes on what comes and keeps a copy, a later one begins with the copy and
    goes on where the last one stopped. What was told of the client's leaving is told again too. One telling at a time:
    an older one hears only ``http.disconnect`` once the next has been asked for.
    """

    def __init__(self, receive: Receive, cap: int) -> None:
        """Nothing is kept before it is told."""
        self._receive = receive
        self._room = cap
        self._kept = Collected()
        self._begun = self._whole = False
        self._end: Message | None = None
        self._tellings = 0

    @property
    def possible(self) -> bool:
        """Whether the body can be told from its beginning."""
        return self._room >= 0

    def telling(self) -> Receive:
        """A ``receive`` that tells the request from its beginning. RuntimeError when that is no longer possible."""
        if not self.possible:
            raise RuntimeError("more of the request body was told than is kept")
        self._tellings += 1
        number, retell = self._tellings, self._begun

        async def receive() -> Message:
            nonlocal retell
            if number != self._tellings:
                return {"type": "http.disconnect"}
            if retell:
                retell = False
                return {"type": "http.request", "body": bytes(self._kept), "more_body": not self._whole}
            return self._end or await self._next()

        return receive

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._begun = True
            self._whole = not message.get("more_body", False)
            self._keep(message.get("body", b""))
        else:
            self._end = message
        return message

    def _keep(self, chunk: bytes) -> None:
        self._room -= len(chunk)
        if not self.possible:
            self._kept = Collected()
        else:
            self._kept.add(chunk)


class Ahead:
    """Reads a request ahead while its layer waits, to see when the client leaves; nothing that was read is lost.

    Run ``watch`` in a task of its own, ``stop`` it when the waiting is over, and give the app ``receive``: that tells
    what was read, and awaits the read under way, so that the request has one reader at any moment. ``cap`` bytes of the
    body are read ahead, in 256 messages at most; whether a client leaves that sends more is not seen.
    """

    def __init__(self, receive: Receive, cap: int) -> None:
        """Nothing is read yet."""
        self._receive = receive
        self._room = cap
        self._read: deque[Message] = deque()
        self._reading: Event | None = None
        self._failure: Exception | None = None
        self._stopped = False
        self.left: bool = False
        """Whether the client was seen leaving."""

    async def watch(self, on_left: Callable[[], None]) -> None:
        """Read until the client leaves, and say so; return when more must not be read."""
        while self._room > 0 and len(self._read) < _MESSAGES and not (self._stopped or self.left or self._failure):
            self._reading = Event()
            try:
                self._keep(await self._receive())
            except Exception as error:
                self._failure = error
            finally:
                self._reading.set()
                self._reading = None
        if self.left and not self._stopped:
            on_left()

    def stop(self) -> None:
        """Begin no further read."""
        self._stopped = True

    def _keep(self, message: Message) -> None:
        self._read.append(message)
        self._room -= len(message.get("body") or b"")
        self.left = message["type"] in ("http.disconnect", "websocket.disconnect")

    async def receive(self) -> Message:
        """What the app is told: what was read ahead, then what comes."""
        if self._reading is not None and not self._read:
            await self._reading.wait()
        if self._read:
            leaving = self.left and len(self._read) == 1  # that is told whenever somebody asks
            return self._read[0] if leaving else self._read.popleft()
        if self._failure is not None:
            raise self._failure
        return await self._receive()


class Held:
    """A ``send`` that holds the head of a response until ``lets_go`` has decided by its status and header lines.

    A response that is not let go is dropped whole: an app about to end it may do so, one that streams on is given
    ResponseOver. Where no response begins, as with an accepted WebSocket, everything passes.
    """

    def __init__(self, send: Send, lets_go: Callable[[int, RawHeaders], bool]) -> None:
        """Nothing was sent yet."""
        self._send = send
        self._lets_go = lets_go
        self.opened: bool = False
        """Whether anything was passed on, so that there is no way back."""
        self.dropped: bool = False
        """Whether the response was held back for good."""

    async def __call__(self, message: Message) -> None:
        """Take one message of the app."""
        if message["type"] == "http.response.start" and not (self.opened or self.dropped):
            self.dropped = not self._lets_go(message["status"], list(message.get("headers") or ()))
        if not self.dropped:
            self.opened = True
            await self._send(message)
        elif message.get("more_body", False):
            raise ResponseOver("the response was held back")


class Gathered:
    """A ``send`` that gathers a whole response of ``cap`` bytes at most, for a layer that decides when it is whole.

    A longer one, an event stream, and one sent by other means than body messages flow instead, from the first message
    on. When the app has returned, look at ``whole``: then nothing was sent yet, and ``release`` sends it as it is.
    """

    def __init__(self, send: Send, cap: int) -> None:
        """Nothing is held yet."""
        self._send = send
        self._cap = cap
        self._held = Collected()
        self.head: Message | None = None
        """The message the response begins with, once known."""
        self.flowing: bool = False
        """Whether the response is on its way out, unseen."""
        self.whole: bool = False
        """Whether head and body are here, to the last byte."""

    @property
    def body(self) -> bytes:
        """What is held of the body."""
        return bytes(self._held)

    async def __call__(self, message: Message) -> None:
        """Take one message of the app."""
        if self.flowing:
            await self._send(message)
        elif message["type"] == "http.response.start" and self._may_fit(message):
            self.head = message
        elif message["type"] == "http.response.body" and self._fits(message):
            self.whole = not message.get("more_body", False)
        else:
            await self._let_go(message)

    async def release(self) -> None:
        """Send the whole response as it came."""
        if self.head is not None and self.whole and not self.flowing:
            self.flowing = True
            await self._send(self.head)
            await self._send({"type": "http.response.body", "body": self.body, "more_body": False})

    def _may_fit(self, head: Message) -> bool:
        headers = [(name.lower(), value) for name, value in head.get("headers") or ()]
        kind, length = get(headers, b"content-type") or b"", get(headers, b"content-length") or b""
        streams = kind.lower().startswith(b"text/event-stream") or head.get("trailers", False)
        too_long = length.isdigit() and (len(length) > 19 or int(length) > self._cap)
        return not streams and not too_long

    def _fits(self, message: Message) -> bool:
        chunk = message.get("body", b"")
        if len(self._held) + len(chunk) > self._cap:
            return False
        self._held.add(chunk)
        return True

    async def _let_go(self, message: Message) -> None:
        self.flowing = True
        body = self.body
        self._held = Collected()
        if self.head is not None:
            await self._send(self.head)
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self._send(message)


class ServerSentEvent(NamedTuple):
    """One event of an event stream, as a browser would be told of it."""

    data: str
    event: str = "message"
    id: str = ""


class ServerSentEvents:
    """Reads the events of a stream that comes in chunks, wherever it is cut: for a tap that goes by what they say.

    One of more than ``cap`` bytes is left out, for it would have to be held; ``skipped`` says how many were.
    """

    def __init__(self, cap: int = 1 << 16) -> None:
        """Nothing has come yet."""
        self._cap = cap
        self._rest = bytearray()
        self._event = bytearray()  # its lines in one piece, for short ones take many times their bytes
        self._size = 0
        self._begun = self._half = False
        self._id = ""
        self.skipped: int = 0
        """How many events were too large."""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that end in this chunk. What was not ended by an empty line is none, and never given."""
        if self._half and chunk:  # of a line's end that was cut in two
            chunk = chunk.removeprefix(b"\n")
            self._half = False
        self._half = self._half or chunk.endswith(b"\r")
        first, *others = _LINE_END.split(chunk)
        self._rest += first
        found = []
        for each in others:
            if (event := self._take(bytes(self._rest))) is not None:
                found.append(event)
            self._rest[:] = each
        if self._rest and self._size + len(self._rest) > self._cap:
            self._rest[:], self._size = b":", self._cap + 1  # what is left of it is as good as a comment
        return found

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if not self._begun:
            self._begun, line = True, line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._ended()
        self._size += len(line)
        if self._size <= self._cap:
            self._event += line + b"\n"
        return None

    def _ended(self) -> ServerSentEvent | None:
        lines, size = self._event.decode("utf-8", "replace").split("\n"), self._size
        self._event, self._size = bytearray(), 0
        if size > self._cap:
            self.skipped += 1
            return None
        data, kind = [], ""
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "event":
                kind = value
            elif name == "id" and "\0" not in value:
                self._id = value
        return ServerSentEvent("\n".join(data), kind or "message", self._id) if data else None


def overheard(head: ResponseHead, say: Callable[[str], None], cap: int = 1 << 20) -> Tap:
    """A tap that passes a body on as it comes, and says what is in it.

    Of an event stream that is the data of each event as soon as it ends, of any other body the whole of it at its end.
    Nothing is said of what is larger than ``cap`` bytes, or compressed: ask the app for ``identity``. What ``say``
    raises breaks the response off, as what any tap raises.
    """
    if (head.get(b"content-encoding") or b"identity").lower() != b"identity":
        return lambda chunk, last: chunk
    streams = (head.get(b"content-type") or b"").lower().startswith(b"text/event-stream")
    return _events_overheard(say, cap) if streams else _whole_overheard(say, cap)


def _events_overheard(say: Callable[[str], None], cap: int) -> Tap:
    events = ServerSentEvents(cap)

    def tap(chunk: bytes, last: bool) -> bytes:
        for event in events.feed(chunk):
            say(event.data)
        return chunk

    return tap


def _whole_overheard(say: Callable[[str], None], cap: int) -> Tap:
    whole, size = bytearray(), 0

    def tap(chunk: bytes, last: bool) -> bytes:
        nonlocal size
        size += len(chunk)
        if size > cap:
            whole.clear()
            return chunk
        whole.extend(chunk)
        if last:
            say(whole.decode("utf-8", "replace"))
        return chunk

    return tap
