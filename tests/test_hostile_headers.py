"""Bytes that are no text, and text that is no value: whatever a header holds, nobody who reads it stumbles."""

import base64
import logging
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import anyio.lowlevel
import pytest
from tests.jose.issuer import Reply

from apim_middleware import (
    AccessLog,
    APIKeyAuth,
    BasicAuth,
    Cache,
    Choose,
    ClientCertificate,
    Compress,
    DPoP,
    Env,
    ETag,
    Gateway,
    HMACSignature,
    HTTPSignature,
    Idempotency,
    IdentityHeaders,
    IPFilter,
    JWTAuth,
    LimitBody,
    LimitConcurrency,
    LimitGuesses,
    MemoryKeys,
    MemoryUsers,
    OAuth2Introspection,
    ProtectedResource,
    Proxy,
    RateLimit,
    ReadBody,
    Redirect,
    RequireHeader,
    RewriteLocation,
    RewritePath,
    SetBackend,
    SetHeader,
    SetQuery,
    SignatureKey,
    Split,
    Stack,
    Tracing,
    TrustedProxies,
    When,
    by,
    conditions,
)
from apim_middleware._http.hygiene import Hygiene
from apim_middleware.errors import Refusal
from apim_middleware.model import Api, Operation, Version, Versions
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.testing import FakeClock, call, connect, http_scope
from apim_middleware.types import ASGIApp, Layer, Receive, Scope, Send

SECRET = b"0123456789abcdef0123456789abcdef"
HOST = (b"host", b"api.example")
PEER = ("203.0.113.7", 4711)

VALUES = (
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xc0\xae\xc0\xae",
    b"",
    b" ",
    b"\x01\x1b[31m\x7f",
    b'"',
    b'"\\',
    b"%ff%zz%",
    b"," * 2_000,
    b"(" * 2_000,
    b"a=\xff;" * 500,
    b"9" * 5_000,
    "\u0663".encode(),
    b"1e999",
)

SCHEMES = (b"Bearer %b", b"DPoP %b", b"Basic %b", b"Digest %b")


def saying(value: bytes) -> list[list[tuple[bytes, bytes]]]:
    """Requests that say this, each in one of the fields that something reads."""
    names = (
        b"accept accept-encoding accept-language access-control-request-method api-version authorization baggage "
        b"cache-control client-cert content-digest content-encoding content-type cookie dpop expect forwarded "
        b"idempotency-key if-match if-modified-since if-none-match if-range if-unmodified-since max-forwards "
        b"ocp-apim-subscription-key origin pragma priority range referer sec-websocket-protocol signature "
        b"signature-input traceparent tracestate user-agent via x-forwarded-client-cert x-forwarded-for "
        b"x-forwarded-host x-forwarded-proto x-real-ip x-signature x-tenant x-time"
    ).split()
    requests = [[(name, value)] for name in names]
    requests += [[(b"authorization", form % value)] for form in SCHEMES]
    requests.append([(b"authorization", b"Basic " + base64.b64encode(value))])
    requests.append([(b"authorization", b"Bearer x"), (b"dpop", value)])
    requests.append([(b"cookie", b"key=" + value), (b"x-signature", b"t=1,v1=" + value), (b"x-time", value)])
    requests.append([(b"signature-input", b"a=" + value), (b"signature", b"a=" + value)])
    return requests


REQUESTS = [lines for value in VALUES for lines in saying(value)]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    head = [(b"etag", b'"1"'), (b"last-modified", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": [*head, (b"location", b"http://inner/x")]})
    await send({"type": "http.response.body", "body": b"in"})


class Upstream:
    """A transport to an upstream, and to an authorization server, that knows no token."""

    async def send(self, request: UpstreamRequest) -> Reply:
        await anyio.lowlevel.checkpoint()
        return Reply(b'{"active":false}', headers=[(b"content-type", b"application/json")])

    async def aclose(self) -> None:
        """There is nothing to close."""


def jwt(**fields: Any) -> JWTAuth:
    return JWTAuth(issuer="i", audience="a", keys=SECRET, algorithms=("HS256",), **fields)


def gateway() -> ASGIApp:
    versions = Versions(by="header", parameter="api-version", versions=(Version("v1"),), default="v1")
    operations = (Operation("GET", "/a"),)
    api = Api("one", "/", backend=app, versions=versions, operations=operations, subscription_required=False)
    return Gateway(apis=(api,), keys=MemoryKeys())


def unchanged(app: ASGIApp) -> ASGIApp:
    return app


SIGNERS = (SignatureKey(id="a", key=SECRET, algorithm="hmac-sha256"),)
POLICIES: dict[str, Callable[[], Any]] = {
    "AccessLog": lambda: AccessLog(write=str, request_headers=("x-tenant", "accept", "range")),
    "Tracing": lambda: Tracing(baggage=("a",)),
    "TrustedProxies": lambda: TrustedProxies(trusted=(PEER[0],), also=("scheme", "host")),
    "X-Real-IP": lambda: TrustedProxies(trusted=(PEER[0],), header="x-real-ip"),
    "IPFilter": lambda: Stack(TrustedProxies(trusted=(PEER[0],)), IPFilter(deny=("192.0.2.0/24",))),
    "APIKeyAuth": lambda: APIKeyAuth(keys=MemoryKeys(), cookie="key"),
    "BasicAuth": lambda: BasicAuth(users=MemoryUsers()),
    "JWTAuth": jwt,
    "JWTAuth elsewhere": lambda: jwt(token_from=("header:x-tenant", "cookie:key")),
    "DPoP": lambda: jwt(dpop=DPoP()),
    "OAuth2Introspection": lambda: OAuth2Introspection(
        url="https://issuer.example/", client_id="a", client_secret="b", audience=None
    ),
    "HMACSignature": lambda: HMACSignature(
        secrets=(SECRET,), parameter="v1", timestamp_header="x-time", signed="{timestamp}.{body}"
    ),
    "HMACSignature in base64": lambda: HMACSignature(secrets=(SECRET,), encoding="base64"),
    "HTTPSignature": lambda: HTTPSignature(keys=SIGNERS),
    "ClientCertificate": lambda: ClientCertificate(authorities="server", header="Client-Cert", trusted=(PEER[0],)),
    "Envoy's": lambda: ClientCertificate(
        authorities="server", header="X-Forwarded-Client-Cert", trusted=(PEER[0],), optional=True
    ),
    "RequireHeader": lambda: RequireHeader(name="x-tenant", values=("a",), ignore_case=True),
    "LimitGuesses": lambda: Stack(LimitGuesses(by=by.either(by.username, by.client), failures=9_999), jwt()),
    "RateLimit": lambda: RateLimit(calls=9_999, per=60, by=by.header("x-tenant"), when_unknown="together"),
    "RateLimit by cookie": lambda: RateLimit(calls=9_999, per=60, by=by.cookie("key"), when_unknown="together"),
    "LimitConcurrency": lambda: LimitConcurrency(at_once=9, by=by.header("x-tenant"), when_unknown="together"),
    "LimitBody": lambda: LimitBody(max_bytes=1),
    "ReadBody": ReadBody,
    "Cache": lambda: Cache(ttl=60, vary_by=(by.header("x-tenant"), by.cookie("key"))),
    "Compress": lambda: Compress(min_bytes=0),
    "ETag": ETag,
    "Idempotency": lambda: Idempotency(by=by.everyone),
    "IdentityHeaders": lambda: Stack(jwt(optional=True), IdentityHeaders(key=SECRET)),
    "ProtectedResource": lambda: Stack(ProtectedResource(resource="https://api.example"), jwt()),
    "Redirect": lambda: Redirect(https=True, hosts=("api.example",)),
    "RewriteLocation": lambda: RewriteLocation(upstream="http://inner"),
    "RewritePath": lambda: RewritePath(match="/{rest:path}", to="/b/{rest}"),
    "SetBackend": lambda: SetBackend(app),
    "SetHeader": lambda: SetHeader(name="x-b", value=by.header("x-tenant"), on="response"),
    "SetQuery": lambda: SetQuery(name="q", value=by.header("x-tenant")),
    "Split": lambda: Split(app, share=0.5, by=by.header("x-tenant")),
    "When": lambda: When(conditions.header("x-tenant", "a"), unchanged),
    "Choose": lambda: Choose((conditions.header("accept", "a"), unchanged), otherwise=unchanged),
}


def behind(policy: Layer) -> ASGIApp:
    """The app behind a policy."""
    env = Env(clock=FakeClock(1_700_000_000), transport=Upstream())
    guarded: ASGIApp = Stack(policy, env=env)(app)
    return guarded


@pytest.mark.anyio
@pytest.mark.parametrize("name", POLICIES)
async def test_no_policy_stumbles_over_what_a_header_holds(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    guarded = behind(POLICIES[name]())
    for lines in REQUESTS:
        for method in ("GET", "POST"):
            assert (await call(guarded, method, headers=lines, client=PEER)).status < 500, lines
    assert caplog.messages == []


@pytest.mark.anyio
@pytest.mark.parametrize("name", POLICIES)
async def test_no_policy_stumbles_over_what_a_handshake_holds(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    guarded = behind(POLICIES[name]())
    for lines in REQUESTS:
        assert (await connect(guarded, headers=lines, client=PEER)).status < 500, lines
    assert caplog.messages == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "guarded", [gateway(), Proxy("http://upstream", transport=Upstream())], ids=["gateway", "proxy"]
)
async def test_neither_does_what_passes_it_on(guarded: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    for lines in REQUESTS:
        assert (await call(guarded, headers=lines, client=PEER)).status < 500, lines
    assert caplog.messages == []


def test_names_that_were_seen_before_are_counted_like_any_others() -> None:
    """One request after the other makes them known; all of them at once are still too many."""
    scrub = Hygiene().compiled()
    lines = [(b"x-%d" % number, b"1") for number in range(200)]
    for line in lines:
        scrub(http_scope(headers=[HOST, line]))
    with pytest.raises(Refusal, match="headers-too-large"):
        scrub(http_scope(headers=[HOST, *lines]))


# What it costs

RUNS = (
    b" ", b"\t", b",", b", ", b" ,", b";", b"; ", b"=", b'"', b"\\", b'\\"', b'"a', b'",', b"a", b"a,", b"a;", b"a=",
    b"a=b;", b"a=a;a=", b'W/"', b"(", b"()", b"0", b"-", b":", b"%", b"[", b"*",
)  # fmt: skip
FRONTS = (b"a", b'a="', b"a=(", b'"1"', b"bearer ")
ENDS = (b"!", b"")

READ = (
    (lambda: Cache(ttl=60), b"cache-control"),
    (lambda: Cache(ttl=60), b"range"),
    (lambda: Cache(ttl=60), b"if-none-match"),
    (lambda: Cache(ttl=60), b"accept-language"),
    (lambda: ETag(), b"if-none-match"),
    (lambda: Compress(min_bytes=0), b"accept-encoding"),
    (lambda: TrustedProxies(trusted=(PEER[0],)), b"forwarded"),
    (lambda: TrustedProxies(trusted=(PEER[0],)), b"x-forwarded-for"),
    (lambda: Tracing(), b"tracestate"),
    (lambda: AccessLog(write=str), b"user-agent"),
    (lambda: BasicAuth(users=MemoryUsers()), b"authorization"),
    (jwt, b"authorization"),
    (lambda: jwt(token_from="cookie:key"), b"cookie"),
    (lambda: HTTPSignature(keys=SIGNERS), b"signature-input"),
    (POLICIES["HMACSignature"], b"x-signature"),
    (POLICIES["ClientCertificate"], b"client-cert"),
    (POLICIES["Envoy's"], b"x-forwarded-client-cert"),
    (lambda: IPFilter(deny=("192.0.2.0/24",)), b"connection"),
)


async def varying(scope: Scope, receive: Receive, send: Send) -> None:
    """Its responses are for those who say the same."""
    head = [
        (b"etag", b'"1"'),
        (b"content-type", b"text/plain"),
        (b"vary", b"accept-language"),
        (b"content-length", b"2"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"in"})


REWRITING = RewriteLocation(upstream="http://upstream.example", public="https://api.example", cookie_domain="a.example")
PROTECTED = ProtectedResource(resource="https://api.example", authorization_servers=("https://issuer.example",))
ANSWERED = (
    (lambda: Cache(ttl=60), b"cache-control"),
    (lambda: Cache(ttl=60), b"cdn-cache-control"),
    (lambda: Cache(ttl=60), b"cache-tag"),
    (lambda: Cache(ttl=60), b"vary"),
    (lambda: ETag(), b"etag"),
    (lambda: Compress(min_bytes=0), b"content-type"),
    (lambda: REWRITING, b"location"),
    (lambda: REWRITING, b"refresh"),
    (lambda: REWRITING, b"set-cookie"),
    (lambda: PROTECTED, b"www-authenticate"),
)


@pytest.mark.anyio
@pytest.mark.parametrize(("make", "name"), READ)
async def test_a_long_header_costs_no_more_than_its_length(make: Callable[[], Layer], name: bytes) -> None:
    """Who looks at it again and again from each of its bytes takes 256 times as long for sixteen times the length."""
    await call(guarded := Stack(make(), env=Env(clock=FakeClock(1_700_000_000)))(varying), client=PEER)
    await grows_with_length(guarded, name)


@pytest.mark.anyio
@pytest.mark.parametrize(("make", "name"), ANSWERED)
async def test_nor_does_one_of_a_response(make: Callable[[], Layer], name: bytes) -> None:
    async def saying(scope: Scope, receive: Receive, send: Send) -> None:
        said = dict(scope["headers"])[b"x-say"]
        status = 401 if name == b"www-authenticate" else 200
        await send({"type": "http.response.start", "status": status, "headers": [(name, said)]})
        await send({"type": "http.response.body", "body": b""})

    await grows_with_length(Stack(make(), env=Env(clock=FakeClock(1_700_000_000)))(saying), b"x-say")


async def grows_with_length(guarded: ASGIApp, name: bytes) -> None:
    for pieces in product(FRONTS, RUNS, ENDS):
        growths = [await growth(guarded, name, *pieces)]
        while growths[-1] > 100 and len(growths) < 3:  # the garbage collector may have come between
            growths.append(await growth(guarded, name, *pieces))
        assert min(growths) < 100, pieces


async def growth(guarded: ASGIApp, name: bytes, front: bytes, run: bytes, end: bytes) -> float:
    """How many times as much work it is when a run is sixteen times as long."""
    times = []
    for length in (1_000, 16_000):
        headers = [(name, front + run * (length // len(run)) + end)]
        begun = time.process_time()
        await call(guarded, headers=headers, client=PEER)
        times.append(time.process_time() - begun)
    return times[1] / times[0]
