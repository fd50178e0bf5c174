"""The stores of subscription keys that commands can open: SQLite files and Redis servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from apim_middleware.errors import ConfigError
from apim_middleware.stores.keyrings import Keyring
from apim_middleware.stores.record_keys import RecordKeys

_KIND = "subscription"


@asynccontextmanager
async def opened(store: str, *, new: bool = False) -> AsyncIterator[RecordKeys]:
    """The keys in a store: ``keys.db``, ``sqlite:keys.db``, ``redis://host/0``. Raises ConfigError.

    ``new`` says whether a file may be made, which is not done by looking for keys in the wrong place.
    """
    records = _records(store, new=new)
    try:
        yield RecordKeys(records, kind=_KIND, refresh=0.0)
    finally:
        await records.aclose()


async def every(store: str) -> list[Keyring]:
    """Every subscription in a store, by id."""
    async with opened(store) as held:
        return await held.keyrings()


def _records(store: str, *, new: bool) -> Any:  # noqa: ANN401 - some Records
    scheme, colon, rest = store.partition(":")
    if scheme in ("redis", "rediss", "unix"):
        from apim_middleware.stores.redis.records import RedisRecords

        return RedisRecords(store)
    from apim_middleware.stores.sqlite.records import SQLiteRecords

    path = rest if scheme == "sqlite" and colon else store
    if rest.startswith("//") and scheme != "sqlite":
        raise ConfigError("apim", "store", f"{scheme}:// is no store of keys", "Write keys.db or redis://localhost/0")
    if not path:
        raise ConfigError("apim", "store", f"{store!r} names no store", "Write keys.db or redis://localhost/0")
    if not new and _is_missing(Path(path)):
        cure = "Name the one that has the keys; apim keys new makes one"
        raise ConfigError("apim", "store", f"{path!r} is not there", cure)
    return SQLiteRecords(path)


def _is_missing(path: Path) -> bool:
    """Whether there is no such file; of one that cannot be looked for, it is told on opening it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
