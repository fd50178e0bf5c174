"""Bearer tokens: what it costs to verify one, to see it again, and to remember it; beside what apps use today."""

import asyncio
import base64
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from time import process_time
from typing import Any

from harness import Drive, Effort, table, timed
from visit import AUDIENCE, ISSUER, credentials, scope

from apim_middleware import Env, JWTAuth
from apim_middleware.exchange import Exchange

Verify = Callable[[], Any]
"""Verifies the token of this run: a plain function, or an async one."""

REMEMBERED = 1_000


def run(effort: Effort) -> None:
    """Measure and print everything."""
    found = timed({name: _drive(verify) for name, verify in verifiers().items()}, effort)
    usual = found["PyJWT, decode"]
    rows = [[name, f"{took:.2f}", f"{took / usual:.3f}"] for name, took in found.items()]
    table("A token: microseconds to verify it (RS256), and in units of PyJWT", ["who", "takes", "of PyJWT's"], rows)
    _print_memory(50 if effort.rounds < 10 else REMEMBERED)


def verifiers() -> dict[str, Verify]:
    """Everybody who can verify the token; who is not installed is left out."""
    ours = {
        "JWTAuth, seen before": again(JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=credentials().public_key)),
        "JWTAuth with published keys, seen before": again_awaited(),
        "JWTAuth, first time": first(),
        "PyJWT, decode": pyjwt(),
    }
    others = {"joserfc": joserfc, "authlib": authlib, "fastapi_azure_auth": fastapi_azure_auth}
    return ours | {each.__doc__ or name: each() for name, each in others.items() if find_spec(name)}


def _drive(verify: Verify) -> Drive:
    return partial(_awaited if asyncio.iscoroutinefunction(verify) else _called, verify)


async def _called(verify: Verify, times: int) -> float:
    start = process_time()
    for _ in range(times):
        verify()
    return process_time() - start


async def _awaited(verify: Verify, times: int) -> float:
    start = process_time()
    for _ in range(times):
        await verify()
    return process_time() - start


# Ours


def again(policy: JWTAuth) -> Verify:
    """The hook of a policy that knows the token."""
    exchange, gate = Exchange(scope()), policy.bind(Env())
    gate.on_request(exchange)
    return partial(gate.on_request, exchange)


def first() -> Verify:
    """The hook of a policy that remembers nothing."""
    return again(JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=credentials().public_key, max_remembered=0))


def again_awaited() -> Callable[[], Awaitable[None]]:
    """The hook of a policy whose keys are published, once they were fetched."""
    exchange = Exchange(scope())
    gate = JWTAuth(issuer=ISSUER, audience=AUDIENCE).bind(Env(transport=_Issuer()))
    asyncio.run(gate.on_request(exchange))
    return partial(gate.on_request, exchange)


class _Issuer:
    """A transport behind which this issuer publishes its metadata and its key."""

    async def send(self, request: Any) -> Any:
        """Answer."""
        import json

        found = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", "keys": [jwk()]}
        return _Answer(json.dumps(found).encode())

    async def aclose(self) -> None:
        """Nothing is open."""


class _Answer:
    status = 200
    headers: Any = ()

    def __init__(self, body: bytes) -> None:
        self._body = [body]

    def __aiter__(self) -> "_Answer":
        return self

    async def __anext__(self) -> bytes:
        if not self._body:
            raise StopAsyncIteration
        return self._body.pop()

    async def aclose(self) -> None:
        """Nothing is open."""


def public_key() -> Any:
    """The issuer's public key."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(credentials().public_key.encode())


def jwk() -> dict[str, Any]:
    """The same as a JWK."""
    from jwt.algorithms import RSAAlgorithm

    return {**RSAAlgorithm.to_jwk(public_key(), as_dict=True), "kid": "1", "key_ops": ["verify"]}


# Others


def pyjwt() -> Verify:
    """PyJWT, decode"""
    import jwt

    token, key = credentials().token, public_key()
    return partial(jwt.decode, token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)


def joserfc() -> Verify:
    """joserfc, decode and validate"""
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    token, key = credentials().token, RSAKey.import_key(credentials().public_key)
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": AUDIENCE}, exp={"essential": True}
    )
    return lambda: rules.validate(jwt.decode(token, key, algorithms=["RS256"]).claims)


def authlib() -> Verify:
    """authlib, decode and validate"""
    from authlib.jose import JsonWebToken

    token, key = credentials().token, credentials().public_key
    known = JsonWebToken(["RS256"])
    options: Mapping[str, Any] = {"iss": {"essential": True, "value": ISSUER}, "aud": {"value": AUDIENCE}}
    return lambda: known.decode(token, key, claims_options=options).validate()


def fastapi_azure_auth() -> Verify:
    """fastapi-azure-auth, its dependency"""
    from fastapi import Request
    from fastapi.security import SecurityScopes
    from fastapi_azure_auth import SingleTenantAzureAuthorizationCodeBearer

    scheme = SingleTenantAzureAuthorizationCodeBearer(
        app_client_id=AUDIENCE, tenant_id="tenant", allow_guest_users=True
    )
    known: Any = scheme.openid_config
    known.issuer, known._config_timestamp = ISSUER, datetime.now()  # noqa: DTZ005 - as it does itself
    headers = [(b"authorization", b"Bearer " + azure_token().encode())]
    known.signing_keys = {"1": _azure_key().public_key()}
    request, scopes = Request({**scope(), "headers": headers}), SecurityScopes()

    async def verify() -> None:
        if await scheme(request, scopes) is None:
            raise AssertionError("refused")

    return verify


_AZURE: list[Any] = []


def _azure_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    if not _AZURE:
        _AZURE.append(generate_private_key(public_exponent=65537, key_size=2048))
    return _AZURE[0]


def azure_token() -> str:
    """The same token with the claims that Entra ID adds and its users' libraries insist on."""
    import jwt

    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "nbf": now, "exp": now + 86_400}
    more = {"scp": "orders.read", "tid": "t", "ver": "2.0", "oid": "o", "azp": "spa", "uti": "u", "rh": "r", "aio": "a"}
    return jwt.encode({**claims, **more, "azpacr": "1"}, _azure_key(), "RS256", headers={"kid": "1"})


# Memory


def _print_memory(count: int) -> None:
    import jwt

    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 86_400, "scope": "orders.read"}
    tokens = [
        jwt.encode(
            {**usual, "sub": f"user {number}", "jti": base64.b64encode(b"%020d" % number).decode()},
            _azure_key(),
            "RS256",
        )
        for number in range(count)
    ]
    key = {**jwk(), **_public(_azure_key().public_key())}
    gate = JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=key).bind(Env())
    model = scope()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for token in tokens:
        lines = [(b"authorization", b"Bearer " + token.encode())]
        gate.on_request(Exchange({**model, "headers": lines}))
    gc.collect()
    held = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    text = sum(map(len, tokens)) / count
    rows = [[f"{count:,} tokens", f"{held:,.0f}", f"{text:,.0f}"]]
    table("A remembered token: bytes it takes, its own text included", ["remembered", "bytes", "of text"], rows)


def _public(key: Any) -> dict[str, Any]:
    from jwt.algorithms import RSAAlgorithm

    return {name: value for name, value in RSAAlgorithm.to_jwk(key, as_dict=True).items() if name in ("n", "e")}
