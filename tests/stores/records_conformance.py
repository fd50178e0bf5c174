"""What every version of ``Records`` must do: a store's tests subclass this and say in ``records`` how one is made."""

import math
from typing import Any

import anyio
import pytest

from apim_middleware.errors import FeedLost, VersionConflict
from apim_middleware.protocols import Record, Records

IDS = ["a", "A", "ä", "\U0001f600", "x y", "a/b", "{a}", "a|b", "%s", "k" * 256]


async def everything(records: Records, after: int = 0, limit: int = 1000) -> list[tuple[str, str, Any]]:
    return [(each.kind, each.id, each.document) for each in await records.changes(after, limit=limit)]


@pytest.mark.anyio
class RecordsConformance:
    """The promises of the protocol, with a memory of three deletions."""

    @pytest.fixture
    def records(self) -> Records:
        """The store under test, empty, with ``max_deleted=3``."""
        raise NotImplementedError

    @pytest.mark.parametrize(
        "document",
        [
            {},
            {"a": [1, 2.5, None, True, {"b": "ä\U0001f600\x00"}], "": "x"},
            {"large": "x" * 900_000},
            {"number": 2**53, "deep": [[[[[[]]]]]]},
        ],
    )
    async def test_what_is_written_comes_back(self, records: Records, document: dict[str, Any]) -> None:
        put = await records.put("api", "orders", document)
        assert put.document == document
        assert await records.get("api", "orders") == put
        assert await records.page("api") == [put]
        assert await records.changes(0) == [put]

    async def test_what_is_not_there_is_none(self, records: Records) -> None:
        assert await records.get("api", "orders") is None
        assert await records.page("api") == []
        assert await records.changes(0) == []
        await records.delete("api", "orders")

    @pytest.mark.parametrize("name", IDS)
    async def test_ids_are_told_apart(self, records: Records, name: str) -> None:
        for each in IDS:
            await records.put("api", each, {"id": each})
        found = await records.get("api", name)
        assert found is not None
        assert (found.id, found.document) == (name, {"id": name})
        assert await records.get("product", name) is None

    async def test_versions_only_grow(self, records: Records) -> None:
        versions = [(await records.put("api", name, {})).version for name in "abab"]
        await records.delete("api", "a")
        versions.append((await records.put("api", "a", {})).version)
        assert versions == sorted(set(versions))
        assert versions[0] > 0

    async def test_a_change_can_depend_on_the_version(self, records: Records) -> None:
        first = await records.put("api", "a", {"n": 1}, if_match=0)
        for wrong in (0, first.version - 1, first.version + 1):
            with pytest.raises(VersionConflict) as caught:
                await records.put("api", "a", {"n": 2}, if_match=wrong)
            assert caught.value.version == first.version
            with pytest.raises(VersionConflict):
                await records.delete("api", "a", if_match=wrong)
        assert await records.get("api", "a") == first
        second = await records.put("api", "a", {"n": 2}, if_match=first.version)
        await records.delete("api", "a", if_match=second.version)
        assert await records.get("api", "a") is None

    async def test_what_was_deleted_is_not_there_for_conditions_too(self, records: Records) -> None:
        first = await records.put("api", "a", {})
        await records.delete("api", "a")
        for wrong in (first.version, first.version + 1):
            with pytest.raises(VersionConflict) as caught:
                await records.put("api", "a", {}, if_match=wrong)
            assert caught.value.version == 0
        await records.put("api", "a", {}, if_match=0)
        await records.delete("api", "b", if_match=0)
        with pytest.raises(VersionConflict):
            await records.delete("api", "b", if_match=7)

    async def test_of_many_who_want_the_same_version_one_wins(self, records: Records) -> None:
        first = await records.put("api", "a", {})
        won: list[int] = []

        async def change(number: int) -> None:
            try:
                await records.put("api", "a", {"n": number}, if_match=first.version)
            except VersionConflict:
                return
            won.append(number)

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(change, number)
        found = await records.get("api", "a")
        assert found is not None
        assert [found.document] == [{"n": number} for number in won]

    async def test_pages_go_by_id(self, records: Records) -> None:
        for name in ("b", "a", "ä", "c", "B"):
            await records.put("api", name, {})
        await records.put("product", "aa", {})
        await records.put("apis", "ab", {})
        await records.delete("api", "c")
        assert [each.id for each in await records.page("api")] == ["B", "a", "b", "ä"]
        assert [each.id for each in await records.page("api", limit=2)] == ["B", "a"]
        assert [each.id for each in await records.page("api", after="a", limit=1)] == ["b"]
        assert [each.id for each in await records.page("api", after="aa")] == ["b", "ä"]
        assert await records.page("api", after="ä") == []

    async def test_changes_are_told_in_their_order_each_record_once(self, records: Records) -> None:
        one = await records.put("api", "a", {"n": 1})
        two = await records.put("product", "b", {"n": 2})
        three = await records.put("api", "a", {"n": 3})
        assert await records.changes(0) == [two, three]
        assert await records.changes(one.version) == [two, three]
        assert await records.changes(two.version) == [three]
        assert await records.changes(three.version) == []

    async def test_changes_come_in_pages(self, records: Records) -> None:
        seen: list[Record] = []
        after = (await records.put("api", "first", {})).version
        for number in range(7):
            await records.put("api", f"a{number}", {"n": number})
        await records.delete("api", "a3")
        while page := await records.changes(after, limit=2):
            assert len(page) <= 2
            seen += page
            after = page[-1].version
        assert [each.id for each in seen if each.document is not None] == ["a0", "a1", "a2", "a4", "a5", "a6"]
        assert [each.version for each in seen] == sorted(each.version for each in seen)

    async def test_everything_comes_at_once(self, records: Records) -> None:
        for number in range(7):
            await records.put("api", f"a{number}", {"n": number})
        await records.delete("api", "a3")
        assert [each.id for each in await records.changes(0, limit=2)] == ["a0", "a1", "a2", "a4", "a5", "a6"]

    async def test_who_has_read_everything_can_follow(self, records: Records) -> None:
        """Although what is there is older than the deletions that are remembered."""
        await records.put("api", "old", {})
        for number in range(6):
            await records.put("api", f"a{number}", {})
            await records.delete("api", f"a{number}")
        latest = await records.version()
        assert await everything(records) == [("api", "old", {})]
        assert await records.changes(latest) == []
        changed = await records.put("api", "old", {"n": 1})
        assert await records.changes(latest) == [changed]
        assert await records.version() == changed.version

    async def test_deletions_are_told_to_those_who_follow(self, records: Records) -> None:
        one = await records.put("api", "a", {})
        await records.put("api", "b", {})
        await records.delete("api", "a")
        assert await everything(records, one.version) == [("api", "b", {}), ("api", "a", None)]
        assert await everything(records) == [("api", "b", {})]
        await records.put("api", "a", {"again": 1})
        assert await everything(records, one.version) == [("api", "b", {}), ("api", "a", {"again": 1})]

    async def test_who_is_too_far_behind_must_begin_anew(self, records: Records) -> None:
        first = await records.put("api", "a0", {})
        for number in range(1, 6):
            await records.put("api", f"a{number}", {})
        last = await records.put("api", "last", {})
        for number in range(3):
            await records.delete("api", f"a{number}")
        assert len(await records.changes(first.version)) == 7
        await records.delete("api", "a3")
        with pytest.raises(FeedLost):
            await records.changes(first.version)
        assert await everything(records) == [("api", "a4", {}), ("api", "a5", {}), ("api", "last", {})]
        with pytest.raises(FeedLost):
            await records.changes(last.version)
        deleted = (await records.changes((await records.put("api", "x", {})).version - 2))[0]
        assert (deleted.id, deleted.document) == ("a3", None)

    async def test_a_version_from_elsewhere_is_not_followed(self, records: Records) -> None:
        last = await records.put("api", "a", {})
        for version in (1, last.version + 1):
            with pytest.raises(FeedLost):
                await records.changes(version)

    async def test_a_document_is_a_copy(self, records: Records) -> None:
        document: dict[str, Any] = {"list": [1]}
        put = await records.put("api", "a", document)
        document["list"].append(2)
        assert put.document is not None
        put.document["list"].append(3)
        found = await records.get("api", "a")
        assert found is not None
        assert found.document == {"list": [1]}

    @pytest.mark.parametrize("kind", ["", "A", "a b", "a\x00", "a" * 41, "ä"])
    async def test_kinds_are_plain_words(self, records: Records, kind: str) -> None:
        with pytest.raises(ValueError, match="is no kind of record"):
            await records.put(kind, "a", {})
        with pytest.raises(ValueError, match="is no kind of record"):
            await records.get(kind, "a")

    @pytest.mark.parametrize("name", ["", "a\x00b", "a\n", "k" * 257, "\ud800"])
    async def test_ids_print(self, records: Records, name: str) -> None:
        for call in (records.put("api", name, {}), records.get("api", name), records.delete("api", name)):
            with pytest.raises(ValueError, match="characters that print"):
                await call

    @pytest.mark.parametrize(
        "document", [{"x": math.nan}, {"x": object()}, {"x": "x" * 1_000_001}, {"x": "\ud800"}, {"x": b""}]
    )
    async def test_what_is_no_document_is_refused(self, records: Records, document: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="document"):
            await records.put("api", "a", document)
        assert await records.get("api", "a") is None

    async def test_pages_hold_something_and_versions_are_none_below_zero(self, records: Records) -> None:
        for call in (records.page("api", limit=0), records.changes(0, limit=0), records.changes(-1)):
            with pytest.raises(ValueError, match="a page"):
                await call
        with pytest.raises(ValueError, match="is no version"):
            await records.put("api", "a", {}, if_match=-1)
