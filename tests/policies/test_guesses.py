"""Who guesses is kept out for a while, however it is done; who does not, hardly notices."""

import base64
import json
from typing import Any

import anyio
import jwt
import pytest

from apim_middleware import by
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.identity import Subscription
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policies.client import IPFilter
from apim_middleware.policies.either import AnyOf
from apim_middleware.policies.guesses import LimitGuesses
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.keys import MemoryKeys, new_key
from apim_middleware.stores.users import Cost, MemoryUsers
from apim_middleware.testing import Answer, FakeClock, call, connect
from apim_middleware.types import Receive, Scope, Send

from .counting import AWAY, Counting, SlowCounters, from_address, quiet

HEADER = b"ocp-apim-subscription-key"
SECRET = "s" * 64
CHEAP = Cost(ln=4, r=8, p=1)


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


def basic(name: str, password: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Basic " + base64.b64encode(f"{name}:{password}".encode())


def bearer(clock: FakeClock, key: str = SECRET) -> tuple[bytes, bytes]:
    claims = {"iss": "issuer", "aud": "api", "sub": "ada", "exp": clock.now() + 3600}
    return b"authorization", f"Bearer {jwt.encode(claims, key, algorithm='HS256')}".encode()


class House:
    """Keys, users and tokens behind a limit of three failures a minute."""

    def __init__(self, env: Env, *, app: Any = None, authenticator: Policy | None = None, **fields: Any) -> None:
        self.keys, self.users = MemoryKeys(), MemoryUsers(cost=CHEAP)
        self.good = []
        for name in ("ada", "bob"):
            self.keys.add(Subscription(id=name))
            self.good.append((HEADER, self.keys.issue(name).encode()))
        self.users.add("eve", "right")
        self.env = env
        self.limit = LimitGuesses(**{"failures": 3, **fields})
        self.inside = app or Counting()
        layers = [self.limit, authenticator or APIKeyAuth(keys=self.keys)]
        self.app = Stack(*layers, env=env, place="here")(self.inside)

    async def ask(self, *lines: tuple[bytes, bytes], **more: Any) -> Answer:
        answer = await call(self.app, headers=lines, **more)
        await quiet()
        return answer

    async def guess(self, **more: Any) -> Answer:
        return await self.ask((HEADER, new_key().encode()), **more)


# Guessing


@pytest.mark.anyio
async def test_who_has_failed_too_often_is_kept_out_and_told_for_how_long(env: Env, clock: FakeClock) -> None:
    house = House(env)
    assert [(await house.guess()).status for _ in range(3)] == [401] * 3
    answer = await house.guess()
    assert (answer.status, code(answer)) == (429, "too-many-failures")
    wait = int(answer.header(b"retry-after") or 0)
    assert 0 < wait <= 60
    clock.advance(wait)
    assert (await house.guess()).status == 401


@pytest.mark.anyio
async def test_a_right_guess_is_refused_too_while_the_doors_are_closed(env: Env) -> None:
    """Else the refusals would tell which guess is right."""
    house = House(env)
    for _ in range(3):
        await house.guess()
    assert (await house.ask(house.good[0])).status == 429


@pytest.mark.anyio
async def test_a_thousand_guesses_try_no_more_than_the_limit_allows(env: Env, clock: FakeClock) -> None:
    house = House(env)
    tried = 0
    for _ in range(1_000):
        tried += (await house.guess()).status == 401
        clock.advance(0.6)
    assert tried <= 3 * 11  # three a minute in ten minutes, and what a sliding window lets pass at its edges


@pytest.mark.anyio
async def test_guesses_made_at_the_same_time_are_not_more(env: Env) -> None:
    house = House(env)
    answers: list[int] = []

    async def guess() -> None:
        answers.append((await call(house.app, headers=[(HEADER, new_key().encode())])).status)

    for _ in range(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(guess)
        await quiet()
    assert answers.count(401) <= 5  # those of the first wave are under way together where the store is slow
    assert answers.count(429) >= 45


class Waiting:
    """Keys nobody has, looked for until ``found`` is set: how many are asked for."""

    def __init__(self) -> None:
        self.asked, self.found = 0, anyio.Event()

    async def find(self, digest: bytes) -> None:
        self.asked += 1
        await self.found.wait()


async def at_once(house: House, number: int, waiting: Waiting | None = None, **more: Any) -> list[Answer]:
    """The answers to so many guesses, none of which is judged before all have been made."""
    answers = list[Answer]()

    async def guess() -> None:
        answers.append(await call(house.app, headers=[(HEADER, new_key().encode())], **more))

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(guess)
        await quiet()
        if waiting is not None:
            waiting.found.set()
    await quiet()
    return answers


@pytest.mark.anyio
async def test_no_more_guesses_are_tried_at_once_than_was_said(env: Env) -> None:
    """A thousand guesses at once were all tried, for none had failed when the last one came."""
    waiting = Waiting()
    house = House(env, at_once=5, authenticator=APIKeyAuth(keys=waiting))
    answers = await at_once(house, 1_000, waiting)
    assert waiting.asked == [answer.status for answer in answers].count(401) == 5
    assert (await house.guess()).status == 429


@pytest.mark.anyio
async def test_who_comes_while_too_many_are_tried_is_told_to_come_again_in_a_moment(env: Env) -> None:
    waiting = Waiting()
    house = House(env, at_once=1, authenticator=APIKeyAuth(keys=waiting))
    refused, tried = await at_once(house, 2, waiting)
    assert (refused.status, code(refused), refused.header(b"retry-after")) == (429, "too-many-attempts", b"1")
    assert tried.status == 401


@pytest.mark.anyio
async def test_guesses_at_once_of_one_client_keep_no_other_out(env: Env) -> None:
    waiting = Waiting()
    house = House(env, at_once=1, authenticator=APIKeyAuth(keys=waiting))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.guess)
        await quiet()
        tasks.start_soon(lambda: house.guess(**from_address("198.51.100.1")))
        await quiet()
        assert waiting.asked == 2
        waiting.found.set()


@pytest.mark.anyio
async def test_who_is_known_may_come_often_at_once(env: Env) -> None:
    inside, done = 0, anyio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal inside
        inside += 1
        if inside > 1:
            await done.wait()
        await Counting()(scope, receive, send)

    house = House(env, app=slow, at_once=2)
    await house.ask(house.good[0])
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(house.ask, house.good[0])
        await quiet()
        assert inside == 21
        answer = await house.ask(house.good[0])
        assert (answer.status, code(answer), answer.header(b"retry-after")) == (429, "too-many-attempts", b"1")
        tasks.start_soon(house.ask, house.good[1])
        await quiet()
        assert inside == 22
        done.set()
    assert (await house.ask(house.good[0])).status == 200


class Form:
    """A login form behind a key, which answers when it is told to."""

    def __init__(self) -> None:
        self.tried, self.answers = 0, anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            self.tried += 1
            await self.answers.wait()
        status = 401 if scope["method"] == "POST" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.anyio
@pytest.mark.parametrize(("fields", "most"), [({"at_once": 2}, 20), ({"known_at_once": 7}, 7)])
async def test_a_key_of_ones_own_makes_no_more_guesses_at_once_than_was_said(
    env: Env, fields: dict[str, int], most: int
) -> None:
    """Known credentials were not counted, so that a thousand passwords could be tried before the first had failed."""
    form = Form()
    house = House(env, app=form, **fields)
    await house.ask(house.good[0])
    async with anyio.create_task_group() as tasks:
        for _ in range(1_000):
            tasks.start_soon(lambda: house.ask(house.good[0], method="POST"))
        await quiet()
        form.answers.set()
    await quiet()
    assert form.tried == most
    assert (await house.ask(house.good[0])).status == 429


@pytest.mark.anyio
async def test_a_request_held_back_makes_nothing_known_again_that_has_failed_meanwhile(env: Env) -> None:
    form, held = Form(), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/held":
            await held.wait()
        await form(scope, receive, send)

    house = House(env, app=app)
    form.answers.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: house.ask(house.good[0], path="/held"))
        await quiet()
        await house.ask(house.good[0])
        tried = [(await house.ask(house.good[0], method="POST")).status for _ in range(4)]
        held.set()
    assert tried == [401, 401, 401, 429]
    assert (await house.ask(house.good[0])).status == 429


async def tried_at(house: House, layer: Policy, *lines: tuple[bytes, bytes], number: int = 6) -> list[int]:
    """What becomes of so many wrong passwords."""
    app = Stack(house.limit, layer, env=house.env, place="ways")(house.inside)
    found = []
    for each in range(number):
        found.append((await call(app, headers=[basic("eve", f"guess {each}"), *lines])).status)
        await quiet()
    return found


OFFICE = Stack(IPFilter(allow="198.51.100.0/24"), RequireHeader(name="x-device"))


def passwords(house: House) -> Policy:
    return BasicAuth(users=house.users)


def keys(house: House) -> Policy:
    return APIKeyAuth(keys=house.keys)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ways", "status"),
    [
        (lambda house: AnyOf(OFFICE, passwords(house), when_bad="next"), 403),
        (lambda house: AnyOf(passwords(house), keys(house), when_bad="next"), 200),
        (lambda house: AnyOf(AnyOf(passwords(house), OFFICE, when_bad="next"), keys(house), when_bad="next"), 200),
        (lambda house: AnyOf(AnyOf(passwords(house), keys(house), when_bad="next"), OFFICE), 200),
    ],
    ids=["another refuses", "another lets in", "nested", "nested lets in"],
)
async def test_a_wrong_password_counts_though_another_way_gives_the_answer(env: Env, ways: Any, status: int) -> None:
    """It did not: the refusal was another's, or what was known of it was undone when another let in."""
    house = House(env)
    assert await tried_at(house, ways(house), house.good[0]) == [status] * 3 + [429] * 3


@pytest.mark.anyio
async def test_a_wrong_password_beside_a_good_token_of_another_place_counts(env: Env, clock: FakeClock) -> None:
    house = House(env)
    token = bearer(clock)[1].removeprefix(b"Bearer ")
    places = ("header:authorization", "cookie:t")
    tokens = JWTAuth(issuer="issuer", audience="api", keys=SECRET.encode(), algorithms="HS256", token_from=places)
    ways = AnyOf(BasicAuth(users=house.users), tokens, when_bad="next")
    assert await tried_at(house, ways, (b"cookie", b"t=" + token)) == [200, 200, 200, 429, 429, 429]


@pytest.mark.anyio
async def test_what_is_good_to_another_who_reads_it_is_no_failure(env: Env, clock: FakeClock) -> None:
    """One ``JWTAuth`` for each issuer: the tokens of the second are bad to the first."""
    house = House(env)
    staff, places = b"t" * 64, ("header:authorization", "cookie:t")
    first = JWTAuth(issuer="staff", audience="api", keys=staff, algorithms="HS256")
    second = JWTAuth(issuer="issuer", audience="api", keys=SECRET.encode(), algorithms="HS256", token_from=places)
    app = Stack(house.limit, AnyOf(first, second, when_bad="next"), env=env, place="ways")(house.inside)
    for _ in range(6):
        assert (await call(app, headers=[bearer(clock), (b"cookie", b"theme=dark")])).status == 200
        await quiet()


@pytest.mark.anyio
@pytest.mark.parametrize("trusted_for", [0, 100])
async def test_whatever_becomes_of_a_request_it_is_on_its_way_no_more(env: Env, trusted_for: float) -> None:
    house = House(env, at_once=1, failures=100, trusted_for=trusted_for)
    for ask in (house.guess, house.ask, lambda: house.ask(house.good[0])):
        await ask()
        with pytest.raises(OSError, match="gone"):
            await house.guess(leave_after=0)
    house.inside.failure = RuntimeError("the app")
    with pytest.raises(RuntimeError, match="the app"):
        await house.ask(house.good[1])
    assert (await house.guess()).status == 401


@pytest.mark.anyio
async def test_who_is_kept_out_is_on_their_way_no_more(env: Env) -> None:
    house = House(env, at_once=1, failures=1)
    await house.guess()
    assert [code(await house.guess()) for _ in range(3)] == ["too-many-failures"] * 3


@pytest.mark.anyio
async def test_nothing_is_kept_of_requests_that_are_over(env: Env) -> None:
    house = House(env)
    await house.guess()
    await house.ask(house.good[0])
    assert not env.at("here").bind(house.limit).on_request.__self__._open


@pytest.mark.anyio
async def test_the_name_of_a_user_in_a_header_is_no_guess(env: Env) -> None:
    """A front names the user; that the app asks for more then is no failure of theirs."""
    house = House(env, failures=1)
    statuses = [(await house.ask((b"x-consumer-username", b"ada"))).status for _ in range(4)]
    assert statuses == [401] * 4


@pytest.mark.anyio
async def test_failures_of_one_client_keep_no_other_out(env: Env) -> None:
    house = House(env)
    for _ in range(4):
        await house.guess()
    assert (await house.ask(house.good[0], **from_address("198.51.100.1"))).status == 200


@pytest.mark.anyio
async def test_the_addresses_of_one_network_are_one_client(env: Env) -> None:
    house = House(env)
    statuses = [(await house.guess(**from_address(f"2001:db8::{number}"))).status for number in range(4)]
    assert statuses == [401, 401, 401, 429]


@pytest.mark.anyio
async def test_a_name_is_guarded_wherever_the_guesses_come_from(env: Env) -> None:
    house = House(env, by=by.either(by.username, by.client), trusted_for=0)
    house.app = Stack(house.limit, BasicAuth(users=house.users), env=env, place="there")(house.inside)
    statuses = [
        (await house.ask(basic("eve", f"guess {number}"), **from_address(f"198.51.100.{number}"))).status
        for number in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]
    assert (await house.ask(basic("other", "guess"))).status == 401


# What counts


@pytest.mark.anyio
async def test_a_request_without_credentials_is_no_guess(env: Env) -> None:
    house = House(env)
    assert {(await house.ask()).status for _ in range(10)} == {401}


@pytest.mark.anyio
async def test_good_requests_do_not_count_whatever_becomes_of_them(env: Env) -> None:
    house = House(env, app=Counting(status=404))
    assert {(await house.ask(house.good[0])).status for _ in range(10)} == {404}


@pytest.mark.anyio
async def test_a_401_of_the_app_counts(env: Env) -> None:
    app = Counting(status=401)
    built = Stack(LimitGuesses(failures=3), env=env, place="login")(app)
    for _ in range(5):
        last = await call(built, "POST", "/login")
        await quiet()
    assert (last.status, app.asked) == (429, 3)


AUTHENTICATORS = {
    "key": (lambda house, clock: APIKeyAuth(keys=house.keys), lambda clock: (HEADER, b"guess")),
    "password": (lambda house, clock: BasicAuth(users=house.users), lambda clock: basic("eve", "guess")),
    "nobody's password": (lambda house, clock: BasicAuth(users=house.users), lambda clock: basic("x", "guess")),
    "token": (
        lambda house, clock: JWTAuth(issuer="issuer", audience="api", keys=SECRET.encode(), algorithms=("HS256",)),
        lambda clock: bearer(clock, "t" * 64),
    ),
    "any": (
        lambda house, clock: AnyOf(APIKeyAuth(keys=house.keys), BasicAuth(users=house.users)),
        lambda clock: basic("eve", "guess"),
    ),
    "anybody": (
        lambda house, clock: AnyOf(APIKeyAuth(keys=house.keys), BasicAuth(users=house.users), anonymous=True),
        lambda clock: (HEADER, b"guess"),
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", AUTHENTICATORS)
async def test_the_refusals_of_every_authenticator_count(env: Env, clock: FakeClock, kind: str) -> None:
    make, guess = AUTHENTICATORS[kind]
    house = House(env)
    house.app = Stack(house.limit, make(house, clock), env=env, place="there")(house.inside)
    assert [(await house.ask(guess(clock))).status for _ in range(4)] == [401, 401, 401, 429]


# Neighbours


@pytest.mark.anyio
async def test_a_neighbour_whose_key_was_good_comes_in_while_somebody_guesses(env: Env) -> None:
    house = House(env)
    assert (await house.ask(house.good[0])).status == 200
    for _ in range(20):
        await house.guess()
        assert (await house.ask(house.good[0])).status == 200
    assert (await house.guess()).status == 429


@pytest.mark.anyio
async def test_a_neighbour_nobody_knows_yet_waits_no_longer_than_the_window(env: Env, clock: FakeClock) -> None:
    house = House(env)
    for _ in range(20):
        await house.guess()
    assert (await house.ask(house.good[1])).status == 429
    clock.advance(60)
    assert (await house.ask(house.good[1])).status == 200


@pytest.mark.anyio
async def test_good_credentials_are_known_where_they_came_from_and_nowhere_else(env: Env) -> None:
    house = House(env)
    await house.ask(house.good[0])
    for _ in range(4):
        await house.guess(**from_address("198.51.100.1"))
    assert (await house.ask(house.good[0], **from_address("198.51.100.1"))).status == 429


@pytest.mark.anyio
async def test_good_credentials_are_forgotten_in_time(env: Env, clock: FakeClock) -> None:
    house = House(env, trusted_for=100)
    await house.ask(house.good[0])
    clock.advance(100)
    for _ in range(4):
        await house.guess()
    assert (await house.ask(house.good[0])).status == 429


@pytest.mark.anyio
async def test_who_has_a_key_of_their_own_cannot_guess_more_with_it(env: Env) -> None:
    """A guess in the query beside good credentials in a header, good and bad in turn."""
    house = House(env)
    house.app = Stack(
        house.limit, APIKeyAuth(keys=house.keys, optional=True), BasicAuth(users=house.users), env=env, place="there"
    )(house.inside)
    good = basic("eve", "right")
    tried = 0
    for number in range(50):
        await house.ask(good)
        tried += (await house.ask(good, query=b"subscription-key=guess-%d" % number)).status == 401
    assert tried <= 4


@pytest.mark.anyio
async def test_a_revoked_key_is_trusted_no_more(env: Env) -> None:
    house = House(env)
    await house.ask(house.good[0])
    house.keys.suspend("ada")
    assert [(await house.ask(house.good[0])).status for _ in range(4)] == [401, 401, 401, 429]


@pytest.mark.anyio
async def test_what_is_remembered_of_good_credentials_is_bounded(env: Env) -> None:
    house = House(env)
    seat = env.at("x").bind(house.limit)
    trusted = seat.on_request.__self__._trusted
    for number in range(10_000):
        trusted.keep(f"client {number % 6_000}", b"%d" % number)
    for number in range(100):
        trusted.keep("one", b"%d" % number)
    assert len(trusted._known) == 4_096
    assert max(map(len, trusted._known.values())) == 16


@pytest.mark.anyio
async def test_a_failure_leaves_no_empty_room_behind(env: Env) -> None:
    house = House(env)
    seat = env.at("x").bind(house.limit)
    trusted = seat.on_request.__self__._trusted
    trusted.keep("one", b"1")
    trusted.forget("one", b"1")
    trusted.forget("two", b"1")
    assert trusted._known == {}


# WebSockets, streams, endings, the store


@pytest.mark.anyio
async def test_guesses_at_the_handshake_of_a_websocket_count(env: Env) -> None:
    house = House(env)
    for _ in range(4):
        answer = await connect(house.app, headers=[(HEADER, b"guess")])
        await quiet()
    assert (answer.status, code(answer)) == (429, "too-many-failures")
    assert (await connect(house.app, headers=[house.good[0]], **from_address("198.51.100.1"))).status == 101


@pytest.mark.anyio
async def test_open_streams_hold_nothing(env: Env) -> None:
    """Twenty responses under way at once are no failures of anybody."""
    opened, done = 0, anyio.Event()

    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal opened
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        opened += 1
        await done.wait()
        await send({"type": "http.response.body", "body": b"b"})

    house = House(env, app=streams, at_once=20)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(house.ask, house.good[0])
        while opened < 20:
            await anyio.lowlevel.checkpoint()
        done.set()


@pytest.mark.anyio
async def test_an_app_that_raises_is_no_guess(env: Env) -> None:
    house = House(env, app=Counting(failure=RuntimeError("the app")))
    for _ in range(5):
        with pytest.raises(RuntimeError, match="the app"):
            await house.ask(house.good[0])


@pytest.mark.anyio
async def test_a_guess_counts_though_its_client_leaves_before_the_answer(env: Env) -> None:
    house = House(env)
    for _ in range(3):
        with pytest.raises(OSError, match="gone"):
            await house.guess(leave_after=0)
        await quiet()
    assert (await house.guess()).status == 429


@pytest.mark.anyio
async def test_while_the_store_is_away_failures_are_counted_here(slow: SlowCounters, clock: FakeClock) -> None:
    house = House(Env(clock=clock, counters=slow))
    slow.failure = AWAY
    assert [(await house.guess()).status for _ in range(4)] == [401, 401, 401, 429]


@pytest.mark.anyio
@pytest.mark.parametrize(("choice", "status"), [("refuse", 503), ("allow", 401)])
async def test_what_becomes_of_requests_without_a_store_can_be_said(
    slow: SlowCounters, clock: FakeClock, choice: str, status: int
) -> None:
    house = House(Env(clock=clock, counters=slow), when_store_fails=choice)
    slow.failure = AWAY
    assert {(await house.guess()).status for _ in range(5)} == {status}


@pytest.mark.anyio
async def test_a_caller_without_a_key_is_refused_or_counted_with_the_others(env: Env) -> None:
    house = House(env)
    assert code(await house.guess(client=None)) == "caller-unknown"
    house = House(env, when_unknown="together", name="together")
    assert [(await house.guess(client=None)).status for _ in range(4)] == [401, 401, 401, 429]


# Configuration


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("failures", {"failures": 0}),
        ("failures", {"failures": "many"}),
        ("per", {"per": 0}),
        ("per", {"per": 10**400}),
        ("name", {"name": ""}),
        ("name", {"name": "ä"}),
        ("at_once", {"at_once": 0}),
        ("known_at_once", {"known_at_once": 0}),
        ("trusted_for", {"trusted_for": -1}),
        ("trusted_for", {"trusted_for": float("inf")}),
        ("when_store_fails", {"when_store_fails": "wait"}),
        ("fails", {"fails": 3}),
    ],
)
def test_a_mistake_is_told_while_building_and_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        LimitGuesses(**fields)
    assert (caught.value.policy, caught.value.field) == ("LimitGuesses", field)


def test_a_condition_that_must_be_awaited_is_a_mistake() -> None:
    async def failed(exchange: object) -> bool:
        return True

    with pytest.raises(ConfigError) as caught:
        LimitGuesses(failed=failed)  # type: ignore[arg-type]
    assert caught.value.field == "failed"


def test_two_that_would_count_together_are_a_mistake(clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match="another name"):
        Stack(LimitGuesses(failures=3), LimitGuesses(failures=3, when_unknown="together"), place="here")(Counting())


def test_a_store_that_corrects_nothing_cannot_count_failures(slow: SlowCounters) -> None:
    slow.corrects = lambda limit: False  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"LimitGuesses\.failed: .*needs corrections"):
        Stack(LimitGuesses(), env=Env(counters=slow), place="here")(Counting())


def test_in_a_store_others_see_it_needs_a_place_with_a_name(slow: SlowCounters) -> None:
    with pytest.raises(ConfigError, match="place"):
        Stack(LimitGuesses(), env=Env(counters=slow))(Counting())


def test_it_relies_on_what_its_key_relies_on() -> None:
    assert LimitGuesses().needs == {"client"}


@pytest.mark.anyio
async def test_what_was_counted_stays_when_the_stack_is_built_anew(env: Env) -> None:
    house = House(env)
    for _ in range(3):
        await house.guess()
    house.app = Stack(LimitGuesses(failures=3), APIKeyAuth(keys=house.keys), env=env, place="here")(house.inside)
    assert (await house.guess()).status == 429
