"""Which policies stand in front of an app and in it, each with the environment it was put there in."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.routing import Mount

from apim_middleware.env import Env, default_env
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.guarding import Guarded
from apim_middleware.guarding.coverage import put_around
from apim_middleware.model import Fragment
from apim_middleware.policies.access_log import AccessLog
from apim_middleware.policies.branch import Choose, When
from apim_middleware.policies.either import AllOf, AnyOf
from apim_middleware.policy import Composable, Stack
from apim_middleware.serving.forward_auth import ForwardAuth
from apim_middleware.serving.health import Health
from apim_middleware.types import Layer


class Standing(NamedTuple):
    """A policy or another layer of ours, and the environment it stands in."""

    layer: Composable
    env: Env


def has_access_log(app: object) -> bool:
    """Whether an ``AccessLog`` stands somewhere in front of an app or in it."""
    return any(isinstance(each.layer, AccessLog) for each in standing_in(app))


def longest_grace(app: object) -> float:
    """The longest ``grace`` of a ``Health`` in front of an app or in it; 0 where there is none."""
    return max((each.layer.grace for each in standing_in(app) if isinstance(each.layer, Health)), default=0.0)


def standing_in(app: object, env: Env = default_env) -> Iterator[Standing]:
    """Every policy and layer of ours in front of an app and in it, as far as it is made of what this package knows."""
    around, app = put_around(app)
    for layer, own in around:
        yield from _in_layers([layer], own or env)
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
