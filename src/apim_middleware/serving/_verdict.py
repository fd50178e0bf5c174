"""The answer to a front server that asks whether a request may pass: yes only when it has come through."""

import logging
from collections.abc import Sequence

from apim_middleware._http.headers import get_all
from apim_middleware._ring import refusal_messages
from apim_middleware.errors import Refusal
from apim_middleware.types import Message, Receive, Scope, Send

log = logging.getLogger("apim_middleware")

STATUS = b"x-auth-status"
"""Where the status of a refusal stands that is answered 403 for want of a better word."""

_VERDICT = "apim_middleware.verdict"


class Yes:
    """The app behind the judging layer: whoever gets here may pass."""

    def __init__(self, names: Sequence[bytes]) -> None:
        """``names`` are the request headers it tells."""
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        scope[_VERDICT].passed = True
        told = [(name, b", ".join(get_all(scope["headers"], name))) for name in self._names]
        headers = [(b"content-length", b"0"), (b"cache-control", b"no-store"), *told]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Verdict:
    """The answer to the front server on its way: a yes only when the request has come through."""

    def __init__(self, send: Send, asked: Scope, *, carried_as: str) -> None:
        """``asked`` is the front server's own request."""
        self.passed = False
        self._send, self._asked = send, asked
        self._carried_as = carried_as
        self._only_head = self._dropped = False

    def begin(self, inner: Scope) -> None:
        """The request that is asked about is known."""
        inner[_VERDICT] = self
        self._only_head = inner["method"] == "HEAD" != self._asked.get("method")

    async def send(self, message: Message) -> None:
        """What the judging layer sends."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._dropped:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        status = message["status"]
        if 200 <= status < 300 and not self.passed:
            self._dropped = True
            log.error("a policy of ForwardAuth answers %d itself, which would let the request pass", status)
            refusal = Refusal(500, "answered-not-judged", "The request was answered, and not judged.")
            for each in refusal_messages(refusal, {**self._asked, "type": "http"}):
                await self._send(self._carried(each))
        else:
            await self._send(self._carried(message))

    def _carried(self, message: Message) -> Message:
        status = message.get("status", 200)
        headers = message.get("headers") or []
        if self._only_head:  # no body comes, which only HEAD itself would explain
            headers = [line for line in headers if line[0].lower() != b"content-length"]
        if self._carried_as == "403" and not (200 <= status < 300 or status == 401):
            headers = [*headers, (STATUS, b"%d" % status)]
            status = 403
        if message["type"] == "http.response.start":
            return {**message, "status": status, "headers": headers}
        return message


def as_denial(scope: Scope, send: Send) -> Send:
    """A ``send`` that answers a handshake, where the server can do that; else it is closed, which is a no."""
    offered = "websocket.http.response" in (scope.get("extensions") or ())
    closed = False

    async def denied(message: Message) -> None:
        nonlocal closed
        if offered:
            await send({**message, "type": f"websocket.{message['type']}"})
        elif not closed:
            closed = True
            await send({"type": "websocket.close", "code": 1008, "reason": "not-answerable"})

    return denied
