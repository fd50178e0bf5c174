"""What could not be taken away because the store did not answer: nothing of it is given away until it is gone.

RFC 9111 §4.4 leaves no choice in that; another process that shares the store learns of it once it is made good.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice

from apim_middleware._http.targets import Resource
from apim_middleware.errors import StoreError

_MOST = 1024
_SOME = 8  # debts that are made good when something else is asked for


class Debts:
    """Resources that are still to be taken away; None is all of them, when they are more than can be remembered."""

    def __init__(self, take_away: Callable[[Resource | None], Awaitable[None]]) -> None:
        """Begin with none."""
        self._take_away = take_away
        self._owed: dict[Resource | None, object] = {}

    def __bool__(self) -> bool:
        return bool(self._owed)

    def add(self, resource: Resource) -> None:
        """Remember one."""
        if len(self._owed) >= _MOST and resource not in self._owed:
            self._owed = {None: object()}
        self._owed[resource] = object()  # another one, should this be about to be made good

    async def settle(self, resource: Resource) -> None:
        """Take away what is owed of a resource, and some of the others. Raises StoreError when that of it remains."""
        for each in (None, resource):
            await self._settle(each)
        with suppress(StoreError):
            for each in list(islice(self._owed, _SOME)):
                await self._settle(each)

    async def _settle(self, which: Resource | None) -> None:
        debt = self._owed.get(which)
        if debt is None:
            return
        await self._take_away(which)
        if self._owed.get(which) is debt:
            del self._owed[which]
