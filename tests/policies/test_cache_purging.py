"""Stored responses taken away or marked stale: by URL, prefix, tag, route, all; here and in a store others see."""

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from apim_middleware._caching.purging import CachedResponses
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import RawHeaders, Receive, Scope, Send

from .caching import Elsewhere

pytestmark = pytest.mark.anyio

FRESH = (b"cache-control", b"max-age=60, stale-while-revalidate=60")


class App:
    """Numbers its answers, which are fresh and have the tags that the query says."""

    def __init__(self) -> None:
        self.count = 0
        self.headers: RawHeaders = [FRESH]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.count += 1
        body = b"answer %d" % self.count
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": body})


class House:
    """One or more processes with the same stack, and what is done to their caches."""

    def __init__(self, entries: Elsewhere | None, clock: FakeClock, *layers: Any) -> None:
        self.clock, self.origin = clock, App()
        self.envs = [Env(clock=clock, entries=entries) for _ in range(2 if entries else 1)]
        self.apps = [Stack(*(layers or (Cache(),)), env=env, place="shop")(self.origin) for env in self.envs]

    @property
    def purge(self) -> CachedResponses:
        return CachedResponses(self.envs[-1])

    async def kept(self, targets: Sequence[str]) -> list[str]:
        """Which of these are answered from what was kept and is fresh, by the first process."""
        self.clock.advance(1)  # so that marks are looked at again
        answers = [(each, await self.ask(each, ask=b"only-if-cached, min-fresh=1")) for each in targets]
        return [each for each, answer in answers if told(answer) == "hit"]

    async def ask(self, target: str, *, ask: bytes = b"", **more: Any) -> Answer:
        path, _, query = target.partition("?")
        headers = [(b"host", b"Shop.test"), *([(b"cache-control", ask)] if ask else [])]
        return await call(self.apps[0], path=path, query=query.encode(), headers=headers, scheme="https", **more)


def told(answer: Answer) -> str:
    return (answer.header(b"cache-status") or b"; ").decode().split(";")[1]


async def settle() -> None:
    """Let what is done in the background be done."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


Houses = Callable[..., House]


@pytest.fixture(params=["memory", "elsewhere"])
def house(request: pytest.FixtureRequest, clock: FakeClock) -> Houses:
    return lambda *layers: House(Elsewhere() if request.param == "elsewhere" else None, clock, *layers)


ALL = ["/", "/a", "/a?b=1", "/a/", "/a/b", "/a/b/c", "/ab"]


@pytest.mark.parametrize(
    ("act", "given", "gone"),
    [
        ("url", "https://shop.test/a", ["/a"]),
        ("url", "https://SHOP.test/a?b=1", ["/a?b=1"]),
        ("url", "https://shop.test", ["/"]),
        ("url", "https://shop.test/%61", ["/a"]),
        ("url", "http://shop.test/a", []),
        ("url", "https://other.test/a", []),
        ("url", "https://shop.test/nothing", []),
        ("prefix", "https://shop.test/a/", ["/a/", "/a/b", "/a/b/c"]),
        ("prefix", "https://shop.test/a/b/", ["/a/b/c"]),
        ("prefix", "https://shop.test/", ALL),
        ("prefix", "https://other.test/", []),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
async def test_a_url_and_all_below_one(house: Houses, act: str, given: str, gone: list[str], soft: bool) -> None:
    here = house()
    for target in ALL:
        await here.ask(target)
    await getattr(here.purge, f"purge_{act}")(given, soft=soft)
    assert await here.kept(ALL) == [each for each in ALL if each not in gone]


@pytest.mark.parametrize("soft", [False, True])
async def test_everything(house: Houses, soft: bool) -> None:
    here = house()
    for target in ALL:
        await here.ask(target)
    await here.purge.purge_everything(soft=soft)
    assert await here.kept(ALL) == []


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("name", "value"),
    [(b"cache-tag", b"tea, product-7"), (b"surrogate-key", b"tea product-7"), (b"cache-tag", b"product-7")],
)
async def test_what_names_a_tag(house: Houses, name: bytes, value: bytes, soft: bool) -> None:
    here = house()
    here.origin.headers = [FRESH, (name, value)]
    await here.ask("/7")
    here.origin.headers = [FRESH, (name, b"product-70")]
    await here.ask("/70")
    await here.purge.purge_tag("product-7", soft=soft)
    assert await here.kept(["/7", "/70"]) == ["/70"]


async def test_what_is_marked_stale_is_given_away_while_it_is_asked_for_anew(house: Houses) -> None:
    here = house()
    await here.ask("/a")
    await here.purge.purge_url("https://shop.test/a", soft=True)
    here.clock.advance(1)
    answer = await here.ask("/a")
    assert answer.body == b"answer 1"
    assert b"detail=stale-while-revalidate" in (answer.header(b"cache-status") or b"")
    await settle()
    answer = await here.ask("/a")
    assert (answer.body, told(answer)) == (b"answer 2", "hit")


async def test_what_is_kept_after_a_purge_stays(house: Houses) -> None:
    here = house()
    for soft in (False, True):
        await here.purge.purge_everything(soft=soft)
        here.clock.advance(1)
        await here.ask("/a")
        await settle()
        assert await here.kept(["/a"]) == ["/a"]


async def test_a_response_on_its_way_meanwhile_is_not_kept(clock: FakeClock) -> None:
    here = House(None, clock)

    async def purges(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        await CachedResponses(env).purge_everything()
        await send({"type": "http.response.body", "body": b"old"})

    env = Env(clock=clock)
    here.apps = [Stack(Cache(), env=env, place="shop")(purges)]
    await here.ask("/a")
    assert await here.kept(["/a"]) == []


async def test_it_takes_what_any_owner_has(house: Houses) -> None:
    def tenant(exchange: Any) -> str | None:
        return (exchange.header(b"x-tenant") or b"").decode()

    here = house(Cache(private_to=tenant))
    asks = [[(b"host", b"shop.test"), (b"x-tenant", name)] for name in (b"a", b"b")]
    for headers in asks:
        await call(here.apps[0], headers=headers, scheme="https")
    await here.purge.purge_url("https://shop.test/")
    for headers in asks:
        answer = await call(here.apps[0], headers=headers, scheme="https")
        assert told(answer) == "fwd=uri-miss"


async def test_tags_are_kept_back_from_clients_unless_they_may_see_them(house: Houses) -> None:
    for policy, seen in ((Cache(), None), (Cache(show_tags=True), b"tea")):
        here = house(policy)
        here.origin.headers = [FRESH, (b"cache-tag", b"tea")]
        answers = [await here.ask("/a"), await here.ask("/a"), await here.ask("/a", method="POST")]
        here.origin.headers = [(b"cache-tag", b"tea")]
        answers.append(await here.ask("/unkept"))
        assert [each.header(b"cache-tag") for each in answers] == [seen] * 4


def test_a_route_of_the_app() -> None:
    env = Env()
    app = FastAPI()
    app.add_middleware(Stack(Cache(ttl=60), env=env))

    @app.get("/prices/{name}")
    def price(name: str) -> str:
        return name

    @app.get("/orders/{name}")
    def order(name: str) -> str:
        return name

    async def purge() -> None:
        await CachedResponses(env).purge_route("/prices/{name}")

    client = TestClient(app)
    targets = ["/prices/tea", "/prices/coffee", "/orders/1"]
    for target in targets:
        client.get(target)
    anyio.run(purge)
    assert [client.get(target).headers["cache-status"].split(";")[1] for target in targets] == [
        "fwd=uri-miss", "fwd=uri-miss", "hit",
    ]  # fmt: skip


async def test_one_cache_of_several(clock: FakeClock) -> None:
    env = Env(clock=clock)
    first, second = Cache(), Cache(name="other")
    apps = [Stack(policy, env=env, place=place)(App()) for policy, place in ((first, "a"), (second, "b"))]
    caches = CachedResponses(env)
    assert caches.places() == ["a/Cache", "b/Cache"]
    for meant, left in ((second, ["hit", "fwd=uri-miss"]), ("a/Cache", ["fwd=uri-miss", "hit"])):
        for app in apps:
            await call(app)
        await caches.purge_everything(cache=meant)
        assert [told(await call(app)) for app in apps] == left


async def test_what_the_caches_did_is_told(clock: FakeClock) -> None:
    env = Env(clock=clock)
    app = Stack(Cache(), env=env, place="a")(App())
    for path in ("/1", "/2", "/1", "/1"):
        await call(app, path=path)
    [figures] = CachedResponses(env).figures()
    assert figures[:6] == ("a/Cache", 2, 2, 0, 0, 2)
    assert figures.held > 0


async def test_events_are_counted_for_whoever_listens(clock: FakeClock) -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def count(self, event: str, attributes: Any) -> None:
            assert dict(attributes) == {"apim.cache.name": "apim"}
            self.heard.append(event)

    listener, env = Listener(), Env(clock=clock)
    env.listen(listener)
    app = Stack(Cache(max_bytes=3_000, max_entry_bytes=3_000), env=env)(App())
    for number in range(5):
        await call(app, path=f"/{number}")
    assert listener.heard.count("apim.cache.stored") == 5
    assert "apim.cache.evicted" in listener.heard


@pytest.mark.parametrize(
    ("act", "given"),
    [
        ("url", "/prices"), ("url", "ftp://a/b"), ("url", "https://a/b#c"), ("url", "https://u@a/b"), ("url", "https://["),
        ("url", "https://a/%zz"), ("prefix", "https://a/b"), ("prefix", "https://a/?b/"), ("prefix", "a/"),
    ],
)  # fmt: skip
async def test_a_mistake_is_one(clock: FakeClock, act: str, given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await getattr(CachedResponses(Env()), f"purge_{act}")(given)
    assert (caught.value.policy, caught.value.field) == ("CachedResponses", act)


async def test_a_cache_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="keeps nothing here"):
        await CachedResponses(Env()).purge_everything(cache="nowhere")


async def test_a_store_that_is_down_is_told_of(clock: FakeClock) -> None:
    entries = Elsewhere()
    here = House(entries, clock)
    entries.down = {"purge", "get"}
    for soft in (False, True):
        with pytest.raises(StoreError):
            await here.purge.purge_everything(soft=soft)
