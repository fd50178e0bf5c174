"""What commands show of requests and responses: everything but credentials."""

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass

from apim_middleware._telemetry.masking import REDACTED, Mask, is_secret_header
from apim_middleware.model import NamedValue
from apim_middleware.policies.upstream_auth import UpstreamAuth
from apim_middleware.policy import Stack

_KEY = re.compile(r"(^|[-_.])key($|[-_.])")
_HEADER = " header"


class Veil:
    """Gives values as they may be shown."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        """``hidden`` are names of what is never shown, whatever it is called."""
        self._hidden = frozenset(hidden)
        self._mask = Mask()

    def __call__(self, name: str, value: str) -> str:
        """The value of something: ``"query"``, ``"authorization header"``."""
        field = name.removesuffix(_HEADER)
        if name in self._hidden or (name.endswith(_HEADER) and _carries(field)):
            return REDACTED
        return self._mask(value.encode("latin-1", "replace")) if "=" in value else value

    def header(self, name: str, value: str) -> str:
        """The value of a header line."""
        return self(f"{name.lower()}{_HEADER}", value)


def _carries(field: str) -> bool:
    """Whether a field of this name carries a credential."""
    return is_secret_header(field) or _KEY.search(field) is not None


def holds_secret(value: object) -> bool:
    """Whether what this policy sets is a secret: a credential for the upstream, or the text of a secret named value."""
    if isinstance(value, NamedValue):
        return value.secret
    if isinstance(value, UpstreamAuth):
        return True
    if isinstance(value, tuple | Stack):
        return any(map(holds_secret, value.layers if isinstance(value, Stack) else value))
    if is_dataclass(value) and not isinstance(value, type):
        return any(holds_secret(getattr(value, each.name, None)) for each in fields(value))
    return False
