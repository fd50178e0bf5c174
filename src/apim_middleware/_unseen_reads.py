"""Policies that ask for request headers which hygiene hides from them."""

import dataclasses
import logging
from functools import lru_cache

from apim_middleware._config import Configured
from apim_middleware._functions import reads
from apim_middleware._http.unseen import unseen
from apim_middleware.env import Env

log = logging.getLogger("apim_middleware")


def check_read(policy: Configured, field: str, header: str, env: Env) -> None:
    """Refuse a field of a policy that asks for a request header which nobody here ever sees."""
    if found := unseen(header.lower().encode("latin-1", "replace"), env.scrub):
        problem, cure = found
        raise policy.mistake(field, f"asks for the header {header}, which hygiene {problem}", cure)


def look_at_read(policy: Configured, field: str, header: str, env: Env) -> None:
    """Warn where ``check_read`` refuses: what is no credential may be put there by a layer, behind hygiene."""
    if found := unseen(header.lower().encode("latin-1", "replace"), env.scrub):
        _warn(f"{type(policy).__name__}.{field}", header, *found)


@lru_cache(maxsize=1024)
def _warn(where: str, header: str, problem: str, cure: str) -> None:
    """Once, however often a stack is built."""
    told = "%s asks for the header %s, which hygiene %s: it is there only if a layer in front sets it. %s"
    log.warning(told, where, header, problem, cure)


def look_at_functions(policy: Configured, env: Env) -> None:
    """Warn where a key or condition that a policy was given asks for a request header which nobody here ever sees."""
    if dataclasses.is_dataclass(policy):
        for field in dataclasses.fields(policy):
            for header in sorted(_reads(getattr(policy, field.name, None))):
                look_at_read(policy, field.name, header, env)


def _reads(value: object) -> frozenset[str]:
    return frozenset[str]().union(*map(_reads, value)) if isinstance(value, tuple) else reads(value)
