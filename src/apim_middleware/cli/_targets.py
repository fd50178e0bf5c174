"""What a command is about: ``module:attribute``, ``file.py:attribute``, or a gateway in a TOML, YAML or JSON file."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from apim_middleware.configuration import load
from apim_middleware.errors import ApimError, ConfigError
from apim_middleware.gateway import Gateway
from apim_middleware.types import ASGIApp

FILES = (".toml", ".yaml", ".yml", ".json")


def is_file(target: str) -> bool:
    """Whether a target is a gateway in a file."""
    return target.lower().endswith(FILES)


def found(target: str, names: str = "", after: Gateway | None = None) -> Any:  # noqa: ANN401 - an ASGI app
    """The app a target means; ``names`` is where a file finds the objects it refers to. Raises ConfigError.

    ``after`` is the gateway that one of a file is to follow.
    """
    try:
        return load(target, names=_mapping(names), after=after) if is_file(target) else _attribute(target)
    except SystemExit as error:  # else a check of it would end as that says, and be taken for passed
        problem = f"{target!r} ends the program when it is loaded: {in_one_line(error)}"
        raise ConfigError("apim", "target", problem, 'Write if __name__ == "__main__" before that') from error


def runnable(target: str, names: str = "") -> ASGIApp:
    """The app a target means, if it can be called. Raises ConfigError."""
    app: ASGIApp = found(target, names)
    if not callable(app):
        raise ConfigError("apim", "target", f"{target} is a {type(app).__name__}, and no ASGI app", "Name an app")
    return app


def gateway(target: str, names: str = "", after: Gateway | None = None) -> Gateway:
    """The gateway a target means. Raises ConfigError when it is something else."""
    app = found(target, names, after)
    if not isinstance(app, Gateway):
        raise ConfigError("apim", "target", f"{target} is a {type(app).__name__}, and no gateway", "Name a Gateway")
    return app


def _mapping(names: str) -> dict[str, object]:
    if not names:
        return {}
    mapping = _attribute(names)
    if not isinstance(mapping, dict):
        raise ConfigError("apim", "names", f"{names} is no dict", "Name a dict of the objects a file refers to")
    return mapping


def _attribute(target: str) -> Any:  # noqa: ANN401 - whatever it is
    name, _, path = target.partition(":")
    cure = "Write module:attribute, file.py:attribute, or a file ending in .toml, .yaml or .json"
    if not name or not path or name.startswith("."):
        raise ConfigError("apim", "target", f"{target!r} names nothing", cure)
    try:
        value: Any = _script(Path(name)) if name.endswith(".py") else importlib.import_module(name)
        for part in path.split("."):
            value = getattr(value, part)
    except ApimError:  # which says itself what is wrong
        raise
    except (ImportError, AttributeError, FileNotFoundError) as error:
        raise ConfigError("apim", "target", f"{target!r} cannot be loaded: {error}", cure) from error
    except Exception as error:
        raise ConfigError(
            "apim", "target", f"{target!r} cannot be loaded: {in_one_line(error)}", "Correct it"
        ) from error
    return value


def in_one_line(error: BaseException) -> str:
    """What was raised, with the place it was raised at."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    said = str(error).splitlines()
    text = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    if isinstance(error, SyntaxError):  # which says it itself
        return text
    if not (places := traceback.extract_tb(error.__traceback__)):  # made, and never raised
        return text
    return f"{text} ({places[-1].filename}, line {places[-1].lineno})"


def _script(path: Path) -> ModuleType:
    """A file as a module, which finds its neighbours as it would when it is run.

    It has the name of the file unless another module has it, such as the older one of two that are compared.
    """
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    for name in (path.stem, str(path)):
        known = sys.modules.get(name)
        if known is None:
            return _loaded(name, path)
        if getattr(known, "__file__", None) == str(path):
            return known
    raise ImportError(f"another module is called {path}")


def _loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} holds no Python")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
