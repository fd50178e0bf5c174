"""What tests of the gateway share: backends that tell what reached them, keys, and policies that leave a mark."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apim_middleware.exchange import Exchange
from apim_middleware.identity import Subscription
from apim_middleware.policy import Policy
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.testing import Answer, call
from apim_middleware.types import ASGIApp, RawHeaders, Receive, Scope, Send

KEY = b"ocp-apim-subscription-key"


class Backend:
    """An app that answers with its name, and keeps the scopes that reached it."""

    def __init__(self, name: str = "backend") -> None:
        self.name = name
        self.seen: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        self.seen.append({**scope, "exchange": exchange})
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        assert exchange is not None
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-backend", self.name.encode())]})
        told = {
            "name": self.name,
            "root_path": scope["root_path"],
            "path": scope["path"],
            "product": exchange.product,
            "parameters": dict(exchange.parameters),
            "passed": exchange.attributes.get("passed", []),
        }
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def told(answer: Answer) -> dict[str, Any]:
    """What the backend said of the request that reached it."""
    assert answer.status == 200, (answer.status, answer.body)
    found: dict[str, Any] = json.loads(answer.body)
    return found


def code(answer: Answer) -> str:
    """The code of a refusal."""
    found: str = json.loads(answer.body)["code"]
    return found


@dataclass(frozen=True)
class Passes(Policy):
    """Notes that a request came by, and that its response went by."""

    name: str

    def on_request(self, exchange: Exchange) -> None:
        exchange.attributes.setdefault("passed", []).append(self.name)

    def on_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.append(b"x-passed", self.name.encode())


def passing(name: str) -> Callable[[ASGIApp], ASGIApp]:
    """The same as a middleware of somebody else."""

    def layer(app: ASGIApp) -> ASGIApp:
        async def passes(scope: Scope, receive: Receive, send: Send) -> None:
            exchange = Exchange.of(scope)
            if exchange is not None:
                exchange.attributes.setdefault("passed", []).append(name)
            await app(scope, receive, send)

        return passes

    return layer


@dataclass
class Subscribers:
    """A store of keys, and the keys in it by the subscription's id."""

    store: MemoryKeys = field(default_factory=MemoryKeys)
    keys: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, **opens: str) -> RawHeaders:
        """One more subscription; the header lines that bring its key."""
        self.store.add(Subscription(id=name, **opens))
        self.keys[name] = self.store.issue(name).encode()
        return self.of(name)

    def of(self, name: str) -> RawHeaders:
        return [(KEY, self.keys[name])]


async def get(app: ASGIApp, path: str, headers: RawHeaders = [], method: str = "GET", **more: Any) -> Answer:  # noqa: B006
    """One request whose path needs no encoding."""
    return await call(app, method, path, headers=headers, **more)
