"""Permits that a store lent, or may have lent, while nobody could know: every one is given back."""

import anyio
import anyio.lowlevel
import pytest

from apim_middleware.errors import Spoiled, StoreError
from apim_middleware.stores import lending
from apim_middleware.stores.lending import Lending
from apim_middleware.testing import FakeClock

pytestmark = pytest.mark.anyio


class Store:
    """Does not answer the first question, lends nothing to others, and takes permits back when it may."""

    def __init__(self) -> None:
        self.asked, self.returned = list[str](), list[str]()
        self.releasing, self.gate = anyio.Event(), anyio.Event()

    async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        self.asked.append(holder)
        await anyio.lowlevel.checkpoint()
        if len(self.asked) == 1:
            raise StoreError("silence")
        return holder in self.returned, 1

    async def release(self, key: str, holder: str) -> None:
        self.releasing.set()
        await self.gate.wait()
        self.returned.append(holder)

    async def count(self, key: str) -> int:
        return 1


def ignore(key: str) -> None:
    """Nobody waits for a permit."""


async def test_what_may_have_been_lent_is_given_back_though_who_meets_it_leaves_meanwhile() -> None:
    store, clock = Store(), FakeClock()
    lending = Lending(store, clock)
    with pytest.raises(StoreError):
        await lending.acquire("key", 1, ignore)
    clock.advance(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lending.acquire, "key", 1, ignore)
        await store.releasing.wait()
        tasks.cancel_scope.cancel()
    store.gate.set()
    with anyio.fail_after(20):
        while store.asked[0] not in store.returned:
            await anyio.lowlevel.checkpoint()
    assert lending.owed == {}


class ReadOnly:
    """Answers, and takes nothing back until it has been asked four times."""

    def __init__(self) -> None:
        self.asked = 0

    async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        return True, 1

    async def release(self, key: str, holder: str) -> None:
        self.asked += 1
        if self.asked <= 4:
            raise Spoiled("the store could not do this (READONLY)")

    async def count(self, key: str) -> int:
        return 1


async def test_a_store_that_takes_nothing_back_for_a_while_is_asked_ever_more_rarely_and_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was asked without a pause, thousands of times in a second, and each time was a line in the log."""
    pauses, given_back = list[float](), anyio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(lending, "sleep", pause)
    lender = Lending(ReadOnly(), FakeClock())
    holder = await lender.acquire("key", 1, ignore)
    assert holder is not None
    lender.release("key", holder, lambda key: given_back.set())
    await given_back.wait()
    assert pauses == [0.1, 0.2, 0.4, 0.8]
    assert caplog.messages == ["1 permits could not be given back yet: the store could not do this (READONLY)"]
