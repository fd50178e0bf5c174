"""Sending a client to the member it was sent to before: ``Affinity``."""

import secrets
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from apim_middleware._config import Configured
from apim_middleware._http import cookies
from apim_middleware._http.headers import is_token
from apim_middleware.types import RawHeaders, Scope

_SHORTEST = 16


@dataclass(frozen=True, kw_only=True)
class Affinity(Configured):
    """Keep a client at the member of a pool that answered it first, by a cookie of the gateway's.

    The cookie's value is a keyed hash of the member: it tells nothing of it, and nobody without the secret can make
    one. It is ``HttpOnly``, and ``Secure`` on https. A member that is being drained still gets the clients it has; one
    that is not available loses them to another. Follows ``sessionAffinity`` of Azure's backend pools.
    """

    cookie: str
    """The name of the cookie."""

    secret: str | None = field(default=None, repr=False)
    """What the values are made with, 16 characters at least. Give the same to all processes, else they do not know each
    other's cookies; None (the default) for one that is made anew with every start."""

    max_age: int | None = None
    """Seconds the client keeps the cookie; None (the default) for as long as the browser is open."""

    path: str = "/"
    """Below which path the client sends it."""

    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    """Whether the client sends it along from other sites; ``"None"`` makes it ``Secure`` in any case."""

    def __post_init__(self) -> None:
        """The cookie must be one that can be written (RFC 6265 §4.1.1)."""
        if not is_token(self.cookie.encode("latin-1", "replace")):
            raise self.mistake("cookie", "is no name", 'Write cookie="node"')
        if self.secret is not None and len(self.secret) < _SHORTEST:
            raise self.mistake("secret", "is too short", f"Give at least {_SHORTEST} random characters")
        if not self.path.startswith("/") or not self.path.isascii() or not self.path.isprintable() or ";" in self.path:
            raise self.mistake("path", "is no path", 'Write path="/"')
        if self.max_age is not None and self.max_age < 1:
            raise self.mistake("max_age", "is no time", "Give whole seconds, at least 1")


class Stamp:
    """Reads and writes the cookie."""

    def __init__(self, rule: Affinity) -> None:
        """Make a secret where none was given."""
        self._name = rule.cookie.encode()
        self._key = blake2b((rule.secret or secrets.token_hex(32)).encode()).digest()
        age = "" if rule.max_age is None else f"; Max-Age={rule.max_age}"
        self._rest = f"; Path={rule.path}{age}; HttpOnly; SameSite={rule.same_site}".encode()
        self._always_secure = rule.same_site == "None"

    def value(self, member: str) -> bytes:
        """What stands for a member of this name."""
        return blake2b(member.encode(), key=self._key, digest_size=16).hexdigest().encode()

    def found(self, headers: RawHeaders) -> list[bytes]:
        """The values that a request brought."""
        return cookies.values(headers, self._name)

    def line(self, value: bytes, scope: Scope) -> tuple[bytes, bytes]:
        """The line that gives a client this value."""
        secure = b"; Secure" if self._always_secure or scope.get("scheme") in ("https", "wss") else b""
        return b"set-cookie", b"%b=%b%b%b" % (self._name, value, self._rest, secure)
