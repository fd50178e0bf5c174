"""Imports go down only, policies never import each other, and each heavy library is imported in one place."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "apim_middleware"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

FLOORS = {
    0: (
        *("types", "errors", "protocols", "identity", "match", "documentation"),
        *("_adaptive", "_alike", "_annotations", "_config", "_digest", "_functions", "_http", "_networks"),
        *("_order", "_spelling", "_synonyms", "_yaml"),
    ),
    1: (
        *("exchange", "env", "by", "policy", "conditions", "bodies"),
        *("_alongside", "_lifespan", "_loops", "_ring", "_server", "_together", "_unseen_reads"),
    ),
    2: (
        *("model", "stores", "transports", "_jose", "_limits", "_caching", "_certificates", "_signing", "_telemetry"),
        *("credentials", "dependencies", "problems"),
    ),
    3: ("policies", "proxy", "serving"),
    4: ("gateway", "guarding", "configuration", "openapi", "testing", ""),  # "" is the front door
    6: ("cli",),
}
"""Each module or folder of the package on its floor; what stands on one floor may import each other."""

APART = ("policies",)
"""Folders whose modules never import each other; what two of them share sinks a floor."""

HOMES = {
    "redis": 1,
    "dns": 1,
    "joserfc": 1,
    "sqlite3": 1,
    "httpx": 1,
    "httpx2": 1,
    "httpcore": 1,
    "httpcore2": 1,
    "websockets": 1,
    "opentelemetry": 2,
    "limits": 2,  # its notation of rates, and its storages
    "jwt": 2,
}
"""In how many files at most a library may be imported."""

SERVERS = ("uvicorn", "granian", "hypercorn", "fastapi")
"""What no module of the package imports but the command that serves."""

READERS = ("serving.httptools", "serving._reader", "serving._response")
"""Modules that a server itself loads."""

UPWARD_TYPES = {("env", "policy")}
"""Upward imports for the type checker alone, where two sides of one protocol name each other."""


class Import(NamedTuple):
    """One import: where it stands, what it names, and whether only the type checker sees it."""

    module: str
    line: int
    target: str
    relative: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def test_every_module_has_a_floor() -> None:
    homeless = [module for module in sources() if floor_of(module) is None]
    assert homeless == []


def test_the_package_keeps_its_floors() -> None:
    assert broken_rules(sources()) == []


def test_upward_types_are_still_needed() -> None:
    seen = {(each.module, part_of(each.target)) for each in imports_of_all(sources()) if each.for_types}
    assert seen >= UPWARD_TYPES


GOOD = {
    "types": "import anyio",
    "policy": "from apim_middleware.types import Layer",
    "policies.cache": "from apim_middleware.policy import Policy\nfrom apim_middleware import policy",
    "": "from apim_middleware.policies.cache import Cache",
    "transports.httpx": "import httpx",
}


def test_a_tidy_package_breaks_no_rule() -> None:
    assert broken_rules(GOOD) == []


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("types", "from apim_middleware.policy import Policy", "types:1 imports apim_middleware.policy: upwards"),
        ("types", "from apim_middleware import policy", "types:1 imports apim_middleware.policy: upwards"),
        ("_http.paths", "import apim_middleware.exchange", "_http.paths:1 imports apim_middleware.exchange: upwards"),
        (
            "env",
            "def f():\n    import apim_middleware.stores.memory",
            "env:2 imports apim_middleware.stores.memory: upwards",
        ),
        ("policy", "from apim_middleware import Stack", "policy:1 imports apim_middleware: upwards"),
        (
            "errors",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from apim_middleware.policy import Policy",
            "errors:3 imports apim_middleware.policy: upwards",
        ),
        (
            "policies.limits",
            "from apim_middleware.policies.cache import Cache",
            "policies.limits:1 imports apim_middleware.policies.cache: its neighbour",
        ),
        (
            "policies.limits",
            "from apim_middleware.policies import cache",
            "policies.limits:1 imports apim_middleware.policies.cache: its neighbour",
        ),
        ("policies.limits", "from .cache import Cache", "policies.limits:1 imports .cache: relative"),
        ("policies.limits", "from . import cache", "policies.limits:1 imports .: relative"),
        (
            "policies.jwt",
            "from httpx import Client",
            "httpx is imported in 2 files, not 1: policies.jwt, transports.httpx",
        ),
        (
            "stores.redis",
            "import redis.asyncio\nimport uvicorn",
            "stores.redis:2 imports uvicorn: a server or framework",
        ),
        ("parlour", "", "parlour has no floor"),
    ],
)
def test_each_rule_can_fail(module: str, text: str, complaint: str) -> None:
    assert broken_rules({**GOOD, module: text}) == [complaint]


def broken_rules(texts: Mapping[str, str]) -> list[str]:
    """What is wrong with a package, given the source of each of its modules."""
    imports = imports_of_all(texts)
    wrong = [f"{module} has no floor" for module in texts if floor_of(module) is None]
    wrong += [f"{each}: {fault}" for each in imports if (fault := fault_of(each, texts))]
    for library, most in HOMES.items():
        files = sorted({each.module for each in imports if not each.relative and top_of(each.target) == library})
        if len(files) > most:
            wrong.append(f"{library} is imported in {len(files)} files, not {most}: {', '.join(files)}")
    return wrong


def fault_of(each: Import, modules: Mapping[str, str]) -> str | None:
    """What is wrong with one import, if anything is."""
    if each.relative:
        return "relative"
    serves = part_of(f"{PACKAGE}.{each.module}") == "cli" or each.module in READERS
    if top_of(each.target) in SERVERS and not serves:
        return "a server or framework"
    if top_of(each.target) != PACKAGE:
        return None
    here, there = floor_of(each.module), floor_of(inside(each.target))
    if here is None or there is None:
        return None  # told once, by the module that has no floor
    if here < there and not (each.for_types and (each.module, part_of(each.target)) in UPWARD_TYPES):
        return "upwards"
    folder = each.module.split(".")[0]
    if folder in APART and part_of(each.target) == folder and inside(each.target) in modules:
        return None if inside(each.target) == each.module else "its neighbour"
    return None


def floor_of(module: str) -> int | None:
    """The floor a module of the package stands on."""
    part = module.split(".")[0]
    return next((floor for floor, parts in FLOORS.items() if part in parts), None)


def inside(target: str) -> str:
    """A dotted name without the package in front."""
    return target.removeprefix(PACKAGE).removeprefix(".")


def part_of(target: str) -> str:
    """The module or folder right under the package that a dotted name leads into."""
    return inside(target).split(".")[0]


def top_of(target: str) -> str:
    """The library a dotted name belongs to."""
    return target.split(".")[0]


def sources() -> dict[str, str]:
    """The source of each module, under its dotted name within the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return found


def imports_of_all(texts: Mapping[str, str]) -> list[Import]:
    """Every import of every module, wherever it stands."""
    return [each for module, text in texts.items() for each in imports_of(module, text, texts)]


def imports_of(module: str, text: str, modules: Mapping[str, str]) -> Iterator[Import]:
    """The imports of a module; ``from package import x`` names x when that is a module."""
    tree = ast.parse(text)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name, relative=False, for_types=id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            relative = node.level > 0
            base = "." * node.level + (node.module or "")
            names = [f"{base}.{alias.name}" for alias in node.names]
            targets = {name if not relative and inside(name) in modules else base for name in names}
            for target in sorted(targets):
                yield Import(module, node.lineno, target, relative=relative, for_types=id(node) in for_types)
