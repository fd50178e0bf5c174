"""The lifespan of a gateway is that of all its backends: all start, or none goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.gateway.houses import Backend, get

from apim_middleware import conditions
from apim_middleware.errors import ConfigError
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.guarding.guard import guard
from apim_middleware.model import Api
from apim_middleware.policies.branch import When
from apim_middleware.policies.mirror import Mirror
from apim_middleware.policies.read_body import ReadBody
from apim_middleware.policies.set_backend import SetBackend
from apim_middleware.policies.split import Split
from apim_middleware.policy import Stack
from apim_middleware.types import ASGIApp, Message

pytestmark = pytest.mark.anyio


class Server:
    """Speaks the lifespan protocol with an app, as a server does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.told: list[Message] = []
        self._stop, self._spoke = anyio.Event(), anyio.Event()
        self._asked = 0

    async def receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        self.told.append(message)
        self._spoke.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        async with anyio.create_task_group() as group:
            scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
            group.start_soon(self.app, scope, self.receive, self.send)
            await self._spoke.wait()
            yield self
            self._stop.set()

    def types(self) -> list[str]:
        return [message["type"].removeprefix("lifespan.") for message in self.told]


class House:
    """An app with a lifespan; ``events`` is what became of it."""

    def __init__(self, name: str, events: list[str], *, fails: bool = False) -> None:
        self.name, self.events, self.fails = name, events, fails

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
            if self.fails:
                raise RuntimeError("no database")
            events.append(f"{name} starts")
            yield {"name": name}
            events.append(f"{name} ends")

        async def who(request: Request) -> Response:
            return PlainTextResponse(request.state.name)

        self.app = Starlette(routes=[Route("/who", who)], lifespan=lifespan)

    def api(self) -> Api:
        return Api(self.name, f"/{self.name}", backend=self.app, subscription_required=False)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "this app knows no lifespan"
    await PlainTextResponse("bare")(scope, receive, send)


@pytest.mark.parametrize("served", [lambda gateway: gateway, Reloadable])
async def test_every_backend_lives_as_long_as_the_server(served: Any) -> None:
    events: list[str] = []
    one, two = House("one", events), House("two", events)
    gateway = Gateway(
        apis=(
            one.api(),
            two.api(),
            Api("again", "/again", backend=one.app, subscription_required=False),
            Api("bare", "/bare", backend=bare, subscription_required=False),
            Api("proxied", "/proxied", backend="http://127.0.0.1:1", subscription_required=False),
        )
    )
    app = served(gateway)
    async with Server(app).running() as server:
        assert sorted(events) == ["one starts", "two starts"]
        for path, name in (("/one/who", b"one"), ("/two/who", b"two"), ("/again/who", b"one"), ("/bare", b"bare")):
            assert (await get(app, path, state={"server": 1})).body == name
    assert server.types() == ["startup.complete", "shutdown.complete"]
    assert sorted(events[2:]) == ["one ends", "two ends"]


@pytest.mark.parametrize("served", [lambda gateway: gateway, Reloadable])
async def test_when_one_cannot_start_the_others_end(served: Any) -> None:
    events: list[str] = []
    app = served(Gateway(apis=(House("one", events).api(), House("two", events, fails=True).api())))
    async with Server(app).running() as server:
        assert server.types() == ["startup.failed"]
        assert "no database" in server.told[0]["message"]
    assert events == ["one starts", "one ends"]


async def test_a_reload_starts_what_comes_and_ends_what_goes() -> None:
    events: list[str] = []
    one, two, three = (House(name, events) for name in ("one", "two", "three"))
    app = Reloadable(Gateway(apis=(one.api(), two.api())))
    async with Server(app).running():
        await app.reload(Gateway(apis=(two.api(), three.api())))
        assert (await get(app, "/three/who")).body == b"three"
        while "one ends" not in events:
            await anyio.lowlevel.checkpoint()
        assert events[2:] == ["three starts", "one ends"]
    assert sorted(events[4:]) == ["three ends", "two ends"]


async def test_a_reload_with_a_backend_that_does_not_start_is_refused() -> None:
    events: list[str] = []
    one = House("one", events)
    app = Reloadable(Gateway(apis=(one.api(),)))
    async with Server(app).running():
        before = app.gateway
        with pytest.raises(ConfigError, match=r"holds a backend that does not start: .*no database"):
            await app.reload(
                Gateway(apis=(one.api(), House("two", events).api(), House("x", events, fails=True).api()))
            )
        assert app.gateway is before
        assert (await get(app, "/one/who")).body == b"one"
        assert events == ["one starts", "two starts", "two ends"]
    assert events[-1] == "one ends"


async def test_who_is_inside_keeps_a_backend_alive() -> None:
    events: list[str] = []
    go_on, inside = anyio.Event(), anyio.Event()
    one = House("one", events)

    async def slow(request: Request) -> Response:
        inside.set()
        await go_on.wait()
        return PlainTextResponse(request.state.name)

    one.app.router.routes.append(Route("/slow", slow))
    app = Reloadable(Gateway(apis=(one.api(),)))
    bodies: list[bytes] = []

    async def ask() -> None:
        bodies.append((await get(app, "/one/slow")).body)

    async with Server(app).running(), anyio.create_task_group() as group:
        group.start_soon(ask)
        await inside.wait()
        await app.reload(Gateway(apis=(Api("b", "/b", backend=Backend(), subscription_required=False),)))
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert events == ["one starts"]
        assert (await get(app, "/one/slow")).status == 404
        go_on.set()
        while "one ends" not in events:
            await anyio.lowlevel.checkpoint()
    assert bodies == [b"one"]


async def test_a_scope_nobody_knows_is_an_error() -> None:
    gateway = Gateway(apis=(House("one", []).api(),))
    for app in (gateway, Reloadable(gateway)):
        with pytest.raises(RuntimeError, match="knows no strange scope"):
            await app({"type": "strange"}, None, None)  # type: ignore[arg-type]


async def test_layers_of_every_scope_live_too_and_go_on_over_a_reload() -> None:
    events: list[str] = []

    def lives(name: str) -> Any:
        def layer(app: ASGIApp) -> ASGIApp:
            async def living(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "lifespan":
                    events.append(f"{name} starts")
                await app(scope, receive, send)
                if scope["type"] == "lifespan":
                    events.append(f"{name} ends")

            return living

        return layer

    one, two = lives("one"), lives("two")

    def gateway(*policies: Any) -> Gateway:
        api = Api("a", "/a", backend=Backend(), policies=policies, subscription_required=False)
        return Gateway(policies=(one,), apis=(api,))

    app = Reloadable(gateway(two))
    async with Server(app).running():
        assert sorted(events) == ["one starts", "two starts"]
        await app.reload(gateway())
        assert (await get(app, "/a")).status == 200
        while "two ends" not in events:
            await anyio.lowlevel.checkpoint()
        assert events[2:] == ["two ends"]
    assert events[3:] == ["one ends"]


async def test_an_app_that_a_policy_sends_requests_to_lives_too() -> None:
    events: list[str] = []
    other = House("other", events)
    split = Split(to=other.app, share=1.0)
    app = Gateway(apis=(Api("a", "/a", backend=Backend(), policies=(split,), subscription_required=False),))
    async with Server(app).running():
        assert events == ["other starts"]
    assert events == ["other starts", "other ends"]


def leading(other: Any, *paths: str, backend: Any = None, name: str = "x-a") -> Gateway:
    """APIs whose requests may go to another app."""
    elsewhere = When(conditions.header(name), Stack(ReadBody(), SetBackend(other)))
    return Gateway(
        apis=tuple(
            Api(path, f"/{path}", backend=backend or Backend(), policies=(elsewhere,), subscription_required=False)
            for path in paths
        )
    )


async def test_one_app_that_several_policies_lead_to_lives_once() -> None:
    events: list[str] = []
    other = House("other", events)
    async with Server(leading(other.app, "a", "b", backend=other.app)).running():
        assert events == ["other starts"]
    assert events == ["other starts", "other ends"]


async def test_an_app_that_policies_still_lead_to_lives_on() -> None:
    """It was shut down with the policy that had led there, and went on to get requests."""
    events: list[str] = []
    other = House("other", events)
    app = Reloadable(leading(other.app, "a", "b"))
    async with Server(app).running():
        await app.reload(leading(other.app, "a", name="x-b"))
        assert events == ["other starts"]
        assert (await get(app, "/a/who", [(b"x-b", b"1")], state={"server": 1})).body == b"other"
        await app.reload(Gateway(apis=(Api("a", "/a", backend=Backend(), subscription_required=False),)))
        while "other ends" not in events:
            await anyio.lowlevel.checkpoint()


async def test_an_app_beside_has_the_state_of_its_own_lifespan() -> None:
    events: list[str] = []
    one, other = House("one", events), House("other", events)
    app = Stack(When(conditions.header("x-a"), SetBackend(other.app)))(one.app)
    async with Server(app).running():
        answers = [await get(app, "/who", headers, state={"name": "one"}) for headers in ([(b"x-a", b"1")], [])]
    assert [answer.body for answer in answers] == [b"other", b"one"]


async def test_a_gateway_starts_without_an_app_that_only_sees_copies() -> None:
    events: list[str] = []
    api = Api("a", "/a", backend=Backend(), policies=(Mirror(House("copy", events, fails=True).app),),
              subscription_required=False)  # fmt: skip
    async with Server(Gateway(apis=(api,))).running() as server:
        assert server.types() == ["startup.complete"]


async def test_an_app_that_a_guard_leads_to_lives_too() -> None:
    events: list[str] = []
    one, other = House("one", events), House("other", events)
    async with Server(guard(one.app, routes={"GET /who": [SetBackend(other.app)]})).running():
        assert sorted(events) == ["one starts", "other starts"]
