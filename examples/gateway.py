"""A standalone gateway: three APIs and two products in front of two demo servers and a demo token issuer.

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
    Api,
    Cache,
    Gateway,
    Health,
    HealthCheck,
    IdentityHeaders,
    IPFilter,
    JWTAuth,
    MemoryKeys,
    Operation,
    Pool,
    Product,
    Proxy,
    Quota,
    RateLimit,
    RemoveHeader,
    Retry,
    RewritePath,
    SetQuery,
    Subscription,
    Tracing,
    TrustedProxies,
    by,
)
from apim_middleware.serving.options import uvicorn_options
from apim_middleware.types import ASGIApp

AUDIENCE = "https://orders.example"


def server(name: str, *, busy: bool = False) -> ASGIApp:
    """What is to be guarded: it knows nothing of keys, tokens and limits. A busy one shows no single order."""

    async def orders(request: Request) -> Response:
        body = {"orders": [1, 2, 3], "server": name, "made_at": time.time(), "seen": dict(request.headers)}
        return JSONResponse(body, headers={"cache-control": "public, max-age=30", "x-powered-by": "secret/1.0"})

    async def order(request: Request) -> Response:
        body = {"order": request.path_params["number"], "server": name, "query": request.url.query}
        return Response(status_code=503) if busy else JSONResponse(body)

    async def create(request: Request) -> Response:
        return JSONResponse({"created": await request.json()}, status_code=201)

    async def events(request: Request) -> Response:
        async def ticks() -> AsyncIterator[str]:
            for number in range(3):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.2)

        return StreamingResponse(ticks(), media_type="text/event-stream")

    async def well(request: Request) -> Response:
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/v1/orders", orders, methods=["GET"]),
            Route("/v1/orders", create, methods=["POST"]),
            Route("/v1/orders/{number:int}", order),
            Route("/v1/events", events),
            Route("/well", well),
        ]
    )


async def status(request: Request) -> Response:
    """An app in this very process, for the third API."""
    return JSONResponse({"status": "fine"})


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


def gateway(servers: list[str], issuer: str, keys: MemoryKeys) -> ASGIApp:
    """The gateway: what stands in front of everything, what can be subscribed to, what can be called."""
    pool = Proxy(Pool(*servers, health=HealthCheck(path="/well", every=1)), retry=Retry(attempts=3, per_try=2))

    return Health(checks={"a server": lambda: any(each.state == "ready" for each in pool.standing())})(
        Gateway(
            policies=(
                Tracing(),
                TrustedProxies(trusted=("127.0.0.1", "::1"), also=("scheme", "host")),
                IPFilter(allow=("127.0.0.0/8", "::1")),
                RemoveHeader(name="x-powered-by", on="response"),
            ),
            products=(
                Product(
                    "starter",
                    apis=("orders",),
                    policies=(
                        RateLimit(calls=10, per=60, by=by.subscription),
                        Quota(calls=1000, period="day", by=by.subscription),
                    ),
                ),
                Product(
                    "business",
                    apis=("orders", "events"),
                    policies=(Quota(calls=1_000_000, period="month", by=by.subscription),),
                ),
            ),
            apis=(
                Api(
                    "orders",
                    "/orders",
                    backend=pool,
                    policies=(
                        JWTAuth(issuer=issuer, audience=AUDIENCE, jwks_url=f"{issuer}/jwks", scopes="orders:read"),
                        Cache(),
                        RewritePath(match="/{rest:path}", to="/v1/orders/{rest}"),
                        SetQuery(name="via", value="gateway"),
                        IdentityHeaders(),
                    ),
                    operations=(
                        Operation("GET", "/"),
                        Operation("GET", "/{number}"),
                        Operation("POST", "/", policies=(RateLimit(calls=20, per=60, by=by.principal),)),
                    ),
                ),
                Api(
                    "events",
                    "/events",
                    backend=pool,
                    policies=(RewritePath(match="/{rest:path}", to="/v1/events"),),
                    operations=(Operation("GET", "/"),),
                ),
                Api(
                    "status",
                    "/status",
                    backend=Starlette(routes=[Route("/", status)]),
                    subscription_required=False,
                    policies=(RateLimit(calls=100, per=60, by=by.client),),
                ),
            ),
            keys=keys,
        )
    )


def what_to_try(url: str, starter: str, business: str, reader: str, stranger: str) -> str:
    """The curl lines, each with what it shows."""
    return f"""
STARTER='Ocp-Apim-Subscription-Key: {starter}'
BUSINESS='Ocp-Apim-Subscription-Key: {business}'
READER='Authorization: Bearer {reader}'
STRANGER='Authorization: Bearer {stranger}'

# 401: no subscription key
curl -i {url}/orders

# 401: a key and no token
curl -i -H "$STARTER" {url}/orders

# 403: a token without the scope orders:read
curl -i -H "$STARTER" -H "$STRANGER" {url}/orders

# 200: from a server (look at cache-status, ratelimit, and at what the server has seen)
curl -i -H "$STARTER" -H "$READER" {url}/orders

# 200: the same answer from the cache (age, cache-status: hit)
curl -i -H "$STARTER" -H "$READER" {url}/orders

# 201: a POST goes through, and what the cache had for this address is forgotten
curl -i -H "$STARTER" -H "$READER" -H 'Content-Type: application/json' -d '{{"book": 1}}' {url}/orders

# 200: one of the two servers is busy with single orders, and the other is asked
for i in 1 2 3 4; do curl -s -w '\\n%{{http_code}}\\n' -H "$BUSINESS" -H "$READER" {url}/orders/7; done

# 200: events as they happen
curl -iN -H "$BUSINESS" {url}/events

# 401: the product starter has no events
curl -i -H "$STARTER" {url}/events

# 200: here nobody is asked for a key
curl -i {url}/status

# 404: what no API has
curl -i {url}/admin

# 400: nobody walks around the policies
curl -i --path-as-is {url}/orders/%2e%2e/admin

# 429: too many calls in a minute for the product starter
for i in $(seq 11); do curl -s -o /dev/null -w '%{{http_code}}\\n' -H "$STARTER" -H "$READER" {url}/orders; done

# 200: and none too many for the product business
for i in $(seq 11); do curl -s -o /dev/null -w '%{{http_code}}\\n' -H "$BUSINESS" -H "$READER" {url}/orders; done

# 200: the gateway is ready, for a server is well
curl -i {url}/readyz
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
            app,
            date_header=date_header,
            log_level="warning",
            **uvicorn_options(),
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave Ctrl-C to ``main``, for there are several servers in this process."""
        yield


def stop(servers: list[Server]) -> None:
    """Let every server finish what it is doing, and end."""
    for server in servers:
        server.should_exit = True


async def main(port: int) -> None:
    sockets, urls = zip(*[listen(), listen(), listen(), listen(port)], strict=True)
    *servers, issuer_url, gateway_url = urls

    issuer, keys = Issuer(issuer_url), MemoryKeys()
    keys.add(Subscription(id="small", product="starter", owner="alice"))
    keys.add(Subscription(id="large", product="business", owner="alice"))
    tokens = issuer.token("orders:read"), issuer.token("orders:write")
    lines = what_to_try(gateway_url, keys.issue("small"), keys.issue("large"), *tokens)

    running = [
        Server(server("one")),
        Server(server("two", busy=True)),
        Server(issuer.app()),
        Server(gateway(servers, issuer_url, keys), date_header=False),
    ]
    for caught in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(caught, stop, running)
    print(lines, flush=True)
    print(f"The gateway listens on {gateway_url}; stop it with Ctrl-C.", flush=True)
    await asyncio.gather(*(each.serve(sockets=[listener]) for each, listener in zip(running, sockets, strict=True)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080, help="where the gateway listens; 0 for any free port")
    options = parser.parse_args()
    trace_to_console()
    asyncio.run(main(options.port))
