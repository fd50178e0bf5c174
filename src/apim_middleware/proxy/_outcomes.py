"""How an upstream fared with a request: the kinds of errors, and what its ``Retry-After`` asks for."""

from typing import Literal, TypeAlias

from apim_middleware._http.dates import http_date
from apim_middleware._http.headers import get
from apim_middleware.errors import ConnectFailed, NoConnectionFree, TransportError, UpstreamBroken, UpstreamTimeout
from apim_middleware.types import RawHeaders

Kind: TypeAlias = Literal["connect", "timeout", "broken"]
"""No connection was made; it took too long; it broke off or did not speak HTTP."""

KINDS: tuple[Kind, ...] = ("connect", "timeout", "broken")

_CLASSES: tuple[tuple[type[TransportError], Kind | None], ...] = (
    (NoConnectionFree, None),
    (ConnectFailed, "connect"),
    (UpstreamTimeout, "timeout"),
    (UpstreamBroken, "broken"),
)


def kind_of(error: TransportError) -> Kind | None:
    """What kind of error it is; None when it says nothing of the upstream: the fault is the request's, or our own."""
    return next((kind for cls, kind in _CLASSES if isinstance(error, cls)), None)


def retry_after(headers: RawHeaders, now: float) -> float | None:
    """The seconds a response asks to wait (RFC 9110 §10.2.3), at least 0; None when it says nothing that can be read.

    ``now`` is in seconds since 1970-01-01 UTC.
    """
    value = get(headers, b"retry-after")
    if value is None:
        return None
    if value.isdigit():
        return float(value[:9])
    moment = http_date(value, now)
    return None if moment is None else max(0.0, moment - now)
