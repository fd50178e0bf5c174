"""A gateway behind Caddy: who is calling is known from Caddy alone, and Caddy asks whether we are ready.

UPSTREAM=http://127.0.0.1:9000 apim serve app:app --port 8000
caddy run --config Caddyfile
curl --resolve api.example:8443:127.0.0.1 --insecure https://api.example:8443/
"""

import os

from apim_middleware import Health, Proxy, RateLimit, Stack, TrustedProxies, by

gateway = Stack(
    # First: Caddy's probes are answered before any policy is asked. On SIGTERM it hears of the end and has the time to
    # notice, for grace is longer than its health_interval and health_timeout together.
    Health(grace=float(os.environ.get("GRACE", "5"))),
    TrustedProxies(trusted=("127.0.0.1", "::1"), header="x-forwarded", also=("scheme", "host")),
    RateLimit(calls=1000, per=60, by=by.client),
)
app = gateway(Proxy(os.environ.get("UPSTREAM", "http://127.0.0.1:9000")))
