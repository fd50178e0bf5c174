"""The counters of an environment and what belongs to them: the circuit, the stand-in, and what is left to settle."""

import logging
from collections.abc import Sequence

import anyio

from apim_middleware._limits.corrections import NOW, Finding, Left, Pending, dated, peeks_of
from apim_middleware._limits.meters import Use
from apim_middleware._limits.stand_in import StandIn
from apim_middleware.errors import NotDone, Spoiled, StoreError
from apim_middleware.protocols import Change, Clock, Counters, Hit, Tally
from apim_middleware.stores.background import BackgroundJob
from apim_middleware.stores.circuit import Circuit

log = logging.getLogger("apim_middleware")

_BATCH = 500
"""Corrections in one call of the store."""


class RemoteCounters:
    """Counts in a store that may be slow and may be away. One for all limits of an environment."""

    def __init__(self, store: Counters, clock: Clock) -> None:
        self.store = store
        self.circuit = Circuit(clock, self._back)
        self._clock = clock
        self._stand_in: StandIn | None = None
        self._left = Left()
        self._job = BackgroundJob(self._settle)
        self._under_way: anyio.Event | None = None  # set when the batch is made, or not

    async def hit(self, uses: Sequence[Use]) -> list[Tally]:
        """Count all if every limit allows it. Raises StoreError, at once while the store is known to be away."""
        return await self.circuit.run(self.store.hit, [Hit(*use) for use in uses])

    async def peek(self, uses: Sequence[Use]) -> list[Tally]:
        """What each would be told, counting nothing. Raises StoreError."""
        return await self.circuit.run(self.store.peek, [Hit(*use) for use in uses])

    def stand_in(self) -> StandIn:
        """What counts in this process until the store is back."""
        if self._stand_in is None:
            self._stand_in = StandIn(self._clock)
        return self._stand_in

    def settle(self, changes: Sequence[Change], stand_in: StandIn | None = None) -> None:
        """Correct hits soon; those that a stand-in counted, where they stand by now."""
        left: Sequence[Change | Finding] = changes if stand_in is None else stand_in.settle(changes)
        if left:
            self._left.add(left)
            self._job.wake()

    async def settled(self) -> None:
        """Correct all that is to be corrected, now. Raises StoreError."""
        while True:
            if self._under_way is not None:
                await self._under_way.wait()
            elif batch := self._left.take(_BATCH):
                await self._settle_batch(batch)
            else:
                return

    def _back(self) -> None:
        stand_in, self._stand_in = self._stand_in, None
        if stand_in is not None:
            self._left.add(stand_in.tellings())
        self._job.wake()

    async def _settle(self, *, last: bool) -> None:
        while batch := self._left.take(_BATCH):
            try:
                await self._settle_batch(batch)
            except StoreError:
                if last:
                    return
                await self.circuit.better()

    async def _settle_batch(self, batch: list[Pending]) -> None:
        asked, over = False, anyio.Event()
        self._under_way = over
        try:
            making = batch
            if self.circuit.opened or any(change.counted == NOW for change, _ in batch):
                making = await self._dated(batch)  # may be asked twice, unlike what follows
            asked = True
            await self.circuit.run(self.store.settle, [change for change, _ in making])
            for change, finding in making:
                if finding is not None:
                    finding.made(change)
        except Spoiled as error:  # the others are made; those never will be
            log.error("corrections of counts are lost: %s", error)
        except StoreError as error:
            self._left.put_back(_only_stricter(batch) if asked and not isinstance(error, NotDone) else batch)
            raise
        except BaseException:
            if asked:  # to be made twice would be worse
                log.error("it is not known whether %d corrections of counts were made", len(batch))
            else:
                self._left.put_back(batch)
            raise
        finally:
            over.set()
            if self._under_way is over:
                self._under_way = None

    async def _dated(self, batch: Sequence[Pending]) -> list[Pending]:
        """The changes as of now, without those the store can say nothing of."""
        changes, findings = [change for change, _ in batch], [finding for _, finding in batch]
        try:
            return list(map(Pending, dated(changes, await self.peek(peeks_of(changes))), findings))
        except Spoiled as error:
            if len(batch) == 1:
                log.error("a correction of counts is lost: %s", error)
                return []
        half = len(batch) // 2
        return [*await self._dated(batch[:half]), *await self._dated(batch[half:])]


def _only_stricter(batch: Sequence[Pending]) -> list[Pending]:
    """Of changes that may have been made those that may be made twice: they count more; no unit is given back twice."""
    again = [pending for pending in batch if pending.change.units > 0]
    if len(again) < len(batch):
        log.error("it is not known whether %d corrections that give units back were made", len(batch) - len(again))
    return again
