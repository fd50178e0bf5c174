"""The apps of table 2: the same endpoint bare and on FastAPI, with and without our seven policies in front."""

from typing import Any

from visit import AUDIENCE, ISSUER, credentials

from apim_middleware import (
    APIKeyAuth,
    Cache,
    IPFilter,
    JWTAuth,
    MemoryKeys,
    RateLimit,
    RemoveHeader,
    SetHeader,
    Stack,
    Subscription,
    Tracing,
    by,
)
from apim_middleware.stores.keys import key_digest

BODY = b'{"id":7,"state":"shipped"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def order(scope: Any, receive: Any, send: Any) -> None:
    """The smallest app with the same answer."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def bare() -> Any:
    """That app alone."""
    return order


def fastapi() -> Any:
    """The same answer from FastAPI."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/orders/{number}")
    async def order(number: int) -> dict:
        return {"id": number, "state": "shipped"}

    return app


def seven(cache: Cache | None = None, tracing: Tracing | None = None) -> Stack:
    """The seven policies; the one for headers is three lines, as it is for whoever writes it."""
    keys = MemoryKeys()
    keys.add(Subscription(id="ada", product="orders"), primary=key_digest(credentials().api_key))
    return Stack(
        tracing or Tracing(),
        IPFilter(allow=("127.0.0.0/8", "::1/128")),
        APIKeyAuth(keys=keys),
        JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=credentials().public_key),
        RateLimit(calls=1_000_000_000, per=60, by=by.client),
        cache or Cache(ttl=60),
        RemoveHeader(name="x-internal-token", on="request"),
        SetHeader(name="x-source", value="gateway", on="request"),
        SetHeader(name="x-content-type-options", value="nosniff", on="response"),
    )


def seven_on_bare() -> Any:
    """The seven in front of the smallest app."""
    return seven()(order)


def seven_on_fastapi() -> Any:
    """The seven in front of FastAPI."""
    return seven()(fastapi())


def seven_from_cache() -> Any:
    """The seven in front of FastAPI, answering each caller from what they were answered before."""
    return seven(Cache(ttl=60, private_to=(by.principal, by.subscription)))(fastapi())


def seven_recorded() -> Any:
    """The seven in front of FastAPI, with every span recorded."""
    return seven(tracing=Tracing(tracer_provider=recorder()))(fastapi())


def popular() -> Any:
    """The same job as FastAPI apps do it today."""
    from popular import app

    return app()


def popular_recorded() -> Any:
    """The same, with every span recorded."""
    from popular import app

    return app(recorder())


def recorder() -> Any:
    """An SDK that records every span and exports to nowhere, from its usual thread."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=8192))
    return provider
