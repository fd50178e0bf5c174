"""Apps that commands are tried on."""

import asyncio
import gc
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from apim_middleware import Api, Gateway, IPFilter, MemoryKeys, Product, RateLimit, SetHeader, by, guard

shop = FastAPI(openapi_url=None)


@shop.get("/{number}")
def order(number: int) -> dict[str, int]:
    return {"order": number}


@shop.get("/collector/thresholds")
def thresholds() -> list[int]:
    return [*gc.get_threshold(), gc.get_freeze_count()]


@shop.get("/forever/stream")
async def forever() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    return StreamingResponse(chunks())


names = {"keys": MemoryKeys()}

plain = Api("orders", "/orders", backend=shop, subscription_required=False)
guarded = guard(shop, policies=(IPFilter(deny=("192.0.2.1",)),))
before = Gateway(apis=(plain,), policies=(IPFilter(deny=("192.0.2.1",)), RateLimit(calls=100, per=60, by=by.client)))
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
odd = guard(Starlette(routes=[Route("/o/[red]/:smile:/x", lambda request: None)]))
nothing = "not an app"
