"""Plans: for each product one stack of every policy that stands in front of operations, and of the backend.

They are compiled when the first request takes them, and the oldest make room where there are very many. Operations of
an edition that have no policies of their own share them.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from apim_middleware._order import check_guards, check_met, check_needs, check_readers
from apim_middleware._ring import Seat
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, Refusal
from apim_middleware.gateway._hooks import Admitted, Enter, Identified, Refuse, Varies, announcement
from apim_middleware.gateway._problems import render_as_azure
from apim_middleware.gateway._scopes import Scope, assemble
from apim_middleware.gateway._tries import Trie
from apim_middleware.match import Match, Route
from apim_middleware.model import Definition, Deprecation, Operation
from apim_middleware.policy import Policy
from apim_middleware.types import ASGIApp, Layer, RawHeaders

K = TypeVar("K")
T = TypeVar("T")

MOST_PLANS = 20_000
"""How many are kept at most, and how many routes; a plan is a few kilobytes."""


class PlacedLayer(NamedTuple):
    """One layer of a plan, and the place of the scope it is written in."""

    place: str
    layer: Layer


class Edition:
    """One revision of an API or of one of its versions, with its scopes and operations."""

    __slots__ = ("_wild", "approaches", "backend", "definition", "endpoints", "operations", "path", "scopes")

    def __init__(self, definition: Definition, scopes: Sequence[Scope], path: str, backend: ASGIApp) -> None:
        """``scopes``: the narrowest first. ``path``: where callers find it, with a version that stands in the path."""
        self.definition: Definition = definition
        self.scopes: tuple[Scope, ...] = tuple(scopes)
        self.path: str = path
        self.backend: ASGIApp = backend
        self.operations: Trie[Endpoint] = Trie()
        self.endpoints: list[Endpoint] = []
        self.approaches: dict[tuple[Scope | None, Deprecation | None], Approach] = {}
        self._wild = False  # whether wildcards stand beside others

    def add(self, plans: "Plans", operation: Operation, scope: Scope | None) -> None:
        """One more operation; ``scope`` where it has policies of its own or inherits none. Raises Taken."""
        kind = scope, operation.deprecation
        approach = self.approaches.get(kind)
        if approach is None:
            approach = self.approaches[kind] = Approach(plans, self, *kind)
        endpoint = Endpoint(approach, operation)
        self.operations.add(endpoint)
        self.endpoints.append(endpoint)
        self._wild = self._wild or endpoint.is_wild != self.endpoints[0].is_wild

    @property
    def found_in(self) -> "Trie[Endpoint] | Edition":
        """What finds its operations: where wildcards stand beside others, it has to look twice itself."""
        return self if self._wild else self.operations

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

    def allowed(self, segments: Sequence[str], query: bytes) -> set[str]:
        """The methods that have an operation for this path."""
        return self.operations.allowed(segments, query)


class _Kept(Generic[K, T]):
    """What is made once for each product and something else, ``MOST_PLANS`` of it: the oldest makes room.

    All of it is in few dicts, which stand closer together than one for each operation would.
    """

    def __init__(self) -> None:
        self.of: defaultdict[str, dict[K, T]] = defaultdict(dict)
        self._order: deque[tuple[str, K]] = deque()

    def put(self, product: str, key: K, what: T) -> T:
        self.of[product][key] = what
        self._order.append((product, key))
        if len(self._order) > MOST_PLANS:
            product, key = self._order.popleft()
            self.of[product].pop(key, None)
        return what


class Plans:
    """The plans of a gateway, and what all of them have in common."""

    def __init__(self, scope: Scope, env: Env, *, azure: bool) -> None:
        """``scope`` is the gateway's own."""
        self.scope = scope
        self.env = env
        self.nothing: Route = Route(render=render_as_azure) if azure else Route()
        self.render: Callable[[Refusal], tuple[RawHeaders, bytes]] = self.nothing.render
        self.products: dict[str, Scope] = {}
        self.refusing: ASGIApp = assemble([*scope.pieces, _own(Refuse())], _unreached, env.scrub)
        self.made: _Kept[Approach, ASGIApp] = _Kept()
        self.made_refusing: _Kept[Approach, ASGIApp] = _Kept()
        self.routes: _Kept[Endpoint, Route] = _Kept()

    def signature_of(self, product: str) -> object:
        """Equal for products whose policies work in the same orders."""
        scope = self.products.get(product)
        return None if scope is None else scope.signature

    def adds(self, product: str) -> bool:
        """Whether a product has policies of its own, so that responses depend on the key."""
        scope = self.products.get(product)
        return scope is not None and bool(scope.layers)

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
    check_met(policies)
    _check_readers(policies)
    try:
        check_guards(policies)
    except ConfigError as error:
        if error.policy != "Admitted":
            raise
        how = " from memory" if "from memory" in error.problem else ""
        problem = f"holds what answers{how}, before anybody has looked at the subscription key"
        raise ConfigError("Gateway", "policies", problem, "Move it to the policies of the APIs") from None


def _check_readers(policies: list[Policy]) -> None:
    try:
        check_readers(policies)
    except ConfigError as error:
        if "Admitted" not in error.problem:
            raise
        problem = "reads bodies before anybody has looked at the subscription key"
        raise ConfigError(error.policy, "", problem, "Move it to the policies of the APIs") from None


def _own(*policies: Policy) -> tuple[Seat, ...]:
    """What the gateway itself does, in its place."""
    return tuple(Seat(policy, policy) for policy in policies)


async def _unreached(scope: object, receive: object, send: object) -> None:
    raise RuntimeError("a request came further than it may")


class Endpoint:
    """An operation of an edition: where matching ends and plans begin."""

    __slots__ = ("approach", "is_wild", "operation")

    def __init__(self, approach: "Approach", operation: Operation) -> None:
        """``approach`` is what all operations with the same policies share."""
        self.approach: Approach = approach
        self.operation: Operation = operation
        self.is_wild: bool = operation.url_template.rest is not None

    def known_route(self, product: str) -> Route:
        """What policies and traces are told, as it was told to others before."""
        known = self.approach.plans.routes
        return known.of[product].get(self) or known.put(product, self, self.route(product))

    def route(self, product: str) -> Route:
        """What policies and traces are told of it, in the context of a product or of none (``""``)."""
        edition, template = self.approach.edition, self.operation.template
        definition = edition.definition
        return Route(
            template=(edition.path + template.partition("?")[0]).removesuffix("/") or "/",
            api=definition.api.name,
            version="" if definition.version is None else definition.version.name,
            revision=definition.revision,
            operation=self.operation.name,
            product=product,
            shape=self.operation.url_template,
            render=self.approach.plans.render,
        )


class Found(Match):
    """The operation of one request, in the context of a product; its route is looked up when somebody asks."""

    __slots__ = ("_endpoint", "_product")

    def __init__(self, endpoint: Endpoint, product: str, segments: Sequence[str], prefix: str | None) -> None:
        """See ``Match``, which does the same with a call more for each request."""
        self.segments = segments
        self.prefix = prefix
        self.refusal = None
        self._endpoint = endpoint
        self._product = product

    @property
    def route(self) -> Route:
        """What all requests that go this way have in common."""
        return self._endpoint.known_route(self._product)


class Approach:
    """What stands in front of operations of an edition that have the same policies: a plan for each product."""

    __slots__ = ("_ending", "edition", "plans", "scope")

    def __init__(self, plans: Plans, edition: Edition, scope: Scope | None, deprecation: Deprecation | None) -> None:
        """``scope`` and ``deprecation`` are those of the operations, where they have any."""
        definition = edition.definition
        version = None if definition.version is None else definition.version.deprecation
        self._ending = deprecation or version or definition.api.deprecation  # what ends first of all
        self.plans: Plans = plans
        self.edition: Edition = edition
        self.scope: Scope | None = scope

    def plan(self, product: str) -> ASGIApp:
        """Every policy in front of the backend, in the context of a product or of none (``""``)."""
        known = self.plans.made
        return known.of[product].get(self) or known.put(product, self, self._app(product, refusing=False))

    def plan_refusing(self, product: str) -> ASGIApp:
        """Every policy in front of a refusal."""
        known = self.plans.made_refusing
        return known.of[product].get(self) or known.put(product, self, self._app(product, refusing=True))

    def _app(self, product: str, *, refusing: bool) -> ASGIApp:
        inner, outer = self._scopes(product)
        ending, enter = self._ending, Enter(self.edition.path)
        pieces = [piece for scope in reversed(outer) for piece in scope.pieces]
        pieces += [_own(announcement(ending), enter) if ending else _own(enter)]
        pieces += [piece for scope in reversed(inner) for piece in scope.pieces]
        versions = self.edition.definition.api.versions
        if versions is not None and versions.by == "header":  # caches further out must know
            pieces.append(_own(Varies(versions.parameter.lower().encode())))
        if refusing:
            pieces.append(_own(Refuse()))
        return assemble(pieces, _unreached if refusing else self.edition.backend, self.plans.env.scrub)

    def _scopes(self, product: str) -> tuple[list[Scope], list[Scope]]:
        """The scopes of a plan, the narrowest first: those of the API and its parts, and those around it."""
        inner: list[Scope] = []
        for scope in (*((self.scope,) if self.scope else ()), *self.edition.scopes):
            inner.append(scope)
            if not scope.inherit:
                return inner, []
        around = self.plans.products.get(product)
        if around is None:
            return inner, [self.plans.scope]
        return inner, [around, self.plans.scope] if around.inherit else [around]

    def covers(self, other: "Approach", product: str) -> bool:
        """Whether every scope in front of another operation stands in front of this one, too."""
        mine, others = self._scopes(product), other._scopes(product)
        return {*others[0], *others[1]} <= {*mine[0], *mine[1]}

    @property
    def signature(self) -> object:
        """Equal for operations of an edition whose policies work in the same orders."""
        return None if self.scope is None else self.scope.signature

    def check(self, product: str, *, admitted: bool) -> None:
        """Refuse policies that cannot work in this order. Raises ConfigError."""
        inner, outer = self._scopes(product)
        self.plans.check([*inner, *outer], admitted=admitted)

    def layers(self, product: str) -> Iterator[PlacedLayer]:
        """Every layer of a plan as it is written, outermost first."""
        inner, outer = self._scopes(product)
        for scope in reversed([*inner, *outer]):
            for layer in scope.layers:
                yield PlacedLayer(scope.place, layer)
