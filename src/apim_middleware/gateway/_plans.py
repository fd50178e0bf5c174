"""Plans: for each operation and product one stack of every policy that stands in front of the backend.

They are compiled when the first request takes them, and the oldest make room where there are very many.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from apim_middleware._ring import Seat
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway._hooks import Admitted, Enter, Identified, Refuse, Varies, announcement
from apim_middleware.gateway._problems import render_as_azure
from apim_middleware.gateway._scopes import Scope, assemble
from apim_middleware.gateway._tries import Trie
from apim_middleware.match import Route
from apim_middleware.model import Definition, Deprecation, Operation
from apim_middleware.policy import Policy, check_guards, check_needs
from apim_middleware.types import ASGIApp, Layer

MOST_PLANS = 20_000
"""How many are kept at most; a plan is a few kilobytes."""


class Guarded(NamedTuple):
    """One layer of a plan, and the place of the scope it is written in."""

    place: str
    layer: Layer


class Plan(NamedTuple):
    """What a request takes: the app with every policy in front, and what they are told of it."""

    app: ASGIApp
    route: Route
    attributes: Mapping[str, str]


class Edition:
    """One revision of an API or of one of its versions, with its scopes and operations."""

    __slots__ = ("_wild", "backend", "definition", "endpoints", "operations", "path", "scopes")

    def __init__(self, definition: Definition, scopes: Sequence[Scope], path: str, backend: ASGIApp) -> None:
        """``scopes``: the narrowest first. ``path``: where callers find it, with a version that stands in the path."""
        self.definition = definition
        self.scopes = tuple(scopes)
        self.path = path
        self.backend = backend
        self.operations: Trie[Endpoint] = Trie()
        self.endpoints: list[Endpoint] = []
        self._wild = False  # whether wildcards stand beside others

    def add(self, endpoint: "Endpoint") -> None:
        """One more operation. Raises Taken."""
        self.operations.add(endpoint.operation.method, endpoint.operation.url_template, endpoint)
        self.endpoints.append(endpoint)
        self._wild = self._wild or endpoint.is_wild != self.endpoints[0].is_wild

    def find(self, method: str, segments: Sequence[str], query: bytes) -> "Endpoint | None":
        """The operation of a request; a slash at the end does not make it that of a wildcard.

        Many backends make no difference there, so policies must not either.
        """
        found = self.operations.find(method, segments, query)
        if self._wild and found is not None and found.is_wild and segments:
            other = segments[:-1] if not segments[-1] else [*segments, ""]
            meant = self.operations.find(method, other, query)
            if meant is not None and not meant.is_wild:
                return meant
        return found


class House:
    """What all plans of a gateway have in common."""

    def __init__(self, scope: Scope, env: Env, *, azure: bool) -> None:
        """``scope`` is the gateway's own."""
        self.scope = scope
        self.env = env
        self.nothing = Route(render=render_as_azure) if azure else Route()
        self.render = self.nothing.render
        self.products: dict[str, Scope] = {}
        self.refusing = assemble([*scope.pieces, _own(Refuse())], _unreached, env.scrub)
        self._plans: deque[Callable[[], object]] = deque()

    def kept(self, forget: Callable[[], object]) -> None:
        """One more plan is kept, and this forgets it."""
        self._plans.append(forget)
        if len(self._plans) > MOST_PLANS:
            self._plans.popleft()()

    def check(self, scopes: Sequence[Scope], *, admitted: bool) -> None:
        """Refuse scopes, the narrowest first, whose policies cannot work in this order. Raises ConfigError."""
        policies: list[Policy] = [Identified()]
        outermost = [*self.scope.policies] if self.scope in scopes else []
        policies += [*outermost, *([Admitted()] if admitted else [])]
        for scope in reversed(scopes):
            policies += scope.policies if scope is not self.scope else []
        _check(policies)


def _check(policies: list[Policy]) -> None:
    check_needs(policies)
    try:
        check_guards(policies)
    except ConfigError as error:
        if error.policy != "Admitted":
            raise
        problem = "holds what answers from memory, before anybody has looked at the subscription key"
        raise ConfigError("Gateway", "policies", problem, "Move it to the policies of the APIs") from None


def _own(*policies: Policy) -> tuple[Seat, ...]:
    """What the gateway itself does, in its place."""
    return tuple(Seat(policy, policy) for policy in policies)


async def _unreached(scope: object, receive: object, send: object) -> None:
    raise RuntimeError("a request came further than it may")


class Endpoint:
    """An operation of an edition: where matching ends and plans begin."""

    __slots__ = ("_house", "edition", "is_wild", "operation", "plans", "refusing", "scope")

    def __init__(self, house: House, edition: Edition, operation: Operation, scope: Scope | None) -> None:
        """``scope`` is that of the operation, where it has policies of its own or inherits none."""
        self._house = house
        self.edition = edition
        self.operation = operation
        self.is_wild = operation.url_template.rest is not None
        self.scope = scope
        self.plans: dict[str, Plan] = {}
        self.refusing: dict[str, Plan] = {}

    def plan(self, product: str) -> Plan:
        """Every policy in front of the backend, in the context of a product or of none (``""``)."""
        return self.plans.get(product) or self._compile(product, self.plans, refusing=False)

    def plan_refusing(self, product: str) -> Plan:
        """Every policy in front of a refusal."""
        return self.refusing.get(product) or self._compile(product, self.refusing, refusing=True)

    def _compile(self, product: str, plans: dict[str, Plan], *, refusing: bool) -> Plan:
        route = self.route(product)
        plan = plans[product] = Plan(self._app(product, refusing=refusing), route, route.attributes)
        self._house.kept(lambda: plans.pop(product, None))
        return plan

    def route(self, product: str) -> Route:
        """What policies and traces are told of it, in the context of a product or of none (``""``)."""
        definition, template = self.edition.definition, self.operation.template
        return Route(
            template=(self.edition.path + template.partition("?")[0]).removesuffix("/") or "/",
            api=definition.api.name,
            version="" if definition.version is None else definition.version.name,
            revision=definition.revision,
            operation=self.operation.name,
            product=product,
            shape=self.operation.url_template,
            render=self._house.render,
        )

    def _app(self, product: str, *, refusing: bool) -> ASGIApp:
        inner, outer = self._scopes(product)
        ending = self._deprecation()
        pieces = [piece for scope in reversed(outer) for piece in scope.pieces]
        pieces += [_own(announcement(ending), Enter()) if ending else _own(Enter())]
        pieces += [piece for scope in reversed(inner) for piece in scope.pieces]
        versions = self.edition.definition.api.versions
        if versions is not None and versions.by == "header":  # caches further out must know
            pieces.append(_own(Varies(versions.parameter.lower().encode())))
        if refusing:
            pieces.append(_own(Refuse()))
        return assemble(pieces, _unreached if refusing else self.edition.backend, self._house.env.scrub)

    def _deprecation(self) -> Deprecation | None:
        """What ends first of all: the operation, its version, or the whole API."""
        definition = self.edition.definition
        version = None if definition.version is None else definition.version.deprecation
        return self.operation.deprecation or version or definition.api.deprecation

    def _scopes(self, product: str) -> tuple[list[Scope], list[Scope]]:
        """The scopes of a plan, the narrowest first: those of the API and its parts, and those around it."""
        inner: list[Scope] = []
        for scope in (*((self.scope,) if self.scope else ()), *self.edition.scopes):
            inner.append(scope)
            if not scope.inherit:
                return inner, []
        around = self._house.products.get(product)
        if around is None:
            return inner, [self._house.scope]
        return inner, [around, self._house.scope] if around.inherit else [around]

    def covers(self, other: "Endpoint", product: str) -> bool:
        """Whether every scope in front of another operation stands in front of this one, too."""
        mine, others = self._scopes(product), other._scopes(product)
        return {*others[0], *others[1]} <= {*mine[0], *mine[1]}

    @property
    def signature(self) -> object:
        """Equal for operations of an edition whose policies work in the same orders."""
        return None if self.scope is None else self.scope.signature

    def signature_of(self, product: str) -> object:
        """Equal for products whose policies work in the same orders."""
        scope = self._house.products.get(product)
        return None if scope is None else scope.signature

    def adds(self, product: str) -> bool:
        """Whether a product has policies of its own, so that responses depend on the key."""
        scope = self._house.products.get(product)
        return scope is not None and bool(scope.layers)

    def check(self, product: str, *, admitted: bool) -> None:
        """Refuse policies that cannot work in this order. Raises ConfigError."""
        inner, outer = self._scopes(product)
        self._house.check([*inner, *outer], admitted=admitted)

    def layers(self, product: str) -> Iterator[Guarded]:
        """Every layer of a plan as it is written, outermost first."""
        inner, outer = self._scopes(product)
        for scope in reversed([*inner, *outer]):
            for layer in scope.layers:
                yield Guarded(scope.place, layer)
