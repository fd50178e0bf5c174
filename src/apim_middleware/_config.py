"""Configuration is checked while building: names, presence and types of fields, from the annotations themselves."""

import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, Self, Union

from apim_middleware._synonyms import meant
from apim_middleware.errors import ConfigError
from apim_middleware.types import Layer

_ARTICLE = re.compile(r"\ba (\w+)")
"""One of something: ``a layer``, ``a function of 1 argument``."""


class Configured:
    """Base of every frozen dataclass a user writes: wrong names, missing fields and wrong types are a ConfigError."""

    def __new__(cls, *args: object, **given: object) -> Self:
        """Check what was given before the dataclass keeps it."""
        if dataclasses.is_dataclass(cls):
            named = {field.name: field for field in dataclasses.fields(cls) if field.init}
            given = {**_positional(cls, named, args), **given}
            _check_names(cls, named, given)
            hints = _hints(cls)
            for name, value in given.items():
                if is_factory(value):
                    raise ConfigError(cls.__name__, name, *uncalled(value))
                if not matches(value, hints[name]):
                    problem, cure = _misfit(name, value, hints[name])
                    problem = f"{shown(value, secret=not named[name].repr)} {problem}"
                    raise ConfigError(cls.__name__, name, problem, cure)
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, object]]:
        """Copying and pickling go through the same checks as building."""
        if not dataclasses.is_dataclass(self):
            return (), {}
        return (), {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    def mistake(self, field: str, problem: str, cure: str) -> ConfigError:
        """A ConfigError about one field, with the value that was given."""
        secret = any(each.name == field and not each.repr for each in dataclasses.fields(self))  # type: ignore[arg-type]
        value = shown(getattr(self, field, None), secret=secret)
        return ConfigError(type(self).__name__, field, f"{value} {problem}", cure)


def _misfit(name: str, value: object, wanted: Any) -> tuple[str, str]:  # noqa: ANN401 - an annotation
    """What is wrong with a value that does not fit an annotation, and the cure."""
    words = describe(wanted)
    several = [args[0] for arm in arms_of(wanted) if (args := typing.get_args(arm))[1:] == (Ellipsis,)]
    if several and isinstance(value, list):
        return "is a list", f"Write {name}=(..., ...), a tuple"
    if any(matches(value, each) for each in several):
        one = '"..."' if isinstance(value, str) else "..."
        return f"is not {words}", f"Write {name}=({one},), with the comma"
    return f"is not {words}", f"Give {words}"


def _positional(cls: type, named: Mapping[str, Any], args: Sequence[object]) -> dict[str, object]:
    places = [name for name, field in named.items() if not field.kw_only]
    if len(args) > len(places):
        allowed = "by name only" if not places else f"at most {len(places)} without a name ({', '.join(places)})"
        if not places and callable(args[0]):  # as in app.add_middleware(RateLimit, calls=10, per=60)
            problem, cure = "the class was given where a policy is wanted", f"Write add_middleware({cls.__name__}(...))"
            raise ConfigError(cls.__name__, "", problem, cure)
        raise ConfigError(cls.__name__, "", f"fields are given {allowed}", f"Write {cls.__name__}(field=value, ...)")
    return dict(zip(places, args, strict=False))


def _check_names(cls: type, named: Mapping[str, Any], given: Mapping[str, object]) -> None:
    check_known(cls.__name__, given, named)
    for name, field in named.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and name not in given:
            raise ConfigError(cls.__name__, name, "is missing", f"Write {cls.__name__}({name}=...)")


@lru_cache(maxsize=1024)
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def shown(value: object, *, secret: bool = False) -> str:
    """A value as an error message may show it: short, and never a secret."""
    if secret:
        return f"a value of type {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_known(owner: str, given: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse a name that means nothing here, and tell the one that was perhaps meant."""
    names = tuple(known)
    for name, value in given.items():
        if name not in names:
            near = meant(name, names) or next(iter(difflib.get_close_matches(name, names, n=1)), None)
            cure = f"Did you mean {near}?" if near else f"The fields are {', '.join(names)}"
            raise ConfigError(owner, name, f"no such field (given {shown(value, secret=True)})", cure)


def check_named(made: type, given: Mapping[str, object]) -> None:
    """The same for a class that is no dataclass: what it knows is what its ``__init__`` takes by name."""
    if given:
        _, *parameters = inspect.signature(made.__init__).parameters.values()  # type: ignore[misc]
        known = [each.name for each in parameters if each.kind is not each.VAR_POSITIONAL]
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            check_known(made.__name__, given, known)


def check_one_by_one(owner: str, field: str, given: Mapping[str, object]) -> None:
    """Refuse as one field what is given one after the other."""
    if field in given:
        raise ConfigError(owner, field, "is not given by name", f"Write {owner}(first, second, ...)")


def check(owner: str, field: str, value: object, wanted: Any, *, cure: str = "", secret: bool = False) -> None:  # noqa: ANN401
    """Raise a ConfigError for what does not fit an annotation, on behalf of a class that is not ``Configured``."""
    if not matches(value, wanted):
        problem, remedy = _misfit(field, value, wanted)
        raise ConfigError(owner, field, f"{shown(value, secret=secret)} {problem}", cure or remedy)


def check_count(owner: str, field: str, count: int, *, least: int = 1) -> None:
    """Raise a ConfigError for what is no whole number, or too few."""
    check(owner, field, count, int)
    if count < least:
        raise ConfigError(owner, field, f"{count} is not at least {least}", f"Give {least} or more")


def is_text(value: str) -> bool:
    """Whether UTF-8 can carry a text: what the environment has of other bytes becomes half surrogate pairs."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def awaits(function: object) -> bool:
    """Whether what a function gives must be awaited, as far as can be seen without calling it."""
    while isinstance(function, partial):
        function = function.func
    return any(map(inspect.iscoroutinefunction, (function, getattr(type(function), "__call__", None))))  # noqa: B004


def is_factory(value: object) -> bool:
    """Whether this makes keys or conditions, such as ``by.header``, and is none itself."""
    return isinstance(value, types.FunctionType) and getattr(value, "factory", None) is value


def uncalled(factory: object) -> tuple[str, str]:
    """What is wrong with a factory that was given in the place of what it makes, and the cure."""
    name = f"{getattr(factory, '__module__', '').rpartition('.')[2]}.{getattr(factory, '__name__', '')}"
    return f"{name} was not called", f"Call it: {name}(...)"


def matches(value: object, wanted: Any) -> bool:  # noqa: ANN401 - an annotation can be anything
    """Whether a value fits an annotation, as far as can be told without calling or consuming it."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any or wanted is object or isinstance(wanted, typing.TypeVar):
        return True
    if wanted is None or wanted is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(matches(value, each) for each in args)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in args)
    if origin is tuple:
        return isinstance(value, tuple) and _tuple_matches(value, args)
    if origin is type:
        return isinstance(value, type)
    if isinstance(origin, type):
        return _generic_matches(value, origin, args)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_float(value)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(wanted, type):
        return True
    if getattr(wanted, "_is_protocol", False):
        return all(_offers(value, name, each) for name, each in vars(wanted).items() if not name.startswith("_"))
    return isinstance(value, wanted)


def _is_float(value: float) -> bool:
    """Whether a number can be computed with: an int can be larger than any float."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


def arms_of(wanted: Any) -> tuple[Any, ...]:  # noqa: ANN401 - an annotation
    """The kinds of value an annotation allows."""
    return typing.get_args(wanted) if typing.get_origin(wanted) in (Union, types.UnionType) else (wanted,)


def _offers(value: object, name: str, wanted: object) -> bool:
    """Whether a value has what a protocol asks for; a class has methods, but they are those of its instances."""
    if not hasattr(value, name):
        return False
    if not callable(wanted):
        return True
    unbound = isinstance(value, type) and inspect.isfunction(inspect.getattr_static(value, name, None))
    return callable(getattr(value, name)) and not unbound


def _tuple_matches(value: tuple[object, ...], args: tuple[Any, ...]) -> bool:
    if len(args) == 2 and args[1] is Ellipsis:
        return all(matches(each, args[0]) for each in value)
    return len(value) == len(args) and all(map(matches, value, args))


def _generic_matches(value: object, origin: type, args: tuple[Any, ...]) -> bool:
    if origin.__module__ == "collections.abc" and origin.__name__ == "Callable":
        return callable(value) and _takes(value, args[0] if args else ...)
    if (
        isinstance(value, str | bytes)
        and issubclass(origin, Collection | Iterable)
        and not issubclass(origin, str | bytes)
    ):
        return False  # a single string is not a collection of strings, whatever Python says
    if not isinstance(value, origin):
        return False
    if isinstance(value, Mapping) and len(args) == 2:
        return all(matches(key, args[0]) and matches(each, args[1]) for key, each in value.items())
    if isinstance(value, Collection) and len(args) == 1:
        return all(matches(each, args[0]) for each in value)
    return True


def _takes(function: Callable[..., object], parameters: object) -> bool:
    """Whether a function can be called with so many arguments, as far as it says so."""
    if not isinstance(parameters, list):
        return True
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        return False
    except ValueError:  # it does not say
        return True
    return True


def describe(wanted: Any) -> str:  # noqa: ANN401 - an annotation can be anything
    """An annotation in words for an error message; a None among others, which is a default, goes without saying."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(each) for each in args if each is not type(None))
    if origin is Literal:
        return " or ".join(repr(each) for each in args)
    if wanted is None or wanted is type(None):
        return "None"
    if wanted == Layer:
        return "a layer"
    if wanted is bool:
        return "true or false"
    if isinstance(origin, type) and origin.__name__ == "Callable":
        count = len(args[0]) if args and isinstance(args[0], list) else None
        return "a function" if count is None else f"a function of {count or 'no'} argument{'' if count == 1 else 's'}"
    if origin is tuple and args[1:] == (Ellipsis,):
        several = _ARTICLE.sub(r"\1s", describe(args[0]))
        return f"a tuple of {several}"
    if isinstance(origin, type) and args:
        return f"{origin.__name__} of {' and '.join(describe(each) for each in args if each is not Ellipsis)}"
    return wanted.__name__ if isinstance(wanted, type) else str(wanted)
