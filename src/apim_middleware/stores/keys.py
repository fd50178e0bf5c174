"""Subscription keys: the digests they are known by, and whose they are. No store keeps a key."""

import hashlib
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from apim_middleware.identity import Principal, Subscription

Slot: TypeAlias = Literal["primary", "secondary"]

ISSUER = "urn:apim-middleware:subscription"
"""Stands as the issuer of a principal that is a subscription, so that none is taken for a token's subject."""

_DIGEST_SIZE = hashlib.sha256().digest_size


def new_key() -> str:
    """A new subscription key: 43 characters that may stand in a header and in a query, 256 bits at random."""
    return secrets.token_urlsafe(32)


def key_digest(key: str | bytes) -> bytes:
    """What a store keeps of a key: its SHA-256.

    It cannot be turned back while keys are random, as those of ``new_key`` are; one that somebody thought up can be
    guessed.
    """
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """What a store knows of a key: its digest, the subscription it belongs to, and whether that is active."""

    digest: bytes = field(repr=False)
    subscription: Subscription
    active: bool = True
    principal: Principal = field(init=False, repr=False, compare=False)
    """The caller the key stands for when nothing better is known of them: the subscription itself."""

    def __post_init__(self) -> None:
        """Make the principal once."""
        object.__setattr__(self, "principal", Principal(subject=self.subscription.id, issuer=ISSUER))


class KeyStore(Protocol):
    """Where subscription keys are looked up.

    ``find`` may be a plain or an ``async`` function; a plain one must not wait for anything.
    """

    def find(self, digest: bytes) -> KeyRecord | Awaitable[KeyRecord | None] | None:
        """The record of the key with this digest, active or not; None when there is no such key. Raises StoreError."""
        ...


@dataclass(frozen=True)
class _Held:
    subscription: Subscription
    active: bool
    digests: dict[Slot, bytes]


class MemoryKeys:
    """Subscription keys in the memory of this process: what is changed holds from the next request on.

    Every subscription has room for two keys, so that callers can change from one to the other without a gap.
    """

    def __init__(self) -> None:
        """Begin with no subscription."""
        self._records: dict[bytes, KeyRecord] = {}
        self._held: dict[str, _Held] = {}

    def __repr__(self) -> str:
        """How many there are, not which."""
        return f"<MemoryKeys: {len(self._held)} subscriptions>"

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._held)

    def find(self, digest: bytes) -> KeyRecord | None:
        """The record of the key with this digest, active or not; None when there is no such key."""
        return self._records.get(digest)

    def add(
        self,
        subscription: Subscription,
        *,
        primary: bytes | None = None,
        secondary: bytes | None = None,
        active: bool = True,
    ) -> None:
        """Add a subscription, or replace the one of the same id, with the digests of keys that exist already.

        ValueError for what is no ``key_digest``, and for a key that is another's or stands in both places.
        """
        given: dict[Slot, bytes | None] = {"primary": primary, "secondary": secondary}
        digests = {slot: digest for slot, digest in given.items() if digest is not None}
        for digest in digests.values():
            self._check_free(digest, subscription.id)
        if len({*digests.values()}) < len(digests):
            raise ValueError("the two keys of a subscription are the same")
        self._write(_Held(subscription, active, digests))

    def issue(self, subscription_id: str, slot: Slot = "primary") -> str:
        """Make a new key for a subscription and give it back, this once; the one it replaces works no more.

        LookupError when there is no such subscription.
        """
        if slot not in ("primary", "secondary"):
            raise ValueError(f"{slot!r} is neither primary nor secondary")
        held = self._known(subscription_id)
        key = new_key()
        self._write(replace(held, digests={**held.digests, slot: key_digest(key)}))
        return key

    def revoke(self, subscription_id: str, slot: Slot) -> None:
        """Let one key of a subscription work no more. LookupError when there is no such subscription."""
        held = self._known(subscription_id)
        kept: dict[Slot, bytes] = {name: digest for name, digest in held.digests.items() if name != slot}
        self._write(replace(held, digests=kept))

    def suspend(self, subscription_id: str) -> None:
        """Let the keys of a subscription rest. LookupError when there is no such subscription."""
        self._write(replace(self._known(subscription_id), active=False))

    def resume(self, subscription_id: str) -> None:
        """Let the keys of a subscription work again. LookupError when there is no such subscription."""
        self._write(replace(self._known(subscription_id), active=True))

    def remove(self, subscription_id: str) -> None:
        """Forget a subscription and its keys. LookupError when there is no such subscription."""
        self._forget(self._known(subscription_id))
        del self._held[subscription_id]

    def _known(self, subscription_id: str) -> _Held:
        held = self._held.get(subscription_id)
        if held is None:
            raise LookupError(f"there is no subscription {subscription_id!r}")
        return held

    def _check_free(self, digest: bytes, subscription_id: str) -> None:
        if not isinstance(digest, bytes) or len(digest) != _DIGEST_SIZE:
            raise ValueError("not the digest of a key: write key_digest(key)")
        record = self._records.get(digest)
        if record is not None and record.subscription.id != subscription_id:
            raise ValueError("this key belongs to another subscription")

    def _write(self, held: _Held) -> None:
        before = self._held.get(held.subscription.id)
        if before is not None:
            self._forget(before)
        self._held[held.subscription.id] = held
        for digest in held.digests.values():
            self._records[digest] = KeyRecord(digest=digest, subscription=held.subscription, active=held.active)

    def _forget(self, held: _Held) -> None:
        for digest in held.digests.values():
            del self._records[digest]
