"""A price list that is worked out once a minute for all, and orders each customer gets from a memory of their own.

    python examples/cached.py

It prints two keys and the curl lines to try; look at ``cache-status`` and ``age``. Many who ask at the same time wait
for one answer; for half a minute more, a price list past its time is given away while a new one is worked out.
"""

import time

import uvicorn
from fastapi import FastAPI, Request, Response

from apim_middleware import APIKeyAuth, Cache, CachedResponses, Env, MemoryKeys, Stack, Subscription, by
from apim_middleware.serving.options import uvicorn_options

prices = {"tea": 3, "coffee": 4}
orders = {"acme": ["tea"], "globex": ["coffee", "coffee"]}

keys = MemoryKeys()
for name in orders:
    keys.add(Subscription(id=name))
acme_key, globex_key = keys.issue("acme"), keys.issue("globex")

env = Env()
cached = CachedResponses(env)

shop = FastAPI()
shop.add_middleware(Stack(Cache(without_query=("utm_*",)), env=env, place="shop"))

customers = FastAPI()
customers.add_middleware(
    Stack(APIKeyAuth(keys=keys), Cache(ttl=60, private_to=by.subscription), env=env, place="customers")
)

app = FastAPI()
app.mount("/shop", shop)
app.mount("/customers", customers)


@shop.get("/prices")
def list_prices(response: Response) -> dict[str, object]:
    response.headers["cache-control"] = "public, max-age=60, stale-while-revalidate=30"
    response.headers["cache-tag"] = "prices"  # which clients do not see
    return {"prices": prices, "worked out at": time.time()}


@shop.put("/prices")
def change_prices(changed: dict[str, int]) -> dict[str, int]:
    prices.update(changed)  # the answer takes away what is kept for this URL
    return prices


@app.post("/deliveries")
async def deliver(name: str) -> dict[str, int]:
    prices[name] = prices.get(name, 10) - 1
    await cached.purge_tag("prices")  # what another URL changes is taken away by name
    return prices


@customers.get("/orders")
def list_orders(request: Request) -> dict[str, object]:
    return {"orders": orders[request.user.subject], "worked out at": time.time()}


if __name__ == "__main__":
    print(f"""
curl -i http://127.0.0.1:8000/shop/prices
curl -i 'http://127.0.0.1:8000/shop/prices?utm_source=news'
curl -i http://127.0.0.1:8000/shop/prices -H 'Cache-Control: no-cache'
curl -i http://127.0.0.1:8000/shop/prices -X PUT --json '{{"tea": 5}}'
curl -i 'http://127.0.0.1:8000/deliveries?name=tea' -X POST
curl -i http://127.0.0.1:8000/customers/orders -H 'Ocp-Apim-Subscription-Key: {acme_key}'
curl -i http://127.0.0.1:8000/customers/orders -H 'Ocp-Apim-Subscription-Key: {globex_key}'
""")
    uvicorn.run(app, **uvicorn_options())
