"""Counters in this process: exact, bounded, and faster with a million keys than a dictionary of a million keys."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from apim_middleware._config import check, check_count
from apim_middleware.protocols import Change, Clock, Hit, Limit, Tally
from apim_middleware.stores.counts.book import Again, Book
from apim_middleware.stores.counts.bucket import Bucket
from apim_middleware.stores.counts.fixed import Calendar, Fixed, Lifetime
from apim_middleware.stores.counts.log import Log
from apim_middleware.stores.counts.room import Room
from apim_middleware.stores.counts.sliding import Sliding


class MemoryCounters:
    """Counts in the memory of this process; what was counted is gone when it ends.

    Meant for one event loop: nothing awaits between reading and writing a count, so hits cannot come between. Those of
    another thread can, and spoil the counts.

    *Fixed* windows are aligned to the clock: a window of 3,600 seconds begins with the hour (UTC), or where the limit
    says. So are the periods of a *calendar*. They are measured in time that never goes back. When the wall clock was
    set back meanwhile, the next window is prolonged to its next boundary (less than twice as long, once), so that no
    window is handed out twice; when it was set forward, the next window ends with the clock's.

    *Sliding* windows count the last ``window`` seconds as if the units used in one window of time had been used evenly
    from the first of them to the last. This is exact when they were, or were used all at once, as by most callers who
    come near a limit. At the worst ``quota + (quota - 1) * f`` units pass in ``f`` windows of time (``f`` up to 1).
    A correction changes the units of a window of time; its first moment stays, and what more was used later moves its
    last.

    *Logs* keep 16 bytes for each moment at which units were used. They are exact up to 1,000 moments in a window; hits
    beyond that share the later moment with others less than a thousandth of the window before them: units may then come
    back that much later, never earlier.

    A key is known by 64 bits of a hash, seeded for each process; itself it is not kept (but with its log). Of a million
    keys two share a counter in one process of thirty million.

    *Buckets* that were corrected are as if the units had been taken out or put back just now.
    A window that never ends gives nothing back, whatever the algorithm.

    At most ``max_keys`` entries are kept, one for each key that still counts under a limit (of a log, one more for
    each 256 bytes). When there is no room for a new key, entries that no longer count make room, then those that used
    the smallest part of their quota, the newest first; keys that used all of theirs come last, and any key of a window
    that never ends after them. ``evicted`` says how many entries were lost that way. Of different limits there is room
    for a twentieth of ``max_keys``; of more, those go first that are over, then those of which the least was used.
    """

    def __init__(self, *, max_keys: int = 1_000_000, clock: Clock | None = None) -> None:
        """Begin with nothing counted; without a ``clock``, take the machine's."""
        check("MemoryCounters", "clock", clock, Clock | None)
        check_count("MemoryCounters", "max_keys", max_keys)
        self._monotonic: Callable[[], float] = clock.monotonic if clock else time.monotonic
        self._room = Room(max_keys, self._monotonic, clock.now if clock else time.time)
        self._books = self._room.books

    def __len__(self) -> int:
        """How many entries are kept. Counts them: not for every request."""
        return len(self._room)

    @property
    def evicted(self) -> int:
        """How many entries that still counted had to make room for others."""
        return self._room.evicted

    def hit_one(self, key: str, limit: Limit, cost: int) -> tuple[Tally, Again]:
        """Count one hit if its limit allows it, and give the short way to count the next ones of this limit.

        The short way counts one more unit of a key that was counted before and has more left, as most hits are. It
        gives the units left and the whole seconds until all are there again, a window at most; for any other hit None,
        and nothing is counted: that one comes here, and gets the short way anew.
        """
        now = self._monotonic()
        book = self._books.get(limit)
        if book is None or now >= book.due:
            book = self._open(limit, now)
        return book.take(key, cost, now), book.again

    def hit_now(self, hits: Sequence[tuple[str, Limit, int]]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order."""
        now = self._monotonic()
        if len(hits) == 1:  # the hot path: _book, written out
            key, limit, cost = hits[0]
            book = self._books.get(limit)
            if book is None or now >= book.due:
                book = self._open(limit, now)
            return [book.take(key, cost, now)]
        found: list[Any] = []
        tallies: list[Tally] = []
        for key, limit, cost in hits:
            book = self._book(limit, now)
            tallies.append(book.take(key, cost, now))
            found.append(book.found)
        for tally in tallies:
            if not tally[0]:
                return self._taken_back(hits, found, tallies, now)
        return tallies

    def peek_now(self, hits: Sequence[tuple[str, Limit, int]]) -> list[Tally]:
        """What each hit alone would be told, counting nothing."""
        now = self._monotonic()
        return [self._book(limit, now).look(key, cost, now) for key, limit, cost in hits]

    def settle_now(self, changes: Sequence[tuple[str, Limit, int, float]]) -> None:
        """Correct hits that were counted, as far as they still count."""
        now = self._monotonic()
        for key, limit, units, counted in changes:
            self._book(limit, now).settle(key, units, counted, now)

    def assign_now(self, hits: Sequence[tuple[str, Limit, int]]) -> None:
        """Make each counter stand at so many units, as if used just now and nothing before."""
        now = self._monotonic()
        for key, limit, cost in hits:
            self._book(limit, now).assign(key, cost, now)

    def reset_now(self, hits: Sequence[tuple[str, Limit, int]]) -> None:
        """Forget what was counted under these keys and limits."""
        now = self._monotonic()
        for key, limit, _ in hits:
            self._book(limit, now).forget(key)

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order."""
        return self.hit_now(hits)

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        """What each hit alone would be told, counting nothing."""
        return self.peek_now(hits)

    async def settle(self, changes: Sequence[Change]) -> None:
        """Correct hits that were counted, as far as they still count."""
        self.settle_now(changes)

    async def assign(self, hits: Sequence[Hit]) -> None:
        """Make each counter stand at ``cost`` units, as if used just now and nothing before."""
        self.assign_now(hits)

    async def reset(self, hits: Sequence[Hit]) -> None:
        """Forget what was counted under these keys and limits."""
        self.reset_now(hits)

    def _book(self, limit: Limit, now: float) -> Book[Any]:
        book = self._books.get(limit)
        return self._open(limit, now) if book is None or now >= book.due else book

    def _open(self, limit: Limit, now: float) -> Book[Any]:
        """The book of a limit, open at the window that runs now."""
        book = self._books.get(limit)
        if book is None:
            kind = Lifetime if limit.window == math.inf else _ALGORITHMS[limit.algorithm]
            book = kind(limit, self._room)
            book.turn(now)
            self._room.add(book, now)
        else:
            book.turn(now)
        return book

    def _taken_back(
        self, hits: Sequence[tuple[str, Limit, int]], found: list[Any], tallies: list[Tally], now: float
    ) -> list[Tally]:
        """One refused, so none counts: put back what was found, the last first, and tell the others so."""
        for (key, limit, _), mark in zip(reversed(hits), reversed(found), strict=True):
            self._book(limit, now).put_back(key, mark)
        return [
            self._book(limit, now).look(key, cost, now) if tally.allowed else tally
            for (key, limit, cost), tally in zip(hits, tallies, strict=True)
        ]


_ALGORITHMS: dict[str, type[Book[Any]]] = {
    "fixed": Fixed,
    "sliding": Sliding,
    "log": Log,
    "bucket": Bucket,
    "calendar": Calendar,
}
