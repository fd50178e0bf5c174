"""What policies opened to reach elsewhere is closed when the server's lifespan ends, whatever stands in front."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from tests.servers import PATIENCE, free_port, serving

from apim_middleware.conditions import path
from apim_middleware.env import Env
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.guarding import guard
from apim_middleware.model import Api
from apim_middleware.policies.branch import When
from apim_middleware.policy import Policy, Stack
from apim_middleware.proxy import Proxy
from apim_middleware.serving.forward_auth import ForwardAuth
from apim_middleware.types import ASGIApp


class Line:
    """A transport that counts how often it is closed."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.closed, self.breaks = 0, breaks

    async def send(self, request: Any) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed += 1
        if self.breaks:
            raise RuntimeError("the line is cut")


@dataclass(frozen=True)
class Calls(Policy):
    """Opens a line to somewhere else."""

    line: Line

    def bind(self, env: Env) -> Any:
        env.callouts(lambda: self.line, public=False)
        return self


@asynccontextmanager
async def running(app: ASGIApp, told: list[str] | None = None):
    """Speak the lifespan protocol with an app, as a server does."""
    started, stop = anyio.Event(), anyio.Event()
    told = [] if told is None else told

    async def receive():
        if not told:
            return {"type": "lifespan.startup"}
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message):
        told.append(message["type"])
        started.set()

    async with anyio.create_task_group() as group:
        group.start_soon(app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        await started.wait()
        yield
        stop.set()


def plain() -> Starlette:
    return Starlette(routes=[Route("/", PlainTextResponse("ok"))])


def in_middleware(line: Line) -> ASGIApp:
    app = plain()
    app.add_middleware(Stack(Calls(line), env=Env()))
    return app


def in_gateway(line: Line) -> Gateway:
    api = Api("orders", "/orders", backend=plain(), subscription_required=False)
    return Gateway(apis=(api,), policies=(Calls(line),))


def in_gateway_with_its_own_env(line: Line) -> Gateway:
    api = Api("orders", "/orders", backend=plain(), subscription_required=False)
    return Gateway(apis=(api,), policies=(Stack(Calls(line), env=Env()),))


def beside_a_mounted_proxy(line: Line) -> ASGIApp:
    env = Env()
    proxy = Proxy("http://127.0.0.1:9", env=env)
    return Starlette(routes=[Mount("/", Stack(Calls(line), env=env)(proxy))], lifespan=proxy.lifespan)


FRONTS: dict[str, Callable[[Line], ASGIApp]] = {
    "stack": lambda line: Stack(Calls(line), env=Env())(plain()),
    "stack within a stack": lambda line: Stack(Stack(Calls(line), env=Env()), env=Env())(plain()),
    "middleware": in_middleware,
    "branch": lambda line: Stack(When(path("/admin/*"), Stack(Calls(line), env=Env())), env=Env())(plain()),
    "guard": lambda line: guard(plain(), routes={"/": [Calls(line)]}),
    "gateway": in_gateway,
    "gateway, a stack with an environment of its own": in_gateway_with_its_own_env,
    "reloadable": lambda line: Reloadable(in_gateway(line)),
    "proxy behind a stack": lambda line: Stack(Calls(line), env=Env())(Proxy("http://127.0.0.1:9")),
    "mounted proxy": beside_a_mounted_proxy,
    "forward auth": lambda line: ForwardAuth(Stack(Calls(line), env=Env()), trusted=("unix",)),
}


@pytest.mark.anyio
@pytest.mark.parametrize("front", FRONTS)
async def test_what_an_environment_has_opened_is_closed_when_the_server_ends(front):
    line = Line()
    async with running(FRONTS[front](line)):
        assert not line.closed
    assert line.closed


@pytest.mark.anyio
async def test_it_is_closed_before_the_server_is_told_of_the_end():
    line = Line()

    class Told(list):
        def append(self, what):
            super().append((what, line.closed))

    told = Told()
    async with running(Stack(Calls(line), env=Env())(plain()), told):
        pass
    assert told == [("lifespan.startup.complete", 0), ("lifespan.shutdown.complete", 1)]


@pytest.mark.anyio
async def test_a_start_that_fails_is_an_end():
    @asynccontextmanager
    async def fails(app):
        raise RuntimeError("no database")
        yield

    line, told = Line(), []
    with pytest.raises(ExceptionGroup):
        async with running(Stack(Calls(line), env=Env())(Starlette(lifespan=fails)), told):
            pass
    assert told == ["lifespan.startup.failed"]
    assert line.closed == 1


@pytest.mark.anyio
async def test_where_nobody_hears_of_the_end_the_environment_can_be_closed():
    line, env = Line(), Env()
    Starlette(routes=[Mount("/", Stack(Calls(line), env=env)(plain()))])
    await env.aclose()
    assert line.closed == 1


@pytest.mark.anyio
async def test_what_neighbours_in_environments_of_their_own_have_opened_is_closed_too():
    outer, inner = Line(), Line()
    stack = Stack(Stack(Calls(outer), env=Env()), Stack(Calls(inner), env=Env()))
    async with running(stack(Starlette())):
        pass
    assert (outer.closed, inner.closed) == (1, 1)


@pytest.mark.anyio
async def test_a_transport_that_was_given_is_not_closed():
    line = Line()
    async with running(Stack(Calls(Line()), env=Env(transport=line))(plain())):
        pass
    assert not line.closed


@pytest.mark.anyio
async def test_one_that_cannot_be_closed_keeps_nothing_from_its_end(caplog):
    env, bad, good, told = Env(), Line(breaks=True), Line(), []
    env.callouts(lambda: bad, public=False)
    env.callouts(lambda: good, public=True)
    async with running(Stack(Calls(bad), env=env)(plain()), told):
        pass
    assert good.closed == 1
    assert told[-1] == "lifespan.shutdown.complete"
    assert "a transport could not be closed" in caplog.text


@pytest.mark.anyio
async def test_an_environment_that_a_reload_has_dropped_is_closed():
    line = Line()
    reloadable = Reloadable(in_gateway(Line()))
    api = Api("orders", "/orders", backend=plain(), subscription_required=False)
    async with running(reloadable):
        await reloadable.reload(Gateway(apis=(api,), policies=(Calls(line),), env=Env()))
        await anyio.wait_all_tasks_blocked()
        assert not line.closed
        await reloadable.reload(in_gateway(Line()))
        await anyio.wait_all_tasks_blocked()
        assert line.closed == 1


VISITED = """
import asyncio, gc
import httpx, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from apim_middleware import ClientCredentials, UpstreamAuth

app = Starlette(routes=[Route("/", PlainTextResponse("ok"))])
server = ClientCredentials(token_url={url!r}, client_id="a", client_secret="b", allow_http=True)
app.add_middleware(UpstreamAuth(credential=server))
config = uvicorn.Config(app, port={port}, loop="uvloop", lifespan="on", log_config=None)
server = uvicorn.Server(config)

async def visit():
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    async with httpx.AsyncClient() as client:
        print((await client.get("http://127.0.0.1:{port}/")).text)
    server.should_exit = True
    await serving

with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
    runner.run(visit())
gc.collect()
"""


async def token_server(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    body = b'{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def test_no_connection_is_left_to_uvloop_when_a_process_ends():
    """It warns of every connection that is still open when the loop is closed."""
    with serving(token_server, lifespan="off") as tokens:
        program = VISITED.format(url=f"{tokens.origin}/token", port=free_port())
        command = [sys.executable, "-W", "always::ResourceWarning", "-c", program]
        ended = subprocess.run(command, capture_output=True, timeout=PATIENCE, text=True)
    assert ended.stdout == "ok\n", ended.stderr
    assert "unclosed" not in ended.stderr
