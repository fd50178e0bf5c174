"""Subscriptions begin within their limit however many ask at once, and what could not begin leaves nothing behind."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import anyio
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.servers import RedisServer

from apim_middleware.errors import StoreError, SubscriptionRefused
from apim_middleware.identity import Subscription
from apim_middleware.protocols import Record, Records
from apim_middleware.stores import following
from apim_middleware.stores.keys import MemoryKeys, NewSubscription, key_digest
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.stores.records import MemoryRecords
from apim_middleware.stores.redis.records import RedisRecords
from apim_middleware.stores.sqlite.records import SQLiteRecords
from apim_middleware.testing import FakeClock

pytestmark = pytest.mark.anyio


def one(name: str, owner: str = "ada") -> Subscription:
    return Subscription(id=name, product="starter", owner=owner)


# Many at once


class LastPlace:
    """What every store of records promises to many processes that begin subscriptions at once."""

    @pytest.fixture
    def another(self) -> Callable[[], Records]:
        """Opens the records once more, as another process does."""
        raise NotImplementedError

    @pytest.mark.parametrize("limit", [1, 3])
    async def test_as_many_begin_as_there_are_places(self, another: Callable[[], Records], limit: int) -> None:
        processes = [RecordKeys(another()) for _ in range(4)]
        begun: list[NewSubscription] = []
        codes: list[str] = []

        async def begin(keys: RecordKeys, name: str) -> None:
            try:
                begun.append(await keys.begin(one(name), limit=limit))
            except SubscriptionRefused as error:
                codes.append(error.code)

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(begin, processes[number % 4], f"s{number}")
        assert len(begun) == limit
        assert codes == ["subscriptions-limit-reached"] * (12 - limit)
        kept = await another().page("subscription")
        assert [record.id for record in kept] == sorted(made.subscription.id for made in begun)
        for made in begun:
            found = await RecordKeys(another()).find(key_digest(made.secondary))
            assert found is not None
            assert found.subscription == made.subscription

    @pytest.mark.parametrize("limit", [None, 9])
    async def test_one_begins_of_those_with_the_same_id(
        self, another: Callable[[], Records], limit: int | None
    ) -> None:
        processes = [RecordKeys(another()) for _ in range(4)]
        begun: list[NewSubscription] = []
        codes: list[str] = []

        async def begin(keys: RecordKeys, owner: str) -> None:
            try:
                begun.append(await keys.begin(one("same", owner), limit=limit))
            except SubscriptionRefused as error:
                codes.append(error.code)

        async with anyio.create_task_group() as group:
            for number, keys in enumerate(processes):
                group.start_soon(begin, keys, f"owner{number}")
        assert codes == ["subscription-exists"] * 3
        [made] = begun
        found = await RecordKeys(another()).find(key_digest(made.primary))
        assert found is not None
        assert found.subscription == made.subscription

    async def test_approval_and_rejection_that_meet_are_not_both_done(self, another: Callable[[], Records]) -> None:
        here, there = RecordKeys(another()), RecordKeys(another())
        await here.begin(one("mine"), state="submitted", limit=1)
        refused: list[str] = []

        async def decide(verdict: Any) -> None:
            try:
                await verdict("mine")
            except SubscriptionRefused as error:
                refused.append(error.code)

        async with anyio.create_task_group() as group:
            group.start_soon(decide, here.approve)
            group.start_soon(decide, there.reject)
        assert refused == ["subscription-not-waiting"]
        assert (await here.keyring("mine")).state in ("active", "rejected")


class TestInMemory(LastPlace):
    @pytest.fixture
    def another(self) -> Callable[[], Records]:
        records = MemoryRecords()
        return lambda: records


class TestInSQLite(LastPlace):
    @pytest.fixture
    async def another(self, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Callable[[], Records]]:
        async with AsyncExitStack() as opened:

            def again() -> Records:
                records = SQLiteRecords(tmp_path / "records.db")
                opened.push_async_callback(records.aclose)
                return records

            yield again


class TestInRedis(LastPlace):
    @pytest.fixture
    def anyio_backend(self) -> str:
        """Redis is asked on asyncio only."""
        return "asyncio"

    @pytest.fixture
    async def another(
        self, shared_redis: RedisServer, emptied_redis: redis.Redis
    ) -> AsyncIterator[Callable[[], Records]]:
        async with AsyncExitStack() as opened:

            def again() -> Records:
                records = RedisRecords(shared_redis.url)
                opened.push_async_callback(records.aclose)
                return records

            yield again


# In every order, and with every mishap


class Mishap(NamedTuple):
    """What goes wrong for one who asks, at which of its calls to the records."""

    call: int
    kind: Literal["fails", "is lost", "is cancelled", "dies"]
    """Not done; done, but not said so; cancelled while waiting; not done, and no other call ever again."""


class Stage:
    """Records whose every call waits until it is its turn."""

    def __init__(self, clock: FakeClock) -> None:
        self.records = MemoryRecords(clock=clock)
        self.waiting: list[anyio.Event] = []

    async def turn(self) -> None:
        event = anyio.Event()
        self.waiting.append(event)
        try:
            await event.wait()
        finally:
            if event in self.waiting:
                self.waiting.remove(event)


class Seen:
    """The stage as one process sees it."""

    def __init__(self, stage: Stage, mishap: Mishap | None) -> None:
        self.stage, self.mishap = stage, mishap
        self.calls = 0
        self.dead = False
        self.scope = anyio.CancelScope()

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        at, self.calls = self.calls, self.calls + 1
        kind = self.mishap.kind if self.mishap is not None and self.mishap.call == at else None
        if kind == "is cancelled":
            self.scope.cancel()
        await self.stage.turn()
        self.dead = self.dead or kind == "dies"
        if self.dead or kind == "fails":
            raise StoreError("away")
        found = await getattr(self.stage.records, name)(*args, **options)
        if kind == "is lost":
            raise StoreError("lost")
        return found

    async def get(self, kind: str, record_id: str) -> Record | None:
        return await self._call("get", kind, record_id)

    async def page(self, kind: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        return await self._call("page", kind, after=after, limit=limit)

    async def put(
        self, kind: str, record_id: str, document: Mapping[str, Any], *, if_match: int | None = None
    ) -> Record:
        return await self._call("put", kind, record_id, document, if_match=if_match)

    async def delete(self, kind: str, record_id: str, *, if_match: int | None = None) -> None:
        await self._call("delete", kind, record_id, if_match=if_match)

    async def version(self) -> int:
        return await self._call("version")

    async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
        return await self._call("changes", after, limit=limit)


class Played(NamedTuple):
    stage: Stage
    clock: FakeClock
    begun: list[NewSubscription]


async def played(mishaps: list[Mishap | None], limit: int, turns: list[int]) -> Played:
    """Let each of several processes begin a subscription of the same owner, call by call in an order that is given."""
    clock = FakeClock()
    stage = Stage(clock)
    begun: list[NewSubscription] = []

    async def begin(name: str, seen: Seen) -> None:
        with seen.scope:
            try:
                begun.append(await RecordKeys(seen, clock=clock).begin(one(name), limit=limit))
            except (SubscriptionRefused, StoreError):
                return

    async with anyio.create_task_group() as group:
        for number, mishap in enumerate(mishaps):
            group.start_soon(begin, f"s{number}", Seen(stage, mishap))
        at = 0
        await anyio.wait_all_tasks_blocked()
        while stage.waiting:
            stage.waiting.pop(turns[at % len(turns)] % len(stage.waiting)).set()
            at += 1
            await anyio.wait_all_tasks_blocked()
    return Played(stage, clock, begun)


TURNS = st.lists(st.integers(0, 11), min_size=1, max_size=60)
MISHAPS = st.builds(Mishap, st.integers(0, 9), st.sampled_from(["fails", "is lost", "is cancelled", "dies"]))


@settings(deadline=None, max_examples=150)
@given(asking=st.integers(1, 4), limit=st.integers(1, 3), turns=TURNS)
def test_in_every_order_as_many_begin_as_may(asking: int, limit: int, turns: list[int]) -> None:
    end = anyio.run(played, [None] * asking, limit, turns)
    assert len(end.begun) == min(asking, limit)


@settings(deadline=None, max_examples=300)
@given(mishaps=st.lists(st.none() | MISHAPS, min_size=1, max_size=4), limit=st.integers(1, 2), turns=TURNS)
def test_with_every_mishap_no_more_begin_than_may_and_nothing_half_made_remains(
    mishaps: list[Mishap | None], limit: int, turns: list[int]
) -> None:
    async def play() -> None:
        end = await played(mishaps, limit, turns)
        keys = RecordKeys(end.stage.records, clock=end.clock)
        kept = {ring.subscription.id: ring for ring in await keys.keyrings()}
        assert len(kept) <= limit
        for made in end.begun:
            assert kept.pop(made.subscription.id) == made.keyring()
        died = {f"s{number}" for number, each in enumerate(mishaps) if each is not None and each.kind == "dies"}
        assert kept.keys() <= died
        end.clock.advance(60)
        await keys.begin(one("later", "bob"), limit=1)
        left = await end.stage.records.page("subscription")
        assert [record.id for record in left if "claim" in (record.document or {})] == []

    anyio.run(play)


@settings(deadline=None)
@given(names=st.lists(st.sampled_from("abcd"), max_size=12), limit=st.integers(1, 3))
def test_in_memory_no_more_begin_than_may(names: list[str], limit: int) -> None:
    keys = MemoryKeys()
    for name in names:
        with suppress(SubscriptionRefused):
            keys.begin(one(name), limit=limit)
    assert len(keys) == min(len({*names}), limit)


# Claims


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def abandoned(records: MemoryRecords, clock: FakeClock, name: str = "dead") -> None:
    """Begin a subscription in a process that dies once it has its claim."""
    stage = Stage(clock)
    stage.records = records
    seen = Seen(stage, Mishap(4, "dies"))  # behind version, everything, the rest, and the claim

    async def begin() -> None:
        with pytest.raises(StoreError):
            await RecordKeys(seen, clock=clock).begin(one(name), limit=1)

    async with anyio.create_task_group() as group:
        group.start_soon(begin)
        await anyio.wait_all_tasks_blocked()
        while stage.waiting:
            stage.waiting.pop().set()
            await anyio.wait_all_tasks_blocked()
    [left] = await records.page("subscription")
    assert "claim" in (left.document or {})


async def test_a_claim_is_no_subscription(clock: FakeClock) -> None:
    records = MemoryRecords(clock=clock)
    await abandoned(records, clock)
    keys = RecordKeys(records, clock=clock)
    assert await keys.keyrings() == []
    for change in (keys.approve("dead"), keys.resume("dead"), keys.issue("dead"), keys.remove("dead")):
        with pytest.raises(LookupError, match="there is no subscription 'dead'"):
            await change


async def test_the_claim_of_a_process_that_died_holds_its_place_for_a_minute(clock: FakeClock) -> None:
    records = MemoryRecords(clock=clock)
    await abandoned(records, clock)
    keys = RecordKeys(records, clock=clock)
    clock.advance(59)
    with pytest.raises(SubscriptionRefused, match="allows each owner 1"):
        await keys.begin(one("mine"), limit=1)
    clock.advance(1)
    await keys.begin(one("mine"), limit=1)
    assert [record.id for record in await records.page("subscription")] == ["mine"]


async def test_the_id_of_a_claim_that_was_left_can_be_had_again(clock: FakeClock) -> None:
    records = MemoryRecords(clock=clock)
    await abandoned(records, clock)
    keys = RecordKeys(records, clock=clock)
    with pytest.raises(SubscriptionRefused, match="is there already"):
        await keys.begin(one("dead"))
    clock.advance(60)
    made = await keys.begin(one("dead"))
    assert await keys.find(key_digest(made.primary)) is not None


async def test_who_is_slower_than_a_minute_does_not_begin_after_all(clock: FakeClock) -> None:
    stage = Stage(clock)
    slow = RecordKeys(Seen(stage, None), clock=clock)

    async def begin() -> None:
        with pytest.raises(StoreError, match="took too long to begin"):
            await slow.begin(one("slow"), limit=1)

    async with anyio.create_task_group() as group:
        group.start_soon(begin)
        await anyio.wait_all_tasks_blocked()
        for _ in range(5):  # until nothing is left but to make the claim a subscription
            stage.waiting.pop().set()
            await anyio.wait_all_tasks_blocked()
        assert len(await stage.records.page("subscription")) == 1
        clock.advance(60)
        await RecordKeys(stage.records, clock=clock).begin(one("quick"), limit=1)
        while stage.waiting:
            stage.waiting.pop().set()
            await anyio.wait_all_tasks_blocked()
    assert [record.id for record in await stage.records.page("subscription")] == ["quick"]


async def test_nobody_begins_while_records_are_put_back_as_they_were(clock: FakeClock) -> None:
    class PutBack(MemoryRecords):
        """Records that are lost with the first that is written, for those of a day before."""

        async def put(self, kind: str, record_id: str, document: Mapping[str, Any], **options: Any) -> Record:
            record = await super().put(kind, record_id, document, **options)
            vars(self).update(vars(MemoryRecords(clock=FakeClock(clock.now() - 86_400))))
            return record

    records = PutBack(clock=clock)
    with pytest.raises(StoreError, match="begin the subscription again"):
        await RecordKeys(records, clock=clock).begin(one("mine"), limit=1)
    assert await records.page("subscription") == []


async def test_who_is_refused_writes_nothing(clock: FakeClock) -> None:
    records = MemoryRecords(clock=clock)
    keys = RecordKeys(records, clock=clock)
    await keys.begin(one("mine"), limit=1)
    before = await records.version()
    with pytest.raises(SubscriptionRefused):
        await keys.begin(one("more"), limit=1)
    assert await records.version() == before


async def test_no_record_holds_a_key_while_it_begins(clock: FakeClock) -> None:
    class Written(MemoryRecords):
        texts: list[str]

        async def put(self, kind: str, record_id: str, document: Mapping[str, Any], **options: Any) -> Record:
            self.texts.append(str(document))
            return await super().put(kind, record_id, document, **options)

    records = Written(clock=clock)
    records.texts = []
    made = await RecordKeys(records, clock=clock).begin(one("mine"), limit=1)
    assert len(records.texts) == 2
    assert not any(made.primary in text or made.secondary in text for text in records.texts)


async def test_who_asks_what_changed_while_another_learns_more_does_not_stop_short(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PAGE", 3)

    class Late(MemoryRecords):
        """Answers that were given before others came, and arrive behind theirs."""

        held: list[anyio.Event]

        async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
            found = await super().changes(after, limit=limit)
            if self.held:
                await self.held.pop(0).wait()
            return found

    records = Late(clock=clock)
    records.held = []
    keys, writer = RecordKeys(records, clock=clock), RecordKeys(records, clock=clock)
    await keys.refresh()
    await writer.add(one("a"))
    await writer.add(one("mine"))
    first, second, third = anyio.Event(), anyio.Event(), anyio.Event()
    counted: list[int] = []

    async def ask() -> None:
        await keys.refresh()
        counted.append(len(keys))

    async with anyio.create_task_group() as group:
        records.held = [first]
        group.start_soon(ask)  # is told of both
        await anyio.wait_all_tasks_blocked()
        for name in ("b", "c"):
            await writer.add(one(name))
        await writer.suspend("mine")
        records.held = [second, third]
        group.start_soon(keys.refresh)  # is told of the others first
        await anyio.wait_all_tasks_blocked()
        second.set()
        await anyio.wait_all_tasks_blocked()
        first.set()
        await anyio.wait_all_tasks_blocked()
        third.set()
    assert counted == [4]
