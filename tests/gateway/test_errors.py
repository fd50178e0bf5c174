"""Refusals as Azure API Management writes them, for those who come from there."""

import json

import pytest
from tests.gateway.houses import Backend, Subscribers, get

from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api
from apim_middleware.policies.limits import Quota, RateLimit
from apim_middleware.proxy.app import Proxy
from apim_middleware.testing import FakeClock, call, connect
from apim_middleware.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio


def house(*policies: object, backend: object = None, **more: object) -> tuple[Gateway, list[tuple[bytes, bytes]]]:
    subscribers = Subscribers()
    lines = subscribers.add("mine", api="*")
    api = Api("a", "/a", backend=backend or Backend(), policies=policies)  # type: ignore[arg-type]
    given = {"errors": "azure", "env": Env(clock=FakeClock()), **more}
    return Gateway(apis=(api,), keys=subscribers.store, **given), lines  # type: ignore[arg-type]


async def test_the_bodies_are_azures() -> None:
    app, lines = house(RateLimit(calls=1, per=60), Quota(calls=5, per=7200))
    wrong = [(lines[0][0], b"wrong")]
    for path, headers, status, message in (
        ("/nowhere", lines, 404, "Resource not found"),
        ("/a/../b", lines, 400, None),
        ("/a", [], 401, "Access denied due to missing subscription key. Make sure to include subscription key when "
                        "making requests to an API."),
        ("/a", wrong, 401, "Access denied due to invalid subscription key. Make sure to provide a valid key for an "
                           "active subscription."),
        ("/a", lines, 200, None),
        ("/a", lines, 429, "Rate limit is exceeded. Try again in 60 seconds."),
    ):  # fmt: skip
        answer = await get(app, path, headers)
        assert answer.status == status
        if status != 200:
            assert answer.header(b"content-type") == b"application/json"
            body = json.loads(answer.body)
            assert list(body) == ["statusCode", "message"]
            assert body["statusCode"] == status
            assert message in (None, body["message"])


async def test_quotas_say_when_they_are_replenished() -> None:
    app, lines = house(Quota(calls=1, per=90_061))
    await get(app, "/a", lines)
    answer = await get(app, "/a", lines)
    body = json.loads(answer.body)
    assert answer.status == 403
    assert body["message"].startswith("Out of call volume quota. Quota will be replenished in ")


@pytest.mark.parametrize("units", ["bytes", "request-bytes", "response-bytes"])
async def test_quotas_of_bytes_speak_of_bandwidth(units: str) -> None:
    """They spoke of calls."""
    quota = Quota(calls=1, per=3600, units=units)  # type: ignore[arg-type]

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await Backend()(scope, receive, send)

    app, lines = house(quota, backend=reads)
    await call(app, "POST", "/a", headers=lines, body=b"more than a byte")
    answer = await get(app, "/a", lines)
    message = json.loads(answer.body)["message"]
    assert message.startswith("Out of bandwidth quota. Quota will be replenished in ")


async def test_the_proxy_refuses_in_the_same_way() -> None:
    app, lines = house(backend=Proxy("http://127.0.0.1:1"))
    answer = await get(app, "/a", lines)
    assert answer.status == 502
    assert list(json.loads(answer.body)) == ["statusCode", "message"]


async def test_a_refused_handshake_is_written_so_too() -> None:
    app, _ = house()
    answer = await connect(app, "/a")
    assert (answer.status, json.loads(answer.body)["statusCode"]) == (401, 401)


async def test_nothing_of_ours_is_told_of_what_went_wrong() -> None:
    def fails(exchange: Exchange) -> str:
        raise RuntimeError("secret")

    app, lines = house(RateLimit(calls=1, per=60, by=fails))
    answer = await get(app, "/a", lines)
    assert json.loads(answer.body) == {"statusCode": 500, "message": "Internal server error"}


async def test_head_has_no_body() -> None:
    app, _ = house()
    answer = await call(app, "HEAD", "/a")
    assert (answer.status, answer.body) == (401, b"")
