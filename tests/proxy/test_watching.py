"""Watching for a client that leaves: what it leaves behind itself."""

import asyncio
import gc
import weakref

from apim_middleware.proxy import _watching
from apim_middleware.proxy._watching import watched


class Load:
    """What an exchange holds in memory."""


def test_a_long_exchange_is_let_go_without_the_garbage_collector():
    gc.disable()
    try:
        assert asyncio.run(is_let_go())
    finally:
        gc.enable()


async def is_let_go():
    """Whether nothing holds a long exchange when it is over."""
    load = Load()
    held = weakref.ref(load)
    looked = asyncio.Event()

    async def receive(load=load):
        looked.set()
        await asyncio.Event().wait()

    async def exchange(watch):
        watch.begin()
        await looked.wait()
        watch.stop()

    await asyncio.create_task(watched(receive, exchange))
    del load, receive, exchange
    await asyncio.sleep(0)
    return held() is None


def test_an_exchange_that_is_over_is_not_watched_any_more():
    assert asyncio.run(still_watched()) == 0


async def still_watched():
    """How many exchanges are waited for when one that was quick is over."""

    async def exchange(watch):
        watch.begin()

    await watched(asyncio.Event().wait, exchange)
    lookout = _watching._lookout(asyncio.get_running_loop())
    return len(lookout._newer) + len(lookout._older)
