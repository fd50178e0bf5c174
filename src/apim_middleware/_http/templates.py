"""Templates of paths: ``/users/{id}`` and ``/api/{rest:path}``, and what is made of the paths that match one.

What callers sent stays one segment, escaped as they escaped it: it cannot add segments, a query or a host.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import quote, unquote, unquote_to_bytes

from apim_middleware._http import queries
from apim_middleware._http.paths import canonical_path, is_plain, written_path
from apim_middleware.types import Scope

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_REST = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*):path\}")
UNESCAPED = "/:@!$&'()*+,;="
"""What stands in a path as it is, beside the unreserved characters (RFC 3986 §3.3)."""

Pieces: TypeAlias = Sequence[bytes | int]
"""Encoded text, and the numbers of the segments that go between."""


class Shape(NamedTuple):
    """A compiled template: the paths of this shape, the number of the segment each name stands for."""

    pattern: re.Pattern[str]
    places: Mapping[str, int]
    size: int
    """Segments before the rest, which has this number."""

    has_rest: bool


class Target(NamedTuple):
    """What a path becomes: its pieces, and those of each query parameter."""

    path: Pieces
    query: Mapping[str, Sequence[Pieces]]


# Compiling


def shape_of(template: str) -> Shape:
    """The shape a template describes; ValueError when no canonical path could have it."""
    front, slash, last = template.rpartition("/")
    rest = _REST.fullmatch(last) if slash else None
    segments = (front if rest else template).split("/")
    names = [_NAME.fullmatch(segment) for segment in segments] + [rest]
    places = {name[1]: number for number, name in enumerate(names) if name}
    if len(places) < len(names) - names.count(None):
        raise ValueError("it holds a name twice")
    pattern = "/".join(map(_segment_pattern, segments))
    written_path(_NAME.sub("x", "/".join([*segments, "x"] if rest else segments)))
    return Shape(re.compile(f"{pattern}(?:/.*)?" if rest else pattern), places, len(segments), rest is not None)


def _segment_pattern(segment: str) -> str:
    if _NAME.fullmatch(segment):
        return "[^/]+"
    if "{" in segment or "}" in segment:
        raise ValueError("a {name} is a whole segment, and {name:path} the last")
    if "*" in segment:
        raise ValueError("a star stands for nothing, and {name:path} for all that is below")
    return re.escape(segment)


def target_of(template: str, shape: Shape) -> Target:
    """What a template makes of paths of this shape; ValueError when it names what they have not, or makes no path."""
    path, _, query = template.partition("?")
    return Target(_path_pieces(path, shape), _query_pieces(query, shape))


def _path_pieces(template: str, shape: Shape) -> Pieces:
    written_path(_NAME.sub("x", template))
    pieces = _pieces(template, shape, unescaped=UNESCAPED)
    if not (shape.has_rest and shape.size in pieces):
        return pieces
    *before, slash, number, end = pieces
    if number != shape.size or number in before or end or not (isinstance(slash, bytes) and slash.endswith(b"/")):
        raise ValueError("the rest can only be the last segment")
    return [*before, slash[:-1], number]  # it brings its own slash


def _query_pieces(template: str, shape: Shape) -> Mapping[str, Sequence[Pieces]]:
    found: dict[str, list[Pieces]] = {}
    for pair in template.split("&") if template else ():
        name, _, value = pair.partition("=")
        if not name or "{" in name or "#" in pair or unquote(pair) != pair:
            raise ValueError("its query holds a parameter without a name, a percent-escape or a fragment")
        pieces = _pieces(value, shape, unescaped="")
        found.setdefault(name, []).append([queries.encoded(name, [""]), *pieces])
    return found


def _pieces(template: str, shape: Shape, *, unescaped: str) -> list[bytes | int]:
    texts, names = _NAME.split(template)[::2], _NAME.findall(template)
    if any("{" in text or "}" in text for text in texts):
        raise ValueError("a brace belongs to no {name}")
    if unknown := [name for name in names if name not in shape.places]:
        raise ValueError(f"match has no {{{unknown[0]}}}")
    pieces: list[bytes | int] = [quote(texts[0], safe=unescaped).encode()]
    for name, text in zip(names, texts[1:], strict=True):
        pieces += [shape.places[name], quote(text, safe=unescaped).encode()]
    return pieces


# Filling in


def sent(scope: Scope, shape: Shape, root: str) -> tuple[bytes, list[bytes]]:
    """A path of this shape as it was sent: what stands before an app mounted at ``root``, and the segments behind."""
    mounted = root.count("/")
    parts = raw_path(scope).split(b"/", mounted + shape.size)
    segments = parts[mounted:]
    if shape.has_rest:
        rest = segments[shape.size :]
        segments[shape.size :] = [b"/" + rest[0] if rest else b""]
    return b"/".join([b"", *parts[1 : mounted + 1]]), segments


def path_of(target: Target, segments: Sequence[bytes]) -> bytes:
    """The path with these segments, encoded."""
    return _filled(target.path, segments) or b"/"


def query_of(target: Target, segments: Sequence[bytes], query: bytes) -> bytes:
    """The query with the parameters of the target in the place of those of their names."""
    for name, parameters in target.query.items():
        query = queries.remove(query, name)
        for pieces in parameters:
            query = queries.append(query, _filled(pieces, segments, _as_value))
    return query


def _filled(pieces: Pieces, segments: Sequence[bytes], written: Callable[[bytes], bytes] = bytes) -> bytes:
    return b"".join([written(segments[piece]) if isinstance(piece, int) else piece for piece in pieces])


def _as_value(segment: bytes) -> bytes:
    return quote(unquote_to_bytes(segment), safe="").encode()


def raw_path(scope: Scope) -> bytes:
    """The path as it was sent, or encoded anew when a layer further out changed the path and left the bytes behind."""
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if raw is not None and (is_plain(path, raw) or canonical(raw)[0] == path):
        return raw
    return canonical_path(path, None)[1]


def canonical(raw: bytes) -> tuple[str, bytes]:
    """The canonical form of a path that may hold encoded slashes; ValueError when it has none."""
    text = raw.decode("ascii")
    return (text, raw) if is_plain(text, raw) else canonical_path(unquote(text), raw, keep_encoded_slashes=True)
