"""What in a request may tell one caller from another, so that the response may be for that caller only."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, TypeAlias

Credential: TypeAlias = Literal["authorization", "cookie", "key", "principal", "subscription"]
"""What came in a field of the request, or was established from whatever came."""

CREDENTIALS: frozenset[Credential] = frozenset(("authorization", "cookie", "key", "principal", "subscription"))

CARRIERS: dict[bytes, Credential] = {
    b"authorization": "authorization",
    b"proxy-authorization": "authorization",
    b"cookie": "cookie",
    b"x-api-key": "key",
    b"api-key": "key",
    b"x-auth-token": "key",
    b"x-access-token": "key",
    b"ocp-apim-subscription-key": "key",
}
"""The request fields credentials come in."""

_CARRIERS = frozenset(CARRIERS)
_NOTHING: frozenset[Credential] = frozenset()


def carried_in(names: Iterable[bytes]) -> frozenset[Credential]:
    """The credentials a request with these fields carries."""
    carriers = _CARRIERS.intersection(names)
    return _carried_by(carriers) if carriers else _NOTHING


@lru_cache(maxsize=256)
def _carried_by(carriers: frozenset[bytes]) -> frozenset[Credential]:
    return frozenset([CARRIERS[name] for name in carriers])
