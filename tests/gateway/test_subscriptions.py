"""Who may call what with which key, and in which context: the decisions are those of Azure API Management."""

import json
from collections.abc import Callable
from typing import Any

import anyio.lowlevel
import pytest
from tests.gateway.houses import KEY, Backend, Passes, Subscribers, code, get, told

from apim_middleware import by
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway
from apim_middleware.model import Api, Product
from apim_middleware.policies.access_log import AccessLog
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.limits import RateLimit
from apim_middleware.stores.keys import KeyRecord, MemoryKeys
from apim_middleware.testing import Answer, FakeClock, call, connect
from apim_middleware.types import RawHeaders

pytestmark = pytest.mark.anyio


class Distant:
    """A store one has to wait for, and that may be away."""

    def __init__(self, keys: MemoryKeys) -> None:
        self.keys = keys
        self.away = False

    async def find(self, digest: bytes) -> KeyRecord | None:
        await anyio.lowlevel.checkpoint()
        if self.away:
            raise StoreError("away")
        return self.keys.find(digest)


@pytest.fixture(params=["sync", "async"])
def store(request: pytest.FixtureRequest) -> Callable[[MemoryKeys], Any]:
    """The memory itself, and the same as if it were far away."""
    return Distant if request.param == "async" else lambda keys: keys


def house(store: Callable[[MemoryKeys], Any] = lambda keys: keys, **more: Any) -> tuple[Gateway, Subscribers]:
    """Products starter (orders), free (open, with status), gold (orders and status); an API news that asks nobody."""
    subscribers = Subscribers()
    for name, opens in {
        "starter": {"product": "starter"},
        "gold": {"product": "gold"},
        "orders": {"api": "orders"},
        "status": {"api": "status"},
        "all": {"api": "*"},
        "nothing": {},
        "stray": {"product": "unknown"},
    }.items():
        subscribers.add(name, **opens)
    products = tuple(
        Product(name, apis=apis, policies=(Passes(name),), subscription_required=name != "free")
        for name, apis in {"starter": ("orders",), "free": ("status",), "gold": ("orders", "status")}.items()
    )
    apis = (
        Api("orders", "/orders", backend=Backend("orders")),
        Api("status", "/status", backend=Backend("status")),
        Api("news", "/news", backend=Backend("news"), subscription_required=False),
    )
    return Gateway(apis=apis, products=products, keys=store(subscribers.store), **more), subscribers


@pytest.mark.parametrize(
    ("path", "key", "outcome"),
    [
        ("/orders", "starter", "starter"),
        ("/orders", "gold", "gold"),
        ("/orders", "orders", None),
        ("/orders", "all", None),
        ("/orders", "status", "subscription-key-invalid"),
        ("/orders", "nothing", "subscription-key-invalid"),
        ("/orders", "stray", "subscription-key-invalid"),
        ("/orders", "?", "subscription-key-invalid"),
        ("/orders", "", "subscription-key-missing"),
        # in an open product
        ("/status", "", "free"),
        ("/status", "?", "free"),
        ("/status", "starter", "free"),
        ("/status", "gold", "gold"),
        ("/status", "status", None),
        # an API that asks nobody
        ("/news", "", None),
        ("/news", "?", None),
        ("/news", "starter", None),
        ("/news", "all", None),
    ],
)
async def test_the_decision_is_azures(store: Callable[[MemoryKeys], Any], path: str, key: str, outcome: str) -> None:
    app, subscribers = house(store)
    headers = [] if not key else [(KEY, b"nobodys")] if key == "?" else subscribers.of(key)
    answer = await get(app, path, headers)
    if outcome is not None and outcome.startswith("subscription"):
        assert (answer.status, code(answer)) == (401, outcome)
        challenge = b'AzureApiManagementKey realm="api",name="Ocp-Apim-Subscription-Key",type="header"'
        assert answer.header(b"www-authenticate") == challenge
    else:
        assert told(answer)["product"] == outcome
        assert told(answer)["passed"] == ([outcome] if outcome else [])


async def test_a_key_that_is_ignored_leaves_nobody_behind() -> None:
    app, subscribers = house()
    await get(app, "/status", subscribers.of("starter"))
    scope = app.apis[1].backend.seen[-1]  # type: ignore[attr-defined]
    assert scope["exchange"].subscription is None
    assert scope["exchange"].principal is None
    assert "user" not in scope
    assert KEY not in dict(scope["headers"])


async def test_a_good_key_is_the_subscription_and_goes_no_further() -> None:
    app, subscribers = house()
    await get(app, "/orders", subscribers.of("starter"))
    scope = app.apis[0].backend.seen[-1]  # type: ignore[attr-defined]
    assert scope["exchange"].subscription.id == "starter"
    assert scope["user"].subject == "starter"
    assert KEY not in dict(scope["headers"])


def states(answer: Answer) -> tuple[int, str]:
    return answer.status, "" if answer.status == 200 else code(answer)


async def test_changes_hold_from_the_next_request_on(store: Callable[[MemoryKeys], Any]) -> None:
    app, subscribers = house(store)
    keys, lines = subscribers.store, subscribers.of("starter")
    good, bad = (200, ""), (401, "subscription-key-invalid")

    async def state() -> tuple[int, str]:
        return states(await get(app, "/orders", lines))

    assert await state() == good
    keys.suspend("starter")
    assert await state() == bad
    keys.resume("starter")
    assert await state() == good
    secondary = keys.issue("starter", "secondary").encode()
    assert states(await get(app, "/orders", [(KEY, secondary)])) == good
    keys.revoke("starter", "primary")
    assert await state() == bad
    assert states(await get(app, "/orders", [(KEY, secondary)])) == good
    keys.cancel("starter")
    assert states(await get(app, "/orders", [(KEY, secondary)])) == bad
    later = subscribers.add("later", product="starter")
    assert states(await get(app, "/orders", later)) == good


async def test_a_subscription_expires_by_the_clock() -> None:
    clock = FakeClock()
    app, subscribers = house(env=Env(clock=clock))
    subscribers.store.expire("starter", clock.now() + 10)
    assert (await get(app, "/orders", subscribers.of("starter"))).status == 200
    clock.advance(11)
    assert (await get(app, "/orders", subscribers.of("starter"))).status == 401


async def test_a_store_that_is_away_lets_no_key_in() -> None:
    subscribers = Subscribers()
    lines = subscribers.add("mine", product="p")
    distant = Distant(subscribers.store)
    distant.away = True
    app = Gateway(
        apis=(Api("a", "/a", backend=Backend()), Api("b", "/b", backend=Backend(), subscription_required=False)),
        products=(Product("p", apis=("a", "b")),),
        keys=distant,
    )
    for path in ("/a", "/b"):  # a key may bring stricter policies: it is not simply left out
        answer = await get(app, path, lines)
        assert (answer.status, code(answer)) == (503, "key-store-unavailable")
    assert (await get(app, "/b")).status == 200


async def test_keys_in_the_query_count_when_there_is_none_in_the_header() -> None:
    app, subscribers = house()
    query = b"a=1&subscription-key=" + subscribers.keys["starter"]
    answer = await call(app, "GET", "/orders", query=query)
    assert answer.status == 200
    assert app.apis[0].backend.seen[-1]["query_string"] == b"a=1"  # type: ignore[attr-defined]
    assert (await call(app, "GET", "/orders", query=query, headers=[(KEY, b"other")])).status == 401


async def test_an_api_may_take_its_keys_under_other_names() -> None:
    subscribers = Subscribers()
    subscribers.add("mine", api="*")
    key = subscribers.keys["mine"]
    app = Gateway(
        apis=(
            Api("a", "/a", backend=Backend(), key_header="x-api-key", key_query="code"),
            Api("b", "/b", backend=Backend()),
        ),
        keys=APIKeyAuth(keys=subscribers.store, header="x-shop-key", realm="shop"),
    )
    assert (await get(app, "/a", [(b"x-api-key", key)])).status == 200
    assert (await call(app, "GET", "/a", query=b"code=" + key)).status == 200
    refused = await get(app, "/a", [(b"x-shop-key", key)])
    assert refused.header(b"www-authenticate") == b'AzureApiManagementKey realm="shop",name="x-api-key",type="header"'
    assert (await get(app, "/b", [(b"x-shop-key", key)])).status == 200


async def test_a_websocket_needs_its_key_before_it_is_accepted() -> None:
    app, subscribers = house()
    assert (await connect(app, "/orders/live")).status == 401
    assert (await connect(app, "/orders/live", headers=subscribers.of("starter"))).status == 101


async def test_the_product_is_a_key_for_limits_and_knows_open_ones() -> None:
    keys: list[str | None] = []

    def noted(exchange: Exchange) -> str | None:
        keys.append(by.product(exchange))
        keys.append(by.api(exchange))
        keys.append(by.operation(exchange))
        return "x"

    app, subscribers = house(policies=(RateLimit(calls=10, per=60, by=noted),))
    await get(app, "/orders", subscribers.of("gold"))
    await get(app, "/status")
    await get(app, "/nowhere")
    assert keys == ["gold", "orders", "orders//any", "free", "status", "status//any", None, None, None]


def test_an_api_that_needs_keys_needs_a_store() -> None:
    with pytest.raises(ConfigError, match=r"Api a\.subscription_required: needs keys, and there are none\. Write Gat"):
        Gateway(apis=(Api("a", "/a", backend=Backend()),))
    Gateway(
        apis=(Api("a", "/a", backend=Backend()),),
        products=(Product("free", apis=("a",), subscription_required=False),),
    )


def test_an_api_is_in_one_open_product_at_most() -> None:
    with pytest.raises(ConfigError, match="is in the open products one and two"):
        Gateway(
            apis=(Api("a", "/a", backend=Backend()),),
            products=tuple(Product(name, apis=("a",), subscription_required=False) for name in ("one", "two")),
        )


def test_a_product_holds_apis_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"Product p\.apis: holds 'b', which is no API"):
        Gateway(
            apis=(Api("a", "/a", backend=Backend()),),
            products=(Product("p", apis=("a", "b")),),
            keys=MemoryKeys(),
        )


def test_the_store_is_not_shown() -> None:
    app, _ = house()
    assert "MemoryKeys" not in repr(app)
    with pytest.raises(ConfigError, match=r"Gateway\.keys"):
        Gateway(apis=app.apis, keys="secret")  # type: ignore[arg-type]


async def test_a_store_that_is_broken_refuses_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def find(self, digest: bytes) -> KeyRecord | None:
            raise KeyError("secret")

    app = Gateway(apis=(Api("a", "/a", backend=Backend()),), keys=Broken())
    answer = await get(app, "/a", [(KEY, b"k")])
    assert (answer.status, code(answer)) == (500, "policy-failed")
    assert b"secret" not in answer.body
    assert "a policy failed" in caplog.text


@pytest.mark.parametrize("sent", [[], [(KEY, b"no-key-of-ours")]], ids=["missing", "bad"])
async def test_a_call_without_a_good_key_is_noted_with_the_operation_it_was_for(
    store: Callable[[MemoryKeys], Any], sent: RawHeaders
) -> None:
    lines: list[str] = []
    app, _ = house(store, policies=(AccessLog(write=lines.append),))
    assert (await get(app, "/orders/7", sent)).status == 401
    line = json.loads(lines[0])
    assert (line["http.route"], line["apim.api"], line["apim.operation"]) == ("/orders/*", "orders", "any")
    assert "apim.product" not in line
