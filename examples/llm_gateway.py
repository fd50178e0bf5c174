"""An LLM gateway: tokens are limited, models are told apart, and what is answered streams as it comes.

    python examples/llm_gateway.py [--port 8080]

It prints the curl lines to try, and a line of JSON for each call, in which there is nothing of the prompts.
docs/llm-gateway.md says why it is as it is.
"""

import argparse
import asyncio
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from apim_middleware import (
    AccessLog,
    Api,
    APIKeyAuth,
    BearerCredential,
    Exchange,
    Gateway,
    LimitConcurrency,
    LimitHeaders,
    Limits,
    MemoryKeys,
    Operation,
    Policy,
    Product,
    Proxy,
    Quota,
    RateLimit,
    ReadBody,
    Refusal,
    SetBackend,
    SetHeader,
    Subscription,
    UpstreamAuth,
    When,
    by,
    conditions,
)
from apim_middleware.bodies import overheard
from apim_middleware.serving.options import uvicorn_options
from apim_middleware.types import ASGIApp, Tap

MODELS = ("small", "large")


def model_server(name: str) -> ASGIApp:
    """What answers in the place of an LLM: it repeats the last message, a word every tenth of a second."""

    async def chat(request: Request) -> Response:
        call = await request.json()
        words = f"The {name} model heard: {call['messages'][-1]['content']}".split()
        usage = {"prompt_tokens": 10, "completion_tokens": len(words), "total_tokens": 10 + len(words)}
        if not call.get("stream"):
            return JSONResponse({"choices": [{"message": {"content": " ".join(words)}}], "usage": usage})

        async def events() -> AsyncIterator[str]:
            for word in words:
                yield f"data: {json.dumps({'choices': [{'delta': {'content': f'{word} '}}]})}\n\n"
                await asyncio.sleep(0.1)
            if call.get("stream_options", {}).get("include_usage"):
                yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


@dataclass(frozen=True, kw_only=True)
class Chat(Policy):
    """Let in calls that can be understood, and have the server tell at the end of a stream what it used."""

    needs = frozenset({"body"})
    guards = False

    def on_request(self, exchange: Exchange) -> None:
        call = exchange.json()
        longest = call.get("max_tokens", 0) if isinstance(call, dict) else -1
        if type(longest) is not int or longest < 0:
            raise Refusal(400, "chat-invalid", "This is no call of a chat.")
        if call.get("model") not in MODELS:
            raise Refusal(404, "model-unknown", "There is no such model.")
        exchange.attributes["llm.model"] = call["model"]
        if call.get("stream"):
            exchange.body = json.dumps({**call, "stream_options": {"include_usage": True}}).encode()


@dataclass(frozen=True, kw_only=True)
class NoteUsage(Policy):
    """Note the tokens a call has used, as soon as its response tells of them."""

    taps_body = True
    guards = False

    def on_response(self, exchange: Exchange) -> Tap | None:
        def note(text: str) -> None:
            with suppress(ValueError, AttributeError, KeyError, TypeError):  # [DONE] is no JSON
                if usage := json.loads(text).get("usage"):
                    exchange.attributes["llm.tokens"] = int(usage["total_tokens"])

        head = exchange.response
        return overheard(head, note) if head is not None and head.status == 200 else None


def estimated(exchange: Exchange) -> int:
    """What a call may use at most, roughly: a token for four bytes it sends, and those it asks for."""
    return len(exchange.body or b"") // 4 + int(exchange.json().get("max_tokens", 256))


def used(exchange: Exchange) -> int:
    """What it used: as it was told, nothing where it failed, and the estimate where nobody knows, as who left."""
    head, tokens = exchange.response, exchange.attributes.get("llm.tokens")
    if head is not None and head.status != 200:
        return 0
    return estimated(exchange) if tokens is None else int(tokens)


def proxy(server: str) -> Proxy:
    """A model may think for half a minute before its first word, and for a quarter of one between two."""
    return Proxy(server, connect_timeout=2, first_byte_timeout=30, read_timeout=15)


def gateway(small: str, large: str, keys: MemoryKeys, write: Any = None) -> Gateway:
    """The gateway in front of two servers, for two products."""
    limits = Limits(
        RateLimit(calls=20, per=60, by=by.subscription, tier=by.product, tiers={"pro": 1_000}),
        RateLimit(
            calls=2_000,
            per=60,
            by=by.subscription,
            tier=by.product,
            tiers={"pro": 100_000},
            name="tokens",
            cost=estimated,
            used=used,
            headers=LimitHeaders(remaining="x-remaining-tokens"),
        ),
        Quota(calls=1_000_000, period="month", by=by.owner, name="budget", cost=estimated, used=used),
    )
    by_model = RateLimit(
        calls=5,
        per=60,
        by=by.both(by.subscription, by.body("/model")),
        tier=by.body("/model"),
        tiers={"small": 500},
        name="model",
    )
    return Gateway(
        policies=(AccessLog(write=write),),
        keys=APIKeyAuth(keys=keys, bearer=True),  # as the SDKs send theirs
        products=(Product("free", apis=("chat",)), Product("pro", apis=("chat",))),
        apis=(
            Api(
                "chat",
                "/",
                backend=proxy(small),
                operations=(Operation("POST", "/v1/chat/completions"),),
                policies=(
                    LimitConcurrency(at_once=4, by=by.subscription),  # bodies that come slowly hold a place, too
                    ReadBody(max_bytes=200_000),
                    Chat(),
                    limits,
                    by_model,
                    NoteUsage(),
                    SetHeader(name="accept-encoding", value="identity", on="request"),  # else taps see what is packed
                    UpstreamAuth(credential=BearerCredential(token="the-key-of-the-gateway")),
                    When(conditions.body("/model", "large"), SetBackend(proxy(large))),
                ),
            ),
        ),
    )


def subscriptions() -> tuple[MemoryKeys, str, str]:
    """A team of each product, and their keys."""
    keys = MemoryKeys()
    keys.add(Subscription(id="red", product="free", owner="red"))
    keys.add(Subscription(id="blue", product="pro", owner="blue"))
    return keys, keys.issue("red"), keys.issue("blue")


def what_to_try(url: str, free: str, pro: str) -> str:
    """The curl lines, each with what it shows."""
    return f"""
FREE='Authorization: Bearer {free}'
PRO='Authorization: Bearer {pro}'
CHAT='{url}/v1/chat/completions'

# 200: the small model (look at ratelimit and at x-remaining-tokens)
curl -i -H "$FREE" "$CHAT" --json '{{"model": "small", "max_tokens": 50, "messages": [{{"content": "hello"}}]}}'

# 200: word by word, and what it used at the end
curl -iN -H "$PRO" "$CHAT" --json '{{"model": "large", "stream": true, "messages": [{{"content": "hello"}}]}}'

# 404: no such model
curl -i -H "$PRO" "$CHAT" --json '{{"model": "huge", "messages": []}}'

# 400: what could be read in two ways
curl -i -H "$PRO" "$CHAT" --json '{{"model": "small", "model": "large", "messages": []}}'

# 401: nobody's prompt is not even read
curl -i "$CHAT" --json '{{"model": "small", "messages": []}}'

# 429: more tokens than a minute has for the product free
curl -i -H "$FREE" "$CHAT" --json '{{"model": "small", "max_tokens": 5000, "messages": [{{"content": "hello"}}]}}'
"""


def listen(port: int = 0) -> tuple[socket.socket, str]:
    """A listening socket on this machine, and its address as a URL."""
    listener = socket.create_server(("127.0.0.1", port))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def start(app: ASGIApp) -> str:
    """Serve an app beside what else is done here, and say where."""
    listener, url = listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    threading.Thread(target=server.run, args=([listener],), daemon=True).start()
    return url


def main(port: int) -> None:
    keys, free, pro = subscriptions()
    app = gateway(start(model_server("small")), start(model_server("large")), keys, write=print)
    listener, url = listen(port)
    print(what_to_try(url, free, pro), flush=True)
    print(f"The gateway listens on {url}; stop it with Ctrl-C.", flush=True)
    config = uvicorn.Config(app, log_level="warning", date_header=False, **uvicorn_options())
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080, help="where the gateway listens; 0 for any free port")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main(parser.parse_args().port)
