"""Who is calling, told to the upstream in request headers: plain, or signed."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote

from apim_middleware._http.headers import header_name
from apim_middleware._http.hygiene import FORWARDING
from apim_middleware._jose.claims import Path, members, names_a_claim, steps
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated
from apim_middleware.types import RawHeaders

_Words: TypeAlias = Callable[[Exchange], Iterable[str]]
"""What stands in a header: nothing, one word, or several."""

_RESERVED = FORWARDING | frozenset(
    b"authorization connection content-length content-type cookie expect host keep-alive proxy-authorization "
    b"proxy-connection sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version te "
    b"trailer transfer-encoding upgrade".split()
)
"""Fields that say something else to whoever reads them."""

_TWIN = bytes(code if chr(code).isalnum() and code < 0x80 else ord("-") for code in range(256))
"""Makes one name of all that are one to servers that hand headers on as variables: ``x_user.id`` is ``x-user-id``."""

_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_SHORTEST_KEY = 32


@dataclass(frozen=True, kw_only=True)
class IdentityHeaders(Policy):
    """Tell the upstream who is calling, in request headers of these names; what a caller sent in them is taken away.

    A field whose value is not known is not there. Values are printable ASCII, several with a blank between two: every
    other character, and ``%`` itself, is percent-encoded as UTF-8 (RFC 3986 §2.1), so no subject can become a second
    header, or two.

    With a ``key`` there is one more header, ``t=1800000000,v1=…``: the seconds since 1970 and the HMAC-SHA256 in
    hexadecimal of the line ``v1``, the line of seconds, and a line ``name:value`` for every identity header that is
    there, by lower-case name in alphabetical order; each line ends with a line feed.
    """

    guards = False

    user: str | None = "X-User-Id"
    """The header for the caller's subject; None for none."""

    issuer: str | None = "X-User-Issuer"
    """The header for who vouched for the subject, under whom alone it is unique; None for none."""

    scopes: str | None = "X-User-Scopes"
    """The header for the granted scopes, in alphabetical order; None for none."""

    subscription: str | None = "X-Subscription-Id"
    """The header for the id of the subscription; None for none."""

    product: str | None = "X-Product-Id"
    """The header for the product of the subscription; None for none."""

    claims: Mapping[str, Path] = field(default_factory=dict, hash=False)
    """Headers for claims of the caller by their paths, as in ``{"X-Tenant": "tid", "X-Roles": "realm_access.roles"}``.

    A claim may be a text, a number, a boolean or an array of such.
    """

    key: bytes | None = field(default=None, repr=False)
    """The secret the headers are signed with, shared with the upstream, at least 32 bytes; None for no signature."""

    signature: str = "X-Identity-Signature"
    """The header for the signature. It is taken from what a caller sends with or without a key."""

    @stated
    def needs(self) -> frozenset[str]:
        """The principal and the subscription, where there are headers for them."""
        caller = (self.user, self.issuer, self.scopes, *self.claims)
        account = (self.subscription, self.product)
        found = {"principal"} if any(each is not None for each in caller) else set[str]()
        return frozenset(found | ({"subscription"} if any(each is not None for each in account) else set()))

    def __post_init__(self) -> None:
        """Names must be free to use and told apart, and a key long enough to be a secret."""
        taken: set[bytes] = set()
        for place, text in [*self._places(), ("signature", self.signature)]:
            name = self._checked(place, text)
            if name in taken:
                raise self.mistake(place, "is used twice", "Give each header a name of its own")
            taken.add(name)
        if not all(map(names_a_claim, self.claims.values())):
            raise self.mistake("claims", "names no claim", 'Write {"X-Tenant": "tid"}')
        if not self.needs:
            raise self.mistake("user", "and all the others are None", "Name at least one header")
        if self.key is not None and len(self.key) < _SHORTEST_KEY:
            raise self.mistake("key", "is too short", f"Give at least {_SHORTEST_KEY} random bytes")

    def _checked(self, place: str, text: str) -> bytes:
        try:
            name = header_name(text)
        except ValueError:
            raise self.mistake(place, "is not a header name", "Use letters, digits and hyphens") from None
        if name in _RESERVED or name.startswith(b"x-forwarded") or b"_" in name:
            raise self.mistake(place, "is a name with another meaning", "Choose a name such as X-User-Id")
        return name

    def _places(self) -> Iterator[tuple[str, str]]:
        """The fields and the header names they give."""
        for place in ("user", "issuer", "scopes", "subscription", "product"):
            if (name := getattr(self, place)) is not None:
                yield place, name
        for name in self.claims:
            yield "claims", name

    def bind(self, env: Env) -> "_Plain | _Signed":
        """An object with the one hook that is needed."""
        words = [(header_name(name), _WORDS[place]) for place, name in self._places() if place in _WORDS]
        words += [(header_name(name), _claim(path)) for name, path in self.claims.items()]
        lines = _Lines(sorted(words, key=lambda each: each[0]))
        if self.key is None:
            return _Plain(lines, header_name(self.signature))
        return _Signed(lines, header_name(self.signature), self.key, env)


def _claim(path: Path) -> _Words:
    way = steps(path)

    def words(exchange: Exchange) -> list[str]:
        found = [] if exchange.principal is None else members(exchange.principal.claims, way)
        return [str(each).lower() if isinstance(each, bool) else str(each) for each in found]

    return words


_WORDS: dict[str, _Words] = {
    "user": lambda exchange: [exchange.principal.subject] if exchange.principal is not None else [],
    "issuer": lambda exchange: [exchange.principal.issuer] if exchange.principal is not None else [],
    "scopes": lambda exchange: sorted(exchange.principal.scopes) if exchange.principal is not None else [],
    "subscription": lambda exchange: [exchange.subscription.id] if exchange.subscription is not None else [],
    "product": lambda exchange: [exchange.subscription.product] if exchange.subscription is not None else [],
}


class _Lines:
    """The identity headers of an exchange, by name in alphabetical order."""

    def __init__(self, words: list[tuple[bytes, _Words]]) -> None:
        self.names = frozenset(name for name, _ in words)
        self._words = words

    def __call__(self, exchange: Exchange) -> RawHeaders:
        found = [(name, _written(words(exchange))) for name, words in self._words]
        return [line for line in found if line[1]]


def _written(words: Iterable[str]) -> bytes:
    return " ".join([quote(word, safe=_PLAIN) for word in words if word]).encode()


class _Plain:
    """Takes away what came under these names, and puts there what is known."""

    def __init__(self, lines: _Lines, signature: bytes) -> None:
        self._lines = lines
        self._strip = frozenset(name.translate(_TWIN) for name in (*lines.names, signature))

    def on_request(self, exchange: Exchange) -> None:
        kept = [line for line in exchange.scope["headers"] if line[0].translate(_TWIN) not in self._strip]
        exchange.scope["headers"] = kept + self._told(exchange)

    def _told(self, exchange: Exchange) -> RawHeaders:
        return self._lines(exchange)


class _Signed(_Plain):
    """Signs them, also when there are none: then the gateway says that nobody is known."""

    def __init__(self, lines: _Lines, signature: bytes, key: bytes, env: Env) -> None:
        super().__init__(lines, signature)
        self._signature = signature
        self._mac = hmac.new(key, digestmod=hashlib.sha256)
        self._now = env.clock.now

    def _told(self, exchange: Exchange) -> RawHeaders:
        lines = self._lines(exchange)
        seconds = b"%d" % self._now()
        mac = self._mac.copy()
        mac.update(b"".join([b"v1\n", seconds, b"\n", *(b"%b:%b\n" % line for line in lines)]))
        return [*lines, (self._signature, b"t=%b,v1=%b" % (seconds, mac.hexdigest().encode()))]
