"""The adapter itself: which storage, how it is asked, and what it cannot do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import anyio
import limits.aio.storage
import limits.storage
from anyio.to_thread import run_sync
from limits.errors import ConcurrentUpdateError, StorageError

from apim_middleware._config import check_count
from apim_middleware.env import SystemClock
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.protocols import Change, Clock, Hit, Limit, Tally
from apim_middleware.stores.limits import plans
from apim_middleware.stores.limits.ways import WAYS, Backend, Counter, Plan

T = TypeVar("T")

_TROUBLE = (StorageError, ConcurrentUpdateError, OSError)
_THIRTY_DAYS = 30 * 86_400.0
"""What memcached takes a longer time for, is a moment in 1970."""

_REMEMBERED = 4096


class LimitsCounters:
    """Counts in a storage of ``limits``, by what its strategies build on; not as exact as our own stores are.

    ``LimitsCounters("memcached://localhost:11211")``, or a storage object; ``async+...`` storages are awaited (asyncio
    only), the others are asked in threads. At most ``at_once`` calls are, the others wait: client libraries fail when
    they run out of connections.

    ``fixed`` and ``calendar``: one number for each window, incremented atomically, so never more than the quota.
    ``log``: as the strategy *moving window*, exact to the millisecond where the clocks of the machines agree.
    ``sliding``: as the strategy *sliding window counter*, which takes the units of the window before for evenly used;
    so it can let more pass than ``sliding`` does elsewhere, or less.

    What it cannot do is a ConfigError, from ``check`` or from the first hit: a bucket, a window without end,
    ``sliding`` and ``log`` with windows that are no whole number of seconds or in storages that do not have them,
    and windows of more than 30 days in memcached (``sliding``: 15). Nor can it correct ``sliding`` and ``log`` with
    ``settle``, as ``corrects`` says: policies that would have to are refused while they are built.

    Several limits in one call are no one step. All are looked at first; when none refuses, they are counted one by one,
    and when one refuses then, because others came in between, fixed windows and calendars counted before get their
    units back. Those of a log or a sliding window stay counted. So under concurrency too little may pass, not too much.

    Time is this machine's wall clock: clocks of machines that share a storage should agree, and one that is set back
    gives out windows again. ``retry_after`` is enough to wait, but of logs and hits of several units sometimes less is
    enough too; the ``reset`` of a log is when its window is over.
    """

    def __init__(
        self,
        storage: "str | limits.storage.Storage | limits.aio.storage.Storage",
        *,
        options: Mapping[str, Any] | None = None,
        at_once: int = 20,
        clock: Clock | None = None,
    ) -> None:
        """Count in a ``storage``: an object of ``limits``, or its URI, for one that is made with its own ``options``.

        ``clock`` is for tests, and moves the windows of the clock and the calendar only. ConfigError for what is no
        storage, and for one whose client library is missing.
        """
        check_count("LimitsCounters", "at_once", at_once)
        made = _made(storage, options or {}) if isinstance(storage, str) else storage
        if not isinstance(made, limits.storage.Storage | limits.aio.storage.Storage):
            problem = f"a {type(storage).__name__} is no storage"
            raise ConfigError("LimitsCounters", "storage", problem, 'Give one of limits, or its URI: "memory://"')
        self._backend = _backend(made)
        self._troubles: tuple[type[Exception], ...] = (*_TROUBLE, *_errors_of(made))
        self._awaits = isinstance(made, limits.aio.storage.Storage)
        self._clock = clock or SystemClock()
        self._limiter = anyio.CapacityLimiter(at_once)
        self._checked: set[Limit] = set()

    def __repr__(self) -> str:
        """Which storage it is, not where, for that may hold a password."""
        return f"<LimitsCounters: {type(self._backend.storage).__name__}>"

    def check(self, limit: Limit) -> None:
        """Raise ConfigError for a limit that cannot be counted here."""
        way = WAYS.get(limit.algorithm)
        problem = way.problem(limit, self._backend) if way else "no storage of limits has buckets"
        if problem:
            told = f"{limit.algorithm!r} with a window of {limit.window:g} s cannot be: {problem}"
            raise ConfigError("LimitsCounters", "limit", told, "Choose another, or count in memory, SQLite or Redis")

    def corrects(self, limit: Limit) -> bool:
        """Whether ``settle`` can correct what was counted under a limit."""
        way = WAYS.get(limit.algorithm)
        return way is not None and way.gives_back

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        """Count all hits if every limit allows it; one tally for each, in order. Raises StoreError."""
        return await self._run(plans.hit(self._uses(hits)))

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        """What each hit alone would be told, counting nothing. Raises StoreError."""
        return await self._run(plans.peek(self._uses(hits)))

    async def settle(self, changes: Sequence[Change]) -> None:
        """Correct hits that were counted, of fixed windows and calendars only. Raises StoreError, ConfigError."""
        uses = self._uses([Hit(key, limit, units) for key, limit, units, _ in changes])
        for counter, _ in uses:
            if not counter.gives_back:
                problem, cure = f"{counter.limit.algorithm!r} cannot be corrected", "Count in memory, SQLite or Redis"
                raise ConfigError("LimitsCounters", "limit", problem, cure)
        await self._run(plans.settle([(*use, change.counted) for use, change in zip(uses, changes, strict=True)]))

    async def assign(self, hits: Sequence[Hit]) -> None:
        """Make each counter stand at ``cost`` units, a log or a sliding window at its quota at most. In two steps."""
        await self._run(plans.assign(self._uses(hits)))

    async def reset(self, hits: Sequence[Hit]) -> None:
        """Forget what was counted under these keys and limits. Raises StoreError."""
        await self._run(plans.assign(self._uses([Hit(key, limit, 0) for key, limit, _ in hits])))

    def _uses(self, hits: Sequence[Hit]) -> list[plans.Use]:
        now = self._clock.now()
        counters: dict[tuple[str, Limit], Counter] = {}
        uses = []
        for key, limit, cost in hits:
            counter = counters.get((key, limit))
            if counter is None:
                counter = counters[key, limit] = self._counter(key, limit, now)
            uses.append(plans.Use(counter, cost))
        return uses

    def _counter(self, key: str, limit: Limit, now: float) -> Counter:
        if limit not in self._checked:
            self.check(limit)
            if len(self._checked) >= _REMEMBERED:
                self._checked.clear()
            self._checked.add(limit)
        return WAYS[limit.algorithm](self._backend, key, limit, now)

    async def _run(self, plan: Plan[T]) -> T:
        try:
            if not self._awaits:
                return await run_sync(plans.driven, plan, limiter=self._limiter)
            async with self._limiter:
                return await plans.awaited(plan)
        except self._troubles as error:
            name = type(self._backend.storage).__name__
            raise StoreError(f"{name} cannot count ({type(error).__name__})") from error


def _made(uri: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any class of theirs
    try:
        return limits.storage.storage_from_string(uri, **options)
    except Exception as error:  # theirs, or of any client library
        # Not what was given, nor what the library says of it: it may hold a password. So it is no cause to show either.
        problem = f"no storage can be made ({type(error).__name__})"
        raise ConfigError("LimitsCounters", "storage", problem, "Look up its URI, and what to install for it") from None


def _errors_of(storage: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - any class of theirs
    errors = storage.base_exceptions
    return errors if isinstance(errors, tuple) else (errors,)


def _backend(storage: Any) -> Backend:  # noqa: ANN401 - any class of theirs
    if isinstance(storage, limits.storage.MemcachedStorage):  # whose increments cannot be negative
        return Backend(storage, _THIRTY_DAYS, lambda name, units: storage.storage.decr(name, units, noreply=False))
    if isinstance(storage, limits.aio.storage.MemcachedStorage):
        return Backend(storage, _THIRTY_DAYS, storage.bridge.decr)
    decrease: Callable[[str, int], Any] | None = getattr(storage, "decr", None)
    return Backend(storage, float("inf"), decrease)
