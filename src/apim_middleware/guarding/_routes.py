"""The routes of a Starlette or FastAPI app as the app itself has them: in its order, by its own expressions.

Frameworks take the first route that fits, so order is part of what a route is. Nothing here decides anything that the
framework decides differently: the expressions are the ones it compiled, and mounts end the search as they do there.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute

from apim_middleware._http.paths import routed_path
from apim_middleware._ring import Ring
from apim_middleware.errors import ConfigError
from apim_middleware.types import Layer, Scope

MARK = "__apim_policies__"
"""Where an endpoint keeps the policies it was marked with."""

_CONVERTOR = re.compile(r"\{(\w+):\w+\}")


@dataclass(frozen=True, eq=False)
class Known:
    """One route, or what is mounted and shows no routes."""

    kind: Literal["http", "websocket", "mount", "nothing"]
    template: str
    """The whole path with its parameters, mounts included: ``/shop/orders/{id}``; of a mount without its rest."""

    methods: frozenset[str] = frozenset()
    """The methods it answers; an empty set where it answers all."""

    name: str = ""
    operation: str = ""
    """The operation id it has in OpenAPI, where it has one."""

    tags: frozenset[str] = frozenset()
    endpoint: object = field(default=None, repr=False)

    @property
    def marked(self) -> tuple[Layer, ...]:
        """The policies its endpoint was marked with."""
        return getattr(self.endpoint, MARK, ())


NOTHING = Known("nothing", "/*")
"""Stands for every request that no route fits: the app answers it with 404, or with a redirect."""


@dataclass(eq=False)
class Step:
    """What a router tries: an expression for the path, or a host, and what is there."""

    expression: re.Pattern[str]
    known: Known
    below: "Level | None" = None
    """What is tried next, for mounts and hosts."""

    host: Callable[[Scope], tuple[Match, Scope]] | None = None
    """Where the host decides: the question the framework asks, for its versions read hosts differently."""


class Level:
    """The steps of one router in their order, found faster by the first segment of the path."""

    def __init__(self, steps: Iterable[Step], frontends: Iterable[Step] = (), *, redirects: bool = False) -> None:
        """Sort them by the first segment where that is plain text; the others are tried whatever it is.

        Those are put among them when a path is asked for: put among each beforehand, they would be there many times.
        ``frontends`` are tried when nothing else fits, the longest path first; where the router ``redirects`` to a path
        with a slash more or less that fits, it does so before.
        """
        self.steps = tuple(steps)
        self._frontends = sorted(frontends, key=lambda each: len(each.known.template), reverse=True)
        self._redirects = redirects
        self._others: list[int] = []
        self._by_first: defaultdict[str, list[int]] = defaultdict(list)
        for number, step in enumerate(self.steps):
            first = _first_segment(step)
            (self._others if first is None else self._by_first[first]).append(number)

    def candidates(self, path: str) -> Iterable[Step]:
        """The steps that may fit a path, in their order."""
        numbers = self._by_first.get(path[1:].partition("/")[0], ())
        found = sorted((*numbers, *self._others)) if numbers and self._others else numbers or self._others
        return map(self.steps.__getitem__, found)

    def path_of(self, scope: Scope, root: str) -> str:
        """What is matched where an app is mounted; all of the path when that does not begin with the root, as there."""
        return routed_path({"path": scope["path"], "root_path": root})[1]

    def search(self, scope: Scope, root: str) -> Known:
        """The route of a request; of several that differ in their methods only, the first, when none has its method."""
        return self._taken(scope, root) or self._frontend(scope, root) or NOTHING

    def _taken(self, scope: Scope, root: str) -> Known | None:
        """What a step of this router takes the request to; None when none does."""
        kind, method, path = scope["type"], scope.get("method", ""), self.path_of(scope, root)
        other_methods: Known | None = None
        for step in self.candidates(path):
            known = step.known
            if step.host is not None:
                if step.host(scope)[0] is Match.FULL:
                    return known if step.below is None else step.below.search(scope, root)
            elif (known.kind == "mount" or known.kind == kind) and (found := step.expression.match(path)):
                if known.kind == "mount":
                    mounted_at = root + path[: -len(found["path"]) - 1]
                    return known if step.below is None else step.below.search(scope, mounted_at)
                if kind == "websocket" or not known.methods or method in known.methods:
                    return known
                other_methods = other_methods or known
        return other_methods

    def _frontend(self, scope: Scope, root: str) -> Known | None:
        if not self._frontends or scope["type"] != "http":
            return None
        path, whole = self.path_of(scope, root), scope["path"]
        slashed = whole.rstrip("/") if path.endswith("/") else f"{whole}/"
        if self._redirects and path != "/" and self._taken({**scope, "path": slashed}, root) is not None:
            return None
        return next((step.known for step in self._frontends if step.expression.match(path)), None)

    def every(self) -> Iterator[Known]:
        """Every route there is, in order."""
        for step in (*self.steps, *self._frontends):
            if step.below is None:
                yield step.known
            else:
                yield from step.below.every()


def _first_segment(step: Step) -> str | None:
    """The first segment of the paths that fit, if it is plain text."""
    if step.host is not None:
        return None
    plain = _PLAIN_START.match(step.expression.pattern)
    return None if plain is None else re.sub(r"\\(.)", r"\1", plain[1])


_PLAIN_START = re.compile(r"\^/((?:\\[^\w\s]|[A-Za-z0-9_~-])*)(?=/|\$)")


def routes_of(app: object) -> Level:
    """The routes of an app. Raises ConfigError when it shows none that can be read."""
    from apim_middleware.guarding._litestar import LitestarRoutes, is_litestar  # which has its own kind of level

    if is_litestar(app):
        return LitestarRoutes(app)
    if isinstance(app, Ring):
        raise ConfigError("guard", "app", "has policies around it already", "Write Stack(...)(guard(app, ...))")
    if not isinstance(app, Starlette | Router):
        problem = f"cannot read the routes of {type(app).__name__}"
        raise ConfigError("guard", "app", problem, "Give a FastAPI, Starlette or Litestar app, or a Router")
    return _level(app, app.routes, "", ())


def _level(app: object, routes: Iterable[BaseRoute], prefix: str, tags: tuple[str, ...]) -> Level:
    router = getattr(app, "router", app)
    redirects = bool(getattr(router, "redirect_slashes", False))
    return Level(_steps(routes, prefix, tags), _frontends(router, prefix), redirects=redirects)


def _frontends(router: Any, prefix: str) -> Iterator[Step]:  # noqa: ANN401 - as frameworks have it
    """What FastAPI's ``frontend`` serves, which is among no routes: its router tries it when none of them fits."""
    listed = getattr(router, "_iter_low_priority_routes", None)
    for each in () if listed is None else listed():
        group = getattr(each, "original_route", each)
        if not hasattr(group, "add_frontend_route"):
            raise _unreadable(group)
        before = getattr(each, "frontend_prefix", "")  # of the routers it was included by
        for route in group.routes:
            path = f"{before}{route.path}".removesuffix("/")
            expression = re.compile(f"^{re.escape(path)}(?:/|$)" if path else "^")
            yield Step(expression, Known("mount", f"{prefix}{path}" or "/"))


def _steps(routes: Iterable[BaseRoute], prefix: str, tags: tuple[str, ...]) -> Iterator[Step]:
    for route, details in _with_details(routes):
        yield _step(route, details, prefix, tags)


def _with_details(routes: Iterable[BaseRoute]) -> Iterator[tuple[BaseRoute, Any]]:
    """Each route, and where its path and methods are told: FastAPI tells those of included routers apart."""
    fastapi = sys.modules.get("fastapi.routing")
    contexts = getattr(fastapi, "iter_route_contexts", None)
    if contexts is None:
        yield from ((route, route) for route in routes)
        return
    for context in contexts(list(routes)):
        yield context.original_route, context


def _step(route: BaseRoute, details: Any, prefix: str, tags: tuple[str, ...]) -> Step:  # noqa: ANN401 - as frameworks have it
    if isinstance(route, Mount):
        return _mounted(details, prefix, tags)
    if isinstance(route, Host):
        below = _level(details.app, details.routes, prefix, tags) if details.routes else None
        return Step(details.host_regex, Known("mount", prefix or "/", name=details.name or ""), below, details.matches)
    if isinstance(route, Route | WebSocketRoute):
        kind: Literal["http", "websocket"] = "http" if isinstance(route, Route) else "websocket"
        return Step(details.path_regex, _known(kind, details, prefix))
    raise _unreadable(route)


def _unreadable(route: object) -> ConfigError:
    problem = f"holds a {type(route).__name__}, which cannot be read"
    return ConfigError("guard", "app", problem, "Mount what routes by itself: its policies then go by the mount")


def _known(kind: Literal["http", "websocket"], details: Any, prefix: str) -> Known:  # noqa: ANN401 - as frameworks have it
    return Known(
        kind,
        plain_template(f"{prefix}{details.path}"),
        frozenset(getattr(details, "methods", None) or ()),
        name=details.name or "",
        operation=str(getattr(details, "operation_id", None) or getattr(details, "unique_id", None) or ""),
        tags=frozenset(str(getattr(each, "value", each)) for each in getattr(details, "tags", None) or ()),
        endpoint=details.endpoint,
    )


def _mounted(details: Any, prefix: str, tags: tuple[str, ...]) -> Step:  # noqa: ANN401 - as frameworks have it
    path = plain_template(f"{prefix}{details.path}")
    known = Known("mount", path or "/", name=details.name or "")
    app = getattr(details, "_base_app", details.app)  # behind the mount's own middlewares
    return Step(details.path_regex, known, _below(app, path, tags, details.routes))


def _below(app: object, prefix: str, tags: tuple[str, ...], routes: Iterable[BaseRoute]) -> Level | None:
    """The routes of what is mounted; None when it shows none, or looks for paths somewhere else."""
    found = list(routes)
    if not found or getattr(app, "root_path", None) or not all(isinstance(each, BaseRoute) for each in found):
        return None
    return _level(app, found, prefix, tags)


def plain_template(path: str) -> str:
    """A template without its convertors: ``/orders/{id:int}`` is ``/orders/{id}``."""
    return _CONVERTOR.sub(r"{\1}", path)
