"""A gateway with nothing in front: TLS, upstreams that are watched, probes, workers that count together, a quiet end.

UPSTREAMS=http://127.0.0.1:9000,http://127.0.0.1:9001 CERTIFICATE=cert.pem KEY=key.pem python examples/standalone.py

    curl --insecure https://localhost:8443/readyz       {"status": "ok"}
    curl --insecure -i https://localhost:8443/          what the upstream says, and what is left of the limit

Put another certificate in the place of the files, and the next client is shown it. On SIGTERM the gateway says that it
is not ready, goes on for GRACE seconds, finishes what is under way, closes WebSockets with 1012, and ends.
With granian, which takes the files itself and reads them anew on SIGHUP:

    granian --interface asgi --workers 2 --port 8443 --ssl-certificate cert.pem --ssl-keyfile key.pem standalone:app
"""

import os
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvicorn

from apim_middleware import Env, Health, HealthCheck, Pool, Proxy, RateLimit, Retry, Stack, by
from apim_middleware.serving.certificates import server_context
from apim_middleware.serving.options import uvicorn_options
from apim_middleware.stores.sqlite import SQLiteCounters

counters = SQLiteCounters(os.environ.get("COUNTS", f"{tempfile.gettempdir()}/standalone-counts.db"))

upstreams = Pool(
    *os.environ.get("UPSTREAMS", "http://127.0.0.1:9000").split(","),
    health=HealthCheck(path=os.environ.get("UPSTREAM_HEALTH", "/"), every=float(os.environ.get("EVERY", "5"))),
    balance="least-connections",
)
proxy = Proxy(upstreams, retry=Retry(attempts=2))


def somebody_is_there() -> bool:
    """Whether a member of the pool takes requests: without one, this process need not be sent any."""
    return any(member.state == "ready" for member in proxy.standing())


gateway = Stack(
    Health(checks={"upstreams": somebody_is_there}, grace=float(os.environ.get("GRACE", "5"))),
    RateLimit(calls=100, per=60, by=by.client),
    env=Env(counters=counters),  # in a file, so that all workers count together
    place="standalone",
)
app = gateway(proxy)


def certificate(config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """What uvicorn asks for in each worker."""
    return server_context(os.environ["CERTIFICATE"], os.environ["KEY"])


if __name__ == "__main__":
    uvicorn.run(
        "standalone:app",
        app_dir=str(Path(__file__).parent),
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "8443")),
        workers=int(os.environ.get("WORKERS", "2")),
        ssl_context_factory=certificate if "CERTIFICATE" in os.environ else None,
        date_header=False,
        **uvicorn_options(),
    )
