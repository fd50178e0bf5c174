"""Objects that a file makes and that are equal to themselves alone, kept while the file is read again and again."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

Table: TypeAlias = Mapping[str, Any]
Place: TypeAlias = tuple[object, ...]
"""The fields that lead to a table, with the names of the tables on the way: those that stand in a list may be moved."""

_FILES = ("ca", "cert")
"""Fields of transports that name files, which are read when the transport is made."""


class Kept:
    """Stores, environments and the like, by the tables they were made of.

    Of tables that say the same at one place, none is kept: which of them is which, nobody could tell.
    """

    def __init__(self, document: Table, brought: Mapping[str, object], before: "Kept | None" = None) -> None:
        """What ``document`` says, with the objects that ``ref`` may name, is to follow what was read ``before``."""
        self._brought = dict(brought)  # for good, so that the ids of these objects stay theirs
        self._before = {} if before is None else before._made
        self._made: dict[str, object] = {}
        found = [(id(table), self._key(table, where)) for table, where in _placed(document) if "use" in table]
        often = Counter(key for _, key in found)
        self._keys = {table: key for table, key in found if often[key] == 1}

    def of(self, table: Table, make: Callable[[], object]) -> object:
        """What this table was made into before; made now where there was none."""
        key = self._keys.get(id(table))
        if key is None:
            return make()
        if key in self._before:
            for within in (table, *(within for within, _ in _placed(table))):
                self._still(within)  # also what stands within, should only this table change later
        else:
            self._made[key] = make()
        return self._made[key]

    def end(self) -> None:
        """Let go of what was not used again: all has been read."""
        self._before, self._keys = {}, {}

    def _still(self, table: Table) -> None:
        key = self._keys.get(id(table))
        if key in self._before:
            self._made[key] = self._before[key]

    def _key(self, table: Table, where: Place) -> str:
        """Equal for tables that say the same at the same place, of the same objects and the same files."""
        tables = [table, *(within for within, _ in _placed(table))]
        refs = [id(self._brought.get(each["ref"])) for each in tables if isinstance(each.get("ref"), str)]
        return f"{where!r} {table!r} {refs} {[stamp for each in tables for stamp in _stamps(each)]}"


def _placed(given: object, where: Place = ()) -> Iterator[tuple[Table, Place]]:
    """Every table within a table, those further in first, with its place."""
    if isinstance(given, list):
        for each in given:
            yield from _all(each, where)
    elif isinstance(given, Mapping):
        for field, each in given.items():
            yield from _all(each, (*where, field))


def _all(given: object, where: Place) -> Iterator[tuple[Table, Place]]:
    if isinstance(given, Mapping):
        where = (*where, given.get("name"))
    yield from _placed(given, where)
    if isinstance(given, Mapping):
        yield given, where


def _stamps(table: Table) -> Iterator[object]:
    """What tells the files that a table names from what they were before."""
    for given in map(table.get, _FILES):
        for path in given if isinstance(given, list) else [given]:
            try:
                stat = Path(path).stat() if isinstance(path, str) else None
            except (OSError, ValueError):  # which is told of when it is read
                stat = None
            yield stat and (stat.st_ino, stat.st_mtime_ns, stat.st_size)
