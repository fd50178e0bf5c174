"""Keys: whom a limit counts, whom a cached response belongs to."""

import functools
import inspect
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apim_middleware import by, conditions
from apim_middleware._functions import name_of, needs
from apim_middleware.configuration._functions import NotAFunction, function_of
from apim_middleware.errors import ConfigError
from apim_middleware.exchange import Exchange
from apim_middleware.identity import Principal, Subscription
from apim_middleware.policies.limits import RateLimit
from apim_middleware.testing import http_scope

NOBODY = Exchange(http_scope(client=None))


def exchange(path: str = "/", **more: Any) -> Exchange:
    return Exchange(http_scope(path=path, **more))


def of_text(text: str | None) -> by.Key:
    return lambda exchange: text


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("64:ff9b::203.0.113.7", "203.0.113.7"),  # through NAT64: all IPv4 clients would be one /64
        ("64:ff9b::cb00:7107%eth0", "203.0.113.7"),
        ("64:ff9b:0:0:1::1", "64:ff9b::/64"),
        ("64:ff9b:1::cb00:7107", "64:ff9b:1::/64"),  # nobody but its operator knows where the IPv4 address stands
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_its_address_or_its_network(address: str, key: str) -> None:
    assert by.client(exchange(client=(address, 1))) == key


@pytest.mark.parametrize("client", [None, (), (None, 0), (None, None), ("", 0)])
def test_a_client_the_server_knows_nothing_of_is_unknown(client: Any) -> None:
    assert by.client(exchange(client=client)) is None


def test_a_product_is_that_of_the_subscription() -> None:
    found = exchange()
    assert by.product(found) is None
    found.subscription = Subscription(id="one")
    assert by.product(found) is None
    found.subscription = Subscription(id="one", product="maps")
    assert (by.product(found), needs(by.product)) == ("maps", {"subscription"})


def test_an_attribute_is_what_another_policy_noted() -> None:
    found = exchange()
    key = by.attribute("app.tenant")
    assert key(found) is None
    found.attributes["app.tenant"] = 7
    assert key(found) == "7"


ROUTES = by.route(login=conditions.path("/login"), reports=conditions.path("/reports/*"))


@pytest.mark.parametrize(
    ("path", "key"),
    [("/login", "login"), ("/reports/1", "reports"), ("/reports", "reports"), ("/invented", ""), ("/login/x", "")],
)
def test_a_route_is_one_of_those_that_were_named(path: str, key: str) -> None:
    assert ROUTES(exchange(path)) == key


def test_a_route_whose_condition_gives_something_to_await_is_a_mistake_and_not_true() -> None:
    class Promise:
        def __await__(self) -> Any:
            yield

    with pytest.raises(TypeError, match=r"login of by\.route gave something to await"):
        by.route(login=lambda found: Promise())(exchange())


def test_several_keys_can_be_one() -> None:
    key = by.both(by.client, by.header("x-tenant"), ROUTES)
    found = key(exchange("/login", headers=[(b"x-tenant", b"a")]))
    assert found == key(exchange("/login", headers=[(b"x-tenant", b"a")])) is not None
    assert found != key(exchange("/other", headers=[(b"x-tenant", b"a")]))


def test_several_keys_are_unknown_when_one_of_them_is() -> None:
    assert by.both(by.client, by.header("x-tenant"))(exchange()) is None
    assert by.both(by.header("x-tenant"), by.client)(exchange()) is None


@given(st.lists(st.text(max_size=8), min_size=2, max_size=3), st.lists(st.text(max_size=8), min_size=2, max_size=3))
def test_no_two_ways_to_cut_a_text_are_one_key(some: list[str], others: list[str]) -> None:
    first, second = (by.both(*map(of_text, texts))(NOBODY) for texts in (some, others))
    assert (first == second) == (some == others)


def test_the_first_known_key_counts_and_each_counts_apart() -> None:
    key = by.either(by.header("x-tenant"), by.client)
    tenant, client = exchange(headers=[(b"x-tenant", b"203.0.113.7")]), exchange()
    assert key(tenant) is not None
    assert key(client) is not None
    assert key(tenant) != key(client)
    assert key(NOBODY) is None


def test_a_key_of_several_relies_on_what_each_relies_on() -> None:
    assert needs(by.both(by.client, by.claim("tid"))) == {"client", "principal"}
    assert needs(by.either(by.subscription, by.client)) == {"client", "subscription"}
    assert needs(ROUTES) == frozenset()


def test_a_claim_is_the_callers() -> None:
    found = exchange()
    assert by.claim("tid")(found) is None
    found.principal = Principal(subject="ada", claims={"tid": "t1"})
    assert by.claim("tid")(found) == "t1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"), (True, "true"), (("admin", "fin"), '["admin","fin"]'), ((), "[]"), (["a"], '["a"]'),
        (MappingProxyType({"b": 1, "a": MappingProxyType({})}), '{"a":{},"b":1}'), ("", ""), (None, None),
        (frozenset("ba"), '["a","b"]'),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"), ({1: "a", "b": 2}, "{1: 'a', 'b': 2}"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_written_as_json(value: object, text: str | None) -> None:
    """It was written as Python has it, and sent to backends so."""
    found = exchange()
    found.principal = Principal(subject="ada", claims={"it": value})
    found.attributes["it"] = value
    assert (by.claim("it")(found), by.attribute("it")(found)) == (text, text)


def test_an_owner_is_that_of_the_subscription() -> None:
    found = exchange()
    known = [by.owner(found)]
    for each in (Subscription(id="a"), Subscription(id="a", owner="ada"), Subscription(id="b", owner="ada")):
        found.subscription = each
        known.append(by.owner(found))
    assert (known, needs(by.owner)) == ([None, None, "ada", "ada"], {"subscription"})


NAMES = [
    by.client, by.principal, by.everyone, by.product, by.header("x-a"), by.header("x-b"), by.claim("x-a"),
    by.attribute("x-a"), ROUTES, by.route(login=conditions.path("/sign-in")), by.both(by.client, by.header("x-a")),
    by.both(by.client, by.header("x-b")), by.either(by.client, by.header("x-a")), lambda exchange: "a",
]  # fmt: skip


def test_different_keys_have_different_names_in_every_process() -> None:
    names = [name_of(key) for key in NAMES]
    assert len(set(names)) == len(names)
    assert not any(" at 0x" in name for name in names)


async def later(exchange: Exchange) -> str:
    return "a"


class Later:
    async def __call__(self, exchange: Exchange) -> str:
        return "a"


@pytest.mark.parametrize(
    "make",
    [
        lambda: by.both(by.client, "x-tenant"),  # type: ignore[arg-type]
        lambda: by.either(by.client, later),  # type: ignore[arg-type]
        lambda: by.route(),
        lambda: by.route(login="/login"),  # type: ignore[arg-type]
        lambda: by.both(by.client, Later()),  # type: ignore[arg-type]
        lambda: by.either(by.header, by.client),  # type: ignore[arg-type]
        lambda: by.route(login=conditions.path),
        lambda: by.header(5),  # type: ignore[arg-type]
        lambda: by.header(""),
        lambda: by.header("X Tenant"),
        lambda: by.header("X-Forwarded-For"),
        lambda: by.header("forwarded"),
        lambda: by.header("X-Ten\u00e4nt\u20ac"),
        lambda: by.cookie(5),  # type: ignore[arg-type]
        lambda: by.cookie(""),
        lambda: by.cookie("a=b"),
        lambda: by.cookie("a;b"),
        lambda: by.cookie(" a"),
        lambda: by.cookie("\u20ac"),
        lambda: by.claim(""),
        lambda: by.claim(5),  # type: ignore[arg-type]
        lambda: by.attribute(""),
    ],
)
def test_what_is_no_key_is_a_mistake(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"by\."):
        make()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"Basic YWRhOmh1c2g=", "ada"),
        (b"basic YWRhOmh1c2g=", "ada"),
        (b"Basic YWRh", None),
        (b"Basic !", None),
        (b"Bearer YWRhOmh1c2g=", None),
        (None, None),
    ],
)
def test_a_username_is_the_one_that_was_tried(value: bytes | None, name: str | None) -> None:
    headers = [] if value is None else [(b"authorization", value)]
    assert by.username(Exchange(http_scope(headers=headers))) == name


@pytest.mark.parametrize("make", [by.header, by.cookie, by.claim, by.attribute])
def test_a_key_written_twice_is_one_key(make: Any) -> None:
    """Found by an audit: two cookies of one name were two keys, so that policies written alike were not equal."""
    assert make("a") == make("a") != make("b")


@pytest.mark.parametrize("name", ["session", "my cookie", "a,b", "\u00e9", '"a"'])
def test_every_name_that_can_come_is_that_of_a_cookie(name: str) -> None:
    found = exchange(headers=[(b"cookie", b"x=1; " + name.encode("latin-1") + b"=2")])
    assert by.cookie(name)(found) == "2"


def test_a_key_that_is_wrapped_like_a_factory_is_a_key() -> None:
    @functools.wraps(by.header)
    def key(exchange: Exchange) -> str:
        return "a"

    assert RateLimit(calls=1, per=1, by=key).by is key


def test_completion_offers_keys_alone() -> None:
    """Helpers and imports stood beside them."""
    assert dir(by) == sorted(by.__all__)


def test_whatever_makes_a_key_or_is_one_is_offered() -> None:
    made_here = (each for each in vars(by).values() if inspect.isfunction(each) and each.__module__ == by.__name__)
    public = {each.__name__ for each in made_here if not each.__name__.startswith("_")}
    assert public == set(by.__all__) - {"Key"}


@pytest.mark.parametrize("helper", ["made_once", "name_of", "annotated", "reads", "unseen"])
def test_a_helper_is_no_key_in_a_file(helper: str) -> None:
    with pytest.raises(NotAFunction, match="is no function of by or conditions"):
        function_of(f"by.{helper}(by.client)")
