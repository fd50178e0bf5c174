"""Subscription keys kept as records: changed in one process, known to every process a moment later."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from apim_middleware.env import SystemClock
from apim_middleware.errors import ConfigError, StoreError, VersionConflict
from apim_middleware.identity import Subscription
from apim_middleware.protocols import Clock, Record, Records
from apim_middleware.stores.beginnings import Claim, NewSubscription, check_room, taken
from apim_middleware.stores.following import Copy, Following, Unanswered
from apim_middleware.stores.key_text import PREFIX, is_prefix, key_digest, new_key
from apim_middleware.stores.keyrings import HeldKey, KeyRecord, Keyring, Slot, State

log = logging.getLogger("apim_middleware.keys")

_ATTEMPTS = 20
"""How often a change is made again that others came before."""

_WITHDRAWING = 5.0
"""Seconds that may be spent on leaving nothing of what could not begin."""


class _Subscriptions(Copy):
    """What is known of all subscriptions, up to one version."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.found: dict[bytes, KeyRecord] = {}
        self.rings: dict[str, Keyring] = {}
        self.claims: dict[str, Claim] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rings)

    def take(self, record: Record) -> None:
        """What a record holds. One that holds no subscription counts as none: it lets nobody in."""
        self.forget(record.id)
        held = None if record.document is None else _read(record)
        if isinstance(held, Claim):
            self.claims[record.id] = held
        elif held is not None:
            self._keep(held)

    def forget(self, subscription_id: str) -> None:
        """There is none of this id."""
        self.claims.pop(subscription_id, None)
        ring = self.rings.pop(subscription_id, None)
        for key in ring.keys if ring else ():
            if (held := self.found.get(key.digest)) is not None and held.subscription.id == subscription_id:
                del self.found[key.digest]

    def _keep(self, ring: Keyring) -> None:
        self.rings[ring.subscription.id] = ring
        for each in ring.records():
            other = self.found.setdefault(each.digest, each)
            if other is not each:  # two processes at the same moment: the one who had it keeps it
                log.error("a key of subscription %r is that of another", ring.subscription.id)


def _read(record: Record) -> Keyring | Claim | None:
    document = record.document or {}
    try:
        claim = Claim.read(document, record.version)
        ring = Keyring.read(document) if claim is None else claim.ring
        if ring.subscription.id != record.id:
            raise ValueError("it is that of another subscription")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.error("the record of subscription %r cannot be read (%s)", record.id, type(error).__name__)
        return None
    return ring if claim is None else claim


class RecordKeys:
    """A ``KeyStore`` on top of any ``Records``, for subscriptions that are changed while every process serves.

    Keys are found in a copy in this process. It asks the records what has changed when a key is looked up and the last
    time is ``refresh`` seconds ago. A key that opens goes by the copy meanwhile; one that does not is looked up again
    when they have answered. While the records cannot be asked, they are left alone for longer and longer, ten seconds
    at most, and the copy serves until the last time they answered is ``stale`` seconds ago, also where nobody has asked
    since. Then nobody is let in (StoreError): so a key that was revoked elsewhere works for that long at most. Whether
    a key exists that the copy does not have, nobody can say during an outage (StoreError).

    What is changed through this object is known to it at once.
    A method for a subscription that is not there raises LookupError; all of them may raise StoreError.
    """

    def __init__(
        self,
        records: Records,
        *,
        kind: str = "subscription",
        prefix: str = PREFIX,
        refresh: float = 1.0,
        stale: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        """Nothing is asked yet. ``records`` are where subscriptions are kept, under their ``kind``.

        ``prefix`` is what keys issued here begin with. Without a ``clock``, take the machine's.
        """
        if not is_prefix(prefix):
            raise ConfigError("RecordKeys", "prefix", f"{prefix!r} cannot begin a key", 'Write one such as "acme_live"')
        self._records, self._kind, self._prefix = records, kind, prefix
        self._clock = clock or SystemClock()
        self._following = Following(
            "RecordKeys", records, lambda: _Subscriptions(kind), self._clock, refresh=refresh, stale=stale
        )

    def __repr__(self) -> str:
        """How many there are, not which."""
        return f"<RecordKeys: {len(self)} subscriptions>"

    def __len__(self) -> int:
        """How many subscriptions are known here."""
        return len(self._copy.rings)

    @property
    def _copy(self) -> _Subscriptions:
        return self._following.copy

    # Looking up

    async def find(self, digest: bytes) -> KeyRecord | None:
        """The record of the key with this digest, working or not; None when there is no such key. Raises StoreError."""
        record = self._copy.found.get(digest)
        opens = record is not None and record.state_at(self._clock.now()) == "active"
        answered = await self._following.current(urgent=not opens)
        record = self._copy.found.get(digest)
        if record is None and not answered:
            raise Unanswered("nobody can say whether there is such a key")
        return record

    async def refresh(self) -> None:
        """Ask the records now what has changed. Raises StoreError."""
        await self._following.refresh()

    # Changing

    async def keyring(self, subscription_id: str) -> Keyring:
        """What is kept of a subscription, as it is now."""
        return (await self._held(subscription_id))[1]

    async def keyrings(self) -> list[Keyring]:
        """What is kept of every subscription, by id, as it is now."""
        await self.refresh()
        return [ring for _, ring in sorted(self._copy.rings.items())]

    async def add(
        self,
        subscription: Subscription,
        *,
        primary: bytes | None = None,
        secondary: bytes | None = None,
        state: State = "active",
        expires: float | None = None,
    ) -> None:
        """Add a subscription, or replace the one of the same id; as ``MemoryKeys.add``."""
        given: dict[Slot, bytes | None] = {"primary": primary, "secondary": secondary}
        keys = tuple(HeldKey(slot=slot, digest=digest) for slot, digest in given.items() if digest is not None)
        await self._write(Keyring(subscription=subscription, state=state, expires=expires, keys=keys), None)

    async def begin(
        self,
        subscription: Subscription,
        *,
        state: State = "active",
        expires: float | None = None,
        limit: int | None = None,
    ) -> NewSubscription:
        """Add a subscription that is not there yet, with two new keys; as ``MemoryKeys.begin``.

        Whatever keeps it from beginning, nothing of it is left behind. Where this process dies on the way, its claim to
        a place lasts for a minute, and the next who begins a subscription takes it away.
        """
        made = NewSubscription.make(subscription, state, expires, self._prefix, self._clock.now())
        ring = made.keyring()
        await self._following.refresh_to_change()
        await self._forget_abandoned()
        check_room(subscription, limit, self._copy.rings.values(), self._clock.now())
        try:
            version = 0 if limit is None else await self._claim(ring, limit)
            await self._following.changed(await self._put_new(ring, ring.document(), version))
        except BaseException:
            await self._withdraw(ring)
            raise
        return made

    async def _claim(self, ring: Keyring, limit: int) -> int:
        """Stand in line for a place; the version of the claim, if there is room with all who came before."""
        claim = Claim(ring=ring, at=self._clock.now())
        version = (await self._put_new(ring, claim.document(), 0)).version
        await self.refresh()
        if self._copy.version < version:  # somebody who asked earlier has read it all anew, or a backup was put back
            raise StoreError("the records are not as they were: begin the subscription again")
        before = [each.ring for each in self._copy.claims.values() if each.version < version]
        check_room(ring.subscription, limit, (*self._copy.rings.values(), *before), self._clock.now())
        return version

    async def _put_new(self, ring: Keyring, document: Mapping[str, Any], version: int) -> Record:
        try:
            return await self._records.put(self._kind, ring.subscription.id, document, if_match=version)
        except VersionConflict:
            if version:
                raise StoreError("the subscription took too long to begin: begin it again") from None
            raise taken(ring.subscription) from None

    async def _withdraw(self, ring: Keyring) -> None:
        """Leave nothing of what could not begin, as far as the records can be asked."""
        subscription_id = ring.subscription.id
        with anyio.move_on_after(_WITHDRAWING, shield=True), contextlib.suppress(StoreError, VersionConflict):
            record = await self._records.get(self._kind, subscription_id)
            held = None if record is None else _read(record)
            found = held.ring if isinstance(held, Claim) else held
            if record is not None and found is not None and found.keys == ring.keys:  # no other has these keys
                await self._records.delete(self._kind, subscription_id, if_match=record.version)

    async def _forget_abandoned(self) -> None:
        now = self._clock.now()
        for name, claim in [*self._copy.claims.items()]:
            if claim.is_abandoned(now):
                with contextlib.suppress(VersionConflict):
                    await self._records.delete(self._kind, name, if_match=claim.version)

    async def issue(self, subscription_id: str, slot: Slot = "primary", *, overlap: float = 0.0) -> str:
        """Make a new key for a subscription and give it back, this once.

        The one it replaces works for ``overlap`` seconds more; with 0, no more at all.
        """
        key = new_key(self._prefix)
        await self.set_key(subscription_id, slot, key_digest(key), overlap=overlap)
        return key

    async def set_key(self, subscription_id: str, slot: Slot, digest: bytes, *, overlap: float = 0.0) -> None:
        """Give a subscription a key that exists already, by its digest; else as ``issue``."""
        if not overlap >= 0:
            raise ValueError(f"{overlap!r} is no time for two keys to overlap: give seconds, 0 or more")
        ends = self._clock.now() + overlap if overlap else None
        await self._change(subscription_id, lambda ring: ring.with_key(slot, digest, old_ends=ends))

    async def rotate(self, subscription_id: str, slot: Slot = "primary", *, overlap: float = 86_400.0) -> str:
        """What ``issue`` does, with a day on which the old key and the new one both work."""
        return await self.issue(subscription_id, slot, overlap=overlap)

    async def revoke(self, subscription_id: str, slot: Slot) -> None:
        """Let one key of a subscription work no more, nor the one it had replaced."""
        await self._change(subscription_id, lambda ring: ring.without_key(slot))

    async def set_state(self, subscription_id: str, state: State) -> None:
        """Say where a subscription stands. ValueError for what is no state."""
        await self._change(subscription_id, lambda ring: replace(ring, state=state))

    async def approve(self, subscription_id: str) -> None:
        """Let the keys of a subscription work that waits for approval; as ``MemoryKeys.approve``."""
        await self._change(subscription_id, lambda ring: ring.decided("active"))

    async def reject(self, subscription_id: str) -> None:
        """Turn down a subscription that waits for approval; as ``MemoryKeys.reject``."""
        await self._change(subscription_id, lambda ring: ring.decided("rejected"))

    async def suspend(self, subscription_id: str) -> None:
        """Let the keys of a subscription rest."""
        await self.set_state(subscription_id, "suspended")

    async def resume(self, subscription_id: str) -> None:
        """Let the keys of a subscription work, again or for the first time."""
        await self.set_state(subscription_id, "active")

    async def cancel(self, subscription_id: str) -> None:
        """End a subscription; it is still known, and so is that it was cancelled."""
        await self.set_state(subscription_id, "cancelled")

    async def expire(self, subscription_id: str, at: float | None = None) -> None:
        """Let a subscription expire at a time, in seconds since 1970-01-01 UTC; now when none is given."""
        moment = self._clock.now() if at is None else at
        await self._change(subscription_id, lambda ring: replace(ring, expires=moment))

    async def remove(self, subscription_id: str) -> None:
        """Forget a subscription and its keys."""
        await self._held(subscription_id)
        known = self._copy.rings.get(subscription_id)
        await self._records.delete(self._kind, subscription_id)
        if known is not None and self._copy.rings.get(subscription_id) is known:  # else more was learnt meanwhile
            self._copy.forget(subscription_id)
        await self._following.changed()

    async def _held(self, subscription_id: str) -> tuple[int, Keyring]:
        record = await self._records.get(self._kind, subscription_id)
        ring = None if record is None else _read(record)
        if record is None or not isinstance(ring, Keyring):
            raise LookupError(f"there is no subscription {subscription_id!r}")
        return record.version, ring

    async def _change(self, subscription_id: str, change: Callable[[Keyring], Keyring]) -> None:
        """Change a subscription as it is now, again when somebody else did meanwhile."""
        for _ in range(_ATTEMPTS):
            version, ring = await self._held(subscription_id)
            try:
                await self._write(change(ring), version)
            except VersionConflict:
                continue
            return
        raise StoreError("others change this subscription all the time")

    async def _write(self, ring: Keyring, version: int | None) -> None:
        await self._following.refresh_to_change()  # so that a key of somebody else is known as such
        ring = ring.without_ended(self._clock.now())
        for key in ring.keys:
            other = self._copy.found.get(key.digest)
            if other is not None and other.subscription.id != ring.subscription.id:
                raise ValueError("this key belongs to another subscription")
        record = await self._records.put(self._kind, ring.subscription.id, ring.document(), if_match=version)
        await self._following.changed(record)
