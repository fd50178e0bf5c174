"""An end to waiting: ``Timeout``."""

from dataclasses import dataclass
from math import inf
from typing import Literal

import anyio

from apim_middleware._http.headers import get
from apim_middleware._ring import refusal_messages, seats_of
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, ResponseOver
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

_DAY = 86_400.0
_DETAIL = "The response took too long."


@dataclass(frozen=True, kw_only=True)
class Timeout(Policy):
    """Give up on a request that takes longer than so many seconds, and cancel what is done for it.

    The whole response counts, from the moment the request comes to this policy to the last byte; of an event stream
    only the time to its head, and of a WebSocket that to its acceptance, for both may last. What an app does after its
    response (background tasks) is not cut off.

    Refused: 504 ``timeout`` (RFC 9110 §15.6.5) while no head has gone out; after that the response breaks off, for only
    that is honest. ``until="head"`` follows the ``timeout`` of Azure's ``forward-request``.
    """

    guards = False

    seconds: float
    """How long it may take, above 0 and up to a day."""

    until: Literal["head", "end"] = "end"
    """Whether the clock stops at the response head or at the end of the response."""

    @stated
    def documentation(self) -> Documentation:
        """What is answered when it takes too long."""
        return Documentation(answers=(Answer(504, ("timeout",)),))

    def __post_init__(self) -> None:
        """There must be some time."""
        if not 0 < self.seconds <= _DAY:
            raise self.mistake("seconds", "is out of range", f"Give seconds above 0, up to {_DAY:g}")

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        """A clock around the app."""
        return _Timed(self, app)


class _Timed:
    def __init__(self, rule: Timeout, app: ASGIApp) -> None:
        self._rule, self._app = rule, app
        self.seats = seats_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with anyio.CancelScope(deadline=anyio.current_time() + self._rule.seconds) as clock:
            response = _Response(clock, send, only_head=self._rule.until == "head")
            await self._app(scope, receive, response.send)
        if clock.cancelled_caught:
            await response.give_up(scope)


class _Response:
    """One response, as far as it is out."""

    def __init__(self, clock: anyio.CancelScope, send: Send, *, only_head: bool) -> None:
        self._clock, self._send, self._only_head = clock, send, only_head
        self._begun = self._over = self._trailers = False

    async def send(self, message: Message) -> None:
        """The ``send`` the app gets."""
        if self._over:
            raise ResponseOver("the response took too long")
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
            self._begun = True
            self._trailers = message.get("trailers", False)
            if kind == "websocket.accept" or self._only_head or _lasts(message):
                self._clock.deadline = inf
        elif kind == "websocket.close":
            self._begun = True
        await self._send(message)
        if self._ends(kind, message):
            self._clock.deadline = inf

    def _ends(self, kind: str, message: Message) -> bool:
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        if kind == "http.response.pathsend":
            return not self._trailers
        whole = kind in ("http.response.body", "http.response.zerocopysend", "websocket.http.response.body")
        return whole and not self._trailers and not message.get("more_body", False)

    async def give_up(self, scope: Scope) -> None:
        """Refuse if nothing is out yet; else break off."""
        self._over = True
        if self._begun:
            raise TimeoutError("the response took too long")
        refusal = Refusal(504, "timeout", _DETAIL)
        exchange = Exchange.of(scope)
        if exchange is not None:
            exchange.refusal = refusal
        for message in refusal_messages(refusal, scope):
            await self._send(message)


def _lasts(head: Message) -> bool:
    kind = get([(name.lower(), value) for name, value in head.get("headers", ())], b"content-type") or b""
    return kind.partition(b";")[0].strip().lower() == b"text/event-stream"
