"""Bodies flow through a gateway, errors come out of it, and nothing of a request stays behind."""

import gc
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
from tests.gateway.houses import Backend, Passes, get

from apim_middleware.env import Env
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api, Operation
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy.app import Proxy
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Retry
from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import ASGIApp, Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio


def house(backend: ASGIApp, *policies: Passes) -> Gateway:
    return Gateway(apis=(Api("a", "/a", backend=backend, policies=policies, subscription_required=False),))


async def test_a_stream_passes_chunk_by_chunk() -> None:
    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": number < 2})

    answer = await call(house(streams, Passes("x")), "GET", "/a")
    assert [each.get("body") for each in answer.messages] == [None, b"0", b"1", b"2"]


async def test_an_upload_reaches_the_backend() -> None:
    async def echoes(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive()).get("more_body") or message.get("body"):
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    assert (await call(house(echoes, Passes("x")), "POST", "/a", body=[b"a", b"b", b"c"])).body == b"abc"


async def test_what_the_backend_raises_comes_out() -> None:
    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await get(house(raises, Passes("x")), "/a")


async def test_a_client_that_leaves_is_told_to_the_backend() -> None:
    seen: list[Message] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        seen.append(await receive())
        seen.append(await receive())

    await call(house(waits, Passes("x")), "GET", "/a", leave_after=1, answer=Answer())
    assert [message["type"] for message in seen] == ["http.request", "http.disconnect"]


async def test_a_websocket_passes_policies_and_is_mounted() -> None:
    backend = Backend()
    answer = await connect(house(backend, Passes("x")), "/a/live")
    assert (answer.status, answer.all(b"x-passed")) == (101, [b"x"])
    assert (backend.seen[0]["root_path"], backend.seen[0]["path"]) == ("/a", "/a/live")


async def test_a_refused_websocket_is_closed_where_no_response_is_possible() -> None:
    answer = await connect(house(Backend()), "/nowhere", denial=False)
    assert answer.messages == [{"type": "websocket.close", "code": 1008, "reason": "operation-not-found"}]


async def test_nothing_of_a_request_stays_in_its_scope_or_in_memory() -> None:
    scope = http_scope("GET", "/a")
    kept: list[weakref.ref[object]] = []

    class Looks(Backend):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            exchange = Exchange.of(scope)
            assert exchange is not None
            kept.append(weakref.ref(exchange.shared.match.route))  # type: ignore[union-attr]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    app = house(Looks(), Passes("x"))

    async def send(message: Message) -> None: ...

    async def receive() -> Message:
        return {"type": "http.request"}

    await app(scope, receive, send)
    assert KEY not in scope
    del app
    gc.collect()
    assert kept[0]() is None


async def test_a_gateway_behind_a_stack_shares_what_is_known_of_the_request() -> None:
    backend = Backend()
    app = Stack(Passes("outside"))(house(backend, Passes("inside")))
    answer = await get(app, "/a")
    assert answer.all(b"x-passed") == [b"inside", b"outside"]
    assert backend.seen[0]["exchange"].attributes["passed"] == ["outside", "inside"]


async def test_a_gateway_may_be_the_backend_of_another() -> None:
    backend = Backend("inner")
    inner = Gateway(apis=(Api("b", "/b", backend=backend, subscription_required=False),))
    outer = house(inner, Passes("outer"))
    assert (await get(outer, "/a/b/x")).status == 200
    assert backend.seen[0]["root_path"] == "/a/b"
    assert backend.seen[0]["exchange"].match.route.template == "/b/*"
    assert (await get(outer, "/a/c")).status == 404


class Notes(Policy):
    """Looks at what is told of a request on its way in and out."""

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []

    def on_request(self, exchange: Exchange) -> None:
        self.told.append({**exchange.attributes})

    def on_response(self, exchange: Exchange) -> None:
        self.told.append({**exchange.attributes})


async def test_what_is_told_before_the_match_stays_beside_what_the_match_tells() -> None:
    notes = Notes()
    assert (await get(Stack(notes, Passes("outside"))(house(Backend())), "/a/x")).status == 200
    assert notes.told[0] == {}
    assert notes.told[1]["passed"] == ["outside"]
    assert (notes.told[1]["http.route"], notes.told[1]["apim.api"]) == ("/a/*", "a")


@pytest.mark.parametrize(("path", "route"), [("/a/b/x", "/b/*"), ("/a/nowhere", "/a/*")])
async def test_a_match_further_in_is_told_beside_that_further_out(path: str, route: str) -> None:
    """Where the gateway further in matches nothing, the route is the last that was found."""
    notes = Notes()
    inner = Gateway(apis=(Api("b", "/b", backend=Backend(), subscription_required=False),))
    await get(Stack(notes)(house(inner)), path)
    assert notes.told[1]["http.route"] == route


async def test_a_request_is_told_its_own_route_by_a_plan_it_shares() -> None:
    backend = Backend()
    operations = (Operation("GET", "/x"), Operation("GET", "/y/{id}"))
    app = Gateway(apis=(Api("a", "/a", backend=backend, operations=operations, subscription_required=False),))
    for path in ("/a/x", "/a/y/1", "/a/x"):
        await get(app, path)
    assert [seen["exchange"].match.route.template for seen in backend.seen] == ["/a/x", "/a/y/{id}", "/a/x"]
    assert [dict(seen["exchange"].parameters) for seen in backend.seen] == [{}, {"id": "1"}, {}]


class Heard:
    """The events an environment was told of."""

    def __init__(self) -> None:
        self.events = list[str]()

    def count(self, event: str, attributes: Mapping[str, str]) -> None:
        """One more."""
        self.events.append(event)


@pytest.mark.parametrize("own", [False, True])
async def test_a_proxy_without_an_environment_tells_that_of_its_gateway(own: bool) -> None:
    """What happened to its members was in no metric."""
    env, other, ours, others = Env(), Env(), Heard(), Heard()
    env.listen(ours)
    other.listen(others)
    given: dict[str, Any] = {"env": other} if own else {}
    proxy = Proxy(Pool("http://127.0.0.1:1"), retry=Retry(attempts=2), **given)
    api = Api("shop", "/shop", backend=proxy, subscription_required=False)
    gateway = Gateway(apis=(api,), env=env)
    Gateway(apis=(api,), env=Env())  # which is made, and serves nobody
    assert (await get(gateway, "/shop/x")).status == 502
    told = (ours.events, others.events)
    assert told == (([], ["apim.upstream.retries"]) if own else (["apim.upstream.retries"], []))
