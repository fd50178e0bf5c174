"""The request target, changed before the app sees it: paths rewritten, query parameters set and removed.

Azure's rewrite-uri and set-query-parameter.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import quote, unquote, unquote_to_bytes

from apim_middleware import by
from apim_middleware._http import queries
from apim_middleware._http.paths import canonical_path, is_plain
from apim_middleware.conditions import routed_path, written_path
from apim_middleware.env import Env
from apim_middleware.errors import Refusal
from apim_middleware.exchange import Exchange
from apim_middleware.policy import Policy
from apim_middleware.types import Scope

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

    match: str
    """The paths to rewrite: ``"/v1/users/{id}"``, ``"/api/{rest:path}"``."""

    to: str
    """What they become: ``"/people/{id}"``, ``"/{rest}"``, ``"/search?kind=user&id={id}"``."""

    copy_query: bool = True
    """Whether the caller's query goes along, all but the parameters that ``to`` names."""

    def __post_init__(self) -> None:
        """Both templates must be such that a canonical path can match and can come out."""
        self._compiled()

    def bind(self, env: Env) -> "_Rewriting":
        """The compiled templates."""
        return self._compiled()

    def _compiled(self) -> "_Rewriting":
        try:
            shape = _shape(self.match)
        except ValueError as error:
            cure = 'Write match="/users/{id}" or match="/api/{rest:path}"'
            raise self.mistake("match", f"matches no path: {error}", cure) from None
        path, _, query = self.to.partition("?")
        try:
            return _Rewriting(shape, _path_pieces(path, shape), _query_pieces(query, shape), copy=self.copy_query)
        except ValueError as error:
            cure = 'Write to="/people/{id}", to="/{rest}" or to="/people?id={id}"'
            raise self.mistake("to", f"makes no target: {error}", cure) from None


@dataclass(frozen=True, kw_only=True)
class SetQuery(Policy):
    """Set a query parameter of every request; the others stay byte for byte.

    Names are compared decoded and letter by letter. A function's text that UTF-8 cannot carry (half a surrogate pair)
    is logged and refused with 400 ``bad-query-value``. Follows Azure's ``set-query-parameter``.
    """

    name: str
    """The parameter's name, as it reads decoded."""

    value: str | tuple[str, ...] | Callable[[Exchange], str | None] = field(repr=False)
    """The text, several texts for a repeated parameter, or a plain function of the exchange, with None for no text."""

    exists: Literal["override", "append", "skip"] = "override"
    """What happens to those of this name: they give way (also to a function's None), stay before it, or win over it."""

    @property
    def needs(self) -> frozenset[str]:
        """What the function relies on, when it is one of ``by``."""
        return by.needs(self.value) if callable(self.value) else frozenset()

    def __post_init__(self) -> None:
        """There must be a name, and a value that can be sent or a function that need not be awaited."""
        _check_name(self)
        if iscoroutinefunction(self.value):
            raise self.mistake("value", "must be awaited", "Give a plain function")
        if self.value == ():
            raise self.mistake("value", "holds nothing", "Use RemoveQuery to take a parameter away")
        if not callable(self.value) and not all(map(_is_text, _texts(self.value))):
            raise self.mistake("value", "holds half a surrogate pair", "Give text that UTF-8 can carry")

    def bind(self, env: Env) -> "_Setting":
        """The parameter, encoded."""
        return _Setting(self)


@dataclass(frozen=True, kw_only=True)
class RemoveQuery(Policy):
    """Take a query parameter away from every request; the others stay byte for byte.

    Follows Azure's ``set-query-parameter`` with ``exists-action="delete"``.
    """

    name: str
    """The parameter's name, as it reads decoded; every parameter of this name goes."""

    def __post_init__(self) -> None:
        """There must be a name."""
        _check_name(self)

    def on_request(self, exchange: Exchange) -> None:
        """Take it away."""
        scope = exchange.scope
        scope["query_string"] = queries.remove(scope.get("query_string", b""), self.name)


# Templates: what RewritePath compiles

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_REST = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*):path\}")
_UNESCAPED = "/:@!$&'()*+,;="  # in a path, beside the unreserved characters (RFC 3986 §3.3)

_Pieces: TypeAlias = Sequence[bytes | int]
"""Encoded text, and the numbers of the segments that go between."""


class _Shape(NamedTuple):
    """A compiled ``match``: the paths of this shape, the number of the segment each name stands for."""

    pattern: re.Pattern[str]
    places: Mapping[str, int]
    size: int  # segments before the rest, which has this number
    has_rest: bool


def _shape(template: str) -> _Shape:
    front, slash, last = template.rpartition("/")
    rest = _REST.fullmatch(last) if slash else None
    segments = (front if rest else template).split("/")
    names = [_NAME.fullmatch(segment) for segment in segments] + [rest]
    places = {name[1]: number for number, name in enumerate(names) if name}
    if len(places) < len(names) - names.count(None):
        raise ValueError("it holds a name twice")
    pattern = "/".join(map(_segment_pattern, segments))
    written_path(_NAME.sub("x", "/".join([*segments, "x"] if rest else segments)))
    return _Shape(re.compile(f"{pattern}(?:/.*)?" if rest else pattern), places, len(segments), rest is not None)


def _segment_pattern(segment: str) -> str:
    if _NAME.fullmatch(segment):
        return "[^/]+"
    if "{" in segment or "}" in segment:
        raise ValueError("a {name} is a whole segment, and {name:path} the last")
    return re.escape(segment)


def _path_pieces(template: str, shape: _Shape) -> _Pieces:
    written_path(_NAME.sub("x", template))
    pieces = _pieces(template, shape, unescaped=_UNESCAPED)
    if not (shape.has_rest and shape.size in pieces):
        return pieces
    *before, slash, number, end = pieces
    if number != shape.size or number in before or end or not (isinstance(slash, bytes) and slash.endswith(b"/")):
        raise ValueError("the rest can only be the last segment")
    return [*before, slash[:-1], number]  # it brings its own slash


def _query_pieces(template: str, shape: _Shape) -> Mapping[str, Sequence[_Pieces]]:
    found: dict[str, list[_Pieces]] = {}
    for pair in template.split("&") if template else ():
        name, _, value = pair.partition("=")
        if not name or "{" in name or "#" in pair or unquote(pair) != pair:
            raise ValueError("its query holds a parameter without a name, a percent-escape or a fragment")
        pieces = _pieces(value, shape, unescaped="")
        found.setdefault(name, []).append([queries.encoded(name, [""]), *pieces])
    return found


def _pieces(template: str, shape: _Shape, *, unescaped: str) -> list[bytes | int]:
    texts, names = _NAME.split(template)[::2], _NAME.findall(template)
    if any("{" in text or "}" in text for text in texts):
        raise ValueError("a brace belongs to no {name}")
    if unknown := [name for name in names if name not in shape.places]:
        raise ValueError(f"match has no {{{unknown[0]}}}")
    pieces: list[bytes | int] = [quote(texts[0], safe=unescaped).encode()]
    for name, text in zip(names, texts[1:], strict=True):
        pieces += [shape.places[name], quote(text, safe=unescaped).encode()]
    return pieces


class _Rewriting:
    """Matches canonical paths and puts what callers sent, still encoded, where ``to`` says."""

    def __init__(self, shape: _Shape, path: _Pieces, query: Mapping[str, Sequence[_Pieces]], *, copy: bool) -> None:
        self._shape = shape
        self._path = path
        self._query = query
        self._copy = copy

    def on_request(self, exchange: Exchange) -> None:
        scope = exchange.scope
        root, path = routed_path(scope)
        if self._shape.pattern.fullmatch(path) is None:
            return
        try:
            front, segments = self._sent(scope, root.count("/"))
            target = _canonical(front + (_filled(self._path, segments) or b"/"))
        except ValueError:
            raise Refusal(400, "bad-target", "The request target cannot be rewritten.") from None
        scope.setdefault(ORIGINAL_PATH, scope["path"])
        scope["path"], scope["raw_path"] = target
        if self._query or not self._copy:
            scope["query_string"] = self._query_with(segments, scope.get("query_string", b""))

    def _sent(self, scope: Scope, mounted: int) -> tuple[bytes, list[bytes]]:
        """The path as it was sent: what stands before the app, of so many segments, and the segments to rewrite."""
        parts = _raw_path(scope).split(b"/", mounted + self._shape.size)
        segments = parts[mounted:]
        if self._shape.has_rest:
            rest = segments[self._shape.size :]
            segments[self._shape.size :] = [b"/" + rest[0] if rest else b""]
        return b"/".join([b"", *parts[1 : mounted + 1]]), segments

    def _query_with(self, segments: Sequence[bytes], sent: bytes) -> bytes:
        query = sent if self._copy else b""
        for name, parameters in self._query.items():
            query = queries.remove(query, name)
            for pieces in parameters:
                query = queries.append(query, _filled(pieces, segments, _as_value))
        return query


def _filled(pieces: _Pieces, segments: Sequence[bytes], written: Callable[[bytes], bytes] = bytes) -> bytes:
    return b"".join([written(segments[piece]) if isinstance(piece, int) else piece for piece in pieces])


def _as_value(segment: bytes) -> bytes:
    return quote(unquote_to_bytes(segment), safe="").encode()


def _raw_path(scope: Scope) -> bytes:
    """The path as it was sent, or encoded anew when a layer further out changed the path and left the bytes behind."""
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if raw is not None and (is_plain(path, raw) or _canonical(raw)[0] == path):
        return raw
    return canonical_path(path, None)[1]


def _canonical(raw: bytes) -> tuple[str, bytes]:
    text = raw.decode("ascii")
    return (text, raw) if is_plain(text, raw) else canonical_path(unquote(text), raw, keep_encoded_slashes=True)


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
    if not policy.name or not _is_text(policy.name):
        raise policy.mistake("name", "names no parameter", "Give the name as it reads decoded")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
