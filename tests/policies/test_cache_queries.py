"""Queries that mean the same to a cache, where responses are taken away by their URL."""

import pytest

from apim_middleware._caching.purging import CachedResponses
from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, call
from apim_middleware.types import RawHeaders, Receive, Scope, Send

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio

RULES = [Cache(sort_query=True), Cache(without_query=("utm_*",)), Cache(only_query=("a", "b"))]
QUERY = b"b=2&a=1&utm_source=x"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Keeps for a minute what is read; what is written stands at the URL that clients use."""
    headers: RawHeaders = [(b"cache-control", b"max-age=60")]
    if scope["method"] == "POST":
        headers = [(b"location", b"/prices?" + QUERY)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class House:
    """A cache with these rules, and what is asked of it."""

    def __init__(self, cache: Cache, entries: Elsewhere | None) -> None:
        self.env = Env(entries=entries)
        self.app = Stack(cache, env=self.env, place="shop")(app)

    async def ask(self, host: bytes = b"shop.test", **more: str) -> Answer:
        return await call(self.app, path="/prices", query=QUERY, headers=[(b"host", host)], **more)

    async def is_kept(self, host: bytes = b"shop.test") -> bool:
        return status(await self.ask(host)).startswith("apim;hit")


@pytest.fixture(params=["memory", "elsewhere"])
def entries(request: pytest.FixtureRequest) -> Elsewhere | None:
    return Elsewhere() if request.param == "elsewhere" else None


@pytest.mark.parametrize("rules", RULES)
async def test_the_url_that_clients_use_is_purged(rules: Cache, entries: Elsewhere | None) -> None:
    house = House(rules, entries)
    await house.ask()
    assert await house.is_kept()
    await CachedResponses(house.env).purge_url("http://shop.test/prices?" + QUERY.decode())
    assert not await house.is_kept()


@pytest.mark.parametrize("rules", RULES)
async def test_a_change_takes_away_what_location_refers_to(rules: Cache, entries: Elsewhere | None) -> None:
    house = House(rules, entries)
    await house.ask()
    await call(house.app, "POST", path="/orders", headers=[(b"host", b"shop.test")])
    assert not await house.is_kept()


@pytest.mark.parametrize("named", ["shop.test", "SHOP.test:80"])
async def test_the_port_that_a_scheme_has_anyway_names_the_same_host(named: str, entries: Elsewhere | None) -> None:
    house = House(Cache(), entries)
    for host in (b"shop.test", b"shop.test:80", b"shop.test:8080"):
        await house.ask(host)
    await CachedResponses(house.env).purge_prefix(f"http://{named}/")
    assert not await house.is_kept(b"shop.test")
    assert not await house.is_kept(b"shop.test:80")
    assert await house.is_kept(b"shop.test:8080")
