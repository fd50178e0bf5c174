"""Apps that commands are tried on."""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from apim_middleware import (
    AccessLog,
    Api,
    Gateway,
    HeaderCredential,
    Health,
    IPFilter,
    MemoryKeys,
    NamedValue,
    Operation,
    Product,
    RateLimit,
    Revision,
    SetHeader,
    SetQuery,
    Stack,
    Subscription,
    Tracing,
    UpstreamAuth,
    Version,
    Versions,
    by,
    guard,
    guarded_by,
    key_digest,
)
from apim_middleware.types import Receive, Scope, Send

KEY = "a-key-that-these-tests-show-0123456789"

shop = FastAPI(openapi_url=None)


@shop.get("/{number}")
def order(number: int) -> dict[str, int]:
    return {"order": number}


@shop.get("/collector/thresholds")
def thresholds() -> list[int]:
    return [*gc.get_threshold(), gc.get_freeze_count()]


@shop.get("/dated/old")
def dated() -> Response:
    return Response(headers={"date": "Sun, 06 Nov 1994 08:49:37 GMT"})


@shop.get("/forever/stream")
async def forever() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    return StreamingResponse(chunks())


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    head = Response("in", headers={"set-cookie": "session=cookie-s3cret", "x-plan": "gold"})
    await head(scope, receive, send)


names = {"keys": MemoryKeys()}

plain = Api("orders", "/orders", backend=shop, subscription_required=False)
guarded = guard(shop, policies=(IPFilter(deny=("192.0.2.1",)),))
before = Gateway(apis=(plain,), policies=(IPFilter(deny=("192.0.2.1",)), RateLimit(calls=100, per=60, by=by.client)))


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("out of\norder")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing."""


_tried = (SetHeader(name="x-tried", value="1", on="request"),)
unwell = Gateway(
    apis=(
        Api("failing", "/failing", backend=failing, policies=_tried, subscription_required=False),
        Api("silent", "/silent", backend=silent, policies=_tried, subscription_required=False),
    )
)


def marked(name: str) -> SetHeader:
    return SetHeader(name=f"x-{name}", value=name, on="response")


_told = SetHeader(name="x-told", value=NamedValue("told", "s3cret"), on="response")
revised = Gateway(
    apis=(
        Api(
            "orders",
            "/orders",
            backend=shop,
            subscription_required=False,
            versions=Versions(
                "path",
                (
                    Version(
                        "v1",
                        policies=(marked("version"),),
                        operations=(Operation("GET", "/{number}", policies=(marked("operation"),)),),
                        revisions=(
                            Revision(1),
                            Revision(
                                2,
                                policies=(marked("revision"),),
                                operations=(Operation("GET", "/{number}", policies=(marked("anew"),)),),
                            ),
                            Revision(3, policies=(_told,)),
                        ),
                    ),
                ),
            ),
        ),
    )
)
after = Gateway(
    apis=(plain,), policies=(RateLimit(calls=200, per=60, by=by.client), SetHeader(name="x-a", value="1", on="request"))
)
shut = IPFilter(deny=("192.0.2.1",))
weaker = Gateway(apis=(plain,), policies=(shut, RateLimit(calls=500, per=60, by=by.client)))
subscribed = Gateway(apis=(Api("orders", "/orders", backend=shop),), policies=(shut,), keys=MemoryKeys())
promising = Gateway(
    apis=(Api("orders", "/orders", backend=shop),),
    products=(
        Product("starter", apis=("orders",), subscriptions_limit=1),
        Product("gold", apis=("orders",), approval_required=True, groups=("partners",)),
    ),
    keys=MemoryKeys(),
)
secretive = Gateway(
    apis=(Api("orders", "/orders", backend=login, subscription_required=False),),
    policies=(
        SetHeader(name="x-partner", value=NamedValue("partner", "named-s3cret"), on="request"),
        SetHeader(name="x-plan", value=NamedValue("plan", "gold", secret=False), on="request"),
        SetQuery(name="k", value=NamedValue("k", "query-s3cret")),
        UpstreamAuth(credential=HeaderCredential(name="x-ticket", value="upstream-s3cret")),
    ),
)
odd = guard(Starlette(routes=[Route("/o/[red]/:smile:/x", lambda request: None)]))
middlewares = FastAPI(openapi_url=None)
middlewares.get("/{number}")(order)
middlewares.add_middleware(
    Stack(  # type: ignore[arg-type]
        SetHeader(name="x-a", value="1", on="request"),
        partial(CORSMiddleware, allow_origins=["https://a.example"]),
        Stack(shut, place="inner"),
    )
)
marked = FastAPI(openapi_url=None)
marked.get("/{number}")(guarded_by(RateLimit(calls=5, per=60, by=by.client))(order))
marked_guarded = guard(marked, policies=(shut,))
stacked = Stack(shut, SetHeader(name="x-a", value="1", on="response"))(shop)
wrapped = Stack(AccessLog(), Tracing(), shut)(CORSMiddleware(shop, allow_origins=["https://a.example"]))
known = MemoryKeys()
known.add(Subscription(id="demo", product="starter"), primary=key_digest(KEY))
entered = Gateway(
    apis=(Api("orders", "/orders", backend=shop),), products=(Product("starter", apis=("orders",)),), keys=known
)
versioned = Gateway(
    apis=(
        Api(
            "orders",
            "/orders",
            backend=shop,
            versions=Versions("header", (Version("v1"), Version("v2")), parameter="x-version"),
            subscription_required=False,
        ),
    )
)
logged = FastAPI(openapi_url=None)
logged.get("/{number}")(order)
logged.add_middleware(Stack(AccessLog()))  # type: ignore[arg-type]


@asynccontextmanager
async def told_when_up(app: Starlette) -> AsyncIterator[None]:
    sys.stderr.write("a worker is up\n")
    sys.stderr.flush()
    yield


probed = Stack(Health(grace=600))(Starlette(lifespan=told_when_up))
unprobed = Starlette(lifespan=told_when_up)


def __getattr__(name: str) -> Starlette:
    """Apps that do something while they are loaded."""
    if name == "late":
        sys.stderr.write("it is loaded\n")
        sys.stderr.flush()
        time.sleep(0.5)
        return unprobed
    if name == "handling":
        signal.signal(signal.SIGUSR2, lambda *told: os.write(2, b"its own handler\n"))
        return unprobed
    raise AttributeError(name)


nothing = "not an app"
