"""One WebSocket under way: a handshake with the upstream before the client's is answered, then messages both ways.

Two tasks, one for each direction: each takes the next message only when the other side has taken the last.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Protocol, TypeAlias

import anyio
import anyio.abc

from apim_middleware._http import hops
from apim_middleware._http.headers import is_token
from apim_middleware._loops import first_of
from apim_middleware.env import default_env
from apim_middleware.errors import Refusal, TransportError
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import Transport, UpstreamRequest, UpstreamResponse
from apim_middleware.proxy._relaying import fail, looked_over, relayed
from apim_middleware.proxy._trouble import Troubled
from apim_middleware.transports.websockets import WebSockets
from apim_middleware.types import RawHeaders, Receive, Scope, Send

log = logging.getLogger("apim_middleware")

Open: TypeAlias = Callable[[UpstreamRequest, WebSockets], Awaitable[Any]]
"""Shakes hands with an upstream; gives an open WebSocket, or the response by which it refuses."""

_DENIAL = "websocket.http.response"
_HANDSHAKE = b"sec-websocket-"
_SHORT = 65536  # bytes of a refusal that are held until its end
_SCHEMES = {"ws": "http", "wss": "https"}
_FOREVER = 1 << 53  # seconds, beyond which a number may be none that clocks can reckon with


def opener(transport: Transport) -> Open:
    """How this transport opens WebSockets. Raises Refusal when it does not."""
    found: Open | None = getattr(transport, "open_websocket", None)
    if found is None or find_spec("websockets") is None:
        log.warning("WebSockets need asyncio and the extra gateway: this transport does not pass them on")
        raise Refusal(501, "websocket-not-supported", "WebSockets are not passed on.")
    return found


def as_request(scope: Scope) -> Scope:
    """The handshake as the HTTP request it is (RFC 6455 §4.1), without what belongs to the client's hop."""
    headers = [line for line in scope["headers"] if not line[0].startswith(_HANDSHAKE)]
    scheme = scope.get("scheme", "ws")
    handshake = {**scope, "type": "http", "method": "GET", "scheme": _SCHEMES.get(scheme, scheme)}
    return {**handshake, "headers": [line for line in headers if line[0] != b"content-length"]}


def offering(request: UpstreamRequest, subprotocols: list[str]) -> UpstreamRequest:
    """The request with the subprotocols the client offers, as policies have left them. Raises Refusal."""
    names = [each.encode("latin-1", "replace") for each in subprotocols]
    if not all(map(is_token, names)):
        raise Refusal(400, "bad-header", "The request cannot be passed on: a subprotocol is no token.")
    if not names:
        return request
    return replace(request, headers=[*request.headers, (b"sec-websocket-protocol", b", ".join(names))])


class Answering(Troubled, Protocol):
    """Who stands for an upstream that is asked for a WebSocket."""

    @property
    def via(self) -> tuple[bytes, bytes]:
        """The line of ``Via`` for its responses."""
        ...


class Tunnel:
    """One WebSocket: the client's on one side, the upstream's on the other."""

    def __init__(
        self,
        opens: Open,
        request: UpstreamRequest,
        rules: WebSockets,
        told: Answering,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """``told`` stands for the upstream, whose ``via`` is the line the client is given."""
        self._open, self._request, self._rules = opens, request, rules
        self._told, self._via = told, told.via
        self._scope, self._receive, self._send = scope, receive, send
        self._socket: Any = None
        self._left = False
        self._upward = anyio.CancelScope()
        self._deaf = anyio.Event()
        self._all = anyio.CancelScope()

    async def run(self) -> None:
        """Pass messages on until one side has closed and the other knows."""
        if (await self._receive())["type"] != "websocket.connect":
            return
        try:
            async with anyio.create_task_group() as tasks:
                self._all = tasks.cancel_scope
                tasks.start_soon(self._go_up)
                await self._go_down()
                self._upward.cancel()
        except BaseExceptionGroup as wrapped:
            error = first_of(wrapped)
            raise error from error.__cause__

    # From the client to the upstream

    async def _go_up(self) -> None:
        try:
            with self._upward:
                await self._pass_up()
        finally:
            self._deaf.set()

    async def _pass_up(self) -> None:
        while (message := await self._receive())["type"] != "websocket.disconnect":
            said = message.get("text")
            if said is None:
                said = message.get("bytes") or b""
            if _is_longer(said, self._rules.max_message_bytes):
                self._socket.give_up(1009, "message-too-big")
                return
            await self._socket.send(said)
        self._left = True
        if self._socket is None:
            self._all.cancel()
        else:
            await self._socket.aclose(message.get("code", 1005), message.get("reason") or "")

    async def _stop_listening(self) -> None:
        """Nobody waits for the client any more: some servers (granian) say no last word while somebody does."""
        self._upward.cancel()
        await self._deaf.wait()

    # From the upstream to the client

    async def _go_down(self) -> None:
        try:
            answer = await self._open(self._request, self._rules)
        except (TransportError, Refusal) as error:
            await self._fail(error)
            return
        if answer.status != 101:
            await self._deny(answer)
            return
        self._socket = answer
        expiry = None if self._rules.outlive_token else _expiry(self._scope)
        if expiry is not None:
            answer.end_within(max(0.0, expiry - default_env.clock.now()), 1008, "token-expired")
        try:
            await self._pass_down()
        except BaseException:
            answer.hang_up()
            raise

    async def _pass_down(self) -> None:
        socket = self._socket
        accept = {"type": "websocket.accept", "subprotocol": socket.subprotocol}
        await self._send({**accept, "headers": [*_accepted(socket.headers), self._via]})
        while (said := await socket.receive()) is not None:
            await self._send({"type": "websocket.send", "text" if isinstance(said, str) else "bytes": said})
        if not self._left:
            await self._stop_listening()
        if not self._left:
            code, reason = socket.end
            await self._send({"type": "websocket.close", "code": 1000 if code == 1005 else code, "reason": reason})

    # Handshakes that come to nothing

    async def _deny(self, response: UpstreamResponse) -> None:
        """Pass the upstream's own answer down, where the server can give one to a handshake; else 403 says it all."""
        await self._stop_listening()
        try:
            lines, index, _ = looked_over(response, head_only=False)
            if _DENIAL in (self._scope.get("extensions") or ()):
                await self._pass_denial(response, relayed(response.status, lines, index, self._via))
            else:
                await self._send({"type": "websocket.close", "code": 1008, "reason": "handshake-refused"})
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _pass_denial(self, response: UpstreamResponse, headers: RawHeaders) -> None:
        """In one message when it is short: not every server takes several (granian refuses a second)."""
        await self._send({"type": f"{_DENIAL}.start", "status": response.status, "headers": headers})
        held = b""
        async for chunk in response:
            held += chunk
            if len(held) > _SHORT:
                await self._send({"type": f"{_DENIAL}.body", "body": held, "more_body": True})
                held = b""
        await self._send({"type": f"{_DENIAL}.body", "body": held, "more_body": False})

    async def _fail(self, error: TransportError | Refusal) -> None:
        await self._stop_listening()
        await fail(error, self._told.trouble, self._scope, self._send)


def _accepted(headers: RawHeaders) -> RawHeaders:
    """The header lines of a handshake that travel on, for the client's own is the server's to answer."""
    kept = hops.end_to_end(headers, without=(b"content-length", *hops.nominated(headers)))
    return [line for line in kept if not line[0].startswith(_HANDSHAKE)]


def _expiry(scope: Scope) -> float | None:
    """Until when the client is let in by its token, in seconds since 1970."""
    exchange = Exchange.of(scope)
    principal = None if exchange is None else exchange.principal
    if principal is None:
        return None
    until = principal.claims.get("exp") if principal.expires is None else principal.expires
    return float(min(until, _FOREVER)) if isinstance(until, int | float) else None


def _is_longer(said: str | bytes, most: int) -> bool:
    if isinstance(said, str) and len(said) * 4 > most:  # no character is longer
        return len(said) > most or len(said.encode()) > most
    return len(said) > most
