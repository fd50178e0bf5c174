"""``ForwardAuth``, asked as front servers ask: the request they tell of is judged as if it had come here itself."""

import ssl
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware._http.client_certificate import KEY as CERTIFICATE
from apim_middleware._http.client_certificate import certificate
from apim_middleware.bodies import read_body
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.policies.client import IPFilter, TrustedProxies
from apim_middleware.policies.headers import SetHeader
from apim_middleware.policy import Policy, Stack
from apim_middleware.serving.forward_auth import ForwardAuth
from apim_middleware.testing import call, connect

pytestmark = pytest.mark.anyio

FRONT = ("10.0.0.2", 40000)

TOLD = {
    b"x-forwarded-method": b"POST",
    b"x-forwarded-uri": b"/orders/1?page=2",
    b"x-forwarded-host": b"api.example",
    b"x-forwarded-proto": b"https",
    b"x-forwarded-for": b"203.0.113.9",
}
ORIGINAL = {
    b"x-original-method": b"POST",
    b"x-original-uri": b"/orders/1?page=2",
    **{name: TOLD[name] for name in (b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for")},
}


class Seen(Policy):
    """Keeps what it saw of the request, and refuses when told to."""

    seen: dict[str, object]

    def __init__(self, refusal: Refusal | None = None):
        object.__setattr__(self, "seen", {})
        object.__setattr__(self, "refusal", refusal)

    def on_request(self, exchange):
        names = ("type", "method", "path", "raw_path", "query_string", "scheme", "client", "root_path")
        self.seen.update({name: exchange.scope.get(name) for name in names})
        self.seen["headers"] = list(exchange.scope["headers"])
        if self.refusal is not None:
            raise self.refusal


def asking(policy, **options) -> ForwardAuth:
    return ForwardAuth(policy, trusted=("10.0.0.0/8",), **options)


async def ask(app, told=TOLD, *more, method="GET", path="/auth", client=FRONT, **scope):
    return await call(app, method, path, headers=[*told.items(), *more], client=client, **scope)


@pytest.mark.parametrize(
    ("told", "options", "request_line"),
    [
        (TOLD, {}, {}),
        (ORIGINAL, {"told_by": "x-original"}, {}),
        (
            {name: TOLD[name] for name in (b"x-forwarded-proto", b"x-forwarded-for")} | {b"host": b"api.example"},
            {"told_by": "path", "prefix": "/check"},
            {"method": "POST", "path": "/check/orders/1", "query": b"page=2"},
        ),
    ],
    ids=["Caddy and Traefik", "nginx", "Envoy"],
)
async def test_the_request_the_front_tells_of_is_the_one_that_is_judged(told, options, request_line):
    policy = Seen()
    answer = await ask(asking(policy, **options), told, (b"authorization", b"Bearer x"), **request_line)
    assert (answer.status, answer.body, answer.header(b"cache-control")) == (200, b"", b"no-store")
    assert policy.seen == {
        "type": "http",
        "method": "POST",
        "path": "/orders/1",
        "raw_path": b"/orders/1",
        "query_string": b"page=2",
        "scheme": "https",
        "client": ("203.0.113.9", 0),
        "root_path": "",
        "headers": [(b"host", b"api.example"), (b"authorization", b"Bearer x")],
    }


async def test_the_request_goes_through_hygiene_like_any_other():
    policy = Seen()
    told = {**TOLD, b"x-forwarded-uri": b"/public/..%2fadmin"}
    answer = await ask(asking(policy), told)
    assert answer.status == 400
    assert b"bad-target" in answer.body
    await ask(asking(policy), {**TOLD, b"x-forwarded-uri": b"/%61dmin"})
    assert policy.seen["path"] == "/admin"


async def test_what_policies_have_set_is_told_and_what_the_client_sent_is_not():
    app = asking(SetHeader(name="X-User-Id", value="alice", on="request"), headers=("X-User-Id", "X-Tenant"))
    answer = await ask(app, TOLD, (b"x-user-id", b"admin"), (b"x-tenant", b"evil"), (b"x-other", b"1"))
    assert answer.all(b"x-user-id") == [b"alice"]
    assert answer.all(b"x-tenant") == [b""]
    assert answer.header(b"x-other") is None


@pytest.mark.parametrize("twin", [b"x_user_id", b"X_User_Id", b"x-user_id", b"X_USER-ID", b"x.user.id"])
@pytest.mark.parametrize("options", [{}, {"refuse_with": "403"}])
async def test_who_sends_a_twin_of_what_is_vouched_for_is_refused(twin, options):
    """The front server passes it on beside ours, and CGI, WSGI and PHP read the two as one."""
    app = asking(SetHeader(name="X-User-Id", value="alice", on="request"), headers=("X-User-Id",), **options)
    answer = await ask(app, TOLD, (twin, b"admin"))
    assert answer.status == (403 if options else 400)
    assert b"header-ambiguous" in answer.body
    assert answer.header(b"x-user-id") is None


async def test_what_only_looks_like_what_is_vouched_for_is_nobodys_business():
    app = asking(SetHeader(name="X-User-Id", value="alice", on="request"), headers=("X-User-Id",))
    answer = await ask(app, TOLD, (b"x_user", b"1"), (b"x-user-id", b"forged"), (b"x_user_id_2", b"1"))
    assert (answer.status, answer.header(b"x-user-id")) == (200, b"alice")


async def test_the_front_servers_own_certificate_is_not_the_clients():
    """It was that of whoever asked for anything, and let in by ``ClientCertificate`` and tokens bound to it."""
    seen = []

    class Look(Policy):
        def on_request(self, exchange):
            seen.append(certificate(exchange.scope))

    pem = ssl.DER_cert_to_PEM_cert(b"the front's")
    own = {"extensions": {"tls": {"client_cert_chain": [pem]}}, CERTIFICATE: b"the front's"}
    assert (await ask(asking(Look()), **own)).status == 200
    assert seen == [None]


async def test_nobody_else_may_ask():
    policy = Seen()
    answer = await ask(asking(policy), client=("203.0.113.9", 1))
    assert (answer.status, b"peer-not-trusted" in answer.body, policy.seen) == (403, True, {})


async def test_a_local_socket_may_ask_when_it_is_trusted():
    app = ForwardAuth(Seen(), trusted=("unix",))
    assert (await ask(app, client=None, server=("/run/gateway.sock", None))).status == 200
    assert (await ask(app, client=None, server=("127.0.0.1", 80))).status == 403
    assert (await ask(asking(Seen()), client=None, server=("/run/gateway.sock", None))).status == 403


@pytest.mark.parametrize("missing", TOLD)
async def test_a_front_that_does_not_tell_everything_gets_no_answer(missing):
    told = {name: value for name, value in TOLD.items() if name != missing}
    answer = await ask(asking(Seen()), told)
    assert (answer.status, b"forwarding-incomplete" in answer.body) == (400, True)


@pytest.mark.parametrize("twice", [b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"])
async def test_a_thing_told_twice_is_told_by_two(twice):
    answer = await ask(asking(Seen()), TOLD, (twice, b"/other"))
    assert (answer.status, b"forwarding-ambiguous" in answer.body) == (400, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-forwarded-method", b"get, post"),
        (b"x-forwarded-method", b""),
        (b"x-forwarded-uri", b"orders"),
        (b"x-forwarded-uri", b"https://evil.example/"),
        (b"x-forwarded-uri", b"/a b"),
        (b"x-forwarded-uri", b"/a#b"),
        (b"x-forwarded-uri", b"/\xff"),
        (b"x-forwarded-host", b"a/b"),
        (b"x-forwarded-proto", b"gopher"),
        (b"x-forwarded-for", b"unknown"),
    ],
)
async def test_what_is_no_request_is_not_judged(name, value):
    policy = Seen()
    answer = await ask(asking(policy), {**TOLD, name: value})
    assert (answer.status, policy.seen) == (400, {})


async def test_the_client_is_found_behind_further_hops_that_are_trusted():
    policy = Seen()
    await ask(asking(policy), {**TOLD, b"x-forwarded-for": b"6.6.6.6, 203.0.113.9, 10.1.1.1"})
    assert policy.seen["client"] == ("203.0.113.9", 0)


async def test_it_is_the_peer_that_must_be_the_front_server_whomever_it_speaks_for():
    behind = TrustedProxies(trusted=("192.0.2.1", "10.0.0.2"))
    assert (await ask(behind(asking(Seen())))).status == 200
    as_if = {**TOLD, b"x-forwarded-for": b"10.0.0.3"}
    answer = await ask(behind(asking(Seen())), as_if, client=("192.0.2.1", 1))
    assert (answer.status, b"peer-not-trusted" in answer.body) == (403, True)


async def test_policies_about_the_client_see_the_client():
    stack = Stack(TrustedProxies(trusted=("10.0.0.0/8",)), IPFilter(allow=("203.0.113.0/24",)))
    assert (await ask(asking(stack))).status == 200
    answer = await ask(asking(stack), {**TOLD, b"x-forwarded-for": b"198.51.100.1"})
    assert (answer.status, b"address-not-allowed" in answer.body) == (403, True)


ODD = st.binary(max_size=20) | st.sampled_from(
    [b"/", b"GET", b"/a?b", b"a.example", b"https", b"203.0.113.9", b"10.0.0.1"]
)


@given(told=st.lists(st.tuples(st.sampled_from(sorted({*TOLD, *ORIGINAL, b"host", b"connection"})), ODD), max_size=9))
def test_whatever_is_told_is_judged_or_refused(told):
    """Nothing that a front server tells, however odd, breaks it, or passes without having been judged."""
    for options in ({}, {"told_by": "x-original"}, {"told_by": "path"}):
        policy = Seen()
        answer = anyio.run(partial(ask, asking(policy, **options), dict(told), *told))
        assert answer.complete
        assert (answer.status == 200) == bool(policy.seen)
        assert answer.status in (200, 400, 414, 431, 501)


REFUSALS = [
    Refusal(401, "no-token", headers={"www-authenticate": "Bearer"}),
    Refusal(403, "not-allowed"),
    Refusal(429, "too-many", headers={"retry-after": "7"}),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: str(each.status))
async def test_a_refusal_is_answered_as_it_is(refusal):
    answer = await ask(asking(Seen(refusal)))
    assert answer.status == refusal.status
    assert refusal.code.encode() in answer.body
    assert set(refusal.headers).issubset(answer.headers)


@pytest.mark.parametrize(
    ("refusal", "status", "told"), [(REFUSALS[0], 401, None), (REFUSALS[1], 403, b"403"), (REFUSALS[2], 403, b"429")]
)
async def test_for_nginx_every_other_refusal_is_a_403_that_says_what_it_was(refusal, status, told):
    answer = await ask(asking(Seen(refusal), refuse_with="403"))
    assert (answer.status, answer.header(b"x-auth-status")) == (status, told)
    assert set(refusal.headers).issubset(answer.headers)


async def test_a_refused_head_has_a_body_of_no_announced_length_when_it_was_asked_about_by_get():
    told = {**TOLD, b"x-forwarded-method": b"HEAD"}
    answer = await ask(asking(Seen(REFUSALS[1])), told)
    assert (answer.status, answer.body, answer.header(b"content-length")) == (403, b"", None)


class Answers(Policy):
    """Answers itself, as a mock or a cache does."""

    def on_request(self, exchange):
        async def answer(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok", "more_body": False})

        return answer


async def test_an_answer_that_did_not_come_through_opens_no_door():
    answer = await ask(asking(Answers()))
    assert (answer.status, b"answered-not-judged" in answer.body, b"ok" in answer.body) == (500, True, False)


async def test_a_policy_that_fails_opens_no_door():
    class Fails(Policy):
        def on_request(self, exchange):
            raise ValueError("oh")

    assert (await ask(asking(Fails()))).status == 500


async def test_a_policy_that_refuses_the_yes_refuses():
    class Late(Policy):
        def on_response(self, exchange):
            raise Refusal(403, "on-second-thoughts")

    assert (await ask(asking(Late()))).status == 403


async def test_a_policy_that_needs_the_body_says_so():
    def reading(app):
        async def read(scope, receive, send):
            await read_body(receive, 1000)
            await app(scope, receive, send)

        return read

    answer = await ask(asking(Stack(Seen(), reading)))
    assert (answer.status, b"body-not-told" in answer.body) == (500, True)


async def test_behind_policies_what_they_have_set_aside_is_still_told():
    policy = Seen()
    assert (await ask(Seen()(asking(policy)))).status == 200
    assert policy.seen["path"] == "/orders/1"
    assert (await ask(Seen()(asking(policy, told_by="x-original")), ORIGINAL)).status == 400


@pytest.mark.parametrize(("refusal", "status"), [(None, 200), (REFUSALS[2], 429)])
async def test_a_handshake_that_is_passed_on_is_answered_as_a_request(refusal, status):
    policy = Seen(refusal)
    upgrade = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    told = {**TOLD, b"x-forwarded-method": b"GET"}
    answer = await connect(asking(policy), headers=[*told.items(), *upgrade], client=FRONT)
    assert answer.head["type"] == "websocket.http.response.start"
    assert (answer.status, policy.seen["type"], policy.seen["method"]) == (status, "http", "GET")
    answer = await connect(asking(policy), headers=[*told.items(), *upgrade], client=FRONT, denial=False)
    assert [each["type"] for each in answer.messages] == ["websocket.close"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"trusted": ()}, "trusted: .* names nobody"),
        ({"trusted": ("0.0.0.0/0", "::/0")}, "lets everybody make up requests"),
        ({"trusted": ("example.org",)}, "example.org"),
        ({"headers": ("X User",)}, "cannot be told"),
        ({"headers": ("Content-Length",)}, "cannot be told"),
        ({"prefix": "/auth"}, "stands before no path"),
        ({"prefix": "auth", "told_by": "path"}, "stands before no path"),
        ({"told_by": "nginx"}, "told_by"),
        ({"layer": 5}, "^ForwardAuth.layer: 5 is not"),
        ({"layer": int}, "^ForwardAuth.layer: .* cannot be put in front of an app"),
        ({"layer": str}, "^ForwardAuth.layer: .* makes '.*' of an app"),
    ],
)
def test_mistakes_are_found_while_building(options, problem):
    with pytest.raises(ConfigError, match=problem):
        ForwardAuth(**{"layer": Seen(), "trusted": ("127.0.0.1",), **options})


async def test_the_lifespan_reaches_the_layer_inside():
    sent, inbox = [], [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return inbox.pop(0)

    async def send(message):
        sent.append(message["type"])

    await asking(Seen())({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
