"""Records followed: a copy of one kind in this process, kept current by one who asks for all."""

import contextlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import anyio

from apim_middleware._config import check
from apim_middleware.errors import ConfigError, FeedLost, StoreError
from apim_middleware.protocols import Clock, Record, Records
from apim_middleware.stores.background import BackgroundJob
from apim_middleware.stores.circuit import Circuit
from apim_middleware.stores.outage import Outage

log = logging.getLogger("apim_middleware.records")

_PAGE = 1000

_LONGEST = 5.0
"""Seconds in which the records must have answered, whatever time-outs they have themselves."""

_EMPTIED = 60.0
"""Seconds after which records that hold nothing are believed, however long what is known may be used."""

_PATIENCE = 0.25
"""Seconds that whoever asks waits for the answer where it could go on without."""


class Emptied(StoreError):
    """The records hold nothing at all, and never heard of what is known here: they were lost, or are others."""


class Unanswered(StoreError):
    """The copy cannot say, and the records have not answered: that they are away was logged when it began."""


class Copy(ABC):
    """What is known of the records of one kind, up to one version."""

    def __init__(self, kind: str) -> None:
        """Nothing is known yet."""
        self.kind = kind
        self.version = 0
        self.heard = False
        """Whether the records held anything, of whatever kind."""

    def learn(self, record: Record) -> None:
        """One record as it is now, after all that were changed before it."""
        self.version, self.heard = record.version, True
        if record.kind == self.kind:
            self.take(record)

    @abstractmethod
    def __len__(self) -> int:
        """How many of the kind are known."""

    @abstractmethod
    def take(self, record: Record) -> None:
        """What a record of the kind holds, in the place of what it held before."""


C = TypeVar("C", bound=Copy)


class Following(Generic[C]):
    """A copy of records, which are asked what has changed when it is used and the last time is ``refresh`` seconds ago.

    Records that have lost everything are as good as away for ``stale`` seconds, a minute at most: what is known holds
    meanwhile, and somebody may put them back or find the right server. Then nothing is known any more.

    They are asked outside of requests, by one for all. While they are away, they are asked after pauses of a tenth of a
    second up to ten seconds, and nobody waits for them but once. The copy is as old as the last time that they were
    asked and answered, counted from the question: what was changed before that is known.
    """

    def __init__(
        self, owner: str, records: Records, make: Callable[[], C], clock: Clock, *, refresh: float, stale: float
    ) -> None:
        """Nothing is asked yet. ``make`` begins a copy; one older than ``stale`` seconds is nothing to go by."""
        check(owner, "refresh", refresh, float)
        check(owner, "stale", stale, float)
        if not 0 <= refresh <= stale:
            bound = "" if stale == math.inf else f", or more than stale={stale}"
            cure = "Give seconds, 0 or more" if stale == math.inf else "Give seconds, no more than stale"
            raise ConfigError(owner, "refresh", f"{refresh} is no time{bound}", cure)
        self.copy = make()
        self._owner = owner
        self._records, self._make = records, make
        self._refresh, self._stale = refresh, stale
        self._clock = clock
        self._asked_at = -math.inf
        self._answers = 0
        self._doubted = False
        self._emptied_at = math.inf
        self._circuit = Circuit(clock)
        self._job = BackgroundJob(self._renew)
        self._outage = Outage(log, f"{owner} cannot ask the records", f"{owner} can ask the records again")

    def soon(self) -> None:
        """See that the records are asked in the background, if that is due; plain, for whoever cannot wait."""
        if self._is_due() and not self._circuit.wait:
            self._job.wake()

    async def current(self, *, urgent: bool) -> bool:
        """Have the records asked if that is due, and say whether they have answered. Raises Unanswered without a copy.

        Who is ``urgent`` waits for the answer. Of the others the first waits as well, but not for long.
        """
        answered = not self._is_due() or await self._renewed(urgent=urgent or self._is_stale())
        if not answered and self._is_stale():
            raise Unanswered("what is known is too old, and cannot be asked for")
        return answered

    def _is_due(self) -> bool:
        return self._doubted or self._clock.monotonic() - self._asked_at >= self._refresh

    def _is_stale(self) -> bool:
        return self._clock.monotonic() - self._asked_at > self._stale

    async def _renewed(self, *, urgent: bool) -> bool:
        away, asking = self._circuit.opened, self._job.busy
        if away and (asking or self._circuit.wait):
            return False
        patience = math.inf if urgent else _PATIENCE
        if away:  # it has been waited for long enough
            patience = _PATIENCE if urgent else 0.0
        elif asking and not urgent:
            patience = 0.0
        answers = self._answers
        self._job.wake()
        if patience:
            with anyio.move_on_after(patience):
                await self._job.over()
        return self._answers > answers

    async def _renew(self, *, last: bool) -> None:
        if last:
            return
        try:
            await self._circuit.run(self._refreshed)
        except StoreError as error:
            self._outage.begins(error)

    async def _refreshed(self) -> None:
        """Ask, for so long at most: who never answers must not keep others from being asked."""
        with anyio.move_on_after(_LONGEST):
            await self.refresh()
            return
        raise StoreError(f"the records did not answer in {_LONGEST:g} seconds")

    async def changed(self, record: Record | None = None) -> None:
        """Know at once what was changed here, and what came before; if that fails, whoever uses the copy next asks."""
        if record is not None and record.version > self.copy.version:  # else this was learnt already, or more
            self.copy.take(record)
        self._doubted = True
        with contextlib.suppress(StoreError):
            await self.refresh()

    async def refresh_to_change(self) -> None:
        """What ``refresh`` does; but whoever writes into records that were emptied begins them anew."""
        with contextlib.suppress(Emptied):
            await self.refresh()

    async def refresh(self) -> None:
        """Ask the records now what has changed. Raises StoreError."""
        began, doubted = self._clock.monotonic(), self._doubted
        self._doubted = False
        try:
            at = await self._followed(began)
        except BaseException:
            self._doubted = self._doubted or doubted
            raise
        self._asked_at, self._emptied_at = at, math.inf
        self._answers += 1
        if self._circuit.opened:  # whoever has asked: it is back
            self._circuit = Circuit(self._clock)
        self._outage.ends()

    async def _followed(self, began: float) -> float:
        """Follow the records up to now; when the copy was asked for, if that began then."""
        while True:
            copy = self.copy
            try:
                await self._follow(copy)
                if self.copy is copy:
                    return max(began, self._asked_at)
            except FeedLost:
                anew = await self._anew()
                if self.copy is copy:
                    self._replace(copy, anew)
                    return began
            # Somebody else has read it all meanwhile, and may know more or less.

    def _replace(self, copy: C, anew: C) -> None:
        """Go by what was read anew, and tell of what is known no more. Raises Emptied."""
        if len(copy) and not anew.heard:
            now = self._clock.monotonic()
            self._emptied_at = min(self._emptied_at, now)
            if now - self._emptied_at < min(self._stale, _EMPTIED):
                raise Emptied(f"they are empty, and {len(copy)} of kind {copy.kind} were known")
        self.copy = anew
        back = anew.version < copy.version
        if back or len(anew) < len(copy):
            what = "are older than they were" if back else "were read anew, for not all changes were told"
            log.warning("the records of %s %s: %d are known, of %d", self._owner, what, len(anew), len(copy))

    async def _anew(self) -> C:
        anew = self._make()
        try:
            await self._follow(anew)
        except FeedLost as error:
            raise StoreError("the records forget changes faster than they can be followed") from error
        return anew

    async def _follow(self, copy: C) -> None:
        if not copy.version:
            latest = await self._records.version()
            _learn(copy, await self._records.changes(0))
            copy.version = max(copy.version, latest)
        while True:
            after = copy.version
            page = await self._records.changes(after, limit=_PAGE)
            _learn(copy, page)
            seen = page[-1].version if page else after
            if len(page) < _PAGE and copy.version <= seen:  # else somebody learns more, and may not be through with it
                return


def _learn(copy: Copy, page: Sequence[Record]) -> None:
    for record in page:
        if record.version > copy.version:  # else somebody learnt more meanwhile
            copy.learn(record)
