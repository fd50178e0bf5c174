"""What each worker process would keep for itself: counts, answers, permits and keys in its memory."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.routing import Mount

from apim_middleware._ring import Ring
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ApimError
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.guarding import Guarded
from apim_middleware.model import Fragment
from apim_middleware.policies.access_log import AccessLog
from apim_middleware.policies.api_key import APIKeyAuth
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.either import AllOf, AnyOf
from apim_middleware.policy import Composable, Stack
from apim_middleware.serving.forward_auth import ForwardAuth
from apim_middleware.stores.entries import MemoryEntries
from apim_middleware.stores.keys import MemoryKeys
from apim_middleware.stores.memory import MemoryCounters
from apim_middleware.stores.permits import MemoryPermits
from apim_middleware.types import Layer, Receive, Scope, Send

_APART = {
    "counters": "count apart in each of the {workers} workers, so that {workers} times as much may pass. "
    "Share the counts: Env(counters=SQLiteCounters(...)) or RedisCounters, and a place",
    "permits": "count apart in each of the {workers} workers, so that {workers} times as many may be in. "
    "Share the permits: Env(permits=SQLitePermits(...)) or RedisPermits, and a place",
    "entries": "keep apart in each of the {workers} workers what they store; what one purges stays in the others. "
    "Share the entries: Env(entries=SQLiteEntries(...)) or RedisEntries, and a place",
    "keys": "look keys up in the memory of each of the {workers} workers: a key that one makes opens no other, "
    "and one it revokes works on in the others. "
    "Share the keys: RecordKeys on SQLiteRecords or RedisRecords",
}


class Standing(NamedTuple):
    """A policy or another layer of ours, and the environment it stands in."""

    layer: Composable
    env: Env


class _Noting(Env):
    """An environment of its own that notes which stores a policy asks for when it is built."""

    asked: set[str]

    def _resolve(self, name: str, default: Any) -> Any:  # noqa: ANN401 - whatever the store is
        self.asked.add(name)
        return super()._resolve(name, default)


def kept_apart(app: object, workers: int) -> list[str]:
    """A sentence for each kind of store that so many workers would have one each of, with the policies that use it."""
    names: dict[str, dict[str, None]] = {}
    for each in standing_in(app) if workers > 1 else ():
        for kind in _apart(each):
            names.setdefault(kind, {})[type(each.layer).__name__] = None
    return [f"{', '.join(names[kind])}: {_APART[kind].format(workers=workers)}." for kind in _APART if kind in names]


def has_access_log(app: object) -> bool:
    """Whether an ``AccessLog`` stands somewhere in front of an app or in it."""
    return any(isinstance(each.layer, AccessLog) for each in standing_in(app))


def _apart(each: Standing) -> Iterator[str]:
    asked = _asked_by(each)
    if "counters" in asked and isinstance(each.env.counters(MemoryCounters), MemoryCounters):
        yield "counters"
    if "permits" in asked and isinstance(each.env.permits(MemoryPermits), MemoryPermits):
        yield "permits"
    if "entries" in asked and isinstance(each.env.entries(MemoryEntries), MemoryEntries):
        yield "entries"
    if isinstance(each.layer, APIKeyAuth) and isinstance(each.layer.keys, MemoryKeys):
        yield "keys"


def _asked_by(each: Standing) -> set[str]:
    noting = _Noting(place="check")
    noting.asked, noting.scrub = set(), each.env.scrub
    try:
        each.layer.build(_nowhere, noting)
    except ApimError:  # which is told where the policy really stands
        return set()
    return noting.asked


def standing_in(app: object, env: Env = default_env) -> Iterator[Standing]:
    """Every policy and layer of ours in front of an app and in it, as far as it is made of what this package knows."""
    while isinstance(app, Ring) or isinstance(getattr(app, "rule", None), Composable):
        if isinstance(app, Ring):
            for seat in app.seats:
                yield from _in_layers([seat.policy], seat.env or env)
        else:
            yield from _in_layers([app.rule], env)  # type: ignore[attr-defined]
        app = app.app  # type: ignore[attr-defined]
    if isinstance(app, Reloadable):
        app = app.gateway
    if isinstance(app, Gateway):
        yield from _of_gateway(app)
    elif isinstance(app, Guarded):
        yield from _in_layers(app.layers, app.env)
        yield from standing_in(app.app)
    elif isinstance(app, ForwardAuth):
        yield from _in_layers([app.layer], env)
    elif isinstance(app, Starlette):
        yield from _in_layers([each.cls for each in app.user_middleware], env)
        for route in app.routes:
            if isinstance(route, Mount):
                yield from standing_in(route.app)


def _of_gateway(gateway: Gateway) -> Iterator[Standing]:
    env = gateway.env or Env()
    if gateway.authenticator is not None:
        yield Standing(gateway.authenticator, env)
    yield from _in_layers(gateway.policies, env)
    for row in gateway.rows():
        yield from _in_layers([each.layer for each in row.layers], env)
    for entry in gateway.compiled.entries:
        for edition in entry.editions():
            yield from standing_in(edition.definition.backend)


def _in_layers(layers: Iterable[object], env: Env) -> Iterator[Standing]:
    for layer in layers:
        if isinstance(layer, Stack):
            yield from _in_layers(layer.layers, layer.env or env)
        elif isinstance(layer, Fragment):
            yield from _in_layers(layer.policies, env)
        elif isinstance(layer, When | Choose):
            yield from _in_layers(_branches(layer), env)
        elif isinstance(layer, AnyOf | AllOf):
            yield from _in_layers(layer.layers, env)
        elif isinstance(layer, Composable):
            yield Standing(layer, env)


def _branches(layer: When | Choose) -> Iterator[Layer]:
    if layer.otherwise is not None:
        yield layer.otherwise
    yield from (layer.layer,) if isinstance(layer, When) else (each for _, each in layer.branches)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("no request comes this way")
