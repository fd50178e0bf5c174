"""Who may do this comes in, and nobody else; what was missing is told as a challenge where a challenge can help."""

import json
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from apim_middleware import by, conditions
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.branch import Choose
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policy import Policy, Stack
from apim_middleware.testing import Answer, call, connect, http_scope
from apim_middleware.types import Receive, Scope, Send

ISSUER = "https://issuer.example"
ADA = Principal(
    subject="ada",
    issuer=ISSUER,
    scopes=frozenset({"orders.read", "orders.write"}),
    claims=MappingProxyType(
        {
            "roles": ("editor", "auditor"),
            "groups": ("staff",),
            "tier": "gold",
            "admin": True,
            "level": 1,
            "amr": ("pwd", "mfa"),
            "https://example.com/roles": ("boss",),
            "realm_access": MappingProxyType({"roles": ("realm-boss",)}),
            "resource_access": MappingProxyType({"my.app": MappingProxyType({"roles": ("user",)})}),
            "odd": (MappingProxyType({}), None, ("nested",)),
            "nothing": None,
        }
    ),
)


class Says(Policy):
    """Somebody has said who is calling, or that nobody is known."""

    provides: ClassVar[frozenset[str]] = frozenset({"principal"})
    caller: ClassVar[Principal | None] = None

    def on_request(self, exchange: Exchange) -> None:
        if self.caller is not None:
            exchange.principal = self.caller


class SaysAda(Says):
    caller = ADA


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in", "more_body": True})
    await send({"type": "http.response.body", "body": b"side"})


async def ask(rule: Policy, *more: Any, who: Policy | None = None, **fields: Any) -> Answer:
    return await call(Stack(who or SaysAda(), rule)(app), *more, **fields)


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["code"]
    return found


MAY = {
    "somebody": {},
    "scopes": {"scopes": ("orders.read", "orders.write")},
    "scopes-in-one-text": {"scopes": "orders.read orders.write"},
    "any-scope": {"any_scope": ("orders.admin", "orders.read")},
    "roles": {"roles": ("editor", "auditor")},
    "one-role": {"roles": "editor"},
    "any-role": {"any_role": ("boss", "editor")},
    "groups": {"groups": "staff"},
    "any-group": {"any_group": ("guests", "staff")},
    "text": {"claims": {"tier": "gold"}},
    "one-of": {"claims": {"tier": ("silver", "gold")}},
    "member": {"claims": {"amr": "mfa"}},
    "true": {"claims": {"admin": True}},
    "number": {"claims": {"level": 1}},
    "nested": {"claims": {"realm_access.roles": "realm-boss"}},
    "uri": {"claims": {"https://example.com/roles": "boss"}},
    "steps": {"claims": {("resource_access", "my.app", "roles"): "user"}},
    "roles-nested": {"roles": "realm-boss", "roles_claim": "realm_access.roles"},
    "roles-uri": {"roles": "boss", "roles_claim": "https://example.com/roles"},
    "groups-elsewhere": {"groups": "user", "groups_claim": ("resource_access", "my.app", "roles")},
    "subject": {"subjects": ("eve", "ada"), "issuer": ISSUER},
    "issuer": {"issuer": ("https://other.example", ISSUER)},
    "function": {"allow": lambda exchange: exchange.method == "GET"},
    "everything": {"scopes": "orders.read", "any_role": "editor", "claims": {"tier": "gold"}, "allow": lambda _: True},
}

MAY_NOT = {
    "roles": {"roles": ("editor", "boss")},
    "role-in-other-case": {"roles": "Editor"},
    "part-of-a-role": {"roles": "edit"},
    "any-role": {"any_role": ("boss", "chief")},
    "groups": {"groups": ("staff", "board")},
    "any-group": {"any_group": ("guests",)},
    "text": {"claims": {"tier": "silver"}},
    "absent": {"claims": {"missing": "x"}},
    "one-is-not-true": {"claims": {"level": True}},
    "true-is-not-one": {"claims": {"admin": 1}},
    "text-is-not-number": {"claims": {"level": "1"}},
    "both": {"claims": {"tier": "gold", "level": 2}},
    "through-a-text": {"claims": {"tier.gold": "gold"}},
    "through-nothing": {"claims": {"nothing.more": "x"}},
    "an-object": {"claims": {"realm_access": "roles"}},
    "odd-members": {"claims": {"odd": "nested"}},
    "subject": {"subjects": "eve", "issuer": ISSUER},
    "subject-of-another-issuer": {"subjects": "ada", "issuer": "https://other.example"},
    "issuer": {"issuer": "https://issuer.example/"},
    "function": {"allow": lambda exchange: False},
    "function-that-forgets": {"allow": lambda exchange: None},
    "function-that-says-something-else": {"allow": lambda exchange: "no"},
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", MAY)
async def test_who_may_comes_in(name: str) -> None:
    answer = await ask(Authorize(**MAY[name]))
    assert (answer.status, answer.body) == (200, b"inside")


@pytest.mark.anyio
@pytest.mark.parametrize("name", MAY_NOT)
async def test_who_may_not_is_forbidden_without_a_challenge(name: str) -> None:
    answer = await ask(Authorize(**MAY_NOT[name]))
    assert (answer.status, code(answer), answer.header(b"www-authenticate")) == (403, "forbidden", None)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "scope"),
    [
        ({"scopes": "orders.read orders.admin"}, b"orders.read orders.admin"),
        ({"any_scope": ("billing", "billing.admin")}, b"billing"),
        ({"scopes": "orders.read", "any_scope": "billing all"}, b"orders.read billing"),
    ],
)
async def test_a_missing_scope_is_asked_for(fields: dict[str, Any], scope: bytes) -> None:
    """RFC 6750 section 3.1."""
    answer = await ask(Authorize(**fields))
    assert (answer.status, code(answer)) == (403, "insufficient-scope")
    challenge = b'Bearer realm="api", error="insufficient_scope", scope="%s"' % scope
    assert answer.all(b"www-authenticate") == [challenge]


@pytest.mark.anyio
async def test_nobody_is_asked_for_a_scope_that_would_not_help() -> None:
    assert code(await ask(Authorize(scopes="all", roles="boss"))) == "forbidden"


@pytest.mark.anyio
async def test_nobody_known_is_challenged() -> None:
    """RFC 9110 section 15.5.2: a 401 has a challenge; RFC 6750 section 3.1: without an error when nothing came."""
    answer = await ask(Authorize(), who=Says())
    assert (answer.status, code(answer)) == (401, "authentication-required")
    assert answer.all(b"www-authenticate") == [b'Bearer realm="api"']
    answer = await ask(Authorize(scopes="a b"), who=Says())
    assert answer.all(b"www-authenticate") == [b'Bearer realm="api", scope="a b"']


@pytest.mark.anyio
async def test_the_challenge_can_be_another() -> None:
    rule = Authorize(scopes="a", challenge=("Bearer", 'Basic realm="x", charset="UTF-8"'))
    answer = await ask(rule, who=Says())
    assert answer.all(b"www-authenticate") == [b'Bearer scope="a"', b'Basic realm="x", charset="UTF-8"']
    answer = await ask(rule)
    assert answer.all(b"www-authenticate") == [b'Bearer error="insufficient_scope", scope="a"']


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [True, False])
async def test_a_function_may_have_to_wait(answer: bool) -> None:
    async def may(exchange: Exchange) -> bool:
        return answer

    for function in (may, lambda exchange: may(exchange)):
        assert (await ask(Authorize(allow=function))).status == (200 if answer else 403)


@pytest.mark.anyio
async def test_a_function_is_asked_last_and_about_somebody() -> None:
    asked = []

    def may(exchange: Exchange) -> bool:
        asked.append(exchange.principal)
        return True

    await ask(Authorize(allow=may), who=Says())
    await ask(Authorize(allow=may, roles="boss"))
    await ask(Authorize(allow=may, scopes="all"))
    assert asked == []
    await ask(Authorize(allow=may))
    assert asked == [ADA]


@pytest.mark.anyio
async def test_a_function_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    def broken(exchange: Exchange) -> bool:
        raise LookupError("no such row")

    answer = await ask(Authorize(allow=broken))
    assert (answer.status, code(answer)) == (500, "policy-failed")
    assert b"row" not in answer.body


@pytest.mark.anyio
async def test_it_is_about_some_methods_and_paths_when_told_so() -> None:
    when = conditions.all_of(conditions.method("POST"), conditions.path("/orders/*"))
    rule = Authorize(roles="boss", when=when)
    asking = Authorize(allow=lambda _: False, when=when)
    for each in (rule, asking):
        assert (await ask(each, "POST", "/orders/1")).status == 403
        assert (await ask(each, "GET", "/orders/1")).status == 200
        assert (await ask(each, "POST", "/bills")).status == 200
        assert (await ask(each, "POST", "/x/../orders/1")).status == 400
        assert (await ask(each, "POST", "//orders//1")).status == 403


@pytest.mark.anyio
async def test_a_table_of_rules_can_end_in_a_refusal() -> None:
    table = Choose(
        (conditions.path("/public/*"), Authorize()),
        (conditions.path("/orders/*"), Authorize(scopes="orders.read")),
        otherwise=Authorize(allow=lambda _: False),
    )
    assert (await ask(table, path="/public/a")).status == 200
    assert (await ask(table, path="/orders/1")).status == 200
    assert (await ask(table, path="/Orders/1")).status == 403
    assert (await ask(table, path="/elsewhere")).status == 403


@pytest.mark.anyio
async def test_what_was_missing_is_an_attribute_and_no_secret_of_the_caller() -> None:
    seen: list[Exchange] = []

    class Watching(Policy):
        def on_response(self, exchange: Exchange) -> None:
            seen.append(exchange)

    for fields, failure in (({"roles": "x"}, "roles"), ({"scopes": "x"}, "scopes"), ({"issuer": "x"}, "issuer")):
        answer = await call(Stack(Watching(), SaysAda(), Authorize(**fields))(app))
        assert seen[-1].attributes["apim.authorize.failure"] == failure
        assert b"roles" not in answer.body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["roles", "a", "b", "c"]), json_values, max_size=4), json_values)
def test_any_claims_are_judged_without_an_error(claims: dict[str, Any], wanted: Any) -> None:
    asked = wanted if isinstance(wanted, str | int | float) else "x"
    caller = Principal(subject="x", claims=claims)
    exchange = Exchange(http_scope())
    exchange.principal = caller
    found = claims.get("a")
    members = found if isinstance(found, tuple) else (found,)
    expected = any(isinstance(each, bool) == isinstance(asked, bool) and each == asked for each in members)
    try:
        Authorize(claims={"a": asked}).bind(Env()).on_request(exchange)  # type: ignore[unused-coroutine]
    except Refusal:
        assert not expected
    else:
        assert expected


# Everywhere


@pytest.mark.anyio
async def test_a_websocket_handshake_is_judged_like_a_request() -> None:
    assert (await connect(Stack(SaysAda(), Authorize(roles="editor"))(app))).status == 101
    refusing = Stack(SaysAda(), Authorize(roles="boss"))(app)
    assert (await connect(refusing)).status == 403
    closed = await connect(refusing, denial=False)
    assert closed.messages == [{"type": "websocket.close", "code": 1008, "reason": "forbidden"}]


@pytest.mark.anyio
async def test_mounted_apps_unknown_paths_and_options_are_no_way_around() -> None:
    async def fine(request: Any) -> PlainTextResponse:
        return PlainTextResponse("fine")

    inner = Starlette(routes=[Route("/a", fine)])
    outer = Starlette(routes=[Mount("/api", inner)])
    guarded = Stack(SaysAda(), Authorize(roles="boss"))(outer)
    for method, path in (
        ("GET", "/api/a"),
        ("GET", "/nowhere"),
        ("OPTIONS", "/api/a"),
        ("HEAD", "/api/a"),
        ("BREW", "/"),
    ):
        assert (await call(guarded, method, path)).status == 403


@pytest.mark.anyio
async def test_an_error_of_the_app_passes_through() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app")

    with pytest.raises(RuntimeError, match="the app"):
        await call(Stack(SaysAda(), Authorize())(broken))


# Order and configuration


def test_it_stands_behind_an_authenticator_and_before_a_cache() -> None:
    with pytest.raises(ConfigError, match="Write Says before Authorize"):
        Stack(Authorize(), Says())
    with pytest.raises(ConfigError, match="Write Authorize before Cache"):
        Stack(Says(), Cache(ttl=60), Authorize())


def test_it_needs_what_its_functions_need() -> None:
    assert Authorize().needs == {"principal"}
    rule = Authorize(when=conditions.not_(conditions.path("/a")), allow=by.product)  # type: ignore[arg-type]
    assert rule.needs == {"principal", "subscription"}
    Stack(Says(), Authorize(), RateLimit(calls=1, per=1, by=by.principal))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("scopes", {"scopes": ('a"b',)}),
        ("scopes", {"scopes": ("a b",)}),
        ("any_scope", {"any_scope": ("",)}),
        ("roles", {"roles": ""}),
        ("any_role", {"any_role": ("a", "")}),
        ("groups", {"groups": ["staff"]}),
        ("claims", {"claims": {"tier": ()}}),
        ("claims", {"claims": {"tier": (1, float("nan"))}}),
        ("scopes", {"scopes": ""}),
        ("any_scope", {"any_scope": " "}),
        ("claims", {"claims": {"": "x"}}),
        ("claims", {"claims": {"a..b": "x"}}),
        ("claims", {"claims": {(): "x"}}),
        ("claims", {"claims": {"tier": None}}),
        ("roles_claim", {"roles_claim": ""}),
        ("groups_claim", {"groups_claim": ".a"}),
        ("subjects", {"subjects": "ada"}),
        ("issuer", {"issuer": ()}),
        ("allow", {"allow": True}),
        ("challenge", {"challenge": ""}),
        ("challenge", {"challenge": ()}),
        ("challenge", {"challenge": "Bearer realm=a b"}),
        ("challenge", {"challenge": 'Bearer realm="a\r\nb"'}),
        ("role", {"role": "x"}),
    ],
)
def test_a_mistake_is_told_while_building_and_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Authorize(**fields)
    assert (caught.value.policy, caught.value.field) == ("Authorize", field)


def test_a_condition_to_wait_for_is_a_mistake() -> None:
    async def later(exchange: Exchange) -> bool:
        return True

    with pytest.raises(ConfigError, match="Give a plain condition"):
        Authorize(when=later)
