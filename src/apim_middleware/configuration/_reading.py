"""From plain data to values, by the annotations of what they are given to.

A table says what it is with ``use``; where only one class can be meant it need not. ``{ref = "name"}`` is an object the
program brings along, ``{import = "module:name"}`` one of a module. Functions are texts, as in ``by = "by.client"``.
"""

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Union

from apim_middleware._config import describe, matches, shown
from apim_middleware.configuration._catalogue import UnknownName, imported, named
from apim_middleware.configuration._functions import NotAFunction, function_of
from apim_middleware.errors import ConfigError

_UNCHECKED = (TypeError, ValueError, ArithmeticError, AttributeError, OSError)
"""What classes raise that do not check what they are given."""


class Reader:
    """Reads values, with the objects a program brings along."""

    def __init__(self, brought: Mapping[str, object]) -> None:
        """``brought`` are the objects that ``ref`` may name."""
        self._brought = brought

    def value(self, given: Any, wanted: Any, where: str) -> Any:  # noqa: ANN401 - whatever is wanted
        """The value that plain data means where something is wanted. Raises ConfigError, which says where."""
        if isinstance(given, dict) and (special := self._special(given, wanted, where)) is not None:
            return special
        arms = typing.get_args(wanted) if typing.get_origin(wanted) in (Union, types.UnionType) else (wanted,)
        for arm in sorted(arms, key=lambda each: not _suits(given, each)):
            return self._as(given, arm, where)
        raise AssertionError("an annotation has arms")

    def _special(self, given: dict[str, Any], wanted: Any, where: str) -> Any:  # noqa: ANN401 - whatever is wanted
        if given.keys() == {"ref"}:
            if not isinstance(given["ref"], str) or given["ref"] not in self._brought:
                raise _mistake(where, given["ref"], "is no object the program brings along", "Give it in names=")
            return self._brought[given["ref"]]
        try:
            if given.keys() == {"import"}:
                return imported(str(given["import"]))
            if "use" in given:
                kind = named(str(given["use"]))
                return self._made(kind, {key: each for key, each in given.items() if key != "use"}, where)
        except UnknownName as error:
            raise _mistake(where, given, f"cannot be used: {str(error).rstrip('.')}", "Name what there is") from None
        return None

    def _as(self, given: Any, wanted: Any, where: str) -> Any:  # noqa: ANN401 - whatever is wanted
        origin, args = typing.get_origin(wanted), typing.get_args(wanted)
        if isinstance(given, list) and (origin in (tuple, frozenset) or _is_collection(origin)):
            return self._several(given, origin, args, where)
        if isinstance(given, dict):
            if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
                return self._made(wanted, given, where)
            if _is_mapping(origin):
                return {key: self.value(each, args[1], f"{where}.{key}") for key, each in given.items()}
            if wanted is Any or wanted is object:
                return given
            raise _mistake(where, given, f"stands where {describe(wanted)} is wanted", 'Say what it is: use = "..."')
        if isinstance(given, str) and _is_function(wanted):
            return self._function(given, where)
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

    def _function(self, text: str, where: str) -> Callable[..., Any]:
        try:
            return function_of(text)
        except NotAFunction as error:
            cure = 'Write "by.client" or "conditions.path(\'/admin/*\')", or {import = "module:name"}'
            raise _mistake(where, text, f"is no key and no condition: {error}", cure) from None

    def _made(self, kind: Any, given: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - one of the kind
        hints, several = parameters_of(kind)
        positional: list[Any] = []
        if several in given:
            if not isinstance(given[several], list):
                raise _mistake(f"{where}.{several}", given[several], "is no list", "Give a list")
            positional = list(self.value(given[several], _tuple_of(hints[several]), f"{where}.{several}"))
        read = {
            name: self.value(each, hints.get(name, Any), f"{where}.{name}")
            for name, each in given.items()
            if name != several
        }
        try:
            return kind(*positional, **read)
        except ConfigError as error:
            if error.args and where in str(error):
                raise
            problem = f"{error.problem} (at {where})"
            raise ConfigError(error.policy, error.field, problem, error.cure) from None
        except _UNCHECKED as error:
            raise ConfigError(kind.__name__, "", f"{error} (at {where})", "See its documentation") from None


def parameters_of(kind: Any) -> tuple[dict[str, Any], str]:  # noqa: ANN401 - a class
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


def _tuple_of(hint: Any) -> Any:  # noqa: ANN401 - an annotation
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
        return _is_mapping(origin) or dataclasses.is_dataclass(wanted)
    if origin is Literal or wanted in (str, int, float, bool, type(None)):
        return matches(given, wanted)
    return isinstance(given, str) and (_is_function(wanted) or wanted in (datetime, bytes))


def _is_function(wanted: Any) -> bool:  # noqa: ANN401 - an annotation
    origin = typing.get_origin(wanted)
    return isinstance(origin, type) and origin.__module__ == "collections.abc" and origin.__name__ == "Callable"


def _is_collection(origin: Any) -> bool:  # noqa: ANN401 - of an annotation
    return isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, Mapping)


def _is_mapping(origin: Any) -> bool:  # noqa: ANN401 - of an annotation
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _moment(text: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _mistake(where, text, "is no moment", 'Write "2026-12-31T00:00:00Z"') from None


def _mistake(where: str, given: object, problem: str, cure: str) -> ConfigError:
    what = f"a table of {', '.join(given)}" if isinstance(given, dict) else shown(given)  # whose values may be secrets
    return ConfigError(where, "", f"{what} {problem}", cure)
