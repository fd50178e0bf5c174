"""Who has the key of an active subscription comes in, and the key goes no further."""

import inspect
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.keys import ISSUER, KeyRecord, MemoryKeys, key_digest, new_key
from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

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

    def __init__(self, *, distant: bool = False, outside: tuple[Policy, ...] = (), **fields: Any) -> None:
        self.memory = MemoryKeys()
        self.memory.add(ADA)
        self.key = self.memory.issue("ada").encode()
        self.other = self.memory.issue("ada", "secondary").encode()
        self.store = Distant(self.memory)
        self.policy = APIKeyAuth(**{"keys": self.store if distant else self.memory, **fields})
        self.seen: list[Scope] = []
        self.exchanges: list[Exchange] = []
        self.app = Stack(*outside, self.policy)(self.inner)

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
    """K01."""
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
    """K01: whoever logs the refused request must not find it."""
    house = House()
    scope = http_scope(headers=[(HEADER, b"guess-1")], query=b"a=1&subscription-key=guess-2")
    with pytest.raises(Refusal):
        house.policy.bind(Env()).on_request(Exchange(scope))  # type: ignore[union-attr,unused-ignore]
    assert b"guess" not in repr(scope).encode()


@pytest.mark.anyio
async def test_no_key_is_in_the_log_or_in_an_answer(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """K01, M06."""
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
    """K03, K04."""
    unknown = await house.ask(new_key().encode())
    house.memory.suspend("ada")
    assert (await house.ask(house.key)).messages == unknown.messages
    house.memory.resume("ada")
    assert (await house.ask(house.key)).status == 200
    house.memory.remove("ada")
    assert (await house.ask(house.key)).messages == unknown.messages


@pytest.mark.anyio
async def test_ten_thousand_guesses_get_one_answer_and_leave_nothing_behind() -> None:
    """K04."""
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
    """K02."""
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
    """K05, within one process."""
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
