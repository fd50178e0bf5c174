"""Webhooks: signed with the shared secret, whole and fresh, they come in; anything else does not."""

import base64
import hmac
import json
from types import SimpleNamespace
from typing import Any

import pytest

from apim_middleware import by
from apim_middleware._signing import once
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.policies import hmac_signature
from apim_middleware.policies.hmac_signature import HMACSignature
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policy import Stack
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.testing import Answer, FakeClock, call, connect
from apim_middleware.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000
SECRET, OTHER = b"It's a Secret to Everybody", b"another secret of ours"
BODY = b"Hello, World!"

STRIPE: dict[str, Any] = {
    "header": "stripe-signature",
    "parameter": "v1",
    "timestamp_parameter": "t",
    "signed": "{timestamp}.{body}",
}
SLACK: dict[str, Any] = {
    "header": "x-slack-signature",
    "prefix": "v0=",
    "timestamp_header": "x-slack-request-timestamp",
    "signed": "v0:{timestamp}:{body}",
}


BLURRED = (
    "{timestamp}.{target}.{body}",
    "{timestamp}.{method}.{target}\n{body}",
    "{timestamp}&{target}&{body}",
    "{timestamp}:{method}:{target}:{body}",
    "{body}.{target}",
    "{body}0{timestamp}",
    "{timestamp}00{body}",
)
CLEAR = (
    "{timestamp}.{body}",
    "{timestamp}0.{body}",
    "{body}:{timestamp}",
    "{body}\n{target}",
    "{method} {target}\r\n{timestamp}\n{body}",
    "{timestamp}.{method}:{target}#{body}",
)


def mac(text: bytes, secret: bytes = SECRET, hash: str = "sha256") -> str:  # noqa: A002 - as the field is called
    return hmac.digest(secret, text, hash).hex()


class House:
    """An app behind the policy; keeps the bodies and callers that reached it."""

    def __init__(self, **fields: Any) -> None:
        self.clock = FakeClock(NOW)
        self.bodies: list[bytes] = []
        self.callers: list[str] = []
        policy = HMACSignature(**{"secrets": (SECRET,), **fields})
        self.app = Stack(policy, env=Env(clock=self.clock, place="here"))(self.inner)

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.callers.append(scope["user"].subject if "user" in scope else "")
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def post(self, *headers: tuple[str, str], body: bytes | list[bytes] = BODY) -> Answer:
        lines = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        return await call(self.app, "POST", "/hook", headers=lines, body=body, query=b"a=1")


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"] if answer.status != 200 else ""


@pytest.mark.parametrize("secrets", [SECRET, (SECRET,)])
async def test_the_example_of_github_comes_in(secrets: bytes | tuple[bytes, ...]) -> None:
    house = House(secrets=secrets, header="x-hub-signature-256", prefix="sha256=")
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert (await house.post(("x-hub-signature-256", signature))).status == 200
    assert (house.bodies, house.callers) == ([BODY], ["webhook"])


async def test_as_stripe_signs_it_comes_in() -> None:
    signature = f"t={NOW},v1={'0' * 64},v1={mac(f'{NOW}.'.encode() + BODY)},v0=ignored"
    assert (await House(**STRIPE).post(("stripe-signature", signature))).status == 200


async def test_as_slack_signs_it_comes_in() -> None:
    signature = f"v0={mac(f'v0:{NOW}:'.encode() + BODY)}"
    house = House(**SLACK)
    answer = await house.post(("x-slack-signature", signature), ("x-slack-request-timestamp", f"{NOW}"))
    assert answer.status == 200


async def test_as_shopify_signs_it_comes_in() -> None:
    house = House(header="x-shopify-hmac-sha256", encoding="base64")
    signature = base64.b64encode(hmac.digest(SECRET, BODY, "sha256")).decode()
    assert (await house.post(("x-shopify-hmac-sha256", signature))).status == 200


async def test_method_and_target_can_be_signed_too() -> None:
    house = House(signed="{method}\n{target}\n{body}", hash="sha512")
    assert (await house.post(("x-signature", mac(b"POST\n/hook?a=1\n" + BODY, hash="sha512")))).status == 200
    assert code(await house.post(("x-signature", mac(b"POST\n/hook\n" + BODY, hash="sha512")))) == (
        401,
        "signature-invalid",
    )


@pytest.mark.parametrize("signed", CLEAR)
def test_what_tells_its_parts_apart_can_be_signed(signed: str) -> None:
    HMACSignature(secrets=SECRET, signed=signed, timestamp_header="x-time" if "{timestamp}" in signed else "")


@pytest.mark.parametrize("signed", BLURRED)
def test_where_the_end_of_a_part_is_not_clear_it_is_named(signed: str) -> None:
    """What was signed for one target and body came in with a longer target, and the rest of the body."""
    time = "x-time" if "{timestamp}" in signed else ""
    with pytest.raises(ConfigError, match="where one part of it ends") as raised:
        HMACSignature(secrets=SECRET, signed=signed, timestamp_header=time)
    assert "{timestamp}\\n{target}\\n{body}" in raised.value.cure


async def test_a_body_in_chunks_is_checked_whole() -> None:
    house = House()
    assert (await house.post(("x-signature", mac(BODY)), body=[BODY[:5], BODY[5:]])).status == 200
    assert house.bodies == [BODY]


async def test_both_secrets_count_while_one_takes_the_place_of_the_other() -> None:
    house = House(secrets=(SECRET, OTHER))
    for secret in (SECRET, OTHER):
        assert (await house.post(("x-signature", mac(BODY, secret)))).status == 200


@pytest.mark.parametrize(
    "signature",
    [
        mac(BODY, OTHER),
        mac(BODY + b" "),
        mac(BODY)[:-1],
        mac(BODY)[:-2],
        mac(BODY) + "00",
        "",
        "sha256=" + mac(BODY),
        "g" * 64,
        "é" * 64,
        base64.b64encode(bytes.fromhex(mac(BODY))).decode(),
    ],
)
async def test_anything_else_is_refused_before_the_app_sees_it(signature: str) -> None:
    house = House()
    assert code(await house.post(("x-signature", signature))) == (401, "signature-invalid")
    assert house.bodies == []


async def test_two_headers_are_refused_though_one_is_good() -> None:
    headers = ("x-signature", mac(BODY)), ("x-signature", "00")
    assert code(await House().post(*headers)) == (401, "signature-invalid")


async def test_no_signature_is_missing_and_optional_lets_it_in_as_nobody() -> None:
    assert code(await House().post()) == (401, "signature-missing")
    house = House(optional=True)
    assert (await house.post()).status == 200
    assert house.callers == [""]
    assert code(await house.post(("x-signature", "00"))) == (401, "signature-invalid")


@pytest.mark.parametrize(("age", "status"), [(300, 200), (301, 401), (-300, 200), (-301, 401)])
async def test_a_timestamp_counts_for_a_while(age: int, status: int) -> None:
    at = NOW - age
    answer = await House(**STRIPE).post(("stripe-signature", f"t={at},v1={mac(f'{at}.'.encode() + BODY)}"))
    assert answer.status == status


@pytest.mark.parametrize(
    "header",
    [
        "v1={mac}",
        "t={now}",
        "t={now},t={now},v1={mac}",
        "t=,v1={mac}",
        "t=-1,v1={mac}",
        "t={now}.0,v1={mac}",
        "t=9999999999999,v1={mac}",
        "t=\u00b2,v1={mac}",
        "t={now}, v1:{mac}",
    ],
)
async def test_timestamps_that_could_be_read_differently_are_refused(header: str) -> None:
    text = header.format(now=NOW, mac=mac(f"{NOW}.".encode() + BODY))
    assert code(await House(**STRIPE).post(("stripe-signature", text))) == (401, "signature-invalid")


async def test_an_empty_timestamp_is_none_though_it_is_what_was_signed() -> None:
    """It was taken for a message without any time, which never grows old."""
    header = f"t=,v1={mac(b'.' + BODY)}"
    assert code(await House(**STRIPE).post(("stripe-signature", header))) == (401, "signature-invalid")


@pytest.mark.parametrize("count", [0, 2])
async def test_there_is_one_header_with_the_timestamp(count: int) -> None:
    headers = [("x-slack-request-timestamp", f"{NOW}")] * count
    signature = f"v0={mac(f'v0:{NOW}:'.encode() + BODY)}"
    assert code(await House(**SLACK).post(("x-slack-signature", signature), *headers)) == (401, "signature-invalid")


async def test_at_most_eight_signatures_are_compared() -> None:
    bad = ",".join(["v1=00"] * 8)
    header = f"t={NOW},{bad},v1={mac(f'{NOW}.'.encode() + BODY)}"
    assert code(await House(**STRIPE).post(("stripe-signature", header))) == (401, "signature-invalid")


async def test_once_means_once() -> None:
    house = House(once=True, **STRIPE)
    header = ("stripe-signature", f"t={NOW + 300},v1={mac(f'{NOW + 300}.'.encode() + BODY)}")
    assert (await house.post(header)).status == 200
    house.clock.advance(599)
    assert code(await house.post(header)) == (401, "signature-replayed")


async def test_made_up_keys_of_a_limit_push_out_nothing_that_was_used() -> None:
    """They did, for what was used stood among the counters of the limits, and replays came in."""
    house = House()
    counters = MemoryCounters(max_keys=100, clock=house.clock)
    layers = RateLimit(calls=1, per=600, by=by.header("x-who")), HMACSignature(secrets=SECRET, once=True, **STRIPE)
    house.app = Stack(*layers, env=Env(clock=house.clock, counters=counters))(house.inner)
    signed = ("stripe-signature", f"t={NOW},v1={mac(f'{NOW}.'.encode() + BODY)}")
    assert (await house.post(signed, ("x-who", "victim"))).status == 200
    for number in range(500):
        await house.post(("x-who", f"made up {number}"))
    assert counters.evicted
    assert code(await house.post(signed, ("x-who", "thief"))) == (401, "signature-replayed")


async def test_when_all_that_can_be_remembered_counts_still_nobody_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_MOST", 1)
    house = House(once=True, **STRIPE)
    one, other = (("stripe-signature", f"t={at},v1={mac(f'{at}.'.encode() + BODY)}") for at in (NOW, NOW + 1))
    assert (await house.post(one)).status == 200
    assert code(await house.post(other)) == (503, "replay-store-unavailable")
    assert code(await house.post(one)) == (401, "signature-replayed")


async def test_what_was_used_is_known_to_all_who_share_their_counters() -> None:
    """As after a change of an app that makes another environment with them."""
    house = House()
    counters = MemoryCounters(clock=house.clock)
    signed = ("stripe-signature", f"t={NOW},v1={mac(f'{NOW}.'.encode() + BODY)}")
    found = []
    for _ in range(2):
        env = Env(clock=house.clock, counters=counters, place="here")
        house.app = Stack(HMACSignature(secrets=SECRET, once=True, **STRIPE), env=env)(house.inner)
        found.append((await house.post(signed)).status)
    assert found == [200, 401]


async def test_nobody_comes_in_while_it_cannot_be_known_whether_it_is_the_first_time() -> None:
    class Down(MemoryCounters):
        async def hit(self, hits: Any) -> Any:
            raise StoreError("down")

    house = House()
    env: Any = Env(clock=house.clock, counters=Down(), place="here")
    house.app = Stack(HMACSignature(secrets=(SECRET,), once=True, **STRIPE), env=env)(house.inner)
    header = ("stripe-signature", f"t={NOW},v1={mac(f'{NOW}.'.encode() + BODY)}")
    assert code(await house.post(header)) == (503, "replay-store-unavailable")


async def test_a_body_too_large_is_refused() -> None:
    assert code(await House(max_body_bytes=5).post(("x-signature", mac(BODY)))) == (413, "body-too-large")


async def test_a_websocket_signs_nothing_but_its_handshake() -> None:
    house = House(signed="{target}\n{body}")
    lines = [(b"x-signature", mac(b"/live\n").encode())]
    assert (await connect(house.app, "/live", headers=lines)).status == 101
    assert house.callers == ["webhook"]
    assert (await connect(house.app, "/other", headers=lines)).status == 401


async def test_an_app_that_raises_is_not_kept_from_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("of the app")

    guarded = Stack(HMACSignature(secrets=(SECRET,)))(app)
    with pytest.raises(ValueError, match="of the app"):
        await call(guarded, "POST", headers=[(b"x-signature", mac(BODY).encode())], body=BODY)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"secrets": ()}, "secrets"),
        ({"secrets": b"short"}, "secrets"),
        ({"secrets": (b"short",)}, "secrets"),
        ({"header": "a b"}, "header"),
        ({"header": ""}, "header"),
        ({"timestamp_header": "a b"}, "timestamp_header"),
        ({"signed": "{timestamp}"}, "signed"),
        ({"signed": "{body}{body}"}, "signed"),
        ({"signed": "{body}{other}"}, "signed"),
        ({"signed": "{timestamp}{body}"}, "signed"),
        ({**STRIPE, "signed": "{timestamp}{body}"}, "signed"),
        ({"signed": "{method}{target}.{body}"}, "signed"),
        *[({"signed": each}, "signed") for each in BLURRED],
        ({"timestamp_header": "x-time"}, "signed"),
        ({**STRIPE, "timestamp_header": "x-time"}, "signed"),
        ({**STRIPE, "parameter": ""}, "timestamp_parameter"),
        ({"once": True}, "once"),
        ({"max_age": 0.0}, "max_age"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
    ],
)
def test_mistakes_are_named_and_show_no_secret(fields: Any, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        HMACSignature(**{"secrets": (SECRET,), **fields})
    assert raised.value.field == field
    assert "short" not in str(raised.value).replace("shorter", "")


def test_no_secret_is_shown() -> None:
    assert "Everybody" not in repr(HMACSignature(secrets=(SECRET,)))


@pytest.mark.parametrize("first", [SECRET, OTHER])
async def test_once_means_once_though_each_secret_gives_the_message_another_signature(first: bytes) -> None:
    house = House(once=True, secrets=(SECRET, OTHER), **STRIPE)
    signed = f"{NOW}.".encode() + BODY
    both = f"t={NOW},v1={mac(signed, first)},v1={mac(signed, OTHER if first is SECRET else SECRET)}"
    assert (await house.post(("stripe-signature", both))).status == 200
    for secret in (SECRET, OTHER):
        again = f"t={NOW},v1={mac(signed, secret)}"
        assert code(await house.post(("stripe-signature", again))) == (401, "signature-replayed")


async def test_what_was_accepted_is_remembered_up_to_the_last_moment_it_counts() -> None:
    house = House(once=True, **STRIPE)
    header = ("stripe-signature", f"t={NOW + 300},v1={mac(f'{NOW + 300}.'.encode() + BODY)}")
    assert (await house.post(header)).status == 200
    house.clock.advance(600)
    assert code(await house.post(header)) == (401, "signature-replayed")


@pytest.mark.parametrize("wrong", [mac(b"other"), mac(BODY)[:-2] + "00", "00" + mac(BODY)[2:], "00"])
async def test_a_bad_signature_is_compared_as_a_whole_with_that_of_every_secret(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it is right, so that the time it takes tells nothing."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    house = House(secrets=(SECRET, OTHER))
    monkeypatch.setattr(hmac_signature, "hmac", SimpleNamespace(compare_digest=compare, digest=hmac.digest))
    assert code(await house.post(("x-signature", wrong))) == (401, "signature-invalid")
    assert compared == [(bytes.fromhex(wrong), bytes.fromhex(mac(BODY, secret))) for secret in (SECRET, OTHER)]
