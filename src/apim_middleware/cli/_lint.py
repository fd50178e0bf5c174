"""Advice on policies and their order: what works, and would work better otherwise."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass

from apim_middleware import by
from apim_middleware._functions import parts_of, paths_of, reads
from apim_middleware._spelling import key_named
from apim_middleware._synonyms import meant_by_text
from apim_middleware.cli._known import asks_for_client, established, ways
from apim_middleware.cli._owners import owner_missing
from apim_middleware.gateway import Gateway, Reloadable, Row
from apim_middleware.guarding import Coverage, Covered
from apim_middleware.guarding.coverage import put_around
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.cache import Cache
from apim_middleware.policies.client import TrustedProxies
from apim_middleware.policies.compress import Compress
from apim_middleware.policies.concurrency import LimitConcurrency
from apim_middleware.policies.headers import SetHeader
from apim_middleware.policies.limits import Limits, Quota, RateLimit
from apim_middleware.policies.target import RewritePath, SetQuery
from apim_middleware.policies.tracing import Tracing
from apim_middleware.policy import Policy, Stack
from apim_middleware.serving.health import Health
from apim_middleware.types import Layer

_LIMITS = (RateLimit, Quota, Limits)


def advice_on(table: Coverage, app: object) -> list[str]:
    """A sentence for each thing that could be better, once however many routes it is about."""
    found: dict[str, None] = {}
    around, inner = put_around(app)
    gateway = inner.gateway if isinstance(inner, Reloadable) else inner
    for row in table:
        flat = list(_flat(row.layers))
        found |= dict.fromkeys([*_of_order(flat), *_of_principals(flat)])
        found |= dict.fromkeys(_of_branches(row.layers))
        asked = _as_asked(row.layers[len(around) :], gateway)
        layers = list(_flat([*row.layers[: len(around)], *asked]))
        found |= dict.fromkeys(_of_caches(layers))
        found |= dict.fromkeys(_of_texts(layers))
        if isinstance(gateway, Gateway) and not row.nowhere:
            found |= dict.fromkeys(_of_unknown(layers, row, gateway))
        if not (row.nowhere and isinstance(gateway, Gateway)):  # where nothing is, and nobody is asked for a key
            found |= dict.fromkeys(_of_clients(layers))
    paths = _paths(gateway) if isinstance(gateway, Gateway) else ()
    retired = _retired(gateway) if isinstance(gateway, Gateway) else frozenset[tuple[str, str]]()
    rows = [row for row in table if (row.path, row.version) not in retired]
    return [*dict.fromkeys([*found, *paths, *_open(rows)])]


def _retired(gateway: Gateway) -> frozenset[tuple[str, str]]:
    """The paths of versions that answer 410, with the version."""
    given = {api.name: api.versions for api in gateway.apis if api.versions is not None}
    retired = {(name, each.name) for name, found in given.items() for each in found.versions if each.retired}
    return frozenset((row.path, row.version) for row in gateway.rows() if (row.api, row.version) in retired)


def _as_asked(layers: Sequence[Layer], app: object) -> list[Layer]:
    """The layers in the order they come to know of a caller: a gateway looks for the key before its own policies."""
    auth = app.authenticator if isinstance(app, Gateway) else None
    return sorted(layers, key=lambda layer: layer != auth)


def _of_order(layers: Sequence[Layer]) -> Iterator[str]:
    kinds = [type(layer) for layer in layers]
    before = [each.__name__ for each in kinds[: kinds.index(Tracing)] if each is not Health] if Tracing in kinds else []
    if before:
        yield f"Tracing stands behind {', '.join(before)}: what those refuse is not traced. Write it first."
    if Cache in kinds and any(kind in _LIMITS for kind in kinds[kinds.index(Cache) :]):
        yield "A limit stands behind Cache: answers from the cache are not counted. Write it first to count them."
    if Compress in kinds and Cache in kinds and kinds.index(Cache) < kinds.index(Compress):
        yield "Compress stands behind Cache: each coding is stored apart. Write it before Cache to store one."


def _of_principals(layers: Sequence[Layer]) -> Iterator[str]:
    """About what goes by the principal before a token says who that is."""
    for place, layer in enumerate(layers):
        if isinstance(layer, Policy) and _names_callers(layer):
            return
        later = [each for each in layers[place + 1 :] if isinstance(each, Policy) and _names_callers(each)]
        if later and isinstance(layer, Policy) and "principal" in layer.needs:
            name, provider = type(layer).__name__, type(later[0]).__name__
            yield f"{name} goes by the principal, which {provider} says only behind it. Write {provider} first."


def _names_callers(policy: Policy) -> bool:
    """Whether it says who the caller is: a subscription key says it of its holder already."""
    return "principal" in policy.provides and "subscription" not in policy.provides


def _of_branches(layers: Sequence[Layer]) -> Iterator[str]:
    """About branches behind a cache that go by a header it does not go by."""
    keyed: frozenset[str] | None = None
    for layer in layers:
        if isinstance(layer, Cache):
            keyed = frozenset[str]().union(*map(reads, layer.keys))
        elif keyed is not None and isinstance(layer, When | Choose):
            conditions = [layer.condition] if isinstance(layer, When) else [each for each, _ in layer.branches]
            if left := sorted(frozenset[str]().union(*map(reads, conditions)) - keyed):
                yield (
                    f"{type(layer).__name__} goes by {left[0]} behind Cache, which answers without it. "
                    f'Write it first, or Cache(vary_by=by.header("{left[0]}")).'
                )


def _of_caches(layers: Sequence[Layer]) -> Iterator[str]:
    for place, layer in enumerate(layers):
        if isinstance(layer, Cache) and (sentence := owner_missing(layer, layers[:place])):
            yield sentence


def _of_clients(layers: Sequence[Layer]) -> Iterator[str]:
    for place, layer in enumerate(layers):
        if isinstance(layer, TrustedProxies):
            return
        if asks_for_client(layer, established(layers[:place])):
            name = type(layer).__name__
            yield f"{name} goes by the client's address, and there is no TrustedProxies: right with no proxy in front."
            return


def _of_unknown(layers: Sequence[Layer], row: Covered, gateway: Gateway) -> Iterator[str]:
    """About what counts by the subscription, where a request can have none."""
    for place, layer in enumerate(layers):
        for policy in layer.policies if isinstance(layer, Limits) else (layer,):
            if not isinstance(policy, RateLimit | Quota | LimitConcurrency) or policy.when_unknown == "together":
                continue
            if not all(_lacks(policy.by, known) for known in ways(layers[:place])):
                continue
            name = type(policy).__name__
            if gateway.authenticator is None:
                yield (
                    f"{name} counts by the subscription, and the gateway has no keys: every call is refused with 403. "
                    "Give Gateway(keys=...), or another key."
                )
            else:
                yield (
                    f"{name} counts by the subscription, and {row.method} {row.path}{_context_of(row)} asks for none: "
                    'calls without a key are refused with 403. Write when_unknown="together", or another key.'
                )


def _lacks(key: object, known: frozenset[str]) -> bool:
    """Whether a key goes by the subscription, and so much of a request is established that it has none."""
    made, parts = parts_of(key)
    if made in ("both", "either"):
        return (any if made == "both" else all)(_lacks(each, known) for each in parts)
    return key in (by.subscription, by.owner) and "subscription" not in known


def _of_texts(layers: Sequence[Layer]) -> Iterator[str]:
    """About texts that are sent as they are written, and look like more; those of Azure are not shown."""
    for layer in layers:
        if isinstance(layer, SetHeader | SetQuery) and not callable(layer.value):
            for text in layer.value if isinstance(layer.value, tuple) else (layer.value,):
                sends = f"{type(layer).__name__} {layer.name!r} sends"
                if text.startswith("by.") and (key := key_named(text)) == text:
                    in_a_file = f'{{ function = "{key}" }}'.replace(key, key.replace('"', "'"))
                    yield f"{sends} the text {key!r}. Write value={key} for the key, in a file {in_a_file}."
                elif said := meant_by_text(text):
                    yield f"{sends} a text of Azure as it is written: {said}."


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


def _open(table: Iterable[Covered]) -> Iterator[str]:
    """The routes that stand open; HEAD is said with GET."""
    rows = [row for row in table if not row.nowhere and not row.guarded]
    got = {_place_of(row) for row in rows if row.method == "GET"}
    for row in rows:
        if row.method != "HEAD" or _place_of(row) not in got:
            yield f"{row.method} {_place_of(row)}: no policy decides who may call it."


def _place_of(row: Covered) -> str:
    return f"{row.path} stands open{_context_of(row)}"


def _context_of(row: Covered) -> str:
    version = f" in the version {row.version}" if row.version else ""
    product = f" in the product {row.product}" if row.product else ""
    return version + product


def _flat(layers: Sequence[Layer]) -> Iterator[Layer]:
    for layer in layers:
        if isinstance(layer, Stack):
            yield from _flat(layer.layers)
        elif not isinstance(layer, When | Choose):  # which do not hold for every request
            yield layer
