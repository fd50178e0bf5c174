"""Objects that a file makes and that are equal to themselves alone, kept while the file is read again and again."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Kept:
    """Stores, environments and the like, by the tables they were made of."""

    def __init__(self, brought: Mapping[str, object], before: "Kept | None" = None) -> None:
        """``brought`` are the objects that ``ref`` may name; ``before`` are those of the gateway this one follows."""
        self._brought = brought
        self._before = {} if before is None else before._made
        self._made: dict[str, list[object]] = {}

    def of(self, table: Mapping[str, Any], make: Callable[[], object]) -> object:
        """What this table was made into before, if it stood as often then; made now where it did not."""
        key = self._key(table)
        at = len(self._made.get(key, ()))
        if at < len(self._before.get(key, ())):
            found = self._before[key][at]
            for within in _tables_in(table):
                self._still(within)
        else:
            found = make()
        self._made.setdefault(key, []).append(found)
        return found

    def _still(self, table: Mapping[str, Any]) -> None:
        """What stands within a table that means what it meant does so too, should that table change later."""
        key = self._key(table)
        here, before = self._made.get(key, []), self._before.get(key, [])
        if len(here) < len(before):
            self._made[key] = [*here, before[len(here)]]

    def _key(self, table: Mapping[str, Any]) -> str:
        """Equal for tables that say the same, of the same objects."""
        named = [table, *_tables_in(table)]
        refs = [id(self._brought.get(each["ref"])) for each in named if isinstance(each.get("ref"), str)]
        return f"{table!r} {refs}"


def _tables_in(given: object) -> Iterator[Mapping[str, Any]]:
    """Every table within a table, those further in first, as they are read."""
    inner = given.values() if isinstance(given, Mapping) else given if isinstance(given, list) else ()
    for each in inner:
        yield from _tables_in(each)
        if isinstance(each, Mapping):
            yield each
