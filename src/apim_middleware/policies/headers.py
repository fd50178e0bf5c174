"""Header fields set or taken away, on the request or on the response (Azure's set-header)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from apim_middleware._config import awaits
from apim_middleware._functions import needs
from apim_middleware._http.headers import header_name, header_value
from apim_middleware._http.hops import FRAMING
from apim_middleware.documentation import Answer, Documentation, Told
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import RawHeaders

log = logging.getLogger("apim_middleware")

_RESERVED = FRAMING.union(
    b"host sec-websocket-accept sec-websocket-extensions sec-websocket-key sec-websocket-protocol "
    b"sec-websocket-version".split()
)
"""What belongs to one connection (RFC 9110 §7.6.1, RFC 9112 §6, RFC 6455 §11.3), and the host, which is verified."""

_SINGLE = frozenset(
    b"age authorization content-location content-type cookie date etag expires from if-modified-since if-range "
    b"if-unmodified-since last-modified location max-forwards origin proxy-authorization range referer retry-after "
    b"server user-agent".split()
)
"""Fields that stand alone: two of them would be read differently by different neighbours (RFC 9110 §5.3)."""

_Exists: TypeAlias = Literal["override", "append", "skip"]
_Function: TypeAlias = Callable[[Exchange], str | None]
_Make: TypeAlias = Callable[[Exchange], RawHeaders]


@dataclass(frozen=True, kw_only=True)
class SetHeader(Policy):
    """Set a header field of every request or every response.

    Framing, hop-by-hop and WebSocket handshake fields and ``Host`` cannot be set, and two lines of a field that must
    stand alone cannot be asked for: ConfigError. A function's value that may not stand in a header (a control
    character, text outside Latin-1) is logged and refused with 400 ``bad-header-value``; it never becomes two headers.
    A function that raises, or gives something else than text, is logged and refused with 500 ``policy-failed``.
    Follows Azure's ``set-header``, but for several values always being lines of their own.
    """

    guards = False

    name: str
    """The field's name."""

    value: str | tuple[str, ...] | Callable[[Exchange], str | None] = field(repr=False)
    """The text, several texts for several lines, or a plain function of the exchange, which has None for no text."""

    on: Literal["request", "response"]
    """Whose header it is."""

    exists: _Exists = "override"
    """What happens to lines of this name: they give way (also to a function's None), stay beside it, or win over it."""

    @stated
    def documentation(self) -> Documentation:
        """The field, where it is one of responses."""
        refused = (Answer(400, ("bad-header-value",)),) if callable(self.value) else ()
        return Documentation(answers=refused, headers=(Told(self.name.lower()),) if self.on == "response" else ())

    @stated
    def needs(self) -> frozenset[str]:
        """What the function relies on, when it is one of ``by``."""
        return needs(self.value) if callable(self.value) else frozenset()

    def __post_init__(self) -> None:
        """The name must be free to set, and literal text must fit a header."""
        name = _free_name(self)
        several = self.exists == "append" or (isinstance(self.value, tuple) and len(self.value) > 1)
        if name in _SINGLE and several:
            raise self.mistake("name", "is a field that stands alone", 'Give one value and exists="override" or "skip"')
        if callable(self.value):
            if awaits(self.value):
                raise self.mistake("value", "must be awaited", "Give a plain function")
            return
        try:
            lines = _lines(name, self.value)
        except ValueError as error:
            raise self.mistake("value", f"cannot be sent: {error}", "Give printable Latin-1 text") from None
        if not lines:
            raise self.mistake("value", "holds nothing", "Use RemoveHeader to take a header away")

    def bind(self, env: Env) -> "_OnRequest | _OnResponse":
        """An object with the one hook that is needed."""
        name = header_name(self.name)
        if callable(self.value):
            make = _made_by(name, self.value)
            return (_MakeOnRequest if self.on == "request" else _MakeOnResponse)(name, make, self.exists)
        lines = _lines(name, self.value)
        if self.on == "response":
            return _AppendOnResponse(lines) if self.exists == "append" else _SetOnResponse(name, lines, self.exists)
        if self.exists == "override" and len(lines) == 1:
            return _ReplaceOnRequest(lines[0])
        return _MakeOnRequest(name, lambda exchange: lines, self.exists)


@dataclass(frozen=True, kw_only=True)
class RemoveHeader(Policy):
    """Take a header field away from every request or every response.

    Framing, hop-by-hop and WebSocket handshake fields and ``Host`` cannot be taken away: ConfigError.
    Follows Azure's ``set-header`` with ``exists-action="delete"``.
    """

    guards = False

    name: str
    """The field's name; every line of it goes."""

    on: Literal["request", "response"]
    """Whose header it is."""

    def __post_init__(self) -> None:
        """The name must be free to take away."""
        _free_name(self)

    def bind(self, env: Env) -> "_RemoveFromRequest | _RemoveFromResponse":
        """An object with the one hook that is needed."""
        hooks = _RemoveFromRequest if self.on == "request" else _RemoveFromResponse
        return hooks(header_name(self.name))


def _free_name(policy: SetHeader | RemoveHeader) -> bytes:
    try:
        name = header_name(policy.name)
    except ValueError:
        raise policy.mistake("name", "is not a header name", "Use letters, digits and hyphens") from None
    if name in _RESERVED:
        raise policy.mistake(
            "name", "belongs to the connection, not to policies", "Leave it to the server and the proxy"
        )
    return name


def _lines(name: bytes, value: str | tuple[str, ...]) -> RawHeaders:
    return [(name, header_value(each)) for each in ((value,) if isinstance(value, str) else value)]


class _RemoveFromRequest:
    """Has no ``on_response``, so that a ring in which nobody looks at responses need not either."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def on_request(self, exchange: Exchange) -> None:
        exchange.take_header(self._name)


class _RemoveFromResponse:
    def __init__(self, name: bytes) -> None:
        self._name = name

    def on_response(self, exchange: Exchange) -> None:
        head = exchange.shared.response
        if head is not None:
            head.remove(self._name)


class _MakeOnRequest:
    """Has no ``on_response`` either."""

    def __init__(self, name: bytes, make: _Make, exists: _Exists) -> None:
        self._name, self._make, self._exists = name, make, exists

    def on_request(self, exchange: Exchange) -> None:
        if self._exists == "skip" and exchange.header(self._name) is not None:
            return
        lines = self._make(exchange)
        if self._exists == "override":
            exchange.take_header(self._name)
        for line in lines:
            exchange.put_line(line)


class _ReplaceOnRequest:
    """What ``_MakeOnRequest`` does as a rule: one line that is known beforehand."""

    def __init__(self, line: tuple[bytes, bytes]) -> None:
        self._line = line

    def on_request(self, exchange: Exchange) -> None:
        exchange.replace_line(self._line)


class _MakeOnResponse:
    def __init__(self, name: bytes, make: _Make, exists: _Exists) -> None:
        self._name, self._make, self._exists = name, make, exists

    def on_response(self, exchange: Exchange) -> None:
        head = exchange.shared.response
        if head is None or (self._exists == "skip" and head.get(self._name) is not None):
            return
        lines = self._make(exchange)
        if self._exists == "override":
            head.remove(self._name)
        head.headers += lines


class _SetOnResponse:
    """Lines that are known beforehand, in the place of others of their name or only where there is none."""

    def __init__(self, name: bytes, lines: RawHeaders, exists: _Exists) -> None:
        self._name, self._lines, self._skips = name, lines, exists == "skip"

    def on_response(self, exchange: Exchange) -> None:
        head = exchange.shared.response
        if head is None:
            return
        ours = self._name
        for name, _ in head.headers:
            if name == ours:
                if self._skips:
                    return
                head.remove(ours)
                break
        head.headers += self._lines


class _AppendOnResponse:
    """Lines that are known beforehand, beside whatever there is."""

    def __init__(self, lines: RawHeaders) -> None:
        self._lines = lines

    def on_response(self, exchange: Exchange) -> None:
        head = exchange.shared.response
        if head is not None:
            head.headers += self._lines


_OnRequest: TypeAlias = _MakeOnRequest | _ReplaceOnRequest
_OnResponse: TypeAlias = _MakeOnResponse | _SetOnResponse | _AppendOnResponse


def _made_by(name: bytes, function: _Function) -> _Make:
    """The line a function makes of an exchange, or none."""

    def lines(exchange: Exchange) -> RawHeaders:
        value = function(exchange)
        if value is None:
            return []
        try:
            return _lines(name, (value,))
        except ValueError as error:
            log.warning("no value for %s: %s", name.decode(), error)
            raise Refusal(400, "bad-header-value", "A header made from this request cannot be sent.") from None

    return lines
