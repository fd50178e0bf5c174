"""A FastAPI app guarded in a few lines.

apim serve examples.wrap_fastapi:app --port 8000

Every request needs a subscription key, made when the app starts and printed on the console:

    curl -i -H "Ocp-Apim-Subscription-Key: ..." http://127.0.0.1:8000/orders/7
"""

from fastapi import FastAPI, Request

from apim_middleware import APIKeyAuth, Cache, MemoryKeys, RateLimit, RemoveHeader, SetHeader, Stack, Subscription, by

keys = MemoryKeys()
keys.add(Subscription(id="demo"))
print("Your key:", keys.issue("demo"))

app = FastAPI()


@app.get("/orders/{number}")
def order(number: int, request: Request) -> dict[str, object]:
    return {"order": number, "ordered_by": request.user.display_name}


app.add_middleware(
    Stack(
        SetHeader(name="x-content-type-options", value="nosniff", on="response"),
        APIKeyAuth(keys=keys),
        RateLimit(calls=100, per=60, by=by.subscription),
        Cache(ttl=5, private_to=by.subscription),
        RemoveHeader(name="server", on="response"),
    )
)
