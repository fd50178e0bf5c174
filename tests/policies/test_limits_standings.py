"""Counts read, set and reset at run time."""

import gc
import math
from dataclasses import replace
from typing import Any

import pytest

from apim_middleware import by, conditions
from apim_middleware._limits.overrides import Overrides
from apim_middleware._limits.standings import Standing, Standings
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


def used(standings: list[Standing]) -> list[tuple[str | None, int, int]]:
    """The tier, the quota and what is used of each."""
    return [(each.tier, each.quota, each.used) for each in standings]


PLANNED = RateLimit(calls=5, per=60, by=user, tier=by.header("x-plan"), tiers={"gold": 50, "rapid": 500})
GOLD = sent(x_user="globex", x_plan="gold")


async def test_without_a_tier_what_was_used_in_every_tier_is_read(env: Env, app: Counting) -> None:
    """Reported by a user: it said that nothing was used, of the limit of those who have no tier."""
    guarded = Stack(PLANNED, env=env)(app)
    await statuses(guarded, 3, **GOLD)
    await statuses(guarded, 1, **sent(x_user="globex"))
    found = await Standings(env).read(PLANNED, "globex")
    assert used(found) == [(None, 5, 1), ("gold", 50, 3), ("rapid", 500, 0)]


async def test_without_a_tier_every_tier_is_reset(env: Env, app: Counting) -> None:
    """Reported by a user: it changed nothing."""
    guarded = Stack(PLANNED, env=env)(app)
    for plan in ("gold", "rapid", "other"):
        await statuses(guarded, 3, **sent(x_user="globex", x_plan=plan))
    await Standings(env).reset(PLANNED, "globex")
    assert [each.used for each in await Standings(env).read(PLANNED, "globex")] == [0, 0, 0]


@pytest.mark.parametrize(("tier", "left_of"), [("gold", [1, 0]), (None, [0, 3])])
async def test_one_tier_can_be_read_and_reset_alone(
    env: Env, app: Counting, tier: str | None, left_of: list[int]
) -> None:
    guarded = Stack(PLANNED, env=env)(app)
    await statuses(guarded, 3, **GOLD)
    await statuses(guarded, 1, **sent(x_user="globex"))
    [standing] = await Standings(env).read(PLANNED, "globex", tier=tier)
    assert standing.tier == tier
    await Standings(env).reset(PLANNED, "globex", tier=tier)
    assert [each.used for each in await Standings(env).read(PLANNED, "globex")][:2] == left_of


async def test_a_count_is_set_in_the_tier_that_is_said(env: Env, app: Counting) -> None:
    guarded = Stack(PLANNED, env=env)(app)
    await Standings(env).set(PLANNED, "globex", 4, tier="gold")
    await Standings(env).set(PLANNED, "globex", 2, tier=None)
    found = await Standings(env).read(PLANNED, "globex")
    assert used(found) == [(None, 5, 2), ("gold", 50, 4), ("rapid", 500, 0)]
    assert left(await call(guarded, **GOLD)) == [45]


async def test_a_count_is_not_set_without_the_tier_where_there_are_some(env: Env, app: Counting) -> None:
    """Reported by a user: it was that of nobody."""
    guarded = Stack(PLANNED, env=env)(app)
    with pytest.raises(ConfigError, match="gold, rapid"):
        await Standings(env).set(PLANNED, "globex", 4)
    assert left(await call(guarded, **GOLD)) == [49]


@pytest.mark.parametrize("act", ["read", "set", "reset"])
async def test_a_tier_that_is_none_is_a_mistake_that_names_those_there_are(env: Env, app: Counting, act: str) -> None:
    """Reported by a user: a misspelt tier was that of nobody."""
    guarded = Stack(PLANNED, env=env)(app)
    await call(guarded, **GOLD)
    more = (4,) if act == "set" else ()
    with pytest.raises(ConfigError, match=r"Standings\.tier: 'glod' is none of gold, rapid"):
        await getattr(Standings(env), act)(PLANNED, "globex", *more, tier="glod")


async def test_a_tier_of_a_policy_without_tiers_is_a_mistake(env: Env, app: Counting) -> None:
    guarded = Stack(POLICY, env=env)(app)
    await call(guarded, **ADA)
    with pytest.raises(ConfigError, match="has no tiers"):
        await Standings(env).read(POLICY, "ada", tier="gold")


def overridden(**rates: int | str) -> RateLimit:
    overrides = Overrides()
    for key, rate in rates.items():
        overrides.set(key, rate)
    return replace(PLANNED, overrides=overrides)


@pytest.mark.parametrize("more", [{}, {"tier": "gold"}, {"tier": None}])
async def test_an_override_is_read_whatever_the_tier(env: Env, app: Counting, more: dict[str, Any]) -> None:
    policy = overridden(globex=7)
    guarded = Stack(policy, env=env)(app)
    await statuses(guarded, 3, **GOLD)
    found = await Standings(env).read(policy, "globex", **more)
    assert used(found) == [(None, 7, 3)]
    assert found[0].overridden


async def test_an_override_is_set_without_a_tier(env: Env, app: Counting) -> None:
    policy = overridden(globex=7)
    guarded = Stack(policy, env=env)(app)
    await Standings(env).set(policy, "globex", 6)
    assert left(await call(guarded, **GOLD)) == [0]


async def test_what_was_counted_before_an_override_is_reset_with_it(env: Env, app: Counting) -> None:
    policy = overridden()
    assert isinstance(policy.overrides, Overrides)
    guarded = Stack(policy, env=env)(app)
    await statuses(guarded, 3, **GOLD)
    policy.overrides.set("globex", 7)
    await statuses(guarded, 2, **GOLD)
    await Standings(env).reset(policy, "globex")
    assert left(await call(guarded, **GOLD)) == [6]
    policy.overrides.remove("globex")
    assert left(await call(guarded, **GOLD)) == [49]


async def test_an_override_of_somebody_else_changes_nothing(env: Env, app: Counting) -> None:
    policy = overridden(initech=7)
    guarded = Stack(policy, env=env)(app)
    await statuses(guarded, 3, **GOLD)
    assert used(await Standings(env).read(policy, "globex", tier="gold")) == [("gold", 50, 3)]


async def test_of_limits_that_decide_together_each_is_read_in_its_tiers(env: Env, app: Counting) -> None:
    both = Limits(PLANNED, Quota(calls=9, period="lifetime", by=user))
    guarded = Stack(both, env=env)(app)
    await statuses(guarded, 3, **GOLD)
    found = await Standings(env).read(both, "globex", tier="gold")
    assert sorted(used(found), key=str) == [("gold", 50, 3), (None, 9, 3)]
    assert len(await Standings(env).read(both, "globex")) == 4


async def test_of_limits_that_decide_together_all_are_reset(env: Env, app: Counting) -> None:
    both = Limits(PLANNED, Quota(calls=9, period="lifetime", by=user))
    guarded = Stack(both, env=env)(app)
    await statuses(guarded, 3, **GOLD)
    await Standings(env).reset(both, "globex")
    assert {each.used for each in await Standings(env).read(both, "globex")} == {0}


async def test_limits_under_different_keys_are_not_looked_up_under_one(env: Env, app: Counting) -> None:
    """The key of one is nobody's in the other, of which nothing would seem used."""
    both = Limits(RateLimit(calls=5, per=60, by=user), Quota(calls=9, period="lifetime", by=by.client))
    guarded = Stack(both, env=env)(app)
    await call(guarded, **ADA)
    with pytest.raises(ConfigError, match="different keys"):
        await Standings(env).read(both, "ada")
    assert [each.used for each in await Standings(env).read(both.policies[0], "ada")] == [1]


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
