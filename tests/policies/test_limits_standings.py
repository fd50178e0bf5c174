"""Counts read, set and reset at run time."""

import gc
import math
from typing import Any

import pytest

from apim_middleware import by, conditions
from apim_middleware._limits.overrides import Overrides
from apim_middleware._limits.standings import Standings
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.policy import Stack
from apim_middleware.testing import FakeClock, call

from .counting import AWAY, Counting, SlowCounters, left, sent, statuses

pytestmark = pytest.mark.anyio


user = by.header("x-user")
POLICY = RateLimit(rate="3/minute; 50/hour", window="fixed", name="burst", by=user)
ADA = sent(x_user="ada")


async def test_where_a_key_stands_can_be_read(env: Env, app: Counting) -> None:
    guarded = Stack(POLICY, env=env, place="orders")(app)
    await statuses(guarded, 2, **ADA)
    minute, hour = await Standings(env).read(POLICY, "ada")
    assert (minute.name, minute.quota, minute.used, minute.remaining, minute.reset) == ("burst-60s", 3, 2, 1, 60.0)
    assert (hour.name, hour.quota, hour.used, hour.remaining) == ("burst-3600s", 50, 2, 48)
    assert (await Standings(env).read(POLICY, "bob"))[0].used == 0
    assert left(await call(guarded, **ADA)) == [0, 47]  # reading used nothing


async def test_a_key_can_be_set_free(env: Env, app: Counting) -> None:
    guarded = Stack(POLICY, env=env)(app)
    assert await statuses(guarded, 4, **ADA) == [200, 200, 200, 429]
    await Standings(env).reset(POLICY, "ada")
    assert await statuses(guarded, 4, **ADA) == [200, 200, 200, 429]


async def test_a_count_can_be_set(env: Env, app: Counting) -> None:
    guarded = Stack(POLICY, env=env)(app)
    await Standings(env).set(POLICY, "ada", 2)
    assert left(await call(guarded, **ADA)) == [0, 47]
    await Standings(env).set(POLICY, "ada", 99)
    assert (await call(guarded, **ADA)).status == 429
    assert (await Standings(env).read(POLICY, "ada"))[0].remaining == 0
    with pytest.raises(ValueError, match="fewer than 0"):
        await Standings(env).set(POLICY, "ada", -1)


async def test_a_count_can_be_set_to_nothing(env: Env, app: Counting) -> None:
    guarded = Stack(POLICY, env=env)(app)
    assert await statuses(guarded, 4, **ADA) == [200, 200, 200, 429]
    await Standings(env).set(POLICY, "ada", 0)
    assert left(await call(guarded, **ADA)) == [2, 49]


async def test_a_limit_can_be_named_by_its_place(env: Env, app: Counting) -> None:
    stacks = [Stack(POLICY, env=env, place=place)(app) for place in ("orders", "users")]
    for guarded in stacks:
        await call(guarded, **ADA)
    orders, users = Standings(env).places()
    assert ("orders/" in orders, "users/" in users) == (True, True)
    await Standings(env).reset(users, "ada")
    assert [standing.used for standing in await Standings(env).read(POLICY, "ada")] == [1, 1, 0, 0]


async def test_a_place_says_whose_limit_it_is_and_what_is_unusual_about_it(env: Env, app: Counting) -> None:
    """Nothing else: what counts today is to be found by the next version too, which may have more fields."""
    policies = POLICY, RateLimit(calls=9, per=60, by=user, cost=3)
    stacks = [Stack(policy, env=env, place="orders")(app) for policy in policies]
    usual, costly = Standings(env).places()
    assert usual == "here/orders/RateLimit/burst/apim_middleware.by.header%28%27x-user%27%29"
    assert costly == usual.replace("burst", "default") + "/cost=3"
    assert len(stacks) == 2  # they keep their limits


@pytest.mark.parametrize("key", ["k" * 500, "caf\u00e9", ""])
async def test_any_key_can_be_looked_up(env: Env, app: Counting, key: str) -> None:
    policy = RateLimit(calls=3, per=60, by=lambda exchange: key)
    guarded = Stack(policy, env=env)(app)
    await call(guarded)
    assert [standing.used for standing in await Standings(env).read(policy, key)] == [1]


async def test_those_nobody_knows_can_be_looked_up_together(env: Env, app: Counting) -> None:
    policy = RateLimit(calls=3, per=60, by=user, when_unknown="together")
    guarded = Stack(policy, env=env)(app)
    await call(guarded)
    assert [standing.used for standing in await Standings(env).read(policy, None)] == [1]


async def test_limits_that_decide_together_are_looked_up_alone_or_all_at_once(env: Env, app: Counting) -> None:
    quota = Quota(calls=9, period="lifetime", by=user)
    both = Limits(RateLimit(calls=5, per=60, by=user), quota)
    guarded = Stack(both, env=env)(app)
    await call(guarded, **ADA)
    assert sorted(standing.remaining for standing in await Standings(env).read(both, "ada")) == [4, 8]
    [standing] = await Standings(env).read(quota, "ada")
    assert (standing.used, standing.reset) == (1, math.inf)


async def test_the_terms_of_a_key_are_those_it_is_served_under(env: Env, app: Counting) -> None:
    overrides = Overrides()
    overrides.set("bob", 7)
    policy = RateLimit(calls=1, per=60, by=user, tier=by.header("x-plan"), tiers={"gold": 5}, overrides=overrides)
    guarded = Stack(policy, env=env)(app)
    await call(guarded, **sent(x_user="ada", x_plan="gold"))
    await call(guarded, **sent(x_user="bob"))
    read = Standings(env).read
    assert [(each.quota, each.used) for each in await read(policy, "ada", tier="gold")] == [(5, 1)]
    assert [(each.quota, each.used) for each in await read(policy, "ada")] == [(1, 0)]
    assert [(each.quota, each.used) for each in await read(policy, "bob")] == [(7, 1)]


async def test_a_bucket_stands_at_what_it_gives_at_once(env: Env, app: Counting) -> None:
    policy = RateLimit(calls=60, per=60, window="bucket", burst=5)
    guarded = Stack(policy, env=env)(app)
    await call(guarded)
    [standing] = await Standings(env).read(policy, "203.0.113.7")
    assert (standing.quota, standing.used, standing.remaining) == (5, 1, 4)


async def test_what_stands_nowhere_is_a_mistake(env: Env, app: Counting) -> None:
    with pytest.raises(ConfigError, match="limits nothing here"):
        await Standings(env).read(POLICY, "ada")
    guarded = Stack(POLICY, env=env)(app)
    await call(guarded, **ADA)
    with pytest.raises(ConfigError, match="limits nothing here"):
        await Standings(Env()).read(POLICY, "ada")
    del guarded
    gc.collect()
    assert Standings(env).places() == []


@pytest.mark.parametrize("used", [-1, 1.5, "3", True, None])
async def test_what_is_no_number_of_units_is_used_by_nobody(env: Env, app: Counting, used: Any) -> None:
    guarded = Stack(POLICY, env=env)(app)
    await call(guarded, **ADA)
    with pytest.raises(ValueError, match="nobody can have used"):
        await Standings(env).set(POLICY, "ada", used)


async def test_a_store_that_is_away_says_so(clock: FakeClock, slow: SlowCounters, app: Counting) -> None:
    env = Env(place="here", clock=clock, counters=slow)
    guarded = Stack(POLICY, env=env)(app)
    await call(guarded, **ADA)
    slow.failure = AWAY
    with pytest.raises(StoreError):
        await Standings(env).read(POLICY, "ada")


async def test_all_that_waits_can_be_settled_at_the_end_of_a_lifespan(
    clock: FakeClock, slow: SlowCounters, app: Counting
) -> None:
    env = Env(place="here", clock=clock, counters=slow)
    guarded = Stack(RateLimit(calls=9, per=60, count_when=conditions.failed), env=env)(app)
    for _ in range(3):
        await call(guarded)
    await Standings(env).settled()
    assert [change.units for change in slow.changes] == [-1] * 3


async def test_what_cannot_be_settled_is_kept_and_said(clock: FakeClock, slow: SlowCounters) -> None:
    async def breaks(scope, receive, send):  # type: ignore[no-untyped-def]
        slow.failure = AWAY
        await Counting()(scope, receive, send)

    env = Env(place="here", clock=clock, counters=slow)
    guarded = Stack(RateLimit(calls=9, per=60, count_when=conditions.failed), env=env)(breaks)
    await call(guarded)
    with pytest.raises(StoreError):
        await Standings(env).settled()
    slow.failure = None
    clock.advance(1)
    await Standings(env).settled()
    assert [change.units for change in slow.changes] == [-1]
    assert slow.calls[-2:] == ["peek", "settle"]  # found out by what does no harm when it is done twice
