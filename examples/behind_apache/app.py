"""A gateway behind Apache httpd: who is calling is known from httpd alone.

UPSTREAM=http://127.0.0.1:9000 apim serve app:app --port 8000
a2enmod ssl headers proxy proxy_http rewrite; cp gateway.conf /etc/apache2/sites-enabled; apachectl restart
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
