"""A request is carried out once while it is under way, though its store forgets keys to make room."""

import logging
import tracemalloc
from collections.abc import Collection
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from apim_middleware.env import Env
from apim_middleware.policies.idempotency import Idempotency
from apim_middleware.policy import Stack
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.sqlite import SQLiteEntries
from apim_middleware.testing import Answer, call, http_scope
from apim_middleware.types import ASGIApp, Receive, Scope, Send

KEY = [(b"idempotency-key", b'"a"')]


class Payment:
    """An app that takes its time."""

    def __init__(self) -> None:
        self.done = 0
        self.go_on = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.done += 1
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"paid %d" % self.done})


async def pay(app: ASGIApp) -> Answer:
    return await call(app, "POST", headers=KEY)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_this_process_carries_out_is_known_though_the_store_forgets_it(kind: str, tmp_path: Any) -> None:
    entries = MemoryEntries(max_bytes=4_000) if kind == "memory" else SQLiteEntries(tmp_path / "e", max_bytes=4_000)
    app = Payment()
    built = Stack(Idempotency(), env=Env(entries=entries), place="here")(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pay, built)
        while not app.done:
            await anyio.lowlevel.checkpoint()
        for number in range(50):
            await entries.set(b"%d" % number, b"a page", 60)
        assert (await pay(built)).status == 409
        app.go_on.set()
    assert (await pay(built)).body == b"paid 1"
    if isinstance(entries, SQLiteEntries):
        await entries.aclose()


@pytest.mark.anyio
async def test_a_response_that_is_kept_takes_no_more_memory_than_it_has_bytes() -> None:
    """Each of its chunks was kept as it was, at eighty bytes and more a piece."""
    most = 0

    async def crumbling(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most
        await send({"type": "http.response.start", "status": 200, "headers": []})
        tracemalloc.start()
        for number in range(50_000):
            await send({"type": "http.response.body", "body": bytes([number % 256, 0]), "more_body": True})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await send({"type": "http.response.body", "body": b""})

    built = Stack(Idempotency())(crumbling)

    async def send(message: Any) -> None:
        """Nobody listens."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    await built(http_scope("POST", headers=KEY), receive, send)
    assert 0 < most < 1_000_000
    assert len((await pay(built)).body) == 100_000


class Forgetful(MemoryEntries):
    """Makes room at once."""

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        """Keep nothing."""
        return True


@pytest.mark.anyio
async def test_the_end_of_one_request_is_not_that_of_the_next_with_its_key() -> None:
    """The first one frees the key with its answer, and goes on in the background while the second is carried out."""
    payment, answered, background, over = Payment(), anyio.Event(), anyio.Event(), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if answered.is_set():
            await payment(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        answered.set()
        await background.wait()

    async def first() -> None:
        await pay(built)
        over.set()

    built = Stack(Idempotency(), env=Env(entries=Forgetful()), place="here")(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await answered.wait()
        tasks.start_soon(pay, built)
        while not payment.done:
            await anyio.lowlevel.checkpoint()
        background.set()
        await over.wait()
        with anyio.fail_after(5):
            assert (await pay(built)).status == 409
        payment.go_on.set()
    assert payment.done == 1


def test_a_lost_lease_is_taken_again_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    class Time:
        now = monotonic = staticmethod(trio.current_time)

    async def work() -> None:
        app, entries = Payment(), MemoryEntries(clock=Time())
        processes = [
            Stack(Idempotency(), env=Env(clock=Time(), entries=Elsewhere(entries)), place="here")(app) for _ in range(2)
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pay, processes[0])
            await anyio.sleep(1)
            entries._kept.clear()
            await anyio.sleep(60)
            assert (await pay(processes[1])).status == 409
            app.go_on.set()
        assert (await pay(processes[1])).body == b"paid 1"

    clock = trio.testing.MockClock(autojump_threshold=0)
    with caplog.at_level(logging.ERROR, "apim_middleware"):
        anyio.run(work, backend="trio", backend_options={"clock": clock})
    assert "took it again" in caplog.text


class Elsewhere:
    """Entries that are not those of this process only."""

    def __init__(self, entries: MemoryEntries) -> None:
        for name in ("get", "get_many", "look", "set", "add", "delete", "purge"):
            setattr(self, name, getattr(entries, name))
