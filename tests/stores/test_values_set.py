"""A value that is set while another is being made."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from apim_middleware.env import Env
from apim_middleware.stores.sqlite import SQLiteEntries
from apim_middleware.stores.values import CacheValue
from apim_middleware.testing import FakeClock

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_is_set_is_not_overwritten_by_what_was_being_made(kind: str, tmp_path: Path) -> None:
    entries = SQLiteEntries(tmp_path / "cache.db") if kind == "sqlite" else None
    values: CacheValue[Any] = CacheValue(name="values", ttl=60, env=Env(entries=entries, place="shop"))
    await _set_while_made(values)
    assert await values.get("key") == "new"
    if entries is not None:
        await entries.aclose()


async def test_nor_by_a_refreshment_under_way() -> None:
    clock = FakeClock()
    values: CacheValue[Any] = CacheValue(name="values", ttl=60, refresh_after=5, env=Env(clock=clock))
    await values.set("key", "older")
    clock.advance(6)
    await _set_while_made(values)
    assert await values.get("key") == "new"


async def _set_while_made(values: CacheValue[Any]) -> None:
    begun, going = anyio.Event(), anyio.Event()

    async def make() -> str:
        begun.set()
        await going.wait()
        return "old"

    async with anyio.create_task_group() as group:
        group.start_soon(values.get_or_set, "key", make)
        await begun.wait()
        await values.set("key", "new")
        going.set()
