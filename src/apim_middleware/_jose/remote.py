"""Keys that an issuer publishes: fetched once for all who wait, renewed ahead of time, never asked for in a hurry.

Renewal runs as a ``BackgroundJob``: a task of its own on the event loop of whoever woke it, outside of every request,
which ends with the loop. Whoever's key is known never waits for it.
"""

import logging
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from apim_middleware._jose.alarm import Alarm
from apim_middleware._jose.keys import KeySet
from apim_middleware._jose.publishers import Publisher
from apim_middleware._jose.tokens import BadToken, Signed
from apim_middleware.protocols import Clock
from apim_middleware.stores.background import BackgroundJob

log = logging.getLogger("apim_middleware.jwt")

RETRY = 5.0
MOST_WAITING = 256
_AHEAD = 60.0
_WATCH = 60.0


class KeysUnavailable(Exception):
    """No key is known and none can be had now; ``retry_after`` seconds later it may be tried again."""

    def __init__(self, retry_after: float) -> None:
        """Keep when to try again."""
        super().__init__(retry_after)
        self.retry_after = retry_after


class Times(NamedTuple):
    """Seconds: between two fetches at least, and for how long keys that are stale go on serving."""

    cooldown: float
    stale_if_error: float


class RemoteKeys:
    """The keys of a publisher, and how long they are good for.

    Known keys are used as they are. They are renewed in the background up to a minute before they go stale, whether or
    not anybody asks, and go on serving while the issuer cannot be reached, for ``stale_if_error`` seconds after they
    went stale. One fetch runs at a time, and none within ``cooldown`` seconds of another, however many tokens name
    unknown keys. ``withdrawn`` is told the marks of keys that are gone, ``failed`` of every fetch that brought none.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        clock: Clock,
        times: Times,
        withdrawn: Callable[[frozenset[str]], None],
        failed: Callable[[], None],
    ) -> None:
        """Know whom to ask; nothing is fetched before a token asks for it."""
        self._publisher = publisher
        self._now = clock.monotonic
        self._times = times
        self._withdrawn, self._failed = withdrawn, failed
        self.keys = KeySet(())
        self.look_at = inf
        """When ``review`` has something to do."""
        self._quiet_until = self._dead_at = -inf
        self._fetching = False
        self._waiting = 0
        self._job = BackgroundJob(self._renew)
        self._alarm = Alarm(self.review)

    async def verify(self, token: Signed) -> str:
        """The mark of the key that signed, fetched anew if it is unknown. Raises BadToken, KeysUnavailable."""
        keys = await self.current()
        try:
            return keys.verify(token)
        except BadToken:
            if keys.knows(token.kid) or (others := await self.other_than(keys)) is None:
                raise
        return others.verify(token)

    async def current(self) -> KeySet:
        """The keys as far as known, fetched first when there are none. Raises KeysUnavailable."""
        while (now := self._now()) >= self._dead_at:
            if now < self._quiet_until and not self._fetching:
                raise KeysUnavailable(self._quiet_until - now)
            await self._fetched()
        if now >= self.look_at:
            self.review()
        return self.keys

    async def other_than(self, keys: KeySet) -> KeySet | None:
        """The keys published now, if they are others than these and the issuer was not asked lately.

        Raises KeysUnavailable when too many are waiting for them.
        """
        if self.keys is keys and (self._fetching or self._now() >= self._quiet_until):
            await self._fetched()
        return None if self.keys is keys else self.keys

    def review(self) -> None:
        """Renew keys that are about to go stale, in the background; give up those that are too old."""
        now = self._now()
        if now >= self._dead_at:
            self.look_at = inf
            self._trust(KeySet(()))
            return
        if now >= self._quiet_until:
            self._quiet_until = now + self._times.cooldown
            self._wake()
        self.look_at = min(self._dead_at, self._quiet_until)

    async def _fetched(self) -> None:
        """A fetch has come to its end: the one that is under way, or else a new one."""
        if self._waiting >= MOST_WAITING:
            raise KeysUnavailable(1.0)
        self._waiting += 1
        try:
            self._wake()
            await self._job.over()
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        """See that a fetch is under way; from now on nobody is told that it is too early for one."""
        self._fetching = True
        self._job.wake()

    async def _renew(self, *, last: bool) -> None:
        """Fetch, and let those who wait go on whatever becomes of it."""
        if last:
            return
        known = self._now() < self._dead_at
        if known:
            self._quiet_until = self._now() + self._times.cooldown
        try:
            self._take(*await self._publisher.fetch())
        except Exception as error:  # whatever went wrong, there are no new keys
            self._quiet_until = self._now() + (self._times.cooldown if known else min(RETRY, self._times.cooldown))
            if known:
                self._alarm.set(max(self._times.cooldown, _WATCH))
            self._failed()
            log.warning("no keys from %s: %s", self._publisher.name, ascii(str(error) or type(error).__name__)[:200])
        finally:
            self._fetching = False

    def _take(self, keys: KeySet, life: float) -> None:
        """Keep these keys; the same again are the same object."""
        now = self._now()
        ahead = life - min(_AHEAD, life / 5)
        self._dead_at, self._quiet_until, self.look_at = (
            now + life + self._times.stale_if_error,
            now + self._times.cooldown,
            now + ahead,
        )
        self._alarm.set(ahead)
        if not len(keys):
            log.warning("%s publishes no key that can verify what is allowed", self._publisher.name)
        if keys.marks != self.keys.marks:
            self._trust(keys)

    def _trust(self, keys: KeySet) -> None:
        """From now on these keys count; what was verified with others is to be forgotten."""
        gone = self.keys.marks - keys.marks
        self.keys = keys
        if gone:
            self._withdrawn(gone)
