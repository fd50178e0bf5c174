"""The operations of a gateway as callers find them, and what stands in front of each in every context of a call."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from apim_middleware.documentation import Answer, Documentation, Told, documentation_of, either, together
from apim_middleware.env import Env
from apim_middleware.gateway._compiled import Row
from apim_middleware.gateway._places import place_of
from apim_middleware.gateway.app import Gateway
from apim_middleware.model import Api, Definition, Deprecation, Operation
from apim_middleware.openapi._templates import PARAMETERS
from apim_middleware.proxy.app import Proxy
from apim_middleware.proxy.pool import Pool

_PLAIN = "/!$&'()*+,;=:@-._~"
_UPSTREAM = Documentation(
    answers=(
        Answer(502, ("upstream-unreachable", "upstream-broken")),
        Answer(503, ("upstream-busy",), ("retry-after",)),
        Answer(504, ("upstream-timeout",)),
    )
)
_NOBODY = Documentation(answers=(Answer(503, ("no-upstream-available",), ("retry-after",)),))


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """One operation of a gateway, with a row for each context it can be called in."""

    definition: Definition
    operation: Operation
    rows: tuple[Row, ...]
    told_by_query: bool
    """Whether the value of a parameter of the query tells it from other operations of its path, or them from it."""

    @property
    def api(self) -> Api:
        """The API it is one of."""
        return self.definition.api

    @property
    def version(self) -> str:
        """The name of the version it is one of, if there are versions."""
        return "" if self.definition.version is None else self.definition.version.name

    @property
    def path(self) -> str:
        """The path as OpenAPI writes it, with what must be in the query."""
        path, asked = self.rows[0].path, self.operation.template.partition("?")[2]
        path = f"{path[:-1]}{{path}}" if path.endswith("/*") else path
        parts = PARAMETERS.split(path)  # text and names, by turns
        parts[::2] = [quote(each, safe=_PLAIN) for each in parts[::2]]
        parts[1::2] = [f"{{{each.removeprefix('*').removesuffix(':path')}}}" for each in parts[1::2]]
        return "".join(parts) + (f"?{asked}" if asked else "")

    @property
    def negotiated(self) -> bool:
        """Whether callers say with a header or a parameter which version they mean."""
        return self.api.versions is not None and self.api.versions.by != "path"

    @property
    def deprecation(self) -> Deprecation | None:
        """What ends first of all: the operation, its version, or the whole API."""
        version = self.definition.version
        return self.operation.deprecation or (version.deprecation if version else None) or self.api.deprecation


def operations(gateway: Gateway) -> Iterator[Found]:
    """Every operation that documents show: of current revisions, and of no retired version."""
    rows = gateway.rows()
    for entry in gateway.compiled.entries:
        for edition in entry.editions():
            asking = {_place(each.operation) for each in edition.endpoints if each.operation.url_template.told_by}
            for endpoint in edition.endpoints:
                found = tuple(next(rows) for _ in entry.contexts())
                version = edition.definition.version
                internal = (endpoint.operation.document or {}).get("x-internal") is True
                if edition.definition.current and not internal and not (version is not None and version.retired):
                    operation = endpoint.operation
                    yield Found(
                        definition=edition.definition,
                        operation=operation,
                        rows=found,
                        told_by_query=_place(operation) in asking,
                    )


def _place(operation: Operation) -> object:
    return operation.method, operation.url_template.place


class Contexts:
    """What callers meet in front of the operations of a gateway: in the context of one product, or of any."""

    def __init__(self, gateway: Gateway, product: str | None) -> None:
        """``product``: None for every context."""
        self._gateway, self._product = gateway, product
        self._told: dict[object, Documentation] = {}

    def documentation(self, each: Found) -> Documentation:
        """What stands in front of an operation, in one context or another."""
        rows = [row for row in each.rows if self._product is None or row.product == self._product]
        layers = tuple(tuple(id(layer) for _, layer in row.layers) for row in rows)
        key = (
            each.api.name,
            each.version,
            id(each.deprecation),
            each.told_by_query,
            layers,
        )  # which many operations share
        found = self._told.get(key)
        if found is None:
            found = self._told[key] = either(self._of_row(each, row) for row in rows)
        return found

    def _of_row(self, each: Found, row: Row) -> Documentation:
        """What stands in front of an operation in one context, outermost first."""
        name = place_of(self._gateway.name, self._gateway.env or Env())
        outer = [layer for place, layer in row.layers if place == name or place.startswith(f"{name}/product/")]
        first = [layer for place, layer in row.layers if place == name]
        inner = [layer for _, layer in row.layers[len(outer) :]]
        return together(
            (
                *map(documentation_of, first),
                self._subscription(each, row),
                _of_versions(each),
                _of_query(each),
                *map(documentation_of, outer[len(first) :]),
                _of_deprecation(each),
                *map(documentation_of, inner),
                _of_backend(each),
            )
        )

    def _subscription(self, each: Found, row: Row) -> Documentation:
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


def _of_deprecation(each: Found) -> Documentation:
    ending = each.deprecation
    if ending is None:
        return Documentation()
    linked = ending.link or ending.sunset_link or ending.successor
    names = ("deprecation", *(("sunset",) if ending.sunset else ()), *(("link",) if linked else ()))
    return Documentation(headers=tuple(map(Told, names)))


def _of_versions(each: Found) -> Documentation:
    versions = each.api.versions
    if versions is None or versions.by == "path":
        return Documentation()
    unknown = ("api-version-unknown",) if versions.default else ("api-version-missing", "api-version-unknown")
    return Documentation(answers=(Answer(400, ("api-version-ambiguous",)), Answer(404, unknown)))


def _of_query(each: Found) -> Documentation:
    return Documentation(answers=(Answer(400, ("operation-ambiguous",)),)) if each.told_by_query else Documentation()


def _of_backend(each: Found) -> Documentation:
    backend = each.definition.backend
    if not isinstance(backend, str | Proxy | Pool):
        return Documentation()
    upstream = backend.upstream if isinstance(backend, Proxy) else backend
    return _UPSTREAM.before(_NOBODY) if isinstance(upstream, Pool) else _UPSTREAM
