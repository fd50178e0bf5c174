"""``http.client.request.duration``: one measured call for each attempt of a proxy behind ``Tracing``, and few names."""

import contextlib

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.proxy.scripted import Said, Scripted

from apim_middleware._telemetry.calls import CALLS
from apim_middleware.env import Env
from apim_middleware.errors import ConnectFailed, UpstreamBroken
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policy import Stack
from apim_middleware.proxy import Proxy
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Hedge, Retry
from apim_middleware.testing import FakeClock, call

pytestmark = pytest.mark.anyio

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class Measured:
    """A proxy behind ``Tracing``, whose clock stands still unless it is told otherwise."""

    def __init__(self, transport, upstream="http://a", exclude=(), **options):
        self.clock, self.reader = FakeClock(), InMemoryMetricReader()
        env = Env(clock=self.clock)
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        proxy = Proxy(upstream, transport=transport, env=env, **options)
        self.app = Stack(Tracing(meter_provider=meters, exclude=exclude), env=env)(proxy)

    def duration(self):
        """The metric, if anything was measured."""
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return next((each for each in metrics if each.name == "http.client.request.duration"), None)

    def points(self):
        """The attributes of what was measured, how often, and how many seconds together."""
        duration = self.duration()
        points = [] if duration is None else duration.data.data_points
        return [(dict(each.attributes), each.count, each.sum) for each in points]

    def ends(self):
        """By what server: the statuses and errors."""
        return sorted(
            (at["server.address"], at.get("http.response.status_code"), at.get("error.type"), count)
            for at, count, _ in self.points()
        )


async def test_a_call_is_measured_as_the_conventions_have_it():
    async def slow(request):
        measured.clock.advance(0.3)
        return Said(200)

    measured = Measured(Scripted(**{"a:8080": slow}), "http://a:8080/base")
    for path in ("/orders/1", "/orders/2"):
        assert (await call(measured.app, path=path)).status == 200
    attributes = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "server.address": "a",
        "server.port": 8080,
        "http.response.status_code": 200,
    }
    assert measured.points() == [(attributes, 2, pytest.approx(0.6))]
    assert measured.duration().unit == "s"
    assert measured.duration().data.data_points[0].explicit_bounds == BOUNDS


async def test_the_port_is_known_also_where_the_url_leaves_it_out():
    measured = Measured(Scripted(**{"https://a": 200}), "https://a")
    await call(measured.app)
    [(attributes, _, _)] = measured.points()
    assert (attributes["url.scheme"], attributes["server.port"]) == ("https", 443)


async def test_callers_cannot_make_many_methods():
    measured = Measured(Scripted(a=200))
    for method in ("BREW", "WHEN"):
        await call(measured.app, method)
    [(attributes, count, _)] = measured.points()
    assert (attributes["http.request.method"], count) == ("_OTHER", 2)


@pytest.mark.parametrize("upstream", ["http://a", Pool("http://a")], ids=["alone", "pool"])
@pytest.mark.parametrize(
    ("told", "end"),
    [
        (404, (404, "404")),
        (503, (503, "503")),
        (ConnectFailed("refused"), (None, "upstream-unreachable")),
        (ValueError("whatever"), (None, "ValueError")),
        (Said(200, [(b"content-length", b"9")], b"half", UpstreamBroken("hung up")), (200, "upstream-broken")),
    ],
    ids=["404", "503", "unreachable", "unforeseen", "broken off"],
)
async def test_how_a_call_ends_is_told_by_few_names(upstream, told, end):
    measured = Measured(Scripted(a=told), upstream)
    with contextlib.suppress(ValueError, UpstreamBroken):
        await call(measured.app)
    assert measured.ends() == [("a", *end, 1)]


@pytest.mark.parametrize("upstream", ["http://a", Pool("http://a")], ids=["alone", "pool"])
async def test_a_call_that_is_cut_short_is_measured_as_such(upstream):
    async def never(request):
        await anyio.sleep_forever()

    measured = Measured(Scripted(a=never), upstream)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, measured.app)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert measured.ends() == [("a", None, "cancelled", 1)]


async def test_each_attempt_is_measured():
    transport = Scripted(a=ConnectFailed("refused"), b=503, c=200)
    pool = Pool("http://a", "http://b", "http://c")
    measured = Measured(transport, pool, retry=Retry(attempts=3, budget=1.0))
    assert (await call(measured.app)).status == 200
    assert measured.ends() == [("a", None, "upstream-unreachable", 1), ("b", 503, "503", 1), ("c", 200, None, 1)]


async def test_a_try_that_took_too_long_is_a_timeout():
    async def never(request):
        await anyio.sleep_forever()

    measured = Measured(Scripted(a=never), Pool("http://a"), retry=Retry(attempts=2, per_try=0.01, errors=("connect",)))
    assert (await call(measured.app)).status == 504
    assert measured.ends() == [("a", None, "upstream-timeout", 1)]


async def test_who_loses_a_race_is_measured_too():
    async def never(request):
        await anyio.sleep_forever()

    pool = Pool("http://a", "http://b")
    measured = Measured(Scripted(a=never), pool, hedge=Hedge(after=0.01, budget=1.0))
    assert (await call(measured.app)).status == 200
    assert measured.ends() == [("a", None, "cancelled", 1), ("b", 200, None, 1)]


async def test_nothing_is_measured_where_nobody_listens():
    """Not even the clock is asked: the scope names nobody who would be told."""
    seen = []

    async def app(scope, receive, send):
        seen.append(CALLS in scope)
        await proxy(scope, receive, send)

    proxy = Proxy("http://a", transport=Scripted(a=200))
    assert (await call(Stack(Tracing())(app))).status == 200
    assert seen == [False]


async def test_paths_that_are_left_out_are_not_measured():
    measured = Measured(Scripted(a=200), exclude=("/health",))
    await call(measured.app, path="/health")
    assert measured.points() == []
