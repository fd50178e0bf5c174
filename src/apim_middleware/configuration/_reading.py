"""From plain data to values, by the annotations of what they are given to.

A table says what it is with ``use``, a public name of ours or ``module:Class``; where only one class can be meant it
need not. ``{ref = "name"}`` is an object the program brings along, ``{import = "module:name"}`` one of a module.
Functions are texts, as in ``by = "by.client"``, and bytes too; where a text can stand itself, they are
``{function = "..."}`` and ``{base64 = "..."}``.
"""

import base64
import binascii
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from apim_middleware._annotations import arms_of, describe, is_key, matches
from apim_middleware._config import check_known, in_one_line, shown
from apim_middleware._spelling import condition_named, key_named, nearest
from apim_middleware.configuration._catalogue import UnknownName, imported, named
from apim_middleware.configuration._functions import NotAFunction, function_of
from apim_middleware.configuration._keeping import Kept
from apim_middleware.errors import ConfigError

_UNCHECKED = (TypeError, ValueError, ArithmeticError, AttributeError, NameError, OSError)
"""What classes raise that do not check what they are given."""


class Placed(ConfigError):
    """A mistake that says where it is."""


class Reader:
    """Reads values, with the objects a program brings along."""

    def __init__(self, brought: Mapping[str, object], kept: Kept) -> None:
        """``brought`` are the objects that ``ref`` may name; ``kept`` are those of the gateway this one follows."""
        self._brought = brought
        self._kept = kept
        self._read: list[tuple[object, str]] = []

    def value(self, given: Any, wanted: Any, where: str) -> Any:  # noqa: ANN401 - whatever is wanted
        """The value that plain data means where something is wanted. Raises ConfigError, which says where."""
        word = saying(given, wanted) if isinstance(given, dict) else ""
        return self._said(word, given, where) if word else self._as(given, arm_of(given, wanted), where)

    def _said(self, word: str, given: dict[str, Any], where: str) -> Any:  # noqa: ANN401 - whatever it says
        match word:
            case "ref":
                return self._ref(given["ref"], where)
            case "function":
                return self._function(given["function"], where)
            case "base64":
                return _bytes(given, where)
        try:
            if word == "import":
                return imported(str(given["import"]))
            kind = named(str(given["use"]))
        except UnknownName as error:
            raise _mistake(where, given, f"cannot be used: {error}", error.cure) from None
        fields = {key: each for key, each in given.items() if key != "use"}
        if kind.__eq__ is object.__eq__:
            return self._kept.of(given, lambda: self._made(kind, fields, where))
        return self._made(kind, fields, where)

    def _ref(self, name: Any, where: str) -> object:  # noqa: ANN401 - plain data
        if not isinstance(name, str) or name not in self._brought:
            cure = "Give it in names=, or on the command line with --names module:attribute"
            raise _mistake(where, name, "is no object the program brings along", cure)
        return self._brought[name]

    def _as(self, given: Any, wanted: Any, where: str) -> Any:  # noqa: ANN401 - whatever is wanted
        origin, args = typing.get_origin(wanted), typing.get_args(wanted)
        if isinstance(given, list) and (origin in (tuple, frozenset) or _is_collection(origin)):
            return self._several(given, origin, args, where)
        if isinstance(given, list) and in_pairs(wanted):
            return self._pairs(given, pair_of(wanted), where)
        if isinstance(given, dict):
            if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
                return self._made(wanted, given, where)
            if is_mapping(wanted):
                return {key: self.value(each, args[1], f"{where}.{key}") for key, each in given.items()}
            if wanted is Any or wanted is object:
                return given
            cure = f'Write use = "{given["import"]}"' if "import" in given else 'Say what it is: use = "..."'
            raise _mistake(where, given, f"stands where {describe(wanted)} is wanted", cure)
        if isinstance(given, str) and _is_function(wanted):
            return self._function(given, where, key=is_key(wanted))
        if isinstance(given, str) and wanted is datetime:
            return _moment(given, where)
        if isinstance(given, str) and wanted is bytes:
            return given.encode()
        if isinstance(given, list) and wanted is not Any and wanted is not object:
            raise _mistake(where, given, f"is a list, and {describe(wanted)} is wanted", f"Give {describe(wanted)}")
        return given

    def _several(self, given: list[Any], origin: Any, args: tuple[Any, ...], where: str) -> Any:  # noqa: ANN401
        if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
            if len(given) != len(args):
                raise _mistake(where, given, f"has not {len(args)} parts", f"Give {len(args)}")
            kinds: Sequence[Any] = args
        else:
            kinds = [args[0] if args else Any] * len(given)
        read = [
            self.value(each, kind, f"{where}[{at}]") for at, (each, kind) in enumerate(zip(given, kinds, strict=True))
        ]
        return frozenset(read) if origin is frozenset else tuple(read)

    def _pairs(self, given: list[Any], wanted: Any, where: str) -> dict[Any, Any]:  # noqa: ANN401 - of one pair
        found: dict[Any, Any] = {}
        for at, pair in enumerate(given):
            key, value = self._pair(pair, wanted, f"{where}[{at}]")
            if key in found:
                raise _mistake(f"{where}[{at}]", key, "stands twice", "Write it once")
            found[key] = value
        return found

    def _pair(self, given: Any, wanted: Any, where: str) -> Any:  # noqa: ANN401 - a key and what it leads to
        if not isinstance(given, list):
            raise _mistake(where, given, "is no pair of a key and a value", "Write [[key, value], ...]")
        return self.value(given, wanted, where)

    def _function(self, text: Any, where: str, *, key: bool = False) -> Callable[..., Any]:  # noqa: ANN401
        """The function that a text means; ``key`` is whether one of ``by`` is wanted."""
        try:
            return function_of(str(text))
        except NotAFunction as error:
            named = key_named(str(text)) if key else None
            meant = "'{}'" if named and '"' in named else '"{}"'  # as TOML has it
            cure = 'Write "by.client" or "conditions.path(\'/admin/*\')", or {import = "module:name"}'
            meant_by_it = named or (None if key else condition_named(text, "'"))
            cure = f"Write {meant.format(meant_by_it)}" if meant_by_it else cure
            raise _mistake(where, text, f"is no key and no condition: {error}", cure) from None
        except ConfigError as error:
            raise _placed(error, where) from None

    def _made(self, kind: Any, given: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - one of the kind
        try:
            made = self._built(kind, given, where)
        except Placed:
            raise
        except ConfigError as error:
            raise _placed(error, self._place_of(error, kind) or where) from None
        except Exception as error:  # whatever a class of their own raises
            said = in_one_line(error)
            said = said if isinstance(error, _UNCHECKED) else f"{type(error).__name__}: {said}"
            raise Placed(kind.__name__, "", f"{said} (at {where})", "See its documentation") from None
        self._read.append((made, where))
        return made

    def _built(self, kind: Any, given: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - one of the kind
        hints, several = parameters_of(kind)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            check_known(kind.__name__, given, hints)
        else:
            _check_arguments(kind, given)
        positional: list[Any] = []
        if several in given:
            if not isinstance(given[several], list):
                raise _mistake(f"{where}.{several}", given[several], "is no list", "Give a list")
            positional = list(self.value(given[several], tuple_of(hints[several]), f"{where}.{several}"))
        read = {
            name: self.value(each, hints.get(name, Any), f"{where}.{name}")
            for name, each in given.items()
            if name != several
        }
        return kind(*positional, **read)

    def _place_of(self, error: ConfigError, kind: type) -> str:
        """Where that stands which was fine by itself, but not for what it was given to; empty where nobody knows."""
        others = self._read if error.policy != kind.__name__ else ()
        return next((place for value, place in others if _speaks_of(error, value)), "")


def _check_arguments(kind: Any, given: Mapping[str, Any]) -> None:  # noqa: ANN401 - a class
    """Refuse what a class does not take that is no dataclass, such as a store, and what it does not go without."""
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    names = [each.name for each in parameters]
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    for name in given:
        if name not in names:
            near = nearest(name, names)
            cure = f"It has {', '.join(names)}"
            raise ConfigError(
                kind.__name__, name, "no such argument", f"{cure}: did you mean {near}?" if near else cure
            )
    for each in parameters:
        if each.default is each.empty and each.kind is not each.VAR_POSITIONAL and each.name not in given:
            raise ConfigError(kind.__name__, each.name, "is missing", f"Give {each.name}")


def _speaks_of(error: ConfigError, value: object) -> bool:
    """Whether a mistake is about a value: it tells its name, or what stands in one of its fields."""
    kind = type(value).__name__
    if error.policy == f"{kind} {getattr(value, 'name', '')}":
        return True
    return error.policy == kind and error.problem.startswith(shown(getattr(value, error.field, None)))


def saying(given: Mapping[Any, Any], wanted: Any) -> str:  # noqa: ANN401 - an annotation
    """The word by which a table says what it is, where something is wanted; empty for one that says nothing."""
    arms = arms_of(wanted)
    word = next(iter(given)) if len(given) == 1 else ""
    if word in ("ref", "import"):
        return str(word)
    if (word == "base64" and bytes in arms) or (word == "function" and any(map(_is_function, arms))):
        return str(word)
    plain = any(map(is_mapping, arms))  # such as a JWK, which may have a ``use`` of its own
    return "use" if "use" in given and not plain else ""


def arm_of(given: Any, wanted: Any) -> Any:  # noqa: ANN401 - plain data, annotations
    """The one of several annotations that plain data can be meant for; the first, when there is none."""
    arms = arms_of(wanted)
    return next((arm for arm in arms if _suits(given, arm)), arms[0])


def in_pairs(wanted: Any) -> bool:  # noqa: ANN401 - an annotation
    """Whether a mapping has keys that are no texts, and can be written as a list of pairs."""
    return is_mapping(wanted) and typing.get_args(wanted)[0] is not str


@lru_cache(maxsize=256)
def parameters_of(kind: Any) -> tuple[Mapping[str, Any], str]:  # noqa: ANN401 - a class
    """What a class can be given, with annotations; and the name under which it takes any number of values, if any."""
    if (dataclasses.is_dataclass(kind) and "__init__" not in vars(kind)) or _is_generated(kind):
        hints = typing.get_type_hints(kind)
        return {each.name: hints[each.name] for each in dataclasses.fields(kind) if each.init}, ""
    signature = inspect.signature(kind.__init__)
    hints = {name: _hint(kind, each.annotation) for name, each in list(signature.parameters.items())[1:]}
    several = next((each.name for each in signature.parameters.values() if each.kind is each.VAR_POSITIONAL), "")
    return hints, several


def _hint(kind: type, annotation: Any) -> Any:  # noqa: ANN401 - an annotation
    """What a parameter takes; anything, where that is known to the type checker alone."""
    try:
        space = vars(sys.modules[kind.__module__])
        return typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": annotation}), space)["it"]
    except (NameError, TypeError):
        return Any


def pair_of(wanted: Any) -> Any:  # noqa: ANN401 - annotations
    """The annotation of a pair in a mapping: a key, and what it leads to."""
    return types.GenericAlias(tuple, typing.get_args(wanted))


def tuple_of(hint: Any) -> Any:  # noqa: ANN401 - an annotation
    """The annotation of a tuple of any number of what another annotation means."""
    return types.GenericAlias(tuple, (hint, Ellipsis))


def _is_generated(kind: Any) -> bool:  # noqa: ANN401 - a class
    """Whether the constructor was made by ``dataclass``."""
    parameters = getattr(kind, "__dataclass_params__", None)
    return parameters is not None and bool(parameters.init)


def _suits(given: Any, wanted: Any) -> bool:  # noqa: ANN401 - plain data
    """Whether plain data can be meant for one arm of a union."""
    origin = typing.get_origin(wanted)
    if isinstance(given, list):
        return origin in (tuple, frozenset) or _is_collection(origin)
    if isinstance(given, dict):
        return is_mapping(wanted) or dataclasses.is_dataclass(wanted)
    if origin is Literal or wanted in (str, int, float, bool, type(None)):
        return matches(given, wanted)
    return isinstance(given, str) and (_is_function(wanted) or wanted in (datetime, bytes))


def _is_function(wanted: Any) -> bool:  # noqa: ANN401 - an annotation
    origin = typing.get_origin(wanted)
    return isinstance(origin, type) and origin.__module__ == "collections.abc" and origin.__name__ == "Callable"


def _is_collection(origin: Any) -> bool:  # noqa: ANN401 - of an annotation
    return isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, Mapping)


def is_mapping(wanted: Any) -> bool:  # noqa: ANN401 - an annotation
    """Whether it is that of a mapping, whose keys and values have annotations too."""
    origin = typing.get_origin(wanted)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _bytes(given: dict[str, Any], where: str) -> bytes:
    try:
        return base64.b64decode(given["base64"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise _mistake(where, given, "holds no base64", "Write the bytes in base64") from None


def _moment(text: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _mistake(where, text, "is no moment", 'Write "2026-12-31T00:00:00Z"') from None


def _mistake(where: str, given: object, problem: str, cure: str) -> Placed:
    what = f"a table of {', '.join(given)}" if isinstance(given, dict) else shown(given)  # whose values may be secrets
    return Placed(where, "", f"{what} {problem}", cure)


def _placed(error: ConfigError, where: str) -> Placed:
    return Placed(error.policy, error.field, f"{error.problem} (at {where})", error.cure)
