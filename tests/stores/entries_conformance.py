"""What every version of ``Entries`` must do, whatever it keeps them in.

A store's test module subclasses ``EntriesConformance`` and says in ``entries`` how one is made with ``clock``.
"""

import anyio
import pytest

from apim_middleware.protocols import Entries
from apim_middleware.testing import FakeClock

HOSTILE = [b"", b" ", b"a|b", b"a\x00b", b"a\r\nb", b"{a}", b"\xff\xfe", "é".encode(), b"k" * 4096, b"%s", b"a:b", b"*"]


class EntriesConformance:
    """The promises of the protocol; times are those of ``clock``."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The clock that ``entries`` goes by."""
        return FakeClock()

    @pytest.fixture
    def entries(self, clock: FakeClock) -> Entries:
        """The store under test, with room for a megabyte at least."""
        raise NotImplementedError

    # Kept and found

    @pytest.mark.anyio
    async def test_what_is_set_comes_back(self, entries: Entries) -> None:
        await entries.set(b"key", b"\x00value\xff", 60)
        assert await entries.get(b"key") == b"\x00value\xff"

    @pytest.mark.anyio
    async def test_an_unknown_key_has_nothing(self, entries: Entries) -> None:
        assert await entries.get(b"key") is None

    @pytest.mark.anyio
    async def test_an_empty_value_is_a_value(self, entries: Entries) -> None:
        await entries.set(b"key", b"", 60)
        assert await entries.get(b"key") == b""

    @pytest.mark.anyio
    async def test_a_large_value_comes_back_whole(self, entries: Entries) -> None:
        value = bytes(range(256)) * 1024
        await entries.set(b"key", value, 60, tags=[b"tag"])
        assert await entries.get(b"key") == value

    @pytest.mark.anyio
    async def test_setting_again_replaces(self, entries: Entries) -> None:
        await entries.set(b"key", b"old", 60)
        await entries.set(b"key", b"new", 60)
        assert await entries.get(b"key") == b"new"

    @pytest.mark.anyio
    async def test_keys_are_told_apart_byte_by_byte(self, entries: Entries) -> None:
        keys = [*HOSTILE, b"a", b"a\x00", b"A"]
        for number, key in enumerate(keys):
            await entries.set(key, b"%d" % number, 60)
        assert [await entries.get(key) for key in keys] == [b"%d" % number for number in range(len(keys))]

    @pytest.mark.anyio
    async def test_many_are_found_in_the_order_of_their_keys(self, entries: Entries) -> None:
        for number in range(0, 100, 2):
            await entries.set(b"%d" % number, b"value %d" % number, 60)
        found = await entries.get_many([b"%d" % number for number in reversed(range(100))])
        assert found == [b"value %d" % number if number % 2 == 0 else None for number in reversed(range(100))]
        assert await entries.get_many([]) == []
        assert await entries.get_many([b"2", b"2"]) == [b"value 2"] * 2

    @pytest.mark.anyio
    async def test_callers_at_the_same_time_get_their_own(self, entries: Entries) -> None:
        async def one(number: int) -> None:
            await entries.set(b"%d" % number, b"value %d" % number, 60)
            assert await entries.get(b"%d" % number) == b"value %d" % number

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)

    # Forgotten

    @pytest.mark.anyio
    async def test_what_is_deleted_is_gone(self, entries: Entries) -> None:
        await entries.set(b"key", b"value", 60)
        await entries.delete(b"key")
        assert await entries.get(b"key") is None

    @pytest.mark.anyio
    async def test_deleting_an_unknown_key_does_nothing(self, entries: Entries) -> None:
        await entries.delete(b"key")
        await entries.delete(b"key", value=b"value")
        assert await entries.get(b"key") is None

    @pytest.mark.parametrize(("given", "left"), [(b"value", None), (b"other", b"value"), (b"", b"value")])
    @pytest.mark.anyio
    async def test_with_a_value_only_that_is_deleted(self, entries: Entries, given: bytes, left: bytes | None) -> None:
        await entries.set(b"key", b"value", 60)
        await entries.delete(b"key", value=given)
        assert await entries.get(b"key") == left

    @pytest.mark.parametrize(("passed", "value"), [(0, b"value"), (59.9, b"value"), (60, None), (61, None)])
    @pytest.mark.anyio
    async def test_an_entry_lives_as_long_as_it_was_given(
        self, entries: Entries, clock: FakeClock, passed: float, value: bytes | None
    ) -> None:
        await entries.set(b"key", b"value", 60, tags=[b"tag"])
        clock.advance(passed)
        assert await entries.get(b"key") == value

    @pytest.mark.anyio
    async def test_setting_again_begins_the_time_anew(self, entries: Entries, clock: FakeClock) -> None:
        await entries.set(b"key", b"value", 60)
        clock.advance(50)
        await entries.set(b"key", b"value", 60)
        clock.advance(50)
        assert await entries.get(b"key") == b"value"

    @pytest.mark.anyio
    async def test_a_wall_clock_set_back_or_forth_changes_nothing(self, entries: Entries, clock: FakeClock) -> None:
        await entries.set(b"key", b"value", 60)
        clock.jump(86_400)
        assert await entries.get(b"key") == b"value"
        clock.jump(-2 * 86_400)
        clock.advance(61)
        assert await entries.get(b"key") is None

    @pytest.mark.parametrize("ttl", [0, -1, float("-inf"), float("nan")])
    @pytest.mark.anyio
    async def test_no_time_to_live_is_no_entry(self, entries: Entries, ttl: float) -> None:
        await entries.set(b"key", b"old", 60)
        await entries.set(b"key", b"value", ttl)
        assert await entries.get(b"key") is None

    @pytest.mark.parametrize("ttl", [0.0005, 2.0**31, float("inf")])
    @pytest.mark.anyio
    async def test_any_time_is_a_time_to_live(self, entries: Entries, ttl: float) -> None:
        await entries.set(b"key", b"value", ttl, tags=[b"tag"])
        assert await entries.get(b"key") == b"value"

    # Added: a lock with a lease

    @pytest.mark.anyio
    async def test_what_is_added_first_stays(self, entries: Entries) -> None:
        assert [await entries.add(b"key", value, 60) for value in (b"a", b"b")] == [True, False]
        assert await entries.get(b"key") == b"a"

    @pytest.mark.anyio
    async def test_what_was_set_is_not_added_to(self, entries: Entries) -> None:
        await entries.set(b"key", b"", 60)
        assert not await entries.add(b"key", b"value", 60)

    @pytest.mark.anyio
    async def test_something_can_be_added_again_when_the_first_is_over_or_deleted(
        self, entries: Entries, clock: FakeClock
    ) -> None:
        assert await entries.add(b"key", b"a", 60)
        clock.advance(60)
        assert await entries.add(b"key", b"b", 60)
        await entries.delete(b"key", value=b"a")
        assert not await entries.add(b"key", b"c", 60)
        await entries.delete(b"key", value=b"b")
        assert await entries.add(b"key", b"c", 60)

    @pytest.mark.anyio
    async def test_what_was_purged_can_be_added(self, entries: Entries) -> None:
        await entries.set(b"key", b"old", 60, tags=[b"tag"])
        assert not await entries.add(b"key", b"new", 60)
        await entries.purge(b"tag")
        assert await entries.add(b"key", b"new", 60)
        assert await entries.get(b"key") == b"new"

    @pytest.mark.anyio
    async def test_of_many_who_add_at_once_one_does(self, entries: Entries) -> None:
        added = []

        async def one(number: int) -> None:
            if await entries.add(b"key", b"%d" % number, 60):
                added.append(b"%d" % number)

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)
        assert added == [await entries.get(b"key")]

    # Tags

    @pytest.mark.anyio
    async def test_a_purged_tag_takes_all_of_its_entries_and_no_others(self, entries: Entries) -> None:
        tagged: list[tuple[bytes, list[bytes]]] = [
            (b"1", [b"a"]), (b"2", [b"a", b"b"]), (b"3", [b"b"]), (b"4", []), (b"5", [b"aa"]), (b"6", [b"A"]),
        ]  # fmt: skip
        for key, tags in tagged:
            await entries.set(key, b"value", 60, tags=tags)
        await entries.purge(b"a")
        found = await entries.get_many([key for key, _ in tagged])
        assert [value is not None for value in found] == [False, False, True, True, True, True]

    @pytest.mark.anyio
    async def test_purging_a_tag_nobody_has_does_nothing(self, entries: Entries) -> None:
        await entries.set(b"key", b"value", 60, tags=[b"tag"])
        await entries.purge(b"other")
        await entries.purge(b"key")
        assert await entries.get(b"key") == b"value"

    @pytest.mark.anyio
    async def test_what_is_set_after_a_purge_is_there_until_the_next(self, entries: Entries) -> None:
        for number in range(3):
            await entries.set(b"other %d" % number, b"value", 60, tags=[b"tag"])
            await entries.set(b"key", b"%d" % number, 60, tags=[b"tag"])
            assert await entries.get(b"key") == b"%d" % number
            await entries.purge(b"tag")
            found = await entries.get_many([b"key", *(b"other %d" % each for each in range(3))])
            assert found == [None] * 4

    @pytest.mark.anyio
    async def test_setting_again_replaces_the_tags_too(self, entries: Entries) -> None:
        await entries.set(b"key", b"old", 60, tags=[b"before"])
        await entries.set(b"key", b"new", 60, tags=[b"now"])
        await entries.purge(b"before")
        assert await entries.get(b"key") == b"new"
        await entries.purge(b"now")
        assert await entries.get(b"key") is None

    @pytest.mark.anyio
    async def test_a_tag_said_twice_is_one(self, entries: Entries) -> None:
        await entries.set(b"key", b"value", 60, tags=[b"tag", b"tag"])
        assert await entries.get(b"key") == b"value"
        await entries.purge(b"tag")
        assert await entries.get(b"key") is None

    @pytest.mark.anyio
    async def test_tags_are_told_apart_byte_by_byte(self, entries: Entries) -> None:
        tags = [tag[:1024] for tag in HOSTILE if tag]
        for tag in tags:
            await entries.set(b"of " + tag, b"value", 60, tags=[tag])
        for number, tag in enumerate(tags):
            await entries.purge(tag)
            found = await entries.get_many([b"of " + each for each in tags])
            assert [value is not None for value in found] == [each > number for each in range(len(tags))]

    @pytest.mark.anyio
    async def test_an_entry_can_have_128_tags(self, entries: Entries) -> None:
        await entries.set(b"key", b"value", 60, tags=[b"%d" % number for number in range(128)])
        assert await entries.get(b"key") == b"value"
        await entries.purge(b"127")
        assert await entries.get(b"key") is None

    @pytest.mark.parametrize("tags", [[b""], [b"x" * 1025], [b"%d" % number for number in range(129)]])
    @pytest.mark.anyio
    async def test_tags_nobody_can_keep_are_refused(self, entries: Entries, tags: list[bytes]) -> None:
        with pytest.raises(ValueError, match="tag"):
            await entries.set(b"key", b"value", 60, tags=tags)

    # Kept only if nothing was purged since

    @pytest.mark.anyio
    async def test_a_look_finds_what_is_there(self, entries: Entries) -> None:
        await entries.set(b"key", b"value", 60)
        found, _ = await entries.look([b"key", b"other"])
        assert found == [b"value", None]

    @pytest.mark.parametrize(("purged", "kept"), [(b"a", False), (b"b", False), (b"c", True), (None, True)])
    @pytest.mark.anyio
    async def test_what_was_begun_before_a_tag_was_purged_is_not_kept(
        self, entries: Entries, purged: bytes | None, kept: bool
    ) -> None:
        await entries.purge(b"a")
        _, after = await entries.look([b"key"])
        if purged is not None:
            await entries.purge(purged)
        assert await entries.set(b"key", b"value", 60, tags=[b"a", b"b"], since=after) is kept
        assert await entries.get(b"key") == (b"value" if kept else None)

    @pytest.mark.anyio
    async def test_what_is_there_stays_when_another_is_not_kept(self, entries: Entries) -> None:
        _, after = await entries.look([b"key"])
        await entries.purge(b"tag")
        assert await entries.set(b"key", b"new", 60, tags=[b"tag"])
        assert not await entries.set(b"key", b"old", 60, tags=[b"tag"], since=after)
        assert await entries.get(b"key") == b"new"

    @pytest.mark.anyio
    async def test_without_tags_nothing_can_have_been_purged(self, entries: Entries) -> None:
        _, after = await entries.look([b"key"])
        await entries.purge(b"tag")
        assert await entries.set(b"key", b"value", 60, since=after)

    @pytest.mark.parametrize("after", [b"", b"0", b"x", b"999999999999999", b"-1", b"\xff", b"nan", b"inf"])
    @pytest.mark.anyio
    async def test_since_a_time_nobody_knows_nothing_is_kept(self, entries: Entries, after: bytes) -> None:
        _, known = await entries.look([b"key"])
        shard, colon, _ = known.rpartition(b":")
        for since in (after, shard + colon + after):
            assert not await entries.set(b"key", b"value", 60, tags=[b"tag"], since=since)
        assert await entries.get(b"key") is None

    @pytest.mark.anyio
    async def test_the_last_purges_are_known_and_what_was_begun_before_them_is_not_kept(self, entries: Entries) -> None:
        """As many as a store knows at least, and one more than it knows at most."""
        _, after = await entries.look([b"key"])
        for least, kept in ((1_000, True), (10_001, False)):
            for tens in range(least // 50 + 1):
                async with anyio.create_task_group() as group:
                    for number in range(50 * tens, min(50 * (tens + 1), least)):
                        group.start_soon(entries.purge, b"%d" % number)
            assert await entries.set(b"key", b"value", 60, tags=[b"tag"], since=after) is kept
            _, after = await entries.look([b"key"])

    @pytest.mark.anyio
    async def test_a_tag_outlives_the_first_of_its_entries(self, entries: Entries, clock: FakeClock) -> None:
        await entries.set(b"short", b"value", 10, tags=[b"tag"])
        await entries.set(b"long", b"value", 100, tags=[b"tag"])
        await entries.set(b"deleted", b"value", 100, tags=[b"tag"])
        await entries.delete(b"deleted")
        clock.advance(50)
        assert await entries.get_many([b"short", b"long"]) == [None, b"value"]
        await entries.purge(b"tag")
        assert await entries.get(b"long") is None
