"""Counters, permits, entries and records in Redis or Valkey, for many processes; needs the extra ``redis``."""

from apim_middleware.stores.redis.counters import RedisCounters
from apim_middleware.stores.redis.entries import RedisEntries
from apim_middleware.stores.redis.permits import RedisPermits
from apim_middleware.stores.redis.records import RedisRecords

__all__ = ["RedisCounters", "RedisEntries", "RedisPermits", "RedisRecords"]
