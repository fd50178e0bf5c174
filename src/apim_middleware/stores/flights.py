"""One at a time: of those who want the same made, one makes it and the others wait for that."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

T = TypeVar("T")


class Flight(Generic[T]):
    """Something that is being made."""

    __slots__ = ("error", "landed", "made", "wanted")

    def __init__(self) -> None:
        """Nothing is made yet, and what will be is wanted."""
        self.landed = anyio.Event()
        self.made: tuple[T] | None = None
        self.error: Exception | None = None
        self.wanted = True
        """Whether what comes of it may be kept for others who come later."""


class Flights(Generic[T]):
    """What is being made, by key; nothing is kept here of what was made.

    When the one who makes is cancelled or fails, the next of those who wait makes it. Each has called from a task of
    its own, so whoever is cancelled takes nobody along. Event loops do not wait for each other.
    """

    def __init__(self, failures: int = 3) -> None:
        """Who has waited for so many ``failures`` is told so, instead of trying as well."""
        self._failures = failures
        self._flying: dict[tuple[Hashable, Hashable], Flight[T]] = {}

    def under_way(self, key: Hashable) -> bool:
        """Whether somebody is making it."""
        return (current_token(), key) in self._flying

    def forget(self, key: Hashable) -> None:
        """Who comes later has nothing to do with what is being made now under this key."""
        for place in [place for place in self._flying if place[1] == key]:
            self._flying.pop(place).wanted = False

    def forget_all(self) -> None:
        """Who comes later has nothing to do with anything that is being made now."""
        for flight in self._flying.values():
            flight.wanted = False
        self._flying.clear()

    async def run(self, key: Hashable, make: Callable[[Flight[T]], Awaitable[T]]) -> T:
        """What somebody makes, or who waits here. Raises what ``make`` does, or did when others called it."""
        place = current_token(), key
        failures = 0
        while flight := self._flying.get(place):
            await flight.landed.wait()
            if flight.made:
                return flight.made[0]
            failures += flight.error is not None
            if flight.error is not None and failures == self._failures:
                raise flight.error.with_traceback(None)
        return await self._lead(place, make)

    async def _lead(self, place: tuple[Hashable, Hashable], make: Callable[[Flight[T]], Awaitable[T]]) -> T:
        flight = self._flying[place] = Flight()
        try:
            made = await make(flight)
            flight.made = (made,)
        except Exception as error:
            flight.error = error
            raise
        finally:
            if self._flying.get(place) is flight:
                del self._flying[place]
            flight.landed.set()
        return made
