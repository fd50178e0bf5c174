"""How a subscription begins: its two keys, the place it takes of those its product allows, and who came first."""

import math
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from apim_middleware.errors import SubscriptionRefused
from apim_middleware.identity import Subscription
from apim_middleware.stores.key_text import key_digest, new_key
from apim_middleware.stores.keyrings import HeldKey, Keyring, KeyStore, State, check_subscription, described

_CLAIM_LASTS = 60.0
"""Seconds after which whoever made a claim is taken for dead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSubscription:
    """A subscription that has just begun, and its two keys, this once: stores keep their digests only."""

    subscription: Subscription
    state: State
    """``submitted`` where it waits for approval: its keys do not work before."""

    expires: float | None = None
    """When it expires, in seconds since 1970-01-01 UTC; None for never."""

    primary: str = field(repr=False)
    secondary: str = field(repr=False)

    @classmethod
    def make(cls, subscription: Subscription, state: State, expires: float | None, prefix: str, now: float) -> Self:
        """One with new keys. ValueError for a time to expire that is none, or over, and for what is no subscription."""
        check_subscription(subscription)
        if expires is not None and not now < expires < math.inf:
            raise ValueError(f"{expires!r} is no time to expire: give seconds since 1970-01-01 UTC that lie ahead")
        keys = {"primary": new_key(prefix), "secondary": new_key(prefix)}
        return cls(subscription=subscription, state=state, expires=expires, **keys)

    def keyring(self) -> Keyring:
        """What a store keeps of it."""
        primary = HeldKey(slot="primary", digest=key_digest(self.primary))
        secondary = HeldKey(slot="secondary", digest=key_digest(self.secondary))
        keys = (primary, secondary)
        return Keyring(subscription=self.subscription, state=self.state, expires=self.expires, keys=keys)


@runtime_checkable
class SubscriptionStore(KeyStore, Protocol):
    """A ``KeyStore`` that can begin subscriptions; ``begin`` may be a plain or an ``async`` function."""

    def begin(
        self, subscription: Subscription, *, state: State, expires: float | None, limit: int | None
    ) -> NewSubscription | Awaitable[NewSubscription]:
        """Add a subscription that is not there yet, as ``MemoryKeys.begin``. Raises SubscriptionRefused, StoreError.

        Of several at once, in this process or another, no more begin than there is room for.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A subscription about to begin: its record, until it is known whether there is room, and a keyring after that.

    Versions of records say who came first, and a claim becomes a keyring only as the version it was made with: so it
    can be counted, and taken away from somebody who died, and nobody gets the last place twice.
    """

    ring: Keyring
    at: float
    """When it was made, in seconds since 1970-01-01 UTC."""

    version: int = 0

    def is_abandoned(self, now: float) -> bool:
        """Whether nobody can be waiting for it any more, by whichever clock it was made."""
        return abs(now - self.at) >= _CLAIM_LASTS

    def document(self) -> dict[str, Any]:
        """All of it as JSON can say it, in which nobody finds a keyring."""
        return {"claim": self.ring.document(), "at": self.at}

    @classmethod
    def read(cls, document: Mapping[str, Any], version: int) -> Self | None:
        """The claim in a document; None when it holds something else. Raises as ``Keyring.read``."""
        if "claim" not in document:
            return None
        return cls(ring=Keyring.read(document["claim"]), at=float(document["at"]), version=version)


def check_room(subscription: Subscription, limit: int | None, rings: Iterable[Keyring], now: float) -> None:
    """Refuse one more where its owner has ``limit`` for its product among these. Raises SubscriptionRefused."""
    if limit is None:
        return
    product, owner = subscription.product, subscription.owner
    theirs = [ring for ring in rings if ring.subscription.owner == owner and ring.subscription.product == product]
    held = sum(ring.takes_a_place(now) for ring in theirs)
    if held >= limit:
        problem = f"product {product!r} allows each owner {limit} at a time, and {owner!r} has {held}"
        cure = "Cancel one, or raise its subscriptions_limit"
        raise SubscriptionRefused("subscriptions-limit-reached", problem, cure)


def taken(subscription: Subscription) -> SubscriptionRefused:
    """What is said to one whose id another has."""
    problem = f"{described(subscription)} cannot begin: one of this id is there already"
    return SubscriptionRefused("subscription-exists", problem, "Choose another id, or rotate the keys of that one")
