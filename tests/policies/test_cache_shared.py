"""The response cache of several processes on the stores that people use: one request to the app, purges for all."""

import itertools
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest
from tests.servers import RedisServer

from apim_middleware._caching.purging import CachedResponses
from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.protocols import Entries
from apim_middleware.stores.redis import RedisEntries
from apim_middleware.stores.sqlite import SQLiteEntries
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .caching import Elsewhere

pytestmark = pytest.mark.anyio

databases = itertools.count(1)
"""Each test has a database of its own."""

BODY = b"0123456789" * 60_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["redis", "sqlite"])
async def entries(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> AsyncIterator[Entries]:
    store: RedisEntries | SQLiteEntries
    if request.param == "redis":
        store = RedisEntries(f"{server.url.removesuffix('0')}{next(databases)}", timeout=20.0)
    else:
        store = SQLiteEntries(tmp_path / "cache.db")
    yield store
    await store.aclose()


class App:
    """Takes its time, and numbers its answers."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.count += 1
        headers = [(b"cache-control", b"max-age=60, stale-while-revalidate=60"), (b"cache-tag", b"tea")]
        headers.append((b"x-number", b"%d" % self.count))
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})


@pytest.fixture
def origin() -> App:
    return App()


@pytest.fixture
def envs(entries: Entries) -> list[Env]:
    return [Env(entries=entries) for _ in range(3)]


@pytest.fixture
def processes(envs: list[Env], origin: App) -> list[ASGIApp]:
    return [Stack(Cache(), env=env, place="shop")(origin) for env in envs]


async def test_many_in_each_process_are_one_request_to_the_app(processes: list[ASGIApp], origin: App) -> None:
    answers: list[Answer] = []

    async def visit(app: ASGIApp) -> None:
        answers.append(await call(app))

    async with anyio.create_task_group() as group:
        for app in processes * 10:
            group.start_soon(visit, app)
    assert [each.body == BODY for each in answers] == [True] * 30
    assert origin.count == 1


@pytest.mark.parametrize("soft", [False, True])
async def test_what_one_process_takes_away_is_gone_for_all(
    processes: list[ASGIApp], envs: list[Env], origin: App, soft: bool
) -> None:
    for app in processes:
        assert (await call(app)).header(b"x-number") == b"1"
    await CachedResponses(envs[0]).purge_tag("tea", soft=soft)
    first, other = await call(processes[0]), await call(processes[1])
    if soft:
        assert b"stale-while-revalidate" in (first.header(b"cache-status") or b"")
    else:
        assert (first.header(b"x-number"), other.header(b"x-number")) == (b"2", b"2")
        assert origin.count == 2


async def test_what_processes_mark_at_the_same_time_is_stale_all(processes: list[ASGIApp], envs: list[Env]) -> None:
    paths = [f"/{number}" for number in range(len(envs))]
    for path in paths:
        await call(processes[0], path=path, headers=[(b"host", b"shop.test")])
    async with anyio.create_task_group() as group:
        for env, path in zip(envs, paths, strict=True):
            group.start_soon(partial(CachedResponses(env).purge_url, f"http://shop.test{path}", soft=True))
    told = [await call(processes[0], path=path, headers=[(b"host", b"shop.test")]) for path in paths]
    assert [b"detail=stale-while-revalidate" in (each.header(b"cache-status") or b"") for each in told] == [True] * 3


async def test_other_caches_keep_what_they_have(processes: list[ASGIApp], envs: list[Env], origin: App) -> None:
    elsewhere = Stack(Cache(), env=envs[0], place="other")(origin)
    await call(elsewhere)
    await call(processes[0])
    await CachedResponses(envs[0]).purge_everything(cache="shop/Cache")
    assert (await call(elsewhere)).header(b"x-number") == b"1"
    assert (await call(processes[0])).header(b"x-number") == b"3"


async def test_what_head_was_told_before_a_change_elsewhere_is_not_told_of_what_came_after(clock: FakeClock) -> None:
    """Not even when both were last modified in the same second."""
    entries, version, answered, asked = Elsewhere(), [1], anyio.Event(), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told = b"%d" % version[0]
        if scope["method"] == "HEAD":
            asked.set()
            await answered.wait()
        changed = (b"last-modified", b"Fri, 15 Jan 2027 07:43:20 GMT")
        headers = [(b"cache-control", b"max-age=60"), changed, (b"x-version", told)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": told if scope["method"] == "GET" else b""})

    here, there = (Stack(Cache(), env=Env(clock=clock, entries=entries), place="here")(app) for _ in range(2))
    await call(here)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(call, here, "HEAD", headers=[(b"cache-control", b"no-cache")]))
        await asked.wait()
        version[0] = 2
        await call(there, "POST")
        await call(there)
        answered.set()
    for each in (here, there):
        answer = await call(each)
        assert (answer.body, answer.header(b"x-version")) == (b"2", b"2")
