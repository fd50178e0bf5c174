"""Coverage: which policies stand in front of which route, as a table that can be printed and asserted on.

The table is read from what enforces: the plans of a guarded app or of a gateway, and the middlewares that an app has.
"""

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple, Self

from starlette.applications import Starlette
from starlette.routing import Router

from apim_middleware._config import Configured, shown
from apim_middleware._ring import Ring
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway._places import place_of
from apim_middleware.gateway.app import Gateway
from apim_middleware.gateway.reload import Reloadable
from apim_middleware.guarding._litestar import is_litestar
from apim_middleware.guarding._routes import NOTHING, Known, routes_of
from apim_middleware.guarding.guard import Guarded, Set
from apim_middleware.policies.either import AllOf
from apim_middleware.policy import Composable, Policy, Stack, policies_in
from apim_middleware.serving.forward_auth import ForwardAuth
from apim_middleware.types import Layer

_ANY = "any"


class Covered(NamedTuple):
    """One route and the policies in front of it."""

    method: str
    """One method, ``WEBSOCKET``, or ``any``."""

    path: str
    """The template; ``/*`` stands for everything that fits no route."""

    layers: tuple[Layer, ...]
    """Outermost first."""

    perhaps: tuple[str, ...] = ()
    """Selectors whose policies stand in front of some of its requests besides."""

    product: str = ""
    """Of a gateway: the product in whose context the call is made."""

    late: bool = False
    """Whether the route was added after the guard was made: then nothing of its own stands in front of it."""

    nowhere: bool = False
    """Whether it stands for everything that fits no route, and not for one that has all paths."""

    version: str = ""
    """Of a gateway: the version of the API."""

    marked: tuple[Layer, ...] = ()
    """What ``guarded_by`` marked the endpoint with, where no ``guard`` reads that and so none of it stands in front."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of it besides the policies, as the table says it."""
        unread = f"marked with {', '.join(map(called, self.marked))}, and no guard in front" if self.marked else ""
        perhaps = (f"and {each} for its paths" for each in self.perhaps)
        return tuple(each for each in (*perhaps, "added later" if self.late else "", unread) if each)

    @property
    def policies(self) -> list[Policy]:
        """The policies every request of this route meets."""
        return [policy for layer in self.layers for policy in _met(layer)]

    @property
    def guarded(self) -> bool:
        """Whether one of them decides who may come in; one that lets in who brings nothing does not."""
        return any(policy.guards and not lets_anybody_in(policy) for policy in self.policies)


class Coverage:
    """The table: a row for each route and method. Printed it is text; ``as_json`` and ``as_html`` are for others."""

    def __init__(self, rows: Iterable[Covered]) -> None:
        """Keep the rows."""
        self.rows: tuple[Covered, ...] = tuple(rows)

    def __iter__(self) -> Iterator[Covered]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """Columns of text."""
        cells = [_HEAD, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(map(str.ljust, each, widths)).rstrip() for each in cells)
        return "\n".join(lines)

    def as_json(self) -> str:
        """A list of objects, with all that a row has: ``method``, ``path``, ``policies``, ``marked`` and so on."""
        return json.dumps([_as_object(row) for row in self.rows], indent=2)

    def as_html(self) -> str:
        """A ``<table>`` with nothing around it."""
        head = "".join(f"<th>{html.escape(each)}</th>" for each in _HEAD)
        rows = ("".join(f"<td>{html.escape(each)}</td>" for each in _cells(row)) for row in self.rows)
        body = "".join(f"<tr>{each}</tr>\n" for each in rows)
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"

    def without(self, policy: type[Policy]) -> list[Covered]:
        """The routes in front of which no policy of this class stands for every request.

        One that is optional does not count, nor one that lets in who is anonymous.
        """
        return [row for row in self.rows if not any(_demands(each, policy) for each in row.policies)]


@dataclass(frozen=True)
class Require(Configured):
    """A demand on a coverage: a policy of this class in front of every route.

    ``Require(JWTAuth, except_=("GET /health",)).check(coverage(app))`` raises ConfigError with every route that is
    unguarded. What is within ``When`` or ``AnyOf`` does not stand in front of every request, and so does not count;
    nor does a policy with ``optional=True``, nor an ``AnyOf`` with ``anonymous=True``.
    """

    policy: type[Policy]
    """The class that must be there, or one that is based on it."""

    _: KW_ONLY

    everywhere: bool = False
    """Whether also what fits no route must be guarded: 404s, redirects, and routes that are added later."""

    below: str = "/"
    """The path below which routes must be guarded: ``"/admin"``. Default: all."""

    except_: tuple[str, ...] = ()
    """Routes that may stand open: ``"/health"``, ``"GET /docs"``. One that is no route is a mistake too."""

    def __new__(cls, *args: object, **given: object) -> Self:
        """Check what was given; where a class is wanted, a policy of it comes to mind first."""
        policy = given.get("policy", args[0] if args else None)
        if isinstance(policy, Policy):
            name = type(policy).__name__
            raise ConfigError("Require", "policy", f"is a policy, {name}(...), and no class", f"Write Require({name})")
        return super().__new__(cls, *args, **given)

    def check(self, table: Coverage) -> None:
        """Raise ConfigError unless every route is guarded."""
        if not isinstance(table, Coverage):
            problem = f"was given {shown(table)}, which is no coverage"
            raise ConfigError("Require.check", "", problem, "Write .check(coverage(app))")
        excepted = {row for row in table for each in self.except_ if each in (row.path, f"{row.method} {row.path}")}
        named = {each for row in excepted for each in (row.path, f"{row.method} {row.path}")}
        unknown = sorted(set(self.except_) - named)
        if unknown:
            raise self.mistake("except_", f"holds {unknown[0]!r}, which is no route", "Print coverage(app) to see them")
        open_ones = [row for row in table.without(self.policy) if row not in excepted and self._is_about(row)]
        found = [f"{row.method} {row.path}" for row in open_ones if self.everywhere or not row.nowhere]
        if found:
            name = self.policy.__name__
            problem = f"stands not in front of {', '.join(dict.fromkeys(found))}"
            there = "Put guard(app) in front, which reads guarded_by" if self._marks(open_ones) else f"Put {name} there"
            raise ConfigError(name, "", problem, f"{there}, or name the route in except_")

    def _marks(self, rows: Iterable[Covered]) -> bool:
        """Whether one of these is marked with what is missing."""
        marked = (policy for row in rows for layer in row.marked for policy in _met(layer))
        return any(_demands(each, self.policy) for each in marked)

    def _is_about(self, row: Covered) -> bool:
        below = f"{self.below.removesuffix('/')}/"
        whole = row.path.endswith("/*") and below.startswith(row.path[:-1])  # of which a part is meant
        return f"{row.path}/".startswith(below) or whole or row.nowhere


def coverage(app: object) -> Coverage:
    """The table of a guarded app, a gateway, or a FastAPI or Starlette app with policies as middlewares.

    Any other app has one row, ``any /*``: what was put around it stands in front of whatever it serves. ConfigError for
    what is no app, and for a middleware of others in front of routes: what stands behind it would not be seen.
    """
    layers, inner = _around(app)
    return Coverage(row._replace(layers=(*layers, *row.layers)) for row in _of_app(inner))


def _of_gateway(gateway: Gateway) -> Iterator[Covered]:
    auth, own = gateway.authenticator, _place_of(gateway)
    for row in gateway.rows():
        if row.current:
            method = _ANY if row.method == "*" else row.method
            layers = [each.layer for each in row.layers]
            if row.subscription_required and auth is not None:  # asked behind the policies of the gateway
                layers.insert(sum(each.place == own for each in row.layers), auth)
            yield Covered(method, row.path, tuple(layers), product=row.product, version=row.version)
    yield Covered(_ANY, NOTHING.template, tuple(gateway.policies), nowhere=True)


def _place_of(gateway: Gateway) -> str:
    """The place of a gateway's own policies."""
    return place_of(gateway.name, gateway.env or Env())


def _of_app(app: object) -> Iterator[Covered]:
    if isinstance(app, Reloadable):
        app = app.gateway
    if isinstance(app, Gateway):
        yield from _of_gateway(app)
        return
    if isinstance(app, Guarded):
        yield from _of_guarded(app)
        return
    if isinstance(app, ForwardAuth):
        yield Covered(_ANY, NOTHING.template, (app.layer,))
        return
    if not _shows_routes(app):
        _check_opaque(app)
        yield Covered(_ANY, NOTHING.template, ())
        return
    for known in [*_routes(app), NOTHING]:
        yield from (_row(known, method, (), marked=known.marked) for method in _methods(known))


def _shows_routes(app: object) -> bool:
    return isinstance(app, Starlette | Router) or is_litestar(app)


def _routes(app: object) -> Iterator[Known]:
    try:
        return routes_of(app).every()
    except ConfigError as error:
        raise ConfigError("coverage", "app", error.problem, error.cure) from None


def _check_opaque(app: object) -> None:
    """Refuse to say one thing of all that is served, where more could be said: ConfigError."""
    if isinstance(app, type) or not callable(app):
        problem = f"cannot read the routes of {app.__name__ if isinstance(app, type) else type(app).__name__}"
        raise ConfigError("coverage", "app", problem, "Give an ASGI app")
    inner: object = app
    while (inner := getattr(inner, "app", None)) is not None:
        _, inner = put_around(inner)
        if isinstance(inner, Gateway | Reloadable | Guarded) or _shows_routes(inner):
            name = type(app).__name__
            problem = f"cannot see past {name}, which stands in front of a {type(inner).__name__}"
            cure = f"Write partial({name}, ...) among the policies of guard, or app.add_middleware({name}, ...)"
            raise ConfigError("coverage", "app", problem, cure)


def _of_guarded(app: Guarded) -> Iterator[Covered]:
    outer, _ = _around(app.app)  # the app's own middlewares stand behind the guard
    for known in app.routes:
        for method in _methods(known):
            perhaps = tuple(each.selector for each in app.perhaps_for(known, method))
            yield _row(known, method, (*_layers(app.sets_for(known, method)), *outer), perhaps=perhaps)
    for known in app.added():
        for method in _methods(known):
            yield _row(known, method, (*_layers(app.sets_for_added(known, method)), *outer), late=True)


def _layers(sets: Sequence[Set]) -> list[Layer]:
    return [layer for each in sets for layer in each.policies.layers]


def _methods(known: Known) -> list[str]:
    """The methods of a route, each a row; none of them is any."""
    return sorted(known.methods) or ["WEBSOCKET" if known.kind == "websocket" else ""]


def _row(
    known: Known,
    method: str,
    layers: Sequence[Layer],
    *,
    perhaps: tuple[str, ...] = (),
    late: bool = False,
    marked: tuple[Layer, ...] = (),
) -> Covered:
    path, nowhere = known.template, known is NOTHING
    if known.kind == "mount":
        path = f"{path.removesuffix('/')}/*"
    return Covered(method or _ANY, path, tuple(layers), perhaps, late=late, nowhere=nowhere, marked=marked)


def _around(app: object) -> tuple[list[Layer], object]:
    """The policies in front of an app, those that were put around it and its own middlewares, and the app itself."""
    around, app = put_around(app)
    found: list[Layer] = [layer for layer, _ in around]
    if isinstance(app, Starlette):
        found += [each.cls for each in app.user_middleware if isinstance(each.cls, Policy | Stack)]
    return found, app


def put_around(app: Any) -> tuple[list[tuple[Composable, Env | None]], object]:  # noqa: ANN401 - whatever it is
    """What of ours was put around an app, outermost first, each with its environment where it shows; and the app."""
    found: list[tuple[Composable, Env | None]] = []
    while True:
        if isinstance(app, Ring):
            found += [(seat.policy, seat.env) for seat in app.seats]
        elif isinstance(rule := getattr(app, "rule", None), Composable):
            found.append((rule, None))
        else:
            return found, app
        app = app.app


def lets_anybody_in(policy: Policy) -> bool:
    """Whether a policy lets in who brings nothing, and only refuses what is bad."""
    return getattr(policy, "optional", False) is True or getattr(policy, "anonymous", False) is True


def _demands(policy: Policy, kind: type[Policy]) -> bool:
    return isinstance(policy, kind) and not lets_anybody_in(policy)


def _met(layer: Layer) -> Iterator[Policy]:
    """The policies that every request meets which meets this layer."""
    if isinstance(layer, AllOf):
        yield layer
        for each in layer.layers:
            yield from _met(each)
    elif isinstance(layer, Policy):
        yield layer
    else:
        for policy in policies_in(layer):
            yield from _met(policy)


_HEAD = ("method", "path", "version", "product", "policies, outermost first")


def _cells(row: Covered) -> tuple[str, ...]:
    names = " ".join([", ".join(map(called, row.layers)) or "-", *(f"({each})" for each in row.notes)])
    return row.method, row.path, row.version, row.product, names


def _as_object(row: Covered) -> dict[str, Any]:
    return {
        "method": row.method,
        "path": row.path,
        "version": row.version,
        "product": row.product,
        "policies": [repr(each) for layer in row.layers for each in _apart(layer)],
        "perhaps": list(row.perhaps),
        "late": row.late,
        "marked": [repr(each) for each in row.marked],
    }


def _apart(layer: Layer) -> Iterator[Layer]:
    """The layers of a stack, each for itself."""
    if isinstance(layer, Stack):
        for each in layer.layers:
            yield from _apart(each)
    else:
        yield layer


def called(layer: object) -> str:
    """What a layer is called where people read: by its class, or the function it is."""
    if isinstance(layer, Stack):
        return ", ".join(map(called, layer.layers))
    if isinstance(layer, AllOf):
        return f"AllOf({', '.join(map(called, layer.layers))})"
    if isinstance(layer, partial):
        return called(layer.func)
    return type(layer).__name__ if not hasattr(layer, "__name__") else str(layer.__name__)
