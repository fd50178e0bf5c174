"""What is promised about bodies, leaving clients and dying processes holds on real servers and a real Redis."""

import contextlib
import gzip
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest
from tests.servers import PATIENCE, RedisServer, Running, redis_server, serving

from apim_middleware import Env, Stack
from apim_middleware.policies.compress import Compress
from apim_middleware.policies.etag import ETag
from apim_middleware.policies.idempotency import Idempotency
from apim_middleware.policies.size import LimitBody
from apim_middleware.stores.redis import RedisEntries
from apim_middleware.testing import call
from apim_middleware.types import Receive, Scope, Send

TEXT = b"All work and no play makes Jack a dull boy. " * 10_000


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body, then answers with it, or with a text for who sends none."""
    if scope["type"] == "lifespan":
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body or TEXT})


@pytest.fixture(scope="module", params=["httptools", "h11"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with serving(
        Stack(LimitBody(max_bytes=1_000), Compress(), ETag())(echo), http=request.param, lifespan="off"
    ) as running:
        yield running


def test_a_body_that_turns_out_too_large_is_refused_and_its_connection_closed(server: Running):
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"200\r\n" + b"x" * 0x200 + b"\r\n"
    heard = server.talk(head, chunk, chunk, chunk)
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert b'"body-too-large"' in heard
    assert heard.count(b"HTTP/1.1") == 1


def test_a_body_that_says_it_is_too_large_is_not_waited_for(server: Running):
    heard = server.talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_fits_comes_back(server: Running):
    assert httpx.post(server.origin, content=iter([b"x" * 500, b"y" * 500])).text == "x" * 500 + "y" * 500


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_clients_can_read_what_is_compressed_and_keep_it(server: Running, coding: str):
    with httpx.Client(base_url=server.origin, headers={"accept-encoding": coding}) as client:
        first = client.get("/")
        assert (first.headers["content-encoding"], first.content) == (coding, TEXT)
        assert first.num_bytes_downloaded < len(TEXT) / 20
        again = client.get("/", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = client.head("/")
        assert (head.headers["content-encoding"], head.content) == (coding, b"")
        assert client.get("/").content == TEXT


def test_an_encoded_body_is_framed_right_on_the_wire(server: Running):
    heard = server.talk(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
    head, _, rest = heard.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    body = b""
    while (size := int(rest.partition(b"\r\n")[0], 16)) > 0:
        chunk, rest = rest.partition(b"\r\n")[2][:size], rest.partition(b"\r\n")[2][size + 2 :]
        body += chunk
    assert gzip.decompress(body) == TEXT


# Idempotency


class Slow:
    """An app that works until it is told to go on, from another thread."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.done = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self.begun.set()
        await anyio.to_thread.run_sync(self.go_on.wait, PATIENCE)
        self.done += 1
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"paid %d" % self.done})


def until_not_busy(origin: str) -> httpx.Response:
    """The answer to a request with the key, once the first is done with."""
    give_up = time.monotonic() + PATIENCE
    while (answer := httpx.post(origin, headers={"idempotency-key": "a"})).status_code == 409:
        assert time.monotonic() < give_up
    return answer


def test_who_leaves_and_comes_back_finds_the_work_done():
    app = Slow()
    with serving(Idempotency()(app), lifespan="off") as running:
        with running.connect() as connection:
            connection.sendall(
                b"POST / HTTP/1.1\r\nHost: %s\r\nIdempotency-Key: a\r\n\r\n" % running.origin[7:].encode()
            )
            assert app.begun.wait(PATIENCE)
        busy = httpx.post(running.origin, headers={"idempotency-key": "a"})
        assert (busy.status_code, busy.headers["retry-after"]) == (409, "1")
        app.go_on.set()
        answer = until_not_busy(running.origin)
    assert (answer.status_code, answer.text, app.done) == (201, "paid 1", 1)
    assert answer.headers["idempotent-replayed"] == "true"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


def payments(url: str, *, lease: float) -> tuple[RedisEntries, Stack]:
    entries = RedisEntries(url)
    return entries, Stack(Idempotency(lease=lease), env=Env(entries=entries), place="payments")


async def paying(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"paid"})


DYING = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from tests.policies.test_responses_served import payments
from apim_middleware.testing import call

async def stuck(scope, receive, send):
    print("begun", flush=True)
    await asyncio.sleep(3600)

async def main():
    entries, stack = payments(sys.argv[1], lease=1.5)
    await call(stack(stuck), "POST", headers=[(b"idempotency-key", b"dying")])

asyncio.run(main())
"""


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_process_that_is_killed_frees_its_keys_when_its_lease_is_over(redis: RedisServer, anyio_backend: str):
    root = str(Path(__file__).parents[2])
    entries, stack = payments(redis.url, lease=1.5)
    app, headers = stack(paying), [(b"idempotency-key", b"dying")]
    async with contextlib.aclosing(entries):
        async with await anyio.open_process([sys.executable, "-c", DYING, redis.url, root]) as process:
            assert process.stdout is not None
            assert (await process.stdout.receive()).startswith(b"begun")
            busy = await call(app, "POST", headers=headers)
            process.kill()
        assert busy.status == 409
        with anyio.fail_after(PATIENCE):
            while (answer := await call(app, "POST", headers=headers)).status == 409:
                await anyio.lowlevel.checkpoint()
        assert (answer.status, answer.body) == (201, b"paid")
        assert (await call(app, "POST", headers=headers)).header(b"idempotent-replayed") == b"true"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_processes_carry_a_request_out_once(redis: RedisServer, anyio_backend: str):
    done: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        done.append(1)
        await paying(scope, receive, send)

    stores = [payments(redis.url, lease=60) for _ in range(2)]
    guarded = [stack(app) for _, stack in stores]
    answers: list[tuple[int, str]] = []

    async def ask(number: int) -> None:
        answer = await call(guarded[number % 2], "POST", headers=[(b"idempotency-key", b"both")])
        code = "" if answer.status == 201 else json.loads(answer.body)["code"]
        answers.append((answer.status, code))

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(ask, number)
    for entries, _ in stores:
        await entries.aclose()
    assert len(done) == 1
    assert set(answers) <= {(201, ""), (409, "idempotency-in-progress")}
