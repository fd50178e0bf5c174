"""What tests of limits share: an app that counts what reaches it, a store that awaits and fails, and what was told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio.lowlevel

from apim_middleware._http.fields import parse_list
from apim_middleware.errors import NotDone
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy
from apim_middleware.protocols import Change, Hit, Tally
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import ASGIApp, Receive, Scope, Send

AWAY = NotDone("the counters are away")


class SlowCounters:
    """A store that awaits, and fails when told to; it remembers what it was asked."""

    def __init__(self, clock: FakeClock) -> None:
        self.kept = MemoryCounters(clock=clock)
        self.failure: Exception | None = None
        self.asked: list[Hit] = []
        self.calls: list[str] = []
        self.changes: list[Change] = []

    async def _reached(self, name: str) -> None:
        self.calls.append(name)
        await anyio.lowlevel.checkpoint()
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)  # a new one, for each keeps its frames alive

    async def hit(self, hits: Sequence[Hit]) -> list[Tally]:
        self.asked += hits
        await self._reached("hit")
        tallies = await self.kept.hit(hits)
        await anyio.lowlevel.checkpoint()  # counted, and the answer is on its way
        return tallies

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        await self._reached("peek")
        return await self.kept.peek(hits)

    async def settle(self, changes: Sequence[Change]) -> None:
        await self._reached("settle")
        self.changes += changes
        await self.kept.settle(changes)

    async def assign(self, hits: Sequence[Hit]) -> None:
        await self._reached("assign")
        await self.kept.assign(hits)

    async def reset(self, hits: Sequence[Hit]) -> None:
        await self._reached("reset")
        await self.kept.reset(hits)


@dataclass
class Counting:
    """An app that counts what reaches it, reads what was sent, and answers with ``status`` and ``chunks``."""

    asked: int = 0
    headers: Sequence[tuple[bytes, bytes]] = ()
    status: int = 200
    chunks: Sequence[bytes] = (b"hello",)
    reads: bool = False
    failure: Exception | None = None
    attributes: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        while self.reads and (await receive()).get("more_body", False):
            pass
        if self.failure is not None:
            raise self.failure
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": list(self.headers)})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        for number, chunk in enumerate(self.chunks, 1):
            await send({"type": "http.response.body", "body": chunk, "more_body": number < len(self.chunks)})


@dataclass(frozen=True, kw_only=True)
class Watch(Policy):
    """Keeps the attributes of every request, for a look when it is over."""

    seen: list[dict[str, Any]] = field(default_factory=list, compare=False)

    def on_end(self, exchange: Exchange) -> None:
        self.seen.append(dict(exchange.attributes))


def from_address(address: str) -> dict[str, Any]:
    return {"client": (address, 50_000)}


def sent(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def told(answer: Answer, name: bytes = b"ratelimit") -> list[Any]:
    """The members of a structured field; there is one line of it."""
    [line] = answer.all(name)
    return parse_list(line.decode())


def left(answer: Answer) -> list[int]:
    """The units that are left, of each limit."""
    return [parameters["r"] for _, parameters in told(answer)]


async def statuses(app: ASGIApp, number: int, **more: Any) -> list[int]:
    return [(await call(app, **more)).status for _ in range(number)]


async def quiet(turns: int = 50) -> None:
    """Let everything go on that goes on by itself, on either event loop."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
