"""Advice on policies and their order: what works, and would work better otherwise."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass

from apim_middleware import by
from apim_middleware.conditions import paths_of
from apim_middleware.gateway import Gateway, Reloadable, Row
from apim_middleware.guarding import Coverage
from apim_middleware.guarding.coverage import called, lets_anybody_in
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.client import IPFilter, TrustedProxies
from apim_middleware.policies.compress import Compress
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.policies.target import RewritePath
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policy import Policy, Stack
from apim_middleware.types import Layer

_LIMITS = (RateLimit, Quota, Limits)


def advice_on(table: Coverage, app: object) -> list[str]:
    """A sentence for each thing that could be better, once however many routes it is about."""
    found: dict[str, None] = {}
    for row in table:
        for sentence in _of_row(list(_flat(row.layers))):
            found[sentence] = None
    gateway = app.gateway if isinstance(app, Reloadable) else app
    paths = _paths(gateway) if isinstance(gateway, Gateway) else ()
    return [*found, *dict.fromkeys(paths), *_open(table)]


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
    for place, layer in enumerate(layers):
        if isinstance(layer, Cache) and (told := _telling_apart(layers[:place], layer)):
            front, known = told
            yield (
                f"Cache stands behind {front}, so it keeps nothing but what says public or s-maxage. Write "
                f'Cache(private_to=by.{known}), or regardless_of=("{known}",) where all callers get the same answer.'
            )


def _telling_apart(before: Sequence[Layer], cache: Cache) -> tuple[str, str] | None:
    """The policy that finds out who is calling, and what it finds, if the cache keeps nothing for want of an owner."""
    if any(by.needs(key) & {"principal", "subscription"} for key in cache.keys):
        return None
    for layer in before:
        provided = layer.provides if isinstance(layer, Policy) and not lets_anybody_in(layer) else frozenset()
        for known in ("subscription", "principal"):  # the principal of a subscription is nobody but that
            if known in provided:
                if known not in cache.regardless_of:
                    return called(layer), known
                break
    return None


def _paths(gateway: Gateway) -> Iterator[str]:
    """About patterns that begin with the path of their API, where that is gone."""
    rows = list(gateway.rows())
    paths = {api.name: api.path.rstrip("/") for api in gateway.apis}
    doubled = {row.api for row in rows if _begins(row.path, paths[row.api] * 2)}  # which means what it says
    for row in rows:
        path = paths[row.api]
        if path and row.api not in doubled:
            for name, pattern in _patterns([each.layer for each in row.layers if f"/api/{row.api}" in each.place]):
                if _begins(pattern, path):
                    yield (
                        f"{name} in the API {row.api} compares {pattern!r}, which begins with the API's own path. "
                        f"That is gone here: write {_below(pattern, row, path)!r}."
                    )


def _patterns(value: object) -> Iterator[tuple[str, str]]:
    """The patterns of paths in a policy, each with what compares it."""
    if isinstance(value, RewritePath):
        yield "RewritePath.match", value.match
    elif isinstance(value, list | tuple | Stack):
        for each in value.layers if isinstance(value, Stack) else value:
            yield from _patterns(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from _patterns(getattr(value, each.name, None))
    else:
        for pattern in sorted(paths_of(value)):
            yield "conditions.path", pattern


def _below(pattern: str, row: Row, path: str) -> str:
    """A pattern without the path of the API, and without the version where the path names it."""
    rest = pattern[len(path) :]
    version = f"/{row.version}"
    named = bool(row.version) and _begins(row.path, path + version) and _begins(rest, version)
    return (rest[len(version) :] if named else rest) or "/"


def _begins(path: str, beginning: str) -> bool:
    return f"{path}/".startswith(f"{beginning}/")


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
