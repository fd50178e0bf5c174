"""From values to plain data, so that reading it gives equal values again; what cannot be written is refused."""

import base64
import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import PurePath
from typing import Any

from apim_middleware._alike import alike
from apim_middleware.configuration._catalogue import UnknownName, named
from apim_middleware.configuration._functions import text_of
from apim_middleware.configuration._keeping import Kept
from apim_middleware.configuration._reading import (
    Reader,
    arm_of,
    in_pairs,
    is_mapping,
    pair_of,
    parameters_of,
    saying,
    tuple_of,
)
from apim_middleware.configuration._secrets import is_public
from apim_middleware.env import Env, default_env
from apim_middleware.errors import ConfigError
from apim_middleware.policy import Stack
from apim_middleware.proxy.members import Member, Members

_BY_NAME = "Name the object in names=, here and when it is read"
_PUBLISHED = ("document",)
"""Fields that are left out of reprs for their length alone."""


class Writer:
    """Writes values; objects the program brings along are written by their names."""

    def __init__(self, brought: Mapping[str, object], *, secrets: bool, moments: bool) -> None:
        """``brought`` are the objects that ``ref`` may name; ``secrets`` says whether to write what may be one.

        ``moments`` says whether they can be written as they are, and not as text alone.
        """
        self._brought = {id(each): name for name, each in brought.items()}
        self._secrets, self._moments = secrets, moments
        self._reader = Reader({}, Kept({}, {}))

    def value(self, given: Any, wanted: Any, where: str) -> Any:  # noqa: ANN401 - any value, plain data
        """The plain data that means a value where something is wanted. Raises ConfigError."""
        if id(given) in self._brought:
            return {"ref": self._brought[id(given)]}
        if isinstance(given, Mapping):
            return self._mapping(given, wanted, where)
        if isinstance(given, tuple | list | frozenset | set):
            return self._several(given, arm_of([], wanted), where)
        if dataclasses.is_dataclass(given) and not isinstance(given, type):
            return self._table(given, where, exactly=_only_class(wanted))
        if type(given) is Env and given is not default_env:
            return self._environment(given, where)
        if type(given) is Stack:
            return self._stack(given, where)
        return self._single(given, wanted, where)

    def _mapping(self, given: Mapping[Any, Any], wanted: Any, where: str) -> Any:  # noqa: ANN401 - plain data
        arm, word = arm_of({}, wanted), saying(given, wanted)
        if in_pairs(arm) and (word or not _is_text(given)):
            return [self.value(each, pair_of(arm), f"{where}[{at}]") for at, each in enumerate(given.items())]
        if word:
            _refuse(where, f"has the key {word!r}, which says in a file what a table is")
        if arm is Any or arm is object:
            return self._free(given, where)
        if not is_mapping(arm) or not _is_text(given):
            _refuse(where, "is a mapping, which cannot be written here")
        kind = typing.get_args(arm)[1]
        return {str.__str__(key): self.value(each, kind, f"{where}.{key}") for key, each in given.items()}

    def _several(self, given: Any, wanted: Any, where: str) -> list[Any]:  # noqa: ANN401 - a collection
        if wanted is Any or wanted is object:
            found: list[Any] = self._free(given, where)
            return found
        origin, args = typing.get_origin(wanted), typing.get_args(wanted)
        made = frozenset if origin is frozenset else tuple
        if not args or not isinstance(given, made):
            _refuse(where, f"is a {type(given).__name__}, which cannot be written here", f"Give a {made.__name__}")
        fixed = origin is tuple and args[1:] != (Ellipsis,)
        kinds = args if fixed else args[:1] * len(given)
        read = [self.value(each, kinds[at], f"{where}[{at}]") for at, each in enumerate(given)]
        return sorted(read, key=str) if made is frozenset else read

    def _free(self, given: Any, where: str) -> Any:  # noqa: ANN401 - plain data
        """Data where anything can stand: it is read as it is, however it is nested."""
        if isinstance(given, list):
            return [self._free(each, f"{where}[{at}]") for at, each in enumerate(given)]
        if isinstance(given, Mapping):
            if not _is_text(given):
                _refuse(where, "has keys that are no texts")
            return {str.__str__(key): self._free(each, f"{where}.{key}") for key, each in given.items()}
        if isinstance(given, tuple):
            _refuse(where, "is a tuple, which would be read as a list", "Give a list")
        if given is None or isinstance(given, str | int | float | datetime):
            return self._single(given, Any, where)
        return _refuse(where, f"is a {type(given).__name__}, which cannot be written here")

    def _table(self, given: Any, where: str, *, exactly: object) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
        kind: Any = type(given)
        table: dict[str, Any] = {} if kind is exactly else {"use": _name(kind, where)}
        hints, several = parameters_of(kind)
        for field in dataclasses.fields(given):
            value = getattr(given, field.name)
            if (not field.init and field.name != several) or _is_default(field, value, given):
                continue
            if _is_fresh(field, value) and id(value) not in self._brought:
                continue
            told = field.repr or field.name in _PUBLISHED or getattr(given, "secret", True) is False
            if not (told or self._secrets) and self._tells(value):
                cure = "Keep it where files can refer to it, or write secrets=True if it is none"
                raise ConfigError(kind.__name__, field.name, f"may hold a secret (at {where})", cure)
            place = f"{where}.{field.name}"
            if field.name == several:
                table[several] = self._positional(value, hints[several], place)
            else:
                table[field.name] = self.value(value, hints[field.name], place)
        return table

    def _positional(self, given: Any, wanted: Any, where: str) -> Any:  # noqa: ANN401 - plain data
        """What is given one after the other; the members of a pool, unless they are an object of their own."""
        if isinstance(given, Members):
            alone = id(given) in self._brought or type(given)(*given) != given
            given = (given,) if alone else tuple(map(_short, given))
        return self.value(given, tuple_of(wanted), where)

    def _stack(self, given: Stack, where: str) -> dict[str, Any]:
        hints, several = parameters_of(Stack)
        table = {"use": "Stack", several: self._positional(given.layers, hints[several], f"{where}.{several}")}
        if given.env is not None:
            table["env"] = self.value(given.env, hints["env"], f"{where}.env")
        return {**table, "place": given.place} if given.place else table

    def _environment(self, given: Env, where: str) -> dict[str, Any]:
        hints, _ = parameters_of(Env)
        said = {"place": given.place or None, **given.given}
        parts = {name: part for name, part in said.items() if part is not None}
        return {"use": "Env"} | {name: self.value(part, hints[name], f"{where}.{name}") for name, part in parts.items()}

    def _single(self, given: Any, wanted: Any, where: str) -> Any:  # noqa: ANN401 - plain data
        """The first form of a value that is read as an equal one where it stands."""
        for form in self._forms(given):
            try:
                read = self._reader.value(form, wanted, where)
            except ConfigError:
                continue
            if isinstance(given, type(read)) and read == given:
                return form
        cure = "Give it as text" if isinstance(given, PurePath) else _BY_NAME
        return _refuse(where, f"is a {type(given).__name__}, which cannot be written here", cure)

    def _forms(self, given: Any) -> Iterator[Any]:  # noqa: ANN401 - plain data
        """All the ways to write a value, the shortest first; of enumerations, what they stand for."""
        match given:
            case None | bool():
                yield given
            case str():
                yield str.__str__(given)
            case int():
                yield int(given)
            case float():
                yield float(given)
            case datetime():
                text = given.isoformat()
                yield datetime.fromisoformat(text) if self._moments else text
            case bytes():
                yield given.decode(errors="ignore")
                yield {"base64": base64.b64encode(given).decode()}
            case _ if callable(given) or given is default_env:
                yield from _names_of(given)

    def _tells(self, given: object) -> bool:
        """Whether there is anything in a value that may be a secret; other values have fields of their own."""
        if id(given) in self._brought or is_public(given):
            return False
        if isinstance(given, Mapping):
            return any(map(self._tells, (*given, *given.values())))
        if isinstance(given, tuple | list | frozenset | set):
            return any(map(self._tells, given))
        return isinstance(given, int | float) or (isinstance(given, str | bytes) and bool(given))


def _is_text(given: Mapping[Any, Any]) -> bool:
    """Whether all keys of a mapping are texts."""
    return all(isinstance(key, str) for key in given)


def _refuse(where: str, problem: str, cure: str = _BY_NAME) -> typing.NoReturn:
    raise ConfigError(where, "", problem, cure)


def _name(kind: type, where: str) -> str:
    """The public name of a class, or where it is found."""
    for name in (kind.__name__, f"{kind.__module__}:{kind.__qualname__}"):
        with suppress(UnknownName):
            if named(name) is kind:
                return name
    problem = f"is a {kind.__name__}, which no file can name"
    return _refuse(where, problem, "Put the class into a module, or name the object in names=")


def _names_of(given: Any) -> Iterator[Any]:  # noqa: ANN401 - any object
    """A function of ours as text, any other object by where it is found, and a text among texts as what it is."""
    text = text_of(given)
    if text is not None:
        yield text
    if given is default_env:
        yield {"import": "apim_middleware.env:default_env"}
    yield {"import": f"{getattr(given, '__module__', '')}:{getattr(given, '__qualname__', '')}"}
    if text is not None:
        yield {"function": text}


def _short(member: Any) -> Any:  # noqa: ANN401 - a member of a pool
    """A member that is nothing but its URL as that."""
    return member.url if isinstance(member, Member) and member == Member(member.url) else member


def _is_default(field: dataclasses.Field[Any], value: object, owner: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return alike(value, field.default) or _made_up(owner, field.name, value)
    if field.default_factory is not dataclasses.MISSING:
        return alike(value, field.default_factory())
    return False


def _is_fresh(field: dataclasses.Field[Any], value: object) -> bool:
    """Whether an object that is no part of its owner's value is as new, such as the drain of a ``Health``."""
    if field.compare or field.default_factory is dataclasses.MISSING:
        return False
    return bool(vars(value) == vars(field.default_factory()))


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
