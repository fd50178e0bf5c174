"""Requests cut off at every await, stores failing at every call: nobody waits for ever, and nothing leaks."""

from collections.abc import Collection
from itertools import count

import anyio
import pytest

from apim_middleware.env import Env
from apim_middleware.errors import StoreError
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .caching import Elsewhere

pytestmark = pytest.mark.anyio


class Awaiting(Elsewhere):
    """A store that awaits before each call, and fails at the n-th."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.calls, self.fails_at = 0, fails_at

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.calls += 1
        if self.calls == self.fails_at:
            raise StoreError("gone")

    async def get(self, key: bytes) -> bytes | None:
        await self._turn()
        return await super().get(key)

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        await self._turn()
        return await super().set(key, value, ttl, tags=tags, since=since)

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        await self._turn()
        return await super().add(key, value, ttl)

    async def delete(self, key: bytes, *, value: bytes | None = None) -> None:
        await self._turn()
        await super().delete(key, value=value)


async def halting(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that awaits between all it does, and says what it was asked in parts."""
    who = dict(scope["headers"]).get(b"authorization", b"nobody")
    lines = [(b"content-length", b"%d" % (3 * len(who))), (b"etag", b'"%b"' % who)]
    await anyio.lowlevel.checkpoint()
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    for number in range(3):
        await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": who, "more_body": number < 2})


async def quiet(app: ASGIApp, after: int) -> bool:
    """One request that is cut off after so many turns of the loop; whether it was over by then."""
    over = False

    async def ask(scope: anyio.CancelScope) -> None:
        nonlocal over
        with scope:
            await call(app)
            over = True

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(ask, scope)
        for _ in range(after):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
    return over


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_who_waits_for_somebody_cut_off_anywhere_is_answered(elsewhere: bool) -> None:
    for after in range(40):
        env = Env(entries=Awaiting()) if elsewhere else Env()
        app = Stack(Cache(ttl=60), env=env, place="shop")(halting)
        bodies: list[bytes] = []

        async def follow(app: ASGIApp = app, bodies: list[bytes] = bodies) -> None:
            bodies.append((await call(app)).body)

        async with anyio.create_task_group() as group:
            group.start_soon(quiet, app, after)
            await anyio.lowlevel.checkpoint()
            for _ in range(3):
                group.start_soon(follow)
        assert bodies == [b"nobody" * 3] * 3, after
        assert (await call(app, headers=[(b"authorization", b"alice")])).body == b"alice" * 3
        assert (await call(app)).body == b"nobody" * 3


@pytest.mark.parametrize("when_store_fails", ["bypass", "refuse"])
async def test_a_store_that_fails_at_any_call_spoils_no_response(when_store_fails: str) -> None:
    for fails_at in count(1):
        store = Awaiting(fails_at)
        clock = FakeClock()
        env = Env(clock=clock, entries=store)
        app = Stack(Cache(ttl=60, when_store_fails=when_store_fails), env=env, place="shop")(halting)  # type: ignore[arg-type]
        statuses: list[tuple[int, bytes]] = []

        async def ask(app: ASGIApp = app, statuses: list[tuple[int, bytes]] = statuses) -> None:
            answer = await call(app)
            statuses.append((answer.status, answer.body))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask)
        for _ in range(2):
            clock.advance(1)
            await ask()
        good = [body for status, body in statuses if status == 200]
        assert set(good) == {b"nobody" * 3}, fails_at
        assert len(good) >= (1 if when_store_fails == "refuse" else 5), fails_at
        if store.calls < fails_at:
            break
