"""What tests of limits of concurrency share: apps that work until told, callers, and a store that awaits and fails."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.testing import Answer, call, http_scope
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send


class SlowPermits:
    """A store that awaits, and fails when told to."""

    def __init__(self) -> None:
        self.kept = MemoryPermits()
        self.failure: Exception | None = None
        self.asked = 0

    async def acquire(self, key: str, at_once: int, holder: str) -> tuple[bool, int]:
        self.asked += 1
        await self._answer()
        return self.kept.acquire_now(key, at_once, holder)

    async def release(self, key: str, holder: str) -> None:
        await self._answer()
        self.kept.release_now(key, holder)

    async def _answer(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure


async def settled() -> None:
    """Let everything that runs come to rest; what sleeps sleeps on."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


async def inside(permits: MemoryPermits | SlowPermits) -> int:
    """How many permits are out, when everything has come to rest."""
    await settled()
    kept = permits.kept if isinstance(permits, SlowPermits) else permits
    return sum(map(len, kept._inside.values()))


class Working:
    """An app that works until it is told to go on: before the head, within the body, or after the last byte."""

    def __init__(self, pause: str = "before the head") -> None:
        self.pause = pause
        self.came: list[str] = []
        self.at_work = self.answering = self.most = 0
        self.go_on = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.came.append(scope["path"][1:])
        self.at_work += 1
        self.answering += 1
        self.most = max(self.most, self.answering)
        try:
            await self.work(scope, receive, send)
        finally:
            self.at_work -= 1

    async def work(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await self.wait("within the body")
            await send({"type": "websocket.close"})
            await self.wait("after the last byte")
            return
        await self.wait("before the head")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hel", "more_body": True})
        await self.wait("within the body")
        self.answering -= 1
        await send({"type": "http.response.body", "body": b"lo"})
        await self.wait("after the last byte")

    async def wait(self, where: str) -> None:
        if where == self.pause:
            await self.go_on.wait()


class Callers:
    """Several callers at once, and what each was answered."""

    def __init__(self, app: ASGIApp, tasks: anyio.abc.TaskGroup) -> None:
        self.app, self.tasks = app, tasks
        self.answers: dict[str, Answer] = {}

    async def ask(self, path: str, speak: Callable[..., Any] = call, **more: Any) -> None:
        """Come, and go as far as it goes for now."""

        async def run() -> None:
            self.answers[path] = await speak(self.app, path=f"/{path}", **more)

        self.tasks.start_soon(run)
        await settled()

    @property
    def statuses(self) -> dict[str, int]:
        return {path: answer.status for path, answer in self.answers.items()}


@contextlib.asynccontextmanager
async def callers(app: ASGIApp) -> AsyncIterator[Callers]:
    async with anyio.create_task_group() as tasks:
        yield Callers(app, tasks)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("out of order")


class Client:
    """A client whose messages are handed out one by one, when a test says so."""

    def __init__(self) -> None:
        self.say, self._heard = anyio.create_memory_object_stream[Message](10)
        self.reading = 0
        self.answer = Answer()

    async def receive(self) -> Message:
        self.reading += 1
        assert self.reading == 1, "there is one reader"
        try:
            return await self._heard.receive()
        finally:
            self.reading -= 1

    async def send(self, message: Message) -> None:
        self.answer.messages.append(message)

    def close(self) -> None:
        self.say.close()
        self._heard.close()


class Visitor(Client):
    """A client and its app in one, which does what it is told."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.scope = anyio.CancelScope()
        self.state = "waiting"
        self.at_work = False
        self.told = anyio.Event()
        self.fails = False

    async def visit(self, app: ASGIApp) -> None:
        scope = http_scope(headers=[(b"x", self.key.encode())], visitor=self)
        with self.scope, contextlib.suppress(RuntimeError):
            await app(scope, self.receive, self.send)
        self.state, self.at_work = "gone", False

    async def do(self, step: str) -> None:
        if step == "cancel":
            self.scope.cancel()
        elif step == "leave" and self.state != "gone":
            await self.say.send({"type": "http.disconnect"})
        else:
            self.fails = step == "fail"
            self.told.set()

    @staticmethod
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        visitor: Visitor = scope["visitor"]
        visitor.state, visitor.at_work = "inside", True
        await visitor.told.wait()
        if visitor.fails:
            raise RuntimeError("out of order")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        visitor.at_work = False
        await send({"type": "http.response.body"})
