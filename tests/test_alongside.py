"""What runs alongside a piece of work ends with it, and changes nothing of what comes out of it."""

import anyio
import pytest

from apim_middleware._alongside import alongside

pytestmark = pytest.mark.anyio


async def test_the_tasks_end_with_the_work() -> None:
    ended = anyio.Event()

    async def beside() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with alongside() as tasks:
        tasks.start_soon(beside)
        await anyio.lowlevel.checkpoint()
    assert ended.is_set()


@pytest.mark.parametrize("error", [LookupError(), StopAsyncIteration(), ExceptionGroup("of the work", [OSError()])])
async def test_what_the_work_raises_comes_out_as_it_is(error: Exception) -> None:
    async def work() -> None:
        async with alongside() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            raise error

    with pytest.raises(type(error)) as caught:
        await work()
    assert caught.value is error


async def test_a_task_that_fails_ends_the_work() -> None:
    async def fails() -> None:
        raise LookupError("beside")

    async def work() -> None:
        async with alongside() as tasks:
            tasks.start_soon(fails)
            await anyio.sleep_forever()

    with pytest.RaisesGroup(LookupError):
        await work()


async def test_the_work_can_be_cancelled() -> None:
    with anyio.CancelScope() as scope:
        async with alongside() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
