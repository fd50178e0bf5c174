"""Questions to services that give secrets and tokens: one request, one small JSON object, in bounded time."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio

from apim_middleware._http.headers import get
from apim_middleware.credentials.renewing import Unavailable
from apim_middleware.errors import TransportError
from apim_middleware.protocols import Transport, UpstreamRequest, UpstreamResponse
from apim_middleware.types import RawHeaders

_LARGEST = 256 * 1024


class Said(NamedTuple):
    """What a service answered."""

    status: int
    content: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A member that must be a text with something in it. Raises Unavailable."""
        value = self.content.get(name)
        if not isinstance(value, str) or not value:
            raise Unavailable(f"the answer holds no {name}")
        return value

    def number(self, name: str) -> float | None:
        """A member that is a number, or written like one; None when there is none, or it cannot be."""
        value = self.content.get(name)
        if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdigit():
            return float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
            return float(value)
        return None


class Service:
    """A URL that is asked over a transport; no redirect is followed, for it would lead the secret elsewhere."""

    def __init__(self, url: str, transport: Transport, seconds: float) -> None:
        """``seconds`` are for one question altogether."""
        parts = urlsplit(url)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.netloc.encode()
        self._target = (parts.path or "/").encode() + (f"?{parts.query}".encode() if parts.query else b"")
        self._transport, self._seconds = transport, seconds

    async def ask(self, headers: RawHeaders, form: bytes | None = None) -> Said:
        """What it answers to a GET, or to the POST of a form. Raises Unavailable."""
        lines = [(b"host", self._host), (b"accept", b"application/json"), (b"accept-encoding", b"identity"), *headers]
        if form is not None:
            lines.append((b"content-type", b"application/x-www-form-urlencoded"))
        method, wait = ("GET" if form is None else "POST"), self._seconds
        request = UpstreamRequest(method, self.origin, self._target, lines, form, connect=wait, read=wait)
        try:
            with anyio.fail_after(wait):
                return await self._answer(request)
        except TimeoutError:
            raise Unavailable(f"{self.origin} did not answer in time") from None
        except TransportError as error:
            raise Unavailable(f"{self.origin}: {ascii(str(error) or type(error).__name__)[:200]}") from None

    async def _answer(self, request: UpstreamRequest) -> Said:
        response = await self._transport.send(request)
        try:
            return Said(response.status, _object(await _body(response, self.origin), response.status))
        finally:
            with anyio.move_on_after(1.0, shield=True):
                await response.aclose()


async def _body(response: UpstreamResponse, origin: str) -> bytes:
    if get(response.headers, b"content-encoding") not in (None, b"identity"):
        raise Unavailable(f"the answer of {origin} is compressed, which was not asked for")
    received = bytearray()
    async for chunk in response:
        received += chunk
        if len(received) > _LARGEST:
            raise Unavailable(f"the answer of {origin} is too large")
    return bytes(received)


def _object(body: bytes, status: int) -> Mapping[str, Any]:
    """The JSON object of an answer; of one that is no success, an empty one does as well."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return content
    if status == 200:
        raise Unavailable("the answer is no JSON object")
    return {}
