"""Mirrors: what is copied, what is not, and that nobody notices."""

import random
import tracemalloc

import anyio
import pytest
from tests.servers import stub

from apim_middleware import _unseen_reads, conditions
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policies.headers import SetHeader
from apim_middleware.policies.mirror import Mirror, _Copy
from apim_middleware.policies.read_body import ReadBody
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.stores.users import MemoryUsers
from apim_middleware.testing import Answer, call, connect, http_scope

from .visiting import settled

pytestmark = pytest.mark.anyio


async def main(scope, receive, send):
    """Reads its request, and answers with its length."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


class Shadow:
    """Keeps what it is shown; answers when told."""

    def __init__(self, *, error=None, waits=False):
        self.shown, self.error, self.waits = [], error, waits
        self.at_work, self.rested = 0, anyio.Event()

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.shown.append((scope["method"], scope["path"], body, dict(scope["headers"])))
        self.at_work += 1
        try:
            if self.waits:
                await anyio.sleep_forever()
            if self.error is not None:
                raise self.error
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"never heard"})
        finally:
            self.at_work -= 1
            if not self.at_work:
                self.rested.set()


class Events:
    def __init__(self):
        self.lost = []

    def count(self, event, attributes):
        assert event == "apim.mirror.lost"
        self.lost.append(attributes["apim.mirror.reason"])


def mirrored(shadow, **fields):
    env, events = Env(), Events()
    env.listen(events)
    return Stack(Mirror(shadow, **fields), env=env)(main), events


LENGTH = (b"content-length", b"7")


async def test_a_request_is_shown_as_it_is():
    shadow = Shadow()
    app, _ = mirrored(shadow)
    answer = await call(app, "POST", "/a", headers=[LENGTH, (b"x-a", b"1")], body=[b"one ", b"two"])
    await settled()
    assert (answer.status, answer.body) == (200, b"7")
    ((method, path, body, headers),) = shadow.shown
    assert (method, path, body, headers[b"x-a"]) == ("POST", "/a", b"one two", b"1")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_a_request_without_a_body_is_shown_at_once(method):
    shadow = Shadow()
    app, _ = mirrored(shadow)
    await call(app, method)
    await settled()
    assert shadow.shown[0][2] == b""


async def test_a_part_of_the_requests_may_be_shown():
    shadow = Shadow()
    app, _ = mirrored(shadow, share=0.2, random=random.Random(1).random)
    for _ in range(200):
        await call(app)
    await settled()
    assert 25 < len(shadow.shown) < 60


async def test_only_some_requests_may_be_shown():
    shadow = Shadow()
    app, _ = mirrored(shadow, when=conditions.method("GET"))
    await call(app, "GET")
    await call(app, "DELETE")
    await settled()
    assert [each[0] for each in shadow.shown] == ["GET"]


def known(exchange):
    return exchange.principal is not None


known.needs = frozenset({"principal"})


def test_it_relies_on_what_its_condition_relies_on():
    with pytest.raises(ConfigError, match="Write BasicAuth before Mirror"):
        Stack(Mirror(main, when=known), BasicAuth(users=MemoryUsers()))


def test_an_order_that_cannot_work_is_found_one_by_one_too():
    with pytest.raises(ConfigError, match="Write BasicAuth before Mirror"):
        Mirror(main, when=known)(BasicAuth(users=MemoryUsers())(main))


def test_a_header_of_its_condition_that_nobody_sees_is_told_of(caplog):
    def asking(exchange):
        return exchange.header(b"x-forwarded-for") is not None

    asking.reads = frozenset({"x-forwarded-for"})
    _unseen_reads._warn.cache_clear()
    Mirror(main, when=asking)(main)
    assert "Mirror.when asks for the header x-forwarded-for" in caplog.text


async def test_a_condition_that_fails_shows_nothing():
    def when(exchange):
        raise RuntimeError("no")

    shadow = Shadow()
    app, _ = mirrored(shadow, when=when)
    assert (await call(app)).status == 200
    await settled()
    assert shadow.shown == []


async def test_a_body_too_large_to_copy_is_not_shown():
    shadow = Shadow()
    app, events = mirrored(shadow, max_body_bytes=6)
    assert (await call(app, "POST", headers=[LENGTH], body=[b"one ", b"two"])).body == b"7"
    await settled()
    assert (shadow.shown, events.lost) == ([], ["body"])


async def test_a_copy_is_no_larger_than_its_body():
    """Empty messages were kept without end, at sixteen bytes and more a piece."""
    copied, left = _Copy(http_scope("POST")), 200_000
    tracemalloc.start()
    for number in range(left):
        chunk = b"x" if number % 4 else b""
        copied.take({"type": "http.request", "body": chunk, "more_body": number < left - 1}, 1 << 20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert copied.whole
    assert (await copied.receive())["body"] == b"x" * 150_000
    assert most < 1_000_000


class Rewrites(Policy):
    """Puts a longer body in the place of the one that came."""

    guards = False
    needs = frozenset({"body"})

    def on_request(self, exchange):
        exchange.body = b"much longer than before"


@pytest.mark.parametrize(
    ("more", "length"),
    [
        ({"headers": [LENGTH]}, b"23"),
        ({"http_version": "2"}, b"23"),
        ({"headers": [(b"transfer-encoding", b"chunked")]}, None),
    ],
    ids=["announced", "http/2", "chunked"],
)
async def test_a_copy_has_the_length_of_the_body_it_has_got(more, length):
    """That of the body which came stood on the one a policy behind had put in its place."""
    shadow = Shadow()
    await call(Stack(ReadBody(), Mirror(shadow), Rewrites())(main), "POST", body=b"one two", **more)
    await settled()
    ((_, _, body, headers),) = shadow.shown
    assert (body, headers.get(b"content-length")) == (b"much longer than before", length)


async def test_half_of_a_request_is_never_shown():
    shadow = Shadow()
    app, _ = mirrored(shadow)

    async def leaving():
        answer, inbox = Answer(), [{"type": "http.request", "body": b"one ", "more_body": True}]

        async def receive():
            return inbox.pop() if inbox else {"type": "http.disconnect"}

        async def send(message):
            answer.messages.append(message)

        await app(http_scope("POST", headers=[LENGTH]), receive, send)

    await leaving()
    await settled()
    assert shadow.shown == []


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError("gone")])
async def test_nobody_notices_when_the_copy_fails(error):
    app, events = mirrored(Shadow(error=error))
    assert (await call(app)).status == 200
    await settled()
    assert events.lost == ["failed"]


async def test_nobody_waits_for_a_copy_and_only_so_many_are_under_way():
    shadow = Shadow(waits=True)
    app, events = mirrored(shadow, at_once=2, timeout=0.05)
    for _ in range(5):
        assert (await call(app)).status == 200
    await settled()
    assert (len(shadow.shown), shadow.at_work) == (2, 2)
    assert events.lost == ["busy"] * 3
    await shadow.rested.wait()
    await settled()
    assert events.lost == ["busy"] * 3 + ["slow"] * 2
    await call(app)
    await settled()
    assert shadow.at_work == 1


async def test_an_error_of_the_app_comes_out_as_it_is():
    async def failing(scope, receive, send):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await call(Mirror(Shadow())(failing))


async def test_what_happens_to_the_request_later_does_not_happen_to_the_copy():
    shadow = Shadow()
    app = Stack(Mirror(shadow), SetHeader(name="x-late", value="1", on="request"))(main)
    await call(app, "POST", headers=[LENGTH], body=b"1234567")
    await settled()
    assert b"x-late" not in shadow.shown[0][3]


async def test_websockets_are_not_shown():
    shadow = Shadow()
    app, _ = mirrored(shadow)
    assert (await connect(app)).status == 101
    await settled()
    assert shadow.shown == []


async def test_a_copy_goes_to_a_real_upstream():
    shown = anyio.Event()

    async def speak(spoken):
        await spoken.until(b"1234567")
        await spoken.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        shown.set()

    async with stub(speak) as upstream:
        proxy = Proxy(upstream.origin)
        assert (await call(Mirror(proxy)(main), "PUT", "/a", headers=[LENGTH], body=b"1234567")).body == b"7"
        with anyio.fail_after(10):
            await shown.wait()
        await settled()
        await proxy._transport.aclose()
    assert upstream.heard[0].startswith(b"PUT /a HTTP/1.1")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_copy_ends_with_the_event_loop(backend):
    shadow = Shadow(waits=True)

    async def visit():
        await call(Mirror(shadow)(main))
        await settled()
        assert shadow.at_work == 1

    anyio.run(visit, backend=backend)
    assert shadow.at_work == 0


async def later(exchange):
    return True


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"share": -1.0}, "share"),
        ({"max_body_bytes": -1}, "max_body_bytes"),
        ({"at_once": 0}, "at_once"),
        ({"timeout": 0}, "timeout"),
        ({"when": later}, "when"),
    ],
)
def test_a_mistake_names_its_field(fields, field):
    with pytest.raises(ConfigError, match=rf"Mirror\.{field}"):
        Mirror(Shadow(), **fields)
