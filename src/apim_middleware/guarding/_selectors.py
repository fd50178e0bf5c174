"""Selectors: which routes the policies of a guard are for."""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from apim_middleware._config import shown
from apim_middleware.errors import ConfigError
from apim_middleware.guarding._routes import NOTHING, Known, plain_template
from apim_middleware.types import Layer

_PATH = re.compile(r"(?:([A-Z]+) )?(/.*)")


@dataclass(frozen=True, init=False)
class Only:
    """Policies of a route, and none of the wider ones: ``Only()`` for a route that stands open."""

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        """Keep the policies."""
        object.__setattr__(self, "layers", layers)


class Rule(NamedTuple):
    """What a user wrote under one selector."""

    selector: str
    layers: tuple[Layer, ...]
    alone: bool
    """Whether nothing wider stands in front."""

    breadth: tuple[int, int]
    """How narrow it is: wider ones stand outside."""

    method: str = ""
    path: str = ""
    """A template, or for all paths below one, that with a slash at its end."""

    word: str = ""
    """A tag, or an operation."""

    @property
    def below(self) -> bool:
        """Whether it is for all paths below one: then the path that was asked for decides, not the route."""
        return self.path.endswith("/") and self.breadth[0] == _BELOW

    def fits(self, known: Known, method: str = "", path: str | None = None) -> bool:
        """Whether it is for requests of this route: with this method and this path as asked for, if they are given."""
        kind = self.breadth[0]
        if kind == _TAG:
            return self.word in known.tags
        if kind == _OPERATION:
            return self.word in (known.operation, known.name)
        if not (_takes_only(known, self.method) or (_takes(known, self.method) and _means(self.method, method))):
            return False
        if not self.below:
            return known.template == self.path
        return _is_below(known.template, self.path) or (path is not None and f"{path}/".startswith(self.path))

    def may_fit(self, known: Known) -> bool:
        """Whether it is for some request of this route, as far as method and path decide."""
        if self.breadth[0] not in (_BELOW, _TEMPLATE) or not _takes(known, self.method):
            return False
        if not self.below:
            return known.template == self.path
        return known is NOTHING or _meet(known.template, self.path)


_TAG, _BELOW, _TEMPLATE, _OPERATION = range(4)


def rule(selector: str, value: Sequence[Layer] | Only) -> Rule:
    """What a selector means. Raises ConfigError."""
    alone = isinstance(value, Only)
    layers = several(value.layers if isinstance(value, Only) else value, "routes", f" of {selector!r}")
    for prefix, kind in (("tag:", _TAG), ("operation:", _OPERATION)):
        if selector.startswith(prefix) and selector != prefix:
            return Rule(selector, layers, alone, (kind, 0), word=selector.removeprefix(prefix))
    found = _PATH.fullmatch(selector)
    if found is None:
        cure = 'Write "/orders/{id}", "GET /orders", "/admin/*", "tag:admin" or "operation:list_orders"'
        raise ConfigError("guard", "routes", f"{selector!r} selects nothing", cure)
    method, path = found[1] or "", plain_template(found[2])
    if path.endswith("/*"):
        return Rule(selector, layers, alone, (_BELOW, path.count("/")), method, path[:-1])
    return Rule(selector, layers, alone, (_TEMPLATE, bool(method)), method, path)


def several(layers: Sequence[Layer], field: str, where: str = "") -> tuple[Layer, ...]:
    """The layers as they were given. Raises ConfigError for a lone one, and for what is none."""
    if not isinstance(layers, list | tuple):
        problem = f"{shown(layers)} stands alone where several can"
        raise ConfigError("guard", field, problem, "Write (..., ) with the comma around it")
    check_layers("guard", field, layers, where)
    return tuple(layers)


def check_layers(owner: str, field: str, layers: Iterable[object], where: str = "") -> None:
    """Refuse what is no layer, such as the name of one. Raises ConfigError."""
    for number, layer in enumerate(layers, 1):
        if not callable(layer):
            problem = f"number {number}{where} is {shown(layer)}, which is no layer"
            raise ConfigError(owner, field, problem, "Give policies, stacks, or functions from app to app")


class Rules:
    """The rules of a guard, wider ones first, found by what a route is called: there may be as many as routes."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Sort the rules, wider ones first."""
        self._rules = sorted(rules, key=lambda each: each.breadth)
        self._named: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        self._below: list[int] = []
        for number, each in enumerate(self._rules):
            named = self._below if each.below else self._named[each.breadth[0], each.word or each.path]
            named.append(number)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)

    def about(self, known: Known) -> list[Rule]:
        """The rules that may be for a route, wider ones first."""
        called = {(_TEMPLATE, known.template), (_OPERATION, known.operation), (_OPERATION, known.name)}
        found = [self._named.get(each, ()) for each in (*called, *((_TAG, tag) for tag in known.tags))]
        return [self._rules[number] for number in sorted(chain(self._below, *found))]


def check_used(rules: Rules, routes: Sequence[Known]) -> None:
    """Refuse a selector that is for no route: it would guard nothing, and nobody would know. Raises ConfigError."""
    fitting = ((each, known) for known in routes if known is not NOTHING for each in rules.about(known))
    used = {each.selector for each, known in fitting if each.fits(known) or each.may_fit(known)}
    for each in rules:
        if each.selector not in used:
            names = {known.template for known in routes} | {f"operation:{known.operation}" for known in routes}
            names |= {f"tag:{tag}" for known in routes for tag in known.tags}
            near = difflib.get_close_matches(each.selector, sorted(names), n=1)
            cure = f"Did you mean {near[0]!r}?" if near else "Print coverage(app) to see the routes there are"
            raise ConfigError("guard", "routes", f"{each.selector!r} is for no route of the app", cure)


def _takes(known: Known, method: str) -> bool:
    """Whether a route may be asked with a method; a WebSocket is asked with ``WEBSOCKET``."""
    if not method or known.kind in ("mount", "nothing"):
        return True
    return method == "WEBSOCKET" if known.kind == "websocket" else not known.methods or method in known.methods


def _takes_only(known: Known, method: str) -> bool:
    """Whether a route has no other method than this, so that whatever it is asked with is judged by it."""
    if not method or known.kind in ("mount", "nothing"):
        return not method
    if known.kind == "websocket":
        return method == "WEBSOCKET"
    return bool(known.methods) and all(_means(method, each) for each in known.methods)


def _means(selected: str, method: str) -> bool:
    """Whether a selector of one method is for another: a HEAD asks what a GET asks (RFC 9110 §9.3.2)."""
    return method == selected or (method == "HEAD" and selected == "GET")


def _is_below(template: str, path: str) -> bool:
    """Whether every path of a template is below one: the text it begins with is."""
    return f"{template.partition('{')[0]}{'' if '{' in template else '/'}".startswith(path)


def _meet(template: str, path: str) -> bool:
    """Whether some path of a template may be below one: not when their texts part before the first parameter."""
    text = template.partition("{")[0]
    return path.startswith(text) or text.startswith(path) or f"{template}/".startswith(path)
