"""A witness of a call: sees its messages pass, until the last byte is sent."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any

from apim_middleware._telemetry.notes import Notes, origin, told
from apim_middleware._telemetry.routes import route_of
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Clock
from apim_middleware.types import Message, Receive, Scope, Send

log = logging.getLogger("apim_middleware")

HEADS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})
_GONE = frozenset({"http.disconnect", "websocket.disconnect"})
_UNSAID = {"websocket.close": 1000, "websocket.disconnect": 1005}
"""The codes of messages that end a WebSocket and say none."""


class Witness(ABC):
    """Sees one call pass and remembers what there is to tell; how it is told is for each kind to say."""

    __slots__ = (
        "_begun", "_clock", "_code", "_ended", "_noted", "_receive", "_send", "_trailers", "began", "error", "exchange",
        "lasted", "left", "notes", "scope", "status",
    )  # fmt: skip

    def __init__(
        self, notes: Notes, clock: Clock, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """It begins now."""
        self.notes, self.exchange, self.scope = notes, exchange, scope
        self._clock, self._receive, self._send = clock, receive, send
        self._begun, self.began = clock.monotonic(), clock.now()
        self.status: int | None = None
        self.lasted: float | None = None  # seconds to the last byte, once it is sent
        self.left = False  # the client said so
        self.error: BaseException | None = None
        self._code: int | None = None
        self._noted: dict[str, Any] = {}
        self._trailers = self._ended = False

    async def receive(self) -> Message:
        """The ``receive`` the app gets."""
        message = await self._receive()
        if message["type"] in _GONE and self.lasted is None:
            self.left = True
            self._code = message.get("code", _UNSAID.get(message["type"]))
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """The ``send`` the app gets."""
        kind = message["type"]
        if kind in _BODIES:
            last = not (self._trailers or message.get("more_body", False))
        elif kind in HEADS:
            last = False
            self.status = message.get("status", 101)  # an accepted WebSocket has no other
            self._trailers = message.get("trailers", False)
            self._noted = self.notes.of_response(message.get("headers") or ())
        elif kind == "websocket.close":
            last = True
            self.status = self.status or 403  # as servers answer a handshake that is closed instead of accepted
            self._code = message.get("code", _UNSAID[kind])
        else:
            trailers = kind == "http.response.trailers" and not message.get("more_trailers", False)
            last = trailers or kind == "http.response.pathsend"
        return self._finish(message) if last else self.pass_on(message)

    def pass_on(self, message: Message) -> Awaitable[None]:
        """Send a message on."""
        return self._send(message)

    async def _finish(self, message: Message) -> None:
        await self.pass_on(message)
        if self.lasted is None:
            self.lasted = self._clock.monotonic() - self._begun
            if (self.status or 500) < 500:
                self.end()  # else what went wrong may still come: frameworks answer 500 first and raise afterwards

    def end(self) -> None:
        """Conclude, once; what fails here fails no request."""
        if self._ended:
            return
        self._ended = True
        try:
            self.conclude()
        except Exception:
            log.exception("a call could not be recorded")

    @abstractmethod
    def conclude(self) -> None:
        """Record the call: nothing more is learnt."""

    @property
    def seconds(self) -> float:
        """To the last byte, or until now."""
        lasted = self._clock.monotonic() - self._begun if self.lasted is None else self.lasted
        return max(lasted, 0.0)

    def outcome(self) -> dict[str, Any]:
        """The status and the route, with few values each."""
        outcome: dict[str, Any] = {} if self.status is None else {"http.response.status_code": int(self.status)}
        if route := self.notes.route(self.exchange.attributes.get("http.route") or route_of(self.scope)):
            outcome["http.route"] = route
        return outcome

    def learnt(self) -> dict[str, Any]:
        """What policies and the response tell, and what else was not known from the start."""
        learnt = told(self.exchange)
        learnt |= self._noted
        if self._code is not None:
            learnt["apim.websocket.close_code"] = self._code
        if self.exchange.forwarded:  # then somebody further in knows better who the client is
            learnt |= origin(self.scope, dict(reversed(self.scope["headers"])).get(b"host"))
        return learnt
