"""A value that is fetched when it is needed, kept while it is good, and renewed before it is not."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import anyio

from apim_middleware.errors import Refusal
from apim_middleware.protocols import Clock
from apim_middleware.stores.background import BackgroundJob

log = logging.getLogger("apim_middleware.credentials")

T = TypeVar("T")

RETRY = 5.0
"""Seconds after a failure in which nobody is asked again."""

_MOST_WAITING = 256
_SHORTEST = 0.5  # seconds


class Unavailable(Exception):
    """A value cannot be had now; ``denied`` when that is because of who asked, and not a failure of anything."""

    def __init__(self, reason: str, *, retry_after: float = RETRY, denied: bool = False) -> None:
        """Keep why, in words that hold no secret, and when to try again."""
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.denied = denied

    def refusal(self) -> Refusal:
        """What the caller is told."""
        if self.denied:
            return Refusal(403, "token-not-exchanged", "The caller's token gives no access to what is behind this.")
        headers = {"retry-after": str(max(1, math.ceil(self.retry_after)))}
        return Refusal(503, "credential-unavailable", "The upstream cannot be asked at the moment.", headers=headers)


class Fetched(NamedTuple, Generic[T]):
    """A value, and for how many seconds it is ``fresh``, and then still ``good``."""

    value: T
    fresh: float
    good: float

    def __repr__(self) -> str:
        """The times; the value may be a secret."""
        return f"<Fetched: fresh for {self.fresh:g} s, good for {self.good:g} s>"


Fetch: TypeAlias = Callable[[], Awaitable[Fetched[T]]]
"""What fetches a value. Raises Unavailable."""


class Renewing(Generic[T]):
    """Fetches once for all who wait, and in the background once the value is no longer fresh.

    After a failure nobody is asked for five seconds: a value that is good still serves, else all are told.
    """

    def __init__(self, what: str, clock: Clock, fetch: Fetch[T] | None = None) -> None:
        """Nothing is fetched yet. ``what`` is for the log; without ``fetch``, who needs the value brings that along."""
        self._what = what
        self._fetch = fetch
        self._now = clock.monotonic
        self._held: Fetched[T] | None = None
        self._since = self._quiet_until = self._dropped = float("-inf")
        self._failure: tuple[str, bool] = ("", False)
        self._fetching: anyio.Event | None = None
        self._waiting = 0
        self._job = BackgroundJob(self._renew)

    async def current(self, fetch: Fetch[T] | None = None) -> T:
        """The value as far as known, fetched first when there is none. Raises Unavailable."""
        while True:
            now, held = self._now(), self._held
            if held is not None and now < self._since + held.good:
                if now >= self._since + held.fresh and now >= self._quiet_until and self._fetching is None:
                    self._job.wake()
                return held.value
            if now < self._quiet_until:
                reason, denied = self._failure
                raise Unavailable(reason, retry_after=self._quiet_until - now, denied=denied)
            await self._fetched(fetch or self._fetch)

    def drop(self, value: T) -> None:
        """Fetch anew when the value is needed next, if it is still this one; once in five seconds at most."""
        now = self._now()
        if self._held is not None and self._held.value is value and now >= self._dropped + RETRY:
            self._held, self._dropped = None, now

    async def _renew(self, *, last: bool) -> None:
        if not last and self._fetching is None and self._fetch is not None:
            await self._lead(self._fetch)

    async def _fetched(self, fetch: Fetch[T] | None) -> None:
        """A fetch has come to its end: the one that is under way, or else our own."""
        if self._fetching is None:
            if fetch is None:
                raise TypeError("nobody said how it is fetched")
            await self._lead(fetch)
            return
        if self._waiting >= _MOST_WAITING:
            raise Unavailable("too many are waiting for it", retry_after=1.0)
        self._waiting += 1
        try:
            await self._fetching.wait()
        finally:
            self._waiting -= 1

    async def _lead(self, fetch: Fetch[T]) -> None:
        """Fetch, and let those who wait go on whatever becomes of it; when it is cancelled, another of them leads."""
        done = self._fetching = anyio.Event()
        try:
            self._take(await fetch())
        except Exception as error:
            self._failed(error)
        finally:
            self._fetching = None
            done.set()

    def _take(self, fetched: Fetched[T]) -> None:
        if not fetched.good >= _SHORTEST:  # else it would be fetched again and again for the one who waits for it
            raise Unavailable("it had ended when it came")
        self._held, self._since = fetched, self._now()

    def _failed(self, error: Exception) -> None:
        failure = error if isinstance(error, Unavailable) else Unavailable(type(error).__name__)
        self._failure = failure.reason, failure.denied
        self._quiet_until = self._now() + failure.retry_after
        if not failure.denied:
            log.warning("%s cannot be had: %s", self._what, failure.reason)
