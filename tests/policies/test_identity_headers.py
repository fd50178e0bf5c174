"""The upstream is told who is calling by nobody but us."""

import hashlib
import hmac
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from tests.laws.test_fusion import opaque

from apim_middleware._http.hygiene import Hygiene
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.identity_headers import IdentityHeaders
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import FakeClock, call, connect, http_scope
from apim_middleware.types import RawHeaders, Receive, Scope, Send

SECRET = b"0123456789abcdef0123456789abcdef"
ADA = Principal(
    subject="auth0|ada",
    issuer="https://issuer.example/",
    scopes=frozenset({"b", "a"}),
    claims=MappingProxyType(
        {
            "tid": "t-1",
            "level": 3,
            "admin": True,
            "realm_access": MappingProxyType({"roles": ("chief editor", "reader")}),
            "object": MappingProxyType({"a": 1}),
        }
    ),
)
ONE = Subscription(id="one", product="starter")
CLAIMS = {
    "X-Tenant": "tid",
    "X-Roles": "realm_access.roles",
    "X-Level": "level",
    "X-Admin": "admin",
    "X-Object": "object",
}


class Says(Policy):
    """Somebody has said who is calling."""

    provides: ClassVar[frozenset[str]] = frozenset({"principal", "subscription"})
    principal: ClassVar[Principal | None] = ADA
    subscription: ClassVar[Subscription | None] = ONE

    def on_request(self, exchange: Exchange) -> None:
        if self.principal is not None:
            exchange.principal = self.principal
        if self.subscription is not None:
            exchange.subscription = self.subscription


class SaysNobody(Says):
    principal = None
    subscription = None


class House:
    """An app behind identity headers; keeps the headers that reached it."""

    def __init__(self, *, who: Policy | None = None, hygiene: Hygiene | None = None, **fields: Any) -> None:
        self.clock = FakeClock(1_800_000_000.9)
        self.policy = IdentityHeaders(**fields)
        env = Env(clock=self.clock, hygiene=hygiene)
        self.app = Stack(who or Says(), opaque, self.policy, env=env)(self.inner)
        self.seen: list[RawHeaders] = []

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["headers"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in", "more_body": True})
        await send({"type": "http.response.body", "body": b"side"})

    async def ask(self, *headers: tuple[bytes, bytes]) -> dict[bytes, bytes]:
        """The headers that reached the app, which has each once."""
        answer = await call(self.app, headers=list(headers))
        assert (answer.status, answer.body) == (200, b"inside")
        found = dict(self.seen[-1])
        assert len(found) == len(self.seen[-1])
        return found


def signed(headers: dict[bytes, bytes], names: set[bytes], key: bytes = SECRET) -> int | None:
    """The seconds the headers were signed at, read as the docs tell an upstream to; None when they were not."""
    stamp, _, mac = headers.get(b"x-identity-signature", b"").partition(b",v1=")
    text = b"v1\n" + stamp.removeprefix(b"t=") + b"\n"
    for name in sorted(names & headers.keys()):
        text += name + b":" + headers[name] + b"\n"
    good = hmac.compare_digest(hmac.new(key, text, hashlib.sha256).hexdigest().encode(), mac)
    return int(stamp[2:]) if good else None


USUAL = {b"x-user-id", b"x-user-issuer", b"x-user-scopes", b"x-subscription-id", b"x-product-id"}


@pytest.mark.anyio
async def test_what_is_known_is_told() -> None:
    assert await House().ask((b"x-other", b"stays")) == {
        b"host": b"testserver",
        b"x-other": b"stays",
        b"x-user-id": b"auth0|ada",
        b"x-user-issuer": b"https://issuer.example/",
        b"x-user-scopes": b"a b",
        b"x-subscription-id": b"one",
        b"x-product-id": b"starter",
    }


@pytest.mark.anyio
async def test_claims_are_told_by_their_paths() -> None:
    found = await House(claims=CLAIMS).ask()
    assert {name: found.get(name.lower().encode()) for name in CLAIMS} == {
        "X-Tenant": b"t-1",
        "X-Roles": b"chief%20editor reader",
        "X-Level": b"3",
        "X-Admin": b"true",
        "X-Object": None,
    }


@pytest.mark.anyio
async def test_the_letters_of_a_claim_stay_as_they_are() -> None:
    """To an upstream that compares them, another case is another tenant."""

    class FromAcme(Says):
        principal = Principal(subject="ada", claims=MappingProxyType({"tid": "Acme-EU"}))

    found = await House(who=FromAcme(), claims={"X-Tenant": "tid"}).ask()
    assert found[b"x-tenant"] == b"Acme-EU"


@pytest.mark.anyio
async def test_names_can_be_others_and_headers_left_out() -> None:
    found = await House(user="Remote-User", issuer=None, scopes=None, subscription="X-Account", product=None).ask()
    assert found == {b"host": b"testserver", b"remote-user": b"auth0|ada", b"x-account": b"one"}


@pytest.mark.anyio
async def test_of_nobody_nothing_is_told() -> None:
    assert await House(who=SaysNobody(), claims=CLAIMS).ask() == {b"host": b"testserver"}


# What a caller sends


FORGED = [
    *((name, b"forged") for name in sorted(USUAL)),
    (b"x-tenant", b"forged"),
    (b"x-identity-signature", b"t=1,v1=00"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("who", [Says(), SaysNobody()])
@pytest.mark.parametrize("key", [None, SECRET])
async def test_what_a_caller_sends_in_them_never_arrives(who: Policy, key: bytes | None) -> None:
    """Single lines, doubled ones, and names that become the same as variables, even where hygiene keeps those."""
    house = House(who=who, key=key, claims={"X-Tenant": "missing"}, hygiene=Hygiene(odd_names="keep"))
    signs = (b"_", b".", b"~", b"!")
    twins = [(name.replace(b"-", sign, count), value) for name, value in FORGED for count in (1, 9) for sign in signs]
    found = await house.ask(*FORGED, *FORGED, *twins)
    assert b"forged" not in found.values()
    assert not any(sign in name for name in found for sign in signs)
    assert b"t=1,v1=00" not in found.values()


@pytest.mark.anyio
async def test_the_list_of_headers_is_replaced_and_not_changed() -> None:
    headers = [(b"host", b"testserver"), (b"x-user-id", b"forged")]
    await call(House().app, headers=headers)
    assert headers == [(b"host", b"testserver"), (b"x-user-id", b"forged")]


@pytest.mark.anyio
async def test_a_caller_cannot_have_them_taken_away_as_hop_by_hop() -> None:
    found = await House().ask((b"connection", b"close, x-user-id"))
    assert found[b"x-user-id"] == b"auth0|ada"


def told(subject: str) -> bytes:
    exchange = Exchange(http_scope())
    exchange.principal = Principal(subject=subject)
    IdentityHeaders().bind(Env()).on_request(exchange)
    return exchange.header(b"x-user-id") or b""


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("ada@example.org", b"ada@example.org"),
        ("CN=Ada, O=Example", b"CN=Ada,%20O=Example"),
        ("a\r\nX-Admin: 1", b"a%0D%0AX-Admin:%201"),
        ("a\0b\x7f", b"a%00b%7F"),
        ("100%", b"100%25"),
        ("Zo\u00eb \U0001f600", b"Zo%C3%AB%20%F0%9F%98%80"),
        ("\x85\u2028", b"%C2%85%E2%80%A8"),
        (" ", b"%20"),
    ],
)
def test_no_subject_becomes_anything_but_a_value(subject: str, expected: bytes) -> None:
    assert told(subject) == expected


@given(st.text(min_size=1))
def test_any_subject_comes_back_as_it_was(subject: str) -> None:
    value = told(subject)
    assert value.isascii()
    assert value.decode().isprintable()
    assert b" " not in value
    assert unquote(value.decode(), errors="strict") == subject


# Signed


@pytest.mark.anyio
async def test_a_signature_covers_all_of_them_and_the_time() -> None:
    house = House(key=SECRET, claims=CLAIMS)
    names = USUAL | {name.lower().encode() for name in CLAIMS}
    found = await house.ask()
    assert signed(found, names) == 1_800_000_000
    assert signed(found, names, key=SECRET[::-1]) is None
    for name in names & found.keys():
        assert signed({**found, name: b"forged"}, names) is None
        assert signed({each: value for each, value in found.items() if each != name}, names) is None
    assert signed({**found, b"x-object": b"forged"}, names) is None
    later = found[b"x-identity-signature"].replace(b"1800000000", b"1800000001")
    assert signed({**found, b"x-identity-signature": later}, names) is None


@pytest.mark.anyio
async def test_that_nobody_is_known_is_signed_too() -> None:
    found = await House(who=SaysNobody(), key=SECRET).ask()
    assert signed(found, USUAL) == 1_800_000_000
    assert USUAL.isdisjoint(found)


@pytest.mark.anyio
async def test_two_requests_do_not_share_a_signature() -> None:
    house = House(key=SECRET)
    first = await house.ask()
    house.clock.advance(5)
    second = await house.ask()
    assert signed(first, USUAL) == 1_800_000_000
    assert signed(second, USUAL) == 1_800_000_005


# Everywhere


@pytest.mark.anyio
async def test_a_websocket_handshake_has_them_too() -> None:
    house = House(key=SECRET)
    assert (await connect(house.app, headers=[(b"x-user-id", b"forged")])).status == 101
    assert dict(house.seen[0])[b"x-user-id"] == b"auth0|ada"
    assert signed(dict(house.seen[0]), USUAL) == 1_800_000_000


@pytest.mark.anyio
async def test_mounted_apps_unknown_paths_and_options_have_them_too() -> None:
    async def show(request: Request) -> JSONResponse:
        return JSONResponse(request.headers.getlist("x-user-id"))

    anything = Route("/{rest:path}", show, methods=["GET", "OPTIONS", "DELETE"])
    guarded = Stack(Says(), IdentityHeaders())(Starlette(routes=[Mount("/api", routes=[anything]), anything]))
    for method, path in (("GET", "/api/a"), ("DELETE", "/nowhere"), ("OPTIONS", "/api/a")):
        answer = await call(guarded, method, path, headers=[(b"x-user-id", b"forged")])
        assert answer.body == b'["auth0|ada"]'


@pytest.mark.anyio
async def test_an_error_of_the_app_passes_through() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    with pytest.raises(RuntimeError, match="the app"):
        await call(Stack(Says(), IdentityHeaders())(broken))


# Order and configuration


def test_it_stands_behind_who_says_who_is_calling() -> None:
    with pytest.raises(ConfigError, match="Write Says before IdentityHeaders"):
        Stack(IdentityHeaders(), Says())
    assert IdentityHeaders(subscription=None, product=None).needs == {"principal"}
    assert IdentityHeaders(user=None, issuer=None, scopes=None).needs == {"subscription"}


def test_the_key_is_not_shown() -> None:
    assert SECRET.decode() not in repr(IdentityHeaders(key=SECRET))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("user", {"user": ""}),
        ("user", {"user": "a b"}),
        ("user", {"user": "X-User\r\n"}),
        ("user", {"user": "x_user"}),
        ("user", {"user": "Authorization"}),
        ("user", {"user": "Content-Length"}),
        ("issuer", {"issuer": "Connection"}),
        ("scopes", {"scopes": "X-Forwarded-User"}),
        ("subscription", {"subscription": "X-Real-IP"}),
        ("product", {"product": "X-USER-ID"}),
        ("signature", {"signature": "x-user-id"}),
        ("claims", {"claims": {"x-user-id": "tid"}}),
        ("claims", {"claims": {"x-tenant": ""}}),
        ("claims", {"claims": {"a b": "tid"}}),
        ("user", {"user": None, "issuer": None, "scopes": None, "subscription": None, "product": None}),
        ("key", {"key": SECRET[:31]}),
        ("key", {"key": SECRET.decode()}),
        ("users", {"users": "x"}),
    ],
)
def test_a_mistake_is_told_while_building_and_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        IdentityHeaders(**fields)
    assert (caught.value.policy, caught.value.field) == ("IdentityHeaders", field)
    assert SECRET[:31].decode() not in str(caught.value)
