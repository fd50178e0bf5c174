"""Small policies around an app: where it is, how large, how often, and in how few bytes it is told.

apim serve examples.responses:app --port 8000

    curl -i http://127.0.0.1:8000/v1/orders                              # moved to /orders
    curl -i --compressed http://127.0.0.1:8000/orders                    # compressed, with a tag of its own
    curl -i -H 'If-None-Match: <that tag>' --compressed http://127.0.0.1:8000/orders             # 304
    curl -i -d '{"item": "tea"}' -H 'Idempotency-Key: 8e03978e' http://127.0.0.1:8000/orders     # twice: one order
    curl -i -d '{"item": "coffee"}' -H 'Idempotency-Key: 8e03978e' http://127.0.0.1:8000/orders  # 422
    curl -i http://127.0.0.1:8000/invoices/7                             # what is yet to be built
    curl -i http://127.0.0.1:8000/robots.txt                             # what needs no app
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from apim_middleware import (
    Compress,
    ETag,
    Idempotency,
    LimitBody,
    MockResponse,
    Redirect,
    ReturnResponse,
    Stack,
    When,
    conditions,
)

orders = [{"number": number, "item": "tea", "note": "black, with a drop of milk"} for number in range(1, 51)]


async def listed(request: Request) -> JSONResponse:
    """Every order there is."""
    return JSONResponse(orders)


async def placed(request: Request) -> JSONResponse:
    """One order more, each time this runs."""
    order = {"number": len(orders) + 1, **await request.json()}
    orders.append(order)
    return JSONResponse(order, status_code=201)


shop = Starlette(routes=[Route("/orders", listed, methods=["GET"]), Route("/orders", placed, methods=["POST"])])

app = Stack(
    Redirect(match="/v1/{rest:path}", to="/{rest}", status=308),
    When(conditions.path("/robots.txt"), ReturnResponse(body="User-agent: *\nDisallow: /\n")),
    When(conditions.path("/invoices/*"), MockResponse(body={"number": 7, "total": "12.00 EUR"})),
    LimitBody(max_bytes=10_000),
    Compress(),
    ETag(),
    Idempotency(),
)(shop)
