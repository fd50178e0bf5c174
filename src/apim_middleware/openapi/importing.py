"""From an OpenAPI document to an ``Api`` with its operations."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import PurePath
from typing import Any, NamedTuple

from apim_middleware._config import shown
from apim_middleware._http.url_templates import UrlTemplate
from apim_middleware.errors import ConfigError
from apim_middleware.model import Api, Deprecation, Operation
from apim_middleware.openapi._checking import check, resolve
from apim_middleware.openapi._grammar import METHODS
from apim_middleware.openapi._mocking import Mocks
from apim_middleware.openapi._places import Place, below, mistake
from apim_middleware.openapi._reading import read
from apim_middleware.openapi._templates import PARAMETERS, parameters_of, server_path, template_of
from apim_middleware.types import Layer

_VERSION = re.compile(r"3\.[01]\.[0-9]{1,3}(?:-[!-~]{1,40})?")
_MARKS = re.compile(r"[^A-Za-z0-9]+")
_UNCLEAN = re.compile(r"[^A-Za-z0-9._-]+")


class OperationDocument(dict[str, Any]):
    """An OpenAPI operation with the parameters of its path, and the document that its references lead into."""

    root: Mapping[str, Any]

    def __init__(self, operation: Mapping[str, Any], root: Mapping[str, Any]) -> None:
        """Keep both."""
        super().__init__(operation)
        self.root = root

    def __reduce__(self) -> tuple[Any, ...]:
        """Copying and pickling keep both, too."""
        return OperationDocument, (dict(self), self.root)


def api_from_openapi(
    document: str | bytes | PurePath | Mapping[str, Any],
    *,
    name: str,
    path: str = "/",
    backend: object | None = None,
    server_path: str | None = None,
    hosts: tuple[str, ...] = (),
    policies: tuple[Layer, ...] = (),
    operation_policies: Mapping[str, tuple[Layer, ...]] | None = None,
    mock: bool = False,
    subscription_required: bool = True,
    deprecated_since: datetime | None = None,
    max_bytes: int = 8 << 20,
    max_operations: int = 10_000,
) -> Api:
    """An API with the operations of an OpenAPI document, 3.0 or 3.1.

    ``document`` is JSON or YAML as text or bytes, a ``Path``, or a dict. YAML needs the extra ``config``. Nothing is
    fetched: references lead into the document, and the hosts of its servers are never asked. Where the API stands
    (``path``, ``hosts``) and what is behind it (``backend``) is yours to say.

    The path of its servers stands in front of the templates, unless ``server_path`` says what does: ``""`` where the
    URL of the backend has that path already. An operation is named by its ``operationId``, else by method and path;
    ``operation_policies`` are given by these names. Operations that are ``deprecated`` get a ``Deprecation`` with
    ``deprecated_since``, without it they only say so in the documents. Security that the document asks for is told in
    documents, not enforced: put policies there.

    With ``mock`` every operation answers by itself, behind its policies, and the backend is asked for nothing: a
    ``MockResponse`` is made of its first 2xx response, of an example of it, else of its schema, else without a body.

    ConfigError names the place, as a JSON pointer, and the reason: another version of OpenAPI, no operations, larger
    than ``max_bytes`` or ``max_operations``, wrong types, references that lead nowhere or elsewhere, operation ids or
    paths that are there twice, parameters that are declared for a path and not in it, paths no request can have, mocked
    answers that are together larger than ``max_bytes``.
    """
    if server_path and not server_path.startswith("/"):
        problem = f"{shown(server_path)} begins no path"
        raise ConfigError("OpenAPI", "server_path", problem, 'Write server_path="/v1", or "" for none')
    root = read(document, max_bytes)
    _check_version(root)
    check(root)
    mocks = Mocks(root, max_bytes) if mock else None
    reading = _Reading(root, server_path, deprecated_since, max_operations, mocks)
    operations = tuple(reading.operations(operation_policies or {}))
    if not operations:
        problem, cure = "holds no operations, and an API without any lets everything pass", "Describe some in paths"
        raise mistake("#/paths", problem, cure)
    info = root.get("info", {})
    return Api(
        name,
        path,
        backend=backend,
        hosts=hosts,
        operations=operations,
        policies=policies,
        subscription_required=subscription_required,
        title=info.get("title", ""),
        description=info.get("description", "") or info.get("summary", ""),
        tags=tuple(dict.fromkeys(each["name"] for each in root.get("tags", ()) if each.get("name"))),
        document=root,
    )


def _check_version(root: dict[str, Any]) -> None:
    if "swagger" in root:
        problem = f"is Swagger {str(root['swagger'])[:10]}, which this package does not read"
        cure = "Convert it to OpenAPI 3 first: npx swagger2openapi, or editor.swagger.io"
        raise mistake("#/swagger", problem, cure)
    version = root.get("openapi")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        problem = "is missing" if version is None else f"is {str(version)[:20]!r}, which this package does not read"
        raise mistake("#/openapi", problem, 'Give a document of OpenAPI 3.0 or 3.1: "openapi": "3.1.0", in quotes')
    if not isinstance(root.get("info"), dict):
        raise mistake("#/info", "is missing", "Give title and version")


class _Found(NamedTuple):
    """One operation of the document."""

    place: Place
    method: str
    template: UrlTemplate
    document: OperationDocument


class _Reading:
    """Reads the operations of a document that was checked."""

    def __init__(
        self,
        root: dict[str, Any],
        base: str | None,
        deprecated_since: datetime | None,
        max_operations: int,
        mocks: Mocks | None,
    ) -> None:
        self._root, self._mocks = root, mocks
        self._base = None if base is None else base.removesuffix("/")
        self._deprecation = None if deprecated_since is None else Deprecation(since=deprecated_since)
        self._most = max_operations
        self._names: dict[str, Place] = {}
        self._ids: dict[str, Place] = {}
        self._twice: Counter[str] = Counter()

    def operations(self, policies: Mapping[str, tuple[Layer, ...]]) -> Iterator[Operation]:
        """The operations of the document's paths, in order, each with the policies given under its name."""
        unused = dict(policies)
        for each in self._unique():
            operation = self._operation(each)
            own = unused.pop(operation.name, ())
            yield replace(operation, policies=(*own, *operation.policies)) if own else operation
        if unused:
            name = next(iter(unused))
            known = ", ".join(list(self._names)[:20])
            raise ConfigError("OpenAPI", "operation_policies", f"names {name!r}, which is no operation", f"Use {known}")

    def _unique(self) -> Iterator[_Found]:
        shapes: dict[tuple[str, object], Place] = {}
        for number, each in enumerate(self._found()):
            if number >= self._most:
                cure = "Give max_operations= room for them"
                raise mistake("#/paths", f"holds more than {self._most} operations", cure)
            first = shapes.setdefault((each.method, each.template.shape), each.place)
            if first != each.place:
                raise mistake(each.place, f"matches the same requests as {first}", "Leave one of them")
            yield each

    def _found(self) -> Iterator[_Found]:
        for section in ("paths", "x-ms-paths"):
            for path, item in self._root.get(section, {}).items():
                if not path.startswith("x-"):
                    yield from self._path(path, item, below("#", section, path), query=section == "x-ms-paths")

    def _path(self, path: str, item: Any, place: Place, *, query: bool) -> Iterator[_Found]:  # noqa: ANN401
        item = self._item(item, place)
        common = self._parameters(item, place)
        base = self._server_path(item, place)
        for method in METHODS:
            if method not in item:
                continue
            here = below(place, method)
            operation = item[method]
            own = self._server_path(operation, here)
            behind = next((each for each in (self._base, own, base, self._document_path()) if each is not None), "")
            template = template_of(behind, path, place, query=query)
            parameters = {**common, **self._parameters(operation, here)}
            _check_parameters(template, parameters, here)
            merged = OperationDocument({**operation, "parameters": _with_undeclared(path, parameters)}, self._root)
            if not merged["parameters"]:
                del merged["parameters"]
            yield _Found(here, method.upper(), template, merged)

    def _item(self, item: Any, place: Place) -> dict[str, Any]:  # noqa: ANN401
        found = resolve(self._root, place, "path", item)
        if found is not item and (beside := sorted(item.keys() - {"$ref", "summary", "description"})):
            cure = "Leave it there, or the reference: nobody knows which of them counts"
            raise mistake(below(place, beside[0]), "stands beside a $ref", cure)
        if not isinstance(found, dict):
            raise mistake(place, "is no Path Item Object", "Give an object with get, post and so on")
        return found

    def _parameters(self, owner: dict[str, Any], place: Place) -> dict[tuple[str, str], Any]:
        """Declared parameters by place and name."""
        found: dict[tuple[str, str], Any] = {}
        for number, each in enumerate(owner.get("parameters", ())):
            here = below(place, "parameters", number)
            parameter = resolve(self._root, here, "parameter", each)
            key = parameter.get("in"), parameter.get("name")
            if key[0] not in ("path", "query", "header", "cookie") or not isinstance(key[1], str) or not key[1]:
                raise mistake(here, "has no name, or is in no place", 'Give "name", and "in": "path", "query", ...')
            if key in found:
                raise mistake(here, f"declares the parameter {key[1]!r} twice", "Leave one of them")
            found[key] = each
        return found

    def _server_path(self, owner: dict[str, Any], place: Place) -> str | None:
        return None if self._base is not None else server_path(owner.get("servers"), below(place, "servers"))

    def _document_path(self) -> str | None:
        return self._server_path(self._root, "#")

    def _operation(self, found: _Found) -> Operation:
        document = found.document
        tags = document.get("tags", [])
        if not isinstance(tags, list) or not all(isinstance(each, str) for each in tags):
            raise mistake(below(found.place, "tags"), "is no array of texts", "Give an array of texts")
        if not isinstance(document.get("deprecated", False), bool):
            raise mistake(below(found.place, "deprecated"), "is neither true nor false", "Give one of them")
        return Operation(
            found.method,
            found.template.text,
            name=self._name(found),
            title=document.get("summary", ""),
            description=document.get("description", ""),
            tags=tuple(tags),
            policies=() if self._mocks is None else (self._mocks.answer(document, found.place),),
            deprecation=self._deprecation if document.get("deprecated") else None,
            document=document,
        )

    def _name(self, found: _Found) -> str:
        """The operation id as a name, with a number where another has it already."""
        given = found.document.get("operationId")
        if given is not None and (first := self._ids.setdefault(given, found.place)) != found.place:
            place = below(found.place, "operationId")
            raise mistake(place, f"is {given!r}, as that of {first}", "Give each operation an id of its own")
        text = given or _MARKS.sub("-", f"{found.method}-{found.template.text}").lower()
        name = clean = _UNCLEAN.sub("-", text).strip("-._")[:70].rstrip("-.") or "operation"
        while name in self._names:
            self._twice[clean] += 1
            name = f"{clean}-{self._twice[clean] + 1}"
        self._names[name] = found.place
        return name


def _check_parameters(template: UrlTemplate, parameters: Mapping[tuple[str, str], Any], place: Place) -> None:
    inside = parameters_of(template)
    declared = {name for where, name in parameters if where == "path"}
    if stray := sorted(declared - inside):
        missing = sorted(inside - declared)
        cure = f"Did you mean {missing[0]!r}?" if missing else "Put it into the path, or leave it out"
        raise mistake(place, f"declares the parameter {stray[0]!r}, which is not in the path", cure)


def _with_undeclared(path: str, parameters: Mapping[tuple[str, str], Any]) -> list[Any]:
    """The parameters, and those of the path that nobody declared (as frameworks leave them out) as text."""
    declared = {name for where, name in parameters if where == "path"}
    undeclared = [name for name in PARAMETERS.findall(path.partition("?")[0]) if name not in declared]
    added = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in undeclared]
    return [*parameters.values(), *added]
