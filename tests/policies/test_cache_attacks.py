"""Attacks on the response cache that were tried: none gives one caller what was answered to another."""

from typing import Any, ClassVar

import anyio
import pytest

from apim_middleware.env import Env
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal
from apim_middleware.policies.cache import Cache
from apim_middleware.policy import Policy, Stack, ring
from apim_middleware.testing import Answer, FakeClock, call
from apim_middleware.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

from .caching import Guarded

pytestmark = pytest.mark.anyio


class Known:
    """A user as Starlette has them."""

    is_authenticated = True


class Identifies(Policy):
    """Knows callers by a field no cache knows of."""

    guards: ClassVar[bool] = False

    def on_request(self, exchange: Exchange) -> None:
        name = exchange.header(b"x-who")
        if name is not None:
            exchange.principal = Principal(subject=name.decode(), issuer="test")


def says_who(lines: RawHeaders, *, starlette: bool = False) -> ASGIApp:
    """An app that says in a field who asks, confirms to everybody that nothing changed, and names them in the scope."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        who = headers.get(b"x-who", b"nobody")
        if starlette and who != b"nobody":
            scope["user"] = Known()
        status = 304 if b"if-none-match" in headers else 200
        await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.start", "status": status, "headers": [*lines, (b"x-secret-of", who)]})
        await send({"type": "http.response.body", "body": b"the same for all" if status == 200 else b""})

    return app


async def who(app: ASGIApp, name: bytes = b"", **more: Any) -> bytes | None:
    """Whose secret an answer tells."""
    answer: Answer = await call(app, headers=[(b"x-who", name)] if name else [], **more)
    return answer.header(b"x-secret-of")


# What confirms a stored response


@pytest.mark.parametrize(
    ("by_policy", "directives"),
    [
        (False, b"max-age=60"),
        (False, b"max-age=60, stale-while-revalidate=600"),
        (True, b"max-age=60"),
        (True, b"max-age=60, stale-while-revalidate=600"),
        (True, b"public, max-age=60"),  # of somebody else's users it would be the app's word
    ],
)
async def test_fields_of_an_answer_to_somebody_identified_behind_stay_with_them(
    by_policy: bool, directives: bytes
) -> None:
    clock = FakeClock()
    lines = [(b"cache-control", directives), (b"etag", b'"one"')]
    behind = Stack(Identifies())(says_who(lines)) if by_policy else says_who(lines, starlette=True)
    app = Stack(Cache(), env=Env(clock=clock))(behind)
    assert await who(app) == b"nobody"
    clock.advance(90)
    await who(app, b"alice")
    await anyio.wait_all_tasks_blocked()
    assert await who(app) == b"nobody"
    assert await who(app, b"bob") in (b"nobody", b"bob")


@pytest.mark.parametrize("by_policy", [False, True])
async def test_a_cache_in_front_of_another_hears_who_was_identified_behind_both(by_policy: bool) -> None:
    """The inner one asked for a stale response in a task of its own, and the outer one gave the answer to others."""
    clock = FakeClock()
    lines = [(b"cache-control", b"max-age=60")]
    behind = Stack(Identifies())(says_who(lines)) if by_policy else says_who(lines, starlette=True)
    inner = Stack(Cache(name="inner"), env=Env(clock=clock))(behind)
    app = Stack(Cache(name="outer"), env=Env(clock=clock))(inner)
    assert await who(app) == b"nobody"
    clock.advance(90)
    assert await who(app, b"alice") == b"alice"
    assert await who(app) == b"nobody"


# Certificates


def with_certificate(name: str) -> dict[str, Any]:
    return {"extensions": {"tls": {"client_cert_chain": [name], "client_cert_name": f"CN={name}", "tls_version": 772}}}


async def says_certificate(scope: Scope, receive: Receive, send: Send) -> None:
    tls = scope.get("extensions", {}).get("tls", {})
    name = (tls.get("client_cert_name") or "nobody").encode()
    await anyio.lowlevel.checkpoint()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(name))]})
    await send({"type": "http.response.body", "body": name})


async def test_the_certificate_of_a_connection_is_a_credential() -> None:
    app = Stack(Cache(ttl=60), env=Env(clock=FakeClock()))(says_certificate)
    assert (await call(app, **with_certificate("alice"))).body == b"CN=alice"
    assert (await call(app, **with_certificate("bob"))).body == b"CN=bob"
    assert (await call(app)).body == b"nobody"
    assert (await call(app, **with_certificate("alice"))).body == b"CN=alice"


async def test_requests_with_certificates_do_not_wait_for_each_other() -> None:
    app = Stack(Cache(ttl=60), env=Env(clock=FakeClock()))(says_certificate)
    found: dict[str, bytes] = {}

    async def ask(name: str) -> None:
        found[name] = (await call(app, **with_certificate(name))).body

    async with anyio.create_task_group() as group:
        for name in ("alice", "bob", "carol"):
            group.start_soon(ask, name)
    assert found == {name: f"CN={name}".encode() for name in ("alice", "bob", "carol")}


async def test_a_connection_without_a_certificate_is_no_credential() -> None:
    app = Stack(Cache(ttl=60), env=Env(clock=FakeClock()))(says_certificate)
    for extensions in ({}, {"tls": {"client_cert_chain": [], "client_cert_name": None}}, {"tls": {}}):
        assert (await call(app, extensions=extensions)).body == b"nobody"
    assert b"hit" in ((await call(app)).header(b"cache-status") or b"")


async def test_a_response_that_says_it_is_public_is_shared_among_certificates() -> None:
    app = Stack(Cache(), env=Env(clock=FakeClock()))(says_who([(b"cache-control", b"public, max-age=60")]))
    await call(app, **with_certificate("alice"))
    assert b"hit" in ((await call(app, **with_certificate("bob"))).header(b"cache-status") or b"")


@pytest.mark.parametrize(
    "name",
    [b"client-cert", b"ssl-client-cert", b"x-arr-clientcert", b"x-amzn-mtls-clientcert-leaf", b"x-client-certificate"],
)
async def test_a_certificate_in_a_field_is_a_credential(name: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": dict(scope["headers"]).get(name, b"nobody")})

    cached = Stack(Cache(ttl=60), env=Env(clock=FakeClock()))(app)
    for value in (b"alice", b"bob"):
        assert (await call(cached, headers=[(name, value)])).body == value
    assert (await call(cached)).body == b"nobody"


# What changes while a request is under way


@pytest.mark.parametrize("sender", [[], [(b"authorization", b"Bearer alice")], [(b"cookie", b"alice")]])
async def test_a_response_is_kept_for_what_the_request_said_here_whatever_the_app_makes_of_it(
    guarded: Guarded, sender: RawHeaders
) -> None:
    """A locale that an app wrote into the header lines it was given chose who got its answer."""

    async def translates(scope: Scope, receive: Receive, send: Send) -> None:
        lines: RawHeaders = scope["headers"]
        said = dict(lines)[b"accept-language"]
        lines[:] = [line for line in lines if line[0] != b"accept-language"] + [(b"accept-language", b"en")]
        head = [(b"cache-control", b"public, max-age=60"), (b"vary", b"accept-language")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"in " + said})

    app = guarded(translates)
    for language in (b"de", b"en", b"de"):
        answer = await call(app, headers=[(b"accept-language", language), *sender])
        assert answer.body == b"in " + language


@pytest.mark.parametrize("sender", [[], [(b"authorization", b"Bearer alice")]])
async def test_a_body_nobody_announced_does_not_choose_what_others_get(guarded: Guarded, sender: RawHeaders) -> None:
    app = guarded(says_who([(b"cache-control", b"public, max-age=60")]))
    answer = await call(app, headers=sender, http_version="2", body=b"EVIL")
    assert answer.header(b"cache-status") == b"apim;fwd=uri-miss;detail=body-unknown"


class Visitor:
    """A user as some middlewares have them: an object from the beginning, that somebody logs in with later."""

    is_authenticated = False


async def test_whoever_logs_in_with_the_request_itself_keeps_the_answer(guarded: Guarded) -> None:
    async def logs_in(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"].is_authenticated = True
        scope["user"] = None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"your secret"})

    cache = Cache(ttl=60, collapse_wait=0)
    app = guarded(logs_in, cache)
    for _ in range(2):
        answer = await call(app, user=Visitor())
        assert answer.header(b"cache-status") == b"apim;fwd=uri-miss;detail=principal"


@pytest.mark.parametrize("name", [b"", b"authorization", b"cookie"])
async def test_nobody_waits_for_a_response_that_is_over(clock: FakeClock, name: bytes) -> None:
    """Somebody who logged in meanwhile, or was known all along: their response is for them, and over for all."""

    async def logs_in(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"].is_authenticated = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"your secret"})

    env, policy = Env(clock=clock), Cache(ttl=60)
    keeper = policy.bind(env)
    await call(ring(policy, keeper, logs_in, env), headers=[(name, b"alice")] if name else [], user=Visitor())
    assert keeper._flights == {}


async def test_what_a_client_of_the_cache_makes_of_an_answer_is_not_what_others_get(guarded: Guarded) -> None:
    async def marks(scope: Scope, receive: Receive, send: Send) -> None:
        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["status"] = 418
                message["headers"].append((b"x-secret-of", b"alice"))
            elif message["type"] == "http.response.body":
                message["body"] = b"for alice"
            await send(message)

        await inner(scope, receive, mark)

    inner = guarded(says_who([(b"cache-control", b"max-age=60")]))
    for _ in range(2):
        await call(marks)
    answer = await call(inner)
    assert (answer.status, answer.body, answer.all(b"x-secret-of")) == (200, b"the same for all", [b"nobody"])
