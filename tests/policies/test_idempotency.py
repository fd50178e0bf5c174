"""A request with a key is carried out once, whoever leaves, fails or dies meanwhile; repetitions get its response."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import pytest
import trio
import trio.testing

from apim_middleware import APIKeyAuth, Env, MemoryKeys, Principal, RateLimit, Stack, Subscription, by
from apim_middleware._http.idempotency import Record
from apim_middleware.errors import ConfigError, Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policies.idempotency import Idempotency
from apim_middleware.policy import Policy
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.keys import key_digest
from apim_middleware.testing import Answer, FakeClock, call, connect
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

from .visiting import settled

pytestmark = pytest.mark.anyio

A = (b"idempotency-key", b'"a"')
B = (b"idempotency-key", b'"b"')


class SlowEntries:
    """A store elsewhere: it awaits, and fails when told to."""

    def __init__(self, clock: Any) -> None:
        self.kept = MemoryEntries(clock=clock)
        self.failing: set[str] = set()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def ask(*args: Any, **more: Any) -> Any:
            self.asked.append(name)
            await anyio.lowlevel.checkpoint()
            if name in self.failing:
                raise StoreError("down")
            return await getattr(self.kept, name)(*args, **more)

        return ask

    # What makes it one for the check of fields
    async def get(self, key: bytes) -> bytes | None:
        return await self.__getattr__("get")(key)


class Payments:
    """An app that does something each time it is asked."""

    def __init__(
        self, status: int = 201, chunks: tuple[bytes, ...] = (b"paid ", b"%d"), headers: RawHeaders | None = None
    ) -> None:
        self.done = 0
        self.status, self.chunks = status, chunks
        self.headers = [(b"content-type", b"text/plain")] if headers is None else headers
        self.go_on = anyio.Event()
        self.go_on.set()
        self.bodies: list[bytes] = []
        self.heard: list[str] = []
        self.told: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.bodies.append((await receive())["body"])
        self.done += 1
        await self.go_on.wait()
        body = [chunk % self.done if b"%d" in chunk else chunk for chunk in self.chunks]
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for number, chunk in enumerate(body, 1):
            try:
                await send({"type": "http.response.body", "body": chunk, "more_body": number < len(body)})
            except OSError as error:
                self.told.append(type(error).__name__)
                raise


@pytest.fixture(params=["memory", "elsewhere"])
def entries(request: pytest.FixtureRequest, clock: FakeClock) -> Any:
    return MemoryEntries(clock=clock) if request.param == "memory" else SlowEntries(clock)


@pytest.fixture
def env(clock: FakeClock, entries: Any) -> Env:
    return Env(place="here", clock=clock, entries=entries)


@pytest.fixture
def elsewhere(clock: FakeClock) -> SlowEntries:
    return SlowEntries(clock)


def guarded(app: ASGIApp, env: Env, *outer: Any, **fields: Any) -> ASGIApp:
    return Stack(*outer, Idempotency(**fields), env=env)(app)


async def pay(
    app: ASGIApp, *headers: tuple[bytes, bytes], body: Any = b"7 EUR", method: str = "POST", **more: Any
) -> Answer:
    return await call(app, method, headers=headers or [A], body=body, **more)


def code(answer: Answer) -> str:
    return answer.body.decode().partition('"code": "')[2].partition('"')[0]


# Once, and again


async def test_a_repetition_gets_the_first_response_and_is_told_so(env: Env):
    app = Payments()
    first = await pay(guarded(app, env))
    again = await pay(built := guarded(app, env))
    assert app.done == 1
    assert (first.status, first.body, first.header(b"idempotent-replayed")) == (201, b"paid 1", None)
    assert (again.status, again.body) == (201, b"paid 1")
    assert again.headers == [(b"content-type", b"text/plain"), (b"idempotent-replayed", b"true")]
    assert (await pay(built, B)).body == b"paid 2"


async def test_the_app_gets_the_body_whole(env: Env):
    app = Payments()
    await pay(guarded(app, env), body=[b"7", b" ", b"EUR"])
    assert app.bodies == [b"7 EUR"]


async def test_a_quoted_key_and_a_bare_one_are_the_same(env: Env):
    app = guarded(Payments(), env)
    await pay(app, A)
    assert (await pay(app, (b"idempotency-key", b"a"))).body == b"paid 1"


async def test_client_errors_of_the_app_are_responses(env: Env):
    app = Payments(status=422)
    built = guarded(app, env)
    assert [(await pay(built)).status for _ in range(2)] == [422, 422]
    assert app.done == 1


async def test_after_its_time_a_key_is_new(env: Env, clock: FakeClock):
    app = guarded(Payments(), env, ttl=100)
    await pay(app)
    clock.advance(99)
    assert (await pay(app)).body == b"paid 1"
    clock.advance(2)
    assert (await pay(app)).body == b"paid 2"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_other_methods_pass(env: Env, method: str):
    app = Payments()
    built = guarded(app, env)
    for _ in range(2):
        await pay(built, method=method)
    assert app.done == 2


async def test_methods_of_ones_own(env: Env):
    app = Payments()
    built = guarded(app, env, methods=("PUT",))
    for method in ("PUT", "PUT", "POST", "POST"):
        await pay(built, method=method)
    assert app.done == 3


async def test_without_a_key_a_request_passes_unless_one_is_required(env: Env):
    app = Payments()
    other = (b"x-other", b"1")
    assert (await pay(guarded(app, env), other)).status == 201
    answer = await pay(guarded(app, env, required=True), other)
    assert (answer.status, code(answer), app.done) == (400, "idempotency-key-missing", 1)


@pytest.mark.parametrize("lines", [[b""], [b'"a'], [b"a b"], [b"x" * 256], [b'"a"', b'"a"']])
async def test_what_is_no_key_is_refused(env: Env, lines: list[bytes]):
    app = Payments()
    answer = await pay(guarded(app, env), *[(b"idempotency-key", line) for line in lines])
    assert (answer.status, code(answer), app.done) == (400, "idempotency-key-invalid", 0)


# Another request, another caller


@pytest.mark.parametrize(
    "other",
    [
        {"body": b"8 EUR"},
        {"path": "/other"},
        {"query": b"a=1"},
        {"method": "PATCH"},
        {"headers": [(b"host", b"other.test")]},
        {"headers": [(b"content-type", b"text/csv")]},
        {"headers": [(b"authorization", b"Bearer other")]},
        {"headers": [(b"cookie", b"session=other")]},
        {"headers": [(b"x-api-key", b"other")]},
        {"headers": [(b"x-authtoken", b"other")]},
        {"headers": [(b"x-amzn-oidc-data", b"other")]},
        {"headers": [(b"x-webauth-user", b"other")]},
        {"headers": [(b"x-consumer-username", b"other")]},
        {
            "extensions": {
                "tls": {"client_cert_chain": ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]}
            }
        },
    ],
)
async def test_another_request_with_the_same_key_is_refused(env: Env, other: dict[str, Any]):
    app = Payments()
    built = guarded(app, env)
    await pay(built)
    headers = other.get("headers", ())
    answer = await pay(built, A, *headers, **{name: value for name, value in other.items() if name != "headers"})
    assert (answer.status, code(answer), app.done) == (422, "idempotency-key-reused", 1)


async def test_fields_that_say_nothing_of_the_request_may_differ(env: Env):
    built = guarded(Payments(), env)
    await pay(built, A, (b"user-agent", b"one"), (b"traceparent", b"1"))
    assert (await pay(built, A, (b"user-agent", b"two"))).body == b"paid 1"


async def test_credentials_the_app_does_not_look_at_may_differ(env: Env):
    built = guarded(Payments(), env, regardless_of=("cookie",))
    await pay(built, A, (b"cookie", b"a=1"))
    assert (await pay(built, A, (b"cookie", b"a=2"))).body == b"paid 1"


class Knows(Policy):
    """Takes the Authorization header for a name, with a token that may change."""

    provides = frozenset({"principal"})

    def on_request(self, exchange: Exchange) -> None:
        name = (exchange.header(b"authorization") or b"?").split()[0].decode()
        exchange.principal = Principal(subject=name, issuer="test")


async def test_a_principal_is_known_by_name_whatever_token_it_has_now(env: Env):
    built = guarded(Payments(), env, Knows())
    await pay(built, A, (b"authorization", b"ann token-1"))
    assert (await pay(built, A, (b"authorization", b"ann token-2"))).body == b"paid 1"


@pytest.mark.parametrize("name", [b"x-endpoint-api-userinfo", b"x-jwt-claim-exp", b"x-forwarded-user"])
async def test_a_principal_is_known_by_name_whatever_a_front_tells_of_it_now(env: Env, name: bytes):
    """What a front makes of the token changes with it: the retry after a refresh was refused."""
    built = guarded(Payments(), env, Knows())
    await pay(built, A, (b"authorization", b"ann token-1"), (name, b"issued at 1"))
    assert (await pay(built, A, (b"authorization", b"ann token-2"), (name, b"issued at 2"))).body == b"paid 1"


@pytest.mark.parametrize("name", [b"x-act-as", b"impersonate-user", b"x-on-behalf-of", b"sudo"])
async def test_whom_a_caller_acts_for_tells_requests_apart(env: Env, name: bytes):
    built = guarded(Payments(), env, Knows())
    await pay(built, A, (b"authorization", b"ann token"), (name, b"bob"))
    assert (await pay(built, A, (b"authorization", b"ann token"), (name, b"eve"))).status == 422


async def test_keys_belong_to_the_caller(env: Env):
    built = guarded(Payments(), env, Knows())
    await pay(built, A, (b"authorization", b"ann 1"))
    answer = await pay(built, A, (b"authorization", b"bob 1"))
    assert (answer.status, answer.body) == (201, b"paid 2")


async def test_a_principal_never_gets_the_response_of_another_whatever_keys_are_by(env: Env):
    built = guarded(Payments(), env, Knows(), by=by.everyone)
    await pay(built, A, (b"authorization", b"ann 1"))
    assert (await pay(built, A, (b"authorization", b"bob 1"))).status == 422


async def test_keys_belong_to_the_subscription(env: Env):
    store = MemoryKeys()
    for name in ("one", "two"):
        store.add(Subscription(id=name), primary=key_digest(name * 20))
    built = guarded(Payments(), env, APIKeyAuth(keys=store))
    field = b"ocp-apim-subscription-key"
    assert (await pay(built, A, (field, b"one" * 20))).body == b"paid 1"
    assert (await pay(built, A, (field, b"two" * 20))).body == b"paid 2"
    assert (await pay(built, A, (field, b"one" * 20))).body == b"paid 1"
    answer = await pay(built, A, (field, b"one" * 20), (b"authorization", b"Bearer of an app's own user"))
    assert answer.status == 422


async def test_keys_belong_to_the_client_where_nobody_is_known(env: Env):
    built = guarded(Payments(), env)
    await pay(built, client=("198.51.100.1", 1))
    assert (await pay(built, client=("198.51.100.2", 1))).body == b"paid 2"
    answer = await pay(built, client=None)
    assert (answer.status, code(answer)) == (403, "caller-unknown")


async def test_two_places_and_two_apps_know_nothing_of_each_other(clock: FakeClock, entries: Any):
    env = Env(clock=clock, entries=entries)
    policy = Idempotency()
    apps = [Stack(policy, env=env, place=place)(Payments()) for place in ("one", "two")]
    if isinstance(entries, MemoryEntries):
        apps += [Stack(policy, env=env)(Payments()), Stack(policy, env=env)(Payments())]
    answers = [await pay(app) for app in apps]
    assert all(answer.header(b"idempotent-replayed") is None for answer in answers)


async def test_a_place_keeps_its_keys_when_it_is_built_anew(env: Env):
    await pay(guarded(Payments(), env))
    assert (await pay(guarded(Payments(), env))).header(b"idempotent-replayed") == b"true"


def test_a_store_that_others_see_needs_a_place(clock: FakeClock, elsewhere: SlowEntries):
    with pytest.raises(ConfigError, match="place without a name"):
        guarded(Payments(), Env(clock=clock, entries=elsewhere))


# At the same time


@asynccontextmanager
async def working(app: Payments, built: ASGIApp, **more: Any) -> AsyncIterator[Answer]:
    """While the first request is being carried out."""
    app.go_on = anyio.Event()
    answer = Answer()

    async def first() -> None:
        await pay(built, answer=answer, **more)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await settled()
        yield answer
        app.go_on.set()


async def test_a_repetition_meanwhile_is_told_to_come_again(env: Env):
    app = Payments()
    built = guarded(app, env)
    async with working(app, built) as first:
        answer = await pay(built)
        assert (answer.status, code(answer), answer.header(b"retry-after")) == (409, "idempotency-in-progress", b"1")
        assert (await pay(built, body=b"other")).status == 422
    assert (first.body, app.done) == (b"paid 1", 1)
    assert (await pay(built)).body == b"paid 1"


async def test_of_many_at_once_one_is_carried_out(env: Env):
    app = Payments()
    app.go_on = anyio.Event()
    built = guarded(app, env)
    statuses: list[int] = []

    async def one() -> None:
        statuses.append((await pay(built)).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one)
        await settled()
        app.go_on.set()
    assert (app.done, sorted(statuses)) == (1, [201] + [409] * 49)


# Leaving


async def test_the_work_goes_on_when_the_client_leaves_and_its_response_waits(env: Env):
    app = Payments(chunks=(b"a", b"b", b"c"))
    built = guarded(app, env)
    await pay(built, leave_after=0)
    assert (app.done, app.told) == (1, [])
    answer = await pay(built)
    assert (answer.body, answer.header(b"idempotent-replayed"), app.done) == (b"abc", b"true", 1)


async def test_an_app_that_listens_for_its_clients_leaving_hears_of_it_only_when_it_is_done(env: Env):
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

        async def listen() -> None:
            heard.append((await receive())["type"])
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await settled()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await settled()
            assert heard == []
            await send({"type": "http.response.body", "body": b"y"})

    built = guarded(app, env)
    await pay(built, leave_after=0)
    assert heard == ["http.disconnect"]
    assert (await pay(built)).body == b"xy"


async def test_a_response_that_is_replaced_further_out_is_kept_as_it_was(env: Env):
    class Replacing(Policy):
        def on_response(self, exchange: Exchange) -> None:
            raise Refusal(502, "not-this-one")

    app = Payments(chunks=(b"a", b"b"))
    answers = [await pay(guarded(app, env, Replacing())) for _ in range(2)]
    assert ([answer.status for answer in answers], app.done) == ([502, 502], 1)


async def test_a_client_that_leaves_within_its_body_begins_nothing(env: Env):
    app = Payments()
    built = guarded(app, env)

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = [
            {"type": "http.request", "body": b"7", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def tell() -> Message:
            return messages.pop(0)

        await built(scope, tell, send)

    assert (await pay(half)).messages == []
    assert (await pay(built, body=b"whole")).body == b"paid 1"


# Failing


@pytest.mark.parametrize("status", [500, 503, 401, 407, 408, 425, 429])
async def test_a_response_that_says_try_again_frees_the_key(env: Env, status: int):
    app = Payments(status=status)
    built = guarded(app, env)
    assert [(await pay(built)).status for _ in range(2)] == [status, status]
    assert app.done == 2


async def test_an_app_that_fails_before_its_head_frees_the_key(env: Env):
    calls = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        raise LookupError("app")

    built = guarded(app, env)
    for _ in range(2):
        with pytest.raises(LookupError):
            await pay(built)
    assert calls == 2


async def test_an_app_that_sends_nothing_frees_the_key(env: Env):
    calls = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1

    built = guarded(app, env)
    await pay(built)
    await pay(built)
    assert calls == 2


async def test_what_is_broken_off_after_its_head_was_done(env: Env):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("app")

    built = guarded(app, env)
    with pytest.raises(LookupError):
        await pay(built)
    answer = await pay(built)
    assert (answer.status, code(answer), answer.header(b"retry-after")) == (409, "idempotency-response-lost", None)


async def test_what_fails_after_the_last_byte_is_kept(env: Env):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"whole"})
        raise LookupError("background")

    built = guarded(app, env)
    with pytest.raises(LookupError):
        await pay(built)
    assert (await pay(built)).body == b"whole"


async def test_a_refusal_of_a_policy_behind_frees_the_key(env: Env, clock: FakeClock):
    app = Payments()
    built = Stack(Idempotency(), RateLimit(calls=1, per=60, by=by.everyone, window="fixed"), env=env)(app)
    assert (await pay(built, B)).status == 201
    assert (await pay(built, A)).status == 429
    clock.advance(61)
    assert (await pay(built, A)).body == b"paid 2"


async def test_what_a_policy_behind_did_not_let_in_was_not_carried_out(env: Env):
    class Refusing(Policy):
        guards: ClassVar[bool] = False

        def on_request(self, exchange: Exchange) -> None:
            if exchange.header(b"x-allowed") is None:
                raise Refusal(403, "not-now")

    built = Stack(Idempotency(), Refusing(), env=env)(Payments())
    assert (await pay(built, A)).status == 403
    assert (await pay(built, A, (b"x-allowed", b"1"))).body == b"paid 1"


async def test_a_key_whose_request_was_cancelled_stays_taken_until_its_lease_is_over(env: Env, clock: FakeClock):
    app = Payments()
    app.go_on = anyio.Event()
    built = guarded(app, env)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pay, built)
        await settled()
        tasks.cancel_scope.cancel()
    app.go_on.set()
    clock.advance(59)
    assert (await pay(built)).status == 409
    clock.advance(2)
    assert (await pay(built)).body == b"paid 2"


async def test_a_request_cancelled_after_its_head_was_carried_out(env: Env):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await anyio.sleep_forever()

    built = guarded(app, env)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pay, built)
        await settled()
        tasks.cancel_scope.cancel()
    assert code(await pay(built)) == "idempotency-response-lost"


def test_the_lease_is_renewed_as_long_as_the_work_lasts():
    class Time:
        now = monotonic = staticmethod(trio.current_time)

    async def work() -> None:
        app = Payments()
        app.go_on = anyio.Event()
        entries = MemoryEntries(clock=Time())
        built = guarded(app, Env(place="here", clock=Time(), entries=entries), lease=60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pay, built)
            await anyio.sleep(3600)
            assert (await pay(built)).status == 409
            app.go_on.set()
        assert (await pay(built)).body == b"paid 1"
        await anyio.sleep(3600)
        assert (await pay(built)).body == b"paid 1"

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(work, backend="trio", backend_options={"clock": clock})


# Sizes


async def test_a_request_body_that_is_too_large_is_refused(env: Env):
    app = Payments()
    built = guarded(app, env, max_request_bytes=5)
    assert (await pay(built, body=b"12345")).status == 201
    answer = await pay(built, B, body=[b"123", b"456"])
    assert (answer.status, code(answer), app.done) == (413, "body-too-large", 1)


async def test_a_response_that_is_too_large_flows_and_cannot_be_replayed(env: Env):
    app = Payments(chunks=(b"123", b"456"))
    built = guarded(app, env, max_response_bytes=5)
    assert (await pay(built)).body == b"123456"
    assert (code(await pay(built)), app.done) == ("idempotency-response-lost", 1)
    assert (await pay(guarded(Payments(chunks=(b"12345",)), env, max_response_bytes=5), B)).status == 201


async def test_a_stream_flows_chunk_by_chunk(env: Env):
    answer = Answer()
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in (b"1", b"2"):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            seen.append(answer.body)
        await send({"type": "http.response.body"})

    await pay(guarded(app, env), answer=answer)
    assert seen == [b"1", b"12"]


@pytest.mark.parametrize(("headers", "cap"), [([(b"Content-Type", b"text/event-stream")], 1000), ([], 5)])
async def test_a_stream_that_is_not_kept_ends_when_its_client_leaves(env: Env, headers: RawHeaders, cap: int):
    app = Payments(chunks=(b"123",) * 10, headers=headers)
    built = guarded(app, env, max_response_bytes=cap)
    with pytest.raises(OSError, match="gone"):
        await pay(built, leave_after=1)
    assert app.told == ["OSError"]
    assert code(await pay(built)) == "idempotency-response-lost"


# The store


@pytest.mark.parametrize("doing", ["add", "get"])
async def test_without_its_store_it_refuses(clock: FakeClock, elsewhere: SlowEntries, doing: str, caplog: Any):
    app = Payments()
    built = guarded(app, Env(place="here", clock=clock, entries=elsewhere))
    if doing == "get":
        await pay(built)
    elsewhere.failing = {doing}
    with caplog.at_level(logging.ERROR):
        answers = [await pay(built) for _ in range(2)]
    assert [(answer.status, code(answer)) for answer in answers] == [(503, "idempotency-unavailable")] * 2
    assert app.done == (doing == "get")
    assert len(caplog.records) == 1


async def test_without_its_store_it_lets_through_when_told_to(clock: FakeClock, elsewhere: SlowEntries):
    app = Payments()
    built = guarded(app, Env(place="here", clock=clock, entries=elsewhere), when_store_fails="allow")
    elsewhere.failing = {"add", "get", "set", "delete"}
    assert [(await pay(built)).body for _ in range(2)] == [b"paid 1", b"paid 2"]


async def test_a_response_that_could_not_be_noted_goes_out_and_its_key_stays_taken(
    clock: FakeClock, elsewhere: SlowEntries
):
    app = Payments()
    built = guarded(app, Env(place="here", clock=clock, entries=elsewhere))
    elsewhere.failing = {"set"}
    assert (await pay(built)).body == b"paid 1"
    elsewhere.failing = set()
    assert (await pay(built)).status == 409


async def test_an_outage_is_counted(clock: FakeClock, elsewhere: SlowEntries):
    counted: list[tuple[str, Any]] = []

    class Listener:
        def count(self, event: str, attributes: Any) -> None:
            counted.append((event, dict(attributes)))

    env = Env(place="here", clock=clock, entries=elsewhere)
    env.listen(Listener())
    elsewhere.failing = {"add"}
    await pay(guarded(Payments(), env))
    assert counted == [("apim.idempotency.unavailable", {"apim.idempotency.doing": "begin"})]


@pytest.mark.parametrize("found", [b"", b"nonsense", Record("done", b"x" * 32, b"nonsense").pack()])
async def test_an_entry_that_cannot_be_read_is_not_taken_for_nothing(
    clock: FakeClock, elsewhere: SlowEntries, found: bytes
):
    app = Payments()

    async def get(key: bytes) -> bytes:
        return found

    elsewhere.get = get  # type: ignore[method-assign]
    built = guarded(app, Env(place="here", clock=clock, entries=elsewhere))
    await pay(built)
    answer = await pay(built)
    assert (answer.status in (422, 503), app.done) == (True, 1)


async def test_a_fresh_request_asks_the_store_twice(clock: FakeClock, elsewhere: SlowEntries):
    built = guarded(Payments(), Env(place="here", clock=clock, entries=elsewhere))
    await pay(built)
    assert elsewhere.asked == ["add", "set"]
    await pay(built)
    assert elsewhere.asked[2:] == ["add", "get"]
    await pay(built, (b"x", b"y"))
    assert len(elsewhere.asked) == 4


# Neighbours


async def test_what_happened_is_noted_for_who_watches(env: Env):
    seen: list[Any] = []

    class Watching(Policy):
        def on_end(self, exchange: Exchange) -> None:
            seen.append(exchange.attributes.get("apim.idempotency"))

    built = guarded(Payments(), env, Watching())
    for headers in ((A,), (A,), (A, (b"content-type", b"x/y")), ((b"x", b"y"),)):
        await pay(built, *headers)
    assert seen == ["first", "replayed", "reused", None]


def test_a_guard_may_not_stand_behind_it():
    with pytest.raises(ConfigError, match="Write APIKeyAuth before Idempotency"):
        Stack(Idempotency(), APIKeyAuth(keys=MemoryKeys()))


async def test_a_websocket_passes(env: Env):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    assert (await connect(guarded(app, env, required=True), headers=[A])).status == 101


async def test_files_the_server_would_send_itself_are_kept(env: Env):
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["extensions"])
        await Payments()(scope, receive, send)

    await pay(guarded(app, env), extensions={"http.response.pathsend": {}, "x": {}})
    assert seen == [{"x": {}}]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"methods": ()}, "is about nothing"),
        ({"methods": ("post",)}, "is no method"),
        ({"methods": ("GET",)}, "changes nothing"),
        ({"ttl": 0}, "is no time"),
        ({"lease": -1}, "is no time"),
        ({"max_request_bytes": -1}, "is no size"),
        ({"when_store_fails": "local"}, "is not 'refuse' or 'allow'"),
    ],
)
def test_mistakes(fields: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        Idempotency(**fields)
