"""``guard``: policies in front of an app, chosen by the route a request takes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, NamedTuple, ParamSpec, TypeVar

from apim_middleware._config import check, check_known
from apim_middleware._lifespan import ending_with
from apim_middleware._order import check_guards, check_met, check_needs, check_readers
from apim_middleware._server import look_at_server
from apim_middleware._together import living_with
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.gateway._places import home
from apim_middleware.gateway._scopes import Scope as Policies
from apim_middleware.guarding._resolver import Resolver
from apim_middleware.guarding._routes import MARK, NOTHING, Known, routes_of
from apim_middleware.guarding._selectors import Only, Rule, Rules, check_layers, check_used, rule, several
from apim_middleware.match import Match, Route
from apim_middleware.policy import Policy, led_to, ring
from apim_middleware.types import ASGIApp, Layer, Receive, Scope, Send

log = logging.getLogger("apim_middleware.guard")

F = TypeVar("F")
P = ParamSpec("P")
T = TypeVar("T")

_JUDGED = "apim_middleware.judged"
"""Where the scope has what policies were chosen for: path and method, and the route and the plan they mean."""

__all__ = ["Guarded", "Only", "guard", "guarded_by"]


def guarded_by(*layers: Layer) -> Callable[[F], F]:
    """Mark an endpoint with policies: ``guard`` puts them in front of its routes, the innermost of all.

    It only marks: without ``guard`` nothing stands in front, and ``coverage`` shows so. It goes below the decorator
    that makes the route: ``@app.get("/reports")`` first, then ``@guarded_by(RateLimit(calls=1, per=60))``. ConfigError
    for what is no layer.
    """
    check_layers("guarded_by", "", layers)

    def mark(endpoint: F) -> F:
        setattr(endpoint, MARK, (*layers, *getattr(endpoint, MARK, ())))
        return endpoint

    return mark


_DEFAULT_NAME = "app"


def _named(function: Callable[P, T]) -> Callable[P, T]:
    """A function to which arguments are given as to policies: by names that it knows, but for the first."""
    known = tuple(signature(function).parameters)
    owner, first = function.__name__, known[0]

    @wraps(function)
    def checked(*args: P.args, **given: P.kwargs) -> T:
        check_known(owner, given, known)
        if len(args) > 1:
            problem = f"fields are given at most 1 without a name ({first})"
            raise ConfigError(owner, "", problem, f"Write {owner}({first}, field=value, ...)")
        if not args and first not in given:
            raise ConfigError(owner, first, "is missing", f"Write {owner}({first}, ...)")
        return function(*args, **given)

    return checked


@_named
def guard(
    app: ASGIApp,
    *,
    policies: Sequence[Layer] = (),
    routes: Mapping[str, Sequence[Layer] | Only] | None = None,
    name: str = _DEFAULT_NAME,
    env: Env | None = None,
) -> "Guarded":
    """An app behind policies: ``policies`` in front of everything, those in ``routes`` in front of what they select.

    The routes are the app's own (FastAPI, Starlette or a Router, Litestar), mounts, included routers and WebSockets
    too. What fits none of them, 404s and redirects, passes ``policies`` alone, and those for all paths below one. A
    selector is

    - a template as the app has it, ``"/orders/{id}"``, of all methods or of one: ``"GET /orders"``;
    - all paths below one, ``"/admin/*"``: the path that is asked for decides, whichever route it takes;
    - ``"tag:admin"``, and ``"operation:list_orders"`` for an operation id or the name of a route.

    Wider ones stand outside: tags, then paths below one, then templates, then operations, then what ``guarded_by``
    marked. ``Only(...)`` leaves out everything wider, ``policies`` too. ``env`` gives clock, stores and transport, and
    ``name`` is the place within that of ``env`` where policies count and store: compulsory where a store is one that
    others see and ``env`` has no place.

    ConfigError: an app whose routes cannot be read, a selector that is for no route, policies whose order cannot work.
    """
    check("guard", "name", name, str)
    if not name:
        raise ConfigError("guard", "name", "is empty", 'Write guard(..., name="orders")')
    check("guard", "env", env, Env | None, cure="Write guard(..., env=Env(...))")
    check("guard", "routes", routes, Mapping[str, Any] | None, cure='Write guard(..., routes={"/orders": (..., )})')
    means = home(name, env or Env(), default=_DEFAULT_NAME)
    return Guarded(app, several(policies, "policies"), routes or {}, means.place, means)


class Set(NamedTuple):
    """Some policies, and the selector they are written under: ``*`` for those of everything."""

    selector: str
    policies: Policies


@dataclass(frozen=True)
class _Settled(Policy):
    """Stands innermost: policies were chosen for this request, so it may not become one that others are due for."""

    guards = False

    due: Callable[[Scope], "_Due"]
    by_host: bool

    def on_request(self, exchange: Exchange) -> None:
        """Look again when a policy has changed what was judged."""
        scope = exchange.scope
        judged: _Judged | None = scope.get(_JUDGED)
        if judged is None:  # nothing was chosen, so nothing that stood in front was enough
            raise Refusal(500, "route-changed", "The request could not be processed.")
        if judged.path is scope["path"] and judged.method == scope.get("method") and not self.by_host:
            return
        if self.due(scope) != judged.due:
            log.error("a policy behind the guard has changed the route of a request from %s", judged.due.known.template)
            raise Refusal(500, "route-changed", "The request could not be processed.")


class _Due(NamedTuple):
    """The route of a request, and the policies that stand in front of it."""

    known: Known
    plan: ASGIApp


class _Judged(NamedTuple):
    """By what a route was found, and what is due for it."""

    path: str
    method: str | None
    due: _Due


class Guarded:
    """An app with policies by route; an ASGI app."""

    def __init__(
        self,
        app: ASGIApp,
        policies: Sequence[Layer],
        routes: Mapping[str, Sequence[Layer] | Only],
        name: str,
        env: Env,
    ) -> None:
        """As ``guard`` says, with all of its place as its ``name``."""
        self.app = app
        self.env: Env = env.at(name)
        self._name = name
        level = routes_of(app)
        self.routes: tuple[Known, ...] = (*level.every(), NOTHING)
        """The routes of the app in its order, and last what stands for everything else."""

        self._resolver = Resolver(level, str(getattr(app, "root_path", "") or ""))
        self._rules = Rules(rule(*each) for each in routes.items())
        check_used(self._rules, self.routes)
        self._everywhere = Set("*", self._policies("", policies))
        self._sets = {each.selector: self._set(each) for each in self._rules}
        self._marks: dict[Known, Set] = {}
        self._plans: dict[tuple[int, ...], ASGIApp] = {}
        self._told: dict[Known, Route] = {}
        self._choices = {known: self._choice(known) for known in self.routes}
        self._living = living_with(app, [other for layer in self.layers for other in led_to(layer)], self.env)

    def __repr__(self) -> str:
        """What it guards."""
        return f"Guarded({self.app!r})"

    @property
    def layers(self) -> list[Layer]:
        """Everything that stands in front of one route or another."""
        sets = [self._everywhere, *self._sets.values(), *self._marks.values()]
        return [layer for each in sets for layer in each.policies.layers]

    def added(self) -> list[Known]:
        """Routes the app has got since: they pass what everything passes, as long as the guard is not made anew."""
        known = {(each.kind, each.template, each.methods) for each in self.routes}
        return [each for each in routes_of(self.app).every() if (each.kind, each.template, each.methods) not in known]

    def sets_for(self, known: Known, method: str = "", path: str | None = None) -> list[Set]:
        """The policies in front of a route, outermost first; of its requests with this method and path, if given."""
        found = [self._everywhere]
        for each in self._rules.about(known):
            if each.fits(known, method, path):
                found = [*([] if each.alone else found), self._sets[each.selector]]
        if known.marked:
            found.append(self._mark(known))
        return found

    def sets_for_added(self, known: Known, method: str = "") -> list[Set]:
        """The policies in front of a route that was added later."""
        found = [self._everywhere]
        for each in self._rules.about(known):
            if each.below and each.fits(known, method):
                found = [*([] if each.alone else found), self._sets[each.selector]]
        return found

    def perhaps_for(self, known: Known, method: str = "") -> list[Set]:
        """The policies that stand in front of some requests of a route with this method, and not of others."""
        return [
            self._sets[each.selector]
            for each in self._rules.about(known)
            if each.may_fit(known) and not each.fits(known, method)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http" and scope["type"] != "websocket":
            look_at_server(scope, receive)
            await self._living(scope, receive, ending_with(send, [self.env.ending]))
            return
        exchange: Exchange | None = scope.get(KEY)
        if exchange is not None:
            await self._chosen(exchange)(scope, receive, send)
            return
        exchange = scope[KEY] = Exchange(scope)
        try:
            await self._chosen(exchange)(scope, receive, send)
        finally:  # as the outermost ring does
            scope.pop(KEY, None)
            exchange.shared.error = None

    def _chosen(self, exchange: Exchange) -> ASGIApp:
        scope, shared = exchange.scope, exchange.shared
        try:
            if not shared.clean:
                exchange.scrubbed(*self.env.scrub(scope))
        except Refusal:
            return self._plan([self._everywhere])  # which looks for itself, and says so
        due = self._due(scope)
        scope[_JUDGED] = _Judged(scope["path"], scope.get("method"), due)
        if shared.match is None:
            told = self._told[due.known]
            shared.match = Match(told)
            shared.attributes.update(told.attributes)
        return due.plan

    def _due(self, scope: Scope) -> _Due:
        known = self._resolver.find(scope)
        plan, perhaps = self._choices[known]
        if perhaps:
            method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
            path = self._resolver.path_of(scope)
            if any(each.fits(known, method, path) for each in perhaps):
                plan = self._plan(self.sets_for(known, method, path))
        return _Due(known, plan)

    def _choice(self, known: Known) -> tuple[ASGIApp, tuple[Rule, ...]]:
        """The plan of a route, and the rules that are for some of its requests besides."""
        named = known.kind in ("http", "websocket")
        operation = known.operation or known.name
        self._told[known] = Route(template=known.template, operation=operation) if named else Route()
        perhaps = tuple(each for each in self._rules.about(known) if each.may_fit(known) and not each.fits(known))
        for method in {each.method for each in perhaps}:  # so that orders that cannot work are known now
            for path in (None, *(each.path for each in perhaps if each.below)):
                self._plan(self.sets_for(known, method, path))
        return self._plan(self.sets_for(known)), perhaps

    def _plan(self, sets: Sequence[Set]) -> ASGIApp:
        """One flat stack of all these in front of the app; routes with the same policies share it."""
        wanted = tuple(id(each.policies) for each in sets)
        plan = self._plans.get(wanted)
        if plan is None:
            policies = [policy for each in sets for policy in each.policies.policies]
            check_needs(policies)
            check_met(policies)
            check_readers(policies)
            check_guards(policies)
            plan = self._built(sets)
            self._plans[wanted] = plan
        return plan

    def _built(self, sets: Sequence[Set]) -> ASGIApp:
        settled = _Settled(self._due, self._resolver.by_host)
        app: ASGIApp = ring(settled, settled, self.app, self.env)
        for each in reversed(sets):
            app = each.policies.before(app)
        return app

    def _policies(self, place: str, layers: Sequence[Layer]) -> Policies:
        return Policies(f"{self._name}{place}", layers, self.env)

    def _set(self, each: Rule) -> Set:
        return Set(each.selector, self._policies(f"/{each.selector}", each.layers))

    def _mark(self, known: Known) -> Set:
        found = self._marks.get(known)
        if found is None:
            methods = "|".join(sorted(known.methods)) or known.kind.upper()
            place = f"/{methods} {known.template}/marked"
            found = self._marks[known] = Set("guarded_by", self._policies(place, known.marked))
        return found
