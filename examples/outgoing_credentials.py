"""A gateway that shows its own credentials to the upstream: callers' keys stop here, tokens go on from here.

    python examples/outgoing_credentials.py

It runs an identity provider, an upstream that wants its tokens, and the gateway, and prints the curl lines to try.
"""

import os
import secrets
import threading
import time
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from apim_middleware import (
    APIKeyAuth,
    ClientCredentials,
    Env,
    EnvironmentSecret,
    LimitGuesses,
    MemoryKeys,
    Proxy,
    Stack,
    Subscription,
    UpstreamAuth,
)
from apim_middleware.serving.options import uvicorn_options
from apim_middleware.transports.default import DefaultTransport

PROVIDER, UPSTREAM = 8001, 8002

# What the identity provider knows: who this gateway is, and the tokens that are good for five minutes.
CLIENT_SECRET = secrets.token_urlsafe()
issued: dict[str, float] = {}


async def token(request: Request) -> Response:
    form = parse_qs((await request.body()).decode())
    if form.get("client_secret") != [CLIENT_SECRET]:
        return JSONResponse({"error": "invalid_client"}, 401)
    made = secrets.token_urlsafe()
    issued[made] = time.monotonic() + 300
    return JSONResponse({"access_token": made, "token_type": "Bearer", "expires_in": 300})


provider = Starlette(routes=[Route("/token", token, methods=["POST"])])


# What the upstream wants: one of those tokens, and nobody's subscription key.
async def orders(request: Request) -> Response:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or issued.get(given, 0) < time.monotonic():
        return JSONResponse({"error": "who are you?"}, 401, {"www-authenticate": "Bearer"})
    keys_seen = [name for name in request.headers if "subscription" in name]
    return JSONResponse({"orders": [1, 2, 3], "token_used": sorted(issued).index(given), "keys_seen": keys_seen})


upstream = Starlette(routes=[Route("/orders", orders)])

keys = MemoryKeys(prefix="acme")
keys.add(Subscription(id="acme", product="starter"))
acme_key = keys.issue("acme")


def gateway(provider_url: str, upstream_url: str) -> ASGIApp:
    """What callers meet: their keys are checked and stay here, and the upstream is shown a token of the gateway."""
    credential = ClientCredentials(
        token_url=f"{provider_url}/token",
        client_id="gateway",
        client_secret=EnvironmentSecret(name="GATEWAY_CLIENT_SECRET"),
        auth="post",
    )
    transport = DefaultTransport()  # for both, and closed by the proxy when the server shuts down
    stack = Stack(
        LimitGuesses(failures=10, per=60),
        APIKeyAuth(keys=keys, prefix="acme"),
        UpstreamAuth(credential=credential),
        env=Env(transport=transport),
    )
    return stack(Proxy(upstream_url, transport=transport))


if __name__ == "__main__":
    os.environ["GATEWAY_CLIENT_SECRET"] = CLIENT_SECRET  # where a deployment would put it
    for app, port in ((provider, PROVIDER), (upstream, UPSTREAM)):
        threading.Thread(target=uvicorn.run, args=(app,), kwargs={"port": port}, daemon=True).start()
    print(f"""
curl -i http://127.0.0.1:8000/orders -H 'Ocp-Apim-Subscription-Key: {acme_key}'
curl -i http://127.0.0.1:8000/orders
curl -i http://127.0.0.1:{UPSTREAM}/orders -H 'Ocp-Apim-Subscription-Key: {acme_key}'
""")
    uvicorn.run(gateway(f"http://127.0.0.1:{PROVIDER}", f"http://127.0.0.1:{UPSTREAM}"), **uvicorn_options())
