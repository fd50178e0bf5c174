"""Header fields are set and taken away as asked, and nothing a caller sends makes two of one."""

import logging
from typing import Any
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from apim_middleware import by
from apim_middleware._http.headers import header_value
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal
from apim_middleware.policies.headers import RemoveHeader, SetHeader
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import RawHeaders, Receive, Scope, Send

pytestmark = pytest.mark.anyio

A, B = (b"x-a", b"1"), (b"x-b", b"2")


class Echo:
    """An app that keeps the headers it got and answers with those it is told to."""

    def __init__(self, answers: RawHeaders = []) -> None:  # noqa: B006 - never changed, which is what is tested
        self.answers = answers
        self.got: RawHeaders = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.got = [pair for pair in scope["headers"] if pair[0] != b"host"]
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": self.answers})
            await send({"type": "websocket.close", "code": 1000})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.answers})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})


async def through(policy: Policy, lines: RawHeaders, on: str) -> RawHeaders:
    """What becomes of these lines of the request or of the response."""
    if on == "request":
        app = Echo()
        await call(policy(app), headers=lines)
        return app.got
    return (await call(policy(Echo(lines)))).headers


both = pytest.mark.parametrize("on", ["request", "response"])


@both
@pytest.mark.parametrize(
    ("exists", "before", "after"),
    [
        ("override", [A], [A, (b"x-t", b"new")]),
        ("override", [(b"x-t", b"1"), A, (b"x-t", b"2")], [A, (b"x-t", b"new")]),
        ("append", [A], [A, (b"x-t", b"new")]),
        ("append", [(b"x-t", b"1"), A], [(b"x-t", b"1"), A, (b"x-t", b"new")]),
        ("skip", [A], [A, (b"x-t", b"new")]),
        ("skip", [(b"x-t", b""), A], [(b"x-t", b""), A]),
    ],
)
async def test_what_happens_to_lines_that_are_there(on: Any, exists: Any, before: RawHeaders, after: RawHeaders):
    for value in ("new", lambda exchange: "new"):
        assert await through(SetHeader(name="X-T", value=value, on=on, exists=exists), before, on) == after


@both
async def test_several_values_are_lines_of_their_own(on: Any):
    policy = SetHeader(name="x-t", value=("a", "b, c"), on=on)
    assert await through(policy, [(b"x-t", b"0")], on) == [(b"x-t", b"a"), (b"x-t", b"b, c")]


async def test_a_cookie_and_a_challenge_stay_beside_those_of_the_app():
    app = Echo([(b"set-cookie", b"a=1"), (b"www-authenticate", b"Basic")])
    stack = Stack(
        SetHeader(name="set-cookie", value="b=2", on="response", exists="append"),
        SetHeader(name="www-authenticate", value="Bearer", on="response", exists="append"),
    )
    answer = await call(stack(app))
    assert answer.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert answer.all(b"www-authenticate") == [b"Basic", b"Bearer"]


@both
async def test_every_line_of_a_removed_name_goes(on: Any):
    assert await through(RemoveHeader(name="X-T", on=on), [(b"x-t", b"1"), A, (b"x-t", b"2")], on) == [A]


@both
async def test_what_is_not_there_need_not_be_removed(on: Any):
    assert await through(RemoveHeader(name="x-t", on=on), [A, B], on) == [A, B]


@both
async def test_a_function_of_the_exchange_gives_the_value(on: Any):
    policy = SetHeader(name="x-t", value=lambda exchange: f"{exchange.method} {exchange.path}", on=on)
    assert await through(policy, [A], on) == [A, (b"x-t", b"GET /")]


@both
@pytest.mark.parametrize("exists", ["append", "skip"])
async def test_no_value_leaves_the_lines_alone(on: Any, exists: Any):
    policy = SetHeader(name="x-t", value=lambda exchange: None, on=on, exists=exists)
    assert await through(policy, [(b"x-t", b"1")], on) == [(b"x-t", b"1")]


@both
async def test_no_value_overrides_too_so_that_callers_cannot_speak_under_the_name(on: Any):
    policy = SetHeader(name="x-user", value=by.principal, on=on)
    assert await through(policy, [(b"x-user", b"admin"), A], on) == [A]


async def test_what_a_principal_says_reaches_the_app():
    class Known(Policy):
        provides = frozenset({"principal"})

        def on_request(self, exchange: Exchange) -> None:
            exchange.principal = Principal(subject="ann", claims={"tenant": "blue"})

    app = Echo()
    await call(Stack(Known(), SetHeader(name="x-tenant", value=by.claim("tenant"), on="request"))(app))
    assert app.got == [(b"x-tenant", b"blue")]


def test_a_value_that_nobody_further_out_establishes_is_found_while_building():
    class Known(Policy):
        provides = frozenset({"principal"})

    with pytest.raises(ConfigError, match="Write Known before SetHeader"):
        Stack(SetHeader(name="x-tenant", value=by.claim("tenant"), on="request"), Known())


async def test_a_policy_further_in_sees_the_header():
    seen: list[bytes | None] = []

    class Looks(Policy):
        def on_request(self, exchange: Exchange) -> None:
            seen.append(exchange.header(b"x-t"))

    stack = Stack(
        Looks(), SetHeader(name="x-t", value="1", on="request"), Looks(), RemoveHeader(name="x-t", on="request")
    )
    await call(Stack(stack, Looks())(Echo()))
    assert seen == [None, b"1", None]


async def test_neighbours_work_in_the_order_written_inwards_and_in_the_reverse_outwards():
    app = Echo()
    first, second = (SetHeader(name="x-t", value=each, on="request") for each in ("outer", "inner"))
    await call(Stack(first, second)(app))
    assert app.got == [(b"x-t", b"inner")]
    first, second = (SetHeader(name="x-t", value=each, on="response") for each in ("outer", "inner"))
    assert (await call(Stack(first, second)(Echo()))).all(b"x-t") == [b"outer"]


# Manners


@pytest.mark.parametrize(
    "policy", [SetHeader(name="x-t", value="1", on="response"), RemoveHeader(name="x-a", on="response")]
)
async def test_a_response_that_is_used_again_is_not_changed(policy: Policy):
    app = Echo([A, B])
    answers = [(await call(policy(app))).headers for _ in range(2)]
    assert answers[0] == answers[1]
    assert app.answers == [A, B]


def test_a_starlette_response_that_is_used_again_is_not_changed():
    response = PlainTextResponse("hello")
    before = list(response.raw_headers)
    client = TestClient(SetHeader(name="x-t", value="1", on="response", exists="append")(response))
    assert [client.get("/").headers.get_list("x-t") for _ in range(3)] == [["1"]] * 3
    assert response.raw_headers == before


async def test_the_servers_header_list_is_not_changed():
    lines = [(b"host", b"testserver"), A]
    stack = Stack(SetHeader(name="x-t", value="1", on="request"), RemoveHeader(name="x-a", on="request"))
    await call(stack(Echo()), headers=lines)
    assert lines == [(b"host", b"testserver"), A]


async def test_a_stream_passes_chunk_by_chunk():
    answer = await call(SetHeader(name="x-t", value="1", on="response")(Echo()))
    assert [each["body"] for each in answer.messages[1:]] == [b"one", b"two"]
    assert answer.complete


def test_policies_on_requests_do_not_look_at_responses():
    hooks = SetHeader(name="x-t", value="1", on="request").bind(None)
    assert not hasattr(hooks, "on_response")
    hooks = RemoveHeader(name="x-t", on="response").bind(None)
    assert not hasattr(hooks, "on_request")


async def test_a_ring_of_policies_on_requests_hands_the_app_the_servers_own_send():
    sends: list[Send] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sends.append(send)

    async def send(message: Any) -> None: ...

    async def receive() -> Any: ...

    await SetHeader(name="x-t", value="1", on="request")(app)(http_scope(), receive, send)
    assert sends == [send]


async def test_a_refusal_from_further_in_gets_the_header():
    class Refuses(Policy):
        def on_request(self, exchange: Exchange) -> None:
            raise Refusal(403, "no")

    stack = Stack(
        SetHeader(name="x-t", value="1", on="response"), RemoveHeader(name="cache-control", on="response"), Refuses()
    )
    answer = await call(stack(Echo()))
    assert (answer.status, answer.header(b"x-t"), answer.header(b"cache-control")) == (403, b"1", None)


async def test_an_app_that_raises_still_raises():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("app")

    with pytest.raises(LookupError):
        await call(SetHeader(name="x-t", value="1", on="response")(app))


async def test_a_client_that_leaves_is_no_error_of_ours():
    answer = Answer()
    with pytest.raises(OSError, match="gone"):
        await call(SetHeader(name="x-t", value="1", on="response")(Echo()), leave_after=1, answer=answer)
    assert answer.header(b"x-t") == b"1"


async def test_a_websocket_handshake_and_its_acceptance_are_covered():
    app = Echo([A])
    stack = Stack(
        SetHeader(name="x-in", value="1", on="request"),
        SetHeader(name="x-out", value="2", on="response"),
        RemoveHeader(name="x-a", on="response"),
    )
    answer = await connect(stack(app))
    assert app.got == [(b"x-in", b"1")]
    assert (answer.status, answer.headers) == (101, [(b"x-out", b"2")])


async def test_the_lifespan_goes_by():
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await SetHeader(name="x-t", value="1", on="response")(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_the_policy_is_a_middleware_as_it_is():
    app = Starlette()
    app.add_middleware(SetHeader(name="x-frame-options", value="DENY", on="response"))
    response = TestClient(app).get("/nowhere")
    assert (response.status_code, response.headers["x-frame-options"]) == (404, "DENY")


# Hostile values


def from_query(exchange: Exchange) -> str:
    """What must never be written: the caller's text, decoded, in a header."""
    return unquote_plus(exchange.scope["query_string"].decode().removeprefix("x="))


HOSTILE = [
    b"x=a%0d%0aSet-Cookie:%20b=1",
    b"x=a%0aset-cookie:b",
    b"x=a%00b",
    b"x=a%7f",
    b"x=%0d",
    b"x=%E2%82%AC",
    b"x=a%0b",
]


@both
@pytest.mark.parametrize("query", HOSTILE)
async def test_a_hostile_value_is_refused_and_never_two_headers(
    on: Any, query: bytes, caplog: pytest.LogCaptureFixture
):
    answer = await call(SetHeader(name="x-t", value=from_query, on=on)(Echo()), query=query)
    assert answer.status == 400
    assert b'"bad-header-value"' in answer.body
    assert answer.header(b"set-cookie") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "x-t" in caplog.text
    assert "ookie" not in caplog.text.lower()


async def test_a_hostile_value_on_a_websocket_is_refused_before_it_is_accepted():
    answer = await connect(SetHeader(name="x-t", value=lambda exchange: "a\r\nb", on="response")(Echo()), denial=True)
    assert answer.status == 400


@given(st.text(max_size=20))
async def test_any_text_is_one_line_or_refused(text: str):
    app = Echo()
    answer = await call(SetHeader(name="x-t", value=lambda exchange: text, on="request")(app))
    if answer.status == 200:
        assert app.got == [(b"x-t", header_value(text))]
    else:
        assert answer.status == 400


@both
@pytest.mark.parametrize("wrong", [3, ["a"], b"a".decode], ids=["number", "list", "function"])
async def test_a_function_of_the_wrong_kind_fails_closed(on: Any, wrong: Any, caplog: pytest.LogCaptureFixture):
    answer = await call(SetHeader(name="x-t", value=lambda exchange: wrong, on=on)(Echo()))
    assert answer.status == 500
    assert b"policy-failed" in answer.body


@both
async def test_a_function_that_raises_fails_closed(on: Any, caplog: pytest.LogCaptureFixture):
    answer = await call(SetHeader(name="x-t", value=lambda exchange: str(1 // 0), on=on)(Echo()))
    assert answer.status == 500


async def test_bytes_beyond_ascii_come_through_as_they_were_sent():
    app = Echo()
    await call(SetHeader(name="x-t", value=by.header("x-a"), on="request")(app), headers=[(b"x-a", b"\xff\xfe")])
    assert app.got[-1] == (b"x-t", b"\xff\xfe")


async def test_a_latin_1_value_is_sent_and_outer_blanks_are_not():
    assert await through(SetHeader(name="x-t", value=" né\t", on="response"), [], "response") == [(b"x-t", b"n\xe9")]


# Configuration

RESERVED = [
    "Content-Length", "transfer-encoding", "Connection", "keep-alive", "Upgrade", "te", "trailer", "proxy-connection",
    "Host", "sec-websocket-accept", "sec-websocket-protocol",
]  # fmt: skip


@both
@pytest.mark.parametrize("name", RESERVED)
def test_what_belongs_to_the_connection_cannot_be_touched(name: str, on: Any):
    with pytest.raises(ConfigError, match=r"SetHeader\.name: .* belongs to the connection"):
        SetHeader(name=name, value="1", on=on)
    with pytest.raises(ConfigError, match=r"RemoveHeader\.name: .* belongs to the connection"):
        RemoveHeader(name=name, on=on)


@pytest.mark.parametrize("name", ["", " ", "x y", "X\r\nY", ":path", "x\x00", "x:", "né", "x\n", "\u017fet"])
def test_a_name_that_is_none_cannot_be_given(name: str):
    with pytest.raises(ConfigError, match="is not a header name"):
        SetHeader(name=name, value="1", on="request")
    with pytest.raises(ConfigError, match="is not a header name"):
        RemoveHeader(name=name, on="request")


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\x00", "\x7f", "€", ("a", "b\n"), "\ud800"])
def test_a_literal_that_fits_no_header_cannot_be_given(value: Any):
    with pytest.raises(ConfigError, match=r"SetHeader\.value: .* cannot be sent"):
        SetHeader(name="x-t", value=value, on="request")


async def awaited(exchange: Exchange) -> str:
    return "1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value": ()}, "Use RemoveHeader"),
        ({"value": awaited}, "Give a plain function"),
        ({"value": 3}, r"SetHeader\.value"),
        ({"value": None}, r"SetHeader\.value"),
        ({"exists": "delete"}, r"SetHeader\.exists"),
        ({"on": "both"}, r"SetHeader\.on"),
        ({"nam": "x"}, "Did you mean name"),
        ({"name": "authorization", "exists": "append"}, "stands alone"),
        ({"name": "Location", "value": ("a", "b"), "on": "response"}, "stands alone"),
        ({"name": "cookie", "exists": "append"}, "stands alone"),
        ({"name": "authorization", "exists": "append", "value": lambda exchange: "a"}, "stands alone"),
        ({"name": "Content-Type", "exists": "append", "value": by.principal, "on": "response"}, "stands alone"),
    ],
)
def test_a_mistake_is_found_while_building(fields: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        SetHeader(**{"name": "x-t", "value": "1", "on": "request", **fields})


def test_whose_header_it_is_must_be_said():
    with pytest.raises(ConfigError, match=r"SetHeader\.on: is missing"):
        SetHeader(name="x-t", value="1")  # type: ignore[call-arg]


def test_a_value_may_be_a_secret_and_is_not_shown():
    policy = SetHeader(name="x-api-key", value="s3cret", on="request")
    assert "s3cret" not in repr(policy)
    with pytest.raises(ConfigError) as caught:
        SetHeader(name="x-api-key", value="s3cret\n", on="request")
    assert "s3cret" not in str(caught.value)


def test_equal_policies_are_equal():
    one, other = (SetHeader(name="x-t", value="1", on="request") for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
