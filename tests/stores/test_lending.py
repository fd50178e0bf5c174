"""Permits that a store lent, or may have lent, while nobody could know: every one is given back."""

import anyio
import anyio.lowlevel
import pytest

from apim_middleware.errors import StoreError
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
