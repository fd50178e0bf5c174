"""What is known of a subscription's keys, as values: what a store finds of one key, and what it keeps of all."""

from collections.abc import Awaitable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args

from apim_middleware._config import check
from apim_middleware.errors import SubscriptionRefused
from apim_middleware.identity import Principal, Subscription

Slot: TypeAlias = Literal["primary", "secondary"]
State: TypeAlias = Literal["submitted", "active", "rejected", "suspended", "cancelled", "expired"]
"""Where a subscription stands, in Azure's words; only the keys of an ``active`` one work."""

ISSUER = "urn:apim-middleware:subscription"
"""Stands as the issuer of a principal that is a subscription, so that none is taken for a token's subject."""

_TAKES_A_PLACE = ("submitted", "active", "suspended")
"""Where a subscription counts against the limit of its product: what is over has made room for another."""

_DIGEST_SIZE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRecord:
    """What a store finds of a key: its digest, the subscription it belongs to, and whether and how long it works."""

    digest: bytes = field(repr=False)
    subscription: Subscription

    state: State = "active"
    """Where the subscription stands."""

    expires: float | None = None
    """When the subscription expires, in seconds since 1970-01-01 UTC; None for never."""

    ends: float | None = None
    """When this key ends, though its subscription may go on: it was replaced and lives out its overlap."""

    lasting: bool = field(init=False, repr=False, compare=False)
    """Whether it works, and for as long as nobody changes that."""

    principal: Principal = field(init=False, repr=False, compare=False)
    """The caller the key stands for when nothing better is known of them: the subscription itself."""

    def __post_init__(self) -> None:
        """Work out once what every request asks."""
        object.__setattr__(self, "lasting", self.state == "active" and self.expires is None and self.ends is None)
        object.__setattr__(self, "principal", Principal(subject=self.subscription.id, issuer=ISSUER))

    def state_at(self, now: float) -> State | None:
        """Where the subscription stands at a time; None when this key has ended."""
        if self.ends is not None and self.ends <= now:
            return None
        over = self.expires is not None and self.expires <= now
        return "expired" if self.state == "active" and over else self.state


class KeyStore(Protocol):
    """Where subscription keys are looked up.

    ``find`` may be a plain or an ``async`` function; a plain one must not wait for anything.
    """

    def find(self, digest: bytes) -> KeyRecord | Awaitable[KeyRecord | None] | None:
        """The record of the key with this digest, working or not; None when there is no such key. Raises StoreError."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldKey:
    """A key of a subscription: in its slot, or replaced there and living until ``ends``."""

    slot: Slot
    digest: bytes = field(repr=False)
    ends: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Keyring:
    """A subscription, where it stands, and its keys: at most one in each slot, and one that was replaced there.

    What changes it gives a new one. It is what stores keep: ``document`` and ``read`` turn it into JSON and back.
    """

    subscription: Subscription
    state: State = "active"
    expires: float | None = None
    keys: tuple[HeldKey, ...] = ()

    def __post_init__(self) -> None:
        """There is no such thing as a seventh state, a third slot or a digest of another size."""
        check_subscription(self.subscription)
        if self.state not in get_args(State):
            raise ValueError(f"{self.state!r} is no state of a subscription: it is one of {', '.join(get_args(State))}")
        for key in self.keys:
            if key.slot not in get_args(Slot):
                raise ValueError(f"{key.slot!r} is neither primary nor secondary")
            if not isinstance(key.digest, bytes) or len(key.digest) != _DIGEST_SIZE:
                raise ValueError("not the digest of a key: write key_digest(key)")
        if len({key.digest for key in self.keys}) < len(self.keys):
            raise ValueError("the two keys of a subscription are the same")

    def takes_a_place(self, now: float) -> bool:
        """Whether it counts against the limit of its product: it is submitted, active or suspended, and not expired."""
        return self.state in _TAKES_A_PLACE and (self.expires is None or self.expires > now)

    def decided(self, verdict: Literal["active", "rejected"]) -> Self:
        """Approved or rejected where it waits for that, the same where it was before. Raises SubscriptionRefused."""
        if self.state == verdict:
            return self
        if self.state != "submitted":
            problem = f"{described(self.subscription)} waits for no approval: it is {self.state}"
            cure = "Resume it to let its keys work" if verdict == "active" else "Cancel it to end it"
            raise SubscriptionRefused("subscription-not-waiting", problem, cure)
        return replace(self, state=verdict)

    def records(self) -> list[KeyRecord]:
        """What is found of each key."""
        found = partial(KeyRecord, subscription=self.subscription, state=self.state, expires=self.expires)
        return [found(digest=key.digest, ends=key.ends) for key in self.keys]

    def with_key(self, slot: Slot, digest: bytes, *, old_ends: float | None = None) -> Self:
        """With another key in a slot; the one it replaces lives on until ``old_ends``, or not at all.

        The one that had been replaced before it ends now, so that there are never more than four.
        """
        kept = [key for key in self.keys if key.slot != slot]
        if old_ends is not None:
            kept += [replace(key, ends=old_ends) for key in self.keys if key.slot == slot and key.ends is None]
        return replace(self, keys=(*kept, HeldKey(slot=slot, digest=digest)))

    def without_key(self, slot: Slot) -> Self:
        """Without the key in a slot, and without the one it had replaced."""
        return replace(self, keys=tuple(key for key in self.keys if key.slot != slot))

    def without_ended(self, now: float) -> Self:
        """Without the keys that have ended."""
        return replace(self, keys=tuple(key for key in self.keys if key.ends is None or key.ends > now))

    def document(self) -> dict[str, Any]:
        """All of it as JSON can say it; of keys it holds digests only."""
        keys = [{"slot": key.slot, "sha256": key.digest.hex(), "ends": key.ends} for key in self.keys]
        known = {"state": self.state, "expires": self.expires, "keys": keys}
        return {"subscription": asdict(self.subscription), **known}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """The keyring in its document. ValueError, TypeError or KeyError when it is none."""
        keys = [
            HeldKey(slot=key["slot"], digest=bytes.fromhex(key["sha256"]), ends=key["ends"]) for key in document["keys"]
        ]
        said = {name: value for name, value in document["subscription"].items() if value is not None}
        subscription = Subscription(**said)
        return cls(subscription=subscription, state=document["state"], expires=document["expires"], keys=tuple(keys))


def check_subscription(given: Subscription) -> None:
    """Refuse what is none, such as its id alone. Raises ConfigError."""
    check("Keyring", "subscription", given, Subscription, cure='Write Subscription(id="acme")')


def described(subscription: Subscription) -> str:
    """A subscription in words for an error message."""
    owner = f" of {subscription.owner!r}" if subscription.owner else ""
    product = f" for product {subscription.product!r}" if subscription.product else ""
    return f"subscription {subscription.id!r}{owner}{product}"
