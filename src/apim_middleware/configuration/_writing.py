"""From values to plain data, so that reading it gives equal values again; what cannot be written is refused."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from apim_middleware.configuration._catalogue import UnknownName, imported, named
from apim_middleware.configuration._functions import text_of
from apim_middleware.configuration._reading import parameters_of
from apim_middleware.errors import ConfigError
from apim_middleware.policy import Stack


class Writer:
    """Writes values; objects the program brings along are written by their names."""

    def __init__(self, brought: Mapping[str, object], *, secrets: bool) -> None:
        """``brought`` are the objects that ``ref`` may name; ``secrets`` says whether to write what may be one."""
        self._brought = {id(each): name for name, each in brought.items()}
        self._secrets = secrets

    def value(self, given: object, where: str, *, exactly: object = None) -> Any:  # noqa: ANN401 - plain data
        """The plain data of a value; ``exactly`` is the class it must be of where it stands. Raises ConfigError."""
        if id(given) in self._brought:
            return {"ref": self._brought[id(given)]}
        if given is None or isinstance(given, str | int | float | bool | datetime):
            return given
        if isinstance(given, bytes):
            return given.decode()
        if isinstance(given, tuple | list):
            return [self.value(each, f"{where}[{at}]", exactly=exactly) for at, each in enumerate(given)]
        if isinstance(given, frozenset | set):
            return sorted(self.value(each, where) for each in given)
        if isinstance(given, Mapping):
            return {key: self.value(each, f"{where}.{key}") for key, each in given.items()}
        if dataclasses.is_dataclass(given) and not isinstance(given, type):
            return self._table(given, where, exactly=exactly)
        if isinstance(given, Stack) and given.env is None:
            place = {"place": given.place} if given.place else {}
            return {"use": "Stack", "layers": self.value(given.layers, f"{where}.layers"), **place}
        if callable(given) and (text := text_of(given)) is not None:
            return text
        return self._imported(given, where)

    def _table(self, given: Any, where: str, *, exactly: object) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
        kind = type(given)
        table: dict[str, Any] = {} if kind is exactly else {"use": self._name(kind, where)}
        hints, several = parameters_of(kind)
        for field in dataclasses.fields(given):
            value = getattr(given, field.name)
            if (not field.init and field.name != several) or _is_default(field, value, given):
                continue
            if not (field.repr or self._secrets) and isinstance(value, str | bytes):
                cure = "Keep it where files can refer to it, or write secrets=True if it is none"
                raise ConfigError(kind.__name__, field.name, f"may hold a secret (at {where})", cure)
            only = _only_class(hints.get(field.name))
            table[field.name] = self.value(value, f"{where}.{field.name}", exactly=only)
        return table

    def _name(self, kind: type, where: str) -> str:
        try:
            if named(str(kind.__name__)) is kind:
                return str(kind.__name__)
        except UnknownName:
            pass
        problem = f"is a {kind.__name__}, which has no name in files"
        raise ConfigError(where, "", problem, "Name the object in names=, or write {import = ...} by hand")

    def _imported(self, given: Any, where: str) -> dict[str, str]:  # noqa: ANN401 - any object
        """A function or class of a module, by where it is found."""
        reference = f"{getattr(given, '__module__', '')}:{getattr(given, '__qualname__', '')}"
        try:
            if imported(reference) is given:
                return {"import": reference}
        except UnknownName:
            pass
        problem = f"is a {type(given).__name__}, which cannot be written"
        raise ConfigError(where, "", problem, "Name the object in names=, here and when it is read")


def _is_default(field: dataclasses.Field[Any], value: object, owner: object) -> bool:
    if field.default is not dataclasses.MISSING:
        same: bool = value is field.default or (type(value) is type(field.default) and value == field.default)
        return same or _made_up(owner, field.name, value)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False


def _made_up(owner: Any, name: str, value: object) -> bool:  # noqa: ANN401 - a dataclass
    """Whether a value was made of others because it was not given, as the names of operations are."""
    fresh = {
        each.name: getattr(owner, each.name)
        for each in dataclasses.fields(owner)
        if each.init and each.name != name and each.default is dataclasses.MISSING
    }
    try:
        return bool(getattr(type(owner)(**fresh), name) == value)
    except (ConfigError, TypeError):
        return False


def _only_class(hint: Any) -> object:  # noqa: ANN401 - an annotation
    """The class of what stands in a field, where it can be of one only."""
    kinds = {each for each in _leaves(hint) if each not in (type(None), Ellipsis)}
    found = kinds.pop() if len(kinds) == 1 else None
    return found if dataclasses.is_dataclass(found) else None


def _leaves(hint: Any) -> list[Any]:  # noqa: ANN401 - an annotation
    args = typing.get_args(hint)
    if not args or (isinstance(typing.get_origin(hint), type) and typing.get_origin(hint) is Callable):
        return [hint]
    return [leaf for each in args for leaf in _leaves(each)]
