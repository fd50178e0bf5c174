"""A stack that judges for another server: ``ForwardAuth`` answers its subrequests with yes or no.

The front server carries the bytes; before each request it asks here, and tells of the request in header fields.
"""

import re
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal, NamedTuple
from urllib.parse import unquote

from apim_middleware._config import Configured, shown
from apim_middleware._http import forwarded, hops
from apim_middleware._http.client_certificate import KEY as CERTIFICATE
from apim_middleware._http.headers import get, get_all, header_name, is_token
from apim_middleware._networks import trust_in
from apim_middleware._ring import refusal_messages
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.serving._verdict import STATUS, Verdict, Yes, as_denial
from apim_middleware.types import ASGIApp, Layer, Message, RawHeaders, Receive, Scope, Send

_TOLD = (forwarded.FOR, forwarded.PROTO)
_FRAMING = (b"content-length", b"expect", b"host", STATUS)
_OWN = (KEY, forwarded.PEER, CERTIFICATE, "subprotocols")
"""What a scope says of the front server itself, beside the TLS extension with its certificate."""
_SCHEMES = ("http", "https")
_NO_LETTER = re.compile(rb"[^a-z0-9]")
_METHOD = re.compile(rb"[A-Z][A-Z0-9!#$%&'*+\-.^_`|~]{0,31}")
_TARGET = re.compile(rb"/[!-\"$-~]*|\*")
_A_LAYER = "Give a Stack, a policy, or a function from app to app"
_RESERVED = frozenset(
    b"cache-control connection content-length content-type date host keep-alive te trailer transfer-encoding upgrade "
    b"x-auth-status".split()
)


class _Form(NamedTuple):
    """In which fields a front server tells of method, target and host; None where the request itself has them."""

    method: bytes | None
    target: bytes | None
    host: bytes | None


_FORMS = {
    "x-forwarded": _Form(b"x-forwarded-method", b"x-forwarded-uri", forwarded.HOST),
    "x-original": _Form(b"x-original-method", b"x-original-uri", forwarded.HOST),
    "path": _Form(None, None, None),
}


@dataclass(frozen=True)
class ForwardAuth(Configured):
    """Answer a front server's question whether a request may pass; an ASGI app.

    For Caddy's ``forward_auth``, nginx's ``auth_request``, Traefik's ForwardAuth and Envoy's HTTP ext_authz. The
    request is judged by the layer as if it had come here itself: its method, target, host, scheme, client address and
    headers are those the front server tells of; the certificate it may show is its own, and no client's. A request the
    layer lets through is answered 200, with the headers named here as its policies have set them, for the front server
    to put on the request. Any other answer is the client's: 401 with its challenge, 403, 429 with ``Retry-After``.

    The front server sends no body: a policy that asks for one gets 500 ``body-not-told``. Refusals of its own: 403
    ``peer-not-trusted`` for whoever is not the front server, 400 ``forwarding-incomplete`` and
    ``forwarding-ambiguous`` when it does not tell everything, or something twice, 500 ``answered-not-judged`` when a
    policy answers 2xx itself, for that must not open the door. It is the outermost: behind other policies the fields
    have been set aside.
    """

    layer: Layer
    """What judges: a ``Stack``, a policy, or any other layer."""

    _: KW_ONLY

    trusted: str | tuple[str, ...]
    """Where the front server connects from: addresses, networks, ranges, ``"unix"`` for a local socket."""

    headers: tuple[str, ...] = ()
    """Request headers that policies set, to be put on the answer: all of them, and empty when no policy has set one.

    They are taken from what the client sends before anybody judges. A client's ``X_User_Id`` beside ``X-User-Id``
    would go past the front server and be the same to CGI, WSGI and PHP: who sends one gets 400 ``header-ambiguous``.
    """

    told_by: Literal["x-forwarded", "x-original", "path"] = "x-forwarded"
    """How the front server tells of the request.

    ``x-forwarded``: ``X-Forwarded-Method``, ``-Uri`` and ``-Host`` (Caddy, Traefik). ``x-original``:
    ``X-Original-Method``, ``X-Original-URI`` and ``X-Forwarded-Host`` (nginx, when told to). ``path``: method, host and
    path are the request's own, behind ``prefix`` (Envoy). All tell of the client by ``X-Forwarded-For`` and ``-Proto``.
    """

    prefix: str = ""
    """What stands before the path when ``told_by="path"``: Envoy's ``path_prefix``."""

    refuse_with: Literal["status", "403"] = "status"
    """What a refusal looks like. nginx passes on 401 and 403 alone and makes 500 of all else: with ``"403"`` these are
    answered 403, and ``X-Auth-Status`` says what they were.
    """

    def __post_init__(self) -> None:
        """It must be known who asks; what is told must be names."""
        if not self.trusted:
            raise self.mistake("trusted", "names nobody", "Give the address your front server connects from")
        if self.prefix and (self.told_by != "path" or not self.prefix.startswith("/") or self.prefix.endswith("/")):
            raise self.mistake("prefix", "stands before no path", 'Write told_by="path", prefix="/auth"')
        for name in self.headers:
            if not is_token(name.encode("latin-1", "replace")) or name.lower().encode() in _RESERVED:
                raise self.mistake("headers", f"holds {name!r}, which cannot be told", 'Give names such as "X-User-Id"')
        _ = self._trust, self._judge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._judge(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, send)
        elif (await receive())["type"] == "websocket.connect":  # a front server has passed the handshake itself on
            await self._answer(scope, as_denial(scope, send))

    async def _answer(self, scope: Scope, send: Send) -> None:
        answer = Verdict(send, scope, carried_as=self.refuse_with)
        try:
            inner = self._original(scope)
            answer.begin(inner)
            await self._judge(inner, _no_body, answer.send)
        except Refusal as refusal:
            for message in refusal_messages(refusal, {**scope, "type": "http"}):
                await answer.send(message)

    # The request that is asked about

    def _original(self, scope: Scope) -> Scope:
        """The scope the request would have had if it had come here itself. Raises Refusal."""
        lines = _lines(scope)
        if not self._trust.peer(scope).trusted:
            raise Refusal(403, "peer-not-trusted", "Only a trusted front server may ask here.")
        self._refuse_twins(lines)
        form = _FORMS[self.told_by]
        method = scope.get("method", "GET").encode() if form.method is None else _only(lines, form.method)
        target = self._own_target(scope) if form.target is None else _only(lines, form.target)
        host = get(lines, b"host") if form.host is None else self._host(_only(lines, form.host))
        if _METHOD.fullmatch(method) is None or _TARGET.fullmatch(target) is None or host is None:
            raise Refusal(400, "forwarding-incomplete", "The front server tells of no request that could be judged.")
        raw_path, _, query = target.partition(b"?")
        client, scheme = self._sender(lines)
        extensions = {name: value for name, value in (scope.get("extensions") or {}).items() if name != "tls"}
        return {
            **{name: value for name, value in scope.items() if name not in _OWN},
            "type": "http", "method": method.decode(), "scheme": scheme, "client": client, "root_path": "",
            "path": unquote(raw_path.decode()), "raw_path": raw_path, "query_string": query,
            "headers": self._headers(lines, host), "extensions": extensions,
        }  # fmt: skip

    def _refuse_twins(self, lines: RawHeaders) -> None:
        """Refuse what an app would take for a header that is vouched for; the front server replaces that one only."""
        for name, _ in lines:
            if name not in self._names and _NO_LETTER.sub(b"-", name) in self._spelt:
                raise Refusal(400, "header-ambiguous", "A header could be taken for one that is only set here.")

    def _own_target(self, scope: Scope) -> bytes:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        prefix, query = self.prefix.encode(), scope.get("query_string")
        if not raw.startswith(prefix + b"/"):
            raise Refusal(400, "forwarding-incomplete", f"The path does not begin with {self.prefix}/.")
        return raw[len(prefix) :] + (b"?" + query if query else b"")

    def _host(self, host: bytes) -> bytes | None:
        return forwarded.host_header(host.decode("latin-1"))

    def _sender(self, lines: RawHeaders) -> tuple[tuple[str, int] | None, str]:
        """Client and scheme, as the trusted hops tell of them. Raises Refusal."""
        fields = {name: get_all(lines, name) for name in _TOLD}
        for name, values in fields.items():
            if not values:
                raise _incomplete(name)
        client, scheme, _ = forwarded.from_x_forwarded(fields, self._trust.judge)
        if scheme not in _SCHEMES:
            raise _incomplete(forwarded.PROTO)
        if client is None:
            raise _incomplete(forwarded.FOR)
        return client, scheme

    def _headers(self, lines: RawHeaders, host: bytes) -> RawHeaders:
        """The headers of the client, without those that would speak for the policies."""
        form = _FORMS[self.told_by]
        aside = {*_FRAMING, *self._names, *(name for name in form if name is not None)}
        kept = hops.end_to_end(lines, without=aside)
        kept = [line for line in kept if not line[0].startswith((b"x-forwarded-", b"x-original-"))]
        return [(b"host", host), *kept]

    # What is found out once

    @cached_property
    def _names(self) -> tuple[bytes, ...]:
        return tuple(map(header_name, self.headers))

    @cached_property
    def _spelt(self) -> frozenset[bytes]:
        """The names as CGI tells them apart (RFC 3875 §4.1.18)."""
        return frozenset(_NO_LETTER.sub(b"-", name) for name in self._names)

    @cached_property
    def _trust(self) -> forwarded.Trust:
        return trust_in(self, self.trusted, "lets everybody make up requests")

    @cached_property
    def _judge(self) -> ASGIApp:
        try:
            judge = self.layer(Yes(self._names))
        except ConfigError:  # a TypeError too, of the layer's own
            raise
        except TypeError as error:
            raise self.mistake("layer", f"cannot be put in front of an app: {error}", _A_LAYER) from error
        if not callable(judge):
            raise self.mistake("layer", f"makes {shown(judge)} of an app", _A_LAYER)
        return judge


def _lines(scope: Scope) -> RawHeaders:
    """The header lines, those included that the hygiene of policies in front has set aside."""
    exchange = Exchange.of(scope)
    lines = [(name.lower(), value) for name, value in scope["headers"]]
    return lines if exchange is None else [*lines, *exchange.forwarded]


def _only(lines: RawHeaders, name: bytes) -> bytes:
    values = get_all(lines, name)
    if len(values) > 1:
        raise Refusal(400, "forwarding-ambiguous", f"The front server tells {name.decode()} more than once.")
    if not values:
        raise _incomplete(name)
    return values[0]


def _incomplete(name: bytes) -> Refusal:
    return Refusal(400, "forwarding-incomplete", f"The front server does not tell {name.decode()}.")


async def _no_body() -> Message:
    raise Refusal(500, "body-not-told", "A policy needs the request's body, which the front server keeps.")
