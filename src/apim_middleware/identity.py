"""Who is calling: what authenticators establish and other policies, the app and the upstream may rely on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from apim_middleware._config import Configured

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Principal:
    """An authenticated caller.

    It is also what Starlette expects in ``scope["user"]`` and ``scope["auth"]``, so ``request.user``,
    ``request.auth.scopes`` and ``@requires`` work behind any authenticator.
    """

    subject: str
    issuer: str = ""
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=lambda: _NO_CLAIMS, repr=False, hash=False)
    expires: float | None = field(default=None, repr=False, compare=False)
    """Until when the authenticator lets this caller in by what was shown, in seconds since 1970: the ``exp`` of a token
    and the leeway it is given. None where it does not say."""

    @property
    def identity(self) -> str:
        """The subject under its issuer: equal for the same caller, different for any other."""
        return f"{len(self.issuer)}:{self.issuer}{self.subject}"

    @property
    def is_authenticated(self) -> bool:
        """Always true: nobody is a principal before an authenticator said so."""
        return True

    @property
    def display_name(self) -> str:
        """The subject."""
        return self.subject


@dataclass(frozen=True, kw_only=True)
class Subscription(Configured):
    """The subscription a key belongs to: its id, what it opens, and who owns it.

    Behind a ``Gateway`` it opens the APIs of its ``product``, or the one ``api``, or every API as ``api="*"``; one that
    names neither opens nothing there.
    """

    id: str
    product: str = ""
    owner: str = ""
    api: str = ""
