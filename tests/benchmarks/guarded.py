"""One limit in front of one FastAPI route, by us and by what FastAPI apps use today."""

from importlib.util import find_spec
from typing import Any

import apps
from harness import Case, Effort, microseconds, table
from visit import requests

from apim_middleware import RateLimit

PLENTY = 1_000_000_000


def run(effort: Effort) -> None:
    """Measure and print everything."""
    found = microseconds({name: Case(app, requests()) for name, app in guarded().items()}, effort)
    bare = found["FastAPI"]
    rows = [[name, f"{took:.1f}", f"{took - bare:+.1f}"] for name, took in found.items()]
    table("One limit on a FastAPI route: microseconds for each request", ["app", "takes", "added"], rows)


def guarded() -> dict[str, Any]:
    """The same route, with a limit that lets everybody pass; what is not installed is left out."""
    cases = {"FastAPI": apps.fastapi(), "RateLimit, sliding": ours("sliding"), "RateLimit, fixed": ours("fixed")}
    if find_spec("slowapi"):
        cases["slowapi, with its headers"] = slow()
    if find_spec("fastapi_limiter"):
        cases["fastapi-limiter (no headers)"] = fastapi_limiter()
    return cases


def ours(window: Any) -> Any:
    """Our policy, as middleware."""
    app = apps.fastapi()
    app.add_middleware(RateLimit(calls=PLENTY, per=60, window=window))
    return app


def slow() -> Any:
    """The decorator of slowapi, keyed by address."""
    from fastapi import FastAPI, Request, Response
    from slowapi import Limiter
    from slowapi.util import get_remote_address

    app, limiter = FastAPI(), Limiter(key_func=get_remote_address, headers_enabled=True)
    app.state.limiter = limiter

    @app.get("/orders/{number}")
    @limiter.limit(f"{PLENTY}/minute")
    async def order(number: int, request: Request, response: Response) -> dict:
        return {"id": number, "state": "shipped"}

    return app


def fastapi_limiter() -> Any:
    """The dependency of fastapi-limiter, on pyrate-limiter in memory."""
    from fastapi import Depends, FastAPI
    from fastapi_limiter.depends import RateLimiter
    from pyrate_limiter import Duration, Limiter, Rate

    app, limiter = FastAPI(), Limiter(Rate(PLENTY, Duration.MINUTE))

    @app.get("/orders/{number}", dependencies=[Depends(RateLimiter(limiter=limiter))])
    async def order(number: int) -> dict:
        return {"id": number, "state": "shipped"}

    return app
