"""A circuit: a store that is away is asked rarely, by one for all, and everybody knows when it is back."""

import anyio
import anyio.lowlevel
import pytest

from apim_middleware.errors import Spoiled, StoreError
from apim_middleware.stores.circuit import Circuit
from apim_middleware.testing import FakeClock

pytestmark = pytest.mark.anyio


class Store:
    """A store that fails when told to, and waits when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None
        self.opened: anyio.Event | None = None

    async def ask(self, number: int = 1) -> int:
        self.asked += 1
        failure = self.failure
        await anyio.lowlevel.checkpoint()
        if self.opened is not None:
            await self.opened.wait()
        if failure is not None:
            raise failure
        return number


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def closings() -> list[None]:
    return []


@pytest.fixture
def circuit(clock: FakeClock, closings: list[None]) -> Circuit:
    return Circuit(clock, lambda: closings.append(None))


async def quiet() -> None:
    """Let everybody else come as far as they can."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def fails(circuit: Circuit, store: Store) -> None:
    with pytest.raises(StoreError):
        await circuit.run(store.ask)


async def test_what_the_store_answers_comes_through(circuit: Circuit, store: Store) -> None:
    assert [await circuit.run(store.ask, number) for number in (1, 2)] == [1, 2]
    assert (circuit.opened, circuit.wait) == (False, 0.0)


async def test_one_failure_is_enough(circuit: Circuit, store: Store) -> None:
    store.failure = StoreError("away")
    for _ in range(100):
        await fails(circuit, store)
    assert (store.asked, circuit.opened) == (1, True)


async def test_each_pause_is_twice_as_long_but_none_too_long(circuit: Circuit, store: Store, clock: FakeClock) -> None:
    store.failure = StoreError("away")
    await fails(circuit, store)
    pauses = []
    for _ in range(10):
        pauses.append(circuit.wait)
        clock.advance(circuit.wait * 0.999)
        await fails(circuit, store)
        clock.advance(circuit.wait * 1.001)
        await fails(circuit, store)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10], rel=1e-3)
    assert store.asked == 11


async def test_an_answer_closes_it_and_the_next_outage_begins_with_a_short_pause(
    circuit: Circuit, store: Store, clock: FakeClock, closings: list[None]
) -> None:
    for _ in range(2):
        store.failure = StoreError("away")
        await fails(circuit, store)
        clock.advance(0.1)
        await fails(circuit, store)
        store.failure = None
        clock.advance(0.2)
        assert await circuit.run(store.ask) == 1
        assert not circuit.opened
    assert len(closings) == 2


async def test_one_asks_for_all(circuit: Circuit, store: Store, clock: FakeClock) -> None:
    store.failure = StoreError("away")
    await fails(circuit, store)
    clock.advance(1)
    store.failure, store.opened = None, anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(circuit.run, store.ask)
        await quiet()
        for _ in range(10):
            await fails(circuit, store)
        assert store.asked == 2
        store.opened.set()
    assert await circuit.run(store.ask) == 1


async def test_who_asks_for_all_and_is_cancelled_leaves_it_to_the_next(
    circuit: Circuit, store: Store, clock: FakeClock
) -> None:
    store.failure = StoreError("away")
    await fails(circuit, store)
    clock.advance(1)
    store.failure, store.opened = None, anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(circuit.run, store.ask)
        await quiet()
        group.cancel_scope.cancel()
    store.opened = None
    assert await circuit.run(store.ask) == 1


async def test_those_who_asked_before_make_no_pause_longer(circuit: Circuit, store: Store, clock: FakeClock) -> None:
    store.failure, store.opened = StoreError("away"), anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(fails, circuit, store)
        await quiet()
        store.opened.set()
    assert (store.asked, circuit.wait) == (10, pytest.approx(0.1))


async def test_who_asked_before_and_gets_an_answer_closes_it(
    circuit: Circuit, store: Store, closings: list[None]
) -> None:
    store.opened = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(circuit.run, store.ask)
        await quiet()
        first, store.opened = store.opened, None
        first_store = Store()
        first_store.failure = StoreError("away")
        await fails(circuit, first_store)
        store.opened = first
        first.set()
    assert (circuit.opened, len(closings)) == (False, 1)


async def test_a_store_that_cannot_do_one_thing_is_not_away(
    circuit: Circuit, store: Store, clock: FakeClock, closings: list[None]
) -> None:
    store.failure = StoreError("away")
    await fails(circuit, store)
    clock.advance(1)
    store.failure = Spoiled("this one")
    for _ in range(2):
        await fails(circuit, store)
        assert not circuit.opened
    assert (store.asked, len(closings)) == (3, 1)


async def test_an_error_of_another_kind_is_no_outage(circuit: Circuit, store: Store, clock: FakeClock) -> None:
    store.failure = RuntimeError("broken")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await circuit.run(store.ask)
    assert (store.asked, circuit.opened) == (2, False)
