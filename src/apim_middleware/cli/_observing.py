"""The same gateway or app with an observer between any two policies.

``Stack(a, b)`` behaves as ``Stack(seen, a, seen, b, seen)``, so what is seen is what happens.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from apim_middleware._ring import Ring, Seat
from apim_middleware.cli._journal import Journal, Observer
from apim_middleware.cli._veil import holds_secret
from apim_middleware.env import default_env
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.gateway._scopes import Scope as Policies
from apim_middleware.guarding import Guarded, Only
from apim_middleware.guarding.coverage import called
from apim_middleware.model import Api, Fragment, Operation, Revision, Version
from apim_middleware.policy import Stack
from apim_middleware.types import ASGIApp, Layer


def observed(app: ASGIApp) -> tuple[ASGIApp, Journal]:
    """The same gateway or app with observers in it, and what they write to."""
    journal = Journal()
    return _Watch(journal).app(app), journal


class _Watch:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def app(self, app: ASGIApp) -> ASGIApp:
        """The app with observers among the policies in front of it, as far as it shows them."""
        if isinstance(app, Reloadable):
            app = app.gateway
        if isinstance(app, Gateway):
            return self._gateway(app)
        if isinstance(app, Guarded):
            return _WatchedGuard(app, self)
        if isinstance(app, Ring):
            return self._ring(app)
        if isinstance(app, Starlette):
            return self._starlette(app)
        return self._around(app) if callable(getattr(app, "app", None)) else app

    def _gateway(self, gateway: Gateway) -> Gateway:
        if gateway.authenticator is not None:
            self._journal.gate = called(gateway.authenticator)
        own = self.layers(gateway.policies) or (self._observer(None),)
        apis = tuple(self._api(each) for each in gateway.apis)
        products = tuple(replace(each, policies=self.layers(each.policies)) for each in gateway.products)
        return replace(gateway, policies=own, apis=apis, products=products)

    def _api(self, api: Api) -> Api:
        """The API with observers among its policies and those of what it consists of."""
        policies, operations = self.layers(api.policies), self._operations(api.operations)
        versions = api.versions
        if versions is not None:
            versions = replace(versions, versions=tuple(map(self._version, versions.versions)))
        revisions = tuple(map(self._revision, api.revisions))
        return replace(api, policies=policies, operations=operations, versions=versions, revisions=revisions)

    def _version(self, version: Version) -> Version:
        operations = None if version.operations is None else self._operations(version.operations)
        revisions = tuple(map(self._revision, version.revisions))
        policies = self.layers(version.policies)
        return replace(version, policies=policies, operations=operations, revisions=revisions)

    def _revision(self, revision: Revision) -> Revision:
        policies = None if revision.policies is None else self.layers(revision.policies)
        operations = None if revision.operations is None else self._operations(revision.operations)
        return replace(revision, policies=policies, operations=operations)

    def _operations(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        return tuple(replace(each, policies=self.layers(each.policies)) for each in operations)

    def _ring(self, ring: Ring) -> Ring:
        """A ring with its hooks as they are bound, and an observer before each and behind the last."""
        seats: list[Seat] = []
        for seat in ring.seats:
            observer = self._observer(seat.policy)
            seats += [Seat(observer, observer, seat.env), seat]
        last = self._observer(None)
        seats.append(Seat(last, last))
        scrub = next((seat.env.scrub for seat in ring.seats if seat.env is not None), default_env.scrub)
        return Ring(seats, self.app(ring.app), scrub, closed=ring.closed, endings=ring.endings)

    def _starlette(self, app: Starlette) -> Starlette:
        """A copy of the app, with the same routes."""
        watched = copy(app)
        watched.middleware_stack = None
        watched.user_middleware = []
        for each in app.user_middleware:
            layer: Any = each.cls
            if each.args or each.kwargs:
                watched.user_middleware += [Middleware(self._observer(layer)), each]
            else:
                watched.user_middleware += [Middleware(each) for each in self._spread((layer,))]
        watched.user_middleware.append(Middleware(self._observer(None)))
        return watched

    def _around(self, middleware: Any) -> ASGIApp:  # noqa: ANN401 - whatever keeps the app behind it as its app
        """A copy of a middleware, around the app it is around."""
        within = copy(middleware)
        within.app = Stack(self._observer(None))(self.app(middleware.app))
        return Stack(self._observer(getattr(middleware, "rule", middleware)))(within)

    def layers(self, layers: Sequence[Layer]) -> tuple[Layer, ...]:
        """The layers with an observer before each of them, and one behind the last."""
        return (*self._spread(layers), self._observer(None)) if layers else ()

    def _spread(self, layers: Sequence[Layer]) -> Iterator[Layer]:
        for layer in layers:
            if isinstance(layer, Fragment):
                yield from self._spread(layer.policies)
            elif isinstance(layer, Stack) and layer.env is None and not layer.place:
                yield from self._spread(layer.layers)
            elif isinstance(layer, Stack):
                yield Stack(*self.layers(layer.layers), env=layer.env, place=layer.place)
            else:
                yield self._observer(layer)
                yield layer

    def _observer(self, layer: Layer | None) -> Observer:
        """One in front of a layer, or of what is no policy."""
        place = len(self._journal.names)
        self._journal.names.append("" if layer is None else called(layer))
        if holds_secret(layer):
            self._journal.secret.add(place)
        return Observer(self._journal, place)


class _WatchedGuard(Guarded):
    """The same guard, with observers among its policies."""

    def __init__(self, guarded: Guarded, watch: _Watch) -> None:
        self._watch = watch
        routes = {each.selector: Only(*each.layers) if each.alone else each.layers for each in guarded._rules}
        everywhere = guarded._everywhere.policies.layers
        super().__init__(watch.app(guarded.app), everywhere, routes, guarded._name, guarded.env)

    def _policies(self, place: str, layers: Sequence[Layer]) -> Policies:
        return super()._policies(place, self._watch.layers(layers))
