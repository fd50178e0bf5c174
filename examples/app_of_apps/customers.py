"""Customers: a second app; whoever calls is known to it."""

from fastapi import FastAPI, Request, WebSocket
from pydantic import BaseModel


class Customer(BaseModel):
    """Who buys."""

    name: str
    asked_by: str


app = FastAPI(title="Customers")


@app.get("/{name}", operation_id="getCustomer", tags=["customers"])
async def one(name: str, request: Request) -> Customer:
    return Customer(name=name, asked_by=request.headers["x-subscription-id"])


@app.websocket("/live")
async def live(websocket: WebSocket) -> None:
    """Not in the document of an app, and guarded like the rest."""
    await websocket.accept()
    await websocket.send_text("nobody buys now")
    await websocket.close()
