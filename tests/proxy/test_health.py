"""Health checks: what they ask, what follows from the answers, and that they begin and end when they should."""

import gc
import weakref

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.servers import stub

from apim_middleware.errors import ConnectFailed, NoConnectionFree, UpstreamBroken
from apim_middleware.proxy import Proxy
from apim_middleware.proxy._background import Rounds
from apim_middleware.proxy.health import HealthCheck
from apim_middleware.proxy.members import Members
from apim_middleware.proxy.pool import Pool
from apim_middleware.testing import http_scope
from apim_middleware.transports.http1 import Http1Transport
from apim_middleware.transports.httpx import HttpxTransport

from .scripted import Said, Scripted, ask, problem
from .test_pool import A, B, C, Gateway

pytestmark = pytest.mark.anyio

ONE = HealthCheck(path="/healthz?deep=1", up=1, down=1, every=3600)


async def check(gateway, times=1):
    for _ in range(times):
        await check_all(gateway.app)


async def check_all(app):
    pool = app._plan.pool
    for each in pool.nodes():
        await pool._checking.check(each)


@pytest.mark.parametrize("failure", [500, 302, ConnectFailed("x"), UpstreamBroken("x")])
async def test_a_member_that_is_not_well_gets_no_requests(failure):
    gateway = Gateway(A, B, told={"a": failure}, health=HealthCheck(down=2, up=1))
    await check(gateway)
    assert gateway.states == ["ready", "ready"]
    await check(gateway)
    assert gateway.states == ["unhealthy", "ready"]
    gateway.transport.told = {}
    assert await gateway.asked(3) == "bbb"
    await check(gateway)
    assert set(await gateway.asked(2)) == {"a", "b"}
    told = [event for event in gateway.events.all if event[0] == "apim.upstream.health"]
    assert told == [("apim.upstream.health", A, "unhealthy"), ("apim.upstream.health", A, "well")]


async def test_an_answer_that_takes_too_long_is_a_bad_one():
    async def never(request):
        await anyio.sleep_forever()

    gateway = Gateway(A, told={"a": [never]}, health=HealthCheck(timeout=0.01, down=1))
    await check(gateway)
    assert gateway.states == ["unhealthy"]


async def test_an_answer_that_never_ends_is_a_bad_one():
    closed = []

    class Endless:
        status, headers = 200, ()

        def __aiter__(self):
            return self

        async def __anext__(self):
            await anyio.sleep_forever()

        async def aclose(self):
            closed.append(self)

    class Transport(Scripted):
        async def send(self, request):
            return Endless()

    app = Proxy(Pool(A, health=HealthCheck(timeout=0.01, down=1)), transport=Transport())
    await check_all(app)
    assert app.standing()[0].state == "unhealthy"
    assert len(closed) == 1


async def test_no_more_of_an_answer_is_read_than_is_sensible():
    class Chatty(Said):
        async def __anext__(self):
            self.read = getattr(self, "read", 0) + 1
            return b"x" * 4096

    chatty = Chatty()
    gateway = Gateway(A, told={"a": [chatty]}, health=ONE)
    await check(gateway)
    assert (gateway.states, chatty.read, chatty.closed) == (["ready"], 17, True)


async def test_when_nobody_is_well_the_client_may_come_back_after_the_next_check():
    gateway = Gateway(A, told={"a": 500}, health=HealthCheck(every=5, down=1))
    await check(gateway)
    answer = await gateway.ask()
    assert problem(answer) == (503, "no-upstream-available")
    assert answer.header(b"retry-after") == b"5"


async def test_what_is_asked_is_the_path_below_the_members_own():
    async def speak(spoken):
        await spoken.until()
        await spoken.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with stub(speak) as upstream:
        app = Proxy(Pool(upstream.origin + "/base", health=ONE))
        await check_all(app)
        assert upstream.heard[0].split(b"\r\n")[:2] == [
            b"GET /base/healthz?deep=1 HTTP/1.1",
            b"host: 127.0.0.1:%d" % upstream.port,
        ]
        assert app.standing()[0].state == "ready"
        await app._plan.pool.aclose()


async def test_members_that_come_later_are_asked_as_well():
    members = Members(A)
    gateway = Gateway(members, health=ONE)
    await check(gateway)
    members.add(B)
    await check(gateway)
    assert gateway.transport.counts == {"a": 2, "b": 1}


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 9.0), (0.5, 10.0), (1.0, 11.0)])
async def test_rounds_are_not_all_as_long(drawn, seconds):
    gateway = Gateway(A, health=HealthCheck(every=10), random=lambda: drawn)
    pool = gateway.app._plan.pool
    assert await pool._checking.check(pool.nodes()[0]) == pytest.approx(seconds)


async def test_a_member_that_hangs_delays_the_checks_of_no_other():
    async def never(request):
        await anyio.sleep_forever()

    class Transport(Counting):
        async def send(self, request):
            return await (super().send(request) if request.origin == B else Scripted.send(self, request))

    transport = Transport(5)
    transport.told = {"a": [never]}
    app = Proxy(Pool(A, B, health=HealthCheck(every=0.001, timeout=3600)), transport=transport)
    await lifespan(app, transport.enough.wait)
    assert transport.counts["a"] == 1


async def test_a_member_that_goes_is_asked_no_more():
    members = Members(A, B)
    transport = Counting(5)
    app = Proxy(Pool(members, health=HealthCheck(every=0.001)), transport=transport)

    async def between():
        await transport.enough.wait()
        members.remove(A)
        while A in {each._node.place.url for each in app._plan.pool._checking._checkups.values()}:
            await anyio.lowlevel.checkpoint()
        before = transport.counts
        transport.left, transport.enough = 5, anyio.Event()
        await transport.enough.wait()
        assert (transport.counts - before)["a"] == 0

    await lifespan(app, between)


async def test_a_member_that_was_removed_is_neither_asked_nor_told_of():
    members = Members(A, B)
    transport = Scripted(a=ConnectFailed("gone"))
    events = []
    pool = Proxy(Pool(members, health=HealthCheck(down=1)), transport=transport)._plan.pool
    pool.count = lambda event, attributes: events.append(event)
    gone = pool.nodes()[0]
    members.remove(A)
    await pool._checking.check(gone)
    assert (transport.asked, events) == ([], [])


async def test_a_member_that_is_removed_while_it_is_asked_is_not_told_of():
    members, events = Members(A, B), []

    async def remove(request):
        members.remove(A)
        raise ConnectFailed("gone")

    pool = Proxy(Pool(members, health=HealthCheck(down=1)), transport=Scripted(a=remove))._plan.pool
    pool.count = lambda event, attributes: events.append(event)
    await pool._checking.check(pool.nodes()[0])
    assert events == []


async def test_members_that_go_are_let_go_once_however_many_see_to_it():
    """Two event loops at a time met an error, and one of them asked nobody for a while."""
    members = Members(A, B, C)
    app = Proxy(Pool(members, health=HealthCheck(every=3600)), transport=Scripted())
    checking = app._plan.pool._checking

    async def between():
        await checking.tend()
        members.remove(A)
        members.remove(B)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(checking.tend)
            tasks.start_soon(checking.tend)

    await lifespan(app, between)


# Over connections of their own


async def holding(spoken):
    """An upstream whose answers never end, but for those to checks."""
    if b"/healthz" in await spoken.until():
        await spoken.say(b"HTTP/1.1 204 No Content\r\n\r\n")
    else:
        await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    await spoken.hang_on()


def transports(backend, **fields):
    made = [HttpxTransport(**fields)]
    return [*made, Http1Transport(**fields)] if backend == "asyncio" else made


async def test_a_member_that_is_busy_is_not_taken_for_unwell(anyio_backend):
    """Checks waited for a connection that event streams had taken, and put members out that were well."""
    for transport in transports(anyio_backend, max_connections=1):
        async with stub(holding) as upstream:
            app = Proxy(Pool(upstream.origin, health=HealthCheck(path="/healthz", down=1)), transport=transport)
            app._plan.pool.begin = lambda: None  # the check is made here
            begun, leave = anyio.Event(), anyio.Event()

            async def receive(leave=leave):
                await leave.wait()
                return {"type": "http.disconnect"}

            async def send(message, begun=begun):
                begun.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(app, http_scope("GET"), receive, send)
                with anyio.fail_after(10):
                    await begun.wait()
                    await check_all(app)
                assert app.standing()[0].state == "ready"
                leave.set()
            await app._plan.pool.aclose()
            await transport.aclose()


async def test_connections_of_checks_are_closed_with_them():
    gone = anyio.Event()

    async def speak(spoken):
        await spoken.until()
        await spoken.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        await spoken.hang_on()
        gone.set()

    async with stub(speak) as upstream:
        app = Proxy(Pool(upstream.origin, health=ONE))
        await check_all(app)
        await app._plan.pool.aclose()
        with anyio.fail_after(10):
            await gone.wait()


async def test_a_check_that_finds_no_connection_says_nothing():
    gateway = Gateway(A, told={"a": NoConnectionFree("x")}, health=ONE)
    await check(gateway)
    assert gateway.states == ["ready"]


# From the start of the server to its end


class Counting(Scripted):
    """Tells when it was asked so often."""

    def __init__(self, times):
        super().__init__()
        self.left, self.enough = times, anyio.Event()

    async def send(self, request):
        self.left -= 1
        if self.left <= 0:
            self.enough.set()
        return await super().send(request)


async def lifespan(app, between):
    """Start an app, do something, and shut it down."""
    said, stage = [], iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        kind = next(stage)
        if kind == "lifespan.shutdown":
            await between()
        return {"type": kind}

    async def send(message):
        said.append(message["type"])

    with anyio.fail_after(10):
        await app({"type": "lifespan"}, receive, send)
    return said


async def test_they_begin_when_the_server_starts_and_end_with_it():
    transport = Counting(5)
    app = Proxy(Pool(A, health=HealthCheck(every=0.001)), transport=transport)
    said = await lifespan(app, transport.enough.wait)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    count = len(transport.asked)
    for _ in range(50):
        await anyio.lowlevel.checkpoint()
    assert len(transport.asked) == count
    assert transport.closed


async def test_an_app_that_mounts_the_proxy_lends_it_its_lifespan():
    transport = Counting(5)
    proxy = Proxy(Pool(A, health=HealthCheck(every=0.001)), transport=transport)
    app = Starlette(routes=[Mount("/a", app=proxy)], lifespan=proxy.lifespan)
    await lifespan(app, transport.enough.wait)
    assert transport.closed


async def test_they_begin_with_the_first_request_where_no_lifespan_comes():
    transport = Counting(5)
    app = Proxy(Pool(A, health=HealthCheck(every=0.001)), transport=transport)
    await ask(app)
    await ask(app)
    with anyio.fail_after(10):
        await transport.enough.wait()
    await app._plan.pool.aclose()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_they_end_with_the_event_loop_and_begin_again_in_the_next(backend):
    app = Proxy(Pool(A, health=HealthCheck(every=3600)), transport=Scripted())

    async def visit():
        await ask(app)
        while len(app.transport.asked) % 2:  # one request, one check
            await anyio.lowlevel.checkpoint()

    for _ in range(3):
        anyio.run(visit, backend=backend)
    assert len(app.transport.asked) == 6


async def test_an_error_in_the_background_is_logged_and_not_the_end(caplog):
    class Failing:
        times = 0

        async def once(self):
            self.times += 1
            raise RuntimeError("mine")

    failing = Failing()
    rounds = Rounds(failing.once)
    rounds.begin()
    with anyio.fail_after(10):
        while "work in the background failed" not in caplog.text:
            await anyio.lowlevel.checkpoint()
    await rounds.aclose()
    await rounds.aclose()
    assert failing.times == 1


async def test_a_proxy_that_is_forgotten_asks_no_more():
    transport = Counting(3)
    app = Proxy(Pool(A, health=HealthCheck(every=0.001)), transport=transport)
    await ask(app)
    with anyio.fail_after(10):
        await transport.enough.wait()
    pool = weakref.ref(app._plan.pool)
    del app
    with anyio.fail_after(10):
        while pool() is not None:
            gc.collect()
            await anyio.sleep(0.001)
