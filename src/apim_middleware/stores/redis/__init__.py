"""Counters, permits and entries in Redis or Valkey, for many processes and machines; needs the extra ``redis``."""

from apim_middleware.stores.redis.counters import RedisCounters
from apim_middleware.stores.redis.entries import RedisEntries
from apim_middleware.stores.redis.permits import RedisPermits

__all__ = ["RedisCounters", "RedisEntries", "RedisPermits"]
