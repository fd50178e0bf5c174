"""Counters, permits, entries and records in a SQLite file: embedded, durable, shared by processes of one machine."""

from apim_middleware.stores.sqlite.counters import SQLiteCounters, Usage
from apim_middleware.stores.sqlite.entries import Holding, SQLiteEntries
from apim_middleware.stores.sqlite.permits import SQLitePermits
from apim_middleware.stores.sqlite.records import SQLiteRecords

__all__ = ["Holding", "SQLiteCounters", "SQLiteEntries", "SQLitePermits", "SQLiteRecords", "Usage"]
