"""A body is read before policies go by it, the app gets the very bytes, and what could be read twofold is refused."""

import hmac
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from apim_middleware import (
    AnyOf,
    Api,
    APIKeyAuth,
    Cache,
    ConfigError,
    Exchange,
    Gateway,
    HMACSignature,
    Idempotency,
    IPFilter,
    Limits,
    MemoryKeys,
    Operation,
    Policy,
    Product,
    RateLimit,
    ReadBody,
    Refusal,
    ReturnResponse,
    Stack,
    Subscription,
    Timeout,
    When,
    by,
    conditions,
    guard,
)
from apim_middleware._functions import needs
from apim_middleware.configuration._functions import function_of, text_of
from apim_middleware.testing import Answer, call, connect, exchange, http_scope
from apim_middleware.types import ASGIApp, Layer, Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio


class Reader:
    """An app that gives back the body it reads, and keeps every message it was told."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.headers: dict[bytes, bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        self.headers = dict(scope["headers"])
        more = True
        while more:
            self.told.append(await receive())
            more = self.told[-1].get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"".join(each.get("body", b"") for each in self.told)})


@dataclass(frozen=True, kw_only=True)
class Look(Policy):
    """Notes what it sees of the body, and may change it."""

    seen: list[Any]
    becomes: Any = None
    guards = False

    def on_request(self, exchange: Exchange) -> None:
        self.seen.append(exchange.body)
        if self.becomes is not None:
            exchange.body = self.becomes


@dataclass(frozen=True, kw_only=True)
class Said(Policy):
    """Notes what the body says."""

    seen: list[Any]
    guards = False

    def on_request(self, exchange: Exchange) -> None:
        self.seen.append(exchange.json())


def opaque(app: ASGIApp) -> ASGIApp:
    async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return pass_on


async def post(app: ASGIApp, body: bytes | Sequence[bytes], *headers: tuple[bytes, bytes], **more: Any) -> Answer:
    return await call(app, "POST", headers=headers, body=body, **more)


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"]


# What the app gets


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_the_app_gets_the_very_bytes_however_they_were_cut(body: bytes, cuts: list[int], fused: bool) -> None:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[a:b] for a, b in pairwise(places)]
    seen: list[Any] = []
    layers: list[Layer] = [ReadBody(max_bytes=60), *([] if fused else [opaque]), Look(seen=seen)]
    answer = anyio.run(lambda: post(Stack(*layers)(Reader()), chunks))
    assert (answer.status, answer.body, seen) == (200, body, [body])


async def test_the_app_is_told_the_body_once_and_then_what_the_server_tells() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.extend([await receive(), await receive()])

    told: list[Message] = []
    await post(Stack(ReadBody())(app), [b"one ", b"two"], leave_after=0)
    assert told == [{"type": "http.request", "body": b"one two", "more_body": False}, {"type": "http.disconnect"}]


async def test_who_leaves_while_the_body_comes_is_not_answered_and_the_app_not_asked() -> None:
    app = Reader()
    inbox = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    guarded = Stack(ReadBody(), Look(seen=[]))(app)
    answer = await exchange(guarded, http_scope("POST"), inbox, inbox[1], leave_after=None, answer=None)
    assert (answer.messages, app.told) == ([], [])


async def test_what_the_app_raises_is_raised() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError

    with pytest.raises(LookupError):
        await post(Stack(ReadBody(), Look(seen=[]))(app), b"x")


async def test_a_streamed_response_flows() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": number < 2})

    answer = await post(Stack(ReadBody())(app), b"{}")
    assert [each.get("body") for each in answer.messages[1:]] == [b"0", b"1", b"2"]


async def test_a_websocket_passes_and_has_no_body() -> None:
    seen: list[Any] = []
    limit = RateLimit(calls=9, per=60, by=by.body("/model"), when_unknown="together")
    guarded = Stack(ReadBody(), Look(seen=seen), When(conditions.body("/stream"), ReturnResponse()), limit)(Reader())
    odd = [(b"content-length", b"99999999"), (b"content-encoding", b"gzip")]
    assert ((await connect(guarded, headers=odd)).status, seen) == (101, [None])


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_request_without_a_body_is_not_waited_for(method: str) -> None:
    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    sent: list[Message] = []
    seen: list[Any] = []
    await Stack(ReadBody(), Look(seen=seen))(ReturnResponse()(Reader()))(http_scope(method), receive, send)
    assert (sent[0]["status"], seen) == (200, [b""])


@pytest.mark.parametrize(
    "more", [{"headers": [(b"content-length", b"2")]}, {"http_version": "2"}], ids=["announced", "http/2"]
)
async def test_a_body_that_comes_with_a_get_is_seen_too(more: dict[str, Any]) -> None:
    seen: list[Any] = []
    answer = await call(Stack(ReadBody(), Look(seen=seen))(Reader()), body=b"{}", **more)
    assert (answer.body, seen) == (b"{}", [b"{}"])


# What is refused


@pytest.mark.parametrize("chunks", [[b"0123456789a"], [b"01234", b"56789", b"a", b"more"]])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"11")]])
async def test_a_body_that_is_too_large_is_refused_as_by_limit_body(chunks: list[bytes], headers: Any) -> None:
    app = Reader()
    answer = await post(Stack(ReadBody(max_bytes=10), Look(seen=[]))(app), chunks, *headers)
    assert (code(answer), answer.header(b"connection")) == ((413, "body-too-large"), b"close")
    assert app.told == []


@pytest.mark.parametrize("value", [b"gzip", b"GZIP", b"identity, gzip", b"x"])
async def test_a_compressed_body_is_refused_unread(value: bytes) -> None:
    seen: list[Any] = []
    answer = await post(Stack(ReadBody(), Look(seen=seen))(Reader()), b"\x1f\x8b", (b"content-encoding", value))
    assert code(answer) == (415, "content-encoding-unsupported")
    assert (answer.header(b"accept-encoding"), seen) == (b"identity", [])


@pytest.mark.parametrize("value", [b"identity", b" Identity "])
async def test_a_body_that_says_it_is_plain_is_read(value: bytes) -> None:
    assert (await post(Stack(ReadBody())(Reader()), b"x", (b"content-encoding", value))).status == 200


async def test_nobody_is_asked_for_json_who_does_not_go_by_it() -> None:
    assert (await post(Stack(ReadBody(), Look(seen=[]))(Reader()), b"\x00 no json")).body == b"\x00 no json"


@pytest.mark.parametrize(
    "body", [b"nope", b'{"model": "a", "model": "b"}', b'{"n": NaN}', b'\xef\xbb\xbf{"model": "a"}', b'{"Model": "b"}']
)
@pytest.mark.parametrize(
    "layer",
    [
        RateLimit(calls=9, per=60, by=by.body("/model")),
        When(conditions.body("/model", "a"), opaque),
        Limits(RateLimit(calls=9, per=60, by=by.client, tier=by.body("/model"), tiers={"a": 1})),
    ],
    ids=["key", "condition", "tier"],
)
async def test_json_that_the_app_could_read_otherwise_is_refused_to_who_goes_by_it(layer: Layer, body: bytes) -> None:
    app = Reader()
    assert code(await post(Stack(ReadBody(), layer)(app), body)) == (400, "json-invalid")
    assert app.told == []


async def test_json_in_an_encoding_that_the_app_would_read_otherwise_is_refused() -> None:
    said = (b"content-type", b"application/json; charset=utf-7")
    assert code(await post(Stack(ReadBody(), Said(seen=[]))(Reader()), b'{"a": "+AGE-"}', said)) == (
        400,
        "json-invalid",
    )


@pytest.mark.parametrize(
    "kind",
    [
        b"application/x-www-form-urlencoded",
        b"Application/X-WWW-Form-Urlencoded ; charset=utf-8",
        b"multipart/form-data; boundary=x",
        b"text/plain, multipart/mixed",
    ],
)
async def test_json_that_an_app_would_take_for_a_form_is_refused(kind: bytes) -> None:
    said = (b"content-type", kind)
    answer = await post(Stack(ReadBody(), Said(seen=[]))(Reader()), b'{"model": "a"}', said)
    assert code(answer) == (400, "json-invalid")


async def test_json_is_read_once_for_all() -> None:
    seen: list[Any] = []
    await post(Stack(ReadBody(), Said(seen=seen), opaque, Said(seen=seen))(Reader()), b'{"a": [1]}')
    assert seen[0] == {"a": [1]}
    assert seen[0] is seen[1]


async def test_the_body_is_no_longer_known_further_out_than_it_was_read(caplog: pytest.LogCaptureFixture) -> None:
    """Put on one by one, nobody can know that nothing reads it; the first request fails closed and tells the log."""
    guarded = RateLimit(calls=9, per=60, by=by.body("/model"))(Reader())
    assert code(await post(guarded, b"{}")) == (500, "policy-failed")
    assert "write ReadBody() further out" in caplog.text


async def test_two_of_them_are_as_one() -> None:
    seen: list[Any] = []
    guarded = Stack(ReadBody(), Look(seen=seen), opaque, ReadBody(max_bytes=5), Look(seen=seen))(Reader())
    assert ((await post(guarded, [b"1", b"2"])).body, seen) == (b"12", [b"12", b"12"])
    assert code(await post(guarded, b"123456")) == (413, "body-too-large")


# Keys and conditions


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"model": "a"}', "a"), (b'{"model": 7}', "7"), (b'{"model": 7.0}', "7"), (b'{"model": true}', "true"),
        (b'{"model": {"b": 1, "a": [null]}}', '{"a":[null],"b":1}'), (b'{"model": null}', None), (b"{}", None),
        (b"[]", None), (b"1", None), (b"", None),
    ],
)  # fmt: skip
async def test_a_key_is_what_stands_in_the_body(body: bytes, key: str | None) -> None:
    seen: list[Any] = []

    @dataclass(frozen=True, kw_only=True)
    class Ask(Policy):
        guards = False

        def on_request(self, exchange: Exchange) -> None:
            seen.append(by.body("/model")(exchange))

    await post(Stack(ReadBody(), Ask())(Reader()), body)
    assert seen == [key]


@pytest.mark.parametrize(
    ("condition", "body", "holds"),
    [
        (conditions.body("/a"), b'{"a": false}', True), (conditions.body("/a"), b'{"a": null}', False),
        (conditions.body("/a"), b"{}", False), (conditions.body("/a"), b"", False),
        (conditions.body("/a", True), b'{"a": true}', True), (conditions.body("/a", True), b'{"a": 1}', False),
        (conditions.body("/a", 1), b'{"a": true}', False), (conditions.body("/a", 1), b'{"a": 1.0}', True),
        (conditions.body("/a", "x"), b'{"a": "x"}', True), (conditions.body("/a", "x"), b'{"a": ["x"]}', False),
        (conditions.body("/a/0", "x"), b'{"a": ["x"]}', True), (conditions.body("", 0.5), b"0.5", True),
    ],
)  # fmt: skip
async def test_a_condition_compares_what_stands_in_the_body(condition: Any, body: bytes, holds: bool) -> None:
    guarded = Stack(ReadBody(), When(condition, ReturnResponse(status=299)))(Reader())
    assert ((await post(guarded, body)).status == 299) is holds


def test_both_tell_what_they_need_and_what_they_are() -> None:
    for made in (by.body("/a~1b"), conditions.body("/stream", True), conditions.not_(conditions.body("/n", 0.5))):
        assert needs(made) == {"body"}
        assert function_of(text_of(made) or "") is made
    assert by.body("/a") is by.body("/a") is not by.body("/b")
    assert conditions.body("/a", True) is not conditions.body("/a", 1)


@pytest.mark.parametrize("pointer", ["model", "$.model", "/a~2", 7, None])
def test_what_is_no_pointer_is_a_mistake(pointer: Any) -> None:
    with pytest.raises(ConfigError, match=r'Write by\.body\("/model"\)'):
        by.body(pointer)
    with pytest.raises(ConfigError, match=r'Write body\("/stream", True\)'):
        conditions.body(pointer)


def test_no_room_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="leaves no room"):
        ReadBody(max_bytes=0)
    with pytest.raises(ConfigError, match="truth value"):
        conditions.body("/a", ["x"])  # type: ignore[arg-type]


# Its place

NEEDY: list[Layer] = [
    RateLimit(calls=1, per=1, by=by.body("/m")),
    RateLimit(calls=1, per=1, by=by.both(by.client, by.body("/m"))),
    RateLimit(calls=1, per=1, count_when=conditions.body("/m")),
    RateLimit(calls=1, per=1, tier=by.body("/m"), tiers={"a": 2}),
    Limits(RateLimit(calls=1, per=1, by=by.body("/m"))),
    Cache(ttl=1, vary_by=by.body("/m")),
    When(conditions.body("/m"), opaque),
    When(conditions.is_websocket, Stack(RateLimit(calls=1, per=1, by=by.body("/m")))),
]


@pytest.mark.parametrize("needy", NEEDY, ids=lambda layer: type(layer).__name__)
def test_what_goes_by_the_body_stands_behind_what_reads_it(needy: Layer) -> None:
    Stack(ReadBody(), needy)(Reader())
    Stack(ReadBody(), opaque, Stack(Stack(needy)))(Reader())
    with pytest.raises(ConfigError, match="Write ReadBody before"):
        Stack(needy, ReadBody())
    with pytest.raises(ConfigError, match=r"relies on the body, .* Write ReadBody\(\) before"):
        Stack(needy)(Reader())


def test_a_gateway_knows_what_reads_where() -> None:
    limit = RateLimit(calls=9, per=60, by=by.body("/m"))

    def made(
        *, product: tuple[Layer, ...] = (), api: tuple[Layer, ...] = (), everywhere: tuple[Layer, ...] = ()
    ) -> None:
        Gateway(
            keys=MemoryKeys(),
            policies=everywhere,
            products=(Product("p", apis=("a",), policies=product),),
            apis=(Api("a", "/a", backend=Reader(), policies=api, operations=(Operation("POST", "/"),)),),
        )

    made(api=(ReadBody(), limit))
    made(product=(ReadBody(), limit))
    with pytest.raises(ConfigError, match="relies on the body"):  # a key of no product meets no policy of one
        made(product=(ReadBody(),), api=(limit,))
    for missing in ({"api": (limit,)}, {"product": (limit,)}, {"everywhere": (limit,)}):
        with pytest.raises(ConfigError, match=r"Write ReadBody\(\) before RateLimit"):
            made(**missing)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Write ReadBody before RateLimit"):
        made(product=(limit,), api=(ReadBody(),))


def test_a_guard_knows_it_too() -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse(""), methods=["POST"])])
    limit = RateLimit(calls=9, per=60, by=by.body("/m"))
    with pytest.raises(ConfigError, match=r"Write ReadBody\(\) before RateLimit"):
        guard(app, routes={"POST /": (limit,)})


async def test_strangers_are_refused_before_their_body_is_read() -> None:
    keys = MemoryKeys()
    keys.add(Subscription(id="a", product="p"))
    read: list[Any] = []
    gateway = Gateway(
        keys=keys,
        products=(Product("p", apis=("a",), policies=(ReadBody(), Look(seen=read))),),
        apis=(Api("a", "/", backend=Reader()),),
    )
    assert (await post(gateway, b"x")).status == 401
    assert read == []
    key = (b"ocp-apim-subscription-key", keys.issue("a").encode())
    assert (await post(gateway, b"x", key)).body == b"x"
    assert read == [b"x"]
    TestClient(Stack(APIKeyAuth(keys=keys), ReadBody())(Reader()))


def test_a_reader_stands_behind_whoever_knows_the_callers() -> None:
    keys = APIKeyAuth(keys=MemoryKeys())
    Stack(keys, ReadBody())(Reader())
    with pytest.raises(ConfigError, match="Write APIKeyAuth before ReadBody"):
        Stack(ReadBody(), keys)
    with pytest.raises(ConfigError, match="Write APIKeyAuth before ReadBody"):
        ReadBody()(keys(Reader()))
    with pytest.raises(ConfigError, match="Write APIKeyAuth before ReadBody"):
        guard(Starlette(), policies=(ReadBody(), keys))
    apis = (Api("a", "/a", backend=Reader()),)
    with pytest.raises(ConfigError, match=r"ReadBody: reads bodies before .* Move it to the policies of the APIs"):
        Gateway(keys=MemoryKeys(), apis=apis, policies=(ReadBody(),))
    Gateway(apis=(Api("a", "/a", backend=Reader(), subscription_required=False),), policies=(ReadBody(),))
    Stack(ReadBody(), When(conditions.body("/private"), keys))(Reader())
    Stack(keys, ReadBody(), AnyOf(keys, HMACSignature(secrets=b"s" * 16)))(Reader())


async def test_a_body_that_does_not_end_is_waited_for_as_long_as_a_timeout_says() -> None:
    async def receive() -> Message:
        await checkpoint()
        return chunks.pop(0) if chunks else await anyio.sleep_forever()  # type: ignore[func-returns-value]

    async def send(message: Message) -> None:
        sent.append(message)

    chunks: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]
    sent: list[Message] = []
    await Stack(Timeout(seconds=0.01, until="head"), ReadBody())(Reader())(http_scope("POST"), receive, send)
    assert sent[0]["status"] == 504


# Another body in its place


async def test_a_policy_may_put_another_body_in_its_place() -> None:
    seen: list[Any] = []
    app = Reader()
    guarded = Stack(ReadBody(), Look(seen=seen, becomes=b'{"b": 22}'), opaque, Said(seen=seen))(app)
    answer = await post(guarded, b'{"a": 1}', (b"content-length", b"8"))
    assert (answer.body, seen) == (b'{"b": 22}', [b'{"a": 1}', {"b": 22}])
    assert app.headers[b"content-length"] == b"9"


async def test_digests_of_the_body_that_came_go_with_it() -> None:
    app = Reader()
    digests = [(name, b"x") for name in (b"content-digest", b"repr-digest", b"digest", b"content-md5")]
    await post(Stack(ReadBody(), Look(seen=[], becomes=b"other"))(app), b"x", *digests, (b"x-digest", b"y"))
    assert app.headers.items() >= {(b"x-digest", b"y"), (b"content-length", b"5")}
    assert not app.headers.keys() & dict(digests)


@pytest.mark.parametrize("body", [bytearray(b"other"), memoryview(b"other")])
async def test_a_body_of_whatever_is_bytes_becomes_bytes(body: Any) -> None:
    seen: list[Any] = []
    await post(Stack(ReadBody(), Look(seen=[], becomes=body), Look(seen=seen))(Reader()), b"x")
    assert (seen, type(seen[0])) == ([b"other"], bytes)


@pytest.mark.parametrize("body", ["text", 5, [1]])
async def test_a_body_that_is_no_bytes_is_a_mistake(body: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Text was counted in letters, and failed in the server."""
    app = Reader()
    answer = await post(Stack(ReadBody(), Look(seen=[], becomes=body))(app), b"x")
    assert (code(answer), app.told) == ((500, "policy-failed"), [])
    assert f"a request body is bytes, not {type(body).__name__}" in caplog.text


async def test_a_body_that_came_in_chunks_has_no_length_said_beside() -> None:
    app = Reader()
    guarded = Stack(ReadBody(), Look(seen=[], becomes=b"other"))(app)
    assert (await post(guarded, b"x", (b"transfer-encoding", b"chunked"))).body == b"other"
    assert b"content-length" not in app.headers


@pytest.mark.parametrize(
    "between",
    [
        Idempotency(by=by.everyone),
        HMACSignature(secrets=b"s" * 16, optional=False),
    ],
    ids=lambda layer: type(layer).__name__,
)
async def test_a_body_that_somebody_has_read_on_is_not_changed_in_silence(
    between: Layer, caplog: pytest.LogCaptureFixture
) -> None:
    signature = hmac.digest(b"s" * 16, b"x", "sha256").hex().encode()
    guarded = Stack(IPFilter(allow="203.0.113.7"), ReadBody(), between, Look(seen=[], becomes=b"other"))(Reader())
    answer = await post(guarded, b"x", (b"idempotency-key", b'"a"'), (b"x-signature", signature))
    assert code(answer) == (500, "policy-failed")
    assert "change it before that" in caplog.text


async def test_a_request_without_a_body_gets_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    answer = await call(Stack(ReadBody(), Look(seen=[], becomes=b"other"))(Reader()))
    assert code(answer) == (500, "policy-failed")


async def test_a_body_nobody_has_read_says_nothing() -> None:
    nobodys = Exchange(http_scope())
    assert nobodys.body is None
    for ask in (nobodys.json, lambda: nobodys.json_at(("a",))):
        with pytest.raises(RuntimeError, match=r"write ReadBody\(\)"):
            ask()


async def test_a_cost_can_go_by_the_body() -> None:
    limit = RateLimit(calls=10, per=60, cost=lambda exchange: len(exchange.body or b""))
    guarded = Stack(ReadBody(), limit)(Reader())
    assert (await post(guarded, b"12345678")).status == 200
    assert (await post(guarded, b"123")).status == 429


def test_a_refusal_tells_nothing_of_the_body() -> None:
    refused = TestClient(Stack(ReadBody(), Said(seen=[]))(Reader())).post("/", content=b"secret")
    assert "secret" not in refused.text
    assert isinstance(Refusal(400, "json-invalid"), Exception)
