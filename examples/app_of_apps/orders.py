"""Orders: an app like any other, with a database to open and close, that knows nothing of keys and limits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel


class Order(BaseModel):
    """What was ordered."""

    number: int
    article: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    yield {"orders": {1: Order(number=1, article="pencil"), 2: Order(number=2, article="paper")}}


app = FastAPI(title="Orders", lifespan=lifespan)


@app.get("/", operation_id="listOrders", tags=["orders"])
async def every(request: Request) -> list[Order]:
    return list(request.state.orders.values())


@app.get("/{number}", operation_id="getOrder", tags=["orders"])
async def one(number: int, request: Request) -> Order:
    if number not in request.state.orders:
        raise HTTPException(404)
    found: Order = request.state.orders[number]
    return found
