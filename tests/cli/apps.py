"""Apps that commands are tried on."""

from fastapi import FastAPI

from apim_middleware import Api, Gateway, IPFilter, MemoryKeys, RateLimit, SetHeader, by, guard

shop = FastAPI(openapi_url=None)


@shop.get("/{number}")
def order(number: int) -> dict[str, int]:
    return {"order": number}


names = {"keys": MemoryKeys()}

plain = Api("orders", "/orders", backend=shop, subscription_required=False)
guarded = guard(shop, policies=(IPFilter(deny=("192.0.2.1",)),))
before = Gateway(apis=(plain,), policies=(IPFilter(deny=("192.0.2.1",)), RateLimit(calls=100, per=60, by=by.client)))
after = Gateway(
    apis=(plain,), policies=(RateLimit(calls=200, per=60, by=by.client), SetHeader(name="x-a", value="1", on="request"))
)
nothing = "not an app"
