"""Reading and writing whole gateways: TOML, YAML and JSON say the same."""

import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import Any, Literal, TypeAlias

from apim_middleware._config import check
from apim_middleware._yaml import is_plain, parse
from apim_middleware.configuration._keeping import Kept
from apim_middleware.configuration._reading import Reader
from apim_middleware.configuration._writing import Writer
from apim_middleware.errors import ConfigError
from apim_middleware.gateway.app import Gateway

Format: TypeAlias = Literal["toml", "yaml", "json"]

_FORMATS: dict[str, Format] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\$")
_LARGEST = 16 << 20
_DEEPEST = 64
_MOST_VALUES = 1_000_000
"""What YAML may hold, aliases counted as often as they are used."""
_TELLING = 8
"""So many characters of a variable are never shown, nor all of one of 4 and more: it may be a secret."""
_BREAKS = frozenset("\x85\u2028\u2029\ufeff")
"""Characters that YAML folds like line breaks, or drops, where they stand without double quotes."""
_NOTHING: Mapping[str, object] = {}
_KEPT = "kept"
"""Under which a gateway remembers what was made of its tables."""


def load(path: str | Path, *, names: Mapping[str, object] = _NOTHING, after: Gateway | None = None) -> Gateway:
    """The gateway in a file; ``names`` are objects of the program that the file may refer to as ``{ref = "name"}``.

    ``after`` is the gateway it is to follow, as for ``loads``. The ending of the file's name says how it is written.
    ConfigError, also for a file that cannot be read; it names the file.
    """
    found = Path(path)
    format = _FORMATS.get(found.suffix.lower())  # noqa: A001 - what it is
    if format is None:
        raise ConfigError("load", "path", f"{found.name!r} has no ending that is known", "Write .toml, .yaml or .json")
    try:
        with found.open("rb") as file:
            text = file.read(_LARGEST + 1)  # whatever is too large is not read to its end
    except OSError as error:
        raise ConfigError("load", "path", f"{str(found)!r} cannot be read: {error.strerror}", "Give a file") from None
    try:
        return loads(text, format, names=names, after=after)
    except ConfigError as error:
        owner, field = (str(found), "") if error.policy == "loads" else (f"{found}: {error.policy}", error.field)
        raise ConfigError(owner, field, error.problem, error.cure) from None


def loads(
    text: str | bytes,
    format: Format = "toml",  # noqa: A002 - what it is
    *,
    names: Mapping[str, object] = _NOTHING,
    after: Gateway | None = None,
) -> Gateway:
    """The gateway in a text. ``${NAME}`` stands for a variable of the environment, ``$$`` for a dollar.

    ``after`` is the gateway it is to follow, read from a text as well: where tables say the same below the same names,
    the ``Env``, stores, keys and transports of that one are used again, with all they know and hold.

    ConfigError: text that cannot be read, a variable that is not set, and everything a gateway refuses; it says where.
    What a variable holds is in none of them.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > _LARGEST:
        raise ConfigError("loads", "text", "has more than 16 MiB", "Split the gateway")
    variables: dict[str, str] = {}
    document = _filled(_parsed(raw, format), variables, "gateway", 0)
    if not isinstance(document, dict):
        raise ConfigError("loads", "text", "is no table", "Write the fields of a Gateway")
    try:
        kept = Kept(document, names, None if after is None else after.__dict__.get(_KEPT))
        gateway = Reader(names, kept).value(document, Gateway, "gateway")
    except ConfigError as error:
        parts = (error.policy, error.field, error.problem, error.cure)
        raise ConfigError(*(_without_values(part, variables) for part in parts)) from None
    if not isinstance(gateway, Gateway):
        raise ConfigError("loads", "text", f"is a {type(gateway).__name__}", "Write the fields of a Gateway")
    kept.end()
    gateway.__dict__[_KEPT] = kept
    return gateway


def dumps(
    gateway: Gateway,
    format: Format = "toml",  # noqa: A002 - what it is
    *,
    names: Mapping[str, object] = _NOTHING,
    secrets: bool = False,
) -> str:
    """A gateway as text that reads back as an equal one, what has its default left out.

    Objects that are no values, such as stores, are written by the names they have in ``names``, functions of modules as
    ``{import = ...}``; an ``Env``, which is equal to itself alone, by what it was given. ConfigError for what cannot be
    written: other objects, lambdas, and unless ``secrets`` is true, what may be a secret, such as the value of a
    ``SetHeader``.
    """
    check("dumps", "gateway", gateway, Gateway)
    try:
        document = Writer(names, secrets=secrets, moments=format == "toml").value(gateway, Gateway, "gateway")
    except RecursionError:
        raise ConfigError("dumps", "gateway", "is nested too deep", "Make it flatter") from None
    _check_sayable(document, format, "gateway", 0)
    text = _text_of(_escaped(document), format)
    if len(text.encode()) > _LARGEST:
        raise ConfigError("dumps", "gateway", "takes more than 16 MiB", "Split the gateway")
    return text


def _text_of(document: Any, format: Format) -> str:  # noqa: A002, ANN401 - plain data
    if format == "json":
        return json.dumps(document, indent=2) + "\n"
    if format == "yaml":
        yaml = _library("yaml", "dumps")
        return str(yaml.dump(document, Dumper=_quoting_dumper(yaml), sort_keys=False, allow_unicode=True))
    return str(_library("tomli_w", "dumps").dumps(document))


def _parsed(raw: bytes, format: Format) -> Any:  # noqa: A002, ANN401 - plain data
    try:
        if format == "toml":
            return tomllib.loads(raw.decode())
        if format == "json":
            return json.loads(raw, object_pairs_hook=_unique, parse_constant=_no_constant)
        _library("yaml", "loads")
        return parse(raw.decode(), _DEEPEST, _MOST_VALUES)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError("loads", "text", f"is no {format.upper()}: {error}", "Correct it") from None


def _library(name: str, function: str) -> Any:  # noqa: ANN401 - a module
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        problem = f"needs the package {name}"
        raise ConfigError(function, "format", problem, "Install apim-middleware[config]") from None


def _quoting_dumper(yaml: Any) -> Any:  # noqa: ANN401 - a class made of the library's
    """A safe dumper whose texts come back with every character they have, and as texts, whatever version reads them."""

    class Quoting(yaml.SafeDumper):  # type: ignore[misc]
        def represent_str(self, text: str) -> Any:  # noqa: ANN401
            quoted = _BREAKS & set(text) or not is_plain(text)
            return self.represent_scalar("tag:yaml.org,2002:str", text, '"' if quoted else None)

    Quoting.add_representer(str, Quoting.represent_str)
    return Quoting


def _unique(pairs: Iterable[Sequence[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"{key!r} is no name")
        if key in found:
            raise ValueError(f"{key!r} stands twice")
        found[key] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _filled(given: Any, variables: dict[str, str], where: str, depth: int) -> Any:  # noqa: ANN401 - plain data
    """Plain data with the variables of the environment filled in, which are noted."""
    if depth > _DEEPEST:
        raise ConfigError("loads", "text", "is nested too deep", "Make it flatter")
    if isinstance(given, str):
        return _VARIABLE.sub(partial(_variable, variables, where), given)
    if isinstance(given, list):
        return [_filled(each, variables, f"{where}[{at}]", depth + 1) for at, each in enumerate(given)]
    if isinstance(given, dict):
        return {key: _filled(each, variables, f"{where}.{key}", depth + 1) for key, each in given.items()}
    return given


def _variable(variables: dict[str, str], where: str, found: re.Match[str]) -> str:
    if found[1] is None:
        return "$"
    value = os.environ.get(found[1])
    if value is None:
        raise ConfigError(where, "", f"{found[0]} is not set in the environment", "Set it, or write $$ for $")
    variables[found[1]] = value
    return value


def _without_values(text: str, variables: Mapping[str, str]) -> str:
    """A message with the names of variables in the place of what they hold, also where that is cut off."""
    for name, value in variables.items():
        for form in {value, repr(value)[1:-1]} if len(value) >= _TELLING // 2 else ():
            while (at := text.find(form[:_TELLING])) >= 0:
                shared = sum(takewhile(bool, map(eq, text[at:], form)))
                text = f"{text[:at]}\0{text[at + shared :]}"
        text = text.replace("\0", f"${{{name}}}")
    return text


def _escaped(given: Any) -> Any:  # noqa: ANN401 - plain data
    """Plain data with every dollar doubled, as it is read back."""
    if isinstance(given, str):
        return given.replace("$", "$$")
    if isinstance(given, list):
        return [_escaped(each) for each in given]
    if isinstance(given, dict):
        return {key: _escaped(each) for key, each in given.items()}
    return given


def _check_sayable(given: Any, format: Format, where: str, depth: int) -> None:  # noqa: A002, ANN401 - plain data
    """Refuse what would not be read as it is: a None that is no default is one that was asked for."""
    if depth > _DEEPEST:
        raise ConfigError(where, "", "is nested too deep", "Make it flatter")
    if given is None and format == "toml":
        raise ConfigError(where, "", "is None, which TOML cannot say", 'Write it as "yaml" or "json"')
    if isinstance(given, float) and not math.isfinite(given) and format == "json":
        raise ConfigError(where, "", f"is {given}, which JSON cannot say", 'Write it as "toml" or "yaml"')
    if isinstance(given, str) and not given.isascii() and any("\ud800" <= each <= "\udfff" for each in given):
        raise ConfigError(where, "", "holds half a character", "Write the whole of it")
    if isinstance(given, list):
        for at, each in enumerate(given):
            _check_sayable(each, format, f"{where}[{at}]", depth + 1)
    if isinstance(given, dict):
        for key, each in given.items():
            _check_sayable(key, format, where, depth + 1)
            _check_sayable(each, format, f"{where}.{key}", depth + 1)
