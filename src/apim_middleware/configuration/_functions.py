"""Keys and conditions as text: ``by.client``, ``conditions.path("/admin/*")``, one within another.

Only functions of these two modules are called, with texts, numbers and each other; nothing else can be said.
"""

import ast
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from apim_middleware import by, conditions
from apim_middleware._config import in_one_line
from apim_middleware._functions import name_of
from apim_middleware.errors import ConfigError

_MODULES: dict[str, ModuleType] = {"by": by, "conditions": conditions}
_PACKAGE = "apim_middleware."
_LONGEST = 2000


class NotAFunction(ValueError):
    """A text that means no function, and why."""


def function_of(text: str) -> Callable[..., Any]:
    """The function a text means. Raises NotAFunction; a ConfigError of the function itself passes."""
    if len(text) > _LONGEST:
        raise NotAFunction("it is too long")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotAFunction("it is no expression") from None
    try:
        found: Callable[..., Any] = _value(tree, None)
    except RecursionError:
        raise NotAFunction("it is nested too deep") from None
    if not callable(found):
        raise NotAFunction("it is no function")
    return found


def text_of(function: Callable[..., Any]) -> str | None:
    """The text that means just this function; None when there is none."""
    text = name_of(function).removeprefix(_PACKAGE)
    try:
        return text if function_of(text) is function else None
    except Exception:
        return None


def _value(node: ast.expr, around: ModuleType | None) -> Any:  # noqa: ANN401 - a function or one of its arguments
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.Call():
            return _called(node, around)
        case ast.Name() | ast.Attribute():
            return _named(node, around)[1]
    raise NotAFunction("it holds more than names, calls, texts and numbers")


def _called(node: ast.Call, around: ModuleType | None) -> Any:  # noqa: ANN401 - a function
    module, make = _named(node.func, around)
    arguments = [_value(each, module) for each in node.args]
    named = {each.arg: _value(each.value, module) for each in node.keywords if each.arg is not None}
    if len(named) < len(node.keywords):
        raise NotAFunction("it holds **")
    try:
        inspect.signature(make).bind(*arguments, **named)
    except TypeError as error:
        raise NotAFunction(str(error)) from None
    try:
        return make(*arguments, **named)
    except ConfigError:
        raise
    except Exception as error:
        raise NotAFunction(f"{type(error).__name__}: {in_one_line(error)}") from None


def _named(node: ast.expr, around: ModuleType | None) -> tuple[ModuleType, Callable[..., Any]]:
    """A function of one of the modules, which is named unless it stands within one of the same."""
    path = ast.unparse(node).removeprefix(_PACKAGE)
    first, dot, rest = path.partition(".")
    module, name = (_MODULES.get(first), rest) if dot else (around, first)
    offered = getattr(module, "__all__", None)
    found = None if module is None or (offered and name not in offered) else vars(module).get(name)
    if module is None or name.startswith("_") or not inspect.isfunction(found) or found.__module__ != module.__name__:
        raise NotAFunction(f"{path!r} is no function of by or conditions")
    return module, found
