"""What a file may name: public classes, stores that stand in modules of their own, and ``module:Class`` of anybody."""

import contextlib
import dataclasses
import difflib
import importlib
import inspect
from functools import lru_cache
from typing import Any

from apim_middleware._config import Configured, in_one_line
from apim_middleware._synonyms import called_here
from apim_middleware.env import Env
from apim_middleware.identity import Subscription
from apim_middleware.policy import Composable, Policy

_ELSEWHERE = {
    "apim_middleware.stores.limits": ("LimitsCounters",),
    "apim_middleware.stores.redis": ("RedisCounters", "RedisEntries", "RedisPermits", "RedisRecords"),
    "apim_middleware.stores.sqlite": ("SQLiteCounters", "SQLiteEntries", "SQLitePermits", "SQLiteRecords"),
    "apim_middleware.transports.http1": ("Http1Transport",),
    "apim_middleware.transports.httpx": ("HttpxTransport",),
    "apim_middleware.transports.httpx2": ("Httpx2Transport",),
}
"""Modules that load a library of their own, and so are loaded only when a file names them."""


class UnknownName(LookupError):
    """A file names what there is not: the problem, and the cure, which may say what was perhaps meant."""

    def __init__(self, problem: str, cure: str = "Name what there is") -> None:
        """Keep the two."""
        super().__init__(problem)
        self.cure = cure


def named(name: str) -> Any:  # noqa: ANN401 - a class
    """The class of a name. Raises UnknownName."""
    if ":" in name:
        return _of_their_own(name)
    import apim_middleware

    found = getattr(apim_middleware, name, None) if name in apim_middleware.__all__ else _from_elsewhere(name)
    if not _is_configured(found):
        near = difflib.get_close_matches(name, names(), n=1)
        ours = 'Write a public name of apim_middleware, or use = "module:Class" for one of your own'
        cure = called_here(name) or (f"Did you mean {near[0]}?" if near else ours)
        raise UnknownName(f"{name!r} is no class of this package", cure)
    return found


def _of_their_own(name: str) -> type:
    found = imported(name)
    if not inspect.isclass(found) or not dataclasses.is_dataclass(found):
        cure = 'Name a class that is one, or write import = "module:name" for an object'
        raise UnknownName(f"{name!r} is no dataclass", cure)
    return found


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Every name there is, those left out whose library is not installed."""
    import apim_middleware

    here = [name for name in apim_middleware.__all__ if _is_configured(getattr(apim_middleware, name))]
    elsewhere = [name for each in _ELSEWHERE.values() for name in each if _from_elsewhere(name) is not None]
    return tuple(sorted({*here, *elsewhere}))


_STORES = (
    *("MemoryCounters", "MemoryEntries", "MemoryKeys", "MemoryPermits", "MemoryRecords", "MemoryUsers"),
    "RecordKeys",
)


def _is_configured(found: object) -> bool:
    """Whether it is a class of values that users write, a store, or where stores are given."""
    if not inspect.isclass(found) or found in (Composable, Policy, Subscription):
        return False
    return (
        issubclass(found, Configured | Composable)
        or found is Env
        or found.__name__ in (*_STORES, *(name for each in _ELSEWHERE.values() for name in each))
    )


def _from_elsewhere(name: str) -> object:
    for module, classes in _ELSEWHERE.items():
        if name in classes:
            with contextlib.suppress(ImportError):
                return getattr(importlib.import_module(module), name, None)
    return None


def imported(reference: str) -> object:
    """What ``module:name`` means. Raises UnknownName."""
    module, _, path = reference.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a module raises while it is imported
        raise UnknownName(f"{reference!r} cannot be imported: {in_one_line(error)}") from error
    return found
