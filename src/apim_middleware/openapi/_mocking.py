"""Answers made of what a document says of them: an example, else a sample of a schema."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, takewhile
from typing import Any, Final, TypeAlias

from apim_middleware.openapi._checking import resolve
from apim_middleware.openapi._places import Place, below, mistake
from apim_middleware.policies.answers import MockResponse

MOST_SAMPLED = 500
"""How many schemas a sample is made of."""

MOST_LOOKED_AT = 100_000
"""How many schemas, and examples elsewhere, all samples of a document may take together."""

_DEEPEST = 10
_NOTHING: Final = object()
"""There is no value, which is not the value null."""

_SUCCESS = re.compile(r"2(?:[0-9]{2}|XX)")
_BODILESS = (204, 205)
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(?:;[ -~]*)?", re.IGNORECASE)
_JSON = re.compile(r"[^;]+[/+]json *(?:;.*)?", re.IGNORECASE)
_RANGES = ("*/*", "application/*")
_PLAIN = {"string": "string", "integer": 0, "number": 0, "boolean": True, "null": None}
_FORMATS = {
    "binary": "",
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "email": "somebody@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class Mocks:
    """The mocked answers of one document, which have a bound together: many may be made of one example."""

    def __init__(self, root: Mapping[str, Any], max_bytes: int) -> None:
        """Nothing has been made yet."""
        self._root = root
        self._most = self._left = max_bytes
        self._looks = MOST_LOOKED_AT
        self._values: dict[tuple[int, _ValueOf], object] = {}  # of media types that several responses have

    def answer(self, operation: Mapping[str, Any], place: Place) -> MockResponse:
        """The first 2xx response of an operation: an example of it, else a sample, else no body."""
        responses = operation.get("responses", {})
        wanted = next(filter(_SUCCESS.fullmatch, responses), None)
        if wanted is None:
            return MockResponse()
        here = below(place, "responses", wanted)
        response = resolve(self._root, here, "response", responses[wanted])
        status = int(wanted.replace("X", "0"))
        content = {} if status in _BODILESS else response.get("content", {})
        for value_of in (_example, _sample):
            for kind, media in content.items():
                body = self._body(kind, self._value(value_of, media, below(here, "content", kind)), here)
                if body is not None:
                    content_type = "application/json" if kind in _RANGES else kind
                    return MockResponse(status=status, body=body, content_type=content_type)
        return MockResponse(status=status)

    def _value(self, value_of: "_ValueOf", media: Mapping[str, Any], place: Place) -> object:
        """What stands for a media type, made once."""
        known = id(media), value_of  # the document stays
        if known not in self._values:
            self._values[known] = value_of(self, media, place)
        return self._values[known]

    def resolved(self, place: Place, kind: str, value: Any) -> Any:  # noqa: ANN401 - whatever JSON has
        """What a reference means, as often as that may be asked."""
        self._looks -= 1
        if self._looks < 0:
            problem = f"has more than {MOST_LOOKED_AT:,} schemas and examples in its mocked answers"
            raise mistake(place, problem, "Write an example for each response, or leave mock out")
        return resolve(self._root, place, kind, value)

    def _body(self, kind: str, value: object, place: Place) -> str | None:
        """A value as text of a media type; None for one that cannot be written so."""
        if value is _NOTHING or not (kind in _RANGES or _TYPE.fullmatch(kind)):
            return None
        if kind in _RANGES or _JSON.fullmatch(kind):
            return "".join(self._bounded(_ENCODER.iterencode(value), place))
        return "".join(self._bounded((value,), place)) if isinstance(value, str) else None

    def _bounded(self, parts: Iterable[str], place: Place) -> Iterator[str]:
        for part in parts:
            self._left -= len(part)
            if self._left < 0:
                problem = f"makes mocked answers larger than {self._most} together"
                raise mistake(place, problem, "Give max_bytes= room for them")
            yield part


_ValueOf: TypeAlias = Callable[[Mocks, Mapping[str, Any], Place], object]


def _example(mocks: Mocks, media: Mapping[str, Any], place: Place) -> object:
    """What stands as an example; what would have to be fetched does not."""
    if "example" in media:
        return media["example"]
    examples = (mocks.resolved(place, "example", each) for each in media.get("examples", {}).values())
    return next((each["value"] for each in examples if "value" in each), _NOTHING)


def _sample(mocks: Mocks, media: Mapping[str, Any], place: Place) -> object:
    return _Sampling(mocks, place).value(media.get("schema", True), ())


class _Sampling:
    """Makes a value such as a schema describes: of a bounded size, and no schema stands within itself."""

    def __init__(self, mocks: Mocks, place: Place) -> None:
        self._mocks, self._place = mocks, place
        self._left = MOST_SAMPLED

    def value(self, schema: Any, above: tuple[int, ...]) -> Any:  # noqa: ANN401 - whatever JSON has
        schema = self._mocks.resolved(self._place, "schema", schema)
        self._left -= 1
        if not isinstance(schema, dict) or schema.get("writeOnly") is True:
            return _NOTHING
        if id(schema) in above or len(above) >= _DEEPEST:
            return _NOTHING
        said = _said(schema)
        return self._made(schema, (*above, id(schema))) if said is _NOTHING else said

    def _made(self, schema: dict[str, Any], above: tuple[int, ...]) -> Any:  # noqa: ANN401
        found: dict[str, Any] = {}
        either = schema.get("oneOf") or schema.get("anyOf") or []
        for each in self._few(chain(schema.get("allOf", ()), either[:1])):
            part = self.value(each, above)
            if isinstance(part, dict):
                found |= part
            elif part is not _NOTHING:
                return part
        for name, each in self._few(schema.get("properties", {}).items()):
            part = self.value(each, above)
            if part is not _NOTHING:
                found[name] = part
        kind = _kind(schema)
        if found or kind == "object":
            return found
        if kind == "array":
            item = self.value(schema.get("items", True), above)
            return [] if item is _NOTHING else [item]
        return _FORMATS.get(str(schema.get("format")), "string") if kind == "string" else _PLAIN.get(kind, _NOTHING)

    def _few(self, parts: Iterable[Any]) -> Iterator[Any]:
        return takewhile(lambda _: self._left > 0, parts)


def _said(schema: dict[str, Any]) -> Any:  # noqa: ANN401
    """A value that the schema itself names."""
    for name in ("example", "const", "default"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum"):
        if isinstance(schema.get(name), list) and schema[name]:
            return schema[name][0]
    return _NOTHING


def _kind(schema: dict[str, Any]) -> str:
    kinds = schema.get("type", "")
    several = kinds if isinstance(kinds, list) else [kinds]
    return next((str(each) for each in several if each != "null"), "null" if several else "")
