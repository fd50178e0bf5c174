"""Counters in a SQLite file: embedded, durable, shared by all processes of one machine."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from apim_middleware._config import check_count
from apim_middleware.protocols import Change, Clock, Hit, Limit, Tally
from apim_middleware.stores.sqlite.books import Books, Name, name_of
from apim_middleware.stores.sqlite.file import SQLiteFile, Synchronous
from apim_middleware.stores.sqlite.thread import Clerk, Work
from apim_middleware.stores.sqlite.times import Times

_Job: TypeAlias = Callable[[Books], object]
_Use: TypeAlias = tuple[Name, Limit, int]


class Usage(NamedTuple):
    """How full a store is."""

    rows: int
    """Rows in the file: one for each counter, each window that runs, and each moment of a log."""

    evicted: int
    """How many counters that still counted had to make room for others, since the file was made."""


class SQLiteCounters:
    """Counts in a file: what was counted outlives the process, and is one count for all processes of the machine.

    A hit is answered when it is in the file. Hits that wait at the same time, of whatever requests, are written in one
    transaction by a thread of the store's own; the event loop never waits for the disk.

    ``synchronous`` says what can be lost. With either value, nothing is when the process is killed (``kill -9``), fails
    or restarts. When the power fails or the system stops, ``"full"`` loses nothing either and waits for the disk with
    each transaction; ``"normal"``, the default, loses the units counted since the last checkpoint of the write-ahead
    log, some thousand transactions at most, in favour of the callers. The file is whole in every case.

    Time is the machine's: windows of the clock and the calendar follow its wall clock, as those in memory do;
    everything else goes by its monotonic clock, also over a restart of the process. The file must be on a disk of this
    machine, not on a network's, for SQLite's write-ahead log needs memory that is shared.

    At most ``max_keys`` rows are kept, one for each key that counts, each limit, and each moment of a log. What no
    longer counts is deleted by later hits. When there is no room, counters that used the smallest part of their quota
    make some; those that used all of theirs come last. Keys are kept as hashes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "normal",
        patience: float = 5.0,
        max_keys: int = 1_000_000,
        max_waiting: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        """Count in the file at ``path``, which is made with the first hit.

        ``patience``: seconds to wait for other processes, after which hits fail. ``max_waiting``: hits that may wait at
        once; more fail at once. ``clock`` is for tests. ConfigError when no file can be there.
        """
        check_count("SQLiteCounters", "max_keys", max_keys)
        check_count("SQLiteCounters", "max_waiting", max_waiting)
        file = SQLiteFile.at(path, "SQLiteCounters", synchronous=synchronous, patience=patience)
        self._clerk: Clerk[_Job] = Clerk(partial(_Counting, file, Times.of(clock), max_keys), room=max_waiting)
        self._path = os.fspath(path)

    def __repr__(self) -> str:
        """Where they are."""
        return f"<SQLiteCounters: {self._path}>"

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order. Raises StoreError."""
        return await self._told(_hit, hits)

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        """What each hit alone would be told, counting nothing. Raises StoreError."""
        return await self._told(_peek, hits)

    async def settle(self, changes: Sequence[Change]) -> None:
        """Correct hits that were counted: give units back, or count more. Raises StoreError."""
        uses = [(name_of(key, limit), limit, units, counted) for key, limit, units, counted in changes]
        if uses:
            await self._clerk.ask(partial(_settle, uses))

    async def assign(self, hits: Sequence[Hit]) -> None:
        """Make each counter stand at ``cost`` units, used just now. Raises StoreError."""
        await self._told(_assign, hits)

    async def reset(self, hits: Sequence[Hit]) -> None:
        """Forget what was counted under these keys and limits. Raises StoreError."""
        await self._told(_assign, [Hit(key, limit, 0) for key, limit, _ in hits])

    async def usage(self) -> Usage:
        """How full the file is. Raises StoreError."""
        usage: Usage = await self._clerk.ask(lambda books: Usage(books.size, books.evicted))
        return usage

    async def aclose(self) -> None:
        """Finish what is waiting and close the file; hits fail afterwards."""
        await self._clerk.aclose()

    async def _told(self, do: Callable[[Sequence[_Use], Books], object], hits: Sequence[Hit]) -> list[Tally]:
        uses = [(name_of(key, limit), limit, cost) for key, limit, cost in hits]
        if not uses:
            return []
        tallies: list[Tally] = await self._clerk.ask(partial(do, uses))
        return tallies


# What is done in the thread


class _Counting(Work[_Job]):
    def __init__(self, file: Callable[[], SQLiteFile], times: Times, room: int) -> None:
        self.file, self.times, self.room = file(), times, room

    def do(self, jobs: Sequence[_Job]) -> list[object]:
        with self.file.transaction() as connection:
            books = Books(connection, self.times, self.room)
            answers = [job(books) for job in jobs]
            books.save()
        return answers

    def close(self) -> None:
        self.file.close()


def _hit(uses: Sequence[_Use], books: Books) -> list[Tally]:
    done, tallies = [], []
    for name, limit, cost in uses:
        counter = books.counter(name, limit)
        done.append((counter, counter.changed, counter.saved()))
        tallies.append(counter.take(cost))
    if all(tally.allowed for tally in tallies):
        return tallies
    for counter, changed, saved in reversed(done):
        counter.restore(saved)
        counter.changed = changed
    looked = _peek(uses, books)
    return [look if tally.allowed else tally for look, tally in zip(looked, tallies, strict=True)]


def _peek(uses: Sequence[_Use], books: Books) -> list[Tally]:
    return [books.counter(name, limit).look(cost) for name, limit, cost in uses]


def _settle(changes: Sequence[tuple[Name, Limit, int, float]], books: Books) -> None:
    for name, limit, units, counted in changes:
        books.counter(name, limit).change(units, counted)


def _assign(uses: Sequence[_Use], books: Books) -> None:
    for name, limit, cost in uses:
        books.counter(name, limit).put(cost)
