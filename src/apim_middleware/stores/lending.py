"""Permits of a store that is awaited, for hooks that never await."""

import logging
from collections.abc import Callable
from typing import TypeAlias

from anyio import CancelScope, create_task_group

from apim_middleware.errors import StoreError
from apim_middleware.protocols import Permits
from apim_middleware.stores.errands import Errand

log = logging.getLogger("apim_middleware")

_Permit: TypeAlias = tuple[str, str]
"""A key and a holder."""


class Lending:
    """Lends permits of a store, and sees to it that every one is given back, whatever becomes of who had it.

    ``release`` awaits nothing: an errand brings permits back, all that came together at once. While the store is away
    they stay owed, and are brought back when somebody has to do with the store again.
    """

    __slots__ = ("_errand", "_on_returned", "_permits", "owed")

    def __init__(self, permits: Permits, on_returned: Callable[[str], None]) -> None:
        """Owe nothing; ``on_returned`` is told the key of every permit that was given back."""
        self._permits = permits
        self._on_returned = on_returned
        self._errand = Errand(self._bring_back)
        self.owed: set[_Permit] = set()
        """The permits that nobody needs any more, and that the store has not got back yet."""

    async def acquire(self, key: str, at_once: int, holder: str) -> bool:
        """Whether the holder is let in. Raises StoreError.

        It is shielded: what was lent must be known. When that is no use, what may have been lent is given back.
        """
        try:
            with CancelScope(shield=True):
                lent, _ = await self._permits.acquire(key, at_once, holder)
        except StoreError:
            raise
        except BaseException:
            self.release(key, holder)
            raise
        if self.owed:
            self._errand.wake()
        return lent

    def release(self, key: str, holder: str) -> None:
        """Give a permit back soon."""
        self.owed.add((key, holder))
        self._errand.wake()

    async def _bring_back(self, last: bool) -> None:
        tried: set[_Permit] = set()
        while owed := self.owed - tried:
            tried |= owed
            async with create_task_group() as tasks:
                for permit in owed:
                    tasks.start_soon(self._return, permit)

    async def _return(self, permit: _Permit) -> None:
        try:
            await self._permits.release(*permit)
        except StoreError as error:
            log.warning("a permit could not be given back yet: %s", error)
            return
        self.owed.discard(permit)
        self._on_returned(permit[0])
