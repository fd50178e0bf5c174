"""No secret, token or key in any log line, span, metric, answer, repr or exception's text, whatever goes wrong.

A full stack is asked with known secrets, well and badly, and everything that comes out is searched for them.
"""

import base64
import contextlib
import gc
import json
import logging
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.credentials.services import Issuer, Said
from tests.servers import RedisServer, redis_server

from apim_middleware import by
from apim_middleware.credentials.credential import BasicCredential, BearerCredential, HeaderCredential
from apim_middleware.credentials.key_vault import KeyVaultSecret
from apim_middleware.credentials.managed_identity import ManagedIdentity
from apim_middleware.credentials.oauth import ClientCredentials, TokenExchange
from apim_middleware.credentials.secret import EnvironmentSecret, FileSecret
from apim_middleware.credentials.tls import client_certificate
from apim_middleware.env import Env, SystemClock
from apim_middleware.errors import StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Subscription
from apim_middleware.policies.access_log import AccessLog
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policies.either import AnyOf
from apim_middleware.policies.guesses import LimitGuesses
from apim_middleware.policies.identity_headers import IdentityHeaders
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.limits import Quota, RateLimit
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policies.upstream_auth import UpstreamAuth
from apim_middleware.policy import Policy, Stack
from apim_middleware.protocols import UpstreamRequest
from apim_middleware.proxy.app import Proxy
from apim_middleware.stores.keys import KeyRecord, MemoryKeys, key_digest, new_key
from apim_middleware.stores.redis import RedisCounters
from apim_middleware.stores.sqlite import SQLiteCounters
from apim_middleware.stores.users import Cost, MemoryUsers, UserRecord
from apim_middleware.testing import Answer, call, connect

ISSUER, AUDIENCE = "https://login.example.com", "https://orders.example.com"
TRUSTED: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ("HS256",)}
HMAC = "canary-hmac-key-0123456789abcdefghijklmnopqrstuvwxyz-0123456789ab"


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The stores have drivers of asyncio alone."""
    return str(request.param)


def token(**claims: Any) -> str:
    known = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": time.time() + 86_400, "scope": "read"}
    return jwt.encode({**known, **claims}, HMAC, algorithm="HS256")


def pair(name: str, password: str) -> str:
    return base64.b64encode(f"{name}:{password}".encode()).decode()


def signed_elsewhere() -> str:
    """A token whose key must be fetched first."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": time.time() + 86_400}
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": "one"})


KEY, GUESS, OTHER, IN_QUERY, IN_COOKIE = (new_key() for _ in range(5))
GOOD, FORGED, EXPIRED, ELSEWHERE = token(), token()[:-8] + "c4n4ry00", token(exp=1), signed_elsewhere()
PASSWORDS = {
    "known": "canary-password",
    "guess": "canary-guess",
    "upstream": "canary-upstream-password",
    "client": "canary-client-secret",
    "redis": "canary-redis-password",
    "file": "canary-in-a-file",
    "variable": "canary-in-the-environment",
    "static": "canary-static-token",
    "signing": "canary-signing-key-0123456789abcdef",
    "header": "canary-header-value",
    "app service": "canary-app-service",
    "assertion": "canary-assertion",
}
SECRETS = {
    "key": KEY, "guessed key": GUESS, "other key": OTHER, "key in the query": IN_QUERY, "key in a cookie": IN_COOKIE,
    "digest": key_digest(KEY).hex(), "bytes of the digest": repr(key_digest(KEY))[2:-1],
    "token": GOOD, "signature": GOOD.rpartition(".")[2], "forged": FORGED, "expired": EXPIRED,
    "from elsewhere": ELSEWHERE, "its signature": ELSEWHERE.rpartition(".")[2], "hmac": HMAC,
    "pair": pair("ada", PASSWORDS["known"]), "guessed pair": pair("ada", PASSWORDS["guess"]),
    "upstream's pair": pair("gateway", PASSWORDS["upstream"]),
    "client's pair": pair("gateway", PASSWORDS["client"]),
    "issued": "token-1", "identity": "identity-1", "from a vault": "vault-secret-1",
    **PASSWORDS,
}  # fmt: skip

REQUESTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "key": {"headers": [(b"ocp-apim-subscription-key", KEY.encode())]},
    "guessed key": {"headers": [(b"ocp-apim-subscription-key", GUESS.encode())]},
    "two keys": {
        "headers": [(b"ocp-apim-subscription-key", KEY.encode())], "query": b"subscription-key=" + OTHER.encode(),
    },
    "key in the query": {"query": b"a=1&subscription-key=" + IN_QUERY.encode()},
    "good key in the query": {"query": b"subscription-key=" + KEY.encode()},
    "key in a cookie": {"headers": [(b"cookie", b"key=" + IN_COOKIE.encode())]},
    "token": {"headers": [(b"authorization", b"Bearer " + GOOD.encode())]},
    "forged token": {"headers": [(b"authorization", b"Bearer " + FORGED.encode())]},
    "expired token": {"headers": [(b"authorization", b"Bearer " + EXPIRED.encode())]},
    "token from elsewhere": {"headers": [(b"authorization", b"Bearer " + ELSEWHERE.encode())]},
    "token in the query": {"query": b"access_token=" + GOOD.encode()},
    "password": {"headers": [(b"authorization", b"Basic " + pair("ada", PASSWORDS["known"]).encode())]},
    "guessed password": {"headers": [(b"authorization", b"Basic " + pair("ada", PASSWORDS["guess"]).encode())]},
    "misspelt": {"headers": [(b"authorization", b"Basic " + PASSWORDS["guess"].encode())]},
    "two authorizations": {
        "headers": [(b"authorization", b"Bearer " + GOOD.encode()), (b"authorization", b"Bearer " + FORGED.encode())]
    },
    "broken line": {"headers": [(b"x-a", b"a\r\n" + KEY.encode())]},
    "bad target": {"path": "/../..", "raw_path": b"/%zz?" + KEY.encode()},
}  # fmt: skip


class Store:
    """A store that fails when told to, as drivers fail."""

    def __init__(self, find: Any, cost: Cost) -> None:
        self.failing = False
        self.cost = cost
        self._find = find

    async def find(self, key: Any) -> Any:
        if self.failing:
            raise StoreError("connection to 10.0.0.7 refused")
        return self._find(key)


class Breaking(Policy):
    """A policy with a mistake in it."""

    broken = False

    def on_request(self, exchange: Exchange) -> None:
        if Breaking.broken:
            raise ValueError("a mistake")


class World(Issuer):
    """Everything outside: an issuer, a vault, Azure's metadata, and the upstream behind the proxy."""

    upstream_status = 200

    async def send(self, request: UpstreamRequest) -> Said:
        if request.origin == "http://upstream":
            return Said(self.upstream_status, b"inside", [(b"content-length", b"6")])
        return await super().send(request)

    def says(self, request: UpstreamRequest) -> dict[str, Any]:
        if b"/secrets/" in request.target:
            return {"value": "vault-secret-1", "attributes": {"enabled": True}}
        if b"/msi/" in request.target:
            return {"access_token": "identity-1", "expires_on": "99999999999", "token_type": "Bearer"}
        return super().says(request)


class Run:
    """A stack with known secrets, and all that has come out of it."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        memory, users = MemoryKeys(), MemoryUsers(cost=Cost(ln=4, r=8, p=1))
        memory.add(Subscription(id="acme"), primary=key_digest(KEY), secondary=key_digest(OTHER))
        users.add("ada", PASSWORDS["known"], scopes="read")
        self.redis = redis
        self.keys, self.users = Store(memory.find, users.cost), Store(users.find, users.cost)
        self.world = World(SystemClock())  # type: ignore[arg-type]
        self.spans = InMemorySpanExporter()
        self.metrics = InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        meters = MeterProvider([self.metrics], shutdown_on_exit=False)
        self.tracing = Tracing(
            tracer_provider=tracers,
            meter_provider=meters,
            request_headers=("accept", "user-agent"),
            exception_messages=True,
        )
        secret = folder / "secret"
        secret.write_text(PASSWORDS["file"])
        url = redis.url.replace("redis://", f"redis://default:{PASSWORDS['redis']}@")
        self.counters = RedisCounters(url, timeout=5.0)
        self.durable = SQLiteCounters(folder / "counts.db")
        self.env = Env(counters=self.counters, transport=self.world)
        guards = (
            JWTAuth(**TRUSTED, keys=HMAC.encode(), token_from=("header:authorization", "query:access_token")),
            BasicAuth(users=self.users),
            APIKeyAuth(keys=self.keys, cookie="key", tell_state=True),
        )  # fmt: skip
        remote = JWTAuth(issuer=ISSUER, audience=AUDIENCE, jwks_url=f"{ISSUER}/keys")
        client = {"token_url": f"{ISSUER}/token", "client_id": "gateway", "client_secret": PASSWORDS["client"]}
        self.credentials: dict[str, Any] = {
            "basic": BasicCredential(username="gateway", password=PASSWORDS["upstream"]),
            "bearer": BearerCredential(token=PASSWORDS["static"]),
            "header": HeaderCredential(name="x-key", value=FileSecret(path=secret)),
            "variable": HeaderCredential(name="x-key", value=EnvironmentSecret(name="APIM_TEST_CANARY")),
            "client": ClientCredentials(**client),
            "form": ClientCredentials(**client, auth="post"),
            "exchange": TokenExchange(**client),
            "identity": ManagedIdentity(resource="https://orders.example.com"),
            "vault": HeaderCredential(
                name="x-key", value=KeyVaultSecret(vault="https://orders.vault.azure.net", name="upstream")
            ),
        }
        self.stacks = {
            name: self.stack(
                LimitGuesses(failures=1_000),
                AnyOf(*guards),
                Authorize(),
                RateLimit(calls=10_000, per=60, by=by.principal),
                IdentityHeaders(key=PASSWORDS["signing"].encode()),
                UpstreamAuth(credential=credential),
                place=name,
            )
            for name, credential in self.credentials.items()
        }
        self.stacks["remote keys"] = self.stack(remote, place="remote")
        self.stacks["sqlite"] = self.stack(
            guards[2], Quota(calls=1, period="day", by=by.subscription), place="s", counters=self.durable
        )
        self.stacks["required"] = self.stack(RequireHeader(name="x-a", values=PASSWORDS["header"]), place="r")
        self.apps = {name: stack(Proxy("http://upstream", transport=self.world)) for name, stack in self.stacks.items()}
        self.said: list[str] = []

    def stack(self, *policies: Policy, place: str, counters: Any = None) -> Stack:
        env = self.env if counters is None else Env(counters=counters, transport=self.world)
        return Stack(self.tracing, AccessLog(), *policies, Breaking(), env=env, place=place)

    async def ask(self) -> list[Answer]:
        """Every request to every stack, and one handshake each."""
        answers = []
        for app in self.apps.values():
            for request in REQUESTS.values():
                with self.listening():
                    answers.append(await call(app, **request))
            with self.listening():
                answers.append(await connect(app, headers=REQUESTS["guessed key"]["headers"]))
        self.said += [repr(answer.messages) for answer in answers]
        return answers

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """What is raised to the server, which logs it with all that led to it."""
        try:
            yield
        except Exception as error:
            self.said.append("".join(traceback.format_exception(error)))

    def reprs(self) -> list[object]:
        return [
            *self.stacks.values(), *self.credentials.values(), *self.env._parts.values(), self.env, self.counters,
            self.durable, self.keys, *(policy for stack in self.stacks.values() for policy in stack.policies()),
            *(vars(self.env)["_bound"],),
        ]  # fmt: skip

    def everything(self, log: str) -> str:
        """All that came out, as text."""
        spans = "".join(span.to_json() for span in self.spans.get_finished_spans())
        return "\n".join([*self.said, log, spans, str(self.metrics.get_metrics_data()), *map(repr, self.reprs())])

    async def close(self) -> None:
        await self.counters.aclose()
        await self.durable.aclose()


def leaked(text: str) -> list[str]:
    """What was found of the secrets, by name."""
    return [name for name, secret in SECRETS.items() if secret in text]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, "--requirepass", PASSWORDS["redis"]) as server:
        yield server


@pytest.fixture
async def run(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("APIM_TEST_CANARY", PASSWORDS["variable"])
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", PASSWORDS["app service"])
    monkeypatch.setattr(Breaking, "broken", False)
    made = Run(redis, tmp_path)
    yield made
    await made.close()
    gc.collect()


def _nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is well."""


def _policy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaking, "broken", True)


def _key_and_user_stores(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.keys.failing = run.users.failing = True


def _counters(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.redis.stop()


def _issuer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.world.away = True


def _issuer_tells(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that says back what it was told."""
    run.world.status = 400
    run.world.error = {"error": "invalid_grant", "error_description": f"{GOOD} {PASSWORDS['client']}"}


def _issuer_talks_nonsense(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.world.raw = f'{{"access_token": "{PASSWORDS["static"]}\\u0000", "token_type": "Bearer", "x": '.encode()


def _secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APIM_TEST_CANARY")


def _upstream(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.world.upstream_status = 401


FAILURES = (
    _nothing, _policy, _key_and_user_stores, _counters, _issuer, _issuer_tells, _issuer_talks_nonsense, _secrets,
    _upstream,
)  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__.strip("_"))
async def test_no_secret_comes_out(
    run: Run, failure: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    failure(run, monkeypatch)
    answers = await run.ask()
    text = run.everything(caplog.text + "".join(record.getMessage() for record in caplog.records))
    assert leaked(text) == []
    assert len({answer.status for answer in answers}) > 2
    assert len(run.spans.get_finished_spans()) >= len(answers)
    assert ("a policy failed" in caplog.text) == (failure is _policy)


@pytest.mark.anyio
async def test_good_requests_come_in_when_all_is_well(run: Run) -> None:
    """Else the search above would look at refusals alone."""
    app = run.apps["client"]
    for name in ("key", "token", "password", "good key in the query", "token in the query"):
        assert (await call(app, **REQUESTS[name])).status == 200, name
    assert (await call(run.apps["exchange"], **REQUESTS["token"])).status == 200
    assert (await call(run.apps["vault"], **REQUESTS["key"])).status == 200


@pytest.mark.anyio
async def test_an_app_that_raises_takes_no_secret_of_ours_along(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the app")

    run.apps = {name: stack(broken) for name, stack in run.stacks.items()}
    await run.ask()
    assert "RuntimeError: the app" in "".join(run.said)
    assert leaked(run.everything(caplog.text)) == []


MISTAKES = {
    "redis": lambda: RedisCounters(f"redis://:{PASSWORDS['redis']}@host:notaport/0"),
    "redis scheme": lambda: RedisCounters(f"http://:{PASSWORDS['redis']}@host/0"),
    "keys": lambda: APIKeyAuth(keys=KEY),  # type: ignore[arg-type]
    "keys of a mapping": lambda: APIKeyAuth(keys={KEY: "acme"}),  # type: ignore[arg-type]
    "jwt key": lambda: JWTAuth(**TRUSTED, keys=PASSWORDS["known"].encode()),
    "users": lambda: BasicAuth(users={"ada": PASSWORDS["known"]}),  # type: ignore[arg-type]
    "user": lambda: UserRecord(name="ada", password=PASSWORDS["known"]),
    "upstream": lambda: Proxy(f"http://ada:{PASSWORDS['upstream']}@host"),
    "credential": lambda: HeaderCredential(name="x", value=PASSWORDS["static"] + "\n\x00"),
    "unknown field": lambda: BearerCredential(tokens=PASSWORDS["static"]),  # type: ignore[call-arg]
    "token url": lambda: ClientCredentials(
        token_url=f"https://a:{PASSWORDS['client']}@x/", client_id="a", client_secret="b"
    ),
    "secret of another type": lambda: BasicCredential(username="a", password=PASSWORDS["upstream"].encode()),  # type: ignore[arg-type]
    "signing key": lambda: IdentityHeaders(key=PASSWORDS["signing"][:24].encode()),
    "record": lambda: KeyRecord(KEY),  # type: ignore[call-arg, misc]
    "certificate": lambda: client_certificate("/nowhere.pem", password=PASSWORDS["known"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_no_secret_is_in_the_text_of_a_mistake(name: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        MISTAKES[name]()
    text = "".join(map(str, _chain(caught.value)))
    assert leaked(text) == []
    assert PASSWORDS["signing"][:24] not in text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, as a log shows them."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_secret_that_came_out_would_be_found() -> None:
    said = json.dumps({"detail": f"the key {KEY} is not known"})
    assert leaked(said) == ["key"]
    assert all(leaked(secret) for secret in SECRETS.values())
