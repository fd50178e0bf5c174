"""Policies for requests that Caddy carries itself: it asks here before each one.

apim serve forward_auth:app --port 8001
caddy run --adapter caddyfile --config forward_auth.Caddyfile
curl --resolve api.example:8443:127.0.0.1 --insecure --user alice:wonderland https://api.example:8443/
"""

from apim_middleware import BasicAuth, ForwardAuth, IdentityHeaders, MemoryUsers, RateLimit, Stack, by

users = MemoryUsers()
users.add("alice", "wonderland", scopes="orders.read")

policies = Stack(
    BasicAuth(users=users),
    RateLimit(calls=100, per=60, by=by.principal),
    IdentityHeaders(issuer=None, subscription=None, product=None),
)
app = ForwardAuth(policies, trusted=("127.0.0.1", "::1"), headers=("X-User-Id", "X-User-Scopes"))
