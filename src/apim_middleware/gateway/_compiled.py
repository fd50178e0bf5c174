"""A gateway compiled: immutable but for its plans; every request takes one way through it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from apim_middleware._ring import refused
from apim_middleware.conditions import routed_path
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import KEY, Exchange
from apim_middleware.gateway._building import Building
from apim_middleware.gateway._entries import Entry
from apim_middleware.gateway._plans import Edition, Endpoint, Guarded
from apim_middleware.match import Match
from apim_middleware.model import ANY, WEBSOCKET
from apim_middleware.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from apim_middleware.gateway.app import Gateway


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

    layers: tuple[Guarded, ...]
    """Every layer with the place of its scope, outermost first."""


class Compiled:
    """Where each request goes."""

    def __init__(self, gateway: "Gateway", env: Env) -> None:
        """Build and validate. Raises ConfigError."""
        built = Building(gateway, env)
        self.entries, self.backends = built.entries, built.backends
        self._open = frozenset(each.name for each in gateway.products if not each.subscription_required)
        self._house, self._sites = built.house, built.sites
        self._nothing = Match(built.house.nothing)
        self._scrub = env.scrub
        self._tell_methods = gateway.unknown_method == 405

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request or WebSocket."""
        exchange: Exchange | None = scope.get(KEY)
        if exchange is not None:
            if exchange.scope is not scope:  # a layer between made one of its own, which is what the backend gets
                exchange = Exchange(scope, exchange)
            app = await self._choose(exchange)
            await app(scope, receive, send)
            return
        exchange = scope[KEY] = Exchange(scope)
        try:
            app = await self._choose(exchange)
            await app(scope, receive, send)
        finally:
            scope.pop(KEY, None)

    async def _choose(self, exchange: Exchange) -> ASGIApp:
        """Every policy in front of the backend, or in front of a refusal."""
        shared = exchange.shared
        shared.match = self._nothing
        try:
            if not shared.clean:
                exchange.scrubbed(*self._scrub(exchange.scope))
        except Refusal:
            return self._house.refusing  # its rings look for themselves, and say so
        try:
            entry, edition, match = self._matched(exchange)
            scope, gate = exchange.scope, entry.gate
            kind, query = scope["type"], scope.get("query_string", b"")
            method = scope["method"] if kind == "http" else WEBSOCKET
            endpoint = edition.find(method, match.segments, query)
            if method == WEBSOCKET and kind == "http":  # a method of that name is no handshake
                endpoint = None
            declared = endpoint is not None and endpoint.operation.method == "OPTIONS"
            if method == "OPTIONS" and not declared and (asked := _preflight(exchange)) is not None:
                return await self._before_asking(exchange, entry, edition, endpoint, asked)
            if endpoint is None:
                raise self._not_there(edition, match, scope)
            if gate is None:
                product = entry.strangers
            else:
                product = await gate.context_later(exchange, entry) if gate.awaits else gate.context(exchange, entry)
            app, match.route, attributes = endpoint.plan(product)
            shared.attributes.update(attributes)
            return app
        except Exception as error:
            if shared.match is self._nothing:
                shared.match = Match(self._house.nothing)
            shared.match.refusal = refused(exchange, error)
            shared.refusal = None  # nobody has said it yet: the policies of the gateway come first
            return self._house.refusing

    def _matched(self, exchange: Exchange) -> tuple[Entry, Edition, Match]:
        """The API and the edition of it that a request means. Raises Refusal."""
        path = routed_path(exchange.scope)[1]
        if path == "*":  # of OPTIONS: it means the server, and no API
            raise _nowhere()
        segments = path.split("/")
        for paths in self._sites.of(exchange.header(b"host")):
            if (found := paths.find(segments)) is not None:
                break
        else:
            raise _nowhere()
        entry, taken, revision = found
        edition, taken = entry.choose(exchange, segments, taken, revision)
        behind = segments[taken:]
        if behind == [""]:
            behind = []
        match = exchange.shared.match = Match(self._house.nothing, behind, "/".join(segments[:taken]))
        return entry, edition, match

    async def _before_asking(
        self, exchange: Exchange, entry: Entry, edition: Edition, endpoint: Endpoint | None, asked: str
    ) -> ASGIApp:
        """A CORS preflight of a method: the policies of that are met, one of which may answer, but not the backend.

        Unless there is an operation for every method too, which who asks may call, and no policy of it would be left
        out: then the backend may answer as well.
        """
        scope, match = exchange.scope, exchange.shared.match
        assert match is not None  # noqa: S101 - made a moment ago
        refusal = None
        wanted = edition.find(asked, match.segments, scope.get("query_string", b""))
        if wanted is None or asked == WEBSOCKET:
            raise self._not_there(edition, match, scope)
        product = entry.strangers
        try:
            gate = entry.gate
            if gate is not None:
                product = await gate.context_later(exchange, entry) if gate.awaits else gate.context(exchange, entry)
        except Refusal as error:
            refusal = error
        passed = refusal is None and endpoint is not None and wanted.covers(endpoint, product)
        app, match.route, attributes = wanted.plan(product) if passed else wanted.plan_refusing(product)
        exchange.shared.attributes.update(attributes)
        match.refusal = None if passed else refusal or self._not_there(edition, match, scope)
        return app

    def _not_there(self, edition: Edition, match: Match, scope: Scope) -> Refusal:
        if self._tell_methods:
            allowed = edition.operations.allowed(match.segments, scope.get("query_string", b""))
            if allowed:
                allow = ", ".join(sorted(allowed - {ANY, WEBSOCKET}))
                detail = "This operation has other methods."
                return Refusal(405, "method-not-allowed", detail, headers={"allow": allow})
        return _nowhere()

    def rows(self, product: str | None = None) -> Iterator[Row]:
        """The plan as data, in the order it is written; of one product (``""`` for none), or of all there are."""
        for entry in self.entries:
            contexts = entry.contexts() if product is None else [product] if product in entry.contexts() else []
            for edition in entry.editions():
                for endpoint in edition.endpoints:
                    for context in contexts:
                        yield self._row(entry, endpoint, context)

    def _row(self, entry: Entry, endpoint: Endpoint, product: str) -> Row:
        definition, route = endpoint.edition.definition, endpoint.route(product)
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
            layers=tuple(endpoint.layers(product)),
        )


def _preflight(exchange: Exchange) -> str | None:
    """The method a browser asks about before it sends a request of another origin, if this is such a question."""
    if exchange.header(b"origin") is None:
        return None
    method = exchange.header(b"access-control-request-method")
    return None if method is None else method.decode("latin-1")


def _nowhere() -> Refusal:
    return Refusal(404, "operation-not-found", "No operation matches this request.")
