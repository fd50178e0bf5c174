"""A traced app: every request is one span on the console, and what the app does for it is part of its trace.

apim serve examples.traced:app --port 8000          (needs the extra "telemetry")

    curl "localhost:8000/orders/7?access_token=secret"    GET /orders/{number} around "look up", the token masked
    curl localhost:8000/orders/0                          GET /orders/{number}, refused by the app with 404
    curl localhost:8000/elsewhere                         GET, for what is nowhere has no route
    curl localhost:8000/health                            nothing: excluded
    curl localhost:8000/orders/7 -H "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
                                                          the trace of the caller goes on
"""

from fastapi import FastAPI, HTTPException
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from apim_middleware import RateLimit, Stack, Tracing


def line(span: ReadableSpan) -> str:
    """One line a span: its trace, its name, how long it took, what is known of it."""
    took = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    known = " ".join(f"{name}={value!s}" for name, value in sorted((span.attributes or {}).items()))
    return f"{span.context.trace_id:032x} {span.name!r} {took:.1f} ms {known}\n"


# In earnest, an OTLP exporter behind a BatchSpanProcessor, and trace.set_tracer_provider(tracers) instead of the field.
tracers = TracerProvider(resource=Resource.create({"service.name": "orders"}))
tracers.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
tracer = tracers.get_tracer("orders")

api = FastAPI()


@api.get("/orders/{number}")
async def order(number: int) -> dict[str, int]:
    with tracer.start_as_current_span("look up"):
        if number < 1:
            raise HTTPException(404)
    return {"order": number}


@api.get("/health")
async def health() -> str:
    return "well"


app = Stack(
    Tracing(tracer_provider=tracers, exclude=("/health",)),
    RateLimit(calls=100, per=60),
)(api)
