"""Tokens that are asked about: active ones come in, the server is asked seldom; when it is silent nobody comes in."""

import base64
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.jose.issuer import AUDIENCE, ISSUER, NOW, Reply, as_json, down, ec_key, pem, rsa_key, silent
from tests.jose.prover import proof, thumbprint
from tests.servers import serving

from apim_middleware._jose.documents import LARGEST_DOCUMENT
from apim_middleware._jose.introspection import Authenticate, basic, post
from apim_middleware._jose.proofs import DPoP
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, UpstreamBroken
from apim_middleware.policies.introspection import OAuth2Introspection
from apim_middleware.policy import Stack
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.testing import Answer, call, connect
from apim_middleware.types import Receive, Scope, Send

from .bearing import House, challenge, code

pytestmark = pytest.mark.anyio

URL = "https://issuer.example/introspect"
JSON = [(b"content-type", b"application/json;charset=utf-8")]
ACTIVE: dict[str, Any] = {"active": True, "sub": "ada", "aud": AUDIENCE, "exp": NOW + 600, "scope": "a b"}


class Server:
    """An authorization server that knows some tokens."""

    def __init__(self, **tokens: Any) -> None:
        self.tokens = tokens

    async def __call__(self, request: UpstreamRequest) -> Reply:
        await anyio.lowlevel.checkpoint()
        assert isinstance(request.body, bytes)
        found = self.tokens.get(parse_qs(request.body.decode())["token"][0], {"active": False})
        return found if isinstance(found, Reply) else Reply(as_json(found), headers=JSON)


def policy(**fields: Any) -> OAuth2Introspection:
    usual: dict[str, Any] = {"url": URL, "client_id": "api", "client_secret": "s3cret", "audience": AUDIENCE}
    return OAuth2Introspection(**{**usual, **fields})


def asking(tokens: dict[str, Any] | None = None, **fields: Any) -> House:
    house = House(policy=policy(**fields))
    house.issuer.behave(Server(**({"good": ACTIVE} if tokens is None else tokens)))
    return house


def fields_of(request: UpstreamRequest) -> dict[str, str]:
    assert isinstance(request.body, bytes)
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


# Let in and refused


async def test_an_active_token_lets_its_bearer_in() -> None:
    house = asking()
    assert (await house.ask(b"good")).status == 200
    principal = house.principal
    assert (principal.subject, principal.issuer, principal.scopes) == ("ada", URL, {"a", "b"})
    assert principal.claims["active"] is True


async def test_the_issuer_the_server_names_is_the_callers() -> None:
    house = asking({"good": {**ACTIVE, "iss": ISSUER}}, issuer=ISSUER)
    assert (await house.ask(b"good")).status == 200
    assert house.principal.issuer == ISSUER


@pytest.mark.parametrize("leeway", [0, 30])
async def test_the_caller_is_let_in_until_the_token_ends_and_the_leeway(leeway: int) -> None:
    endless = {name: value for name, value in ACTIVE.items() if name != "exp"}
    house = asking({"good": ACTIVE, "endless": endless}, leeway=leeway)
    await house.ask(b"good")
    assert house.principal.expires == NOW + 600 + leeway
    await house.ask(b"endless")
    assert house.principal.expires is None


REFUSED: dict[str, Any] = {
    "unknown": {"active": False},
    "not active, all else right": {**ACTIVE, "active": False},
    "expired": {**ACTIVE, "exp": NOW},
    "not yet": {**ACTIVE, "nbf": NOW + 1},
    "issued later": {**ACTIVE, "iat": NOW + 1},
    "exp text": {**ACTIVE, "exp": "9999999999"},
    "aud other": {**ACTIVE, "aud": "https://other.example"},
    "aud missing": {name: value for name, value in ACTIVE.items() if name != "aud"},
    "aud prefix": {**ACTIVE, "aud": AUDIENCE + "/x"},
    "iss list": {**ACTIVE, "iss": [ISSUER]},
    "sub missing": {name: value for name, value in ACTIVE.items() if name != "sub"},
    "sub number": {**ACTIVE, "sub": 7},
    "bound to a key": {**ACTIVE, "cnf": {"jkt": "x"}},
    "bound to who knows what": {**ACTIVE, "cnf": {"kid": "x"}},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_not_said_of_a_token_lets_nobody_in(name: str) -> None:
    house = asking({"bad": REFUSED[name]})
    for _ in range(2):
        answer = await house.ask(b"bad")
        assert (answer.status, code(answer)) == (401, "token-invalid")
        assert b'error="invalid_token"' in challenge(answer)
    assert house.seen == []
    assert len(house.issuer.asked) == 1


async def test_without_a_token_nobody_is_asked() -> None:
    house = asking()
    assert code(await house.ask()) == "token-missing"
    assert challenge(await house.ask()) == b'Bearer realm="api"'
    assert house.issuer.asked == []


@pytest.mark.parametrize("text", [b"", b" ", b"a b", b"x" * 8193, b"\xe9", b"a\x7f"])
async def test_what_cannot_be_a_token_is_not_asked_about(text: bytes) -> None:
    house = asking()
    assert (await house.ask(text)).status in (401, 431)
    assert house.issuer.asked == []


async def test_scopes_roles_claims_and_clients_are_asked_for() -> None:
    whole = {**ACTIVE, "roles": ["r"], "tid": "t", "client_id": "c"}
    tokens = {
        "good": whole,
        "scope": {**whole, "scope": "a"},
        "role": {**whole, "roles": []},
        "claim": {**whole, "tid": "u"},
        "client": {**whole, "client_id": "d"},
    }
    house = asking(tokens, scopes="a b", roles="r", required_claims={"tid": "t"}, client_ids="c")
    told = {text: await house.ask(text.encode()) for text in tokens}
    assert {text: answer.status for text, answer in told.items()} == {
        "good": 200, "scope": 403, "role": 403, "claim": 401, "client": 401,
    }  # fmt: skip
    assert code(told["scope"]) == "insufficient-scope"
    assert b'scope="a b"' in challenge(told["scope"])
    assert (await house.ask(b"scope")).status == 403
    assert len(house.issuer.asked) == 5


async def test_any_audience_must_be_said_out_loud() -> None:
    with pytest.raises(ConfigError):
        OAuth2Introspection(url=URL, client_id="api", client_secret="s")  # type: ignore[call-arg]
    house = asking({"good": {"active": True, "sub": "ada"}}, audience=None)
    assert (await house.ask(b"good")).status == 200


async def test_an_optional_token_may_be_missing_and_never_bad() -> None:
    house = asking(optional=True)
    assert (await house.ask()).status == 200
    assert "user" not in house.seen[0]
    assert (await house.ask(b"bad")).status == 401


# What is sent


async def test_the_question_is_a_form_with_our_name_and_secret() -> None:
    """RFC 7662 §2.1, RFC 6749 §2.3.1."""
    house = asking({"a+b/c=": ACTIVE}, client_id="ap:i", client_secret="s &é")
    await house.ask(b"a+b/c=")
    [request] = house.issuer.asked
    assert (request.method, request.origin, request.target) == ("POST", "https://issuer.example", b"/introspect")
    assert fields_of(request) == {"token": "a+b/c=", "token_type_hint": "access_token"}
    headers = dict(request.headers)
    assert headers[b"content-type"] == b"application/x-www-form-urlencoded"
    assert base64.b64decode(headers[b"authorization"].removeprefix(b"Basic ")) == b"ap%3Ai:s+%26%C3%A9"


async def test_name_and_secret_may_go_in_the_form() -> None:
    house = asking(client_auth="post")
    await house.ask(b"good")
    [request] = house.issuer.asked
    assert fields_of(request) | {"token": "", "token_type_hint": ""} == {
        "client_id": "api", "client_secret": "s3cret", "token": "", "token_type_hint": "",
    }  # fmt: skip
    assert b"authorization" not in dict(request.headers)


async def test_a_signed_statement_says_who_asks() -> None:
    """RFC 7523 §2.2."""
    key = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    fields = {"client_secret": None, "client_key": key, "client_auth": "private_key_jwt", "client_audience": ISSUER}
    house = asking({"good": ACTIVE, "more": ACTIVE}, **fields)
    for text in (b"good", b"more"):
        assert (await house.ask(text)).status == 200
    said = [fields_of(request) for request in house.issuer.asked]
    assert said[0]["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    options = {"verify_exp": False, "verify_iat": False}
    claims = [
        jwt.decode(each["client_assertion"], pem(rsa_key()), algorithms=["RS256"], audience=ISSUER, options=options)  # type: ignore[arg-type]
        for each in said
    ]
    assert (claims[0]["iss"], claims[0]["sub"], claims[0]["exp"]) == ("api", "api", NOW + 60)
    assert claims[0]["jti"] != claims[1]["jti"]


# Remembering


async def test_an_answer_is_remembered_for_a_while() -> None:
    house = asking()
    for seconds in (0, 59.9, 0.1, 59.9):
        house.clock.advance(seconds)
        assert (await house.ask(b"good")).status == 200
    assert len(house.issuer.asked) == 2


async def test_an_answer_is_never_remembered_beyond_the_tokens_end() -> None:
    house = asking({"good": {**ACTIVE, "exp": NOW + 30}})
    assert (await house.ask(b"good")).status == 200
    house.clock.advance(30)
    assert (await house.ask(b"good")).status == 401


async def test_a_revoked_token_stays_out_once_the_answer_is_old() -> None:
    server = Server(good=ACTIVE)
    house = asking()
    house.issuer.behave(server)
    await house.ask(b"good")
    server.tokens.clear()
    assert (await house.ask(b"good")).status == 200
    house.clock.advance(60)
    assert (await house.ask(b"good")).status == 401


async def test_a_refused_token_may_become_good_soon() -> None:
    server = Server()
    house = asking()
    house.issuer.behave(server)
    assert (await house.ask(b"good")).status == 401
    server.tokens["good"] = ACTIVE
    house.clock.advance(9.9)
    assert (await house.ask(b"good")).status == 401
    house.clock.advance(0.1)
    assert (await house.ask(b"good")).status == 200


async def test_made_up_tokens_push_no_good_one_out_and_both_memories_are_bounded() -> None:
    house = asking(max_remembered=10)
    await house.ask(b"good")
    for number in range(200):
        await house.ask(b"made-up-%d" % number)
    gate = house.env.bind(house.policy)
    assert (len(gate._active), len(gate._refused), len(gate._flights._flying)) == (1, 10, 0)
    asked = len(house.issuer.asked)
    assert (await house.ask(b"good")).status == 200
    assert len(house.issuer.asked) == asked


async def test_nothing_is_remembered_when_that_is_asked_for() -> None:
    for fields in ({"max_remembered": 0}, {"remember_for": 0}):
        house = asking(**fields)
        for _ in range(3):
            assert (await house.ask(b"good")).status == 200
        assert len(house.issuer.asked) == 3


async def test_no_token_is_kept_as_such() -> None:
    house = asking()
    await house.ask(b"good")
    gate = house.env.bind(house.policy)
    assert list(gate._active) == [hashlib.sha256(b"good").digest()]


async def test_a_jump_of_the_wall_clock_keeps_no_answer_longer() -> None:
    house = asking()
    house.clock.jump(100)
    await house.ask(b"good")
    house.clock.jump(-100_000)
    house.clock.advance(59)
    await house.ask(b"good")
    assert len(house.issuer.asked) == 1
    house.clock.advance(1)
    await house.ask(b"good")
    assert len(house.issuer.asked) == 2


# One question at a time


async def gathered(house: House, texts: list[bytes]) -> list[int]:
    statuses: list[int] = []

    async def ask(text: bytes) -> None:
        statuses.append((await house.ask(text)).status)

    async with anyio.create_task_group() as tasks:
        for text in texts:
            tasks.start_soon(ask, text)
    return statuses


async def test_a_hundred_requests_with_one_token_make_one_question() -> None:
    house = asking()
    assert await gathered(house, [b"good"] * 100) == [200] * 100
    assert len(house.issuer.asked) == 1


async def test_a_hundred_requests_hear_of_one_failure() -> None:
    house = asking()
    house.issuer.behave(slowly_down)
    assert await gathered(house, [b"good"] * 100) == [503] * 100
    assert len(house.issuer.asked) == 1


async def slowly_down(request: UpstreamRequest) -> Reply:
    await anyio.wait_all_tasks_blocked()
    return await down(request)


async def test_when_the_one_who_asks_is_cancelled_another_asks() -> None:
    house = asking()
    first = anyio.Event()
    server = Server(good=ACTIVE)

    async def once_held_up(request: UpstreamRequest) -> Reply:
        if not first.is_set():
            first.set()
            await anyio.sleep_forever()
        return await server(request)

    house.issuer.behave(once_held_up)
    statuses: list[int] = []
    leader = anyio.CancelScope()

    async def lead() -> None:
        with leader:
            await house.ask(b"good")

    async def follow() -> None:
        statuses.append((await house.ask(b"good")).status)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lead)
        await first.wait()
        for _ in range(10):
            tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        leader.cancel()
    assert statuses == [200] * 10
    assert len(house.issuer.asked) == 2


async def test_only_so_many_questions_are_asked_at_once() -> None:
    house = asking(at_once=3)
    released = anyio.Event()

    async def held(request: UpstreamRequest) -> Reply:
        await released.wait()
        return Reply(as_json(ACTIVE), headers=JSON)

    house.issuer.behave(held)
    statuses: list[int] = []

    async def ask(text: bytes) -> None:
        statuses.append((await house.ask(text)).status)

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(ask, b"t%d" % number)
        await anyio.wait_all_tasks_blocked()
        assert statuses == [503, 503]
        released.set()
    assert sorted(statuses) == [200, 200, 200, 503, 503]


# When the server fails


async def broken(request: UpstreamRequest) -> Reply:
    raise UpstreamBroken("it hung up")


def replying(*given: Any, **more: Any) -> Callable[[UpstreamRequest], Awaitable[Reply]]:
    async def answer(request: UpstreamRequest) -> Reply:
        return Reply(*given, **more)

    return answer


FAILURES: dict[str, Any] = {
    "down": down,
    "broken": broken,
    "silent": silent,
    "error": replying(b"{}", 500, JSON),
    "we are not known": replying(b"{}", 401, JSON),
    "redirect": replying(as_json(ACTIVE), 302, [*JSON, (b"location", b"https://evil.example/")]),
    "html": replying(as_json(ACTIVE), headers=[(b"content-type", b"text/html")]),
    "signed": replying(as_json(ACTIVE), headers=[(b"content-type", b"application/token-introspection+jwt")]),
    "no type": replying(as_json(ACTIVE)),
    "compressed": replying(as_json(ACTIVE), headers=[*JSON, (b"content-encoding", b"gzip")]),
    "junk": replying(b"{", headers=JSON),
    "list": replying(b"[]", headers=JSON),
    "active text": replying(as_json({**ACTIVE, "active": "true"}), headers=JSON),
    "active 1": replying(as_json({**ACTIVE, "active": 1}), headers=JSON),
    "active missing": replying(as_json({"sub": "ada"}), headers=JSON),
    "active twice": replying(b'{"active":false,"active":true,"sub":"ada"}', headers=JSON),
    "large": replying([bytes(65536)] * (LARGEST_DOCUMENT // 65536 + 2), headers=JSON),
    "deep": replying(b'{"active":true,"x":' + b"[" * 5000 + b"]" * 5000 + b"}", headers=JSON),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_when_the_server_does_not_answer_nobody_new_comes_in(name: str) -> None:
    house = asking(timeout=0.01 if name == "silent" else 5)
    house.issuer.behave(FAILURES[name])
    answer = await house.ask(b"good")
    assert (answer.status, code(answer)) == (503, "introspection-unavailable")
    assert answer.header(b"retry-after") == b"1"
    assert house.seen == []
    house.issuer.behave(Server(good=ACTIVE))
    assert (await house.ask(b"good")).status == 200


async def test_a_question_that_fails_is_counted_once_for_whoever_listens() -> None:
    counted: list[str] = []

    class Listener:
        def count(self, event: str, attributes: Any) -> None:
            counted.append(event)

    house = asking()
    house.env.listen(Listener())
    house.issuer.behave(slowly_down)
    await gathered(house, [b"good"] * 10)
    assert counted == ["apim.introspection.failed"]


async def test_those_who_are_known_go_on_while_the_server_is_down() -> None:
    house = asking()
    await house.ask(b"good")
    house.issuer.behave(down)
    house.clock.advance(59)
    assert (await house.ask(b"good")).status == 200
    house.clock.advance(1)
    assert (await house.ask(b"good")).status == 503


async def test_a_question_on_a_connection_that_was_dead_is_asked_again() -> None:
    house = asking()
    server, failed = Server(good=ACTIVE), anyio.Event()

    async def dead_once(request: UpstreamRequest) -> Reply:
        if not failed.is_set():
            failed.set()
            raise UpstreamBroken("it hung up")
        return await server(request)

    house.issuer.behave(dead_once)
    assert (await house.ask(b"good")).status == 200


async def test_an_outage_is_told_of_when_it_begins_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    house = asking()
    for behaviour in (down, down, down, Server(good=ACTIVE)):
        house.issuer.behave(behaviour)
        await house.ask(b"good")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_both_questions_together_take_no_longer_than_one_may() -> None:
    ends: list[float] = []

    async def dead(request: UpstreamRequest) -> Reply:
        ends.append(anyio.current_effective_deadline())
        await anyio.lowlevel.checkpoint()
        raise UpstreamBroken("it hung up")

    house = asking()
    house.issuer.behave(dead)
    assert (await house.ask(b"good")).status == 503
    assert len(ends) == 2
    assert ends[0] == ends[1]


# Bound tokens


async def present(house: House, text: bytes, *proofs: bytes, scheme: bytes = b"DPoP") -> Answer:
    return await call(house.app, headers=[(b"authorization", scheme + b" " + text), *((b"dpop", p) for p in proofs)])


async def test_a_token_bound_to_a_key_needs_a_proof() -> None:
    house = asking({"good": {**ACTIVE, "cnf": {"jkt": thumbprint(ec_key())}}, "free": ACTIVE}, dpop=DPoP())
    for _ in range(2):
        assert (await present(house, b"good", proof(b"good"))).status == 200
        assert code(await present(house, b"good")) == "dpop-proof-invalid"
        assert code(await present(house, b"good", scheme=b"Bearer")) == "token-invalid"
        assert (await present(house, b"free", scheme=b"Bearer")).status == 200
        assert (await present(house, b"free", proof(b"free"))).status == 401
    assert len(house.issuer.asked) == 2


async def test_a_token_bound_to_a_certificate_needs_it() -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"der").digest()).rstrip(b"=").decode()
    house = asking({"good": {**ACTIVE, "cnf": {"x5t#S256": digest}}})
    for _ in range(2):
        assert (await house.ask(b"good", **{"apim_middleware.client_certificate": b"der"})).status == 200
        assert (await house.ask(b"good", **{"apim_middleware.client_certificate": b"other"})).status == 401
        assert (await house.ask(b"good")).status == 401


# Everything else


async def test_a_real_server_is_asked_over_the_default_transport() -> None:
    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        form = parse_qs((await receive())["body"].decode())
        body = as_json(ACTIVE | {"exp": 4_000_000_000} if form["token"] == ["good"] else {"active": False})
        await send({"type": "http.response.start", "status": 200, "headers": JSON})
        await send({"type": "http.response.body", "body": body})

    with serving(server) as running:
        house, env = asking(url=f"{running.origin}/introspect"), Env()
        app = Stack(house.policy, env=env)(house.inner)
        statuses = [
            (await call(app, headers=[(b"authorization", b"Bearer " + text)])).status for text in (b"good", b"bad")
        ]
        await env.callouts(lambda: house.issuer, public=False).aclose()
    assert statuses == [200, 401]


async def test_a_websocket_handshake_is_judged_like_a_request() -> None:
    house = asking()
    assert (await connect(house.app, headers=[(b"authorization", b"Bearer good")])).status == 101
    assert (await connect(house.app)).status == 401
    closed = await connect(house.app, headers=[(b"authorization", b"Bearer x")], denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "token-invalid"}]


async def test_streams_errors_and_those_who_leave_pass_through() -> None:
    house = asking()
    assert (await house.ask(b"good")).body == b"inside"
    with pytest.raises(OSError, match="gone"):
        await house.ask(b"good", leave_after=1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    house.app = Stack(house.policy, env=house.env)(app)
    with pytest.raises(RuntimeError, match="the app"):
        await house.ask(b"good")


async def test_no_token_and_no_secret_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    house = asking({"canary-good": ACTIVE, "canary-bad": {"active": False}})
    for text in (b"canary-good", b"canary-bad"):
        assert b"canary" not in (await house.ask(text)).body
    house.issuer.behave(down)
    assert b"canary" not in (await house.ask(b"canary-new")).body
    assert "canary" not in caplog.text
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(house.policy)
    assert "FORGED log line" in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("way", [basic, post])
def test_no_secret_is_in_the_repr_of_what_is_sent_along(way: Callable[[str, str], Authenticate]) -> None:
    shown = repr(way("api", "s3cret")())
    assert "s3cret" not in shown
    assert base64.b64encode(b"api:s3cret").decode() not in shown


KEY = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("url", {"url": "http://issuer.example/introspect"}),
        ("url", {"url": "https://u:canary@issuer.example/introspect"}),
        ("url", {"url": "https://10.0.0.1/introspect"}),
        ("client_id", {"client_id": ""}),
        ("client_secret", {"client_secret": None}),
        ("client_secret", {"client_secret": ""}),
        ("client_secret", {"client_auth": "private_key_jwt", "client_key": KEY}),
        ("client_key", {"client_key": KEY}),
        ("client_key", {"client_auth": "private_key_jwt", "client_secret": None}),
        ("client_key", {"client_auth": "private_key_jwt", "client_secret": None, "client_key": "canary"}),
        ("client_key", {"client_auth": "private_key_jwt", "client_secret": None, "client_key": pem(rsa_key())}),
        (
            "client_algorithm",
            {
                "client_auth": "private_key_jwt",
                "client_secret": None,
                "client_key": KEY,
                "client_algorithm": "HS256",
            },
        ),
        ("client_auth", {"client_auth": "none"}),
        ("audience", {"audience": ""}),
        ("issuer", {"issuer": ()}),
        ("scopes", {"scopes": ("a b",)}),
        ("scopes", {"scopes": ""}),
        ("subject_claim", {"subject_claim": ""}),
        ("client_id", {"client_id": "\ud800"}),
        ("client_secret", {"client_secret": "canary\udcff"}),
        ("required_claims", {"required_claims": {"tid": ()}}),
        ("roles", {"roles": ("",)}),
        ("token_from", {"token_from": "body:token"}),
        ("realm", {"realm": '"'}),
        ("leeway", {"leeway": 301}),
        ("remember_for", {"remember_for": -1}),
        ("remember_refused_for", {"remember_refused_for": float("inf")}),
        ("max_remembered", {"max_remembered": -1}),
        ("at_once", {"at_once": 0}),
        ("timeout", {"timeout": 0}),
        ("max_token_bytes", {"max_token_bytes": 0}),
        ("dpop", {"dpop": DPoP(), "token_from": "query:token"}),
    ],
)
def test_a_mistake_names_its_field_and_shows_no_secret(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(**fields)
    assert (caught.value.policy, caught.value.field) == ("OAuth2Introspection", field)
    assert "canary" not in str(caught.value)


def test_the_policy_is_a_value() -> None:
    assert policy() == policy()
    assert hash(policy()) == hash(policy())
    assert policy() != policy(remember_for=1)
    assert json.dumps(sorted(policy().provides)) == '["principal"]'
    assert policy().guards
