"""What a new configuration changes is told route by route, and loudly where protection goes."""

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.gateway.houses import Backend, Passes

from apim_middleware.gateway import Gateway, difference
from apim_middleware.model import Api, Deprecation, Operation, Product, Revision, Version, Versions
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
