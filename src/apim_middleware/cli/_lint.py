"""Advice on the order of policies: what works, and would work better otherwise."""

from collections.abc import Iterator, Sequence

from apim_middleware.guarding import Coverage
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.client import IPFilter, TrustedProxies
from apim_middleware.policies.compress import Compress
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policy import Stack
from apim_middleware.types import Layer

_LIMITS = (RateLimit, Quota, Limits)


def advice(table: Coverage) -> list[str]:
    """A sentence for each thing that could be better, once however many routes it is about."""
    found: dict[str, None] = {}
    for row in table:
        for sentence in _of_row(list(_flat(row.layers))):
            found[sentence] = None
    return [*found, *_open(table)]


def _of_row(layers: Sequence[Layer]) -> Iterator[str]:
    kinds = [type(layer) for layer in layers]
    if Tracing in kinds[1:]:
        before = ", ".join(kind.__name__ for kind in kinds[: kinds.index(Tracing)])
        yield f"Tracing stands behind {before}: what those refuse is not traced. Write it first."
    if TrustedProxies not in kinds:
        asking = next((layer for layer in layers if _asks_for_client(layer)), None)
        if asking is not None:
            name = type(asking).__name__
            yield f"{name} goes by the client's address, and there is no TrustedProxies: right with no proxy in front."
    if Cache in kinds and any(kind in _LIMITS for kind in kinds[kinds.index(Cache) :]):
        yield "A limit stands behind Cache: answers from the cache are not counted. Write it first to count them."
    if Compress in kinds and Cache in kinds and kinds.index(Cache) < kinds.index(Compress):
        yield "Compress stands behind Cache: each coding is stored apart. Write it before Cache to store one."


def _open(table: Coverage) -> Iterator[str]:
    for row in table:
        if not row.nowhere and not row.guarded:
            product = f" in the product {row.product}" if row.product else ""
            yield f"{row.method} {row.path} stands open{product}: no policy decides who may call it."


def _asks_for_client(layer: Layer) -> bool:
    return isinstance(layer, IPFilter) or "client" in getattr(layer, "needs", ())


def _flat(layers: Sequence[Layer]) -> Iterator[Layer]:
    for layer in layers:
        if isinstance(layer, Stack):
            yield from _flat(layer.layers)
        elif not isinstance(layer, When | Choose):  # which do not hold for every request
            yield layer
