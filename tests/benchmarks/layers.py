"""Table 1: what one more layer costs, when the same small job is done four ways."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from harness import Case, Effort, microseconds, table
from starlette.datastructures import MutableHeaders
from starlette.middleware.base import BaseHTTPMiddleware
from visit import requests

from apim_middleware.exchange import Exchange
from apim_middleware.policies.headers import SetHeader
from apim_middleware.policy import Policy, Stack

COUNTS = (1, 3, 7, 14)
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The smallest app."""
    await send({**HEAD, "headers": HEAD["headers"].copy()})
    await send(BODY)


# The jobs: pass; add one header to the request; add one to the request and one to the response.


@dataclass(frozen=True, kw_only=True)
class Pass(Policy):
    """A policy that looks and does nothing."""

    name: bytes

    def on_request(self, exchange: Exchange) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class MarkRequest(Policy):
    """A policy of our users' own that adds a request header."""

    name: bytes

    def on_request(self, exchange: Exchange) -> None:
        """Add it."""
        exchange.add_header(self.name, b"on")


@dataclass(frozen=True, kw_only=True)
class MarkBoth(MarkRequest):
    """The same, and a response header."""

    def on_response(self, exchange: Exchange) -> None:
        """Add it."""
        exchange.response.append(self.name, b"on")


def more_request(name: bytes) -> SetHeader:
    """The policy of this package that adds a request header."""
    return SetHeader(name=name.decode(), value="on", on="request", exists="append")


def more_both(name: bytes) -> Stack:
    """The two policies of this package that add a header on request and response."""
    return Stack(more_request(name), SetHeader(name=name.decode(), value="on", on="response", exists="append"))


def hand_pass(name: bytes, app: Any) -> Any:
    """Hand-written ASGI middleware that does nothing."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return layer


def hand_request(name: bytes, app: Any) -> Any:
    """Hand-written ASGI middleware that adds a request header."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "headers": [*scope["headers"], (name, b"on")]}, receive, send)

    return layer


def hand_both(name: bytes, app: Any) -> Any:
    """The same, and a response header."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        async def mark(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (name, b"on")]}
            await send(message)

        await app({**scope, "headers": [*scope["headers"], (name, b"on")]}, receive, mark)

    return layer


def starlette_request(name: bytes, app: Any) -> Any:
    """ASGI middleware with Starlette's header classes that adds a request header."""
    text = name.decode()

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        MutableHeaders(scope=scope).append(text, "on")
        await app(scope, receive, send)

    return layer


def starlette_both(name: bytes, app: Any) -> Any:
    """The same, and a response header."""
    text = name.decode()

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        async def mark(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append(text, "on")
            await send(message)

        MutableHeaders(scope=scope).append(text, "on")
        await app(scope, receive, mark)

    return layer


def base_pass(name: bytes, app: Any) -> Any:
    """BaseHTTPMiddleware that does nothing."""

    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    return BaseHTTPMiddleware(app, dispatch)


def base_request(name: bytes, app: Any) -> Any:
    """BaseHTTPMiddleware that adds a request header."""
    text = name.decode()

    async def dispatch(request: Any, call_next: Any) -> Any:
        MutableHeaders(scope=request.scope).append(text, "on")
        return await call_next(request)

    return BaseHTTPMiddleware(app, dispatch)


def base_both(name: bytes, app: Any) -> Any:
    """The same, and a response header."""
    text = name.decode()

    async def dispatch(request: Any, call_next: Any) -> Any:
        MutableHeaders(scope=request.scope).append(text, "on")
        response = await call_next(request)
        response.headers.append(text, "on")
        return response

    return BaseHTTPMiddleware(app, dispatch)


def fused(policy: Callable[..., Any], count: int) -> Any:
    """One stack of so many policies."""
    return Stack(*(policy(name=name) for name in names(count)))(bare)


def nested(layer: Callable[[bytes, Any], Any], count: int) -> Any:
    """So many layers around each other."""
    return reduce(lambda app, name: layer(name, app), names(count), bare)


def names(count: int) -> Iterator[bytes]:
    """A header name for each layer."""
    return (b"x-layer-%d" % number for number in range(count))


JOBS: dict[str, dict[str, Callable[[int], Any]]] = {
    "pass through": {
        "Stack of own policies": partial(fused, Pass),
        "hand-written ASGI": partial(nested, hand_pass),
        "BaseHTTPMiddleware": partial(nested, base_pass),
    },
    "add a request header": {
        "Stack of own policies": partial(fused, MarkRequest),
        "Stack of SetHeader": partial(fused, more_request),
        "hand-written ASGI": partial(nested, hand_request),
        "ASGI with MutableHeaders": partial(nested, starlette_request),
        "BaseHTTPMiddleware": partial(nested, base_request),
    },
    "add a request and a response header": {
        "Stack of own policies": partial(fused, MarkBoth),
        "Stack of SetHeader, two each": partial(fused, more_both),
        "hand-written ASGI": partial(nested, hand_both),
        "ASGI with MutableHeaders": partial(nested, starlette_both),
        "BaseHTTPMiddleware": partial(nested, base_both),
    },
}


def run(effort: Effort) -> None:
    """Measure and print: microseconds a request takes with so many layers, and what one more costs."""
    for job, ways in JOBS.items():
        scopes = requests()
        cases = {f"{way} {count}": Case(make(count), scopes) for way, make in ways.items() for count in COUNTS}
        found = microseconds({"bare": Case(bare, scopes), **cases}, effort)
        rows = [["bare app", *[f"{found['bare']:.2f}"] * len(COUNTS), "", ""]]
        for way in ways:
            times = [found[f"{way} {count}"] for count in COUNTS]
            more = (times[-1] - times[0]) / (COUNTS[-1] - COUNTS[0])
            growth = times[3] / times[2] - 1
            rows.append([way, *(f"{each:.2f}" for each in times), f"{more:.2f}", f"{growth:+.0%}"])
        head = [job, *(f"{count} layers" for count in COUNTS), "one more", "7 to 14"]
        table(f"To {job}: microseconds for each request", head, rows)
    print("\nGoals: a policy that passes <= 0.15 us more; 7 to 14 policies <= +40 %.")
