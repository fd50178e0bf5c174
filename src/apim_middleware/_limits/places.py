"""Under which key and at which place a limit counts, so that no two ever meet by accident."""

import dataclasses
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from apim_middleware._functions import name_of

if TYPE_CHECKING:
    from apim_middleware._limits.rules import Limiting

LONGEST_KEY = 128

_SAID_OTHERWISE = frozenset((
    "name", "by",  # stand in the place anyway
    "calls", "per", "rate", "window", "burst", "period", "zone", "starts",  # stand in each limit
    "tiers", "when_unknown", "when_store_fails", "headers",  # change nothing about what is counted
))  # fmt: skip


def digest_of(key: str) -> str:
    """A key of any length in any script as short ASCII, different for different keys."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def place_of(policy: "Limiting", place: str) -> str:
    """Where a policy keeps its counts: different for policies that differ in what they count, readable ASCII."""
    parts = [quote(place, "/~"), quote(policy.name, ""), quote(name_of(policy.by), "")]
    for field in dataclasses.fields(policy):
        value = getattr(policy, field.name)
        if field.name not in _SAID_OTHERWISE and value != field.default:
            parts.append(f"{field.name}={quote(_text_of(value), '')}")  # no other part holds a bare =
    return "/".join(parts)


def _text_of(value: object) -> str:
    return name_of(value) if callable(value) else str(value)
