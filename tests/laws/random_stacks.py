"""Random stacks and apps whose every step leaves a trace, so that two ways to build a stack can be compared."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy
from apim_middleware.testing import http_scope, websocket_scope
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

Trace = list[tuple[Any, ...]]

ON_REQUEST = ("absent", "pass", "pass", "pass", "refuse", "answer", "fail")
ON_RESPONSE = ("absent", "pass", "pass", "header", "tap", "tap", "refuse", "fail", "tap fails", "undeclared tap")
ON_SENT = ("absent", "pass", "pass", "fail")
ON_END = ("absent", "pass", "pass", "fail")
APPS = (
    "finish", "finish", "stream", "stream", "background", "raise", "raise midway", "raise after", "never finish",
    "stuck midway", "other task", "silent", "trailers", "pathsend", "zero copy", "rude pathsend", "rude zero copy",
    "stubborn",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Probe(Policy):
    """A policy that does one thing at each hook and writes down that it was called and what it saw."""

    number: int
    on_request: str = "absent"
    on_response: str = "absent"
    on_sent: str = "absent"
    on_end: str = "absent"
    awaits: bool = False
    trace: list[Any] = field(default_factory=list, compare=False, repr=False)

    def bind(self, env: object) -> object:
        hooks: dict[str, Any] = {"taps_body": self.on_response in ("tap", "tap fails")}
        for name in ("on_request", "on_response", "on_sent", "on_end"):
            if getattr(self, name) != "absent":
                sync = name == "on_end" or not self.awaits
                hooks[name] = staticmethod(self._plain(name) if sync else self._awaiting(name))
        return type("Hooks", (), hooks)()

    def _plain(self, name: str) -> Any:
        def hook(exchange: Exchange) -> Any:
            return self._step(name, exchange)

        return hook

    def _awaiting(self, name: str) -> Any:
        async def hook(exchange: Exchange) -> Any:
            await checkpoint()
            result = self._step(name, exchange)
            await checkpoint()
            return result

        return hook

    def _step(self, name: str, exchange: Exchange) -> Any:
        head = exchange.response
        seen = None if head is None else (head.status, tuple(head.headers))
        refusal = None if exchange.refusal is None else exchange.refusal.code
        error = None if exchange.error is None else type(exchange.error).__name__
        self.trace.append((self.number, name, seen, refusal, error, exchange.completed))
        match getattr(self, name):
            case "refuse":
                raise Refusal(403, f"refused-{self.number}")
            case "fail":
                raise RuntimeError(f"failed {self.number}")
            case "answer":
                return self._answer
            case "header":
                assert head is not None
                head.append(b"x-probe", b"%d" % self.number)
            case "tap" | "undeclared tap":
                return self._tap
            case "tap fails":
                return self._failing_tap
        return None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await finish(scope, send, b"answer %d" % self.number)

    def _tap(self, chunk: bytes, last: bool) -> bytes:
        self.trace.append((self.number, "tap", chunk, last))
        return chunk + b"<%d>" % self.number

    def _failing_tap(self, chunk: bytes, last: bool) -> bytes:
        self.trace.append((self.number, "failing tap", chunk, last))
        if last:
            raise RuntimeError(f"tap {self.number}")
        return chunk


@dataclass
class Case:
    """One random stack, app, scope and client."""

    probes: Sequence[Probe]
    behaviour: str
    kind: str
    denial: bool
    leave_after: int | None
    splits: Sequence[int]

    @classmethod
    def draw(cls, rng: random.Random) -> "Case":
        probes = [
            Probe(
                number=number,
                on_request=rng.choice(ON_REQUEST),
                on_response=rng.choice(ON_RESPONSE),
                on_sent=rng.choice(ON_SENT),
                on_end=rng.choice(ON_END),
                awaits=rng.random() < 0.3,
            )
            for number in range(rng.randint(1, 6))
        ]
        return cls(
            probes=probes,
            behaviour=rng.choice(APPS),
            kind=rng.choice(("http", "http", "http", "head", "websocket", "lifespan")),
            denial=rng.random() < 0.5,
            leave_after=rng.choice((None, None, None, 0, 1, 2)),
            splits=[rng.randrange(len(probes) + 1) for _ in range(2)],
        )

    def scope(self) -> Scope:
        if self.kind == "lifespan":
            return {"type": "lifespan", "asgi": {"version": "3.0"}}
        if self.kind == "websocket":
            return websocket_scope(denial=self.denial)
        extensions = {"http.response.pathsend": {}, "http.response.zerocopysend": {}, "http.response.trailers": {}}
        return http_scope("HEAD" if self.kind == "head" else "GET", extensions=extensions)


async def finish(scope: Scope, send: Send, body: bytes = b"body") -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept", "headers": [(b"x-app", b"1")]})
        await send({"type": "websocket.send", "bytes": body})
        await send({"type": "websocket.close", "code": 1000})
    else:
        await start(send)
        await send({"type": "http.response.body", "body": body})


async def start(send: Send, **more: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-App", b"1")], **more})


async def chunk(scope: Scope, send: Send, data: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.send", "bytes": data})
    else:
        await send({"type": "http.response.body", "body": data, "more_body": True})


def app_of(behaviour: str, trace: Trace) -> ASGIApp:
    """An app that behaves so, and writes down what it was offered and what befell it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        trace.append(("app", scope["type"], sorted(scope.get("extensions") or ())))
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            return
        try:
            await _behave(behaviour, scope, receive, send)
        except BaseException as error:
            trace.append(("app got", type(error).__name__))
            raise

    return app


async def _behave(behaviour: str, scope: Scope, receive: Receive, send: Send) -> None:
    websocket, rude = scope["type"] == "websocket", behaviour.startswith("rude")
    offered = scope.get("extensions") or ()
    match behaviour:
        case "finish":
            await finish(scope, send)
        case "silent":
            return
        case "raise":
            raise LookupError("app")
        case "never finish":
            await receive()
        case "raise after" | "background":
            await finish(scope, send)
            await checkpoint()
            if behaviour == "raise after":
                raise LookupError("app")
        case "other task":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(finish, scope, send)
        case "trailers" if not websocket:
            await start(send, trailers=True)
            await send({"type": "http.response.body", "body": b"body"})
            await send({"type": "http.response.trailers", "headers": [(b"x-t", b"1")]})
        case "pathsend" | "rude pathsend" if "http.response.pathsend" in offered or (rude and not websocket):
            await start(send)
            await send({"type": "http.response.pathsend", "path": "/file"})
        case "zero copy" | "rude zero copy" if "http.response.zerocopysend" in offered or (rude and not websocket):
            await start(send)
            await send({"type": "http.response.zerocopysend", "file": 3, "more_body": True})
            await send({"type": "http.response.zerocopysend", "file": 3})
        case _:
            await _stream(behaviour, scope, receive, send)


async def _stream(behaviour: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await start(send)
    for number in range(3):
        try:
            await chunk(scope, send, b"chunk %d" % number)
        except OSError:
            if behaviour != "stubborn":
                raise
        if number == 1 and behaviour == "raise midway":
            raise LookupError("app")
        if number == 1 and behaviour == "stuck midway":
            await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    else:
        await send({"type": "http.response.body", "body": b""})


async def observe(app: ASGIApp, case: Case, trace: Trace) -> tuple[list[Message], str, Trace]:
    """Run one case to its end: what came out, how the call ended, and the trace."""
    messages: list[Message] = []
    ending = "returned"
    with anyio.CancelScope() as cancel:

        async def receive() -> Message:
            cancel.cancel()  # whoever waits here waits for ever: the server gives up
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            await checkpoint()
            if case.leave_after is not None and len(messages) >= case.leave_after:
                raise OSError("the client is gone")
            messages.append(message)

        try:
            await app(case.scope(), receive, send)
        except Exception as error:
            ending = type(error).__name__
    if cancel.cancelled_caught:
        ending = "cancelled"
    return messages, ending, list(trace)
