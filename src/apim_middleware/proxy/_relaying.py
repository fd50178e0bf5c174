"""What goes down to the client of an upstream's answer, or why there is none."""

from email.utils import formatdate

from apim_middleware._http import hops
from apim_middleware._http.headers import get_all, without
from apim_middleware._http.lines import checked
from apim_middleware._ring import refusal_messages
from apim_middleware.errors import Refusal, TransportError, UpstreamBroken, refusal_of
from apim_middleware.exchange import Exchange
from apim_middleware.protocols import UpstreamResponse
from apim_middleware.proxy._trouble import Trouble
from apim_middleware.types import RawHeaders, Scope, Send

_BODILESS = (204, 304)
_NOMINATES_NOTHING = (None, b"keep-alive", b"close")


async def refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    """Answer with a refusal."""
    for message in refusal_messages(refusal, scope):
        await send(message)


async def fail(error: TransportError | Refusal, trouble: Trouble, scope: Scope, send: Send) -> None:
    """Answer that the upstream has given no answer; traces and the access log say why, and so does the log."""
    await refuse(note(error, trouble, scope), scope, send)


def note(error: TransportError | Refusal, trouble: Trouble, scope: Scope) -> Refusal:
    """Tell of a failure whoever can be told, and give what the client may be told.

    A refusal is no fault of the upstream, and nothing the log needs: clients can cause as many as they like.
    """
    if isinstance(error, TransportError):
        refusal = refusal_of(error)
        trouble.failed(error)
        error.told = True
    else:
        refusal = error
    exchange = Exchange.of(scope)
    if exchange is not None:
        exchange.attributes["apim.upstream.error"] = refusal.code
    return refusal


def relayed(status: int, lines: RawHeaders, index: dict[bytes, bytes], via: tuple[bytes, bytes]) -> RawHeaders:
    """The header lines for the client, ``via`` behind them; ``index`` is ``dict(lines)``.

    A response that does not say when it was made is of now (RFC 9110 §6.6.1).
    """
    if len(index) == len(lines) and index.get(b"connection") in _NOMINATES_NOTHING:  # as nearly always
        headers = [*lines, via]
        for name in hops.HOP_BY_HOP.intersection(index):
            headers.remove((name, index[name]))
    else:
        headers = [*hops.end_to_end(lines, without=hops.nominated(lines)), via]
    if b"date" not in index:
        headers.append((b"date", formatdate(usegmt=True).encode()))
    if status in _BODILESS:  # some servers take the length for a promise they have to keep
        return without(headers, b"content-length")
    return headers


def looked_over(response: UpstreamResponse, *, head_only: bool) -> tuple[RawHeaders, dict[bytes, bytes], int | None]:
    """The lines of a head that was not looked at, an index of them, and how long the body has to be, when it is known.

    Raises UpstreamBroken.
    """
    status = response.status
    if not 200 <= status <= 599:
        raise UpstreamBroken(f"the upstream answered with status {status}")
    try:
        lines = checked(response.headers)
    except ValueError as error:
        raise UpstreamBroken(f"the upstream sent {error}") from None
    lengths = get_all(lines, b"content-length")
    if len(lengths) > 1:
        raise UpstreamBroken("the length of the response is said twice")
    if lengths and not (lengths[0].isdigit() and len(lengths[0]) <= 19):
        raise UpstreamBroken("the length of the response is no number")
    if head_only or status in _BODILESS:
        return lines, dict(lines), 0
    return lines, dict(lines), int(lengths[0]) if lengths else None
