"""Counters in any storage of the package ``limits``: memcached, MongoDB, Redis Sentinel, whatever it has."""

from apim_middleware.stores.limits.adapter import LimitsCounters

__all__ = ["LimitsCounters"]
