"""Permits of a store that is awaited and may be away, for hooks that never await."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from secrets import token_hex
from typing import TypeAlias

from anyio import CancelScope, create_task_group, sleep

from apim_middleware.errors import NotDone, StoreError
from apim_middleware.protocols import Clock, Permits
from apim_middleware.stores.background import BackgroundJob
from apim_middleware.stores.circuit import Circuit

log = logging.getLogger("apim_middleware")

_Permit: TypeAlias = tuple[str, str]
"""A key and a holder."""

Returned: TypeAlias = Callable[[str], None]
"""Is told the key of a permit that was given back."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_TOGETHER = 500
"""Permits given back at once: fewer than any store lets wait."""


class Lending:
    """Lends permits of a store, and sees to it that every one is given back, whatever becomes of who had it.

    ``release`` awaits nothing: a background job brings permits back, all that came together at once. While the store is
    away they stay owed, and the job finds out when it is back. So does the permit of an ``acquire`` that failed: a
    store that stood still may lend it when it goes on. One for all policies of an environment, for they share the
    outage.
    """

    __slots__ = ("_circuit", "_fails", "_job", "_late", "_permits", "owed")

    def __init__(self, permits: Permits, clock: Clock) -> None:
        """Owe nothing."""
        self._permits = permits
        self._circuit = Circuit(clock, self._back)
        self._job = BackgroundJob(self._bring_back)
        self.owed: dict[_Permit, Returned] = {}
        """The permits that nobody needs any more, and that are not on their way back."""
        self._late: set[_Permit] = set()  # what an outage left behind, until it is given back
        self._fails = False  # whether the last ones could not be given back, which has been said

    async def acquire(self, key: str, at_once: int, returned: Returned) -> str | None:
        """Who is let in, a holder never heard of before; None when there is no room.

        Raises StoreError, at once while the store is known to be away.
        """
        holder = token_hex(8)
        try:
            lent = await self._circuit.run(self._ask, key, at_once, holder, returned)
            if not lent and (late := [permit for permit in self._late if permit[0] == key]):
                await self._give_back(late, self._return)  # there may be room but for these
                lent = await self._circuit.run(self._ask, key, at_once, holder, returned)
        finally:
            if self.owed:
                self._job.wake()
        return holder if lent else None

    async def _ask(self, key: str, at_once: int, holder: str, returned: Returned) -> bool:
        """Ask the store, shielded: what was lent must be known. When it is not, what may have been lent is owed."""
        try:
            with CancelScope(shield=True):
                lent, _ = await self._permits.acquire(key, at_once, holder)
        except NotDone:
            raise
        except BaseException:
            self._late.add((key, holder))
            self.release(key, holder, returned)
            raise
        return lent

    def release(self, key: str, holder: str, returned: Returned) -> None:
        """Give a permit back soon."""
        self.owed[key, holder] = returned
        self._job.wake()

    async def _bring_back(self, *, last: bool) -> None:
        if last:
            await self._give_back(list(self.owed), self._permits.release)
            return
        pause = _FIRST_PAUSE
        while self.owed:
            if self._circuit.opened:
                await self._circuit.better()
            most = 1 if self._circuit.opened else _TOGETHER  # one finds out for all
            if await self._give_back(list(islice(self.owed, most)), self._return):
                pause = _FIRST_PAUSE
            elif not self._circuit.opened:  # it answers, and cannot do this one thing
                await sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _return(self, key: str, holder: str) -> None:
        await self._circuit.run(self._permits.release, key, holder)

    async def _give_back(self, permits: Sequence[_Permit], give: Callable[[str, str], Awaitable[None]]) -> bool:
        """Give these back; whether all were. Those that cannot be stay owed: to give one back twice does no harm."""
        known, errors = self._circuit.opened or self._fails, list[StoreError]()

        async def one(permit: _Permit) -> None:
            returned = self.owed.pop(permit, None)
            if returned is None:  # somebody else was quicker
                return
            try:
                await give(*permit)
            except BaseException as error:
                self.owed[permit] = returned
                self._late.add(permit)
                if not isinstance(error, StoreError):
                    raise
                errors.append(error)
            else:
                self._late.discard(permit)
                returned(permit[0])

        async with create_task_group() as tasks:
            for permit in permits:
                tasks.start_soon(one, permit)
        if errors and not known:
            log.warning("%d permits could not be given back yet: %s", len(errors), errors[0])
        self._fails = bool(errors)
        return not errors

    def _back(self) -> None:
        if self.owed:
            self._job.wake()
