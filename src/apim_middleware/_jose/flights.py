"""One question at a time about one thing: who asks while it is under way gets the same answer."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.landed = anyio.Event()
        self.answers: list[T] = []
        self.failure: Exception | None = None


class Flights(Generic[T]):
    """Questions that are under way, by what they are about."""

    def __init__(self) -> None:
        """None is."""
        self._under_way: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        """How many are."""
        return len(self._under_way)

    async def once(self, about: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, asked for unless somebody is asking. One who is cancelled while asking leaves it to another."""
        while (flight := self._under_way.get(about)) is not None:
            await flight.landed.wait()
            if flight.answers:
                return flight.answers[0]
            if flight.failure is not None:
                raise flight.failure
        return await self._lead(about, ask)

    async def _lead(self, about: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        flight = self._under_way[about] = _Flight()
        try:
            answer = await ask()
            flight.answers.append(answer)
            return answer
        except Exception as error:
            flight.failure = error
            raise
        finally:
            del self._under_way[about]
            flight.landed.set()
