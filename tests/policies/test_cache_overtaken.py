"""What is changed or purged in one process while a response is on its way through another is not kept by that."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.servers import RedisServer

from apim_middleware import by
from apim_middleware._caching.purging import CachedResponses
from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.protocols import Entries
from apim_middleware.stores.redis import RedisEntries
from apim_middleware.stores.sqlite import SQLiteEntries
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import RawHeaders, Receive, Scope, Send

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio

URL = "https://shop.test"
HOST = (b"host", b"shop.test")
databases = itertools.count(1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class App:
    """Answers with what it had when it was asked, as slowly as it is told; anything but GET and HEAD changes that."""

    def __init__(self) -> None:
        self.version, self.asked = 1, 0
        self.slow = False
        self.began, self.go_on = anyio.Event(), anyio.Event()
        self.headers: RawHeaders = [(b"cache-control", b"max-age=60"), (b"cache-tag", b"tea")]

    def hold(self) -> None:
        """Wait with the next answer."""
        self.slow, self.began, self.go_on = True, anyio.Event(), anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        self.version += scope["method"] not in ("GET", "HEAD")
        version, headers = b"%d" % self.version, list(self.headers)
        etag = b'"%b"' % version
        if self.slow and scope["method"] in ("GET", "HEAD"):
            self.slow = False
            self.began.set()
            await self.go_on.wait()
        known = dict(scope["headers"]).get(b"if-none-match") == etag
        status = 304 if known else 200
        await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"etag", etag)]})
        body = b"" if known or scope["method"] == "HEAD" else version
        await send({"type": "http.response.body", "body": body})


Open = Callable[[], Entries]


@pytest.fixture(params=["redis", "shards", "sqlite", "double"])
async def open_store(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens one store as another process would."""
    opened: list[Any] = []
    url, double = f"{server.url.removesuffix('0')}{next(databases) % 16}", Elsewhere()
    if request.param in ("redis", "shards"):
        with redis.Redis.from_url(url) as client:
            client.flushdb()

    def open_one() -> Entries:
        if request.param == "double":
            return double
        if request.param == "sqlite":
            store: Any = SQLiteEntries(tmp_path / "cache.db")
        else:
            store = RedisEntries(url, timeout=20.0, shards=5 if request.param == "shards" else 1)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.aclose()


class Shop:
    """Two processes in front of one app, with clocks that do not agree."""

    def __init__(self, open_store: Open, **fields: Any) -> None:
        self.origin = App()
        self.clocks = FakeClock(), FakeClock(FakeClock().now() - 300)
        envs = [Env(clock=clock, entries=open_store()) for clock in self.clocks]
        self.apps = [Stack(Cache(**fields), env=env, place="shop")(self.origin) for env in envs]
        self.purges = [CachedResponses(env) for env in envs]

    async def ask(self, method: str = "GET", *headers: tuple[bytes, bytes], process: int = 0, path: str = "/") -> bytes:
        return (await call(self.apps[process], method, path=path, headers=[HOST, *headers], scheme="https")).body

    async def kept(self, *headers: tuple[bytes, bytes], process: int = 0, stale: bool = False) -> bytes | None:
        """What is given away as fresh, or even though it is not."""
        asks = (b"cache-control", b"only-if-cached, max-stale" if stale else b"only-if-cached, min-fresh=1")
        answer = await call(self.apps[process], headers=[HOST, asks, *headers], scheme="https")
        return answer.body if status(answer).startswith("apim;hit") else None

    @asynccontextmanager
    async def on_its_way(self, ask: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """What happens while a request waits for the app."""
        self.origin.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await self.origin.began.wait()
            yield
            self.origin.go_on.set()

    def wait(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance(seconds)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_was_asked_for_before_a_change_elsewhere_is_not_kept_after_it(open_store: Open, method: str) -> None:
    """It was kept until it was stale."""
    shop = Shop(open_store)
    async with shop.on_its_way(shop.ask):
        await shop.ask(method, process=1)
    assert [await shop.kept(process=each) for each in (0, 1)] == [None, None]
    assert await shop.ask() == b"2"
    assert await shop.kept(process=1) == b"2"


@pytest.mark.parametrize("fields", [{"private_to": by.header("x-tenant")}, {"vary_by": by.header("x-tenant")}])
async def test_whoever_owns_it(open_store: Open, fields: dict[str, Any]) -> None:
    shop, tenant = Shop(open_store, **fields), (b"x-tenant", b"a")
    async with shop.on_its_way(partial(shop.ask, "GET", tenant)):
        await shop.ask("POST", process=1)
    assert await shop.kept(tenant) is None
    assert await shop.ask("GET", tenant) == b"2"
    assert await shop.kept(tenant, process=1) == b"2"


async def test_a_change_takes_away_what_each_owner_has(open_store: Open) -> None:
    shop = Shop(open_store, vary_by=by.header("x-tenant"))
    tenants = [(b"x-tenant", name) for name in (b"a", b"b")]
    for tenant in tenants:
        await shop.ask("GET", tenant)
    await shop.ask("DELETE", process=1)
    assert [await shop.kept(tenant, process=each) for tenant in tenants for each in (0, 1)] == [None] * 4


PURGES: dict[str, Callable[..., Awaitable[None]]] = {
    "url": lambda purges, **more: purges.purge_url(f"{URL}/", **more),
    "prefix": lambda purges, **more: purges.purge_prefix(f"{URL}/", **more),
    "tag": lambda purges, **more: purges.purge_tag("tea", **more),
    "everything": lambda purges, **more: purges.purge_everything(**more),
}


@pytest.mark.parametrize("purge", PURGES)
@pytest.mark.parametrize("soft", [False, True])
async def test_nor_is_what_was_asked_for_before_a_purge_whatever_time_it_is_there(
    open_store: Open, purge: str, soft: bool
) -> None:
    """The clock of the process that purges is five minutes slow: it seemed to have happened before."""
    shop = Shop(open_store)
    async with shop.on_its_way(shop.ask):
        await PURGES[purge](shop.purges[1], soft=soft)
    assert await shop.kept() is None


async def test_who_asks_after_a_change_elsewhere_does_not_wait_for_an_answer_from_before_it(open_store: Open) -> None:
    """Whoever had changed something in one process could be given the old response by another."""
    shop = Shop(open_store)
    async with shop.on_its_way(shop.ask):
        await shop.ask("POST", process=1)
        with anyio.fail_after(2):
            assert await shop.ask() == b"2"


async def test_but_for_one_from_before_something_else(open_store: Open) -> None:
    shop, found = Shop(open_store), []

    async def ask_too() -> None:
        found.append(await shop.ask())

    async with anyio.create_task_group() as tasks, shop.on_its_way(shop.ask):
        await shop.ask("POST", process=1, path="/other")
        asked = shop.origin.asked
        tasks.start_soon(ask_too)
        for _ in range(20):
            await anyio.sleep(0.002)
        assert (found, shop.origin.asked) == ([], asked)
    assert found == [b"1"]


@pytest.mark.parametrize("purge", PURGES)
@pytest.mark.parametrize("soft", [False, True])
async def test_nor_for_one_from_before_a_purge_elsewhere(open_store: Open, purge: str, soft: bool) -> None:
    """Not even by a tag, which nobody knows before the response is there."""
    shop = Shop(open_store)
    async with shop.on_its_way(shop.ask):
        await PURGES[purge](shop.purges[1], soft=soft)
        asked = shop.origin.asked
        with anyio.fail_after(2):
            await shop.ask()
        assert shop.origin.asked == asked + 1


async def test_what_a_change_has_nothing_to_do_with_is_kept(open_store: Open) -> None:
    shop = Shop(open_store)
    async with shop.on_its_way(shop.ask):
        await shop.ask("POST", process=1, path="/other")
        await shop.purges[1].purge_tag("coffee")
        await shop.purges[1].purge_url(f"{URL}/other", soft=True)
        await shop.purges[1].purge_prefix(f"{URL}/other/")
    assert await shop.kept(process=1) == b"1"


async def test_a_confirmation_from_before_a_change_confirms_nothing(open_store: Open) -> None:
    """304 made the old response fresh again."""
    shop = Shop(open_store)
    await shop.ask()
    shop.wait(70)
    async with shop.on_its_way(shop.ask):
        await shop.ask("POST", process=1)
    assert await shop.kept(stale=True) is None
    assert await shop.ask() == b"2"


async def test_nor_does_the_answer_to_head(open_store: Open) -> None:
    shop = Shop(open_store)
    await shop.ask()
    shop.wait(70)
    async with shop.on_its_way(partial(shop.ask, "HEAD")):
        await shop.ask("POST", process=1)
    assert await shop.kept(stale=True) is None


@pytest.mark.parametrize("soft", [False, True])
async def test_nor_the_answer_to_head_from_before_a_purge(open_store: Open, soft: bool) -> None:
    shop = Shop(open_store)
    await shop.ask()
    shop.wait(70)
    async with shop.on_its_way(partial(shop.ask, "HEAD")):
        await shop.purges[1].purge_tag("tea", soft=soft)
    assert await shop.kept() is None


async def test_what_is_asked_for_in_the_background_is_overtaken_too(open_store: Open) -> None:
    shop = Shop(open_store)
    shop.origin.headers = [(b"cache-control", b"max-age=60, stale-while-revalidate=60")]
    await shop.ask()
    shop.wait(70)
    async with shop.on_its_way(shop.ask):
        await shop.ask("POST", process=1)
    for _ in range(100):
        await anyio.sleep(0.002)
        assert await shop.kept(stale=True) is None


@pytest.mark.parametrize("soft", [False, True])
async def test_one_variant_brings_no_other_back(open_store: Open, soft: bool) -> None:
    """Variants of a URL are written together: one on its way is not to write another that was purged meanwhile."""
    shop = Shop(open_store)
    one, other = (b"x", b"1"), (b"x", b"2")
    shop.origin.headers = [(b"cache-control", b"max-age=60"), (b"vary", b"x"), (b"cache-tag", b"tea")]
    await shop.ask("GET", one)
    shop.origin.headers = [(b"cache-control", b"max-age=60"), (b"vary", b"x"), (b"cache-tag", b"coffee")]
    async with shop.on_its_way(partial(shop.ask, "GET", other)):
        await shop.purges[1].purge_tag("tea", soft=soft)
    assert await shop.kept(one) is None


async def test_nothing_on_its_way_is_kept_when_the_server_forgets_everything(server: RedisServer) -> None:
    """It may have forgotten a change, too."""
    url = f"{server.url.removesuffix('0')}15"
    stores: list[RedisEntries] = []

    def open_one() -> RedisEntries:
        stores.append(RedisEntries(url, timeout=20.0))
        return stores[-1]

    shop = Shop(open_one)
    await shop.ask(path="/other")
    async with shop.on_its_way(shop.ask):
        await shop.ask("POST", process=1)
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        await shop.ask(process=1, path="/other")  # a new history begins
    assert await shop.kept() is None
    assert await shop.kept(process=1) is None
    for store in stores:
        await store.aclose()


# In whatever order


PATHS = ["/", "/a/", "/a/b"]
TAGS = {"/": "root", "/a/": "shelf", "/a/b": "shelf"}
UNDER = {"/a/": {"/a/", "/a/b"}, "/": set(PATHS)}
BEGIN = st.tuples(st.just("begin"), st.integers(0, 1), st.sampled_from(PATHS))
END = st.tuples(st.just("end"), st.integers(0, 1), st.sampled_from(PATHS))
CHANGE = st.tuples(st.just("change"), st.integers(0, 1), st.sampled_from(PATHS))
PURGE = st.tuples(st.sampled_from(["url", "tag", "prefix", "all"]), st.integers(0, 1), st.sampled_from(PATHS[:2]))
STEPS = st.lists(BEGIN | END | CHANGE | PURGE, min_size=4, max_size=14)


class Numbered:
    """Says how many changes and purges there had been when it was asked, once it is let go."""

    def __init__(self) -> None:
        self.number = 0
        self.held: dict[bytes, anyio.Event] = {}
        self.began: dict[bytes, anyio.Event] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number, path = self.number, scope["path"]
        name = dict(scope["headers"]).get(b"x-name", b"")
        if name in self.held:
            self.began[name].set()
            await self.held[name].wait()
        headers = [(b"cache-control", b"max-age=60"), (b"cache-tag", TAGS[path].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"%d" % number})


class Model:
    """What may be given away: nothing that was asked for before the last change or purge of its path."""

    def __init__(self, apps: list[Any], purges: list[CachedResponses], origin: Numbered, *, soft: bool) -> None:
        self.apps, self.purges, self.origin, self.soft = apps, purges, origin, soft
        self.least = dict.fromkeys(PATHS, 0)
        self.flying: dict[tuple[int, str], int] = {}

    async def run(self, steps: list[tuple[str, int, str]]) -> None:
        async with anyio.create_task_group() as self.tasks:
            for act, process, path in [*steps, *(("end", each, path) for each in (0, 1) for path in PATHS)]:
                await self.step(act, process, path)
                for each in (0, 1):
                    for looked in PATHS:
                        found = await self.kept(each, looked)
                        assert found is None or found >= self.least[looked], (act, process, path, looked)

    async def step(self, act: str, process: int, path: str) -> None:
        if act == "begin":
            await self.begin(process, path)
        elif act == "end":
            await self.end(process, path)
        else:
            await self.invalidate(act, process, path)

    async def begin(self, process: int, path: str) -> None:
        name = f"{process}{path}".encode()
        if (process, path) in self.flying or await self.kept(process, path) is not None:
            return
        self.flying[process, path] = self.origin.number
        self.origin.held[name], self.origin.began[name] = anyio.Event(), anyio.Event()
        self.tasks.start_soon(partial(call, self.apps[process], path=path, headers=[HOST, (b"x-name", name)]))
        with anyio.fail_after(10):
            await self.origin.began[name].wait()

    async def end(self, process: int, path: str) -> None:
        began = self.flying.pop((process, path), None)
        if began is None:
            return
        self.origin.held.pop(f"{process}{path}".encode()).set()
        if began == self.origin.number:  # nothing came between: it is kept, and for all
            await self.settled(1 - process, path)
            assert await self.kept(1 - process, path) is not None
        else:
            await anyio.sleep(0.01)

    async def settled(self, process: int, path: str) -> None:
        for _ in range(2_000):
            if await self.kept(process, path) is not None:
                return
            await anyio.sleep(0.002)

    async def invalidate(self, act: str, process: int, path: str) -> None:
        self.origin.number += 1
        purges, url = self.purges[process], f"http://shop.test{path}"
        if act == "change":
            await call(self.apps[process], "POST", path=path, headers=[HOST])
            meant = {path}
        elif act == "url":
            await purges.purge_url(url, soft=self.soft)
            meant = {path}
        elif act == "tag":
            await purges.purge_tag(TAGS[path], soft=self.soft)
            meant = {each for each in PATHS if TAGS[each] == TAGS[path]}
        elif act == "prefix":
            await purges.purge_prefix(url, soft=self.soft)
            meant = UNDER[path]
        else:
            await purges.purge_everything(soft=self.soft)
            meant = set(PATHS)
        self.least.update(dict.fromkeys(meant, self.origin.number))

    async def kept(self, process: int, path: str) -> int | None:
        asks = (b"cache-control", b"only-if-cached, min-fresh=1")
        answer = await call(self.apps[process], path=path, headers=[HOST, asks])
        return int(answer.body) if status(answer).startswith("apim;hit") else None


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.booleans())
def test_in_whatever_order_nothing_is_given_away_from_before_a_change(
    kind: str, server: RedisServer, tmp_path: Path, steps: list[tuple[str, int, str]], soft: bool
) -> None:
    number = next(databases)

    async def run() -> None:
        clock, origin = FakeClock(), Numbered()
        stores: list[Any] = []
        for _ in (0, 1):
            if kind == "sqlite":
                stores.append(SQLiteEntries(tmp_path / f"{number}.db"))
            elif kind == "redis":
                stores.append(RedisEntries(server.url, prefix=f"model-{number}", timeout=20.0))
        envs = [Env(clock=clock, entries=store) for store in stores] or [Env(clock=clock)]
        apps: list[Any] = [Stack(Cache(collapse_wait=0), env=env, place="shop")(origin) for env in envs]
        purges = [CachedResponses(env) for env in envs]
        if len(apps) == 1:  # two who know the same memory
            apps, purges = apps * 2, purges * 2
        await Model(apps, purges, origin, soft=soft).run(steps)
        for store in stores:
            await store.aclose()

    anyio.run(run)
