"""Who is calling, when a proxy stands in front, and who may.

uvicorn examples.behind_a_proxy:app --no-proxy-headers

Then play the proxy, which is trusted because it calls from this machine:

    curl -i localhost:8000                                                        403: nobody told of a client
    curl -i localhost:8000 -H "X-Forwarded-For: 192.0.2.7"                        200: an address that is let in
    curl -i localhost:8000 -H "X-Forwarded-For: 192.0.2.7, 198.51.100.1"          403: the last entry is the proxy's own
    curl -i localhost:8000 -H "X-Forwarded-For: 192.0.2.7" -H "X-Forwarded-Proto: https"

A proxy to really put there, here Caddy's: ``reverse_proxy localhost:8000``.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from apim_middleware import IPFilter, Stack, TrustedProxies


async def whoami(request: Request) -> JSONResponse:
    """What an app sees of its caller; it never has to look at a forwarding header."""
    client = request.client
    return JSONResponse({"address": client.host if client else None, "url": str(request.url)})


guarded = Stack(
    # Caddy writes X-Forwarded-For, -Proto and -Host itself; of a proxy that leaves one alone, do not take it
    TrustedProxies(trusted=("127.0.0.1", "::1"), also=("scheme", "host")),
    IPFilter(allow=("192.0.2.0/24", "2001:db8::/32"), deny=("192.0.2.66",)),
)
app = guarded(Starlette(routes=[Route("/", whoami)]))
