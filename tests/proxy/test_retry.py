"""Asking again: when, whom, how often, and above all when not."""

import tracemalloc

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers import stub

from apim_middleware._http.targets import IDEMPOTENT
from apim_middleware.errors import (
    ConfigError,
    ConnectFailed,
    NoConnectionFree,
    TransportError,
    UpstreamBroken,
    UpstreamTimeout,
)
from apim_middleware.policy import Stack
from apim_middleware.proxy import Proxy
from apim_middleware.proxy._kept_body import KeptBody, is_awaited
from apim_middleware.proxy._racing import Race
from apim_middleware.proxy.breaker import CircuitBreaker
from apim_middleware.proxy.members import Member
from apim_middleware.proxy.pool import Pool
from apim_middleware.proxy.retry import Budget, Hedge, Retry
from apim_middleware.testing import Answer, http_scope
from apim_middleware.transports.httpx import HttpxTransport

from .scripted import Said, Scripted, ask, problem
from .test_pool import SEEN, A, B, C, Gateway, Look

pytestmark = pytest.mark.anyio

AT_ONCE = Retry(backoff=0)
LONG = [(b"content-length", b"8")]
METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "PROPFIND"]
FAILURES = [ConnectFailed("x"), UpstreamTimeout("x"), UpstreamBroken("x"), 503]


# Whom and how often


@pytest.mark.parametrize("failure", FAILURES)
async def test_another_member_is_asked(failure):
    gateway = Gateway(A, B, C, told={"a": failure}, retry=AT_ONCE)
    answer = await gateway.ask()
    assert (answer.status, gateway.transport.asked) == (200, ["a", "b"])
    assert gateway.under_way == [0, 0, 0]


async def test_the_same_member_is_asked_again_when_there_is_no_other():
    gateway = Gateway(A, told={"a": [503, ConnectFailed("x"), 200]}, retry=AT_ONCE)
    assert (await gateway.ask()).status == 200
    assert gateway.transport.asked == ["a", "a", "a"]


async def test_one_upstream_can_be_asked_again_without_a_pool():
    transport = Scripted(a=[503, 200])
    assert (await ask(Proxy(A, transport=transport, retry=AT_ONCE))).status == 200


async def test_the_last_answer_goes_down_when_all_has_failed():
    gateway = Gateway(
        A, B, C, told={"a": 502, "b": UpstreamBroken("x"), "c": (503, [(b"x-c", b"1")], b"sorry")}, retry=AT_ONCE
    )
    answer = await gateway.ask()
    assert (answer.status, answer.body, answer.header(b"x-c")) == (503, b"sorry", b"1")
    assert gateway.transport.asked == ["a", "b", "c"]


async def test_the_last_error_is_told_when_all_has_failed():
    told = {"a": 503, "b": 503, "c": UpstreamTimeout("x")}
    gateway = Gateway(A, B, C, told=told, retry=AT_ONCE)
    assert problem(await gateway.ask()) == (504, "upstream-timeout")


async def test_answers_that_are_not_passed_on_are_closed():
    gateway = Gateway(A, B, told={"a": 503}, retry=AT_ONCE)
    await gateway.ask()
    assert [each.closed for each in gateway.transport.said] == [True, True]


async def test_what_is_no_failure_is_not_repeated():
    gateway = Gateway(A, B, told={"a": [500, 404, TransportError("the request is at fault")]}, retry=AT_ONCE)
    assert [(await gateway.ask("GET")).status for _ in range(1)] == [500]
    assert gateway.transport.asked == ["a"]


async def test_a_member_left_alone_is_not_asked_again():
    gateway = Gateway(A, B, told={"a": 503, "b": 503}, retry=AT_ONCE, breaker=CircuitBreaker(failures=1))
    assert (await gateway.ask()).status == 503
    assert gateway.transport.asked == ["a", "b"]
    assert gateway.under_way == [0, 0]


async def test_another_member_is_asked_at_once():
    """A Retry-After is for the member that said it: the client got the 503 of one while another was well."""
    for asked in (b"1", b"30"):
        told = {"a": (503, [(b"retry-after", asked)])}
        gateway = Gateway(A, B, told=told, retry=Retry(backoff=1000, max_backoff=1000), random=lambda: 0.999)
        assert ((await gateway.ask()).status, gateway.transport.asked) == (200, ["a", "b"])


async def test_a_member_that_asked_for_longer_is_not_asked_again():
    told = dict.fromkeys("ab", (503, [(b"retry-after", b"30")]))
    gateway = Gateway(A, B, told=told, retry=Retry(backoff=0, attempts=9))
    assert (await gateway.ask()).status == 503
    assert gateway.transport.asked == ["a", "b"]
    assert gateway.under_way == [0, 0]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_where_no_connection_is_to_be_had_another_member_is_asked(method):
    gateway = Gateway(A, B, told={"a": NoConnectionFree("x")}, retry=AT_ONCE)
    assert ((await gateway.ask(method)).status, gateway.transport.asked) == (200, ["a", "b"])
    assert ("apim.upstream.retries", A, "busy") in gateway.events.all


async def test_where_no_connection_is_to_be_had_the_same_member_is_not_asked_again():
    gateway = Gateway(A, told={"a": NoConnectionFree("x")}, retry=AT_ONCE)
    assert problem(await gateway.ask()) == (503, "upstream-busy")
    assert (gateway.transport.asked, gateway.under_way) == (["a"], [0])


WAITING = [
    ({}, (A, Member(B, priority=1))),
    ({}, (Member(A, weight=5), B)),
    ({"balance": "least-connections"}, (Member(A, weight=5), B)),
    ({"balance": "consistent-hash", "key": lambda exchange: "k1"}, (A, B)),
]


@pytest.mark.parametrize(("options", "members"), WAITING)
@pytest.mark.parametrize("not_now", [(503, [(b"retry-after", b"3600")]), NoConnectionFree("x")])
async def test_of_those_that_were_asked_one_that_may_be_asked_again_is(options, members, not_now):
    """The member whose turn it was could not be asked, and the client got its 503 while the other was well."""
    gateway = Gateway(*members, told={"a": not_now, "b": [503, 200]}, retry=AT_ONCE, **options)
    assert (await gateway.ask()).status == 200
    assert gateway.transport.counts["a"] <= 1
    assert gateway.under_way == [0, 0]


async def test_a_member_without_a_connection_leaves_the_others_to_be_asked_again():
    gateway = Gateway(A, B, told={"a": [503, 200], "b": NoConnectionFree("x")}, retry=AT_ONCE)
    assert ((await gateway.ask()).status, gateway.transport.asked) == (200, ["a", "b", "a"])


# What may be repeated


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("failure", FAILURES)
async def test_only_what_may_be_done_twice_is_repeated_once_it_was_sent(method, failure):
    gateway = Gateway(A, B, told={"a": failure}, retry=AT_ONCE)
    answer = await gateway.ask(method)
    repeated = method in IDEMPOTENT or isinstance(failure, ConnectFailed)
    assert gateway.transport.asked == (["a", "b"] if repeated else ["a"])
    assert (answer.status == 200) is repeated


POSTS = Retry(backoff=0, methods=(*Retry.methods, "POST"), statuses=(429, 503))


def test_what_is_repeated_by_default_is_what_is_idempotent():
    assert set(Retry().methods) == IDEMPOTENT


@pytest.mark.parametrize("status", [429, 503])
async def test_a_method_that_is_named_is_repeated_after_a_status(status):
    gateway = Gateway(A, B, told={"a": status}, retry=POSTS)
    answer = await gateway.ask("POST", headers=LONG, body=[b"one ", b"two!"])
    assert answer.status == 200
    assert gateway.transport.bodies == {"a": [b"one two!"], "b": [b"one two!"]}


async def test_a_method_that_is_named_is_not_repeated_after_another_status():
    gateway = Gateway(A, B, told={"a": 502}, retry=POSTS)
    assert ((await gateway.ask("POST")).status, gateway.transport.asked) == (502, ["a"])


@pytest.mark.parametrize("failure", [UpstreamTimeout("x"), UpstreamBroken("x")])
async def test_a_method_that_is_named_is_not_repeated_when_nobody_knows_what_was_done(failure):
    gateway = Gateway(A, B, told={"a": failure}, retry=POSTS)
    await gateway.ask("POST")
    assert gateway.transport.asked == ["a"]


@pytest.mark.parametrize("failure", [ConnectFailed("x"), NoConnectionFree("x")])
async def test_a_method_that_is_named_is_repeated_when_nothing_was_sent(failure):
    gateway = Gateway(A, B, told={"a": failure}, retry=POSTS)
    assert ((await gateway.ask("POST")).status, gateway.transport.asked) == (200, ["a", "b"])


@pytest.mark.parametrize("failure", [UpstreamTimeout("x"), UpstreamBroken("x"), 503])
async def test_an_idempotent_method_that_is_not_named_is_not_repeated(failure):
    gateway = Gateway(A, B, told={"a": failure}, retry=Retry(backoff=0, methods=("GET",)))
    await gateway.ask("DELETE")
    assert gateway.transport.asked == ["a"]


async def test_what_was_not_sent_is_repeated_whatever_is_named():
    gateway = Gateway(A, B, told={"a": ConnectFailed("x")}, retry=Retry(backoff=0, methods=("GET",)))
    assert (await gateway.ask("PATCH")).status == 200


async def test_a_body_too_large_to_keep_goes_up_once_whatever_is_named():
    retry = Retry(backoff=0, methods=("POST",), max_body_bytes=7)
    gateway = Gateway(A, B, told={"a": 503}, retry=retry)
    answer = await gateway.ask("POST", headers=LONG, body=[b"one ", b"two!"])
    assert (answer.status, gateway.transport.asked) == (503, ["a"])


async def test_a_connection_that_breaks_under_a_post_is_not_tried_again_over_real_sockets():
    async def break_off(spoken):
        await spoken.until(b"one two!")

    async def well(spoken):
        await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with stub(break_off) as one, stub(well) as two:
        app = Proxy(Pool(one.origin, two.origin), retry=POSTS)
        answer = await ask(app, "POST", headers=LONG, body=b"one two!")
        await app._transport.aclose()
    assert problem(answer) == (502, "upstream-broken")
    assert two.heard == []


async def test_nothing_is_repeated_once_a_response_has_begun():
    gateway = Gateway(A, B, told={"a": Said(breaks=UpstreamBroken("half"))}, retry=AT_ONCE)
    with pytest.raises(UpstreamBroken):
        await gateway.ask()
    assert gateway.transport.asked == ["a"]


# Bodies


@pytest.mark.parametrize("framing", [LONG, [(b"transfer-encoding", b"chunked")]])
async def test_a_body_goes_up_again_as_it_was(framing):
    gateway = Gateway(A, B, told={"a": 503}, retry=AT_ONCE)
    answer = await gateway.ask("PUT", headers=framing, body=[b"one ", b"", b"two", b"!"])
    assert answer.status == 200
    assert gateway.transport.bodies == {"a": [b"one two!"], "b": [b"one two!"]}


async def test_a_body_too_large_to_keep_goes_up_once():
    gateway = Gateway(A, B, told={"a": 503}, retry=Retry(backoff=0, max_body_bytes=7))
    answer = await gateway.ask("PUT", headers=LONG, body=[b"one ", b"two!"])
    assert (answer.status, gateway.transport.asked) == (503, ["a"])


@pytest.mark.parametrize(("most", "asked"), [(8, ["a", "b"]), (7, ["a"]), (0, ["a"])])
async def test_a_body_that_comes_at_once_is_kept_up_to_the_same_size(most, asked):
    gateway = Gateway(A, B, told={"a": 503}, retry=Retry(backoff=0, max_body_bytes=most))
    await gateway.ask("PUT", headers=LONG, body=b"one two!")
    assert gateway.transport.asked == asked


async def test_a_body_that_came_at_once_and_was_not_begun_goes_elsewhere_however_large():
    gateway = Gateway(A, B, told={"a": ConnectFailed("x")}, retry=Retry(backoff=0, max_body_bytes=0))
    assert (await gateway.ask("POST", headers=LONG, body=b"one two!")).status == 200


async def test_a_body_that_was_not_begun_goes_elsewhere_however_large():
    gateway = Gateway(A, B, told={"a": ConnectFailed("x")}, retry=Retry(backoff=0, max_body_bytes=0))
    answer = await gateway.ask("POST", headers=LONG, body=[b"one ", b"two!"])
    assert answer.status == 200
    assert gateway.transport.bodies == {"b": [b"one two!"]}


async def test_a_body_that_was_begun_is_finished_by_the_next_member():
    async def refuse_early(request):
        return 503

    class Early(Scripted):
        async def _take(self, host, request):
            if host == "a":
                chunks = aiter(request.body)
                self.bodies[host].append(await anext(chunks))
            else:
                await super()._take(host, request)

    transport = Early(a=503)
    app = Proxy(Gateway(A, B).app.upstream, transport=transport, retry=AT_ONCE)
    answer = await ask(app, "PUT", headers=LONG, body=[b"one ", b"two!"])
    assert answer.status == 200
    assert transport.bodies == {"a": [b"one "], "b": [b"one two!"]}


@pytest.mark.parametrize("transport", [None, HttpxTransport])
async def test_an_upload_that_is_broken_off_by_an_answer_goes_elsewhere_whole(transport):
    """Over real sockets, and with a time for each try."""
    answered, inbox = anyio.Event(), [b"one ", b"two!"]

    async def early(spoken):
        await spoken.until(b"one ")
        await spoken.say(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        await spoken.hang_on()
        answered.set()

    async def patient(spoken):
        await spoken.until(b"two!")
        await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def receive():
        if len(inbox) == 1:
            with anyio.fail_after(10):
                await answered.wait()
        return {"type": "http.request", "body": inbox.pop(0), "more_body": bool(inbox)} if inbox else await stay()

    async def stay():
        await anyio.sleep_forever()

    answer = Answer()

    async def send(message):
        answer.messages.append(message)

    async with stub(early) as one, stub(patient) as two:
        retry = Retry(backoff=0, per_try=30, deadline=30)
        app = Proxy(Pool(one.origin, two.origin), transport=transport and transport(), retry=retry)
        await app(http_scope("PUT", headers=LONG), receive, send)
        await app._transport.aclose()
    assert (answer.status, answer.body) == (200, b"ok")
    assert two.heard[0].endswith(b"\r\n\r\none two!")


ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Inbox:
    """A client's body on a server that loses what it has in hand when its ``receive`` is broken off."""

    def __init__(self, *parts):
        self.parts, self.go_on = list(parts), anyio.Event()
        self.readers = 0

    async def receive(self):
        assert not self.readers, "two read at once"
        message = {"type": "http.request", "body": self.parts.pop(0), "more_body": bool(self.parts)}
        self.readers += 1
        try:
            if not self.parts:
                await self.go_on.wait()
        finally:
            self.readers -= 1
        return message


async def answers_early(spoken):
    await spoken.until(b"one ")
    await spoken.say(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
    await spoken.hang_on()


@ON_ASYNCIO
@pytest.mark.parametrize("headers", [LONG, [(b"transfer-encoding", b"chunked")]])
async def test_what_a_server_has_in_hand_is_not_lost_to_the_next_try(headers):
    """granian lost it, and the upstream got an upload that was shorter, and ended well."""
    inbox, answer = Inbox(b"one ", b"two!"), Answer()

    async def patient(spoken):
        inbox.go_on.set()
        await spoken.until(b"two!")
        await spoken.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def send(message):
        answer.messages.append(message)

    async with stub(answers_early) as one, stub(patient) as two:
        app = Proxy(Pool(one.origin, two.origin), retry=AT_ONCE)
        await app(http_scope("PUT", headers=headers), inbox.receive, send)
        await app._transport.aclose()
    assert (answer.status, answer.body) == (200, b"ok")


@ON_ASYNCIO
async def test_who_has_answered_for_good_leaves_nobody_reading():
    inbox, answer = Inbox(b"one ", b"two!"), Answer()

    async def send(message):
        answer.messages.append(message)

    async with stub(answers_early) as one:
        app = Proxy(one.origin, retry=Retry(attempts=2, backoff=0, errors=(), statuses=(502,)))
        await app(http_scope("PUT", headers=LONG), inbox.receive, send)
        await app._transport.aclose()
    await anyio.lowlevel.checkpoint()
    assert (answer.status, inbox.readers) == (503, 0)


async def test_a_client_that_leaves_ends_it():
    gateway = Gateway(A, B, told={"a": 503}, retry=AT_ONCE)
    answer, inbox = (
        Answer(),
        [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}],
    )

    async def receive():
        return inbox.pop(0)

    async def send(message):
        answer.messages.append(message)

    await gateway.app(http_scope("PUT", headers=LONG), receive, send)
    assert (answer.messages, gateway.under_way) == ([], [0, 0])


async def test_a_client_that_leaves_while_nobody_is_asked_ends_it():
    """Between two tries there is only the waiting."""
    gateway = Gateway(A, told={"a": 503}, retry=Retry(backoff=3600, max_backoff=3600))
    gateway.app._plan.pool.draw = lambda: 1.0

    async def receive():
        while not gateway.transport.asked:
            await anyio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    with anyio.fail_after(10):
        await gateway.app(http_scope("GET"), receive, send)
    assert gateway.under_way == [0]


async def pieces():
    for each in (b"a", b"bc", b"def"):
        yield each


async def test_a_kept_body_begins_where_it_began():
    body = KeptBody(pieces(), 6)
    first = aiter(body)
    assert [await anext(first), await anext(first)] == [b"a", b"bc"]
    assert [each async for each in body] == [b"abc", b"def"]
    assert [each async for each in body] == [b"abcdef"]


async def test_a_kept_body_takes_no_more_memory_than_it_has_bytes():
    """Each chunk of one byte was kept as it was, at eighty bytes a piece."""

    async def crumbs():
        for _ in range(50_000):
            yield b"x"
            yield b""

    body = KeptBody(crumbs(), 1 << 16)
    tracemalloc.start()
    total = sum([len(each) async for each in body])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (total, [each async for each in body]) == (50_000, [b"x" * 50_000])
    assert most < 2_000_000


async def test_of_each_try_it_is_known_whether_the_sender_was_waited_for():
    """A try that hung while it connected was taken for one that waited for the client, as the one before it had."""
    sent = anyio.Event()

    async def late():
        await sent.wait()
        yield b"a"

    body = KeptBody(late(), 6)
    body.begin()
    with anyio.move_on_after(0):
        await anext(aiter(body))
    assert is_awaited(body)
    body.begin()
    assert not is_awaited(body)


@ON_ASYNCIO
async def test_a_sender_that_has_sent_meanwhile_is_not_waited_for():
    sent = anyio.Event()

    async def late():
        await sent.wait()
        yield b"a"

    body = KeptBody(late(), 6)
    with anyio.move_on_after(0):
        await anext(aiter(body))
    sent.set()
    await anyio.wait_all_tasks_blocked()
    assert not is_awaited(body)


async def test_a_body_beyond_its_size_is_let_go():
    body = KeptBody(pieces(), 5)
    assert [each async for each in body] == [b"a", b"bc", b"def"]
    assert (body.whole, bytes(body._kept)) == (False, b"")
    with pytest.raises(RuntimeError):
        aiter(body)


# When


@pytest.mark.parametrize(
    ("asked", "status"), [(b"0", 200), (b"2", 503), (b"Thu, 01 Jan 1970 00:00:00 GMT", 200), (b"soon", 200)]
)
async def test_a_retry_after_is_waited_for_or_passed_on(asked, status):
    gateway = Gateway(A, told={"a": [(503, [(b"retry-after", asked)]), 200]}, retry=Retry(backoff=0, max_backoff=1))
    answer = await gateway.ask()
    assert answer.status == status
    if status == 503:
        assert answer.header(b"retry-after") == asked


@pytest.mark.parametrize(
    ("repetition", "drawn", "seconds"),
    [(1, 1.0, 0.1), (2, 1.0, 0.2), (4, 1.0, 0.8), (5, 1.0, 1.0), (50, 1.0, 1.0), (4, 0.5, 0.4), (9, 0.0, 0)],
)
def test_the_wait_grows_up_to_a_bound_and_is_drawn(repetition, drawn, seconds):
    assert Retry(backoff=0.1, max_backoff=1.0).wait(repetition, drawn) == pytest.approx(seconds)


async def test_a_try_has_a_time_of_its_own():
    async def never(request):
        await anyio.sleep_forever()

    gateway = Gateway(A, B, told={"a": [never]}, retry=Retry(backoff=0, per_try=0.01))
    assert (await gateway.ask()).status == 200
    assert gateway.under_way == [0, 0]


async def test_a_try_that_takes_too_long_is_not_repeated_if_it_may_have_been_executed():
    async def never(request):
        await anyio.sleep_forever()

    gateway = Gateway(
        A, B, told={"a": [never]}, retry=Retry(backoff=0, per_try=0.01), breaker=CircuitBreaker(failures=1)
    )
    assert problem(await gateway.ask("POST")) == (504, "upstream-timeout")
    assert gateway.transport.asked == ["a"]
    assert gateway.states == ["open", "ready"]


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("first", [b"", b"half"])
async def test_a_client_that_takes_too_long_is_not_its_members_failure(method, first):
    """Anybody could open the breaker of every member so, and have each of them asked."""
    gateway = Gateway(A, B, retry=Retry(backoff=0, per_try=0.01), breaker=CircuitBreaker(failures=1))
    inbox, answer = [{"type": "http.request", "body": first, "more_body": True}], Answer()

    async def receive():
        return inbox.pop() if inbox else await anyio.sleep_forever()

    async def send(message):
        answer.messages.append(message)

    await gateway.app(http_scope(method, headers=LONG), receive, send)
    assert problem(answer) == (408, "request-timeout")
    assert (gateway.transport.asked, gateway.states) == (["a"], ["ready", "ready"])
    assert gateway.under_way == [0, 0]


async def test_there_is_a_time_for_all_of_them():
    async def slow(request):
        gateway.clock.advance(6)
        return 503

    gateway = Gateway(A, told={"a": [slow]}, retry=Retry(attempts=9, backoff=0, deadline=10))
    assert (await gateway.ask()).status == 503
    assert len(gateway.transport.asked) == 2


# The budget


async def test_an_upstream_in_trouble_is_not_buried():
    gateway = Gateway(A, told={"a": 503}, retry=Retry(backoff=0, budget=0.1))
    for _ in range(200):
        await gateway.ask()
    assert 200 + 10 <= len(gateway.transport.asked) <= 200 + 10 + 20


def test_after_a_while_something_may_be_spent_again():
    budget = Budget(0.1, now=0)
    assert sum(budget.take(0) for _ in range(20)) == 10
    assert [budget.take(0.5), budget.take(1.5), budget.take(1.5)] == [False, True, False]
    assert sum(budget.take(1000) for _ in range(20)) == 10


@given(st.lists(st.one_of(st.none(), st.floats(0, 5)), max_size=300), st.sampled_from([0.1, 0.5, 1.0]))
def test_no_more_is_ever_spent_than_there_was(steps, share):
    budget, now, paid, spent = Budget(share, now=0), 0.0, 0, 0
    for passed in steps:
        if passed is None:
            budget.pay_in()
            paid += 1
        else:
            now += passed
            spent += budget.take(now)
    assert spent <= 10 + paid * share + now + 1e-6


# What is seen of it


async def test_the_exchange_says_how_often_it_was_repeated_and_who_answered():
    gateway = Gateway(A, B, C, told={"a": 503, "b": ConnectFailed("x")}, retry=AT_ONCE)
    await ask(Stack(Look())(gateway.app))
    assert SEEN[-1] == {"apim.upstream.member": C, "apim.upstream.retries": 2}
    assert gateway.events.all == [("apim.upstream.retries", A, "503"), ("apim.upstream.retries", B, "connect")]


# Asking twice at once


class Slow:
    """An upstream that answers when it is told to, and knows whether somebody still waits."""

    def __init__(self):
        self.asked, self.go, self.left = anyio.Event(), anyio.Event(), False

    async def __call__(self, request):
        self.asked.set()
        try:
            await self.go.wait()
        except BaseException:
            self.left = True
            raise
        return 200


HEDGE = Hedge(after=0.01)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_second_member_is_asked_when_the_first_takes_long(method):
    slow = Slow()
    gateway = Gateway(A, B, told={"a": [slow], "b": (200, [], b"quick")}, hedge=HEDGE)
    answer = await ask(Stack(Look())(gateway.app), method)
    assert (answer.status, slow.left) == (200, True)
    assert gateway.transport.asked == ["a", "b"]
    assert gateway.under_way == [0, 0]
    assert SEEN[-1] == {"apim.upstream.member": B, "apim.upstream.hedged": True}
    assert ("apim.upstream.hedges", A) in gateway.events.all


async def test_the_first_may_still_win():
    first, second = Slow(), Slow()

    async def told(request):
        first.go.set()
        return await second(request)

    gateway = Gateway(A, B, told={"a": [first], "b": [told]}, hedge=HEDGE)
    await ask(Stack(Look())(gateway.app))
    assert SEEN[-1]["apim.upstream.member"] == A
    assert second.left
    assert gateway.under_way == [0, 0]


async def test_a_quick_answer_asks_nobody_else():
    gateway = Gateway(A, B, hedge=Hedge(after=60))
    await gateway.ask()
    assert gateway.transport.asked == ["a"]


@pytest.mark.parametrize(
    ("method", "headers", "body"), [("POST", [], b""), ("PUT", LONG, b"12345678"), ("GET", LONG, b"12345678")]
)
async def test_what_is_more_than_a_question_is_asked_once(method, headers, body):
    slow = Slow()
    gateway = Gateway(A, B, told={"a": [slow]}, hedge=HEDGE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ask(gateway.app, method, headers=headers, body=body))
        await slow.asked.wait()
        await anyio.sleep(0.05)
        slow.go.set()
    assert gateway.transport.asked == ["a"]


async def test_an_error_waits_for_the_other_answer():
    slow = Slow()

    async def broken(request):
        slow.go.set()
        raise UpstreamBroken("x")

    gateway = Gateway(A, B, told={"a": [slow], "b": [broken]}, hedge=HEDGE)
    assert (await gateway.ask()).status == 200


@pytest.mark.parametrize(("late", "status"), [(200, 200), (500, 500), (UpstreamTimeout("y"), 503)])
async def test_a_failing_status_waits_for_the_other_answer(late, status):
    slow, quick = Slow(), Said(503)

    async def sorry(request):
        slow.go.set()
        return quick

    async def first(request):
        await slow(request)
        if isinstance(late, Exception):
            raise late
        return late

    gateway = Gateway(A, B, told={"a": [first], "b": [sorry]}, hedge=HEDGE)
    assert (await gateway.ask()).status == status
    assert quick.closed
    assert gateway.under_way == [0, 0]


async def test_two_errors_are_one_error():
    slow = Slow()

    async def broken(request):
        slow.go.set()
        raise UpstreamBroken("x")

    async def late(request):
        await slow(request)
        raise UpstreamTimeout("y")

    gateway = Gateway(A, B, told={"a": [late], "b": [broken]}, hedge=HEDGE)
    assert (await gateway.ask()).status in (502, 504)
    assert gateway.under_way == [0, 0]


async def test_two_answers_at_once_are_one_answer():
    both, asked = anyio.Event(), []

    async def told(request):
        asked.append(request)
        if len(asked) == 2:
            both.set()
        await both.wait()
        return 200

    gateway = Gateway(A, B, told={"a": [told], "b": [told]}, hedge=HEDGE)
    assert (await gateway.ask()).status == 200
    assert [each.closed for each in gateway.transport.said] == [True] * len(gateway.transport.said)
    assert gateway.under_way == [0, 0]


async def test_an_answer_nobody_waits_for_any_more_is_closed():
    gateway, said = Gateway(A), Said()
    live = gateway.app._plan.pool.first(None)
    with anyio.CancelScope() as left:

        async def ask_and_leave(live):
            left.cancel()
            return said

        await Race(ask_and_leave).run(live, lambda: None, 60)
    assert left.cancelled_caught
    assert (said.closed, gateway.under_way) == (True, [0])


async def test_who_answered_and_did_not_win_is_not_asked_again_at_once():
    """What it had asked for was forgotten."""
    asked, go = anyio.Event(), anyio.Event()
    later = (503, [(b"retry-after", b"3600")])

    async def first(request):
        await asked.wait()
        go.set()
        return later

    async def second(request):
        asked.set()
        await go.wait()
        return later

    gateway = Gateway(A, B, told={"a": [first, 200], "b": [second, 200]}, retry=AT_ONCE, hedge=HEDGE)
    assert ((await gateway.ask()).status, gateway.transport.asked) == (503, ["a", "b"])


async def test_nobody_is_asked_twice_when_the_budget_is_used_up():
    async def slow(request):
        await anyio.sleep(0.02)
        return 200

    gateway = Gateway(A, B, told={"a": [slow]}, hedge=Hedge(after=0.001, budget=0.01))
    while gateway.app._plan.hedging.take(gateway.clock.monotonic()):
        pass
    await gateway.ask()
    assert gateway.transport.asked == ["a"]
    assert gateway.under_way == [0, 0]


async def test_an_error_that_is_nobodys_answer_comes_out_as_it_is():
    async def failing(request):
        raise RuntimeError("mine")

    gateway = Gateway(A, B, told={"a": [failing]}, hedge=HEDGE)
    with pytest.raises(RuntimeError, match="mine"):
        await gateway.ask()
    assert gateway.under_way == [0, 0]


async def test_nobody_else_to_ask_is_no_reason_to_fail():
    slow = Slow()
    gateway = Gateway(A, told={"a": [slow]}, hedge=HEDGE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: gateway.ask())
        await slow.asked.wait()
        await anyio.sleep(0.03)
        slow.go.set()
    assert gateway.transport.asked == ["a"]


async def test_a_client_that_leaves_ends_both():
    one, other = Slow(), Slow()
    gateway = Gateway(A, B, told={"a": [one], "b": [other]}, hedge=HEDGE)

    async def receive():
        await other.asked.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    with anyio.fail_after(10):
        await gateway.app(http_scope("GET"), receive, send)
    assert one.left
    assert other.left
    assert gateway.under_way == [0, 0]


# Mistakes


def test_one_upstream_has_nobody_else_to_ask():
    with pytest.raises(ConfigError, match=r"Proxy\.hedge"):
        Proxy(A, hedge=HEDGE)


@pytest.mark.parametrize(
    ("cls", "fields", "field"),
    [
        (Retry, {"attempts": 1}, "attempts"),
        (Retry, {"attempts": 51}, "attempts"),
        (Retry, {"backoff": 2.0}, "backoff"),
        (Retry, {"backoff": -1}, "backoff"),
        (Retry, {"max_body_bytes": -1}, "max_body_bytes"),
        (Retry, {"budget": 0.0}, "budget"),
        (Retry, {"per_try": 0}, "per_try"),
        (Retry, {"deadline": 0}, "deadline"),
        (Retry, {"statuses": (), "errors": ()}, "statuses"),
        (Retry, {"statuses": ("x",)}, "statuses"),
        (Retry, {"methods": ()}, "methods"),
        (Retry, {"methods": ("post",)}, "methods"),
        (Retry, {"methods": ("GET, POST",)}, "methods"),
        (Retry, {"methods": ("GÉT",)}, "methods"),
        (Retry, {"methods": ("GET", "POST"), "statuses": ()}, "methods"),
        (Hedge, {"after": 0}, "after"),
        (Hedge, {}, "after"),
        (Hedge, {"after": 1, "budget": 2.0}, "budget"),
    ],
)
def test_a_mistake_names_its_field(cls, fields, field):
    with pytest.raises(ConfigError, match=rf"{cls.__name__}\.{field}"):
        cls(**fields)


# Work that may be done twice

TWICE = Retry(backoff=0, methods=(*Retry.methods, "POST"), statuses=(429, 503), non_idempotent=True)


@pytest.mark.parametrize("failure", [UpstreamTimeout("x"), UpstreamBroken("x")])
async def test_a_post_is_sent_again_after_an_error_where_that_was_said(failure):
    gateway = Gateway(A, B, told={"a": failure}, retry=TWICE)
    answer = await gateway.ask("POST", headers=LONG, body=b"one two!")
    assert (answer.status, gateway.transport.bodies["b"]) == (200, [b"one two!"])


async def test_a_method_that_was_not_named_is_not_sent_again_all_the_same():
    gateway = Gateway(A, B, told={"a": UpstreamBroken("x")}, retry=TWICE)
    await gateway.ask("PATCH")
    assert gateway.transport.asked == ["a"]


def test_work_that_may_be_done_twice_needs_a_method():
    with pytest.raises(ConfigError, match=r"Retry\.non_idempotent: True is about none of the methods"):
        Retry(non_idempotent=True)


def test_methods_that_are_not_idempotent_need_a_reason_to_be_repeated():
    Retry(methods=("POST",), statuses=(), non_idempotent=True)
    with pytest.raises(ConfigError, match="non_idempotent=True"):
        Retry(methods=("POST",), statuses=())


@pytest.mark.parametrize(("status", "told"), [(503, "body"), (200, None)])
async def test_a_request_that_is_too_large_to_be_sent_again_is_told(status, told):
    """Failover ended at 64 KiB, and nothing said so."""
    gateway = Gateway(A, B, told={"a": status}, retry=Retry(backoff=0, max_body_bytes=7))
    await ask(Stack(Look())(gateway.app), "PUT", headers=LONG, body=b"one two!")
    assert SEEN[-1].get("apim.upstream.not_repeated") == told
