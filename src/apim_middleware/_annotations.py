"""Whether values fit annotations, and what annotations are called in messages."""

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, Union

from apim_middleware.types import Layer

_ARTICLE = re.compile(r"\ba (\w+)")
"""One of something: ``a layer``, ``a function of 1 argument``."""


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


def is_key(wanted: Any) -> bool:  # noqa: ANN401 - an annotation
    """Whether a key of ``by`` is wanted: a function of the exchange that gives text or None."""
    args = typing.get_args(wanted)
    if len(args) != 2 or not isinstance(args[0], list):
        return False
    return [getattr(each, "__name__", "") for each in args[0]] == ["Exchange"] and args[1] == (str | None)


def is_condition(wanted: Any) -> bool:  # noqa: ANN401 - an annotation
    """Whether a condition is wanted: a function of the exchange that says yes or no, now or later."""
    args = typing.get_args(wanted)
    if len(args) != 2 or not isinstance(args[0], list) or bool not in arms_of(args[1]):
        return False
    return [getattr(each, "__name__", "") for each in args[0]] == ["Exchange"]


def methods_of(protocol: type) -> list[str]:
    """What a protocol asks for."""
    return [name for name in vars(protocol) if not name.startswith("_")]
