"""What the stores may be given: a number that is none, or too small, is told of by name."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apim_middleware import (
    MemoryCounters,
    MemoryEntries,
    MemoryKeys,
    MemoryPermits,
    MemoryRecords,
    MemoryUsers,
    Overrides,
    RecordKeys,
    RecordOverrides,
    RevokedTokens,
)
from apim_middleware.configuration._catalogue import _ELSEWHERE, named
from apim_middleware.errors import ConfigError
from apim_middleware.stores.limits import LimitsCounters
from apim_middleware.stores.redis import RedisCounters, RedisEntries, RedisPermits, RedisRecords
from apim_middleware.stores.sqlite import SQLiteCounters, SQLiteEntries, SQLitePermits, SQLiteRecords

MADE: dict[str, Callable[..., Any]] = {
    "MemoryCounters.max_keys": MemoryCounters,
    "MemoryEntries.max_bytes": MemoryEntries,
    "MemoryRecords.max_deleted": MemoryRecords,
    "LimitsCounters.at_once": lambda **given: LimitsCounters("memory://", **given),
    **{f"{kind.__name__}.max_waiting": kind for kind in (RedisCounters, RedisEntries, RedisPermits)},
    "RedisRecords.max_deleted": RedisRecords,
    **{f"{kind.__name__}.max_waiting": kind for kind in (SQLiteCounters, SQLiteEntries, SQLitePermits, SQLiteRecords)},
    "SQLiteCounters.max_keys": SQLiteCounters,
    "SQLiteEntries.max_bytes": SQLiteEntries,
    "SQLiteRecords.max_deleted": SQLiteRecords,
}


def made(where: str, given: Any, tmp_path: Path) -> Any:
    store, _, field = where.partition(".")
    place: tuple[Any, ...] = ()
    if store.startswith(("Redis", "SQLite")):
        place = ("redis://127.0.0.1",) if store.startswith("Redis") else (tmp_path / "store.db",)
    return MADE[where](*place, **{field: given})


IN_MEMORY = (
    MemoryCounters,
    MemoryEntries,
    MemoryKeys,
    MemoryPermits,
    MemoryRecords,
    MemoryUsers,
    Overrides,
    RevokedTokens,
)
ELSEWHERE = (
    *(LimitsCounters, RecordKeys, RecordOverrides),
    *(RedisCounters, RedisEntries, RedisPermits, RedisRecords),
    *(SQLiteCounters, SQLiteEntries, SQLitePermits, SQLiteRecords),
)


@pytest.mark.parametrize(("kind", "places"), [*((each, 0) for each in IN_MEMORY), *((each, 1) for each in ELSEWHERE)])
def test_only_where_things_are_kept_is_given_without_a_name(kind: type, places: int) -> None:
    """The clock came first in some, and was last, by name, in others."""
    parameters = inspect.signature(kind).parameters.values()
    assert [each.kind is each.KEYWORD_ONLY for each in parameters] == [
        number >= places for number in range(len(parameters))
    ]


@pytest.mark.parametrize("given", [0, -1])
@pytest.mark.parametrize("where", MADE)
def test_too_few_are_a_mistake(where: str, given: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{where}: {given} is not at least 1\. Give 1 or more"):
        made(where, given, tmp_path)


@pytest.mark.parametrize("given", ["5", 1.5, None, True])
@pytest.mark.parametrize("where", MADE)
def test_what_is_no_whole_number_is_a_mistake(where: str, given: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{where}: .* is not int"):
        made(where, given, tmp_path)


@pytest.mark.parametrize("kind", [MemoryCounters, MemoryEntries, MemoryKeys, MemoryRecords])
def test_what_is_no_clock_is_a_mistake(kind: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"\.clock: 'x' is not Clock"):
        kind(clock="x")


@pytest.mark.parametrize("field", ["refresh", "stale"])
def test_what_is_no_time_is_a_mistake(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"RecordKeys\.{field}: '1' is not"):
        RecordKeys(MemoryRecords(), **{field: "1"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for each in _ELSEWHERE.values() for name in each])
def test_a_file_may_name_each_of_them(name: str) -> None:
    assert named(name).__name__ == name
