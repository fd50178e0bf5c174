"""The law again, with the policies people use: random stacks of them answer a series of requests as nested ones do."""

import random
from collections.abc import Callable

import anyio
import pytest

from apim_middleware import (
    APIKeyAuth,
    Cache,
    Choose,
    Env,
    IPFilter,
    JWTAuth,
    MemoryKeys,
    Quota,
    RateLimit,
    RemoveHeader,
    RemoveQuery,
    RewritePath,
    SetHeader,
    SetQuery,
    Stack,
    Subscription,
    Tracing,
    TrustedProxies,
    When,
    by,
    conditions,
)
from apim_middleware.credentials.credential import HeaderCredential
from apim_middleware.errors import ConfigError
from apim_middleware.policies.access_log import AccessLog
from apim_middleware.policies.answers import MockResponse, Redirect, ReturnResponse
from apim_middleware.policies.compress import Compress
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policies.etag import ETag
from apim_middleware.policies.faults import Faults
from apim_middleware.policies.guesses import LimitGuesses
from apim_middleware.policies.idempotency import Idempotency
from apim_middleware.policies.introspection import OAuth2Introspection
from apim_middleware.policies.limits import Limits
from apim_middleware.policies.load_shed import LoadShed
from apim_middleware.policies.mirror import Mirror
from apim_middleware.policies.protected_resource import ProtectedResource
from apim_middleware.policies.read_body import ReadBody
from apim_middleware.policies.rewrite_location import RewriteLocation
from apim_middleware.policies.set_backend import SetBackend
from apim_middleware.policies.size import LimitBody
from apim_middleware.policies.split import Split
from apim_middleware.policies.timeout import Timeout
from apim_middleware.policies.upstream_auth import UpstreamAuth
from apim_middleware.stores.keys import key_digest
from apim_middleware.testing import Answer, FakeClock, call, connect
from apim_middleware.types import ASGIApp, Layer, Receive, Scope, Send

from .test_fusion import opaque

STACKS = 1_500
KEY = "k" * 43


def keys() -> MemoryKeys:
    store = MemoryKeys()
    store.add(Subscription(id="one"), primary=key_digest(KEY))
    return store


async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Another app, of few words."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1001})
        return
    await send({"type": "http.response.start", "status": 203, "headers": []})
    await send({"type": "http.response.body", "body": b"elsewhere"})


MAKERS: tuple[Callable[[random.Random], Layer], ...] = (
    lambda rng: Tracing(),
    lambda rng: AccessLog(write=len),
    lambda rng: TrustedProxies(trusted=("203.0.113.7",)),
    lambda rng: IPFilter(deny=("198.51.100.0/24",)),
    lambda rng: APIKeyAuth(keys=keys(), optional=rng.random() < 0.7),
    lambda rng: LimitGuesses(failures=rng.randint(1, 2), by=rng.choice((by.everyone, by.client))),
    lambda rng: UpstreamAuth(credential=HeaderCredential(name="x-c", value=str(rng.randint(1, 3)))),
    lambda rng: JWTAuth(issuer="i", audience="a", keys=bytes(32), algorithms=("HS256",), optional=rng.random() < 0.7),
    lambda rng: OAuth2Introspection(
        url="https://issuer.example/", client_id="a", client_secret="b", audience=None, optional=rng.random() < 0.7
    ),
    lambda rng: ProtectedResource(resource=rng.choice(("https://api.example", "https://api.example/a"))),
    lambda rng: RateLimit(calls=rng.randint(1, 4), per=60, by=rng.choice((by.everyone, by.client)), window="fixed"),
    lambda rng: Quota(calls=rng.randint(1, 4), per=3600, by=by.everyone, name=f"q{rng.randint(1, 2)}"),
    lambda rng: LimitConcurrency(at_once=1, queue=rng.randint(0, 1), by=rng.choice((by.everyone, by.client))),
    lambda rng: LoadShed(initial_limit=2),
    lambda rng: Timeout(seconds=60),
    lambda rng: Faults(fail=0.2, random=random.Random(rng.random()).random),
    lambda rng: Split(elsewhere, share=rng.random(), by=by.client),
    lambda rng: SetBackend(elsewhere),
    lambda rng: Mirror(elsewhere, share=0.5, random=random.Random(rng.random()).random),
    lambda rng: RateLimit(calls=rng.randint(5, 60), per=60, by=by.client, units=rng.choice(("bytes", "request-bytes"))),
    lambda rng: RateLimit(calls=rng.randint(1, 3), per=60, by=by.everyone, name="f", count_when=conditions.failed),
    lambda rng: Limits(
        RateLimit(calls=rng.randint(1, 4), per=60, by=by.client, window=rng.choice(("bucket", "log"))),
        Quota(calls=rng.randint(1, 4), period="day", by=by.everyone),
    ),
    lambda rng: Cache(ttl=rng.choice((None, 60)), private_to=rng.choice((None, by.subscription))),
    lambda rng: Cache(
        ttl=rng.choice((5, 60)), stale_while_revalidate=rng.choice((0, 60)), without_query=rng.choice(((), ("r",)))
    ),
    lambda rng: SetHeader(name="x-a", value=str(rng.randint(1, 3)), on=rng.choice(("request", "response"))),
    lambda rng: SetHeader(name="x-path", value=lambda exchange: exchange.path, on="response", exists="append"),
    lambda rng: RemoveHeader(name=rng.choice(("x-a", "etag")), on=rng.choice(("request", "response"))),
    lambda rng: RewritePath(match="/a/{rest:path}", to=rng.choice(("/b/{rest}", "/a/c/{rest}"))),
    lambda rng: SetQuery(name="q", value=str(rng.randint(1, 3)), exists=rng.choice(("override", "append", "skip"))),
    lambda rng: RemoveQuery(name="q"),
    lambda rng: LimitBody(max_bytes=rng.randint(0, 6)),
    lambda rng: ReadBody(max_bytes=rng.choice((3, 9))),
    lambda rng: RateLimit(calls=2, per=60, by=by.body(""), name="said", when_unknown="together"),
    lambda rng: When(conditions.body("", 1234), SetHeader(name="x-said", value="1", on="response")),
    lambda rng: Idempotency(by=by.everyone, max_response_bytes=rng.choice((10, 1 << 18))),
    lambda rng: ETag(max_bytes=rng.choice((10, 1 << 20))),
    lambda rng: Compress(min_bytes=rng.choice((0, 120)), codings=("gzip",)),
    lambda rng: Redirect(match="/a/{rest:path}", to="/b/{rest}", status=rng.choice((303, 308))),
    lambda rng: RewriteLocation(upstream="http://inner/api", public=rng.choice((None, "/x", "https://outer"))),
    lambda rng: When(
        conditions.path("/b/*"), ReturnResponse(status=rng.choice((204, 410)), headers={"location": "/api"})
    ),
    lambda rng: When(conditions.header("x-b"), MockResponse(body=[1, 2], headers={"etag": '"mock"'})),
    lambda rng: When(conditions.path("/a/*"), SetHeader(name="x-when", value="1", on="response", exists="append")),
    lambda rng: When(conditions.method("POST"), RateLimit(calls=1, per=60, by=by.everyone, name="writes")),
    lambda rng: Choose((conditions.header("x-a"), Cache(ttl=60)), otherwise=RemoveHeader(name="x-b", on="request")),
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what it was asked, so that every change to the request shows."""
    headers = sorted(line for line in scope["headers"] if line[0].startswith(b"x-"))
    seen = repr((scope["path"], scope.get("query_string"), headers, scope["client"])).encode()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept", "headers": [(b"x-seen", b"%d" % len(seen))]})
        await send({"type": "websocket.close", "code": 1000, "reason": seen.decode()[:100]})
        return
    head = [(b"etag", b'"1"'), (b"content-length", b"%d" % len(seen)), (b"content-type", b"text/plain")]
    head.append((b"location", b"http://inner/api/next"))
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": seen[:10], "more_body": True})
    await send({"type": "http.response.body", "body": seen[10:]})


async def request(built: ASGIApp, rng: random.Random) -> Answer:
    path = rng.choice(("/a/1", "/a", "/b/2", "/a//1", "/a/%2e%2e/b"))
    headers = [
        line
        for line in (
            (b"x-a", b"in"), (b"x-b", b"in"), (b"ocp-apim-subscription-key", KEY.encode()),
            (b"x-forwarded-for", b"198.51.100.9"), (b"cache-control", b"no-cache"), (b"authorization", b"Basic eA=="),
            (b"idempotency-key", b"k"), (b"accept-encoding", b"gzip"), (b"if-none-match", b'"1", "mock--gzip"'),
        )
        if rng.random() < 0.25
    ]  # fmt: skip
    if rng.random() < 0.15:
        return await connect(built, path, headers=headers)
    method = rng.choice(("GET", "GET", "GET", "HEAD", "POST"))
    body = rng.choice((b"", b"1234", (b"12", b"34", b"5"))) if method == "POST" else b""
    if body:
        headers.append((b"transfer-encoding", b"chunked"))
    return await call(built, method, path, headers=headers, query=rng.choice((b"", b"q=0&r=1")), body=body)


async def series(seed: str, layers: list[Layer], *, nested: bool) -> list[list[object]]:
    env = Env(clock=FakeClock())
    if nested:
        layers = [layer for each in layers for layer in (each, opaque)]
    built = Stack(*layers, env=env)(app)
    rng = random.Random(seed)
    return [list((await request(built, rng)).messages) for _ in range(6)]


def layers_of(seed: str) -> list[Layer]:
    rng = random.Random(seed)
    return [rng.choice(MAKERS)(rng) for _ in range(rng.randint(2, 6))]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_stacks_of_real_policies_behave_as_nested_ones(backend: str) -> None:
    async def compare() -> None:
        compared = 0
        for number in range(STACKS):
            seed = f"{backend} {number}"
            try:
                expected = await series(seed, layers_of(seed), nested=True)
            except ConfigError:
                with pytest.raises(ConfigError):
                    await series(seed, layers_of(seed), nested=False)
                continue
            assert await series(seed, layers_of(seed), nested=False) == expected, layers_of(seed)
            compared += 1
        assert compared > STACKS // 3

    anyio.run(compare, backend=backend)
