"""The JSON Schema of gateway files, for editors and for whoever checks files before they are used."""

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, Union

from apim_middleware.configuration._catalogue import named, names
from apim_middleware.configuration._reading import parameters_of
from apim_middleware.gateway.app import Gateway

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", bytes: "string", type(None): "null"}
_FUNCTION = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/import"}, {"$ref": "#/$defs/ref"}]}


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) of what ``load`` reads, with the documentation of every field."""
    definitions: dict[str, Any] = {
        "ref": _exactly("ref", "The name of an object the program brings along."),
        "import": _exactly("import", "An object of a module, as module:name."),
    }
    found = _object(Gateway, definitions)
    for name in names():
        definitions[f"use-{name}"] = _used(name, definitions)
    usable = [{"$ref": f"#/$defs/use-{name}"} for name in names()]
    definitions["used"] = {"anyOf": [*usable, {"$ref": "#/$defs/ref"}, {"$ref": "#/$defs/import"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Gateway",
        **found,
        "$defs": definitions,
    }


def _exactly(key: str, description: str) -> dict[str, Any]:
    properties = {key: {"type": "string"}}
    return {"type": "object", "description": description, "properties": properties, "required": [key]} | _CLOSED


_CLOSED = {"additionalProperties": False}


def _used(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    found = _object(named(name), definitions)
    found["properties"] = {"use": {"const": name}, **found["properties"]}
    found["required"] = ["use", *found.get("required", [])]
    return found


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a class
    hints, several = parameters_of(kind)
    words = _documented(kind)
    properties = {}
    for name, hint in hints.items():
        wanted = types.GenericAlias(tuple, (hint, Ellipsis)) if name == several else hint
        properties[name] = {**_schema(wanted, definitions), **({"description": words[name]} if name in words else {})}
    summary = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
    found = {"type": "object", "description": summary, "properties": properties, **_CLOSED}
    required = _required(kind, several)
    return {**found, "required": required} if required else found


def _required(kind: Any, several: str) -> list[str]:  # noqa: ANN401 - a class
    parameters = inspect.signature(kind.__init__).parameters.values()
    return [
        each.name
        for each in list(parameters)[1:]
        if each.default is each.empty
        and each.name != several
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - an annotation
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(each, definitions) for each in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is datetime:
        return {"type": "string", "format": "date-time"}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return {"type": "array", "prefixItems": [_schema(each, definitions) for each in args], "items": False}
    if isinstance(origin, type) and issubclass(origin, Collection):
        return {"type": "array", "items": _schema(args[0], definitions)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _defined(hint, definitions)
    if isinstance(origin, type) and origin.__name__ == "Callable":
        return _LAYER if args and args[-1] is not str and _is_layer(args) else _FUNCTION
    return {"anyOf": [{"$ref": "#/$defs/used"}, {"type": ["string", "number", "boolean", "object", "array"]}]}


_LAYER = {"$ref": "#/$defs/used"}


def _is_layer(args: tuple[Any, ...]) -> bool:
    """Whether a function is one from app to app."""
    return typing.get_origin(args[-1]) is not None and "Scope" not in str(args[0]) and "Exchange" not in str(args[0])


def _defined(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # it may hold itself
        definitions[kind.__name__] = _object(kind, definitions)
    return {"anyOf": [{"$ref": f"#/$defs/{kind.__name__}"}, {"$ref": "#/$defs/used"}]}


@lru_cache(maxsize=256)
def _documented(kind: type) -> dict[str, str]:
    """The words below the fields of a class, and below those of what it is based on."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for pair in pairwise(body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as words)):
                    found[name] = " ".join(words.split())
    return found
