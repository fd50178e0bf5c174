"""From the value of a gateway to its entries, editions and endpoints; what cannot work is refused here."""

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from apim_middleware._alike import alike
from apim_middleware._together import living_with
from apim_middleware._unseen_reads import check_read
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError
from apim_middleware.gateway._backends import Backends
from apim_middleware.gateway._entries import Entry
from apim_middleware.gateway._keys import Gate
from apim_middleware.gateway._lifespan import nothing_behind
from apim_middleware.gateway._places import DEFAULT_NAME, home
from apim_middleware.gateway._plans import Edition, Plans
from apim_middleware.gateway._query_checks import check_kept_apart
from apim_middleware.gateway._scopes import Scope
from apim_middleware.gateway._sites import Sites
from apim_middleware.gateway._tries import Taken
from apim_middleware.model import ANY, Api, Definition, Operation, Product, definitions
from apim_middleware.types import Layer

if TYPE_CHECKING:
    from apim_middleware.gateway.app import Gateway

_EVERYTHING = (Operation(ANY, "/*", name="any"),)
"""What an API can do that does not say."""


class Building:
    """Builds and validates everything but the plans themselves. Raises ConfigError."""

    def __init__(self, gateway: "Gateway", env: Env) -> None:
        """Read what stands where; ``plans``, ``sites``, ``entries`` and ``backends`` are what comes of it."""
        self._gateway = gateway
        self._env = home(gateway.name, env, default=DEFAULT_NAME)
        self._place = self._env.place
        self._scopes: dict[str, list[tuple[tuple[Layer, ...], Scope]]] = {}
        self._sets: dict[frozenset[str], frozenset[str]] = {}  # equal ones are one
        self._gates: dict[tuple[str | None, str | None, bool], Gate] = {}
        self._claims: dict[tuple[str, tuple[str, ...]], str] = {}
        self.backends = Backends(env, self._place)
        self.plans = Plans(self._scope("", gateway.policies), env, azure=gateway.errors == "azure")
        self.sites: Sites[Entry] = Sites()
        self._products = self._by_api()
        self.entries = [self._entry(api) for api in gateway.apis]
        for entry in self.entries:  # now, so that what every request looks at stands close together
            self._claim(entry)
        for entry in self.entries:
            self._check(entry)

    def _scope(self, where: str, layers: tuple[Layer, ...], *, inherit: bool = True) -> Scope:
        """The scope of a place; equal ones, as those of revisions often are, are one."""
        place = f"{self._place}{where}"
        known = self._scopes.setdefault(place, [])
        for written, scope in known:
            if scope.inherit == inherit and alike(written, layers):
                return scope
        scope = Scope(place, layers, self._env, inherit=inherit)
        known.append((layers, scope))
        for layer, piece in scope.living:
            self.backends.also((place, layer), piece(nothing_behind))
        for app in [app for policy in scope.policies for app in policy.leads_to]:
            self.backends.also(app, living_with(nothing_behind, [app], self._env))
        return scope

    def _by_api(self) -> dict[str, list[Product]]:
        """The products of each API; each product gets its scope on the way."""
        known = {api.name for api in self._gateway.apis}
        found: defaultdict[str, list[Product]] = defaultdict(list)
        for product in self._gateway.products:
            unknown = sorted({*product.apis} - known - {ANY})
            if unknown:
                problem = f"holds {unknown[0]!r}, which is no API of this gateway"
                raise ConfigError(f"Product {product.name}", "apis", problem, "Give names of its APIs")
            for name in known if ANY in product.apis else product.apis:
                found[name].append(product)
            scope = self._scope(f"/product/{product.name}", product.policies, inherit=product.inherit)
            self.plans.products[product.name] = scope
        return found

    def _entry(self, api: Api) -> Entry:
        if api.versions is not None and api.versions.by == "header":
            check_read(api.versions, "parameter", api.versions.parameter, self._env)
        products = self._products.get(api.name, [])
        opened = [product.name for product in products if not product.subscription_required]
        if len(opened) > 1:
            problem = f"is in the open products {' and '.join(opened)}, so nobody could tell in which one it is called"
            raise ConfigError(f"Api {api.name}", "", problem, "Leave it in one of them")
        strangers = bool(opened) or not api.subscription_required
        names = frozenset(product.name for product in products)
        names = self._sets.setdefault(names, names)
        entry = Entry(api, names, opened[0] if opened else None, self._gate(api, strangers=strangers))
        for definition in definitions(api):
            entry.add(self._edition(definition))
        return entry

    def _gate(self, api: Api, *, strangers: bool) -> Gate | None:
        auth = self._gateway.authenticator
        if auth is None:
            if not strangers:
                cure = "Write Gateway(keys=MemoryKeys(), ...), or Api(subscription_required=False)"
                raise ConfigError(f"Api {api.name}", "subscription_required", "needs keys, and there are none", cure)
            return None
        header = auth.header if api.key_header is None else api.key_header
        query = auth.query if api.key_query is None else api.key_query
        known = header, query, strangers
        if known not in self._gates:
            here = self._env.at(f"{self._place}/keys/{header}/{query}")
            self._gates[known] = Gate(replace(auth, header=header, query=query), here, strangers=strangers)
        return self._gates[known]

    def _edition(self, definition: Definition) -> Edition:
        api, version = definition.api, definition.version
        if definition.backend is None:
            cure = 'Write backend="http://host:8000", a Proxy, or any ASGI app'
            raise ConfigError(f"Api {definition.label}", "backend", "is missing", cure)
        where, path = f"/api/{api.name}", api.path.removesuffix("/")
        scopes = [self._scope(where, definition.api_policies, inherit=api.inherit)]
        if version is not None:
            where = f"{where}/version/{version.name}"
            path += f"/{version.name}" if api.versions is not None and api.versions.by == "path" else ""
            scopes.insert(0, self._scope(where, definition.version_policies, inherit=version.inherit))
        backend = self.backends.app(definition.backend, definition.label)
        edition = Edition(definition, scopes, path, backend)
        called: dict[str, Operation] = {}
        for operation in definition.operations or _EVERYTHING:
            other = called.setdefault(operation.name, operation)
            self._add(edition, operation, f"{where}/operation/{operation.name}")
            if other is not operation:  # they would count together
                problem = f"{other.method} {other.template} and {operation.method} {operation.template} are both called"
                cure = f'Give one of them another: Operation("{operation.method}", "{operation.template}", name="...")'
                raise ConfigError(f"Api {definition.label}", "operations", f"{problem} {operation.name!r}", cure)
        return edition

    def _add(self, edition: Edition, operation: Operation, where: str) -> None:
        scope = None
        if operation.policies or not operation.inherit:
            scope = self._scope(where, operation.policies, inherit=operation.inherit)
        try:
            edition.add(self.plans, operation, scope)
        except Taken as error:
            problem = f"{operation.template!r} and {error.template!r} match the same requests ({operation.method})"
            raise ConfigError(f"Api {edition.definition.label}", "operations", problem, "Leave one of them") from None

    def _claim(self, entry: Entry) -> None:
        """Where it begins is its own, and so is where each of its versions begins."""
        api = entry.api
        versions = api.versions.versions if api.versions is not None and api.versions.by == "path" else ()
        beginnings = [api.segments, *((*api.segments, version.name) for version in versions)]
        for host in api.hosts or ("",):
            for segments in beginnings:
                holder = self._claims.setdefault((host, segments), api.name)
                if holder != api.name:
                    problem = f"{'/'.join(('', *segments))!r} is where the API {holder} begins already"
                    raise ConfigError(f"Api {api.name}", "path", problem, "Give one of them another path or host")
            self.sites.at(host).put(api.segments, entry)

    def _check(self, entry: Entry) -> None:
        """Refuse plans whose policies cannot work in their order: one of each kind is looked at."""
        products = {(each == entry.strangers, self.plans.signature_of(each)): each for each in entry.contexts()}
        for edition in entry.editions():
            check_kept_apart(edition, entry.contexts())
            kinds = {approach.signature: approach for approach in edition.approaches.values()}
            for product in products.values():
                told_apart = product != entry.strangers and self.plans.adds(product)
                for approach in kinds.values():
                    approach.check(product, admitted=told_apart or not entry.admits_strangers)
