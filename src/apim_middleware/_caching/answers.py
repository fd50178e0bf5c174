"""A stored response on its way to one more client: whole, a part, or only that nothing has changed."""

from typing import TypeAlias

from apim_middleware._caching.pages import Headers, Stored
from apim_middleware._http.cache_ranges import UNSATISFIABLE, is_same, part_of, partial_fields, unsatisfied_fields
from apim_middleware._http.freshness import not_modified, not_modified_fields
from apim_middleware.exchange import Exchange
from apim_middleware.types import RawHeaders, Receive, Scope, Send

Content: TypeAlias = tuple[int, Headers, bytes]
"""Status, header lines and body of an answer."""


async def answer(status: int, headers: RawHeaders, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response that is there; with the first three given, it is an ASGI app."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def is_known(exchange: Exchange, headers: tuple[tuple[bytes, bytes], ...], received: float) -> bool:
    """Whether the client has this response already."""
    since, tags = exchange.header(b"if-modified-since"), exchange.header(b"if-none-match")
    if since is None and tags is None:
        return False
    return not_modified(exchange.headers(b"if-none-match"), since, headers, received)


def answer_to(exchange: Exchange, stored: Stored) -> Content:
    """What a request that asks for something in particular gets of a stored response (RFC 9110 §13.2.2)."""
    headers, body = stored.headers, stored.body
    if stored.status == 200:
        if is_known(exchange, headers, stored.received):
            return 304, not_modified_fields(headers), b""
        if exchange.scope["method"] == "GET" and exchange.header(b"range") is not None:
            return _part(exchange, stored)
    return stored.status, headers, b"" if exchange.scope["method"] == "HEAD" else body


def _part(exchange: Exchange, stored: Stored) -> Content:
    headers, body = stored.headers, stored.body
    condition = exchange.header(b"if-range")
    part = None
    if condition is None or is_same(condition, headers, stored.received):
        part = part_of(exchange.headers(b"range"), len(body))
    if part is None:
        return 200, headers, body
    if part == UNSATISFIABLE:
        return 416, tuple(unsatisfied_fields(headers, len(body))), b""
    return 206, tuple(partial_fields(headers, part, len(body))), body[slice(*part)]
