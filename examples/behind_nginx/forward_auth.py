"""Policies for requests that nginx carries itself: it asks here before each one.

apim serve forward_auth:app --port 8001
cp forward_auth.conf /etc/nginx/conf.d; nginx -s reload
curl --resolve api.example:443:127.0.0.1 --insecure --user alice:wonderland https://api.example/
"""

from apim_middleware import BasicAuth, ForwardAuth, IdentityHeaders, MemoryUsers, RateLimit, Stack, by

users = MemoryUsers()
users.add("alice", "wonderland", scopes="orders.read")

policies = Stack(
    BasicAuth(users=users),
    RateLimit(calls=100, per=60, by=by.principal),
    IdentityHeaders(issuer=None, subscription=None, product=None),
)
app = ForwardAuth(
    policies,
    trusted=("127.0.0.1", "::1"),
    headers=("X-User-Id", "X-User-Scopes"),
    told_by="x-original",
    refuse_with="403",  # nginx makes 500 of all but 401 and 403; the site makes 429 of it again
)
