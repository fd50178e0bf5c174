"""The JSON Schema of gateway files, for editors and for whoever checks files before they are used."""

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, Union

from apim_middleware.configuration._catalogue import named, names
from apim_middleware.configuration._reading import in_pairs, is_mapping, pair_of, parameters_of, tuple_of
from apim_middleware.gateway.app import Gateway

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_WORDS = {
    "ref": "The name of an object the program brings along.",
    "import": "An object of a module, as module:name.",
    "function": "A key or a condition, where a text would be one.",
    "base64": "Bytes, where a text would be one, or there is none that means them.",
}
_OWN = {
    "type": "object",
    "description": "A class of your own, as module:Class, with its fields.",
    "properties": {"use": {"type": "string", "pattern": "^[^:]+:[^:]+$"}},
    "required": ["use"],
}
_FUNCTION = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/function"}, {"$ref": "#/$defs/used"}]}
_BYTES = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/base64"}]}


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) of what ``load`` reads, with what is said of its fields where they are made."""
    definitions: dict[str, Any] = {word: _exactly(word, meaning) for word, meaning in _WORDS.items()}
    found = _object(Gateway, definitions)
    for name in names():
        definitions[f"use-{name}"] = _used(name, definitions)
    usable = [{"$ref": f"#/$defs/use-{name}"} for name in names()]
    definitions["own"] = _OWN
    words = [{"$ref": f"#/$defs/{word}"} for word in ("own", "ref", "import")]
    definitions["used"] = {"anyOf": [*usable, *words]}
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
        wanted = tuple_of(hint) if name == several else hint
        said = words.get(name) or _mentioned(kind, name)
        properties[name] = {**_schema(wanted, definitions), **({"description": said} if said else {})}
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
    if hint is bytes:
        return _BYTES
    if hint is datetime:
        return {"type": "string", "format": "date-time"}
    if is_mapping(hint):
        table = {"type": "object", "additionalProperties": _schema(args[1], definitions)}
        pairs = {"type": "array", "items": _schema(pair_of(hint), definitions)} if in_pairs(hint) else None
        return {"anyOf": [table, pairs]} if pairs else table
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return {"type": "array", "prefixItems": [_schema(each, definitions) for each in args], "items": False}
    if isinstance(origin, type) and issubclass(origin, Collection):
        return {"type": "array", "items": _schema(args[0], definitions)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _defined(hint, definitions)
    if isinstance(origin, type) and origin.__name__ == "Callable":
        return _LAYER if args and _is_layer(args[0]) else _FUNCTION
    return {"anyOf": [{"$ref": "#/$defs/used"}, {"type": ["string", "number", "boolean", "object", "array"]}]}


_LAYER = {"$ref": "#/$defs/used"}


def _is_layer(parameters: Any) -> bool:  # noqa: ANN401 - annotations
    """Whether a function is one from app to app."""
    if not isinstance(parameters, list) or len(parameters) != 1:
        return False
    return getattr(typing.get_origin(parameters[0]), "__name__", "") == "Callable"


def _defined(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # it may hold itself
        definitions[kind.__name__] = _object(kind, definitions)
    return {"anyOf": [{"$ref": f"#/$defs/{kind.__name__}"}, {"$ref": "#/$defs/used"}]}


def _documented(kind: type) -> dict[str, str]:
    """The words below the fields of a class, and below those of what it is based on."""
    return {name: words for each in reversed(kind.__mro__) for name, words in _documented_in(each).items()}


@lru_cache(maxsize=256)
def _documented_in(kind: type) -> dict[str, str]:
    """The words below the fields that a class has itself."""
    found: dict[str, str] = {}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError, SyntaxError):
        return found
    for pair in pairwise(tree.body if isinstance(tree, ast.ClassDef) else []):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as words)):
                found[name] = " ".join(words.split())
    return found


def _mentioned(kind: Any, name: str) -> str:  # noqa: ANN401 - a class
    """The sentences about a parameter in what is said of its class and of how one is made."""
    told = f"{kind.__doc__ or ''}\n\n{kind.__init__.__doc__ or ''}"
    said = (" ".join(part.split()) for part in re.split(r"(?<=\.)\s+|\n\s*\n", told))
    return " ".join(each for each in said if f"``{name}``" in each)
