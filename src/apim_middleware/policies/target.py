"""The request target, changed before the app sees it: paths rewritten, query parameters set and removed.

Azure's rewrite-uri and set-query-parameter.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from apim_middleware._config import awaits, is_text
from apim_middleware._functions import needs
from apim_middleware._http import queries
from apim_middleware._http.paths import routed_path
from apim_middleware._http.templates import Shape, Target, canonical, path_of, query_of, sent, shape_of, target_of
from apim_middleware.documentation import Answer, Documentation
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy, stated

ORIGINAL_PATH = "apim_middleware.original_path"
"""The scope key of the path as it was before the first rewriting."""

log = logging.getLogger("apim_middleware")


@dataclass(frozen=True, kw_only=True)
class RewritePath(Policy):
    """Give the paths of one shape another shape; all other paths pass as they are.

    In ``match`` a segment is text or a ``{name}``, and the last may be ``{name:path}``: all the rest with the slash
    before it, or nothing. In ``to`` a ``{name}`` may stand anywhere, the rest only at the end. What callers sent stays
    one segment, escaped as they escaped it: it cannot add segments, a query or a host.
    Templates are written without percent-escapes; they speak of the path below the ``root_path`` of a mounted app.

    The path as it was stays in ``scope["apim_middleware.original_path"]``. A result without a canonical form is refused
    with 400 ``bad-target``. Follows Azure's ``rewrite-uri``.
    """

    guards = False

    match: str
    """The paths to rewrite: ``"/v1/users/{id}"``, ``"/api/{rest:path}"``."""

    to: str
    """What they become: ``"/people/{id}"``, ``"/{rest}"``, ``"/search?kind=user&id={id}"``."""

    copy_query: bool = True
    """Whether the caller's query goes along, all but the parameters that ``to`` names."""

    @stated
    def documentation(self) -> Documentation:
        """What is answered where no target comes out."""
        return Documentation(answers=(Answer(400, ("bad-target",)),) if "{" in self.to else ())

    def __post_init__(self) -> None:
        """Both templates must be such that a canonical path can match and can come out."""
        self._compiled()

    def bind(self, env: Env) -> "_Rewriting":
        """The compiled templates."""
        return self._compiled()

    def _compiled(self) -> "_Rewriting":
        try:
            shape = shape_of(self.match)
        except ValueError as error:
            cure = 'Write match="/users/{id}" or match="/api/{rest:path}"'
            raise self.mistake("match", f"matches no path: {error}", cure) from None
        try:
            return _Rewriting(shape, target_of(self.to, shape), copy=self.copy_query)
        except ValueError as error:
            cure = 'Write to="/people/{id}", to="/{rest}" or to="/people?id={id}"'
            raise self.mistake("to", f"makes no target: {error}", cure) from None


@dataclass(frozen=True, kw_only=True)
class SetQuery(Policy):
    """Set a query parameter of every request; the others stay byte for byte.

    Names are compared decoded and letter by letter. A function's text that UTF-8 cannot carry (half a surrogate pair)
    is logged and refused with 400 ``bad-query-value``. Follows Azure's ``set-query-parameter``.
    """

    guards = False

    name: str
    """The parameter's name, as it reads decoded."""

    value: str | tuple[str, ...] | Callable[[Exchange], str | None] = field(repr=False)
    """The text, several texts for a repeated parameter, or a plain function of the exchange, with None for no text."""

    exists: Literal["override", "append", "skip"] = "override"
    """What happens to those of this name: they give way (also to a function's None), stay before it, or win over it."""

    @stated
    def needs(self) -> frozenset[str]:
        """What the function relies on, when it is one of ``by``."""
        return needs(self.value) if callable(self.value) else frozenset()

    def __post_init__(self) -> None:
        """There must be a name, and a value that can be sent or a function that need not be awaited."""
        _check_name(self)
        if awaits(self.value):
            raise self.mistake("value", "must be awaited", "Give a plain function")
        if self.value == ():
            raise self.mistake("value", "holds nothing", "Use RemoveQuery to take a parameter away")
        if not callable(self.value) and not all(map(is_text, _texts(self.value))):
            raise self.mistake("value", "holds half a surrogate pair", "Give text that UTF-8 can carry")

    def bind(self, env: Env) -> "_Setting":
        """The parameter, encoded."""
        return _Setting(self)


@dataclass(frozen=True, kw_only=True)
class RemoveQuery(Policy):
    """Take a query parameter away from every request; the others stay byte for byte.

    Follows Azure's ``set-query-parameter`` with ``exists-action="delete"``.
    """

    guards = False

    name: str
    """The parameter's name, as it reads decoded; every parameter of this name goes."""

    def __post_init__(self) -> None:
        """There must be a name."""
        _check_name(self)

    def on_request(self, exchange: Exchange) -> None:
        """Take it away."""
        scope = exchange.scope
        scope["query_string"] = queries.remove(scope.get("query_string", b""), self.name)


# Paths: what RewritePath does


class _Rewriting:
    """Matches canonical paths and puts what callers sent, still encoded, where ``to`` says."""

    def __init__(self, shape: Shape, target: Target, *, copy: bool) -> None:
        self._shape = shape
        self._target = target
        self._copy = copy

    def on_request(self, exchange: Exchange) -> None:
        scope = exchange.scope
        root, path = routed_path(scope)
        if self._shape.pattern.fullmatch(path) is None:
            return
        try:
            front, segments = sent(scope, self._shape, root)
            target = canonical(front + path_of(self._target, segments))
        except ValueError:
            raise Refusal(400, "bad-target", "The request target cannot be rewritten.") from None
        scope.setdefault(ORIGINAL_PATH, scope["path"])
        scope["path"], scope["raw_path"] = target
        if self._target.query or not self._copy:
            query = scope.get("query_string", b"") if self._copy else b""
            scope["query_string"] = query_of(self._target, segments, query)


# Parameters: what SetQuery does


class _Setting:
    def __init__(self, rule: SetQuery) -> None:
        self._name = rule.name
        self._exists = rule.exists
        self._function = rule.value if callable(rule.value) else None
        self._pairs = b"" if callable(rule.value) else queries.encoded(rule.name, _texts(rule.value))

    def on_request(self, exchange: Exchange) -> None:
        scope = exchange.scope
        query = scope.get("query_string", b"")
        if self._exists == "skip" and queries.values(query, self._name):
            return
        pairs = self._pairs if self._function is None else self._made(self._function(exchange))
        if self._exists == "override":
            query = queries.remove(query, self._name)
        scope["query_string"] = queries.append(query, pairs)

    def _made(self, value: str | None) -> bytes:
        if value is None:
            return b""
        try:
            return queries.encoded(self._name, [value])
        except ValueError:
            log.warning("no value for the query parameter %s: half a surrogate pair", self._name)
            raise Refusal(400, "bad-query-value", "A parameter made from this request cannot be sent.") from None


def _check_name(policy: SetQuery | RemoveQuery) -> None:
    if not policy.name or not is_text(policy.name):
        raise policy.mistake("name", "names no parameter", "Give the name as it reads decoded")


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
