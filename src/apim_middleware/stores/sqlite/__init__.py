"""Counters and permits in a SQLite file: embedded, durable, shared by all processes of one machine."""

from apim_middleware.stores.sqlite.counters import SQLiteCounters, Usage
from apim_middleware.stores.sqlite.permits import SQLitePermits

__all__ = ["SQLiteCounters", "SQLitePermits", "Usage"]
