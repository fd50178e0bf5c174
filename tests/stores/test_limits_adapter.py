"""Counters in storages of the package limits: in memory and in a real Redis, asked in threads and awaited."""

import inspect
import threading
import time
import traceback
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import anyio
import limits.aio.storage
import limits.storage
import pytest
from starlette.responses import PlainTextResponse
from tests.servers import RedisServer

from apim_middleware import Env, LimitGuesses, Limits, Quota, RateLimit, Stack, by, conditions
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.protocols import Change, Hit, Limit
from apim_middleware.stores.limits import LimitsCounters
from apim_middleware.testing import FakeClock

from .conformance import BUCKET, CALENDAR, FIXED, LIFETIME, LOG, SLIDING, CountersConformance, each_of

KNOWN = each_of(FIXED, CALENDAR, SLIDING, LOG)
DAY = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def in_memory(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> LimitsCounters:
    """A storage whose time is the clock's, too."""
    monkeypatch.setattr("limits.storage.memory.time", SimpleNamespace(time=clock.now))
    return LimitsCounters("memory://", clock=clock)


def where_it_runs(*kinds: str) -> pytest.MarkDecorator:
    """Each kind of storage on both event loops, but those that are awaited: they know asyncio only."""
    pairs = [(loop, kind) for loop in ("asyncio", "trio") for kind in kinds]
    return pytest.mark.parametrize(
        ("anyio_backend", "kind"), [pair for pair in pairs if pair[0] == "asyncio" or not pair[1].startswith("async")]
    )


EACH_STORAGE = where_it_runs("memory", "async memory", "redis", "async redis")


@pytest.fixture
async def counters(request: pytest.FixtureRequest, kind: str, clock: FakeClock) -> AsyncIterator[Any]:
    """A storage of each kind, with a time of its own."""
    if kind.endswith("memory"):
        yield LimitsCounters(f"{kind.replace(' ', '+')}://", clock=clock)
        return
    server: RedisServer = request.getfixturevalue("shared_redis")
    request.getfixturevalue("emptied_redis")
    made = storage_at(f"{kind.replace(' ', '+')}{server.url.removeprefix('redis')}")
    yield LimitsCounters(made, clock=clock)
    await closed(made)


def storage_at(uri: str) -> Any:
    options = {"implementation": "redispy"} if uri.startswith("async") else {}
    return limits.storage.storage_from_string(uri, **options)


async def closed(storage: Any) -> None:
    """Close the connections, which limits has no way to do."""
    if isinstance(storage, limits.storage.RedisStorage):
        storage.storage.close()
    else:
        await storage.bridge.storage.aclose()


async def remaining(counters: LimitsCounters, *hits: Hit) -> list[int]:
    return [tally.remaining for tally in await counters.peek(hits)]


async def kept(promise: str, **given: Any) -> None:
    """Keep one of the promises of every store."""
    test = getattr(CountersConformance(), promise)
    await test(**{name: given[name] for name in inspect.signature(test).parameters})


@pytest.mark.parametrize(
    "promise",
    [
        "test_as_many_as_the_quota_pass_and_no_more",
        "test_a_refused_hit_counts_nothing",
        "test_a_hit_that_costs_more_than_the_quota_can_never_pass",
        "test_a_hit_that_costs_nothing_always_passes",
        "test_peeking_counts_nothing",
        "test_a_reset_forgets_this_key_under_this_limit_only",
        "test_of_a_thousand_at_once_exactly_the_quota_passes",
    ],
)
@KNOWN
@EACH_STORAGE
@pytest.mark.anyio
async def test_a_promise_of_every_store(counters: LimitsCounters, promise: str, limit: Limit) -> None:
    await kept(promise, counters=counters, limit=limit)


@pytest.mark.parametrize(
    "promise",
    [
        "test_several_limits_all_count_or_none_does",
        "test_nothing_to_count_is_nothing_to_say",
        "test_no_two_keys_share_a_count",
        "test_of_several_the_refusing_one_is_named_and_the_others_say_where_they_stand",
    ],
)
@EACH_STORAGE
@pytest.mark.anyio
async def test_a_promise_of_every_store_about_several(counters: LimitsCounters, promise: str) -> None:
    await kept(promise, counters=counters)


@pytest.mark.parametrize(
    "promise",
    ["test_units_can_be_given_back", "test_more_can_be_counted_than_was_free", "test_no_counter_falls_below_zero",
     "test_what_is_over_cannot_be_corrected", "test_a_correction_touches_its_own_counter_only",
     "test_more_can_be_counted_where_nothing_was", "test_what_was_never_counted_cannot_be_given_back",
     "test_a_moment_to_come_is_now", "test_a_counter_stands_where_it_is_put",
     "test_what_was_put_counts_as_used_just_now"],
)  # fmt: skip
@each_of(FIXED, CALENDAR)
@EACH_STORAGE
@pytest.mark.anyio
async def test_a_promise_of_every_store_about_corrections(
    counters: LimitsCounters, clock: FakeClock, promise: str, limit: Limit
) -> None:
    given = {"counters": counters, "clock": clock, "limit": limit, "units": -3}
    await kept(promise, **given)


@pytest.mark.parametrize(
    "promise",
    ["test_waiting_as_long_as_told_is_enough_and_less_is_not", "test_after_the_reset_the_whole_quota_is_there",
     "test_an_allowed_hit_is_told_when_the_next_can_pass", "test_the_time_told_is_as_good_when_windows_are_long",
     "test_a_whole_number_of_seconds_is_not_one_second_more", "test_a_store_says_when_it_counted"],
)  # fmt: skip
@each_of(FIXED, CALENDAR)
@pytest.mark.anyio
async def test_a_promise_of_every_store_about_time(
    in_memory: LimitsCounters, clock: FakeClock, promise: str, limit: Limit
) -> None:
    await kept(promise, counters=in_memory, clock=clock, limit=limit)


@pytest.mark.parametrize("later", [0.0, 0.25, 0.6, 1.01, 3.0])
@each_of(FIXED, CALENDAR)
@pytest.mark.anyio
async def test_what_is_counted_later_counts_as_used_at_its_moment(
    in_memory: LimitsCounters, clock: FakeClock, limit: Limit, later: float
) -> None:
    promise = "test_what_is_counted_later_counts_as_used_at_its_moment"
    await kept(promise, counters=in_memory, clock=clock, limit=limit, units=4, later=later)


@pytest.mark.anyio
async def test_who_is_counted_afterwards_is_refused_in_the_end(in_memory: LimitsCounters, clock: FakeClock) -> None:
    promise = "test_who_is_counted_afterwards_is_refused_in_the_end"
    await kept(promise, counters=in_memory, clock=clock, window="fixed")


@pytest.mark.parametrize(
    "promise",
    ["test_a_fixed_window_is_one_of_the_clock", "test_a_window_of_less_than_a_second_is_kept_as_exactly",
     "test_a_hit_at_the_very_boundary_is_counted_in_a_whole_window",
     "test_days_have_as_many_hours_as_the_zone_gives_them"],
)  # fmt: skip
@EACH_STORAGE
@pytest.mark.anyio
async def test_a_promise_of_every_store_about_windows(counters: LimitsCounters, clock: FakeClock, promise: str) -> None:
    await kept(promise, counters=counters, clock=clock)


@each_of(SLIDING, LOG)
@pytest.mark.parametrize("cost", [1, 3])
@pytest.mark.anyio
async def test_waiting_as_long_as_told_is_enough(
    in_memory: LimitsCounters, clock: FakeClock, limit: Limit, cost: int
) -> None:
    for step in (7.3, 0.1, 33.3, 41.0, 59.999, 12.0):
        clock.advance(step)
        while (tally := (await in_memory.hit([Hit("a", limit, cost)]))[0]).allowed:
            clock.advance(0.7)
        assert 0 < tally.retry_after <= 2 * limit.window
        clock.advance(tally.retry_after)
        assert (await in_memory.hit([Hit("a", limit, cost)]))[0].allowed


@each_of(SLIDING, LOG)
@pytest.mark.anyio
async def test_waiting_for_one_unit_less_than_told_is_not_enough(
    in_memory: LimitsCounters, clock: FakeClock, limit: Limit
) -> None:
    for step in (7.3, 0.1, 33.3, 41.0):
        clock.advance(step)
        while (tally := (await in_memory.hit([Hit("a", limit)]))[0]).allowed:
            clock.advance(0.7)
        clock.advance(tally.retry_after - 0.01)
        assert not (await in_memory.hit([Hit("a", limit)]))[0].allowed


@each_of(SLIDING, LOG)
@pytest.mark.anyio
async def test_after_the_reset_nothing_is_used(in_memory: LimitsCounters, clock: FakeClock, limit: Limit) -> None:
    clock.advance(12.5)
    [tally] = await in_memory.hit([Hit("a", limit, 7)])
    clock.advance(tally.reset)
    assert (await in_memory.peek([Hit("a", limit, 10)]))[0][:4] == (True, 10, 0.0, 0.0)


@each_of(SLIDING, LOG)
@EACH_STORAGE
@pytest.mark.anyio
async def test_what_is_put_stands_at_the_quota_at_most(counters: LimitsCounters, limit: Limit) -> None:
    await counters.hit([Hit("a", limit, 3)])
    for units, left in ((4, 6), (25, 0), (0, 10)):
        await counters.assign([Hit("a", limit, units)])
        assert await remaining(counters, Hit("a", limit)) == [left]


# Several limits, when others come in between


class Meddling(limits.storage.MemoryStorage):
    """While a unit is counted for "meddle", somebody else uses up everything."""

    STORAGE_SCHEME = None
    armed = False

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        if self.armed:
            super().acquire_entry(key, limit, expiry, limit)
        return super().acquire_entry(key, limit, expiry, amount)


@pytest.mark.anyio
async def test_when_one_refuses_after_all_fixed_windows_and_calendars_get_their_units_back(clock: FakeClock) -> None:
    storage = Meddling()
    counters = LimitsCounters(storage, clock=clock)
    hits = [Hit("a", LOG, 2), Hit("a", FIXED, 2), Hit("a", CALENDAR, 2), Hit("b", FIXED, 2)]
    storage.armed = True
    told = await counters.hit(hits)
    assert [tally[:2] for tally in told] == [(False, 0), (True, 10), (True, 10), (True, 10)]
    storage.armed = False
    await counters.reset(hits[:1])
    assert all(tally.allowed for tally in await counters.hit(hits))


@KNOWN
@EACH_STORAGE
@pytest.mark.anyio
async def test_of_many_that_hold_two_limits_never_too_many_pass(counters: LimitsCounters, limit: Limit) -> None:
    wide = FIXED._replace(quota=1_000, place="wide")
    passed = 0

    async def one() -> None:
        nonlocal passed
        tallies = await counters.hit([Hit("a", wide, 3), Hit("a", limit, 3)])
        passed += all(tally.allowed for tally in tallies)

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(one)
    assert 1 <= passed <= 3
    assert await remaining(counters, Hit("a", wide)) == [1_000 - 3 * passed]


# What cannot be


@pytest.mark.parametrize(
    "limit",
    [BUCKET, LIFETIME, SLIDING._replace(window=0.5), LOG._replace(window=90.25)],
    ids=["bucket", "lifetime", "half a second", "no whole number"],
)
@pytest.mark.anyio
async def test_what_cannot_be_counted_is_a_mistake(limit: Limit) -> None:
    counters = LimitsCounters("memory://")
    with pytest.raises(ConfigError, match=limit.algorithm):
        counters.check(limit)
    with pytest.raises(ConfigError, match=limit.algorithm):
        await counters.hit([Hit("a", FIXED), Hit("a", limit)])
    assert await remaining(counters, Hit("a", FIXED)) == [10]


@KNOWN
def test_what_can_be_counted_is_none(limit: Limit) -> None:
    LimitsCounters("memory://").check(limit)


@each_of(SLIDING, LOG)
@pytest.mark.anyio
async def test_what_cannot_be_corrected_is_a_mistake(limit: Limit) -> None:
    counters = LimitsCounters("memory://")
    [tally] = await counters.hit([Hit("a", limit)])
    with pytest.raises(ConfigError, match="cannot be corrected"):
        await counters.settle([Change("a", limit, -1, tally.counted)])


@pytest.mark.anyio
async def test_a_calendar_that_nobody_knows_is_a_mistake() -> None:
    await kept(
        "test_a_calendar_that_nobody_knows_is_a_mistake", counters=LimitsCounters("memory://"), calendar="fortnight UTC"
    )


class CountingOnly(limits.storage.Storage):
    """Just what every storage must have."""

    STORAGE_SCHEME = None
    base_exceptions = KeyError
    get = get_expiry = incr = check = reset = clear = lambda self, *_: 0


def test_a_storage_without_a_strategy_is_told_before_it_is_asked() -> None:
    counters = LimitsCounters(CountingOnly())
    counters.check(FIXED)
    for limit in (SLIDING, LOG):
        with pytest.raises(ConfigError, match="CountingOnly has no acquire"):
            counters.check(limit)


@pytest.mark.parametrize(
    "storage",
    ["nonsense", "nonsense://host", "memcached://host", "etcd://user:secret@host", "redi://:secret@host", 7, None],
)
def test_what_is_no_storage_or_cannot_be_made_is_a_mistake(storage: Any) -> None:
    with pytest.raises(ConfigError, match=r"LimitsCounters\.storage") as caught:
        LimitsCounters(storage)
    assert "secret" not in "".join(traceback.format_exception(caught.value))  # of causes too


def test_no_calls_at_all_are_a_mistake() -> None:
    with pytest.raises(ConfigError, match="at_once"):
        LimitsCounters("memory://", at_once=0)
    with pytest.raises(ConfigError, match="at_once"):
        LimitsCounters("memory://", at_once="3")  # type: ignore[arg-type]


# Threads, and failures


class Crowded(limits.storage.MemoryStorage):
    """Notes who is in it, and how many at once."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.inside = self.most = 0
        super().__init__()

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        self.threads.add(threading.get_ident())
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.001)
        self.inside -= 1
        return super().incr(key, expiry, amount)


@pytest.mark.anyio
async def test_a_storage_that_blocks_is_asked_in_a_few_threads_and_never_in_the_event_loop() -> None:
    storage = Crowded()
    counters = LimitsCounters(storage, at_once=3)
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(counters.hit, [Hit(f"{number}", FIXED)])
    assert threading.get_ident() not in storage.threads
    assert 2 <= storage.most <= 3


@where_it_runs("redis", "async+redis")
@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_an_error(kind: str) -> None:
    storage = storage_at(f"{kind}://user:secret@127.0.0.1:1")
    counters = LimitsCounters(storage)
    for each in (counters.hit([Hit("a", FIXED)]), counters.peek([Hit("a", LOG)]), counters.reset([Hit("a", SLIDING)])):
        with pytest.raises(StoreError, match="ConnectionError") as caught:
            await each
        assert "secret" not in str(caught.value)
    await closed(storage)


def test_a_policy_it_cannot_count_is_refused_while_building() -> None:
    env = Env(place="here", counters=LimitsCounters("memory://"))
    with pytest.raises(ConfigError, match="bucket"):
        Stack(RateLimit(calls=1, per=1, window="bucket"), env=env)(PlainTextResponse("hello"))


@each_of(FIXED, CALENDAR, SLIDING, LOG, BUCKET)
def test_it_says_what_it_can_correct(limit: Limit) -> None:
    assert LimitsCounters("memory://").corrects(limit) == (limit in (FIXED, CALENDAR))


SETTLING = [
    ("units", {"units": "response-bytes"}),
    ("used", {"used": lambda exchange: 3}),
    ("increment", {"increment": "afterwards"}),
    ("count_when", {"count_when": conditions.failed}),
    ("when_store_fails", {"when_store_fails": "local"}),
]


@pytest.mark.parametrize("window", ["sliding", "log"])
@pytest.mark.parametrize(("field", "fields"), SETTLING, ids=[field for field, _ in SETTLING])
def test_a_policy_whose_counts_it_cannot_correct_is_refused_while_building(
    field: str, fields: dict[str, Any], window: Any
) -> None:
    """Once it was let through, its corrections were errors in a log, and it refused nobody."""
    env = Env(place="here", counters=LimitsCounters("memory://"))
    with pytest.raises(ConfigError, match=rf"RateLimit\.{field}: .* LimitsCounters .*'{window}'.* fixed windows"):
        Stack(RateLimit(calls=9, per=60, window=window, **fields), env=env)(PlainTextResponse("hello"))
    Stack(RateLimit(calls=9, per=60, window="fixed", **fields), env=env)(PlainTextResponse("hello"))


def test_of_several_the_policy_that_asks_for_corrections_is_named() -> None:
    """Where one counts in this process during an outage, all of them do."""
    env = Env(place="here", counters=LimitsCounters("memory://"))
    sliding = RateLimit(calls=9, per=60, name="sliding", when_store_fails="allow")
    local = Quota(calls=9, per=3_600, by=by.client, when_store_fails="local")
    with pytest.raises(ConfigError, match=r"Quota\.when_store_fails: 'local'"):
        Stack(Limits(sliding, local), env=env)(PlainTextResponse("hello"))
    Stack(sliding, local, env=env)(PlainTextResponse("hello"))


def test_guesses_cannot_be_counted_here() -> None:
    env = Env(place="here", counters=LimitsCounters("memory://"))
    with pytest.raises(ConfigError, match="LimitsCounters"):
        Stack(LimitGuesses(failures=3, per=60), env=env)(PlainTextResponse("hello"))
