"""Bodies for layers that must see one whole, tell it again, or hold a response back; all else lets bodies flow.

Each names a cap, and what happens beyond it: ``read_body`` refuses, ``Replay`` can no longer repeat, ``Ahead`` sees no
further, ``Gathered`` lets go what it holds and the rest flows.
"""

from collections import deque
from collections.abc import Callable

from anyio import Event

from apim_middleware._http.headers import get
from apim_middleware.errors import ClientLeft, Refusal, ResponseOver
from apim_middleware.types import Message, RawHeaders, Receive, Send

_MESSAGES = 256
"""How many messages are read ahead at most: empty ones have no bytes that could be counted."""


async def read_body(receive: Receive, cap: int) -> bytes:
    """The whole request body, of ``cap`` bytes at most.

    A longer one is refused with 413 ``body-too-large`` as soon as that is known (RFC 9110 §15.5.14).
    Raises ClientLeft when the client leaves before its end.
    """
    chunks: list[bytes] = []
    room = cap
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeft("the client left before its request body was whole")
        chunk = message.get("body", b"")
        room -= len(chunk)
        if room < 0:
            raise Refusal(413, "body-too-large", f"The request body may have {cap} bytes at most.")
        if chunk:
            chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


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
        self._kept: list[bytes] = []
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
                return {"type": "http.request", "body": b"".join(self._kept), "more_body": not self._whole}
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
            self._kept.clear()
        elif chunk:
            self._kept.append(chunk)


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
        self._chunks: list[bytes] = []
        self._size = 0
        self.head: Message | None = None
        """The message the response begins with, once known."""
        self.flowing: bool = False
        """Whether the response is on its way out, unseen."""
        self.whole: bool = False
        """Whether head and body are here, to the last byte."""

    @property
    def body(self) -> bytes:
        """What is held of the body."""
        return b"".join(self._chunks)

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
        if self._size + len(chunk) > self._cap:
            return False
        self._size += len(chunk)
        if chunk:
            self._chunks.append(chunk)
        return True

    async def _let_go(self, message: Message) -> None:
        self.flowing = True
        body = self.body
        self._chunks.clear()
        if self.head is not None:
            await self._send(self.head)
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self._send(message)
