"""A gateway behind nginx: who is calling is known from nginx alone.

UPSTREAM=http://127.0.0.1:9000 apim serve app:app --port 8000
cp gateway.conf /etc/nginx/conf.d; nginx -s reload
curl --resolve api.example:443:127.0.0.1 --insecure https://api.example/
"""

import os

from apim_middleware import Health, Proxy, RateLimit, Stack, TrustedProxies, by

gateway = Stack(
    Health(),  # for whoever watches over us: probes are answered before any policy is asked
    TrustedProxies(trusted=("127.0.0.1", "::1"), header="x-forwarded", also=("scheme", "host")),
    RateLimit(calls=1000, per=60, by=by.client),
)
app = gateway(Proxy(os.environ.get("UPSTREAM", "http://127.0.0.1:9000")))
