"""What an upstream says of itself in its responses, said as the public knows it: ``RewriteLocation``."""

import re
from dataclasses import dataclass
from urllib.parse import quote

from apim_middleware._http.locations import (
    Base,
    base_of,
    origin_base,
    path_base_of,
    rewritten,
    rewritten_cookie,
    rewritten_refresh,
)
from apim_middleware._http.templates import UNESCAPED
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import Scope

_POINTING = frozenset((b"location", b"content-location", b"refresh", b"set-cookie"))
_DOMAIN = re.compile(r"\.?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_WEB = {"ws": "http", "wss": "https"}


@dataclass(frozen=True, kw_only=True)
class RewriteLocation(Policy):
    """Make redirects and cookies of an upstream those of the public: nobody is sent to a host they cannot reach.

    In ``Location``, ``Content-Location`` and the URL of ``Refresh`` a reference below one of the ``upstream`` bases
    becomes the same below the public base. In ``Set-Cookie`` a ``Domain`` that covers an upstream's host and not the
    public one goes (the cookie is then for the public host alone), and a ``Path`` below the base moves along, but for
    ``__Host-`` cookies. All else stays byte for byte: other hosts, relative references, attributes nobody knows.

    It refuses nothing. Follows nginx's ``proxy_redirect``, ``proxy_cookie_domain`` and ``proxy_cookie_path``, and the
    header half of Azure's ``redirect-content-urls``.
    """

    guards = False

    upstream: str | tuple[str, ...]
    """The base URLs to hide: ``"http://orders.internal:8080/api"``; what a ``Proxy`` was given."""

    public: str | None = None
    """What stands in their place: ``"https://api.example.com/orders"``, or a path alone, ``"/orders"``, at the scheme
    and host that the client asked for; None, the default, is that and the path where the app is mounted."""

    cookie_domain: str | None = None
    """The ``Domain`` cookies get in the place of the upstream's; None, the default, for none."""

    @stated
    def needs(self) -> frozenset[str]:
        """Scheme and host must be those the client used, which ``TrustedProxies`` knows."""
        return frozenset() if self.public is not None and "://" in self.public else frozenset({"client"})

    def __post_init__(self) -> None:
        """The bases must be some."""
        if not self.upstream:
            raise self.mistake("upstream", "names nothing to hide", 'Write upstream="http://orders.internal:8080"')
        if self.cookie_domain is not None and _DOMAIN.fullmatch(self.cookie_domain) is None:
            raise self.mistake("cookie_domain", "is no domain", 'Write "example.com", or leave it out')
        self._compiled()

    def bind(self, env: Env) -> "_Rewriting":
        """The bases, taken apart."""
        return self._compiled()

    def _compiled(self) -> "_Rewriting":
        given = (self.upstream,) if isinstance(self.upstream, str) else self.upstream
        if any("@" in each for each in given):  # which no message may show
            raise ConfigError("RewriteLocation", "upstream", "holds a user name or password", "Write the URL without")
        try:
            upstreams = sorted(map(base_of, given), key=lambda base: -len(base.path))
        except ValueError as error:
            cure = 'Write upstream="http://orders.internal:8080/api"'
            raise self.mistake("upstream", f"cannot be found in responses: {error}", cure) from None
        try:
            public = None if self.public is None else _public_base(self.public)
        except ValueError as error:
            cure = 'Write public="https://api.example.com/orders", or public="/orders"'
            raise self.mistake("public", f"cannot be put in its place: {error}", cure) from None
        return _Rewriting(upstreams, public, self.cookie_domain)


def _public_base(text: str) -> Base:
    return path_base_of(text) if text.startswith("/") else base_of(text)


class _Rewriting:
    """Looks at each head for fields that point somewhere; most have none."""

    def __init__(self, upstreams: list[Base], public: Base | None, cookie_domain: str | None) -> None:
        self._upstreams, self._public = upstreams, public
        self._domain = None if cookie_domain is None else cookie_domain.encode()

    def on_response(self, exchange: Exchange) -> None:
        head = exchange.shared.response
        if head is None:
            return
        for name, _ in head.headers:
            if name in _POINTING:
                break
        else:
            return
        public = self._public_of(exchange)
        head.headers = [
            (name, self._rewritten(name, value, public)) if name in _POINTING else (name, value)
            for name, value in head.headers
        ]

    def _public_of(self, exchange: Exchange) -> Base:
        public, scope = self._public, exchange.scope
        if public is not None and public.host:
            return public
        scheme: str = scope.get("scheme", "http")
        path = _mounted_at(scope) if public is None else public.path
        return origin_base(_WEB.get(scheme, scheme), exchange.header(b"host") or b"", path)

    def _rewritten(self, name: bytes, value: bytes, public: Base) -> bytes:
        """The value with the first upstream it speaks of hidden."""
        if name == b"set-cookie":
            return rewritten_cookie(value, self._upstreams, public, self._domain)
        rewrite = rewritten_refresh if name == b"refresh" else rewritten
        changes = (rewrite(value, upstream, public) for upstream in self._upstreams)
        return next((changed for changed in changes if changed is not None), value)


def _mounted_at(scope: Scope) -> bytes:
    root: str = scope.get("root_path", "")
    return quote(root.rstrip("/"), safe=UNESCAPED).encode()
