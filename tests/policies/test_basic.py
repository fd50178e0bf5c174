"""Who knows the password of an active user comes in; nobody learns which users there are, and nothing stands still."""

import base64
import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Stack
from apim_middleware.stores.users import ISSUER, Cost, MemoryUsers, UserRecord
from apim_middleware.testing import Answer, FakeClock, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

CHEAP = Cost(ln=4, r=1, p=1)
CHALLENGE = b'Basic realm="api", charset="UTF-8"'
ADA = ("ada", "correct horse")


def basic(name: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


class Distant:
    """A store one has to wait for."""

    def __init__(self, users: MemoryUsers) -> None:
        self.users, self.cost = users, users.cost
        self.failing = False

    async def find(self, name: str) -> UserRecord | None:
        await anyio.lowlevel.checkpoint()
        if self.failing:
            raise StoreError("connection refused\r\nFORGED")
        return self.users.find(name)


class House:
    """An app behind a password check, with a clock; keeps what reached the app."""

    def __init__(self, *, distant: bool = False, **fields: Any) -> None:
        self.clock = FakeClock()
        self.memory = MemoryUsers(cost=CHEAP)
        self.memory.add(*ADA, scopes="orders.read", claims={"roles": ("editor",)})
        self.memory.add("bob", "battery staple")
        self.store = Distant(self.memory)
        self.policy = BasicAuth(**{"users": self.store if distant else self.memory, **fields})
        self.seen: list[Scope] = []
        self.app = Stack(self.policy, env=Env(clock=self.clock))(self.inner)

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(dict(scope))
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in", "more_body": True})
        await send({"type": "http.response.body", "body": b"side"})

    async def ask(self, name: str, password: str, **more: Any) -> Answer:
        return await self.send(basic(name, password), **more)

    async def send(self, *values: bytes, **more: Any) -> Answer:
        return await call(self.app, headers=[(b"authorization", value) for value in values], **more)


@pytest.fixture(params=["memory", "distant"])
def house(request: pytest.FixtureRequest) -> House:
    return House(distant=request.param == "distant")


class Mill:
    """The real scrypt, watched: what it was asked, how many at once, and held up when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[bytes, int, int, int]] = []
        self.most = self.now = 0
        self.lock = threading.Lock()
        self.came = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.real = hashlib.scrypt
        monkeypatch.setattr(hashlib, "scrypt", self)

    def __call__(self, password: bytes, **more: Any) -> bytes:
        with self.lock:
            self.asked.append((password, more["n"], more["r"], more["p"]))
            self.now += 1
            self.most = max(self.most, self.now)
        self.came.release()
        self.go_on.wait()
        with self.lock:
            self.now -= 1
        return self.real(password, **more)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What is hashed stays at it meanwhile."""
        self.go_on.clear()
        try:
            yield
        finally:
            self.go_on.set()

    async def at_work(self) -> None:
        """Return when one more has begun; the loop goes on meanwhile."""
        await anyio.to_thread.run_sync(self.came.acquire)


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


# Let in


@pytest.mark.anyio
async def test_the_right_password_lets_its_user_in(house: House) -> None:
    for name, password in (ADA, ("bob", "battery staple"), ADA):
        answer = await house.ask(name, password)
        assert (answer.status, answer.body) == (200, b"inside")
        assert house.seen[-1]["user"].subject == name


@pytest.mark.anyio
async def test_the_user_is_a_principal_with_what_is_granted(house: House) -> None:
    await house.ask(*ADA)
    user = house.seen[0]["user"]
    assert (user.subject, user.issuer, user.scopes) == ("ada", ISSUER, {"orders.read"})
    assert user.claims == {"roles": ("editor",)}
    assert house.seen[0]["auth"] is user


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", [b"basic", b"BASIC", b"bAsIc"])
async def test_the_scheme_has_no_case(scheme: bytes) -> None:
    """RFC 9110 section 11.1."""
    assert (await House().send(basic(*ADA).replace(b"Basic", scheme))).status == 200


@pytest.mark.anyio
async def test_an_umlaut_is_one_however_it_is_typed() -> None:
    house = House()
    house.memory.add("zo\u00eb", "\u00fcber")
    assert (await house.ask("zoe\u0308", "u\u0308ber")).status == 200
    assert house.seen[0]["user"].subject == "zo\u00eb"


# The credentials go no further


@pytest.mark.anyio
async def test_the_credentials_are_taken_out_unless_asked_for() -> None:
    house, forwarding = House(), House(forward_credentials=True)
    await house.ask(*ADA)
    await forwarding.ask(*ADA)
    assert house.seen[0]["headers"] == [(b"host", b"testserver")]
    assert (b"authorization", basic(*ADA)) in forwarding.seen[0]["headers"]


@pytest.mark.anyio
async def test_no_password_is_in_the_log_or_in_an_answer(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [await house.ask("ada", "s3cret-guess"), await house.send(b"Basic s3cret"), await house.ask(*ADA)]
    house.store.failing = True
    answers.append(await house.ask(*ADA))
    shown = caplog.text + repr([answer.messages for answer in answers]) + repr(house.policy)
    for secret in ("s3cret", "correct horse", basic(*ADA).decode()[6:], "scrypt$"):
        assert secret not in shown


# Refused


@pytest.mark.anyio
async def test_without_credentials_there_is_a_challenge(house: House) -> None:
    for values in ((), (b"Bearer abc",), (b"",)):
        answer = await house.send(*values)
        assert (answer.status, code(answer)) == (401, "credentials-missing")
        assert answer.all(b"www-authenticate") == [CHALLENGE]
    assert house.seen == []


BAD = {
    "wrong password": basic("ada", "wrong horse"),
    "other case": basic("ada", "Correct Horse"),
    "longer": basic("ada", "correct horse "),
    "shorter": basic("ada", "correct hors"),
    "unknown user": basic("eve", "correct horse"),
    "name in other case": basic("Ada", "correct horse"),
    "another's password": basic("bob", "correct horse"),
    "empty name": basic("", "correct horse"),
    "empty password": basic("ada", ""),
    "no colon": b"Basic " + base64.b64encode(b"ada"),
    "nothing": b"Basic",
    "not base64": b"Basic !!!",
    "control character": basic("ada\n", "correct horse"),
    "NUL": basic("ada\0", "correct horse"),
    "not UTF-8": b"Basic " + base64.b64encode(b"ada:\xff"),
    "huge": b"Basic " + b"A" * 16_000,
    "two in one": basic(*ADA) + b", " + basic(*ADA),
    "hash as password": basic("ada", "$scrypt$ln=4,r=1,p=1$"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BAD)
async def test_bad_credentials_get_one_answer(house: House, name: str) -> None:
    answer = await house.send(BAD[name])
    assert answer.messages == (await house.ask("nobody", "x")).messages
    assert (answer.status, code(answer)) == (401, "credentials-invalid")
    assert answer.all(b"www-authenticate") == [CHALLENGE]
    assert house.seen == []


@pytest.mark.anyio
@pytest.mark.parametrize("swap", [False, True])
async def test_two_authorization_headers_are_refused(house: House, swap: bool) -> None:
    """Whatever their order; hygiene refuses them before any policy."""
    values = [basic(*ADA), basic("eve", "x")]
    answer = await house.send(*(values[::-1] if swap else values))
    assert (answer.status, code(answer)) == (400, "duplicate-header")


@pytest.mark.anyio
async def test_a_suspended_user_and_one_who_is_gone_get_the_same_answer(house: House) -> None:
    unknown = await house.ask("eve", "x")
    assert (await house.ask(*ADA)).status == 200
    house.memory.suspend("ada")
    assert (await house.ask(*ADA)).messages == unknown.messages
    house.memory.resume("ada")
    assert (await house.ask(*ADA)).status == 200
    house.memory.remove("ada")
    assert (await house.ask(*ADA)).messages == unknown.messages


@pytest.mark.anyio
async def test_somebody_who_is_not_there_costs_as_much_as_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the work that is done and not by a watch."""
    house = House()
    mill = Mill(monkeypatch)
    house.memory.suspend("bob")
    mill.asked.clear()
    for name in ("ada", "eve", "bob"):
        await house.ask(name, "wrong")
    assert mill.asked == [(b"wrong", 2**CHEAP.ln, CHEAP.r, CHEAP.p)] * 3


@given(st.binary(max_size=80))
def test_any_header_is_judged_without_an_error(value: bytes) -> None:
    house = House()
    for each in (value, b"Basic " + value):
        exchange = Exchange(http_scope(headers=[(b"authorization", each)]))
        with pytest.raises(Refusal) as caught:
            anyio.run(house.policy.bind(Env()).on_request, exchange)
        assert caught.value.status == 401


# Optional


@pytest.mark.anyio
async def test_optional_credentials_may_be_missing_and_must_be_good_when_they_are_there() -> None:
    house = House(optional=True)
    assert (await house.send()).status == 200
    assert "user" not in house.seen[0]
    assert (await house.send(b"Bearer abc")).status == 200
    assert (b"authorization", b"Bearer abc") in house.seen[1]["headers"]
    for value in (basic("ada", "wrong"), b"Basic", b"basic !"):
        assert (await house.send(value)).status == 401


# What is remembered


@pytest.mark.anyio
async def test_good_credentials_are_hashed_once_and_bad_ones_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    mill = Mill(monkeypatch)
    for _ in range(3):
        await house.ask(*ADA)
    assert len(mill.asked) == 1
    for _ in range(3):
        await house.ask("ada", "wrong")
    assert len(mill.asked) == 4


@pytest.mark.anyio
async def test_what_is_remembered_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(remember_for=60)
    mill = Mill(monkeypatch)
    await house.ask(*ADA)
    house.clock.advance(59)
    await house.ask(*ADA)
    assert len(mill.asked) == 1
    house.clock.advance(1)
    await house.ask(*ADA)
    assert len(mill.asked) == 2


@pytest.mark.anyio
async def test_a_changed_password_counts_at_once(house: House) -> None:
    assert (await house.ask(*ADA)).status == 200
    house.memory.change_password("ada", "another")
    assert (await house.ask(*ADA)).status == 401
    assert (await house.ask("ada", "another")).status == 200


@pytest.mark.anyio
async def test_the_memory_is_bounded_and_holds_no_password() -> None:
    house = House(max_remembered=2)
    app = Stack(house.policy)(house.inner)
    for number in range(5):
        house.memory.add(f"user{number}", "pass-word")
        assert (await call(app, headers=[(b"authorization", basic(f"user{number}", "pass-word"))])).status == 200
    gate = app.seats[0].hooks  # type: ignore[attr-defined]
    assert len(gate._memory._known) == 2
    assert b"pass-word" not in repr(list(gate._memory._known)).encode()
    none = House(max_remembered=0)
    assert (await none.ask(*ADA)).status == 200
    assert (await none.ask(*ADA)).status == 200


# Threads


@pytest.mark.anyio
async def test_the_loop_goes_on_while_passwords_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(at_once=1)
    await house.ask(*ADA)
    mill = Mill(monkeypatch)
    answers: list[Answer] = []

    async def guess() -> None:
        answers.append(await house.ask("bob", "battery staple"))

    async with anyio.create_task_group() as tasks:
        with mill.held():
            tasks.start_soon(guess)
            await mill.at_work()
            assert (await house.ask(*ADA)).status == 200
            assert answers == []
    assert answers[0].status == 200


@pytest.mark.anyio
async def test_few_are_hashed_at_once_and_a_long_line_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(at_once=2, queue=3)
    mill = Mill(monkeypatch)
    answers: list[Answer] = []

    async def guess(number: int) -> None:
        answers.append(await house.ask("ada", f"guess {number}"))

    async with anyio.create_task_group() as tasks:
        with mill.held():
            for number in range(20):
                tasks.start_soon(guess, number)
            await mill.at_work()
            await mill.at_work()
            await anyio.wait_all_tasks_blocked()
            assert len(answers) == 15
            assert {answer.status for answer in answers} == {503}
            assert code(answers[0]) == "authentication-busy"
            assert answers[0].header(b"retry-after") == b"1"
    assert sorted(answer.status for answer in answers) == [401] * 5 + [503] * 15
    assert (mill.most, len(mill.asked)) == (2, 5)
    assert (await house.ask(*ADA)).status == 200


@pytest.mark.anyio
async def test_many_requests_of_one_user_at_once_are_hashed_as_few_times_as_possible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(at_once=1)
    mill = Mill(monkeypatch)
    answers: list[Answer] = []

    async def ask() -> None:
        answers.append(await house.ask(*ADA))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ask)
    assert [answer.status for answer in answers] == [200] * 10
    assert len(mill.asked) == 1


@pytest.mark.anyio
async def test_who_is_cancelled_in_the_line_leaves_no_place_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(at_once=1, queue=1)
    mill = Mill(monkeypatch)
    waiting = anyio.CancelScope()

    def waiting_in_line() -> int:
        gate = house.app.seats[0].hooks  # type: ignore[attr-defined]
        found: int = gate._mill._room().turns.statistics().tasks_waiting
        return found

    async def first() -> None:
        await house.ask("ada", "guess")

    async def second() -> None:
        with waiting:
            await house.ask("bob", "guess")

    async with anyio.create_task_group() as tasks:
        with mill.held():
            tasks.start_soon(first)
            await mill.at_work()
            tasks.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            assert waiting_in_line() == 1
            waiting.cancel()
            await anyio.wait_all_tasks_blocked()
            assert waiting_in_line() == 0
    assert (await house.ask(*ADA)).status == 200
    assert len(mill.asked) == 2


def test_one_gate_serves_one_event_loop_after_another() -> None:
    house = House()
    for backend in ("asyncio", "trio", "asyncio"):
        house.memory.change_password("ada", "another")
        assert anyio.run(house.ask, "ada", "another", backend=backend).status == 200


# The store


@pytest.mark.anyio
async def test_nobody_comes_in_while_the_store_is_down(caplog: pytest.LogCaptureFixture) -> None:
    house = House(distant=True)
    assert (await house.ask(*ADA)).status == 200
    house.store.failing = True
    answer = await house.ask(*ADA)
    assert (answer.status, code(answer)) == (503, "user-store-unavailable")
    assert all(record.getMessage().isprintable() for record in caplog.records)
    house.store.failing = False
    assert (await house.ask(*ADA)).status == 200


@pytest.mark.anyio
async def test_an_outage_is_told_of_once_and_the_next_one_again(caplog: pytest.LogCaptureFixture) -> None:
    house = House(distant=True)
    for failing in (True, True, True, False, False, True, True):
        house.store.failing = failing
        assert (await house.ask(*ADA)).status == (503 if failing else 200)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


@pytest.mark.anyio
@pytest.mark.parametrize("given_back", [True, "ada", {"name": "ada"}])
async def test_a_store_that_gives_back_nonsense_lets_nobody_in(given_back: object) -> None:
    class Odd:
        cost = CHEAP

        def find(self, name: str) -> Any:
            return given_back

    house = House(users=Odd())
    assert (await house.ask(*ADA)).status == 500
    assert house.seen == []


# WebSockets, mounts, streams, endings


@pytest.mark.anyio
async def test_a_websocket_handshake_is_judged_like_a_request(house: House) -> None:
    assert (await connect(house.app, headers=[(b"authorization", basic(*ADA))])).status == 101
    refused = await connect(house.app)
    assert (refused.status, code(refused)) == (401, "credentials-missing")
    closed = await connect(house.app, headers=[(b"authorization", basic("ada", "x"))], denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "credentials-invalid"}]


@pytest.mark.anyio
async def test_mounted_apps_unknown_paths_and_options_are_no_way_around() -> None:
    async def fine(request: Any) -> PlainTextResponse:
        return PlainTextResponse("fine")

    inner = Starlette(routes=[Route("/a", fine)])
    guarded = Stack(House().policy)(Starlette(routes=[Mount("/api", inner)]))
    for method, path in (("GET", "/api/a"), ("GET", "/nowhere"), ("OPTIONS", "/api/a"), ("HEAD", "/api/a")):
        assert (await call(guarded, method, path)).status == 401


@pytest.mark.anyio
async def test_an_error_of_the_app_passes_through(house: House) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    house.app = Stack(house.policy)(broken)
    with pytest.raises(RuntimeError, match="the app"):
        await house.ask(*ADA)


@pytest.mark.anyio
async def test_a_client_that_leaves_leaves_nothing_behind(house: House) -> None:
    with pytest.raises(OSError, match="gone"):
        await house.ask(*ADA, leave_after=1)
    assert (await house.ask(*ADA)).status == 200


# Order and configuration


def test_it_provides_a_principal_and_guards() -> None:
    assert BasicAuth.provides == {"principal"}
    with pytest.raises(ConfigError, match="Write BasicAuth before Cache"):
        Stack(Cache(ttl=60), House().policy)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("users", {"users": None}),
        ("users", {"users": {"ada": "secret-password"}}),
        ("users", {"users": "ada:secret-password"}),
        ("realm", {"realm": ""}),
        ("realm", {"realm": 'a"'}),
        ("realm", {"realm": "a\r\nb"}),
        ("at_once", {"at_once": 0}),
        ("queue", {"queue": -1}),
        ("max_remembered", {"max_remembered": -1}),
        ("remember_for", {"remember_for": -1}),
        ("remember_for", {"remember_for": float("inf")}),
        ("remember_for", {"remember_for": float("nan")}),
        ("user", {"user": "ada"}),
    ],
)
def test_a_mistake_is_told_while_building_and_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        BasicAuth(**{"users": MemoryUsers(cost=CHEAP), **fields})
    assert (caught.value.policy, caught.value.field) == ("BasicAuth", field)
    assert "secret-password" not in str(caught.value)
