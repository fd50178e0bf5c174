"""Any of several authenticators lets in, or all of them must; bad credentials never become no credentials."""

import copy
import json
import pickle
import random
import tracemalloc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from tests.jose.issuer import AUDIENCE, ISSUER, NOW, Published, down, jwk, rsa_key, token
from tests.laws.test_policies import MAKERS, series

from apim_middleware import by
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.basic import BasicAuth
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.client import IPFilter
from apim_middleware.policies.either import AllOf, AnyOf
from apim_middleware.policies.headers import RemoveHeader, SetHeader
from apim_middleware.policies.jwt import JWTAuth
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policies.require_header import RequireHeader
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.keys import MemoryKeys, key_digest
from apim_middleware.stores.users import Cost, MemoryUsers
from apim_middleware.testing import Answer, FakeClock, call, connect, http_scope
from apim_middleware.types import ASGIApp, Layer, Receive, Scope, Send

KEY = jwk(rsa_key(), "one")
SUBSCRIPTION = "k" * 43
JWT = JWTAuth(issuer=ISSUER, audience=AUDIENCE, keys=KEY)
BEARER, BASIC = b'Bearer realm="api"', b'Basic realm="api", charset="UTF-8"'
INVALID = b'Bearer realm="api", error="invalid_token", error_description="The bearer token is not valid."'
AZURE = b'AzureApiManagementKey realm="api",name="Ocp-Apim-Subscription-Key",type="header"'

GOOD_TOKEN = (b"authorization", b"Bearer " + token(rsa_key(), kid="one"))
BAD_TOKEN = (b"authorization", b"Bearer not.a.token")
GOOD_KEY = (b"ocp-apim-subscription-key", SUBSCRIPTION.encode())
BAD_KEY = (b"ocp-apim-subscription-key", b"guess")
GOOD_PASSWORD = (b"authorization", b"Basic YWRhOnB3")
BAD_PASSWORD = (b"authorization", b"Basic YWRhOm5v")


def key_auth(**fields: Any) -> APIKeyAuth:
    keys = MemoryKeys()
    keys.add(Subscription(id="one"), primary=key_digest(SUBSCRIPTION))
    return APIKeyAuth(keys=keys, **fields)


def basic_auth(name: str = "ada", **fields: Any) -> BasicAuth:
    users = MemoryUsers(cost=Cost(ln=4, r=1, p=1))
    users.add(name, "pw")
    return BasicAuth(users=users, **fields)


class House:
    """An app behind what a test gives it; keeps what reached the app."""

    def __init__(self, *layers: Layer, **env: Any) -> None:
        self.seen: list[Scope] = []
        self.exchanges: list[Exchange] = []
        self.app = Stack(*layers, env=Env(clock=FakeClock(NOW), **env))(self.inner)

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange.of(scope)
        assert exchange is not None
        self.exchanges.append(exchange)
        self.seen.append(dict(scope))
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in", "more_body": True})
        await send({"type": "http.response.body", "body": b"side" + body})

    async def ask(self, *headers: tuple[bytes, bytes], **more: Any) -> Answer:
        return await call(self.app, headers=list(headers), **more)

    @property
    def caller(self) -> str | None:
        principal = self.exchanges[-1].principal
        return None if principal is None else principal.subject


@pytest.fixture
def house() -> House:
    return House(AnyOf(JWT, key_auth(), basic_auth()))


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


# Any of them lets in


@pytest.mark.anyio
async def test_the_first_with_good_credentials_lets_in(house: House) -> None:
    for header, caller in ((GOOD_TOKEN, "ada"), (GOOD_KEY, "one"), (GOOD_PASSWORD, "ada")):
        answer = await house.ask(header)
        assert (answer.status, answer.body) == (200, b"inside")
        assert house.caller == caller
        assert house.seen[-1]["user"].subject == caller


@pytest.mark.anyio
async def test_those_behind_the_first_are_not_asked(house: House) -> None:
    assert (await house.ask(GOOD_TOKEN, BAD_KEY)).status == 200
    assert BAD_KEY in house.seen[0]["headers"]
    assert house.exchanges[0].subscription is None


@pytest.mark.anyio
async def test_a_forged_token_beside_a_good_key_goes_on_unless_it_is_asked_about_first_or_taken_away() -> None:
    taking = Stack(key_auth(), RemoveHeader(name="authorization", on="request"))
    passed = House(AnyOf(key_auth(), JWT))
    assert (await passed.ask(GOOD_KEY, BAD_TOKEN)).status == 200
    assert BAD_TOKEN in passed.seen[0]["headers"]
    assert (await House(AnyOf(JWT, key_auth())).ask(GOOD_KEY, BAD_TOKEN)).status == 401
    taken = House(AnyOf(taking, JWT))
    assert (await taken.ask(GOOD_KEY, BAD_TOKEN)).status == 200
    assert BAD_TOKEN not in taken.seen[0]["headers"]
    assert (await taken.ask(GOOD_TOKEN)).status == 200
    assert GOOD_TOKEN in taken.seen[1]["headers"]


@pytest.mark.anyio
async def test_what_one_that_refused_did_is_undone() -> None:
    """It took the credentials out, named a caller, noted why it refused: the next finds the request as it came."""

    class Meddles(Policy):
        guards: ClassVar[bool] = True

        def on_request(self, exchange: Exchange) -> None:
            exchange.principal = Principal(subject="meddler")
            exchange.remove_header("authorization")
            exchange.set_header("x-meddled", "yes")
            exchange.scope["path"] = "/elsewhere"
            exchange.attributes["meddled"] = True
            raise Refusal(401, "meddled-missing", headers={"www-authenticate": "Meddle"})

    house = House(AnyOf(Meddles(), Stack(SetHeader(name="x-a", value="1", on="request"), basic_auth())))
    assert (await house.ask(GOOD_PASSWORD)).status == 200
    scope, exchange = house.seen[0], house.exchanges[0]
    assert (scope["path"], house.caller) == ("/", "ada")
    assert dict(scope["headers"]) == {b"host": b"testserver", b"x-a": b"1"}
    assert (exchange.attributes, exchange.refusal, exchange.response) == ({}, None, None)


@pytest.mark.anyio
async def test_what_was_noted_before_stays_and_what_one_that_refused_noted_goes() -> None:
    class Notes(Policy):
        def on_request(self, exchange: Exchange) -> None:
            exchange.attributes["noted"] = True

    class Refuses(Policy):
        guards: ClassVar[bool] = True

        def on_request(self, exchange: Exchange) -> None:
            exchange.attributes["mistaken"] = True
            raise Refusal(401, "mistake-missing", headers={"www-authenticate": "Mistake"})

    house = House(Notes(), AnyOf(Refuses(), basic_auth()))
    assert (await house.ask(GOOD_PASSWORD)).status == 200
    assert house.exchanges[0].attributes == {"noted": True}


@pytest.mark.anyio
async def test_two_stores_of_users_can_stand_side_by_side() -> None:
    house = House(AnyOf(basic_auth("eve"), basic_auth("ada"), when_bad="next"))
    assert (await house.ask(GOOD_PASSWORD)).status == 200
    answer = await house.ask(BAD_PASSWORD)
    assert (answer.status, code(answer), answer.all(b"www-authenticate")) == (401, "credentials-invalid", [BASIC])


@pytest.mark.anyio
async def test_several_issuers_can_stand_side_by_side() -> None:
    other = JWTAuth(issuer="https://other.example", audience=AUDIENCE, keys=KEY, realm="other")
    house = House(AnyOf(other, JWT, when_bad="next"))
    assert (await house.ask(GOOD_TOKEN)).status == 200
    assert "apim.jwt.failure" not in house.exchanges[0].attributes
    answer = await house.ask(BAD_TOKEN)
    assert answer.all(b"www-authenticate") == [INVALID.replace(b"api", b"other"), INVALID]


# None of them lets in


@pytest.mark.anyio
async def test_without_credentials_all_challenges_come_together(house: House) -> None:
    """RFC 9110 section 11.6.1."""
    answer = await house.ask()
    assert (answer.status, code(answer)) == (401, "credentials-missing")
    assert answer.all(b"www-authenticate") == [BEARER, AZURE, BASIC]
    assert answer.all(b"content-length") == [b"%d" % len(answer.body)]
    assert house.seen == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "expected", "challenges"),
    [
        ([BAD_TOKEN], "token-invalid", [INVALID]),
        ([BAD_TOKEN, GOOD_KEY], "token-invalid", [INVALID]),
        ([BAD_KEY], "subscription-key-invalid", [BEARER, AZURE]),
        ([BAD_KEY, GOOD_PASSWORD], "subscription-key-invalid", [BEARER, AZURE]),
        ([BAD_PASSWORD], "credentials-invalid", [BEARER, AZURE, BASIC]),
    ],
)
async def test_bad_credentials_end_the_matter(
    house: House, headers: list[tuple[bytes, bytes]], expected: str, challenges: list[bytes]
) -> None:
    answer = await house.ask(*headers)
    assert (answer.status, code(answer)) == (401, expected)
    assert answer.all(b"www-authenticate") == challenges
    assert house.seen == []


@pytest.mark.anyio
async def test_the_next_is_asked_about_bad_credentials_when_told_so() -> None:
    house = House(AnyOf(JWT, key_auth(), when_bad="next"))
    assert (await house.ask(BAD_TOKEN, GOOD_KEY)).status == 200
    answer = await house.ask(BAD_TOKEN, BAD_KEY)
    assert (answer.status, code(answer)) == (401, "token-invalid")
    assert answer.all(b"www-authenticate") == [INVALID, AZURE]


@dataclass(frozen=True, kw_only=True)
class Says(Policy):
    """A policy of a user's own, that answers as a test likes."""

    guards: ClassVar[bool] = True
    status: int
    code: str = "says-no"

    def on_request(self, exchange: Exchange) -> None:
        exchange.attributes["says"] = self.status
        headers = {"www-authenticate": f"Says n={self.status}"} if self.status in (401, 403) else {}
        raise Refusal(self.status, self.code, headers=headers)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [((401, 403, 503), 503), ((401, 403, 400), 403), ((401, 400), 400), ((400, 401), 400), ((429, 400), 429)],
)
async def test_of_several_refusals_the_most_telling_one_is_given(statuses: tuple[int, ...], chosen: int) -> None:
    watched: list[Exchange] = []

    class Watching(Policy):
        def on_response(self, exchange: Exchange) -> None:
            watched.append(exchange)

    house = House(Watching(), AnyOf(*(Says(status=status) for status in statuses), when_bad="next"))
    answer = await house.ask()
    assert answer.status == chosen
    assert answer.all(b"www-authenticate") == ([b"Says n=403"] if chosen == 403 else [])
    assert watched[0].refusal is not None
    assert watched[0].refusal.status == watched[0].attributes["says"] == chosen


@pytest.mark.anyio
async def test_a_policy_of_ones_own_says_missing_by_its_code() -> None:
    missing, bad = Says(status=401, code="badge-missing"), Says(status=401, code="badge-worn-out")
    assert (await House(AnyOf(missing, basic_auth())).ask(GOOD_PASSWORD)).status == 200
    assert code(await House(AnyOf(bad, basic_auth())).ask(GOOD_PASSWORD)) == "badge-worn-out"
    answer = await House(AnyOf(missing, basic_auth())).ask()
    assert answer.all(b"www-authenticate") == [b"Says n=401", BASIC]


@pytest.mark.anyio
async def test_where_there_is_no_challenge_there_is_no_401() -> None:
    house = House(AnyOf(RequireHeader(name="x-a"), RequireHeader(name="x-b")))
    assert (await house.ask((b"x-b", b"1"))).status == 200
    answer = await house.ask()
    assert (answer.status, code(answer)) == (400, "header-missing")


@pytest.mark.anyio
async def test_a_policy_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Policy):
        guards: ClassVar[bool] = True

        def on_request(self, exchange: Exchange) -> None:
            raise LookupError("a bug")

    for house in (
        House(AnyOf(Fails(), basic_auth())),
        House(AnyOf(Fails(), anonymous=True)),
        House(AnyOf(Fails(), anonymous=True, when_bad="next")),
    ):
        answer = await house.ask(GOOD_PASSWORD)
        assert (answer.status, code(answer)) == (500, "policy-failed")


@pytest.mark.anyio
async def test_nobody_comes_in_while_keys_cannot_be_had() -> None:
    remote = JWTAuth(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://issuer.example/keys")
    for when_bad in ("refuse", "next"):
        issuer = Published(KEY)
        issuer.behave(down)
        house = House(AnyOf(remote, key_auth(), anonymous=True, when_bad=when_bad), transport=issuer)
        answer = await house.ask(GOOD_TOKEN)
        assert (answer.status, code(answer)) == (503, "keys-unavailable")
        assert answer.header(b"retry-after") is not None
        assert (await house.ask(GOOD_KEY)).status == 200


@pytest.mark.anyio
async def test_an_answer_that_is_no_refusal_is_given_as_it_is() -> None:
    class Redirects(Policy):
        guards: ClassVar[bool] = True

        def on_request(self, exchange: Exchange) -> ASGIApp:
            return PlainTextResponse("log in", 302, {"location": "/login"})

    answer = await House(AnyOf(Redirects(), basic_auth(), anonymous=True)).ask()
    assert (answer.status, answer.header(b"location"), answer.body) == (302, b"/login", b"log in")


# Nobody at all


@pytest.mark.anyio
async def test_nobody_is_anonymous_unless_it_is_said() -> None:
    house = House(AnyOf(JWT, key_auth(), anonymous=True))
    assert (await house.ask(body=b"!")).body == b"inside!"
    assert house.caller is None
    assert "user" not in house.seen[0]
    assert house.exchanges[0].refusal is None


@pytest.mark.anyio
@pytest.mark.parametrize("when_bad", ["refuse", "next"])
@pytest.mark.parametrize("header", [BAD_TOKEN, BAD_KEY])
async def test_bad_credentials_never_become_anonymous(header: tuple[bytes, bytes], when_bad: Any) -> None:
    house = House(AnyOf(JWT, key_auth(), anonymous=True, when_bad=when_bad))
    assert (await house.ask(header)).status == 401
    assert house.seen == []


# All of them


@pytest.mark.anyio
async def test_all_must_let_in() -> None:
    house = House(AllOf(JWT, key_auth()))
    assert (await house.ask(GOOD_TOKEN, GOOD_KEY)).status == 200
    for headers, expected in (
        ([], "token-missing"),
        ([GOOD_TOKEN], "subscription-key-missing"),
        ([GOOD_KEY], "token-missing"),
        ([GOOD_TOKEN, BAD_KEY], "subscription-key-invalid"),
        ([BAD_TOKEN, GOOD_KEY], "token-invalid"),
    ):
        answer = await house.ask(*headers)
        assert (answer.status, code(answer), len(answer.all(b"www-authenticate"))) == (401, expected, 1)
    assert len(house.seen) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("layers", [(JWT, key_auth()), (key_auth(), JWT)])
async def test_the_principal_of_all_is_the_one_named_last_and_a_key_names_none_beside_a_token(
    layers: tuple[Policy, ...],
) -> None:
    house = House(AllOf(*layers))
    await house.ask(GOOD_TOKEN, GOOD_KEY)
    assert house.caller == "ada"
    assert house.exchanges[0].subscription == Subscription(id="one")


@pytest.mark.anyio
async def test_all_of_and_any_of_stand_in_each_other() -> None:
    house = House(AnyOf(AllOf(JWT, key_auth()), basic_auth()))
    assert (await house.ask(GOOD_TOKEN, GOOD_KEY)).status == 200
    assert (await house.ask(GOOD_PASSWORD)).status == 200
    answer = await house.ask(GOOD_TOKEN)
    assert (answer.status, answer.all(b"www-authenticate")) == (401, [AZURE, BASIC])
    house = House(AllOf(AnyOf(JWT, basic_auth()), key_auth()))
    assert (await house.ask(GOOD_PASSWORD, GOOD_KEY)).status == 200
    assert (await house.ask(GOOD_KEY)).status == 401
    assert (await house.ask(GOOD_PASSWORD)).status == 401


# Bodies, WebSockets, mounts, endings


class Reads(Policy):
    """Reads the whole body before it decides, as a check of a signature does."""

    guards: ClassVar[bool] = True
    accepts: ClassVar[bytes] = b""

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        async def reading(scope: Scope, receive: Receive, send: Send) -> None:
            messages = [await receive()]
            while messages[-1]["more_body"]:
                messages.append(await receive())
            if b"".join(each["body"] for each in messages) != self.accepts:
                await PlainTextResponse("no", 403)(scope, receive, send)
                return

            async def again() -> Any:
                return messages.pop(0) if messages else await receive()

            await app(scope, again, send)

        return reading


class ReadsGood(Reads):
    accepts = b"good"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "chunks", "status", "body"),
    [
        ([], [b"go", b"od"], 200, b"insidegood"),
        ([GOOD_PASSWORD], [b"b", b"a", b"d"], 200, b"insidebad"),
        ([], [b"bad"], 403, b"no"),
    ],
)
async def test_a_body_that_was_read_can_be_read_again_by_the_next_and_by_the_app(
    headers: list[tuple[bytes, bytes]], chunks: list[bytes], status: int, body: bytes
) -> None:
    house = House(AnyOf(Reads(), ReadsGood(), basic_auth(), when_bad="next"))
    answer = Answer()
    left = [{"type": "http.request", "body": each, "more_body": each is not chunks[-1]} for each in chunks]

    async def receive() -> Any:
        assert left, "the body was read beyond its end"
        return left.pop(0)

    async def send(message: Any) -> None:
        answer.messages.append(message)

    await house.app(http_scope("POST", headers=headers), receive, send)
    assert (answer.status, answer.body) == (status, body)


class Counts(Policy):
    """Reads the body, keeps none of it, and refuses."""

    guards: ClassVar[bool] = True

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            size, more = 0, True
            while more:
                message = await receive()
                size, more = size + len(message["body"]), message["more_body"]
            self.sizes.append(size)
            await PlainTextResponse("no", 403)(scope, receive, send)

        return counting


@pytest.mark.anyio
@pytest.mark.parametrize("chunk", [b"", b"x"])
async def test_what_was_read_takes_no_more_memory_than_it_has_bytes(chunk: bytes) -> None:
    """Every message was kept as it came, at hundreds of bytes a piece: without bound, where they were empty."""
    left = 50_000

    async def receive() -> Any:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": chunk, "more_body": left > 0}

    async def send(message: Any) -> None:
        """Nobody listens."""

    ways = Counts(), Counts()
    house = House(AnyOf(*ways, when_bad="next"))
    tracemalloc.start()
    await house.app(http_scope("POST"), receive, send)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [each.sizes for each in ways] == [[50_000 * len(chunk)]] * 2
    assert most < 2_000_000


@pytest.mark.anyio
async def test_a_handshake_and_a_client_that_left_are_told_again() -> None:
    heard: list[str] = []

    class Hears(Policy):
        guards: ClassVar[bool] = True

        def build(self, app: ASGIApp, env: Env) -> ASGIApp:
            async def hearing(scope: Scope, receive: Receive, send: Send) -> None:
                heard.extend([(await receive())["type"] for _ in range(3)])

            return hearing

    left = [{"type": "websocket.connect"}, *[{"type": "websocket.disconnect", "code": 1006}] * 9]

    async def receive() -> Any:
        return left.pop(0)

    async def send(message: Any) -> None:
        """Nobody listens."""

    await House(AnyOf(Hears(), Hears(), when_bad="next")).app(http_scope() | {"type": "websocket"}, receive, send)
    assert heard == ["websocket.connect", "websocket.disconnect", "websocket.disconnect"] * 2


class Peeks(Policy):
    """Reads the beginning of the body before it lets in."""

    guards: ClassVar[bool] = True

    def build(self, app: ASGIApp, env: Env) -> ASGIApp:
        async def peeking(scope: Scope, receive: Receive, send: Send) -> None:
            messages = [await receive()]

            async def again() -> Any:
                return messages.pop() if messages else await receive()

            await app(scope, again, send)

        return peeking


@pytest.mark.anyio
async def test_what_who_lets_in_has_read_comes_once() -> None:
    assert (await House(AnyOf(Peeks())).ask(body=[b"a", b"b", b"c"])).body == b"insideabc"
    assert (await House(AnyOf(Reads(), Peeks(), when_bad="next")).ask(body=[b"a", b"b", b"c"])).body == b"insideabc"


class Chunk(dict[str, Any]):
    """A message that can be referenced weakly."""


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [[], [GOOD_PASSWORD]])
async def test_nothing_of_a_body_is_kept_once_somebody_is_in(headers: list[tuple[bytes, bytes]]) -> None:
    async def receive() -> Any:
        return Chunk({"type": "http.request", "body": b"x", "more_body": True})

    async def send(message: Any) -> None:
        """Nobody listens."""

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            gone = weakref.ref(await receive())
            assert gone() is None
        await PlainTextResponse("")(scope, receive, send)

    guarded = Stack(AnyOf(JWT, basic_auth(), anonymous=True))(reading)
    await guarded(http_scope("POST", headers=headers), receive, send)


@pytest.mark.anyio
async def test_a_websocket_handshake_is_judged_like_a_request(house: House) -> None:
    for header in (GOOD_TOKEN, GOOD_KEY, GOOD_PASSWORD):
        assert (await connect(house.app, headers=[header])).status == 101
    refused = await connect(house.app)
    assert (refused.status, code(refused)) == (401, "credentials-missing")
    assert refused.all(b"www-authenticate") == [BEARER, AZURE, BASIC]
    closed = await connect(house.app, denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "credentials-missing"}]
    closed = await connect(house.app, headers=[BAD_KEY], denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "subscription-key-invalid"}]


@pytest.mark.anyio
async def test_mounted_apps_unknown_paths_and_options_are_no_way_around() -> None:
    async def fine(request: Any) -> PlainTextResponse:
        return PlainTextResponse("fine")

    inner = Starlette(routes=[Route("/a", fine)])
    outer = Starlette(routes=[Mount("/api", inner)])
    for policy in (AnyOf(JWT, basic_auth()), AllOf(JWT, basic_auth())):
        guarded = Stack(policy)(outer)
        for method, path in (("GET", "/api/a"), ("GET", "/nowhere"), ("OPTIONS", "/api/a"), ("HEAD", "/api/a")):
            answer = await call(guarded, method, path)
            assert answer.status == 401
            assert method != "HEAD" or answer.body == b""
    assert (
        await call(Stack(AnyOf(JWT, basic_auth()))(outer), "GET", "/api/a", headers=[GOOD_PASSWORD])
    ).body == b"fine"


@pytest.mark.anyio
async def test_chunks_pass_one_by_one(house: House) -> None:
    answer = await house.ask(GOOD_PASSWORD)
    assert [each.get("body") for each in answer.messages[1:]] == [b"in", b"side"]


@pytest.mark.anyio
async def test_an_error_of_the_app_passes_through() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    for policy in (AnyOf(JWT, basic_auth()), AnyOf(JWT, anonymous=True)):
        with pytest.raises(RuntimeError, match="the app"):
            await call(Stack(policy)(broken), headers=[GOOD_PASSWORD])


@pytest.mark.anyio
async def test_a_client_that_leaves_leaves_nothing_behind(house: House) -> None:
    with pytest.raises(OSError, match="gone"):
        await house.ask(GOOD_PASSWORD, leave_after=1)
    assert (await house.ask(GOOD_PASSWORD)).status == 200


@pytest.mark.anyio
async def test_the_hooks_of_who_let_in_run_and_those_of_the_others_only_end() -> None:
    trace: list[str] = []

    @dataclass(frozen=True, kw_only=True)
    class Traced(Policy):
        guards: ClassVar[bool] = True
        name: str
        refuses: bool = False

        def on_request(self, exchange: Exchange) -> None:
            trace.append(f"{self.name} in")

        def on_response(self, exchange: Exchange) -> None:
            assert exchange.response is not None
            trace.append(f"{self.name} {exchange.response.status}")

        def on_end(self, exchange: Exchange) -> None:
            trace.append(f"{self.name} end")

    house = House(AnyOf(Stack(Traced(name="a"), JWT), Stack(Traced(name="b"), basic_auth())))
    assert (await house.ask(GOOD_PASSWORD)).status == 200
    assert trace == ["a in", "a 401", "a end", "b in", "b 200", "b end"]


@pytest.mark.anyio
async def test_nothing_of_it_is_left_in_the_scope() -> None:
    kept: list[Scope] = []

    def keeping(app: ASGIApp) -> ASGIApp:
        async def keep(scope: Scope, receive: Receive, send: Send) -> None:
            kept.append(scope)
            await app(scope, receive, send)

        return keep

    house = House(keeping, AnyOf(JWT, basic_auth()))
    await house.ask(GOOD_PASSWORD)
    await house.ask()
    assert [name for scope in kept for name in scope if name.startswith("apim_middleware")] == []


# The law, order and configuration


MINE: tuple[Callable[[random.Random], Layer], ...] = (
    lambda rng: AnyOf(key_auth(), basic_auth(), anonymous=rng.random() < 0.7, when_bad=rng.choice(("refuse", "next"))),
    lambda rng: AnyOf(Stack(MAKERS[4](rng), key_auth()), RequireHeader(name="x-a"), anonymous=rng.random() < 0.7),
    lambda rng: AllOf(RequireHeader(name="x-a"), key_auth()),
    lambda rng: basic_auth(optional=True),
    lambda rng: RequireHeader(name="x-b"),
    lambda rng: Authorize(when=lambda exchange: exchange.method == "POST"),
)


def layers_of(seed: str) -> list[Layer]:
    rng = random.Random(seed)
    return [rng.choice(MINE if rng.random() < 0.5 else MAKERS)(rng) for _ in range(rng.randint(2, 6))]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_stacks_with_them_behave_as_nested_ones(backend: str) -> None:
    async def compare() -> None:
        compared = 0
        for number in range(400):
            seed = f"{backend} either {number}"
            try:
                expected = await series(seed, layers_of(seed), nested=True)
            except ConfigError:
                with pytest.raises(ConfigError):
                    await series(seed, layers_of(seed), nested=False)
                continue
            assert await series(seed, layers_of(seed), nested=False) == expected, layers_of(seed)
            compared += 1
        assert compared > 100

    anyio.run(compare, backend=backend)


def test_order_is_checked_as_if_they_stood_there_themselves() -> None:
    with pytest.raises(ConfigError, match="Write AnyOf before RateLimit"):
        Stack(RateLimit(calls=1, per=1, by=by.principal), AnyOf(JWT, key_auth()))
    with pytest.raises(ConfigError, match="Write AllOf before RateLimit"):
        Stack(RateLimit(calls=1, per=1, by=by.subscription), AllOf(JWT, key_auth()))
    with pytest.raises(ConfigError, match="Write AnyOf before Cache"):
        Stack(Cache(ttl=60), AnyOf(JWT))
    with pytest.raises(ConfigError, match="Write AllOf before Cache"):
        Stack(Cache(ttl=60), AllOf(JWT))
    with pytest.raises(ConfigError, match="Write JWTAuth before Authorize"):
        AllOf(Authorize(), JWT)
    with pytest.raises(ConfigError, match="Write JWTAuth before AnyOf"):
        Stack(AnyOf(Authorize()), JWT)
    Stack(JWT, AnyOf(Authorize(roles="a"), IPFilter(allow=("10.0.0.0/8",))))
    assert AllOf(JWT, Authorize()).needs == frozenset()
    assert AnyOf(JWT, key_auth()).provides == {"principal", "subscription"}


@pytest.mark.parametrize("kind", [AnyOf, AllOf])
@pytest.mark.parametrize(
    "layers",
    [
        (),
        (GZipMiddleware,),
        (JWTAuth,),
        (lambda app: app,),
        (SetHeader(name="a", value="b", on="request"),),
        (JWT, Stack(SetHeader(name="a", value="b", on="request"))),
        (JWT, key_auth(optional=True)),
        (Stack(basic_auth(optional=True), Authorize()),),
        (AnyOf(JWT, anonymous=True), key_auth()),
        ([JWT, key_auth()],),
    ],
)
def test_what_lets_in_everybody_is_a_mistake(kind: Any, layers: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(*layers)
    assert (caught.value.policy, caught.value.field) == (kind.__name__, "layers")


def test_other_mistakes_name_their_field() -> None:
    for field, given in (("when_bad", "ignore"), ("anonymous", "yes"), ("anonymus", True)):
        with pytest.raises(ConfigError) as caught:
            AnyOf(JWT, **{field: given})  # type: ignore[arg-type]
        assert (caught.value.policy, caught.value.field) == ("AnyOf", field)


@pytest.mark.parametrize("kind", [AnyOf, AllOf])
def test_they_are_given_one_after_the_other(kind: Any) -> None:
    for given in (None, (JWT,)):
        with pytest.raises(ConfigError, match=rf"{kind.__name__}\.layers: is not given by name"):
            kind(layers=given)


def test_they_are_values() -> None:
    one = AnyOf(JWT, RequireHeader(name="x-a"), anonymous=True)
    assert one == AnyOf(JWT, RequireHeader(name="x-a"), anonymous=True)
    assert one != AnyOf(JWT, RequireHeader(name="x-a"))
    assert copy.copy(one) == pickle.loads(pickle.dumps(one)) == one
    assert repr(AllOf(RequireHeader(name="x-a"))) == f"AllOf({RequireHeader(name='x-a')!r})"
    assert repr(one).endswith("RequireHeader(name='x-a'), anonymous=True)")
