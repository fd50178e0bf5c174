"""Counters in a SQLite file against the slow and obvious model; the books of the file are right at any moment."""

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, rule

from apim_middleware.stores.sqlite import SQLiteCounters

from .model import CountersMachine


class SQLiteMachine(CountersMachine):
    """Every now and then the store is closed and opened anew."""

    counters: Any

    async def open(self) -> SQLiteCounters:
        self.folder = getattr(self, "folder", None) or tempfile.mkdtemp()
        self.path = Path(self.folder, "counts.db")
        return SQLiteCounters(self.path, clock=self.clock)

    async def close(self) -> None:
        await self.counters.aclose()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)

    @rule()
    def restart(self) -> None:
        self.run(self.close())
        self.counters = self.run(self.open())

    @invariant()
    def books_are_right(self) -> None:
        if not getattr(self, "path", None) or not self.path.exists():
            return
        with sqlite3.connect(self.path) as file:
            [(size, windows, counters, moments)] = file.execute(
                "SELECT size, (SELECT count(*) FROM windows), (SELECT count(*) FROM counters),"
                " (SELECT count(*) FROM moments) FROM store"
            )
            assert size == windows + counters + moments
            assert file.execute("SELECT count(*) FROM moments WHERE units <= 0").fetchone() == (0,)
            lost = "SELECT count(*) FROM moments WHERE name NOT IN (SELECT name FROM counters)"
            assert file.execute(lost).fetchone() == (0,)
        file.close()


TestSQLiteAgainstModel = SQLiteMachine.TestCase
TestSQLiteAgainstModel.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
