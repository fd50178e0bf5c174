"""The one request that every app gets: the same bytes for all of them, with real credentials in it."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

ISSUER = "https://issuer.example"
AUDIENCE = "orders"
PATH = "/orders/7"
KEPT_IN = "APIM_BENCHMARK_CREDENTIALS"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A bearer token with the public key that verifies it, and an API key."""

    public_key: str
    token: str
    api_key: str


@cache
def credentials() -> Credentials:
    """The credentials of this run, shared with the servers it starts through the environment."""
    if KEPT_IN not in os.environ:
        os.environ[KEPT_IN] = json.dumps(asdict(_made()))
    return Credentials(**json.loads(os.environ[KEPT_IN]))


def _made() -> Credentials:
    import jwt
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "nbf": now, "exp": now + 86_400}
    token = jwt.encode({**claims, "scope": "orders.read"}, private, "RS256", headers={"kid": "1"})
    return Credentials(public_key=public.decode(), token=token, api_key=os.urandom(16).hex())


def headers() -> dict[str, str]:
    """The twelve header lines, but for ``Host``, which a client adds itself."""
    known = credentials()
    return {
        "user-agent": "benchmark/1.0",
        "accept": "application/json",
        "accept-encoding": "identity",
        "accept-language": "en",
        "authorization": f"Bearer {known.token}",
        "ocp-apim-subscription-key": known.api_key,
        "cookie": "theme=dark; region=north",
        "priority": "u=1, i",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-request-id": "6f1c2a34-3f52-4a7c-9a43-0d3b5a0c8e11",
        "x-internal-token": "taken away by every stack",
    }


def scope(client: str = "127.0.0.1", **changes: str | None) -> dict[str, Any]:
    """The request as an ASGI server hands it over; ``changes`` gives header lines other values, or takes them away."""
    lines = {"host": "127.0.0.1:8000", **headers(), **{name.replace("_", "-"): text for name, text in changes.items()}}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": (client, 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [(name.encode(), text.encode()) for name, text in lines.items() if text is not None],
        "state": {},
    }


def requests(**changes: str | None) -> Callable[[], dict[str, Any]]:
    """Makes the same request anew each time, at little cost."""
    model = scope(**changes)
    lines = model.pop("headers")
    return lambda: {**model, "headers": lines.copy(), "state": {}}
