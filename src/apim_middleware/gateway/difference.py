"""What a new configuration of a gateway changes, as values; what takes protection away is loud."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from apim_middleware._alike import alike
from apim_middleware._http.hygiene import Hygiene
from apim_middleware.env import Env
from apim_middleware.gateway._probing import Probe, probe_of
from apim_middleware.gateway.app import Gateway
from apim_middleware.model import Api, Definition, Operation, Product, definitions
from apim_middleware.policy import Policy, policies_in
from apim_middleware.types import Layer

Kind: TypeAlias = Literal["added", "removed", "changed", "loses", "gains", "reordered"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is different."""

    kind: Kind
    where: str
    """``GET /orders/{id}``, ``Product starter``, ``Gateway``."""

    what: str = ""
    """The policy or field it is about."""

    before: str = ""
    after: str = ""
    loud: bool = False
    """Whether protection goes, or may have become less: an authenticator, a limit, an approval or the need of a
    subscription is taken away or changed, a route comes without any, or requests go to a route with less of it."""

    def __str__(self) -> str:
        """A line for people."""
        text = f"{self.where}: {self.kind} {self.what}".rstrip()
        if self.before and self.after:
            text += f" ({self.before} -> {self.after})"
        return f"{'!! ' if self.loud else ''}{text}"


class _Known(NamedTuple):
    """What is compared of one route, whoever calls it."""

    where: str
    stands: tuple[Definition, Operation, str]
    """Its API as it is defined, its operation, and a host."""

    api: str
    layers: tuple[Layer, ...]
    subscription_required: bool
    inherits: bool
    backend: object
    rest: tuple[object, ...]


def difference(old: Gateway, new: Gateway) -> tuple[Change, ...]:
    """Every change from one gateway to the other: of its own fields, of its products, and route by route.

    Routes are compared with every policy in front of them but those of products, which are compared themselves.
    """
    return (*_own(old, new), *_of_products(old, new), *_of_versions(old, new), *_of_routes(old, new))


def _own(old: Gateway, new: Gateway) -> Iterator[Change]:
    for name in ("unknown_method", "errors", "name"):
        yield from _field("Gateway", name, getattr(old, name), getattr(new, name))
    before, after = old.authenticator, new.authenticator
    read = before is not None and after is not None and not alike(dataclasses.replace(before, keys=after.keys), after)
    yield from _field("Gateway", "keys", old.keys, new.keys, loud=read)
    envs = [each.env or Env() for each in (old, new)]
    hygienes = [each.given["hygiene"] or Hygiene() for each in envs]
    yield from _field("Gateway", "env.hygiene", *hygienes, loud=True)
    yield from _field("Gateway", "env.place", *[each.place for each in envs])


def _of_products(old: Gateway, new: Gateway) -> Iterator[Change]:
    before, after = ({product.name: product for product in each.products} for each in (old, new))
    for name in dict.fromkeys((*before, *after)):
        where = f"Product {name}"
        if name not in after:
            yield Change(kind="removed", where=where)
        elif name not in before:
            yield Change(kind="added", where=where, loud=not after[name].subscription_required)
        else:
            yield from _of_product(where, before[name], after[name])


def _of_product(where: str, old: Product, new: Product) -> Iterator[Change]:
    yield from _of_layers(where, old.policies, new.policies)
    opened = old.subscription_required and not new.subscription_required
    yield from _field(where, "subscription_required", old.subscription_required, new.subscription_required, loud=opened)
    cut = old.inherit and not new.inherit
    yield from _field(where, "inherit", old.inherit, new.inherit, loud=cut)
    waved = old.approval_required and not new.approval_required
    yield from _field(where, "approval_required", old.approval_required, new.approval_required, loud=waved)
    most = old.subscriptions_limit is not None and old.subscriptions_limit < (new.subscriptions_limit or math.inf)
    yield from _field(where, "subscriptions_limit", old.subscriptions_limit, new.subscriptions_limit, loud=most)
    yield from _field(where, "published", old.published, new.published, loud=new.published)
    wider = bool(old.groups) and not (new.groups and {*new.groups} <= {*old.groups})
    yield from _field(where, "groups", old.groups, new.groups, loud=wider)
    for api in sorted({*old.apis} ^ {*new.apis}):
        yield Change(kind="gains" if api in new.apis else "loses", where=where, what=f"Api {api}")


def _of_versions(old: Gateway, new: Gateway) -> Iterator[Change]:
    """Which version is meant by who names none, and how callers say which they mean."""
    after = {api.name: api for api in new.apis}
    for api in old.apis:
        versions, others = api.versions, after[api.name].versions if api.name in after else None
        if versions is None or others is None:
            continue
        where = f"Api {api.name}"
        if versions.by == others.by:  # else the routes tell
            yield from _field(where, "versions.parameter", versions.parameter, others.parameter)
        less = versions.default != others.default and any(
            _less(
                _known(old, definition, operation, host), _meant(new, probe_of(definition, operation, host, plain=True))
            )
            for definition, operation, host in _of_api(api)
            if definition.current and definition.version is not None and definition.version.name == versions.default
        )
        yield from _field(where, "versions.default", versions.default, others.default, loud=less)


def _of_routes(old: Gateway, new: Gateway) -> Iterator[Change]:
    before, after = _routes(old), _routes(new)
    for where, route in before.items():
        if where not in after:
            taker = _meant(new, probe_of(*route.stands))
            less = _less(route, taker)
            what = "" if taker is None else f"and left to {taker.where}{_without(less)}"
            yield Change(kind="removed", where=where, what=what, loud=bool(less))
        else:
            yield from _of_route(where, route, after[where])
    for where, route in after.items():
        if where not in before:
            giver = _meant(old, probe_of(*route.stands))
            less = [] if giver is None else _less(giver, route)
            what = "" if giver is None else f"and takes from {giver.where}{_without(less)}"
            guarded = route.subscription_required or any(policy.guards for policy in _policies(route.layers))
            yield Change(kind="added", where=where, what=what, loud=bool(less) or not guarded)


def _meant(gateway: Gateway, probe: Probe) -> _Known | None:
    """The route that a request goes to; None where it is refused."""
    found = gateway.compiled.meant(probe)
    if found is None:
        return None
    definition = found.approach.edition.definition
    return _known(gateway, definition, found.operation, (definition.api.hosts or ("",))[0])


def _less(old: _Known, new: _Known | None) -> list[str]:
    """What protects a request that goes to the one route, and would not if it went to the other."""
    if new is None:
        return []
    less = [_name(layer) for layer in old.layers if _protects(layer) and _found(layer, new.layers) is None]
    opened = old.subscription_required and not new.subscription_required
    return [*less, "subscription_required"] if opened else less


def _without(less: Sequence[str]) -> str:
    return f", without {' and '.join(dict.fromkeys(less))}" if less else ""


def _of_route(where: str, old: _Known, new: _Known) -> Iterator[Change]:
    yield from _field(where, "api", old.api, new.api)
    yield from _of_layers(where, old.layers, new.layers)
    opened = old.subscription_required and not new.subscription_required
    yield from _field(where, "subscription_required", old.subscription_required, new.subscription_required, loud=opened)
    yield from _field(where, "inherit", old.inherits, new.inherits, loud=old.inherits and not new.inherits)
    yield from _field(where, "backend", old.backend, new.backend)
    if not alike(old.rest, new.rest):
        yield Change(kind="changed", where=where, what="deprecation, keys or state")


def _routes(gateway: Gateway) -> dict[str, _Known]:
    found = [_known(gateway, *each) for api in gateway.apis for each in _of_api(api)]
    return {each.where: each for each in found}


def _of_api(api: Api) -> Iterator[tuple[Definition, Operation, str]]:
    """Every operation of an API at each of its hosts."""
    for definition in definitions(api):
        for operation in definition.operations or (Operation("*", "/*"),):
            for host in api.hosts or ("",):
                yield definition, operation, host


def _where(definition: Definition, operation: Operation, host: str) -> str:
    api, version = definition.api, definition.version
    path = api.path.removesuffix("/")
    told = ""
    if version is not None and api.versions is not None:
        by_path = api.versions.by == "path"
        path += f"/{version.name}" if by_path else ""
        told = "" if by_path else f" [{version.name}]"
    path += "" if definition.current else f";rev={definition.revision}"
    return f"{operation.method} {host}{path}{operation.template}{told}"


def _known(gateway: Gateway, definition: Definition, operation: Operation, host: str) -> _Known:
    api, version = definition.api, definition.version
    scopes = [(operation.policies, operation.inherit), (definition.api_policies, api.inherit)]
    if version is not None:
        scopes.insert(1, (definition.version_policies, version.inherit))
    layers: tuple[Layer, ...] = ()
    for policies, inherits in scopes:
        layers = (*policies, *layers)
        if not inherits:
            break
    else:
        layers = (*gateway.policies, *layers)
    free = [each.apis for each in gateway.products if not each.subscription_required]
    required = api.subscription_required and not any(api.name in names or "*" in names for names in free)
    state = version is not None and version.retired, definition.online, api.key_header, api.key_query
    deprecations = operation.deprecation, version and version.deprecation, api.deprecation
    whole = all(inherits for _, inherits in scopes)
    stands = definition, operation, host
    return _Known(
        _where(*stands), stands, api.name, layers, required, whole, definition.backend, (*state, *deprecations)
    )


def _of_layers(where: str, old: Sequence[Layer], new: Sequence[Layer]) -> Iterator[Change]:
    """What goes, what comes, and what stays under its name with other fields or at another place."""
    if alike(tuple(old), tuple(new)):
        return
    lost, gained = [], list(new)
    for layer in old:
        at = _found(layer, gained)
        if at is None:
            lost.append(layer)
        else:
            del gained[at]
    if not lost and not gained:
        yield Change(kind="reordered", where=where, what="policies")
    for layer in lost:
        other = next((each for each in gained if _kind_of(each) == _kind_of(layer)), None)
        if other is None:
            yield Change(kind="loses", where=where, what=_name(layer), before=repr(layer), loud=_protects(layer))
        else:
            gained.remove(other)
            before, after = _differing(layer, other)
            yield Change(
                kind="changed", where=where, what=_name(layer), before=before, after=after, loud=_protects(layer)
            )
    for layer in gained:
        yield Change(kind="gains", where=where, what=_name(layer), after=repr(layer))


def _field(where: str, name: str, old: object, new: object, *, loud: bool = False) -> Iterator[Change]:
    if not alike(old, new):
        yield Change(kind="changed", where=where, what=name, before=repr(old), after=repr(new), loud=loud)


def _found(layer: Layer, layers: Sequence[Layer]) -> int | None:
    """Where one that is alike stands."""
    return next((at for at, each in enumerate(layers) if alike(each, layer)), None)


def _policies(layers: Sequence[Layer]) -> list[Policy]:
    return [policy for layer in layers for policy in policies_in(layer)]


def _protects(layer: Layer) -> bool:
    return any(policy.guards is not False or policy.counts for policy in policies_in(layer))


def _differing(old: Layer, new: Layer) -> tuple[str, str]:
    """What is different of two policies of one kind: their fields, where they are values with fields."""
    if not dataclasses.is_dataclass(old) or not dataclasses.is_dataclass(new):
        return repr(old), repr(new)
    fields = [each.name for each in dataclasses.fields(old)]
    names = [name for name in fields if not alike(getattr(old, name), getattr(new, name))]
    shown = {each.name for each in dataclasses.fields(old) if each.repr}
    told = [
        [f"{name}={_shown(getattr(each, name))}" if name in shown else name for name in names] for each in (old, new)
    ]
    return ", ".join(told[0]), ", ".join(told[1])


def _shown(value: object) -> str:
    """A value without the address it has in memory, where it is a function."""
    return getattr(value, "__name__", None) or repr(value)


def _kind_of(layer: Layer) -> object:
    return type(layer), getattr(layer, "name", None)


def _name(layer: Layer) -> str:
    return getattr(layer, "__name__", type(layer).__name__)
