"""A gateway behind Caddy: who is calling is known from Caddy alone, and Caddy asks whether we are ready.

UPSTREAM=http://127.0.0.1:9000 apim serve app:app --port 8000
caddy run --config Caddyfile
curl --resolve api.example:8443:127.0.0.1 --insecure https://api.example:8443/
"""

import os

from apim_middleware import Health, Proxy, RateLimit, Stack, TrustedProxies, by

gateway = Stack(
    Health(),  # first: Caddy's probes are answered before any policy is asked
    TrustedProxies(trusted=("127.0.0.1", "::1"), header="x-forwarded", also=("scheme", "host")),
    RateLimit(calls=1000, per=60, by=by.client),
)
app = gateway(Proxy(os.environ.get("UPSTREAM", "http://127.0.0.1:9000")))
