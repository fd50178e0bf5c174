"""Limits on a real Redis: settled, away, and back."""

import contextlib
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.servers import RedisServer

from apim_middleware import conditions
from apim_middleware._limits.standings import Standing, Standings
from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.policies.limits import Limits, RateLimit
from apim_middleware.policy import Stack
from apim_middleware.stores.redis import RedisCounters
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import Receive, Scope, Send

from .counting import Counting, left

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The driver is asyncio's."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    """What pauses between attempts go by; counts go by the clock of the server."""
    return FakeClock()


@pytest.fixture
async def env(server: RedisServer, clock: FakeClock) -> Any:
    counters = RedisCounters(server.url)
    yield Env(place="here", clock=clock, counters=counters)
    await counters.aclose()


async def test_what_is_known_at_the_end_is_settled_there(env: Env) -> None:
    app = Counting(chunks=[b"x" * 40])
    policies = Limits(
        RateLimit(calls=3, per=3_600, name="failures", window="log", count_when=conditions.failed),
        RateLimit(calls=100, per=3_600, name="bytes", units="response-bytes"),
        RateLimit(calls=9, per=3_600, name="late", window="bucket", increment="afterwards"),
    )
    guarded = Stack(policies, env=env, place="settled")(app)
    found = []
    for _ in range(3):
        found.append(left(await call(guarded)))
        await Standings(env).settled()
    assert found == [[2, 99, 9], [2, 59, 8], [2, 19, 7]]
    assert (await call(guarded)).status == 429


async def test_units_are_given_back_once_though_the_server_stood_still_meanwhile(
    env: Env, server: RedisServer, clock: FakeClock
) -> None:
    """It makes the correction when it goes on, long after nobody waits for its answer."""
    status, held = {b"a": 401, b"b": 200}, anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"] == b"b":
            await held.wait()
        await Counting(status=status[scope["query_string"]])(scope, receive, send)

    policy = RateLimit(calls=10, per=3_600, window="fixed", name="guesses", count_when=conditions.status(401))
    guarded = Stack(policy, env=env, place="stands still")(app)
    for _ in range(5):
        await call(guarded, query=b"a")
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(partial(call, guarded, query=b"b"))
        while (await standing(env, policy)).used < 10:
            await anyio.lowlevel.checkpoint()
        server.freeze()
        held.set()
    try:
        with contextlib.suppress(StoreError):  # if some were not among the first that were tried
            await Standings(env).settled()
    finally:
        server.thaw()
    clock.advance(20)
    await Standings(env).settled()
    assert (await standing(env, policy)).used == 5


async def standing(env: Env, policy: RateLimit) -> Standing:
    """Where the caller of the tests stands."""
    [found] = await Standings(env).read(policy, "203.0.113.7")
    return found


async def test_what_was_counted_here_is_told_to_it_when_it_is_back(
    env: Env, server: RedisServer, clock: FakeClock
) -> None:
    policy = RateLimit(calls=10, per=3_600, name="local", when_store_fails="local")
    guarded = Stack(policy, env=env, place="away")(Counting())
    assert left(await call(guarded)) == [9]
    server.stop()
    try:
        assert [left(await call(guarded)) for _ in range(3)] == [[9], [8], [7]]
    finally:
        server.start()
    here = 3
    clock.advance(20)
    while left(await call(guarded)) != [9]:  # the server has forgotten all it knew
        here += 1
        clock.advance(20)
    await Standings(env).settled()
    assert left(await call(guarded)) == [10 - 1 - here - 1]
