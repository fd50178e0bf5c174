"""AccessLog: one line for each call, whatever becomes of it, and no secret in any."""

import json
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.letting_go import is_let_go

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.gateway import Gateway
from apim_middleware.identity import Principal, Subscription
from apim_middleware.model import Api, Operation, Product
from apim_middleware.policies.access_log import AccessLog
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.branch import When
from apim_middleware.policies.client import TrustedProxies
from apim_middleware.policies.either import AnyOf
from apim_middleware.policies.introspection import OAuth2Introspection
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.testing import FakeClock, call, connect, http_scope
from apim_middleware.types import ASGIApp, Layer, Receive, Scope, Send

pytestmark = pytest.mark.anyio

CANARY = "canary-7f3a"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1001})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Made", b"here")]})
    await send({"type": "http.response.body", "body": b"hel", "more_body": True})
    await send({"type": "http.response.body", "body": b"lo"})


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError(CANARY)


class Lines:
    """The lines that were written, read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def app(self, app: ASGIApp, *inner: Layer, env: Env | None = None, **fields: Any) -> ASGIApp:
        return Stack(AccessLog(write=self.texts.append, **fields), *inner, env=env or Env())(app)

    @property
    def only(self) -> dict[str, Any]:
        assert len(self.texts) == 1
        assert "\n" not in self.texts[0]
        found: dict[str, Any] = json.loads(self.texts[0])
        return found


@pytest.fixture
def lines() -> Lines:
    return Lines()


class Refuses(Policy):
    def on_request(self, exchange: Exchange) -> None:
        raise Refusal(403, "not-you")


class Knows(Policy):
    """Knows the caller."""

    def on_request(self, exchange: Exchange) -> None:
        exchange.principal = Principal(subject="alice", issuer="https://issuer.example")
        exchange.subscription = Subscription(id="acme", product="starter")


async def test_it_says_who_called_what_and_how_it_came_out(lines: Lines) -> None:
    clock = FakeClock(1_800_000_000.25)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        clock.advance(1.5)
        await hello(scope, receive, send)

    app = lines.app(slow, Knows(), env=Env(clock=clock))
    await call(app, "POST", "/orders/7", query=b"page=2")
    found = lines.only
    assert found["time"] == "2027-01-15T08:00:00.250Z"
    assert (found["seconds"], found["outcome"]) == (1.5, "completed")
    assert (found["http.request.method"], found["url.path"], found["url.query"]) == ("POST", "/orders/7", "page=2")
    assert found["http.response.status_code"] == 200
    assert (found["apim.caller"], found["apim.issuer"]) == ("alice", "https://issuer.example")
    assert (found["apim.subscription"], found["apim.product"]) == ("acme", "starter")
    assert "client.address" in found


async def test_what_is_not_known_is_not_there(lines: Lines) -> None:
    await call(lines.app(hello))
    assert not {"apim.caller", "apim.product", "apim.refusal.code", "http.route", "error.type", "trace_id"} & set(
        lines.only
    )


async def test_a_refusal_is_told_by_its_code(lines: Lines) -> None:
    assert (await call(lines.app(hello, Refuses()))).status == 403
    assert (lines.only["http.response.status_code"], lines.only["apim.refusal.code"]) == (403, "not-you")
    assert lines.only["outcome"] == "completed"


async def test_what_hygiene_refuses_has_a_line_too(lines: Lines) -> None:
    answer = await call(lines.app(hello, Knows()), path="/a/../b", raw_path=b"/a/%2e%2e/b")
    assert answer.status == 400
    assert lines.only["apim.refusal.code"] == json.loads(answer.body)["code"]


async def test_a_gateway_says_which_operation_and_product_it_was() -> None:
    texts: list[str] = []
    keys = MemoryKeys()
    keys.add(Subscription(id="acme", product="starter"))
    gateway = Gateway(
        policies=(AccessLog(write=texts.append),),
        products=(Product("starter", apis=("orders",)),),
        apis=(Api("orders", "/orders", backend=hello, operations=(Operation("GET", "/{id}", name="show"),)),),
        keys=keys,
    )
    key = keys.issue("acme")
    await call(gateway, path="/orders/7", headers=[(b"ocp-apim-subscription-key", key.encode())])
    await call(gateway, path="/orders/7")
    await call(gateway, path="/nothing")
    known, stranger, lost = map(json.loads, texts)
    assert {name: known[name] for name in ("apim.api", "apim.operation", "apim.product", "http.route")} == {
        "apim.api": "orders", "apim.operation": "show", "apim.product": "starter", "http.route": "/orders/{id}",
    }  # fmt: skip
    assert known["apim.subscription"] == "acme"
    assert stranger["apim.refusal.code"] == "subscription-key-missing"
    assert lost["apim.refusal.code"] == "operation-not-found"
    assert key not in texts[0]


async def test_a_websocket_has_one_line_when_it_ends(lines: Lines) -> None:
    await connect(lines.app(hello))
    assert (lines.only["http.response.status_code"], lines.only["apim.websocket.close_code"]) == (101, 1001)
    assert lines.only["network.protocol.name"] == "websocket"


async def test_a_websocket_that_is_closed_instead_of_accepted_is_403(lines: Lines) -> None:
    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1000})

    await connect(lines.app(closing))
    assert lines.only["http.response.status_code"] == 403


async def test_a_refused_websocket_is_told_by_its_code(lines: Lines) -> None:
    assert (await connect(lines.app(hello, Refuses()))).status == 403
    assert lines.only["apim.refusal.code"] == "not-you"


async def test_a_client_that_closes_its_websocket_did_nothing_wrong(lines: Lines) -> None:
    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    await connect(lines.app(listening), texts=["a"])
    assert lines.only["outcome"] == "completed"


async def test_the_code_a_client_closes_its_websocket_with_is_written_down(lines: Lines) -> None:
    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 4001}])

    async def receive() -> dict[str, object]:
        return next(messages)

    async def send(message: object) -> None: ...

    await lines.app(listening)({**http_scope(), "type": "websocket"}, receive, send)
    assert lines.only["apim.websocket.close_code"] == 4001


async def test_a_stream_is_written_down_at_its_last_byte(lines: Lines) -> None:
    seen: list[int] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        seen.append(len(lines.texts))  # work goes on behind the last byte

    await call(lines.app(stream))
    assert seen == [1]


async def test_an_app_that_raises_has_failed(lines: Lines) -> None:
    with pytest.raises(RuntimeError):
        await call(lines.app(failing))
    assert (lines.only["outcome"], lines.only["error.type"]) == ("failed", "RuntimeError")
    assert CANARY not in lines.texts[0]


async def test_an_app_that_answers_500_and_raises_has_failed(lines: Lines) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body"})
        raise RuntimeError(CANARY)

    with pytest.raises(RuntimeError):
        await call(lines.app(broken))
    assert (lines.only["outcome"], lines.only["http.response.status_code"]) == ("failed", 500)


async def test_an_app_that_ends_early_left_the_response_incomplete(lines: Lines) -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    await call(lines.app(early))
    assert lines.only["outcome"] == "incomplete"


async def test_a_client_that_leaves_is_told_so(lines: Lines) -> None:
    with pytest.raises(OSError, match="gone"):
        await call(lines.app(hello), leave_after=2)
    assert (lines.only["outcome"], lines.only["http.response.status_code"]) == ("client-left", 200)


async def test_a_client_that_is_heard_to_leave_is_told_so(lines: Lines) -> None:
    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    await call(lines.app(listening), leave_after=0)
    assert lines.only["outcome"] == "client-left"


async def test_a_request_that_is_cancelled_has_a_line(lines: Lines) -> None:
    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    app = lines.app(waiting)
    async with anyio.create_task_group() as group:
        group.start_soon(call, app)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert lines.only["outcome"] == "failed"


async def test_the_client_is_the_one_that_trusted_proxies_vouch_for(lines: Lines) -> None:
    app = lines.app(hello, TrustedProxies(trusted=("203.0.113.7",)))
    await call(app, headers=[(b"x-forwarded-for", b"198.51.100.9")], client=("203.0.113.7", 1))
    assert lines.only["client.address"] == "198.51.100.9"


async def test_what_policies_do_to_the_path_does_not_change_what_was_asked(lines: Lines) -> None:
    class Rewrites(Policy):
        def on_request(self, exchange: Exchange) -> None:
            exchange.scope["path"], exchange.scope["raw_path"] = "/other", b"/other"

    await call(lines.app(hello, Rewrites()), path="/asked")
    assert lines.only["url.path"] == "/asked"


async def test_it_carries_the_id_of_the_trace(lines: Lines) -> None:
    parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await call(lines.app(hello), headers=[(b"traceparent", parent)])
    assert lines.only["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_headers_are_written_when_asked_for(lines: Lines) -> None:
    app = lines.app(hello, request_headers=("X-Request-Id",), response_headers=("x-made",))
    await call(app, headers=[(b"x-request-id", b"17")])
    assert lines.only["http.request.header.x-request-id"] == ["17"]
    assert lines.only["http.response.header.x-made"] == ["here"]


SECRETS: Sequence[tuple[bytes, bytes]] = (
    (b"authorization", b"Bearer " + CANARY.encode()),
    (b"cookie", b"session=" + CANARY.encode()),
    (b"ocp-apim-subscription-key", CANARY.encode()),
)


@pytest.mark.parametrize("query", ["subscription-key", "Access_Token", "code", "sig", "mine"])
async def test_no_secret_is_written(lines: Lines, query: str) -> None:
    text = f"page=2&{query}={CANARY}".encode()
    await call(lines.app(hello, redact=("mine",)), query=text, headers=SECRETS)
    assert CANARY not in lines.texts[0]
    assert "page=2" in lines.only["url.query"]


def asks_for_key(**places: Any) -> APIKeyAuth:
    return APIKeyAuth(keys=MemoryKeys(), **places)


def asks_for_token(place: str) -> JWTAuth:
    return JWTAuth(
        issuer="https://issuer.example", audience="api", keys=b"k" * 32, algorithms="HS256", token_from=place
    )


def asks_elsewhere(place: str) -> OAuth2Introspection:
    url = "https://issuer.example/introspect"
    return OAuth2Introspection(url=url, client_id="api", client_secret="s", audience=None, token_from=place)


LOOKING = {
    "h1": lambda: asks_for_key(query="h1"),
    "h2": lambda: asks_for_token("query:h2"),
    "h3": lambda: asks_elsewhere("query:h3"),
    "h4": lambda: AnyOf(asks_for_key(query="h4"), asks_for_token("header:authorization")),
    "h5": lambda: When(lambda exchange: False, asks_for_key(query="h5")),
    "h6": lambda: Stack(Refuses(), asks_for_key(query="h6")),
}
"""Policies that look for a secret under a name of their own; the last ones never get to see it."""


@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("form", ["{}={}", "page=2&{}={}", "page=2;{}={}", "{}={}%00", "next=%2F%3F{}%3D{}", "{}[]={}"])
async def test_a_parameter_that_a_policy_reads_a_secret_from_is_masked(lines: Lines, name: str, form: str) -> None:
    await call(lines.app(hello, LOOKING[name]()), query=form.format(name, CANARY).encode())
    assert CANARY not in lines.texts[0]


async def test_the_parameter_with_the_keys_of_an_api_is_masked_whatever_becomes_of_the_request() -> None:
    texts: list[str] = []
    api = Api("orders", "/orders", backend=hello, operations=(Operation("GET", "/"),), key_query="h7")
    gateway = AccessLog(write=texts.append)(Gateway(apis=(api,), keys=MemoryKeys()))
    for path in ("/orders", "/nowhere"):
        await call(gateway, path=path, query=b"h7=" + CANARY.encode())
    assert [json.loads(each)["url.query"] for each in texts] == ["h7=REDACTED"] * 2


async def test_a_header_that_a_policy_reads_a_secret_from_is_masked(lines: Lines) -> None:
    app = lines.app(hello, asks_for_key(header="X-Partner", optional=True), request_headers=("x-partner", "x-page"))
    await call(app, headers=[(b"x-partner", CANARY.encode()), (b"x-page", b"2")])
    assert lines.only["http.request.header.x-partner"] == ["REDACTED"]
    assert lines.only["http.request.header.x-page"] == ["2"]


@pytest.mark.parametrize(
    "name",
    ["app_key", "userkey", "myToken", "client-pass", "the.secret", "dbpwd", "user[password]", "X-Client-JWT"],
)
async def test_a_parameter_that_is_called_like_a_secret_is_masked(lines: Lines, name: str) -> None:
    await call(lines.app(hello), query=f"{name}={CANARY}&turkey=1&bypass=2&keys=3".encode())
    assert lines.only["url.query"] == f"{name}=REDACTED&turkey=1&bypass=2&keys=3"


@given(st.text(), st.binary(max_size=50))
def test_whatever_is_asked_the_line_is_one_line_of_json(path: str, agent: bytes) -> None:
    lines = Lines()
    app = AccessLog(write=lines.texts.append)(hello)
    scope = http_scope(path="/", headers=[(b"user-agent", agent)])
    scope["path"], scope["raw_path"] = f"/{path}", None
    anyio.run(anyio_free, app, scope)
    assert lines.only["outcome"] == "completed"


async def anyio_free(app: ASGIApp, scope: Scope) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    await app(scope, receive, send)


async def test_paths_may_be_left_out(lines: Lines) -> None:
    app = lines.app(hello, exclude=("/health", "/internal/*"))
    for path in ("/health", "/internal/x"):
        await call(app, path=path)
    assert lines.texts == []
    await call(app, path="/healthy")
    assert lines.only["url.path"] == "/healthy"


@pytest.mark.parametrize("path", ["/internal/../orders", "/internal/%2e%2e/orders", "/internal/..%2forders"])
async def test_no_form_of_a_path_leads_around_the_log(lines: Lines, path: str) -> None:
    app = lines.app(hello, Knows(), exclude=("/internal/*",))
    assert (await call(app, path=unquote(path), raw_path=path.encode())).status == 400
    assert lines.only["http.response.status_code"] == 400


async def test_the_logger_gets_the_lines_that_nobody_else_takes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "apim_middleware.access"):
        await call(Stack(AccessLog())(hello), path="/%25s")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("apim_middleware.access", "INFO")
    assert json.loads(record.getMessage())["http.response.status_code"] == 200


async def test_a_line_that_cannot_be_written_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    def full(line: str) -> None:
        raise OSError("no space left")

    assert (await call(Stack(AccessLog(write=full))(hello))).body == b"hello"
    assert "could not be recorded" in caplog.text


async def test_nothing_of_it_stays_in_the_scope() -> None:
    scope = http_scope()
    await anyio_free(AccessLog(write=lambda line: None)(hello), scope)
    assert KEY not in scope


async def test_two_of_them_write_two_lines(lines: Lines) -> None:
    await call(Stack(AccessLog(write=lines.texts.append), AccessLog(write=lines.texts.append))(hello))
    assert len(lines.texts) == 2


async def later(line: str) -> None:
    """No writer."""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"write": later}, "must be awaited"),
        ({"exclude": ("health",)}, "holds no path"),
        ({"exclude": ("/a*b",)}, "holds no path"),
        ({"request_headers": ("a b",)}, "is no name"),
        ({"request_headers": ("Authorization",)}, "carries credentials"),
        ({"response_headers": ("set-cookie",)}, "carries credentials"),
        ({"request_headers": ("X-AuthToken",)}, "carries credentials"),
        ({"request_headers": ("x-amzn-oidc-data",)}, "carries credentials"),
    ],
)
def test_mistakes_are_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AccessLog(**fields)


@pytest.mark.parametrize(
    "app",
    [
        Stack(AccessLog())(failing),
        Gateway(
            apis=(Api("a", "/", backend=failing, policies=(RateLimit(calls=9, per=60),), subscription_required=False),)
        ),
    ],
    ids=["log", "gateway"],
)
async def test_a_call_that_failed_is_let_go_without_the_collector(app: ASGIApp) -> None:
    """As with rings, whoever opens an exchange parts it from what was raised."""
    assert await is_let_go(app)
