"""From a gateway to the OpenAPI documents of what callers can call, and of what stands in front of it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from apim_middleware.errors import ConfigError
from apim_middleware.gateway.app import Gateway
from apim_middleware.model import ANY, WEBSOCKET, Api
from apim_middleware.openapi._components import Components, Source
from apim_middleware.openapi._contexts import Contexts, Found, operations
from apim_middleware.openapi._operations import Writer, resolved
from apim_middleware.openapi._templates import PARAMETERS

OPENAPI = "3.1.1"
"""The version of the documents."""

_EVERY = ("get", "put", "post", "delete", "options", "head", "patch")
_TEXT = {"type": "string"}
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
        for each in operations(gateway)
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


class _Document:
    """The document of some operations."""

    def __init__(self, gateway: Gateway, product: str | None, found: list[Found]) -> None:
        self._components = Components()
        self._writer = Writer(self._components, azure=gateway.errors == "azure")
        self._sources: dict[int, Source] = {}
        self._contexts = Contexts(gateway, product)
        self._versions: defaultdict[str, set[str]] = defaultdict(set)
        self._slots: defaultdict[tuple[str, str], list[Found]] = defaultdict(list)
        for each in found:
            for method in _methods(each.operation.method):
                self._slots[each.path, method].append(each)
            self._versions[each.path].add(each.version)
        self._shown = {slot: self._chosen(slot, some) for slot, some in self._slots.items()}
        self._ids = self._named()

    def written(self, info: dict[str, Any], servers: tuple[str, ...]) -> dict[str, Any]:
        """The whole document."""
        sections: dict[str, dict[str, Any]] = {"paths": {}, "x-ms-paths": {}}
        first: dict[tuple[str, str], str] = {}
        for (path, method), each in self._shown.items():
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

    def _chosen(self, slot: tuple[str, str], found: list[Found]) -> Found:
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

    def _wished(self, each: Found, method: str) -> str:
        given = (each.operation.document or {}).get("operationId")
        name = given if isinstance(given, str) else each.operation.name
        return f"{name}-{method}" if each.operation.method == ANY else name

    def _operation(self, each: Found, path: str, method: str) -> dict[str, Any]:
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
        self._writer.write(operation, method, self._contexts.documentation(each), root=root)
        return operation

    def _described(self, each: Found) -> dict[str, Any]:
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
        if each.deprecation is not None or (given or {}).get("deprecated") is True:
            operation["deprecated"] = True
        return operation

    def _source(self, each: Found) -> Source | None:
        root = getattr(each.operation.document, "root", None) or each.api.document
        if root is None:
            root = {"openapi": OPENAPI}
        if id(root) not in self._sources:
            self._sources[id(root)] = Source(root, each.api.name, self._components)
        return self._sources[id(root)]

    def _parameters(self, each: Found, path: str, given: list[Any], root: Mapping[str, Any]) -> list[Any]:
        known = {(one.get("in"), one.get("name")) for one in (resolved("parameter", part, root) for part in given)}
        inside = [name for name in PARAMETERS.findall(path.partition("?")[0]) if ("path", name) not in known]
        asked = [part for part in each.operation.url_template.query if ("query", part[0]) not in known]
        return [
            *given,
            *({"name": name, "in": "path", "required": True, "schema": _TEXT} for name in inside),
            *({"name": name, "in": "query", "required": True, "schema": _exactly(value)} for name, value, _ in asked),
            *self._version_parameter(each, path),
        ]

    def _version_parameter(self, each: Found, path: str) -> Iterable[dict[str, Any]]:
        versions = each.api.versions
        if versions is None or versions.by == "path":
            return
        here = self._versions[path]
        schema: dict[str, Any] = {"type": "string", "enum": [v.name for v in versions.versions if v.name in here]}
        required: dict[str, Any] = {"required": True}
        if versions.default in here:
            schema["default"], required = versions.default, {}
        yield {"name": versions.parameter, "in": versions.by, **required, "schema": schema}

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
