"""Each refusal that documents tell of happens, with the status, code and header fields they tell of."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio.lowlevel
import pytest
from tests.jose.issuer import AUDIENCE, ISSUER, NOW, Published, down, token
from tests.policies.bearing import KEY
from tests.policies.counting import SlowCounters
from tests.policies.test_client_certificate import NOW as CERTIFIED
from tests.policies.test_client_certificate import ORDERS, PROXY, ROOT, STRANGER, escaped
from tests.policies.test_http_signature import ADA, said, sign
from tests.policies.test_idempotency import SlowEntries
from tests.policies.test_introspection import policy as introspection

import apim_middleware
from apim_middleware import (
    AllOf,
    AnyOf,
    APIKeyAuth,
    Authorize,
    BasicAuth,
    Cache,
    CertificateIdentity,
    Choose,
    ClientCertificate,
    Composable,
    Compress,
    Env,
    ETag,
    Faults,
    HMACSignature,
    HTTPSignature,
    Idempotency,
    IPFilter,
    JWTAuth,
    LimitBody,
    LimitConcurrency,
    LimitGuesses,
    Limits,
    LoadShed,
    MemoryKeys,
    MemoryUsers,
    MockResponse,
    Quota,
    RateLimit,
    ReadBody,
    Redirect,
    RequireHeader,
    ReturnResponse,
    RevocationLists,
    RewritePath,
    SetHeader,
    Stack,
    Subscription,
    Timeout,
    TrustedProxies,
    UpstreamAuth,
    When,
    by,
    conditions,
    key_digest,
)
from apim_middleware.documentation import Documentation
from apim_middleware.errors import StoreError
from apim_middleware.openapi._components import Components
from apim_middleware.openapi._operations import Writer, resolved
from apim_middleware.policy import Policy
from apim_middleware.stores.users import Cost
from apim_middleware.testing import Answer, FakeClock, call, http_scope
from apim_middleware.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body, and gives a response that may be kept."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await anyio.sleep_forever()


CHEAP = Cost(ln=2, r=1, p=1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A policy, the requests that lead to an answer of its own, and that answer."""

    policy: Policy
    status: int
    code: str = ""
    requests: Sequence[Mapping[str, Any]] = ({},)
    app: ASGIApp = echo
    down: bool = False
    """Whether the stores are away."""

    env: Mapping[str, Any] = field(default_factory=dict)
    ask: Callable[[ASGIApp], Any] | None = None
    """Makes the requests, where they are not simply one after the other."""

    async def answer(self) -> Answer:
        clock = FakeClock(self.env.get("now", NOW))
        counters, entries = SlowCounters(clock), SlowEntries(clock)
        if self.down:
            counters.failure = StoreError("away")
            entries.failing |= {"get", "get_many", "look", "set", "add", "exchange", "get_tags", "swap", "put"}
        given = {"counters": counters, "entries": entries} if self.down else {}
        env = Env(clock=clock, place="here", transport=self.env.get("transport"), **given)
        app = Stack(self.policy, env=env)(self.app)
        if self.ask is not None:
            found: Answer = await self.ask(app)
            return found
        for request in self.requests:
            found = await call(app, **request)
        return found


def sent(*lines: tuple[str, str], **more: Any) -> list[dict[str, Any]]:
    return [{"headers": [(name.encode(), value.encode()) for name, value in lines], **more}]


def bearing(**claims: Any) -> list[dict[str, Any]]:
    return sent(("authorization", f"Bearer {token(**claims).decode()}"))


async def at_once(app: ASGIApp) -> Answer:
    """Asks while another request is at work."""
    async with anyio.create_task_group() as group:
        group.start_soon(call, app)
        await anyio.wait_all_tasks_blocked()
        answer = await call(app)
        group.cancel_scope.cancel()
    return answer


async def twice_at_once(app: ASGIApp) -> Answer:
    headers = [(b"idempotency-key", b'"a"')]
    async with anyio.create_task_group() as group:
        group.start_soon(partial(call, app, "POST", headers=headers))
        await anyio.wait_all_tasks_blocked()
        answer = await call(app, "POST", headers=headers)
        group.cancel_scope.cancel()
    return answer


async def signed(app: ASGIApp, described: str, *lines: tuple[bytes, bytes], **more: Any) -> Answer:
    headers = [(b"host", b"testserver"), *lines]
    scope = http_scope("POST", "/orders", headers=headers)
    return await call(app, "POST", "/orders", headers=[*headers, *sign(scope, described)], **more)


class DownKeys:
    async def find(self, digest: bytes) -> None:
        raise StoreError("away")


class DownUsers:
    cost = CHEAP

    async def find(self, name: str) -> None:
        raise StoreError("away")


async def down_revocations(caller: object) -> bool:
    raise StoreError("away")


def keys() -> MemoryKeys:
    found = MemoryKeys()
    found.add(Subscription(id="gone"), primary=key_digest("k" * 32), state="suspended")
    return found


def jwt(**more: Any) -> JWTAuth:
    return JWTAuth(**{"issuer": ISSUER, "audience": AUDIENCE, "keys": KEY, **more})


def certified(**more: Any) -> ClientCertificate:
    given = {"authorities": ROOT.pem, "header": "X-SSL-Cert", "trusted": (PROXY[0],), **more}
    return ClientCertificate(**given)


ANYWHERE = {"now": CERTIFIED.timestamp()}
BODY = [{"method": "POST", "headers": [(b"content-length", b"11")], "body": b"x" * 11}]
KEYED = [{"method": "POST", "headers": [(b"idempotency-key", b'"a"')]}]
SECRET = b"s" * 32
LIMITED = RateLimit(calls=1, per=60)
IDEMPOTENT = Idempotency(required=True, max_request_bytes=10)
COVERED = '"@method" "@authority" "@path" "@query" "content-digest"'


async def reused(app: ASGIApp) -> Answer:
    headers = [(b"idempotency-key", b'"a"')]
    await call(app, "POST", headers=headers, body=b"one")
    return await call(app, "POST", headers=headers, body=b"two")


async def lost(app: ASGIApp) -> Answer:
    headers = [(b"idempotency-key", b'"a"')]
    await call(app, "POST", headers=headers)
    return await call(app, "POST", headers=headers)


async def conditional(app: ASGIApp, field: bytes, *, value: bytes | None = None) -> Answer:
    tag = (await call(app)).header(b"etag") if value is None else value
    assert tag is not None
    return await call(app, headers=[(field, tag)])


async def tagged(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"cache-control", b"max-age=60"), (b"etag", b'"one"')]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def user_store() -> MemoryUsers:
    return MemoryUsers(cost=CHEAP)


CASES: list[Case] = [
    Case(policy=jwt(), status=401, code="token-missing"),
    Case(policy=jwt(), status=401, code="token-invalid", requests=sent(("authorization", "Bearer x.y.z"))),
    Case(
        policy=jwt(token_from=("header:authorization", "query:token")),
        status=400,
        code="token-ambiguous",
        requests=sent(("authorization", "Bearer x"), query=b"token=x"),
    ),
    Case(policy=jwt(scopes="orders.read"), status=403, code="insufficient-scope", requests=bearing()),
    Case(policy=jwt(roles="admin"), status=403, code="forbidden", requests=bearing()),
    Case(
        policy=jwt(keys=None, jwks_url="https://issuer.example/keys"),
        status=503,
        code="keys-unavailable",
        requests=bearing(),
        env={"transport": "down"},
    ),
    Case(policy=jwt(revoked=down_revocations), status=503, code="revocations-unavailable", requests=bearing()),
    Case(policy=introspection(), status=401, code="token-missing"),
    Case(
        policy=introspection(),
        status=503,
        code="introspection-unavailable",
        requests=bearing(),
        env={"transport": "down"},
    ),
    Case(policy=APIKeyAuth(keys=keys()), status=401, code="subscription-key-missing"),
    Case(
        policy=APIKeyAuth(keys=keys()),
        status=401,
        code="subscription-key-invalid",
        requests=[{"query": b"subscription-key=x"}],
    ),
    Case(
        policy=APIKeyAuth(keys=keys(), tell_state=True),
        status=403,
        code="subscription-suspended",
        requests=sent(("ocp-apim-subscription-key", "k" * 32)),
    ),
    Case(
        policy=APIKeyAuth(keys=DownKeys()),
        status=503,
        code="key-store-unavailable",
        requests=sent(("ocp-apim-subscription-key", "k" * 32)),
    ),
    Case(policy=BasicAuth(users=user_store()), status=401, code="credentials-missing"),
    Case(
        policy=BasicAuth(users=user_store()),
        status=401,
        code="credentials-invalid",
        requests=sent(("authorization", "Basic YTpi")),
    ),
    Case(
        policy=BasicAuth(users=DownUsers()),
        status=503,
        code="user-store-unavailable",
        requests=sent(("authorization", "Basic YTpi")),
    ),
    Case(policy=certified(), status=403, code="certificate-missing", env=ANYWHERE),
    Case(
        policy=certified(),
        status=403,
        code="certificate-invalid",
        env=ANYWHERE,
        requests=sent(("x-ssl-cert", escaped(STRANGER))),
    ),
    Case(
        policy=certified(identities=(CertificateIdentity(subject="nobody"),)),
        status=403,
        code="certificate-not-allowed",
        env=ANYWHERE,
        requests=sent(("x-ssl-cert", escaped(ORDERS))),
    ),
    Case(
        policy=certified(revocations=RevocationLists(ROOT.revoking(ORDERS))),
        status=403,
        code="certificate-revoked",
        env=ANYWHERE,
        requests=sent(("x-ssl-cert", escaped(ORDERS))),
    ),
    Case(policy=HTTPSignature(keys=(ADA,)), status=401, code="signature-missing"),
    Case(
        policy=HTTPSignature(keys=(ADA,)),
        status=401,
        code="signature-invalid",
        ask=lambda app: signed(app, said(created=NOW, keyid="eve")),
    ),
    Case(
        policy=HTTPSignature(keys=(ADA,)),
        status=401,
        code="signature-expired",
        ask=lambda app: signed(app, said(created=NOW - 3600)),
    ),
    Case(
        policy=HTTPSignature(keys=(ADA,)),
        status=400,
        code="digest-mismatch",
        ask=lambda app: signed(
            app, said(COVERED, created=NOW), (b"content-digest", b"sha-256=:" + b"A" * 43 + b"=:"), body=b"x"
        ),
    ),
    Case(policy=HMACSignature(secrets=(SECRET,)), status=401, code="signature-missing", requests=BODY),
    Case(
        policy=HMACSignature(secrets=(SECRET,)),
        status=401,
        code="signature-invalid",
        requests=sent(("x-signature", "00"), method="POST"),
    ),
    Case(
        policy=HMACSignature(secrets=(SECRET,), max_body_bytes=10),
        status=413,
        code="body-too-large",
        requests=sent(("x-signature", "00"), method="POST", body=b"x" * 11),
    ),
    Case(policy=RequireHeader(name="x-tenant"), status=400, code="header-missing"),
    Case(
        policy=RequireHeader(name="x-tenant", values="a"),
        status=400,
        code="header-refused",
        requests=sent(("x-tenant", "b")),
    ),
    Case(policy=IPFilter(deny=("203.0.113.0/24",)), status=403, code="address-denied"),
    Case(policy=IPFilter(allow=("10.0.0.0/8",)), status=403, code="address-not-allowed"),
    Case(policy=IPFilter(allow=("10.0.0.0/8",)), status=403, code="address-unknown", requests=[{"client": None}]),
    Case(
        policy=TrustedProxies(trusted=("203.0.113.7",), header="auto"),
        status=400,
        code="conflicting-forwarding",
        requests=sent(("forwarded", "for=1.2.3.4"), ("x-forwarded-for", "5.6.7.8")),
    ),
    Case(policy=LIMITED, status=429, code="rate-limit-exceeded", requests=[{}, {}]),
    Case(policy=LIMITED, status=403, code="caller-unknown", requests=[{"client": None}]),
    Case(policy=LIMITED, status=503, code="limit-store-unavailable", down=True),
    Case(policy=Quota(calls=1, per=60, by=by.client), status=403, code="quota-exceeded", requests=[{}, {}]),
    Case(
        policy=Limits(LIMITED, Quota(calls=9, per=600, by=by.client)),
        status=429,
        code="rate-limit-exceeded",
        requests=[{}, {}],
    ),
    Case(policy=LimitConcurrency(at_once=1), status=429, code="too-many-at-once", app=slow, ask=at_once),
    Case(
        policy=LimitConcurrency(at_once=1, by=by.client), status=403, code="caller-unknown", requests=[{"client": None}]
    ),
    Case(
        policy=LoadShed(initial_limit=1, min_limit=1, max_limit=1),
        status=503,
        code="overloaded",
        app=slow,
        ask=at_once,
    ),
    Case(policy=LimitBody(max_bytes=10), status=413, code="body-too-large", requests=BODY),
    Case(policy=ReadBody(max_bytes=10), status=413, code="body-too-large", requests=BODY),
    Case(
        policy=ReadBody(),
        status=415,
        code="content-encoding-unsupported",
        requests=sent(("content-encoding", "gzip"), method="POST"),
    ),
    Case(
        policy=ReadBody(),
        status=400,
        code="json-invalid",
        app=RateLimit(calls=9, per=60, by=by.body("/model"))(echo),
        requests=BODY,
    ),
    Case(policy=Timeout(seconds=0.001), status=504, code="timeout", app=slow),
    Case(policy=Faults(fail=1), status=503, code="fault-injected"),
    Case(policy=RewritePath(match="/a/{id}", to="/.{id}"), status=400, code="bad-target", requests=[{"path": "/a/;x"}]),
    Case(policy=Redirect(match="/a/{id}", to="/.{id}"), status=400, code="bad-target", requests=[{"path": "/a/;x"}]),
    Case(
        policy=TrustedProxies(trusted=("203.0.113.7",), header="x-forwarded", also=("host",)),
        status=400,
        code="bad-host",
        requests=sent(("x-forwarded-for", "1.2.3.4"), ("x-forwarded-host", "a b")),
    ),
    Case(policy=Authorize(scopes="a"), status=401, code="authentication-required"),
    Case(policy=AllOf(jwt(), Authorize(scopes="a")), status=403, code="insufficient-scope", requests=bearing()),
    Case(policy=AllOf(jwt(), Authorize(roles="a")), status=403, code="forbidden", requests=bearing()),
    Case(
        policy=SetHeader(name="x-a", value=lambda exchange: "a\nb", on="request"), status=400, code="bad-header-value"
    ),
    Case(policy=ETag(), status=304, ask=lambda app: conditional(app, b"if-none-match")),
    Case(
        policy=ETag(),
        status=412,
        code="precondition-failed",
        ask=lambda app: conditional(app, b"if-match", value=b'"x"'),
    ),
    Case(policy=Cache(), status=304, app=tagged, ask=lambda app: conditional(app, b"if-none-match")),
    Case(policy=Cache(), status=504, code="not-in-cache", requests=sent(("cache-control", "only-if-cached"))),
    Case(policy=Cache(when_store_fails="refuse"), status=503, code="cache-unavailable", down=True),
    Case(policy=IDEMPOTENT, status=400, code="idempotency-key-missing", requests=[{"method": "POST"}]),
    Case(
        policy=IDEMPOTENT,
        status=400,
        code="idempotency-key-invalid",
        requests=sent(("idempotency-key", "{"), method="POST"),
    ),
    Case(
        policy=Idempotency(by=by.principal),
        status=403,
        code="caller-unknown",
        requests=sent(("idempotency-key", '"a"'), method="POST"),
    ),
    Case(policy=IDEMPOTENT, status=409, code="idempotency-in-progress", app=slow, ask=twice_at_once),
    Case(policy=Idempotency(max_response_bytes=1), status=409, code="idempotency-response-lost", ask=lost),
    Case(
        policy=IDEMPOTENT,
        status=413,
        code="body-too-large",
        requests=sent(("idempotency-key", '"a"'), method="POST", body=b"x" * 11),
    ),
    Case(policy=IDEMPOTENT, status=422, code="idempotency-key-reused", ask=reused),
    Case(policy=IDEMPOTENT, status=503, code="idempotency-unavailable", requests=KEYED, down=True),
    Case(policy=Redirect(to="/new", match="/old"), status=307, requests=[{"path": "/old"}]),
    Case(policy=ReturnResponse(status=204), status=204),
    Case(policy=MockResponse(status=203, body={}), status=203),
    Case(
        policy=AnyOf(jwt(), APIKeyAuth(keys=keys())),
        status=401,
        code="credentials-missing",
    ),
    Case(
        policy=AnyOf(jwt(), APIKeyAuth(keys=keys())),
        status=401,
        code="token-invalid",
        requests=sent(("authorization", "Bearer x")),
    ),
    Case(policy=AnyOf(certified()), status=403, code="certificate-missing", env=ANYWHERE),
    Case(policy=AllOf(jwt(), APIKeyAuth(keys=keys())), status=401, code="token-missing"),
    Case(policy=When(conditions.path("/*"), LimitBody(max_bytes=10)), status=413, code="body-too-large", requests=BODY),
]


def named(case: Case) -> str:
    return f"{type(case.policy).__name__}-{case.status}-{case.code}"


@pytest.mark.parametrize("case", CASES, ids=named)
async def test_what_a_document_tells_of_happens(case: Case) -> None:
    if case.env.get("transport") == "down":
        issuer = Published(KEY)
        issuer.behave(down)
        case = Case(**{**vars(case), "env": {**case.env, "transport": issuer}})
    answer = await case.answer()
    code = json.loads(answer.body)["code"] if answer.header(b"content-type") == b"application/problem+json" else ""
    assert (answer.status, code) == (case.status, case.code)
    told = documented(case.policy.documentation, case.status)
    assert case.code in told.codes or (not case.code and not told.codes)
    assert told.fields >= {name.decode() for name, _ in answer.headers} - UNTOLD


UNTOLD = {"content-type", "content-length", "cache-control", "connection"}


@dataclass(frozen=True)
class Told:
    codes: set[str]
    fields: set[str]


def documented(documentation: Documentation, status: int) -> Told:
    """What an operation behind these says of a status."""
    components = Components()
    operation: dict[str, Any] = {}
    for method in ("GET", "POST"):
        root = {"components": components.sections}
        Writer(components).write(operation, method, documentation, root=root)
    response = resolved("response", operation["responses"][str(status)], {"components": components.sections})
    fields = {name.lower() for name in response.get("headers", {})}
    schema = response.get("content", {}).get("application/problem+json", {}).get("schema", {})
    ways = schema.get("anyOf", [schema])
    return Told(
        {code for way in ways for code in way["allOf"][1]["properties"]["code"]["enum"]} if schema else set(), fields
    )


PROVED_BESIDE_THE_POLICY = {
    "dpop-proof-invalid", "dpop-nonce-required", "proofs-unavailable", "authentication-busy", "revocation-unknown",
    "signature-replayed", "replay-store-unavailable", "token-not-exchanged", "credential-unavailable",
    "too-many-failures",
}  # fmt: skip
"""Codes whose way to happen is long; the tests of the policies go it."""


@pytest.mark.parametrize("kind", sorted({type(case.policy) for case in CASES}, key=str), ids=lambda kind: kind.__name__)
def test_nothing_is_told_of_that_was_not_seen_to_happen(kind: type[Policy]) -> None:
    seen = {(case.status, case.code) for case in CASES}
    seen |= {(403, f"subscription-{state}") for state in ("expired", "cancelled", "submitted", "rejected")}
    answers = [each for case in CASES if type(case.policy) is kind for each in case.policy.documentation.answers]
    told = {(answer.status, code) for answer in answers for code in answer.codes or ("",)}
    assert {each for each in told - seen if each[1] not in PROVED_BESIDE_THE_POLICY} == set()


def test_every_policy_that_tells_of_something_is_in_the_table() -> None:
    found = [getattr(apim_middleware, name) for name in apim_middleware.__all__]
    telling = {
        kind
        for kind in found
        if isinstance(kind, type)
        and issubclass(kind, Composable)
        and kind.documentation is not Composable.documentation
    }
    elsewhere = {Stack, Choose, Compress, LimitGuesses, UpstreamAuth}
    assert telling - elsewhere == {type(case.policy) for case in CASES}
