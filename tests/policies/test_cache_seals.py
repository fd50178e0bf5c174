"""What is marked stale in a store that others see is stale for all: at once, whoever marks, whatever is forgotten."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from apim_middleware._caching.purging import CachedResponses
from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.stores.sqlite import SQLiteEntries
from apim_middleware.testing import FakeClock, call
from apim_middleware.types import ASGIApp, RawHeaders, Receive, Scope, Send

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio

URL = "https://shop.test"
HOST = (b"host", b"shop.test")
STALE = "apim;fwd=stale;stored"


class App:
    """Numbers its answers, and waits before it gives them while it is told to."""

    def __init__(self, age: int = 60, *headers: tuple[bytes, bytes]) -> None:
        self.count, self.headers = 0, [(b"cache-control", b"max-age=%d, stale-while-revalidate=60" % age), *headers]
        self.asked, self.go_on = anyio.Event(), anyio.Event()
        self.go_on.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.count += 1
        body = b"%d" % self.count
        self.asked.set()
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": body})


class Shop:
    """Several processes that share a store, each with a clock of its own."""

    def __init__(self, entries: Elsewhere | SQLiteEntries, app: ASGIApp, *clocks: FakeClock) -> None:
        self.clocks = clocks
        envs = [Env(clock=clock, entries=entries) for clock in clocks]
        self.apps = [Stack(Cache(), env=env, place="shop")(app) for env in envs]
        self.purges = [CachedResponses(env) for env in envs]

    async def ask(self, path: str = "/", *headers: tuple[bytes, bytes], process: int = 0) -> str:
        lines: RawHeaders = [HOST, *headers]
        return status(await call(self.apps[process], path=path, headers=lines, scheme="https"))

    async def is_fresh(self, path: str = "/", *headers: tuple[bytes, bytes]) -> bool:
        """Whether what is kept is given away as fresh."""
        only = (b"cache-control", b"only-if-cached, min-fresh=1")
        return (await self.ask(path, only, *headers)).startswith("apim;hit")

    def wait(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance(seconds)


class Slow(Elsewhere):
    """A store that lets others go first."""

    async def get(self, key: bytes) -> bytes | None:
        found = await super().get(key)
        await anyio.lowlevel.checkpoint()
        return found


@pytest.fixture
def entries() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def shop(entries: Elsewhere) -> Shop:
    return Shop(entries, App(), FakeClock(), FakeClock())


@pytest.fixture
async def file(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SQLiteEntries]:
    store = SQLiteEntries(tmp_path / "cache.db", clock=clock)
    yield store
    await store.aclose()


async def test_what_two_mark_at_the_same_time_is_stale_both() -> None:
    """All marks were one entry: of two that were read and written at the same time, one was lost."""
    shop = Shop(Slow(), App(), FakeClock(), FakeClock())
    for path in ("/a", "/b"):
        await shop.ask(path)
    async with anyio.create_task_group() as tasks:
        for purge, path in zip(shop.purges, ("/a", "/b"), strict=True):
            tasks.start_soon(lambda purge=purge, path=path: purge.purge_url(URL + path, soft=True))
    shop.wait(1)
    assert [await shop.is_fresh(path) for path in ("/a", "/b")] == [False, False]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_is_so_for_as_long_as_it_is_kept(clock: FakeClock, file: SQLiteEntries) -> None:
    """Marks were forgotten after a day."""
    week = 7 * 86_400
    shop = Shop(file, App(week), clock)
    await shop.ask()
    await shop.purges[0].purge_everything(soft=True)
    clock.advance(week - 60)
    assert await shop.ask() == STALE


async def test_it_is_so_at_once(shop: Shop) -> None:
    """Other processes looked at marks once a second."""
    await shop.ask()
    assert await shop.is_fresh()
    await shop.purges[1].purge_url(URL, soft=True)
    assert not await shop.is_fresh()


async def test_it_is_so_whatever_else_the_store_forgets(entries: Elsewhere, shop: Shop) -> None:
    """A store makes room as it likes: without the marks, what was marked was fresh again."""
    await shop.ask()
    [page] = entries.pages
    await shop.purges[0].purge_everything(soft=True)
    shop.wait(1)
    entries.kept = {page: entries.kept[page]}
    assert not await shop.is_fresh()


@pytest.mark.parametrize("ahead", [-30, 30])
async def test_it_is_so_whatever_time_it_is_for_who_marks_it(entries: Elsewhere, ahead: float) -> None:
    shop = Shop(entries, App(), FakeClock(), FakeClock(FakeClock().now() + ahead))
    await shop.ask()
    await shop.purges[1].purge_url(URL, soft=True)
    shop.wait(1)
    assert not await shop.is_fresh()


async def test_it_is_given_away_for_a_while_from_then_on(shop: Shop) -> None:
    await shop.ask()
    shop.wait(10)
    await shop.purges[1].purge_url(URL, soft=True)
    shop.wait(40)
    assert await shop.ask() == "apim;hit;ttl=-40;detail=stale-while-revalidate"


async def test_but_not_for_longer(entries: Elsewhere) -> None:
    shop = Shop(entries, App(600), FakeClock(), FakeClock())
    await shop.ask()
    await shop.purges[1].purge_url(URL, soft=True)
    shop.wait(70)
    assert await shop.ask() == STALE


async def test_marking_leaves_no_more_behind_the_more_is_kept(entries: Elsewhere) -> None:
    """What is kept of a mark is one moment."""
    shop = Shop(entries, App(), FakeClock())
    for number in range(20):
        await shop.ask(f"/{number}")
    before = set(entries.kept)
    for _ in range(20):
        await shop.purges[0].purge_everything(soft=True)
        shop.wait(1)
    assert len(set(entries.kept) - before) == 1


async def test_what_others_have_of_the_same_url_stays_fresh_when_one_more_comes(entries: Elsewhere) -> None:
    shop = Shop(entries, App(60, (b"vary", b"x"), (b"cache-tag", b"tea")), FakeClock(), FakeClock())
    for number in range(3):
        await shop.ask("/", (b"x", b"%d" % number), process=number % 2)
    assert [await shop.is_fresh("/", (b"x", b"%d" % number)) for number in range(3)] == [True] * 3


@pytest.mark.parametrize("soft", [False, True])
async def test_what_was_asked_for_before_a_purge_elsewhere_is_not_kept_after_it(entries: Elsewhere, soft: bool) -> None:
    """It may show what the purge is about; it was kept until it was stale."""
    app = App(60, (b"cache-tag", b"tea"))
    shop = Shop(entries, app, FakeClock(), FakeClock())
    app.go_on = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shop.ask)
        await app.asked.wait()
        shop.wait(1)
        await shop.purges[1].purge_tag("tea", soft=soft)
        shop.wait(1)
        app.go_on.set()
    assert not await shop.is_fresh()


async def test_what_can_be_purged_is_what_is_kept(entries: Elsewhere) -> None:
    """Of variants with more names together than an entry can have tags, some were not taken away by all of theirs."""
    app = App()
    names = [[b"%b-%d" % (letter, number) for number in range(60)] for letter in (b"a", b"b", b"c")]
    shop = Shop(entries, app, FakeClock())

    async def fill() -> None:
        for tags in names:
            app.headers[1:] = [(b"vary", b"x"), (b"cache-tag", b",".join(tags))]
            await shop.ask("/", (b"x", tags[0]))

    for tags in names:
        for tag in tags[:10]:
            await fill()
            await shop.purges[0].purge_tag(tag.decode())
            assert not await shop.is_fresh("/", (b"x", tags[0])), tag
            shop.wait(1)


async def test_of_variants_with_too_many_names_the_last_stay(entries: Elsewhere) -> None:
    app = App()
    shop = Shop(entries, app, FakeClock())
    for letter in (b"a", b"b", b"c"):
        tags = b",".join(b"%b-%d" % (letter, number) for number in range(60))
        app.headers[1:] = [(b"vary", b"x"), (b"cache-tag", tags)]
        await shop.ask("/", (b"x", letter))
    assert [await shop.is_fresh("/", (b"x", letter)) for letter in (b"a", b"b", b"c")] == [False, True, True]
