"""Three apps as one: two of this process and a remote one behind one gateway, with one document of all.

    python examples/app_of_apps/main.py [--port 8080] [--stock-port 8081]

It starts the remote app too, and prints the curl lines to try, and a line of JSON for each call to any of them.
"""

import argparse
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import customers
import orders
import uvicorn

from apim_middleware import (
    AccessLog,
    AppOfApps,
    Gateway,
    IdentityHeaders,
    MemoryKeys,
    Product,
    PublishOpenAPI,
    RateLimit,
    SubApp,
    Subscription,
    by,
)
from apim_middleware.serving.options import uvicorn_options
from apim_middleware.types import ASGIApp


def shop(keys: MemoryKeys, stock: str) -> ASGIApp:
    """The apps, and what stands in front of all of them."""
    gateway = partial(
        Gateway,
        name="shop",
        keys=keys,
        policies=(AccessLog(write=print),),
        products=(
            Product("partner", apis=("*",), policies=(RateLimit(calls=20, per=60, by=by.subscription),)),
            Product("visitor", apis=("stock",), policies=(RateLimit(calls=5, per=60, by=by.subscription),)),
        ),
    )
    return PublishOpenAPI(title="The shop", products=("visitor",))(
        AppOfApps(
            gateway,
            SubApp("orders", "/orders", backend=orders.app),
            SubApp("customers", "/customers", backend=customers.app, policies=(IdentityHeaders(),)),
            SubApp("stock", "/stock", backend=stock, policies=(IdentityHeaders(),), required=False),
            retry_every=1,
        )
    )


def what_to_try(url: str, partner: str, visitor: str) -> str:
    """The lines, each with what it shows."""
    return f"""
PARTNER='Ocp-Apim-Subscription-Key: {partner}'
VISITOR='Ocp-Apim-Subscription-Key: {visitor}'

# 401: no app asks for a key, and the gateway does
curl -i {url}/orders

# 200: an app of this process, which has started with it
curl -i -H "$PARTNER" {url}/orders/2

# 200: another, which is told who calls
curl -i -H "$PARTNER" {url}/customers/ada

# 200: the remote one (503 until its document is there)
curl -i -H "$PARTNER" {url}/stock/articles/paper

# 404: what its document does not tell of is not there
curl -i -H "$PARTNER" {url}/stock/internal

# 401: a visitor may ask for the stock alone
curl -i -H "$VISITOR" {url}/orders

# 200: one document of all
curl -s -w '\\n%{{http_code}}\\n' {url}/openapi.json

# 200: and one of what a visitor may call
curl -s -w '\\n%{{http_code}}\\n' '{url}/openapi.json?product=visitor'
"""


@contextlib.contextmanager
def remote(port: int) -> Iterator[str]:
    """The remote app, as long as the gateway runs; nobody waits for it."""
    with subprocess.Popen([sys.executable, Path(__file__).with_name("stock.py"), "--port", str(port)]) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def main(port: int, stock_port: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the remote app ends as well
    keys = MemoryKeys()
    keys.add(Subscription(id="acme", product="partner"))
    keys.add(Subscription(id="passer-by", product="visitor"))
    with remote(stock_port) as stock:
        print(what_to_try(f"http://127.0.0.1:{port}", keys.issue("acme"), keys.issue("passer-by")), flush=True)
        print("Stop it with Ctrl-C.", flush=True)
        uvicorn.run(shop(keys, stock), port=port, log_level="warning", **uvicorn_options())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080, help="where the gateway listens")
    parser.add_argument("--stock-port", type=int, default=8081, help="where the remote app listens")
    options = parser.parse_args()
    main(options.port, options.stock_port)
