"""What the query tells apart must be apart in every cache in front of it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from apim_middleware._caching.rules import Caching
from apim_middleware._http.cache_queries import QueryRule
from apim_middleware.errors import ConfigError
from apim_middleware.gateway._plans import Approach, Edition
from apim_middleware.model import ANY, Fragment, Operation
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.either import AllOf, AnyOf
from apim_middleware.policy import Stack
from apim_middleware.types import Layer

_KEPT = ("GET", "HEAD", ANY)
"""The methods of operations whose responses caches keep, and answer with."""


def check_kept_apart(edition: Edition, products: Iterable[str]) -> None:
    """Refuse a cache that leaves a parameter out by which an operation behind it is found. Raises ConfigError.

    Responses of one operation would answer requests for another. That of an operation alone may do so.
    """
    told_by = defaultdict[Approach, dict[str, Operation]](dict)
    for endpoint in edition.endpoints:
        for name, _, _ in endpoint.operation.url_template.query if endpoint.operation.method in _KEPT else ():
            told_by[endpoint.approach].setdefault(name, endpoint.operation)
    for approach, names in told_by.items():
        own = approach.scope and approach.scope.place
        layers = (each for product in products for each in approach.layers(product))
        for cache in _caches(each.layer for each in layers if each.place != own):
            for name, operation in names.items():
                if not cache.query.keeps(name):
                    raise _left_out(cache, name, operation)


def _left_out(cache: Caching, name: str, operation: Operation) -> ConfigError:
    problem = f"leaves out {name!r}, by which {operation.method} {operation.template} behind it is found"
    if QueryRule(None, cache.without_query, sort=False).keeps(name):
        return cache.mistake("only_query", problem, f"Add {name!r}")
    return cache.mistake("without_query", problem, f"Leave {name!r} in the query")


def _caches(layers: Iterable[Layer | None]) -> Iterator[Caching]:
    for layer in layers:
        if isinstance(layer, Caching):
            yield layer
        elif isinstance(layer, Stack | AllOf | AnyOf):
            yield from _caches(layer.layers)
        elif isinstance(layer, Fragment):
            yield from _caches(layer.policies)
        elif isinstance(layer, When):
            yield from _caches((layer.layer, layer.otherwise))
        elif isinstance(layer, Choose):
            yield from _caches((*(each for _, each in layer.branches), layer.otherwise))
