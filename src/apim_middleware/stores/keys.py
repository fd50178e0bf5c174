"""Subscription keys in memory: issued, rotated, ended, and found by their digests. No store keeps a key."""

from dataclasses import replace

from apim_middleware._config import check
from apim_middleware.env import SystemClock
from apim_middleware.errors import ConfigError
from apim_middleware.identity import Subscription
from apim_middleware.protocols import Clock
from apim_middleware.stores.beginnings import NewSubscription, SubscriptionStore, check_room, taken
from apim_middleware.stores.key_text import KEY_PATTERN, PREFIX, is_prefix, key_digest, new_key
from apim_middleware.stores.keyrings import ISSUER, HeldKey, KeyRecord, Keyring, KeyStore, Slot, State

__all__ = [
    "ISSUER",
    "KEY_PATTERN",
    "HeldKey",
    "KeyRecord",
    "KeyStore",
    "Keyring",
    "MemoryKeys",
    "NewSubscription",
    "Slot",
    "State",
    "SubscriptionStore",
    "key_digest",
    "new_key",
]


class MemoryKeys:
    """Subscription keys in the memory of this process: what is changed holds from the next request on.

    Every subscription has room for two keys, so that callers can change from one to the other without a gap; one that
    is replaced may live on for an overlap besides. ``prefix`` is what the keys issued here begin with.

    What is asked of a subscription that is not there raises LookupError.
    """

    def __init__(self, *, prefix: str = PREFIX, clock: Clock | None = None) -> None:
        """Begin with no subscription; without a ``clock``, take the machine's.

        ``prefix`` is what keys issued here begin with; ConfigError for one that cannot.
        """
        check("MemoryKeys", "clock", clock, Clock | None)
        if not is_prefix(prefix):
            raise ConfigError("MemoryKeys", "prefix", f"{prefix!r} cannot begin a key", 'Write one such as "acme_live"')
        self._prefix = prefix
        self._clock = clock or SystemClock()
        self._records: dict[bytes, KeyRecord] = {}
        self._rings: dict[str, Keyring] = {}

    def __repr__(self) -> str:
        """How many there are, not which."""
        return f"<MemoryKeys: {len(self._rings)} subscriptions>"

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._rings)

    def find(self, digest: bytes) -> KeyRecord | None:
        """The record of the key with this digest, working or not; None when there is no such key."""
        return self._records.get(digest)

    def keyring(self, subscription_id: str) -> Keyring:
        """What is kept of a subscription."""
        ring = self._rings.get(subscription_id)
        if ring is None:
            raise LookupError(f"there is no subscription {subscription_id!r}")
        return ring

    def keyrings(self) -> list[Keyring]:
        """What is kept of every subscription, by id."""
        return [ring for _, ring in sorted(self._rings.items())]

    def add(
        self,
        subscription: Subscription,
        *,
        primary: bytes | None = None,
        secondary: bytes | None = None,
        state: State = "active",
        expires: float | None = None,
    ) -> None:
        """Add a subscription, or replace the one of the same id, with the digests of keys that exist already.

        ``expires`` is in seconds since 1970-01-01 UTC. ValueError for what is no ``key_digest``, and for a key that is
        another's or stands in both places.
        """
        given: dict[Slot, bytes | None] = {"primary": primary, "secondary": secondary}
        keys = tuple(HeldKey(slot=slot, digest=digest) for slot, digest in given.items() if digest is not None)
        self._write(Keyring(subscription=subscription, state=state, expires=expires, keys=keys))

    def begin(
        self,
        subscription: Subscription,
        *,
        state: State = "active",
        expires: float | None = None,
        limit: int | None = None,
    ) -> NewSubscription:
        """Add a subscription that is not there yet, with two new keys, and give them back, this once.

        SubscriptionRefused when there is one of its id, and when its owner has ``limit`` subscriptions for its product
        that are submitted, active or suspended. ``expires`` is in seconds since 1970-01-01 UTC, and ahead (ValueError).
        """
        now = self._clock.now()
        made = NewSubscription.make(subscription, state, expires, self._prefix, now)
        if subscription.id in self._rings:
            raise taken(subscription)
        check_room(subscription, limit, self._rings.values(), now)
        self._write(made.keyring())
        return made

    def issue(self, subscription_id: str, slot: Slot = "primary", *, overlap: float = 0.0) -> str:
        """Make a new key for a subscription and give it back, this once.

        The one it replaces works for ``overlap`` seconds more; with 0, no more at all.
        """
        key = new_key(self._prefix)
        self._replace(subscription_id, slot, key_digest(key), overlap)
        return key

    def set_key(self, subscription_id: str, slot: Slot, digest: bytes, *, overlap: float = 0.0) -> None:
        """Give a subscription a key that exists already, by its digest; else as ``issue``."""
        self._replace(subscription_id, slot, digest, overlap)

    def rotate(self, subscription_id: str, slot: Slot = "primary", *, overlap: float = 86_400.0) -> str:
        """What ``issue`` does, with a day on which the old key and the new one both work."""
        return self.issue(subscription_id, slot, overlap=overlap)

    def revoke(self, subscription_id: str, slot: Slot) -> None:
        """Let one key of a subscription work no more, nor the one it had replaced."""
        self._write(self.keyring(subscription_id).without_key(slot))

    def set_state(self, subscription_id: str, state: State) -> None:
        """Say where a subscription stands. ValueError for what is no state."""
        self._write(replace(self.keyring(subscription_id), state=state))

    def approve(self, subscription_id: str) -> None:
        """Let the keys of a subscription work that waits for approval; nothing happens when they do.

        SubscriptionRefused for one that was rejected, suspended or ended: ``resume`` is for those.
        """
        self._write(self.keyring(subscription_id).decided("active"))

    def reject(self, subscription_id: str) -> None:
        """Turn down a subscription that waits for approval; nothing happens when it was.

        SubscriptionRefused for any other: ``cancel`` is for those.
        """
        self._write(self.keyring(subscription_id).decided("rejected"))

    def suspend(self, subscription_id: str) -> None:
        """Let the keys of a subscription rest."""
        self.set_state(subscription_id, "suspended")

    def resume(self, subscription_id: str) -> None:
        """Let the keys of a subscription work, again or for the first time."""
        self.set_state(subscription_id, "active")

    def cancel(self, subscription_id: str) -> None:
        """End a subscription; it is still known, and so is that it was cancelled."""
        self.set_state(subscription_id, "cancelled")

    def expire(self, subscription_id: str, at: float | None = None) -> None:
        """Let a subscription expire at a time, in seconds since 1970-01-01 UTC; now when none is given."""
        moment = self._clock.now() if at is None else at
        self._write(replace(self.keyring(subscription_id), expires=moment))

    def remove(self, subscription_id: str) -> None:
        """Forget a subscription and its keys."""
        self._forget(self.keyring(subscription_id))
        del self._rings[subscription_id]

    def _replace(self, subscription_id: str, slot: Slot, digest: bytes, overlap: float) -> None:
        if not overlap >= 0:
            raise ValueError(f"{overlap!r} is no time for two keys to overlap: give seconds, 0 or more")
        ends = self._clock.now() + overlap if overlap else None
        self._write(self.keyring(subscription_id).with_key(slot, digest, old_ends=ends))

    def _write(self, ring: Keyring) -> None:
        ring = ring.without_ended(self._clock.now())
        for key in ring.keys:
            record = self._records.get(key.digest)
            if record is not None and record.subscription.id != ring.subscription.id:
                raise ValueError("this key belongs to another subscription")
        before = self._rings.get(ring.subscription.id)
        if before is not None:
            self._forget(before)
        self._rings[ring.subscription.id] = ring
        self._records.update({record.digest: record for record in ring.records()})

    def _forget(self, ring: Keyring) -> None:
        for key in ring.keys:
            del self._records[key.digest]
