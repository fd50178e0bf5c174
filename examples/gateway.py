"""A standalone gateway: a demo upstream, a demo token issuer, and the gateway with its policies in front of both.

    python examples/gateway.py [--port 8080]

It prints the curl lines to try, and a line on the console for every span.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from apim_middleware import (
    APIKeyAuth,
    Cache,
    Exchange,
    IPFilter,
    JWTAuth,
    MemoryKeys,
    Proxy,
    Quota,
    RateLimit,
    RemoveHeader,
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
from apim_middleware.types import ASGIApp

AUDIENCE = "https://orders.example"


def upstream() -> ASGIApp:
    """What is to be guarded: an API that knows nothing of keys, tokens and limits."""

    async def orders(request: Request) -> Response:
        body = {"orders": [1, 2, 3], "made_at": time.time(), "seen_by_upstream": dict(request.headers)}
        return JSONResponse(body, headers={"cache-control": "public, max-age=30", "x-powered-by": "secret/1.0"})

    async def create(request: Request) -> Response:
        return JSONResponse({"created": await request.json()}, status_code=201)

    async def events(request: Request) -> Response:
        async def ticks() -> AsyncIterator[str]:
            for number in range(3):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.2)

        return StreamingResponse(ticks(), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/v1/orders", orders, methods=["GET"]),
            Route("/v1/orders", create, methods=["POST"]),
            Route("/v1/events", events),
        ]
    )


class Issuer:
    """A demo token issuer with a key of its own, published as JWKS."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.jwks = {"keys": [{**public, "kid": "demo", "use": "sig", "alg": "RS256"}]}

    def token(self, scope: str) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "scope": scope, "iat": now, "exp": now + 3600}
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "demo"})

    def app(self) -> ASGIApp:
        async def keys(request: Request) -> Response:
            return JSONResponse(self.jwks)

        return Starlette(routes=[Route("/jwks", keys)])


def caller(exchange: Exchange) -> str | None:
    """Whom the upstream is told of; what a caller claims in this header is overwritten."""
    return None if exchange.principal is None else exchange.principal.subject


def gateway(upstream_url: str, issuer_url: str, keys: MemoryKeys) -> ASGIApp:
    """The gateway: every policy in the order it is met, and the proxy at the end."""
    return Stack(
        Tracing(),
        TrustedProxies(trusted=("127.0.0.1", "::1"), also=("scheme", "host")),
        IPFilter(allow=("127.0.0.0/8", "::1")),
        APIKeyAuth(keys=keys),
        JWTAuth(issuer=issuer_url, audience=AUDIENCE, jwks_url=f"{issuer_url}/jwks", scopes="orders:read"),
        RateLimit(calls=5, per=10, by=by.subscription),
        Quota(calls=1000, per=86_400, by=by.subscription),
        When(conditions.method("POST"), RateLimit(calls=2, per=10, by=by.principal, name="writes")),
        Cache(),
        RewritePath(match="/orders/{rest:path}", to="/v1/orders/{rest}"),
        SetQuery(name="via", value="gateway"),
        SetHeader(name="x-caller", value=caller, on="request"),
        RemoveHeader(name="x-powered-by", on="response"),
    )(Proxy(upstream_url))


def what_to_try(url: str, key: str, reader: str, stranger: str) -> str:
    """The curl lines, each with what it shows."""
    return f"""
KEY='Ocp-Apim-Subscription-Key: {key}'
READER='Authorization: Bearer {reader}'
STRANGER='Authorization: Bearer {stranger}'

# 401: no subscription key
curl -i {url}/orders

# 401: a key and no token
curl -i -H "$KEY" {url}/orders

# 403: a token without the scope orders:read
curl -i -H "$KEY" -H "$STRANGER" {url}/orders

# 200: from the upstream (look at cache-status, ratelimit, and at what the upstream saw)
curl -i -H "$KEY" -H "$READER" {url}/orders

# 200: the same answer from the cache (age, cache-status: hit)
curl -i -H "$KEY" -H "$READER" {url}/orders

# 201: a POST goes through, and what the cache had for this address is forgotten
curl -i -H "$KEY" -H "$READER" -H 'Content-Type: application/json' -d '{{"book": 1}}' {url}/orders

# 200: events as they happen
curl -iN -H "$KEY" -H "$READER" {url}/v1/events

# 400: nobody walks around the policies
curl -i --path-as-is {url}/orders/%2e%2e/admin

# 429: too many calls in ten seconds
for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{{http_code}}\\n' -H "$KEY" -H "$READER" {url}/orders; done
"""


def trace_to_console() -> None:
    """One line for every span."""

    def line(span: ReadableSpan) -> str:
        took = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
        return f"span {span.name} {took:.1f} ms {json.dumps(dict(span.attributes or {}), default=str)}\n"

    provider = TracerProvider(resource=Resource.create({"service.name": "demo-gateway"}))
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
    trace.set_tracer_provider(provider)


def listen(port: int = 0) -> tuple[socket.socket, str]:
    """A listening socket on this machine, and its address as a URL."""
    listener = socket.create_server(("127.0.0.1", port))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


class Server(uvicorn.Server):
    """uvicorn without its own idea of who the client is, and of the date, both of which the gateway passes on."""

    def __init__(self, app: ASGIApp, *, date_header: bool = True) -> None:
        config = uvicorn.Config(
            app, proxy_headers=False, server_header=False, date_header=date_header, log_level="warning"
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave Ctrl-C to ``main``, for there are three servers in this process."""
        yield


def stop(servers: list[Server]) -> None:
    """Let every server finish what it is doing, and end."""
    for server in servers:
        server.should_exit = True


async def main(port: int) -> None:
    upstream_socket, upstream_url = listen()
    issuer_socket, issuer_url = listen()
    gateway_socket, gateway_url = listen(port)

    issuer = Issuer(issuer_url)
    keys = MemoryKeys()
    keys.add(Subscription(id="demo", product="starter", owner="alice"))
    lines = what_to_try(gateway_url, keys.issue("demo"), issuer.token("orders:read"), issuer.token("orders:write"))

    servers = {
        Server(upstream()): upstream_socket,
        Server(issuer.app()): issuer_socket,
        Server(gateway(upstream_url, issuer_url, keys), date_header=False): gateway_socket,
    }
    for caught in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(caught, stop, list(servers))
    print(lines, flush=True)
    print(f"The gateway listens on {gateway_url}; stop it with Ctrl-C.", flush=True)
    await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in servers.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080, help="where the gateway listens; 0 for any free port")
    options = parser.parse_args()
    trace_to_console()
    asyncio.run(main(options.port))
