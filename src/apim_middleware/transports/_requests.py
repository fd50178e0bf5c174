"""A request as HTTP/1.1 writes it: the lines given, a ``Host``, and one framing (RFC 9112 §3, §6)."""

import re
from collections.abc import AsyncIterable, Collection
from functools import lru_cache

from apim_middleware._http.headers import NAME, is_token
from apim_middleware._http.lines import NO_BREAKS, Checked
from apim_middleware._http.targets import IDEMPOTENT
from apim_middleware.errors import TransportError
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.transports._origins import parsed
from apim_middleware.types import RawHeaders

_TARGET = re.compile(rb"[!-~\x80-\xff]+")
_ASKS_FOR_TRAILERS = ((b"connection", b"te"), (b"te", b"trailers"))  # RFC 9110 §10.1.4
_LONGEST_NAME = 256
_REMEMBERED = 2048
_seen_names: set[bytes] = set()


def repeatable(request: UpstreamRequest) -> bool:
    """Whether sending it twice does what sending it once does, and all of it is still there to be sent."""
    return request.method in IDEMPOTENT and not isinstance(request.body, AsyncIterable)


def framing(request: UpstreamRequest) -> RawHeaders:
    """The line that says where the body of a request ends; none when it has no body."""
    if request.body is None:
        return []
    length = len(request.body) if isinstance(request.body, bytes) else request.length
    return [(b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)]


def written(request: UpstreamRequest) -> bytes:
    """The head of a request, byte for byte.

    Raises TransportError for a line break or null byte anywhere, for names and methods that are no tokens, a target
    with blanks in it, and for header lines that frame the body a second time.
    """
    lines = request.headers
    whole = b"\r\n".join(map(b": ".join, lines)) if type(lines) is Checked else _looked_over(request, lines)
    if request.body is not None or request.trailers:
        asked = _ASKS_FOR_TRAILERS if request.trailers else ()
        whole = b"\r\n".join([whole, *map(b": ".join, (*asked, *framing(request)))])
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (_method(request.method), request.target, whole)


def _looked_over(request: UpstreamRequest, lines: RawHeaders) -> bytes:
    """The header lines as they are written, with a ``Host``, if they and the target can be written."""
    names = _names(lines)
    if b"content-length" in names or b"transfer-encoding" in names:
        raise TransportError("the request frames its body itself")
    if _TARGET.fullmatch(request.target) is None:
        raise TransportError("the request target cannot be written")
    parts = [b": ".join(line) for line in lines]
    if b"host" not in names:
        parts.insert(0, b"host: " + parsed(request.origin).authority)
    whole = b"\r\n".join(parts)
    if whole.translate(None, NO_BREAKS) != b"\r\n" * (len(parts) - 1):
        raise TransportError("a header value of the request holds a line break or a null byte")
    return whole


def _names(lines: RawHeaders) -> Collection[bytes]:
    """The names of these lines, in lower case. Raises TransportError for one that is none."""
    names = list(map(NAME, lines))
    return names if _seen_names.issuperset(names) else [_checked(name) for name in names]


def _checked(name: bytes) -> bytes:
    """The name in lower case, if it is one; those written so are remembered, up to a bound."""
    if len(name) > _LONGEST_NAME or not is_token(name):
        raise TransportError("a header name of the request cannot be written")
    lower = name.lower()
    if lower == name:
        if len(_seen_names) >= _REMEMBERED:  # callers invent names; those of the others are back at once
            _seen_names.clear()
        _seen_names.add(name)
    return lower


@lru_cache(maxsize=256)
def _method(method: str) -> bytes:
    raw = method.encode("latin-1", "replace")
    if not is_token(raw):
        raise TransportError("the request method cannot be written")
    return raw
