"""``import apim_middleware``: every public name, and nothing heavy that nobody has asked for."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import apim_middleware
from apim_middleware.policy import Composable

HEAVY = (
    *("uvicorn", "granian", "hypercorn", "fastapi"),
    *("redis", "sqlite3", "limits"),
    *("httpx", "httpx2", "httpcore"),
    *("jwt", "cryptography"),
    "opentelemetry",
)


def test_all_is_sorted_and_without_doubles() -> None:
    assert list(apim_middleware.__all__) == sorted(set(apim_middleware.__all__))


def test_all_names_only_what_is_there() -> None:
    missing = [name for name in apim_middleware.__all__ if not hasattr(apim_middleware, name)]
    assert missing == []


def test_all_names_everything_public_that_is_there() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(apim_middleware.__path__)}
    public = {name for name in vars(apim_middleware) if not name.startswith("_")} - submodules
    assert public - set(apim_middleware.__all__) == set()


def test_type_checkers_are_told_the_same() -> None:
    stub = ast.parse(Path(apim_middleware.__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    told = {alias.name: node.module for node in imports for alias in node.names}
    homes = {name: f"apim_middleware.{home}" for name, home in apim_middleware._HOMES.items() if name != home}
    assert [ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign)] == [sorted(told)]
    assert told == homes | {name: "apim_middleware" for name, home in apim_middleware._HOMES.items() if name == home}


def test_what_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        apim_middleware.Nothing  # noqa: B018


def test_every_public_name_has_a_docstring() -> None:
    classes = [getattr(apim_middleware, name) for name in apim_middleware.__all__]
    bare = [each.__name__ for each in classes if inspect.isclass(each) and not each.__doc__]
    assert bare == []


def test_every_layer_is_at_the_front_door() -> None:
    for path in Path(apim_middleware.__file__).parent.glob("policies/[!_]*.py"):
        importlib.import_module(f"apim_middleware.policies.{path.stem}")
    layers = {each for each in descendants(Composable) if each.__module__.startswith("apim_middleware.")}
    layers = {each for each in layers if "._" not in each.__module__}
    hidden = {each.__name__ for each in layers if not each.__name__.startswith("_")} - set(apim_middleware.__all__)
    assert hidden == set()


def descendants(cls: type) -> set[type]:
    """All subclasses of a class, theirs included."""
    return {found for each in cls.__subclasses__() for found in {each, *descendants(each)}}


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    """The top-level modules that a fresh interpreter has loaded with every public name."""
    code = "import sys; from apim_middleware import *; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    return frozenset(name.split(".")[0] for name in out.split())


@pytest.mark.parametrize("library", HEAVY)
def test_importing_loads_nothing_heavy(loaded: frozenset[str], library: str) -> None:
    assert library not in loaded


def test_the_check_sees_what_is_loaded(loaded: frozenset[str]) -> None:
    assert "apim_middleware" in loaded
