"""Documents fetched over the transport: one plain answer, in bounded time and size, and how long it is good for."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio

from apim_middleware._http.dates import http_date
from apim_middleware._http.headers import get, list_members
from apim_middleware.protocols import Transport, UpstreamRequest, UpstreamResponse
from apim_middleware.types import RawHeaders

LARGEST_DOCUMENT = 512 * 1024
SHORTEST_LIFE = 60.0

_MAX_AGE = re.compile(rb"max-age=\"?(\d{1,10})\"?")


class BadDocument(Exception):
    """The answer is not the document that was asked for; the text holds nothing of the answer."""

    def __init__(self, reason: str, status: int = 200) -> None:
        """Keep the status, for one that is not there may be elsewhere."""
        super().__init__(reason)
        self.status = status


class Document(NamedTuple):
    """An answer in full."""

    status: int
    headers: RawHeaders
    body: bytes


class Address(NamedTuple):
    """A URL as requests have it."""

    origin: str
    target: bytes
    host: bytes

    @classmethod
    def of(cls, url: str) -> "Address":
        """The parts of a URL."""
        parts = urlsplit(url)
        target = (parts.path or "/").encode() + (f"?{parts.query}".encode() if parts.query else b"")
        return cls(f"{parts.scheme}://{parts.netloc}", target, parts.netloc.encode())


class Question(NamedTuple):
    """What is asked of a URL, by GET or, with a body, by POST; and how much is waited for, in seconds and bytes."""

    url: str
    headers: RawHeaders
    seconds: float
    body: bytes | None = None
    largest: int = LARGEST_DOCUMENT


async def fetched(transport: Transport, question: Question) -> Document:
    """What is answered with 200. Raises BadDocument, TransportError or TimeoutError."""
    document = await answered(transport, question)
    if document.status != 200:
        raise BadDocument(f"the answer was {document.status}", document.status)
    return document


async def answered(transport: Transport, question: Question) -> Document:
    """What is answered, whatever the status. Raises BadDocument, TransportError or TimeoutError."""
    url, headers, seconds, body, largest = question
    origin, target, host = Address.of(url)
    lines = [(b"host", host), *headers, (b"accept-encoding", b"identity")]
    with anyio.fail_after(seconds):
        method = "GET" if body is None else "POST"
        request = UpstreamRequest(method, origin, target, lines, body, connect=seconds, read=seconds)
        response = await transport.send(request)
        try:
            return Document(response.status, response.headers, await _body(response, largest))
        finally:
            with anyio.move_on_after(1.0, shield=True):
                await response.aclose()


async def _body(response: UpstreamResponse, largest: int) -> bytes:
    """The body of an answer: no redirect followed, nothing decompressed, nothing large read. Raises BadDocument."""
    if get(response.headers, b"content-encoding") not in (None, b"identity"):
        raise BadDocument("the answer is compressed, which was not asked for", response.status)
    received = bytearray()
    async for chunk in response:
        received += chunk
        if len(received) > largest:
            raise BadDocument("the answer is too large", response.status)
    return bytes(received)


def lifetime(headers: RawHeaders, longest: float, now: float) -> float:
    """Seconds an answer stays fresh, a minute at least: by ``max-age``, else by ``Expires``, else the longest.

    ``max-age`` counts from when the origin made the answer, so ``Age`` is taken off (RFC 9111 §4.2).
    """
    for member in list_members(headers, b"cache-control"):
        if match := _MAX_AGE.fullmatch(member):
            return _within(float(match[1]) - _age(headers), longest)
    expires = get(headers, b"expires")
    if expires is None:
        return longest
    until = http_date(expires, now)
    made = http_date(get(headers, b"date") or b"", now)
    return _within(0.0 if until is None else until - (now if made is None else made) - _age(headers), longest)


def _within(seconds: float, longest: float) -> float:
    return max(SHORTEST_LIFE, min(seconds, longest))


def _age(headers: RawHeaders) -> float:
    age = get(headers, b"age") or b""
    return float(age) if age.isdigit() and len(age) <= 10 else 0.0
