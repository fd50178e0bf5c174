"""From a gateway to the OpenAPI documents of what callers can call, and of what stands in front of it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from apim_middleware.documentation import Answer, Documentation, Told, documentation_of, either, together
from apim_middleware.errors import ConfigError
from apim_middleware.gateway._compiled import Row
from apim_middleware.gateway.app import Gateway
from apim_middleware.model import ANY, WEBSOCKET, Api, Definition, Operation
from apim_middleware.openapi._components import Components, Source
from apim_middleware.openapi._operations import Writer, resolved
from apim_middleware.proxy.app import Proxy
from apim_middleware.proxy.pool import Pool

OPENAPI = "3.1.1"
"""The version of the documents."""

_EVERY = ("get", "put", "post", "delete", "options", "head", "patch")
_PARAMETERS = re.compile(r"\{([^{}]*)\}")
_TEXT = {"type": "string"}
_PLAIN = "/!$&'()*+,;=:@-._~"
_UPSTREAM = Documentation(
    answers=(Answer(502, ("upstream-unreachable", "upstream-broken")), Answer(504, ("upstream-timeout",)))
)
_NOBODY = Documentation(answers=(Answer(503, ("no-upstream-available",), ("retry-after",)),))
_DROPPED = frozenset(("servers", "security", "operationId", "deprecated"))


def openapi_of(
    gateway: Gateway,
    *,
    product: str | None = None,
    api: str | None = None,
    api_version: str | None = None,
    host: str | None = None,
    title: str = "",
    version: str = "1",
    servers: tuple[str, ...] = ("/",),
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a gateway: of everything, or of one product, API, version of APIs, or host.

    Paths are those callers use. What imported documents say of operations is kept, their components under names of
    their own where two have the same; what they say of servers is not, for these are the backends'. Security, refusals
    and header fields come from the policies that stand in front of each operation, as ``Gateway.rows`` has them, and
    from the subscription it asks for. Current revisions are shown, and no retired versions, nor operations whose own
    document says ``x-internal: true``.

    Of versions that callers choose by a header or a parameter, the default or else the last is shown, with the names
    of all; ``api_version`` picks another. Operations told apart by their query stand under ``x-ms-paths``. A WebSocket
    is a GET with ``x-websocket``.

    ConfigError: no such product, API, version or host; two APIs that only hosts tell apart, without ``host``.
    """
    _check(gateway, product, api, api_version)
    found = [
        each
        for each in _operations(gateway)
        if (api is None or each.api.name == api)
        and (api_version is None or each.version in ("", api_version))
        and (host is None or _answers_to(each.api, host))
        and (product is None or any(row.product == product for row in each.rows))
    ]
    return _Document(gateway, product, found).written(_info(gateway, product, title, version), servers)


def _check(gateway: Gateway, product: str | None, api: str | None, api_version: str | None) -> None:
    for name, given, known in (
        ("product", product, [each.name for each in gateway.products]),
        ("api", api, [each.name for each in gateway.apis]),
        ("api_version", api_version, [v.name for a in gateway.apis if a.versions for v in a.versions.versions]),
    ):
        if given is not None and given not in known:
            cure = f"Give one of {', '.join(known)}" if known else "Leave it out"
            raise ConfigError("openapi_of", name, f"{given!r} is none of the gateway", cure)


def _answers_to(api: Api, host: str) -> bool:
    return not api.hosts or any(
        each == host or (each.startswith("*.") and host.endswith(each[1:])) for each in api.hosts
    )


def _info(gateway: Gateway, product: str | None, title: str, version: str) -> dict[str, Any]:
    shown = next((each for each in gateway.products if each.name == product), None)
    words = gateway.name if shown is None else shown.title or shown.name
    info: dict[str, Any] = {"title": title or words, "version": version}
    if shown is not None and shown.description:
        info["description"] = shown.description
    if shown is not None and shown.terms:
        info["x-terms"] = shown.terms
    return info


@dataclass(frozen=True, eq=False, kw_only=True)
class _Found:
    """One operation of a gateway, with a row for each context it can be called in."""

    definition: Definition
    operation: Operation
    rows: tuple[Row, ...]

    @property
    def api(self) -> Api:
        return self.definition.api

    @property
    def version(self) -> str:
        return "" if self.definition.version is None else self.definition.version.name

    @property
    def path(self) -> str:
        """The path as OpenAPI writes it, with what must be in the query."""
        path, asked = self.rows[0].path, self.operation.template.partition("?")[2]
        path = f"{path[:-1]}{{path}}" if path.endswith("/*") else path
        parts = _PARAMETERS.split(path)  # text and names, by turns
        parts[::2] = [quote(each, safe=_PLAIN) for each in parts[::2]]
        parts[1::2] = [f"{{{each.removeprefix('*').removesuffix(':path')}}}" for each in parts[1::2]]
        return "".join(parts) + (f"?{asked}" if asked else "")

    @property
    def negotiated(self) -> bool:
        """Whether callers say with a header or a parameter which version they mean."""
        return self.api.versions is not None and self.api.versions.by != "path"


def _operations(gateway: Gateway) -> Iterator[_Found]:
    rows = gateway.rows()
    for entry in gateway.compiled.entries:
        for edition in entry.editions():
            for endpoint in edition.endpoints:
                found = tuple(next(rows) for _ in entry.contexts())
                version = edition.definition.version
                internal = (endpoint.operation.document or {}).get("x-internal") is True
                if edition.definition.current and not internal and not (version is not None and version.retired):
                    yield _Found(definition=edition.definition, operation=endpoint.operation, rows=found)


class _Document:
    """The document of some operations."""

    def __init__(self, gateway: Gateway, product: str | None, found: list[_Found]) -> None:
        self._gateway, self._product = gateway, product
        self._components = Components()
        self._writer = Writer(self._components, azure=gateway.errors == "azure")
        self._sources: dict[int, Source] = {}
        self._told: dict[object, Documentation] = {}
        self._slots: defaultdict[tuple[str, str], list[_Found]] = defaultdict(list)
        for each in found:
            for method in _methods(each.operation.method):
                self._slots[each.path, method].append(each)
        self._shown = {slot: self._chosen(slot, some) for slot, some in self._slots.items()}
        self._ids = self._named()

    def written(self, info: dict[str, Any], servers: tuple[str, ...]) -> dict[str, Any]:
        """All of it."""
        sections: dict[str, dict[str, Any]] = {"paths": {}, "x-ms-paths": {}}
        first: dict[tuple[str, str], str] = {}
        for (path, method), each in self._shown.items():
            if self._is_overruled(path, method, each):
                continue
            plain = path.partition("?")[0]
            holder = plain if (plain, method) in self._shown else first.setdefault((plain, method), path)
            alone = holder == path
            item = sections["paths" if alone else "x-ms-paths"].setdefault(plain if alone else path, {})
            item[method] = self._operation(each, path, method)
            if hosts := [host for host in each.api.hosts if not host.startswith("*")]:
                item["servers"] = [{"url": f"//{host}"} for host in hosts]
        document: dict[str, Any] = {
            "openapi": OPENAPI,
            "info": info,
            "servers": [{"url": url} for url in servers],
            "tags": self._tags(),
            **sections,
            "components": self._components.written(),
        }
        return {name: value for name, value in document.items() if value or name == "paths"}

    def _is_overruled(self, path: str, method: str, each: _Found) -> bool:
        """Whether it is for any method, or a WebSocket, and this method has an operation of its own."""
        own = self._slots[path, method]
        return each.operation.method in (ANY, WEBSOCKET) and any(
            other.operation.method == method.upper() for other in own if other.api is each.api
        )

    def _chosen(self, slot: tuple[str, str], found: list[_Found]) -> _Found:
        """Which of several with one path and method is shown."""
        exact = [each for each in found if each.operation.method == slot[1].upper()] or found
        apis = list(dict.fromkeys(each.api.name for each in exact))
        if len(apis) > 1:
            problem = f"{slot[1].upper()} {slot[0]} is one of {' and one of '.join(apis)}, which hosts tell apart"
            raise ConfigError("openapi_of", "host", problem, 'Say for which host: host="api.example.com"')
        versions = exact[0].api.versions
        default = None if versions is None else versions.default
        return next((each for each in exact if each.version == default), exact[-1 if exact[0].negotiated else 0])

    def _named(self) -> dict[tuple[str, str], str]:
        """The operation ids, each once: where two have the same, their APIs and versions are put in front."""
        wished = {slot: self._wished(each, slot[1]) for slot, each in self._shown.items()}
        often = Counter(wished.values())
        found: dict[tuple[str, str], str] = {}
        taken = set[str]()
        for slot, name in wished.items():
            each = self._shown[slot]
            if often[name] > 1:
                name = ".".join(part for part in (each.api.name, each.version, name) if part)
            free, number = name, 1
            while free in taken:
                number += 1
                free = f"{name}-{number}"
            taken.add(free)
            found[slot] = free
            if each.operation.document and (source := self._source(each)) is not None:
                source.ids[str(each.operation.document.get("operationId"))] = free
        return found

    def _wished(self, each: _Found, method: str) -> str:
        given = (each.operation.document or {}).get("operationId")
        name = given if isinstance(given, str) else each.operation.name
        return f"{name}-{method}" if each.operation.method == ANY else name

    def _operation(self, each: _Found, path: str, method: str) -> dict[str, Any]:
        root: Mapping[str, Any] = {"components": self._components.sections}
        operation = self._described(each)
        operation["operationId"] = self._ids[path, method]
        operation["parameters"] = self._parameters(each, path, operation.get("parameters", []), root)
        if not operation["parameters"]:
            del operation["parameters"]
        if each.operation.method == WEBSOCKET:
            operation["x-websocket"] = True
            operation.setdefault("responses", {"101": {"description": "The WebSocket is open."}})
        operation.setdefault("responses", {"default": {"description": "What the backend answers."}})
        self._writer.write(operation, method, self._documentation(each), root=root)
        return operation

    def _described(self, each: _Found) -> dict[str, Any]:
        """What its own document, or its fields, say of it."""
        given, source = each.operation.document, self._source(each)
        operation: dict[str, Any] = {}
        if given is not None and source is not None:
            operation = source.taken("operation", {k: v for k, v in given.items() if k not in _DROPPED})
            security = given.get("security", source.root.get("security"))
            if security:
                operation["security"] = source.security(security)
        for name, value in (
            ("summary", each.operation.title), ("description", each.operation.description),
            ("tags", list(each.operation.tags or each.api.tags or (each.api.title or each.api.name,))),
        ):  # fmt: skip
            if value:
                operation[name] = value
        if _deprecation(each) is not None or (given or {}).get("deprecated") is True:
            operation["deprecated"] = True
        return operation

    def _source(self, each: _Found) -> Source | None:
        root = getattr(each.operation.document, "root", None) or each.api.document
        if root is None:
            root = {"openapi": OPENAPI}
        if id(root) not in self._sources:
            self._sources[id(root)] = Source(root, each.api.name, self._components)
        return self._sources[id(root)]

    def _parameters(self, each: _Found, path: str, given: list[Any], root: Mapping[str, Any]) -> list[Any]:
        known = {(one.get("in"), one.get("name")) for one in (resolved(part, root) for part in given)}
        inside = [name for name in _PARAMETERS.findall(path.partition("?")[0]) if ("path", name) not in known]
        asked = [part for part in each.operation.url_template.query if ("query", part[0]) not in known]
        return [
            *given,
            *({"name": name, "in": "path", "required": True, "schema": _TEXT} for name in inside),
            *({"name": name, "in": "query", "required": True, "schema": _exactly(value)} for name, value, _ in asked),
            *self._version_parameter(each, path),
        ]

    def _version_parameter(self, each: _Found, path: str) -> Iterable[dict[str, Any]]:
        versions = each.api.versions
        if versions is None or versions.by == "path":
            return
        here = {other.version for (p, _), some in self._slots.items() if p == path for other in some}
        schema: dict[str, Any] = {"type": "string", "enum": [v.name for v in versions.versions if v.name in here]}
        required: dict[str, Any] = {"required": True}
        if versions.default in here:
            schema["default"], required = versions.default, {}
        yield {"name": versions.parameter, "in": versions.by, **required, "schema": schema}

    def _documentation(self, each: _Found) -> Documentation:
        rows = [row for row in each.rows if self._product is None or row.product == self._product]
        layers = tuple(tuple(id(layer) for _, layer in row.layers) for row in rows)
        key = each.api.name, each.version, id(_deprecation(each)), layers  # which many operations share
        found = self._told.get(key)
        if found is None:
            found = self._told[key] = either(self._of_row(each, row) for row in rows)
        return found

    def _of_row(self, each: _Found, row: Row) -> Documentation:
        """What stands in front of an operation in one context, outermost first."""
        name = self._gateway.name
        outer = [layer for place, layer in row.layers if place == name or place.startswith(f"{name}/product/")]
        first = [layer for place, layer in row.layers if place == name]
        inner = [layer for _, layer in row.layers[len(outer) :]]
        return together(
            (
                *map(documentation_of, first),
                self._subscription(each, row),
                _of_versions(each),
                *map(documentation_of, outer[len(first) :]),
                _of_deprecation(each),
                *map(documentation_of, inner),
                _of_backend(each),
            )
        )

    def _subscription(self, each: _Found, row: Row) -> Documentation:
        auth = self._gateway.authenticator
        if auth is None:
            return Documentation()
        header = auth.header if each.api.key_header is None else each.api.key_header
        query = auth.query if each.api.key_query is None else each.api.key_query
        found = documentation_of(replace(auth, header=header, query=query, optional=False))
        if row.subscription_required:
            return found
        outage = tuple(answer for answer in found.answers if answer.status >= 500)
        return replace(found.optional(), answers=outage)

    def _tags(self) -> list[dict[str, Any]]:
        """The tags of the imported documents, those of one name once."""
        found: dict[str, dict[str, Any]] = {}
        for each in self._shown.values():
            told = (each.api.document or {}).get("tags", ())
            for tag in told if isinstance(told, list) else ():
                if isinstance(tag, Mapping) and isinstance(tag.get("name"), str):
                    found.setdefault(tag["name"], dict(tag))
        used = {tag for each in self._shown.values() for tag in each.operation.tags or each.api.tags}
        return [tag for name, tag in found.items() if name in used]


def _exactly(value: str | None) -> dict[str, Any]:
    return _TEXT if value is None else {"const": value}


def _methods(method: str) -> tuple[str, ...]:
    if method == ANY:
        return _EVERY
    return ("get",) if method == WEBSOCKET else (method.lower(),)


def _deprecation(each: _Found) -> Any:  # noqa: ANN401 - a Deprecation or None
    version = each.definition.version
    return each.operation.deprecation or (version.deprecation if version else None) or each.api.deprecation


def _of_deprecation(each: _Found) -> Documentation:
    ending = _deprecation(each)
    if ending is None:
        return Documentation()
    linked = ending.link or ending.sunset_link or ending.successor
    names = ("deprecation", *(("sunset",) if ending.sunset else ()), *(("link",) if linked else ()))
    return Documentation(headers=tuple(map(Told, names)))


def _of_versions(each: _Found) -> Documentation:
    versions = each.api.versions
    if versions is None or versions.by == "path":
        return Documentation()
    unknown = ("api-version-unknown",) if versions.default else ("api-version-missing", "api-version-unknown")
    return Documentation(answers=(Answer(400, ("api-version-ambiguous",)), Answer(404, unknown)))


def _of_backend(each: _Found) -> Documentation:
    backend = each.definition.backend
    if not isinstance(backend, str | Proxy | Pool):
        return Documentation()
    upstream = backend.upstream if isinstance(backend, Proxy) else backend
    return _UPSTREAM.before(_NOBODY) if isinstance(upstream, Pool) else _UPSTREAM
