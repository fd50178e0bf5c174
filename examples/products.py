"""A gateway that reads like a table of contents: two products, two APIs, one of them in two versions.

    python examples/products.py

It prints a key of each product and the curl lines to try, and what stands in front of each operation.
"""

from datetime import UTC, datetime

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apim_middleware import (
    Api,
    Deprecation,
    Gateway,
    MemoryKeys,
    Operation,
    Product,
    Quota,
    RateLimit,
    SetHeader,
    Subscription,
    Version,
    Versions,
    by,
)
from apim_middleware.serving.options import uvicorn_options


async def orders(request: Request) -> Response:
    return JSONResponse({"orders": [1, 2, 3]})


async def order(request: Request) -> Response:
    return JSONResponse({"order": request.path_params["id"]})


async def create(request: Request) -> Response:
    return JSONResponse({"created": True}, status_code=201)


async def status(request: Request) -> Response:
    return JSONResponse({"status": "fine"})


shop = Starlette(
    routes=[
        Route("/", orders, methods=["GET"]),
        Route("/", create, methods=["POST"]),
        Route("/{id:int}", order),
    ]
)
health = Starlette(routes=[Route("/", status)])

keys = MemoryKeys()
keys.add(Subscription(id="acme", product="starter", owner="alice"))
keys.add(Subscription(id="globex", product="unlimited", owner="bob"))
starter_key, unlimited_key = keys.issue("acme"), keys.issue("globex")

gateway = Gateway(
    policies=(SetHeader(name="x-served-by", value="gateway", on="response"),),
    products=(
        Product(
            "starter",
            apis=("orders",),
            policies=(
                RateLimit(calls=5, per=60, by=by.subscription),
                Quota(calls=100, period="month", by=by.subscription),
            ),
        ),
        Product("unlimited", apis=("orders",)),
        Product("public", apis=("status",), subscription_required=False, policies=(RateLimit(calls=60, per=60),)),
    ),
    apis=(
        Api(
            "orders",
            "/orders",
            backend=shop,
            versions=Versions(
                "path",
                (
                    Version(
                        "v1",
                        operations=(Operation("GET", "/"),),
                        deprecation=Deprecation(since=datetime(2026, 1, 1, tzinfo=UTC), successor="/orders/v2"),
                    ),
                    Version(
                        "v2",
                        operations=(
                            Operation("GET", "/"),
                            Operation("GET", "/{id}"),
                            Operation("POST", "/", policies=(RateLimit(calls=2, per=60, by=by.subscription),)),
                        ),
                    ),
                ),
            ),
        ),
        Api("status", "/status", backend=health),
    ),
    keys=keys,
)


def table() -> str:
    """What stands in front of each operation, for the callers of each product."""
    lines = [
        f"{row.method:5} {row.path:18} {row.product or '-':10} "
        + ", ".join(f"{type(layer).__name__} ({place})" for place, layer in row.layers)
        for row in gateway.rows()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), end="\n\n")
    root = "http://127.0.0.1:8000"
    starter, unlimited = (f'-H "Ocp-Apim-Subscription-Key: {key}"' for key in (starter_key, unlimited_key))
    print(f"curl -i {root}/status                  # 200: nobody is asked for a key")
    print(f"curl -i {root}/orders/v2               # 401: here everybody is")
    print(f"curl -i {root}/orders/v2 {starter}     # 200, and what is left of both limits")
    print(f"curl -i {root}/orders/v2/7 {unlimited} # 200, and no limit")
    print(f"curl -i {root}/orders/v1 {starter}     # 200: deprecated, with a successor")
    print(f"curl -i {root}/orders/v3               # 404")
    uvicorn.run(gateway, host="127.0.0.1", port=8000, **uvicorn_options())
