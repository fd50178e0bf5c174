"""An app in trouble is asked twice for all who want the same at the same time, and nobody gets what is another's."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.authentication import SimpleUser

from apim_middleware.env import Env
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import ASGIApp, RawHeaders, Receive, Scope, Send

from .caching import Elsewhere, status

pytestmark = pytest.mark.anyio


class Troubled:
    """Fails when it is told to go on, each time in other words."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers: RawHeaders = list(headers)
        self.status = 503
        self.asked = 0
        self.names_user = False
        self.go_on = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        body = b"down %d" % self.asked
        await self.go_on.wait()
        if self.names_user:
            scope["user"] = SimpleUser("alice")
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": body})


async def crowd(app: ASGIApp, origin: Troubled, count: int = 10, **request: Any) -> list[Answer]:
    """What so many get who ask at the same time."""
    answers = [Answer() for _ in range(count)]
    async with anyio.create_task_group() as group:
        for answer in answers:
            group.start_soon(lambda answer=answer: call(app, answer=answer, **request))
        for _ in range(30):
            await anyio.lowlevel.checkpoint()
        origin.go_on.set()
    return answers


@pytest.fixture(params=["memory", "elsewhere"])
def env(request: pytest.FixtureRequest) -> Env:
    return Env(entries=Elsewhere() if request.param == "elsewhere" else None)


def guarded(origin: ASGIApp, env: Env) -> ASGIApp:
    return Stack(Cache(), env=env, place="shop")(origin)


async def test_it_is_asked_twice_at_most(env: Env) -> None:
    origin = Troubled((b"retry-after", b"7"))
    answers = await crowd(guarded(origin, env), origin)
    assert origin.asked == 2
    assert {(each.status, each.header(b"retry-after")) for each in answers} == {(503, b"7")}
    assert sorted(each.body for each in answers) == [b"down 1", *[b"down 2"] * 9]


async def test_the_response_of_another_is_told_from_ones_own(env: Env) -> None:
    origin = Troubled()
    told = {status(each) for each in await crowd(guarded(origin, env), origin)}
    assert told == {"apim;fwd=uri-miss;detail=status", "apim;fwd=uri-miss;collapsed;detail=status"}


async def test_once_it_is_well_again_one_request_is_made_for_all(env: Env) -> None:
    origin = Troubled()
    app = guarded(origin, env)
    await crowd(app, origin)
    origin.status, origin.headers, origin.asked = 200, [(b"cache-control", b"max-age=60")], 0
    origin.go_on = anyio.Event()
    await crowd(app, origin)
    assert origin.asked == 1


@pytest.mark.parametrize(
    "field",
    [(b"set-cookie", b"a=b"), (b"cache-control", b"private"), (b"cache-control", b"no-store"), (b"vary", b"*")],
)
async def test_a_failure_that_may_be_somebodys_own_is_given_to_nobody_else(
    env: Env, field: tuple[bytes, bytes]
) -> None:
    origin = Troubled(field)
    answers = await crowd(guarded(origin, env), origin)
    assert len({each.body for each in answers}) == 10


async def test_nor_is_one_where_the_caller_was_named_behind(env: Env) -> None:
    origin = Troubled()
    origin.names_user = True
    answers = await crowd(guarded(origin, env), origin)
    assert len({each.body for each in answers}) == 10


async def test_nor_is_one_given_to_who_sends_a_credential(env: Env) -> None:
    origin = Troubled()
    answers = await crowd(guarded(origin, env), origin, headers=[(b"cookie", b"a=b")])
    assert len({each.body for each in answers}) == 10


async def test_nor_is_one_that_selects_others(env: Env) -> None:
    origin = Troubled((b"vary", b"accept-language"))
    app = guarded(origin, env)
    answers = [Answer() for _ in range(6)]
    async with anyio.create_task_group() as group:
        for number, answer in enumerate(answers):
            headers = [(b"accept-language", b"%d" % number)]
            group.start_soon(lambda answer=answer, headers=headers: call(app, answer=answer, headers=headers))
        for _ in range(30):
            await anyio.lowlevel.checkpoint()
        origin.go_on.set()
    assert len({each.body for each in answers}) == 6


async def test_who_asked_alone_and_got_what_is_stale_is_not_told_of_others() -> None:
    failing = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if failing:
            raise RuntimeError("boom")
        kept = (b"cache-control", b"max-age=1, stale-if-error=60")
        await send({"type": "http.response.start", "status": 200, "headers": [kept]})
        await send({"type": "http.response.body", "body": b"old"})

    clock = FakeClock()
    built = guarded(app, Env(clock=clock))
    await call(built)
    failing = True
    clock.advance(2)
    assert status(await call(built)) == "apim;fwd=stale;detail=stale-if-error"
