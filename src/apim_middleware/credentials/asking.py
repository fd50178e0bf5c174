"""Questions to services that give secrets and tokens: one request, one small JSON object, in bounded time."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from apim_middleware._jose.documents import Address, BadDocument, Question, answered
from apim_middleware.credentials.renewing import Unavailable
from apim_middleware.errors import TransportError
from apim_middleware.protocols import Transport
from apim_middleware.types import RawHeaders

_FORM = (b"content-type", b"application/x-www-form-urlencoded")
_JSON = (b"accept", b"application/json")
_LARGEST = 256 * 1024


class Said(NamedTuple):
    """What a service answered."""

    status: int
    content: Mapping[str, Any]

    def __repr__(self) -> str:
        """The status; what else is said may be a secret."""
        return f"<Said: {self.status}>"

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
        self.origin: str = Address.of(url).origin
        self._url, self._transport, self._seconds = url, transport, seconds

    async def ask(self, headers: RawHeaders, form: bytes | None = None) -> Said:
        """What it answers to a GET, or to the POST of a form. Raises Unavailable."""
        lines = [_JSON] if form is None else [_JSON, _FORM]
        question = Question(self._url, [*lines, *headers], self._seconds, form, _LARGEST)
        try:
            document = await answered(self._transport, question)
        except TimeoutError:
            raise Unavailable(f"{self.origin} did not answer in time") from None
        except (BadDocument, TransportError) as error:
            raise Unavailable(f"{self.origin}: {ascii(str(error) or type(error).__name__)[:200]}") from None
        return Said(document.status, _object(document.body, document.status))


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
