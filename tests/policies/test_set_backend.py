"""SetBackend: requests go to the other app, and both have a lifespan."""

from typing import Any

import pytest

from apim_middleware import conditions
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policies.set_backend import SetBackend
from apim_middleware.policies.split import Split
from apim_middleware.policy import Stack
from apim_middleware.testing import call, connect
from apim_middleware.types import ASGIApp, Layer, Message, Receive, Scope, Send

from .test_split import NEW, OLD

pytestmark = pytest.mark.anyio

X = [(b"x-beta", b"1")]


class Lived:
    """An app that notes its lifespan, each time with its name."""

    def __init__(self, name: str, lifespans: list[str]) -> None:
        self.name, self.lifespans = name, lifespans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        for _ in range(2):
            kind = (await receive())["type"]
            self.lifespans.append(f"{self.name} {kind.partition('.')[2]}")
            await send({"type": f"{kind}.complete"})


async def lived(app: ASGIApp) -> None:
    """Start and end an app."""
    coming: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None: ...

    await app({"type": "lifespan", "state": {}}, receive, send)


BETA = SetBackend(NEW)


async def test_requests_go_to_the_other_app() -> None:
    assert (await call(BETA(OLD))).body == b"new"


async def test_websockets_go_there_too() -> None:
    answer = await connect(BETA(OLD))
    assert answer.header(b"x-app") == b"new"


async def test_within_a_branch_only_its_requests_go_there() -> None:
    app = Stack(When(conditions.header("x-beta"), BETA))(OLD)
    assert [(await call(app, headers=headers)).body for headers in (X, [])] == [b"new", b"old"]


def test_what_guards_behind_it_is_a_mistake() -> None:
    said = r"would answer without asking it.* Write RequireHeader before SetBackend"
    with pytest.raises(ConfigError, match=said):
        Stack(BETA, RequireHeader(name="x-tenant"))(OLD)


def branches(layer: Layer, other: Layer) -> list[Layer]:
    inner = When(conditions.header("x-a"), layer)
    return [
        layer,
        When(conditions.header("x-beta"), layer),
        When(conditions.header("x-beta"), other, otherwise=layer),
        Choose((conditions.header("x-a"), other), (conditions.header("x-beta"), layer)),
        When(conditions.header("x-beta"), Stack(other, layer)),
        When(conditions.header("x-beta"), inner),
        Stack(other, inner),
    ]


@pytest.mark.parametrize("number", range(7))
async def test_both_apps_live_wherever_it_stands(number: int) -> None:
    lifespans: list[str] = []
    layer = SetBackend(Lived("new", lifespans))
    await lived(Stack(branches(layer, RequireHeader(name="x-b"))[number])(Lived("old", lifespans)))
    assert lifespans == ["new startup", "old startup", "new shutdown", "old shutdown"]


async def test_a_split_within_a_branch_lives_too() -> None:
    lifespans: list[str] = []
    await lived(
        Stack(When(conditions.header("x-a"), Split(Lived("new", lifespans), share=0.5)))(Lived("old", lifespans))
    )
    assert lifespans == ["new startup", "old startup", "new shutdown", "old shutdown"]


async def test_what_lives_behind_a_branch_lives_once() -> None:
    lifespans: list[str] = []
    behind = SetBackend(Lived("new", lifespans))
    fork = When(conditions.header("x-beta"), RequireHeader(name="x-b"))
    await lived(Stack(fork, When(conditions.header("x-a"), behind))(Lived("old", lifespans)))
    assert sorted(lifespans) == ["new shutdown", "new startup", "old shutdown", "old startup"]


async def test_one_backend_of_two_branches_lives_once() -> None:
    lifespans: list[str] = []
    beta = SetBackend(Lived("new", lifespans))
    app = Choose((conditions.header("x-a"), beta), (conditions.header("x-b"), beta))(Lived("old", lifespans))
    await lived(app)
    assert lifespans.count("new startup") == 1


@pytest.mark.parametrize("layer", [SetBackend, lambda app: Split(app, share=1)])
async def test_a_backend_that_tells_is_told_the_environment(layer: Any) -> None:
    class Proxied:
        """As a proxy, which tells of its upstreams."""

        def __init__(self) -> None:
            self.told: list[Env] = []

        def tell(self, env: Env) -> None:
            self.told.append(env)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    proxied, env = Proxied(), Env(place="here")
    Stack(When(conditions.header("x-a"), layer(proxied)), env=env)(OLD)
    assert [each.place.startswith("here") for each in proxied.told] == [True]
