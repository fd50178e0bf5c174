"""The upstream is shown a credential of ours, never the caller's; tokens are had once, in time, and let go when bad."""

import base64
import json
from typing import Any

import anyio
import jwt
import pytest
from tests.credentials.services import Issuer, Metadata, until

from apim_middleware.credentials.asking import Said
from apim_middleware.credentials.credential import BasicCredential, BearerCredential, HeaderCredential, Shown
from apim_middleware.credentials.managed_identity import ManagedIdentity
from apim_middleware.credentials.oauth import ClientCredentials, TokenExchange
from apim_middleware.credentials.renewing import Fetched
from apim_middleware.credentials.secret import EnvironmentSecret, FileSecret
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.either import AnyOf
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.upstream_auth import UpstreamAuth
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.testing import Answer, FakeClock, call, connect
from apim_middleware.types import Receive, Scope, Send

TOKENS = "https://login.example.com/oauth2/token"
GATEWAY: dict[str, Any] = {"token_url": TOKENS, "client_id": "gate:way", "client_secret": "hush/1"}
SECRET = "s" * 64


class Upstream:
    """What stands behind: keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[list[tuple[bytes, bytes]]] = []
        self.status = 200
        self.failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(list(scope["headers"]))
        if self.failure is not None:
            raise self.failure
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"in", "more_body": True})
        await send({"type": "http.response.body", "body": b"side"})

    def shown(self, name: bytes = b"authorization", number: int = -1) -> list[bytes]:
        return [value for key, value in self.seen[number] if key == name]


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def issuer(clock: FakeClock) -> Issuer:
    return Issuer(clock)


@pytest.fixture
def env(clock: FakeClock, issuer: Issuer) -> Env:
    return Env(clock=clock, transport=issuer)


class Known(Policy):
    """Somebody has said who is calling."""

    def on_request(self, exchange: Exchange) -> None:
        exchange.principal = Principal(subject="ada")


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


CALLERS = [
    (b"authorization", b"Bearer callers-own"),
    (b"proxy-authorization", b"Basic eDp5"),
    (b"dpop", b"proof"),
    (b"x-a", b"1"),
]


# What is shown


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("credential", "line"),
    [
        (BasicCredential(username="gateway", password="pä:ss"), (b"authorization", b"Basic Z2F0ZXdheTpww6Q6c3M=")),
        (BearerCredential(token="t0k3n"), (b"authorization", b"Bearer t0k3n")),
        (HeaderCredential(name="X-API-Key", value="k"), (b"x-api-key", b"k")),
        (HeaderCredential(name="Authorization", value="k", prefix="ApiKey "), (b"authorization", b"ApiKey k")),
    ],
)
async def test_the_upstream_is_shown_ours_and_never_the_callers(
    env: Env, upstream: Upstream, credential: Any, line: tuple[bytes, bytes]
) -> None:
    app = Stack(UpstreamAuth(credential=credential), env=env)(upstream)
    answer = await call(app, headers=[*CALLERS, (b"x-api-key", b"callers"), (b"x-api-key", b"twice")])
    assert answer.body == b"inside"
    rest = [] if line[0] == b"x-api-key" else [(b"x-api-key", b"callers"), (b"x-api-key", b"twice")]
    assert upstream.seen == [[(b"host", b"testserver"), (b"x-a", b"1"), *rest, line]]


@pytest.mark.anyio
async def test_what_else_is_the_callers_own_is_taken_away_where_that_is_said(env: Env, upstream: Upstream) -> None:
    policy = UpstreamAuth(credential=BearerCredential(token="t"), remove=("Cookie",))
    await call(Stack(policy, env=env)(upstream), headers=[*CALLERS, (b"cookie", b"a=1")])
    assert upstream.shown(b"cookie") == []
    assert upstream.shown(b"dpop") == [b"proof"]
    assert upstream.shown() == [b"Bearer t"]


@pytest.mark.anyio
async def test_a_rotated_secret_is_shown_without_a_restart(
    env: Env, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APIM_TEST_SECRET", "one")
    credential = BasicCredential(username="gateway", password=EnvironmentSecret(name="APIM_TEST_SECRET"))
    app = Stack(UpstreamAuth(credential=credential), env=env)(upstream)
    await call(app)
    monkeypatch.setenv("APIM_TEST_SECRET", "two")
    await call(app)
    pairs = [base64.b64decode(upstream.shown(number=number)[0][6:]) for number in range(2)]
    assert pairs == [b"gateway:one", b"gateway:two"]


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["a\r\nx-admin: 1", "a\x00", "ключ"])
async def test_a_secret_that_cannot_stand_in_a_header_goes_nowhere(
    env: Env, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    class Odd:
        def reader(self, env: Env) -> Any:
            async def read() -> str:
                return text

            return read

    credential = HeaderCredential(name="x-key", value=Odd())
    answer = await call(Stack(UpstreamAuth(credential=credential), env=env)(upstream))
    assert (answer.status, code(answer), upstream.seen) == (503, "credential-unavailable", [])
    assert text.encode() not in answer.body


# Tokens of our own (RFC 6749 §4.4)


def machine(env: Env, upstream: Upstream, **fields: Any) -> Any:
    return Stack(UpstreamAuth(credential=ClientCredentials(**{**GATEWAY, **fields})), env=env)(upstream)


@pytest.mark.anyio
async def test_a_token_is_asked_for_as_the_standard_says(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    app = machine(env, upstream, scope=("orders.read", "orders.write"), resource="https://orders.example.com")
    await call(app)
    request = issuer.asked[0]
    assert (request.method, request.origin, request.target) == ("POST", "https://login.example.com", b"/oauth2/token")
    assert issuer.form() == {
        "grant_type": "client_credentials",
        "scope": "orders.read orders.write",
        "resource": "https://orders.example.com",
    }
    pair = base64.b64encode(b"gate%3Away:hush%2F1")  # RFC 6749 §2.3.1: both are form-encoded first
    assert issuer.header(b"authorization") == b"Basic " + pair
    assert issuer.header(b"host") == b"login.example.com"
    assert upstream.shown() == [b"Bearer token-1"]


@pytest.mark.anyio
async def test_the_secret_can_be_sent_in_the_form(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    await call(machine(env, upstream, auth="post", audience="orders", parameters={"tenant": "t"}))
    assert issuer.form() == {
        "grant_type": "client_credentials", "audience": "orders", "tenant": "t",
        "client_id": "gate:way", "client_secret": "hush/1",
    }  # fmt: skip
    assert issuer.header(b"authorization") is None


@pytest.mark.anyio
async def test_a_signed_assertion_can_stand_for_the_secret(
    env: Env, upstream: Upstream, issuer: Issuer, tmp_path: Any
) -> None:
    file = tmp_path / "token"
    file.write_text("eyJ.a.b\n")
    await call(machine(env, upstream, client_secret=None, assertion=FileSecret(path=file)))
    assert issuer.form() == {
        "grant_type": "client_credentials",
        "client_id": "gate:way",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "eyJ.a.b",
    }


@pytest.mark.anyio
async def test_a_token_is_had_once_for_all_who_wait(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    app = machine(env, upstream)
    issuer.hanging = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(call, app)
        await until(lambda: issuer.times)
        issuer.hanging.set()
    assert issuer.times == 1
    assert {tuple(upstream.shown(number=number)) for number in range(50)} == {(b"Bearer token-1",)}
    assert all(answer.closed for answer in issuer.answers)


@pytest.mark.anyio
async def test_who_leaves_while_waiting_takes_nobody_along(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    app = machine(env, upstream)
    issuer.hanging = anyio.Event()
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as leaving:
            async with anyio.create_task_group() as first:
                first.start_soon(call, app)
                await until(lambda: issuer.times)
                tasks.start_soon(call, app)
                await until(lambda: False)
                leaving.cancel()
        issuer.hanging.set()
    assert upstream.shown() == [b"Bearer token-1"]


@pytest.mark.anyio
async def test_a_token_is_renewed_ahead_of_its_end_and_nobody_waits_for_that(
    env: Env, upstream: Upstream, issuer: Issuer, clock: FakeClock
) -> None:
    app = machine(env, upstream, ahead=100)
    await call(app)
    clock.advance(3_499)
    await call(app)
    assert issuer.times == 1
    issuer.hanging = anyio.Event()
    clock.advance(1)
    for _ in range(5):
        await call(app)
    await until(lambda: issuer.times == 2)
    assert upstream.shown() == [b"Bearer token-1"]
    issuer.hanging.set()
    await until(lambda: issuer.made == 2)
    await call(app)
    assert (upstream.shown(), issuer.times) == ([b"Bearer token-2"], 2)


@pytest.mark.anyio
async def test_a_token_serves_to_its_end_while_the_issuer_is_away_and_no_longer(
    env: Env, upstream: Upstream, issuer: Issuer, clock: FakeClock
) -> None:
    app = machine(env, upstream)
    await call(app)
    issuer.away = True
    clock.advance(3_590)
    assert (await call(app)).status == 200
    await until(lambda: issuer.times == 2)
    clock.advance(5)
    answer = await call(app)
    assert (answer.status, code(answer)) == (503, "credential-unavailable")
    assert answer.header(b"retry-after") == b"5"
    issuer.away = False
    clock.advance(5)
    assert (await call(app)).status == 200


@pytest.mark.anyio
async def test_an_issuer_that_is_away_is_not_asked_for_each_request(
    env: Env, upstream: Upstream, issuer: Issuer, clock: FakeClock
) -> None:
    app = machine(env, upstream)
    issuer.away = True
    for _ in range(100):
        assert (await call(app)).status == 503
        clock.advance(0.1)
    assert issuer.times == 2


@pytest.mark.anyio
@pytest.mark.parametrize(("life", "last"), [(None, 294), (10, 8), ("3600", 3_594), ("soon", 294), (1.0, 0.8)])
async def test_a_token_lives_as_long_as_the_issuer_says(
    env: Env, upstream: Upstream, issuer: Issuer, clock: FakeClock, life: Any, last: float
) -> None:
    issuer.life = life
    app = machine(env, upstream)
    await call(app)
    issuer.away = True
    clock.advance(last)
    assert (await call(app)).status == 200
    await until(lambda: issuer.times == 2)
    clock.advance(2)
    assert (await call(app)).status == 503


@pytest.mark.anyio
async def test_a_token_the_upstream_refuses_is_dropped_and_the_answer_passed_on(
    env: Env, upstream: Upstream, issuer: Issuer
) -> None:
    app = machine(env, upstream)
    upstream.status = 401
    assert (await call(app)).status == 401
    upstream.status = 200
    await call(app)
    assert upstream.shown() == [b"Bearer token-2"]


@pytest.mark.anyio
async def test_an_upstream_that_refuses_every_token_does_not_make_us_storm_the_issuer(
    env: Env, upstream: Upstream, issuer: Issuer, clock: FakeClock
) -> None:
    app = machine(env, upstream)
    upstream.status = 401
    for _ in range(100):
        await call(app)
        clock.advance(0.1)
    assert issuer.times <= 4


ODD_ANSWERS: dict[str, dict[str, Any]] = {
    "no json": {"raw": b"<html>"},
    "a list": {"raw": b"[]"},
    "deep": {"raw": b"[" * 100_000},
    "empty": {"raw": b""},
    "no token": {"raw": b'{"token_type": "Bearer"}'},
    "a number": {"raw": b'{"access_token": 1, "token_type": "Bearer"}'},
    "another type": {"raw": b'{"access_token": "a", "token_type": "mac"}'},
    "no type": {"raw": b'{"access_token": "a"}'},
    "two lines": {"raw": b'{"access_token": "a\\r\\nx: y", "token_type": "Bearer"}'},
    "two words": {"raw": b'{"access_token": "a b", "token_type": "Bearer"}'},
    "huge": {"raw": b'{"access_token": "%b"}' % (b"a" * 300_000)},
    "compressed": {"headers": [(b"content-encoding", b"gzip")]},
    "redirect": {"status": 302, "headers": [(b"location", b"https://elsewhere.example")]},
    "our mistake": {"status": 401, "raw": b'{"error": "invalid_client"}'},
    "over already": {"life": 0},
    "unhappy": {"status": 500, "raw": b"oops"},
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ODD_ANSWERS)
async def test_an_odd_answer_of_the_issuer_lets_nothing_through(
    env: Env, upstream: Upstream, issuer: Issuer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    for field, value in ODD_ANSWERS[name].items():
        setattr(issuer, field, value)
    answer = await call(machine(env, upstream))
    assert (answer.status, code(answer), upstream.seen) == (503, "credential-unavailable", [])
    assert caplog.records
    assert all(record.getMessage().isprintable() for record in caplog.records)


# In exchange for the caller's (RFC 8693)


def on_behalf(env: Env, upstream: Upstream, **fields: Any) -> Any:
    policy = UpstreamAuth(credential=TokenExchange(**{**GATEWAY, "audience": "orders", **fields}))
    return Stack(Known(), policy, env=env)(upstream)


def caller(token: str) -> dict[str, Any]:
    return {"headers": [(b"authorization", f"Bearer {token}".encode())]}


@pytest.mark.anyio
async def test_the_callers_token_is_exchanged_as_the_standard_says(
    env: Env, upstream: Upstream, issuer: Issuer
) -> None:
    await call(on_behalf(env, upstream, scope="read"), **caller("ada-token"))
    assert issuer.form() == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "ada-token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "scope": "read",
        "audience": "orders",
    }
    assert upstream.shown() == [b"Bearer token-1"]


@pytest.mark.anyio
async def test_it_can_be_exchanged_as_entra_wants_it(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    fields = {"grant": "jwt-bearer", "audience": (), "scope": "api://orders/.default", "auth": "post"}
    await call(on_behalf(env, upstream, **fields), **caller("ada-token"))
    assert issuer.form() == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "ada-token",
        "requested_token_use": "on_behalf_of", "scope": "api://orders/.default",
        "client_id": "gate:way", "client_secret": "hush/1",
    }  # fmt: skip


@pytest.mark.anyio
async def test_each_caller_has_a_token_of_their_own_and_keeps_it(
    env: Env, upstream: Upstream, issuer: Issuer, clock: FakeClock
) -> None:
    app = on_behalf(env, upstream)
    shown = []
    for token in ("ada", "bob", "ada", "bob"):
        await call(app, **caller(token))
        shown += upstream.shown()
    assert shown == [b"Bearer token-1", b"Bearer token-2", b"Bearer token-1", b"Bearer token-2"]
    clock.advance(3_600)
    await call(app, **caller("ada"))
    assert upstream.shown() == [b"Bearer token-3"]


@pytest.mark.anyio
async def test_tokens_of_no_more_callers_are_kept_than_was_said(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    app = on_behalf(env, upstream, max_remembered=3)
    for number in range(100):
        await call(app, **caller(f"caller-{number}"))
    await call(app, **caller("caller-99"))
    assert issuer.times == 100
    await call(app, **caller("caller-0"))
    assert issuer.times == 101


@pytest.mark.anyio
async def test_no_token_of_a_caller_is_kept(env: Env, upstream: Upstream) -> None:
    policy = UpstreamAuth(credential=TokenExchange(**GATEWAY))
    hooks = env.bind(policy)
    await call(Stack(Known(), policy, env=env)(upstream), **caller("ada-token"))
    kept = hooks._showing.__self__._held
    assert len(kept) == 1
    assert "ada-token" not in repr({name: vars(value) for name, value in kept.items()})


@pytest.mark.anyio
@pytest.mark.parametrize("error", ["invalid_grant", "invalid_request", "interaction_required", "invalid_target"])
async def test_a_caller_whose_token_is_not_exchanged_is_told_and_not_asked_for_again_at_once(
    env: Env, upstream: Upstream, issuer: Issuer, error: str
) -> None:
    app = on_behalf(env, upstream)
    issuer.status, issuer.error = 400, {"error": error, "error_description": "ada-token is odd"}
    for _ in range(3):
        answer = await call(app, **caller("ada-token"))
        assert (answer.status, code(answer)) == (403, "token-not-exchanged")
    assert issuer.times == 1
    issuer.status, issuer.error = 200, None
    assert (await call(app, **caller("bob-token"))).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("error", ["unauthorized_client", {"code": "invalid_grant"}, ["invalid_grant"], 7, None])
async def test_what_is_our_own_mistake_is_not_the_callers(
    env: Env, upstream: Upstream, issuer: Issuer, caplog: pytest.LogCaptureFixture, error: Any
) -> None:
    issuer.status, issuer.error = 400, {"error": error}
    assert code(await call(on_behalf(env, upstream), **caller("ada"))) == "credential-unavailable"
    assert "answered 400" in caplog.text


@pytest.mark.anyio
async def test_who_brings_no_token_gets_nothing_in_exchange(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    app = on_behalf(env, upstream)
    for headers in ([], [(b"authorization", b"Basic eDp5")], [(b"authorization", b"Bearer ")]):
        answer = await call(app, headers=headers)
        assert (answer.status, code(answer)) == (403, "token-not-exchanged")
    assert issuer.times == 0


@pytest.mark.anyio
async def test_a_token_nobody_has_looked_at_is_not_exchanged(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    app = Stack(UpstreamAuth(credential=TokenExchange(**GATEWAY)), env=env)(upstream)
    assert code(await call(app, **caller("forged"))) == "token-not-exchanged"
    assert issuer.times == 0


@pytest.mark.anyio
async def test_who_came_by_a_key_cannot_have_somebody_elses_token_exchanged(
    env: Env, upstream: Upstream, issuer: Issuer
) -> None:
    """Behind ``AnyOf`` a key may let in, and the token beside it have been looked at by nobody."""
    keys = MemoryKeys()
    keys.add(Subscription(id="acme"))
    guard = JWTAuth(issuer="issuer", audience="api", keys=SECRET.encode(), algorithms=("HS256",))
    app = Stack(AnyOf(APIKeyAuth(keys=keys), guard), UpstreamAuth(credential=TokenExchange(**GATEWAY)), env=env)(
        upstream
    )
    stolen = (b"authorization", b"Bearer for-another-audience")
    answer = await call(app, headers=[stolen, (b"ocp-apim-subscription-key", keys.issue("acme").encode())])
    assert (answer.status, code(answer), issuer.times) == (403, "token-not-exchanged", 0)


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "DPoP"])
async def test_the_callers_token_is_found_under_each_of_its_schemes(
    env: Env, upstream: Upstream, issuer: Issuer, scheme: str
) -> None:
    await call(on_behalf(env, upstream), headers=[(b"authorization", f"{scheme} ada-token".encode())])
    assert issuer.form()["subject_token"] == "ada-token"


@pytest.mark.anyio
async def test_it_stands_behind_an_authenticator_of_tokens(
    env: Env, upstream: Upstream, issuer: Issuer, clock: FakeClock
) -> None:
    guard = JWTAuth(issuer="issuer", audience="api", keys=SECRET.encode(), algorithms=("HS256",))
    exchange = TokenExchange(**GATEWAY)
    app = Stack(guard, UpstreamAuth(credential=exchange), env=env)(upstream)
    claims = {"iss": "issuer", "aud": "api", "sub": "ada", "exp": clock.now() + 60}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    assert (await call(app, **caller(token))).status == 200
    assert issuer.form()["subject_token"] == token
    assert upstream.shown() == [b"Bearer token-1"]


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", [b"DPoP", b"Bearer"])
@pytest.mark.parametrize("places", ["cookie:t", ("header:authorization", "cookie:t")])
async def test_the_token_that_let_the_caller_in_is_exchanged_and_not_another_beside_it(
    env: Env, upstream: Upstream, issuer: Issuer, clock: FakeClock, places: Any, scheme: bytes
) -> None:
    """With a token of one's own where the authenticator looks, anybody's was exchanged from ``Authorization``."""
    fields: dict[str, Any] = {"keys": SECRET.encode(), "algorithms": ("HS256",), "token_from": places}
    guard = JWTAuth(issuer="issuer", audience="api", **fields)
    app = Stack(guard, UpstreamAuth(credential=TokenExchange(**GATEWAY)), env=env)(upstream)
    claims = {"iss": "issuer", "aud": "api", "sub": "eve", "exp": clock.now() + 60}
    own = jwt.encode(claims, SECRET, algorithm="HS256")
    await call(app, headers=[(b"authorization", scheme + b" stolen"), (b"cookie", b"t=" + own.encode())])
    assert [issuer.form(number)["subject_token"] for number in range(issuer.times)] in ([], [own])


def test_it_must_not_stand_before_the_authenticator() -> None:
    guard = JWTAuth(issuer="issuer", audience="api", keys=SECRET.encode(), algorithms=("HS256",))
    with pytest.raises(ConfigError, match="relies on the principal"):
        Stack(UpstreamAuth(credential=TokenExchange(**GATEWAY)), guard)


# The managed identity of Azure


@pytest.fixture
def metadata(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.delenv(name, raising=False)
    return Metadata(clock)


@pytest.mark.anyio
async def test_a_virtual_machine_asks_its_metadata_service(
    clock: FakeClock, metadata: Metadata, upstream: Upstream
) -> None:
    credential = ManagedIdentity(resource="https://storage.azure.com", client_id="0f")
    app = Stack(UpstreamAuth(credential=credential), env=Env(clock=clock, transport=metadata))(upstream)
    await call(app)
    request = metadata.asked[0]
    assert (request.method, request.origin) == ("GET", "http://169.254.169.254")
    assert request.target.startswith(b"/metadata/identity/oauth2/token?")
    assert metadata.query() == {
        "api-version": ["2018-02-01"], "resource": ["https://storage.azure.com"], "client_id": ["0f"],
    }  # fmt: skip
    assert metadata.header(b"metadata") == b"true"
    assert upstream.shown() == [b"Bearer identity-1"]


@pytest.mark.anyio
async def test_an_app_service_asks_where_its_environment_says(
    clock: FakeClock, metadata: Metadata, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "app-service-secret")
    policy = UpstreamAuth(credential=ManagedIdentity(resource="https://vault.azure.net"))
    app = Stack(policy, env=Env(clock=clock, transport=metadata))(upstream)
    await call(app)
    assert metadata.asked[0].origin == "http://127.0.0.1:41741"
    assert metadata.query() == {"api-version": ["2019-08-01"], "resource": ["https://vault.azure.net"]}
    assert metadata.header(b"x-identity-header") == b"app-service-secret"


@pytest.mark.anyio
async def test_its_token_is_kept_until_it_ends(clock: FakeClock, metadata: Metadata, upstream: Upstream) -> None:
    policy = UpstreamAuth(credential=ManagedIdentity(resource="x"))
    app = Stack(policy, env=Env(clock=clock, transport=metadata))(upstream)
    await call(app)
    clock.advance(3_299)
    await call(app)
    assert metadata.times == 1
    clock.advance(301)
    await call(app)
    assert upstream.shown() == [b"Bearer identity-2"]


def test_an_endpoint_of_another_kind_is_told_while_building(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:40342/metadata/identity/oauth2/token")
    monkeypatch.delenv("IDENTITY_HEADER", raising=False)
    with pytest.raises(ConfigError, match="Azure Arc"):
        Stack(UpstreamAuth(credential=ManagedIdentity(resource="x")))(Upstream())


# WebSockets, streams, endings, failures


@pytest.mark.anyio
async def test_a_websocket_handshake_gets_it_too(env: Env, upstream: Upstream) -> None:
    app = machine(env, upstream)
    assert (await connect(app, headers=CALLERS)).status == 101
    assert upstream.shown() == [b"Bearer token-1"]


@pytest.mark.anyio
async def test_a_websocket_is_refused_when_there_is_none(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    issuer.away = True
    assert (await connect(machine(env, upstream))).status == 503


@pytest.mark.anyio
async def test_an_error_of_the_app_passes_through(env: Env, upstream: Upstream) -> None:
    upstream.failure = RuntimeError("the app")
    with pytest.raises(RuntimeError, match="the app"):
        await call(machine(env, upstream))


@pytest.mark.anyio
async def test_a_client_that_leaves_leaves_the_token_where_it_is(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    app = machine(env, upstream)
    with pytest.raises(OSError, match="gone"):
        await call(app, leave_after=1)
    await call(app)
    assert issuer.times == 1


@pytest.mark.anyio
async def test_a_secret_that_cannot_be_had_is_a_refusal(env: Env, upstream: Upstream) -> None:
    class Away:
        def reader(self, env: Env) -> Any:
            async def read() -> str:
                raise StoreError("the safe is locked")

            return read

    for credential in (
        BasicCredential(username="gateway", password=Away()),
        HeaderCredential(name="x-key", value=Away()),
        ClientCredentials(**{**GATEWAY, "client_secret": Away()}),
    ):
        answer = await call(Stack(UpstreamAuth(credential=credential), env=env)(upstream))
        assert (answer.status, code(answer)) == (503, "credential-unavailable")
        assert b"safe" not in answer.body


@pytest.mark.anyio
async def test_a_credential_of_ones_own_needs_one_function(env: Env, upstream: Upstream) -> None:
    class Mine:
        def showing(self, env: Env) -> Any:
            async def show(exchange: Exchange) -> Shown:
                return Shown((b"x-caller", exchange.path.encode()))

            return show

    await call(Stack(UpstreamAuth(credential=Mine()), env=env)(upstream), path="/orders")
    assert upstream.shown(b"x-caller") == [b"/orders"]


@pytest.mark.anyio
async def test_a_stack_built_anew_keeps_its_token(env: Env, upstream: Upstream, issuer: Issuer) -> None:
    policy = UpstreamAuth(credential=ClientCredentials(**GATEWAY))
    before = Stack(policy, env=env, place="here")(upstream)
    await call(before)
    await call(Stack(UpstreamAuth(credential=ClientCredentials(**GATEWAY)), env=env, place="here")(upstream))
    assert issuer.times == 1


# Configuration


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: UpstreamAuth(credential="hush"), "credential"),
        (lambda: UpstreamAuth(credential=BearerCredential(token="t"), remove=("a b",)), "remove"),
        (lambda: BearerCredential(token="hush\n hush"), "token"),
        (lambda: BearerCredential(token=""), "token"),
        (lambda: HeaderCredential(name="a b", value="hush"), "name"),
        (lambda: HeaderCredential(name="Host", value="hush"), "name"),
        (lambda: HeaderCredential(name="Content-Length", value="hush"), "name"),
        (lambda: HeaderCredential(name="x", value="hush\x00"), "value"),
        (lambda: HeaderCredential(name="x", value="hush", prefix="\n"), "prefix"),
        (lambda: BasicCredential(username="a:b", password="hush"), "username"),
        (lambda: BasicCredential(username="a", password=""), "password"),
        (lambda: ClientCredentials(**{**GATEWAY, "token_url": "http://login.example.com/t"}), "token_url"),
        (lambda: ClientCredentials(**{**GATEWAY, "token_url": "https://a:hush@login.example.com/t"}), "token_url"),
        (lambda: ClientCredentials(**{**GATEWAY, "token_url": "login"}), "token_url"),
        (lambda: ClientCredentials(**{**GATEWAY, "client_secret": None}), "client_secret"),
        (lambda: ClientCredentials(**{**GATEWAY, "client_secret": ""}), "client_secret"),
        (lambda: ClientCredentials(**{**GATEWAY, "client_id": ""}), "client_id"),
        (lambda: ClientCredentials(**GATEWAY, assertion=FileSecret(path="x")), "client_secret"),
        (lambda: ClientCredentials(**GATEWAY, ahead=0), "ahead"),
        (lambda: ClientCredentials(**GATEWAY, timeout=float("inf")), "timeout"),
        (lambda: TokenExchange(**GATEWAY, max_remembered=0), "max_remembered"),
        (lambda: TokenExchange(**GATEWAY, grant="password"), "grant"),
        (lambda: ManagedIdentity(resource=""), "resource"),
        (lambda: ManagedIdentity(resource="x", ahead=-1), "ahead"),
    ],
)
def test_a_mistake_is_told_while_building_and_shows_no_secret(make: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field
    assert field == "credential" or "hush" not in str(caught.value)


def test_an_issuer_may_be_asked_without_tls_on_this_machine_or_when_that_is_said() -> None:
    ClientCredentials(**{**GATEWAY, "token_url": "http://127.0.0.1:8080/token"})
    ClientCredentials(**{**GATEWAY, "token_url": "http://login.internal/token"}, allow_http=True)


@pytest.mark.parametrize(
    "credential",
    [
        BasicCredential(username="gateway", password="hush"),
        BearerCredential(token="hush"),
        HeaderCredential(name="x-key", value="hush"),
        ClientCredentials(**{**GATEWAY, "client_secret": "hush", "parameters": {"password": "hush"}}),
        TokenExchange(**{**GATEWAY, "client_secret": "hush"}),
        Shown((b"authorization", b"hush")),
        Said(200, {"access_token": "hush"}),
        Fetched("hush", 60.0, 120.0),
    ],
)
def test_no_secret_is_in_a_repr(credential: Any) -> None:
    assert "hush" not in repr(credential)


@pytest.mark.anyio
async def test_a_token_that_is_over_at_once_is_not_asked_for_again_and_again(issuer: Issuer) -> None:
    """Each answer was over when it came, so that one request asked for tokens as long as its client waited."""

    class Running(FakeClock):
        def monotonic(self) -> float:
            self.advance(0.01)
            return super().monotonic()

    issuer.life = 0.001
    stack = Stack(UpstreamAuth(credential=ClientCredentials(**GATEWAY)), env=Env(clock=Running(), transport=issuer))
    with anyio.fail_after(5):
        answer = await call(stack(Upstream()))
    assert (answer.status, issuer.times) == (503, 1)
