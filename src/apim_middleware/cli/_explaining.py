"""What each policy does to one request: the same gateway or app with an observer between any two policies.

``Stack(a, b)`` behaves as ``Stack(seen, a, seen, b, seen)``, so what is seen is what happens.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.middleware import Middleware

from apim_middleware._ring import Ring, Seat
from apim_middleware.cli._veil import Veil, holds_secret
from apim_middleware.env import default_env
from apim_middleware.exchange import Exchange
from apim_middleware.gateway import Gateway, Reloadable
from apim_middleware.gateway._scopes import Scope as Policies
from apim_middleware.guarding import Guarded, Only
from apim_middleware.guarding.coverage import called
from apim_middleware.model import Api, Fragment, Operation, Revision, Version
from apim_middleware.policy import Policy, Stack
from apim_middleware.types import ASGIApp, Layer


class Sight(NamedTuple):
    """What an observer saw."""

    place: int
    moment: float
    request: frozenset[tuple[str, str]]
    """The request as facts: its method, path, query, client, principal and header lines."""

    response: frozenset[tuple[str, str]]
    refusal: str = ""
    """The code by which the gateway itself refuses the request, once its own policies have seen it."""


@dataclass(eq=False)
class Journal:
    """What all observers saw, in the order it happened."""

    names: list[str] = field(default_factory=list)
    """The policy behind each observer, and last the app."""

    gate: str = ""
    """What looks at the keys of a gateway, before the first policy."""

    secret: set[int] = field(default_factory=set)
    """The observers with a policy behind them that puts a secret on requests or responses."""

    inward: list[Sight] = field(default_factory=list)
    outward: list[Sight] = field(default_factory=list)


class Step(NamedTuple):
    """What one policy did."""

    policy: str
    took: float
    """Seconds on the way in, what it waited for included."""

    request: list[str]
    """What it changed of the request."""

    response: list[str]
    """What it changed of the response."""

    answered: bool
    """Whether nobody behind it was asked."""


@dataclass(frozen=True, eq=False)
class _Observer(Policy):
    """Stands between two policies, and changes nothing."""

    guards = False

    journal: Journal
    place: int

    def on_request(self, exchange: Exchange) -> None:
        match = exchange.match
        refusal = "" if match is None or match.refusal is None else match.refusal.code
        self.journal.inward.append(Sight(self.place, perf_counter(), _request(exchange), frozenset(), refusal))

    def on_response(self, exchange: Exchange) -> None:
        self.journal.outward.append(Sight(self.place, perf_counter(), frozenset(), _response(exchange)))


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
        """The same hooks, as they are bound."""
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

    def _observer(self, layer: Layer | None) -> _Observer:
        """One in front of a layer, or of what is no policy."""
        place = len(self._journal.names)
        self._journal.names.append("" if layer is None else called(layer))
        if holds_secret(layer):
            self._journal.secret.add(place)
        return _Observer(self._journal, place)


class _WatchedGuard(Guarded):
    """The same guard, with observers among its policies."""

    def __init__(self, guarded: Guarded, watch: _Watch) -> None:
        self._watch = watch
        routes = {each.selector: Only(*each.layers) if each.alone else each.layers for each in guarded._rules}
        everywhere = guarded._everywhere.policies.layers
        super().__init__(watch.app(guarded.app), everywhere, routes, guarded._name, guarded.env)

    def _policies(self, place: str, layers: Sequence[Layer]) -> Policies:
        return super()._policies(place, self._watch.layers(layers))


def steps(journal: Journal, veil: Veil) -> list[Step]:
    """What each policy did that the request came to, outermost first."""
    found = [*_at_the_gate(journal)]
    for sight, behind, inner, outer in _sights(journal):
        found.append(
            Step(
                policy=journal.names[sight.place],
                took=(behind.moment - sight.moment) if behind is not None else _until_answer(sight, outer),
                request=[] if behind is None else _differences(sight.request, behind.request, veil),
                response=_differences(inner.response, outer.response, veil) if inner and outer else [],
                answered=behind is None,
            )
        )
    seen = journal.inward
    if seen and seen[-1].refusal and not (found and found[-1].answered):
        found.append(Step("the gateway itself", 0.0, [], [f"code: {seen[-1].refusal}"], answered=True))
    return found


def veil_of(journal: Journal) -> Veil:
    """What hides the secrets of this request: wherever it was, what a policy has put there out of a secret."""
    hidden: set[str] = set()
    for sight, behind, inner, outer in _sights(journal):
        if sight.place in journal.secret:
            hidden |= _named(behind.request - sight.request) if behind is not None else set()
            hidden |= _named(outer.response - inner.response) if inner and outer else set()
    return Veil(hidden)


def _at_the_gate(journal: Journal) -> Iterator[Step]:
    """The check of the key, which comes before the first policy."""
    facts = journal.inward[0].request if journal.inward else ()
    if journal.gate:
        for name, value in sorted(facts):
            if name == "subscription" and value:
                yield Step(journal.gate, 0.0, [f"{name}: {value}"], [], answered=False)


def _sights(journal: Journal) -> Iterator[tuple[Sight, Sight | None, Sight | None, Sight | None]]:
    """Of each policy: the request before and behind it, and the response behind and before it."""
    seen = journal.inward
    out = {sight.place: sight for sight in journal.outward}
    for at, sight in enumerate(seen):
        behind = seen[at + 1] if at + 1 < len(seen) else None
        if journal.names[sight.place]:
            yield sight, behind, out.get(behind.place) if behind is not None else None, out.get(sight.place)


def _until_answer(sight: Sight, outer: Sight | None) -> float:
    return 0.0 if outer is None else outer.moment - sight.moment


def _named(facts: frozenset[tuple[str, str]]) -> set[str]:
    return {name for name, _ in facts}


def _differences(before: frozenset[tuple[str, str]], after: frozenset[tuple[str, str]], veil: Veil) -> list[str]:
    gone, new = sorted(before - after), sorted(after - before)
    changed = {name for name, _ in gone} & {name for name, _ in new}
    lines = [f"{name}: {veil(name, value)}" for name, value in new]
    return lines + [f"{name}: (removed)" for name, _ in gone if name not in changed]


def _request(exchange: Exchange) -> frozenset[tuple[str, str]]:
    scope = exchange.scope
    facts = {
        ("method", exchange.method),
        ("path", exchange.path),
        ("query", scope.get("query_string", b"").decode("latin-1")),
        ("client", exchange.client or ""),
        ("scheme", scope.get("scheme", "")),
        ("principal", "" if exchange.principal is None else exchange.principal.subject),
        ("subscription", "" if exchange.subscription is None else exchange.subscription.id),
    }
    return frozenset(facts | _lines(scope["headers"]))


def _response(exchange: Exchange) -> frozenset[tuple[str, str]]:
    head = exchange.response
    return frozenset() if head is None else frozenset({("status", str(head.status))} | _lines(head.headers))


def _lines(headers: Any) -> set[tuple[str, str]]:  # noqa: ANN401 - header lines
    return {(f"{name.decode('latin-1').lower()} header", value.decode("latin-1")) for name, value in headers}
