"""Subscription keys kept as records: what one process changes, every process knows within a second."""

from contextlib import suppress
from typing import Any

import anyio
import pytest

from apim_middleware.errors import ConfigError, FeedLost, StoreError, VersionConflict
from apim_middleware.identity import Subscription
from apim_middleware.protocols import Record
from apim_middleware.stores import following
from apim_middleware.stores.keys import key_digest
from apim_middleware.stores.record_keys import RecordKeys
from apim_middleware.stores.records import MemoryRecords
from apim_middleware.testing import FakeClock

pytestmark = pytest.mark.anyio
ADA = Subscription(id="ada", product="starter", owner="ada@example.org")


class Watched(MemoryRecords):
    """Records that count how often they are asked what changed, may fail, and may be slow."""

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        super().__init__(clock=clock, **options)
        self.asked = 0
        self.away = False
        self.gate: anyio.Event | None = None

    async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise StoreError("away")
        return await super().changes(after, limit=limit)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def records(clock: FakeClock) -> Watched:
    return Watched(clock)


@pytest.fixture
def keys(records: Watched, clock: FakeClock) -> RecordKeys:
    return RecordKeys(records, clock=clock)


@pytest.fixture
def other(records: Watched, clock: FakeClock) -> RecordKeys:
    """The same in another process."""
    return RecordKeys(records, clock=clock)


async def state(keys: RecordKeys, key: str) -> str | None:
    found = await keys.find(key_digest(key))
    return None if found is None else found.state


async def test_a_change_is_known_at_once_here_and_within_a_second_elsewhere(
    keys: RecordKeys, other: RecordKeys, clock: FakeClock
) -> None:
    assert await state(other, "x") is None
    await keys.add(ADA)
    key = await keys.issue("ada")
    assert await state(keys, key) == "active"
    assert await state(other, key) is None
    clock.advance(1.0)
    assert await state(other, key) == "active"
    for change, told in ((keys.suspend, "suspended"), (keys.resume, "active"), (keys.cancel, "cancelled")):
        await change("ada")
        assert await state(keys, key) == told
        clock.advance(1.0)
        assert await state(other, key) == told
    await keys.remove("ada")
    assert await state(keys, key) is None
    clock.advance(1.0)
    assert await state(other, key) is None
    assert (len(keys), len(other)) == (0, 0)


async def test_the_subscription_comes_back_whole(keys: RecordKeys, other: RecordKeys) -> None:
    await keys.add(ADA, primary=key_digest("one"), secondary=key_digest("two"), expires=7.0)
    found = await other.find(key_digest("two"))
    assert found is not None
    assert (found.subscription, found.expires, found.principal.subject) == (ADA, 7.0, "ada")
    assert (await other.keyring("ada")).keys == (await keys.keyring("ada")).keys


async def test_keys_rotate_with_an_overlap(keys: RecordKeys, clock: FakeClock) -> None:
    await keys.add(ADA)
    old = await keys.issue("ada")
    new = await keys.rotate("ada", overlap=60)
    old_record, new_record = await keys.find(key_digest(old)), await keys.find(key_digest(new))
    assert old_record is not None
    assert new_record is not None
    assert (old_record.ends, new_record.ends) == (clock.now() + 60, None)
    await keys.revoke("ada", "primary")
    assert await state(keys, old) is None
    assert await state(keys, new) is None


async def test_no_record_holds_a_key(keys: RecordKeys, records: Watched) -> None:
    await keys.add(ADA)
    key = await keys.issue("ada")
    [record] = await records.page("subscription")
    assert key not in str(record.document)
    assert key_digest(key).hex() in str(record.document)


async def test_looking_up_asks_once_in_a_while(keys: RecordKeys, records: Watched, clock: FakeClock) -> None:
    for _ in range(100):
        await keys.find(b"x")
    assert records.asked == 2  # everything, and what changed meanwhile
    clock.advance(0.999)
    await keys.find(b"x")
    assert records.asked == 2
    clock.advance(0.001)
    await keys.find(b"x")
    assert records.asked == 3


async def test_while_one_asks_the_others_go_on(keys: RecordKeys, records: Watched, clock: FakeClock) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    clock.advance(2)
    records.gate = anyio.Event()
    asked = records.asked
    async with anyio.create_task_group() as group:
        group.start_soon(keys.find, b"x")
        await anyio.wait_all_tasks_blocked()
        assert await state(keys, "k") == "active"
        assert records.asked == asked + 1
        records.gate.set()


async def test_at_first_everybody_waits_for_the_one_who_asks(keys: RecordKeys, records: Watched) -> None:
    await RecordKeys(records).add(ADA, primary=key_digest("k"))
    records.gate = anyio.Event()
    asked, told = records.asked, []

    async def look() -> None:
        told.append(await state(keys, "k"))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        assert told == []
        records.gate.set()
    assert told == ["active"] * 10
    assert records.asked <= asked + 2


async def test_who_asks_and_leaves_keeps_nobody_from_the_answer(keys: RecordKeys, records: Watched) -> None:
    records.gate = anyio.Event()
    told = []

    async def look() -> None:
        told.append(await state(keys, "k"))

    leaves = anyio.CancelScope()

    async def asks_and_leaves() -> None:
        with leaves:
            await keys.find(b"x")

    async with anyio.create_task_group() as group:
        group.start_soon(asks_and_leaves)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        leaves.cancel()
        await anyio.wait_all_tasks_blocked()
        records.gate.set()
    assert told == [None]


async def test_an_outage_is_outlived_for_a_while_and_then_nobody_comes_in(
    keys: RecordKeys, records: Watched, clock: FakeClock
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    records.away = True
    for _ in range(5):
        clock.advance(1.0)
        assert await state(keys, "k") == "active"
    clock.advance(0.001)
    with pytest.raises(StoreError, match="too old"):
        await keys.find(key_digest("k"))


async def test_it_is_asked_after_the_pauses_of_limits(keys: RecordKeys, records: Watched, clock: FakeClock) -> None:
    """Reported by a user: every request waited for the time-out of a silent store, for as long as it was."""
    await keys.add(ADA, primary=key_digest("k"))
    records.away = True
    clock.advance(1.0)
    assert await state(keys, "k") == "active"
    for pause in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0):
        asked = records.asked
        clock.advance(pause - 0.01)
        await knocks(keys)
        assert records.asked == asked
        clock.advance(0.02)
        await knocks(keys)
        assert records.asked == asked + 1


async def knocks(keys: RecordKeys) -> None:
    """Come with a key, whatever becomes of it, and let end what that began."""
    with suppress(StoreError):
        await keys.find(key_digest("k"))
    await anyio.wait_all_tasks_blocked()


async def test_an_outage_is_said_when_it_begins_and_when_it_is_over(
    keys: RecordKeys, records: Watched, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    for records.away in (True, False):
        for _ in range(20):
            clock.advance(1.0)
            await knocks(keys)
    away, back = (record.getMessage() for record in caplog.records)
    assert away == "RecordKeys cannot ask the records: 'away'"
    assert back == "RecordKeys can ask the records again"


async def test_whoever_finds_the_records_back_finds_them_back_for_all(
    keys: RecordKeys, records: Watched, clock: FakeClock
) -> None:
    await keys.refresh()
    records.away = True
    clock.advance(1.0)
    with pytest.raises(StoreError):
        await keys.find(b"x")
    records.away = False
    await keys.add(ADA)  # an administrator is not kept from trying
    clock.advance(1.0)
    assert await keys.find(b"x") is None


async def test_a_key_that_opens_does_not_wait_for_slow_records(
    keys: RecordKeys, records: Watched, clock: FakeClock
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    clock.advance(2)
    records.gate = anyio.Event()
    with anyio.fail_after(5):
        assert await state(keys, "k") == "active"
    records.gate.set()


async def test_a_key_that_does_not_open_waits_for_slow_records(
    keys: RecordKeys, other: RecordKeys, records: Watched, clock: FakeClock
) -> None:
    """Else a key that was just made, or a subscription that was just resumed, would be turned away."""
    await keys.add(ADA, primary=key_digest("k"), state="suspended")
    await keys.refresh()
    await other.resume("ada")
    clock.advance(2)
    records.gate = anyio.Event()
    told: list[str | None] = []

    async def look() -> None:
        told.append(await state(keys, "k"))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        assert told == []
        records.gate.set()
    assert told == ["active"]


async def test_nobody_is_turned_away_for_a_key_that_may_have_been_made_during_an_outage(
    keys: RecordKeys, records: Watched, clock: FakeClock
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    records.away = True
    clock.advance(1.0)
    for _ in range(3):
        with pytest.raises(StoreError, match="whether there is such a key"):
            await keys.find(b"unknown")


async def test_what_is_known_not_to_open_is_so_during_an_outage(
    keys: RecordKeys, records: Watched, clock: FakeClock
) -> None:
    await keys.add(ADA, primary=key_digest("k"), state="suspended")
    records.away = True
    clock.advance(1.0)
    assert await state(keys, "k") == "suspended"


async def test_who_was_idle_for_longer_than_stale_asks_before_a_key_is_believed(
    keys: RecordKeys, other: RecordKeys, records: Watched, clock: FakeClock
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    assert await state(other, "k") == "active"
    await keys.suspend("ada")
    clock.advance(5.001)
    records.gate = anyio.Event()
    told: list[str | None] = []

    async def look() -> None:
        told.append(await state(other, "k"))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(look)
        await anyio.wait_all_tasks_blocked()
        assert told == []
        records.gate.set()
    assert told == ["suspended"] * 3


async def test_a_copy_is_as_old_as_the_question_not_the_answer(
    keys: RecordKeys, other: RecordKeys, records: Watched, clock: FakeClock
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    changes = records.changes

    async def answers_late(after: int, *, limit: int = 1000) -> list[Record]:
        found = await changes(after, limit=limit)
        clock.advance(4.0)
        return found

    assert await state(other, "k") == "active"
    records.changes = answers_late  # type: ignore[method-assign]
    clock.advance(1.0)
    assert await state(other, "k") == "active"
    records.away = True
    await anyio.wait_all_tasks_blocked()
    clock.advance(1.0)
    assert await state(other, "k") == "active"
    clock.advance(0.001)
    with pytest.raises(StoreError, match="too old"):
        await other.find(key_digest("k"))


async def test_a_change_that_cannot_be_read_back_is_known_to_the_next_who_looks(
    keys: RecordKeys, records: Watched
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    put = records.put

    async def puts_and_fails(*args: Any, **options: Any) -> Record:
        record = await put(*args, **options)
        records.away = True
        return record

    records.put = puts_and_fails  # type: ignore[method-assign]
    await keys.suspend("ada")
    records.away = False
    assert await state(keys, "k") == "suspended"


@pytest.mark.parametrize(("change", "told"), [("suspend", "suspended"), ("cancel", "cancelled"), ("expire", "expired")])
async def test_a_change_is_known_at_once_here_while_changes_cannot_be_asked_for(
    keys: RecordKeys, records: Watched, clock: FakeClock, change: str, told: str
) -> None:
    """The key worked on here, until the records could be asked again or the copy was too old."""
    await keys.add(ADA, primary=key_digest("k"))
    asked = records.changes

    async def says_no_more(after: int, *, limit: int = 1000) -> list[Record]:
        records.away = records.away or after < await records.version()
        return await asked(after, limit=limit)

    records.changes = says_no_more  # type: ignore[method-assign]
    await getattr(keys, change)("ada")
    found = await keys.find(key_digest("k"))
    assert records.away
    assert found is not None
    assert found.state_at(clock.now()) == told


async def test_what_is_removed_is_known_to_be_gone_here_while_changes_cannot_be_asked_for(
    keys: RecordKeys, records: Watched
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    delete = records.delete

    async def deletes_and_fails(*args: Any, **options: Any) -> None:
        await delete(*args, **options)
        records.away = True

    records.delete = deletes_and_fails  # type: ignore[method-assign]
    await keys.remove("ada")
    with pytest.raises(StoreError, match="whether there is such a key"):  # somebody may have added it again
        await keys.find(key_digest("k"))


@pytest.mark.parametrize("change", ["resume", "remove"])
async def test_what_was_changed_elsewhere_after_a_change_here_is_not_undone_by_that(
    keys: RecordKeys, other: RecordKeys, records: Watched, change: str
) -> None:
    await keys.add(ADA, primary=key_digest("k"), state="suspended")
    method = "put" if change == "resume" else "delete"
    made = getattr(records, method)

    async def answers_late(*args: Any, **options: Any) -> Record | None:
        setattr(records, method, made)
        record: Record | None = await made(*args, **options)
        await other.add(ADA, primary=key_digest("k"), state="cancelled")
        await keys.refresh()
        records.away = True
        return record

    setattr(records, method, answers_late)
    await getattr(keys, change)("ada")
    assert await state(keys, "k") == "cancelled"


async def test_changes_that_meet_are_both_made(keys: RecordKeys, other: RecordKeys) -> None:
    await keys.add(ADA)
    async with anyio.create_task_group() as group:
        group.start_soon(keys.set_key, "ada", "primary", key_digest("one"))
        group.start_soon(other.set_key, "ada", "secondary", key_digest("two"))
        group.start_soon(keys.expire, "ada", 99.0)
    ring = await keys.keyring("ada")
    assert ({key.digest for key in ring.keys}, ring.expires) == ({key_digest("one"), key_digest("two")}, 99.0)


async def test_a_change_that_never_gets_its_turn_is_an_error(keys: RecordKeys, records: Watched) -> None:
    await keys.add(ADA)

    async def conflicts(*args: Any, **options: Any) -> Record:
        raise VersionConflict(1)

    records.put = conflicts  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="all the time"):
        await keys.suspend("ada")


async def test_a_key_belongs_to_one_subscription(keys: RecordKeys, other: RecordKeys) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    with pytest.raises(ValueError, match="belongs to another"):
        await other.add(Subscription(id="bob"), primary=key_digest("k"))
    await other.add(Subscription(id="bob"))
    with pytest.raises(ValueError, match="belongs to another"):
        await other.set_key("bob", "primary", key_digest("k"))


async def test_who_is_too_far_behind_begins_anew(clock: FakeClock) -> None:
    records = Watched(clock, max_deleted=2)
    keys, other = RecordKeys(records, clock=clock), RecordKeys(records, clock=clock)
    for number in range(6):
        await keys.add(Subscription(id=f"s{number}"), primary=key_digest(f"k{number}"))
    assert await state(other, "k0") == "active"
    for number in range(5):
        await keys.remove(f"s{number}")
    clock.advance(1)
    assert await state(other, "k0") is None
    assert await state(other, "k5") == "active"
    assert len(other) == 1


async def test_more_subscriptions_than_a_page_are_all_known(keys: RecordKeys, records: Watched) -> None:
    for number in range(2500):
        ring = {"subscription": {"id": f"s{number}"}, "state": "active", "expires": None, "keys": []}
        await records.put("subscription", f"s{number}", ring)
    await keys.refresh()
    assert len(keys) == 2500


async def test_old_subscriptions_are_followed_past_many_deletions(clock: FakeClock) -> None:
    records = Watched(clock, max_deleted=2)
    keys, other = RecordKeys(records, clock=clock), RecordKeys(records, clock=clock)
    await keys.add(ADA, primary=key_digest("k"))
    for number in range(6):
        await keys.add(Subscription(id=f"s{number}"))
        await keys.remove(f"s{number}")
    assert await state(other, "k") == "active"
    asked = records.asked
    for _ in range(3):
        clock.advance(1)
        assert await state(other, "k") == "active"
    assert records.asked == asked + 3  # and never everything again


@pytest.mark.parametrize(
    "document",
    [{}, {"subscription": {"id": "bob"}, "state": "active", "expires": None, "keys": []}, {"subscription": "x"}],
)
async def test_a_record_that_is_no_subscription_lets_nobody_in(
    keys: RecordKeys, records: Watched, document: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    await keys.add(ADA, primary=key_digest("k"))
    await records.put("subscription", "ada", document)
    await records.put("product", "ada", {})
    await keys.refresh()
    assert await state(keys, "k") is None
    assert "cannot be read" in caplog.text
    with pytest.raises(LookupError):
        await keys.suspend("ada")


async def test_a_subscription_that_is_not_there_is_told(keys: RecordKeys) -> None:
    for call in (keys.suspend("x"), keys.issue("x"), keys.remove("x"), keys.keyring("x")):
        with pytest.raises(LookupError, match="there is no subscription 'x'"):
            await call


async def test_records_that_forget_faster_than_they_are_read_are_a_store_error(
    keys: RecordKeys, records: Watched
) -> None:
    async def forgets(after: int, *, limit: int = 1000) -> list[Record]:
        if after:
            raise FeedLost
        return []

    records.changes = forgets  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="faster"):
        await keys.refresh()


async def test_what_makes_no_sense_is_refused(keys: RecordKeys, records: Watched) -> None:
    await keys.add(ADA)
    with pytest.raises(ValueError, match="overlap"):
        await keys.issue("ada", overlap=-1)
    with pytest.raises(ConfigError, match=r"RecordKeys\.refresh"):
        RecordKeys(records, refresh=9)
    with pytest.raises(ConfigError, match=r"RecordKeys\.prefix"):
        RecordKeys(records, prefix="A B")


class Forgetful(MemoryRecords):
    """Records that forget what has changed up to a version, and hold back an answer that says no more has."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten = 0
        self.held: anyio.Event | None = None

    async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
        if 0 < after < self.forgotten:
            raise FeedLost
        found = await super().changes(after, limit=limit)
        if after >= self.forgotten and self.held is not None:
            held, self.held = self.held, None
            await held.wait()
        return found


async def test_what_was_read_anew_before_a_change_does_not_undo_it() -> None:
    records = Forgetful()
    keys = RecordKeys(records, clock=FakeClock())
    await keys.add(Subscription(id="one"))
    digest = key_digest((await keys.issue("one")).encode())
    await records.put("other", "thing", {})
    records.forgotten, records.held = await records.version(), anyio.Event()
    held = records.held
    async with anyio.create_task_group() as group:
        group.start_soon(keys.refresh)
        await anyio.wait_all_tasks_blocked()
        await keys.suspend("one")
        held.set()
    record = await keys.find(digest)
    assert record is not None
    assert record.state_at(0.0) == "suspended"


class Deliberate(Watched):
    """Records that take their time to answer."""

    clock: FakeClock

    async def changes(self, after: int, *, limit: int = 1000) -> list[Record]:
        found = await super().changes(after, limit=limit)
        self.clock.advance(0.2)
        return found


@pytest.mark.parametrize("stale", [0.0, 0.1])
async def test_an_answer_that_was_waited_for_is_good_however_long_it_took(clock: FakeClock, stale: float) -> None:
    records = Deliberate(clock)
    records.clock = clock
    keys = RecordKeys(records, clock=clock, refresh=0, stale=stale)
    await keys.add(ADA)
    key = await keys.issue("ada")
    assert [await state(keys, key) for _ in range(2)] == ["active", "active"]


async def test_records_that_never_answer_keep_nobody_from_asking_again(
    keys: RecordKeys, records: Watched, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing ended the question that was under way, so there was never another."""
    monkeypatch.setattr(following, "_LONGEST", 0.01)
    records.gate = anyio.Event()
    with pytest.raises(StoreError):
        await state(keys, "x")
    records.gate = None
    clock.advance(60)
    assert await state(keys, "x") is None
