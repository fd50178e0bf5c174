"""Shaking hands with an upstream for a WebSocket (RFC 6455 §4), on a connection of ours.

No extension is offered: what a server has compressed for its client goes to the upstream as it was before.
"""

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace

from apim_middleware._http.headers import get, get_all, is_token, list_members
from apim_middleware.errors import UpstreamBroken
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._answer import Answer
from apim_middleware.transports._keeping import Pool
from apim_middleware.transports._requests import written
from apim_middleware.transports._sending import ask
from apim_middleware.transports._websocket import UpstreamWebSocket
from apim_middleware.transports.websockets import WebSockets
from apim_middleware.types import RawHeaders

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


async def open_websocket(pool: Pool, request: UpstreamRequest, rules: WebSockets) -> "Answer | UpstreamWebSocket":
    """Shake hands; gives the WebSocket, or the response by which the upstream refuses it. Raises TransportError."""
    key = base64.b64encode(os.urandom(16))
    head = written(replace(request, headers=[*request.headers, *_opening(key)]))
    connection = await pool.take(request)
    connection.upgrades = True
    answer = await ask(connection, request, head)
    if answer.status != 101:
        return answer
    try:
        subprotocol = _agreed(answer.headers, key, _members(request.headers, b"sec-websocket-protocol"))
        return UpstreamWebSocket(pool.loop, connection, answer, subprotocol, rules)
    except BaseException:
        await answer.aclose()
        raise


def _members(headers: RawHeaders, name: bytes) -> list[bytes]:
    """The members of a field whose members are told apart by case."""
    members = b",".join(get_all(headers, name)).split(b",")
    return [member for part in members if (member := part.strip(b" \t"))]


def _opening(key: bytes) -> RawHeaders:
    return [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", key),
    ]


def _agreed(headers: RawHeaders, key: bytes, offered: Iterable[bytes]) -> str | None:
    """The subprotocol of a handshake that was answered as RFC 6455 §4.2.2 has it. Raises UpstreamBroken."""
    if list_members(headers, b"upgrade") != [b"websocket"] or b"upgrade" not in list_members(headers, b"connection"):
        raise UpstreamBroken("the upstream changed to another protocol than was asked for")
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    if get_all(headers, b"sec-websocket-accept") != [accept]:
        raise UpstreamBroken("the upstream answered another handshake")
    if get(headers, b"sec-websocket-extensions"):
        raise UpstreamBroken("the upstream uses an extension nobody offered")
    chosen = get_all(headers, b"sec-websocket-protocol")
    if len(chosen) > 1 or not set(chosen).issubset(offered) or not all(map(is_token, chosen)):
        raise UpstreamBroken("the upstream speaks a subprotocol nobody offered")
    return chosen[0].decode() if chosen else None
