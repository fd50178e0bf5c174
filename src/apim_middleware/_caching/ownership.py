"""Whom a response belongs to."""

from collections.abc import Mapping

from apim_middleware._caching.lookup import CacheLookup
from apim_middleware._caching.pages import Owners
from apim_middleware._caching.rules import Caching
from apim_middleware._functions import needs
from apim_middleware._http.credentials import CARRIED, CREDENTIALS, Credential, carried_in
from apim_middleware.exchange import Exchange
from apim_middleware.stores.keys import ISSUER

_PRINCIPAL: frozenset[Credential] = frozenset({"principal"})
_SUBSCRIPTION: frozenset[Credential] = frozenset({"subscription"})
_CERTIFICATE: frozenset[Credential] = frozenset({"certificate"})
_NOTHING: frozenset[Credential] = frozenset()

COVERED: dict[str, frozenset[Credential]] = {
    "principal": frozenset({"principal", "authorization", "certificate", "cookie"}),
    "subscription": frozenset({"subscription", "key"}),
}
"""Credentials that matter no more once responses are kept apart by what was established from them."""


class Ownership:
    """Tells whom a response belongs to, and which credentials of a request that leaves open."""

    def __init__(self, policy: Caching) -> None:
        """Work out what the keys settle."""
        self.keys = policy.keys
        self._covered = [_NOTHING.union(*(COVERED.get(need, _NOTHING) for need in needs(key))) for key in self.keys]
        self._minded = CREDENTIALS.difference(policy.regardless_of)
        self._left = self._minded.difference(*self._covered)  # where there is an owner by every key
        self.minds_authorization = not self.keys and "authorization" in self._minded
        """Whether Authorization tells whoever sends it from others, whatever else is known of them."""

    def owners(self, exchange: Exchange) -> Owners:
        """What the keys say of this request."""
        return tuple([key(exchange) for key in self.keys])

    def carrier(self, fields: Mapping[bytes, bytes]) -> Credential | None:
        """A credential that came in a field and matters, found at a glance; None when it takes a closer look."""
        if self.minds_authorization and b"authorization" in fields:
            return "authorization"
        if not self.keys and not CARRIED.harmless.issuperset(fields):
            for name in fields:
                carried = CARRIED[name]
                if carried in self._minded:
                    return carried
        return None

    def carried(self, asked: CacheLookup) -> frozenset[Credential]:
        """The credentials of the request that could make the response one for this caller only."""
        if asked.carried is None:
            asked.carried = self._carried(asked)
        user = asked.user  # who may log in meanwhile
        return asked.carried if user is None or user is asked.principal else asked.carried | self.named(user)

    def _carried(self, asked: CacheLookup) -> frozenset[Credential]:
        if not self._left and None not in asked.key[1]:
            return _NOTHING
        found = carried_in(asked.headers)
        if asked.certificate:
            found |= _CERTIFICATE
        principal, subscription = asked.principal, asked.subscription
        is_key = False
        if subscription is not None:
            found |= _SUBSCRIPTION
            # The caller may be nobody but the holder of the key.
            is_key = principal is not None and principal.issuer == ISSUER and principal.subject == subscription.id
        if principal is not None and not is_key:
            found |= _PRINCIPAL
        for owner, covered in zip(asked.key[1], self._covered, strict=False):
            if owner is not None:
                found -= covered
                if is_key and "principal" in covered:
                    found -= COVERED["subscription"]
        return found & self._minded

    def named(self, user: object) -> frozenset[Credential]:
        """The caller a middleware that is not ours has named, if any: keys do not know of that."""
        return self._minded & _PRINCIPAL if _is_somebody(user) else _NOTHING


def _is_somebody(user: object) -> bool:
    """Whether a user in the way of Starlette is known; unsure means yes."""
    try:
        return bool(user.is_authenticated)  # type: ignore[attr-defined]
    except (AttributeError, NotImplementedError):  # the latter is how BaseUser of Starlette answers by default
        return True
