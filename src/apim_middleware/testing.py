"""Doubles for tests of policies and stacks: a clock to wind, and a caller that speaks raw ASGI.

The caller sees what a client library hides: each message, where a stream stands, what happens when the client leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from apim_middleware._http.headers import header_name
from apim_middleware.types import ASGIApp, Message, RawHeaders, Scope

_HOST = (b"host", b"testserver")


class FakeClock:
    """A clock that moves only when told to; both its times begin at ``start`` seconds."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        """Stand still at ``start``."""
        self._now = self._monotonic = start

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or backwards, as an administrator or NTP may."""
        self._now += seconds


@dataclass
class Answer:
    """Everything an app sent for one exchange."""

    messages: list[Message] = field(default_factory=list)

    @property
    def head(self) -> Message:
        """The message the response begins with."""
        starts = [each for each in self.messages if each["type"].endswith(("response.start", "websocket.accept"))]
        return starts[0]

    @property
    def status(self) -> int:
        """The status; 101 for an accepted WebSocket, 403 for one closed before it was accepted."""
        if not any(each["type"].endswith(("response.start", "websocket.accept")) for each in self.messages):
            return 403 if any(each["type"] == "websocket.close" for each in self.messages) else 0
        return int(self.head.get("status", 101))

    @property
    def headers(self) -> RawHeaders:
        """The header lines."""
        return list(self.head.get("headers", ()))

    @property
    def body(self) -> bytes:
        """The body, all chunks together."""
        return b"".join(each.get("body", b"") for each in self.messages if each["type"].endswith("response.body"))

    @property
    def complete(self) -> bool:
        """Whether the body came to its end, and is as long as ``Content-Length`` says, if it is there at all.

        A server cuts a longer one off, and of a shorter one the client hears that it is broken.
        """
        said = self.header(b"content-length") if self.ended else None
        return self.ended and (said is None or not self.body or said == b"%d" % len(self.body))

    @property
    def ended(self) -> bool:
        """Whether the last of the body was sent."""
        bodies = [each for each in self.messages if each["type"].endswith("response.body")]
        return bool(bodies) and _is_last(bodies[-1])

    def header(self, name: bytes | str) -> bytes | None:
        """The first value under a name."""
        return next(iter(self.all(name)), None)

    def all(self, name: bytes | str) -> list[bytes]:
        """Every value under a name."""
        wanted = header_name(name)
        return [value for key, value in self.headers if key.lower() == wanted]


def _is_last(message: Message) -> bool:
    """Whether this is the last of a body."""
    return message["type"].endswith("response.body") and not message.get("more_body", False)


def http_scope(
    method: str = "GET",
    path: str = "/",
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    **more: object,
) -> Scope:
    """An HTTP scope as a server makes it; ``more`` overrides or adds keys.

    ValueError for a path that holds a query, unless ``raw_path`` says that its question mark was encoded.
    """
    if "?" in path and "raw_path" not in more:
        raise ValueError(f"the path {path!r} holds a query; give it apart: query=b'...'")
    lines = list(headers)
    if not any(name == b"host" for name, _ in lines):
        lines.insert(0, _HOST)
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": lines,
        "client": ("203.0.113.7", 50000),
        "server": ("testserver", 80),
    }
    return {**scope, **more}


def websocket_scope(
    path: str = "/",
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    denial: bool = True,
    **more: object,
) -> Scope:
    """A WebSocket scope; ``denial`` says whether the server can answer a handshake with an HTTP response."""
    scope = http_scope("GET", path, headers=headers, query=query, **more)
    del scope["method"]
    extensions: dict[str, Any] = {"websocket.http.response": {}} if denial else {}
    return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": [], "extensions": extensions, **more}


async def call(
    app: ASGIApp,
    method: str = "GET",
    path: str = "/",
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    body: bytes | Sequence[bytes] = b"",
    leave_after: int | None = None,
    answer: Answer | None = None,
    **more: object,
) -> Answer:
    """Make one HTTP exchange with an app and give back all it sent.

    ``body`` may be several chunks. Once they are read the client waits for the response, and leaves after its end.
    ``leave_after`` messages the client is gone: ``send`` raises OSError from then on, ``receive`` says so.
    Pass an ``answer`` of your own to see what had been sent when the app raised.
    """
    chunks = [body] if isinstance(body, bytes) else list(body)
    inbox: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, 1)
    ]
    scope = http_scope(method, path, headers=headers, query=query, **more)
    return await exchange(app, scope, inbox, {"type": "http.disconnect"}, leave_after=leave_after, answer=answer)


async def connect(
    app: ASGIApp,
    path: str = "/",
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    texts: Sequence[str] = (),
    denial: bool = True,
    leave_after: int | None = None,
    answer: Answer | None = None,
    **more: object,
) -> Answer:
    """Open a WebSocket, send these texts, close; give back all the app sent.

    ``denial`` says whether a handshake can be refused with an HTTP response; else it is closed.
    """
    inbox: list[Message] = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": text} for text in texts),
    ]
    scope = websocket_scope(path, headers=headers, query=query, denial=denial, **more)
    gone = {"type": "websocket.disconnect", "code": 1000}
    return await exchange(app, scope, inbox, gone, leave_after=leave_after, answer=answer)


async def exchange(
    app: ASGIApp, scope: Scope, inbox: list[Message], gone: Message, *, leave_after: int | None, answer: Answer | None
) -> Answer:
    """Run an app on a scope: hand it the messages of the inbox, then ``gone`` when it is over; keep what it sends."""
    answer = Answer() if answer is None else answer
    kept = answer.messages
    over = anyio.Event()
    if leave_after == 0 or scope["type"] == "websocket":
        over.set()  # who opens a WebSocket says what they have to say and closes

    async def receive() -> Message:
        if not inbox:
            await over.wait()
            return gone
        return inbox.pop(0)

    async def send(message: Message) -> None:
        if leave_after is not None and len(kept) >= leave_after:
            raise OSError("the client is gone")
        kept.append(message)
        if _is_last(message) or len(kept) == leave_after:
            over.set()

    await app(scope, receive, send)
    return answer
