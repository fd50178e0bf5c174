"""What an OpenAPI document is made of: which members of which object are of which kind (OpenAPI 3.0.4 and 3.1.1 §4.8).

One table for everybody who walks a document. What it does not name, examples, defaults, extensions, is data: it is
never walked, whatever it looks like.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
"""The members of a Path Item Object that are operations."""


_NONE: Mapping[str, str] = MappingProxyType({})


class Shape(NamedTuple):
    """The members of a kind of object that are walked."""

    one: Mapping[str, str] = _NONE
    """Members that are an object of a kind."""

    many: Mapping[str, str] = _NONE
    """Members that are an array of a kind."""

    named: Mapping[str, str] = _NONE
    """Members that are an object whose members are of a kind."""

    texts: tuple[str, ...] = ()
    """Members that must be text."""

    every: str = ""
    """The kind of all members, whatever their names, but for extensions."""

    reference: bool = True
    """Whether a ``$ref`` may stand in its place."""


_SCHEMA_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_PARTS = (
    "items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "not", "if",
    "then", "else", "contains", "propertyNames", "contentSchema",
)  # fmt: skip
_PARAMETER = Shape({"schema": "schema"}, {}, {"content": "media", "examples": "example"}, ("description",))

SHAPES: dict[str, Shape] = {
    "document": Shape(
        {"info": "info", "components": "components", "paths": "paths", "x-ms-paths": "paths"},
        {"servers": "server", "tags": "tag", "security": "requirement"},
        {"webhooks": "path"},
        ("openapi",),
        reference=False,
    ),
    "info": Shape(texts=("title", "summary", "description", "version"), reference=False),
    "tag": Shape(texts=("name", "description"), reference=False),
    "server": Shape(named={"variables": "variable"}, texts=("url", "description"), reference=False),
    "variable": Shape(texts=("default",), reference=False),
    "requirement": Shape(reference=False),
    "components": Shape(
        named={
            "schemas": "schema", "responses": "response", "parameters": "parameter", "examples": "example",
            "requestBodies": "body", "headers": "header", "securitySchemes": "scheme", "links": "link",
            "callbacks": "callback", "pathItems": "path",
        },
        reference=False,
    ),
    "paths": Shape(every="path", reference=False),
    "path": Shape(
        dict.fromkeys(METHODS, "operation"), {"parameters": "parameter", "servers": "server"}, {},
        ("summary", "description"),
    ),
    "operation": Shape(
        {"requestBody": "body", "responses": "responses"},
        {"parameters": "parameter", "servers": "server", "security": "requirement"},
        {"callbacks": "callback"},
        ("operationId", "summary", "description"),
        reference=False,
    ),
    "responses": Shape(every="response", reference=False),
    "parameter": _PARAMETER._replace(texts=("name", "in", "description")),
    "header": _PARAMETER,
    "body": Shape(named={"content": "media"}, texts=("description",)),
    "response": Shape(named={"headers": "header", "content": "media", "links": "link"}, texts=("description",)),
    "media": Shape({"schema": "schema"}, {}, {"examples": "example", "encoding": "encoding"}, reference=False),
    "encoding": Shape(named={"headers": "header"}, reference=False),
    "example": Shape(),
    "link": Shape({"server": "server"}, texts=("operationRef", "operationId", "description")),
    "callback": Shape(every="path"),
    "scheme": Shape(texts=("type", "description", "name", "in", "scheme", "bearerFormat", "openIdConnectUrl")),
    "schema": Shape(
        dict.fromkeys(_SCHEMA_PARTS, "schema"),
        dict.fromkeys(_SCHEMA_LISTS, "schema"),
        dict.fromkeys(_SCHEMA_MAPS, "schema"),
        ("title", "description"),
    ),
}  # fmt: skip

SECTIONS = {kind: section for section, kind in SHAPES["components"].named.items()}
"""The member of the Components Object that keeps objects of a kind."""


class Member(NamedTuple):
    """A part of an object: the names that lead to it, and its kind."""

    names: tuple[str | int, ...]
    kind: str
    value: Any


def members(kind: str, value: dict[str, Any]) -> Iterator[Member]:
    """The parts of an object of a kind, as far as they are what they should be; others are left out."""
    shape = SHAPES[kind]
    for name, each in value.items():
        if name in shape.one:
            yield from _one(shape.one[name], name, each)
        elif name in shape.many:
            if isinstance(each, list):
                yield from (Member((name, number), shape.many[name], part) for number, part in enumerate(each))
        elif name in shape.named:
            if isinstance(each, dict):
                yield from (Member((name, called), shape.named[name], part) for called, part in each.items())
        elif shape.every and not name.startswith("x-"):
            yield Member((name,), shape.every, each)


def _one(kind: str, name: str, value: object) -> Iterator[Member]:
    if kind == "schema" and isinstance(value, list):  # "items" before 2020-12
        yield from (Member((name, number), kind, part) for number, part in enumerate(value))
    else:
        yield Member((name,), kind, value)


def is_reference(kind: str, value: object) -> bool:
    """Whether something else stands in the place of this object. A property of that name is not one."""
    return SHAPES[kind].reference and isinstance(value, dict) and isinstance(value.get("$ref"), str)
