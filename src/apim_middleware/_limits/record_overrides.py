"""Rates of single keys kept as records: changed in one process, known to every process a moment later."""

import logging
import math

from apim_middleware._config import check_count
from apim_middleware._limits.overrides import BadRate, check_room, checked_rate, rates_of
from apim_middleware._limits.places import LONGEST_KEY, digest_of
from apim_middleware._limits.rates import Rate
from apim_middleware.env import SystemClock
from apim_middleware.protocols import Clock, Record, Records
from apim_middleware.stores.following import Copy, Following

log = logging.getLogger("apim_middleware")


class _Rates(Copy):
    """What is known of all rates, up to one version."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.found: dict[str, tuple[Rate, ...]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self.found)

    def take(self, record: Record) -> None:
        """The rates in a record; where there are none that can be kept, the key has none of its own."""
        self.found.pop(record.id, None)
        if record.document is None:
            return
        try:
            self.found[record.id] = rates_of(record.document.get("rate"))  # type: ignore[arg-type]
        except BadRate as wrong:
            log.error("the %s %r holds a rate that %s", self.kind, record.id, wrong)


class RecordOverrides:
    """What ``Overrides`` are, on top of any ``Records``: all processes that follow the same records have the same.

    Rates are found in a copy in this process. It asks the records in the background what has changed when a request
    comes in and the last time is ``refresh`` seconds ago; so a change holds in other processes ``refresh`` seconds and
    an answer later. What is changed through this object holds at once. While the records are away, what is known holds.
    Until they have answered for the first time, the policy's own limits do: ``await overrides.refresh()`` when the app
    starts has them from the first request on.

    ``set``, ``remove`` and ``refresh`` raise StoreError.
    """

    def __init__(
        self,
        records: Records,
        *,
        kind: str = "override",
        refresh: float = 1.0,
        max_keys: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        """Nothing is asked yet. ``records`` are where the rates are kept, under their ``kind``: another for others.

        No more than ``max_keys`` are accepted. Without a ``clock``, take the machine's.
        """
        check_count("RecordOverrides", "max_keys", max_keys)
        self._records, self._kind, self._max_keys = records, kind, max_keys
        self._following = Following(
            "RecordOverrides", records, lambda: _Rates(kind), clock or SystemClock(), refresh=refresh, stale=math.inf
        )

    def __len__(self) -> int:
        """How many keys are known here to have rates of their own."""
        return len(self._following.copy.found)

    def __repr__(self) -> str:
        """How many, but not whose."""
        return f"<RecordOverrides of {len(self)} keys>"

    def __str__(self) -> str:
        """The same text for any overrides, ``Overrides`` too: counts go on where one takes the place of the other."""
        return "overrides"

    async def set(self, key: str, rate: int | str) -> None:
        """Give a key a rate of its own. Raises ConfigError for what is no key or no rate, and without room."""
        checked_rate("RecordOverrides", key, rate)
        await self._following.refresh_to_change()
        name = _name_of(key)
        check_room("RecordOverrides", name, self._following.copy.found, self._max_keys)
        told = key[:LONGEST_KEY].encode(errors="backslashreplace").decode()  # for people; it is found by its name
        record = await self._records.put(self._kind, name, {"key": told, "rate": rate})
        await self._following.changed(record)

    async def remove(self, key: str) -> None:
        """Let the policy's own rates hold for a key again."""
        name = _name_of(key)
        known = self._following.copy.found.get(name)
        await self._records.delete(self._kind, name)
        found = self._following.copy.found
        if known is not None and found.get(name) is known:  # else more was learnt meanwhile
            del found[name]
        await self._following.changed()

    def rates(self, key: str) -> tuple[Rate, ...] | None:
        """The rates of a key, as far as known; None when it has none of its own."""
        self._following.soon()
        return self._following.copy.found.get(_name_of(key))

    async def refresh(self) -> None:
        """Ask the records now what has changed. Raises StoreError."""
        await self._following.refresh()


def _name_of(key: str) -> str:
    """The id of the record of a key, which is the key itself where records can have it."""
    if 1 <= len(key) <= LONGEST_KEY and key.isprintable() and key[0] != "#":
        return key
    return f"#{digest_of(key)}"
