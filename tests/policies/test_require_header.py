"""A request without the header, or with another value, goes no further."""

import hmac
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policies import require_header
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policy import Stack
from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

SECRET = "origin-secret-4711"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in", "more_body": True})
    await send({"type": "http.response.body", "body": b"side"})


async def ask(policy: RequireHeader, *values: bytes, name: bytes = b"x-origin", **more: Any) -> Answer:
    return await call(policy(app), headers=[(name, value) for value in values], **more)


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


# Let in


@pytest.mark.anyio
async def test_a_header_that_was_sent_lets_in() -> None:
    policy = RequireHeader(name="X-Origin")
    for values in ([b"anything"], [b""], [b"a", b"b"]):
        answer = await ask(policy, *values)
        assert (answer.status, answer.body) == (200, b"inside")
    assert (await ask(policy, b"a", name=b"X-ORIGIN")).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("sent", [b"one", b"two", b" two\t"])
async def test_an_accepted_value_lets_in(sent: bytes) -> None:
    assert (await ask(RequireHeader(name="x-origin", values=("one", "two")), sent)).status == 200


@pytest.mark.anyio
async def test_one_value_may_be_given_as_it_is() -> None:
    assert (await ask(RequireHeader(name="x-origin", values="one"), b"one")).status == 200
    assert (await ask(RequireHeader(name="x-origin", values="one"), b"o")).status == 400


@pytest.mark.anyio
async def test_case_matters_unless_it_is_said_not_to() -> None:
    assert (await ask(RequireHeader(name="x-origin", values="One"), b"oNE")).status == 400
    assert (await ask(RequireHeader(name="x-origin", values="One", ignore_case=True), b"oNE")).status == 200
    assert (await ask(RequireHeader(name="x-origin", values="\xc4", ignore_case=True), b"\xe4")).status == 400


# Refused


@pytest.mark.anyio
async def test_a_missing_header_is_refused_and_named() -> None:
    for policy in (RequireHeader(name="X-Origin"), RequireHeader(name="X-Origin", values=SECRET)):
        answer = await ask(policy)
        assert (answer.status, code(answer)) == (400, "header-missing")
        assert "X-Origin" in json.loads(answer.body)["detail"]
        assert SECRET.encode() not in answer.body


BAD = {
    "other": [b"three"],
    "empty": [b""],
    "longer": [b"one1"],
    "shorter": [b"on"],
    "list": [b"one, two"],
    "twice": [b"one", b"one"],
    "good-first": [b"one", b"three"],
    "good-last": [b"three", b"one"],
    "bytes": [b"\xff\xfe"],
    "blank-within": [b"o ne"],
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BAD)
async def test_another_value_is_refused_without_telling_which_would_do(name: str) -> None:
    answer = await ask(RequireHeader(name="x-origin", values=("one", "two")), *BAD[name])
    assert (answer.status, code(answer)) == (400, "header-refused")
    assert b"two" not in answer.body


@pytest.mark.anyio
@pytest.mark.parametrize("sent", [SECRET, "origin-secret-4712", "x", SECRET.upper(), "another"])
async def test_a_value_is_compared_as_a_whole_with_each_that_would_do(
    sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it is right, so that the time it takes tells nothing."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    policy = RequireHeader(name="x-origin", values=(SECRET, "another"))
    monkeypatch.setattr(require_header, "hmac", SimpleNamespace(compare_digest=compare))
    await ask(policy, sent.encode())
    assert compared == [(sent.encode(), SECRET.encode()), (sent.encode(), b"another")]


@pytest.mark.anyio
async def test_status_and_message_can_be_others_and_the_codes_stay() -> None:
    policy = RequireHeader(name="x-origin", values="a", status=403, message="Come through the front.")
    for values, expected in (([], "header-missing"), ([b"b"], "header-refused")):
        answer = await ask(policy, *values)
        assert (answer.status, code(answer)) == (403, expected)
        assert json.loads(answer.body)["detail"] == "Come through the front."


@pytest.mark.anyio
async def test_a_401_has_its_challenge() -> None:
    answer = await ask(RequireHeader(name="x-origin", status=401, challenge='Bearer realm="api"'))
    assert (answer.status, answer.all(b"www-authenticate")) == (401, [b'Bearer realm="api"'])


@pytest.mark.anyio
async def test_a_misspelt_twin_is_not_the_header() -> None:
    """Names with underscores are dropped before any policy: ``x_origin`` beside ``x-origin``."""
    policy = RequireHeader(name="x-origin", values="one")
    assert code(await ask(policy, b"one", name=b"x_origin")) == "header-missing"
    answer = await call(policy(app), headers=[(b"x-origin", b"one"), (b"x_origin", b"two")])
    assert answer.status == 200


@pytest.mark.anyio
async def test_a_header_that_connection_takes_away_is_missing() -> None:
    answer = await call(
        RequireHeader(name="x-origin")(app), headers=[(b"x-origin", b"one"), (b"connection", b"close, x-origin")]
    )
    assert code(answer) == "header-missing"


@given(st.lists(st.binary(max_size=12), max_size=3), st.booleans())
def test_any_values_are_judged_without_an_error(sent: list[bytes], ignore_case: bool) -> None:
    gate = RequireHeader(name="x-a", values=("one", "two"), ignore_case=ignore_case).bind(Env())
    exchange = Exchange(http_scope(headers=[(b"x-a", each) for each in sent]))
    stripped = [each.strip(b" \t") for each in sent]
    folded = [each.lower() if ignore_case else each for each in stripped]
    try:
        gate.on_request(exchange)
    except Refusal:
        assert folded not in ([b"one"], [b"two"])
    else:
        assert folded in ([b"one"], [b"two"])


# Everywhere


@pytest.mark.anyio
async def test_a_websocket_handshake_is_judged_like_a_request() -> None:
    guarded = RequireHeader(name="x-origin", values="one")(app)
    assert (await connect(guarded, headers=[(b"x-origin", b"one")])).status == 101
    assert (await connect(guarded)).status == 400
    closed = await connect(guarded, denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "header-missing"}]


PAGES_OF_OTHERS = [b"https://evil.example", b"null", b"http://shop.example", b"https://shop.example.evil.example"]


@pytest.mark.anyio
@pytest.mark.parametrize("page", [*PAGES_OF_OTHERS, b"https://SHOP.example", b"https://shop.example:8443", None])
async def test_a_page_of_somebody_else_opens_no_websocket_with_the_cookies_of_its_reader(page: bytes | None) -> None:
    ours = RequireHeader(name="Origin", values=("https://shop.example",), status=403)
    headers = [(b"cookie", b"session=1"), *([] if page is None else [(b"origin", page)])]
    answer = await connect(ours(app), headers=headers)
    assert (answer.status, [each["type"] for each in answer.messages if "accept" in each["type"]]) == (403, [])
    assert (await connect(ours(app), headers=[(b"origin", b"https://shop.example")])).status == 101


@pytest.mark.anyio
async def test_mounted_apps_unknown_paths_and_options_are_no_way_around() -> None:
    async def fine(request: Any) -> PlainTextResponse:
        return PlainTextResponse("fine")

    inner = Starlette(routes=[Route("/a", fine)])
    guarded = RequireHeader(name="x-origin", status=403)(Starlette(routes=[Mount("/api", inner)]))
    for method, path in (("GET", "/api/a"), ("GET", "/nowhere"), ("OPTIONS", "/api/a"), ("HEAD", "/api/a")):
        assert (await call(guarded, method, path)).status == 403


@pytest.mark.anyio
async def test_an_error_of_the_app_passes_through() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    with pytest.raises(RuntimeError, match="the app"):
        await call(RequireHeader(name="host")(broken))


# Order and configuration


def test_it_may_not_stand_behind_a_cache() -> None:
    with pytest.raises(ConfigError, match="Write RequireHeader before Cache"):
        Stack(Cache(ttl=60), RequireHeader(name="x-origin"))


def test_values_are_not_shown() -> None:
    assert SECRET not in repr(RequireHeader(name="x-origin", values=SECRET))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "a b"}),
        ("name", {"name": "X-Forwarded-For"}),
        ("name", {"name": "x-forwarded-anything"}),
        ("name", {"name": "Forwarded"}),
        ("values", {"values": f"{SECRET}\r\nb"}),
        ("values", {"values": (SECRET, "")}),
        ("values", {"values": f"{SECRET}\u20ac"}),
        ("values", {"values": [SECRET]}),
        ("status", {"status": 200}),
        ("status", {"status": 499}),
        ("status", {"status": 407}),
        ("status", {"status": 600}),
        ("challenge", {"status": 401}),
        ("challenge", {"challenge": "Bearer"}),
        ("challenge", {"status": 401, "challenge": "a\r\nb"}),
        ("value", {"value": "x"}),
    ],
)
def test_a_mistake_is_told_while_building_and_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        RequireHeader(**{"name": "x-origin", **fields})
    assert (caught.value.policy, caught.value.field) == ("RequireHeader", field)
    assert SECRET not in str(caught.value)
