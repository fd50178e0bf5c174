"""WebSockets through a pool: they are given to members as requests are, and held as long as they are open."""

import anyio
import pytest

from apim_middleware.env import Env
from apim_middleware.errors import ConnectFailed
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.affinity import Affinity
from apim_middleware.proxy.breaker import CircuitBreaker
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Hedge, Retry
from apim_middleware.testing import FakeClock, connect, websocket_scope

from .scripted import Said, Scripted
from .test_pool import A, B

pytestmark = pytest.mark.anyio


class Socket:
    """An open WebSocket, whose upstream says one thing and closes."""

    status, headers, subprotocol, end = 101, (), None, (1000, "")

    def __init__(self):
        self.said = ["hello"]

    async def receive(self):
        return self.said.pop() if self.said else None

    async def send(self, said):
        pass

    async def aclose(self, code=1000, reason=""):
        pass

    def hang_up(self):
        pass


class Opening(Scripted):
    """Opens WebSockets, and looks how many are under way when it does."""

    async def open_websocket(self, request, rules):
        host = request.origin.removeprefix("http://")
        self.asked.append(host)
        self.heads = getattr(self, "heads", [])
        self.heads.append(dict(request.headers))
        what = self.told.get(host, [101])[0]
        if isinstance(what, Exception):
            raise what
        return Socket() if what == 101 else Said(what)


class Gateway:
    def __init__(self, told=None, **options):
        self.transport = Opening(**(told or {}))
        retry = options.pop("retry", None)
        self.app = Proxy(Pool(A, B, **options), transport=self.transport, retry=retry, env=Env(clock=FakeClock()))

    @property
    def standing(self):
        return [(each.state, each.under_way) for each in self.app.standing()]


async def told(gateway, **options):
    with anyio.fail_after(10):
        return await connect(gateway.app, **options)


async def test_members_take_turns():
    gateway = Gateway()
    answers = [await told(gateway) for _ in range(4)]
    assert [each.status for each in answers] == [101] * 4
    assert gateway.transport.asked == ["a", "b", "a", "b"]
    assert gateway.standing == [("ready", 0), ("ready", 0)]


async def test_another_member_is_asked_when_one_cannot_be_reached():
    gateway = Gateway({"a": [ConnectFailed("x")]}, retry=Retry(backoff=0), breaker=CircuitBreaker(failures=1))
    answer = await told(gateway, subprotocols=["chat"])
    assert answer.status == 101
    assert gateway.transport.asked == ["a", "b"]
    assert gateway.transport.heads[1][b"sec-websocket-protocol"] == b"chat"
    assert gateway.standing == [("open", 0), ("ready", 0)]


async def test_a_handshake_is_never_made_twice_at_once():
    class Slow(Opening):
        async def open_websocket(self, request, rules):
            await anyio.sleep(0.03)
            return await super().open_websocket(request, rules)

    app = Proxy(Pool(A, B), transport=Slow(), hedge=Hedge(after=0.001))
    messages, inbox = [], [{"type": "websocket.connect"}]

    async def receive():
        return inbox.pop() if inbox else await anyio.sleep_forever()

    async def send(message):
        messages.append(message["type"])

    with anyio.fail_after(10):
        await app(websocket_scope(), receive, send)
    assert messages == ["websocket.accept", "websocket.send", "websocket.close"]
    assert app.transport.asked == ["a"]


async def test_a_handshake_that_is_refused_is_an_answer():
    gateway = Gateway({"a": [404], "b": [500]}, breaker=CircuitBreaker(failures=1))
    assert [(await told(gateway)).status for _ in range(2)] == [404, 500]
    assert gateway.standing == [("ready", 0), ("open", 0)]


async def test_a_client_stays_with_its_member():
    gateway = Gateway(affinity=Affinity(cookie="node"))
    (line,) = (await told(gateway)).all(b"set-cookie")
    cookie = [(b"cookie", line.split(b";")[0])]
    for _ in range(3):
        assert (await told(gateway, headers=cookie)).all(b"set-cookie") == []
    assert gateway.transport.asked == ["a", "a", "a", "a"]


@pytest.mark.parametrize(("denial", "status"), [(True, 503), (False, 403)])
async def test_when_nobody_is_available_the_handshake_is_refused(denial, status):
    gateway = Gateway({"a": [500], "b": [500]}, breaker=CircuitBreaker(failures=1))
    for _ in range(2):
        await told(gateway)
    answer = await told(gateway, denial=denial)
    assert answer.status == status
    assert len(gateway.transport.asked) == 2
