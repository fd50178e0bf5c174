"""A gateway compiled: immutable but for its plans; every request takes one way through it."""

from collections.abc import Awaitable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from apim_middleware._http.paths import routed_path
from apim_middleware._lifespan import Ending
from apim_middleware._ring import refused
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.gateway._backends import Backends
from apim_middleware.gateway._building import Building
from apim_middleware.gateway._entries import Entry
from apim_middleware.gateway._plans import Edition, Endpoint, Found, PlacedLayer
from apim_middleware.gateway._probing import Probe
from apim_middleware.gateway._tries import Trie
from apim_middleware.match import Match
from apim_middleware.model import ANY, WEBSOCKET
from apim_middleware.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from apim_middleware.gateway.app import Gateway

Operations: TypeAlias = Trie[Endpoint] | Edition
"""What finds the operation of a request."""

_SLASH = [""]
"""What is behind an API's path that ends with a slash."""

_ODD = frozenset({"OPTIONS", WEBSOCKET})
"""Methods that may mean something else than they say."""


class Row(NamedTuple):
    """What stands in front of one operation, in the context of one product or of none (``""``)."""

    api: str
    version: str
    revision: int
    current: bool
    hosts: tuple[str, ...]
    method: str
    path: str
    operation: str
    product: str
    subscription_required: bool
    """Whether it can be called in this context only with the key of a subscription."""

    layers: tuple[PlacedLayer, ...]
    """Every layer with the place of its scope, outermost first."""


class Compiled:
    """Where each request goes."""

    def __init__(self, gateway: "Gateway", env: Env) -> None:
        """Build and validate. Raises ConfigError."""
        built = Building(gateway, env)
        self.entries: Sequence[Entry] = built.entries
        self.backends: Backends = built.backends
        self._open = frozenset(each.name for each in gateway.products if not each.subscription_required)
        self._plans, self._sites, self._made = built.plans, built.sites, built.plans.made.of
        self._nothing = Match(built.plans.nothing)
        self._scrub = env.scrub
        self.ending: Ending = env.ending
        """What is to be run when it serves no more."""

        self._tell_methods = gateway.unknown_method == 405

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request or WebSocket."""
        exchange: Exchange | None = scope.get(KEY)
        if exchange is not None:
            if exchange.scope is not scope:  # a layer between made one of its own, which is what the backend gets
                exchange = Exchange(scope, exchange)
            await self._choose(exchange)(scope, receive, send)
            return
        exchange = scope[KEY] = Exchange(scope)
        try:
            await self._choose(exchange)(scope, receive, send)
        finally:  # as the outermost ring does
            scope.pop(KEY, None)
            exchange.shared.error = None

    def _choose(self, exchange: Exchange) -> ASGIApp:
        """Every policy in front of the backend, or in front of a refusal."""
        shared = exchange.shared
        try:
            if not shared.clean:
                exchange.scrubbed(*self._scrub(exchange.scope))
        except Refusal:
            shared.matched(self._nothing)
            return self._plans.refusing  # its rings look for themselves, and say so
        try:
            return self._found(exchange)
        except Exception as error:
            return self._refused(exchange, error)

    def _found(self, exchange: Exchange) -> ASGIApp:
        """What a request takes that goes somewhere. Raises Refusal."""
        scope, prefix = exchange.scope, None
        path = routed_path(scope)[1] if scope.get("root_path") else scope["path"]
        segments = path.split("/")
        found = self._sites.find(exchange, segments)
        if found is None or path == "*":  # of OPTIONS: it means the server, and no API
            raise _nowhere()
        entry, taken, revision = found
        operations = entry.only
        if operations is None or revision:
            operations, taken = entry.choose(exchange, segments, taken, revision)
            prefix = "/".join(segments[:taken])
        behind = segments[taken:]
        if behind == _SLASH:
            behind = []
        method = scope["method"] if scope["type"] == "http" else WEBSOCKET
        query, gate = scope.get("query_string", b""), entry.gate
        endpoint = operations.find(method, behind, query)
        if method in _ODD or (gate is not None and gate.awaits):
            return self._slowly(_Call(exchange, entry, operations, endpoint, behind, prefix), method)
        if endpoint is None:
            raise self._not_there(operations, behind, query)
        try:
            product = entry.strangers if gate is None else gate.context(exchange, entry)
        except Refusal:
            exchange.shared.matched(Found(endpoint, "", behind, prefix))  # for who notes where it was to go
            raise
        exchange.shared.matched(Found(endpoint, product, behind, prefix))
        return self._made[product].get(endpoint.approach) or endpoint.approach.plan(product)

    def _refused(self, exchange: Exchange, error: Exception) -> ASGIApp:
        match, shared = Match(self._plans.nothing), exchange.shared
        match.refusal = refused(exchange, error)
        shared.refusal = None  # nobody has said it yet: the policies of the gateway come first
        shared.matched(match)
        return self._plans.refusing

    def _slowly(self, call: "_Call", method: str) -> ASGIApp:
        """What a request takes of which more has to be known. Raises Refusal."""
        endpoint, scope = call.endpoint, call.exchange.scope
        declared = endpoint is not None and endpoint.operation.method == "OPTIONS"
        if method == "OPTIONS" and not declared and (asked := _preflight(call.exchange)) is not None:
            return self._later(call.exchange, self._before_asking(call, asked))
        if endpoint is None or (method == WEBSOCKET and scope["type"] == "http"):  # of that name, but no handshake
            raise self._not_there(call.operations, call.segments, call.query)
        return self._later(call.exchange, call.identified(endpoint))

    def _later(self, exchange: Exchange, choosing: Awaitable[ASGIApp]) -> ASGIApp:
        """What waits until it is known what a request takes, and takes it."""

        async def wait(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                app = await choosing
            except Exception as error:
                app = self._refused(exchange, error)
            await app(scope, receive, send)

        return wait

    async def _before_asking(self, call: "_Call", asked: str) -> ASGIApp:
        """A CORS preflight of a method: the policies of that are met, one of which may answer, but not the backend.

        Unless there is an operation for every method too, which who asks may call, and no policy of it would be left
        out: then the backend may answer as well.
        """
        wanted, endpoint = call.find(asked), call.endpoint
        if wanted is None or asked == WEBSOCKET:
            raise self._not_there(call.operations, call.segments, call.query)
        product, refusal = call.entry.strangers, None
        try:
            product = await call.product()
        except Refusal as error:
            refusal = error
        passed = refusal is None and endpoint is not None and wanted.approach.covers(endpoint.approach, product)
        match = call.matched(wanted, product)
        match.refusal = None if passed else refusal or self._not_there(call.operations, call.segments, call.query)
        return wanted.approach.plan(product) if passed else wanted.approach.plan_refusing(product)

    def _not_there(self, operations: Operations, segments: Sequence[str], query: bytes) -> Refusal:
        if self._tell_methods:
            allowed = operations.allowed(segments, query)
            if allowed:
                allow = ", ".join(sorted(allowed - {ANY, WEBSOCKET}))
                detail = "This operation has other methods."
                return Refusal(405, "method-not-allowed", detail, headers={"allow": allow})
        return _nowhere()

    def meant(self, probe: Probe) -> Endpoint | None:
        """The operation that a request would come to; None when it would be refused."""
        scope = {"type": "http", "query_string": probe.query, "headers": probe.headers}
        exchange, segments = Exchange(scope), probe.path.split("/")
        try:
            found = self._sites.find(exchange, segments)
            if found is None:
                return None
            entry, taken, revision = found
            operations = entry.only
            if operations is None or revision:
                operations, taken = entry.choose(exchange, segments, taken, revision)
            behind = segments[taken:]
            return operations.find(probe.method, [] if behind == _SLASH else behind, probe.query)
        except Refusal:
            return None

    def rows(self, product: str | None = None) -> Iterator[Row]:
        """The plan as data, in the order it is written; of one product (``""`` for none), or of all there are."""
        for entry in self.entries:
            contexts = entry.contexts() if product is None else [product] if product in entry.contexts() else []
            for edition in entry.editions():
                for endpoint in edition.endpoints:
                    for context in contexts:
                        yield self._row(entry, endpoint, context)

    def _row(self, entry: Entry, endpoint: Endpoint, product: str) -> Row:
        definition, route = endpoint.approach.edition.definition, endpoint.route(product)
        required = product not in self._open if product else entry.api.subscription_required
        return Row(
            api=route.api,
            version=route.version,
            revision=route.revision,
            current=definition.current,
            hosts=entry.api.hosts,
            method=endpoint.operation.method,
            path=route.template,
            operation=route.operation,
            product=product,
            subscription_required=required,
            layers=tuple(endpoint.approach.layers(product)),
        )


class _Call(NamedTuple):
    """A request whose API is known, where that is not enough to go on at once."""

    exchange: Exchange
    entry: Entry
    operations: Operations
    endpoint: Endpoint | None
    segments: Sequence[str]
    prefix: str | None

    @property
    def query(self) -> bytes:
        query: bytes = self.exchange.scope.get("query_string", b"")
        return query

    def find(self, method: str) -> Endpoint | None:
        return self.operations.find(method, self.segments, self.query)

    def matched(self, endpoint: Endpoint, product: str) -> Match:
        match = Found(endpoint, product, self.segments, self.prefix)
        self.exchange.shared.matched(match)
        return match

    async def product(self) -> str:
        """In whose context it is made. Raises Refusal."""
        exchange, entry, gate = self.exchange, self.entry, self.entry.gate
        if gate is None:
            return entry.strangers
        return await gate.context_later(exchange, entry) if gate.awaits else gate.context(exchange, entry)

    async def identified(self, endpoint: Endpoint) -> ASGIApp:
        """What it takes once its caller is known."""
        try:
            product = await self.product()
        except Refusal:
            self.matched(endpoint, "")
            raise
        self.matched(endpoint, product)
        return endpoint.approach.plan(product)


def _preflight(exchange: Exchange) -> str | None:
    """The method a browser asks about before it sends a request of another origin, if this is such a question."""
    if exchange.header(b"origin") is None:
        return None
    method = exchange.header(b"access-control-request-method")
    return None if method is None else method.decode("latin-1")


def _nowhere() -> Refusal:
    return Refusal(404, "operation-not-found", "No operation matches this request.")
