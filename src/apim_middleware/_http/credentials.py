"""What in a request may tell one caller from another, so that the response may be for that caller only."""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from apim_middleware._http.headers import NAME

Credential: TypeAlias = Literal["authorization", "certificate", "cookie", "key", "principal", "subscription"]
"""What came in a field of the request, or was established from whatever came."""

CREDENTIALS: frozenset[Credential] = frozenset(
    ("authorization", "certificate", "cookie", "key", "principal", "subscription")
)

CARRIERS: dict[bytes, Credential] = {
    b"authorization": "authorization",
    b"proxy-authorization": "authorization",
    b"cookie": "cookie",
}
"""The request fields credentials come in by their standards; others are known by how they are called."""

_KEYS = re.compile(
    rb"(?:^|[-_.])(?:auth|authorization|assertion|credentials?|dpop|jwt|passwd|password|principal|secret|session"
    rb"|sessionid|signature|tokens?)(?:$|[-_.])|(?:api|access|auth|subscription|functions?|master)"
    rb"[-_.]?key"
)
_CERTIFICATES = re.compile(rb"(?:^|[-_.])(?:(?:client)?cert(?:s|ificates?)?|dn)(?:$|[-_.])")
_REMEMBERED = 2048


class _Carried(dict[bytes, Credential | None]):
    """What each field name carries, worked out when it is first met; bounded, for callers invent names."""

    def __init__(self) -> None:
        """Begin with none met."""
        self.harmless: set[bytes] = set()
        """Those met that carry nothing."""

    def __missing__(self, name: bytes) -> Credential | None:
        if len(self) >= _REMEMBERED:
            self.clear()
            self.harmless.clear()
        carried = self[name] = CARRIERS.get(name) or _by_name(name)
        if carried is None:
            self.harmless.add(name)
        return carried


def _by_name(name: bytes) -> Credential | None:
    if _KEYS.search(name):
        return "key"
    return "certificate" if _CERTIFICATES.search(name) else None


CARRIED = _Carried()
"""The credential that comes in the field of a name, if any does."""

_NONE: frozenset[Credential] = frozenset()


def carried_in(lines: Sequence[tuple[bytes, bytes]]) -> frozenset[Credential]:
    """The credentials a request with these header lines carries."""
    if CARRIED.harmless.issuperset(map(NAME, lines)):  # as those of most who do not say who they are
        return _NONE
    return frozenset([carried for name, _ in lines if (carried := CARRIED[name]) is not None])
