"""How large a request body may be: ``LimitBody``."""

import logging
from dataclasses import dataclass

from apim_middleware._ring import refuse, seats_of
from apim_middleware.bodies import may_have_body, too_large
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, ResponseOver
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, ring, stated
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("apim_middleware")


@dataclass(frozen=True, kw_only=True)
class LimitBody(Policy):
    """Let no request body pass that is larger than ``max_bytes``.

    One that says so in ``Content-Length`` is refused before the app is asked; any other is counted as it flows, and
    nothing of it is held. Refused: 413 ``body-too-large`` (RFC 9110 §15.5.14), on HTTP/1 with ``Connection: close``, so
    that the rest is not sent. An app that is reading then is told that its client has left, which also ends an upstream
    request; what it still answers goes nowhere. If its own response has begun, that is broken off.

    Bytes are counted as they come: nothing is decompressed. Messages of a WebSocket are not counted, for the server has
    read them whole by then; servers have a limit for them.
    """

    guards = False

    max_bytes: int
    """Most bytes of a request body; 0 lets none pass that has any."""

    @stated
    def documentation(self) -> Documentation:
        """What is answered to bodies that are too large."""
        return Documentation(answers=(Answer(413, ("body-too-large",)),))

    def __post_init__(self) -> None:
        """A body cannot have fewer bytes than none."""
        if self.max_bytes < 0:
            raise self.mistake("max_bytes", "is no size", "Give a number of bytes, or 0 to let no body pass")

    def on_request(self, exchange: Exchange) -> None:
        """Refuse at once what says that it is too large."""
        length = exchange.header(b"content-length")  # of digits alone: hygiene has seen to that
        if length is not None and int(length) > self.max_bytes:
            raise too_large(self.max_bytes, exchange.scope)

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A ring of this policy, and behind it what counts."""
        return ring(self, self, _Counting(app, self.max_bytes), env)


class _Counting:
    """Counts the bodies of requests that may have one."""

    def __init__(self, app: ASGIApp, cap: int) -> None:
        self._app, self._cap = app, cap
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and may_have_body(scope):
            await _Measured(scope, receive, send, self._cap).run(self._app)
        else:
            await self._app(scope, receive, send)


class _Measured:
    """One exchange whose request body is counted."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, cap: int) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._cap = self._room = cap
        self._refusal: Refusal | None = None
        self._begun = self._done = False

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except Exception:
            if self._refusal is None:
                raise
            log.debug("the app failed for want of the rest of a body that is too large", exc_info=True)
        if self._refusal is not None and not self._done:
            raise self._refusal  # in the midst of another response: only breaking it off is honest

    async def receive(self) -> Message:
        if self._refusal is not None:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._room -= len(message.get("body") or b"")
        if self._room >= 0:
            return message
        await self._refuse()
        return {"type": "http.disconnect"}

    async def _refuse(self) -> None:
        self._refusal = too_large(self._cap, self._scope)
        if not self._begun:
            self._done = True
            await refuse(self._refusal, self._scope, self._send)

    async def send(self, message: Message) -> None:
        if self._refusal is None:
            self._begun = True
            await self._send(message)
            self._done = self._done or _ends_body(message)
        elif message.get("more_body", False):
            raise ResponseOver("the request body was too large")


def _ends_body(message: Message) -> bool:
    last = message["type"] == "http.response.body" and not message.get("more_body", False)
    return last or message["type"] == "http.response.pathsend"
