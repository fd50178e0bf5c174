"""Tokens that count no more though they have not expired."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from apim_middleware._config import check_count
from apim_middleware.env import SystemClock
from apim_middleware.errors import StoreError
from apim_middleware.identity import Principal
from apim_middleware.protocols import Clock

Revoked: TypeAlias = Callable[[Principal], bool | Awaitable[bool]]
"""Whether the token this principal came with counts no more; asked on every request, async or not."""


class RevokedTokens:
    """Tokens revoked by their ids, and callers all of whose tokens were, in the memory of this process.

    Give it as ``revoked=``. What is revoked is kept until it would have expired anyway. With more than
    ``max_revocations`` of them ``StoreError`` is raised, for to forget one would let somebody in.
    """

    def __init__(self, *, max_revocations: int = 100_000, clock: Clock | None = None) -> None:
        """Nothing is revoked yet."""
        check_count("RevokedTokens", "max_revocations", max_revocations)
        self._most = max_revocations
        self._now = (clock or SystemClock()).now
        self._tokens: dict[tuple[str, str], float] = {}
        self._callers: dict[tuple[str, str], tuple[float, float]] = {}

    def __len__(self) -> int:
        """How many revocations are held."""
        return len(self._tokens) + len(self._callers)

    def revoke_token(self, issuer: str, jti: str, *, until: float) -> None:
        """Revoke the token of this ``jti``, which expires at ``until`` in seconds since 1970. Raises StoreError."""
        key = issuer, jti
        if key not in self._tokens:
            self._make_room()
        self._tokens[key] = max(until, self._tokens.get(key, until))

    def revoke_caller(self, issuer: str, subject: str, *, until: float) -> None:
        """Revoke every token of a caller issued up to now; the last of them expires at ``until``. Raises StoreError."""
        key = issuer, subject
        if key not in self._callers:
            self._make_room()
        _, known = self._callers.get(key, (0.0, until))
        self._callers[key] = self._now(), max(until, known)

    def __call__(self, principal: Principal) -> bool:
        """Whether the token of this principal was revoked.

        One that does not say when it was issued counts as old; one whose ``jti`` is no text, which nobody could have
        revoked by it (RFC 7519 §4.1.7), counts as revoked.
        """
        claims = principal.claims
        jti = claims.get("jti", "")
        if not isinstance(jti, str) or (principal.issuer, jti) in self._tokens:
            return True
        found = self._callers.get((principal.issuer, principal.subject))
        return found is not None and not claims.get("iat", 0) > found[0]

    def _make_room(self) -> None:
        if len(self) < self._most:
            return
        now = self._now()
        self._tokens = {key: until for key, until in self._tokens.items() if until > now}
        self._callers = {key: kept for key, kept in self._callers.items() if kept[1] > now}
        if len(self) >= self._most:
            raise StoreError("more tokens are revoked than are remembered")
