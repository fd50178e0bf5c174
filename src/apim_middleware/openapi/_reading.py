"""A document as it comes, text, bytes, a file or a dict, as plain JSON values: bounded, and copied."""

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NoReturn

from apim_middleware._config import shown
from apim_middleware._yaml import NotYAML, parse
from apim_middleware.errors import ConfigError
from apim_middleware.openapi._places import Place, below, kind_of, mistake

DEEPEST = 100
"""How deep values may be nested: deeper than any document that people wrote, and far from any limit of Python."""

MOST_VALUES = 1_000_000
"""How many values there may be, aliases of YAML counted as often as they are used."""

_START = "#"
_JSON_OR_YAML = 'Give an OpenAPI document in JSON or YAML: its text, its bytes, Path("openapi.json"), or a dict'


def read(document: object, max_bytes: int) -> dict[str, Any]:
    """The document as a dict of its own. Raises ConfigError."""
    if isinstance(document, PurePath):
        document = _file(document, max_bytes)
    if isinstance(document, bytes | bytearray):
        document = _text(bytes(document), max_bytes)
    if isinstance(document, str):
        document = _parsed(document, max_bytes)
    if not isinstance(document, Mapping):
        raise mistake(_START, f"is {kind_of(document)}, not an object", _JSON_OR_YAML)
    copied: dict[str, Any] = _Copying().copy(document, _START, 0)
    return copied


def _file(path: PurePath, max_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a PurePath has no open
            return file.read(max_bytes + 1)
    except OSError as error:
        problem = f"{shown(str(path))} cannot be read: {error.strerror}"
        raise ConfigError("OpenAPI", "document", problem, "Give the path of a document") from error


def _text(data: bytes, max_bytes: int) -> str:
    _check_size(len(data), max_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise mistake(_START, "is not UTF-8", "Save the document as UTF-8") from None


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise mistake(_START, f"is larger than {max_bytes} bytes", "Give max_bytes= room for it, if it can be trusted")


def _parsed(text: str, max_bytes: int) -> object:
    _check_size(len(text), max_bytes)
    if text.lstrip().startswith("{"):
        return _json(text)
    if "\n" not in text and text.endswith((".json", ".yaml", ".yml")):
        raise mistake(_START, f"{shown(text)} is the name of a file", "Write Path(...) around it")
    try:
        return parse(text, DEEPEST, MOST_VALUES)
    except NotYAML as error:
        raise mistake(_START, f"is no YAML that can be read: {error}", _JSON_OR_YAML) from None
    except ImportError:
        cure = 'Install the extra: pip install "apim-middleware[config]", or give JSON'
        raise mistake(_START, "is YAML, which needs a parser", cure) from None


def _json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise mistake(_START, f"is nested more than {DEEPEST} deep", "Put schemas into components") from None
    except ValueError as error:
        raise mistake(_START, f"is no JSON: {error}", _JSON_OR_YAML) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"an object holds {shown(name)} twice")
        found[name] = value
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


class _Copying:
    """Copies values, and counts them: what is shared, or holds itself, ends at a bound like everything else."""

    def __init__(self) -> None:
        self._left = MOST_VALUES

    def copy(self, value: object, place: Place, depth: int) -> Any:  # noqa: ANN401 - whatever JSON has
        self._left -= 1
        if self._left < 0:
            raise mistake(_START, f"holds more than {MOST_VALUES} values", "Import its parts one by one")
        if depth > DEEPEST:
            raise mistake(place, f"is nested more than {DEEPEST} deep", "Put schemas into components")
        if isinstance(value, Mapping):
            return {
                self._key(name, place): self.copy(each, below(place, str(name)), depth + 1)
                for name, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.copy(each, below(place, number), depth + 1) for number, each in enumerate(value)]
        return _scalar(value, place)

    def _key(self, name: object, place: Place) -> str:
        if not isinstance(name, str):
            raise mistake(place, f"holds the name {shown(name)}, which is no text", 'Write "200", in quotes')
        return str(_scalar(name, place))


def _scalar(value: object, place: Place) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise mistake(place, f"is {value}, which JSON does not have", "Give a number")
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise mistake(place, "holds half a surrogate pair", "Give text that UTF-8 can carry") from None
        return value
    raise mistake(place, f"is a {type(value).__name__}, which JSON does not have", "Give text, or a number")
