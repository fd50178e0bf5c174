"""The response cache beside what a FastAPI user would pick instead: a hit, a route behind a server, a cold start."""

import asyncio
import secrets
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import apps
from harness import Case, Effort, Wire, microseconds, table
from served import stressed
from visit import requests

from apim_middleware import Cache
from apim_middleware._ring import Ring

CLIENTS = 50
PUBLIC = "public, max-age=3600"


def run(effort: Effort) -> None:
    """Measure and print everything."""
    for library, name in (("fastapi_cache", "fastapi-cache2"), ("hishel", "hishel"), ("cashews", "cashews")):
        if name not in PEERS:
            print(f"\n{name} is left out: it is not installed here, or not all of it ({library}).")
    hits(effort)
    stampede()
    served(effort)


def route(decorate: Callable[[Any], Any] = lambda endpoint: endpoint, pause: float = 0.0) -> Any:
    """An app of one route that everybody may keep, and how often its endpoint was at work."""
    from fastapi import FastAPI, Request, Response

    app = FastAPI()
    app.state.worked = []

    async def order(request: Request, response: Response, number: int) -> dict:
        app.state.worked.append(number)
        response.headers["cache-control"] = PUBLIC
        await asyncio.sleep(pause)
        return {"id": number, "state": "shipped"}

    app.get("/orders/{number}")(decorate(order))
    return app


def ours(pause: float = 0.0) -> Any:
    """The policy in front of the app, and of everything FastAPI itself does for each request."""
    return Cache()(route(pause=pause))


def fastapi_cache2(pause: float = 0.0) -> Any:
    """Its decorator on the route."""
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    FastAPICache.reset()
    FastAPICache.init(InMemoryBackend(), prefix=secrets.token_hex(4))  # all of them have one memory
    return route(cache(expire=3600), pause)


def cashews(pause: float = 0.0) -> Any:
    """Its decorator on the route, and its middleware."""
    from cashews import Cache as Cashews
    from cashews.contrib.fastapi import CacheRequestControlMiddleware

    memory = Cashews()
    memory.setup("mem://")
    app = route(memory(ttl=3600, key="order:{number}"), pause)
    app.add_middleware(CacheRequestControlMiddleware, cache_instance=memory)
    return app


def hishel(pause: float = 0.0) -> Any:
    """Its middleware, with the only storage it has for one process: SQLite."""
    from hishel import AsyncSqliteStorage
    from hishel.asgi import ASGICacheMiddleware

    folder = Path(tempfile.mkdtemp())
    app = route(pause=pause)
    wrapped = ASGICacheMiddleware(app, AsyncSqliteStorage(database_path=folder / "cache.db"))
    wrapped.state = app.state
    return wrapped


def available() -> dict[str, Callable[..., Any]]:
    """What is installed here."""
    found: dict[str, Callable[..., Any]] = {}
    if find_spec("fastapi_cache") and find_spec("pendulum"):
        found["fastapi-cache2"] = fastapi_cache2
    if find_spec("cashews"):
        found["cashews"] = cashews
    if find_spec("hishel") and find_spec("anysqlite"):
        found["hishel"] = hishel
    return found


PEERS = available()


def hits(effort: Effort) -> None:
    """What a request takes that is answered from what was kept."""
    cases = {
        "bare app, a constant": Case(apps.bare(), requests()),
        "Cache on the bare app": Case(Cache()(order), requests()),
        "Cache on FastAPI": Case(ours(), requests()),
        "seven policies on FastAPI": Case(apps.seven_from_cache(), requests()),
        "FastAPI alone": Case(route(), requests()),
        **{f"{name} on FastAPI": Case(make(), requests()) for name, make in PEERS.items()},
    }
    found = microseconds(cases, effort)
    bare, mine = found["bare app, a constant"], found["Cache on FastAPI"]
    rows = [[name, f"{took:.1f}", f"{took - bare:+.1f}", f"{took / mine:.1f}"] for name, took in found.items()]
    table("A hit in process: microseconds for each request", ["app", "takes", "over bare", "x Cache on FastAPI"], rows)
    print("\nGoals: <= 6 us over bare for the cache; at least 5 x faster than each of the others.")


async def order(scope: Any, receive: Any, send: Any) -> None:
    """The smallest app with an answer for everybody."""
    headers = [*apps.HEADERS, (b"cache-control", PUBLIC.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": apps.BODY})


def stampede() -> None:
    """How often the app is at work when many ask for the same at once, and nothing is kept yet."""
    rows = []
    for name, make in {"Cache": ours, **PEERS}.items():
        app = make(0.02)
        asyncio.run(crowd(app))
        asked = app.app if isinstance(app, Ring) else app
        rows.append([name, str(len(asked.state.worked))])
    table(f"Cold: {CLIENTS} requests at once", ["cache", "times the app is at work"], rows)


async def crowd(app: Any) -> None:
    """Many clients at once, without credentials or what is called like one."""
    one = requests(authorization=None, cookie=None, ocp_apim_subscription_key=None, x_internal_token=None)

    async def visit() -> None:
        wire = Wire()
        await app(one(), wire.receive, wire.send)
        if wire.status != 200:
            raise AssertionError(f"{app} answered {wire.status}")

    await asyncio.gather(*(visit() for _ in range(CLIENTS)))


def served(effort: Effort) -> None:
    """What a server does with a cached route, beside a constant."""
    by_us = "Cache on FastAPI, by apim serve"
    names = {
        "bare app, a constant": "apps:bare",
        "Cache on FastAPI": "cache:ours",
        by_us: "cache:ours",
        "FastAPI alone": "cache:route",
    }
    found = stressed(names, effort, by_us=[by_us])
    bare = found["bare app, a constant"]
    rows = [
        [name, f"{median(each.rates):,.0f}", f"{each.times(bare):.2f}", f"{median(each.costs):.0f}"]
        for name, each in found.items()
    ]
    table("Served: a cached route", ["app behind uvicorn", "requests/s", "x bare", "CPU us/request"], rows)
    print("\nGoal: within 15 % of the bare app.")
