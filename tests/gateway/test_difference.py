"""What a new configuration changes is told route by route, and loudly where protection goes."""

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.gateway.houses import Backend, Passes

from apim_middleware._http.hygiene import Hygiene
from apim_middleware.env import Env
from apim_middleware.gateway import Gateway, difference
from apim_middleware.model import Api, Deprecation, Operation, Product, Revision, Version, Versions
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.authorize import Authorize
from apim_middleware.policies.client import IPFilter
from apim_middleware.policies.limits import RateLimit
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.types import ASGIApp

KEYS = MemoryKeys()
BACKEND = Backend()
LOCK = IPFilter(allow=("10.0.0.0/8",))
ENDING = Deprecation(since=datetime(2026, 1, 1, tzinfo=UTC))
LIMIT = RateLimit(calls=1, per=60)


def house(*policies: Any, products: Any = (), gateway: Any = (), **more: Any) -> Gateway:
    given = {"backend": BACKEND, "operations": (Operation("GET", "/x"), Operation("POST", "/x")), **more}
    return Gateway(
        apis=(Api("shop", "/shop", policies=policies, **given),),
        products=products,
        policies=gateway,
        keys=KEYS,
    )


def lines(old: Gateway, new: Gateway) -> list[str]:
    return [str(change).partition(" (")[0] for change in difference(old, new)]


def test_equal_gateways_do_not_differ() -> None:
    assert difference(house(LOCK), house(LOCK)) == ()


def foreign(app: ASGIApp) -> ASGIApp:
    return app


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (house(LOCK), house(), ["!! GET /shop/x: loses IPFilter", "!! POST /shop/x: loses IPFilter"]),
        (house(LIMIT), house(), ["!! GET /shop/x: loses RateLimit", "!! POST /shop/x: loses RateLimit"]),
        (house(gateway=(LOCK,)), house(), ["!! GET /shop/x: loses IPFilter", "!! POST /shop/x: loses IPFilter"]),
        (house(), house(LOCK), ["GET /shop/x: gains IPFilter", "POST /shop/x: gains IPFilter"]),
        (house(foreign), house(), ["GET /shop/x: loses foreign", "POST /shop/x: loses foreign"]),
        (
            house(LIMIT),
            house(RateLimit(calls=9, per=60)),
            ["!! GET /shop/x: changed RateLimit", "!! POST /shop/x: changed RateLimit"],
        ),
        (
            house(Authorize(claims={"admin": 1})),
            house(Authorize(claims={"admin": True})),
            ["!! GET /shop/x: changed Authorize", "!! POST /shop/x: changed Authorize"],
        ),
        (
            house(Passes("a"), LOCK),
            house(LOCK, Passes("a")),
            ["GET /shop/x: reordered policies", "POST /shop/x: reordered policies"],
        ),
        (
            house(),
            house(subscription_required=False),
            ["!! GET /shop/x: changed subscription_required", "!! POST /shop/x: changed subscription_required"],
        ),
        (
            house(),
            house(products=(Product("free", apis=("*",), subscription_required=False),)),
            [
                "!! Product free: added",
                "!! GET /shop/x: changed subscription_required",
                "!! POST /shop/x: changed subscription_required",
            ],
        ),
        (
            house(operations=(Operation("GET", "/x"),), gateway=(LOCK,)),
            house(operations=(Operation("GET", "/x", inherit=False),), gateway=(LOCK,)),
            ["!! GET /shop/x: loses IPFilter", "!! GET /shop/x: changed inherit"],
        ),
        (house(), house(operations=(Operation("GET", "/x"),)), ["POST /shop/x: removed"]),
        (house(operations=(Operation("GET", "/x"),)), house(), ["POST /shop/x: added"]),
        (
            house(operations=(Operation("GET", "/x"),), subscription_required=False),
            house(subscription_required=False),
            ["!! POST /shop/x: added"],
        ),
        (
            house(products=(Product("p", apis=("shop",), policies=(LIMIT,)),)),
            house(products=(Product("p", apis=("shop",)),)),
            ["!! Product p: loses RateLimit"],
        ),
        (
            house(products=(Product("p", apis=("shop",)),)),
            house(products=(Product("p", apis=(), inherit=False, published=False),)),
            ["!! Product p: changed inherit", "Product p: changed published", "Product p: loses Api shop"],
        ),
        (
            house(products=(Product("p", apis=("shop",), published=False),)),
            house(products=(Product("p", apis=("shop",)),)),
            ["!! Product p: changed published"],
        ),
        (
            house(products=(Product("p", apis=("shop",), groups=("staff",)),)),
            house(products=(Product("p", apis=("shop",)),)),
            ["!! Product p: changed groups"],
        ),
        (
            house(products=(Product("p", apis=("shop",), groups=("staff",)),)),
            house(products=(Product("p", apis=("shop",), groups=("staff", "guests")),)),
            ["!! Product p: changed groups"],
        ),
        (
            house(products=(Product("p", apis=("shop",)),)),
            house(products=(Product("p", apis=("shop",), groups=("staff",)),)),
            ["Product p: changed groups"],
        ),
        (
            house(products=(Product("z", apis=()), Product("b", apis=()))),
            house(products=(Product("a", apis=()),)),
            ["Product z: removed", "Product b: removed", "Product a: added"],
        ),
        (
            house(products=(Product("p", apis=(), approval_required=True, subscriptions_limit=1),)),
            house(products=(Product("p", apis=(), subscriptions_limit=2),)),
            ["!! Product p: changed approval_required", "!! Product p: changed subscriptions_limit"],
        ),
        (
            house(products=(Product("p", apis=(), subscriptions_limit=2),)),
            house(products=(Product("p", apis=()),)),
            ["!! Product p: changed subscriptions_limit"],
        ),
        (
            house(products=(Product("p", apis=()),)),
            house(products=(Product("p", apis=(), approval_required=True, subscriptions_limit=1),)),
            ["Product p: changed approval_required", "Product p: changed subscriptions_limit"],
        ),
        (house(products=(Product("p", apis=()),)), house(), ["Product p: removed"]),
        (house(), house(backend="http://x"), ["GET /shop/x: changed backend", "POST /shop/x: changed backend"]),
        (
            house(operations=(Operation("GET", "/x"),)),
            house(
                operations=(Operation("GET", "/x", deprecation=Deprecation(since=datetime(2026, 1, 1, tzinfo=UTC))),)
            ),
            ["GET /shop/x: changed deprecation, keys or state"],
        ),
    ],
)
def test_each_change_is_told(old: Gateway, new: Gateway, told: list[str]) -> None:
    assert lines(old, new) == told


LOCKED, REST = Operation("GET", "/x", policies=(LOCK,)), Operation("*", "/*")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ((LOCKED, REST), (REST,), ["!! GET /shop/x: removed and left to * /shop/*, without IPFilter"]),
        (
            (Operation("*", "/x", policies=(LOCK,)), LOCKED, REST),
            (LOCKED, REST),
            ["!! * /shop/x: removed and left to * /shop/*, without IPFilter"],
        ),
        (
            (Operation("GET", "/x/*", policies=(LOCK,)), Operation("GET", "/x/{id}", policies=(LOCK,)), REST),
            (Operation("GET", "/x/{id}", policies=(LOCK,)), REST),
            ["!! GET /shop/x/*: removed and left to * /shop/*, without IPFilter"],
        ),
        ((Operation("GET", "/x"), REST), (REST,), ["GET /shop/x: removed and left to * /shop/*"]),
        ((LOCKED,), (Operation("GET", "/y"),), ["GET /shop/x: removed", "GET /shop/y: added"]),
        (
            (Operation("*", "/*", policies=(LOCK,)),),
            (Operation("*", "/*", policies=(LOCK,)), Operation("GET", "/{year}-{month}/a?kind={kind}&n=1")),
            ["!! GET /shop/{year}-{month}/a?kind={kind}&n=1: added and takes from * /shop/*, without IPFilter"],
        ),
        (
            (Operation("GET", "/{id}", policies=(LOCK,)),),
            (Operation("GET", "/{number}", policies=(LOCK,)),),
            [
                "GET /shop/{id}: removed and left to GET /shop/{number}",
                "GET /shop/{number}: added and takes from GET /shop/{id}",
            ],
        ),
    ],
)
def test_it_is_loud_where_requests_go_to_a_route_with_less_protection(
    old: tuple[Operation, ...], new: tuple[Operation, ...], told: list[str]
) -> None:
    """A locked operation in front of a wildcard was "removed" in silence, and its requests went through that."""
    assert lines(house(operations=old), house(operations=new)) == told


def test_an_api_that_goes_leaves_its_requests_to_the_one_above_it() -> None:
    above = Api("shop", "/shop", backend=BACKEND, hosts=("*.example.com",))
    below = Api("till", "/shop/till", backend=BACKEND, hosts=("*.example.com",), policies=(LOCK,))
    told = lines(Gateway(apis=(above, below), keys=KEYS), Gateway(apis=(above,), keys=KEYS))
    assert told == [
        "!! * *.example.com/shop/till/*: removed and left to * *.example.com/shop/*, without IPFilter",
    ]


@pytest.mark.parametrize("by", ["path", "header", "query"])
def test_a_version_that_goes_leaves_nothing_to_the_default(by: Any) -> None:
    def versioned(*names: str) -> Gateway:
        versions = Versions(by, tuple(map(Version, names)), default="v1")
        return house(LOCK, versions=versions, operations=(Operation("GET", "/x"),))

    assert [line.partition(": ")[2] for line in lines(versioned("v1", "v2"), versioned("v1"))] == ["removed"]


@pytest.mark.parametrize(("policies", "mark"), [((LOCK,), "!! "), ((), "")])
def test_another_default_version_is_told(policies: tuple[Any, ...], mark: str) -> None:
    """Who names no version met another one, and nothing was told."""

    def defaulting(name: str) -> Gateway:
        versions = Versions("path", (Version("v1", policies=policies), Version("v2")), default=name)
        return house(versions=versions)

    [change] = difference(defaulting("v1"), defaulting("v2"))
    assert str(change) == f"{mark}Api shop: changed versions.default ('v1' -> 'v2')"


def test_another_name_of_what_names_the_version_is_told() -> None:
    def asked(parameter: str) -> Gateway:
        return house(versions=Versions("header", (Version("v1"),), parameter=parameter))

    assert lines(asked("x-a"), asked("x-b")) == ["Api shop: changed versions.parameter"]


def test_another_name_of_an_api_is_told() -> None:
    """Subscriptions for an API go by its name, and so do its counters."""
    old, new = (Gateway(apis=(Api(name, "/x", backend=BACKEND),), keys=KEYS) for name in ("a", "b"))
    assert [str(change) for change in difference(old, new)] == ["* /x/*: changed api ('a' -> 'b')"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"env": Env(hygiene=Hygiene(encoded_slashes="keep"))}, ["!! Gateway: changed env.hygiene"]),
        ({"env": Env(hygiene=Hygiene())}, []),
        ({"env": Env(place="elsewhere")}, ["Gateway: changed env.place"]),
        ({"keys": APIKeyAuth(keys=KEYS)}, ["Gateway: changed keys"]),
        ({"keys": APIKeyAuth(keys=MemoryKeys())}, ["Gateway: changed keys"]),
        ({"keys": APIKeyAuth(keys=KEYS, forward_key=True)}, ["!! Gateway: changed keys"]),
    ],
)
def test_what_every_request_meets_first_is_told(given: Any, told: list[str]) -> None:
    apis = (Api("shop", "/shop", backend=BACKEND),)
    assert lines(Gateway(apis=apis, keys=KEYS), Gateway(**{"apis": apis, "keys": KEYS, **given})) == told


def test_versions_and_revisions_are_routes_of_their_own() -> None:
    one, both = Version("v1"), (Version("v1"), Version("v2", revisions=(Revision(1), Revision(2))))
    operations = (Operation("GET", "/x"),)
    old = house(versions=Versions("path", (one,)), operations=operations)
    new = house(versions=Versions("path", both), operations=operations)
    assert lines(old, new) == ["GET /shop/v2/x: added", "GET /shop/v2;rev=2/x: added"]
    header = house(versions=Versions("header", (one,)), operations=operations)
    assert lines(old, header) == ["GET /shop/v1/x: removed", "GET /shop/x [v1]: added"]


def test_what_is_told_holds_values() -> None:
    [change, _] = difference(house(LOCK), house())
    assert (change.kind, change.where, change.what, change.loud) == ("loses", "GET /shop/x", "IPFilter", True)
    assert change.before == repr(LOCK)
    assert "('10.0.0.0/8',)" in str(change) or change.after == ""
