"""Requests for the same at the same time: one request to the app, whoever leaves, fails or is somebody else's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import anyio
import pytest
from starlette.authentication import SimpleUser

from apim_middleware._caching import detached
from apim_middleware._caching.waiting import BrokenOff
from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import Answer, FakeClock, call, http_scope
from apim_middleware.types import ASGIApp, RawHeaders, Receive, Scope, Send

from .caching import Elsewhere, Guarded, status

pytestmark = pytest.mark.anyio

FRESH = (b"cache-control", b"max-age=60")
PUBLIC = (b"cache-control", b"public, max-age=60")


@dataclass
class Gated:
    """An app that goes on when it is told to: before its head, and between the chunks of its body."""

    headers: RawHeaders = field(default_factory=lambda: [FRESH])
    chunks: Sequence[bytes] = (b"whole",)
    status: int = 200
    pause_after: int = 0
    error: Exception | None = None
    asked: list[Scope] = field(default_factory=list)
    left: int = 0

    def __post_init__(self) -> None:
        self.second, self.head, self.body = anyio.Event(), anyio.Event(), anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        number = len(self.asked)
        if number == 2:
            self.second.set()
        try:
            await self.head.wait()
            if self.error is not None and number == 1:
                raise self.error
            await send({"type": "http.response.start", "status": self.status, "headers": self.answered(number)})
            for at, chunk in enumerate(self.chunks, 1):
                if at > self.pause_after:
                    await self.body.wait()
                await send({"type": "http.response.body", "body": chunk, "more_body": at < len(self.chunks)})
        except anyio.get_cancelled_exc_class():
            self.left += 1
            raise

    def answered(self, number: int) -> RawHeaders:
        return list(self.headers)

    def go(self) -> None:
        self.head.set()
        self.body.set()


class Crowd:
    """Clients at the same time."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.answers: list[Answer] = []
        self.failed: list[BaseException] = []
        self.scopes: list[anyio.CancelScope] = []

    async def one(self, place: int, **request: Any) -> None:
        with self.scopes[place]:
            try:
                await call(self.app, answer=self.answers[place], **request)
            except Exception as error:
                self.failed.append(error)

    async def follows(self, group: Any, count: int) -> None:
        """One who leads, and others who come while the app is at work on that."""
        self.comes(group, 1)
        await settle()
        self.comes(group, count - 1)
        await settle()

    def comes(self, group: Any, count: int, **request: Any) -> None:
        for _ in range(count):
            self.answers.append(Answer())
            self.scopes.append(anyio.CancelScope())
            group.start_soon(partial(self.one, len(self.answers) - 1, **request))


async def settle() -> None:
    """Let everybody go as far as they can."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


async def test_fifty_at_once_are_one_request_to_the_app(guarded: Guarded) -> None:
    origin = Gated()
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 50)
        await settle()
        origin.go()
    assert len(origin.asked) == 1
    assert [each.body for each in crowd.answers] == [b"whole"] * 50
    assert sorted({status(each) for each in crowd.answers}) == [
        "apim;fwd=uri-miss;collapsed", "apim;fwd=uri-miss;stored",
    ]  # fmt: skip
    assert status(await call(crowd.app)).startswith("apim;hit")


async def test_who_waits_reads_the_body_as_it_comes(guarded: Guarded) -> None:
    origin = Gated(chunks=[b"one ", b"two ", b"three"], pause_after=2)
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 2)
        await settle()
        origin.head.set()
        await settle()
        assert [each.body for each in crowd.answers] == [b"one two "] * 2
        crowd.comes(group, 1)
        await settle()
        assert crowd.answers[2].body == b"one two "
        origin.go()
    assert [each.body for each in crowd.answers] == [b"one two three"] * 3
    assert len(origin.asked) == 1


@pytest.mark.parametrize(
    "headers", [[(b"cache-control", b"private, max-age=60")], [FRESH, (b"set-cookie", b"a=b")], []]
)
async def test_what_is_not_for_others_is_given_to_nobody_else(guarded: Guarded, headers: RawHeaders) -> None:

    class Numbered(Gated):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.chunks = [b"answer %d" % (len(self.asked) + 1)]
            chunks = list(self.chunks)
            self.asked.append(scope)
            await self.head.wait()
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": chunks[0]})

    origin = Numbered()
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 10)
        await settle()
        assert len(origin.asked) == 1
        origin.go()
    assert len({each.body for each in crowd.answers}) == len(origin.asked) == 10


async def test_where_waiting_was_of_no_use_nobody_waits_for_a_minute(guarded: Guarded, clock: FakeClock) -> None:
    origin = Gated(headers=[])
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 2)
        await settle()
        origin.go()
        await settle()
        origin.head = anyio.Event()
        crowd.comes(group, 3)
        await settle()
        assert len(origin.asked) == 5
        origin.go()
    clock.advance(61)
    origin.head = anyio.Event()
    async with anyio.create_task_group() as group:
        crowd.comes(group, 3)
        await settle()
        assert len(origin.asked) == 6
        origin.go()


@pytest.mark.parametrize("known", ["by a cookie", "to a middleware"])
async def test_who_carries_a_credential_neither_waits_nor_is_waited_for(guarded: Guarded, known: str) -> None:
    origin = Gated()
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        for name in ("alice", "bob"):
            if known == "by a cookie":
                crowd.comes(group, 1, headers=[(b"cookie", name.encode())])
            else:
                crowd.comes(group, 1, user=SimpleUser(name))
        crowd.comes(group, 2)
        await settle()
        assert len(origin.asked) == 3
        origin.go()


async def test_callers_whom_their_key_settles_wait_for_their_own(guarded: Guarded) -> None:
    def tenant(exchange: Any) -> str | None:
        value = exchange.header(b"x-tenant")
        return None if value is None else value.decode()

    origin = Gated()
    crowd = Crowd(guarded(origin, Cache(private_to=tenant)))
    async with anyio.create_task_group() as group:
        for name in (b"a", b"b"):
            crowd.comes(group, 5, headers=[(b"x-tenant", name)])
        await settle()
        assert len(origin.asked) == 2
        origin.go()
    assert [each.body for each in crowd.answers] == [b"whole"] * 10


async def test_variants_are_asked_for_once_each(guarded: Guarded) -> None:
    origin = Gated(headers=[FRESH, (b"vary", b"accept-encoding")])
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        for coding in (b"gzip", b"br"):
            crowd.comes(group, 5, headers=[(b"accept-encoding", coding)])
        await settle()
        origin.go()
    assert sorted(dict(scope["headers"])[b"accept-encoding"] for scope in origin.asked) == [b"br", b"gzip"]
    assert [each.body for each in crowd.answers] == [b"whole"] * 10


async def test_a_leader_whose_app_fails_hands_over_to_one_of_those_who_wait(guarded: Guarded) -> None:
    origin = Gated(error=RuntimeError("boom"))
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 20)
        await settle()
        origin.go()
    assert len(origin.asked) == 2
    assert [each.body for each in crowd.answers].count(b"whole") == 19
    assert [str(each) for each in crowd.failed] == ["boom"]


async def test_an_app_that_fails_twice_is_not_asked_by_everybody(guarded: Guarded) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(1)
        await gate.wait()
        raise RuntimeError("boom")

    asked: list[int] = []
    gate = anyio.Event()
    crowd = Crowd(guarded(fails))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 20)
        await settle()
        gate.set()
    assert len(asked) == 2
    assert len(crowd.failed) == 20


@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_a_leader_that_is_cancelled_takes_nothing_from_those_who_wait(guarded: Guarded, sent: int) -> None:
    origin = Gated(chunks=[b"one ", b"two ", b"three"], pause_after=sent)
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        await crowd.follows(group, 10)
        if sent:
            origin.head.set()
            await settle()
        crowd.scopes[0].cancel()
        await settle()
        origin.go()
    assert [each.body for each in crowd.answers[1:]] == [b"one two three"] * 9
    assert all(each.complete for each in crowd.answers[1:])
    assert len(origin.asked) == 2
    assert status(await call(crowd.app)).startswith("apim;hit")


async def test_a_leader_whose_client_leaves_is_the_same(guarded: Guarded) -> None:
    origin = Gated(chunks=[b"one ", b"two"])
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 1, leave_after=1)
        await settle()
        crowd.comes(group, 5)
        await settle()
        origin.go()
    assert [each.body for each in crowd.answers[1:]] == [b"one two"] * 5
    assert len(origin.asked) == 2


async def test_half_of_one_response_is_never_completed_by_half_of_another(guarded: Guarded) -> None:
    origin = Gated(chunks=[b"one ", b"two"], pause_after=1)
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        await crowd.follows(group, 5)
        origin.head.set()
        await settle()
        origin.chunks = [b"another ", b"two"]
        crowd.scopes[0].cancel()
        await settle()
        origin.go()
    assert not any(each.complete for each in crowd.answers[1:])
    assert [type(each) for each in crowd.failed] == [BrokenOff] * 4


async def test_nor_by_one_with_another_validator(guarded: Guarded) -> None:
    origin = Gated(headers=[FRESH, (b"etag", b'"1"')], chunks=[b"one ", b"two"], pause_after=1)
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        await crowd.follows(group, 3)
        origin.head.set()
        await settle()
        origin.headers = [FRESH, (b"etag", b'"2"')]
        crowd.scopes[0].cancel()
        await settle()
        origin.go()
    assert [type(each) for each in crowd.failed] == [BrokenOff] * 2


async def test_a_leader_that_stalls_is_waited_for_no_longer_than_it_was_said(guarded: Guarded) -> None:
    origin = Gated()
    crowd = Crowd(guarded(origin, Cache(collapse_wait=0.05)))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 10)
        await origin.second.wait()
        origin.go()
    assert len(origin.asked) == 2
    assert [each.body for each in crowd.answers] == [b"whole"] * 10


async def test_each_asks_the_app_when_they_are_told_to(guarded: Guarded) -> None:
    origin = Gated()
    crowd = Crowd(guarded(origin, Cache(collapse_wait=0)))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 5)
        await settle()
        assert len(origin.asked) == 5
        origin.go()


async def test_when_all_have_left_the_app_is_told_and_nothing_is_held(clock: FakeClock) -> None:
    policy, origin = Cache(), Gated(headers=[FRESH, (b"etag", b'"1"')])
    env = Env(clock=clock)
    crowd = Crowd(Stack(policy, env=env)(origin))
    origin.go()
    await call(crowd.app)
    clock.advance(61)
    origin.head = anyio.Event()
    async with anyio.create_task_group() as group:
        crowd.comes(group, 3)
        await settle()
        assert len(origin.asked) == 2
        for scope in crowd.scopes:
            scope.cancel()
        await settle()
    assert origin.left == 1


async def test_a_response_that_outgrows_the_copies_goes_on_to_all_of_them(guarded: Guarded) -> None:
    origin = Gated(chunks=[b"%04d" % number * 250 for number in range(400)])
    crowd = Crowd(guarded(origin, Cache(max_entry_bytes=20_000)))
    async with anyio.create_task_group() as group:
        crowd.comes(group, 30)
        await settle()
        origin.go()
    assert all(each.body == b"".join(origin.chunks) for each in crowd.answers)
    assert len(origin.asked) == 2


class Big(Gated):
    """Ten MiB in chunks that are made as they are sent."""

    count = 160

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        await self.head.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        for number in range(self.count):
            if number == self.count // 2:
                await self.body.wait()
            await anyio.lowlevel.checkpoint()
            await send({"type": "http.response.body", "body": chunk_of(number), "more_body": number < self.count - 1})


def chunk_of(number: int) -> bytes:
    return b"%08d" % number * 8192


@pytest.mark.parametrize("most", [1 << 20, 16 << 20])
async def test_a_thousand_at_once_for_ten_mib_while_the_leader_is_cancelled_half_way(
    anyio_backend: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    hold = detached.Detached._hold

    async def watched(flight: detached.Detached, chunk: bytes) -> None:
        await hold(flight, chunk)
        held.append(sum(map(len, flight.chunks)))

    monkeypatch.setattr(detached.Detached, "_hold", watched)
    origin = Big()
    app = Stack(Cache(max_entry_bytes=most), env=Env(clock=FakeClock()))(origin)
    count = 1_000 if anyio_backend == "asyncio" else 100  # trio is slower to switch
    right: list[bool] = []
    leader = anyio.CancelScope()

    async def client(scope: anyio.CancelScope) -> None:
        number, complete = 0, False

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        got = 0

        async def send(message: dict[str, Any]) -> None:
            nonlocal got, number, complete
            if message["type"] == "http.response.body":
                body = message["body"]
                whole = chunk_of(got // 65536)
                assert body == whole[got % 65536 : got % 65536 + len(body)]
                got += len(body)
                complete = not message.get("more_body", False)

        with scope:
            await app(http(), receive, send)
            right.append(complete and got == 160 * 65536)

    async with anyio.create_task_group() as group:
        group.start_soon(client, leader)
        await settle()
        for _ in range(count - 1):
            group.start_soon(client, anyio.CancelScope())
        await settle()
        origin.head.set()
        for _ in range(400):
            await anyio.lowlevel.checkpoint()
        leader.cancel()
        await settle()
        origin.body.set()
    assert right == [True] * (count - 1)
    assert len(origin.asked) <= 2
    assert max(held, default=0) <= most + 2 * 65536


def http() -> Scope:
    return http_scope()


async def test_who_is_too_slow_for_what_others_wait_for_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    monkeypatch.setattr(detached, "_PATIENCE", 0.02)
    origin = Gated(headers=[FRESH, (b"etag", b'"1"')])
    app = Stack(Cache(max_entry_bytes=10_000), env=Env(clock=clock))(origin)
    origin.go()
    await call(app)
    clock.advance(61)
    origin.chunks = [b"x" * 65536] * 20
    outcome: list[str] = []

    async def client(slow: bool) -> None:
        got = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal got
            got += len(message.get("body", b""))
            if slow and got:
                await anyio.sleep(0.2)

        try:
            await app(http(), receive, send)
            outcome.append(f"whole {got == 20 * 65536}")
        except BrokenOff:
            outcome.append("cut off")

    async with anyio.create_task_group() as group:
        group.start_soon(client, True)
        group.start_soon(client, False)
    assert outcome == ["whole True", "cut off"]


async def test_who_is_slow_is_waited_for_when_another_takes_over(clock: FakeClock) -> None:
    """What took over went on without those who were still reading what came before it, who were cut off."""
    origin = Gated(chunks=[b"%06d" % number * 1_000 for number in range(200)])
    app = Stack(Cache(max_entry_bytes=20_000), env=Env(clock=clock))(origin)
    whole: list[bool] = []

    async def client(pause: int) -> None:
        got: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            got.append(message.get("body", b""))
            for _ in range(pause):
                await anyio.lowlevel.checkpoint()

        await app(http(), receive, send)
        whole.append(b"".join(got) == b"".join(origin.chunks))

    async with anyio.create_task_group() as group:
        group.start_soon(client, 0)
        await settle()
        for pause in (0, 5, 50):
            group.start_soon(client, pause)
        await settle()
        origin.go()
    assert whole == [True] * 4
    assert len(origin.asked) == 2


async def test_one_alone_may_take_their_time(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    monkeypatch.setattr(detached, "_PATIENCE", 0.01)
    origin = Gated(headers=[FRESH, (b"etag", b'"1"')])
    app = Stack(Cache(max_entry_bytes=10_000), env=Env(clock=clock))(origin)
    origin.go()
    await call(app)
    clock.advance(61)
    origin.chunks = [b"x" * 65536] * 20
    got: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        got.append(len(message.get("body", b"")))
        if len(got) in (2, 9):
            await anyio.sleep(0.05)

    await app(http(), receive, send)
    assert sum(got) == 20 * 65536


async def test_processes_ask_the_app_once(clock: FakeClock) -> None:
    origin, entries = Gated(), Elsewhere()
    apps = [Stack(Cache(), env=Env(clock=clock, entries=entries), place="here")(origin) for _ in range(4)]
    crowds = [Crowd(app) for app in apps]
    async with anyio.create_task_group() as group:
        for crowd in crowds:
            crowd.comes(group, 5)
        await settle()
        assert len(origin.asked) == 1
        origin.go()
    assert [each.body for crowd in crowds for each in crowd.answers] == [b"whole"] * 20
    assert len(origin.asked) == 1
    assert not any(b"lease" in key for key in entries.kept)


class Racing(Elsewhere):
    """Lets another process finish between a look that found nothing and what comes next."""

    meanwhile: Callable[[], None] | None = None

    async def get(self, key: bytes) -> bytes | None:
        found = await super().get(key)
        if found is None and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
            await settle()
        return found


async def test_what_another_process_stores_right_after_a_look_is_found(clock: FakeClock) -> None:
    origin, entries = Gated(), Racing()
    apps = [Stack(Cache(), env=Env(clock=clock, entries=entries), place="here")(origin) for _ in range(2)]
    crowds = [Crowd(app) for app in apps]
    async with anyio.create_task_group() as group:
        crowds[0].comes(group, 1)
        await settle()
        crowds[1].comes(group, 1)
        await settle()
        entries.meanwhile = origin.go
    assert [each.body for crowd in crowds for each in crowd.answers] == [b"whole"] * 2
    assert len(origin.asked) == 1


async def test_a_lease_is_given_back_though_what_is_kept_has_got_variants_meanwhile(clock: FakeClock) -> None:
    """What it is called by was looked up once more, and was another by then."""
    origin, entries = Gated(headers=[FRESH, (b"vary", b"accept-language")]), Elsewhere()
    apps = [Stack(Cache(), env=Env(clock=clock, entries=entries), place="here")(origin) for _ in range(2)]
    crowds = [Crowd(app) for app in apps]
    async with anyio.create_task_group() as group:
        crowds[0].comes(group, 1)
        await settle()
        crowds[1].comes(group, 1)
        await settle()
        origin.go()
    await settle()
    assert len(origin.asked) == 1
    assert list(entries.kept) == [key := entries.pages[0], key + b".seal"]


async def test_a_process_that_died_while_it_asked_holds_up_nobody_for_long(clock: FakeClock) -> None:
    entries = Elsewhere()
    apps = [
        Stack(Cache(collapse_wait=0.05), env=Env(clock=clock, entries=entries), place="here")(origin)
        for origin in (Gated(), Gated())
    ]
    with anyio.CancelScope() as killed:
        async with anyio.create_task_group() as group:
            group.start_soon(call, apps[0])
            await settle()
            kept = dict(entries.kept)
            killed.cancel()
    await settle()
    entries.kept.update(kept)  # a killed process takes nothing back
    second = Gated()
    second.go()
    app = Stack(Cache(collapse_wait=0.05), env=Env(clock=clock, entries=entries), place="here")(second)
    assert (await call(app)).body == b"whole"


async def test_nobody_is_given_what_was_asked_for_before_a_change_that_came_first(guarded: Guarded) -> None:
    """A client that has just changed something asks for it while the app still answers an earlier request."""

    class Changing(Gated):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "GET":
                await super().__call__(scope, receive, send)
            else:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"changed"})

    origin = Changing()
    crowd = Crowd(guarded(origin))
    async with anyio.create_task_group() as group:
        await crowd.follows(group, 2)
        assert len(origin.asked) == 1
        await call(crowd.app, "POST")
        crowd.comes(group, 1)
        await settle()
        assert len(origin.asked) == 2
        origin.go()
    assert len(origin.asked) == 2


async def test_work_after_the_response_holds_up_nobody_and_is_not_cut_short(clock: FakeClock, guarded: Guarded) -> None:
    """Starlette runs background tasks in the same call."""
    worked: list[str] = []
    gate = anyio.Event()

    async def works(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH, (b"etag", b'"%d"' % len(worked))]})
        await send({"type": "http.response.body", "body": b"whole"})
        await gate.wait()
        worked.append("done")

    app = guarded(works)
    gate.set()
    await call(app)
    clock.advance(61)
    gate = anyio.Event()
    assert (await call(app)).body == b"whole"
    assert status(await call(app)) == "apim;hit;ttl=60"
    assert worked == ["done"]
    gate.set()
    await settle()
    assert worked == ["done", "done"]


async def test_an_app_that_fails_after_its_response_is_logged(
    clock: FakeClock, guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [FRESH]})
        await send({"type": "http.response.body", "body": b"whole"})
        if clock.now() > 1_800_000_000:
            raise RuntimeError("boom")

    app = guarded(fails)
    await call(app)
    clock.advance(61)
    assert (await call(app)).body == b"whole"
    await settle()
    assert caplog.messages == ["the app failed after its response"]


async def test_what_policies_further_in_look_for_is_known_to_them_in_a_task_of_its_own(
    clock: FakeClock, guarded: Guarded
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Notes(Policy):
        def on_request(self, exchange: Exchange) -> None:
            exchange.attributes["plan"] = "gold"

    seen: list[Any] = []

    @dataclass(frozen=True, kw_only=True)
    class Looks(Policy):
        guards: ClassVar[bool] = False

        def on_request(self, exchange: Exchange) -> None:
            seen.append(exchange.attributes.get("plan"))

    origin = Gated()
    origin.go()
    app = guarded(origin, Notes(), Cache(), Looks())
    await call(app)
    clock.advance(61)
    await call(app)
    assert seen == ["gold", "gold"]
