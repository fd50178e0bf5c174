"""Counters, permits and entries in a SQLite file: embedded, durable, shared by all processes of one machine."""

from apim_middleware.stores.sqlite.counters import SQLiteCounters, Usage
from apim_middleware.stores.sqlite.entries import Holding, SQLiteEntries
from apim_middleware.stores.sqlite.permits import SQLitePermits

__all__ = ["Holding", "SQLiteCounters", "SQLiteEntries", "SQLitePermits", "Usage"]
