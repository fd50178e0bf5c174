"""Flights: of those who want the same made, one makes it."""

import traceback

import anyio
import pytest

from apim_middleware.stores.flights import Flight, Flights

pytestmark = pytest.mark.anyio


class Workshop:
    """Makes nothing but failures, and keeps what those who wanted something got."""

    def __init__(self, flights: Flights[str]) -> None:
        self.flights = flights
        self.begun = 0
        self.failures: list[Exception] = []
        self.depths: list[int] = []

    async def make(self, flight: Flight[str]) -> str:
        self.begun += 1
        await anyio.wait_all_tasks_blocked()
        raise LookupError("there is none")

    async def want(self) -> None:
        try:
            await self.flights.run("key", self.make)
        except LookupError as error:
            self.failures.append(error)
            self.depths.append(len(traceback.extract_tb(error.__traceback__)))

    async def crowd(self) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(self.want)


@pytest.mark.parametrize("failures", [1, 3])
async def test_who_waits_for_so_many_failures_is_told_so(failures: int) -> None:
    workshop = Workshop(Flights(failures))
    await workshop.crowd()
    assert len(workshop.failures) == 50
    assert workshop.begun == failures


async def test_an_error_that_many_are_told_of_does_not_grow() -> None:
    workshop = Workshop(Flights(1))
    await workshop.crowd()
    assert max(workshop.depths) <= 4
