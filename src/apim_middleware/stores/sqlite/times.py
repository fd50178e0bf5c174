"""The time that all processes of one SQLite store have in common."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from apim_middleware.protocols import Clock
from apim_middleware.stores.sqlite.file import Connection


class Times:
    """The clocks of this machine, and the store's time made of them.

    The store's time began as the wall clock's, goes as steadily as the machine's monotonic clock, and is never behind
    what was written. A wall clock that is set changes nothing; only where the monotonic clock begins anew, as after a
    restart of the machine, does the store's time catch up with it.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        """Find out which run of the machine this is."""
        self.wall, self.steady = wall, steady
        self._known_boot = _boot_id()
        self._boot, self._ahead = "", 0.0

    @classmethod
    def of(cls, clock: Clock | None) -> Self:
        """Made of a clock, or of the machine's."""
        return cls(clock.now, clock.monotonic) if clock else cls(time.time, time.monotonic)

    def read(self, file: Connection) -> float:
        """The time now."""
        [(boot, ahead, latest)] = file.execute("SELECT boot, ahead, latest FROM store")
        steady = self.steady()
        # Where the system names no run of the machine: the minute in which it seems to have begun.
        self._boot = self._known_boot or f"{(self.wall() - steady) // 60:.0f}"
        self._ahead = ahead if boot == self._boot else max(self.wall(), latest) - steady
        now = float(max(steady + self._ahead, latest))
        if boot != self._boot:  # kept at once, for the wall clock may be set before anything is written
            self.write(file, now)
        return now

    def write(self, file: Connection, now: float) -> None:
        """Keep the time that was read."""
        file.execute("UPDATE store SET boot = ?, ahead = ?, latest = ?", (self._boot, self._ahead, now))


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
