"""Sending a request over a connection: no faster than the upstream takes it, and no longer than until it answers."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from math import inf

from apim_middleware.errors import TransportError
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._answer import Answer
from apim_middleware.transports._connection import Connection
from apim_middleware.types import RawHeaders

_AT_ONCE = 65536  # bytes of a body that are written in one go


async def ask(connection: Connection, request: UpstreamRequest, head: bytes) -> Answer:
    """Send a request and wait for the head of the answer, which may be a 101 where the connection ``upgrades``.

    Raises TransportError, and what the body raises; then the connection is closed.
    """
    answer = connection.begin(request.method, request.read)
    if request.early_hints is not None:
        answer.hints = []
    try:
        if request.body is None:
            connection.write(head)
            answer.sent = True
        elif isinstance(request.body, bytes):
            await _send_bytes(
                connection, answer, head, request.body, request.read if request.write is None else request.write
            )
        else:
            connection.write(head)
            await _send_chunks(connection, answer, request.body, request)
        seconds = request.read if request.first_byte is None else request.first_byte
        if request.early_hints is not None:
            await _hinted(answer, request.early_hints, inf if seconds is None else seconds)
        while not answer.begun:
            await answer.news(seconds)
    except BaseException:
        await answer.aclose()
        raise
    return answer


async def _hinted(answer: Answer, pass_on: Callable[[RawHeaders], Awaitable[None]], seconds: float) -> None:
    """Wait for the head, for so many seconds in all, and pass on what is hinted before it."""
    loop = asyncio.get_running_loop()
    over = loop.time() + seconds
    while True:
        while hints := answer.hints:
            await pass_on(hints.pop(0))
        if answer.begun:
            return
        await answer.news(over - loop.time())


async def _send_bytes(connection: Connection, answer: Answer, head: bytes, body: bytes, seconds: float | None) -> None:
    connection.write(head + body[:_AT_ONCE])
    for at in range(_AT_ONCE, len(body), _AT_ONCE):
        while not (connection.writable or answer.begun):
            await answer.news(seconds)
            answer.check()
        if answer.begun:
            return
        connection.write(body[at : at + _AT_ONCE])
    answer.sent = True


async def _send_chunks(
    connection: Connection, answer: Answer, body: AsyncIterable[bytes], request: UpstreamRequest
) -> None:
    chunks, left, seconds = aiter(body), request.length, request.read if request.write is None else request.write
    while (chunk := await _next(answer, chunks)) is not None:
        if answer.begun:
            return
        answer.check()
        if not chunk:
            continue
        if left is not None:
            left = _less(left, chunk)
        connection.write(chunk if left is not None else b"%x\r\n%b\r\n" % (len(chunk), chunk))
        answer.sent = left == 0
        while not (connection.writable or answer.begun):
            await answer.news(seconds)
            answer.check()
    if answer.begun:
        return
    answer.check()
    if left:
        raise TransportError("the request body is shorter than announced")
    if left is None:
        connection.write(b"0\r\n\r\n")
        answer.sent = True


def _less(left: int, chunk: bytes) -> int:
    if len(chunk) > left:
        raise TransportError("the request body is longer than announced")
    return left - len(chunk)


async def _next(answer: Answer, chunks: AsyncIterator[bytes]) -> bytes | None:
    """More of the body; None when there is none, or when the answer or an error comes in the meantime.

    The answer breaks the waiting off by cancelling the task, as ``asyncio.timeout`` does.
    """
    task = asyncio.current_task()
    answer.uploader, answer.interrupted = task, False
    cancelled = task.cancelling() if task is not None else 0
    try:
        return await anext(chunks, None)
    except asyncio.CancelledError:
        if task is None or not answer.interrupted or task.cancelling() > cancelled + 1:
            raise
        return None
    finally:
        answer.uploader = None
        if answer.interrupted and task is not None:
            task.uncancel()
