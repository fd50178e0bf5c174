"""Rates of single keys that many processes see: one writes them, the others follow."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.servers import RedisServer

from apim_middleware import by
from apim_middleware._limits.overrides import Overrides
from apim_middleware._limits.record_overrides import RecordOverrides
from apim_middleware._limits.standings import Standings
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.policies.limits import RateLimit
from apim_middleware.policy import Stack
from apim_middleware.protocols import Record, Records
from apim_middleware.stores.records import MemoryRecords
from apim_middleware.stores.redis.records import RedisRecords
from apim_middleware.stores.sqlite.records import SQLiteRecords
from apim_middleware.testing import FakeClock, call

from .counting import Counting, left, sent, statuses

pytestmark = pytest.mark.anyio
POLICY = RateLimit(calls=2, per=60, by=by.header("x-user"))
ADA = sent(x_user="ada")
TIMEOUT = 2.0


class Watched(MemoryRecords):
    """Records that count how often they are asked, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.away = False

    async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
        self.asked += 1
        if self.away:
            raise StoreError("away")
        return await super().changes(after, limit=limit)


@pytest.fixture
def records() -> Watched:
    return Watched()


@pytest.fixture
def here(records: Watched, clock: FakeClock) -> RecordOverrides:
    return RecordOverrides(records, clock=clock)


@pytest.fixture
def there(records: Watched, clock: FakeClock) -> RecordOverrides:
    """The same in another process."""
    return RecordOverrides(records, clock=clock)


async def test_what_is_changed_here_holds_here_from_the_next_request_on(
    env: Env, app: Counting, here: RecordOverrides
) -> None:
    guarded = Stack(replace(POLICY, overrides=here), env=env)(app)
    await here.set("ada", 50)
    assert left(await call(guarded, **ADA)) == [49]
    await here.set("ada", "100/minute")
    assert left(await call(guarded, **ADA)) == [99]
    await here.remove("ada")
    assert left(await call(guarded, **ADA)) == [1]


async def test_what_is_changed_elsewhere_holds_a_second_and_an_answer_later(
    env: Env, app: Counting, here: RecordOverrides, there: RecordOverrides, clock: FakeClock
) -> None:
    guarded = Stack(replace(POLICY, overrides=there), env=env)(app)
    await there.refresh()
    await here.set("ada", 50)
    clock.advance(1.0)
    assert left(await call(guarded, **ADA)) == [1]  # which asks, and waits for nobody
    await anyio.wait_all_tasks_blocked()
    assert left(await call(guarded, **ADA)) == [49]


async def test_the_records_are_asked_once_in_a_while(here: RecordOverrides, records: Watched, clock: FakeClock) -> None:
    await here.refresh()
    asked = records.asked
    for _ in range(3):
        clock.advance(1.0)
        for _ in range(10):
            here.rates("ada")
            await anyio.wait_all_tasks_blocked()
    assert records.asked == asked + 3


async def test_until_the_first_answer_the_limits_of_the_policy_hold(
    env: Env, app: Counting, here: RecordOverrides, there: RecordOverrides, records: Watched
) -> None:
    await here.set("ada", 50)
    guarded = Stack(replace(POLICY, overrides=there), env=env)(app)
    records.away = True
    assert await statuses(guarded, 3, **ADA) == [200, 200, 429]


async def test_who_asks_before_the_first_request_has_them_for_that(
    env: Env, app: Counting, here: RecordOverrides, there: RecordOverrides
) -> None:
    await here.set("ada", 50)
    guarded = Stack(replace(POLICY, overrides=there), env=env)(app)
    await there.refresh()
    assert left(await call(guarded, **ADA)) == [49]


async def test_what_is_known_holds_through_an_outage(
    here: RecordOverrides, records: Watched, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await here.set("ada", 50)
    records.away = True
    for _ in range(3):
        clock.advance(3_600.0)
        assert here.rates("ada") == ((50, None),)
        await anyio.wait_all_tasks_blocked()
    assert [each.getMessage() for each in caplog.records] == ["RecordOverrides cannot ask the records: 'away'"]


async def test_what_cannot_be_kept_is_said_and_does_not_hold(here: RecordOverrides, records: Watched) -> None:
    async def fails(*args: Any, **more: Any) -> Record:
        raise StoreError("away")

    records.put = fails  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        await here.set("ada", 50)
    assert here.rates("ada") is None


@pytest.mark.parametrize("key", ["", "k" * 500, "caf\u00e9", "a\nb", "#ada", "\x00", "/ada?", "\ud800"])
async def test_any_key_can_have_a_rate(here: RecordOverrides, there: RecordOverrides, key: str) -> None:
    await here.set("another", 7)
    await here.set(key, 50)
    await there.refresh()
    assert there.rates(key) == ((50, None),)
    await there.remove(key)
    assert (there.rates(key), len(there)) == (None, 1)


async def test_kinds_are_kept_apart(records: Watched, clock: FakeClock) -> None:
    calls, quotas = (RecordOverrides(records, kind=kind, clock=clock) for kind in ("override", "quota-override"))
    await calls.set("ada", 50)
    await quotas.refresh()
    assert quotas.rates("ada") is None


@pytest.mark.parametrize("document", [{}, {"rate": "often"}, {"rate": 0}, {"rate": 1.5}, {"rate": None}, {"rate": []}])
async def test_a_record_that_holds_no_rate_gives_none(
    here: RecordOverrides, records: Watched, document: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    await here.set("ada", 50)
    await records.put("override", "ada", document)
    await here.refresh()
    assert here.rates("ada") is None
    assert "the override 'ada' holds a rate that" in caplog.text


async def test_what_makes_no_sense_is_refused(records: Watched) -> None:
    overrides = RecordOverrides(records, max_keys=1)
    for key, rate, field in ((5, 1, "key"), ("ada", 0, "rate"), ("ada", "often", "rate")):
        with pytest.raises(ConfigError, match=rf"RecordOverrides\.{field}"):
            await overrides.set(key, rate)  # type: ignore[arg-type]
    await overrides.set("ada", 1)
    await overrides.set("ada", 2)
    with pytest.raises(ConfigError, match="room for 1 keys"):
        await overrides.set("bob", 1)
    for fields in ({"max_keys": 0}, {"refresh": -1}, {"refresh": "1"}, {"refresh": float("nan")}):
        with pytest.raises(ConfigError, match=rf"RecordOverrides\.{next(iter(fields))}"):
            RecordOverrides(records, **fields)  # type: ignore[arg-type]


async def test_counts_go_on_where_they_take_the_place_of_others(env: Env, app: Counting, here: RecordOverrides) -> None:
    await statuses(Stack(replace(POLICY, overrides=Overrides()), env=env, place="orders")(app), 1, **ADA)
    guarded = Stack(replace(POLICY, overrides=here), env=env, place="orders")(app)
    assert left(await call(guarded, **ADA)) == [0]


async def test_standings_know_of_overrides_that_were_made_elsewhere(
    env: Env, app: Counting, here: RecordOverrides, there: RecordOverrides
) -> None:
    policy = replace(POLICY, overrides=there)
    guarded = Stack(policy, env=env)(app)
    await call(guarded, **ADA)
    await here.set("ada", 50)
    [standing] = await Standings(env).read(policy, "ada")
    assert (standing.quota, standing.overridden) == (50, True)


async def test_a_rate_set_elsewhere_while_one_is_removed_here_is_not_forgotten(
    here: RecordOverrides, there: RecordOverrides, records: Watched
) -> None:
    await here.set("ada", 50)
    delete = records.delete

    async def answers_late(*args: Any, **more: Any) -> None:
        await delete(*args, **more)
        await there.set("ada", 60)
        await here.refresh()
        records.away = True

    records.delete = answers_late  # type: ignore[method-assign]
    await here.remove("ada")
    assert here.rates("ada") == ((60, None),)


class TestSharedRecords:
    """Two processes, as far as the store can tell: each has a connection of its own."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Redis is asked on asyncio only."""
        return "asyncio"

    @pytest.fixture(params=["sqlite", "redis"])
    async def both(
        self, request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer, clock: FakeClock
    ) -> AsyncIterator[list[RecordOverrides]]:
        make: Callable[[], SQLiteRecords | RedisRecords] = (
            (lambda: SQLiteRecords(tmp_path / "limits.db"))
            if request.param == "sqlite"
            else (lambda: RedisRecords(server.url, prefix=tmp_path.name))
        )
        stores = [make(), make()]
        yield [RecordOverrides(store, clock=clock) for store in stores]
        for store in stores:
            await store.aclose()

    async def test_one_sets_a_rate_and_the_other_serves_under_it(
        self, app: Counting, clock: FakeClock, both: list[RecordOverrides]
    ) -> None:
        here, there = both
        await there.refresh()
        guarded = Stack(replace(POLICY, overrides=there), env=Env(clock=clock))(app)
        await here.set("ada", 50)
        clock.advance(1.0)
        assert left(await call(guarded, **ADA)) == [1]
        await until(lambda: there.rates("ada") is not None)
        assert left(await call(guarded, **ADA)) == [49]

    async def test_one_removes_a_rate_and_the_other_forgets_it(
        self, clock: FakeClock, both: list[RecordOverrides]
    ) -> None:
        here, there = both
        await there.set("ada", 50)
        await here.remove("ada")
        clock.advance(1.0)
        await until(lambda: there.rates("ada") is None)


class TestSilentServer:
    @pytest.fixture
    def anyio_backend(self) -> str:
        """Redis is asked on asyncio only."""
        return "asyncio"

    async def test_no_request_waits_for_it(self, server: RedisServer, app: Counting, clock: FakeClock) -> None:
        records = RedisRecords(server.url, timeout=TIMEOUT)
        overrides = RecordOverrides(records, clock=clock)
        await overrides.set("ada", 50)
        guarded = Stack(replace(POLICY, overrides=overrides), env=Env(clock=clock))(app)
        server.freeze()
        try:
            with anyio.fail_after(TIMEOUT / 2):
                for number in range(20):
                    clock.advance(1.0)
                    assert left(await call(guarded, **ADA)) == [49 - number]
        finally:
            server.thaw()
            await records.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Let what is under way come to its end."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()


def test_records_of_every_kind_will_do(tmp_path: Path) -> None:
    stores: list[Records] = [
        MemoryRecords(),
        SQLiteRecords(tmp_path / "limits.db"),
        RedisRecords("redis://127.0.0.1:1"),
    ]
    assert [repr(RecordOverrides(each)) for each in stores] == ["<RecordOverrides of 0 keys>"] * 3
