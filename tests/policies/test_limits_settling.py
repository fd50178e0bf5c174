"""Limits that know only at the end what a request used: bytes, functions of the response, conditions."""

import asyncio
import gc
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from apim_middleware import by, conditions
from apim_middleware._limits.remote import RemoteCounters
from apim_middleware._limits.standings import Standings
from apim_middleware.env import Env
from apim_middleware.errors import Refusal, Spoiled, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.policy import Policy, Stack
from apim_middleware.protocols import Change, Hit, Limit, Tally
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import Answer, FakeClock, call, connect
from apim_middleware.types import ASGIApp, Receive, Scope, Send

from .counting import AWAY, Counting, SlowCounters, left, quiet, sent, statuses

pytestmark = pytest.mark.anyio


async def ended(app: ASGIApp, *args: Any, **more: Any) -> Answer:
    """The answer, once all is settled."""
    answer = await call(app, *args, **more)
    await quiet()
    return answer


def bytes_per_minute(calls: int, **fields: Any) -> RateLimit:
    return RateLimit(**{"calls": calls, "per": 60, "window": "fixed", "units": "response-bytes", **fields})


# Bytes


async def test_the_bytes_of_responses_count_and_who_used_them_up_is_refused(env: Env, app: Counting) -> None:
    app.chunks = [b"x" * 40]
    guarded = Stack(bytes_per_minute(100), env=env)(app)
    answers = [await ended(guarded) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [left(answer) for answer in answers] == [[99], [59], [19], [0]]  # each holds one byte to begin with


async def test_a_response_under_way_is_not_cut_but_counted(env: Env, app: Counting) -> None:
    app.chunks = [b"x" * 60] * 5
    guarded = Stack(bytes_per_minute(100), env=env)(app)
    assert len((await ended(guarded)).body) == 300
    assert (await ended(guarded)).status == 429


@pytest.mark.parametrize("units", ["response-bytes", "request-bytes", "bytes"])
async def test_that_bytes_are_counted_is_told(env: Env, app: Counting, units: str) -> None:
    answer = await ended(Stack(bytes_per_minute(100, units=units), env=env)(app))
    assert answer.header(b"ratelimit-policy") == b'"default";q=100;qu="content-bytes";w=60'


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_bytes_that_no_server_sends_do_not_count(env: Env, app: Counting, method: str, status: int) -> None:
    """From an audit: HEAD cost what GET does, for apps answer both alike (RFC 9110 §9.3.2)."""
    app.status = status
    guarded = Stack(bytes_per_minute(100), env=env)(app)
    assert [left(await ended(guarded, method)) for _ in range(3)] == [[99]] * 3


async def test_the_bytes_of_requests_count_as_they_are_read(env: Env, app: Counting) -> None:
    app.reads = True
    guarded = Stack(bytes_per_minute(100, units="request-bytes"), env=env)(app)
    answers = [await ended(guarded, "POST", body=[b"x" * 20, b"", b"y" * 30]) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert left(answers[1]) == [49]


async def test_a_body_that_nobody_reads_is_not_counted(env: Env, app: Counting) -> None:
    guarded = Stack(bytes_per_minute(100, units="request-bytes"), env=env)(app)
    assert [left(await ended(guarded, "POST", body=b"x" * 90)) for _ in range(3)] == [[99]] * 3


async def test_bytes_of_both_ways_can_be_one_limit(env: Env, app: Counting) -> None:
    app.reads, app.chunks = True, [b"x" * 10] * 2
    guarded = Stack(bytes_per_minute(100, units="bytes"), env=env)(app)
    await ended(guarded, "POST", body=b"y" * 30)
    assert left(await ended(guarded)) == [49]


async def test_of_several_limits_each_counts_in_units_of_its_own(env: Env, app: Counting) -> None:
    app.reads, app.chunks = True, [b"x" * 30]
    units = "request-bytes", "response-bytes", "bytes", "requests"
    guarded = Stack(Limits(*(bytes_per_minute(100, units=each, name=each) for each in units)), env=env)(app)
    await ended(guarded, "POST", body=b"y" * 20)
    assert left(await ended(guarded)) == [79, 69, 49, 98]


async def test_what_was_sent_before_the_client_left_counts(env: Env, app: Counting) -> None:
    app.chunks = [b"x" * 10] * 5
    guarded = Stack(bytes_per_minute(100), env=env)(app)
    with pytest.raises(OSError, match="gone"):
        await ended(guarded, leave_after=3)  # head, two chunks; the third was on its way
    await quiet()
    assert left(await ended(guarded)) == [69]


async def test_what_was_sent_before_the_app_failed_counts(env: Env) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
        raise LookupError

    guarded = Stack(bytes_per_minute(100), env=env)(breaks)
    for expected in (99, 89):
        kept = Answer()
        with pytest.raises(LookupError):
            await call(guarded, answer=kept)
        assert left(kept) == [expected]
        await quiet()


@pytest.mark.parametrize("window", ["fixed", "sliding", "log", "bucket"])
async def test_a_long_response_counts_when_it_is_over_whatever_window_it_began_in(
    env: Env, clock: FakeClock, window: Any
) -> None:
    async def long(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        clock.advance(600)
        await send({"type": "http.response.body", "body": b"x" * 100})

    guarded = Stack(bytes_per_minute(100, window=window), env=env)(long)
    assert [(await ended(guarded)).status for _ in range(3)] == [200, 429, 429]


async def test_a_refused_request_uses_no_bytes(env: Env, clock: FakeClock, app: Counting) -> None:
    app.chunks = [b"x" * 100]
    guarded = Stack(bytes_per_minute(100), env=env)(app)
    await ended(guarded)
    assert await statuses(guarded, 3) == [429] * 3
    clock.advance(60)
    assert left(await ended(guarded)) == [99]


async def test_what_goes_past_a_tap_is_not_offered_to_the_app(env: Env) -> None:
    seen: list[Any] = []

    async def curious(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope.get("extensions"))
        await Counting()(scope, receive, send)

    guarded = Stack(bytes_per_minute(100), env=env)(curious)
    await ended(guarded, extensions={"http.response.pathsend": {}, "tls": {}})
    assert seen == [{"tls": {}}]


async def test_a_handshake_has_no_bytes_and_a_refused_one_is_denied(env: Env, app: Counting) -> None:
    app.chunks = [b"x" * 100]
    guarded = Stack(bytes_per_minute(100), env=env)(app)
    assert (await connect(guarded)).status == 101
    await quiet()
    assert left(await ended(guarded)) == [99]
    assert (await connect(guarded)).status == 429


async def test_limits_on_bytes_inside_each_other_count_the_same_bytes(env: Env) -> None:
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await request.body())

    outer = bytes_per_minute(1_000, units="bytes", name="outer")
    inner = bytes_per_minute(1_000, units="request-bytes", name="inner")
    routes = [Mount("/inner", Stack(inner, env=env)(Starlette(routes=[Route("/", echo, methods=["POST"])])))]
    guarded = Stack(outer, env=env)(Starlette(routes=routes))
    answers = [await ended(guarded, "POST", "/inner/", body=b"x" * 50) for _ in range(2)]
    assert answers[0].body == b"x" * 50
    assert left(answers[1]) == [899, 949]


# What a request used, as a function of its end


def tokens(exchange: Exchange) -> int:
    """What the app says the request used."""
    head = exchange.response
    return int((head.get(b"x-tokens") or b"0") if head is not None else b"0")


async def test_what_a_request_used_can_be_read_from_the_response(env: Env, app: Counting) -> None:
    app.headers = [(b"x-tokens", b"25")]
    guarded = Stack(RateLimit(calls=100, per=60, window="fixed", cost=10, used=tokens), env=env)(app)
    assert [left(await ended(guarded)) for _ in range(3)] == [[90], [65], [40]]


async def test_what_a_request_held_and_did_not_use_is_given_back(env: Env, app: Counting) -> None:
    app.headers = [(b"x-tokens", b"1")]
    guarded = Stack(RateLimit(calls=100, per=60, window="fixed", cost=60, used=tokens), env=env)(app)
    assert [(await ended(guarded)).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(("units", "counted"), [(10**15 - 1, 9), (10**15, 2), (-1, 2), (0, 0)])
async def test_what_a_request_used_has_fifteen_digits_at_most(
    env: Env, app: Counting, units: int, counted: int
) -> None:
    policy = RateLimit(calls=9, per=60, window="fixed", cost=2, used=lambda exchange: units)
    guarded = Stack(policy, env=env)(app)
    await ended(guarded)
    assert [standing.used for standing in await Standings(env).read(policy, "203.0.113.7")] == [counted]


async def test_what_was_used_beyond_the_limit_counts(env: Env, app: Counting) -> None:
    app.headers = [(b"x-tokens", b"5000")]
    guarded = Stack(RateLimit(calls=100, per=60, window="fixed", used=tokens), env=env)(app)
    assert [(await ended(guarded)).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("used", [-1, None, True, 1.5, 10**30, LookupError])
@pytest.mark.parametrize("increment", ["now", "afterwards"])
async def test_what_cannot_be_found_out_counts_as_its_cost(
    env: Env, app: Counting, used: Any, increment: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(exchange: Exchange) -> Any:
        if used is LookupError:
            raise LookupError
        return used

    policy = RateLimit(calls=10, per=60, window="fixed", cost=3, used=broken, increment=increment)
    guarded = Stack(policy, env=env)(app)
    assert (await ended(guarded)).status == 200
    await ended(guarded)
    assert left(await ended(guarded)) == [10 - 9 if increment == "now" else 10 - 6]
    assert "cannot tell what a request used: it counts as 3" in caplog.text


# Conditions


async def test_only_failures_can_count(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=3, per=60, count_when=conditions.failed), env=env)(app)
    assert [(await ended(guarded)).status for _ in range(10)] == [200] * 10
    app.status = 401
    assert [(await ended(guarded)).status for _ in range(5)] == [401, 401, 401, 429, 429]


async def test_only_successes_can_count(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=3, per=60, count_when=conditions.succeeded), env=env)(app)
    app.status = 404
    assert [(await ended(guarded)).status for _ in range(10)] == [404] * 10
    app.status = 200
    assert [(await ended(guarded)).status for _ in range(4)] == [200, 200, 200, 429]


async def test_who_fails_and_who_leaves_has_failed(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=3, per=60, count_when=conditions.failed), env=env)(app)
    with pytest.raises(OSError, match="gone"):
        await call(guarded, leave_after=1)
    app.failure = LookupError()
    with pytest.raises(LookupError):
        await call(guarded)
    await quiet()
    app.failure = None
    assert left(await ended(guarded)) == [0]


async def test_a_refusal_further_in_is_a_response_like_any_other(env: Env, app: Counting) -> None:
    class Closed(Policy):
        def on_request(self, exchange: Exchange) -> None:
            raise Refusal(401, "closed")

    guarded = Stack(RateLimit(calls=2, per=60, count_when=conditions.status(401)), Closed(), env=env)(app)
    assert [(await ended(guarded)).status for _ in range(4)] == [401, 401, 429, 429]


async def test_a_refused_request_never_counts_whatever_the_condition(env: Env, clock: FakeClock, app: Counting) -> None:
    policy = RateLimit(calls=1, per=60, window="fixed", count_when=conditions.status(429, 200))
    guarded = Stack(policy, env=env)(app)
    assert [(await ended(guarded)).status for _ in range(5)] == [200, 429, 429, 429, 429]
    clock.advance(60)
    assert (await ended(guarded)).status == 200


async def test_handshakes_have_succeeded_when_they_are_accepted(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=1, per=60, count_when=conditions.succeeded), env=env)(app)
    assert (await connect(guarded)).status == 101
    await quiet()
    assert (await connect(guarded)).status == 429


@pytest.mark.parametrize("status", [200, 500])
async def test_of_many_at_once_exactly_as_many_count_as_meet_the_condition(env: Env, status: int) -> None:
    """What is under way holds its place, so that never more get in than could count."""
    opened = anyio.Event()
    inside = 0

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal inside
        inside += 1
        await opened.wait()
        await Counting(status=status)(scope, receive, send)

    policy = RateLimit(calls=5, per=60, window="fixed", count_when=conditions.failed)
    guarded = Stack(policy, env=env)(waits)
    seen: list[int] = []

    async def one() -> None:
        seen.append((await call(guarded)).status)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
        await quiet()
        assert inside == 5
        opened.set()
    await quiet()
    assert (seen.count(status), seen.count(429)) == (5, 15)
    assert (await ended(guarded)).status == (200 if status == 200 else 429)


async def test_counting_afterwards_lets_those_under_way_together_go_beyond(env: Env) -> None:
    """As Azure does when its increment is postponed; one after the other, exactly the limit passes."""
    opened = anyio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await opened.wait()
        await Counting(status=500)(scope, receive, send)

    policy = RateLimit(calls=5, per=60, window="fixed", count_when=conditions.failed, increment="afterwards")
    guarded = Stack(policy, env=env)(waits)
    seen: list[int] = []

    async def one() -> None:
        seen.append((await call(guarded)).status)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
        await quiet()
        opened.set()
    await quiet()
    assert seen == [500] * 20
    assert (await ended(guarded)).status == 429


async def test_counting_afterwards_counts_in_the_window_in_which_a_request_ends(env: Env, clock: FakeClock) -> None:
    ended = anyio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await ended.wait()
        await Counting()(scope, receive, send)

    guarded = Stack(RateLimit(calls=9, per=60, window="fixed", increment="afterwards"), env=env)(slow)
    async with anyio.create_task_group() as group:
        group.start_soon(call, guarded, "GET", "/slow")
        await quiet()
        clock.advance(60)
        ended.set()
    await quiet()
    assert left(await call(guarded)) == [8]


async def test_one_after_the_other_counting_afterwards_is_exact(env: Env, app: Counting) -> None:
    guarded = Stack(RateLimit(calls=3, per=60, window="fixed", increment="afterwards"), env=env)(app)
    answers = [await ended(guarded) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [left(answer) for answer in answers] == [[3], [2], [1], [0], [0]]


async def test_counting_afterwards_beside_counting_now(env: Env, app: Counting) -> None:
    both = Limits(
        RateLimit(calls=5, per=60, window="fixed"),
        RateLimit(calls=2, per=60, window="fixed", name="late", increment="afterwards"),
    )
    guarded = Stack(both, env=env)(app)
    answers = [await ended(guarded) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert [left(answer) for answer in answers] == [[4, 2], [3, 1], [3, 0], [3, 0]]


# Once, and not lost


@pytest.mark.parametrize("turns", range(12))
async def test_wherever_a_request_is_cancelled_it_is_settled_once(env: Env, clock: FakeClock, turns: int) -> None:
    guarded = Stack(RateLimit(calls=10, per=60, window="fixed", cost=4, used=lambda exchange: 1), env=env)(patient)
    async with anyio.create_task_group() as group:
        group.start_soon(call, guarded)
        await quiet(turns)
        group.cancel_scope.cancel()
    await quiet()
    [used] = await used_of(env, guarded)
    assert used in (0, 1)  # it never came in, or it is settled


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_wherever_asyncio_cancels_a_request_it_is_settled_once(env: Env, turns: int) -> None:
    """As the time-outs of asyncio and of servers do, which no scope holds off."""
    guarded = Stack(RateLimit(calls=10, per=60, window="fixed", cost=4, used=lambda exchange: 1), env=env)(patient)
    task = asyncio.create_task(call(guarded))
    await quiet(turns)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await quiet()
    [used] = await used_of(env, guarded)
    assert used in (0, 1)


@pytest.mark.parametrize("failure", [AWAY, StoreError("silence"), RuntimeError("broken")])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_request_that_asyncio_cancels_while_its_store_fails_gives_nothing_back(
    clock: FakeClock, slow: SlowCounters, app: Counting, failure: Exception
) -> None:
    slow.failure = failure
    policy = RateLimit(calls=10, per=60, count_when=conditions.failed)
    task = asyncio.create_task(call(Stack(policy, env=Env(place="here", clock=clock, counters=slow))(app)))
    while not slow.calls:
        await quiet(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await quiet()
    assert (slow.calls, slow.changes) == (["hit"], [])


async def patient(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
    await anyio.sleep_forever()


async def used_of(env: Env, guarded: ASGIApp) -> list[int]:
    """What the next caller finds used."""
    answer = Answer()
    with anyio.move_on_after(0.01):
        await call(guarded, answer=answer)
    return [10 - 4 - units for units in left(answer)]


async def test_what_was_settled_is_not_settled_again(slow: SlowCounters, clock: FakeClock, app: Counting) -> None:
    policy = RateLimit(calls=100, per=60, cost=3, used=lambda exchange: 1)
    guarded = Stack(policy, env=Env(place="here", clock=clock, counters=slow))(app)
    for _ in range(5):
        await ended(guarded)
    assert [change.units for change in slow.changes] == [-2] * 5


async def test_what_was_used_as_held_needs_no_settling(slow: SlowCounters, clock: FakeClock, app: Counting) -> None:
    policy = RateLimit(calls=100, per=60, count_when=conditions.succeeded)
    await ended(Stack(policy, env=Env(place="here", clock=clock, counters=slow))(app))
    assert slow.calls == ["hit"]


async def test_what_ends_together_is_settled_together(slow: SlowCounters, clock: FakeClock, app: Counting) -> None:
    policy = RateLimit(calls=100, per=60, count_when=conditions.failed)
    guarded = Stack(policy, env=Env(place="here", clock=clock, counters=slow))(app)
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(call, guarded)
    await quiet()
    assert len(slow.changes) == 50
    assert slow.calls.count("settle") <= 3


class Failing:
    """An app during whose first answer the store goes away."""

    def __init__(self, slow: SlowCounters, failure: Exception = AWAY) -> None:
        self.slow: SlowCounters | None = slow
        self.failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.slow is not None:
            self.slow.failure, self.slow = self.failure, None
        await Counting()(scope, receive, send)


async def test_corrections_wait_for_a_store_that_is_away(slow: SlowCounters, clock: FakeClock) -> None:
    policy = RateLimit(calls=100, per=60, window="fixed", cost=10, used=lambda exchange: 1)
    guarded = Stack(policy, env=Env(place="here", clock=clock, counters=slow))(Failing(slow))
    await ended(guarded)
    assert slow.changes == []
    slow.failure = None
    clock.advance(1)
    assert left(await ended(guarded)) == [80]  # the second held its own, and found the store there again
    assert [change.units for change in slow.changes] == [-9, -9]


@pytest.mark.parametrize(("used", "made"), [(1, [-9]), (30, [20, 20])])
async def test_of_corrections_that_may_have_been_made_only_those_that_count_more_are_made_again(
    slow: SlowCounters, clock: FakeClock, caplog: pytest.LogCaptureFixture, used: int, made: list[int]
) -> None:
    policy = RateLimit(calls=100, per=60, window="fixed", cost=10, used=lambda exchange: used)
    guarded = Stack(policy, env=Env(place="here", clock=clock, counters=slow))(Failing(slow, StoreError("silence")))
    await ended(guarded)
    slow.failure = None
    clock.advance(1)
    await ended(guarded)
    assert [change.units for change in slow.changes] == made  # that of the second, and that of the first if at all
    assert ("1 corrections that give units back" in caplog.text) is (used == 1)


class Choosy(SlowCounters):
    """A store that can do nothing with one key."""

    async def peek(self, hits: Sequence[Hit]) -> list[Tally]:
        self.look_at(hits)
        return await super().peek(hits)

    async def settle(self, changes: Sequence[Change]) -> None:
        await super().settle([change for change in changes if change.key != "bad"])
        self.look_at(changes)

    def look_at(self, asked: Sequence[Hit | Change]) -> None:
        if any(each.key == "bad" for each in asked):
            raise Spoiled("not this one")


@pytest.mark.parametrize("used", [1, 30])
async def test_a_correction_that_can_never_be_made_is_told_of_and_keeps_no_other_from_being_made(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, used: int
) -> None:
    choosy = Choosy(clock)
    policy = RateLimit(calls=100, per=60, window="fixed", cost=10, used=lambda exchange: used, by=by.header("x-user"))
    guarded = Stack(policy, env=Env(place="here", clock=clock, counters=choosy))(Counting())
    async with anyio.create_task_group() as group:
        for name in ("ada", "bad", "bob"):
            group.start_soon(partial(call, guarded, **sent(x_user=name)))
    await quiet()
    assert sorted(change[::2] for change in choosy.changes) == [("ada", used - 10), ("bob", used - 10)]
    assert caplog.text.count("lost: not this one") == 1
    assert [left(await call(guarded, **sent(x_user="ada")))] == [[90 - used]]


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """An event loop of its own, begun and ended."""
    return str(request.param)


def test_an_event_loop_that_ends_settles_what_it_can(loop: str, clock: FakeClock, slow: SlowCounters) -> None:
    policy = RateLimit(calls=100, per=60, count_when=conditions.failed)
    guarded = Stack(policy, env=Env(place="here", clock=clock, counters=slow))(Failing(slow))

    async def main() -> None:
        await ended(guarded)
        assert slow.changes == []
        slow.failure = None
        clock.advance(1)

    anyio.run(main, backend=loop)
    assert [change.units for change in slow.changes] == [-1]


def test_another_event_loop_settles_what_one_could_not(loop: str, clock: FakeClock, slow: SlowCounters) -> None:
    policy = RateLimit(calls=100, per=60, count_when=conditions.failed)
    guarded = Stack(policy, env=Env(place="here", clock=clock, counters=slow))(Failing(slow))
    anyio.run(ended, guarded, backend=loop)
    slow.failure = None
    clock.advance(1)
    anyio.run(ended, guarded, backend=loop)
    assert [change.units for change in slow.changes][:1] == [-1]


def test_corrections_that_are_never_made_are_told_of(
    loop: str, clock: FakeClock, slow: SlowCounters, caplog: pytest.LogCaptureFixture
) -> None:
    policy = RateLimit(calls=100, per=60, count_when=conditions.failed)
    anyio.run(ended, Stack(policy, env=Env(place="here", clock=clock, counters=slow))(Failing(slow)), backend=loop)
    gc.collect()
    assert "1 corrections of counts were never made" in caplog.text


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9), st.booleans()), max_size=30), st.booleans())
def test_what_is_left_is_the_limit_without_what_was_used(requests: list[tuple[int, int, bool]], slowly: bool) -> None:
    """Whatever requests hold, use, and whether they count: a plain sum, and a refused one is not in it."""
    clock = FakeClock()
    env = Env(place="here", clock=clock, counters=SlowCounters(clock) if slowly else MemoryCounters(clock=clock))
    limit, used = 20, 0
    policy = RateLimit(
        calls=limit, per=60, window="fixed",
        cost=lambda exchange: int(exchange.header(b"x-cost") or b""),
        used=lambda exchange: int(exchange.header(b"x-used") or b""),
        count_when=lambda exchange: exchange.header(b"x-counts") == b"True",
    )  # fmt: skip
    guarded = Stack(policy, env=env)(Counting())

    async def all_of_them() -> None:
        nonlocal used
        for cost, units, counts in requests:
            headers = [(b"x-cost", b"%d" % cost), (b"x-used", b"%d" % units), (b"x-counts", str(counts).encode())]
            answer = await ended(guarded, headers=headers)
            assert answer.status == (200 if used + cost <= limit else 429)
            if answer.status == 200:
                assert left(answer) == [limit - used - cost]
                used += units if counts else 0

    anyio.run(all_of_them)


# Quotas of bytes, and mistakes


async def test_a_quota_of_bytes_is_refused_once_it_is_used_up(env: Env, app: Counting) -> None:
    app.chunks = [b"x" * 1_000] * 3
    guarded = Stack(Quota(calls=4_000, per=86_400, by=by.client, units="response-bytes"), env=env)(app)
    assert [(await ended(guarded)).status for _ in range(3)] == [200, 200, 403]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"units": "kilobytes"}, "units"),
        ({"units": "bytes", "used": tokens}, "used"),
        ({"increment": "later"}, "increment"),
        ({"count_when": "failed"}, "count_when"),
        ({"used": 3}, "used"),
    ],
)
def test_a_mistake_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=rf"RateLimit\.{field}:"):
        RateLimit(calls=5, per=60, **fields)


class Promise:
    """Something to await, as a function gives that calls an async one; it counts as true."""

    def __await__(self) -> Any:
        yield


async def test_a_condition_that_gives_something_to_await_is_logged_and_the_request_counts(
    env: Env, app: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = Stack(RateLimit(calls=1, per=60, count_when=lambda exchange: Promise()), env=env)(app)  # type: ignore[arg-type, return-value]
    assert [(await ended(guarded)).status for _ in range(2)] == [200, 429]
    assert "cannot tell what a request used" in caplog.text


@pytest.mark.parametrize("tier", [Promise(), 7, b"gold"])
async def test_a_tier_that_is_no_text_is_a_failure_and_lets_nobody_in(env: Env, app: Counting, tier: Any) -> None:
    """From an audit: it was nobody's tier, and so had everybody's limits."""
    guarded = Stack(RateLimit(calls=1, per=60, tier=lambda exchange: tier, tiers={"gold": 5}), env=env)(app)
    assert [(await ended(guarded)).status, app.asked] == [500, 0]


@pytest.mark.parametrize("field", ["used", "count_when"])
def test_a_function_that_awaits_is_a_mistake(field: str) -> None:
    async def later(exchange: Exchange) -> int:
        return 1

    with pytest.raises(ValueError, match="async"):
        RateLimit(calls=1, per=1, **{field: later})  # type: ignore[arg-type]


class Slow(MemoryCounters):
    """Settles many corrections once others have begun, and a single one when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = anyio.Event(), anyio.Event()
        self.settled = 0

    async def settle(self, changes: Sequence[Change]) -> None:
        if len(changes) == 1:
            self.begun.set()
            await self.go_on.wait()
        await self.begun.wait()
        self.settled += len(changes)


async def test_settled_waits_for_what_the_background_has_begun_meanwhile() -> None:
    store = Slow()
    counters = RemoteCounters(store, FakeClock())
    limit = Limit(10, 60.0, "fixed", "here")

    async def go_on() -> None:
        await store.begun.wait()
        await anyio.wait_all_tasks_blocked()
        store.go_on.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go_on)
        counters.settle([Change(str(number), limit, 1, 1.0) for number in range(501)])
        await counters.settled()
        assert store.settled == 501
