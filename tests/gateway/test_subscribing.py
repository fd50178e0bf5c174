"""What a product promises about subscriptions is kept: who may have one, how many, and who approves it."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.houses import KEY, Backend, code, get

from apim_middleware.configuration import load
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, SubscriptionRefused
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.identity import Subscription
from apim_middleware.model import Api, Product, User
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.stores.keys import KeyRecord, MemoryKeys, NewSubscription
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.stores.records import MemoryRecords
from apim_middleware.testing import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "records"])
def keys(request: pytest.FixtureRequest, clock: FakeClock) -> Any:
    return MemoryKeys(clock=clock) if request.param == "memory" else RecordKeys(MemoryRecords(clock=clock), clock=clock)


async def done(change: Any) -> Any:
    """What a change gives, whether the store has to be waited for or not."""
    return await change if inspect.isawaitable(change) else change


def shop(keys: Any, *, clock: FakeClock | None = None, **promises: Any) -> Gateway:
    return Gateway(
        apis=(Api("orders", "/orders", backend=Backend()),),
        products=(Product("starter", apis=("orders",), **promises), Product("other", apis=("orders",))),
        keys=keys,
        env=None if clock is None else Env(clock=clock),
    )


async def statuses(gateway: Any, made: NewSubscription) -> list[int]:
    """What its two keys bring."""
    found = [await get(gateway, "/orders", [(KEY, key.encode())]) for key in (made.primary, made.secondary)]
    return [answer.status for answer in found]


async def refused(gateway: Gateway, product: str = "starter", **asked: Any) -> SubscriptionRefused:
    with pytest.raises(SubscriptionRefused) as caught:
        await gateway.subscribe(product, **{"owner": "ada", **asked})
    return caught.value


# Approval


async def test_both_keys_of_a_new_subscription_work(keys: Any) -> None:
    gateway = shop(keys)
    made = await gateway.subscribe("starter", owner="ada")
    assert (made.state, made.subscription.product, made.subscription.owner) == ("active", "starter", "ada")
    assert await statuses(gateway, made) == [200, 200]


async def test_a_subscription_that_needs_approval_works_when_it_has_it(keys: Any) -> None:
    gateway = shop(keys, approval_required=True)
    made = await gateway.subscribe("starter", owner="ada")
    assert made.state == "submitted"
    assert await statuses(gateway, made) == [401, 401]
    await done(keys.approve(made.subscription.id))
    assert await statuses(gateway, made) == [200, 200]


async def test_a_subscription_that_was_rejected_never_works(keys: Any) -> None:
    gateway = shop(keys, approval_required=True)
    made = await gateway.subscribe("starter", owner="ada")
    await done(keys.reject(made.subscription.id))
    assert await statuses(gateway, made) == [401, 401]


async def test_who_waits_for_approval_can_be_told_so() -> None:
    keys = MemoryKeys()
    gateway = shop(APIKeyAuth(keys=keys, tell_state=True), approval_required=True)
    made = await gateway.subscribe("starter", owner="ada")
    answer = await get(gateway, "/orders", [(KEY, made.primary.encode())])
    assert (answer.status, code(answer)) == (403, "subscription-submitted")
    keys.reject(made.subscription.id)
    assert code(await get(gateway, "/orders", [(KEY, made.primary.encode())])) == "subscription-rejected"


@pytest.mark.parametrize("verdict", ["approve", "reject"])
async def test_saying_it_twice_is_saying_it_once(keys: Any, verdict: str) -> None:
    made = await shop(keys, approval_required=True).subscribe("starter", owner="ada")
    await done(getattr(keys, verdict)(made.subscription.id))
    before = await done(keys.keyring(made.subscription.id))
    await done(getattr(keys, verdict)(made.subscription.id))
    assert await done(keys.keyring(made.subscription.id)) == before


@pytest.mark.parametrize(
    ("state", "verdict", "cure"),
    [
        *((state, "approve", "Resume it") for state in ("rejected", "suspended", "cancelled", "expired")),
        *((state, "reject", "Cancel it") for state in ("active", "suspended", "cancelled", "expired")),
    ],
)
async def test_only_who_waits_is_approved_or_rejected(keys: Any, state: Any, verdict: str, cure: str) -> None:
    made = await shop(keys).subscribe("starter", owner="ada", subscription_id="mine")
    await done(keys.set_state("mine", state))
    with pytest.raises(SubscriptionRefused) as caught:
        await done(getattr(keys, verdict)(made.subscription.id))
    assert caught.value.code == "subscription-not-waiting"
    assert f"'mine' of 'ada' for product 'starter' waits for no approval: it is {state}. {cure}" in str(caught.value)
    assert (await done(keys.keyring("mine"))).state == state


async def test_who_waits_is_found_among_all(keys: Any) -> None:
    gateway = shop(keys, approval_required=True)
    for product in ("starter", "other"):
        await gateway.subscribe(product, owner="ada", subscription_id=product)
    assert [(ring.subscription.id, ring.state) for ring in await done(keys.keyrings())] == [
        ("other", "active"),
        ("starter", "submitted"),
    ]


# Who may have one


@pytest.mark.parametrize(
    ("promises", "asked", "why", "told"),
    [
        ({}, {"product": "gold"}, "product-unknown", "product 'gold': there is none of this name. Name one"),
        ({"published": False}, {}, "product-not-published", "product 'starter': it is not published. Publish it"),
        ({"groups": ("staff", "partners")}, {}, "product-not-for-owner", "it is for staff and partners only. Give"),
        ({"groups": ("staff",)}, {"owner": User("ada", groups=("guests",))}, "product-not-for-owner", "for staff only"),
        ({}, {"owner": User("ada", state="blocked")}, "owner-not-active", "this user is blocked. Make"),
        ({}, {"owner": User("ada", state="pending")}, "owner-not-active", "this user is pending. Make"),
    ],
)
async def test_who_may_not_subscribe_is_told_why(
    keys: Any, promises: dict[str, Any], asked: dict[str, Any], why: str, told: str
) -> None:
    error = await refused(shop(keys, **promises), **asked)
    assert error.code == why
    assert str(error).startswith("'ada' cannot subscribe to product")
    assert told in str(error)
    assert await done(keys.keyrings()) == []


async def test_a_member_of_one_of_its_groups_may_subscribe(keys: Any) -> None:
    gateway = shop(keys, groups=("staff", "partners"))
    made = await gateway.subscribe("starter", owner=User("ada", groups=("guests", "partners")))
    assert made.subscription.owner == "ada"


async def test_nobody_cannot_subscribe(keys: Any) -> None:
    with pytest.raises(ConfigError, match=r"User\.id"):
        await shop(keys).subscribe("starter", owner="")


async def test_keys_of_a_product_work_on_when_it_is_published_no_more(keys: Any) -> None:
    made = await shop(keys).subscribe("starter", owner="ada")
    assert await statuses(shop(keys, published=False), made) == [200, 200]


async def test_an_id_is_taken_once(keys: Any) -> None:
    gateway = shop(keys, subscriptions_limit=5)
    made = await gateway.subscribe("starter", owner="ada", subscription_id="mine")
    for owner, product in (("ada", "starter"), ("bob", "other")):
        error = await refused(gateway, product, owner=owner, subscription_id="mine")
        assert error.code == "subscription-exists"
        assert f"subscription 'mine' of {owner!r} for product {product!r} cannot begin" in str(error)
    assert await statuses(gateway, made) == [200, 200]


async def test_each_subscription_has_an_id_of_its_own(keys: Any) -> None:
    gateway = shop(keys)
    made = [await gateway.subscribe("starter", owner="ada") for _ in range(3)]
    assert len({each.subscription.id for each in made}) == 3


# How many


async def test_an_owner_has_as_many_as_the_product_allows(keys: Any) -> None:
    gateway = shop(keys, subscriptions_limit=2)
    for _ in range(2):
        await gateway.subscribe("starter", owner="ada")
    error = await refused(gateway)
    assert error.code == "subscriptions-limit-reached"
    told = (
        "product 'starter' allows each owner 2 at a time, and 'ada' has 2. Cancel one, or raise its subscriptions_limit"
    )
    assert str(error) == f"{told}."
    assert len(await done(keys.keyrings())) == 2


async def test_each_owner_and_each_product_is_counted_apart(keys: Any) -> None:
    gateway = shop(keys, subscriptions_limit=1)
    for owner in ("ada", "Ada", "bob"):
        await gateway.subscribe("starter", owner=owner)
    for _ in range(3):
        await gateway.subscribe("other", owner="ada")
    assert len(await done(keys.keyrings())) == 6


@pytest.mark.parametrize(
    ("state", "takes"),
    [
        ("submitted", True),
        ("active", True),
        ("suspended", True),
        ("rejected", False),
        ("cancelled", False),
        ("expired", False),
    ],
)
async def test_what_is_over_makes_room(keys: Any, state: Any, takes: bool) -> None:
    gateway = shop(keys, subscriptions_limit=1)
    made = await gateway.subscribe("starter", owner="ada")
    await done(keys.set_state(made.subscription.id, state))
    if takes:
        assert (await refused(gateway)).code == "subscriptions-limit-reached"
    else:
        assert await statuses(gateway, await gateway.subscribe("starter", owner="ada")) == [200, 200]


async def test_one_that_expires_makes_room_by_the_clock(keys: Any, clock: FakeClock) -> None:
    gateway = shop(keys, clock=clock, subscriptions_limit=1)
    made = await gateway.subscribe("starter", owner="ada", expires=clock.now() + 60)
    assert await statuses(gateway, made) == [200, 200]
    clock.advance(59)
    assert (await refused(gateway)).code == "subscriptions-limit-reached"
    clock.advance(1)
    assert await statuses(gateway, made) == [401, 401]
    assert await statuses(gateway, await gateway.subscribe("starter", owner="ada")) == [200, 200]


@pytest.mark.parametrize("ahead", [0.0, -1.0, float("nan"), float("inf")])
async def test_a_time_to_expire_lies_ahead(keys: Any, clock: FakeClock, ahead: float) -> None:
    with pytest.raises(ValueError, match="is no time to expire: give seconds"):
        await shop(keys).subscribe("starter", owner="ada", expires=clock.now() + ahead)
    assert await done(keys.keyrings()) == []


async def test_who_has_more_than_a_new_limit_keeps_them_and_gets_no_other(keys: Any) -> None:
    app = Reloadable(shop(keys, subscriptions_limit=3))
    made = [await app.gateway.subscribe("starter", owner="ada") for _ in range(2)]
    await app.reload(shop(keys, subscriptions_limit=1, approval_required=True))
    assert [await statuses(app, each) for each in made] == [[200, 200], [200, 200]]
    assert "allows each owner 1 at a time, and 'ada' has 2" in str(await refused(app.gateway))
    await app.reload(shop(keys, subscriptions_limit=3))
    assert await statuses(app, await app.gateway.subscribe("starter", owner="ada")) == [200, 200]


# Where it is written, and where it is kept


async def test_a_product_in_a_file_keeps_its_promises(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        """
        keys = { ref = "keys" }
        [[apis]]
        name = "orders"
        path = "/orders"
        backend = { ref = "backend" }
        [[products]]
        name = "starter"
        apis = ["orders"]
        approval_required = true
        subscriptions_limit = 1
        """
    )
    gateway = load(file, names={"keys": MemoryKeys(), "backend": Backend()})
    assert (await gateway.subscribe("starter", owner="ada")).state == "submitted"
    assert (await refused(gateway)).code == "subscriptions-limit-reached"


async def test_keys_that_are_only_found_cannot_begin() -> None:
    class Found:
        def find(self, digest: bytes) -> KeyRecord | None:
            return None

    with pytest.raises(ConfigError, match=r"Gateway\.keys: .* cannot begin subscriptions\. Give MemoryKeys or Rec"):
        await shop(Found()).subscribe("starter", owner="ada")
    open_house = Gateway(apis=(Api("a", "/a", backend=Backend(), subscription_required=False),))
    with pytest.raises(ConfigError, match=r"Gateway\.keys"):
        await open_house.subscribe("starter", owner="ada")


async def test_no_key_is_shown_or_kept(keys: Any) -> None:
    made = await shop(keys, subscriptions_limit=1).subscribe("starter", owner="ada", subscription_id="mine")
    for text in (
        repr(made),
        repr(await done(keys.keyring("mine"))),
        str((await done(keys.keyring("mine"))).document()),
    ):
        assert made.primary not in text
        assert made.secondary not in text


async def test_what_an_administrator_adds_is_not_refused_and_counts(keys: Any) -> None:
    gateway = shop(keys, subscriptions_limit=1)
    for name in ("one", "two"):
        await done(keys.add(Subscription(id=name, product="starter", owner="ada")))
    assert "'ada' has 2" in str(await refused(gateway))
