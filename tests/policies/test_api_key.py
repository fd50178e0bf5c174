"""Who has the key of an active subscription comes in, and the key goes no further."""

import contextlib
import hmac
import inspect
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType, SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies import api_key
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.keys import ISSUER, KeyRecord, KeyStore, MemoryKeys, State, key_digest, new_key
from apim_middleware.testing import Answer, FakeClock, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

from .counting import Watch

HEADER = b"ocp-apim-subscription-key"
ADA = Subscription(id="ada", product="starter", owner="ada@example.org")
CHALLENGE = b'AzureApiManagementKey realm="api",name="Ocp-Apim-Subscription-Key",type="header"'


class Distant:
    """A store one has to wait for."""

    def __init__(self, keys: MemoryKeys) -> None:
        self.keys = keys
        self.failing = False

    async def find(self, digest: bytes) -> KeyRecord | None:
        if self.failing:
            raise StoreError("connection refused\r\nFORGED")
        return self.keys.find(digest)


class House:
    """An app behind a key check; keeps what reached the app."""

    def __init__(
        self,
        *,
        distant: bool = False,
        outside: tuple[Policy, ...] = (),
        clock: FakeClock | None = None,
        **fields: Any,
    ) -> None:
        self.memory = MemoryKeys(clock=clock)
        self.memory.add(ADA)
        self.key = self.memory.issue("ada").encode()
        self.other = self.memory.issue("ada", "secondary").encode()
        self.store = Distant(self.memory)
        self.policy = APIKeyAuth(**{"keys": self.store if distant else self.memory, **fields})
        self.seen: list[Scope] = []
        self.exchanges: list[Exchange] = []
        self.app = Stack(*outside, self.policy, env=Env(clock=clock))(self.inner)

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        assert exchange is not None
        self.exchanges.append(exchange)
        self.seen.append(dict(scope))
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in", "more_body": True})
        await send({"type": "http.response.body", "body": b"side"})

    async def ask(self, *keys: bytes, query: bytes = b"", **more: Any) -> Answer:
        return await call(self.app, headers=[(HEADER, key) for key in keys], query=query, **more)


@pytest.fixture(params=["memory", "distant"])
def house(request: pytest.FixtureRequest) -> House:
    return House(distant=request.param == "distant")


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


# Let through


@pytest.mark.anyio
async def test_a_key_in_the_header_lets_its_subscription_in(house: House) -> None:
    for key in (house.key, house.other):
        answer = await house.ask(key)
        assert (answer.status, answer.body) == (200, b"inside")
        assert house.exchanges[-1].subscription == ADA


@pytest.mark.anyio
async def test_a_key_in_the_query_lets_its_subscription_in(house: House) -> None:
    assert (await house.ask(query=b"subscription-key=" + house.key)).status == 200
    assert house.exchanges[-1].subscription == ADA


@pytest.mark.anyio
async def test_a_subscription_is_the_principal_when_nobody_better_is_known(house: House) -> None:
    await house.ask(house.key)
    assert house.exchanges[0].principal == Principal(subject="ada", issuer=ISSUER)
    assert house.seen[0]["user"].identity == house.seen[0]["auth"].identity


class Known(Policy):
    """Somebody has said who is calling."""

    caller = Principal(subject="eve", issuer="https://issuer.example")

    def on_request(self, exchange: Exchange) -> None:
        exchange.principal = self.caller


@pytest.mark.anyio
async def test_a_principal_that_is_known_stays() -> None:
    house = House(outside=(Known(),))
    await house.ask(house.key)
    assert house.exchanges[0].principal is Known.caller
    assert house.exchanges[0].subscription == ADA


@pytest.mark.anyio
async def test_the_same_key_in_both_places_is_one_key(house: House) -> None:
    assert (await house.ask(house.key, house.key, query=b"subscription-key=" + house.key)).status == 200


# The key goes no further


@pytest.mark.anyio
async def test_the_key_is_taken_out_and_the_rest_stays_byte_for_byte(house: House) -> None:
    before, after = (b"x-a", b"1"), (b"X-B".lower(), b" 2")
    await call(
        house.app,
        headers=[before, (HEADER, house.key), after],
        query=b"a=%41+b&subscription-key=" + house.key + b"&&c&subscription%2Dkey=" + house.key,
    )
    assert house.seen[0]["query_string"] == b"a=%41+b&&c"
    assert house.seen[0]["headers"] == [(b"host", b"testserver"), before, after]
    assert house.key.decode() not in repr(house.seen[0])


@pytest.mark.parametrize("made", [tuple, lambda lines: [list(line) for line in lines]])
@pytest.mark.anyio
async def test_header_lines_may_come_in_any_iterables(house: House, made: Any) -> None:
    """ASGI promises no lists of tuples, and adapters of function hosts give lists of lists."""

    async def adapted(scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = made(scope["headers"])
        await house.app(scope, receive, send)

    headers = [(b"host", b"testserver"), (HEADER, house.key), (b"user-agent", b"x")]
    assert (await call(adapted, headers=headers)).status == 200
    assert HEADER not in [name for name, _ in house.seen[0]["headers"]]


@pytest.mark.anyio
async def test_the_list_of_headers_is_replaced_and_not_changed(house: House) -> None:
    headers = [(b"host", b"testserver"), (HEADER, house.key)]
    await call(house.app, headers=headers)
    assert len(headers) == 2


@pytest.mark.anyio
async def test_a_key_goes_on_when_that_is_asked_for() -> None:
    house = House(forward_key=True)
    await house.ask(house.key, query=b"subscription-key=" + house.key)
    assert (HEADER, house.key) in house.seen[0]["headers"]
    assert house.seen[0]["query_string"] == b"subscription-key=" + house.key


@pytest.mark.anyio
async def test_a_bad_key_is_taken_out_too() -> None:
    """Whoever logs the refused request must not find it."""
    house = House()
    scope = http_scope(headers=[(HEADER, b"guess-1")], query=b"a=1&subscription-key=guess-2")
    with pytest.raises(Refusal):
        house.policy.bind(Env()).on_request(Exchange(scope))  # type: ignore[union-attr,unused-ignore]
    assert b"guess" not in repr(scope).encode()


@pytest.mark.anyio
async def test_no_key_is_in_the_log_or_in_an_answer(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    house.memory.suspend("ada")
    house.store.failing = True
    bodies = [(await house.ask(house.key, query=b"subscription-key=" + house.key)).body]
    house.store.failing = False
    bodies.append((await house.ask(house.key)).body)
    shown = caplog.text + repr(bodies) + repr(house.policy)
    assert house.key.decode() not in shown
    assert key_digest(house.key).hex() not in shown


# Refused


@pytest.mark.anyio
async def test_without_a_key_there_is_a_challenge(house: House) -> None:
    answer = await house.ask(query=b"subscription-keys=1&Subscription-Key=" + house.key)
    assert (answer.status, code(answer)) == (401, "subscription-key-missing")
    assert answer.all(b"www-authenticate") == [CHALLENGE]
    assert house.seen == []


BAD = {
    "unknown": [new_key().encode()],
    "empty": [b""],
    "blank": [b" "],
    "long": [b"k" * 16_000],
    "bytes": [b"\xff\xfe\x80"],
    "sql": [b"' OR 1=1 --"],
    "percent": [b"%00%0d%0a"],
    "two": [new_key().encode(), new_key().encode()],
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_key_gets_one_answer(house: House, name: str) -> None:
    answer = await house.ask(*BAD[name])
    assert (answer.status, code(answer)) == (401, "subscription-key-invalid")
    assert answer.all(b"www-authenticate") == [CHALLENGE]
    assert house.seen == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "query", [b"subscription-key", b"subscription-key=", b"subscription-key=%ff%00", b"subscription-key=%zz"]
)
async def test_a_bad_key_in_the_query_gets_the_same_answer(house: House, query: bytes) -> None:
    assert (await house.ask(query=query)).messages == (await house.ask(b"guess")).messages


@pytest.mark.anyio
async def test_a_key_nobody_has_and_a_key_at_rest_get_the_same_answer(house: House) -> None:
    unknown = await house.ask(new_key().encode())
    house.memory.suspend("ada")
    assert (await house.ask(house.key)).messages == unknown.messages
    house.memory.resume("ada")
    assert (await house.ask(house.key)).status == 200
    house.memory.remove("ada")
    assert (await house.ask(house.key)).messages == unknown.messages


@pytest.mark.anyio
async def test_ten_thousand_guesses_get_one_answer_and_leave_nothing_behind() -> None:
    house = House()
    gate = house.policy.bind(Env())
    answers = set()
    for number in range(10_000):
        with pytest.raises(Refusal) as caught:
            gate.on_request(Exchange(http_scope(headers=[(HEADER, b"guess-%d" % number)])))  # type: ignore[union-attr,unused-ignore]
        answers.add((caught.value.status, caught.value.code, caught.value.detail, *caught.value.headers))
    assert len(answers) == 1
    assert len(house.memory) == 1
    assert len(house.memory._records) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("swap", [False, True])
async def test_two_different_keys_are_refused_though_both_are_good(house: House, swap: bool) -> None:
    one, two = (house.other, house.key) if swap else (house.key, house.other)
    for answer in (
        await house.ask(one, query=b"subscription-key=" + two),
        await house.ask(one, two),
        await house.ask(query=b"subscription-key=" + one + b"&subscription-key=" + two),
        await house.ask(one, query=b"subscription-key="),
    ):
        assert (answer.status, code(answer)) == (401, "subscription-key-invalid")


@pytest.mark.anyio
async def test_a_change_holds_from_the_next_request_on(house: House) -> None:
    """Within one process."""
    assert (await house.ask(house.key)).status == 200
    fresh = house.memory.issue("ada").encode()
    assert (await house.ask(house.key)).status == 401
    assert (await house.ask(house.other)).status == 200
    assert (await house.ask(fresh)).status == 200


@given(st.lists(st.binary(max_size=40), max_size=3), st.binary(max_size=60))
def test_any_keys_are_judged_without_an_error(keys: list[bytes], query: bytes) -> None:
    gate = House().policy.bind(Env())
    for text in (query, b"subscription-key=" + query):
        scope = http_scope(headers=[(HEADER, key) for key in keys], query=text)
        with pytest.raises(Refusal) as caught:
            gate.on_request(Exchange(scope))  # type: ignore[union-attr,unused-ignore]
        assert caught.value.status == 401


# Names, places, options


@pytest.mark.anyio
async def test_names_can_be_others() -> None:
    house = House(header="X-API-Key", query="key", realm="orders")
    for headers, query in (([(b"x-api-key", house.key)], b""), ([], b"key=" + house.key)):
        assert (await call(house.app, headers=headers, query=query)).status == 200
    answer = await house.ask(house.key, query=b"subscription-key=" + house.key)
    assert code(answer) == "subscription-key-missing"
    challenge = b'AzureApiManagementKey realm="orders",name="X-API-Key",type="header"'
    assert answer.all(b"www-authenticate") == [challenge]


@pytest.mark.anyio
async def test_a_place_can_be_closed() -> None:
    only_header, only_query = House(query=None), House(header=None)
    assert (await only_header.ask(only_header.key)).status == 200
    assert (await only_header.ask(query=b"subscription-key=" + only_header.key)).status == 401
    assert (await only_query.ask(query=b"subscription-key=" + only_query.key)).status == 200
    answer = await only_query.ask(only_query.key)
    assert answer.status == 401
    challenge = b'AzureApiManagementKey realm="api",name="subscription-key",type="query"'
    assert answer.all(b"www-authenticate") == [challenge]


@pytest.mark.anyio
@pytest.mark.parametrize("distant", [False, True])
async def test_an_optional_key_may_be_missing_and_must_be_good_when_it_is_there(distant: bool) -> None:
    house = House(distant=distant, optional=True)
    assert (await house.ask()).status == 200
    assert house.exchanges[0].subscription is None
    assert house.exchanges[0].principal is None
    assert (await house.ask(b"guess")).status == 401
    assert (await house.ask(b"")).status == 401


# The store


@pytest.mark.anyio
async def test_nobody_comes_in_while_the_store_is_down(caplog: pytest.LogCaptureFixture) -> None:
    house = House(distant=True)
    house.store.failing = True
    answer = await house.ask(house.key)
    assert (answer.status, code(answer)) == (503, "key-store-unavailable")
    assert house.seen == []
    assert all(record.getMessage().isprintable() for record in caplog.records)
    house.store.failing = False
    assert (await house.ask(house.key)).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("plain", [True, False])
async def test_an_outage_is_told_of_once_and_the_next_one_again(plain: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Plain:
        failing = False

        def find(self, digest: bytes) -> KeyRecord | None:
            if self.failing:
                raise StoreError("the file is locked")
            return house.memory.find(digest)

    store = Plain()
    house = House(keys=store) if plain else House(distant=True)
    for failing in (True, True, True, False, False, True, True):
        store.failing = house.store.failing = failing
        assert (await house.ask(house.key)).status == (503 if failing else 200)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


@pytest.mark.anyio
async def test_a_plain_store_that_is_down_lets_nobody_in() -> None:
    class Failing:
        def find(self, digest: bytes) -> KeyRecord | None:
            raise StoreError("the file is locked")

    answer = await call(APIKeyAuth(keys=Failing())(House().inner), headers=[(HEADER, b"x")])
    assert (answer.status, code(answer)) == (503, "key-store-unavailable")


@pytest.mark.anyio
@pytest.mark.parametrize("given_back", [True, "ada", ADA, object()])
async def test_a_store_that_gives_back_nonsense_lets_nobody_in(given_back: object) -> None:
    class Odd:
        def find(self, digest: bytes) -> Any:
            return given_back

    house = House()
    answer = await call(APIKeyAuth(keys=Odd())(house.inner), headers=[(HEADER, b"x")])
    assert answer.status == 500
    assert house.seen == []


@pytest.mark.anyio
async def test_a_store_that_compares_too_little_is_not_believed() -> None:
    class Sloppy:
        async def find(self, digest: bytes) -> KeyRecord | None:
            return KeyRecord(digest=key_digest("another"), subscription=ADA)

    house = House()
    answer = await call(APIKeyAuth(keys=Sloppy())(house.inner), headers=[(HEADER, b"x")])
    assert code(answer) == "subscription-key-invalid"


def test_the_gate_is_plain_unless_the_store_has_to_be_waited_for() -> None:
    house = House()
    plain = APIKeyAuth(keys=house.memory).bind(Env())
    distant = APIKeyAuth(keys=house.store).bind(Env())
    assert not inspect.iscoroutinefunction(plain.on_request)
    assert inspect.iscoroutinefunction(distant.on_request)


# States, times and rotation

STATES = [name for name in get_args(State) if name != "active"]


@pytest.mark.anyio
@pytest.mark.parametrize("named", STATES)
async def test_a_subscription_that_is_not_active_is_refused_as_if_there_were_no_such_key(
    house: House, named: State
) -> None:
    """As Azure does."""
    unknown = await house.ask(new_key().encode())
    house.memory.set_state("ada", named)
    assert (await house.ask(house.key)).messages == unknown.messages


@pytest.mark.anyio
@pytest.mark.parametrize("named", STATES)
@pytest.mark.parametrize("distant", [False, True])
async def test_who_has_the_key_is_told_the_state_where_that_is_asked_for(named: State, distant: bool) -> None:
    house = House(distant=distant, tell_state=True)
    house.memory.set_state("ada", named)
    answer = await house.ask(house.key)
    assert (answer.status, code(answer)) == (403, f"subscription-{named}")
    assert house.seen == []
    assert code(await house.ask(new_key().encode())) == "subscription-key-invalid"


@pytest.mark.anyio
async def test_the_state_is_told_to_whoever_observes() -> None:
    watch = Watch()
    house = House(outside=(watch,))
    house.memory.cancel("ada")
    await house.ask(house.key)
    await house.ask(new_key().encode())
    assert watch.seen == [{"apim.subscription.state": "cancelled"}, {}]


@pytest.mark.anyio
@pytest.mark.parametrize("distant", [False, True])
async def test_an_expired_subscription_is_refused_from_its_moment_on(distant: bool, clock: FakeClock) -> None:
    house = House(distant=distant, tell_state=True, clock=clock)
    house.memory.expire("ada", clock.now() + 60)
    assert (await house.ask(house.key)).status == 200
    clock.advance(60)
    assert code(await house.ask(house.key)) == "subscription-expired"


@pytest.mark.anyio
@pytest.mark.parametrize("distant", [False, True])
async def test_a_rotated_key_lives_out_its_overlap(distant: bool, clock: FakeClock) -> None:
    house = House(distant=distant, tell_state=True, clock=clock)
    fresh = house.memory.rotate("ada", overlap=60).encode()
    assert [(await house.ask(key)).status for key in (house.key, fresh, house.other)] == [200] * 3
    clock.advance(60)
    assert [(await house.ask(key)).status for key in (house.key, fresh, house.other)] == [401, 200, 200]


# Looks and look-ups


class Counted(Distant):
    """A store that knows how often it was asked."""

    asked = 0

    async def find(self, digest: bytes) -> KeyRecord | None:
        self.asked += 1
        return await super().find(digest)


def counted(**fields: Any) -> tuple[House, Counted]:
    house = House(**fields)
    store = Counted(house.memory)
    house.policy = replace(house.policy, keys=store)
    house.app = Stack(house.policy, env=Env(clock=fields.get("clock")))(house.inner)
    return house, store


@pytest.mark.anyio
async def test_a_misspelt_key_is_refused_without_asking_the_store() -> None:
    house, store = counted()
    last = house.key[-1:]
    wrong = house.key[:-1] + (b"a" if last != b"a" else b"b")
    answer = await house.ask(wrong)
    assert (answer.status, code(answer), store.asked) == (401, "subscription-key-invalid", 0)
    assert answer.messages == (await house.ask(new_key().encode())).messages


@pytest.mark.anyio
async def test_a_right_checksum_does_not_replace_the_look_up() -> None:
    house, store = counted(prefix="apim")
    assert (await house.ask(new_key().encode())).status == 401
    assert store.asked == 1
    assert (await house.ask(house.key)).status == 200


@pytest.mark.anyio
async def test_with_a_prefix_nothing_but_generated_keys_is_looked_up() -> None:
    house, store = counted(prefix=("acme", "apim"))
    house.memory.set_key("ada", "secondary", key_digest("a-key-of-old-times"))
    for guess in (b"a-key-of-old-times", new_key("other").encode(), b"", b"guess"):
        assert (await house.ask(guess)).status == 401
    assert store.asked == 0
    assert (await house.ask(house.key)).status == 200


@pytest.mark.anyio
async def test_a_key_of_old_times_is_looked_up_where_no_prefix_is_given(house: House) -> None:
    house.memory.set_key("ada", "secondary", key_digest("a-key-of-old-times"))
    assert (await house.ask(b"a-key-of-old-times")).status == 200


@pytest.mark.anyio
async def test_a_key_of_more_than_256_bytes_is_nobodys(house: House) -> None:
    for length, status in ((256, 200), (257, 401)):
        key = length * b"k"
        house.memory.set_key("ada", "primary", key_digest(key))
        assert (await house.ask(key)).status == status


@pytest.mark.anyio
async def test_an_unknown_key_is_not_asked_for_again_for_a_moment(clock: FakeClock) -> None:
    house, store = counted(clock=clock)
    for _ in range(5):
        assert (await house.ask(b"guess")).status == 401
    assert store.asked == 1
    house.memory.set_key("ada", "secondary", key_digest("guess"))
    clock.advance(2)
    assert (await house.ask(b"guess")).status == 200


@pytest.mark.anyio
async def test_a_known_key_is_asked_for_each_time() -> None:
    house, store = counted()
    assert [(await house.ask(house.key)).status for _ in range(3)] == [200] * 3
    house.memory.suspend("ada")
    assert (await house.ask(house.key)).status == 401
    house.memory.resume("ada")
    assert (await house.ask(house.key)).status == 200
    assert store.asked == 5


@pytest.mark.anyio
async def test_a_store_that_was_down_is_asked_again() -> None:
    house, store = counted()
    store.failing = True
    assert (await house.ask(house.key)).status == 503
    store.failing = False
    assert (await house.ask(house.key)).status == 200


@pytest.mark.anyio
async def test_unknown_keys_can_be_asked_for_each_time() -> None:
    house, store = counted(unknown_for=0)
    for _ in range(3):
        await house.ask(b"guess")
    assert store.asked == 3


@pytest.mark.anyio
async def test_no_more_than_a_thousand_unknown_keys_are_remembered() -> None:
    house, store = counted()
    gate: Any = house.policy.bind(Env())
    for number in range(3_000):
        with pytest.raises(Refusal):
            await gate.on_request(Exchange(http_scope(headers=[(HEADER, b"guess-%d" % number)])))
    assert (store.asked, len(gate._unknown)) == (3_000, 1_024)


# Timing: all bad keys take one way through the code, and what they cost differs by noise alone

KEY = b"A-key-of-old-times-%032x" % 0x1234567890ABCDEF1234567890ABCDEF  # which has no checksum that could be wrong
WRONG = (KEY[:-1] + b"0", b"B" + KEY[1:], KEY[:30] + b"0" * 21)
UNKNOWN = b"A-key-of-new-times-%032x" % 0xFEDCBA0987654321FEDCBA0987654321


class OneKey:
    """Gives its record for every digest, so that each key is compared with it."""

    record = KeyRecord(digest=key_digest(KEY), subscription=ADA)

    def find(self, digest: bytes) -> KeyRecord | None:
        return self.record


class NoKeys:
    def find(self, digest: bytes) -> KeyRecord | None:
        return None


def refuse(gate: Any, key: bytes) -> None:
    with contextlib.suppress(Refusal):
        gate.on_request(Exchange(http_scope(headers=[(HEADER, key)])))


def way(gate: Any, key: bytes) -> list[tuple[str, int]]:
    """Every line of the policy that runs for a key, in order."""
    seen: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != api_key.__file__:
            return None
        seen.append((frame.f_code.co_name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        refuse(gate, key)
    finally:
        sys.settrace(before)
    return seen


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_key_and_an_unknown_key_take_the_same_way_line_by_line(wrong: bytes) -> None:
    """However much of it is right, whether there is a record to compare it with or none."""
    ways = [way(APIKeyAuth(keys=store).bind(Env()), wrong) for store in (OneKey(), NoKeys())]
    assert ways[0] == ways[1]
    assert len(ways[0]) > 10


@pytest.mark.parametrize("store", [OneKey(), NoKeys()])
@pytest.mark.parametrize("wrong", WRONG)
def test_every_bad_key_is_compared_once_as_a_whole_digest(
    store: KeyStore, wrong: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(api_key, "hmac", SimpleNamespace(compare_digest=compare))
    refuse(APIKeyAuth(keys=store).bind(Env()), wrong)
    assert compared == [(32, 32)]


def slower_half_the_time(one: Callable[[], object], other: Callable[[], object]) -> bool:
    """Whether which of the two took longer is as good as a coin's toss, in one of five series of 2,000 pairs.

    Of pairs, and not of sums, so that no interruption counts for more than one; of a coin tossed as often, one side
    would be up in less than 40 or more than 60 of a hundred cases once in 10**18 series.
    """
    clock = time.perf_counter_ns
    for _ in range(5):
        longer = 0
        for number in range(2_000):
            first, second = (one, other) if number % 2 else (other, one)
            begin = clock()
            first()
            middle = clock()
            second()
            longer += (middle - begin > clock() - middle) == bool(number % 2)
        if 800 <= longer <= 1_200:
            return True
    return False


@pytest.mark.parametrize("wrong", WRONG)
def test_how_much_of_a_key_is_right_cannot_be_told_from_the_time_it_takes(wrong: bytes) -> None:
    gate = APIKeyAuth(keys=OneKey()).bind(Env())
    assert slower_half_the_time(lambda: refuse(gate, wrong), lambda: refuse(gate, UNKNOWN))


def test_a_comparison_that_stops_at_the_first_difference_would_be_told() -> None:
    def right(key: bytes) -> bool:
        return all(mine == theirs for mine, theirs in zip(KEY, key, strict=True))

    assert not slower_half_the_time(lambda: right(WRONG[0]), lambda: right(b"z" * len(KEY)))


# WebSockets, streams, endings


@pytest.mark.anyio
async def test_a_websocket_handshake_is_judged_like_a_request(house: House) -> None:
    assert (await connect(house.app, headers=[(HEADER, house.key)])).status == 101
    assert (await connect(house.app, query_string=b"subscription-key=" + house.key)).status == 101
    assert house.seen[1]["query_string"] == b""
    refused = await connect(house.app)
    assert (refused.status, code(refused)) == (401, "subscription-key-missing")
    closed = await connect(house.app, headers=[(HEADER, b"guess")], denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "subscription-key-invalid"}]


@pytest.mark.anyio
async def test_bodies_stream_both_ways_untouched(house: House) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    house.app = Stack(house.policy)(echo)
    answer = await house.ask(house.key, method="POST", body=[b"a", b"b", b"c"])
    assert [message.get("body") for message in answer.messages[1:]] == [b"a", b"b", b"c"]


@pytest.mark.anyio
async def test_an_error_of_the_app_passes_through(house: House) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    house.app = Stack(house.policy)(broken)
    with pytest.raises(RuntimeError, match="the app"):
        await house.ask(house.key)


@pytest.mark.anyio
async def test_a_client_that_leaves_leaves_nothing_behind(house: House) -> None:
    with pytest.raises(OSError, match="gone"):
        await house.ask(house.key, leave_after=1)
    assert (await house.ask(house.key)).status == 200


# Configuration


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("keys", {"keys": None}),
        ("keys", {"keys": {"ada": "secret-key"}}),
        ("keys", {"keys": "secret-key"}),
        ("header", {"header": None, "query": None}),
        ("header", {"header": ""}),
        ("header", {"header": "a b"}),
        ("header", {"header": "a\r\nb"}),
        ("header", {"header": "schlüssel"}),
        ("query", {"query": ""}),
        ("query", {"query": 'a"b'}),
        ("query", {"query": "a\nb"}),
        ("realm", {"realm": ""}),
        ("realm", {"realm": 'a"'}),
        ("realm", {"realm": "a\r\nb"}),
        ("forward_key", {"forward_key": "yes"}),
        ("cookie", {"cookie": "a b"}),
        ("cookie", {"cookie": ""}),
        ("prefix", {"prefix": "Acme"}),
        ("prefix", {"prefix": ("acme", "")}),
        ("prefix", {"prefix": ""}),
        ("unknown_for", {"unknown_for": -1}),
        ("unknown_for", {"unknown_for": float("inf")}),
        ("heder", {"heder": "x"}),
    ],
)
def test_a_mistake_is_told_while_building_and_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        APIKeyAuth(**{"keys": MemoryKeys(), **fields})
    assert (caught.value.policy, caught.value.field) == ("APIKeyAuth", field)
    assert "secret-key" not in str(caught.value)


def test_what_is_relied_on_behind_it_is_provided() -> None:
    assert APIKeyAuth.provides == {"subscription", "principal"}
    assert APIKeyAuth.guards


# A key that comes as a bearer token


def bearing(token: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + token)]


@pytest.mark.anyio
async def test_a_key_may_come_as_a_bearer_token() -> None:
    house = House(bearer=True)
    answer = await call(house.app, headers=bearing(house.key))
    assert (answer.status, house.exchanges[0].subscription) == (200, ADA)


@pytest.mark.anyio
async def test_a_bearer_key_goes_no_further() -> None:
    house = House(bearer=True)
    await call(house.app, headers=bearing(house.key))
    assert house.exchanges[0].header(b"authorization") is None


@pytest.mark.anyio
async def test_a_bearer_key_that_nobody_has_is_refused() -> None:
    answer = await call(House(bearer=True).app, headers=bearing(b"f" * 32))
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "subscription-key-invalid")


@pytest.mark.anyio
async def test_bearer_tokens_are_no_keys_unless_it_is_said() -> None:
    house = House()
    answer = await call(house.app, headers=bearing(house.key))
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "subscription-key-missing")


@pytest.mark.anyio
async def test_with_a_prefix_the_tokens_of_others_are_left_to_them() -> None:
    house = House(bearer=True, prefix="apim")
    answer = await call(house.app, headers=[*bearing(b"eyJ.eyJ.c2ln"), (HEADER, house.key)])
    assert (answer.status, house.exchanges[0].header(b"authorization")) == (200, b"Bearer eyJ.eyJ.c2ln")


@pytest.mark.anyio
@pytest.mark.parametrize("prefix", ["apim", ("acme", "apim"), ()])
@pytest.mark.parametrize("wrong", ["misspelt", "cut", "nothing but its beginning"])
async def test_a_bearer_token_that_begins_as_keys_do_is_a_wrong_key(prefix: Any, wrong: str) -> None:
    """It was taken for somebody else's token, and who sent it was let in as nobody."""
    house = House(bearer=True, prefix=prefix, optional=True)
    last = b"a" if house.key[-1:] != b"a" else b"b"
    token = {"misspelt": house.key[:-1] + last, "cut": house.key[:20], "nothing but its beginning": b"apim_"}[wrong]
    answer = await call(house.app, headers=bearing(token))
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "subscription-key-invalid")


@pytest.mark.anyio
async def test_another_scheme_holds_no_key() -> None:
    house = House(bearer=True)
    answer = await call(house.app, headers=[(b"authorization", b"Basic " + house.key)])
    assert json.loads(answer.body)["code"] == "subscription-key-missing"


@pytest.mark.anyio
async def test_two_keys_of_which_one_is_a_bearer_token_are_refused() -> None:
    house = House(bearer=True)
    answer = await call(house.app, headers=[*bearing(house.key), (HEADER, house.other)])
    assert json.loads(answer.body)["code"] == "subscription-key-invalid"


@pytest.mark.anyio
async def test_the_challenge_tells_that_a_bearer_token_does() -> None:
    answer = await call(House(bearer=True).app)
    assert answer.all(b"www-authenticate") == [CHALLENGE + b', Bearer realm="api"']


@pytest.mark.anyio
async def test_a_bearer_token_may_be_the_only_place() -> None:
    house = House(bearer=True, header=None, query=None)
    assert (await call(house.app, headers=bearing(house.key))).status == 200


def test_the_authorization_header_is_no_place_by_name() -> None:
    """The raw key was asked for there, where clients put a scheme before it, and nobody was let in."""
    with pytest.raises(ConfigError, match=r"APIKeyAuth\.header: .* write bearer=True"):
        APIKeyAuth(keys=MemoryKeys(), header="Authorization")
