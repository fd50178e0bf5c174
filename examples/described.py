"""One document of what callers meet: an API imported from OpenAPI, policies in front, and the document they make.

    python examples/described.py

It serves the document of everything at http://127.0.0.1:8000/openapi.json, with ``?product=starter`` that of a product,
and prints what stands in it.
"""

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apim_middleware import (
    Cache,
    Gateway,
    LimitBody,
    MemoryKeys,
    Product,
    PublishOpenAPI,
    RateLimit,
    Subscription,
    api_from_openapi,
    by,
    openapi_of,
)
from apim_middleware.serving.options import uvicorn_options

DOCUMENT = """
openapi: 3.0.3
info: {title: Orders, version: "1.4", description: What was ordered.}
servers: [{url: "https://orders.internal.example/v1"}]
paths:
  /orders:
    post:
      operationId: createOrder
      summary: Order something
      requestBody:
        content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}
      responses: {"201": {description: It is ordered.}}
  /orders/{id}:
    get:
      operationId: getOrder
      summary: One order
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      responses:
        "200":
          description: The order.
          content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}
components:
  schemas:
    Order:
      type: object
      properties:
        note: {type: string, nullable: true}
        parts: {type: array, items: {$ref: "#/components/schemas/Order"}}
"""


async def order(request: Request) -> Response:
    return JSONResponse({"order": request.path_params["id"], "note": None})


async def create(request: Request) -> Response:
    return JSONResponse(await request.json(), status_code=201)


backend = Starlette(routes=[Route("/v1/orders/{id:int}", order), Route("/v1/orders", create, methods=["POST"])])

orders = api_from_openapi(
    DOCUMENT,
    name="orders",
    path="/shop",
    backend=backend,
    operation_policies={
        "getOrder": (Cache(ttl=60, private_to=by.subscription),),
        "createOrder": (LimitBody(max_bytes=10_000),),
    },
)

keys = MemoryKeys()
keys.add(Subscription(id="ada", product="starter"))
starter_key = keys.issue("ada")

gateway = Gateway(
    apis=(orders,),
    products=(
        Product("starter", apis=("orders",), policies=(RateLimit(calls=5, per=60, by=by.subscription),)),
        Product("unlimited", apis=("*",)),
    ),
    keys=keys,
)

app = PublishOpenAPI(title="The shop", products=("starter", "unlimited"))(gateway)


def main() -> None:
    """Print what the document says, and serve."""
    for path, item in openapi_of(gateway, product="starter")["paths"].items():
        for method, operation in item.items():
            print(f"{method.upper():6} {path:24} {', '.join(operation['responses'])}")
    print("\ncurl http://127.0.0.1:8000/openapi.json")
    print(f"curl -H 'Ocp-Apim-Subscription-Key: {starter_key}' http://127.0.0.1:8000/shop/v1/orders/7")
    uvicorn.run(app, log_level="warning", **uvicorn_options())


if __name__ == "__main__":
    main()
