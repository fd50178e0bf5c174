"""``CacheValue``: what is kept comes back, one makes what many want, and trouble stays where it is."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from apim_middleware.env import Env, default_env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, Stack
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.sqlite import SQLiteEntries
from apim_middleware.stores.values import CacheValue
from apim_middleware.testing import FakeClock, call

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
async def env(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Env]:
    """An environment with a store of its own, or one that others see too."""
    if request.param == "memory":
        yield Env(clock=clock, place="shop")
    else:
        entries = SQLiteEntries(tmp_path / "cache.db", clock=clock)
        yield Env(clock=clock, entries=entries, place="shop")
        await entries.aclose()


@pytest.fixture
def values(env: Env) -> CacheValue[Any]:
    return CacheValue(name="values", ttl=60, env=env)


class Maker:
    """Makes 1, 2, 3 …, when it is told to go on."""

    def __init__(self) -> None:
        self.calls = 0
        self.failing: set[int] = set()
        self.going = anyio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        mine = self.calls
        await self.going.wait()
        if mine in self.failing:
            raise ConnectionError(f"call {mine}")
        return mine

    def go(self) -> "Maker":
        self.going.set()
        return self


# Looked up, kept, removed


@pytest.mark.parametrize("value", [None, 0, "", "text é \U0001f600", 1.5, True, [1, [2]], {"a": {"b": None}}])
async def test_what_json_can_say_comes_back(values: CacheValue[Any], value: object) -> None:
    assert await values.set("key", value)
    assert await values.get("key") == value


async def test_an_unknown_value_is_none(values: CacheValue[Any]) -> None:
    assert await values.get("key") is None


async def test_a_removed_value_is_unknown(values: CacheValue[Any]) -> None:
    await values.set("key", 1)
    await values.remove("key")
    await values.remove("key")
    assert await values.get("key") is None


async def test_a_value_is_kept_as_long_as_was_said(values: CacheValue[Any], clock: FakeClock) -> None:
    await values.set("key", 1)
    clock.advance(59.9)
    assert await values.get("key") == 1
    clock.advance(0.1)
    assert await values.get("key") is None


async def test_all_values_of_a_name_can_be_cleared_and_no_others(env: Env) -> None:
    one: CacheValue[int] = CacheValue(name="one", ttl=60, env=env)
    other: CacheValue[int] = CacheValue(name="other", ttl=60, env=env)
    for key in "abc":
        await one.set(key, 1)
        await other.set(key, 2)
    await one.clear()
    assert [await one.get(key) for key in "abc"] == [None] * 3
    assert [await other.get(key) for key in "abc"] == [2] * 3


@pytest.mark.parametrize("keys", [("a", "A"), ("", " "), ("a:b", "a"), ("\udc80", "\udc81"), ("value:a", "a")])
async def test_keys_and_names_are_told_apart(env: Env, keys: tuple[str, str]) -> None:
    for name in ("one", "two"):
        values: CacheValue[str] = CacheValue(name=name, ttl=60, env=env)
        for key in keys:
            await values.set(key, name + repr(key))
    for name in ("one", "two"):
        values = CacheValue(name=name, ttl=60, env=env)
        assert [await values.get(key) for key in keys] == [name + repr(key) for key in keys]


async def test_values_of_one_name_in_one_environment_are_the_same(env: Env) -> None:
    one: CacheValue[int] = CacheValue(name="values", ttl=60, env=env)
    same: CacheValue[int] = CacheValue(name="values", ttl=30, env=env)
    await one.set("key", 1)
    assert await same.get("key") == 1


async def test_values_at_two_places_are_not_the_same(env: Env) -> None:
    here: CacheValue[int] = CacheValue(name="values", ttl=60, env=env.at("here"))
    there: CacheValue[int] = CacheValue(name="values", ttl=60, env=env.at("there"))
    await here.set("key", 1)
    assert await there.get("key") is None


async def test_nobody_shares_an_object_with_anybody(values: CacheValue[Any]) -> None:
    async def make() -> object:
        return made

    made: dict[str, object] = {"list": [1], "pair": (1, 2)}
    told = [await values.get_or_set("key", make) for _ in range(3)]
    assert told == [{"list": [1], "pair": [1, 2]}] * 3
    assert len({id(each) for each in [made, *told]}) == 4


async def test_bytes_can_be_kept_as_they_are(env: Env) -> None:
    values: CacheValue[bytes] = CacheValue(name="values", ttl=60, dumps=bytes, loads=bytes, env=env)
    await values.set("key", b"\x00\xff")
    assert await values.get("key") == b"\x00\xff"


@pytest.mark.parametrize("value", [object(), float("nan"), b"bytes", "\udc80"])
async def test_what_json_cannot_say_is_an_error(values: CacheValue[Any], value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        await values.set("key", value)
    assert await values.get("key") is None


async def test_a_value_that_is_too_large_is_given_and_not_kept(env: Env) -> None:
    async def make() -> str:
        return "x" * 100

    values: CacheValue[str] = CacheValue(name="values", ttl=60, max_value_bytes=50, env=env)
    await values.set("key", "old")
    assert not await values.set("key", "x" * 100)
    assert await values.get("key") is None
    assert await values.get_or_set("key", make) == "x" * 100
    assert await values.get("key") is None


# Made by one for all


async def test_what_is_unknown_is_made_once_and_kept(values: CacheValue[Any]) -> None:
    make = Maker().go()
    assert [await values.get_or_set("key", make) for _ in range(3)] == [1, 1, 1]
    assert await values.get("key") == 1


async def test_none_is_a_value_that_is_kept(values: CacheValue[Any]) -> None:
    calls = []

    async def make() -> None:
        calls.append(1)

    for _ in range(3):
        assert await values.get_or_set("key", make) is None
    assert len(calls) == 1


async def together(number: int, call: Callable[[], Awaitable[object]], make: Maker) -> list[object]:
    told: list[object] = []

    async def one() -> None:
        try:
            told.append(await call())
        except Exception as error:
            told.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(one)
        while not make.calls:
            await anyio.lowlevel.checkpoint()
        make.go()
    return told


async def test_a_thousand_who_ask_at_once_get_what_one_makes(values: CacheValue[Any]) -> None:
    make = Maker()
    assert await together(1_000, lambda: values.get_or_set("key", make), make) == [1] * 1_000
    assert make.calls == 1


async def test_equal_values_wait_for_each_other(env: Env) -> None:
    make = Maker()

    async def ask() -> object:
        values: CacheValue[int] = CacheValue(name="values", ttl=60, env=env)
        return await values.get_or_set("key", make)

    assert await together(10, ask, make) == [1] * 10


async def test_other_keys_are_made_at_the_same_time(values: CacheValue[Any]) -> None:
    make, told = Maker(), []

    async def ask(key: str) -> None:
        told.append(await values.get_or_set(key, make))

    async with anyio.create_task_group() as group:
        for key in "abc":
            group.start_soon(ask, key)
        while make.calls < 3:
            await anyio.lowlevel.checkpoint()
        make.go()
    assert sorted(told) == [1, 2, 3]


async def test_when_one_fails_the_next_makes_it(values: CacheValue[Any]) -> None:
    make = Maker()
    make.failing = {1, 2}
    told = await together(20, lambda: values.get_or_set("key", make), make)
    assert sorted(map(str, told)) == sorted(["call 1", "call 2", *["3"] * 18])
    assert make.calls == 3


async def test_who_waited_for_three_that_failed_need_not_try_as_well(values: CacheValue[Any]) -> None:
    make = Maker()
    make.failing = set(range(1, 100))
    told = await together(20, lambda: values.get_or_set("key", make), make)
    assert {type(each) for each in told} == {ConnectionError}
    assert make.calls == 3
    make.failing.clear()
    assert await values.get_or_set("key", make) == 4


async def test_when_the_one_who_makes_is_cancelled_the_next_makes_it(values: CacheValue[Any]) -> None:
    make, told = Maker(), []
    scope = anyio.CancelScope()

    async def first() -> None:
        with scope:
            told.append(await values.get_or_set("key", make))

    async def other() -> None:
        told.append(await values.get_or_set("key", make))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        while not make.calls:
            await anyio.lowlevel.checkpoint()
        for _ in range(5):
            group.start_soon(other)
        await anyio.lowlevel.checkpoint()
        scope.cancel()
        make.go()
    assert told == [2] * 5


async def test_when_one_who_waits_is_cancelled_nobody_else_minds(values: CacheValue[Any]) -> None:
    make, told = Maker(), []
    scope = anyio.CancelScope()

    async def other() -> None:
        with scope:
            await values.get_or_set("key", make)

    async def first() -> None:
        told.append(await values.get_or_set("key", make))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        while not make.calls:
            await anyio.lowlevel.checkpoint()
        group.start_soon(other)
        await anyio.lowlevel.checkpoint()
        scope.cancel()
        make.go()
    assert told == [1]
    assert make.calls == 1


async def test_what_is_removed_while_it_is_made_is_not_kept(values: CacheValue[Any]) -> None:
    for forget in (lambda: values.remove("key"), values.clear):
        make = Maker()

        async def ask(make: Maker = make) -> None:
            assert await values.get_or_set("key", make) == 1

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            while not make.calls:
                await anyio.lowlevel.checkpoint()
            await forget()
            make.go()
        assert await values.get("key") is None


async def test_nothing_is_left_of_what_was_made(values: CacheValue[Any]) -> None:
    make = Maker().go()
    for number in range(10):
        await values.get_or_set(str(number), make)
    assert values._kept._flights._flying == {}


# Refreshed


@pytest.fixture
def refreshed(env: Env) -> CacheValue[int]:
    return CacheValue(name="values", ttl=60, refresh_after=30, env=env)


async def test_a_value_is_made_anew_when_it_is_time(refreshed: CacheValue[int], clock: FakeClock) -> None:
    make, told = Maker().go(), []
    for seconds in (0, 29, 1, 29, 1):
        clock.advance(seconds)
        told.append(await refreshed.get_or_set("key", make))
    assert told == [1, 1, 2, 2, 3]


async def test_while_one_makes_it_anew_the_others_get_the_old_one(refreshed: CacheValue[int], clock: FakeClock) -> None:
    await refreshed.set("key", 100)
    clock.advance(40)
    make = Maker()

    async def first() -> None:
        assert await refreshed.get_or_set("key", make) == 1

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        while not make.calls:
            await anyio.lowlevel.checkpoint()
        assert [await refreshed.get_or_set("key", make) for _ in range(3)] == [100] * 3
        make.go()
    assert await refreshed.get("key") == 1


async def test_when_it_cannot_be_made_anew_the_old_one_serves_until_it_is_gone(
    refreshed: CacheValue[int], clock: FakeClock
) -> None:
    await refreshed.set("key", 100)
    make = Maker().go()
    make.failing = {1, 2}
    clock.advance(40)
    assert await refreshed.get_or_set("key", make) == 100
    clock.advance(20)
    with pytest.raises(ConnectionError, match="call 2"):
        await refreshed.get_or_set("key", make)


async def test_who_cannot_make_it_anew_is_asked_once_in_a_second_and_complained_of_once(
    refreshed: CacheValue[int], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await refreshed.set("key", 100)
    make = Maker().go()
    make.failing = {1, 2, 3}
    clock.advance(40)
    for _ in range(30):
        assert await refreshed.get_or_set("key", make) == 100
        clock.advance(0.1)
    assert make.calls == 3
    assert [record.getMessage() for record in caplog.records] == ["values values: not refreshed (ConnectionError)"]
    clock.advance(1.0)
    assert await refreshed.get_or_set("key", make) == 4


# Over several processes: here, environments that have nothing but the store in common


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[CacheValue[int], CacheValue[int]]]:
    stores = [SQLiteEntries(tmp_path / "cache.db") for _ in range(2)]
    one, other = (
        CacheValue[int](name="values", ttl=60, refresh_after=30, env=Env(entries=each, place="shop")) for each in stores
    )
    yield one, other
    for each in stores:
        await each.aclose()


async def test_one_process_makes_it_and_the_other_waits(pair: tuple[CacheValue[int], CacheValue[int]]) -> None:
    make = Maker()
    turns = iter(range(1_000))
    told = await together(20, lambda: pair[next(turns) % 2].get_or_set("key", make), make)
    assert (told, make.calls) == ([1] * 20, 1)


async def test_when_one_process_fails_the_other_makes_it(pair: tuple[CacheValue[int], CacheValue[int]]) -> None:
    make = Maker()
    make.failing = {1}
    turns = iter(range(1_000))
    told = await together(2, lambda: pair[next(turns) % 2].get_or_set("key", make), make)
    assert sorted(map(str, told)) == ["2", "call 1"]


async def test_when_a_process_dies_the_other_makes_it_after_the_lease(
    pair: tuple[CacheValue[int], CacheValue[int]],
) -> None:
    one, _ = pair
    dead = one._kept._place(b"lock", b"key")
    await one._kept._entries.add(dead, b"its token", 0.05)
    assert await one.get_or_set("key", Maker().go()) == 1


async def test_who_waits_longer_than_the_lease_makes_it_whoever_else_does(
    pair: tuple[CacheValue[int], CacheValue[int]],
) -> None:
    one, _ = pair
    impatient: CacheValue[int] = CacheValue(name="values", ttl=60, lease=0.05, env=one.env)
    await one._kept._entries.add(one._kept._place(b"lock", b"key"), b"its token", 60)
    assert await impatient.get_or_set("key", Maker().go()) == 1
    assert await one.get("key") == 1


async def test_the_lock_is_open_afterwards(pair: tuple[CacheValue[int], CacheValue[int]]) -> None:
    one, other = pair
    await one.get_or_set("key", Maker().go())
    assert await other._kept._entries.get(one._kept._place(b"lock", b"key")) is None


# Trouble


class Away:
    """A store that fails while it is away, and gives back what it likes."""

    def __init__(self, entries: MemoryEntries) -> None:
        self.entries = entries
        self.away = True
        self.asked = 0

    def _look(self) -> None:
        self.asked += 1
        if self.away:
            raise StoreError("secret")

    async def get(self, key: bytes) -> bytes | None:
        self._look()
        return await self.entries.get(key)

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [await self.get(key) for key in keys]

    async def look(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        self._look()
        return await self.entries.look(keys)

    async def set(
        self, key: bytes, value: bytes, ttl: float, *, tags: Collection[bytes] = (), since: bytes | None = None
    ) -> bool:
        self._look()
        return await self.entries.set(key, value, ttl, tags=tags, since=since)

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        self._look()
        return await self.entries.add(key, value, ttl)

    async def delete(self, key: bytes, *, value: bytes | None = None) -> None:
        self._look()
        await anyio.lowlevel.checkpoint()  # where a caller can be cancelled
        await self.entries.delete(key, value=value)

    async def purge(self, tag: bytes) -> None:
        self._look()
        await self.entries.purge(tag)


class Counting:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, str]]] = []

    def count(self, event: str, attributes: Mapping[str, str]) -> None:
        self.events.append((event, dict(attributes)))


@pytest.fixture
def away(clock: FakeClock) -> Away:
    return Away(MemoryEntries(clock=clock))


@pytest.fixture
def elsewhere(away: Away, clock: FakeClock) -> Env:
    return Env(clock=clock, entries=away, place="shop")


async def test_the_lock_of_one_who_was_cancelled_is_open_afterwards(away: Away, elsewhere: Env) -> None:
    away.away = False
    values: CacheValue[int] = CacheValue(name="values", ttl=60, env=elsewhere)
    make, scope = Maker(), anyio.CancelScope()

    async def first() -> None:
        with scope:
            await values.get_or_set("key", make)

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        while not make.calls:
            await anyio.lowlevel.checkpoint()
        assert len(away.entries) == 1
        scope.cancel()
    assert len(away.entries) == 0


async def test_without_the_store_values_are_unknown_and_still_made_once(
    away: Away, elsewhere: Env, caplog: pytest.LogCaptureFixture
) -> None:
    values: CacheValue[int] = CacheValue(name="values", ttl=60, env=elsewhere)
    counting, make = Counting(), Maker()
    elsewhere.listen(counting)
    assert await values.get("key") is None
    assert await values.set("key", 1)
    await values.remove("key")
    await values.clear()
    assert await together(50, lambda: values.get_or_set("key", make), make) == [1] * 50
    assert make.calls == 1
    assert away.asked == 3  # once for each of what it is to do, and then left alone for a while
    assert [record.getMessage() for record in caplog.records] == ["values values: store failed (StoreError)"]
    assert set(map(str, counting.events)) == {
        "('apim.cache_value.store_failed', {'apim.cache_value.name': 'values'})"
    }  # fmt: skip


class Full:
    """Entries in a store that answers, and has no room for more."""

    def __init__(self, entries: MemoryEntries) -> None:
        self.get, self.get_many, self.look = entries.get, entries.get_many, entries.look
        self.delete, self.purge = entries.delete, entries.purge
        self.asked = 0

    async def set(self, key: bytes, value: bytes, ttl: float, **more: Any) -> bool:
        self.asked += 1
        raise StoreError("full")

    async def add(self, key: bytes, value: bytes, ttl: float) -> bool:
        return await self.set(key, value, ttl)


async def test_a_store_that_is_full_still_answers_and_is_told_of_once(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    entries = MemoryEntries(clock=clock)
    full = Full(entries)
    values: CacheValue[int] = CacheValue(name="values", ttl=60, env=Env(clock=clock, entries=full, place="shop"))
    before: CacheValue[int] = CacheValue(name="values", ttl=60, env=Env(clock=clock, entries=entries, place="shop"))
    await before.set("kept", 7)
    for _ in range(20):
        await values.set("new", 1)
        assert await values.get("kept") == 7
    assert full.asked == 1
    assert [record.getMessage() for record in caplog.records] == ["values values: store failed (StoreError)"]


async def test_without_the_store_calls_fail_where_that_is_wanted(away: Away, elsewhere: Env) -> None:
    values: CacheValue[int] = CacheValue(name="values", ttl=60, when_store_fails="refuse", env=elsewhere)
    make = Maker().go()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: values.get("key"), lambda: values.set("key", 1), lambda: values.remove("key"), values.clear,
        lambda: values.get_or_set("key", make),
    ]  # fmt: skip
    for use in calls:
        with pytest.raises(StoreError):
            await use()
    assert make.calls == 0


async def test_a_store_that_is_back_is_used_again(away: Away, elsewhere: Env, clock: FakeClock) -> None:
    values: CacheValue[int] = CacheValue(name="values", ttl=60, env=elsewhere)
    make = Maker().go()
    assert await values.get_or_set("key", make) == 1
    away.away = False
    clock.advance(1)
    assert [await values.get_or_set("key", make) for _ in range(3)] == [2, 2, 2]


async def test_what_was_made_is_not_lost_when_it_cannot_be_kept(away: Away, elsewhere: Env) -> None:
    async def make() -> int:
        away.away = True
        return 1

    away.away = False
    values: CacheValue[int] = CacheValue(name="values", ttl=60, when_store_fails="refuse", env=elsewhere)
    assert await values.get_or_set("key", make) == 1


@pytest.mark.parametrize("kept", [b"", b"short", b"\xff" * 30, b"\x00" * 16 + b"{", b"1234567890123456{"])
async def test_what_cannot_be_read_is_unknown_and_made_again(
    env: Env, values: CacheValue[Any], kept: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    place = values._kept._place(b"value", b"key")
    await values._kept._entries.set(place, kept, 60)
    assert await values.get("key") is None
    assert await values.get_or_set("key", Maker().go()) == 1
    assert await values.get("key") == 1
    assert all(record.levelno == logging.WARNING for record in caplog.records)


# Building


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "a:b"), ("name", "n" * 65), ("ttl", 0), ("ttl", -1), ("ttl", float("inf")),
     ("ttl", float("nan")), ("refresh_after", 60), ("refresh_after", -1), ("max_value_bytes", 0), ("lease", 0),
     ("when_store_fails", "maybe"), ("dumps", "json"), ("env", "redis://")],
)  # fmt: skip
def test_what_cannot_work_is_a_mistake(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"CacheValue\.{field}"):
        CacheValue(**{"name": "values", "ttl": 60, field: value})  # type: ignore[arg-type]


def test_values_that_others_see_need_a_place(away: Away) -> None:
    with pytest.raises(ConfigError, match=r"CacheValue\.env: stands at a place without a name"):
        CacheValue(name="values", ttl=60, env=Env(entries=away))


@dataclass(frozen=True, kw_only=True)
class TellRate(Policy):
    """Tell the app today's rate."""

    def bind(self, env: Env) -> "_Teller":
        return _Teller(CacheValue(name="rates", ttl=60, env=env))


class _Teller:
    def __init__(self, rates: CacheValue[int]) -> None:
        self.rates = rates
        self.calls = 0

    async def fetch(self) -> int:
        self.calls += 1
        return self.calls

    async def on_request(self, exchange: Exchange) -> PlainTextResponse:
        return PlainTextResponse(str(await self.rates.get_or_set("today", self.fetch)))


async def test_a_policy_keeps_values_where_it_stands(clock: FakeClock) -> None:
    env = Env(clock=clock, place="shop")
    one, other = (Stack(TellRate(), env=env, place=place)(PlainTextResponse("")) for place in ("one", "other"))
    assert [(await call(app)).body for app in (one, one, other)] == [b"1"] * 3
    clock.advance(60)
    assert [(await call(app)).body for app in (one, one, other)] == [b"2", b"2", b"2"]


async def test_values_of_a_policy_that_others_see_need_a_place_too(away: Away) -> None:
    with pytest.raises(ConfigError, match=r"CacheValue\.env"):
        Stack(TellRate(), env=Env(entries=away))(PlainTextResponse(""))


def test_equal_values_are_equal_and_show_nothing_they_need_not() -> None:
    one: CacheValue[int] = CacheValue(name="values", ttl=60)
    assert one == CacheValue(name="values", ttl=60)
    assert one.env is default_env
    assert "env" not in repr(one)


def test_an_app_uses_it_as_it_is() -> None:
    rates: CacheValue[dict[str, int]] = CacheValue(name="rates", ttl=300, env=Env())
    made = []

    async def fetch() -> dict[str, int]:
        made.append(1)
        return {"EUR": len(made)}

    async def rate(request: Request) -> JSONResponse:
        return JSONResponse(await rates.get_or_set("today", fetch))

    async def forget(request: Request) -> PlainTextResponse:
        await rates.remove("today")
        return PlainTextResponse("forgotten")

    with TestClient(Starlette(routes=[Route("/rate", rate), Route("/forget", forget)])) as client:
        told = [client.get(path).text for path in ("/rate", "/rate", "/forget", "/rate")]
    assert told == ['{"EUR":1}', '{"EUR":1}', "forgotten", '{"EUR":2}']
