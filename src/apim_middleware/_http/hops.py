"""What belongs to one hop of a message's way, and what a proxy says of its own (RFC 9110 §7.6, RFC 7239)."""

from collections.abc import Iterable

from apim_middleware._http.addresses import address_text, parse_address
from apim_middleware._http.headers import get, get_all, list_members, without
from apim_middleware.types import RawHeaders

HOP_BY_HOP = frozenset(
    b"connection http2-settings keep-alive proxy-authenticate proxy-authentication-info proxy-authorization "
    b"proxy-connection te trailer transfer-encoding upgrade".split()
)
"""Fields for the next recipient alone, whether or not ``Connection`` names them."""

FRAMING = frozenset(
    b"connection content-length keep-alive proxy-connection te trailer transfer-encoding upgrade".split()
)
"""What a message says of its own end and its connection: nothing else can be said in these."""

_LASTING = frozenset(
    b"accept age allow authorization baggage cache-control cookie date etag expect expires forwarded from host "
    b"last-modified location max-forwards ocp-apim-subscription-key origin pragma priority proxy-status range referer "
    b"retry-after server set-cookie te traceparent tracestate transfer-encoding upgrade user-agent vary via "
    b"www-authenticate "
    b"x-api-key x-real-ip".split()
)
_NEVER_TRAILING = HOP_BY_HOP.union(
    b"age alt-svc authorization cache-control clear-site-data content-disposition content-encoding content-length "
    b"content-location content-range content-security-policy content-security-policy-report-only content-type cookie "
    b"cookie2 date expect expires forwarded host location max-forwards pragma range refresh retry-after set-cookie "
    b"set-cookie2 status strict-transport-security vary via warning www-authenticate x-content-type-options "
    b"x-frame-options".split()
)
_NEVER_TRAILING_PREFIXES = (b"access-control-", b"if-", b"proxy-", b"sec-", b"x-forwarded-")
_LASTING_PREFIXES = (b"accept-", b"access-control-", b"content-", b"if-", b"sec-", b"x-forwarded-")


def carries(name: bytes) -> bool:
    """Whether a field of this lower-case name can hold something of our own, such as a key."""
    return name not in FRAMING and name != b"host"


def nominated(headers: RawHeaders) -> frozenset[bytes]:
    """The fields that ``Connection`` declares to be for the next recipient alone.

    Never those meant for every recipient, which must not be named there (RFC 9110 §7.6.1): a caller who could
    nominate ``Authorization`` or ``X-Forwarded-For`` could make a proxy take away what the upstream relies on.
    """
    options = set(list_members(headers, b"connection")) - _LASTING
    return frozenset(name for name in options if not name.startswith(_LASTING_PREFIXES))


def end_to_end(headers: RawHeaders, *, without: Iterable[bytes] = ()) -> RawHeaders:
    """The fields that travel on."""
    stay = HOP_BY_HOP.union(without)
    return [pair for pair in headers if pair[0] not in stay]


def takes_trailers(headers: RawHeaders) -> bool:
    """Whether the sender of a request wants the trailers of its response (RFC 9110 §10.1.4)."""
    return b"trailers" in list_members(headers, b"te")


def may_trail(name: bytes) -> bool:
    """Whether a field may stand behind the body: one that frames, routes, controls or explains may not (§6.5.1)."""
    return name not in _NEVER_TRAILING and not name.startswith(_NEVER_TRAILING_PREFIXES)


def announced(headers: RawHeaders) -> RawHeaders:
    """The ``Trailer`` field for the next recipient: those of the names there that may trail (§6.6.2)."""
    names = [name for name in list_members(headers, b"trailer") if may_trail(name)]
    return [(b"trailer", b", ".join(names))] if names else []


def passed(headers: RawHeaders, pseudonym: bytes) -> bool:
    """Whether the message went through the proxy of this name before, as ``Via`` tells (RFC 9110 §7.6.3)."""
    name = pseudonym.lower()
    return any(
        name in line.lower() and name in map(_received_by, line.split(b",")) for line in get_all(headers, b"via")
    )


def _received_by(member: bytes) -> bytes:
    words = member.split(maxsplit=2)
    return words[1].lower() if len(words) > 1 else b""


def ends_here(headers: RawHeaders) -> bool:
    """Whether ``Max-Forwards`` lets the message go no further (RFC 9110 §7.6.2)."""
    left = get(headers, b"max-forwards") or b"no end"
    return not left.strip(b"0")


def one_hop_fewer(headers: RawHeaders) -> RawHeaders:
    """``Max-Forwards`` one less, where it counts hops at all (RFC 9110 §7.6.2)."""
    left = get(headers, b"max-forwards") or b""
    if not left.isdigit() or len(left) > 9 or int(left) == 0:
        return headers
    return [*without(headers, b"max-forwards"), (b"max-forwards", b"%d" % (int(left) - 1))]


def one_cookie(headers: RawHeaders) -> RawHeaders:
    """The cookies on one line: HTTP/2 may split them over several, HTTP/1.1 may not (RFC 9113 §8.2.3)."""
    cookies = get_all(headers, b"cookie")
    return headers if len(cookies) < 2 else [*without(headers, b"cookie"), (b"cookie", b"; ".join(cookies))]


def forwarding_fields(form: str, client: str | None, scheme: str, host: bytes | None) -> Iterable[tuple[bytes, bytes]]:
    """What a proxy tells of its client: ``form`` is ``x-forwarded``, ``forwarded`` (RFC 7239), ``both`` or ``none``.

    A client whose address is no IP address stays unnamed.
    """
    parsed = None if client is None else parse_address(client)
    address = None if parsed is None else address_text(parsed)
    fields: RawHeaders = []
    if form in ("x-forwarded", "both"):
        fields += _x_forwarded(address, scheme, host)
    if form in ("forwarded", "both"):
        fields.append((b"forwarded", _forwarded(address, scheme, host)))
    return fields


def _x_forwarded(address: str | None, scheme: str, host: bytes | None) -> RawHeaders:
    fields = [(b"x-forwarded-proto", scheme.encode("latin-1"))]
    if address is not None:
        fields.append((b"x-forwarded-for", address.encode()))
    if host is not None:
        fields.append((b"x-forwarded-host", host))
    return fields


def _forwarded(address: str | None, scheme: str, host: bytes | None) -> bytes:
    node = "unknown" if address is None else f'"[{address}]"' if ":" in address else address
    element = f"for={node};proto={scheme}".encode("latin-1")
    return element if host is None else b'%b;host="%b"' % (element, host.replace(b"\\", b"\\\\").replace(b'"', b'\\"'))
