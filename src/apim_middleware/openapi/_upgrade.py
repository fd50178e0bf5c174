"""Schemas of OpenAPI 3.0 as 3.1 says them: JSON Schema 2020-12 instead of a dialect of its own."""

from typing import Any

_BOUNDS = (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))


def upgraded(schema: dict[str, Any]) -> dict[str, Any]:
    """One schema, without those in it; what is given is changed."""
    for bound, exclusive in _BOUNDS:
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)
    if "example" in schema:
        schema.setdefault("examples", [schema.pop("example")])
    _files(schema)
    kind, nullable = schema.get("type"), schema.pop("nullable", False)
    if nullable is True and isinstance(kind, str):  # without a type it means nothing (OpenAPI 3.0.4 §4.8.24)
        schema["type"] = [kind, "null"]
    return schema


def _files(schema: dict[str, Any]) -> None:
    if schema.get("format") == "byte":
        del schema["format"]
        schema["contentEncoding"] = "base64"
    elif schema.get("format") == "binary":
        del schema["format"]
        schema["contentMediaType"] = "application/octet-stream"
