"""A call at a later time that holds on to nobody and leaves nothing behind."""

import asyncio
import gc
import weakref

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from apim_middleware._jose.alarm import Alarm

pytestmark = pytest.mark.anyio


class Sleeper:
    def __init__(self) -> None:
        self.rung = 0
        self.awake = anyio.Event()
        self.alarm = Alarm(self.wake)

    def wake(self) -> None:
        self.rung += 1
        self.awake.set()


async def test_it_rings_once_when_the_time_has_come() -> None:
    sleeper = Sleeper()
    sleeper.alarm.set(0)
    await sleeper.awake.wait()
    await anyio.wait_all_tasks_blocked()
    assert sleeper.rung == 1


async def test_set_again_it_forgets_the_time_set_before() -> None:
    sleeper = Sleeper()
    sleeper.alarm.set(0)
    sleeper.alarm.set(3600)
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    assert sleeper.rung == 0
    sleeper.alarm.set(0)
    await sleeper.awake.wait()
    assert sleeper.rung == 1


async def test_it_holds_on_to_nobody() -> None:
    sleeper = Sleeper()
    sleeper.alarm.set(0)
    there = weakref.ref(sleeper)
    del sleeper
    gc.collect()
    assert there() is None
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


def test_set_often_it_leaves_one_task_on_trio() -> None:
    async def often() -> int:
        sleeper, before = Sleeper(), trio.lowlevel.current_statistics().tasks_living
        for _ in range(100):
            sleeper.alarm.set(3600)
        await trio.testing.wait_all_tasks_blocked()
        return trio.lowlevel.current_statistics().tasks_living - before

    assert trio.run(often) == 1


def test_set_on_one_event_loop_it_can_be_set_on_the_next() -> None:
    sleeper = Sleeper()

    async def fall_asleep() -> None:
        sleeper.alarm.set(3600)

    async def wake() -> None:
        sleeper.awake = anyio.Event()
        sleeper.alarm.set(0)
        await sleeper.awake.wait()

    asyncio.run(fall_asleep())
    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(wake, backend=backend)
    assert sleeper.rung == 3
